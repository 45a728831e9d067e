import copy
import math
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.nn import PNAConv

from graphseq.core import DataError
from graphseq.nn import (
    CategoricalEncoder,
    FeatureEncoder,
    GraphPool,
    VirtualNode,
    gin_mlp,
    graph_index,
    make_convolution,
)
from tests.reference import graph as reference

MODES = ["sum", "mean", "max"]


def ragged(seed, sizes, dim):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(sum(sizes), dim, generator=generator, dtype=torch.float64)
    ptr = torch.tensor([0, *sizes]).cumsum(0)
    batch = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    return x, batch, ptr


@pytest.mark.parametrize("mode", MODES)
def test_pool_equals_loops(mode):
    x, batch, ptr = ragged(0, [3, 1, 4], 5)
    x.requires_grad_()
    expected = torch.stack(reference.pool(list(x), batch.tolist(), 3, mode))
    cotangent = torch.randn(3, 5, dtype=torch.float64)
    (wanted,) = torch.autograd.grad(expected, x, cotangent)
    for fields in [{"batch": batch}, {"ptr": ptr}, {"batch": batch, "ptr": ptr}, {"batch": batch, "num_graphs": 3}]:
        pooled = GraphPool(mode)(x, **fields)
        torch.testing.assert_close(pooled, expected)
        torch.testing.assert_close(torch.autograd.grad(pooled, x, cotangent)[0], wanted)


@pytest.mark.parametrize("mode", MODES)
def test_pool_of_one_graph_and_of_empty_graphs(mode):
    x, _, _ = ragged(1, [4], 2)
    torch.testing.assert_close(GraphPool(mode)(x), torch.stack(reference.pool(list(x), [0] * 4, 1, mode)))
    pooled = GraphPool(mode)(x, ptr=torch.tensor([0, 0, 4, 4]))
    assert pooled.shape == (3, 2)
    assert not pooled[[0, 2]].any()
    torch.testing.assert_close(GraphPool(mode)(x, torch.ones(4, dtype=torch.long), num_graphs=3), pooled)


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 5), min_size=1, max_size=6).filter(sum),
    mode=st.sampled_from(MODES),
    seed=st.integers(0, 99),
    ties=st.booleans(),
)
def test_pool_by_ptr_is_pool_by_batch_and_ignores_node_order(sizes, mode, seed, ties):
    x, batch, ptr = ragged(seed, sizes, 3)
    x = (x.round() if ties else x).requires_grad_()  # ReLU makes ties of zeros; their gradient must not differ
    by_ptr = GraphPool(mode)(x, ptr=ptr)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    by_batch = GraphPool(mode)(x[order], batch[order], num_graphs=len(sizes))
    torch.testing.assert_close(by_ptr, by_batch)
    torch.testing.assert_close(
        torch.autograd.grad(by_ptr.square().sum(), x)[0], torch.autograd.grad(by_batch.square().sum(), x)[0]
    )


def test_tied_maxima_share_negative_gradients_too():
    x = torch.full((2, 1), 3.0, requires_grad=True)
    for fields in [{"ptr": torch.tensor([0, 2])}, {"batch": torch.tensor([0, 0])}, {}]:
        for gradient in (1.0, -1.0):
            pooled = GraphPool("max")(x, **fields)
            (shares,) = torch.autograd.grad(pooled, x, torch.full((1, 1), gradient))
            assert shares.flatten().tolist() == [gradient / 2] * 2


def test_graph_index_from_each_source():
    cpu = torch.device("cpu")
    batch, ptr = torch.tensor([0, 0, 2]), torch.tensor([0, 2, 2, 3, 3])
    for given_batch, given_ptr, count in [(batch, None, 3), (None, ptr, 4), (batch, ptr, 4)]:
        index, num_graphs = graph_index(3, given_batch, given_ptr, cpu)
        assert index.tolist() == [0, 0, 2]
        assert num_graphs == count
    index, num_graphs = graph_index(3, None, None, cpu)
    assert (index.tolist(), num_graphs) == ([0, 0, 0], 1)


def test_pool_refuses_unknown_modes():
    with pytest.raises(ValueError, match=r"mode='median'"):
        GraphPool("median")


def virtual_node_by_loops(node, x, graphs, num_graphs, training):
    """Two layers that do nothing but take part in the virtual node's exchange."""
    parameters = dict(node.named_parameters()) | dict(node.named_buffers())
    states = [parameters["start"]] * num_graphs
    rows = [row + states[graph] for row, graph in zip(x, graphs, strict=True)]
    stages = []
    for position in (0, 3):
        norm = f"updates.0.{position + 1}.module."
        statistics = [] if training else [parameters[norm + "running_mean"], parameters[norm + "running_var"]]
        mapping = [parameters[f"updates.0.{position}.{name}"] for name in ("weight", "bias")]
        stages.append((mapping, [parameters[norm + "weight"], parameters[norm + "bias"], *statistics]))
    states = reference.virtual_update(states, rows, graphs, stages)
    return [row + states[graph] for row, graph in zip(rows, graphs, strict=True)], states


