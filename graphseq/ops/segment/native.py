"""Segment sums and extrema by torch's own operations: the fastest one for each layout, with lean gradients.

Measured on one thread of a CPU, float32, 20 rows a segment (``graphseq bench speed.segment`` measures again):

* sums of sorted rows: ``embedding_bag`` takes 0.2 to 0.9 of the time of ``index_add_``, but has by far the slowest
  backward, so the gradient is a gather instead; for one column ``segment_reduce`` is faster still;
* extrema of sorted rows: ``segment_reduce`` up to 15 columns; from 16 on ``scatter_reduce_`` works row by row and
  takes 0.1 to 0.8 of its time;
* gradients of extrema: autograd of ``scatter_reduce_`` takes 2 to 10 times as long as the mask used here, counting
  the forward pass to both;
* half precision: ``segment_reduce`` adds up in the storage type, so that 3000 ones make 256 in bfloat16; here sums
  are accumulated in float32.

In all functions one of ``index`` and ``ptr`` may be None; if both are given, they say the same. The
``autograd.Function`` s take the context in ``forward``, since a separate ``setup_context`` costs 20 µs a call, as
much as a small sum: ``torch.func`` transforms are not supported.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from graphseq.ops.segment.index import count_rows, row_segments

SumKernel = Callable[[Tensor, Tensor], Tensor]
"""From sorted rows and ``ptr`` to sums, without gradients."""

_HALF = (torch.float16, torch.bfloat16)
_WIDE = 16  # columns from which scatter_reduce_ works row by row instead of element by element
_BLOCK = 2**18  # entries whose temporary copy stays in the cache; a whole one would cost fresh memory pages
_BAG_SUM, _BAG_MAX = 0, 2  # modes of embedding_bag


def _rows(values: Tensor) -> Tensor:
    """View the values as (N, D)."""
    return values if values.dim() == 2 else values.reshape(values.shape[0], math.prod(values.shape[1:]))


def _tracked(values: Tensor) -> bool:
    return torch.is_grad_enabled() and values.requires_grad


def _embedding_bag(rows: Tensor, order: Tensor, ptr: Tensor, mode: int) -> tuple[Tensor, Tensor]:
    """Reduce ``rows[order[ptr[g]:ptr[g+1]]]`` for each g; the second result is the winners' row numbers (max)."""
    output, _, _, winners = torch.embedding_bag(rows, order, ptr, False, mode, False, None, True)
    return output, winners


def _sum_by_index(values: Tensor, index: Tensor, num_segments: int) -> Tensor:
    """Sum with torch's own gradients, which are the best there are and can be differentiated again."""
    rows = _rows(values)
    if rows.shape[1] == 1:
        rows = rows.reshape(-1)  # half of the time of a column
    total = rows.new_zeros((num_segments, *rows.shape[1:]), dtype=torch.float32 if rows.dtype in _HALF else rows.dtype)
    total = total.index_add_(0, index, rows.to(total.dtype)).to(rows.dtype)
    return total if total.dim() == values.dim() == 2 else total.view(num_segments, *values.shape[1:])


def _sum_by_ptr(values: Tensor, index: Tensor | None, ptr: Tensor) -> Tensor:
    """Sum sorted rows. Gradients do not flow."""
    num_segments, rows = ptr.numel() - 1, _rows(values)
    one_column = rows.shape[1] == 1
    if rows.numel() == 0:
        return values.new_zeros((num_segments, *values.shape[1:]))
    if rows.dtype in _HALF or (rows.dtype == torch.float32 and not one_column):
        output = _embedding_bag(rows, torch.arange(rows.shape[0], device=rows.device), ptr, _BAG_SUM)[0]
    # elsewhere index_add_ adds float64 in changing order
    elif rows.is_floating_point() and (one_column or not rows.is_cpu):
        output = torch.segment_reduce(rows, "sum", offsets=ptr, axis=0, unsafe=True)
    else:
        return _sum_by_index(values, row_segments(index, ptr, rows.shape[0]), num_segments)
    return output if values.dim() == 2 else output.view(num_segments, *values.shape[1:])  # a view costs a microsecond


