"""Forecasts without training, as baselines."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from graphseq.core.spec import Recorded

__all__ = ["Drift", "Persistence", "SeasonalNaive"]


def checked_targets(targets: Sequence[int] | None, num_variables: int | None = None) -> list[int] | None:
    """Return the positions of variables to predict as a list, all of them where they are None and can be counted.

    Args:
        targets: positions, from 0, each once; None for all.
        num_variables: number of variables that are read; None if it is not known.

    Raises:
        ValueError: if there is no position, one is given twice, or one is out of range.

    Example:
        >>> checked_targets(None, 2), checked_targets([1], 2)
        ([0, 1], [1])
    """
    if targets is None:
        return None if num_variables is None else list(range(num_variables))
    chosen = list(targets)
    most = max(chosen, default=0) if num_variables is None else num_variables - 1
    if not chosen or len(set(chosen)) < len(chosen) or not 0 <= min(chosen) <= max(chosen) <= most:
        limit = "" if num_variables is None else f" to {most}"
        raise ValueError(f"targets is {chosen}; give positions of variables from 0{limit}, at least one and each once")
    return chosen


class _Naive(Recorded, nn.Module):
    """Base of forecasts that repeat past values.

    Args:
        horizon: number of steps Z to predict, at least 1.
        targets: positions of the variables to predict; None for all.

    Raises:
        ValueError: if ``horizon`` is below 1, or a target is negative or given twice.
    """

    def __init__(self, horizon: int, targets: Sequence[int] | None = None) -> None:
        super().__init__()
        if horizon < 1:
            raise ValueError(f"horizon is {horizon}; it must be at least 1")
        self.horizon = horizon
        self.targets = checked_targets(targets)

    def chosen(self, x: Tensor) -> Tensor:
        """Return the variables to predict, (*, T, K).

        Args:
            x: past values (*, T, V).
        """
        everything = self.targets is None or self.targets == list(range(x.shape[-1]))
        return x if everything else x[..., self.targets]


class Persistence(_Naive):
    r"""Forecast of the last value for all steps, :math:`f_{t+h} = x_t`.

    Where values are missing it is the last one that was observed, or the value of the last step, 0, if none was.

    Args:
        horizon: number of steps Z to predict, at least 1.
        targets: positions of the variables to predict; None for all.

    Shape:
        x (B, S, T, V) -> (B, S, Z, K)

    Example:
        >>> Persistence(2)(torch.tensor([1.0, 3.0]).view(1, 1, 2, 1)).flatten()
        tensor([3., 3.])
    """

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the last value for each step.

        Args:
            x: past values (B, S, T, V).
            mask: True where a past value was observed, bool (B, S, T, V); None if all were.
        """
        values = self.chosen(x)
        if mask is None:
            last = values[..., -1:, :]
        else:
            steps = torch.arange(1, x.shape[-2] + 1, device=x.device)[:, None]
            observed = (self.chosen(mask) * steps).amax(-2, keepdim=True)  # number of the step, 0 for none
            last = values.gather(-2, (observed - 1) % x.shape[-2])
        return last.expand(*x.shape[:-2], self.horizon, -1)


class SeasonalNaive(_Naive):
    r"""Forecast of the value one season before, :math:`f_{t+h} = x_{t+h-km}` with the smallest k that is past.

    A missing value counts as 0, as in the windows of a batch, which is the training mean with standard scaling.

    Args:
        horizon: number of steps Z to predict, at least 1.
        season: number of steps m of a season, at least 1 and at most the window.
        targets: positions of the variables to predict; None for all.

    Shape:
        x (B, S, T, V) -> (B, S, Z, K)

    Raises:
        ValueError: if ``season`` is below 1; in a forward pass, if the window is shorter than a season.

    Example:
        >>> SeasonalNaive(3, season=2)(torch.tensor([1.0, 2.0, 3.0]).view(1, 1, 3, 1)).flatten()
        tensor([2., 3., 2.])
    """

    def __init__(self, horizon: int, season: int, targets: Sequence[int] | None = None) -> None:
        super().__init__(horizon, targets)
        if season < 1:
            raise ValueError(f"season is {season}; it must be at least 1")
        self.season = season

    def forward(self, x: Tensor) -> Tensor:
        """Return the values of the last season, repeated.

        Args:
            x: past values (B, S, T, V).
        """
        if x.shape[-2] < self.season:
            raise ValueError(f"the window has {x.shape[-2]} steps, season {self.season}; give a window of one season")
        last = self.chosen(x)[..., -self.season :, :]
        return last[..., torch.arange(self.horizon, device=x.device) % self.season, :]


class Drift(_Naive):
    r"""Forecast of a straight line through the first and the last value of the window.

    .. math:: f_{t+h} = x_t + h\, (x_t - x_{t-T+1}) / (T - 1)

    A missing value counts as 0, as in the windows of a batch, which is the training mean with standard scaling.

    Args:
        horizon: number of steps Z to predict, at least 1.
        targets: positions of the variables to predict; None for all.

    Shape:
        x (B, S, T, V) -> (B, S, Z, K)

    Raises:
        ValueError: in a forward pass, if the window has a single step.

    Example:
        >>> Drift(2)(torch.tensor([1.0, 2.0, 5.0]).view(1, 1, 3, 1)).flatten()
        tensor([7., 9.])
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return the line.

        Args:
            x: past values (B, S, T, V).
        """
        if x.shape[-2] < 2:
            raise ValueError("the window has 1 step; a drift needs at least 2")
        x = self.chosen(x)
        slope = (x[..., -1:, :] - x[..., :1, :]) / (x.shape[-2] - 1)
        steps = torch.arange(1, self.horizon + 1, device=x.device, dtype=x.dtype)[:, None]
        return x[..., -1:, :] + steps * slope
