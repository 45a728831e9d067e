"""Rectified activations with a learned correction, or with a threshold."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphseq.core.spec import Recorded

__all__ = ["CRReLU", "FATReLU", "SquaredReLU"]


class CRReLU(Recorded, nn.Module):
    r"""ReLU with a learned, vanishing correction around zero.

    .. math:: y = \max(0, x) + \varepsilon\, x\, e^{-x^2 / 2}

    With a positive :math:`\varepsilon` there is a dip of :math:`-\varepsilon e^{-1/2}` at x = -1, so that units whose
    inputs are a little below zero still have a gradient; with 0 it is ReLU. Weight decay would take
    :math:`\varepsilon` to 0: tasks exempt it, in a training loop of your own put it into a parameter group without
    weight decay.

    Source: arXiv 2405.12954, eq. 12, as in public implementations. Differs from it: none known.

    Args:
        epsilon: :math:`\varepsilon` at the start, a finite number; it is learned, one for the module.

    Shape:
        x (*) -> y (*)

    Raises:
        ValueError: if ``epsilon`` is not finite; in ``forward`` if the inputs are integers.

    Example:
        >>> y = CRReLU(0.5)(torch.tensor([-1.0, 0.0, 1.0]))
        >>> [round(value, 4) for value in y.tolist()]
        [-0.3033, 0.0, 1.3033]
    """

    undecayed = ("epsilon",)

    def __init__(self, epsilon: float = 0.01) -> None:
        super().__init__()
        if not -float("inf") < epsilon < float("inf"):
            raise ValueError(f"epsilon is {epsilon}; give a finite number")
        self.start = epsilon
        self.epsilon = nn.Parameter(torch.tensor(float(epsilon)))

    def reset_parameters(self) -> None:
        """Set epsilon to its value at the start."""
        nn.init.constant_(self.epsilon, self.start)

    def forward(self, x: Tensor) -> Tensor:
        """Return the activation of each entry.

        Args:
            x: inputs (*).
        """
        if not x.is_floating_point():  # epsilon would become 0
            raise ValueError(f"inputs are {x.dtype}; real numbers are needed: call x.float()")
        return functional.relu(x) + self.epsilon.to(x.dtype) * x * torch.exp(-0.5 * x.square())

    def extra_repr(self) -> str:
        """Return epsilon at the start."""
        return f"epsilon={self.start:g}"


class FATReLU(Recorded, nn.Module):
    r"""ReLU that also sets small positive entries to zero.

    .. math:: y = x\,[x \ge T]

    The gradient is 1 from the threshold on, and 0 below it.

    Source: Kurtz et al., ICML 2020, section 3; arXiv 2402.13516, section 3.2, uses it after training. Differs from
    them: an entry at the threshold is kept.

    Args:
        threshold: T, at least 0. Its scale is that of the activations: 0.01 belongs to large language models.

    Shape:
        x (*) -> y (*)

    Raises:
        ValueError: if ``threshold`` is negative or not finite.

    Example:
        >>> FATReLU(0.5)(torch.tensor([-1.0, 0.4, 0.5, 2.0])).tolist()
        [0.0, 0.0, 0.5, 2.0]
    """

    def __init__(self, threshold: float = 0.01) -> None:
        super().__init__()
        if not 0 <= threshold < float("inf"):
            raise ValueError(f"threshold is {threshold}; it must be a finite number of at least 0")
        self.threshold = threshold

    def forward(self, x: Tensor) -> Tensor:
        """Return the activation of each entry.

        Args:
            x: inputs (*).
        """
        # so written, NaN stays NaN, as in ReLU
        return torch.where(x < self.threshold, 0.0, x) if self.threshold else functional.relu(x)

    def extra_repr(self) -> str:
        """Return the threshold."""
        return f"threshold={self.threshold:g}"


class SquaredReLU(Recorded, nn.Module):
    r"""Square of the rectified input.

    .. math:: y = \max(0, x)^2

    Source: arXiv 2109.08668, section 4. Differs from it: none.

    Shape:
        x (*) -> y (*)

    Example:
        >>> SquaredReLU()(torch.tensor([-1.0, 3.0])).tolist()
        [0.0, 9.0]
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return the activation of each entry.

        Args:
            x: inputs (*).
        """
        return functional.relu(x).square()
