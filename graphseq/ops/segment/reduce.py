"""Reductions over segments of rows, such as the nodes of each graph: sum, mean, extrema, argmax.

Rows sorted by segment are described by ``ptr``, the first row of each segment and, last, the number of rows; rows in
any order by ``index``, the segment of each row. With ``ptr``, or with ``index`` and ``num_segments``, no function
waits for an accelerator. Wrong contents of ``index`` and ``ptr`` are a ``ValueError`` on the CPU; on CUDA an assertion
on the device reports them at the next synchronisation, without one of its own.

Determinism: on the CPU everything is, for one number of threads and another. On CUDA everything given by ``ptr`` is,
gradients included, by the operations it is made of (not run on a GPU yet); sums, means and softmax given by ``index``
add with atomics in changing order.
"""

import torch
from torch import Tensor

from graphseq.ops.segment.backends import reduce_segments
from graphseq.ops.segment.index import check_segments, count_rows

__all__ = ["segment_argmax", "segment_max", "segment_mean", "segment_min", "segment_sum"]


def segment_sum(
    values: Tensor, index: Tensor | None = None, *, ptr: Tensor | None = None, num_segments: int | None = None
) -> Tensor:
    r"""Sum the rows of each segment; an empty segment gives 0.

    .. math:: y_g = \sum_{i:\, \mathrm{index}_i = g} x_i

    float16 and bfloat16 are accumulated in float32. Integers keep their type and wrap around.

    Args:
        values: rows to be reduced, of a floating or an integer type.
        index: segment of each row, int64 in 0..G-1, in any order.
        ptr: boundaries of rows sorted by segment, in place of ``index``, int64, from 0 to N, never decreasing.
        num_segments: number of segments G; None to take it from ``ptr``, or as the largest index plus one, which
            synchronises on an accelerator.

    Shape:
        values (N, \*), index (N,) or ptr (G+1,) -> (G, \*)

    Raises:
        TypeError: if a type is not accepted.
        ValueError: if shapes, devices or contents do not fit, or not exactly one of index and ptr is given.

    Example:
        >>> segment_sum(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([2, 0, 2]))
        tensor([2., 0., 5.])
        >>> segment_sum(torch.tensor([1.0, 2.0, 4.0]), ptr=torch.tensor([0, 1, 3]))
        tensor([1., 6.])
    """
    return reduce_segments("sum", values, index, ptr, check_segments(values, index, ptr, num_segments))


def segment_mean(
    values: Tensor, index: Tensor | None = None, *, ptr: Tensor | None = None, num_segments: int | None = None
) -> Tensor:
    r"""Average the rows of each segment; an empty segment gives 0.

    .. math:: y_g = \frac{1}{\max(1, |\{i: \mathrm{index}_i = g\}|)} \sum_{i:\, \mathrm{index}_i = g} x_i

    Args:
        values: rows to be reduced, of a floating type.
        index: segment of each row, int64 in 0..G-1, in any order.
        ptr: boundaries of rows sorted by segment, in place of ``index``, int64, from 0 to N, never decreasing.
        num_segments: number of segments G; None to take it from ``ptr``, or as the largest index plus one, which
            synchronises on an accelerator.

    Shape:
        values (N, \*), index (N,) or ptr (G+1,) -> (G, \*)

    Raises:
        TypeError: if a type is not accepted.
        ValueError: if shapes, devices or contents do not fit, or not exactly one of index and ptr is given.

    Example:
        >>> segment_mean(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([2, 0, 2]))
        tensor([2.0000, 0.0000, 2.5000])
    """
    num_segments = check_segments(values, index, ptr, num_segments, floating=True)
    # float16 would overflow in a sum whose mean it holds
    wide = values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
    count = count_rows(index, ptr, num_segments).clamp(min=1).view(-1, *[1] * (values.dim() - 1))
    return (reduce_segments("sum", wide, index, ptr, num_segments) / count).to(values.dtype)


