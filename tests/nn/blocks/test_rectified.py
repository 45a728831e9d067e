"""Rectified gates: surgery on networks, thresholds, and the layer that reads active units only."""

import copy

import pytest
import torch
from torch import nn

from graphseq.core import make
from graphseq.models import TransformerLanguageModel
from graphseq.nn import (
    BlockStack,
    CausalAttention,
    FATReLU,
    FeedForward,
    GatedFeedForward,
    PolyNorm,
    SequenceBlock,
    SparseGatedFeedForward,
    calibrate_threshold,
    gate_activations,
    rectify_gates,
    shift_gates,
    sparse_decoding,
)


@torch.no_grad()
def by_hand(layer, x, threshold=0.0):
    """A loop over tokens and units."""
    gates, values = layer.gate_and_value.weight.chunk(2)
    rows = []
    for token in x.reshape(-1, x.shape[-1]):
        y = torch.zeros_like(token)
        for unit in range(len(gates)):
            gate = float(gates[unit] @ token)
            if gate > 0 and gate >= threshold:
                y = y + gate * (values[unit] @ token) * layer.output.weight[:, unit]
        rows.append(y)
    return torch.stack(rows).view_as(x)


def sparse(activation=None, **options):
    torch.manual_seed(0)
    return SparseGatedFeedForward(6, 16, activation, **options).double()


def network(activation=None, **options):
    torch.manual_seed(0)
    feed_forward = GatedFeedForward(8, 16, activation)
    return TransformerLanguageModel(5, BlockStack([SequenceBlock(CausalAttention(8), feed_forward)], repeats=2))


@pytest.mark.parametrize("shape", [(1, 6), (6,), (1, 1, 6), (2, 3, 6)])
@pytest.mark.parametrize("max_density", [0.0, 1.0])
def test_equals_a_loop_over_active_units(shape, max_density):
    layer = sparse(FATReLU(0.3), max_density=max_density)
    x = torch.randn(shape, dtype=torch.float64)
    with torch.no_grad():
        assert torch.allclose(layer(x), by_hand(layer, x, 0.3), atol=1e-12)
    assert torch.allclose(layer(x), by_hand(layer, x, 0.3), atol=1e-12)


def test_only_rows_of_active_units_are_read_and_many_are_read_at_once():
    layer = sparse(max_density=0.5)
    x = torch.randn(1, 6, dtype=torch.float64)
    with torch.no_grad():
        gate = layer.activation(x @ layer.gate_and_value.weight[:16].t())[0]
        order = gate.argsort(descending=True)
        layer.gate_and_value.weight[:16][order[4:]] *= -gate[order[4:], None].sign()  # at most 4 of 16 are active
        expected = by_hand(layer, x)
        idle = (layer.gate_and_value.weight[:16] @ x[0]) <= 0
        assert 12 <= int(idle.sum()) < 16
        layer.gate_and_value.weight[16:][idle] = float("nan")
        layer.output.weight[:, idle] = float("nan")
        assert torch.allclose(layer(x), expected, atol=1e-12)
        layer.max_density = 0.0  # the dense way reads them
        assert layer(x).isnan().all()


def test_gates_without_or_with_all_units_active():
    layer = sparse(max_density=1.0)
    x = torch.ones(1, 6, dtype=torch.float64)
    with torch.no_grad():
        for sign in (-1, 1):
            layer.gate_and_value.weight[:16] = sign * layer.gate_and_value.weight[:16].abs()
            assert torch.allclose(layer(x), by_hand(layer, x), atol=1e-12)
            assert bool(layer(x).any()) is (sign > 0)


def test_gradients_copies_and_state_are_those_of_the_dense_layer():
    dense = GatedFeedForward(6, 16, make(nn.ReLU)).double()
    layer = SparseGatedFeedForward.from_dense(dense)
    x = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    found, expected = (torch.autograd.grad(part(x).square().sum(), [x, *part.parameters()]) for part in (layer, dense))
    assert all(torch.allclose(*pair, atol=1e-12) for pair in zip(found, expected, strict=True))
    twin = copy.deepcopy(layer)
    twin.reset_parameters()
    twin.load_state_dict(dense.state_dict())
    assert torch.equal(twin.output.weight, dense.output.weight)
    assert twin.float().output.weight.t().is_contiguous()
    assert layer.activation is dense.activation


