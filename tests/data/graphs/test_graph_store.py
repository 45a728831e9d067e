import copy
import io
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import GINConv, global_add_pool

from graphseq.core import DataError, sample_positions
from graphseq.data import BatchLoader, GraphStore


class PairData(Data):
    """A bipartite pair: its index field grows by different steps in its two rows."""

    def __inc__(self, key, value, *args, **kwargs):
        if key == "edge_index":
            return torch.tensor([[self.x_s.size(0)], [self.x_t.size(0)]])
        return super().__inc__(key, value, *args, **kwargs)

    def __cat_dim__(self, key, value, *args, **kwargs):
        return None if key == "stacked" else super().__cat_dim__(key, value, *args, **kwargs)


def rich_graph(generator, position):
    """A graph with every kind of field that a Data may hold."""
    n = int(torch.randint(1, 7, (), generator=generator))
    e = int(torch.randint(0, 12, (), generator=generator))
    rand = lambda *shape: torch.rand(*shape, generator=generator)  # noqa: E731
    edges = torch.randint(0, n, (2, e), generator=generator)
    return Data(
        x=rand(n, 3),
        edge_index=edges,
        edge_attr=rand(e, 2),
        edge_weight=rand(e),
        pos=rand(n, 3).double(),
        y=rand(1, 4),
        node_label=torch.randint(0, 5, (n,), generator=generator),
        graph_tensor=rand(1, 2, 2),
        scalar=torch.tensor(float(position)),
        number=position,
        fraction=position / 2,
        name=f"graph {position}",
        words=["a"] * (position % 3),
        anchor_index=torch.randint(0, n, (2,), generator=generator),
        face=torch.randint(0, n, (3, 2), generator=generator),
        ragged=rand(position % 4, 5),
        flags=torch.rand(n, generator=generator) > 0.5,
        nested={"a": rand(n, 1), "b_index": torch.randint(0, n, (1,), generator=generator)},
        listed=[rand(n), rand(2)],
    )


def same(left, right):
    if isinstance(left, torch.Tensor):
        return isinstance(right, torch.Tensor) and left.dtype == right.dtype and torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(same(a, b) for a, b in zip(left, right, strict=True))
    return left == right


def assert_equal_batches(ours, theirs):
    assert set(ours.keys()) | {"idx"} == set(theirs.keys()) | {"idx"}
    for key in theirs.keys():  # noqa: SIM118 - a Batch is not a dictionary
        assert same(theirs[key], ours[key]), key
    assert same(theirs._slice_dict, ours._slice_dict)
    for key, increments in theirs._inc_dict.items():
        assert same(increments, ours._inc_dict[key]), key
    assert ours.num_graphs == theirs.num_graphs
    assert ours.num_nodes == theirs.num_nodes
    for mine, other in zip(ours.to_data_list(), theirs.to_data_list(), strict=True):
        assert set(mine.keys()) == set(other.keys())
        assert all(same(other[key], mine[key]) for key in other.keys())  # noqa: SIM118


@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(1, 12))
@settings(deadline=None, max_examples=25)
def test_every_field_equals_pyg(seed, batch_size, count):
    generator = torch.Generator().manual_seed(seed)
    graphs = [rich_graph(generator, position) for position in range(count)]
    store = GraphStore.from_dataset(graphs)
    order = torch.randperm(count, generator=generator)
    for number, batch in enumerate(store.batches(order, batch_size)):
        chosen = order[number * batch_size : (number + 1) * batch_size]
        assert_equal_batches(batch, Batch.from_data_list([graphs[i] for i in chosen]))
        assert torch.equal(batch.idx, chosen)
        assert torch.equal(sample_positions(batch), chosen)


def test_increments_that_are_tensors_and_stacked_fields():
    graphs = [
        PairData(
            x_s=torch.rand(s, 2),
            x_t=torch.rand(t, 3),
            edge_index=torch.stack([torch.arange(2) % s, torch.arange(2) % t]),
            stacked=torch.rand(2, 2),
            num_nodes=s + t,
        )
        for s, t in ((2, 3), (4, 1), (1, 5))
    ]
    store = GraphStore.from_dataset(graphs)
    batch = store.take(torch.tensor([2, 0, 1]))
    assert type(batch).__name__ == "PairDataBatch"
    assert_equal_batches(batch, Batch.from_data_list([graphs[2], graphs[0], graphs[1]]))


