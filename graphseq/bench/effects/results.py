"""Rows of an effect by arm and place in the grid, and their comparisons paired by seed."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from graphseq.bench.effects.statistics import PairedInterval, paired_interval
from graphseq.bench.experiment import Row

__all__ = ["Results", "Score", "axis_of", "interval_text", "read_score", "split_place"]

Score: TypeAlias = str | Callable[[Row], Any]
"""A number of each row: a test metric ``test/<metric>``, a key of the row, or a function that returns it or None."""


def read_score(row: Row, score: Score) -> float | None:
    """Return a number of a row; None where the row lacks it.

    Args:
        row: row of a cell that ran.
        score: test metric ``test/<metric>``, read from the first test; a key of the row; or a function of the row.

    Example:
        >>> read_score({"test": {"random": {"ap": 0.9}}, "ess": 0.5}, "test/ap")
        0.9
    """
    if callable(score):
        return score(row)
    if score.startswith("test/"):
        first: Row = next(iter(row.get("test", {}).values()), {})
        return first.get(score.removeprefix("test/"))
    return row.get(score)


class Results:
    """Rows of an effect by arm and place in the grid, with paired comparisons.

    A place is an arm at one point of the grid, written as the arm, ``@`` and values of the grid: ``both@800``. Axes
    with a single value are left out.

    Args:
        rows: rows of the cells that ran.
        axes: values of each axis of the grid, in order.
        score: number by which arms are compared, see :func:`read_score`.

    Example:
        >>> rows = [{"batch": 8, "arm": arm, "seed": s, "x": s + (arm == "a")} for arm in "ab" for s in range(3)]
        >>> results = Results(rows, {"batch": [8]}, lambda row: row["x"])
        >>> results.difference("a", "b").mean
        1.0
    """

    def __init__(self, rows: Sequence[Row], axes: Mapping[str, Sequence[Any]], score: Score) -> None:
        self.rows, self.axes, self.score = list(rows), axes, score

    def places(self) -> list[dict[str, Any]]:
        """Return the points of the grid that have rows, in the order of the grid."""
        found: list[dict[str, Any]] = []
        for row in self.rows:
            point = {axis: row[axis] for axis in self.axes if axis in row}
            if point not in found:
                found.append(point)
        return found

    def arms(self, **where: Any) -> list[str]:
        """Return the arms that have rows at a point of the grid, in the order of declaration."""
        return list(dict.fromkeys(row["arm"] for row in self._at(where)))

    def _at(self, where: Mapping[str, Any]) -> list[Row]:
        return [row for row in self.rows if all(str(row.get(axis)) == str(value) for axis, value in where.items())]

    def select(self, place: str, **where: Any) -> dict[int, Row]:
        """Return the rows of ``arm@values``, one a seed.

        Args:
            place: arm and point of the grid, such as ``both@800``.
            where: further conditions: axis -> value.
        """
        arm, values = split_place(place)
        wanted = {**where, **{axis_of(self.axes, value): value for value in values}, "arm": arm}
        return {row["seed"]: row for row in self._at(wanted)}

    def values(self, place: str, score: Score | None = None, **where: Any) -> dict[int, float]:
        """Return the score of each seed.

        Args:
            place: arm and point of the grid, such as ``both@800``.
            score: score of a row, see :func:`read_score`; rows without it are left out. None for the effect's score.
            where: further conditions: axis -> value.
        """
        found = {seed: read_score(row, score or self.score) for seed, row in self.select(place, **where).items()}
        return {seed: value for seed, value in found.items() if value is not None}

    def mean(self, place: str, score: Score | None = None, **where: Any) -> float | None:
        """Return the mean over seeds, None without any."""
        values = self.values(place, score, **where)
        return statistics.fmean(values.values()) if values else None

    def difference(
        self, place: str, other: str | None, score: Score | None = None, **where: Any
    ) -> PairedInterval | None:
        """Return the mean of the difference over common seeds with its interval; None with fewer than two.

        Args:
            place: arm and point of the grid, such as ``both@800``.
            other: place to compare with, written as ``place``; None for the mean and interval of the score itself.
            score: score of a row, see :func:`read_score`; None for the effect's score.
            where: further conditions: axis -> value.
        """
        ours = self.values(place, score, **where)
        theirs = dict.fromkeys(ours, 0.0) if other is None else self.values(other, score, **where)
        seeds = sorted(ours.keys() & theirs.keys())
        if len(seeds) < 2:
            return None
        return paired_interval([ours[seed] for seed in seeds], [theirs[seed] for seed in seeds])


def split_place(place: str) -> tuple[str, list[str]]:
    """Return arm and values of ``arm@value@value``."""
    arm, _, values = place.partition("@")
    return arm.strip(), [value.strip() for value in values.split("@") if value.strip()]


def axis_of(axes: Mapping[str, Sequence[Any]], value: str) -> str:
    """Return the axis that has a value."""
    found = [axis for axis, values in axes.items() if value in [str(known) for known in values]]
    if len(found) != 1:
        known = "; ".join(f"{axis}: {', '.join(map(str, values))}" for axis, values in axes.items())
        raise ValueError(f"{value!r} is {'no value' if not found else 'a value of several axes'} of the grid ({known})")
    return found[0]


def interval_text(interval: PairedInterval | None) -> str | None:
    """Return an interval as text with three significant digits, as tables show it."""
    return None if interval is None else f"{interval.mean:+.3g} [{interval.low:+.3g}, {interval.high:+.3g}]"
