"""Masked format: a dense weight times a mask. It saves nothing, and every pattern can be written in it."""

from torch import Tensor
from torch.nn import functional

__all__ = ["masked_linear"]


def masked_linear(x: Tensor, weight: Tensor, mask: Tensor, bias: Tensor | None = None) -> Tensor:
    r"""Return :math:`x\,(W \odot M)^\top + b`.

    Args:
        x: inputs (*, in_features).
        weight: dense weight (out_features, in_features).
        mask: true where a weight exists (out_features, in_features).
        bias: bias (out_features,), or None.

    Shape:
        (*, out_features)

    Example:
        >>> import torch
        >>> masked_linear(torch.ones(1, 2), torch.tensor([[3.0, 4.0]]), torch.tensor([[True, False]]))
        tensor([[3.]])
    """
    if mask.shape != weight.shape:
        raise ValueError(f"mask has shape {tuple(mask.shape)}; that of the weight, {tuple(weight.shape)}, is needed")
    return functional.linear(x, weight * mask, bias)