def test_surgery_changes_gates_alone_and_is_recorded():
    model = network()
    model.layers.blocks[0].feed_forward = nn.Sequential(FeedForward(8), model.layers.blocks[0].feed_forward)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    names = ["layers.blocks.0.feed_forward.1.activation", "layers.blocks.1.feed_forward.activation"]
    assert rectify_gates(model) == names
    assert rectify_gates(model) == []
    assert isinstance(model.layers.blocks[0].feed_forward[0].activation, nn.GELU)
    assert all(type(model.get_submodule(name)) is nn.ReLU for name in names)
    assert shift_gates(model, 0.2) == names
    assert shift_gates(model, 0.2) == []
    assert [model.get_submodule(name).threshold for name in names] == [0.2, 0.2]
    assert shift_gates(model, 0.0) == names
    assert all(type(model.get_submodule(name)) is nn.ReLU for name in names)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_decoding_by_state_is_the_same_by_active_units():
    model = network().double().eval()
    rectify_gates(model)
    shift_gates(model, 0.05)
    ids = torch.randint(5, (1, 6))
    with torch.inference_mode():
        expected = model(ids)
        parts = ["layers.blocks.0.feed_forward", "layers.blocks.1.feed_forward"]
        assert sparse_decoding(model, max_density=1.0) == parts
        assert sparse_decoding(model) == []
        state, found = None, []
        for step in ids.split(1, 1):
            logits, state = model.forward_with_state(step, state)
            found.append(logits)
    assert torch.allclose(torch.cat(found, 1), expected, atol=1e-12)
    assert model._record["class_path"] == "graphseq.core.Replaced"


def test_threshold_sets_the_asked_share_of_active_entries_to_zero():
    model = network(make(nn.ReLU))
    ids = torch.randint(5, (4, 6))
    gates = gate_activations(model, lambda: model(ids))
    assert {name: tuple(gate.shape) for name, gate in gates.items()} == {
        f"layers.blocks.{place}.feed_forward": (24, 16) for place in range(2)
    }
    active = sorted(float(value) for gate in gates.values() for value in gate.flatten() if value > 0)
    threshold = calibrate_threshold(gates, 0.25)
    assert sum(value < threshold for value in active) == len(active) // 4
    first = "layers.blocks.0.feed_forward"
    shift_gates(model, threshold)
    shifted = gate_activations(model, lambda: model(ids))[first]
    assert torch.equal(shifted, torch.where(gates[first] >= threshold, gates[first], 0.0))
    assert not model.layers.blocks[0].feed_forward.activation._forward_hooks


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: SparseGatedFeedForward(4, activation=make(nn.SiLU)), TypeError, "SiLU"),
        (lambda: SparseGatedFeedForward(4, max_density=1.1), ValueError, "max_density is 1.1"),
        (lambda: rectify_gates(nn.Sequential(FeedForward(4))), TypeError, "Sequential has no gated"),
        (lambda: rectify_gates(nn.Sequential(GatedFeedForward(4, 4, PolyNorm()))), TypeError, "gate of 0 .*PolyNorm"),
        (lambda: shift_gates(network(), 0.1), TypeError, "blocks.0.feed_forward has the activation SiLU"),
        (lambda: shift_gates(network(make(nn.ReLU)), -1.0), ValueError, "threshold is -1.0"),
        (lambda: sparse_decoding(network()), TypeError, "activation SiLU"),
        (lambda: sparse_decoding(GatedFeedForward(4, 4, make(nn.ReLU))), ValueError, "from_dense"),
        (lambda: calibrate_threshold({}), ValueError, "no entry above 0"),
        (lambda: calibrate_threshold({"": torch.ones(1, 1)}, 1.0), ValueError, "share is 1.0"),
    ],
)
def test_wrong_arguments(build, error, message):
    with pytest.raises(error, match=message):
        build()
