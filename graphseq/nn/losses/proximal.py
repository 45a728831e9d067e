"""Proximal matching: the loss whose minimiser is the proximal operator of the data's negative log-density."""

import math

import torch
from torch import Tensor, nn

from graphseq.core import Recorded

__all__ = ["ProximalMatchingLoss"]


class ProximalMatchingLoss(Recorded, nn.Module):
    r"""Loss that rewards estimates close to the target, and is bounded for all others.

    .. math:: L_\gamma = \frac{1}{B} \sum_b \bigl(1 - \exp(-\lVert f(y_b) - x_b \rVert^2 / \gamma^2)\bigr)

    The norm is that of a whole sample. Its best estimate is the mode of the posterior as :math:`\gamma \to 0`, which is
    the proximal operator of :math:`-\sigma^2 \log p` at noise :math:`\sigma`; the best estimate of the squared error is
    the mean, that of the absolute error the median. For large :math:`\gamma` it is the squared error over
    :math:`\gamma^2`; for small ones nearly all gradients vanish, so that training begins with the mean absolute error
    and larger :math:`\gamma`: see :class:`graphseq.callbacks.ProximalAnnealing`, which sets :attr:`training_gamma`.
    Evaluation always uses ``gamma``, so that validation losses can be compared over a training.

    Source: arXiv 2310.14344, eq. 3.2. Differs from the paper: none known; its factor that makes the kernel a density
    is left out, as in the authors' code.

    Args:
        gamma: width :math:`\gamma`, above 0, in units of the norm of a sample; the authors take 0.1 for numbers and
            0.08 times the root of the number of values for images.

    Shape:
        prediction (B, *), target (B, *) -> scalar, float32 or wider

    Raises:
        ValueError: if ``gamma`` is not above 0, or shapes differ.
        TypeError: if the tensors are not real.

    Example:
        >>> loss = ProximalMatchingLoss(gamma=1.0)
        >>> loss(torch.zeros(2, 3), torch.tensor([[0.0, 0.0, 0.0], [9.0, 9.0, 9.0]]))
        tensor(0.5000)
    """

    def __init__(self, gamma: float = 0.1) -> None:
        super().__init__()
        if not 0 < gamma < math.inf:
            raise ValueError(f"gamma is {gamma}; it must be above 0 and finite")
        self.gamma = gamma
        self.training_gamma: float | None = gamma
        """Width in training; None for the mean absolute error over all values."""

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss of the samples.

        Args:
            prediction: estimates f(y).
            target: clean samples x.
        """
        if prediction.shape != target.shape or prediction.dim() < 2:
            raise ValueError(
                f"prediction is {tuple(prediction.shape)} and target {tuple(target.shape)}; both must be (B, *): norms "
                "are those of whole samples, so that no value of a target can be missing"
            )
        if not (prediction.is_floating_point() and target.is_floating_point()):
            raise TypeError(f"prediction is {prediction.dtype} and target {target.dtype}; both must be real")
        wide = torch.promote_types(prediction.dtype, torch.float32)
        error = (prediction.to(wide) - target.to(wide)).flatten(1)  # (B, n)
        gamma = self.training_gamma if self.training else self.gamma
        if gamma is None:
            return error.abs().mean()
        return -torch.expm1(-error.square().sum(1) / gamma**2).mean()

    def extra_repr(self) -> str:
        """Return the width."""
        return f"gamma={self.gamma:g}"
