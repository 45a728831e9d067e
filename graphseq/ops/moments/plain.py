r"""How fast the memory of each node moved, as running sums, and where it is expected to go: Eq. 7 and 9 of PRES.

The rate of change of a memory is a mixture with one component for each type of event. With the step :math:`\tau`, the
weight w of an update and the part :math:`a_j` of component j in it:

.. math::
    \text{Eq. 7:}\quad \hat s = s^{prev} + \tau \sum_j \alpha_j\, \mu_j, \qquad
    \text{Eq. 9:}\quad r = \frac{\bar s - s^{prev}}{\tau}, \quad
    n_j \mathrel{+}= a_j, \quad w_j \mathrel{+}= w a_j, \quad
    \xi_j \mathrel{+}= w a_j\, r, \quad \psi_j \mathrel{+}= w a_j\, r^2

.. math:: \mu_j = \xi_j / w_j, \qquad \Sigma_j = \psi_j / w_j - \mu_j^2, \qquad \alpha_j = n_j / \textstyle\sum_l n_l

Source: arXiv 2402.04284, Eq. 7 and 9.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

__all__: list[str] = []


class RunningSums(NamedTuple):
    """Running sums of N nodes and C components, written in place by :func:`track`.

    Args:
        updates: number of updates n (N, C).
        weight: sum of weights w (N, C).
        rate: weighted sum of rates, xi (N, C, D).
        square: weighted sum of squared rates, psi (N, C, D); None where no variance is needed.
    """

    updates: Tensor
    weight: Tensor
    rate: Tensor
    square: Tensor | None


def moments(nodes: Tensor, sums: RunningSums) -> tuple[Tensor, Tensor | None]:
    """Return mean and variance of the rate of each component, 0 where none was observed.

    Args:
        nodes: node ids, int64 (U,).
        sums: running sums.

    Shape:
        (U,) -> mean (U, C, D), variance (U, C, D) or None without squares
    """
    weight = sums.weight[nodes].unsqueeze(-1)  # (U, C, 1)
    weight = weight.masked_fill(weight == 0, 1)
    mean = sums.rate[nodes] / weight  # (U, C, D)
    if sums.square is None:
        return mean, None
    return mean, (sums.square[nodes] / weight - mean.square()).clamp(min=0)  # rounding may take it below 0


def mixture(nodes: Tensor, type_counts: Tensor | None, sums: RunningSums) -> tuple[Tensor, Tensor]:
    """Return the weight of each component in a prediction, and which nodes have a component that was tracked.

    Args:
        nodes: node ids, int64 (U,).
        type_counts: pending events of each type (U, C); None weighs components by how often they occurred.
        sums: running sums.

    Shape:
        (U,), (U, C) -> weights (U, C), which sum to 1 or 0, bool (U,)
    """
    count = sums.updates[nodes]
    share = count if type_counts is None else type_counts.to(count.dtype) * (count > 0)
    total = share.sum(1, keepdim=True)  # (U, 1)
    return share / total.masked_fill(total == 0, 1), total.squeeze(1) > 0


def extrapolate(
    nodes: Tensor, previous: Tensor, step: Tensor, type_counts: Tensor | None, sums: RunningSums
) -> tuple[Tensor, Tensor]:
    """Return the extrapolated memories (Eq. 7), and which nodes there was anything to extrapolate from.

    Args:
        nodes: node ids, int64 (U,).
        previous: memories before the update, a constant (U, D).
        step: length of the step of each node (U,).
        type_counts: pending events of each type (U, C); None weighs components by how often they occurred.
        sums: running sums.

    Shape:
        (U,), (U, D), (U,), (U, C) -> (U, D), bool (U,)
    """
    share, known = mixture(nodes, type_counts, sums)
    weight = sums.weight[nodes]  # (U, C)
    factor = share * step.unsqueeze(-1) / weight.masked_fill(weight == 0, 1)
    # sum_j share_j * step * rate_j / weight_j, read from the table in one pass: no tensor (U, C, D) is made
    components = share.shape[1]
    cells = nodes.unsqueeze(-1) * components + torch.arange(components, device=nodes.device)  # (U, C)
    drift = functional.embedding_bag(cells, sums.rate.flatten(0, 1), per_sample_weights=factor, mode="sum")
    return previous.detach() + drift, known


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
    """Add the observed changes of the nodes with pending events to their running sums (Eq. 9).

    Args:
        nodes: node ids, int64 (U,); a node that stands in it twice is counted twice.
        previous: memories before the update (U, D).
        corrected: memories after the update (U, D).
        pending: whether a node has pending events, bool (U,); others are left alone.
        step: length of the step of each node, above 0 (U,).
        share: part of each component in the update (U, C).
        sums: running sums, written in place.
        by_step: whether an update weighs as much as its step is long; otherwise every update weighs 1.
        decay: factor of the sums of a node at each of its updates, in (0, 1].
    """
    step, share = step.unsqueeze(-1), share * pending.unsqueeze(-1)  # (U, 1), (U, C)
    rate = ((corrected - previous).to(sums.updates.dtype) / step).unsqueeze(1)  # (U, 1, D)
    weight = share * step if by_step else share
    weighted = weight.unsqueeze(-1) * rate  # (U, C, D)
    if decay < 1:
        kept = torch.where(pending, decay, 1.0).to(sums.updates.dtype)
        for running in sums:
            if running is not None:
                rows = running.index_select(0, nodes)
                running.index_copy_(0, nodes, rows * kept.view(-1, *[1] * (rows.dim() - 1)))
    sums.updates.index_add_(0, nodes, share)
    sums.weight.index_add_(0, nodes, weight)
    sums.rate.index_add_(0, nodes, weighted)
    if sums.square is not None:
        sums.square.index_add_(0, nodes, weighted * rate)