@pytest.mark.parametrize("training", [True, False])
def test_virtual_node_equals_loops(training):
    torch.manual_seed(3)
    x, batch, ptr = ragged(2, [3, 1, 4], 4)
    x.requires_grad_()
    node = VirtualNode(4, num_layers=2).double()
    torch.nn.init.normal_(node.start)
    for name, buffer in node.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 1.5)
    expected_rows, expected_states = virtual_node_by_loops(node, list(x), batch.tolist(), 3, training)
    node.train(training)
    for fields in [{"batch": batch}, {"batch": batch, "ptr": ptr}]:
        twin = copy.deepcopy(node)  # training moves the running statistics
        state = twin.initial_state(3)
        h = twin(x, state, batch)
        state = twin.update(0, h, state, **fields)
        out = twin(h, state, batch)
        torch.testing.assert_close(state, torch.stack(expected_states))
        torch.testing.assert_close(out, torch.stack(expected_rows))
        (gradient,) = torch.autograd.grad(out.square().sum(), x)
        total = sum(row.square().sum() for row in expected_rows)
        torch.testing.assert_close(gradient, torch.autograd.grad(total, x, retain_graph=True)[0])


def test_virtual_node_options_and_limits():
    x, batch, _ = ragged(4, [2, 3], 4)
    node = VirtualNode(4, num_layers=3, residual=False).double().eval()
    state = torch.randn(2, 4, dtype=torch.float64)
    expected = node.updates[1](state + GraphPool("sum")(x, batch))
    torch.testing.assert_close(node.update(1, x, state, batch), expected)
    assert node.update(2, x, state, batch) is state  # nothing reads it after the last layer
    assert len(node.updates) == 2
    assert not VirtualNode(4, 2).initial_state(3).any()
    single = VirtualNode(4, 2).train()
    assert single.update(0, torch.randn(3, 4), single.initial_state(1)).isfinite().all()
    for wrong in ({"num_layers": 0}, {"num_layers": 2, "dropout": 1.0}):
        with pytest.raises(ValueError, match="VirtualNode"):
            VirtualNode(4, **wrong)


def test_categories_are_a_sum_of_tables():
    encoder = CategoricalEncoder([3, 2, 4], dim=5).double()
    x = torch.tensor([[2, 1, 0], [0, 0, 3], [2, 1, 0]])
    starts = [0, 3, 5]
    expected = torch.stack(
        [sum(encoder.weight[start + int(value)] for start, value in zip(starts, row, strict=True)) for row in x]
    )
    torch.testing.assert_close(encoder(x), expected)
    (gradient,) = torch.autograd.grad(encoder(x).square().sum(), encoder.weight)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected.square().sum(), encoder.weight)[0])
    assert CategoricalEncoder([4], 2)(torch.tensor([3, 0])).shape == (2, 2)
    assert set(encoder.state_dict()) == {"weight"}
    assert pickle.loads(pickle.dumps(encoder))(x).equal(encoder(x))
    assert encoder(x.int()).equal(encoder(x))


def test_categories_start_with_variance_one():
    torch.manual_seed(0)
    encoder = CategoricalEncoder([50] * 8, dim=200)
    assert math.isclose(encoder(torch.randint(50, (500, 8))).var().item(), 1, rel_tol=0.1)


def test_categories_out_of_range_are_named():
    encoder = CategoricalEncoder([3, 2], dim=5)
    with pytest.raises(DataError, match=r"category 2 in row 1, column 1 .* 2 categories"):
        encoder(torch.tensor([[2, 1], [0, 2]]))
    with pytest.raises(DataError, match="category -1 in row 0, column 0"):
        encoder(torch.tensor([[-1, 0]]))
    with pytest.raises(DataError, match="2 columns"):
        encoder(torch.zeros(4, 3, dtype=torch.long))
    with pytest.raises(DataError, match="integer categories"):
        encoder(torch.zeros(4, 2))
    for wrong in ([], [3, 0]):
        with pytest.raises(ValueError, match="number of categories"):
            CategoricalEncoder(wrong, 5)


