"""Polynomials of activations, computed in single precision and again in the backward pass."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from graphseq.core.spec import Recorded

__all__ = ["PolyNorm", "PolyReLU"]


class _Polynomial(nn.Module):
    """Base class: coefficients by power, and a sum of terms of which the backward pass stores the input alone."""

    undecayed = ("coefficients",)

    def __init__(self, order: int = 3, recompute: bool = True) -> None:
        super().__init__()
        if not isinstance(order, int) or order < 1:
            raise ValueError(f"order is {order!r}; the highest power must be a whole number of at least 1")
        self.order, self.recompute = order, recompute
        self.coefficients = nn.Parameter(torch.empty(order + 1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the coefficient of each power to 1 / order, and the constant to 0."""
        with torch.no_grad():
            self.coefficients.fill_(1 / self.order)
            self.coefficients[0] = 0

    def terms(self, x: Tensor, coefficients: Tensor) -> Tensor:
        """Return the activation in the precision of ``x``; defined by each subclass.

        Args:
            x: inputs (*, D).
            coefficients: coefficients by power (order + 1,).
        """
        raise NotImplementedError(f"{type(self).__name__} must define terms")

    def forward(self, x: Tensor) -> Tensor:
        """Return the activations.

        Args:
            x: inputs (*, D).
        """
        if not x.is_floating_point():
            raise ValueError(f"inputs are {x.dtype}; real numbers are needed: call x.float()")
        # a cube overflows float16 at 40, and bfloat16 has 8 bits
        kind = torch.promote_types(x.dtype, torch.float32)
        with torch.autocast(x.device.type, enabled=False):
            if self.recompute and torch.is_grad_enabled():
                y = _recomputed(lambda x, c: self.terms(x.to(kind), c), x, self.coefficients.to(kind))
            else:
                y = self.terms(x.to(kind), self.coefficients.to(kind))
        return y.to(x.dtype)

    def extra_repr(self) -> str:
        """Return the highest power."""
        return f"order={self.order}"


class PolyReLU(Recorded, _Polynomial):
    r"""Polynomial of the rectified input with learned coefficients, in place of an activation.

    .. math:: y = a_0 + \sum_{i=1}^{r} a_i \operatorname{ReLU}(x)^i

    The coefficients are shared by all channels, and tasks exempt them from weight decay; in a training loop of your own
    put them into a parameter group without it. The activation grows as a power, without a bound: prefer
    :class:`PolyNorm` in half precision, where an output beyond the type's range becomes infinite.

    Source: arXiv 2411.03884, eq. 2 and 6. Differs from it: coefficients are stored by power, the constant first.

    Args:
        order: highest power r, at least 1.
        recompute: whether the powers are computed again in the backward pass, so that the input alone is stored; False
            where ``torch.func`` takes the gradient, which does not support it.

    Shape:
        x (*, D) -> y (*, D)

    Raises:
        ValueError: if ``order`` is below 1; in ``forward`` if the inputs are integers.

    Example:
        >>> PolyReLU()(torch.tensor([-1.0, 1.0, 2.0])).tolist()
        [0.0, 1.0, 4.666666507720947]
    """

    def terms(self, x: Tensor, coefficients: Tensor) -> Tensor:
        """Return the sum of the powers, by Horner's rule.

        Args:
            x: inputs (*, D).
            coefficients: coefficients by power (order + 1,).
        """
        rectified = functional.relu(x)
        y = coefficients[-1] * rectified
        for coefficient in coefficients[1:-1].flip(0):
            y = (y + coefficient) * rectified
        return y + coefficients[0]


class PolyNorm(Recorded, _Polynomial):
    r"""Weighted sum of normalised powers of the input, in place of an activation.

    .. math:: y = a_0 + \sum_{i=1}^{r} a_i\, \frac{x^i}{\sqrt{\operatorname{mean}_D(x^{2i}) + \varepsilon}}

    The mean is over the last axis, so that the root mean square of an output is at most :math:`\sum_i |a_i|`, whatever
    the scale of the input, as long as the square of its highest power is finite in single precision: entries up to
    :math:`10^6` for order 3. It does not act on entries independently. Tasks exempt the coefficients from weight decay;
    in a training loop of your own put them into a parameter group without it.

    Source: arXiv 2411.03884, eq. 3 and 6. Differs from it: coefficients are stored by power, the constant first.

    Args:
        order: highest power r, at least 1.
        eps: added to the mean squares, above 0.
        recompute: whether the powers are computed again in the backward pass, so that the input alone is stored; False
            where ``torch.func`` takes the gradient, which does not support it.

    Shape:
        x (*, D) -> y (*, D)

    Raises:
        ValueError: if ``order`` is below 1, or ``eps`` is not above 0; in ``forward`` if the inputs are integers.

    Example:
        >>> x = torch.randn(2, 5, 8)
        >>> y = PolyNorm()(x)
        >>> y.shape, bool(torch.allclose(PolyNorm()(100 * x), y, atol=1e-3))
        (torch.Size([2, 5, 8]), True)
    """

    def __init__(self, order: int = 3, eps: float = 1e-6, recompute: bool = True) -> None:
        if not eps > 0:
            raise ValueError(f"eps is {eps}; it must be above 0")
        super().__init__(order, recompute)
        self.eps = eps

    def terms(self, x: Tensor, coefficients: Tensor) -> Tensor:
        """Return the sum of the normalised powers.

        Args:
            x: inputs (*, D).
            coefficients: coefficients by power (order + 1,).
        """
        y, power = coefficients[0], torch.ones_like(x)
        for coefficient in coefficients[1:]:
            power = power * x
            scale = torch.rsqrt(power.square().mean(-1, keepdim=True) + self.eps)
            y = y + coefficient * scale * power
        return y


def _recomputed(function: Callable[[Tensor, Tensor], Tensor], x: Tensor, coefficients: Tensor) -> Tensor:
    """Return ``function(x, coefficients)``; the backward pass calls it again in place of storing its parts."""
    y: Tensor = checkpoint(function, x, coefficients, use_reentrant=False, preserve_rng_state=False)
    return y