def segment_max(
    values: Tensor, index: Tensor | None = None, *, ptr: Tensor | None = None, num_segments: int | None = None
) -> Tensor:
    r"""Take the largest entry of each segment and column; an empty segment gives 0.

    .. math:: y_g = \max_{i:\, \mathrm{index}_i = g} x_i

    Where :func:`segment_argmax` is N the segment is empty. As in ``torch.amax``, NaN wins and entries that tie
    share the gradient equally, so gradients do not depend on the order of the rows.

    Args:
        values: rows to be reduced, of a floating or an integer type.
        index: segment of each row, int64 in 0..G-1, in any order.
        ptr: boundaries of rows sorted by segment, in place of ``index``, int64, from 0 to N, never decreasing.
        num_segments: number of segments G; None to take it from ``ptr``, or as the largest index plus one, which
            synchronises on an accelerator.

    Shape:
        values (N, \*), index (N,) or ptr (G+1,) -> (G, \*)

    Raises:
        TypeError: if a type is not accepted.
        ValueError: if shapes, devices or contents do not fit, or not exactly one of index and ptr is given.

    Example:
        >>> segment_max(torch.tensor([-1.0, -2.0, -4.0]), torch.tensor([2, 0, 2]))
        tensor([-2.,  0., -1.])
    """
    return reduce_segments("max", values, index, ptr, check_segments(values, index, ptr, num_segments))


def segment_min(
    values: Tensor, index: Tensor | None = None, *, ptr: Tensor | None = None, num_segments: int | None = None
) -> Tensor:
    r"""Take the smallest entry of each segment and column; an empty segment gives 0.

    .. math:: y_g = \min_{i:\, \mathrm{index}_i = g} x_i

    NaN, ties and empty segments are treated as in :func:`segment_max`.

    Args:
        values: rows to be reduced, of a floating or an integer type.
        index: segment of each row, int64 in 0..G-1, in any order.
        ptr: boundaries of rows sorted by segment, in place of ``index``, int64, from 0 to N, never decreasing.
        num_segments: number of segments G; None to take it from ``ptr``, or as the largest index plus one, which
            synchronises on an accelerator.

    Shape:
        values (N, \*), index (N,) or ptr (G+1,) -> (G, \*)

    Raises:
        TypeError: if a type is not accepted.
        ValueError: if shapes, devices or contents do not fit, or not exactly one of index and ptr is given.

    Example:
        >>> segment_min(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([2, 0, 2]))
        tensor([2., 0., 1.])
    """
    return reduce_segments("min", values, index, ptr, check_segments(values, index, ptr, num_segments))


def segment_argmax(
    values: Tensor, index: Tensor | None = None, *, ptr: Tensor | None = None, num_segments: int | None = None
) -> Tensor:
    r"""Return the row that holds the largest entry of each segment and column, the lowest one of several.

    .. math:: y_g = \min\, \operatorname{arg\,max}_{i:\, \mathrm{index}_i = g} x_i

    An empty segment gives N, one past the last row: no row can be taken for the winner by mistake, as -1 would
    take the last. The first NaN of a segment wins. There is no gradient.

    Args:
        values: rows to be reduced, of a floating or an integer type.
        index: segment of each row, int64 in 0..G-1, in any order.
        ptr: boundaries of rows sorted by segment, in place of ``index``, int64, from 0 to N, never decreasing.
        num_segments: number of segments G; None to take it from ``ptr``, or as the largest index plus one, which
            synchronises on an accelerator.

    Shape:
        values (N, \*), index (N,) or ptr (G+1,) -> int64 (G, \*)

    Raises:
        TypeError: if a type is not accepted.
        ValueError: if shapes, devices or contents do not fit, or not exactly one of index and ptr is given.

    Example:
        >>> segment_argmax(torch.tensor([1.0, 2.0, 1.0]), torch.tensor([2, 0, 2]))
        tensor([1, 3, 0])
    """
    num_segments = check_segments(values, index, ptr, num_segments)
    return reduce_segments("argmax", values.detach(), index, ptr, num_segments)
