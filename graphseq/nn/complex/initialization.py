"""Initialisation of complex weights."""

import math
from typing import Literal

import torch
from torch import Generator, Tensor

__all__ = ["complex_kaiming_normal_", "complex_xavier_normal_"]


def _fans(weight: Tensor) -> tuple[int, int]:
    if not weight.is_complex():
        raise TypeError(f"weight is {weight.dtype}; give complex weights, or use torch.nn.init for real ones")
    if weight.dim() < 2:
        raise ValueError(
            f"weight is {tuple(weight.shape)}; give weights (outputs, inputs, *), since biases have no fan-in"
        )
    return weight[0].numel(), weight.shape[0] * weight[0, 0].numel()


@torch.no_grad()
def complex_kaiming_normal_(
    weight: Tensor,
    mode: Literal["fan_in", "fan_out"] = "fan_in",
    nonlinearity: Literal["relu", "linear"] = "relu",
    generator: Generator | None = None,
) -> Tensor:
    r"""Draw complex weights by He's rule: modulus from a Rayleigh distribution, phase uniform.

    .. math:: \operatorname{E}|w|^2 = 2 / \mathrm{fan} \text{ (relu)}, \qquad 1 / \mathrm{fan} \text{ (linear)}

    Real and imaginary part are independent normal numbers of half that variance, which is the same distribution. The
    split ReLU keeps half of the power of inputs of uniform phase, as a ReLU does of real ones. torch's own
    ``kaiming_normal_`` of a complex tensor, and the default of its complex layers, give another variance.

    Source: arXiv 1705.09792, section 3.6.

    Args:
        weight: complex weights (outputs, inputs, *), overwritten.
        mode: whether the power of the forward pass (``fan_in``) or of the gradients (``fan_out``) is kept.
        nonlinearity: activation after the layer: ``relu`` for a split ReLU, or ``linear`` for none.
        generator: random number generator; None for torch's global one.

    Returns:
        The weights.

    Raises:
        TypeError: if the weights are real.
        ValueError: if they have less than two dimensions, or an argument is unknown.

    Example:
        >>> weight = complex_kaiming_normal_(torch.empty(300, 400, dtype=torch.complex64))
        >>> 0.97 < float(weight.abs().square().mean() * 400 / 2) < 1.03
        True
    """
    if mode not in ("fan_in", "fan_out") or nonlinearity not in ("relu", "linear"):
        raise ValueError(
            f"mode is {mode!r} and nonlinearity {nonlinearity!r}; give 'fan_in' or 'fan_out', and 'relu' or 'linear'"
        )
    fan = _fans(weight)[mode == "fan_out"]
    power = (2 if nonlinearity == "relu" else 1) / fan
    torch.view_as_real(weight).normal_(0, math.sqrt(power / 2), generator=generator)
    return weight


@torch.no_grad()
def complex_xavier_normal_(weight: Tensor, generator: Generator | None = None) -> Tensor:
    r"""Draw complex weights by Glorot's rule: modulus from a Rayleigh distribution, phase uniform.

    .. math:: \operatorname{E}|w|^2 = \frac{2}{\mathrm{fan\_in} + \mathrm{fan\_out}}

    Source: arXiv 1705.09792, section 3.6.

    Args:
        weight: complex weights (outputs, inputs, *), overwritten.
        generator: random number generator; None for torch's global one.

    Returns:
        The weights.

    Raises:
        TypeError: if the weights are real.
        ValueError: if they have less than two dimensions.

    Example:
        >>> weight = complex_xavier_normal_(torch.empty(300, 500, dtype=torch.complex64))
        >>> 0.97 < float(weight.abs().square().mean() * 400) < 1.03
        True
    """
    deviation = math.sqrt(1 / sum(_fans(weight)))
    torch.view_as_real(weight).normal_(0, deviation, generator=generator)
    return weight
