import pytest
import torch
from torch import nn
from torch.nn import functional

from graphseq.core import make
from graphseq.nn import CausalConvolution, MovingAverage, TreeConvolution


@pytest.mark.parametrize(("size", "depth", "base"), [(2, 4, None), (3, 2, None), (3, 3, 2), (4, 1, 1)])
def test_field_has_no_gap_and_no_more_than_is_said(size, depth, base):
    """The gradient of the last output is nonzero exactly at the steps of the field, 3^2 = 9 and so on."""
    tree = TreeConvolution(1, size, depth, base, initialization="normal").double()
    field = size**depth if base is None else 1 + (size - 1) * sum(base**place for place in range(depth))
    assert tree.receptive_field == field
    x = torch.randn(1, field + 5, 1, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(tree(x)[0][0, -1, 0], x)
    assert (gradient[0, :, 0] != 0).tolist() == [False] * 5 + [True] * field


def test_each_step_has_one_path_in_a_tree_and_more_in_a_denser_stack():
    for base, paths in ((None, torch.ones(27)), (2, None)):
        tree = TreeConvolution(1, 3, 3, base)
        for layer in tree.layers:
            nn.init.ones_(layer.weight)
        kernel = tree.composed_kernel()[0]
        assert torch.equal(kernel, paths) if paths is not None else bool((kernel > 1).any())


def test_layers_are_one_convolution_without_activation():
    tree = TreeConvolution(3, 3, 2, initialization="normal").double()
    x = torch.randn(2, 20, 3, dtype=torch.float64)
    kernel = tree.composed_kernel()  # (3, 9)
    expected = functional.conv1d(functional.pad(x.mT, (8, 0)), kernel.flip(1)[:, None], groups=3).mT
    assert torch.allclose(tree(x)[0], expected, atol=1e-12)
    by_hand = torch.zeros_like(x)
    for t in range(20):
        for lag in range(min(t + 1, 9)):
            by_hand[:, t] += kernel[:, lag] * x[:, t - lag]
    assert torch.allclose(tree(x)[0], by_hand, atol=1e-12)


def test_a_new_tree_is_a_bank_of_moving_averages():
    kernel = TreeConvolution(5, 4, 3).double().composed_kernel()  # (5, 64)
    assert torch.allclose(kernel.sum(1), torch.ones(5, dtype=torch.float64))
    rates = kernel[:, 1:] / kernel[:, :-1]
    constants = torch.tensor([64 ** (k / 4) for k in range(5)], dtype=torch.float64)
    assert torch.allclose(rates[:, :5], (-1 / constants).exp()[:, None].expand(-1, 5), rtol=1e-5)


def test_averages_by_transform_are_those_of_the_equation():
    layer = MovingAverage(3, 4).double()
    x, state = torch.randn(2, 9, 3, dtype=torch.float64), torch.randn(2, 3, 4, dtype=torch.float64)
    alpha, damping, beta, eta = (weight.detach() for weight in layer.weights())
    u, expected = state, []
    for t in range(9):
        u = alpha * beta * x[:, t, :, None] + (1 - alpha * damping) * u
        expected.append((eta * u).sum(-1))
    y, last = layer(x, state)
    assert torch.allclose(y, torch.stack(expected, 1), atol=1e-10)
    assert torch.allclose(last, u, atol=1e-10)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: TreeConvolution(0), "channels is 0"),
        (lambda: TreeConvolution(3, 1), "kernel_size is 1"),
        (lambda: TreeConvolution(3, 4, 0), "depth is 0"),
        (lambda: TreeConvolution(3, 4, 2, 5), "dilation_base is 5; give 1..4"),
        (lambda: TreeConvolution(3, initialization="zeros"), "initialization is 'zeros'"),
        (lambda: TreeConvolution(3, 2, 2, activation=make(nn.SiLU)).composed_kernel(), "activation is"),
        (lambda: TreeConvolution(3, 2, 2)(torch.zeros(1, 4, 3), []), "state has 0 entries"),
        (lambda: CausalConvolution(3, 2, 0), "dilation is 0"),
        (lambda: MovingAverage(3, 0), "num_averages is 0"),
        (lambda: MovingAverage(3, 2)(torch.zeros(1, 4, 3), torch.zeros(1, 3, 3)), r"state has shape \(1, 3, 3\)"),
    ],
)
def test_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
