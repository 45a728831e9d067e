"""Softmax within segments of rows, such as attention over the neighbours of each node, and its logarithm."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from graphseq.ops.segment.backends import reduce_segments
from graphseq.ops.segment.index import check_segments, row_segments
from graphseq.ops.segment.native import native_sum, spread

__all__ = ["segment_log_softmax", "segment_softmax"]


def _softmax(values: Tensor, index: Tensor, ptr: Tensor | None, num_segments: int) -> Tensor:
    by_index = index if ptr is None else None
    highest = reduce_segments("max", values, by_index, ptr, num_segments)
    # a segment of only -inf: its entries become 0 instead of exp(-inf + inf)
    highest.clamp_(min=torch.finfo(values.dtype).min)
    weights = (values - highest.index_select(0, index)).exp_()
    # the largest entry alone contributes 1, unless all are -inf
    total = reduce_segments("sum", weights, by_index, ptr, num_segments).clamp_(min=1)
    return weights.div_(total.index_select(0, index))


class _Softmax(Function):
    """Softmax within segments; only the result is kept for the gradient."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, index: Tensor, ptr: Tensor | None, num_segments: int) -> Tensor:
        output = _softmax(values, index, ptr, num_segments)
        ctx.save_for_backward(output, index, ptr)
        ctx.num_segments = num_segments
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        output, index, ptr = ctx.saved_tensors
        weighted = output * gradients[0]
        total = native_sum(weighted, index, ptr, ctx.num_segments)
        return weighted - output * spread(total, index, ptr, output.shape[0]), None, None, None


def segment_softmax(
    values: Tensor, index: Tensor | None = None, *, ptr: Tensor | None = None, num_segments: int | None = None
) -> Tensor:
    r"""Normalise the exponentials of each segment and column to sum 1.

    .. math:: y_i = \frac{\exp(x_i - m_{\mathrm{index}_i})}{\sum_{j:\, \mathrm{index}_j = \mathrm{index}_i}
        \exp(x_j - m_{\mathrm{index}_j})}, \qquad m_g = \max_{j:\, \mathrm{index}_j = g} x_j

    float16 and bfloat16 are computed in float32, which is also the type of the result under autocast, as in
    ``torch.softmax``. Entries of ``-inf`` get 0; where all of a segment are, all get 0 (``torch.softmax``: NaN).

    Args:
        values: rows to be reduced, of a floating type.
        index: segment of each row, int64 in 0..G-1, in any order.
        ptr: boundaries of rows sorted by segment, in place of ``index``, int64, from 0 to N, never decreasing.
        num_segments: number of segments G; None to take it from ``ptr``, or as the largest index plus one, which
            synchronises on an accelerator.

    Shape:
        values (N, \*), index (N,) or ptr (G+1,) -> (N, \*)

    Raises:
        TypeError: if a type is not accepted.
        ValueError: if shapes, devices or contents do not fit, or not exactly one of index and ptr is given.

    Example:
        >>> segment_softmax(torch.tensor([1.0, 7.0, 1.0]), torch.tensor([2, 0, 2]))
        tensor([0.5000, 1.0000, 0.5000])
    """
    num_segments = check_segments(values, index, ptr, num_segments, floating=True)
    half = values.dtype in (torch.float16, torch.bfloat16)
    wide = values.float() if half else values
    rows = row_segments(index, ptr, values.shape[0])
    tracked = torch.is_grad_enabled() and values.requires_grad
    result = (_Softmax.apply if tracked else _softmax)(wide, rows, ptr, num_segments)
    return result.to(values.dtype) if half and not torch.is_autocast_enabled(values.device.type) else result


class _LogSoftmax(Function):
    """Logarithm of the softmax within segments; only the result is kept for the gradient."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, index: Tensor, ptr: Tensor | None, num_segments: int) -> Tensor:
        output = _log_softmax(values, index, ptr, num_segments)
        ctx.save_for_backward(output, index, ptr)
        ctx.num_segments = num_segments
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        output, index, ptr = ctx.saved_tensors
        total = native_sum(gradients[0], index, ptr, ctx.num_segments)
        return gradients[0] - output.exp() * spread(total, index, ptr, output.shape[0]), None, None, None


def _log_softmax(values: Tensor, index: Tensor, ptr: Tensor | None, num_segments: int) -> Tensor:
    by_index = index if ptr is None else None
    highest = reduce_segments("max", values, by_index, ptr, num_segments)
    highest.clamp_(min=torch.finfo(values.dtype).min)
    shifted = values - highest.index_select(0, index)
    total = reduce_segments("sum", shifted.exp(), by_index, ptr, num_segments).clamp_(min=1)
    return shifted.sub_(total.log_().index_select(0, index))


def segment_log_softmax(
    values: Tensor, index: Tensor | None = None, *, ptr: Tensor | None = None, num_segments: int | None = None
) -> Tensor:
    r"""Return the logarithm of :func:`segment_softmax`, without the rounding of a logarithm of small numbers.

    .. math:: y_i = x_i - \log \sum_{j:\, \mathrm{index}_j = \mathrm{index}_i} \exp(x_j)

    float16 and bfloat16 are computed in float32, which is also the type of the result under autocast, as in
    ``torch.log_softmax``. Entries of ``-inf`` stay so.

    Args:
        values: rows to be normalised, of a floating type.
        index: segment of each row, int64 in 0..G-1, in any order.
        ptr: boundaries of rows sorted by segment, in place of ``index``, int64, from 0 to N, never decreasing.
        num_segments: number of segments G; None to take it from ``ptr``, or as the largest index plus one, which
            synchronises on an accelerator.

    Shape:
        values (N, \*), index (N,) or ptr (G+1,) -> (N, \*)

    Raises:
        TypeError: if a type is not accepted.
        ValueError: if shapes, devices or contents do not fit, or not exactly one of index and ptr is given.

    Example:
        >>> segment_log_softmax(torch.tensor([1.0, 7.0, 1.0]), torch.tensor([2, 0, 2])).exp()
        tensor([0.5000, 1.0000, 0.5000])
    """
    num_segments = check_segments(values, index, ptr, num_segments, floating=True)
    half = values.dtype in (torch.float16, torch.bfloat16)
    wide = values.float() if half else values
    rows = row_segments(index, ptr, values.shape[0])
    tracked = torch.is_grad_enabled() and values.requires_grad
    result = (_LogSoftmax.apply if tracked else _log_softmax)(wide, rows, ptr, num_segments)
    return result.to(values.dtype) if half and not torch.is_autocast_enabled(values.device.type) else result
