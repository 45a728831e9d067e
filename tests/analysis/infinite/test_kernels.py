"""Kernels against plain recursions, their published limits, and finite networks."""

import itertools
import math

import pytest
import torch
from torch import nn

from graphseq.analysis import dual_activation, empirical_ntk, nngp_kernel, ntk_kernel
from graphseq.nn import HermiteActivation, SineActivation, optimal_activation

ACTIVATIONS = [optimal_activation(2), HermiteActivation([0, 0, 1, 1]), SineActivation(2.0), nn.ReLU(), nn.Tanh()]


def on_sphere(count, width, seed=0):
    x = torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x / x.norm(dim=1, keepdim=True)


def by_hand(correlation, activation, depth):
    """Both kernels by the recursion of their definitions."""
    dual, sigma, kernel = dual_activation(activation), correlation, correlation
    for _ in range(depth):
        slope = dual.slope(sigma)
        sigma = dual(sigma)
        kernel = sigma + kernel * slope
    return sigma, kernel


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
@pytest.mark.parametrize("depth", [0, 1, 6])
def test_equals_the_recursion(activation, depth):
    x, y = on_sphere(6, 4), on_sphere(5, 4, seed=1)
    sigma, kernel = by_hand(x @ y.T, activation, depth)
    assert torch.allclose(nngp_kernel(x, activation, depth, y).values(), sigma, rtol=1e-10, atol=1e-300)
    assert torch.allclose(ntk_kernel(x, activation, depth, y).values(), kernel, rtol=1e-10, atol=1e-300)


def test_the_diagonal_is_that_of_the_definition():
    x = on_sphere(4, 3)
    for activation in ACTIVATIONS:
        slope = float(dual_activation(activation).slope(torch.ones((), dtype=torch.float64)))
        found = ntk_kernel(x, activation, 5)
        expected = sum(slope**layer for layer in range(6))
        assert found.values().diagonal().tolist() == pytest.approx([expected] * 4)
        assert found.log_diagonal == pytest.approx(math.log(expected))
        assert nngp_kernel(x, activation, 5).values().diagonal().tolist() == [1.0] * 4


def apart(distance):
    """Two unit vectors with a distance."""
    xi = 1 - distance**2 / 2
    return torch.tensor([[1.0, 0.0], [xi, math.sqrt(1 - xi * xi)]], dtype=torch.float64)


def test_scaled_limit_is_a_singular_kernel():
    """Numbers of the specification for (xi + xi^3) / 2, whose exponent is 2."""
    found = []
    for r in (0.5, 0.25, 0.1, 0.005):
        kernel = nngp_kernel(apart(r), optimal_activation(2), 100)
        found.append(r**2 * math.exp(float(kernel.log[0, 1]) + 100 * math.log(2)))
    assert found == pytest.approx([1.0948, 1.1818, 1.2058, 1.2103], abs=1e-4)


def test_neural_tangent_kernel_reaches_its_limit_at_great_depth_without_underflow():
    """Numbers of the specification at distance 0.1; A^L is 2^-100000 at the last depth."""
    found = []
    for depth in (10**2, 10**3, 10**4, 10**5):
        kernel = ntk_kernel(apart(0.1), optimal_activation(2), depth)
        scaled = float(kernel.log[0, 1]) - math.log(depth + 1) + depth * math.log(2)
        found.append(0.1**2 * math.exp(scaled))
    assert found == pytest.approx([5.9, 1.68, 1.253, 1.211], rel=1e-2)


def test_what_is_left_out_of_the_loop_is_what_the_loop_gives():
    x = on_sphere(5, 4)
    short, long = (ntk_kernel(x, optimal_activation(2), depth) for depth in (200, 201))
    sigma = nngp_kernel(x, optimal_activation(2), 200)
    off = ~torch.eye(5, dtype=torch.bool)
    # one more layer by the definition, both sides divided by A^201
    expected = (sigma.values(-200 * math.log(2)) + short.values(-200 * math.log(2)))[off]
    assert torch.allclose(long.values(-201 * math.log(2))[off], expected, rtol=1e-12)


