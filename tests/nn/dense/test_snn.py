"""Moments through depth, the limiting case, and what the builder refuses."""

import copy

import pytest
import torch
from torch import nn

from graphseq.nn import SNN, AlphaDropout, lecun_normal_


def test_equals_the_formula_with_gradients():
    net = SNN(6, 3, hidden_features=5, num_layers=3).double()
    x = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    h, weights = x, []
    for block in net.hidden:
        weights.append(block[0].weight)
        z = h @ block[0].weight.T + block[0].bias
        h = 1.0507009873554805 * torch.where(z > 0, z, 1.6732632423543772 * (z.exp() - 1))
    expected = h @ net.head.weight.T + net.head.bias
    torch.testing.assert_close(net(x), expected)
    ours = torch.autograd.grad(net(x).square().sum(), [x, *weights])
    theirs = torch.autograd.grad(expected.square().sum(), [x, *weights])
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_moments_stay_at_depth_64(dropout):
    torch.manual_seed(1)
    net = SNN(512, 1, hidden_features=512, num_layers=65, dropout=dropout)
    h = torch.randn(512, 512)
    h = net.encode(h)
    assert abs(float(h.mean())) < 0.05
    assert 0.9 < float(h.var()) < 1.1


def test_other_initialisations_leave_the_fixed_point():
    """What the paper's traps cost, so that the test above tests something."""
    torch.manual_seed(1)
    h = torch.randn(256, 512)
    he, default = SNN(512, 1, 512, 33), SNN(512, 1, 512, 33)
    for net, init in ((he, nn.init.kaiming_normal_), (default, None)):
        for block in net.hidden:
            init(block[0].weight) if init else block[0].reset_parameters()
    assert float(he.encode(h).var(0).mean()) > 10
    assert float(default.encode(h).var(0).mean()) < 1e-3  # over samples; biases differ between units


def test_one_layer_is_linear_and_shapes():
    net = SNN(8, 2, num_layers=1)
    x = torch.randn(3, 2, 4)
    assert torch.equal(net(x), nn.functional.linear(x.flatten(1), net.head.weight, net.head.bias))
    conic = SNN(8, 2, hidden_features=128, num_layers=4, shape="conic")
    assert [block[0].out_features for block in conic.hidden] == [128, 32, 8]
    assert not any(isinstance(layer, nn.Dropout) for layer in conic.modules())
    assert isinstance(net.head, nn.Linear)


def test_initialisation_survives_a_reset_and_knows_groups():
    net = SNN(300, 300, 300, 3)
    net.reset_parameters()
    for layer in net.modules():
        if isinstance(layer, nn.Linear):
            assert abs(float(layer.weight.square().sum(1).mean()) - 1) < 0.05
            assert not layer.bias.any()
    grouped = lecun_normal_(nn.Conv2d(64, 256, 3, groups=8))
    assert abs(float(grouped.weight.flatten(1).square().sum(1).mean()) - 1) < 0.1
    lecun_normal_(nn.Conv1d(4, 4, 3, bias=False))


def test_state_and_copies():
    net = SNN(8, 2, num_layers=3, dropout=0.1).eval()
    other = SNN(8, 2, num_layers=3, dropout=0.1).eval()
    other.load_state_dict(net.state_dict())
    x = torch.randn(5, 8)
    assert torch.equal(other(x), net(x))
    assert torch.equal(copy.deepcopy(net)(x), net(x))
    assert any(isinstance(layer, AlphaDropout) for layer in net.modules())


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"in_features": 0}, "in_features"),
        ({"num_layers": 0}, "num_layers"),
        ({"dropout": 1.0}, "p is"),
        ({"shape": "round"}, "shape"),
    ],
)
def test_bad_arguments(options, named):
    with pytest.raises(ValueError, match=named):
        SNN(**{"in_features": 4, "out_features": 2, **options})


def test_wrong_features():
    with pytest.raises(ValueError, match="4 features"):
        SNN(4, 2)(torch.randn(3, 5))
