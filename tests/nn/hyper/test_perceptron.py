"""Calls with given weights against loops; magnitudes, start and initialisation of hypernetworks."""

import copy

import pytest
import torch
from torch import nn

from graphseq.core import make
from graphseq.models import MLP
from graphseq.nn import ComplementEncoding, CosineEncoding, HyperNetwork, call_with_weights


def norm(hyper, level):
    return float(torch.cat([w.flatten() for w in hyper.weights(torch.tensor([level])).values()]).detach().norm())


def randomised(hyper):
    for parameter in hyper.parameters():
        nn.init.normal_(parameter, std=0.5)
    return hyper


def test_without_encoding_weights_are_proportional_to_the_condition():
    hyper = HyperNetwork(MLP(40, 40, 40), residual=False)
    once, twice = (hyper.weights(torch.tensor([z])) for z in (0.3, 0.6))
    for name in once:
        torch.testing.assert_close(twice[name], 2 * once[name], rtol=1e-6, atol=1e-7)
    assert norm(hyper, 1.0) / norm(hyper, 0.01) == pytest.approx(100, rel=1e-5)


def test_mip_keeps_the_magnitude():
    hyper = HyperNetwork(MLP(40, 40, 40), encoding=CosineEncoding())
    norms = [norm(hyper, level) for level in (0.0, 0.01, 0.1, 0.5, 1.0)]
    assert max(norms) < 2 * min(norms)


def test_encodings():
    z = torch.rand(7, 3, dtype=torch.float64)
    torch.testing.assert_close(CosineEncoding()(z).norm(dim=1), torch.full((7,), 3**0.5, dtype=torch.float64))
    ends = CosineEncoding()(torch.tensor([[0.0], [1.0]], dtype=torch.float64))
    torch.testing.assert_close(ends, torch.eye(2, dtype=torch.float64))
    assert torch.equal(ComplementEncoding()(z), torch.cat([z, 1 - z], 1))
    for encoding in (CosineEncoding(), ComplementEncoding()):
        for bad in (1.5, -0.1, float("nan")):
            with pytest.raises(ValueError, match=r"\[0, 1\]"):
                encoding(torch.tensor([0.5, bad]))


def test_each_sample_is_the_formula_with_gradients():
    """The whole network written out for one sample after the other."""
    hyper = randomised(HyperNetwork(MLP(3, 2, 4), 2, [5], CosineEncoding())).double()
    x, z = torch.randn(6, 3, dtype=torch.float64), torch.rand(6, 2, dtype=torch.float64)
    first, out = hyper.hidden[0], hyper.output
    expected = []
    for row, level in zip(x, z, strict=True):
        encoded = torch.cat([torch.cos(torch.pi / 2 * level), torch.sin(torch.pi / 2 * level)])
        h = first.weight @ encoded + first.bias
        flat = out.weight @ torch.where(h > 0, h, 0.01 * h) + out.bias
        w1, b1, w2, b2 = (flat[:12].view(4, 3), flat[12:16], flat[16:24].view(2, 4), flat[24:26])
        expected.append(w2 @ torch.relu(w1 @ row + b1) + b2)
    expected = torch.stack(expected)
    torch.testing.assert_close(hyper(x, z), expected)
    parameters = list(hyper.parameters())
    assert len(parameters) == 4  # nothing of the network itself
    ours = torch.autograd.grad(hyper(x, z).square().sum(), parameters)
    theirs = torch.autograd.grad(expected.square().sum(), parameters)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(hyper(x, z[0]), hyper(x, z[:1].expand(6, 2)))


def test_starts_from_the_network_it_was_given():
    trained = MLP(6, 3, 5, norm="layer")
    x, own = torch.randn(4, 6), copy.deepcopy(trained.state_dict())
    expected = trained(x).detach()
    hyper = HyperNetwork(trained, encoding=CosineEncoding(), exact_start=True)
    for level in (0.0, 0.3, 1.0):
        weights = hyper.weights(torch.tensor([level]))
        assert all(torch.equal(weights[name], own[name]) for name in own)
        assert torch.equal(hyper(x, torch.tensor([level])), expected)
    hyper(x, torch.rand(4, 1)).sum().backward()
    assert hyper.output.weight.grad.any()
    before = hyper.output.bias.detach().clone()
    randomised(hyper).reset_parameters()
    assert torch.equal(hyper.output.bias, before)
    assert not hyper.output.weight.any()


def test_last_layer_has_the_variance_of_each_tensor_and_the_others_that_of_fan_out():
    hyper = HyperNetwork(MLP(64, 30, 30), hidden_sizes=[200, 400])
    torch.testing.assert_close(hyper.hidden[2].weight.var(), torch.tensor(2 / 400), rtol=0.05, atol=0)
    rows = hyper.output.weight.split([64 * 30, 30, 30 * 30, 30])
    for part in rows:
        torch.testing.assert_close(part.var(), torch.tensor(1 / len(part)), rtol=0.05, atol=0)
    assert not any(layer.bias.any() for layer in hyper.hidden if isinstance(layer, nn.Linear))


