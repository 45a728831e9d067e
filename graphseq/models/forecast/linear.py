"""Linear forecasting networks trained by gradient descent, and exponential smoothing."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphseq.core.spec import Recorded

__all__ = ["DLinear", "ExponentialSmoothing", "NLinear"]


def _check_sizes(**sizes: int) -> None:
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 1")


class NLinear(Recorded, nn.Module):
    r"""One linear map from past to future steps, relative to the last value; shared by all series and variables.

    .. math:: y = x_T + W (x - x_T) + b

    Source: arXiv 2205.13504. Differs from the paper: none known.

    Args:
        window: number of steps T that are read, at least 1.
        horizon: number of steps Z to predict, at least 1.

    Shape:
        x (B, S, T, V) -> (B, S, Z, V)

    Example:
        >>> NLinear(window=8, horizon=4)(torch.randn(2, 5, 8, 3)).shape
        torch.Size([2, 5, 4, 3])
    """

    def __init__(self, window: int, horizon: int) -> None:
        super().__init__()
        _check_sizes(window=window, horizon=horizon)
        self.linear = nn.Linear(window, horizon)

    def forward(self, x: Tensor) -> Tensor:
        """Return the forecast of the steps after a window.

        Args:
            x: past values (B, S, T, V).
        """
        last = x[..., -1:, :]
        return last + self.linear((x - last).transpose(-1, -2)).transpose(-1, -2)


class DLinear(Recorded, nn.Module):
    r"""Two linear maps, of the moving average of a window and of what remains; shared by all series and variables.

    .. math:: y = W_m m + b_m + W_r (x - m) + b_r, \qquad m = \mathrm{MovingAverage}(x)

    The moving average repeats the first and last value beyond the window.

    Source: arXiv 2205.13504. Differs from the paper: none known.

    Args:
        window: number of steps T that are read, at least 1.
        horizon: number of steps Z to predict, at least 1.
        kernel_size: number of steps of the moving average, odd.

    Shape:
        x (B, S, T, V) -> (B, S, Z, V)

    Raises:
        ValueError: if a size is out of range, or ``kernel_size`` is even.

    Example:
        >>> DLinear(window=8, horizon=4, kernel_size=5)(torch.randn(2, 5, 8, 3)).shape
        torch.Size([2, 5, 4, 3])
    """

    def __init__(self, window: int, horizon: int, kernel_size: int = 25) -> None:
        super().__init__()
        _check_sizes(window=window, horizon=horizon, kernel_size=kernel_size)
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size is {kernel_size}; it must be odd, so that the average is centred")
        self.kernel_size = kernel_size
        self.average = nn.Linear(window, horizon)
        self.remainder = nn.Linear(window, horizon)

    def forward(self, x: Tensor) -> Tensor:
        """Return the forecast of the steps after a window.

        Args:
            x: past values (B, S, T, V).
        """
        rows = x.transpose(-1, -2)  # (B, S, V, T)
        padded = functional.pad(rows.flatten(0, -3), (self.kernel_size // 2,) * 2, mode="replicate")
        average = functional.avg_pool1d(padded, self.kernel_size, stride=1).view(rows.shape)
        return (self.average(average) + self.remainder(rows - average)).transpose(-1, -2)


class ExponentialSmoothing(Recorded, nn.Module):
    r"""Damped linear exponential smoothing with learned rates, shared by all series and variables (Holt's method).

    .. math::
        l_t &= \alpha x_t + (1 - \alpha)(l_{t-1} + \phi b_{t-1}), \qquad
        b_t = \beta (l_t - l_{t-1}) + (1 - \beta) \phi b_{t-1} \\
        y_h &= l_T + (\phi + \dots + \phi^h)\, b_T, \qquad l_1 = x_1,\ b_1 = x_2 - x_1

    Level and trend are linear in the window; their weights are computed from the rates alone, and a forecast is one
    product with them.

    Source: Hyndman and Athanasopoulos, "Forecasting: Principles and Practice", section 8.2.

    Args:
        window: number of steps T that are read, at least 2.
        horizon: number of steps Z to predict, at least 1.

    Shape:
        x (B, S, T, V) -> (B, S, Z, V)

    Raises:
        ValueError: if a size is out of range.

    Example:
        >>> ExponentialSmoothing(window=8, horizon=4)(torch.randn(2, 5, 8, 3)).shape
        torch.Size([2, 5, 4, 3])
    """

    def __init__(self, window: int, horizon: int) -> None:
        super().__init__()
        _check_sizes(window=window - 1, horizon=horizon)
        self.window, self.horizon = window, horizon
        self.logits = nn.Parameter(torch.empty(3))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the rates to 0.5 (level), 0.1 (trend) and 0.9 (damping)."""
        with torch.no_grad():
            self.logits.copy_(torch.tensor([0.5, 0.1, 0.9]).logit())

    @property
    def rates(self) -> Tensor:
        """Rates of level and trend and the damping, each in (0, 1), (3,)."""
        return self.logits.sigmoid()

    def weights(self) -> Tensor:
        """Return the weight of each past step in each forecast, (Z, T)."""
        alpha, beta, phi = self.rates
        one = torch.ones_like(alpha)
        # (level, trend) <- move @ (level, trend) + gain * x
        move = torch.stack([1 - alpha, (1 - alpha) * phi, -alpha * beta, (1 - alpha * beta) * phi]).view(2, 2)
        gain = torch.stack([alpha, alpha * beta])
        # weights of the state on the window, built back from its last step: T products of 2 x 2 matrices
        columns, power = [], torch.eye(2, dtype=alpha.dtype, device=alpha.device)
        for _ in range(self.window - 1):
            columns.append(power @ gain)
            power = power @ move
        start = power @ torch.stack([torch.stack([one, 0 * one]), torch.stack([-one, one])])  # of x_1 and x_2
        rows = [start[:, 0], *reversed(columns)]
        rows[1] = rows[1] + start[:, 1]
        damped = phi ** torch.arange(1, self.horizon + 1, device=phi.device, dtype=phi.dtype)
        read = torch.stack([torch.ones_like(damped), damped.cumsum(0)], 1)  # (Z, 2)
        return read @ torch.stack(rows, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the forecast of the steps after a window.

        Args:
            x: past values (B, S, T, V).
        """
        if x.shape[-2] != self.window:
            raise ValueError(f"x is {tuple(x.shape)}; it must have {self.window} steps, the window of the network")
        return self.weights() @ x
