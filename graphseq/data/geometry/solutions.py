"""Exact solutions of three problems on points of the plane, as positions of the points."""

from typing import Any

import numpy as np
from scipy.spatial import Delaunay, QhullError

from graphseq.core.batches import IGNORED
from graphseq.core.errors import DataError

__all__ = ["convex_hulls", "delaunay_triangles", "shortest_tours"]

LARGEST_TOUR = 16
"""Number of cities up to which all subsets are enumerated."""

TABLE_BYTES = 64 * 2**20
"""Memory of the tables of the tours that are computed at once."""


def convex_hulls(points: Any) -> np.ndarray:
    """Return the corners of the convex hull of each set of points, counter-clockwise from the leftmost one.

    The first corner is the leftmost point, of several the lowest. Points within an edge are no corners. Of points that
    coincide only the first is a corner. Points on a line have a hull of the two ends, points that all coincide one of
    a single corner. Signs of areas are exact for points in float32 between 0 and 1.

    Args:
        points: sets of points, (N, n, 2), or one set (n, 2).

    Returns:
        positions of the corners, int64 (N, h), filled with -100 after the last; (h,) for one set.

    Raises:
        DataError: if there are no points, or one is not a pair of finite numbers.

    Example:
        >>> convex_hulls([[0.5, 0.5], [1, 0], [0, 0], [0, 1], [1, 1]])
        array([2, 1, 4, 3])
    """
    p, single = _checked(points)
    count, size, _ = p.shape
    rows = np.arange(count)
    lowest = np.where(p[..., 0] == p[..., 0].min(1, keepdims=True), p[..., 1], np.inf)
    first = lowest.argmin(1)  # numpy's is the first among equals
    corners = np.full((count, size), IGNORED, dtype=np.int64)
    active, current = rows, first
    for number in range(size):
        corners[active, number] = current
        here = p[active, current]  # (A, 2)
        best, edge = np.full(len(active), -1), np.zeros((len(active), 2))
        for candidate in range(size):  # the next corner has no point to the right of the way to it, and none behind it
            to = p[active, candidate] - here
            turn = edge[:, 0] * to[:, 1] - edge[:, 1] * to[:, 0]
            farther = (to**2).sum(1) > (edge**2).sum(1)
            better = (to != 0).any(1) & ((best < 0) | (turn < 0) | ((turn == 0) & farther))
            best, edge = np.where(better, candidate, best), np.where(better[:, None], to, edge)
        going = (best >= 0) & (best != first[active])
        active, current = active[going], best[going]
        if not len(active):
            break
    corners = corners[:, : int((corners != IGNORED).sum(1).max())]
    return corners[0] if single else corners


def delaunay_triangles(points: Any) -> np.ndarray:
    """Return the triangles of the Delaunay triangulation of one set of points.

    Triangles are in the lexicographic order of their incenters, and the positions of a triangle ascend. The circle
    through the corners of a triangle has no point in its inside; where four points lie on one circle there are several
    such triangulations, of which Qhull returns one.

    Source of the order: arXiv 1506.03134, section 3.2.

    Args:
        points: points, (n, 2), at least 3.

    Returns:
        positions of the corners, int64 (t, 3).

    Raises:
        DataError: if there are fewer than 3 points, two coincide, all lie on a line, or one is not a pair of finite
            numbers.

    Example:
        >>> delaunay_triangles([[0, 0], [1, 0], [1, 1], [0, 0.9]]).tolist()
        [[0, 1, 3], [1, 2, 3]]
    """
    p = _checked(points)[0][0]
    if len(p) < 3:
        raise DataError(f"there are {len(p)} points; a triangulation needs at least 3")
    _, kept = np.unique(p, axis=0, return_index=True)
    if len(kept) < len(p):
        double = int(np.setdiff1d(np.arange(len(p)), kept)[0])
        raise DataError(f"point {double} coincides with an earlier one; a triangulation needs distinct points")
    p = p - p.min(0)  # far from 0 the tolerances of Qhull, which grow with the coordinates, would leave points out
    try:
        triangles = np.sort(Delaunay(p).simplices.astype(np.int64), 1)
    except QhullError as error:
        raise DataError("all points lie on a line; a triangulation needs at least one triangle") from error
    corners = p[triangles]  # (t, 3, 2)
    opposite = np.linalg.norm(corners[:, [1, 2, 0]] - corners[:, [2, 0, 1]], axis=2)  # length of the side opposite each
    incenters = (opposite[..., None] * corners).sum(1) / opposite.sum(1, keepdims=True)
    return triangles[np.lexsort((incenters[:, 1], incenters[:, 0]))]


