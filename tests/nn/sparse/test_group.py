"""Formats agree, keep what they store, and reach the inputs that their groups promise."""

import copy
import itertools

import pytest
import torch
from torch import nn

from graphseq.nn import ERLinear, GroupToGroupLinear, MaskedLinear, RewirableLayer

GROUPINGS = ("index", "interleaved", "random")
BACKENDS = {"edge": ("blockdiag+csr",), "column": ("packed",), "block": ("packed",)}
CASES = [
    (grouping, granularity, backend, p)
    for grouping, granularity in itertools.product(GROUPINGS, BACKENDS)
    for backend in BACKENDS[granularity]
    for p in (0.0, 0.3)
]


def pair(grouping, granularity, backend, p, dtype=torch.float64, **options):
    """Return a layer and its masked twin, of the same weights."""
    layers = []
    for name in (backend, "masked"):
        torch.manual_seed(0)
        layer = GroupToGroupLinear(20, 12, 4, 1.0, p, grouping, granularity, name, seed=3, **options)
        layers.append(layer.to(dtype))
    return layers


@pytest.mark.parametrize(("grouping", "granularity", "backend", "p"), CASES)
def test_formats_agree_with_the_masked_layer(grouping, granularity, backend, p):
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        fast, masked = pair(grouping, granularity, backend, p, dtype)
        (weight, mask), (expected, its) = fast.to_dense(), masked.to_dense()
        assert torch.equal(weight, expected)
        assert torch.equal(mask, its)
        assert fast.density == masked.density == float(mask.double().mean())
        for shape in ((20,), (7, 20), (2, 3, 20)):
            x = torch.randn(shape, dtype=dtype)
            found = []
            for layer in (fast, masked):
                layer.zero_grad()
                leaf = x.clone().requires_grad_()
                y = layer(leaf)
                (y.square() * torch.arange(12.0)).sum().backward()
                grad = torch.zeros_like(weight)
                if layer is masked:
                    grad = layer.weight.grad
                else:  # the gradient in the place of the weight
                    for stored in (layer.weight, *([layer.values] if hasattr(layer, "values") else [])):
                        stored.data.copy_(stored.grad)
                    grad = layer.to_dense()[0]
                    layer.load_state_dict(pair(grouping, granularity, backend, p, dtype)[0].state_dict())
                found.append((y, leaf.grad, grad.detach(), layer.bias.grad))
            for one, other in zip(*found, strict=True):
                scale = max(1.0, float(other.detach().abs().max()))
                torch.testing.assert_close(one, other, atol=tolerance * scale, rtol=0)


@pytest.mark.parametrize(("grouping", "granularity", "backend", "p"), CASES)
def test_dense_weights_go_in_and_out(grouping, granularity, backend, p):
    fast, _ = pair(grouping, granularity, backend, p)
    torch.manual_seed(1)
    other = GroupToGroupLinear(20, 12, 4, 1.0, p, grouping, granularity, backend, seed=3).double()
    if backend == "packed" and p and granularity == "column":  # other inputs
        other.rewire(shifted(other.connections()))
    weight, mask = other.to_dense()
    returned = fast.from_dense(weight, mask)
    assert returned is fast
    assert torch.equal(fast.to_dense()[0], weight)
    assert torch.equal(fast.to_dense()[1], mask)
    x = torch.randn(3, 20, dtype=torch.float64)
    torch.testing.assert_close(fast(x), nn.functional.linear(x, weight, fast.bias))


def shifted(connections):
    """Return connections of which the first target reads another source."""
    after = connections.clone()
    after[0, int(connections[0].nonzero()[-1])] = False
    after[0, int((~connections[0]).nonzero()[0])] = True
    return after