@pytest.mark.parametrize(
    "graphs",
    [
        [Data(edge_index=torch.tensor([[0, 1], [1, 0]]), num_nodes=n) for n in (2, 4)],  # missing x
        [Data(x=torch.ones(n, 1), edge_index=torch.empty(2, 0, dtype=torch.int64)) for n in (1, 2)],  # no edges
        [Data(x=torch.ones(n, 1)) for n in (1, 3)],  # no edge_index
        [Data(x=torch.ones(3, 2), edge_index=torch.tensor([[0], [2]]), y=torch.tensor(k)) for k in (0, 1)],  # 0-dim y
        [Data(x=torch.ones(2, 2), y=k) for k in (0, 1)],  # a python number
        [Data(x=torch.ones(2, 2), idx=torch.tensor([k + 7])) for k in (0, 1)],  # an idx of their own
        [Data(x=torch.empty(0, 2), y=torch.tensor([1])), Data(x=torch.ones(1, 2), y=torch.tensor([0]))],  # empty graph
    ],
)
def test_special_graphs(graphs):
    store = GraphStore.from_dataset(graphs)
    batch = store.take(torch.tensor([1, 0]))
    assert_equal_batches(batch, Batch.from_data_list([graphs[1], graphs[0]]))
    if "idx" in graphs[0]:
        assert batch.idx.tolist() == [8, 7]
    assert sample_positions(batch).tolist() == [1, 0]


def pyg_graphs(count=40):
    generator = torch.Generator().manual_seed(3)
    return [
        Data(x=g.x, edge_index=g.edge_index, y=torch.tensor([position % 2]))
        for position, g in ((p, rich_graph(generator, p)) for p in range(count))
    ]


def test_loader_equals_pyg_loader():
    graphs = pyg_graphs()
    ours = BatchLoader(GraphStore.from_dataset(graphs), 7, shuffle=False)
    theirs = DataLoader(graphs, 7)
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        assert_equal_batches(mine, other)


def test_layers_pooling_copies_and_pickles_work():
    batch = GraphStore.from_dataset(pyg_graphs()).take(torch.tensor([3, 1, 2]))
    conv = GINConv(torch.nn.Linear(3, 4))
    expected = global_add_pool(conv(batch.x, batch.edge_index), batch.batch)
    assert expected.shape == (3, 4)
    for twin in (copy.copy(batch), copy.deepcopy(batch), pickle.loads(pickle.dumps(batch)), batch.clone()):
        assert torch.equal(global_add_pool(conv(twin.x, twin.edge_index), twin.batch), expected)
        assert_equal_batches(twin, batch)
        assert twin.num_graphs == 3
    batch.extra = torch.ones(3)
    assert "extra" in batch
    assert batch.to("cpu").extra.sum() == 3
    assert batch[1].x.shape[1] == 3
    again = Batch.from_data_list(batch.to_data_list())
    assert torch.equal(again.edge_index, batch.edge_index)


def test_store_of_another_device(device):
    graphs = pyg_graphs()
    store = GraphStore.from_dataset(graphs).to(device)
    batch = store.take(torch.tensor([5, 6]))
    assert batch.x.device.type == device.type
    assert_equal_batches(batch.cpu(), GraphStore.from_dataset(graphs).take(torch.tensor([5, 6])))


def test_blocks_cross_to_the_device(device):
    store = GraphStore.from_dataset(pyg_graphs())
    for batch in store.batches(torch.arange(10), 4, device):
        assert {value.device.type for _, value in batch if isinstance(value, torch.Tensor)} == {device.type}


def test_saved_store_opens_safely_and_equals():
    generator = torch.Generator().manual_seed(0)
    store = GraphStore.from_dataset([rich_graph(generator, position) for position in range(6)])
    buffer = io.BytesIO()
    torch.save(store.to_dict(), buffer)
    buffer.seek(0)
    again = GraphStore.from_dict(torch.load(buffer, weights_only=True))
    index = torch.tensor([4, 0, 5])
    assert_equal_batches(again.take(index), store.take(index))


def test_sizes_and_single_graphs():
    graphs = pyg_graphs(5)
    store = GraphStore.from_dataset(graphs)
    assert len(store) == 5
    assert torch.equal(store.num_nodes, torch.tensor([graph.num_nodes for graph in graphs]))
    assert torch.equal(store[-1].x, graphs[-1].x)
    assert torch.equal(store.field("y"), torch.tensor([0, 1, 0, 1, 0]))
    assert store.field("nothing") is None
    assert int(store.offsets("x")[-1]) == len(store.field("x"))
    with pytest.raises(IndexError, match="5 of 5"):
        store[5]
    with pytest.raises(KeyError, match="no field"):
        store.offsets("nothing")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.complex64, torch.uint8, torch.bool])
