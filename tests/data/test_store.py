import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphseq.core import DataError
from graphseq.data import SingleStore, TensorStore
from graphseq.data.store import batch_sizes, blocks


@given(st.integers(1, 300), st.integers(1, 50), st.floats(1, 3e7))
@settings(deadline=None, max_examples=60)
def test_blocks_cover_the_order_in_whole_batches(count, size, bytes_per_sample):
    order = torch.randperm(count)
    sizes = batch_sizes(count, size)
    parts = list(blocks(order, sizes, bytes_per_sample))
    assert torch.equal(torch.cat([index for index, _ in parts]), order)
    assert [s for _, listed in parts for s in listed] == sizes
    assert all(sum(listed) == len(index) for index, listed in parts)


@pytest.mark.parametrize("named", [False, True])
def test_batches_equal_plain_indexing(named, device):
    x, y = torch.randn(50, 3, 2), torch.arange(50)
    store = (TensorStore(x=x, y=y) if named else TensorStore(x, y)).to(device)
    index = torch.randperm(50)[:47]
    seen = 0
    for batch in store.batches(index, 8):
        got = (batch["x"], batch["y"]) if named else batch
        rows = index[seen : seen + 8]
        assert got[0].device.type == device.type
        assert torch.equal(got[0].cpu(), x[rows])
        assert torch.equal(got[1].cpu(), y[rows])
        seen += len(rows)
    assert seen == 47


def test_uneven_sizes_and_take():
    store = TensorStore(torch.arange(10))
    assert [batch[0].tolist() for batch in store.batches(torch.arange(6), [1, 3, 2])] == [[0], [1, 2, 3], [4, 5]]
    assert store.take(torch.tensor([9, 0]))[0].tolist() == [9, 0]


def test_bad_input():
    with pytest.raises(DataError, match=r"\[2, 3\] rows"):
        TensorStore(torch.ones(2), torch.ones(3))
    with pytest.raises(DataError, match="at least one"):
        TensorStore()
    with pytest.raises(DataError, match="rows"):
        TensorStore(torch.ones(0, 2))
    with pytest.raises(ValueError, match="at least 1"):
        list(TensorStore(torch.ones(3)).batches(torch.arange(3), 0))
    with pytest.raises(ValueError, match=r"sizes \[1, 1\] .* 3 samples"):
        list(TensorStore(torch.ones(3)).batches(torch.arange(3), [1, 1]))


def test_nbytes_and_repr():
    store = TensorStore(torch.ones(4, 8), torch.arange(4))
    assert store.nbytes == 4 * 8 * 4 + 4 * 8
    assert "4 samples" in repr(store)


def test_single_store_gives_the_item_itself():
    from torch_geometric.data import Data

    graph = Data(x=torch.ones(3, 2))
    store = SingleStore(graph)
    assert next(store.batches(torch.tensor([0]), 1)) is graph
    assert store.nbytes == 24
    moved = store.to("meta")
    assert moved.device.type == "meta"
    assert graph.x.device.type == "cpu"


@pytest.mark.parametrize(("field", "given"), [([1, 2], "list"), (torch.tensor(1.0), "without dimensions")])
def test_fields_that_are_no_rows(field, given):
    with pytest.raises(DataError, match=f"field y is .*{given}"):
        TensorStore(x=torch.arange(2), y=field)
