"""Closed tours through points: their length, beside that of the shortest tour."""

import torch
from torch import Tensor

from graphseq.metrics.pointing.positions import MeanOverSets, entries, following, taken

__all__ = ["TourGap", "TourLength", "ValidTourRate", "is_tour", "tour_length"]


def tour_length(points: Tensor, tour: Tensor) -> Tensor:
    """Return the length of each closed tour, with the way back to its beginning, float64 (B,).

    Args:
        points: points (B, n, 2).
        tour: positions int64 (B, M), negative after the last of each.

    Example:
        >>> square = torch.tensor([[[0.0, 0.0], [2.0, 0.0], [2.0, 2.0], [0.0, 2.0]]])
        >>> tour_length(square, torch.tensor([[0, 1, 2, 3]])).tolist()
        [8.0]
    """
    way = taken(points, following(tour)) - taken(points, tour)
    return way.norm(dim=2).masked_fill(tour < 0, 0).sum(1)


def is_tour(tour: Tensor, lengths: Tensor) -> Tensor:
    """Return whether each sequence has each point of its set once, bool (B,).

    Args:
        tour: positions int64 (B, M), negative after the last of each.
        lengths: number of points of each set, int64 (B,).

    Example:
        >>> is_tour(torch.tensor([[1, 0, 2], [1, 0, 1]]), torch.tensor([3, 3])).tolist()
        [True, False]
    """
    known, size = entries(tour)
    if lengths.shape != size.shape:
        raise ValueError(f"lengths has shape {tuple(lengths.shape)}; ({len(size)},) is needed, one for each tour")
    ordered = torch.where(known, tour, torch.iinfo(torch.int64).max).sort(1).values
    inside = torch.arange(tour.shape[1], device=tour.device) < lengths[:, None]
    places = torch.arange(tour.shape[1], device=tour.device)
    return (size == lengths) & ((ordered == places) | ~inside).all(1)


class ValidTourRate(MeanOverSets):
    """Share of the sets whose prediction is a tour; see :func:`is_tour`.

    Args:
        kwargs: arguments of ``torchmetrics.Metric``.

    Example:
        >>> metric = ValidTourRate()
        >>> metric.update(torch.tensor([[2, 1, 1]]), torch.tensor([[0, 1, 2]]), torch.rand(1, 3, 2), torch.tensor([3]))
        >>> metric.compute()
        tensor(0.)
    """

    def numbers(self, preds: Tensor, target: Tensor, points: Tensor, lengths: Tensor) -> Tensor:
        """Return 1 for each tour, else 0.

        Args:
            preds: predicted positions int64 (B, M), negative after the last of each.
            target: shortest tours, which are not read.
            points: points, which are not read.
            lengths: number of points of each set, int64 (B,).
        """
        return is_tour(preds, lengths)


class TourLength(MeanOverSets):
    """Mean length of the predicted tours, over the sets whose prediction is a tour.

    Args:
        kwargs: arguments of ``torchmetrics.Metric``.

    Example:
        >>> square = torch.tensor([[[0.0, 0.0], [2.0, 0.0], [2.0, 2.0], [0.0, 2.0]]])
        >>> metric = TourLength()
        >>> metric.update(torch.tensor([[3, 2, 1, 0]]), torch.tensor([[0, 1, 2, 3]]), square, torch.tensor([4]))
        >>> metric.compute()
        tensor(8.)
    """

    higher_is_better = False

    def numbers(self, preds: Tensor, target: Tensor, points: Tensor, lengths: Tensor) -> Tensor:
        """Return the length of each tour, NaN where the prediction is none.

        Args:
            preds: predicted positions int64 (B, M), negative after the last of each.
            target: shortest tours, which are not read.
            points: points (B, n, 2).
            lengths: number of points of each set, int64 (B,).
        """
        return torch.where(is_tour(preds, lengths), tour_length(points, preds), torch.nan)


class TourGap(TourLength):
    r"""Mean of the length of a predicted tour over that of the shortest, less 1, over the predictions that are tours.

    Args:
        kwargs: arguments of ``torchmetrics.Metric``.

    Example:
        >>> square = torch.tensor([[[0.0, 0.0], [2.0, 0.0], [2.0, 2.0], [0.0, 2.0]]])
        >>> metric = TourGap()
        >>> metric.update(torch.tensor([[3, 2, 1, 0]]), torch.tensor([[0, 1, 2, 3]]), square, torch.tensor([4]))
        >>> metric.compute()
        tensor(0.)
    """

    def numbers(self, preds: Tensor, target: Tensor, points: Tensor, lengths: Tensor) -> Tensor:
        """Return the gap of each tour, NaN where the prediction is none.

        Args:
            preds: predicted positions int64 (B, M), negative after the last of each.
            target: shortest tours int64 (B, m), negative after the last of each.
            points: points (B, n, 2).
            lengths: number of points of each set, int64 (B,).
        """
        return super().numbers(preds, target, points, lengths) / tour_length(points, target) - 1
