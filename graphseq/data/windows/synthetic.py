"""Synthetic panels in which the future of one variable can be read only from the past of another."""

from typing import Unpack

import torch
from torch import Generator, Tensor

from graphseq.data.windows.files import SeriesTable
from graphseq.data.windows.module import WindowDataModule, WindowOptions

__all__ = ["DriverPanelDataModule", "driver_panel"]


def driver_panel(
    num_series: int,
    steps: int,
    lag: int = 4,
    *,
    num_drivers: int = 2,
    noise: float = 0.1,
    level: float = 6.0,
    generator: Generator | None = None,
) -> Tensor:
    r"""Generate panels of autoregressive drivers, each with a follower that repeats it some steps later.

    .. math:: d_t = 0.5\, d_{t-1} + \epsilon_t, \qquad f_t = d_{t-\mathrm{lag}} + \mathrm{noise} \cdot \eta_t

    With a horizon of at most ``lag`` steps, the future of a follower is in the window of its driver, and not in its
    own. ``level`` is added to all values.

    Args:
        num_series: number S of series, at least 1.
        steps: number of steps, at least 1.
        lag: steps between a driver and its follower, at least 1.
        num_drivers: number of drivers, at least 1; there are twice as many variables, the drivers first.
        noise: standard deviation of the noise of followers, at least 0.
        level: constant that is added to all values.
        generator: source of the random numbers; None for torch's own.

    Returns:
        values float32 (S, steps, 2 x num_drivers).

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> panel = driver_panel(3, 50, lag=4, noise=0.0)
        >>> torch.equal(panel[:, 4:, 2], panel[:, :-4, 0])
        True
    """
    for name, value in (("num_series", num_series), ("steps", steps), ("lag", lag), ("num_drivers", num_drivers)):
        if value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 1")
    if noise < 0:
        raise ValueError(f"noise is {noise}; it must be at least 0")
    drawn = torch.randn(num_series, lag + steps + 50, num_drivers, generator=generator)  # 50 steps to forget the start
    driver = torch.zeros_like(drawn)
    for step in range(1, drawn.shape[1]):
        driver[:, step] = 0.5 * driver[:, step - 1] + drawn[:, step]
    follower = driver[:, 50 : 50 + steps]
    follower = follower + noise * torch.randn(follower.shape, generator=generator)
    return torch.cat([driver[:, 50 + lag :], follower], 2) + level


class DriverPanelDataModule(WindowDataModule):
    """Windows of :func:`driver_panel`: the future of half of the variables stands in the past of the other half.

    Args:
        num_series: number S of series, at least 1.
        steps: number of steps, at least ``window + horizon`` in each split.
        lag: steps between a driver and its follower, at least 1.
        num_drivers: number of drivers, at least 1.
        noise: standard deviation of the noise of followers, at least 0.
        level: constant that is added to all values.
        options: further arguments of :class:`WindowDataModule`.

    Yields:
        :class:`graphseq.core.WindowBatch` with x (B, S, T, 2 x num_drivers).

    Example:
        >>> DriverPanelDataModule(steps=200).variable_names
        ['driver 0', 'driver 1', 'follower 0', 'follower 1']
    """

    def __init__(
        self,
        *,
        num_series: int = 64,
        steps: int = 400,
        lag: int = 4,
        num_drivers: int = 2,
        noise: float = 0.1,
        level: float = 6.0,
        **options: Unpack[WindowOptions],
    ) -> None:
        options.setdefault("window", 8)
        options.setdefault("horizon", 4)
        super().__init__(**options)
        self._panel = {"num_series": num_series, "steps": steps, "lag": lag, "num_drivers": num_drivers}
        self._noise, self._level = noise, level
        driver_panel(1, 1, lag, num_drivers=num_drivers, noise=noise)

    def series(self) -> SeriesTable:
        """Return the panel that the seed gives."""
        drivers = self._panel["num_drivers"]
        values = driver_panel(
            **self._panel, noise=self._noise, level=self._level, generator=Generator().manual_seed(self.seed)
        )
        names = [f"{kind} {number}" for kind in ("driver", "follower") for number in range(drivers)]
        return SeriesTable(values, [f"series {number}" for number in range(len(values))], names)
