"""Moment map of SELU layers: mean and variance of outputs from those of inputs, and its fixed point."""

import math

import torch
from torch import Tensor

__all__ = ["SELU_ALPHA", "SELU_SCALE", "fixed_point", "moment_map", "selu_parameters"]

SELU_ALPHA = 1.6732632423543772848170429916717
"""The alpha for which SELU keeps mean 0 and variance 1."""

SELU_SCALE = 1.0507009873554804934193349852946
"""The scale (lambda) for which SELU keeps mean 0 and variance 1."""


def moment_map(
    mean: Tensor | float,
    var: Tensor | float,
    weight_sum: Tensor | float = 0.0,
    weight_square_sum: Tensor | float = 1.0,
    *,
    alpha: float = SELU_ALPHA,
    scale: float = SELU_SCALE,
) -> tuple[Tensor, Tensor]:
    r"""Mean and variance of a SELU unit whose inputs are independent with the given mean and variance.

    With pre-activation :math:`z \sim N(m, v)`, :math:`m = \mu\omega`, :math:`v = \nu\tau`:

    .. math::
        \tilde\mu = \tfrac{\lambda}{2}\Big[ m\,\mathrm{erf}\tfrac{m}{\sqrt{2v}}
            + \alpha e^{m + v/2}\,\mathrm{erfc}\tfrac{m + v}{\sqrt{2v}} - \alpha\,\mathrm{erfc}\tfrac{m}{\sqrt{2v}}
            + \sqrt{2v/\pi}\,e^{-m^2/2v} + m \Big]

    .. math::
        \tilde\xi = \tfrac{\lambda^2}{2}\Big[ (m^2 + v)\big(2 - \mathrm{erfc}\tfrac{m}{\sqrt{2v}}\big)
            + \alpha^2\big(-2 e^{m + v/2}\,\mathrm{erfc}\tfrac{m + v}{\sqrt{2v}}
            + e^{2(m + v)}\,\mathrm{erfc}\tfrac{m + 2v}{\sqrt{2v}} + \mathrm{erfc}\tfrac{m}{\sqrt{2v}}\big)
            + \sqrt{2v/\pi}\,m\,e^{-m^2/2v} \Big], \qquad \tilde\nu = \tilde\xi - \tilde\mu^2

    Products of a growing exponential and a vanishing ``erfc`` are taken as ``erfcx``, so that the map is finite for
    any mean and variance. It is computed in float64 and differentiable. Exact for normal pre-activations, which a
    large number of independent inputs gives.

    Source: arXiv 1706.02515, eq. 4 and 5.

    Args:
        mean: mean :math:`\mu` of the inputs.
        var: variance :math:`\nu` of the inputs, at least 0.
        weight_sum: sum :math:`\omega` of the unit's weights.
        weight_square_sum: sum :math:`\tau` of the squares of the unit's weights, at least 0.
        alpha: parameter :math:`\alpha` of SELU.
        scale: parameter :math:`\lambda` of SELU.

    Shape:
        broadcast shape of the four arguments, float64, twice.

    Example:
        >>> mean, var = moment_map(0.0, 1.0)
        >>> abs(float(mean)) < 1e-15, abs(float(var) - 1) < 1e-14
        (True, True)
    """
    mean, var, weight_sum, weight_square_sum = (
        torch.as_tensor(value, dtype=torch.float64) for value in (mean, var, weight_sum, weight_square_sum)
    )
    m = mean * weight_sum
    v = (var * weight_square_sum).clamp(min=torch.finfo(torch.float64).tiny)
    root = (2 * v).sqrt()
    gauss = (-(m / root).square()).exp()
    upper = torch.erfc(m / root)  # twice the probability of a negative pre-activation, which erf of the mean mirrors
    lower = torch.erfc(-m / root)
    first = _exp_erfc(m + v / 2, (m + v) / root, gauss)
    second = _exp_erfc(2 * (m + v), (m + 2 * v) / root, gauss)
    density = root / math.sqrt(math.pi) * gauss
    # m erf + m = m erfc(-m / root), whose small values do not cancel
    out_mean = scale / 2 * (m * lower + alpha * (first - upper) + density)
    square = scale**2 / 2 * ((m.square() + v) * lower + alpha**2 * (second - 2 * first + upper) + m * density)
    return out_mean, square - out_mean.square()


def _exp_erfc(exponent: Tensor, x: Tensor, gauss: Tensor) -> Tensor:
    """``exp(exponent) * erfc(x)`` where ``exponent - x**2`` is the exponent of ``gauss``; neither factor overflows."""
    # for x >= 0 erfcx is at most 1; for x < 0 the exponent is negative
    scaled = torch.special.erfcx(x.clamp(min=0)) * gauss
    plain = exponent.clamp(max=0).exp() * torch.erfc(x.clamp(max=0))
    return torch.where(x >= 0, scaled, plain)


