"""ReLU with a correction, and with a threshold."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from graphseq.nn import CRReLU, FATReLU, SquaredReLU


def test_values_by_hand():
    points = [-3.0, -1.0, 0.0, 1.0, 3.0]
    y = CRReLU(0.1).double()(torch.tensor(points, dtype=torch.float64))
    assert y.tolist() == pytest.approx([max(0, x) + 0.1 * x * math.exp(-x * x / 2) for x in points], abs=1e-8)


def test_without_correction_it_is_relu():
    x = torch.randn(100)
    assert torch.equal(CRReLU(0.0)(x), x.relu())
    assert torch.equal(FATReLU(0.0)(x), x.relu())
    assert torch.equal(SquaredReLU()(x), x.relu() ** 2)


def test_dip_and_limits():
    layer = CRReLU(0.2).double()
    x = torch.linspace(-8, 8, 1601, dtype=torch.float64)
    y = layer(x).detach()
    assert float(x[y.argmin()]) == pytest.approx(-1)
    assert float(y.min()) == pytest.approx(-0.2 * math.exp(-0.5), abs=1e-8)
    assert ((y - x.relu())[x.abs() > 6].abs() < 1e-6).all()


def test_gradients():
    layer = CRReLU().double()
    assert layer.epsilon.shape == ()
    assert float(layer.epsilon) == pytest.approx(0.01)
    x = torch.tensor([-2.0, -0.5, 0.5, 2.0], dtype=torch.float64, requires_grad=True)
    assert gradcheck(layer, (x,))
    layer(x).sum().backward()
    expected = float((x * torch.exp(-x.square() / 2)).detach().sum())
    assert float(layer.epsilon.grad) == pytest.approx(expected)
    layer.epsilon.data.fill_(3.0)
    layer.reset_parameters()
    assert float(layer.epsilon) == pytest.approx(0.01)


def test_a_unit_below_zero_learns_by_the_correction_alone():
    """A unit whose inputs are all negative is lost for ReLU; the dip of CRReLU leads it back above zero."""
    x = torch.linspace(-0.9, -0.1, 9)
    biases = {}
    for name, activation in (("ReLU", torch.nn.ReLU()), ("CRReLU", CRReLU(0.1))):
        bias = torch.zeros((), requires_grad=True)
        for _ in range(200):
            (slope,) = torch.autograd.grad((activation(x + bias) - 1).square().mean(), bias)
            bias.data -= 0.1 * slope
        biases[name] = float(bias.detach())
    assert biases["ReLU"] == 0
    assert biases["CRReLU"] > 0.9, "all inputs of the unit are above zero"


def test_threshold_is_kept_and_below_it_nothing_passes():
    x = torch.tensor([-1.0, 0.2, 0.3, 0.3001, 5.0], requires_grad=True)
    y = FATReLU(0.3)(x)
    y.sum().backward()
    assert y.tolist() == pytest.approx([0, 0, 0.3, 0.3001, 5])
    assert x.grad.tolist() == [0, 0, 1, 1, 1]


def test_a_threshold_hides_no_nan():
    assert FATReLU(0.1)(torch.tensor([float("nan"), 1.0])).isnan().tolist() == [True, False]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: CRReLU(float("nan")), "epsilon is nan"),
        (lambda: CRReLU()(torch.ones(2, dtype=torch.int64)), "inputs are torch.int64"),
        (lambda: FATReLU(-0.1), "threshold is -0.1"),
        (lambda: FATReLU(float("inf")), "threshold is inf"),
    ],
)
def test_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
