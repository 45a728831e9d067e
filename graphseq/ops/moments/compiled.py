"""Compiled loops of the moments of PRES: Eq. 7 and Eq. 9 of ``plain``, one pass over the nodes."""

import torch
from torch import Tensor

from graphseq.ops.moments.plain import RunningSums
from graphseq.ops.processor import arrays, compile_loop

__all__: list[str] = []


def _check_range(nodes: Tensor, sums: RunningSums) -> None:
    """Refuse ids without a row: loops do not look, and would read and write memory of others."""
    if len(nodes):
        low, high = (int(bound) for bound in nodes.aminmax())
        if low < 0 or high >= len(sums.updates):
            raise IndexError(f"node ids run from {low} to {high}; there are sums of {len(sums.updates)} nodes, from 0")


def extrapolate(
    nodes: Tensor, previous: Tensor, step: Tensor, type_counts: Tensor | None, sums: RunningSums
) -> tuple[Tensor, Tensor]:
    """Return extrapolated memories and which nodes were tracked, see :func:`graphseq.ops.moments.plain.extrapolate`."""
    _check_range(nodes, sums)
    predicted = torch.empty(previous.shape, dtype=previous.dtype)
    known = torch.empty(len(nodes), dtype=torch.bool)
    types = sums.updates[:0] if type_counts is None else type_counts.to(sums.updates.dtype)
    _extrapolate(*arrays(nodes, previous, step, types, sums.updates, sums.weight, sums.rate, predicted, known))
    return predicted, known


def track(
    nodes: Tensor,
    previous: Tensor,
    corrected: Tensor,
    pending: Tensor,
    step: Tensor,
    share: Tensor,
    sums: RunningSums,
    *,
    by_step: bool,
    decay: float,
) -> None:
    """Add observed changes to the running sums, see :func:`graphseq.ops.moments.plain.track`."""
    _check_range(nodes, sums)
    square = sums.rate[:0] if sums.square is None else sums.square
    given = arrays(nodes, previous, corrected, pending, step, share)
    _track(*given, by_step, decay, *arrays(sums.updates, sums.weight, sums.rate, square))


@compile_loop
def _extrapolate(nodes, previous, step, type_counts, count, weight_sum, rate_sum, predicted, known):  # type: ignore[no-untyped-def]
    """Write the extrapolated memories (Eq. 7), and which nodes there was anything to extrapolate from.

    Args:
        nodes: node ids, int64 (U,).
        previous: memories before the update (U, D).
        step: length of the step of each node (U,).
        type_counts: pending events of each type (U, C), or (0, C) to weigh types by how often they occurred.
        count: number of updates of each component (N, C).
        weight_sum: sum of weights (N, C).
        rate_sum: weighted sum of rates (N, C, D).
        predicted: extrapolated memories, written (U, D).
        known: whether any component was tracked, written, bool (U,).
    """
    for row in range(nodes.shape[0]):
        node = nodes[row]
        total = count[node, 0] * 0
        for kind in range(count.shape[1]):
            if count[node, kind] > 0:
                total += type_counts[row, kind] if type_counts.shape[0] else count[node, kind]
        known[row] = total > 0
        predicted[row] = previous[row]
        for kind in range(count.shape[1]):
            if count[node, kind] > 0 and total > 0:
                share = type_counts[row, kind] if type_counts.shape[0] else count[node, kind]
                factor = share / total * step[row] / weight_sum[node, kind]
                for i in range(previous.shape[1]):
                    predicted[row, i] += factor * rate_sum[node, kind, i]


@compile_loop
def _track(  # type: ignore[no-untyped-def]
    nodes, previous, corrected, pending, step, share, by_step, decay, count, weight_sum, rate_sum, square_sum
):  # fmt: skip
    """Add the observed changes of the nodes with pending events to their running sums (Eq. 9).

    Args:
        nodes: node ids, int64 (U,).
        previous: memories before the update (U, D).
        corrected: memories after the update (U, D).
        pending: whether a node has pending events, bool (U,).
        step: length of the step of each node, above 0 (U,).
        share: part of each component in the update (U, C).
        by_step: whether an update weighs as much as its step is long.
        decay: factor of the sums so far.
        count: number of updates, added to (N, C).
        weight_sum: sum of weights, added to (N, C).
        rate_sum: weighted sum of rates, added to (N, C, D).
        square_sum: weighted sum of squared rates, added to (N, C, D), or (0, C, D) for none.
    """
    for row in range(nodes.shape[0]):
        if not pending[row]:
            continue
        node = nodes[row]
        for kind in range(count.shape[1]):
            weight = share[row, kind] * (step[row] if by_step else share[row, kind] * 0 + 1)
            factor = weight / step[row]
            count[node, kind] = decay * count[node, kind] + share[row, kind]
            weight_sum[node, kind] = decay * weight_sum[node, kind] + weight
            for i in range(previous.shape[1]):
                change = corrected[row, i] - previous[row, i]
                rate_sum[node, kind, i] = decay * rate_sum[node, kind, i] + factor * change
            if square_sum.shape[0]:
                for i in range(previous.shape[1]):
                    change = corrected[row, i] - previous[row, i]
                    square_sum[node, kind, i] = decay * square_sum[node, kind, i] + factor / step[row] * change * change
