"""Every kind of field is packed as PyG's own Batch packs it, or refused with the field and the graph named."""

import contextlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Batch, Data, HeteroData

from graphseq.core import DataError, sample_positions
from graphseq.data import BatchLoader, GraphDataModule, GraphStore, TensorStore
from tests.data.graphs.test_graph_store import assert_equal_batches

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.int32, torch.uint8, torch.bool]


class OwnRules(Data):
    """Joins ``pairs`` along its last dimension, stacks ``matrix``, and counts edges in ``edge_number``."""

    def __cat_dim__(self, key, value, *args, **kwargs):
        if key == "matrix":
            return None
        return -1 if key == "pairs" else super().__cat_dim__(key, value, *args, **kwargs)

    def __inc__(self, key, value, *args, **kwargs):
        return self.num_edges if key == "edge_number" else super().__inc__(key, value, *args, **kwargs)


def tensor(draws, dtype, *shape):
    return (torch.rand(*shape, generator=draws) * 4).to(dtype)


def maker(kind, dtype):
    """Return a function from (generator, nodes, edges, position) to a value of the kind of field."""
    makers = {
        "node": lambda r, n, e, i: tensor(r, dtype, n, 2),
        "edge": lambda r, n, e, i: tensor(r, dtype, e),
        "row": lambda r, n, e, i: tensor(r, dtype, 1, 3),
        "flat": lambda r, n, e, i: tensor(r, dtype, 3),
        "number": lambda r, n, e, i: tensor(r, dtype, 1).squeeze(),
        "ragged": lambda r, n, e, i: tensor(r, dtype, i % 3, 2),
        "int": lambda r, n, e, i: i,
        "float": lambda r, n, e, i: i / 2,
        "bool": lambda r, n, e, i: i % 2 == 0,
        "str": lambda r, n, e, i: f"graph {i}",
        "strs": lambda r, n, e, i: ["a"] * (i % 3),
        "array": lambda r, n, e, i: np.arange(i),
        "tensors": lambda r, n, e, i: [tensor(r, dtype, n), tensor(r, dtype, 2, 2)],
        "nested list": lambda r, n, e, i: [[tensor(r, dtype, 1)] * (i % 2), []],
        "dict": lambda r, n, e, i: {"a": tensor(r, dtype, n), "b": {"c": [tensor(r, dtype, 1)], "d": "text"}},
        "numbered": lambda r, n, e, i: {0: tensor(r, dtype, 1), 1: tensor(r, dtype, n)},
        "list of dict": lambda r, n, e, i: [{"a": 1}] * (i % 3),
    }
    return makers[kind]


KINDS = ["node", "edge", "row", "flat", "number", "ragged", "int", "float", "bool", "str", "strs", "array", "tensors",
         "nested list", "dict", "numbered", "list of dict"]  # fmt: skip
NAMES = ["value", "my_index", "my_batch", "face_of", "adj_like", "idx", "index_flag"]


@given(
    st.integers(0, 10_000),
    st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(KINDS), st.sampled_from(DTYPES)), max_size=4),
    st.sampled_from(["x", "num_nodes", "edge_index"]),
    st.integers(1, 6),
)
@settings(deadline=None, max_examples=150)
def test_fields_are_joined_as_pyg_joins_them_or_refused(seed, chosen, nodes_by, count):
    draws = torch.Generator().manual_seed(seed)
    graphs = []
    for position in range(count):
        n, e = (int(torch.randint(low, 7, (), generator=draws)) for low in (2, 0))
        edge_index = torch.randint(0, n, (2, e), generator=draws)
        known = {"x": {"x": torch.rand(n, 2, generator=draws)}, "num_nodes": {"num_nodes": n}}
        if nodes_by == "edge_index":
            edge_index = torch.cat([edge_index, torch.tensor([[n - 1], [0]])], 1)
        graph = Data(edge_index=edge_index, **known.get(nodes_by, {}))
        for name, kind, dtype in chosen:
            graph[name] = maker(kind, dtype)(draws, n, edge_index.size(1), position)
        graphs.append(graph)
    order = torch.randint(0, count, (int(torch.randint(1, 6, (), generator=draws)),), generator=draws)
    refusal = packing_error(graphs)
    if refusal is not None:
        # what PyG adds to an index of bool, or cannot count in an empty `batch`, makes no sense in any batch
        assert any(name in refusal for name, *_ in chosen)
        return
    store = GraphStore.from_dataset(graphs)
    ours = store.take(order)
    try:
        theirs = Batch.from_data_list([graphs[i] for i in order])
    except Exception:
        return
    assert torch.equal(sample_positions(ours), order)
    assert set(ours.keys()) - {"idx"} == set(theirs.keys()) - {"idx"}
    for key in theirs.keys():  # noqa: SIM118 - PyG data is no dict
        assert equal(theirs[key], ours[key]), key
    for mine, other in zip(ours.to_data_list(), theirs.to_data_list(), strict=True):
        assert all(equal(other[key], mine[key]) for key in other.keys())  # noqa: SIM118 - PyG data is no dict


