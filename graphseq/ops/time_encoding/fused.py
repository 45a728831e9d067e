"""Encoded times without autograd, for functions that bring their own gradient: torch operations."""

import torch
from torch import Tensor

from graphseq.ops.time_encoding.plain import phase

__all__: list[str] = []


def cosines_and_sines(dt: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cosine and the sine of ``dt * weight + bias``, without gradient: (N,), (D,), (D,) -> (N, D) twice."""
    angle = phase(dt, weight, bias)
    return angle.cos(), angle.sin_()


def gradients(gradient: Tensor, sine: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of ``weight`` and ``bias`` from the gradient of the cosines (N, D), which is overwritten."""
    slope = gradient.mul_(sine)
    # one product reads the slopes once for both sums
    moments = dt.to(slope.dtype)
    to_weight, to_bias = (torch.stack((moments, torch.ones_like(moments))).neg_() @ slope).unbind()
    return to_weight, to_bias
