"""Linear recurrences as the equation has them: the definition that the other forms are tested against.

Matrices are diagonal or have a 2 x 2 block for each channel.
"""

import torch
from torch import Tensor

__all__: list[str] = []


def is_block(a: Tensor, b: Tensor) -> bool:
    """Return whether the matrices have 2 x 2 blocks rather than a diagonal.

    Args:
        a: matrices (B, T, D) or (B, T, 2, 2, D).
        b: inputs (B, T, D) or (B, T, 2, D).
    """
    return a.dim() == b.dim() + 1


def apply(a: Tensor, h: Tensor) -> Tensor:
    """Return the products of matrices and states.

    Args:
        a: diagonals (..., D), or blocks (..., 2, 2, D).
        h: states (..., D), or (..., 2, D).
    """
    return (a * h.unsqueeze(-3)).sum(-2) if is_block(a, h) else a * h


def compose(later: Tensor, earlier: Tensor, block: bool) -> Tensor:
    """Return the products of matrices with matrices.

    Args:
        later: left factors, diagonals (..., D), or blocks (..., 2, 2, D).
        earlier: right factors, of the same shape.
        block: whether they are blocks.
    """
    return (later.unsqueeze(-2) * earlier.unsqueeze(-4)).sum(-3) if block else later * earlier


def transpose(a: Tensor, block: bool) -> Tensor:
    """Return the transposed matrices.

    Args:
        a: diagonals (..., D), or blocks (..., 2, 2, D).
        block: whether they are blocks.
    """
    return a.transpose(-3, -2) if block else a


def scan(a: Tensor, b: Tensor, initial: Tensor) -> Tensor:
    """Return the states of :func:`graphseq.ops.linear_scan`, step by step.

    Args:
        a: matrices (B, T, D) or (B, T, 2, 2, D).
        b: inputs (B, T, D) or (B, T, 2, D).
        initial: state before the first step (B, D) or (B, 2, D).
    """
    h, found = initial, []
    for a_t, b_t in zip(a.unbind(1), b.unbind(1), strict=True):
        h = apply(a_t, h) + b_t
        found.append(h)
    return torch.stack(found, 1) if found else b
