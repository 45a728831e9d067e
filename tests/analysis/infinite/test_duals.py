"""Duals against integrals over two correlated normal variables, and what they make of a deep network."""

import numpy as np
import pytest
import torch
from torch import nn

from graphseq.analysis import dual_activation, infinite_depth_regime
from graphseq.nn import HermiteActivation, SineActivation, optimal_activation


class Erf(nn.Module):
    def forward(self, x):
        return torch.erf(x)


SMOOTH = [HermiteActivation([1, 2, 0, 3]), HermiteActivation([0, 0, 1, 1]), SineActivation(6.1), Erf(), nn.Tanh()]


def expected_product(activation, correlation):
    """The mean of products over a grid of two independent normal variables, by Gauss-Hermite quadrature."""
    points, weights = np.polynomial.hermite_e.hermegauss(120)
    z, weight = torch.from_numpy(points), torch.from_numpy(weights / weights.sum())
    first = activation(z)[:, None]
    second = activation(correlation * z[:, None] + (1 - correlation**2) ** 0.5 * z[None, :])
    return float((weight[:, None] * weight[None, :] * first * second).sum() / (weight @ activation(z).square()))


@pytest.mark.parametrize("activation", SMOOTH, ids=str)
def test_equals_the_integral(activation):
    dual = dual_activation(activation)
    for correlation in (-0.7, 0.0, 0.3, 0.95):
        found = float(dual(torch.tensor(correlation, dtype=torch.float64)))
        assert found == pytest.approx(expected_product(activation, correlation), abs=1e-8)
    assert float(dual(torch.ones((), dtype=torch.float64))) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.LeakyReLU(0.3)], ids=str)
def test_rectifier_equals_the_mean_over_normal_variables(activation):
    u, v = torch.randn(2, 10**6, generator=torch.Generator().manual_seed(0))
    for correlation in (-0.5, 0.0, 0.8):
        other = correlation * u + (1 - correlation**2) ** 0.5 * v
        expected = float((activation(u) * activation(other)).mean() / activation(u).square().mean())
        assert float(dual_activation(activation)(torch.tensor(correlation))) == pytest.approx(expected, abs=1e-2)


@pytest.mark.parametrize("activation", [*SMOOTH, nn.ReLU(), nn.LeakyReLU(0.3), nn.GELU()], ids=str)
def test_slope_is_the_derivative(activation):
    dual = dual_activation(activation)
    xi = torch.linspace(-0.9, 0.9, 9, dtype=torch.float64, requires_grad=True)  # 0 is among them
    (derivative,) = torch.autograd.grad(dual(xi).sum(), xi)
    assert torch.allclose(dual.slope(xi), derivative, atol=1e-9)


@pytest.mark.parametrize("dimension", range(1, 11))
def test_exponent_of_the_optimal_activation_is_the_dimension(dimension):
    regime = infinite_depth_regime(optimal_activation(dimension))
    assert regime.kind == "singular kernel"
    assert regime.exponent == pytest.approx(dimension, abs=1e-9)


@pytest.mark.parametrize(("rate", "exponent"), [(2.676, 1.99996), (6.13539, 3.999998), (13.8258, 7.99998)])
def test_exponent_of_sines(rate, exponent):
    assert infinite_depth_regime(SineActivation(rate)).exponent == pytest.approx(exponent, abs=1e-5)


def test_regimes():
    kinds = {
        "majority": [nn.ReLU(), nn.LeakyReLU(0.1), HermiteActivation([1, 2, 3])],
        "nearest neighbour": [HermiteActivation([0, 0, 1]), HermiteActivation([0, 0, 1, 2])],
        "singular kernel": [nn.Tanh(), Erf(), SineActivation(1.0)],
        "constant kernel": [HermiteActivation([1, 1]), nn.Sigmoid()],
        "linear kernel": [HermiteActivation([0, 1]), nn.Identity()],
    }
    for kind, activations in kinds.items():
        assert [infinite_depth_regime(activation).kind for activation in activations] == [kind] * len(activations)
    assert str(infinite_depth_regime(nn.ReLU())) == "majority vote"


def test_an_activation_whose_series_converges_slowly_is_refused():
    with pytest.raises(ValueError, match=r"64 coefficients .* of Hardtanh.*smoother"):
        dual_activation(nn.Hardtanh())
    with pytest.raises(ValueError, match="mean square"):
        dual_activation(nn.Threshold(1e9, 0.0))
