"""Comparison of sizes with each other: a time for each item that must not depend on how many there are."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graphseq.bench.experiment import Check, Row
from graphseq.bench.speeds.timing import alternate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["ConstantTime", "alternately", "microseconds"]


def alternately(calls: Sequence[Callable[[], object]], rounds: int) -> list[list[float]]:
    """Time calls alternately and return the seconds of each, one entry a round.

    Args:
        calls: calls without arguments, such as the same one at several sizes.
        rounds: number of measurements of each call, at least 1.

    Example:
        >>> [len(seconds) for seconds in alternately([lambda: None, lambda: sum(range(100))], 3)]
        [3, 3]
    """
    return list(alternate({str(place): call for place, call in enumerate(calls)}, rounds).values())


def microseconds(key: str, seconds: Sequence[float], items: int) -> Row:
    """Return the median, the smallest and the largest time of an item in µs, as columns of a line.

    Args:
        key: name of the median; the others end in ``_low`` and ``_high``.
        seconds: seconds of each round.
        items: number of items that a round takes, at least 1.

    Example:
        >>> microseconds("step_us", [3e-6, 1e-6, 2e-6], 1)
        {'step_us': 2.0, 'step_us_low': 1.0, 'step_us_high': 3.0}
    """
    ends = {"": statistics.median(seconds), "_low": min(seconds), "_high": max(seconds)}
    return {key + end: 1e6 * second / items for end, second in ends.items()}


@dataclass(frozen=True)
class ConstantTime:
    """Claim: the largest median time of an item is at most ``bound`` times the smallest, over the sizes of a sweep.

    Each row is one sweep, with a line for each size in ``sizes``.

    Args:
        sweeps: names of the sweeps that count, which are also the column of the size in their lines.
        times: column of each time -> its name in words; :func:`microseconds` makes such columns.
        bound: largest quotient, above 1.
        item: what the times are of, with its article, such as ``an event``.

    Raises:
        ValueError: if ``bound`` is not above 1.

    Example:
        >>> claim = ConstantTime(["nodes"], {"step_us": "steps"}, 1.5, "an event")
        >>> sizes = [{"nodes": 10, "step_us": 2.0}, {"nodes": 1000, "step_us": 2.4}]
        >>> claim([{"sweep": "nodes", "sizes": sizes}])[0].claim
        'steps: time of an event is constant within 1.5 from 10 to 1,000 nodes'
    """

    sweeps: Sequence[str]
    times: Mapping[str, str]
    bound: float
    item: str

    def __post_init__(self) -> None:
        if not self.bound > 1:
            raise ValueError(f"bound is {self.bound}; it must be above 1")

    def __call__(self, rows: Sequence[Row]) -> list[Check]:
        """Return one check for each sweep and time.

        Args:
            rows: rows of the sweeps that ran.
        """
        checks = []
        for row in rows:
            if row["sweep"] not in self.sweeps:
                continue
            low, high = (row["sizes"][at][row["sweep"]] for at in (0, -1))
            for key, name in self.times.items():
                medians = [line[key] for line in row["sizes"]]
                spread = max(medians) / min(medians)
                claim = f"{name}: time of {self.item} is constant within {self.bound:g}"
                claim += f" from {low:,} to {high:,} {row['sweep']}"
                checks.append(Check(claim, spread, self.bound, spread <= self.bound))
        return checks

    def draw(self, record: Row, axes: "Axes") -> None:
        """Draw the times over the size, a panel for each sweep, and the band in which each has to stay.

        Args:
            record: whole record, as it is written to JSON.
            axes: one empty matplotlib Axes, which is replaced by the panels.
        """
        figure: Any = axes.figure
        axes.remove()
        rows = [row for row in record["rows"] if "skipped" not in row and row["sweep"] in self.sweeps]
        panels = figure.subplots(1, max(1, len(rows)), squeeze=False, sharey=True)[0]
        for row, panel in zip(rows, panels, strict=False):
            places = [line[row["sweep"]] for line in row["sizes"]]
            for number, (key, name) in enumerate(self.times.items()):
                medians, low, high = ([line[key + end] for line in row["sizes"]] for end in ("", "_low", "_high"))
                ranges = [[abs(median - end) for median, end in zip(medians, ends, strict=True)]
                          for ends in (low, high)]  # fmt: skip
                color = f"C{number}"
                panel.axhspan(min(medians), self.bound * min(medians), color=color, alpha=0.2, linewidth=0)
                panel.errorbar(places, medians, ranges, marker="o", capsize=3, color=color, label=name)
            panel.set(xscale="log", yscale="log", xlabel=row["sweep"])
        panels[0].set_ylabel(f"µs {self.item} (band: least, and {self.bound:g} times it)")
        panels[0].legend(loc="center left", frameon=False)
