import networkx
import pytest
import torch

from graphseq.sparsity import LayeredDAG, RandomDAG, random_graph
from tests.reference.graph_rnn import layers_of

KINDS = {
    "barabasi_albert": {"edges": 3},
    "configuration_model": {"degrees": [3] * 14},
    "erdos_renyi": {"p": 0.3},
    "random_regular": {"degree": 3},
    "stochastic_block": {"sizes": [6, 8], "p_within": 0.6, "p_between": 0.1},
    "watts_strogatz": {"neighbors": 4, "p": 1.0},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", ["index", "random", "degree"])
@pytest.mark.parametrize("seed", range(4))
def test_every_draw_is_connected_acyclic_and_layered_by_the_longest_path(kind, order, seed):
    graph = random_graph(kind, 14, seed=seed, **KINDS[kind])
    assert sorted(graph.nodes) == list(range(14))
    assert networkx.is_connected(graph)
    dag = RandomDAG(kind, 14, KINDS[kind], order=order, seed=seed)
    directed = dag.to_networkx()
    assert networkx.is_directed_acyclic_graph(directed)
    assert networkx.is_isomorphic(directed.to_undirected(), graph)
    edges = [tuple(edge) for edge in dag.edge_index.T.tolist()]
    assert dag.layers == layers_of(14, edges)
    assert all(dag.layer[u] < dag.layer[v] for u, v in edges)
    assert sum(int(mask.sum()) for mask in dag.masks()) == len(edges)
    assert torch.equal(dag.edge_index, RandomDAG(kind, 14, KINDS[kind], order=order, seed=seed).edge_index)


def test_seeds_and_properties_of_the_kinds():
    def draw(kind, seed=0):
        return random_graph(kind, 14, seed=seed, **KINDS[kind])

    for kind in KINDS:
        assert set(draw(kind).edges) == set(draw(kind).edges)
    assert set(draw("erdos_renyi").edges) != set(draw("erdos_renyi", 1).edges)
    assert {degree for _, degree in draw("random_regular").degree} == {3}
    assert draw("watts_strogatz").number_of_edges() == 28
    within = [(u < 6) == (v < 6) for u, v in random_graph("stochastic_block", 60, sizes=[6, 54], p_within=0.9,
                                                          p_between=0.05).edges]  # fmt: skip
    assert sum(within) > 0.9 * len(within)


@pytest.mark.parametrize("edges", [1, 2, 5])
def test_sources_of_barabasi_albert_are_as_many_as_edges_of_a_new_vertex(edges):
    """Whatever the version of networkx: newer ones begin with a star, whose oriented graph has one source."""
    for seed in range(5):
        dag = RandomDAG("barabasi_albert", 20, {"edges": edges}, seed=seed)
        assert dag.layers[0] == list(range(edges))
        assert dag.edge_index.shape[1] == edges * (20 - edges)


def test_layers_masks_and_skips_of_a_known_graph():
    dag = LayeredDAG(5, [(0, 1), (1, 2), (2, 3), (0, 3), (0, 2), (1, 4)])
    assert dag.layers == [[0], [1], [2, 4], [3]]
    assert dag.skip_pairs == [(0, 2), (0, 3)]
    assert [mask.tolist() for mask in dag.masks()] == [[[True]], [[True, True], [False, True]],
                                                       [[True, False, True, False]]]  # fmt: skip
    assert dag.sinks == [3, 4]
    assert dag.common_neighbors()[2].tolist() == [True, True, True, True, True]
    assert dag.common_neighbors()[4].tolist() == [True, False, True, False, True]


def test_orders_and_directions():
    star = networkx.star_graph(3)
    star = networkx.relabel_nodes(star, {0: "c", 1: "a", 2: "b", 3: "d"})
    path = networkx.Graph([("x", "y"), ("y", "z")])
    assert LayeredDAG.from_graph(path).layers == [[0], [1], [2]]
    assert LayeredDAG.from_graph(path, "degree").layers == [[0], [1, 2]], "y comes first"
    assert LayeredDAG.from_graph(star, "degree").layers == [[0], [1, 2, 3]]
    directed = networkx.DiGraph([(2, 1), (1, 0)])
    assert LayeredDAG.from_graph(directed).edge_index.tolist() == [[0, 1], [1, 2]]
    with pytest.raises(ValueError, match="order is 'degree'"):
        LayeredDAG.from_graph(directed, "degree")
    with pytest.raises(ValueError, match="order is 'size'"):
        LayeredDAG.from_graph(path, "size")


@pytest.mark.parametrize(
    ("size", "edges", "message"),
    [
        (1, [], "num_vertices is 1"),
        (3, [(0, 1), (1, 3)], r"edges\[1\] is \(1, 3\)"),
        (2, [(0, 1), (1, 1)], r"edges\[1\] is \(1, 1\)"),
        (2, [(0, 1, 1)], r"edges\[0\] is \(0, 1, 1\)"),
        (2, [(0, 1), (0, 1)], r"\(0, 1\) twice"),
        (4, [(0, 1), (2, 3)], "disconnected: 2 parts"),
        (3, [(0, 1)], r"disconnected: 2 parts, the smallest is \[2\]"),
        (3, [(0, 1), (1, 2), (2, 0)], "the cycle"),
    ],
)
def test_refused_graphs(size, edges, message):
    with pytest.raises(ValueError, match=message):
        LayeredDAG(size, edges)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("grid", {}, "kind is 'grid'"),
        ("erdos_renyi", {}, "'p' of erdos_renyi is missing"),
        ("erdos_renyi", {"p": 0.5, "m": 1}, "'m' of erdos_renyi is unknown"),
        ("erdos_renyi", {"p": 1.5}, "p is 1.5"),
        ("erdos_renyi", {"p": 0.01}, "none of 100 draws .*p 0.01"),
        ("watts_strogatz", {"neighbors": 4, "p": -0.1}, "p is -0.1"),
        ("watts_strogatz", {"neighbors": 3, "p": 0.5}, "neighbors is 3"),
        ("watts_strogatz", {"neighbors": 10, "p": 0.5}, "neighbors is 10"),
        ("barabasi_albert", {"edges": 0}, "edges is 0"),
        ("barabasi_albert", {"edges": 10}, "edges is 10"),
        ("random_regular", {"degree": 11}, "degree is 11"),
        ("configuration_model", {"degrees": [1] * 9}, "degrees has 9 entries"),
        ("configuration_model", {"degrees": [2] * 9 + [1]}, "the sum 19"),
        ("stochastic_block", {"sizes": [5, 4], "p_within": 0.5, "p_between": 0.5}, r"sizes is \[5, 4\]"),
        ("stochastic_block", {"sizes": [5, 5], "p_within": 0.5, "p_between": 2}, "p_between is 2"),
    ],
)
def test_refused_options(kind, options, message):
    with pytest.raises(ValueError, match=message):
        random_graph(kind, 10, **options)
    if kind == "random_regular":
        with pytest.raises(ValueError, match="degree is 3"):
            random_graph("random_regular", 7, degree=3)
