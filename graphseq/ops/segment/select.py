"""Selection of whole segments, and choice of rows in each segment: one at random, or those with the smallest values."""

import torch
from torch import Generator, Tensor
from torch.nn import functional

from graphseq.ops.segment.index import row_segments
from graphseq.ops.segment.reduce import segment_argmax

__all__ = ["segment_rows", "segment_sample", "segment_smallest"]


def segment_rows(ptr: Tensor, chosen: Tensor, num_rows: int | None = None) -> tuple[Tensor, Tensor]:
    """Return the rows of some segments, one segment after the other, and their new boundaries.

    Args:
        ptr: boundaries of rows sorted by segment, int64, from 0, never decreasing.
        chosen: numbers of segments in 0..G-1, in any order, also repeatedly.
        num_rows: number of rows of the chosen segments together; None to count them, which synchronises on an
            accelerator.

    Returns:
        Rows to gather, and where each chosen segment begins among them.

    Shape:
        ptr (G+1,), chosen (K,) -> (R,), (K+1,)

    Raises:
        TypeError: if ``ptr`` or ``chosen`` is not int64.

    Example:
        >>> segment_rows(torch.tensor([0, 2, 3, 6]), torch.tensor([2, 0]))
        (tensor([3, 4, 5, 0, 1]), tensor([0, 3, 5]))
    """
    for name, value in (("ptr", ptr), ("chosen", chosen)):
        if value.dtype != torch.int64:
            raise TypeError(f"{name} is {value.dtype}; an int64 tensor is needed: convert it with .long()")
    first = ptr[chosen]
    bounds = functional.pad((ptr[chosen + 1] - first).cumsum(0), (1, 0))
    count = int(bounds[-1]) if num_rows is None else num_rows
    shift = (first - bounds[:-1]).repeat_interleave(bounds.diff(), output_size=count)
    return torch.arange(count, device=ptr.device) + shift, bounds


def segment_sample(log_weights: Tensor, ptr: Tensor, generator: Generator | None = None) -> Tensor:
    r"""Draw one row of each segment, with probability proportional to the exponential of its log-weight.

    .. math:: y_g = \operatorname{arg\,max}_{i \in g} (x_i - \log e_i), \qquad e_i \sim \mathrm{Exp}(1)

    The log-weights need not be normalised (Gumbel-max). An empty segment gives N, one past the last row. There is no
    synchronisation on an accelerator.

    Args:
        log_weights: logarithm of the weight of each row, of a floating type.
        ptr: boundaries of rows sorted by segment, int64, from 0 to N, never decreasing.
        generator: random number generator of the device of ``log_weights``; None for torch's own.

    Shape:
        log_weights (N,), ptr (G+1,) -> int64 (G,)

    Raises:
        TypeError: if ``log_weights`` is not of a floating type.
        ValueError: if ``ptr`` does not fit.

    Example:
        >>> segment_sample(torch.tensor([0.0, -torch.inf, -torch.inf, 0.0]), torch.tensor([0, 2, 4]))
        tensor([0, 3])
    """
    if not log_weights.is_floating_point():
        raise TypeError(f"log_weights is {log_weights.dtype}; a floating type is needed: convert it with .float()")
    noise = torch.empty_like(log_weights).exponential_(generator=generator)
    # a draw that rounds to 0 would beat every weight, and make NaN of the logarithm of 0
    noise = noise.clamp_(min=torch.finfo(noise.dtype).tiny).log_()
    return segment_argmax(log_weights - noise, ptr=ptr)


def segment_smallest(values: Tensor, counts: Tensor, ptr: Tensor) -> Tensor:
    """Mark the rows of each segment with the smallest values; of equal ones the first.

    With random values it is a choice without replacement. There is no synchronisation on an accelerator.

    Args:
        values: value of each row.
        counts: number of rows to mark in each segment; all rows of a segment that has fewer.
        ptr: boundaries of rows sorted by segment, int64, from 0 to N, never decreasing.

    Shape:
        values (N,), counts (G,), ptr (G+1,) -> bool (N,)

    Raises:
        ValueError: if ``values`` or ``counts`` does not fit ``ptr``.

    Example:
        >>> segment_smallest(torch.tensor([3.0, 1.0, 2.0, 5.0]), torch.tensor([2, 1]), torch.tensor([0, 3, 4]))
        tensor([False,  True,  True,  True])
    """
    if values.dim() != 1 or counts.shape != (len(ptr) - 1,):
        raise ValueError(
            f"values are {tuple(values.shape)} and counts {tuple(counts.shape)}; for {len(ptr) - 1} segments (N,) and "
            f"({len(ptr) - 1},) are needed"
        )
    segment = row_segments(None, ptr, len(values))
    order = values.argsort(stable=True)
    order = order[segment[order].argsort(stable=True)]  # sorted by segment, and by value within it
    rank = torch.arange(len(values), device=ptr.device) - ptr[segment]
    return torch.empty_like(segment, dtype=torch.bool).scatter_(0, order, rank < counts[segment])
