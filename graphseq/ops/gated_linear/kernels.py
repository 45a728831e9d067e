"""Kernels of flash-linear-attention, where that package and a GPU are at hand."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from graphseq.ops.gated_linear.inputs import prepared

__all__: list[str] = []

Kernel = Callable[..., Any]


@functools.cache
def flash_kernels() -> tuple[Kernel, Kernel] | None:
    """Return the kernels by chunks and step by step of flash-linear-attention; None where it cannot be imported."""
    try:
        from fla.ops.gla import chunk_gla, fused_recurrent_gla
    except ImportError:
        return None
    return chunk_gla, fused_recurrent_gla


def on_gpu(q: Tensor) -> bool:
    """Whether a tensor is on a GPU of the kind that the kernels are made for.

    Args:
        q: any tensor.
    """
    return q.is_cuda


def use_kernels(q: Tensor, g: Tensor) -> bool:
    """Whether the kernels can be called: on a GPU, in single precision, with flash-linear-attention installed.

    Args:
        q: queries.
        g: logarithms of the gates.
    """
    return on_gpu(q) and torch.float64 not in (q.dtype, g.dtype) and flash_kernels() is not None


def gated_linear_kernel(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, *, state: Tensor | None = None, scale: float | None = None
) -> tuple[Tensor, Tensor]:
    """Return outputs and last state from the kernels, which have the heads behind the steps.

    Args:
        q: queries (B, H, T, K).
        k: keys (B, H, T, K).
        v: values (B, H, T, V).
        g: logarithms of the gates (B, H, T, K).
        state: state before the first step (B, H, K, V); None for zeros.
        scale: factor of the queries; None for one over the root of K.
    """
    kernels = flash_kernels()
    if kernels is None:
        raise ImportError("flash-linear-attention is not installed: pip install flash-linear-attention")
    by_chunks, by_steps = kernels
    with torch.autocast(q.device.type, enabled=False):
        given = prepared(q, k, v, g, state, scale)
        qs, ks, vs, gs = (part.transpose(1, 2).contiguous() for part in given[:4])  # (B, T, H, .)
        # queries are scaled already
        if q.shape[2] == 1:
            o, after = by_steps(qs, ks, vs, gk=gs, scale=1.0, initial_state=given.state, output_final_state=True)
        else:
            o, after = by_chunks(qs, ks, vs, g=gs, scale=1.0, initial_state=given.state, output_final_state=True)
    return o.transpose(1, 2).to(v.dtype), after
