"""Exact solutions against brute force, and degenerate points."""

import numpy as np
import pytest
import scipy.spatial

from graphseq.core import DataError
from graphseq.data import convex_hulls, delaunay_triangles, shortest_tours
from tests.reference import pointing as reference


def uniform(*shape, seed=0):
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
def test_hulls_of_degenerate_points_equal_the_loop(size):
    """On few coordinates, so that points coincide and lie on lines."""
    points = np.random.default_rng(size).integers(0, 4, (60, size, 2)) / 4
    found = [corners[corners >= 0].tolist() for corners in convex_hulls(points)]
    assert found == [reference.hull(own) for own in points.tolist()]


@pytest.mark.parametrize("size", [3, 5, 20])
def test_hulls_are_those_of_qhull(size):
    points = uniform(50, size, 2)
    for own, corners in zip(points, convex_hulls(points), strict=True):
        found = corners[corners >= 0].tolist()
        wanted = scipy.spatial.ConvexHull(own).vertices.tolist()  # counter-clockwise, from any corner on
        start = wanted.index(found[0])
        assert found == wanted[start:] + wanted[:start]
        assert found[0] == own[:, 0].argmin()
        assert (corners[len(found) :] == -100).all()


def test_lines_and_coinciding_points():
    assert convex_hulls([[0.5, 0.5], [0, 0], [1, 1], [0.25, 0.25]]).tolist() == [1, 2]
    assert convex_hulls([[0.5, 0.5]] * 4).tolist() == [0]
    assert convex_hulls([[1, 1], [0, 0], [0, 0], [1, 0], [1, 1]]).tolist() == [1, 3, 0]
    assert convex_hulls([[[0, 0], [1, 0], [0, 1]], [[0, 0], [0, 1], [0, 2]]]).tolist() == [[0, 1, 2], [0, 2, -100]]


def test_the_same_corners_in_whatever_order_points_come():
    points, order = uniform(20, 9, 2), np.random.default_rng(1).permutation(9)
    for first, second in zip(convex_hulls(points), convex_hulls(points[:, order]), strict=True):
        assert first[first >= 0].tolist() == order[second[second >= 0]].tolist()


@pytest.mark.parametrize("size", range(1, 8))
def test_tours_are_the_shortest_of_all(size):
    points = uniform(15, size, 2, seed=size)
    for own, tour in zip(points, shortest_tours(points), strict=True):
        assert sorted(tour.tolist()) == list(range(size))
        assert tour[0] == 0
        assert size < 3 or tour[1] < tour[-1]
        assert abs(reference.length(own.tolist(), tour.tolist()) - reference.shortest(own.tolist())) < 1e-9


def test_tours_in_pieces_and_with_coinciding_points(monkeypatch):
    points = uniform(7, 6, 2)
    points[:, 3] = points[:, 1]
    whole = shortest_tours(points)
    monkeypatch.setattr("graphseq.data.geometry.solutions.TABLE_BYTES", 1)
    assert (shortest_tours(points) == whole).all()
    for own, tour in zip(points, whole, strict=True):
        assert abs(reference.length(own.tolist(), tour.tolist()) - reference.shortest(own.tolist())) < 1e-9


@pytest.mark.parametrize("size", [3, 5, 9])
def test_triangles_have_empty_circles_and_cover_the_hull(size):
    for own in uniform(10, size, 2, seed=size).astype(np.float64):
        triangles = delaunay_triangles(own)
        area = 0.0
        for triangle in triangles.tolist():
            assert triangle == sorted(triangle)
            corners = own[triangle].tolist()
            area += abs(reference.cross(*corners)) / 2
            assert all(
                reference.in_circle(*corners, own[k].tolist()) <= 1e-12 for k in range(size) if k not in triangle
            )
        assert len({tuple(triangle) for triangle in triangles.tolist()}) == len(triangles)
        assert abs(area - scipy.spatial.ConvexHull(own).volume) < 1e-12
        centers = []
        for a, b, c in own[triangles]:
            sides = [np.linalg.norm(b - c), np.linalg.norm(c - a), np.linalg.norm(a - b)]
            centers.append(tuple(sum(s * p for s, p in zip(sides, (a, b, c), strict=True)) / sum(sides)))
        assert centers == sorted(centers)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([[0, 0], [1, 1]], "there are 2 points"),
        ([[0, 0], [1, 1], [0, 1], [1, 1]], "point 3 coincides"),
        ([[0, 0], [1, 1], [2, 2]], "on a line"),
        ([[0, 0], [1, 1], [0, float("nan")]], "point 2 of set 0"),
    ],
)
def test_no_triangulation(points, message):
    with pytest.raises(DataError, match=message):
        delaunay_triangles(points)


@pytest.mark.parametrize("solve", [convex_hulls, delaunay_triangles, shortest_tours])
@pytest.mark.parametrize("points", [[], [[0, 0, 0]], [0, 1], np.zeros((2, 0, 2))])
def test_no_points(solve, points):
    with pytest.raises(DataError, match="points are"):
        solve(points)


def test_too_many_cities():
    with pytest.raises(DataError, match="there are 17 points"):
        shortest_tours(uniform(17, 2))


def test_triangles_do_not_depend_on_where_the_points_lie():
    points = uniform(20, 2).astype(np.float64)
    near = delaunay_triangles(points)
    for far in (1e6, -1e8):
        assert delaunay_triangles(np.round(points, 6) + far).tolist() == near.tolist()
