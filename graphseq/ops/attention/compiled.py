"""Compiled loops of attention over neighbours: forward and backward pass over the rows, on the CPU.

Arguments are C-contiguous arrays of one type, float32 or float64; times are float64.
"""

import math
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function

from graphseq.ops.attention.fused import refuse_second_derivative
from graphseq.ops.processor import arrays, compile_loop, inline_loop
from graphseq.ops.time_encoding.compiled import TURN, encode_row

__all__: list[str] = []

_ZERO = np.float32(0)


class _CompiledAttention(Function):
    """Forward and backward pass of all rows, whether or not rows share a lookup."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        z: Tensor,
        neighbor: Tensor,
        dt: Tensor,
        msg: Tensor,
        mask: Tensor,
        time_weight: Tensor,
        time_bias: Tensor,
        dropout_mask: Tensor | None,
        later: Tensor | None,
        slot: Tensor | None,
    ) -> Tensor:
        query = query.transpose(0, 1)  # (H, R, F): products by head make it and take it so
        (heads, roots, width), places = query.shape, neighbor.shape[1]
        lookup, moment, keep = torch.arange(roots), torch.zeros(roots, dtype=torch.float64), dropout_mask
        if later is not None and slot is not None:
            lookup, moment = slot // later.shape[1], later.flatten().index_select(0, slot).double()  # (S,)
            keep = None if keep is None else keep.reshape(-1, heads, places).index_select(0, slot)
        if keep is None:
            keep = query.new_ones(len(lookup), heads, places)
        sums = torch.empty(heads, len(lookup), width + 1, dtype=query.dtype)
        share, kept = (torch.empty(keep.shape, dtype=query.dtype) for _ in range(2))
        inputs = (query, z, neighbor, dt.double(), msg, mask, moment, lookup)
        time, results = (time_weight, time_bias), (sums, share, kept)
        _attend(*arrays(*inputs, keep, *time, *results))
        ctx.save_for_backward(*inputs, *time, share, kept)
        return sums.transpose(0, 1)  # (S, H, F + 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        query, z, *_, time_weight, _, _, _ = ctx.saved_tensors
        # of their own strides: loops write to contiguous memory
        to_query, to_z = (torch.zeros(x.shape, dtype=x.dtype) for x in (query, z))
        to_time = torch.zeros(2, len(time_weight), dtype=torch.float64)
        results = (to_query, to_z, *to_time)
        _attend_backward(*arrays(gradients[0].transpose(0, 1), *ctx.saved_tensors, *results))
        to_weight, to_bias = to_time.to(time_weight.dtype)
        return to_query.transpose(0, 1), to_z, None, None, None, None, to_weight, to_bias, None, None, None


def neighbor_attention(
    query: Tensor,
    z: Tensor,
    neighbor: Tensor,
    dt: Tensor,
    msg: Tensor,
    mask: Tensor,
    time_weight: Tensor,
    time_bias: Tensor,
    dropout_mask: Tensor | None,
    later: Tensor | None,
    slot: Tensor | None,
) -> Tensor:
    """Return the weighted sums of :func:`graphseq.ops.neighbor_attention`."""
    time = (time_weight, time_bias)
    return cast(Tensor, _CompiledAttention.apply(query, z, neighbor, dt, msg, mask, *time, dropout_mask, later, slot))


@inline_loop
def _dot(a, b):  # type: ignore[no-untyped-def]
    total = _ZERO
    for i in range(a.shape[0]):
        total += a[i] * b[i]
    return total


@inline_loop
def _add(factor, x, y):  # type: ignore[no-untyped-def]
    for i in range(x.shape[0]):
        y[i] += factor * x[i]


@inline_loop
def _add_two(factor, x, other, y, target):  # type: ignore[no-untyped-def]
    """Add multiples of the first entries of two rows."""
    for i in range(target.shape[0]):
        target[i] += factor * x[i] + other * y[i]


@compile_loop
def _attend(query, z, neighbor, elapsed, msg, mask, later, lookup, dropout, weight, bias, sums, share, kept):  # type: ignore[no-untyped-def]
    """Write the weighted sums, heads first, and the softmax before and after dropout.

    Args:
        query: queries (H, R, F).
        z: memories (U, D).
        neighbor: row of ``z`` of each neighbour, int64 (R, K).
        elapsed: time between root and event, float64 (R, K).
        msg: event features (R, K, D_e).
        mask: whether there is such a neighbour, bool (R, K).
        later: time added to ``elapsed`` for each row, float64 (S,).
        lookup: root whose query and neighbours each row uses, int64 (S,).
        dropout: factor of the softmax (S, H, K).
        weight: frequencies (T,).
        bias: phases (T,).
        sums: weighted sums, written (H, S, F + 1).
        share: softmax, written, zeros where there is no neighbour (S, H, K).
        kept: softmax times dropout, written (S, H, K).

    Example:
        >>> one, sums, share = np.ones((1, 1)), np.empty((1, 1, 4)), np.empty((1, 1, 1))
        >>> z, times, row = np.array([[3.0, 5.0]]), np.zeros((1, 1)), np.zeros(1, np.int64)
        >>> _attend(np.ones((1, 1, 3)), z, row[None], times, np.empty((1, 1, 0)), one > 0, times[0], row, one[None],
        ...     one[0], times[0], sums, share, share.copy())
        >>> sums
        array([[[3., 5., 1., 1.]]])
    """
    heads, width = query.shape[0], query.shape[2]
    places, dim, channels = neighbor.shape[1], z.shape[1], msg.shape[2]
    frequency, phase = weight.astype(np.float64) / TURN, bias.astype(np.float64) / TURN
    turns, sine = np.empty_like(weight), np.empty_like(weight)
    keys = np.empty((places, width), query.dtype)
    for row in range(lookup.shape[0]):
        root = lookup[row]
        if root < 0 or root >= query.shape[1]:
            raise IndexError("slot names a lookup that is not there")
        for k in range(places):
            if mask[root, k]:
                if neighbor[root, k] < 0 or neighbor[root, k] >= z.shape[0]:
                    raise IndexError("neighbor names a row that z does not have")
                keys[k, :dim] = z[neighbor[root, k]]
                keys[k, dim : dim + channels] = msg[root, k]
                encode_row(elapsed[root, k] + later[row], frequency, phase, turns, keys[k, dim + channels :], sine)
        for h in range(heads):
            highest = -np.inf
            for k in range(places):
                if mask[root, k]:
                    share[row, h, k] = _dot(query[h, root], keys[k])
                    highest = max(highest, share[row, h, k])
            total = _ZERO
            for k in range(places):
                if mask[root, k]:
                    share[row, h, k] = math.exp(share[row, h, k] - highest)
                    total += share[row, h, k]
                else:
                    share[row, h, k] = 0
            sums[h, row, :] = 0
            for k in range(places):
                kept[row, h, k] = 0
                if mask[root, k]:
                    share[row, h, k] /= total
                    kept[row, h, k] = share[row, h, k] * dropout[row, h, k]
                    _add(kept[row, h, k], keys[k], sums[h, row, :width])
                    sums[h, row, width] += kept[row, h, k]


@compile_loop
def _attend_backward(  # type: ignore[no-untyped-def]
    gradient, query, z, neighbor, elapsed, msg, mask, later, lookup, weight, bias, share, kept,
    to_query, to_z, to_weight, to_bias,
):  # fmt: skip
    """Add the gradients of queries, memories, frequencies and phases, from the gradient of the sums.

    Args:
        gradient: gradient of the sums (H, S, F + 1).
        query: queries (H, R, F).
        z: memories (U, D).
        neighbor: row of ``z`` of each neighbour, int64 (R, K).
        elapsed: time between root and event, float64 (R, K).
        msg: event features (R, K, D_e).
        mask: whether there is such a neighbour, bool (R, K).
        later: time added to ``elapsed`` for each row, float64 (S,).
        lookup: root whose query and neighbours each row uses, int64 (S,).
        weight: frequencies (T,).
        bias: phases (T,).
        share: softmax that :func:`_attend` wrote (S, H, K).
        kept: softmax times dropout that :func:`_attend` wrote (S, H, K).
        to_query: gradient of the queries, added to (H, R, F).
        to_z: gradient of the memories, added to (U, D).
        to_weight: gradient of the frequencies, float64, added to (T,).
        to_bias: gradient of the phases, float64, added to (T,).

    Example:
        >>> one, row, times = np.ones((1, 1, 1)), np.zeros(1, np.int64), np.zeros((1, 1))
        >>> to_query, to_z, to_time = np.zeros((1, 1, 2)), np.zeros((1, 1)), np.zeros(1)
        >>> _attend_backward(np.ones((1, 1, 3)), np.ones((1, 1, 2)), one[0], row[None], times, np.empty((1, 1, 0)),
        ...     one[0] > 0, times[0], row, one[0, 0], times[0], one, one, to_query, to_z, to_time, to_time)
        >>> to_z
        array([[1.]])
    """
    heads, width = query.shape[0], query.shape[2]
    places, dim, channels = neighbor.shape[1], z.shape[1], msg.shape[2]
    before = dim + channels
    frequency, phase = weight.astype(np.float64) / TURN, bias.astype(np.float64) / TURN
    turns, slope = np.empty_like(weight), np.empty_like(weight)
    of_weight, of_bias = np.empty_like(weight), np.empty_like(weight)  # of one row: short sums in the short type
    moment = np.empty(1, weight.dtype)
    keys, sine = np.empty((places, width), query.dtype), np.empty((places, weight.shape[0]), query.dtype)
    to_logit = np.empty((heads, places), query.dtype)
    for row in range(lookup.shape[0]):
        root = lookup[row]
        for k in range(places):
            if mask[root, k]:
                keys[k, :dim] = z[neighbor[root, k]]
                keys[k, dim:before] = msg[root, k]
                encode_row(elapsed[root, k] + later[row], frequency, phase, turns, keys[k, before:], sine[k])
        for h in range(heads):
            total = _ZERO
            for k in range(places):
                if mask[root, k]:
                    to_kept = gradient[h, row, width] + _dot(gradient[h, row, :width], keys[k])
                    to_logit[h, k] = to_kept * kept[row, h, k]
                    total += to_logit[h, k]
            for k in range(places):
                if mask[root, k]:
                    to_logit[h, k] -= share[row, h, k] * total
                    _add(to_logit[h, k], keys[k], to_query[h, root])
        of_weight[:], of_bias[:] = 0, 0
        for k in range(places):
            if mask[root, k]:
                # a neighbour is reached as a key and as a value
                target, slope[:] = to_z[neighbor[root, k]], 0
                for h in range(heads):
                    as_value, as_key = kept[row, h, k], to_logit[h, k]
                    _add_two(as_value, gradient[h, row], as_key, query[h, root], target)
                    _add_two(as_value, gradient[h, row, before:], as_key, query[h, root, before:], slope)
                moment[0] = elapsed[root, k] + later[row]
                dt = moment[0]
                for i in range(slope.shape[0]):
                    part = slope[i] * sine[k, i]
                    of_weight[i] += part * dt
                    of_bias[i] += part
        for i in range(slope.shape[0]):
            to_weight[i] -= of_weight[i]
            to_bias[i] -= of_bias[i]
