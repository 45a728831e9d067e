"""Every format gives what the dense weight gives under its mask, gradients too."""

import pytest
import torch

from graphseq import sparsity
from tests.reference import sparse

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}


def case(granularity, grouping, dtype, p_inter=0.3):
    generator = torch.Generator().manual_seed(0)
    out = sparsity.group_labels(12, 4, grouping, generator)
    into = sparsity.group_labels(20, 4, grouping, generator)
    mask = sparsity.group_mask(out, into, 1.0, p_inter, granularity, generator)
    weight = torch.randn(12, 20, generator=generator, dtype=dtype) * mask
    bias = torch.randn(12, generator=generator, dtype=dtype)
    return out, into, mask, weight, bias


def run(forward, x, parameters):
    """Return output and gradients by inputs and parameters."""
    leaves = [value.detach().clone().requires_grad_() for value in (x, *parameters)]
    y = forward(*leaves)
    factor = torch.arange(y.numel(), dtype=y.dtype).view(y.shape).cos()
    return y.detach(), torch.autograd.grad((y.square() * factor).sum(), leaves)


def check(forward, x, parameters, dense, mask, bias, back):
    y, (gx, *grads) = run(forward, x, parameters)
    expected, (ex, ew, eb) = run(lambda *leaves: sparsity.masked_linear(leaves[0], leaves[1], mask, leaves[2]), x,
                                 (dense, bias))  # fmt: skip
    atol = TOLERANCE[x.dtype] * max(1.0, float(ew.abs().max()))
    for found, true in ((y, expected), (gx, ex), (back(grads[0]), ew), (grads[-1], eb)):
        torch.testing.assert_close(found, true, atol=atol, rtol=0)


def test_masked_is_the_reference():
    _, _, mask, weight, bias = case("edge", "index", torch.float64)
    x = torch.randn(3, 20, dtype=torch.float64)
    expected = sparse.linear(x.tolist(), weight.tolist(), mask.tolist(), bias.tolist())
    found = sparsity.masked_linear(x, weight, mask, bias)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), atol=1e-12, rtol=0)


@pytest.mark.parametrize("shape", [(20,), (7, 20), (2, 3, 20), (1, 20)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_packed(shape, dtype):
    out, _, mask, weight, bias = case("column", "index", dtype)
    packed, index = sparsity.to_packed(weight, mask, out)
    plan = sparsity.packed_index(index, 20)
    back = lambda grad: sparsity.from_packed(grad, index, out, 20)[0]  # noqa: E731
    check(lambda x, w, b: sparsity.packed_linear(x, w, plan, b), torch.randn(shape, dtype=dtype), (packed, bias),
          weight, mask, bias, back)  # fmt: skip
    restored = sparsity.from_packed(packed, index, out, 20)
    assert torch.equal(restored[0], weight)
    assert torch.equal(restored[1], mask)


@pytest.mark.parametrize("grouping", ["index", "interleaved"])
@pytest.mark.parametrize("shape", [(20,), (7, 20), (2, 3, 20)])
def test_block_diagonal(grouping, shape):
    out, into, mask, weight, bias = case("column", grouping, torch.float64, p_inter=0.0)
    blocks = sparsity.to_block_diagonal(weight, out, into)
    back = lambda grad: sparsity.from_block_diagonal(grad, out, into)[0]  # noqa: E731
    forward = lambda x, w, b: sparsity.block_diagonal_linear(x, w, b, grouping == "interleaved")  # noqa: E731
    check(forward, torch.randn(shape, dtype=torch.float64), (blocks, bias), weight, mask, bias, back)
    restored = sparsity.from_block_diagonal(blocks, out, into)
    assert torch.equal(restored[0], weight)
    assert torch.equal(restored[1], mask)


@pytest.mark.parametrize("shape", [(20,), (7, 20), (2, 3, 20)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_csr(shape, dtype):
    _, _, mask, weight, bias = case("edge", "random", dtype)
    mask[3] = False  # an output without inputs
    weight = weight * mask
    values, pattern = sparsity.to_csr(weight, mask)
    back = lambda grad: sparsity.from_csr(grad, pattern)[0]  # noqa: E731
    check(lambda x, w, b: sparsity.csr_linear(x, w, pattern, b), torch.randn(shape, dtype=dtype), (values, bias),
          weight, mask, bias, back)  # fmt: skip
    restored = sparsity.from_csr(values, pattern)
    assert torch.equal(restored[0], weight)
    assert torch.equal(restored[1], mask)


def test_without_bias_and_without_samples():
    out, into, mask, weight, _ = case("column", "index", torch.float32)
    packed, index = sparsity.to_packed(weight, mask, out)
    values, pattern = sparsity.to_csr(weight, mask)
    plan = sparsity.packed_index(index, 20)
    blocks = sparsity.to_block_diagonal(weight, out, into).requires_grad_()
    packed.requires_grad_(), values.requires_grad_()
    for x in (torch.randn(5, 20), torch.randn(0, 20)):
        x.requires_grad_()
        for y in (sparsity.packed_linear(x, packed, plan), sparsity.csr_linear(x, values, pattern)):
            torch.testing.assert_close(y, torch.nn.functional.linear(x, weight), atol=1e-5, rtol=0)
            y.sum().backward()
        assert sparsity.block_diagonal_linear(x, blocks).shape == (len(x), 12)
    assert x.grad.shape == (0, 20)


def test_second_derivatives_of_the_packed_format():
    out, _, mask, weight, bias = case("column", "index", torch.float64)
    packed, index = sparsity.to_packed(weight, mask, out)
    plan = sparsity.packed_index(index, 20)
    leaves = [value.clone().requires_grad_() for value in (torch.randn(2, 20, dtype=torch.float64), packed, bias)]
    forward = lambda x, w, b: sparsity.packed_linear(x, w, plan, b).tanh()  # noqa: E731
    assert torch.autograd.gradcheck(forward, leaves, fast_mode=True)
    assert torch.autograd.gradgradcheck(forward, leaves, fast_mode=True)


def test_what_cannot_be_packed_is_refused():
    out, _, mask, weight, _ = case("edge", "index", torch.float32)
    with pytest.raises(ValueError, match="different inputs"):
        sparsity.to_packed(weight, mask, out)
    mask = torch.ones(12, 20, dtype=torch.bool)
    mask[out == 0, 3] = False
    with pytest.raises(ValueError, match=r"\[19, 20, 20, 20\]"):
        sparsity.to_packed(weight, mask, out)
    with pytest.raises(ValueError, match="outside 0..1"):
        sparsity.packed_index(torch.tensor([[2]]), 2)


def test_the_cost_model_chooses():
    assert sparsity.choose_format("column", 1024, 1024, 1.0, 0.15, 8) == "packed"
    assert sparsity.choose_format("column", 64, 64, 1.0, 0.15, 8) == "masked"
    assert sparsity.choose_format("column", 1024, 1024, 1.0, 1.0, 8) == "masked"
    assert sparsity.choose_format("edge", 2048, 2048, 1.0, 0.05, 8) == "blockdiag+csr"
    assert sparsity.choose_format("edge", 2048, 2048, 0.9, 0.05, 8) == "masked"
    assert sparsity.choose_format("edge", 2048, 2048, 1.0, 0.5, 8) == "masked"
    times = [sparsity.format_time("packed", 512, 512, density, 8) for density in (0.1, 0.2, 0.4)]
    assert times == sorted(times)
    with pytest.raises(ValueError, match="format is 'dense'"):
        sparsity.format_time("dense", 4, 4, 0.5)
