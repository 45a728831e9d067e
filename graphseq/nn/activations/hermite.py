"""Activations with a known dual: normalised Hermite series and sines, and those for which a deep network is optimal."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from graphseq.core.spec import Recorded

__all__ = ["HermiteActivation", "SineActivation", "optimal_activation"]


class HermiteActivation(Recorded, nn.Module):
    r"""Activation from a series of normalised Hermite polynomials.

    .. math:: \varphi(x) = \sum_k a_k h_k(x), \qquad h_0 = 1,\ h_1 = x,\
        h_{k+1} = \frac{x\, h_k - \sqrt k\, h_{k-1}}{\sqrt{k + 1}}

    The :math:`h_k` are orthonormal under the standard normal distribution, so that :math:`E\,\varphi(z)^2 = \sum a_k^2`
    and, for standard normal u, v with correlation :math:`\xi`, :math:`E\,\varphi(u) \varphi(v) = \sum a_k^2 \xi^k`.
    The coefficients are not learned.

    Source: arXiv 2204.14126, dual activations.

    Args:
        coefficients: :math:`a_0, a_1, \dots`, finite numbers, not all 0. They are divided by their root of squares, so
            that :math:`E\,\varphi(z)^2 = 1`.

    Shape:
        x (*) -> y (*)

    Raises:
        ValueError: if there is no coefficient other than 0, or one is not finite.

    Example:
        >>> HermiteActivation([0.0, 1.0, 0.0, 1.0])(torch.tensor([0.0, 1.0])).tolist()
        [0.0, 0.1297...]
    """

    def __init__(self, coefficients: Sequence[float]) -> None:
        super().__init__()
        given = torch.tensor([float(value) for value in coefficients], dtype=torch.float64)
        if not given.isfinite().all() or not given.any():
            raise ValueError(f"coefficients is {list(coefficients)}; give finite numbers, not all of them 0")
        self.coefficients: tuple[float, ...] = tuple((given / given.norm()).tolist())

    def forward(self, x: Tensor) -> Tensor:
        """Return the activation of each entry.

        Args:
            x: inputs (*).
        """
        below, h = torch.zeros_like(x), torch.ones_like(x)
        y = self.coefficients[0] * h
        for k, coefficient in enumerate(self.coefficients[1:], start=1):
            below, h = h, (x * h - math.sqrt(k - 1) * below) / math.sqrt(k)
            y = y + coefficient * h
        return y

    def extra_repr(self) -> str:
        """Return the coefficients."""
        return "coefficients=[" + ", ".join(f"{value:.4g}" for value in self.coefficients) + "]"


class SineActivation(Recorded, nn.Module):
    r"""Sine whose square has mean 1 under the standard normal distribution.

    .. math:: \varphi(x) = c \sin(\sqrt a\, x), \qquad c^2 = \frac{2}{1 - e^{-2 a}}

    For standard normal u, v with correlation :math:`\xi`,
    :math:`E\,\varphi(u) \varphi(v) = \sinh(a \xi) / \sinh(a)`.

    Source: arXiv 2204.14126.

    Args:
        rate: a, between 0 and 300: the square of the frequency.

    Shape:
        x (*) -> y (*)

    Raises:
        ValueError: if ``rate`` is out of range.

    Example:
        >>> SineActivation(1.0)(torch.tensor([0.0, 1.0])).tolist()
        [0.0, 1.2797...]
    """

    def __init__(self, rate: float = 1.0) -> None:
        super().__init__()
        if not 0.0 < rate <= 300.0:  # beyond it, the hyperbolic sine of the dual is near the largest float
            raise ValueError(f"rate is {rate}; give a number above 0 and at most 300")
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Return the activation of each entry.

        Args:
            x: inputs (*).
        """
        return math.sqrt(2.0 / -math.expm1(-2.0 * self.rate)) * torch.sin(math.sqrt(self.rate) * x)

    def extra_repr(self) -> str:
        """Return the rate."""
        return f"rate={self.rate:g}"


def optimal_activation(
    dimension: int, family: Literal["hermite", "sine"] = "hermite"
) -> HermiteActivation | SineActivation:
    r"""Return an activation for which the infinitely wide and deep network is a consistent classifier.

    With :math:`A = \check\varphi'(0)` and :math:`B = \check\varphi'(1)`, the deep network is a kernel classifier with
    weights :math:`\lVert x - x_i \rVert^{-\alpha}`, :math:`\alpha = -2 \log A / \log B`, which is consistent where
    :math:`\alpha` is the dimension d of the data. The Hermite series has, from d = 2 on,

    .. math:: a_1^2 = a_3^2 = 2^{-d/2}, \qquad a_2^2 = 1 - 2^{1 - d/2},

    so that A is 2 to the power of -d/2 and B = 2; for d = 1, :math:`a_1^2 = a_7^2 = 1/2`. The rate a of the sine solves
    :math:`\alpha = d`; its :math:`\alpha` is above 1 for every rate.

    Source: arXiv 2204.14126.

    Args:
        dimension: dimension d of the data, at least 1: of the unit sphere in n dimensions, n - 1.
        family: ``"hermite"`` or ``"sine"``.

    Raises:
        ValueError: if ``dimension`` is below 1, or for ``"sine"`` outside 2..100, or the family is unknown.

    Example:
        >>> optimal_activation(2)
        HermiteActivation(coefficients=[0, 0.7071, 0, 0.7071])
        >>> optimal_activation(4, "sine")
        SineActivation(rate=6.13539)
    """
    if dimension < 1:
        raise ValueError(f"dimension is {dimension}; the data have at least one dimension")
    if family not in ("hermite", "sine"):
        raise ValueError(f"family is {family!r}; give 'hermite' or 'sine'")
    if family == "sine":
        return SineActivation(_rate(dimension))
    if dimension == 1:
        return HermiteActivation([0, 1, 0, 0, 0, 0, 0, 1])
    outer = 2.0 ** (-dimension / 2)
    return HermiteActivation([0, math.sqrt(outer), math.sqrt(max(0.0, 1 - 2 * outer)), math.sqrt(outer)])


def _rate(dimension: int) -> float:
    """Return the rate of the sine whose exponent is the dimension."""
    from scipy.optimize import brentq

    if not 2 <= dimension <= 100:
        raise ValueError(f"dimension is {dimension}; a sine is optimal for 2 to 100. Take family 'hermite'")

    def beyond(rate: float) -> float:
        # log A = log a - log sinh a, and B = a coth a
        log_a = math.log(rate) - rate - math.log(-math.expm1(-2 * rate) / 2)
        return -2 * log_a / math.log(rate / math.tanh(rate)) - dimension

    return float(brentq(beyond, 1.0, 300.0, xtol=1e-13, rtol=1e-15))
