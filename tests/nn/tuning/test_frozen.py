"""Frozen networks and their low-rank changes: what stays as it was, what is refused, what copies and states hold."""

import copy

import pytest
import torch
from torch import nn

from graphseq.core import make
from graphseq.models import MLP, GraphEncoder
from graphseq.nn import FeedForward, Frozen, LoRA


def by_hand(network):
    return network.requires_grad_(False)


def test_frozen_networks_stay_in_evaluation_mode():
    network = MLP(3, 2, hidden_features=4, norm="batch", dropout=0.5)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    frozen = nn.ModuleList([Frozen(network)]).train()[0]
    x = torch.randn(5, 3)
    assert torch.equal(frozen(x), frozen(x))
    assert not frozen(x).requires_grad
    assert frozen.training
    assert not any(module.training for module in network.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert frozen.in_features == 3
    with pytest.raises(AttributeError, match="nothing"):
        frozen.nothing  # noqa: B018 - the access is what is tested


@pytest.fixture
def changed():
    torch.manual_seed(0)
    network = LoRA(Frozen(FeedForward(3, 5)), rank=2, alpha=3.0)
    plain = copy.deepcopy(network.module.module)
    nn.init.normal_(network.up["module-input"])
    return network, plain


def test_lora_starts_as_the_network_and_equals_merged_weights(changed):
    network, plain = changed
    x = torch.randn(4, 3)
    merged = copy.deepcopy(plain)
    merged.input.weight.data += 1.5 * (network.up["module-input"] @ network.down["module-input"]).detach()
    torch.testing.assert_close(network(x), merged.requires_grad_(False)(x))
    assert not torch.allclose(network(x), plain(x))
    # B A has the gradient of the merged weight: dB = s G A^T, dA = s B^T G
    merged.requires_grad_(True)(x).square().sum().backward()
    network(x).square().sum().backward()
    for key, weight in (("module-input", merged.input.weight), ("module-output", merged.output.weight)):
        up, down = network.up[key], network.down[key]
        torch.testing.assert_close(up.grad, 1.5 * weight.grad @ down.detach().t())
        torch.testing.assert_close(down.grad, 1.5 * up.detach().t() @ weight.grad)
    network.reset_parameters()
    assert torch.equal(network(x), plain(x))


def test_copies_of_lora_change_by_themselves(changed):
    network, _ = changed
    other, x = copy.deepcopy(network), torch.randn(4, 3)
    before = network(x)
    assert torch.equal(other(x), before)
    nn.init.ones_(other.up["module-input"])
    assert torch.equal(network(x), before)
    assert not torch.equal(other(x), before)


def test_lora_changes_the_layers_that_are_named():
    network = LoRA(Frozen(FeedForward(3, 5)), rank=1, layers=["*.output"])
    assert list(network.down) == ["module-output"]
    assert {name for name, p in network.named_parameters() if p.requires_grad} == {
        "down.module-output", "up.module-output",
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"'\*\.value'.*module\.input"):
        LoRA(Frozen(FeedForward(3, 5)), layers=["*.output", "*.value"])


def test_torchs_encoder_is_changed_and_trained_beside():
    torch.manual_seed(0)
    encoder = make(nn.TransformerEncoder, make(nn.TransformerEncoderLayer, 8, 2, 8, batch_first=True), 2)
    network, x = LoRA(Frozen(encoder), rank=1), torch.randn(2, 3, 8)
    before = network(x)
    for up in network.up.values():
        nn.init.ones_(up)
    with torch.no_grad():  # torch's fused path would read the weights without the change
        assert not torch.allclose(network(x), before)
    network(x).sum().backward()
    assert all(parameter.grad is None for parameter in encoder.parameters())


def test_refuses_what_would_not_stay_frozen():
    with pytest.raises(ValueError, match=r"input\.weight and 3 more"):
        LoRA(FeedForward(3, 5))
    encoder = by_hand(GraphEncoder(3, 4, num_layers=1).eval())
    with pytest.raises(ValueError, match=r"batch norm convs\.0"):
        LoRA(encoder)
    assert not any(module.training for module in encoder.modules())  # the check leaves the modes as they were
    LoRA(by_hand(FeedForward(3, 5)), rank=1)  # nothing in it would move
    with pytest.raises(ValueError, match="rank is 0"):
        LoRA(Frozen(FeedForward(3, 5)), rank=0)
    with pytest.raises(ValueError, match=r"layers is 'input'"):
        LoRA(Frozen(FeedForward(3, 5)), layers="input")
    with pytest.raises(ValueError, match=r"layers is \[\]"):
        LoRA(Frozen(FeedForward(3, 5)), layers=[])
    with pytest.raises(TypeError, match="module is .*Linear"):
        Frozen(nn.Linear)
    with pytest.raises(ValueError, match="alpha is 0"):
        LoRA(Frozen(FeedForward(3, 5)), alpha=0.0)
    with pytest.raises(ValueError, match="ReLU without a torch.nn.Linear"):
        LoRA(make(nn.ReLU))
