import pytest
import torch

from graphseq.ops import causal_convolution


def by_loops(x, weight, dilation, before=None):
    reach = (weight.shape[1] - 1) * dilation
    known = torch.cat([torch.zeros(len(x), reach, x.shape[2], dtype=x.dtype) if before is None else before, x], 1)
    out = torch.zeros_like(x)
    for t in range(x.shape[1]):
        for lag in range(weight.shape[1]):
            out[:, t] = out[:, t] + weight[:, lag] * known[:, reach + t - lag * dilation]
    return out


@pytest.mark.parametrize(("size", "dilation"), [(1, 1), (3, 1), (2, 4), (4, 3)])
@pytest.mark.parametrize("given", [False, True])
def test_equals_loops_and_their_gradients(size, dilation, given):
    x = torch.randn(2, 7, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, size, dtype=torch.float64, requires_grad=True)
    before = torch.randn(2, (size - 1) * dilation, 3, dtype=torch.float64, requires_grad=True) if given else None
    leaves = [x, weight, *([before] if given and before.numel() else [])]
    y, expected = causal_convolution(x, weight, dilation=dilation, before=before), by_loops(x, weight, dilation, before)
    assert torch.allclose(y, expected, atol=1e-12)
    incoming = torch.randn_like(y)
    gradients = [torch.autograd.grad(out, leaves, incoming) for out in (y, expected)]
    assert all(torch.allclose(one, other, atol=1e-12) for one, other in zip(*gradients, strict=True))
    assert torch.autograd.gradcheck(lambda *z: causal_convolution(z[0], z[1], dilation=dilation), (x, weight))


def test_frozen_weights_still_pass_gradients_on():
    x = torch.randn(1, 5, 2, requires_grad=True)
    causal_convolution(x, torch.ones(2, 2)).sum().backward()
    assert x.grad[0, :, 0].tolist() == [2, 2, 2, 2, 1]


@pytest.mark.parametrize(
    ("shapes", "dilation", "message"),
    [
        (((2, 5, 3), (3, 2), None), 0, "dilation is 0"),
        (((5, 3), (3, 2), None), 1, r"x has shape \(5, 3\)"),
        (((2, 5, 3), (4, 2), None), 1, r"weight \(4, 2\)"),
        (((2, 5, 3), (3, 2), (1, 2, 3)), 2, r"state has shape \(1, 2, 3\)"),
    ],
)
def test_refused(shapes, dilation, message):
    x, weight, before = (None if shape is None else torch.zeros(shape) for shape in shapes)
    with pytest.raises(ValueError, match=message):
        causal_convolution(x, weight, dilation=dilation, before=before)
