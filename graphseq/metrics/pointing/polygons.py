"""Polygons whose corners are input points: the same polygon, simple polygons, and the area that they cover."""

import torch
from torch import Tensor

from graphseq.metrics.pointing.positions import MeanOverSets, entries, exact_match, following, taken

__all__ = [
    "AreaCoverage",
    "PolygonAccuracy",
    "SimplePolygonRate",
    "is_simple_polygon",
    "polygon_area",
    "same_polygon",
]


def opened(sequences: Tensor) -> Tensor:
    """Return polygons without the repetition of the first corner at the end.

    Args:
        sequences: corners int64 (B, M), negative after the last of each.

    Example:
        >>> opened(torch.tensor([[1, 0, 2, 1]])).tolist()
        [[1, 0, 2, -100]]
    """
    _, size = entries(sequences)
    last = (size - 1).clamp(min=0)[:, None]
    repeated = (sequences.gather(1, last) == sequences[:, :1]) & (size > 1)[:, None]
    return torch.where(repeated & (torch.arange(sequences.shape[1], device=size.device) == last), -100, sequences)


def same_polygon(preds: Tensor, target: Tensor) -> Tensor:
    """Return whether each polygon is the target, from whichever corner and in whichever direction, bool (B,).

    A repetition of the first corner at the end is left out on both sides.

    Args:
        preds: corners int64 (B, M), negative after the last of each.
        target: corners int64 (B, m), negative after the last of each.

    Example:
        >>> same_polygon(torch.tensor([[2, 1, 0], [0, 1, 3]]), torch.tensor([[0, 1, 2], [0, 1, 2]])).tolist()
        [True, False]
    """
    preds, target = opened(preds), opened(target)
    wanted = _rotated(target, 1)
    return exact_match(_rotated(preds, 1), wanted) | exact_match(_rotated(preds, -1), wanted)


def _rotated(sequences: Tensor, direction: int) -> Tensor:
    """Return polygons from their smallest position on, forwards or backwards."""
    known, size = entries(sequences)
    smallest = torch.where(known, sequences, torch.iinfo(torch.int64).max).argmin(1, keepdim=True)
    steps = torch.arange(sequences.shape[1], device=sequences.device)
    place = (smallest + direction * steps) % size.clamp(min=1)[:, None]
    return torch.where(known, sequences.gather(1, place), sequences)


def polygon_area(points: Tensor, corners: Tensor) -> Tensor:
    r"""Return the area of each polygon, float64 (B,).

    .. math:: A = \tfrac12 \bigl|\sum_i (x_i y_{i+1} - x_{i+1} y_i)\bigr|

    Args:
        points: points (B, n, 2).
        corners: corners int64 (B, M), negative after the last of each.

    Example:
        >>> square = torch.tensor([[[0.0, 0.0], [2.0, 0.0], [2.0, 2.0], [0.0, 2.0]]])
        >>> polygon_area(square, torch.tensor([[0, 1, 2, 3]])).tolist()
        [4.0]
    """
    here, there = taken(points, corners), taken(points, following(corners))
    # from the first corner, so that products of large coordinates do not cancel
    here, there = here - here[:, :1], there - here[:, :1]
    parts = _cross(here, there).masked_fill(corners < 0, 0)
    return parts.sum(1).abs() / 2


def is_simple_polygon(points: Tensor, corners: Tensor) -> Tensor:
    """Return whether each polygon is simple: three or more corners, and edges that meet at common corners only.

    A repetition of the first corner at the end is left out. Memory grows with the square of the number of corners.

    Args:
        points: points (B, n, 2).
        corners: corners int64 (B, M), negative after the last of each.

    Example:
        >>> square = torch.tensor([[0.0, 0.0], [2.0, 0.0], [2.0, 2.0], [0.0, 2.0]]).expand(2, 4, 2)
        >>> is_simple_polygon(square, torch.tensor([[0, 1, 2, 3], [0, 2, 1, 3]])).tolist()
        [True, False]
    """
    corners = opened(corners)
    known, size = entries(corners)
    a, b = taken(points, corners), taken(points, following(corners))  # edges, (B, M, 2)
    steps = torch.arange(corners.shape[1], device=size.device)
    after = torch.where(steps + 1 == size[:, None], 0, steps + 1)  # number of the next edge, (B, M)
    c, d = a[:, None], b[:, None]  # of the second edge of a pair, (B, 1, M, 2)
    a, b = a[:, :, None], b[:, :, None]  # of the first edge, (B, M, 1, 2)
    turns = [_cross(q - p, r - p).sign() for p, q, r in ((a, b, c), (a, b, d), (c, d, a), (c, d, b))]
    crossing = (turns[0] * turns[1] < 0) & (turns[2] * turns[3] < 0)
    touching = torch.zeros_like(crossing)
    for turn, (p, q, r) in zip(turns, ((a, b, c), (a, b, d), (c, d, a), (c, d, b)), strict=True):
        within = (torch.minimum(p, q) <= r).all(-1) & (r <= torch.maximum(p, q)).all(-1)
        touching |= (turn == 0) & within
    pair = known[:, :, None] & known[:, None] & (steps[:, None] < steps)  # each pair of edges once
    adjacent = (after[:, :, None] == steps) | (after[:, None] == steps[:, None])
    # edges that share a corner overlap if they run back over each other
    shared = torch.where((after[:, :, None] == steps)[..., None], b, a)  # (B, M, M, 2)
    first = torch.where((after[:, :, None] == steps)[..., None], a, b) - shared
    second = torch.where((after[:, :, None] == steps)[..., None], d, c) - shared
    folded = (_cross(first, second) == 0) & ((first * second).sum(-1) > 0)
    bad = pair & torch.where(adjacent, folded, crossing | touching)
    empty = (a[:, :, 0] == b[:, :, 0]).all(-1) & known  # an edge without a length
    return (size >= 3) & ~bad.flatten(1).any(1) & ~empty.any(1)