class _Sum(Function):
    """Sum of sorted rows by any kernel; its gradient is :class:`_Spread`."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, index: Tensor | None, ptr: Tensor, kernel: SumKernel | None) -> Tensor:
        ctx.save_for_backward(index, ptr)
        ctx.num_values = values.shape[0]
        return kernel(values, ptr) if kernel else _sum_by_ptr(values, index, ptr)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        index, ptr = ctx.saved_tensors
        gradient = gradients[0]
        if gradient.numel() == ptr.numel() - 1 and gradient.device.type == "cpu" and not _tracked(gradient):
            # one column: one pass without an index; the values are not looked at
            rows = gradient.new_empty((ctx.num_values, 1))
            shares = torch.ops.aten._segment_reduce_backward(
                _rows(gradient).contiguous(), _rows(gradient), rows, "sum", offsets=ptr, axis=0
            )
            return shares.view(ctx.num_values, *gradient.shape[1:]), None, None, None
        return spread(gradient, index, ptr, ctx.num_values), None, None, None


class _Spread(Function):
    """The entry of its segment for each sorted row; its gradient is :class:`_Sum`, so it is as deterministic."""

    @staticmethod
    def forward(ctx: Any, totals: Tensor, index: Tensor | None, ptr: Tensor, num_values: int) -> Tensor:
        ctx.save_for_backward(index, ptr)
        ctx.num_segments = totals.shape[0]
        return totals.index_select(0, row_segments(index, ptr, num_values))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        index, ptr = ctx.saved_tensors
        return native_sum(gradients[0], index, ptr, ctx.num_segments), None, None, None


def native_sum(
    values: Tensor, index: Tensor | None, ptr: Tensor | None, num_segments: int, kernel: SumKernel | None = None
) -> Tensor:
    """Return the sum of each segment, accumulated in at least float32; sorted rows may be summed by a given kernel."""
    if ptr is None:
        return _sum_by_index(values, row_segments(index, ptr, values.shape[0]), num_segments)
    if _tracked(values):
        return _Sum.apply(values, index, ptr, kernel)
    return kernel(values, ptr) if kernel else _sum_by_ptr(values, index, ptr)


def spread(totals: Tensor, index: Tensor | None, ptr: Tensor | None, num_values: int) -> Tensor:
    """Return for each row the entry of its segment."""
    if ptr is not None and _tracked(totals):
        return _Spread.apply(totals, index, ptr, num_values)
    return totals.index_select(0, row_segments(index, ptr, num_values))


def _by_segment_reduce(values: Tensor, ptr: Tensor | None) -> bool:
    """Whether the extremum of these values is left to ``segment_reduce``, which needs no index at all."""
    if ptr is None or not values.is_floating_point() or values.numel() == 0:
        return False
    return math.prod(values.shape[1:]) < _WIDE or values.device.type != "cpu"


def reduce_extremum(
    values: Tensor, index: Tensor | None, ptr: Tensor | None, num_segments: int, largest: bool
) -> Tensor:
    """Return the largest or smallest entry of each segment, 0 for an empty one. Gradients do not flow."""
    rows, shape = _rows(values), (num_segments, *values.shape[1:])
    if rows.numel() == 0:
        return values.new_zeros(shape)
    if ptr is not None and _by_segment_reduce(values, ptr):
        output = torch.segment_reduce(rows, "max" if largest else "min", offsets=ptr, axis=0, unsafe=True)
        return output.masked_fill_((ptr.diff() == 0).view(-1, 1), 0).view(shape)
    index = row_segments(index, ptr, rows.shape[0])
    targets, how = index.view(-1, 1).expand_as(rows), "amax" if largest else "amin"
    if rows.shape[1] >= _WIDE:
        output = rows.new_zeros((num_segments, rows.shape[1]))
        return output.scatter_reduce_(0, targets, rows, how, include_self=False).view(shape)
    # include_self=False costs as much as the reduction itself on the element-wise path
    if rows.is_floating_point():
        neutral: float = -torch.inf if largest else torch.inf
    else:
        neutral = torch.iinfo(rows.dtype).min if largest else torch.iinfo(rows.dtype).max
    output = rows.new_full((num_segments, rows.shape[1]), neutral).scatter_reduce_(0, targets, rows, how)
    empty = torch.ones(num_segments, dtype=torch.bool, device=rows.device).index_fill_(0, index, False)
    return output.masked_fill_(empty.view(-1, 1), 0).view(shape)


def _tied(values: Tensor, output: Tensor, index: Tensor | None, ptr: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mark the entries that equal the extremum of their segment, 1 or 0, and count them in each segment."""
    # in place: for wide rows fresh memory costs more than the arithmetic
    mask = output.index_select(0, row_segments(index, ptr, values.shape[0])).eq_(values)
    return mask, native_sum(mask, index, ptr, output.shape[0]).clamp_(min=1)


class _Extremum(Function):
    """Largest or smallest entry of each segment; tied entries share the gradient equally."""

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, index: Tensor | None, ptr: Tensor | None, num_segments: int, largest: bool
    ) -> Tensor:
        output = reduce_extremum(values, index, ptr, num_segments, largest)
        ctx.save_for_backward(values, output, index, ptr)
        ctx.largest = largest
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        inputs = (gradients[0], *ctx.saved_tensors, ctx.largest)
        # inside backward gradients are only tracked with create_graph=True
        compute = _ExtremumGradient.apply if _tracked(gradients[0]) else _extremum_gradient
        return compute(*inputs), None, None, None, None