def fixed_point(
    weight_sum: Tensor | float = 0.0,
    weight_square_sum: Tensor | float = 1.0,
    *,
    alpha: float = SELU_ALPHA,
    scale: float = SELU_SCALE,
    tolerance: float = 1e-12,
) -> tuple[Tensor, Tensor]:
    r"""Mean and variance that a SELU layer with such weights maps to themselves, by iterating :func:`moment_map`.

    Source: arXiv 1706.02515, Theorem 1: for :math:`\omega \in [-0.1, 0.1]` and :math:`\tau \in [0.95, 1.1]` there is
    exactly one such point near (0, 1), and the iteration from there converges to it.

    Args:
        weight_sum: sum :math:`\omega` of a unit's weights.
        weight_square_sum: sum :math:`\tau` of the squares of a unit's weights.
        alpha: parameter :math:`\alpha` of SELU.
        scale: parameter :math:`\lambda` of SELU.
        tolerance: largest change of mean or variance in one step at which the iteration stops.

    Shape:
        broadcast shape of the arguments, float64, twice.

    Raises:
        ValueError: if the iteration does not converge within 10,000 steps.

    Example:
        >>> mean, var = fixed_point(weight_square_sum=1.1)
        >>> round(float(mean), 2), round(float(var), 1)
        (0.05, 1.4)
    """
    weights = torch.broadcast_tensors(
        *(torch.as_tensor(value, dtype=torch.float64) for value in (weight_sum, weight_square_sum))
    )
    mean, var = torch.zeros_like(weights[0]), torch.ones_like(weights[0])
    for _ in range(10_000):
        before = mean, var
        mean, var = moment_map(mean, var, *weights, alpha=alpha, scale=scale)
        change = max(float((mean - before[0]).abs().max()), float((var - before[1]).abs().max()))
        if change <= tolerance:
            return mean, var
        if not math.isfinite(change):
            break
    raise ValueError(
        f"weight_sum {weight_sum} and weight_square_sum {weight_square_sum} have no fixed point that attracts (0, 1): "
        "the variance grows or keeps moving. Theorem 1 gives one for sums in [-0.1, 0.1] and sums of squares in "
        "[0.95, 1.1]"
    )


def selu_parameters(mean: float = 0.0, var: float = 1.0) -> tuple[float, float]:
    r"""Alpha and scale for which SELU keeps the mean and variance of a normal pre-activation.

    With :math:`P_k = E[z^k; z > 0]` and :math:`N_k = E[(e^z - 1)^k; z < 0]` for :math:`z \sim N(\mu, \nu)`, the two
    conditions :math:`\lambda(P_1 + \alpha N_1) = \mu` and :math:`\lambda^2(P_2 + \alpha^2 N_2) = \nu + \mu^2` leave a
    quadratic equation in :math:`\alpha`.

    Source: arXiv 1706.02515, eq. 3 with the fixed point left open. Differs from the paper: the equations are solved in
    closed form for any mean and variance; the paper prints the constants of (0, 1).

    Args:
        mean: mean to keep.
        var: variance to keep, above 0.

    Returns:
        ``(alpha, scale)``, both above 0.

    Raises:
        ValueError: if ``var`` is not above 0, or no such SELU exists.

    Example:
        >>> alpha, scale = selu_parameters(0.0, 1.0)
        >>> abs(alpha - SELU_ALPHA) < 1e-14, abs(scale - SELU_SCALE) < 1e-14
        (True, True)
    """
    if not (math.isfinite(mean) and math.isfinite(var) and var > 0):
        raise ValueError(f"mean is {mean} and var is {var}; both must be finite, and var above 0")
    # the halves of the moments that moment_map adds up, at scale 1: the positive one has alpha 0
    m, v = torch.tensor(mean, dtype=torch.float64), torch.tensor(var, dtype=torch.float64)
    root = (2 * v).sqrt()
    gauss = (-(m / root).square()).exp()
    upper, lower = torch.erfc(m / root), torch.erfc(-m / root)
    density = root / math.sqrt(math.pi) * gauss
    first = _exp_erfc(m + v / 2, (m + v) / root, gauss)
    second = _exp_erfc(2 * (m + v), (m + 2 * v) / root, gauss)
    p1, p2 = float(m * lower + density) / 2, float((m.square() + v) * lower + m * density) / 2
    n1, n2 = float(first - upper) / 2, float(second - 2 * first + upper) / 2
    total = var + mean**2
    if mean == 0:  # the two roots are one, which rounding must not split
        roots = [-p1 / n1]
    else:
        a, b, c = mean**2 * n2 - total * n1**2, -2 * total * p1 * n1, mean**2 * p2 - total * p1**2
        spread = math.sqrt(max(b * b - 4 * a * c, 0.0))
        roots = [(-b + sign * spread) / (2 * a) for sign in (1, -1)] if a else []
    for alpha in sorted(alpha for alpha in roots if alpha > 0):
        scale = math.sqrt(total / (p2 + alpha**2 * n2))
        if math.isclose(scale * (p1 + alpha * n1), mean, rel_tol=1e-6, abs_tol=1e-9):  # not the root of -mean
            return alpha, scale
    raise ValueError(f"no SELU keeps mean {mean} and variance {var} of its pre-activation")
