"""The moment map against quadrature, and the three theorems of the paper on grids."""

import itertools
import math

import pytest
import torch

from graphseq.ops import SELU_ALPHA, SELU_SCALE, fixed_point, moment_map, selu_parameters
from tests.reference import self_normalizing as reference


def grid(*axes):
    points = torch.tensor(list(itertools.product(*axes)), dtype=torch.float64)
    return points.unbind(1)


def spread(low, high, count):
    return torch.linspace(low, high, count, dtype=torch.float64).tolist()


OMEGA = (spread(-0.1, 0.1, 7), spread(0.8, 1.5, 7), spread(-0.1, 0.1, 5), spread(0.95, 1.1, 5))


def test_equals_quadrature_where_theorem_1_holds():
    points = grid(*(axis[::3] for axis in OMEGA))
    mean, var = moment_map(*points)
    expected = [reference.moments(*(float(axis[k]) for axis in points)) for k in range(len(points[0]))]
    torch.testing.assert_close(mean, torch.tensor([m for m, _ in expected], dtype=torch.float64), rtol=0, atol=1e-10)
    torch.testing.assert_close(var, torch.tensor([v for _, v in expected], dtype=torch.float64), rtol=0, atol=1e-10)


@pytest.mark.parametrize("m", [-50.0, -7.0, -0.3, 0.0, 2.0, 50.0])
@pytest.mark.parametrize("var", [1e-6, 0.3, 20.0, 1e4])
def test_is_right_and_finite_far_from_the_fixed_point(m, var):
    mean, variance = moment_map(m, var, 1.0, 1.0)
    expected = reference.moments(m, var, 1.0, 1.0, nodes=2000)
    # the variance is a difference of squares, so what it can lose is relative to them
    assert math.isclose(float(mean), expected[0], rel_tol=1e-9, abs_tol=1e-9)
    assert math.isclose(float(variance), expected[1], rel_tol=1e-9, abs_tol=1e-11 * (1 + expected[0] ** 2))
    gradient = torch.tensor([m, var], dtype=torch.float64, requires_grad=True)
    sum(moment_map(gradient[0], gradient[1], 1.0, 1.0)).backward()
    assert torch.isfinite(gradient.grad).all()


def test_gradients():
    points = torch.rand(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.2
    points[0] -= 0.7
    inputs = [row.clone().requires_grad_() for row in points]
    assert torch.autograd.gradcheck(moment_map, inputs)


def test_without_variance_it_is_selu():
    x = torch.tensor([-3.0, -0.1, 0.0, 2.0], dtype=torch.float64)
    mean, var = moment_map(x, 0.0, 1.0, 1.0)
    torch.testing.assert_close(mean, torch.nn.functional.selu(x))
    assert var.abs().max() < 1e-12


def test_constants_and_other_fixed_points():
    alpha, scale = selu_parameters(0.0, 1.0)
    assert abs(alpha - SELU_ALPHA) < 1e-14
    assert abs(scale - SELU_SCALE) < 1e-14
    for mean, var in ((-0.1, 2.0), (0.2, 0.7), (0.0, 3.0)):
        alpha, scale = selu_parameters(mean, var)
        kept = reference.moments(mean, var, 1.0, 1.0, alpha, scale)
        assert kept == pytest.approx((mean, var), abs=1e-9)


def test_fixed_points_of_the_specification():
    for weight_sum in (-0.1, 0.0, 0.1):
        mean, var = fixed_point(weight_sum, torch.tensor([0.95, 1.0, 1.1]))
        torch.testing.assert_close(moment_map(mean, var, weight_sum, torch.tensor([0.95, 1.0, 1.1]))[1], var)
        assert abs(float(mean[1])) < 1e-10
        assert abs(float(var[1]) - 1) < 1e-10
        assert 0.825 < float(var[0]) < 0.835
        assert 1.39 < float(var[2]) < 1.411


def test_theorem_1_the_map_is_a_contraction_into_its_own_domain():
    mean, var, *weights = grid(*OMEGA)
    out_mean, out_var = moment_map(mean, var, *weights)
    assert -0.1 < float(out_mean.min()) <= float(out_mean.max()) < 0.1
    assert 0.8 < float(out_var.min()) <= float(out_var.max()) < 1.5

    def of_one(point, weight):
        return torch.stack(moment_map(point[0], point[1], weight[0], weight[1]))

    jacobian = torch.func.vmap(torch.func.jacrev(of_one))(torch.stack([mean, var], 1), torch.stack(weights, 1))
    norm = torch.linalg.matrix_norm(jacobian, 2)
    assert 0.8 < float(norm.max()) < 1
    at_one = torch.func.jacrev(of_one)(torch.tensor([0.0, 1.0]).double(), torch.tensor([0.0, 1.0]).double())
    torch.testing.assert_close(at_one, torch.tensor([[0, 0.088835], [0, 0.782648]]).double(), rtol=0, atol=1e-6)


def test_theorem_2_large_variances_shrink():
    points = grid(spread(-1, 1, 9), spread(3, 16, 9), spread(-0.1, 0.1, 5), spread(0.8, 1.25, 5))
    assert float((moment_map(*points)[1] - points[1]).max()) < -0.1


@pytest.mark.parametrize(("highest", "lowest"), [(0.16, 0.8), (0.24, 0.9)])
def test_theorem_3_small_variances_grow(highest, lowest):
    points = grid(spread(-0.1, 0.1, 7), spread(0.02, highest, 9), spread(-0.1, 0.1, 7), spread(lowest, 1.25, 5))
    assert float((moment_map(*points)[1] - points[1]).min()) > 0.005


def test_what_has_no_fixed_point():
    with pytest.raises(ValueError, match="weight_square_sum 4"):
        fixed_point(0.0, 4.0)
    for mean, var in ((0.0, 0.0), (0.0, -1.0), (float("nan"), 1.0)):
        with pytest.raises(ValueError, match="var"):
            selu_parameters(mean, var)
    for mean, var in ((5.0, 0.1), (5.0, 0.01)):  # hardly a pre-activation below 0, so alpha has nothing to set
        with pytest.raises(ValueError, match=f"mean {mean}"):
            selu_parameters(mean, var)