def test_kinds_of_numbers(dtype):
    graphs = [Data(x=(torch.rand(n, 3) * 4).to(dtype), w=torch.ones(n).to(dtype)) for n in (2, 4, 1)]
    batch = GraphStore.from_dataset(graphs).take(torch.tensor([2, 0, 1]))
    assert_equal_batches(batch, Batch.from_data_list([graphs[2], graphs[0], graphs[1]]))


def test_int32_indices_keep_their_type():
    graphs = [Data(x=torch.ones(n, 1), my_index=torch.arange(n, dtype=torch.int32)) for n in (2, 3)]
    batch = GraphStore.from_dataset(graphs).take(torch.tensor([1, 0]))
    assert_equal_batches(batch, Batch.from_data_list([graphs[1], graphs[0]]))


@pytest.mark.parametrize("index", [[0, 5], [-1, 0], [-2]])
def test_positions_out_of_range(index):
    with pytest.raises(IndexError, match="of 5"):
        GraphStore.from_dataset(pyg_graphs(5)).take(torch.tensor(index))


def test_batches_do_not_share_memory_with_order_or_store():
    store, order = GraphStore.from_dataset(pyg_graphs(5)), torch.arange(5)
    before = {name: store.field(name).clone() for name in ("x", "edge_index", "y")}
    for batch in store.batches(order, 2):
        for _, value in batch:
            value.zero_()
    assert order.tolist() == [0, 1, 2, 3, 4]
    assert all(torch.equal(store.field(name), value) for name, value in before.items())


def edges(*pairs):
    return torch.tensor(pairs).t()


@pytest.mark.parametrize(
    ("graphs", "message"),
    [
        ([], "empty"),
        (
            [Data(x=torch.ones(2, 1), edge_index=edges((0, 2)))],
            r"graph 0 .*edge \[0, 2\].* 2 nodes",
        ),
        (
            [Data(x=torch.ones(2, 1), edge_index=edges((0, 1))), Data(x=torch.ones(2, 1), edge_index=edges((-1, 0)))],
            r"graph 1 .*edge \[-1, 0\]",
        ),
        ([Data(x=torch.ones(2, 1), edge_index=edges((0, 1)).float())], "int64"),
        ([Data(x=torch.tensor([[1.0], [float("nan")]]))], "x holds 1 NaN.*graph 0"),
        ([Data(x=torch.ones(1, 1)), Data(x=torch.tensor([[float("inf")]]))], "first in graph 1"),
        ([Data(x=torch.ones(2, 1)), Data(x=torch.ones(2, 1), y=1)], r"differ in fields \['y'\]"),
        ([torch.ones(2)], "graph 0 is a .*GraphStore"),
        ([Data(x=torch.ones(2, 1), adj=torch.eye(2).to_sparse())], "sparse"),
    ],
)
def test_bad_input(graphs, message):
    with pytest.raises(DataError, match=message):
        GraphStore.from_dataset(graphs)


def test_private_names_of_pyg_that_we_lean_on():
    # GraphStore builds a Batch without its constructor. If this fails after an upgrade of torch-geometric, compare
    # GraphStore._batch with Batch.from_data_list and torch_geometric.data.storage.GlobalStorage.
    theirs = Batch.from_data_list([Data(x=torch.ones(2, 1), edge_index=edges((0, 1)), num_nodes=2)])
    assert set(theirs.__dict__) >= {"_store"}
    assert set(theirs._store.__dict__) == {
        "_mapping",
        "_parent",
        "_num_nodes",
        "_num_graphs",
        "_slice_dict",
        "_inc_dict",
    }
    ours = GraphStore.from_dataset([Data(x=torch.ones(2, 1), edge_index=edges((0, 1)), num_nodes=2)])
    ours = ours.take(torch.tensor([0]))
    assert set(ours.__dict__) == {*theirs.__dict__, "_store_positions"}
    assert set(ours._store.__dict__) == set(theirs._store.__dict__)
    assert type(ours._store) is type(theirs._store)
    assert ours._store._parent() is ours
