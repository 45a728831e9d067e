"""Encoded times as the equation has them."""

import torch
from torch import Tensor

__all__: list[str] = []


def phase(dt: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return ``dt * weight + bias``: (*), (D,), (D,) -> (*, D)."""
    return torch.addcmul(bias, dt.to(weight.dtype).unsqueeze(-1), weight)


def encode_times(dt: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return ``cos(dt * weight + bias)``, differentiable in frequencies and phases: (*), (D,), (D,) -> (*, D)."""
    return phase(dt, weight, bias).cos()
