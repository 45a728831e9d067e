import pytest
import torch

from graphseq.ops import ema_convolution, ema_kernel, ema_recurrence


def weights(*shape):
    alpha, damping = torch.rand(2, *shape, dtype=torch.float64).unbind()
    expand, project = torch.randn(2, *shape, dtype=torch.float64).unbind()
    return alpha, damping, expand, project


@pytest.mark.parametrize("steps", [1, 2, 17])
def test_transform_and_recurrence_agree_gradients_too(steps):
    leaves = [torch.randn(2, steps, 3, dtype=torch.float64), *weights(3, 4)]
    leaves = [leaf.requires_grad_() for leaf in leaves]
    x, *parts = leaves
    y, _ = ema_recurrence(x, *parts, torch.zeros(2, 3, 4, dtype=torch.float64))
    other = ema_convolution(x, ema_kernel(*parts, steps))
    assert torch.allclose(y, other, atol=1e-10)
    incoming = torch.randn_like(y)
    gradients = [torch.autograd.grad(out, leaves, incoming) for out in (y, other)]
    assert all(torch.allclose(one, two, atol=1e-8) for one, two in zip(*gradients, strict=True))


def test_limits():
    one, x = torch.ones(1, 1, dtype=torch.float64), torch.randn(1, 8, 1, dtype=torch.float64)
    same = ema_convolution(x, ema_kernel(one, one, one, one, 8))
    assert torch.allclose(same, x), "a weight of 1 keeps nothing of the past"
    usual = ema_convolution(x, ema_kernel(0.25 * one, one, one, one, 8))
    expected, total = [], 0.0
    for value in x.flatten().tolist():
        total = 0.25 * value + 0.75 * total
        expected.append(total)
    assert torch.allclose(usual.flatten(), torch.tensor(expected, dtype=torch.float64))
    summed = ema_convolution(x, ema_kernel(0.5 * one, 1e-12 * one, one, one, 8))
    assert torch.allclose(summed, 0.5 * x.cumsum(1)), "nothing is forgotten without damping"


def test_refused():
    with pytest.raises(ValueError, match=r"kernel \(3, 4\)"):
        ema_convolution(torch.zeros(1, 5, 3), torch.zeros(3, 4))