def _cross(u: Tensor, v: Tensor) -> Tensor:
    return u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]


class PolygonAccuracy(MeanOverSets):
    """Share of the sets whose predicted polygon is the true one; see :func:`same_polygon`.

    Args:
        kwargs: arguments of ``torchmetrics.Metric``.

    Example:
        >>> metric = PolygonAccuracy()
        >>> metric.update(torch.tensor([[2, 1, 0]]), torch.tensor([[0, 1, 2]]), torch.rand(1, 3, 2), torch.tensor([3]))
        >>> metric.compute()
        tensor(1.)
    """

    def numbers(self, preds: Tensor, target: Tensor, points: Tensor, lengths: Tensor) -> Tensor:
        """Return 1 for each set that is right, else 0.

        Args:
            preds: predicted corners int64 (B, M), negative after the last of each.
            target: true corners int64 (B, m), negative after the last of each.
            points: points, which are not read.
            lengths: number of points of each set, which is not read.
        """
        return same_polygon(preds, target)


class SimplePolygonRate(MeanOverSets):
    """Share of the sets whose predicted polygon is simple; see :func:`is_simple_polygon`.

    The paper reports no area where this is below 0.99.

    Args:
        kwargs: arguments of ``torchmetrics.Metric``.

    Example:
        >>> metric = SimplePolygonRate()
        >>> metric.update(torch.tensor([[2, 1, 2]]), torch.tensor([[0, 1, 2]]), torch.rand(1, 3, 2), torch.tensor([3]))
        >>> metric.compute()
        tensor(0.)
    """

    def numbers(self, preds: Tensor, target: Tensor, points: Tensor, lengths: Tensor) -> Tensor:
        """Return 1 for each simple polygon, else 0.

        Args:
            preds: predicted corners int64 (B, M), negative after the last of each.
            target: true corners, which are not read.
            points: points (B, n, 2).
            lengths: number of points of each set, which is not read.
        """
        return is_simple_polygon(points, preds)


class AreaCoverage(MeanOverSets):
    """Mean share of the area of the convex hull that the predicted polygon covers, over simple polygons.

    Corners are input points, so that a simple polygon lies within the hull. Even wrong polygons cover most of a hull:
    report it with :class:`PolygonAccuracy` and :class:`SimplePolygonRate`, never alone. Hulls without an area are left
    out.

    Args:
        kwargs: arguments of ``torchmetrics.Metric``.

    Example:
        >>> square = torch.tensor([[[0.0, 0.0], [2.0, 0.0], [2.0, 2.0], [0.0, 2.0]]])
        >>> metric = AreaCoverage()
        >>> metric.update(torch.tensor([[0, 1, 2]]), torch.tensor([[0, 1, 2, 3]]), square, torch.tensor([4]))
        >>> metric.compute()
        tensor(0.5000)
    """

    def numbers(self, preds: Tensor, target: Tensor, points: Tensor, lengths: Tensor) -> Tensor:
        """Return the share of the area of each set, NaN where the polygon is not simple.

        Args:
            preds: predicted corners int64 (B, M), negative after the last of each.
            target: corners of the hull int64 (B, m), negative after the last of each.
            points: points (B, n, 2).
            lengths: number of points of each set, which is not read.
        """
        whole = polygon_area(points, target)
        defined = is_simple_polygon(points, preds) & (whole > 0)
        return torch.where(defined, polygon_area(points, opened(preds)) / whole, torch.nan)
