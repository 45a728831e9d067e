"""Windows of the store against slices of the series."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphseq.core import DataError, WindowBatch
from graphseq.data import Scaling, SeriesGraph, WindowStore

NAN = float("nan")


def series(count: int = 3, steps: int = 20, variables: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, steps, variables, generator=torch.Generator().manual_seed(seed))


@settings(deadline=None)  # the first call loads libraries
@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 4), st.integers(1, 3), st.integers(0, 9), st.booleans())
def test_windows_equal_slices(count: int, window: int, horizon: int, variables: int, extra: int, gaps: bool) -> None:
    steps = window + horizon + extra
    values = series(count, steps, variables)
    if gaps:
        values[0, steps // 2] = NAN
    known = torch.arange(2.0 * steps).view(steps, 2)
    store = WindowStore(values, window, horizon, known=known)
    order = torch.randperm(len(store), generator=torch.Generator().manual_seed(1))
    assert len(store) == extra + 1
    batches = list(store.batches(order, 3))
    assert [len(batch) for batch in batches] == [min(3, len(order) - start) for start in range(0, len(order), 3)]
    starts = iter(order.tolist())
    for batch in batches:
        for row in range(len(batch)):
            start = next(starts)
            past, future = values[:, start : start + window], values[:, start + window : start + window + horizon]
            assert torch.equal(batch.x[row], past.nan_to_num(0.0))
            torch.testing.assert_close(batch.y[row], future, equal_nan=True, rtol=0, atol=0)
            assert batch.known is not None
            assert torch.equal(batch.known[row], known[start : start + window + horizon])
            if batch.mask is not None:
                assert torch.equal(batch.mask[row], ~past.isnan())
    assert (batches[0].mask is not None) == bool(values[:, : steps - horizon].isnan().any())


def test_scaled_values_are_restored() -> None:
    values = series() * 100 + 7
    store = WindowStore(values, 4, 3, scaling=Scaling.fit(values[:, :10], "standard"), targets=[1])
    batch = store.take([2, 5])
    assert batch.y.shape == (2, 3, 3, 1)
    expected = torch.stack([values[:, start + 4 : start + 7, 1:] for start in (2, 5)])
    torch.testing.assert_close(batch.restore(batch.y), expected, rtol=1e-5, atol=1e-4)
    many = torch.stack([batch.y, batch.y + 1], -1)
    torch.testing.assert_close(batch.restore(many)[..., 0], expected, rtol=1e-5, atol=1e-4)


def test_weights_of_edges_may_change_with_time() -> None:
    edges = torch.tensor([[0, 1], [1, 2]])
    weights = torch.arange(40.0).view(20, 2)
    batch = WindowStore(series(), 4, 3, graph=SeriesGraph(edges, weights)).take([2, 5])
    assert batch.edge_weight is not None
    assert torch.equal(batch.edge_weight, torch.stack([weights[2:6], weights[5:9]]))
    fixed = WindowStore(series(), 4, 3, graph=SeriesGraph(edges, torch.ones(2))).take([2])
    assert fixed.edge_weight is not None
    assert fixed.edge_weight.shape == (2,)


def test_memory_is_that_of_the_series() -> None:
    values = series(5, 1000, 4)
    store = WindowStore(values, 24, 12)
    assert store.nbytes <= 1.1 * values.nbytes
    assert "MB" in repr(store)
    batch = store.take([0])
    assert "x=(1, 5, 24, 4)" in repr(batch)
    assert isinstance(batch.to("cpu"), WindowBatch)


def test_store_on_another_device_and_blocks_moved_to_one() -> None:
    edges = SeriesGraph(torch.tensor([[0], [1]]), torch.ones(1))
    store = WindowStore(series(), 4, 3, graph=edges).to("meta")
    assert store.device.type == "meta"
    assert store.graph is not None
    assert store.graph.edge_index.device.type == "meta"
    moved = next(WindowStore(series(), 4, 3, graph=edges).batches(torch.arange(3), 3, torch.device("meta")))
    assert {moved.x.device.type, moved.loc.device.type, moved.edge_index.device.type} == {"meta"}  # type: ignore[union-attr]  # the store has a graph


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"series": torch.randn(20, 2)}, "series"),
        ({"series": torch.ones(1, 20, 2, dtype=torch.int64)}, "series"),
        ({"series": torch.full((1, 20, 2), float("inf"))}, "infinite"),
        ({"series": torch.randn(1, 6, 2)}, "6 steps"),
        ({"targets": [2]}, "targets"),
        ({"targets": []}, "targets"),
        ({"known": torch.zeros(19, 1)}, "known"),
        ({"known": torch.full((20, 1), NAN)}, "known"),
        ({"graph": SeriesGraph(torch.tensor([[0], [5]]), torch.ones(1))}, "nodes"),
        ({"graph": SeriesGraph(torch.tensor([[0], [1]]), torch.ones(7, 1))}, "7 steps"),
    ],
)
def test_bad_data(change: dict[str, object], named: str) -> None:
    arguments = {"series": series(), "window": 4, "horizon": 3, **change}
    with pytest.raises(DataError, match=named):
        WindowStore(**arguments)  # type: ignore[arg-type]  # wrong on purpose


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="window"):
        WindowStore(series(), 0, 3)
    with pytest.raises(ValueError, match="horizon"):
        WindowStore(series(), 4, 0)
    with pytest.raises(DataError, match="edge_weight"):
        SeriesGraph(torch.tensor([[0], [1]]), torch.ones(2))
    with pytest.raises(DataError, match="edge_index"):
        SeriesGraph(torch.tensor([0, 1]), torch.ones(2))
    with pytest.raises(DataError, match="NaN"):
        SeriesGraph(torch.tensor([[0], [1]]), torch.tensor([NAN]))
    with pytest.raises(DataError, match="square"):
        SeriesGraph.from_adjacency(torch.ones(2, 3))
