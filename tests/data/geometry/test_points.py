import numpy as np
import pytest
import torch

from graphseq.data import (
    ConvexHullDataModule,
    DelaunayDataModule,
    SequencePairStore,
    TourDataModule,
    convex_hulls,
    delaunay_triangles,
    random_points,
    shortest_tours,
)

SMALL = {"num_train": 40, "num_val": 7, "num_test": 9, "batch_size": 16}


@pytest.mark.parametrize(
    ("module", "solve"),
    [
        (ConvexHullDataModule, convex_hulls),
        (TourDataModule, shortest_tours),
        (DelaunayDataModule, lambda points: delaunay_triangles(points).ravel()),
    ],
)
def test_targets_solve_the_points(module, solve):
    data = module(**SMALL, min_points=4, max_points=7, test_points=9)
    assert isinstance(data.store, SequencePairStore)
    seen = 0
    for split, sizes in (("train", {4, 5, 6, 7}), ("test", {9})):
        for batch in data.batches(split):
            assert set(batch.lengths.tolist()) <= sizes
            for x, size, y in zip(batch.x, batch.lengths.tolist(), batch.y, strict=True):
                assert y[y >= 0].tolist() == solve(x[:size].numpy()).tolist()
                assert (x[size:] == 0).all()
                seen += 1
    assert seen == 49
    assert data.num_features == 2


def test_same_seed_same_points_and_other_splits_differ():
    first, second, other = (ConvexHullDataModule(**SMALL, seed=seed).store for seed in (3, 3, 4))
    assert torch.equal(first.x, second.x)
    assert torch.equal(first.target, second.target)
    assert not torch.equal(first.x, other.x)
    assert len(torch.unique(first.x, dim=0)) == len(first.x)


def test_test_sets_do_not_change_those_of_training():
    plain, larger = ConvexHullDataModule(**SMALL), ConvexHullDataModule(**SMALL, test_points=11)
    count = 5 * SMALL["num_train"]
    assert torch.equal(plain.store.x[:count], larger.store.x[:count])


def test_many_points_are_numbered_in_more_than_a_byte():
    data = ConvexHullDataModule(2, 0, 3, test_points=300)
    largest = max(int(batch.y.max()) for batch in data.batches("test"))
    assert 255 < largest < 300
    assert data.val_dataloader() == []


def test_coinciding_points_are_drawn_again(monkeypatch):
    real, calls = torch.rand, []

    def coarse(*shape, **options):
        calls.append(shape)
        return (real(*shape, **options) * 4).floor() / 4

    monkeypatch.setattr("graphseq.data.geometry.module.torch.rand", coarse)
    points = random_points(30, 4, torch.Generator().manual_seed(0))
    assert len(calls) > 1
    assert all(len(np.unique(own, axis=0)) == 4 for own in points.numpy())


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        (ConvexHullDataModule, {"min_points": 2}, "min_points is 2"),
        (TourDataModule, {"test_points": 17}, "test_points is 17; a TourDataModule takes 3 to 16"),
        (DelaunayDataModule, {"min_points": 6, "max_points": 5}, "max_points is 5"),
        (ConvexHullDataModule, {"num_train": 0}, "num_train is 0"),
        (ConvexHullDataModule, {"num_val": -1}, "num_val is -1"),
    ],
)
def test_refused(module, options, message):
    with pytest.raises(ValueError, match=message):
        module(**options)
    with pytest.raises(ValueError, match="num_points is 0"):
        random_points(1, 0)
