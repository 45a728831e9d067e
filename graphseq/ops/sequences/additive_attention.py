"""Scores of additive attention, in pieces where the broadcast sum is large."""

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

__all__ = ["additive_scores"]

LARGEST = 2**24
"""Entries of the broadcast sum (B, M, N, H) that are kept for the backward pass; 64 MB of float32."""


def additive_scores(query: Tensor, keys: Tensor, weight: Tensor) -> Tensor:
    r"""Return the additive score of each query with each key.

    .. math:: u_{ij} = v^\top \tanh(q_i + k_j)

    The sum is broadcast to B M N H numbers. Beyond 2^24 of them queries are taken in pieces, whose intermediate values
    the backward pass computes again.

    Args:
        query: projected queries q.
        keys: projected keys k.
        weight: weights v of the hidden units.

    Shape:
        query (B, M, H), keys (B, N, H), weight (H,) -> (B, M, N)

    Raises:
        ValueError: if the shapes do not fit.

    Example:
        >>> additive_scores(torch.zeros(1, 2, 3), torch.zeros(1, 4, 3), torch.ones(3)).shape
        torch.Size([1, 2, 4])
    """
    if query.dim() != 3 or keys.dim() != 3 or query.shape[::2] != keys.shape[::2] or weight.shape != keys.shape[2:]:
        raise ValueError(
            f"query is {tuple(query.shape)}, keys {tuple(keys.shape)}, weight {tuple(weight.shape)}; they must be "
            "(B, M, H), (B, N, H) and (H,)"
        )
    entries = query.shape[1] * keys.numel()
    if entries <= LARGEST:
        return _scores(query, keys, weight)
    at_once = max(1, LARGEST // keys.numel())
    return torch.cat(
        [checkpoint(_scores, piece, keys, weight, use_reentrant=False) for piece in query.split(at_once, 1)], 1
    )


def _scores(query: Tensor, keys: Tensor, weight: Tensor) -> Tensor:
    return torch.tanh(query[:, :, None] + keys[:, None]) @ weight  # (B, M, N, H) -> (B, M, N)
