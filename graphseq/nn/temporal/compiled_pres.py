"""Compiled loops of PRES: the extrapolated memory, and the running sums of how memories moved."""

from graphseq.ops.processor import compile_loop

__all__: list[str] = []


@compile_loop
def extrapolate(nodes, previous, step, type_counts, count, weight_sum, rate_sum, predicted, known):  # type: ignore[no-untyped-def]
    """Write the memories that are expected, and which nodes there was anything to expect of.

    Args:
        nodes: int64 (U,).
        previous: memories (U, D).
        step: length of the step of each node (U,).
        type_counts: pending events of each type (U, C), or (0, C) to weigh types by how often they occurred.
        count: updates (N, C).
        weight_sum: sum of weights (N, C).
        rate_sum: weighted sum of rates (N, C, D).
        predicted: written (U, D).
        known: written, bool (U,).
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
def track(  # type: ignore[no-untyped-def]
    nodes, previous, corrected, pending, step, share, by_step, decay, count, weight_sum, rate_sum, square_sum
):  # fmt: skip
    """Add what was observed of the nodes with pending events to their running sums.

    Args:
        nodes: int64 (U,).
        previous: memories before the update (U, D).
        corrected: memories after it (U, D).
        pending: bool (U,).
        step: length of the step of each node, above 0 (U,).
        share: part of each type in the update (U, C).
        by_step: whether an update weighs as much as its step is long.
        decay: factor of the sums before.
        count: added to (N, C).
        weight_sum: added to (N, C).
        rate_sum: added to (N, C, D).
        square_sum: added to (N, C, D), or (0, C, D) for none.
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