def test_call_with_weights_equals_a_module_and_a_loop():
    network, other = (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)) for _ in range(2))
    x = torch.randn(5, 3)
    shared = dict(other.named_parameters())
    assert torch.equal(call_with_weights(network, shared, x), other(x))  # both update their statistics
    for mine, its in zip(network.buffers(), other.buffers(), strict=True):
        assert torch.equal(mine, its)
    stacked = {name: torch.randn(5, *value.shape) for name, value in shared.items()}
    with pytest.raises(ValueError, match="BatchNorm1d"):
        call_with_weights(network, stacked, x)
    network.eval()
    loop = []
    for b in range(5):
        other.load_state_dict({**network.state_dict(), **{name: value[b] for name, value in stacked.items()}})
        loop.append(other.eval()(x[b : b + 1]))
    torch.testing.assert_close(call_with_weights(network, stacked, x), torch.cat(loop))


@pytest.mark.parametrize(
    ("weights", "named"),
    [
        ({"bais": torch.zeros(2)}, "bais"),
        ({"weight": torch.zeros(3, 2)}, r"\(3, 2\)"),
        ({"weight": torch.zeros(4, 2, 3)}, r"4 samples and inputs for \[5\]"),
        ({"weight": torch.zeros(5, 2, 3), "bias": torch.zeros(2)}, "5 samples, all samples"),
    ],
)
def test_mismatched_weights(weights, named):
    with pytest.raises(ValueError, match=named):
        call_with_weights(nn.Linear(3, 2), weights, torch.ones(5, 3))


def test_shared_and_frozen_weights_and_recurrent_networks():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.fixed = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)
            self.second.weight = self.first.weight
            self.fixed.requires_grad_(False)

        def forward(self, x):
            return self.fixed(self.second(self.first(x)))

    tied, x = make(Tied), torch.randn(2, 3)
    expected = tied(x).detach()
    hyper = HyperNetwork(tied, exact_start=True)
    assert list(hyper.shapes) == ["first.weight", "first.bias", "second.bias"]
    assert torch.equal(hyper(x, torch.ones(1)), expected)
    assert "network.fixed.weight" in hyper.state_dict()
    with torch.no_grad():
        hyper.output.bias.zero_()
    assert torch.equal(hyper(x, torch.ones(1)), tied.fixed(torch.zeros(2, 3)))
    steps, lstm = torch.randn(2, 4, 3), make(nn.LSTM, 3, 5, batch_first=True)
    own = lstm(steps)[0].detach()
    hyper = HyperNetwork(lstm, exact_start=True)
    torch.testing.assert_close(hyper(steps, torch.ones(1))[0], own)
    with torch.no_grad():
        hyper.output.bias.zero_()
    assert not hyper(steps, torch.ones(1))[0].any()


def test_state_and_copies():
    hyper, other = (HyperNetwork(MLP(6, 3, 5), encoding=CosineEncoding()) for _ in range(2))
    x, z = torch.randn(4, 6), torch.rand(4, 1)
    other.load_state_dict(hyper.state_dict())
    assert torch.equal(other(x, z), hyper(x, z))
    assert torch.equal(copy.deepcopy(hyper)(x, z), hyper(x, z))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"condition_size": 0}, "condition_size"),
        ({"hidden_sizes": [16, 0]}, "hidden_sizes"),
        ({"residual": False, "exact_start": True}, "exact_start"),
        ({"network": make(nn.ReLU)}, "ReLU"),
    ],
)
def test_bad_arguments(options, named):
    with pytest.raises(ValueError, match=named):
        HyperNetwork(**{"network": make(nn.Linear, 2, 2), **options})


def test_bad_conditions():
    hyper = HyperNetwork(make(nn.Linear, 2, 2), 3, encoding=CosineEncoding())
    for shape in ((4, 2), (), (4, 1, 3)):
        with pytest.raises(ValueError, match="condition has shape"):
            hyper(torch.ones(4, 2), torch.ones(shape))
    with pytest.raises(ValueError, match=r"range from 0 to 2"):
        hyper(torch.ones(4, 2), torch.tensor([0.0, 1.0, 2.0]))


def test_what_is_no_network_or_condition():
    hyper = HyperNetwork(make(nn.Linear, 3, 2), encoding=CosineEncoding())
    x = torch.zeros(1, 3)
    with pytest.raises(TypeError, match="condition is a float"):
        hyper(x, 0.5)
    with pytest.raises(ValueError, match="inputs are torch.complex64"):
        hyper(x, torch.tensor([0.5 + 0j]))
    with pytest.raises(TypeError, match="network is a builtin_function"):
        HyperNetwork(torch.relu)
    with pytest.raises(TypeError, match="encoding is 'cosine'"):
        HyperNetwork(make(nn.Linear, 3, 2), encoding="cosine")
    with pytest.raises(ValueError, match="'weight' is torch.complex64"):
        HyperNetwork(make(nn.Linear, 3, 2, dtype=torch.complex64))
    with pytest.raises(ValueError, match="hidden_sizes is 16"):
        HyperNetwork(make(nn.Linear, 3, 2), hidden_sizes=16)
