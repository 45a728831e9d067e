import pytest
import torch

from graphseq.models import HighwayMLP


def test_equals_the_formula_with_gradients():
    net = HighwayMLP(6, 3, 5, 4, gate_bias=-0.5).double()
    x = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    h = (x @ net.input.weight.T + net.input.bias).clamp(min=0)
    for layer, gate in zip(net.hidden, net.gates, strict=True):
        share = 1 / (1 + (-(h @ gate.weight.T + gate.bias)).exp())
        h = share * (h @ layer.weight.T + layer.bias).clamp(min=0) + (1 - share) * h
    expected = h @ net.head.weight.T + net.head.bias
    torch.testing.assert_close(net(x), expected)
    parameters = [x, *net.parameters()]
    ours = torch.autograd.grad(net(x).square().sum(), parameters)
    theirs = torch.autograd.grad(expected.square().sum(), parameters)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_closed_gates_carry_the_input_on():
    net = HighwayMLP(6, 3, 5, 10, gate_bias=-1e9)
    x = torch.randn(4, 6)
    assert torch.equal(net(x), net.head(net.input(x).relu()))


def test_bad_arguments():
    with pytest.raises(ValueError, match="num_layers is 1"):
        HighwayMLP(4, 2, num_layers=1)
    with pytest.raises(ValueError, match="hidden_features is 0"):
        HighwayMLP(4, 2, hidden_features=0)
    with pytest.raises(ValueError, match="4 features"):
        HighwayMLP(4, 2)(torch.randn(3, 5))
