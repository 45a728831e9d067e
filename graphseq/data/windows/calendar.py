"""Covariates that a calendar gives for every step, past and future."""

import math
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

__all__ = ["calendar_covariates"]

Cycle = Literal["hour", "weekday", "day", "month"]


def calendar_covariates(times: np.ndarray, cycles: Sequence[Cycle]) -> Tensor:
    r"""Return the position of each time in cycles of the calendar, each as a point on the unit circle.

    .. math:: (\sin 2\pi p, \cos 2\pi p), \quad p \in [0, 1) \text{ the share of the cycle that has passed}

    Args:
        times: times, ``datetime64`` (steps,), in UTC.
        cycles: cycles: ``hour`` (of the day), ``weekday``, ``day`` (of a month of 31 days) and ``month``.

    Returns:
        covariates float32 (steps, 2 x cycles).

    Raises:
        ValueError: if a cycle is unknown.

    Example:
        >>> calendar_covariates(np.array(["2024-01-01T06:00"], dtype="datetime64[s]"), ["hour"]).round(decimals=3).abs()
        tensor([[1., 0.]])
    """
    unknown = [cycle for cycle in cycles if cycle not in get_args(Cycle)]
    if unknown:
        raise ValueError(f"cycles has {unknown}; each must be one of {', '.join(get_args(Cycle))}")
    seconds, days = times.astype("datetime64[s]"), times.astype("datetime64[D]")
    months = times.astype("datetime64[M]")
    passed = {
        "hour": (seconds - days).astype(np.float64) / 86400,
        "weekday": ((days.astype(np.int64) + 3) % 7) / 7,  # 1970-01-01 was a Thursday
        "day": (days - months.astype("datetime64[D]")).astype(np.float64) / 31,
        "month": (months.astype(np.int64) % 12) / 12,
    }
    angles = torch.from_numpy(np.stack([passed[cycle] for cycle in cycles], 1)) * (2 * math.pi)
    return torch.stack([angles.sin(), angles.cos()], 2).flatten(1).float()


def times_after(times: np.ndarray, count: int) -> np.ndarray:
    """Return the times of the steps that follow a series, at its spacing; months, quarters and years as such.

    Args:
        times: times of the series, ``datetime64`` (steps,).
        count: number of steps.

    Example:
        >>> times_after(np.array(["2024-01-31", "2024-02-01"], dtype="datetime64[D]"), 2).astype(str).tolist()
        ['2024-02-02', '2024-02-03']
    """
    if len(times) < 2:
        return np.repeat(times, count)
    spacing, number = times[-1] - times[-2], np.arange(1, count + 1)
    months = times.astype("datetime64[M]")
    within = times - months.astype(times.dtype)
    if spacing >= np.timedelta64(28, "D") and bool((within == within[0]).all()):
        return (months[-1] + number * (months[-1] - months[-2])).astype(times.dtype) + within[0]
    return times[-1] + number * spacing
