"""Smoothing objective of PRES: the change of direction of node memories in an update."""

from typing import Literal, get_args

import torch
from torch import Tensor

__all__ = ["memory_coherence_loss"]

CoherenceMode = Literal["global", "node"]


def memory_coherence_loss(
    previous: Tensor,
    corrected: Tensor,
    mask: Tensor | None = None,
    mode: CoherenceMode = "global",
    eps: float = 1e-8,
) -> Tensor:
    r"""Return one minus the cosine between the memories before and after an update, in [0, 2].

    .. math:: 1 - \frac{\langle S^{prev}, \bar S \rangle}{\lVert S^{prev} \rVert\, \lVert \bar S \rVert}

    ``global`` takes the inner product of the two matrices, one cosine for the batch, as the paper prints it; ``node``
    the mean of ``1 - cosine`` over the nodes. Rows with zero previous memory have no direction and are left
    out; if no row remains the loss is 0 and so is its gradient. ``previous`` is a constant.

    Source: arXiv 2402.04284, Algorithm 2. Differs from it: the mode ``node``.

    Args:
        previous: memories before the update.
        corrected: memories after the update, with gradient.
        mask: whether a node was updated, bool; None for all nodes.
        mode: ``global`` for one cosine of the whole matrices, ``node`` for the mean over the cosines of nodes.
        eps: lower bound of the norms.

    Shape:
        previous (U, D), corrected (U, D), mask (U,) -> scalar, float32 or wider

    Raises:
        ValueError: if the shapes differ, the mask is not bool or the mode is unknown.

    Example:
        >>> before = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
        >>> memory_coherence_loss(before, 2 * before), memory_coherence_loss(before, -before)
        (tensor(0.), tensor(2.))
        >>> memory_coherence_loss(torch.zeros(2, 2), before)
        tensor(0.)
    """
    if (
        previous.shape != corrected.shape
        or previous.dim() != 2
        or (mask is not None and mask.shape != previous.shape[:1])
    ):
        raise ValueError(
            f"previous is {tuple(previous.shape)}, corrected {tuple(corrected.shape)}, mask "
            f"{None if mask is None else tuple(mask.shape)}; they must be (U, D), (U, D) and (U,)"
        )
    if mode not in get_args(CoherenceMode):
        raise ValueError(f"memory_coherence_loss(mode={mode!r}): accepted are {', '.join(get_args(CoherenceMode))}")
    if mask is not None and mask.dtype != torch.bool:
        raise ValueError(f"mask is {mask.dtype}; it must be bool, true for nodes that were updated")
    wide = torch.promote_types(corrected.dtype, torch.float32)
    previous, corrected = previous.detach().to(wide), corrected.to(wide)
    inner = (previous * corrected).sum(1)
    before, after = previous.square().sum(1), corrected.square().sum(1)
    known = before != 0  # also where it is NaN, which must not be left out unseen
    kept = known if mask is None else known & mask
    if mode == "global":
        inner, before, after = (torch.where(kept, rows, 0.0).sum() for rows in (inner, before, after))
    # bounded below the root, whose gradient at 0 is infinite
    norms = before.clamp(min=eps**2).sqrt() * after.clamp(min=eps**2).sqrt()
    turned = 1 - inner / norms
    if mode == "global":
        return torch.where(kept.any(), turned, 0.0)
    return torch.where(kept, turned, 0.0).sum() / kept.sum().clamp(min=1)
