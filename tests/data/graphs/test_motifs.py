"""Motif graphs: made of the parts they claim, in the shares asked for, and equal to PyG's own batches."""

import networkx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Batch
from torch_geometric.utils import to_networkx

from graphseq.data import GraphStore, MotifDataModule, motif_graphs

HOUSE = networkx.Graph([(0, 1), (1, 2), (2, 3), (3, 0), (4, 0), (4, 1)])
MOTIFS = {
    ("causal", 1): HOUSE,
    ("causal", 0): networkx.complete_bipartite_graph(2, 3),
    ("spurious", 1): networkx.complete_graph(4),
    ("spurious", 0): networkx.path_graph(4),
}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@given(
    seed=st.integers(0, 10**6),
    count=st.integers(1, 6),
    nodes=st.tuples(st.integers(1, 6), st.integers(0, 6)),
)
@settings(max_examples=25, deadline=None)
def test_graphs_are_made_of_their_parts(seed, count, nodes):
    label = torch.randint(0, 2, (count,), generator=generator(seed))
    spurious = torch.randint(0, 2, (count,), generator=generator(seed + 1))
    low, high = nodes[0], sum(nodes)
    made = motif_graphs(label, spurious, min_nodes=low, max_nodes=high, max_degree=4, generator=generator(seed))
    for g in range(count):
        size = int(made["ptr"][g + 1] - made["ptr"][g])
        edges = made["edge_index"][:, made["edge_ptr"][g] : made["edge_ptr"][g + 1]].T.tolist()
        graph = networkx.Graph()
        graph.add_nodes_from(range(size))
        graph.add_edges_from(edges)
        assert len(edges) == 2 * graph.number_of_edges()  # both directions, none twice, no self-loop
        assert not list(networkx.selfloop_edges(graph))
        assert networkx.is_connected(graph)
        tree = size - 9
        assert low <= tree <= high
        assert networkx.is_tree(graph.subgraph(range(tree)))
        for kind, first, last, which in (("causal", tree, tree + 5, label), ("spurious", tree + 5, size, spurious)):
            part = graph.subgraph(range(first, last))
            assert networkx.is_isomorphic(part, MOTIFS[kind, int(which[g])])
            outside = [(u, v) for u in range(first, last) for v in graph[u] if not first <= v < last]
            assert len(outside) == 1
            assert outside[0][1] < tree
        degrees = torch.tensor([min(graph.degree[v], 4) for v in range(size)])
        assert torch.equal(made["x"][made["ptr"][g] : made["ptr"][g + 1]].argmax(1), degrees)
    assert torch.equal(made["x"].sum(1), torch.ones(len(made["x"])))


def test_degrees_do_not_tell_the_causal_motifs_apart():
    degrees = [sorted(dict(MOTIFS["causal", label].degree).values()) for label in (0, 1)]
    assert degrees[0] == degrees[1]


def test_attachment_is_preferential():
    """The first two nodes of a tree end up with more edges than evenly joined ones would have."""
    zero = torch.zeros(4000, dtype=torch.int64)
    made = motif_graphs(zero, zero, min_nodes=3, max_nodes=3, generator=generator())
    edges = made["edge_index"]
    third = edges[0, edges[1] == 2]  # the third node is joined to node 0 or 1, both of degree 1: evenly
    joined = third[third < 2].float().mean()
    assert float(joined) == pytest.approx(0.5, abs=0.03)
    made = motif_graphs(zero, zero, min_nodes=4, max_nodes=4, generator=generator())
    per_graph = [
        networkx.Graph(made["edge_index"][:, a:b].T.tolist()).subgraph(range(4))
        for a, b in zip(made["edge_ptr"][:-1].tolist(), made["edge_ptr"][1:].tolist(), strict=True)
    ]
    stars = sum(max(dict(graph.degree).values()) == 3 for graph in per_graph) / 4000
    assert stars == pytest.approx(0.5, abs=0.03)  # the middle of a path of three holds half of the ends, not a third


def test_biases_and_environments():
    data = MotifDataModule(num_train=4000, num_val=2000, num_test=2000, train_bias=[0.9, 0.7], val_bias=0.5)
    store = data.graphs
    agree = (store.field("y") == store.field("spurious")).float()
    env = store.field("env")
    assert [round(float(agree[env == e].mean()), 1) for e in range(4)] == [0.9, 0.7, 0.5, 0.1]
    assert env[data.splits["train"]].unique().tolist() == [0, 1]
    assert torch.bincount(env).tolist() == [2000, 2000, 2000, 2000]
    for e in range(4):
        assert float(store.field("y")[env == e].float().mean()) == 0.5
    assert [len(index) for index in data.splits.values()] == [4000, 2000, 2000]
    assert len(torch.cat(list(data.splits.values())).unique()) == 8000


def test_the_same_bias_is_the_same_environment():
    env = MotifDataModule(num_train=10, num_val=4, num_test=4, val_bias=0.9).graphs.field("env")
    assert env.tolist() == [0] * 14 + [1] * 4


def test_batches_are_those_of_pyg():
    data = MotifDataModule(num_train=12, num_val=0, num_test=0, batch_size=5)
    store = data.graphs
    index = torch.tensor([7, 0, 3])
    batch = store.take(index)
    expected = Batch.from_data_list([store[int(i)] for i in index], exclude_keys=["idx"])
    for name in ("x", "edge_index", "y", "spurious", "env", "batch", "ptr"):
        assert torch.equal(getattr(batch, name), getattr(expected, name)), name
    assert torch.equal(batch.idx, index)
    again = GraphStore.from_dataset([store[i] for i in range(len(store))])
    assert torch.equal(again.field("edge_index"), store.field("edge_index"))
    assert networkx.is_connected(to_networkx(store[3], to_undirected=True))


def test_seeds():
    first, second, other = (MotifDataModule(num_train=30, seed=seed).graphs for seed in (3, 3, 4))
    assert torch.equal(first.field("edge_index"), second.field("edge_index"))
    assert first.field("edge_index").shape != other.field("edge_index").shape or not torch.equal(
        first.field("edge_index"), other.field("edge_index")
    )


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"train_bias": 1.2}, "biases"),
        ({"train_bias": []}, "biases"),
        ({"val_bias": -0.1}, "biases"),
        ({"num_train": 1}, "1, 100 and 400 graphs"),
        ({"num_val": -1}, "500, -1 and 400 graphs"),
        ({"min_nodes": 0}, "min_nodes"),
        ({"min_nodes": 9, "max_nodes": 8}, "min_nodes"),
        ({"max_degree": 0}, "max_degree"),
    ],
)
def test_refuses(options, named):
    with pytest.raises(ValueError, match=named):
        MotifDataModule(**options)


@pytest.mark.parametrize("label", [torch.tensor([2]), torch.tensor([1.0]), torch.tensor([[1]])])
def test_labels_that_are_none(label):
    with pytest.raises(ValueError, match="label is torch"):
        motif_graphs(label, torch.tensor([0]))