def packing_error(graphs):
    try:
        GraphStore.from_dataset(graphs)
    except DataError as error:
        return str(error)
    return None


def equal(left, right):
    if isinstance(left, torch.Tensor):
        return isinstance(right, torch.Tensor) and left.dtype == right.dtype and torch.equal(left, right)
    if isinstance(left, dict):
        return list(left) == list(right) and all(equal(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(equal, left, right))
    return bool(np.array_equal(left, right)) if isinstance(left, np.ndarray) else left == right


def test_rules_of_a_subclass():
    graphs = [
        OwnRules(
            x=torch.rand(n, 1),
            edge_index=torch.tensor([[0] * n, [1] * n]),
            pairs=torch.rand(2, n),
            matrix=torch.rand(2, 2),
            edge_number=torch.arange(n),
        )
        for n in (3, 2, 4)
    ]
    batch = GraphStore.from_dataset(graphs).take(torch.tensor([2, 0, 1]))
    assert_equal_batches(batch, Batch.from_data_list([graphs[2], graphs[0], graphs[1]]))
    assert batch.edge_number.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8]


def test_graphs_with_a_number_of_nodes_alone():
    batch = GraphStore.from_dataset([Data(num_nodes=n) for n in (2, 3)]).take([1, 0])
    assert_equal_batches(batch, Batch.from_data_list([Data(num_nodes=3), Data(num_nodes=2)]))


def pair(first, second, **both):
    """Two graphs of 2 and 3 nodes and one edge each, with a field of their own."""
    edge = torch.tensor([[0], [1]])
    return [
        Data(x=torch.ones(n, 1), edge_index=edge, **both, **({} if own is None else own))
        for n, own in ((2, first), (3, second))
    ]


T0, T1 = torch.ones(1), torch.ones(2)