@pytest.mark.parametrize("backend", ["packed", "masked"])
@pytest.mark.parametrize("granularity", ["column", "block"])
def test_rewired_columns(backend, granularity):
    layer = GroupToGroupLinear(24, 12, 4, 1.0, 0.34, "random", granularity, backend, seed=0)
    before, connections = layer.dense_weight().clone(), layer.connections()
    after = shifted(connections)
    moved = layer.rewire(after)
    assert torch.equal(layer.connections(), after)
    weight, mask = layer.to_dense()
    same = mask & (before != 0)
    assert torch.equal(weight[same], before[same])
    assert not weight[~same].any()
    assert list(moved) == ["weight"]
    entries = layer.weight.flatten(0, moved["weight"].dim() - 1)
    assert not entries[(moved["weight"] < 0).flatten()].any()
    restored = GroupToGroupLinear(24, 12, 4, 1.0, 0.34, "random", granularity, backend, seed=1)
    restored.load_state_dict(layer.state_dict())
    x = torch.randn(5, 24)
    assert torch.equal(restored(x), layer(x))
    with pytest.raises(ValueError, match="connections"):
        layer.rewire(after[:, :-1])


def test_rewired_edges_of_csr_move_their_values():
    layer = GroupToGroupLinear(24, 12, 4, 1.0, 0.3, "interleaved", "edge", "blockdiag+csr", seed=0)
    before, mask = (value.clone() for value in layer.to_dense())
    within = layer.group_of_out[:, None] == layer.group_of_in
    after = mask.clone()
    gone = (mask & ~within).nonzero()[0]
    come = (~mask).nonzero()[-1]
    after[tuple(gone)], after[tuple(come)] = False, True
    values = layer.values.detach().clone()
    source = layer.rewire(after)["values"]
    weight, now = layer.to_dense()
    assert torch.equal(now, after)
    assert torch.equal(weight, before * after)
    assert (source < 0).sum() == 1
    assert torch.equal(layer.values[source >= 0], values[source[source >= 0]])
    x = torch.randn(5, 24)
    torch.testing.assert_close(layer(x), nn.functional.linear(x, weight, layer.bias))
    with pytest.raises(ValueError, match="between groups"):
        layer.rewire(mask | after)


def test_pooled_scores_and_budgets():
    layer = GroupToGroupLinear(8, 6, 2, 1.0, 0.5, "interleaved", "column", seed=0)
    score = torch.rand(6, 8)
    expected = torch.stack([score[group::2].square().sum(0).sqrt() for group in range(2)])
    torch.testing.assert_close(layer.pool(score, "norm"), expected)
    torch.testing.assert_close(layer.pool(score, "mean")[1], score[1::2].mean(0))
    assert layer.budgets("group_pair").tolist() == [[0, 1] * 4, [2, 3] * 4]
    assert layer.budgets("total").tolist() == [[0] * 8, [1] * 8]
    blocks = GroupToGroupLinear(8, 6, 2, 1.0, 0.5, "interleaved", "block", seed=0)
    torch.testing.assert_close(blocks.pool(score, "mean")[0, 1], score[::2, 1::2].mean())
    with pytest.raises(ValueError, match="preserve='total'"):
        blocks.budgets("group_pair")
    edges = GroupToGroupLinear(8, 6, 2, 1.0, 0.5, "index", "edge", "blockdiag+csr", seed=0)
    assert edges.budgets("group_pair").tolist() == [[0] * 4 + [1] * 4] * 3 + [[2] * 4 + [3] * 4] * 3
    with pytest.raises(ValueError, match="preserve='group_pair'"):
        edges.budgets("total")
    assert all(isinstance(layer, RewirableLayer) for layer in (blocks, edges, MaskedLinear(3, 2), ERLinear(9, 3)))


def test_parameters_and_operations_are_proportional_to_the_density():
    for p in (0.0, 0.25):
        layer = GroupToGroupLinear(512, 512, p_inter=p, backend="packed")
        active = int(layer.to_dense()[1].sum())
        assert sum(parameter.numel() for parameter in layer.parameters()) == active + 512
        with torch.profiler.profile(with_flops=True) as found:
            layer(torch.randn(4, 512))
        products = [event.flops for event in found.key_averages() if event.key in ("aten::bmm", "aten::baddbmm")]
        assert sum(products) == 2 * 4 * active
        assert layer.density == active / 512**2
    edges = GroupToGroupLinear(512, 512, granularity="edge", backend="blockdiag+csr")
    assert sum(p.numel() for p in edges.parameters()) == int(edges.to_dense()[1].sum()) + 512


