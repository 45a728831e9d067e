"""Networks that read windows relative to their own values, so that they can follow trends beyond their training."""

from typing import Literal

import torch
from torch import Tensor, nn

from graphseq.core.spec import Recorded
from graphseq.models.forecast.least_squares import LeastSquaresForecaster

__all__ = ["DifferencedWindows", "NormalizedWindows"]


class NormalizedWindows(Recorded, nn.Module):
    r"""A network that reads each window relative to its own level and, optionally, to its own spread.

    .. math:: y = \mu + \sigma f\bigl((x - \mu) / \sigma\bigr)

    Level :math:`\mu` and spread :math:`\sigma` are those of each variable of each series in each window, so that no
    value from outside the window is used. It lets a network follow trends beyond the range of its training.

    Source: arXiv 2205.13504 (last value). Mean and deviation are reversible instance normalisation without its learned
    scale and shift.

    Args:
        network: network from windows to forecasts of all variables.
        level: level that is subtracted: the ``last`` value or the ``mean``.
        spread: whether to divide by the standard deviation of the window.

    Shape:
        x (B, S, T, V) -> (B, S, Z, V)

    Raises:
        ValueError: if ``level`` is unknown; in a forward pass, if the network predicts other variables than it reads.
        TypeError: if the network is solved in closed form, since that would use the original windows.

    Example:
        >>> from graphseq.models import NLinear
        >>> NormalizedWindows(NLinear(8, 4), level="mean", spread=True)(torch.randn(2, 5, 8, 3)).shape
        torch.Size([2, 5, 4, 3])
    """

    def __init__(self, network: nn.Module, level: Literal["last", "mean"] = "last", spread: bool = False) -> None:
        super().__init__()
        if level not in ("last", "mean"):
            raise ValueError(f"level is {level!r}; it must be 'last' or 'mean'")
        _refuse_closed_forms(network)
        self.network = network
        self.level = level
        self.spread = spread

    def forward(self, x: Tensor) -> Tensor:
        """Return the forecast of the steps after a window.

        Args:
            x: past values (B, S, T, V).
        """
        level = x[..., -1:, :] if self.level == "last" else x.mean(-2, keepdim=True)
        scale = x.std(-2, keepdim=True, correction=0).clamp(min=1e-5) if self.spread else 1.0
        return level + scale * _predicted(self.network, (x - level) / scale)


class DifferencedWindows(Recorded, nn.Module):
    r"""A network that reads the changes from step to step, and whose forecasts of them are added up.

    .. math::
        d_1 = 0,\ d_t = x_t - x_{t-1}, \qquad y_h = x_T + \sigma \sum_{i \le h} f(d / \sigma)_i

    A constant forecast of the changes is a straight line, so that a network needs to learn only how a trend bends. The
    spread :math:`\sigma` is the mean absolute change of each variable of each series in each window, and a window
    without change is predicted to stay as it is; no value from outside the window is used.

    Source: Box and Jenkins, "Time Series Analysis" (1970): differencing of a series that is not stationary.

    Args:
        network: network from windows to forecasts of all variables.
        spread: whether to divide by the mean absolute change of the window; else :math:`\sigma = 1`.

    Shape:
        x (B, S, T, V) -> (B, S, Z, V)

    Raises:
        ValueError: in a forward pass, if the window has a single step, or the network predicts other variables than it
            reads.
        TypeError: if the network is solved in closed form, since that would use the original windows.

    Example:
        >>> from graphseq.models import Persistence
        >>> line = torch.arange(4.0).view(1, 1, 4, 1)
        >>> DifferencedWindows(Persistence(3), spread=True)(line).flatten()
        tensor([4., 5., 6.])
    """

    def __init__(self, network: nn.Module, spread: bool = False) -> None:
        super().__init__()
        _refuse_closed_forms(network)
        self.network = network
        self.spread = spread

    def forward(self, x: Tensor) -> Tensor:
        """Return the forecast of the steps after a window.

        Args:
            x: past values (B, S, T, V).
        """
        if x.shape[-2] < 2:
            raise ValueError(f"the window has {x.shape[-2]} step; changes need at least 2")
        changes = x.diff(dim=-2)  # (B, S, T - 1, V)
        scale = changes.abs().mean(-2, keepdim=True) if self.spread else torch.ones_like(x[..., :1, :])
        # the network was built for the window: the change of its first step, which is not in it, counts as 0
        changes = torch.cat([torch.zeros_like(x[..., :1, :]), changes / scale.where(scale > 0, 1.0)], -2)
        return x[..., -1:, :] + scale * _predicted(self.network, changes).cumsum(-2)


def _refuse_closed_forms(network: nn.Module) -> None:
    """Raise ``TypeError`` for a network that would be solved for windows that it never reads."""
    if isinstance(network, LeastSquaresForecaster):
        raise TypeError(
            "network is a LeastSquaresForecaster, which is solved on the original windows; give a network that is "
            "trained by gradient descent"
        )


def _predicted(network: nn.Module, x: Tensor) -> Tensor:
    """Return the output of a network, which must predict all variables that it reads."""
    y: Tensor = network(x)
    if y.shape[-1] != x.shape[-1]:
        raise ValueError(f"{type(network).__name__} predicts {y.shape[-1]} of {x.shape[-1]} variables; all are needed")
    return y
