"""Focal losses of masks, for real and for complex logits."""

from collections.abc import Callable
from typing import Literal, get_args

from torch import Tensor, nn

from graphseq.core import Recorded
from graphseq.ops.losses.focal import complex_focal_loss, focal_loss

__all__ = ["ComplexFocalLoss", "FocalLoss"]

Reduction = Literal["mean", "sum", "none"]


class FocalLoss(Recorded, nn.Module):
    r"""Binary focal loss of real logits, which lowers the weight of entries that are classified well.

    .. math:: L = \alpha\, (1 - p_t)^\gamma\, (-\log p_t), \qquad p_t = \sigma(z)\,m + (1 - \sigma(z))(1 - m)

    Source: arXiv 1708.02002, eq. 4. Differs from it: :math:`\alpha` scales both classes alike.

    Args:
        alpha: factor, above 0.
        gamma: exponent, at least 0; 0 gives binary cross-entropy.
        reduction: ``mean``, ``sum``, or ``none`` for the loss of each entry.

    Shape:
        logits (*) real, target (*) of 0 and 1 -> () or (*)

    Raises:
        ValueError: if an argument is out of range; in ``forward`` if the shapes differ.
        TypeError: in ``forward``, if the logits are complex.

    Example:
        >>> import torch
        >>> FocalLoss(gamma=0)(torch.zeros(2, 3), torch.ones(2, 3))
        tensor(0.6931)
    """

    _each: Callable[[Tensor, Tensor, float, float], Tensor] = staticmethod(focal_loss)

    def __init__(self, alpha: float = 1.0, gamma: float = 2.0, reduction: Reduction = "mean") -> None:
        super().__init__()
        if not (0 < alpha < float("inf") and 0 <= gamma < float("inf")):
            raise ValueError(f"alpha is {alpha} and gamma {gamma}; alpha must be above 0 and gamma at least 0")
        if reduction not in get_args(Reduction):
            raise ValueError(f"reduction is {reduction!r}; it must be 'mean', 'sum' or 'none'")
        self.alpha, self.gamma, self.reduction = alpha, gamma, reduction

    def extra_repr(self) -> str:
        """Return the arguments for ``repr``."""
        return f"alpha={self.alpha:g}, gamma={self.gamma:g}, reduction={self.reduction!r}"

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss.

        Args:
            logits: logits, before the sigmoid.
            target: 0 or 1, of the same shape.
        """
        each = self._each(logits, target, self.alpha, self.gamma)
        return each if self.reduction == "none" else each.mean() if self.reduction == "mean" else each.sum()


class ComplexFocalLoss(FocalLoss):
    r"""Mean of the focal losses of the real and of the imaginary part of complex logits (CFL).

    .. math:: L = \tfrac12 \bigl(\mathrm{FL}(\operatorname{Re} z, m) + \mathrm{FL}(\operatorname{Im} z, m)\bigr)

    Both parts are to give the mask; with ``gamma=0`` it is the mean of their binary cross-entropies.

    Source: arXiv 2506.11048. Differs from the paper: none in the formula; the two published pairs of constants,
    :math:`\alpha = 1, \gamma = 2` and :math:`\alpha = 3, \gamma = 1`, disagree, and the first is the default.

    Args:
        alpha: factor, above 0.
        gamma: exponent, at least 0.
        reduction: ``mean``, ``sum``, or ``none`` for the loss of each entry.

    Shape:
        logits (*) complex, target (*) of 0 and 1 -> () or (*)

    Raises:
        ValueError: if an argument is out of range; in ``forward`` if the shapes differ.
        TypeError: in ``forward``, if the logits are real.

    Example:
        >>> import torch
        >>> ComplexFocalLoss(gamma=0)(torch.zeros(2, 3, dtype=torch.complex64), torch.ones(2, 3))
        tensor(0.6931)
    """

    _each = staticmethod(complex_focal_loss)
