"""Dependence between events of a batch: pending events, and the coherence of gradients at stale memories."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

__all__ = ["PendingStatistics", "memory_coherence", "num_pending_events", "pending_statistics"]


def _num_earlier(keys: list[Tensor], order: Tensor) -> Tensor:
    """Return for each entry the number of entries of equal ``keys`` whose ``order`` is strictly smaller."""
    position = torch.arange(len(order), device=order.device)
    ranked = position
    for column in (order, *keys):  # stable sorts, the least significant first
        ranked = ranked[torch.argsort(column[ranked], stable=True)]

    def first_alike(columns: list[Tensor]) -> Tensor:
        new = torch.zeros(len(order), dtype=torch.bool, device=order.device)
        for column in columns:
            here = column[ranked]
            new[1:] |= here[1:] != here[:-1]
        return torch.where(new, position, 0).cummax(0).values

    earlier = first_alike([*keys, order]) - first_alike(keys)
    return torch.zeros_like(earlier).scatter_(0, ranked, earlier)


def num_pending_events(src: Tensor, dst: Tensor, t: Tensor | None = None) -> Tensor:
    r"""Return for each event of a batch the size of its pending set, the earlier events that share a node with it.

    .. math:: P(e, B) = \{ e' \in B : e' \cap e \neq \emptyset,\; t_{e'} < t_e \}

    An event that shares both nodes counts once. Events of equal time are not pending for each other; without ``t`` the
    position in the batch is the time, and no two are equal. Takes O(B log B); on a GPU without synchronisation.

    Source: arXiv 2402.04284, Definitions 1 and 2. Differs from it: none.

    Args:
        src: source node of each event, integers, with ``dst`` from one range of ids.
        dst: destination node of each event.
        t: time of each event, in any order; None for the position.

    Shape:
        src (B,), dst (B,)[, t (B,)] -> int64 (B,)

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> num_pending_events(torch.tensor([0, 0, 2]), torch.tensor([1, 1, 0]))
        tensor([0, 1, 2])
        >>> num_pending_events(torch.tensor([0, 0, 2]), torch.tensor([1, 1, 0]), torch.tensor([5, 5, 6]))
        tensor([0, 0, 2])
    """
    if src.dim() != 1 or dst.shape != src.shape or (t is not None and t.shape != src.shape):
        raise ValueError(
            f"src is {tuple(src.shape)}, dst {tuple(dst.shape)}, t {None if t is None else tuple(t.shape)}; all must "
            "be (B,)"
        )
    order = torch.arange(len(src), device=src.device) if t is None else t
    other = dst != src  # a self-loop touches its node once
    second = torch.where(other, dst, -1)  # node ids are not negative, so -1 is a node of its own
    of_node = _num_earlier([torch.cat([src, second])], order.repeat(2))
    of_pair = _num_earlier([torch.minimum(src, dst), torch.maximum(src, dst)], order)
    at_source, at_destination = of_node.view(2, len(src))
    return at_source + other * (at_destination - of_pair)


def pending_statistics(src: Tensor, dst: Tensor, t: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the share of events with a pending set that is not empty, and the mean size of the pending sets.

    Both are 0 for a batch of one event and grow with the batch: they measure how many
    earlier events the prediction of an event does not take into account. See :func:`num_pending_events` for the
    definition.

    Args:
        src: source node of each event, integers.
        dst: destination node of each event.
        t: time of each event, in any order; None for the position.

    Shape:
        src (B,), dst (B,)[, t (B,)] -> scalar in [0, 1], scalar in [0, B)

    Raises:
        ValueError: if the shapes differ or there is no event.

    Example:
        >>> pending_statistics(torch.tensor([0, 0, 2, 4]), torch.tensor([1, 1, 0, 5]))
        (tensor(0.5000), tensor(0.7500))
    """
    if len(src) == 0:
        raise ValueError("pending_statistics was given no event; a mean needs at least one")
    pending = num_pending_events(src, dst, t)
    return (pending > 0).float().mean(), pending.float().mean()


class PendingStatistics(Metric):
    """Pending statistics over the batches of an epoch; reduction over processes: sums over events.

    ``compute`` returns ``pending_share``, the share of events with a pending set that is not empty, and
    ``mean_pending``, the mean size of the pending sets; NaN before the first event. The functional twin is
    :func:`pending_statistics`.

    Source: arXiv 2402.04284, Definitions 1 and 2. Differs from it: none.

    Args:
        kwargs: further arguments of ``torchmetrics.Metric``.

    Example:
        >>> metric = PendingStatistics()
        >>> metric.update(torch.tensor([0, 0, 2, 4]), torch.tensor([1, 1, 0, 5]))
        >>> metric.compute()
        {'pending_share': tensor(0.5000), 'mean_pending': tensor(0.7500)}
    """

    full_state_update = False
    is_differentiable = False
    num_with_pending: Tensor
    num_pending: Tensor
    num_events: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in ("num_with_pending", "num_pending", "num_events"):
            self.add_state(name, default=torch.tensor(0), dist_reduce_fx="sum")

    def update(self, src: Tensor, dst: Tensor, t: Tensor | None = None) -> None:
        """Count one batch.

        Args:
            src: source node of each event (B,).
            dst: destination node of each event (B,).
            t: time of each event (B,); None for the position.
        """
        pending = num_pending_events(src, dst, t)
        self.num_with_pending += (pending > 0).sum()
        self.num_pending += pending.sum()
        self.num_events += len(src)

    def compute(self) -> dict[str, Tensor]:
        """Return both numbers by name."""
        return {
            "pending_share": self.num_with_pending / self.num_events,
            "mean_pending": self.num_pending / self.num_events,
        }


def memory_coherence(fresh: Tensor, stale: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""Return the memory coherence of events: the smallest projection of a stale gradient on the fresh one.

    .. math::
        \mu_e = \min_{e' \in P(e, B)}
        \frac{\langle \nabla \ell(e, s^{(e')}),\, \nabla \ell(e, s^{(e)}) \rangle}{\lVert \nabla \ell(e, s^{(e)})
        \rVert^2}

    It is 1 if the pending events do not change the gradient, negative if one of them reverses it, 1 for an event
    without pending events, and NaN for an event whose fresh gradient is zero.

    The gradients are those of the loss of event e with respect to the memories of its two endpoints, laid side by
    side. To get them, roll the memory over the batch one event at a time: s^(e') is the memory just before e', s^(e)
    the one just before e. For each of them give the network a copy of the two rows that requires a gradient, compute
    the loss of e at the time of e, and call ``torch.autograd.grad(loss, rows)``. A sample of events is enough: the
    costs are one forward and backward pass for each pair of an event and a pending one.

    Source: arXiv 2402.04284, Definition 3. Differs from it: the values where it is not defined.

    Args:
        fresh: gradients with every pending event applied; (E, 2, D) and (E, 2 * D) are the same.
        stale: gradients with the memory as of each of P pending events.
        mask: whether there is such a pending event, bool, where events have different numbers of them; None for all.

    Shape:
        fresh (E, *), stale (E, P, *), mask (E, P) -> (E,)

    Raises:
        ValueError: if the shapes do not fit.

    Example:
        >>> rows = torch.tensor([1.0, 2.0], requires_grad=True)  # stands for the fresh memory of both endpoints
        >>> (fresh,) = torch.autograd.grad(rows.square().sum(), rows)
        >>> old = torch.tensor([1.0, 1.0], requires_grad=True)
        >>> (stale,) = torch.autograd.grad(old.square().sum(), old)
        >>> memory_coherence(fresh[None], stale[None, None])
        tensor([0.6000])
    """
    if stale.dim() != fresh.dim() + 1 or fresh.shape != stale.shape[:1] + stale.shape[2:] or fresh.dim() < 2:
        raise ValueError(
            f"fresh gradients are {tuple(fresh.shape)}, stale ones {tuple(stale.shape)}; they must be (E, *) and "
            "(E, P, *) with the same (*)"
        )
    if mask is not None and mask.shape != stale.shape[:2]:
        raise ValueError(f"mask is {tuple(mask.shape)}; it must be {tuple(stale.shape[:2])}, as the stale gradients")
    fresh, stale = fresh.flatten(1), stale.flatten(2)
    kept = stale.matmul(fresh.unsqueeze(-1)).squeeze(-1) / fresh.square().sum(1, keepdim=True)  # (E, P)
    there = torch.ones_like(kept, dtype=torch.bool) if mask is None else mask
    nothing = kept.new_full((len(kept), 1), torch.inf)  # a minimum needs an entry, and P may be 0
    least = torch.cat([kept.masked_fill(~there, torch.inf), nothing], dim=1).amin(1)
    return torch.where(there.any(1), least, 1.0)