@pytest.mark.parametrize(
    ("graphs", "named"),
    [
        (pair({"paths": [T0]}, {"paths": [T0, T0]}), r"paths of graph 1 .* 2 .*graph 0 1"),
        (pair({"paths": [T0, T0]}, {"paths": [T0]}), r"paths of graph 1 has 1"),
        (pair({"paths": [T0]}, {"paths": []}), r"paths of graph 1 is a list"),
        (pair({"info": {"a": T0}}, {"info": {"a": T0, "b": T0}}), r"info of graph 1 .*\['b'\]"),
        (pair({"info": {"a": {"b": T0}}}, {"info": {"a": {"b": T0.long()}}}), r"info\['a'\]\['b'\] of graph 1"),
        (pair({"info": {}}, {"info": {}}), "info of graph 0"),
        (pair({"info": T0}, {"info": {"a": T0}}), "info of graph 1"),
        (pair({"u": T0}, {"u": T0.double()}), "u of graph 1 is torch.float64"),
        (pair({"u": 1}, {"u": 1.5}), "u of graph 1 is a float"),
        (pair({"u": True}, {"u": 1}), "u of graph 1 is a int"),
        (pair({"u": "a"}, {"u": 1}), "u of graph 1"),
        (pair({"u": torch.ones(1, 2)}, {"u": torch.ones(1, 3)}), r"u of graph 1 is torch.float32 \(1, 3\)"),
        (pair({"u": torch.tensor(1.0)}, {"u": T0}), "u of graph 1"),
        (pair({"pos": torch.ones(2, 3)}, {"pos": torch.ones(2, 3)}), "pos of graph 1 .* 2 .* 3 nodes"),
        (pair({"z": torch.ones(2).long()}, {"z": torch.ones(4).long()}), "z of graph 1 .* 4 .* 3 nodes"),
        (pair({"train_mask": T1 > 0}, {"train_mask": T1 > 0}), "train_mask of graph 1 has 2 rows"),
        (pair({"edge_attr": T0}, {"edge_attr": T1}), "edge_attr of graph 1 .* 2 .* 1 edges"),
        (pair({"edge_weight": T1}, {"edge_weight": T0}), "edge_weight of graph 0 .* 2 .* 1 edges"),
        (pair({"adj_t": torch.eye(2).to_sparse()}, {"adj_t": torch.eye(3).to_sparse()}), "adj_t of graph 0"),
        (pair({"u": T0}, {"u": T0.to_sparse()}), "u of graph 1 is a sparse"),
        (pair({"u": {"a": T0.to_sparse()}}, {"u": {"a": T0.to_sparse()}}), r"u\['a'\] of graph 0"),
        (pair({"my_index": T1 > 0}, {"my_index": T1 > 0}), "my_index is bool"),
        (pair({"x_batch": T0.long()[:0]}, {"x_batch": T0.long()}), "x_batch of graph 0"),
        (pair({"batch": T1.long()}, {"batch": torch.zeros(3).long()}), "graph 0 .*field batch"),
        ([Data(y=1), Data(y=2)], "nodes of graph 0"),
        ([Data(my_node=torch.tensor(1))], "nodes of graph 0"),
        ([Data(x=T1), HeteroData()], "graph 1 is a HeteroData"),
        ([HeteroData()], "graph 0 is a HeteroData"),
        ([Data(x=T1), OwnRules(x=T1)], "graph 1 is a OwnRules"),
        (
            [Data(x=T1, edge_index=torch.tensor([[0], [1]])), Data(x=T1, edge_index=torch.tensor([[], []]))],
            "edge_index of graph 1 is torch.float32",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_joined_is_refused_by_field_and_graph(graphs, named):
    with pytest.raises(DataError, match=named):
        GraphStore.from_dataset(graphs)


def test_a_field_of_nodes_is_known_by_most_graphs():
    sizes = [2, 3, 4] * 7
    graphs = [Data(x=torch.ones(n, 1), charge=torch.ones(n)) for n in sizes]
    graphs[16].charge = torch.ones(5)
    with pytest.raises(DataError, match="charge of graph 16 .* 5 .* 3 nodes"):
        GraphStore.from_dataset(graphs)
    # lengths of their own are no fault, nor K numbers of graphs that have K nodes as a rule
    GraphStore.from_dataset([Data(x=torch.ones(n, 1), path=torch.ones(i % 5)) for i, n in enumerate(sizes)])
    GraphStore.from_dataset([Data(x=torch.ones(n, 1), u=torch.ones(3)) for n in [3] * 19 + [4]])


STORE = GraphStore.from_dataset([Data(x=torch.full((n, 1), float(n))) for n in (2, 3, 4, 5)])


@pytest.mark.parametrize(
    "index",
    [
        torch.tensor([False, False, True, True]),
        [False, False, True, True],
        np.array([False, False, True, True]),
        [2, 3],
        (2, 3),
        range(2, 4),
        np.array([2, 3], dtype=np.int32),
        torch.tensor([2, 3], dtype=torch.int16),
        slice(2, None),
    ],
)
def test_an_index_may_be_a_mask_a_list_an_array_or_a_slice(index):
    assert STORE.take(index).ptr.diff().tolist() == [4, 5]
    assert [b.num_nodes for b in STORE.batches(index, 1)] == [4, 5]
    assert sample_positions(STORE.take(index)).tolist() == [2, 3]
    rows = TensorStore(torch.arange(4))
    assert rows.take(index)[0].tolist() == [2, 3]
    assert [b[0].item() for b in rows.batches(index, 1)] == [2, 3]
    if not isinstance(index, slice | range | tuple):
        listed = list(index) if not isinstance(index, torch.Tensor | np.ndarray) else index
        rest = [i for i in range(4) if i < 2]
        data = GraphDataModule([STORE[i] for i in range(4)], split={"train": listed, "val": rest, "test": []})
        assert data.splits["train"].tolist() == [2, 3]


def test_a_slice_may_run_backwards():
    assert sample_positions(STORE.take(slice(None, None, -1))).tolist() == [3, 2, 1, 0]


@pytest.mark.parametrize(
    "index",
    [
        torch.tensor([True, False]),
        [0.0, 1.0],
        torch.tensor([0, 1, 0, 1], dtype=torch.uint8),
        torch.tensor([[0]]),
        2,
        ["a"],
        [],
        torch.zeros(4, dtype=torch.bool),
    ],
)
def test_other_indices_are_refused(index):
    with pytest.raises(DataError, match="index"):
        STORE.take(index)


@pytest.mark.parametrize("index", [slice(0, 2), [0], torch.tensor([True, False, True, False]), True, 1.0])
def test_one_graph_is_asked_for_by_one_position(index):
    with pytest.raises(TypeError, match="take"):
        STORE[index]


def test_one_graph_by_any_integer():
    assert [STORE[i].num_nodes for i in (1, -1, np.int64(2), torch.tensor(0))] == [3, 5, 4, 2]
    assert [graph.num_nodes for graph in STORE] == [2, 3, 4, 5]
    with pytest.raises(IndexError, match="-5 of 4"):
        STORE[-5]


def test_objects_and_nests_survive_saving_a_new_field_and_a_move():
    graphs = pair({"info": {0: T0, 1: ["a"]}, "u": [T0]}, {"info": {0: T0, 1: ["b"]}, "u": [T1]})
    store = GraphStore.from_dict(GraphStore.from_dataset(graphs).to_dict())
    store = store.with_field("env", torch.tensor([4, 5])).with_field("u", torch.tensor([6, 7])).to("cpu")
    assert sorted(store.names) == ["edge_index", "env", "info", "u", "x"]
    batch = store.take([1])
    assert batch.info[1] == [["b"]]
    assert (batch.env.item(), batch.u.item()) == (5, 7)
    assert next(iter(BatchLoader(store, 2, shuffle=False))).info[0].tolist() == [1.0, 1.0]
    for name in ("batch", "ptr"):
        with pytest.raises(DataError, match=name):
            store.with_field(name, torch.zeros(2))


def targets(*values, nodes=(3, 3)):
    return GraphDataModule(
        [Data(x=torch.ones(nodes[i % 2], 2), y=values[i % len(values)]) for i in range(20)], split="random"
    )


@pytest.mark.parametrize("nodes", [(3, 3), (2, 4)])
@pytest.mark.parametrize(
    ("values", "outputs"),
    [
        ((torch.rand(3), torch.rand(3)), 3),
        ((torch.rand(1, 3), torch.rand(1, 3)), 3),
        ((torch.rand(1), torch.rand(1)), 1),
        ((0.5, 1.5), 1),
        ((0, 4), 5),
        ((True, False), 2),
        ((torch.tensor([True]), torch.tensor([False])), 2),
        ((torch.tensor([[0, 1, 1, 0]]), torch.tensor([[1, 1, 1, 0]])), 4),
        ((torch.tensor([0, 1, 1, 0, 0]), torch.tensor([1, 1, 1, 0, 0])), 5),
    ],
)
def test_number_of_outputs(values, outputs, nodes):
    data = targets(*values, nodes=nodes)
    assert data.num_outputs == outputs
    with contextlib.suppress(DataError):
        assert len(data.class_weights) == outputs


def test_one_label_or_number_to_each_node():
    graphs = [Data(x=torch.ones(n, 1), y=torch.arange(n)) for n in (2, 3) * 10]
    assert GraphDataModule(graphs).num_outputs == 3
    graphs = [Data(x=torch.ones(n, 1), y=torch.rand(n)) for n in (2, 3) * 10]
    assert GraphDataModule(graphs).num_outputs == 1


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ((["a"], ["b"]), "y of graph 0 is a list"),
        (({"a": T0}, {"a": T0}), "y of graph 0 is a dict"),
        ((torch.rand(3), torch.rand(2)), "y of graph 1 has 2 entries"),
        ((0, -1), "graph 1"),
    ],
)
def test_targets_that_are_refused(values, named):
    data = targets(*values, nodes=(4, 5))
    with pytest.raises(DataError, match=named):
        _ = data.num_outputs
