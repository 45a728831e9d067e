"""Dual activations: expected products of activations of two correlated normal variables."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from graphseq.nn.activations.hermite import HermiteActivation, SineActivation

__all__ = ["DualActivation", "InfiniteDepthRegime", "dual_activation", "infinite_depth_regime"]


@dataclass(frozen=True)
class DualActivation:
    r"""Expected product of an activation at two standard normal variables with correlation :math:`\xi`.

    .. math:: \check\varphi(\xi) = E\,\varphi(u)\varphi(v) = \sum_k a_k^2 \xi^k = \xi^m\, r(\xi), \qquad
        \check\varphi'(\xi) = \xi^{\max(m - 1, 0)}\, s(\xi)

    with :math:`\check\varphi(1) = 1`. The order m is the least k with :math:`a_k \ne 0`; r and s are what is left when
    the power is taken out, so that the kernel of a deep network can be computed in logarithms.

    Args:
        order: m, at least 0.
        ratio: function r of a tensor with entries in [-1, 1].
        slope_ratio: function s of such a tensor.

    Example:
        >>> dual = dual_activation(HermiteActivation([0, 1, 0, 1]))
        >>> dual(torch.tensor(0.5)), dual.slope(torch.tensor(1.0))
        (tensor(0.3125), tensor(2.))
    """

    order: int
    ratio: Callable[[Tensor], Tensor]
    slope_ratio: Callable[[Tensor], Tensor]

    def __call__(self, correlation: Tensor) -> Tensor:
        """Return the expected product.

        Args:
            correlation: correlations in [-1, 1] (*).
        """
        return correlation**self.order * self.ratio(correlation)

    def slope(self, correlation: Tensor) -> Tensor:
        """Return the derivative with respect to the correlation.

        Args:
            correlation: correlations in [-1, 1] (*).
        """
        return correlation ** max(self.order - 1, 0) * self.slope_ratio(correlation)


def dual_activation(activation: nn.Module) -> DualActivation:
    r"""Return the dual of an activation, after scaling it to :math:`E\,\varphi(z)^2 = 1`.

    Closed forms are used for :class:`~graphseq.nn.HermiteActivation`, :class:`~graphseq.nn.SineActivation`, ``nn.ReLU``
    and ``nn.LeakyReLU``. For any other activation the first 64 coefficients of its Hermite series are integrated
    numerically, for which it has to be smooth.

    Args:
        activation: elementwise module without randomness.

    Raises:
        ValueError: if the first 64 coefficients hold less than 1 - 1e-7 of :math:`E\,\varphi(z)^2`, or that is 0 or
            infinite, or if the activation is not elementwise.
        TypeError: if ``activation`` is not a module.

    Example:
        >>> dual_activation(nn.ReLU())(torch.tensor([0.0, 1.0])).tolist()
        [0.3183..., 1.0]
    """
    if not isinstance(activation, nn.Module):
        raise TypeError(f"activation is {activation!r}; give a module, such as torch.nn.ReLU()")
    if isinstance(activation, HermiteActivation):
        return _series([value * value for value in activation.coefficients])
    if isinstance(activation, SineActivation):
        return _sine(activation.rate)
    if isinstance(activation, nn.ReLU):
        return _rectifier(0.0)
    if isinstance(activation, nn.LeakyReLU) and activation.negative_slope != 1:
        return _rectifier(activation.negative_slope)
    return _series(_squares(activation))


def _series(squares: Sequence[float]) -> DualActivation:
    """Return the dual with given squares of the coefficients, which add up to 1."""
    order = next(k for k, square in enumerate(squares) if square > 1e-14)
    slopes = [k * square for k, square in enumerate(squares)]
    return DualActivation(
        order,
        lambda xi: _polynomial(squares[order:], xi),
        lambda xi: _polynomial(slopes[max(order, 1) :] or [0.0], xi),
    )


def _polynomial(coefficients: Sequence[float], x: Tensor) -> Tensor:
    y = torch.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        y = y * x + coefficient
    return y


def _rectifier(slope: float) -> DualActivation:
    """Return the dual of x above 0 and ``slope`` times x below it: a linear part, and a part that is even."""
    linear, even = (1 + slope) ** 2 / (2 * (1 + slope**2)), (1 - slope) ** 2 / (2 * (1 + slope**2))

    def ratio(xi: Tensor) -> Tensor:
        xi = xi.clamp(-1, 1)
        return linear * xi + even * 2 / math.pi * ((1 - xi * xi).sqrt() + xi * xi.asin())

    return DualActivation(0, ratio, lambda xi: linear + even * 2 / math.pi * xi.clamp(-1, 1).asin())


def _sine(rate: float) -> DualActivation:
    total = math.sinh(rate)

    def ratio(xi: Tensor) -> Tensor:
        small = xi.abs() < 1e-4 / max(rate, 1.0)  # there the series is exact to rounding, and 0 / 0 is not met
        y = rate * torch.where(small, torch.ones_like(xi), xi)
        return torch.where(small, rate * (1 + (rate * xi).square() / 6), y.sinh() * rate / y) / total

    return DualActivation(1, ratio, lambda xi: rate * (rate * xi).cosh() / total)


def _squares(activation: nn.Module, terms: int = 64) -> list[float]:
    """Return the squares of the first coefficients of the Hermite series of an activation, which add up to 1."""
    points, weights = np.polynomial.hermite_e.hermegauss(300)
    x, weight = torch.from_numpy(points), torch.from_numpy(weights / weights.sum())
    activation = copy.deepcopy(activation).double()  # of any network: it may have parameters
    with torch.no_grad():
        values = activation(x)
        if values.shape != x.shape or not torch.allclose(values[::2], activation(x[::2]), rtol=1e-9):
            raise ValueError(f"{activation} does not map each entry by itself, or is random; give such an activation")
    power = float(weight @ values.square())
    if not 0.0 < power < math.inf:
        raise ValueError(f"the mean square of {activation} under the normal distribution is {power}; it has no dual")
    values = values / math.sqrt(power)
    below, h, squares = torch.zeros_like(x), torch.ones_like(x), []
    for k in range(terms):
        squares.append(float(weight @ (values * h)) ** 2)
        below, h = h, (x * h - math.sqrt(k) * below) / math.sqrt(k + 1)
    total = sum(squares)
    if total < 1 - 1e-7:  # the slope at 1 weighs what is missing by its order
        raise ValueError(
            f"the first {terms} coefficients of the Hermite series of {activation} hold {total:.8f} of its mean "
            "square, 1 - 1e-7 is needed: give a smoother activation, or nn.ReLU or nn.LeakyReLU, whose duals are known"
        )
    return [0.0 if square < 1e-14 else square / total for square in squares]


@dataclass(frozen=True)
class InfiniteDepthRegime:
    r"""Classifier that an infinitely wide network with a given activation tends to as its depth grows.

    Args:
        kind: ``"majority"``, ``"nearest neighbour"``, ``"singular kernel"``, ``"constant kernel"`` (all inputs become
            alike) or ``"linear kernel"``.
        slope_at_zero: :math:`A = \check\varphi'(0)`.
        slope_at_one: :math:`B = \check\varphi'(1)`.
        exponent: :math:`\alpha = -2 \log A / \log B` of a singular kernel, else None.

    Example:
        >>> print(infinite_depth_regime(nn.ReLU()))
        majority vote
    """

    kind: Literal["majority", "nearest neighbour", "singular kernel", "constant kernel", "linear kernel"]
    slope_at_zero: float
    slope_at_one: float
    exponent: float | None = None

    def __str__(self) -> str:
        if self.exponent is not None:
            return (
                f"singular kernel with weights of distance to the power of -{self.exponent:.4g}, consistent if the "
                "data have that dimension"
            )
        return {"majority": "majority vote"}.get(self.kind, self.kind)


def infinite_depth_regime(activation: nn.Module) -> InfiniteDepthRegime:
    r"""Return the classifier that an infinitely wide network with an activation tends to as its depth grows.

    With :math:`A = \check\varphi'(0)`, :math:`B = \check\varphi'(1)` and the mean :math:`a_0` of the activation:

    * majority vote if :math:`a_0 \ne 0` and :math:`B \ge 1`: all inputs are equally unlike;
    * nearest neighbour if :math:`a_0 = 0`, A = 0;
    * a singular kernel with exponent :math:`-2 \log A / \log B` if :math:`a_0 = 0`, A > 0 and B > 1;
    * a constant kernel if B < 1, and a linear one for a linear activation.

    Source: arXiv 2204.14126. Differs from it: the last two are additions of this library, for completeness.

    Args:
        activation: elementwise module; see :func:`dual_activation`.

    Raises:
        ValueError: if the activation has no dual.

    Example:
        >>> infinite_depth_regime(HermiteActivation([0, 0, 1])).kind
        'nearest neighbour'
        >>> infinite_depth_regime(SineActivation(6.13539)).exponent
        3.9999...
    """
    dual = dual_activation(activation)
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    a, b = dual.slope(ends).tolist()
    if dual.order == 0:
        return InfiniteDepthRegime("majority" if b >= 1 - 1e-9 else "constant kernel", a, b)
    if b <= 1 + 1e-9:  # without a mean, B is the mean of the powers k >= 1 with weights that add up to 1
        return InfiniteDepthRegime("linear kernel", a, b)
    if dual.order > 1:
        return InfiniteDepthRegime("nearest neighbour", 0.0, b)
    return InfiniteDepthRegime("singular kernel", a, b, -2 * math.log(a) / math.log(b))
