"""Rewiring: the same number of connections is removed and added."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor

__all__ = ["Rewiring", "rewire_mask"]


class Rewiring(NamedTuple):
    """Result of :func:`rewire_mask`: three masks of one shape.

    Args:
        mask: connections after the update.
        pruned: connections that were removed.
        grown: connections that were added.

    Example:
        >>> Rewiring(torch.tensor([True]), torch.tensor([False]), torch.tensor([False])).mask
        tensor([True])
    """

    mask: Tensor
    pruned: Tensor
    grown: Tensor


def rewire_mask(
    mask: Tensor,
    prune_score: Tensor | Sequence[Tensor],
    grow_score: Tensor,
    fraction: float,
    budget: Tensor | None = None,
    generator: Generator | None = None,
) -> Rewiring:
    r"""Remove the connections of lowest score, and add as many of the highest score among those that were absent.

    :math:`\lfloor f \cdot A \rfloor` connections change, A being the number of those in budgets that have both present
    and absent ones. The budgets share them in proportion to their connections, rounded at random, and each keeps its
    number of connections. A connection that was removed is not added in the same call. Equal scores
    are ordered at random.

    Source: arXiv 1707.04780 and arXiv 1911.11134 for the procedure; budgets of pairs of groups are ours.

    Args:
        mask: true for connections that exist.
        prune_score: score of each connection; the lowest go. Of several scores, each chooses an equal part, one after
            the other.
        grow_score: score of each connection; the highest of those that do not exist come.
        fraction: share f of the connections that is replaced, in [0, 1].
        budget: label of the budget that each connection belongs to, integers of the shape of ``mask``; None for one
            budget.
        generator: generator on the CPU, of ties and of the rounding; None for the global one.

    Raises:
        ValueError: if ``fraction`` is outside [0, 1] or a shape differs.

    Example:
        >>> mask = torch.tensor([True, True, False, False])
        >>> rewire_mask(mask, torch.tensor([1.0, 2.0, 0.0, 0.0]), torch.tensor([9.0, 9.0, 1.0, 2.0]), 0.5).mask
        tensor([False,  True, False,  True])
    """
    if not 0.0 <= fraction <= 1.0:
        raise ValueError(f"fraction is {fraction}; it must be in [0, 1]")
    if mask.dtype != torch.bool:
        raise ValueError(f"mask is {mask.dtype}; it must be bool, true where a connection exists")
    scores = [prune_score] if isinstance(prune_score, Tensor) else list(prune_score)
    budget = torch.zeros_like(mask, dtype=torch.int64) if budget is None else budget
    for name, value in [("prune_score", score) for score in scores] + [("grow_score", grow_score), ("budget", budget)]:
        if value.shape != mask.shape:
            raise ValueError(f"{name} has shape {tuple(value.shape)}; mask has {tuple(mask.shape)}")
    present, label = mask.flatten(), budget.flatten()
    quota = _quotas(present, label, fraction, generator)
    pruned = torch.zeros_like(present)
    for part, score in enumerate(scores):
        # thirds of a quota that three does not divide begin at another score for each budget
        turn = (part + torch.arange(len(quota), device=quota.device)) % len(scores)
        share = (quota + turn) // len(scores)
        pruned |= _lowest(score.flatten(), present & ~pruned, label, share, generator)
    grown = _lowest(-grow_score.flatten(), ~present, label, quota, generator)
    after = (present & ~pruned) | grown
    return Rewiring(after.view(mask.shape), pruned.view(mask.shape), grown.view(mask.shape))


def _quotas(present: Tensor, label: Tensor, fraction: float, generator: Generator | None) -> Tensor:
    """Return how many connections of each budget change."""
    number = int(label.max()) + 1
    active = torch.bincount(label[present], minlength=number)
    room = torch.minimum(active, torch.bincount(label[~present], minlength=number))
    wanted = torch.where(room > 0, fraction * active.double(), 0.0)
    total = torch.floor(wanted.sum() + 1e-9)
    # systematic rounding: whole numbers of the given sum, each equal to its share in the mean over the offsets
    order = torch.randperm(number, generator=generator).to(label.device)
    offset = torch.rand((), dtype=torch.float64, generator=generator).to(label.device)
    ends = (wanted[order] * (total / wanted.sum().clamp(min=1e-9))).cumsum(0)
    ends[-1] = total
    quota = torch.empty_like(wanted)
    quota[order] = torch.floor(ends + offset).diff(prepend=ends.new_zeros(1))
    return torch.minimum(quota.long(), room)


def _lowest(score: Tensor, among: Tensor, label: Tensor, quota: Tensor, generator: Generator | None) -> Tensor:
    """Return the mask of the candidates of lowest score: in each budget as many as its quota says."""
    places = among.nonzero().squeeze(1)
    places = places[torch.randperm(len(places), generator=generator).to(places.device)]
    places = places[score[places].argsort(stable=True)]
    places = places[label[places].argsort(stable=True)]  # by budget, then by score
    sizes = torch.bincount(label[places], minlength=len(quota))
    rank = torch.arange(len(places), device=places.device) - (sizes.cumsum(0) - sizes)[label[places]]
    chosen = torch.zeros_like(among)
    chosen[places[rank < quota[label[places]]]] = True
    return chosen
