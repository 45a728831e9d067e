"""Comparison of sizes with each other: a time for each item that must not depend on how many there are."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graphseq.bench.experiment import Check, Row
from graphseq.bench.speeds.timing import alternate

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

    def in_words(self, rows: Sequence[Row]) -> str:
        """Return by how much the time of an item changes at most, and with which size it changes more than the bound.

        Args:
            rows: rows of the sweeps that ran.
        """
        parts = []
        for key, name in self.times.items():
            spreads = {}
            for row in self._swept(rows):
                medians = [line[key] for line in row["sizes"]]
                spreads[row["sweep"]] = max(medians) / min(medians)
            beyond = [sweep for sweep, spread in spreads.items() if spread > self.bound]
            where = f" (with the number of {' and '.join(beyond)}: more than {self.bound:g})" if beyond else ""
            if spreads:
                parts.append(f"{max(spreads.values()):.2f} times in {name}{where}")
        return f"the time of {self.item} varies with the size by at most {' and '.join(parts)}" if parts else ""

    def _swept(self, rows: Sequence[Row]) -> list[Row]:
        return [row for row in rows if row["sweep"] in self.sweeps]

    def draw(self, rows: Sequence[Row], figure: Any, finding: str) -> None:
        """Draw the times over the size from zero: a row for each time, a column for each sweep, bands of the bound.

        Args:
            rows: rows of the sweeps that ran.
            figure: empty figure of matplotlib; its size is set.
            finding: sentence above the figure.
        """
        from graphseq.bench.speeds.figures import draw_sizes

        draw_sizes(self._swept(rows), figure, finding, self.times, self.bound, self.item)
