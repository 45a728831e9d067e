"""SELU with chosen parameters, and alpha dropout."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphseq.core.spec import Recorded
from graphseq.ops.activations.self_normalizing import SELU_ALPHA, SELU_SCALE

__all__ = ["SELU", "AlphaDropout"]


class SELU(Recorded, nn.Module):
    r"""Scaled exponential linear unit with chosen parameters.

    .. math:: y = \lambda \begin{cases} x & x > 0 \\ \alpha (e^x - 1) & x \le 0 \end{cases}

    Source: arXiv 1706.02515, eq. 2. Differs from ``torch.nn.SELU``: alpha and scale can be chosen, see
    :func:`graphseq.ops.selu_parameters`.

    Args:
        alpha: factor :math:`\alpha` of the exponential, above 0.
        scale: factor :math:`\lambda` of the output, above 0.

    Shape:
        input (*) -> output (*)

    Raises:
        ValueError: if ``alpha`` or ``scale`` is not above 0.

    Example:
        >>> torch.equal(SELU()(torch.tensor([-1.0, 2.0])), nn.SELU()(torch.tensor([-1.0, 2.0])))
        True
    """

    def __init__(self, alpha: float = SELU_ALPHA, scale: float = SELU_SCALE) -> None:
        super().__init__()
        if not (alpha > 0 and scale > 0):
            raise ValueError(f"alpha is {alpha} and scale is {scale}; both must be above 0")
        self.alpha, self.scale = alpha, scale

    def forward(self, x: Tensor) -> Tensor:
        """Return the activation of each entry."""
        if (self.alpha, self.scale) == (SELU_ALPHA, SELU_SCALE):
            return functional.selu(x)
        return self.scale * functional.elu(x, self.alpha)

    def extra_repr(self) -> str:
        """Return the parameters, for printing."""
        return f"alpha={self.alpha:g}, scale={self.scale:g}"


class AlphaDropout(Recorded, nn.Module):
    r"""Dropout that sets units to the lower bound of SELU and keeps mean and variance.

    .. math::
        y = a\,(d\,x + (1 - d)\,\alpha') + b, \qquad
        a = \sqrt{\frac{\nu}{q\,((1 - q)(\alpha' - \mu)^2 + \nu)}}, \qquad
        b = \mu - a\,(q\mu + (1 - q)\,\alpha'), \qquad d \sim \mathrm{Bernoulli}(q), \; q = 1 - p

    Source: arXiv 1706.02515, section "New dropout technique". Differs from ``torch.nn.AlphaDropout``: the mean and
    variance to keep, and the SELU whose bound is taken, can be chosen. The paper advises p of 0.05 to 0.1.

    Args:
        p: probability of dropping a unit, in [0, 1).
        mean: mean :math:`\mu` to keep.
        var: variance :math:`\nu` to keep, above 0.
        alpha: parameter :math:`\alpha` of the preceding SELU.
        scale: parameter :math:`\lambda` of the preceding SELU; :math:`\alpha' = -\lambda\alpha`.

    Shape:
        input (*) -> output (*)

    Raises:
        ValueError: if ``p`` is not in [0, 1), or ``var`` not above 0.

    Example:
        >>> y = AlphaDropout(0.1)(torch.randn(100_000))
        >>> abs(float(y.mean())) < 0.02, abs(float(y.var()) - 1) < 0.02
        (True, True)
    """

    def __init__(
        self,
        p: float = 0.05,
        mean: float = 0.0,
        var: float = 1.0,
        alpha: float = SELU_ALPHA,
        scale: float = SELU_SCALE,
    ) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"p is {p}; it must be a probability in [0, 1)")
        if not var > 0:
            raise ValueError(f"var is {var}; it must be above 0")
        self.p, self.dropped = p, -alpha * scale
        q = 1 - p
        self.gain = (var / (q * (p * (self.dropped - mean) ** 2 + var))) ** 0.5
        self.shift = mean - self.gain * (q * mean + p * self.dropped)

    def forward(self, x: Tensor) -> Tensor:
        """Return the input with units dropped in training, and as it is in evaluation."""
        if not self.training or self.p == 0:
            return x
        kept = torch.rand_like(x) >= self.p
        return self.gain * torch.where(kept, x, self.dropped) + self.shift

    def extra_repr(self) -> str:
        """Return the probability, for printing."""
        return f"p={self.p:g}"
