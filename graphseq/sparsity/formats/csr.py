"""CSR format: single weights at any place, multiplied by rows of inputs; weight gradients only where weights exist."""

import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["CSRPattern", "csr_linear", "csr_pattern"]


class CSRPattern(NamedTuple):
    """Places of the weights, by output and by input.

    Args:
        crow: where the weights of each output begin, and their number (out_features + 1,).
        col: input of each weight, by output and then by input (nnz,).
        ccol: where the weights of each input begin, and their number (in_features + 1,).
        row: output of each weight, by input and then by output (nnz,).
        order: position of each of these in ``col`` (nnz,).

    Example:
        >>> csr_pattern(torch.tensor([[True, False], [True, True]])).col
        tensor([0, 0, 1])
    """

    crow: Tensor
    col: Tensor
    ccol: Tensor
    row: Tensor
    order: Tensor


def csr_pattern(mask: Tensor) -> CSRPattern:
    """Return the places of the weights of a mask.

    Args:
        mask: true where a weight exists, bool (out_features, in_features).

    Example:
        >>> csr_pattern(torch.tensor([[True, False], [True, True]])).crow
        tensor([0, 1, 3])
    """
    row, col = mask.nonzero(as_tuple=True)
    order = col.argsort(stable=True)
    crow, ccol = ((torch.cat([n.new_zeros(1), n.cumsum(0)])) for n in (mask.sum(1), mask.sum(0)))
    return CSRPattern(crow, col, ccol, row[order], order)


class _Multiply(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, values: Tensor, *pattern: Tensor) -> Tensor:
        ctx.save_for_backward(rows, values, *pattern)
        crow, col, *_ = pattern
        return _weighted_sums(rows, col, crow, values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        rows, values, crow, col, ccol, row, order = ctx.saved_tensors
        grad = grads[0].contiguous()
        to_rows = _weighted_sums(grad, row, ccol, values[order]) if ctx.needs_input_grad[0] else None
        to_values = _sampled(grad, rows, crow, col) if ctx.needs_input_grad[1] else None
        return to_rows, to_values, None, None, None, None, None


def _weighted_sums(rows: Tensor, index: Tensor, offsets: Tensor, weight: Tensor) -> Tensor:
    if rows.numel() == 0 or len(index) == 0:
        return rows.new_zeros(len(offsets) - 1, rows.size(1))
    return torch.nn.functional.embedding_bag(
        index, rows, offsets, mode="sum", per_sample_weights=weight.to(rows.dtype), include_last_offset=True
    )


def _sampled(grad: Tensor, rows: Tensor, crow: Tensor, col: Tensor) -> Tensor:
    """Return grad @ rows.T at the places of the weights."""
    if len(col) == 0:
        return grad.new_zeros(0)
    with warnings.catch_warnings():  # torch calls its CSR tensors a beta feature, once a process
        warnings.simplefilter("ignore", UserWarning)
        pattern = torch.sparse_csr_tensor(
            crow, col, grad.new_zeros(len(col)), (len(grad), len(rows)), check_invariants=False
        )
    return torch.sparse.sampled_addmm(pattern, grad, rows.t(), beta=0.0).values()


def csr_linear(x: Tensor, values: Tensor, pattern: CSRPattern, bias: Tensor | None = None) -> Tensor:
    r"""Return :math:`x W^\top + b` for a weight given by its nonzero values.

    The gradient of ``values`` has as many entries as there are weights; ``torch.sparse`` would return a dense one.
    First derivatives only.

    Args:
        x: inputs (*, in_features).
        values: weights in the order of ``pattern.col`` (nnz,).
        pattern: places of the weights, from :func:`csr_pattern`.
        bias: bias (out_features,), or None.

    Shape:
        (*, out_features)

    Example:
        >>> pattern = csr_pattern(torch.tensor([[True, False], [True, True]]))
        >>> csr_linear(torch.tensor([1.0, 10.0]), torch.tensor([1.0, 2.0, 3.0]), pattern)
        tensor([ 1., 32.])
    """
    rows = x.reshape(-1, x.size(-1)).t().contiguous()  # (in_features, B)
    out = _Multiply.apply(rows, values, *pattern)  # (out_features, B)
    out = out if bias is None else out + bias[:, None]
    return out.t().unflatten(0, x.shape[:-1]) if x.dim() > 1 else out.flatten()