def test_feature_encoder_checks_what_comes():
    assert FeatureEncoder(3)(torch.ones(2, 3)).equal(torch.ones(2, 3))
    assert FeatureEncoder(1, field="edge_attr")(torch.ones(4)).shape == (4, 1)
    assert FeatureEncoder(0, 6, categories=[2, 2])(torch.tensor([[1, 0]])).shape == (1, 6)
    with pytest.raises(DataError, match=r"no x; .*OneHotDegree"):
        FeatureEncoder(3)(None)
    with pytest.raises(ValueError, match=r"0 features in x; .*OneHotDegree"):
        FeatureEncoder(0)
    with pytest.raises(DataError, match=r"torch.int64.*node_categories"):
        FeatureEncoder(3)(torch.ones(2, 3, dtype=torch.long))
    with pytest.raises(DataError, match=r"torch.int64.*edge_categories"):
        FeatureEncoder(3, field="edge_attr")(torch.ones(2, 3, dtype=torch.long))
    with pytest.raises(DataError, match=r"\(2, 4\).*3 features"):
        FeatureEncoder(3)(torch.ones(2, 4))
    with pytest.raises(ValueError, match="categories=.*out_channels"):
        FeatureEncoder(3, categories=[2])


def test_pna_is_that_of_pyg():
    """Its sums over four aggregators and three scalers are compared with PyG's own layer only, no loops."""
    histogram = [1, 3, 4, 2]
    layer = make_convolution("pna", 3, 6, edge_channels=2, degree_histogram=histogram)
    twin = PNAConv(
        3,
        6,
        ["mean", "max", "min", "std"],
        ["identity", "amplification", "attenuation"],
        deg=torch.tensor(histogram),
        edge_dim=2,
    )
    twin.load_state_dict(layer.state_dict())
    x, edge_index, edge_attr = torch.randn(5, 3), torch.randint(5, (2, 9)), torch.randn(9, 2)
    torch.testing.assert_close(layer(x, edge_index, edge_attr), twin(x, edge_index, edge_attr), rtol=0, atol=0)


def test_convolutions_ignore_what_they_do_not_use():
    everything = {"edge_channels": 4, "degree_histogram": [0, 2, 1], "heads": 2, "train_eps": True}
    for name in ("gin", "gine", "gcn", "sage", "gat", "pna"):
        assert make_convolution(name, 3, 8, **everything)._get_name().lower().startswith(name)
    assert make_convolution("gin", 3, 8, train_eps=True).eps.requires_grad
    assert make_convolution("gat", 3, 8, edge_channels=0).edge_dim is None
    assert make_convolution(torch.nn.Linear, 3, 8, **everything).out_features == 8
    assert [type(layer).__name__ for layer in gin_mlp(3, 8, 1)] == ["Linear"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"conv": "gine"}, "edge_channels"),
        ({"conv": "gine", "edge_channels": 0}, "edge_channels"),
        ({"conv": "pna"}, "degree_histogram"),
        ({"conv": "pna", "degree_histogram": [5]}, r"degree_histogram=\[5\]"),
        ({"conv": "gat", "heads": 3}, "3 heads"),
        ({"conv": "transformer"}, "conv is 'transformer'"),
    ],
)
def test_convolutions_refuse(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_convolution(in_channels=3, out_channels=8, **arguments)
    with pytest.raises(ValueError, match="at least 1"):
        gin_mlp(3, 8, 0)


def test_sizes_types_and_shapes_that_no_layer_takes():
    x, batch = torch.randn(5, 8), torch.tensor([0, 0, 0, 1, 1])
    for make, said in [
        (lambda: CategoricalEncoder(3, 4), "num_categories=3"),
        (lambda: CategoricalEncoder([3], 0), "dim is 0"),
        (lambda: FeatureEncoder(3, 0), "out_channels is 0"),
        (lambda: FeatureEncoder(2.5, 4), r"in_channels is 2\.5"),
        (lambda: FeatureEncoder(3, field="z"), "field='z'"),
        (lambda: VirtualNode(0, 2), "dim is 0"),
    ]:
        with pytest.raises(ValueError, match=said):
            make()
    with pytest.raises(DataError, match="complex64"):
        CategoricalEncoder([3], 4)(torch.ones(2, 1) * 1j)
    node = VirtualNode(8, 2).eval()
    state = node.initial_state(2)
    for call, said in [
        (lambda: node(x[:, :1], state, batch), r"\(5, 1\)"),  # one column would be broadcast
        (lambda: node(x, state, batch[:1]), r"batch \(1,\)"),
        (lambda: node.update(0, x, state, None, torch.tensor([0, 5])), "1 graphs"),
        (lambda: node.update(2, x, state, batch), "layer is 2"),
    ]:
        with pytest.raises(ValueError, match=said):
            call()
