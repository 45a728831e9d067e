"""Triangulations: sets of triples of positions."""

import torch
from torch import Tensor

from graphseq.metrics.pointing.positions import MeanOverSets, entries, same_rows

__all__ = ["TriangleAccuracy", "TriangleCoverage", "shared_triangles"]


def shared_triangles(preds: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the number of triangles that are in both sets, in the first, and in the second, int64 (B,).

    Three successive positions are a triangle, whatever their order; one that occurs twice counts once, a rest of one or
    two positions counts as a further triangle, which is in no other set.

    Args:
        preds: positions int64 (B, M), negative after the last of each.
        target: positions int64 (B, m), negative after the last of each.

    Example:
        >>> both, ours, theirs = shared_triangles(torch.tensor([[2, 0, 1, 3]]), torch.tensor([[0, 1, 2, 1, 2, 3]]))
        >>> int(both), int(ours), int(theirs)
        (1, 2, 2)
    """
    for sequences in (preds, target):
        entries(sequences)  # checks them
    same_rows(preds, target)
    base = max((int(each.max()) for each in (preds, target) if each.numel()), default=0)
    base = max(base, 0) + 1
    (ours, rest), (theirs, _) = _keys(preds, base), _keys(target, base)
    first = _first_of_each(ours)
    both = ((ours[:, :, None] == theirs[:, None]) & first[:, :, None]).any(2).sum(1)
    return both, first.sum(1) + rest, _first_of_each(theirs).sum(1)


def _keys(sequences: Tensor, base: int) -> tuple[Tensor, Tensor]:
    """Return one number for each triple, -1 or -2 for padding, and whether positions are left over."""
    _, size = entries(sequences)
    sequences = sequences[:, : sequences.shape[1] // 3 * 3]
    triples = sequences.unflatten(1, (-1, 3)).sort(2).values  # (B, t, 3)
    keys = (triples[..., 0] * base + triples[..., 1]) * base + triples[..., 2]
    return torch.where((triples >= 0).all(2), keys, -1), (size % 3 != 0).long()


def _first_of_each(keys: Tensor) -> Tensor:
    """Return whether each number is the first of its kind in its row, and no padding."""
    places = torch.arange(keys.shape[1], device=keys.device)
    earlier = (keys[:, :, None] == keys[:, None]) & (places < places[:, None])
    return (keys >= 0) & ~earlier.any(2)


class TriangleAccuracy(MeanOverSets):
    """Share of the sets whose predicted triangles are the true ones, in whichever order.

    Args:
        kwargs: arguments of ``torchmetrics.Metric``.

    Example:
        >>> metric = TriangleAccuracy()
        >>> metric.update(torch.tensor([[2, 1, 0]]), torch.tensor([[0, 1, 2]]), torch.rand(1, 3, 2), torch.tensor([3]))
        >>> metric.compute()
        tensor(1.)
    """

    def numbers(self, preds: Tensor, target: Tensor, points: Tensor, lengths: Tensor) -> Tensor:
        """Return 1 for each set that is right, else 0.

        Args:
            preds: predicted positions int64 (B, M), negative after the last of each.
            target: true positions int64 (B, m), negative after the last of each.
            points: points, which are not read.
            lengths: number of points of each set, which is not read.
        """
        both, ours, theirs = shared_triangles(preds, target)
        return (both == theirs) & (ours == theirs)


class TriangleCoverage(MeanOverSets):
    """Mean share of the true triangles that are predicted.

    Args:
        kwargs: arguments of ``torchmetrics.Metric``.

    Example:
        >>> metric = TriangleCoverage()
        >>> target = torch.tensor([[0, 1, 2, 1, 2, 3]])
        >>> metric.update(torch.tensor([[2, 1, 0]]), target, torch.rand(1, 4, 2), torch.tensor([4]))
        >>> metric.compute()
        tensor(0.5000)
    """

    def numbers(self, preds: Tensor, target: Tensor, points: Tensor, lengths: Tensor) -> Tensor:
        """Return the share of each set.

        Args:
            preds: predicted positions int64 (B, M), negative after the last of each.
            target: true positions int64 (B, m), negative after the last of each.
            points: points, which are not read.
            lengths: number of points of each set, which is not read.
        """
        both, _, theirs = shared_triangles(preds, target)
        return both.double() / theirs