def test_weights_have_the_range_of_their_fan_in():
    layer = GroupToGroupLinear(256, 256, p_inter=0.125)
    weight, mask = layer.to_dense()
    bound = 1 / mask.sum(1).float().sqrt()
    largest = weight.abs().amax(1)
    assert (largest <= bound).all()
    assert (largest > 0.8 * bound).all()
    assert 0.8 * bound[0] < layer.bias.abs().max() <= bound[0]


def test_copies_compile_and_are_rebuilt():
    layer = GroupToGroupLinear(24, 12, 4, 1.0, 0.34, "interleaved")
    twin = copy.deepcopy(layer)
    with torch.no_grad():
        layer.weight.zero_()
    x = torch.randn(4, 24)
    assert not torch.equal(twin(x), layer(x))
    assert twin._record["init_args"]["p_inter"] == 0.34


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"groups": 5}, "groups is 5"),
        ({"p_inter": -0.1}, "p_inter is -0.1"),
        ({"p_intra": 0.0, "p_inter": 0.0}, "without inputs"),
        ({"backend": "dense"}, "backend is 'dense'"),
        ({"backend": "packed", "granularity": "edge"}, "blockdiag"),
        ({"backend": "blockdiag+csr"}, "granularity 'column'"),
        ({"backend": "blockdiag+csr", "granularity": "edge", "p_intra": 0.5}, "p_intra 0.5"),
    ],
)
def test_bad_arguments(options, match):
    with pytest.raises(ValueError, match=match):
        GroupToGroupLinear(**{"in_features": 24, "out_features": 16, "groups": 4, **options})


def test_bad_use():
    layer = GroupToGroupLinear(24, 12, 4, backend="packed")
    with pytest.raises(ValueError, match=r"\(2, 23\)"):
        layer(torch.randn(2, 23))
    with pytest.raises(ValueError, match="24"):
        layer.from_dense(torch.ones(12, 24), torch.ones(12, 24, dtype=torch.bool))
    with pytest.raises(ValueError, match="mask has shape"):
        layer.from_dense(torch.ones(12, 24), torch.ones(12, 23, dtype=torch.bool))
    with pytest.raises(ValueError, match="density=0.01"):
        ERLinear(20, 20, density=0.01)


def test_random_graph_layers():
    layer = ERLinear(100, 50, density=0.2, seed=1)
    assert int(layer.mask.sum()) == 1000
    assert torch.equal(layer.mask, ERLinear(100, 50, density=0.2, seed=1).mask)
    assert torch.equal(layer.weight != 0, layer.mask)
    bound = 1 / layer.mask.sum(1).float().sqrt()
    assert (layer.weight.abs().amax(1) <= bound).all()


@pytest.mark.parametrize(("built", "saved"), [("index", "interleaved"), ("interleaved", "random"), ("index", "random")])
def test_states_of_another_grouping_are_refused(built, saved):
    """Their shapes are equal, and the outputs would be those of other units."""
    options = {"groups": 2, "p_inter": 0.5, "backend": "packed", "seed": 0}
    state = GroupToGroupLinear(8, 8, grouping=saved, **options).state_dict()
    layer = GroupToGroupLinear(8, 8, grouping=built, **options)
    with pytest.raises(RuntimeError, match=f"group_of_in is not that of grouping '{built}'"):
        layer.load_state_dict(state)


def test_connections_of_another_granularity_are_refused():
    options = {"groups": 2, "p_inter": 0.5, "backend": "masked"}
    column, block = (GroupToGroupLinear(8, 8, granularity=kind, seed=3, **options) for kind in ("column", "block"))
    with pytest.raises(RuntimeError, match="none of granularity 'block'"):
        block.load_state_dict(column.state_dict())
    weight, mask = column.to_dense()
    with pytest.raises(ValueError, match="whole connections of granularity 'column'"):
        column.from_dense(weight, mask & torch.eye(8, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"mask is torch\.float32"):
        column.from_dense(weight, mask.float())
    diagonal = GroupToGroupLinear(8, 8, groups=2, p_inter=0.0, backend="packed")
    state = diagonal.state_dict() | {"inputs": diagonal.inputs.flip(0)}
    with pytest.raises(RuntimeError, match="joins groups"):
        diagonal.load_state_dict(state)
