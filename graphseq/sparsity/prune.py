"""Pruning by score: which weights of several layers go."""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Literal, get_args

import torch
from torch import Tensor

__all__ = ["prune_lowest"]

Scope = Literal["global", "layer"]


def prune_lowest(
    scores: Sequence[Tensor],
    masks: Sequence[Tensor],
    count: int,
    *,
    scope: Scope = "global",
    eligible: Sequence[Tensor] | None = None,
    keep_inputs: bool = False,
) -> list[Tensor]:
    """Return the masks of layers after a number of weights of the lowest scores is pruned.

    Weights that are masked stay masked. Of equal scores, those that come first are pruned. Where fewer weights may be
    pruned than asked for, all of these are.

    Args:
        scores: score of each weight of each layer, such as :func:`magnitude_score`.
        masks: true for weights that exist, bool, of the shapes of ``scores``, units on the first axis.
        count: number of weights to prune, at least 0 and at most the number of those that exist.
        scope: whether the weights of all layers are compared with each other (``global``), or each layer loses the same
            share of its weights (``layer``), rounded so that all layers together lose ``count``.
        eligible: true for weights that may be pruned, of the shapes of ``scores``; None for all.
        keep_inputs: whether each unit keeps its last weight.

    Returns:
        New masks, one a layer.

    Raises:
        ValueError: if ``scope`` or ``count`` is outside its range, or the shapes differ.

    Example:
        >>> score, mask = torch.tensor([[3.0, 1.0], [2.0, 4.0]]), torch.ones(2, 2, dtype=torch.bool)
        >>> prune_lowest([score], [mask], 2)[0]
        tensor([[ True, False],
                [False,  True]])
    """
    if scope not in get_args(Scope):
        raise ValueError(f"scope is {scope!r}; it must be one of {', '.join(get_args(Scope))}")
    allowed = list(masks) if eligible is None else [mask & may for mask, may in zip(masks, eligible, strict=True)]
    if [score.shape for score in scores] != [mask.shape for mask in allowed]:
        raise ValueError(
            f"scores are {[tuple(score.shape) for score in scores]}, masks {[tuple(mask.shape) for mask in masks]}; "
            "give a mask of the same shape for each score"
        )
    alive = [int(mask.sum()) for mask in masks]
    if not 0 <= count <= sum(alive):
        raise ValueError(f"count is {count}; it must be from 0 to the {sum(alive)} weights that exist")
    if keep_inputs:
        allowed = [
            may & ~_last_inputs(score, mask, may) for score, mask, may in zip(scores, masks, allowed, strict=True)
        ]
    if scope == "global":
        flat = torch.cat([score.flatten() for score in scores])
        gone = _lowest(flat, torch.cat([may.flatten() for may in allowed]), count)
        parts = gone.split([score.numel() for score in scores])
    else:
        # the share of each layer as a difference of rounded sums: the rounding errors do not add up
        reached = [round(count * before / max(1, sum(alive))) for before in accumulate(alive, initial=0)]
        shares = [after - before for before, after in pairwise(reached)]
        parts = tuple(
            _lowest(score.flatten(), may.flatten(), share)
            for score, may, share in zip(scores, allowed, shares, strict=True)
        )
    return [mask & ~part.view(mask.shape) for mask, part in zip(masks, parts, strict=True)]


def _lowest(score: Tensor, allowed: Tensor, count: int) -> Tensor:
    """Return true for the allowed entries of the lowest scores, as many as asked for or as there are."""
    order = score.detach().masked_fill(~allowed, torch.inf).argsort(stable=True)[:count]
    chosen = torch.zeros_like(allowed)
    chosen[order] = True
    return chosen & allowed


def _last_inputs(score: Tensor, mask: Tensor, allowed: Tensor) -> Tensor:
    """Return true for the weight that each unit keeps: of units of which all weights may go, the one that goes last."""
    may, there = allowed.flatten(1), mask.flatten(1)
    lone = (may == there).all(1)  # (units,)
    # of equal scores the last one in order, which argmax finds from behind
    ranked = score.detach().flatten(1).masked_fill(~may, -torch.inf).flip(1)
    last = ranked.size(1) - 1 - ranked.argmax(1, keepdim=True)
    kept = torch.zeros_like(may).scatter_(1, last, lone[:, None])
    return (kept & may).view(mask.shape)