def test_rectifier_tends_to_one_quarter():
    kernel = ntk_kernel(apart(1.0), nn.ReLU(), 500)
    assert float(kernel.values(kernel.log_diagonal)[0, 1]) == pytest.approx(0.25, abs=1e-2)


class Wide(nn.Module):
    """A finite network with standard normal weights, each sum divided by the root of its number of terms."""

    def __init__(self, inputs, width, depth, activation, generator):
        super().__init__()
        sizes = [inputs, *[width] * depth, 1]
        self.weights = nn.ParameterList(
            torch.randn(after, before, generator=generator, dtype=torch.float64)
            for before, after in itertools.pairwise(sizes)
        )
        self.activation = activation

    def forward(self, x):
        first, *others = self.weights
        x = x @ first.T
        for weight in others:
            x = self.activation(x) @ weight.T / math.sqrt(weight.shape[1])
        return x


@pytest.mark.parametrize(
    ("width", "draws", "tolerance"), [(128, 20, 0.15), pytest.param(2048, 20, 0.05, marks=pytest.mark.slow)]
)
def test_a_wide_network_has_the_kernel(width, draws, tolerance):
    x, generator = on_sphere(3, 4), torch.Generator().manual_seed(0)
    activation = SineActivation(2.0)  # bounded, so that the mean over few networks is near
    networks = [Wide(4, width, 2, activation, generator) for _ in range(draws)]
    found = torch.stack([empirical_ntk(network, x) for network in networks]).mean(0)
    assert torch.allclose(found, ntk_kernel(x, activation, 2).values(), rtol=tolerance, atol=tolerance)


def test_empirical_kernel_is_the_product_of_gradients():
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    x, y = torch.randn(2, 3), torch.randn(3, 3)

    def gradient(one):
        return torch.cat([part.flatten() for part in torch.autograd.grad(model(one).sum(), tuple(model.parameters()))])

    expected = torch.stack([torch.stack([gradient(a) @ gradient(b) for b in y]) for a in x])
    assert torch.allclose(empirical_ntk(model, x, y), expected, atol=1e-5)


@pytest.mark.parametrize("kernel", [nngp_kernel, ntk_kernel])
def test_bad_input(kernel):
    with pytest.raises(ValueError, match="row 1 of x has norm 2.*unit sphere"):
        kernel(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), nn.ReLU(), 1)
    with pytest.raises(ValueError, match="row 0 of x has norm nan"):
        kernel(torch.tensor([[math.nan, 0.0]]), nn.ReLU(), 1)
    with pytest.raises(ValueError, match="depth is -1"):
        kernel(torch.eye(2), nn.ReLU(), -1)
    with pytest.raises(ValueError, match=r"depth is 1100: .*nearest-neighbour"):
        kernel(on_sphere(3, 3), HermiteActivation([0, 0, 1]), 1100)


def test_networks_without_a_kernel_and_inputs_of_other_kinds():
    x = torch.eye(3)
    with pytest.raises(ValueError, match="gives 2 numbers"):
        empirical_ntk(nn.Linear(3, 2), x)
    with pytest.raises(ValueError, match="BatchNorm1d is in training mode"):
        empirical_ntk(nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 1)), x)
    with pytest.raises(ValueError, match="no parameters"):
        empirical_ntk(nn.ReLU(), x)
    with pytest.raises(TypeError, match="x is ndarray"):
        nngp_kernel(x.numpy(), nn.ReLU(), 2)
    with pytest.raises(ValueError, match="x has 3 features and y 2"):
        ntk_kernel(x, nn.ReLU(), 2, torch.eye(2))
    with pytest.raises(ValueError, match=r"depth is 2\.5"):
        ntk_kernel(x, nn.ReLU(), 2.5)
    with pytest.raises(ValueError, match="family is 'cosine'"):
        optimal_activation(2, "cosine")