def shortest_tours(points: Any) -> np.ndarray:
    r"""Return the shortest closed tour through each set of points, by dynamic programming over subsets.

    .. math:: C(S, j) = \min_{k \in S \setminus j} C(S \setminus j, k) + d_{kj}

    where C(S, j) is the length of the shortest path from the first point through all of S that ends at j (Held and
    Karp). A tour begins at the first point, and of its two directions has the one whose second point has the smaller
    position. Time and memory grow as :math:`2^n`.

    Args:
        points: sets of points, (N, n, 2), or one set (n, 2); n from 1 to 16.

    Returns:
        positions in the order of the tour, int64 (N, n); (n,) for one set.

    Raises:
        DataError: if n is above 16, or a point is not a pair of finite numbers.

    Example:
        >>> shortest_tours([[0, 0], [1, 1], [0, 1], [1, 0]])
        array([0, 2, 1, 3])
    """
    p, single = _checked(points)
    size = p.shape[1]
    if size > LARGEST_TOUR:
        raise DataError(
            f"there are {size} points; exact tours enumerate all subsets and are computed for at most {LARGEST_TOUR}"
        )
    if size < 3:
        tours = np.tile(np.arange(size), (len(p), 1))
    else:
        at_once = max(1, TABLE_BYTES // (2 ** (size - 1) * (size - 1) * 9))
        tours = np.concatenate([_held_karp(p[start : start + at_once]) for start in range(0, len(p), at_once)])
    return tours[0] if single else tours


def _held_karp(p: np.ndarray) -> np.ndarray:
    count, size, _ = p.shape
    others = size - 1  # bit j of a subset stands for point j + 1
    distance = np.linalg.norm(p[:, :, None] - p[:, None], axis=3)  # (N, n, n)
    subsets = np.arange(1 << others)
    members = (subsets[:, None] >> np.arange(others) & 1).astype(bool)  # (S, n - 1)
    cost = np.full((count, 1 << others, others), np.inf)
    before = np.zeros((count, 1 << others, others), dtype=np.int8)
    for end in range(others):
        cost[:, 1 << end, end] = distance[:, 0, end + 1]
    for number in range(2, others + 1):
        for end in range(others):
            through = subsets[(members.sum(1) == number) & members[:, end]]
            total = cost[:, through ^ (1 << end)] + distance[:, None, 1:, end + 1]  # (N, |through|, n - 1)
            before[:, through, end] = total.argmin(2)
            cost[:, through, end] = total.min(2)
    rows = np.arange(count)
    tours = np.zeros((count, size), dtype=np.int64)
    end = (cost[:, -1] + distance[:, 1:, 0]).argmin(1)
    left = np.full(count, (1 << others) - 1)
    for place in range(others, 0, -1):
        tours[:, place] = end + 1
        end, left = before[rows, left, end].astype(np.int64), left ^ (1 << end)
    backwards = tours[:, 1] > tours[:, -1]
    tours[backwards, 1:] = tours[backwards, :0:-1]
    return tours


def _checked(points: Any) -> tuple[np.ndarray, bool]:
    """Return points in float64 (N, n, 2), and whether one set was given."""
    p = np.asarray(points, dtype=np.float64)
    single = p.ndim == 2
    p = p[None] if single else p
    if p.ndim != 3 or p.shape[2] != 2 or not p.size:
        raise DataError(
            f"points are {np.shape(points)}; give sets of points in the plane, (N, n, 2), or one set (n, 2)"
        )
    if not np.isfinite(p).all():
        at, place, _ = np.argwhere(~np.isfinite(p))[0]
        raise DataError(f"point {place} of set {at} is {p[at, place].tolist()}; coordinates must be finite")
    return p, single
