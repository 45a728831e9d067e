"""Hermite series and sines: norms, and expected products under the normal distribution."""

import math

import numpy as np
import pytest
import torch

from graphseq.nn import HermiteActivation, SineActivation, optimal_activation


def test_polynomials_are_those_of_numpy():
    x = torch.linspace(-3, 3, 31, dtype=torch.float64)
    given = [0.5, -1.0, 2.0, 0.0, 0.25]
    norm = math.sqrt(sum(value**2 for value in given))
    series = [value / norm / math.sqrt(math.factorial(k)) for k, value in enumerate(given)]
    expected = np.polynomial.hermite_e.hermeval(x.numpy(), series)
    assert torch.allclose(HermiteActivation(given)(x), torch.from_numpy(expected), atol=1e-12)


@pytest.mark.parametrize("activation", [HermiteActivation([1, 2, 3]), SineActivation(2.7), optimal_activation(5)])
def test_mean_square_is_one(activation):
    points, weights = np.polynomial.hermite_e.hermegauss(200)
    values = activation(torch.from_numpy(points)).square()
    assert float(values @ torch.from_numpy(weights / weights.sum())) == pytest.approx(1, abs=1e-10)


def test_gradient():
    x = torch.linspace(-2, 2, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(HermiteActivation([0, 1, 0.5, 1]), (x,))


def test_optimal_coefficients():
    assert [value**2 for value in optimal_activation(4).coefficients] == pytest.approx([0, 0.25, 0.5, 0.25])
    assert [value**2 for value in optimal_activation(8).coefficients] == pytest.approx([0, 1 / 16, 7 / 8, 1 / 16])
    assert [optimal_activation(d, "sine").rate for d in (2, 4, 8)] == pytest.approx([2.676, 6.13539, 13.8258], abs=1e-3)


@pytest.mark.parametrize("bad", [[], [0.0], [1.0, math.nan]])
def test_bad_coefficients(bad):
    with pytest.raises(ValueError, match="finite numbers, not all of them 0"):
        HermiteActivation(bad)


def test_bad_dimension_and_rate():
    with pytest.raises(ValueError, match="dimension is 0"):
        optimal_activation(0)
    with pytest.raises(ValueError, match="dimension is 1; a sine .* 'hermite'"):
        optimal_activation(1, "sine")
    with pytest.raises(ValueError, match="rate is 0"):
        SineActivation(0.0)
