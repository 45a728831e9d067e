"""How the time of a training step of ReGENN grows with windows, series and time steps.

A step is forward pass, absolute error, gradients and Adam on random numbers, of ReGENN with both evolutions, gate,
sequencer and autoregression (4 variables; feed-forward part 128 wide). ``ours`` alternates with ``base``, the same step
at the smallest size of the sweep, and the exponent is the slope of a line through the logarithms of size and time:

* *windows*: windows in a batch, each of 32 series, a window of 8 and a horizon of 4 steps; attention between series.
* *series*: series in each of two windows; attention between variables.
* *series, attended*: the same with attention between series, the default, which compares each pair of them.
* *steps*: steps of the window, with a horizon of half as many, two windows of 32 series; no attention.

The time map (T x T) and the gate (T x Z) have as many weights as pairs of steps, so that long windows cost more than in
proportion; at the sizes that occur this is a small part.

Rule: the exponents of *windows*, *series* and *steps* are at most 1.1; that of *series, attended* is reported.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch

from graphseq.bench import Call, Row, Scale, Setting, Speed
from graphseq.bench.experiment import Check
from graphseq.bench.speeds.loops import train_steps
from graphseq.bench.speeds.timing import exhaust
from graphseq.models import ReGENN

__all__ = ["speed"]

_BASE = {"windows": 2, "series": 64, "series, attended": 64, "steps": 16}
_FACTORS = {"quick": (2, 4), "default": (2, 4, 8), "full": (2, 4, 8, 16)}
_CLAIMED = ("windows", "series", "steps")
_VARIABLES, _BOUND = 4, 1.1


def _cases(scale: Scale) -> list[Row]:
    return [
        {"sweep": sweep, "size": base * factor, "base": base}
        for sweep, base in _BASE.items()
        for factor in _FACTORS[scale]
    ]


def _step(sweep: str, size: int, device: str) -> Call:
    """Return a training step of a network at one size of a sweep."""
    torch.manual_seed(0)
    windows = size if sweep == "windows" else 2
    series = size if sweep.startswith("series") else 32
    window = size if sweep == "steps" else 8
    attention: Any = {"series": "variables", "steps": None}.get(sweep, "series")
    network = ReGENN(_VARIABLES, window, window // 2, attention=attention, feedforward_size=128).to(device)
    optimizer = torch.optim.Adam(network.parameters())
    x = torch.randn(windows, series, window, _VARIABLES, device=device)
    y = torch.randn(windows, series, window // 2, _VARIABLES, device=device)
    return lambda: exhaust(train_steps([x], lambda batch: (network(batch) - y).abs().mean(), optimizer))


def _of(case: Row, setting: Setting, side: str) -> Call:
    return _step(case["sweep"], case[side], setting.device)


def exponent(rows: Sequence[Row]) -> float:
    """Return the slope of the least squares line through the logarithms of size and time, relative to the base.

    Args:
        rows: rows of one sweep.
    """
    # the base itself is the point (0, 0)
    sizes = [0.0, *(math.log(row["size"] / row["base"]) for row in rows)]
    times = [0.0, *(-math.log(row["ratio"]["ours/base"]["median"]) for row in rows)]
    size, time = sum(sizes) / len(sizes), sum(times) / len(times)
    around = [(s - size, t - time) for s, t in zip(sizes, times, strict=True)]
    return sum(s * t for s, t in around) / sum(s * s for s, _ in around)


def linear(rows: Sequence[Row]) -> list[Check]:
    """Return the check of the exponent of each sweep that is claimed to be linear.

    Args:
        rows: rows of the cases that ran.
    """
    checks = []
    for sweep in _CLAIMED:
        measured = [row for row in rows if row["sweep"] == sweep and "ratio" in row]
        if len(measured) > 1:
            value = exponent(measured)
            checks.append(Check(f"exponent of the time of a step in {sweep}", value, _BOUND, value <= _BOUND))
    return checks


def in_words(rows: Sequence[Row]) -> str:
    """Return the exponents of all sweeps.

    Args:
        rows: rows of the cases that ran.
    """
    found = {sweep: [row for row in rows if row["sweep"] == sweep and "ratio" in row] for sweep in _BASE}
    parts = [f"{exponent(some):.2f} in {sweep}" for sweep, some in found.items() if some]
    return f"the time of a step grows with the power {', '.join(parts)}" if parts else ""


speed = Speed(
    name="speed.regenn_step",
    protocol=__doc__,
    cases=_cases,
    prepare=lambda case, setting: (case, setting),
    contenders={
        "ours": lambda subject: _of(*subject, "size"),
        "base": lambda subject: _of(*subject, "base"),
    },
    equal=lambda subject, calls: {"difference": None},
    rounds={"quick": 3, "default": 9, "full": 21},
    seconds={"quick": 0.01, "default": 0.1, "full": 0.3},
    finding=in_words,
    claims=[linear],
)
