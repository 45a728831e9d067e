"""Triangle graphs: as many triangles as asked for, by networkx's count, on sizes that do not tell the class."""

import networkx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Batch

from graphseq.data import TrianglesDataModule, triangle_graphs


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@given(seed=st.integers(0, 10**6), labels=st.lists(st.integers(1, 10), min_size=1, max_size=12), low=st.integers(3, 9))
@settings(max_examples=25, deadline=None)
def test_counts_are_those_of_networkx(seed, labels, low):
    made = triangle_graphs(torch.tensor(labels), low, low + 6, max_degree=5, generator=generator(seed))
    for g, label in enumerate(labels):
        size = int(made["ptr"][g + 1] - made["ptr"][g])
        edges = made["edge_index"][:, made["edge_ptr"][g] : made["edge_ptr"][g + 1]].T.tolist()
        graph = networkx.Graph()
        graph.add_nodes_from(range(size))
        graph.add_edges_from(edges)
        assert low <= size <= low + 6
        assert graph.number_of_nodes() == size
        assert len(edges) == 2 * graph.number_of_edges()
        assert not list(networkx.selfloop_edges(graph))
        assert sum(networkx.triangles(graph).values()) == 3 * label
        degrees = torch.tensor([min(graph.degree[v], 5) for v in range(size)])
        assert torch.equal(made["x"][made["ptr"][g] : made["ptr"][g + 1]].argmax(1), degrees)


def test_the_least_sizes_are_the_least():
    """Every number of triangles on as few nodes as allowed; with one node fewer, no graph at all has so many."""
    for label in range(1, 11):
        sizes = [3, 4, 5, 6]
        possible = []
        for size in sizes:
            try:
                triangle_graphs(torch.tensor([label]), 3, size, generator=generator())
                possible.append(size)
            except ValueError as error:
                assert "triangles; allow more nodes" in str(error)  # noqa: PT017 - both outcomes are checked below
        pairs = [(a, b) for a in range(5) for b in range(a)]
        counts = set()
        for mask in range(2**10):  # all graphs of five nodes
            graph = networkx.Graph([pair for bit, pair in enumerate(pairs) if mask >> bit & 1])
            counts.add(sum(networkx.triangles(graph).values()) // 3)
        assert (5 in possible) == (label in counts)
        assert 6 in possible


def test_sizes_do_not_tell_the_class():
    data = TrianglesDataModule(num_train=4000, num_val=0, num_test=0, min_nodes=6)
    sizes, y = data.graphs.num_nodes.double(), data.graphs.field("y")
    means = torch.stack([sizes[y == label].mean() for label in range(10)])
    assert float((means - 15.5).abs().max()) < 1.2  # about four standard errors
    assert torch.bincount(y).tolist() == [400] * 10


def test_splits():
    data = TrianglesDataModule(num_train=60, num_val=20, num_test=40, test_max_nodes=40, num_environments=3)
    sizes, env = data.graphs.num_nodes, data.graphs.field("env")
    assert data.split_sizes() == {"train": 60, "val": 20, "test": 40, "test_small": 20, "test_large": 20}
    for name in ("train", "val", "test_small"):
        assert int(sizes[data.splits[name]].max()) <= 25
    large = sizes[data.splits["test_large"]]
    assert int(large.min()) > 25
    assert int(large.max()) <= 40
    assert (env[data.splits["test_large"]] == 3).all()
    assert env[data.splits["train"]].unique().tolist() == [0, 1, 2]
    assert (data.num_features, data.num_outputs) == (15, 10)


def test_seeds_and_batches(own_cache):
    first, second, other = (
        TrianglesDataModule(num_train=30, num_val=0, num_test=0, seed=seed).graphs for seed in (3, 3, 4)
    )
    assert len(list(own_cache.rglob("triangles-*.pt"))) == 2
    assert torch.equal(first.field("edge_index"), second.field("edge_index"))
    assert first.field("edge_index").tolist() != other.field("edge_index").tolist()
    index = torch.tensor([7, 0, 3])
    batch = first.take(index)
    expected = Batch.from_data_list([first[int(i)] for i in index], exclude_keys=["idx"])
    for name in ("x", "edge_index", "y", "batch", "ptr"):
        assert torch.equal(getattr(batch, name), getattr(expected, name)), name


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"num_train": 0}, "0, 5000 and 10000 graphs"),
        ({"num_val": -1}, "30000, -1 and 10000 graphs"),
        ({"min_nodes": 3}, "at least 4"),
        ({"max_nodes": 5}, "up to 6"),
        ({"test_max_nodes": 25}, "test_max_nodes is 25; .*max_nodes, 25"),
        ({"max_degree": 0}, "max_degree"),
        ({"num_environments": 1}, "num_environments"),
    ],
)
def test_refuses(options, named):
    with pytest.raises(ValueError, match=named):
        TrianglesDataModule(**options)


@pytest.mark.parametrize("label", [torch.tensor([0]), torch.tensor([11]), torch.tensor([1.0]), torch.tensor([[1]])])
def test_labels_that_are_none(label):
    with pytest.raises(ValueError, match="from 1 to 10"):
        triangle_graphs(label, 4, 9)
    with pytest.raises(ValueError, match="min_nodes"):
        triangle_graphs(torch.tensor([1]), 9, 8)
