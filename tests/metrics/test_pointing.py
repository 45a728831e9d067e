"""Metrics of polygons, triangles and tours against loops."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphseq.data import convex_hulls, random_points, shortest_tours
from graphseq.metrics import (
    AreaCoverage,
    ExactMatch,
    PolygonAccuracy,
    SimplePolygonRate,
    TourGap,
    TourLength,
    TriangleAccuracy,
    TriangleCoverage,
    ValidTourRate,
    is_simple_polygon,
    is_tour,
    polygon_area,
    same_polygon,
    shared_triangles,
    tour_length,
)
from tests.reference import pointing as reference
from tests.reference import sequences


def padded(rows, width=0):
    rows = [list(row) for row in rows]
    return torch.tensor(sequences.pad_rows([*rows, [0] * max(width, 1)], -100)[:-1])


def turned(corners, start, direction):
    moved = corners[start:] + corners[:start]
    return moved[::direction]


@settings(deadline=None, max_examples=20)
@given(st.permutations(range(5)), st.integers(1, 5), st.integers(0, 4), st.sampled_from([1, -1]), st.booleans())
def test_the_same_polygon_from_any_corner(order, size, start, direction, closed):
    corners = list(order)[:size]
    other = turned(corners, start % size, direction)
    other += other[:1] * closed
    assert same_polygon(padded([other], 7), padded([corners])).tolist() == [True]
    assert same_polygon(padded([corners]), padded([other], 7)).tolist() == [True]


def test_other_polygons():
    target = [0, 3, 1, 4]
    others = [list(o) for k in range(5) for o in itertools.permutations(range(5), k)]
    alike = {tuple(turned(target, s, d)) for s in range(4) for d in (1, -1)}
    found = same_polygon(padded(others, 5), padded([target] * len(others)))
    assert found.tolist() == [tuple(o) in alike for o in others]
    assert same_polygon(padded([[0, 3, 1, 4, 4], [0, 0, 3, 1, 4]]), padded([target] * 2)).tolist() == [False, False]


def test_simple_polygons_equal_the_loop():
    """On few coordinates, so that points coincide and edges touch or run along each other."""
    random = np.random.default_rng(0)
    points = random.integers(0, 4, (600, 6, 2)) / 4
    corners = [random.permutation(6)[: random.integers(8)].tolist() for _ in points]
    corners = [row + row[:1] * random.integers(2) if k % 3 else random.integers(0, 6, len(row)).tolist()
               for k, row in enumerate(corners)]  # fmt: skip
    found = is_simple_polygon(torch.from_numpy(points), padded(corners, 7)).tolist()
    assert found == [reference.is_simple(own, row) for own, row in zip(points, corners, strict=True)]
    assert 20 < sum(found) < 580


def test_hulls_are_simple_and_cover_everything():
    points = random_points(20, 9)
    target = torch.from_numpy(convex_hulls(points.numpy()))
    assert is_simple_polygon(points, target).all()
    lengths = torch.full((20,), 9)
    for metric in (AreaCoverage(), PolygonAccuracy(), SimplePolygonRate(), ExactMatch()):
        metric.update(target, target, points, lengths)
        assert float(metric.compute()) == 1
    shoelace = []
    for own, row in zip(points.double().tolist(), target.tolist(), strict=True):
        corners = [own[k] for k in row if k >= 0]
        shoelace.append(sum(reference.cross(corners[0], a, b) for a, b in itertools.pairwise(corners[1:])) / 2)
    assert torch.allclose(polygon_area(points, target), torch.tensor(shoelace).double(), atol=1e-6)


def test_area_is_that_of_simple_polygons_only():
    square = torch.tensor([[0.0, 0.0], [2.0, 0.0], [2.0, 2.0], [0.0, 2.0], [1.0, 0.5]])
    rows = [[0, 1, 2], [0, 2, 1, 3], [0, 1, 2, 3, 0], [], [0, 1, 2, 3, 4]]
    points, target = square.expand(5, 5, 2), padded([[0, 1, 2, 3]] * 5)
    metric, rate = AreaCoverage(), SimplePolygonRate()
    for part in (slice(0, 2), slice(2, 5)):
        for each in (metric, rate):
            each.update(padded(rows, 5)[part], target[part], points[part], torch.full((5,), 5)[part])
    assert float(metric.compute()) == pytest.approx((0.5 + 1 + 3 / 4) / 3)
    assert float(rate.compute()) == pytest.approx(3 / 5)
    line = AreaCoverage()  # a hull without an area, and no polygon at all
    line.update(padded([[0, 1]]), padded([[0, 1]]), torch.tensor([[[0.0, 0.0], [1.0, 1.0]]]), torch.tensor([2]))
    assert torch.isnan(line.compute())


def test_triangles_equal_the_loop():
    random = np.random.default_rng(0)
    predicted = [random.integers(0, 4, random.integers(11)).tolist() for _ in range(300)]
    true = [{tuple(sorted(random.permutation(4)[:3].tolist())) for _ in range(3)} for _ in predicted]
    found = [{tuple(sorted(row[k : k + 3])) for k in range(0, len(row), 3)} for row in predicted]
    predicted += [[k for triple in target for k in triple] for target in true]  # and right answers
    true, found = true * 2, found + true
    preds, target = padded(predicted, 1), padded([[k for triple in each for k in triple] for each in true])
    shared = [len({triple for triple in ours if len(triple) == 3} & theirs)
              for ours, theirs in zip(found, true, strict=True)]  # fmt: skip
    wanted = [shared, [len(ours) for ours in found], [len(theirs) for theirs in true]]
    assert [part.tolist() for part in shared_triangles(preds, target)] == wanted
    coverage, accuracy = TriangleCoverage(), TriangleAccuracy()
    for metric in (coverage, accuracy):
        metric.update(preds, target, torch.rand(600, 4, 2), torch.full((600,), 4))
    assert float(coverage.compute()) == pytest.approx(np.mean(np.divide(shared, wanted[2])))
    right = [ours == theirs for ours, theirs in zip(found, true, strict=True)]
    assert float(accuracy.compute()) == pytest.approx(np.mean(right))


def test_tours():
    points = random_points(12, 6)
    best = torch.from_numpy(shortest_tours(points.numpy()))
    given = torch.stack([torch.randperm(6) for _ in range(12)])
    given[3, 2] = given[3, 1]
    lengths = torch.full((12,), 6)
    valid = is_tour(given, lengths)
    assert valid.tolist() == [sorted(row) == list(range(6)) for row in given.tolist()]
    ways = [reference.length(own, tour) for own, tour in zip(points.tolist(), given.tolist(), strict=True)]
    assert tour_length(points, given).tolist() == pytest.approx(ways)
    shortest = [reference.shortest(own) for own in points.tolist()]
    wanted = {
        TourLength: np.mean([way for k, way in enumerate(ways) if k != 3]),
        TourGap: np.mean(
            [way / least - 1 for k, (way, least) in enumerate(zip(ways, shortest, strict=True)) if k != 3]
        ),
        ValidTourRate: 11 / 12,
    }
    for kind, value in wanted.items():
        metric = kind()
        metric.update(given, best, points, lengths)
        assert float(metric.compute()) == pytest.approx(value, abs=1e-6)
    assert is_tour(padded([[1, 0], [1, 0, 2], [0, 1, 3]]), torch.tensor([2, 2, 3])).tolist() == [True, False, False]


def test_scores_in_place_of_positions_and_sets_that_would_be_broadcast():
    right, points, lengths = torch.tensor([[0, 1, 2], [2, 1, 0]]), torch.rand(2, 3, 2), torch.tensor([3, 3])
    for metric in (ExactMatch, PolygonAccuracy, TriangleAccuracy):
        for preds in (right.float(), right[0], right[:1]):
            with pytest.raises(ValueError, match=r"positions are|shapes are \(1, 3\)"):
                metric().update(preds, right, points, lengths)
    with pytest.raises(ValueError, match=r"lengths has shape \(1,\)"):
        ValidTourRate().update(right, right, points, lengths[:1])
    with pytest.raises(ValueError, match=r"\(1, 3, 2\)"):
        TourLength().update(right, right, points[:1], lengths)
    with pytest.raises(ValueError, match="points hold NaN"):
        TourLength().update(right, right, points * float("nan"), lengths)
    none = torch.zeros(2, 0, dtype=torch.int64)
    assert [number.tolist() for number in shared_triangles(none, none)] == [[0, 0]] * 3


def test_areas_far_from_the_origin():
    points = torch.randn(30, 6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).round(decimals=3)
    corners = torch.arange(6).expand(30, 6)
    assert torch.allclose(polygon_area(points + 1e7, corners), polygon_area(points, corners), atol=1e-6)
