"""Proximal matching against a loop over samples, its limits, and its refusals."""

import math

import pytest
import torch

from graphseq.nn import ProximalMatchingLoss


def pairs(scale=1.0):
    generator = torch.Generator().manual_seed(0)
    prediction, target = (scale * torch.randn(5, 2, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    return prediction.requires_grad_(), target


def test_equals_a_loop():
    prediction, target = pairs()
    total, slopes = 0.0, torch.zeros_like(target)
    errors = (prediction - target).detach()
    for b in range(5):
        squares = sum(float(errors[b, i, j]) ** 2 for i in range(2) for j in range(3))
        kernel = math.exp(-squares / 1.5**2)
        total += (1 - kernel) / 5
        slopes[b] = kernel * 2 * errors[b] / 1.5**2 / 5
    loss = ProximalMatchingLoss(1.5)(prediction, target)
    assert float(loss) == pytest.approx(total, rel=1e-12)
    (gradient,) = torch.autograd.grad(loss, prediction)
    torch.testing.assert_close(gradient, slopes, rtol=1e-12, atol=1e-15)


def test_limits():
    prediction, target = pairs()
    squares = (prediction - target).square().sum((1, 2)).mean()
    assert float(ProximalMatchingLoss(1e4)(prediction, target) * 1e8 / squares) == pytest.approx(1, abs=1e-6)
    small = ProximalMatchingLoss(1e-6)(prediction, target)
    assert float(small) == 1.0
    (gradient,) = torch.autograd.grad(small, prediction)
    assert bool(gradient.isfinite().all())
    (same,) = torch.autograd.grad(ProximalMatchingLoss(1e-3)(prediction, prediction.detach()), prediction)
    assert not same.any()


def test_width_of_training_is_for_training_alone():
    prediction, target = pairs()
    loss = ProximalMatchingLoss(1.5)
    loss.training_gamma = None
    assert torch.equal(loss(prediction, target), (prediction - target).abs().mean())
    loss.eval()
    assert torch.equal(loss(prediction, target), ProximalMatchingLoss(1.5)(prediction, target))


def test_half_precision_is_computed_in_single():
    prediction, target = (tensor.detach().half() for tensor in pairs(scale=200.0))
    found = ProximalMatchingLoss(1000.0)(prediction, target)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, ProximalMatchingLoss(1000.0)(prediction.float(), target.float()))


@pytest.mark.parametrize("gamma", [0.0, -1.0, math.nan, math.inf])
def test_widths_that_are_none(gamma):
    with pytest.raises(ValueError, match=f"gamma is {gamma}"):
        ProximalMatchingLoss(gamma)


def test_wrong_tensors():
    loss = ProximalMatchingLoss()
    with pytest.raises(ValueError, match=r"\(3, 2\).*\(3, 1\)"):
        loss(torch.ones(3, 2), torch.ones(3, 1))
    with pytest.raises(ValueError, match=r"\(3,\)"):
        loss(torch.ones(3), torch.ones(3))
    with pytest.raises(TypeError, match="complex64"):
        loss(torch.ones(3, 2, dtype=torch.complex64), torch.ones(3, 2))
