"""Polynomial activations: sums by hand, gradients, scale, what is stored, half precision."""

import math

import pytest
import torch
from torch.autograd import gradcheck
from torch.func import functional_call

from graphseq.nn import PolyNorm, PolyReLU


def by_hand(kind, row, coefficients):
    """Activations of one row, entry by entry."""
    powers = [[max(0.0, x) ** i if kind is PolyReLU else x**i for x in row] for i in range(1, len(coefficients))]
    if kind is PolyNorm:
        roots = [math.sqrt(sum(x * x for x in power) / len(row) + 1e-6) for power in powers]
        powers = [[x / root for x in power] for power, root in zip(powers, roots, strict=True)]
    return [
        coefficients[0] + sum(a * power[place] for a, power in zip(coefficients[1:], powers, strict=True))
        for place in range(len(row))
    ]


@pytest.mark.parametrize("kind", [PolyReLU, PolyNorm])
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_equals_the_sum_by_hand(kind, order):
    layer = kind(order).double()
    torch.nn.init.normal_(layer.coefficients)
    x = 2 * torch.randn(3, 5, dtype=torch.float64)
    expected = [by_hand(kind, row, layer.coefficients.tolist()) for row in x.tolist()]
    torch.testing.assert_close(layer(x), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("kind", [PolyReLU, PolyNorm])
def test_coefficients_at_the_start(kind):
    layer = kind(3)
    assert layer.coefficients.tolist() == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3])
    torch.nn.init.ones_(layer.coefficients)
    layer.reset_parameters()
    assert layer.coefficients.tolist() == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3])


def test_single_powers_are_known_activations():
    x = torch.randn(4, 6)
    for kind, coefficients, expected in [
        (PolyReLU, [0, 1, 0, 0], x.relu()),
        (PolyReLU, [0, 0, 1, 0], x.relu().square()),
        (PolyNorm, [0, 1, 0, 0], torch.nn.functional.rms_norm(x, (6,), eps=1e-6)),
    ]:
        layer = kind()
        layer.coefficients.data = torch.tensor(coefficients, dtype=torch.float32)
        torch.testing.assert_close(layer(x), expected)
        assert kind is PolyNorm or torch.equal(layer(x), expected)


@pytest.mark.parametrize("recompute", [True, False])
@pytest.mark.parametrize("kind", [PolyReLU, PolyNorm])
def test_gradients(kind, recompute):
    layer = kind(recompute=recompute).double()
    x = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    coefficients = torch.randn(4, dtype=torch.float64, requires_grad=True)
    # through the module, so that the coefficients of what is computed again have their gradient, too
    assert gradcheck(lambda x, a: functional_call(layer, {"coefficients": a}, (x,)), (x, coefficients))


def stored(layer, x):
    """Bytes that the backward pass holds, each tensor once."""
    found = {}

    def pack(tensor):
        found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = layer(x)
    return sum(found.values()), y


@pytest.mark.parametrize("kind", [PolyReLU, PolyNorm])
def test_what_is_computed_again_is_not_stored(kind):
    x = torch.randn(8, 64, requires_grad=True)
    again, plain = kind(), kind(recompute=False)
    (less, y), (more, other) = stored(again, x), stored(plain, x)
    assert torch.equal(y, other)
    assert more - less >= 2 * x.nbytes
    assert less < 1.1 * x.nbytes
    found, expected = (
        torch.autograd.grad(value.square().sum(), [x, module.coefficients])
        for value, module in ((y, again), (other, plain))
    )
    assert all(torch.equal(one, two) for one, two in zip(found, expected, strict=True))


def test_scale_and_sign_of_normalised_powers():
    layer = PolyNorm()
    x = 10 * torch.randn(4, 16)
    torch.testing.assert_close(layer(7 * x), layer(x), atol=1e-4, rtol=1e-4)
    layer.coefficients.data = torch.tensor([0.0, 1.0, 0.0, 1.0])
    torch.testing.assert_close(layer(-x), -layer(x))
    torch.nn.init.normal_(layer.coefficients)
    a = layer.coefficients.detach().abs()
    assert (layer(x).detach().square().mean(-1).sqrt() <= a.sum() + 1e-5).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_finite(dtype):
    x = torch.linspace(-1e3, 1e3, 64, dtype=dtype, requires_grad=True)
    y = PolyNorm()(x)
    y.sum().backward()
    assert y.dtype == x.grad.dtype == dtype
    assert torch.isfinite(y).all()
    assert torch.isfinite(x.grad).all()
    with torch.autocast("cpu", torch.bfloat16):
        expected = PolyNorm()(x.detach().float())
    torch.testing.assert_close(y.float(), expected, atol=1e-2, rtol=1e-2)
    assert torch.isfinite(
        PolyReLU()(torch.tensor([30.0], dtype=dtype))
    ).all()  # 27,000 / 3, its square overflows no step
    beyond = PolyReLU()(torch.tensor([100.0], dtype=dtype))  # 333,333 and more, which float16 does not have
    assert bool(beyond.isinf()) is (dtype == torch.float16)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: PolyReLU(0), "order is 0"),
        (lambda: PolyNorm(-1), "order is -1"),
        (lambda: PolyNorm(2.5), "order is 2.5"),
        (lambda: PolyReLU()(torch.ones(1, 2, dtype=torch.int64)), "inputs are torch.int64"),
        (lambda: PolyNorm(eps=0.0), "eps is 0"),
    ],
)
def test_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