def _extremum_gradient(
    gradient: Tensor, values: Tensor, output: Tensor, index: Tensor | None, ptr: Tensor | None, largest: bool
) -> Tensor:
    if ptr is not None and _by_segment_reduce(values, ptr) and values.device.type == "cpu":
        # no index, half of the time of the mask; autograd of segment_reduce, which calls this, could not be
        # differentiated twice and leaves negative gradients of tied entries undivided, so each sign goes by itself
        rows, extrema, rows_gradient = _rows(values.detach()).contiguous(), _rows(output.detach()), _rows(gradient)
        shares = [
            torch.ops.aten._segment_reduce_backward(
                part, extrema, rows, "max" if largest else "min", offsets=ptr, axis=0
            )
            for part in (rows_gradient.clamp(min=0), rows_gradient.neg().clamp_(min=0))
        ]
        return shares[0].sub_(shares[1]).view(values.shape)
    mask, count = _tied(values.detach(), output.detach(), index, ptr)
    share, index = gradient / count, row_segments(index, ptr, values.shape[0])
    in_blocks = values.device.type == "cpu" and not torch.compiler.is_compiling()
    step = max(1, _BLOCK * values.shape[0] // max(1, values.numel())) if in_blocks else max(1, values.shape[0])
    for start in range(0, values.shape[0], step):
        mask[start : start + step].mul_(share.index_select(0, index[start : start + step]))
    return mask


class _ExtremumGradient(Function):
    """Gradient of :class:`_Extremum`: linear in the incoming gradient, constant in the values."""

    @staticmethod
    def forward(
        ctx: Any,
        gradient: Tensor,
        values: Tensor,
        output: Tensor,
        index: Tensor | None,
        ptr: Tensor | None,
        largest: bool,
    ) -> Tensor:
        ctx.save_for_backward(values, output, index, ptr)
        return _extremum_gradient(gradient, values, output, index, ptr, largest)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        values, output, index, ptr = ctx.saved_tensors
        mask, count = _tied(values.detach(), output.detach(), index, ptr)
        second = native_sum(gradients[0] * mask, index, ptr, output.shape[0]) / count
        return second, None, None, None, None, None


def native_extremum(
    values: Tensor, index: Tensor | None, ptr: Tensor | None, num_segments: int, largest: bool
) -> Tensor:
    """Return the largest or smallest entry of each segment, 0 for an empty one."""
    if not _by_segment_reduce(values, ptr):
        index = row_segments(index, ptr, values.shape[0])  # once for the extremum and its gradient
    if _tracked(values):
        return _Extremum.apply(values, index, ptr, num_segments, largest)
    return reduce_extremum(values, index, ptr, num_segments, largest)


def native_argmax(values: Tensor, index: Tensor | None, ptr: Tensor | None, num_segments: int) -> Tensor:
    """Return the lowest row that holds the maximum of its segment, N for an empty one."""
    rows, num_values, shape = _rows(values), values.shape[0], (num_segments, *values.shape[1:])
    missing = torch.full((), num_values, dtype=torch.int64, device=values.device)
    if rows.numel() == 0:
        return missing.repeat(shape)
    # embedding_bag notes the winners while it reduces, but passes over NaN; a sum tells that there is none without
    # memory of its own, and asking for it waits for the device; sorting does not pay for few columns
    by_bag = rows.device.type == "cpu" and rows.is_floating_point() and (ptr is not None or rows.shape[1] >= _WIDE)
    if by_bag and math.isfinite(rows.sum()):
        count = count_rows(index, ptr, num_segments)
        if ptr is None:
            order = torch.argsort(row_segments(index, ptr, num_values), stable=True)
            ptr = torch.cat([count.new_zeros(1), count.cumsum(0)])
        else:
            order = torch.arange(num_values)
        _, winners = _embedding_bag(rows, order, ptr, _BAG_MAX)
        return winners.masked_fill_((count == 0).view(-1, 1), num_values).view(shape)
    index = row_segments(index, ptr, num_values)
    highest = reduce_extremum(rows, index, ptr, num_segments, True).index_select(0, index)
    hit = (rows == highest) | (rows != rows)  # with a NaN in the segment only NaN is hit
    positions = torch.where(hit, torch.arange(num_values, device=rows.device).view(-1, 1), missing)
    lowest = missing.repeat((num_segments, rows.shape[1]))
    return lowest.scatter_reduce_(0, index.view(-1, 1).expand_as(rows), positions, "amin").view(shape)
