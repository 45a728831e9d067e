"""Outputs that are sequences of positions: exact agreement, and the base of metrics that are means over sets."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

__all__ = ["ExactMatch", "exact_match"]


def entries(sequences: Tensor) -> tuple[Tensor, Tensor]:
    """Return which entries of padded sequences count, and how many there are in each.

    Args:
        sequences: positions int64 (B, M), negative after the last of each.

    Example:
        >>> entries(torch.tensor([[3, 0, -100]]))[1].tolist()
        [2]
    """
    if not isinstance(sequences, Tensor) or sequences.dim() != 2 or sequences.dtype != torch.int64:
        given = (
            f"{sequences.dtype} {tuple(sequences.shape)}" if isinstance(sequences, Tensor) else type(sequences).__name__
        )
        raise ValueError(f"positions are {given}; give int64 (B, M), negative after the last of each: no scores")
    known = sequences >= 0
    return known, known.sum(1)


def same_rows(one: Tensor, other: Tensor) -> None:
    """Refuse tensors of different numbers of sets, of which one would be broadcast.

    Args:
        one: a tensor with a row for each set.
        other: another one.

    Raises:
        ValueError: if the numbers differ.

    Example:
        >>> same_rows(torch.zeros(2, 3), torch.zeros(2))
    """
    if len(one) != len(other):
        raise ValueError(
            f"shapes are {tuple(one.shape)} and {tuple(other.shape)}; both need one row for each set of points"
        )


def exact_match(preds: Tensor, target: Tensor) -> Tensor:
    """Return whether each sequence of positions equals its target, bool (B,).

    Args:
        preds: positions int64 (B, M), negative after the last of each.
        target: positions int64 (B, m), negative after the last of each.

    Example:
        >>> exact_match(torch.tensor([[1, 0, -100], [1, 0, 2]]), torch.tensor([[1, 0], [1, 0]])).tolist()
        [True, False]
    """
    (known, size), (_, wanted) = entries(preds), entries(target)
    same_rows(preds, target)
    shared = min(preds.shape[1], target.shape[1])
    same = (preds[:, :shared] == target[:, :shared]) | ~known[:, :shared]
    return same.all(1) & (size == wanted)


class MeanOverSets(Metric):
    """Base of metrics that are a mean over the sets of points for which a number is defined.

    Reduction over processes: sum of the numbers over their count. A subclass defines :meth:`numbers`.

    Args:
        kwargs: arguments of ``torchmetrics.Metric``.

    Example:
        >>> issubclass(ExactMatch, MeanOverSets)
        True
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("total", default=torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", default=torch.tensor(0), dist_reduce_fx="sum")

    def numbers(self, preds: Tensor, target: Tensor, points: Tensor, lengths: Tensor) -> Tensor:
        """Return a number for each set, (B,), NaN where it is not defined.

        Args:
            preds: predicted positions int64 (B, M), negative after the last of each.
            target: true positions int64 (B, m), negative after the last of each.
            points: points (B, n, 2).
            lengths: number of points of each set, int64 (B,).
        """
        raise NotImplementedError(f"{type(self).__name__} must define numbers")

    def update(self, preds: Tensor, target: Tensor, points: Tensor, lengths: Tensor) -> None:
        """Add one batch.

        Args:
            preds: predicted positions int64 (B, M), negative after the last of each.
            target: true positions int64 (B, m), negative after the last of each.
            points: points (B, n, 2).
            lengths: number of points of each set, int64 (B,).
        """
        # a number that is NaN for want of a point would be left out as not defined
        if points.device.type == "cpu" and bool(torch.isnan(points).any()):
            raise ValueError("points hold NaN; give 0 for padding, and leave out sets with missing points")
        found = self.numbers(preds, target, points, lengths).double()
        known = ~torch.isnan(found)
        self.total += torch.where(known, found, 0).sum()
        self.count += known.sum()

    def compute(self) -> Tensor:
        """Return the mean; NaN if there is no set for which the number is defined."""
        return (self.total / self.count).float()


class ExactMatch(MeanOverSets):
    """Share of the outputs that equal their targets in every symbol; see :func:`exact_match`.

    Args:
        kwargs: arguments of ``torchmetrics.Metric``.

    Example:
        >>> metric = ExactMatch()
        >>> metric.update(torch.tensor([[1, 0]]), torch.tensor([[1, 0]]))
        >>> metric.compute()
        tensor(1.)
    """

    def update(
        self, preds: Tensor, target: Tensor, points: Tensor | None = None, lengths: Tensor | None = None
    ) -> None:
        """Add one batch.

        Args:
            preds: predicted symbols int64 (B, M), negative after the last of each.
            target: true symbols int64 (B, m), negative after the last of each.
            points: inputs, which are not read; metrics of points share their arguments.
            lengths: number of steps of each input, which is not read.
        """
        right = exact_match(preds, target)
        self.total += right.sum()
        self.count += len(right)


def taken(points: Tensor, sequences: Tensor) -> Tensor:
    """Return the points at some positions in float64, (B, M, 2); those of padding have no meaning.

    Args:
        points: points (B, n, 2).
        sequences: positions int64 (B, M), negative after the last of each.

    Example:
        >>> taken(torch.tensor([[[0.0, 1.0], [2.0, 3.0]]]), torch.tensor([[1, -100]]))[0, 0].tolist()
        [2.0, 3.0]
    """
    if points.dim() != 3 or points.shape[2] != 2:
        raise ValueError(f"points have shape {tuple(points.shape)}; (B, n, 2) is needed")
    same_rows(points, sequences)
    return points.double().gather(1, sequences.clamp(min=0)[..., None].expand(-1, -1, points.shape[2]))


def following(sequences: Tensor) -> Tensor:
    """Return the position after each one, the first one after the last, as closed polygons and tours have it.

    Args:
        sequences: positions int64 (B, M), negative after the last of each.

    Example:
        >>> following(torch.tensor([[3, 1, 2, -100]])).tolist()
        [[1, 2, 3, -100]]
    """
    known, size = entries(sequences)
    last = torch.arange(sequences.shape[1], device=sequences.device) == (size - 1)[:, None]
    after = torch.where(last, sequences[:, :1], sequences.roll(-1, 1))
    return torch.where(known, after, sequences)
