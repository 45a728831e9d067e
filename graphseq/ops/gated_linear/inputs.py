"""What the forms of gated linear attention share: checks, precision, gates of 0, the state before the first step."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

__all__: list[str] = []


class Inputs(NamedTuple):
    """Checked inputs in the precision of the computation; queries are scaled."""

    q: Tensor  # (B, H, T, K)
    k: Tensor  # (B, H, T, K)
    v: Tensor  # (B, H, T, V)
    g: Tensor  # (B, H, T, K), finite
    state: Tensor  # (B, H, K, V)


def prepared(q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor | None, scale: float | None) -> Inputs:
    """Check the inputs, and return them in float32, or in float64 if one of them is.

    Args:
        q: queries (B, H, T, K).
        k: keys (B, H, T, K).
        v: values (B, H, T, V).
        g: logarithms of the gates (B, H, T, K).
        state: state before the first step (B, H, K, V); None for zeros.
        scale: factor of the queries; None for one over the root of K.

    Raises:
        ValueError: if shapes do not fit together.
    """
    if q.dim() != 4 or not q.shape[2]:
        raise ValueError(f"q has shape {tuple(q.shape)}, where (B, H, T, K) with T of at least 1 is needed")
    batch, heads, steps, width = q.shape
    for name, part in (("k", k), ("g", g)):
        if part.shape != q.shape:
            raise ValueError(f"{name} has shape {tuple(part.shape)}, where that of q, {tuple(q.shape)}, is needed")
    if v.dim() != 4 or v.shape[:3] != q.shape[:3]:
        raise ValueError(f"v has shape {tuple(v.shape)}, where ({batch}, {heads}, {steps}, V) is needed")
    needed = (batch, heads, width, v.shape[3])
    if state is not None and state.shape != needed:
        raise ValueError(
            f"state has shape {tuple(state.shape)}, where {needed} is needed: give the state that the same layer "
            f"returned for the same {batch} sequences, or None at their beginning"
        )
    given = [q, k, v, g] if state is None else [q, k, v, g, state]
    dtype = torch.float64 if any(part.dtype == torch.float64 for part in given) else torch.float32
    # a gate of 0 has a logarithm of -inf, and sums over the steps would be inf - inf; the exponential of this is 0, too
    information = torch.finfo(dtype)
    lowest = math.log(information.tiny) + math.log(information.eps) - 1
    return Inputs(
        q.to(dtype) * (width**-0.5 if scale is None else scale),
        k.to(dtype),
        v.to(dtype),
        g.to(dtype).clamp(min=lowest),
        q.new_zeros(needed, dtype=dtype) if state is None else state.to(dtype),
    )
