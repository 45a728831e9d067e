"""Causal convolution of each channel with gaps between the steps that it reads."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

__all__ = ["causal_convolution"]


def causal_convolution(x: Tensor, weight: Tensor, *, dilation: int = 1, before: Tensor | None = None) -> Tensor:
    r"""Return the causal convolution of each channel with its own kernel.

    .. math:: y_{tc} = \sum_{j=0}^{K-1} w_{cj}\, x_{t - j\delta,\, c}

    with the dilation :math:`\delta`, and ``before`` for the steps below 0. Channels are the last axis throughout:
    torch's kernel for that layout is several times as fast on the CPU as that for channels first, forward and for
    the gradient of the inputs; the gradient of the kernels is K sums of products. It cannot be differentiated twice.

    Source: arXiv 1609.03499, section 2.1 (dilated causal convolution). Differs from it: one kernel for each channel.

    Args:
        x: inputs.
        weight: kernel of each channel, the weight of the present step first.
        dilation: number of steps :math:`\delta` between those that are read, at least 1.
        before: the inputs before the first step, the latest one last; None for zeros.

    Shape:
        x (B, T, C), weight (C, K), before (B, (K - 1) dilation, C) -> (B, T, C)

    Raises:
        ValueError: if shapes do not fit together, or ``dilation`` is below 1.

    Example:
        >>> causal_convolution(torch.tensor([[[1.0], [2.0], [3.0]]]), torch.tensor([[1.0, 10.0]])).flatten().tolist()
        [1.0, 12.0, 23.0]
    """
    if dilation < 1:
        raise ValueError(f"dilation is {dilation}; it must be at least 1")
    if x.dim() != 3 or weight.dim() != 2 or x.shape[2] != len(weight):
        raise ValueError(
            f"x has shape {tuple(x.shape)} and weight {tuple(weight.shape)}, where (B, T, C) and (C, K) are needed"
        )
    reach = (weight.shape[1] - 1) * dilation
    if before is not None and before.shape != (len(x), reach, x.shape[2]):
        raise ValueError(
            f"state has shape {tuple(before.shape)}, where {(len(x), reach, x.shape[2])} is needed: give the state "
            f"that was returned for the same {len(x)} sequences, or None at their beginning"
        )
    with torch.autocast(x.device.type, enabled=False):
        known = functional.pad(x, (0, 0, reach, 0)) if before is None else torch.cat([before.to(x.dtype), x], 1)
        return _Convolution.apply(known, weight.to(x.dtype), dilation)


def _correlation(x: Tensor, weight: Tensor, dilation: int) -> Tensor:
    """Sums of weight[c, i] x[t + i dilation, c] over i, for each t where all of them exist."""
    image = x.mT[:, :, None]  # (B, C, 1, T) with channels last in memory
    return functional.conv2d(image, weight[:, None, None], dilation=(1, dilation), groups=len(weight))[:, :, 0].mT


class _Convolution(torch.autograd.Function):
    """The convolution without padding, with its own gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.dilation = dilation
        return _correlation(x, weight.flip(1), dilation)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        width, steps, gap = weight.shape[1], gradient.shape[1], ctx.dilation
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            reach = (width - 1) * gap
            of_x = _correlation(functional.pad(gradient, (0, 0, reach, reach)), weight, gap)
        if ctx.needs_input_grad[1]:
            lags = (x[:, (width - 1 - lag) * gap :][:, :steps] for lag in range(width))
            of_weight = torch.stack([(gradient * lagged).sum((0, 1)) for lagged in lags], 1)
        return of_x, of_weight, None
