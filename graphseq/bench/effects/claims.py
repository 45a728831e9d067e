"""Claims that an effect states before the run: comparisons of arms paired by seed, and the rule of the verdict."""

import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from graphseq.bench.effects.statistics import PairedInterval, paired_interval
from graphseq.bench.experiment import Check, Row, Scale, Verdict

__all__ = ["Above", "Claim", "Quantity", "Results", "Rule", "Seeds", "all_of", "any_of", "interval_text"]


@dataclass(frozen=True)
class Seeds:
    """Numbers of seeds for the cells of an effect, and the entries of the config that take the seed.

    Args:
        first: first seed; the others are the integers after it.
        default: number of seeds of each arm, at least 2.
        full: number of seeds of each arm at scale ``full``; None for ``default``.
        confirm: number of seeds for some cells only, by condition ``"axis=value"``; commas join several axes.
        ranges: list of seeds for some cells only, by condition as in ``confirm``.
        into: dotted keys of the config that are set to the seed, in addition to ``seed_everything``.

    Raises:
        ValueError: for fewer than 2 seeds: one seed gives no estimate of the spread.

    Example:
        >>> Seeds(first=100, default=5, confirm={"batch=2000": 10}).of({"batch": 2000, "arm": "none"}, "default", None)
        [100, 101, 102, 103, 104, 105, 106, 107, 108, 109]
    """

    first: int = 0
    default: int = 5
    full: int | None = None
    confirm: Mapping[str, int] = field(default_factory=dict)
    ranges: Mapping[str, Sequence[int]] = field(default_factory=dict)
    into: Sequence[str] = ()

    def __post_init__(self) -> None:
        numbers = {"default": self.default, "full": self.full or self.default, **self.confirm}
        numbers.update({condition: len(seeds) for condition, seeds in self.ranges.items()})
        for name, number in numbers.items():
            if number < 2:
                raise ValueError(f"seeds {name} is {number}; at least 2 are needed, for one seed has no interval")
        for condition in [*self.confirm, *self.ranges]:
            if any("=" not in part for part in condition.split(",")):
                raise ValueError(f"confirm has the key {condition!r}; write it as 'axis=value' or 'a=1,b=2'")

    def of(self, cell: Row, scale: Scale, asked: int | None) -> list[int]:
        """Return the seeds of a cell: one at scale ``quick``, else the requested or the declared number."""
        given = next((list(seeds) for condition, seeds in self.ranges.items() if matches(condition, cell)), None)
        count = self.full or self.default if scale == "full" else self.default
        count = max([count, *(number for condition, number in self.confirm.items() if matches(condition, cell))])
        count = asked or (1 if scale == "quick" else count)
        return given[:count] if given else list(range(self.first, self.first + count))


def matches(condition: str, cell: Row) -> bool:
    """Return whether a cell has the values of ``axis=value``; commas join several axes, ``|`` several values of one.

    Args:
        condition: condition ``axis=value``, as ``graphseq bench --only`` takes it.
        cell: the cell, as a dictionary of its keys.

    Example:
        >>> matches("batch=2000,arm=pcs|none", {"batch": 2000, "arm": "none"})
        True
    """
    pairs = (part.partition("=") for part in condition.split(","))
    return all(str(cell.get(axis)) in values.split("|") for axis, _, values in pairs)


class Results:
    """Rows of an effect by arm and place in the grid, with paired comparisons.

    A place is an arm at one point of the grid, written as the arm, ``@`` and values of the grid: ``both@800``. Axes
    with a single value are left out.

    Args:
        rows: rows of the cells that ran.
        axes: values of each axis of the grid, in order.
        score: function that returns the score of a row.

    Example:
        >>> rows = [{"batch": 8, "arm": arm, "seed": s, "x": s + (arm == "a")} for arm in "ab" for s in range(3)]
        >>> results = Results(rows, {"batch": [8]}, lambda row: row["x"])
        >>> results.difference("a", "b").mean
        1.0
    """

    def __init__(self, rows: Sequence[Row], axes: Mapping[str, Sequence[Any]], score: Callable[[Row], float]) -> None:
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

    def values(self, place: str, score: Callable[[Row], float | None] | None = None, **where: Any) -> dict[int, float]:
        """Return the score of each seed.

        Args:
            place: arm and point of the grid, such as ``both@800``.
            score: function that returns the score of a row, or None to leave it out; default the effect's score.
            where: further conditions: axis -> value.
        """
        worth = score or self.score
        found = {seed: worth(row) for seed, row in self.select(place, **where).items()}
        return {seed: value for seed, value in found.items() if value is not None}

    def mean(self, place: str, score: Callable[[Row], float | None] | None = None, **where: Any) -> float | None:
        """Return the mean over seeds, None without any."""
        values = self.values(place, score, **where)
        return statistics.fmean(values.values()) if values else None

    def difference(
        self, place: str, other: str, score: Callable[[Row], float | None] | None = None, **where: Any
    ) -> PairedInterval | None:
        """Return the mean of the difference over common seeds with its interval; None with fewer than two.

        Args:
            place: arm and point of the grid, such as ``both@800``.
            other: place to compare with, written as ``place``.
            score: function that returns the score of a row; None for the effect's score.
            where: further conditions: axis -> value.
        """
        ours, theirs = self.values(place, score, **where), self.values(other, score, **where)
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


class Claim(Protocol):
    """A condition on the results, named by a letter; its ``places`` are checked when the effect is constructed."""

    letter: str

    @property
    def places(self) -> list[str]:
        """Places that the claim compares; each must exist."""
        ...

    def check(self, results: Results) -> list[Check]:
        """Return the checks of the claim; their value is None where rows are missing."""
        ...


@dataclass(frozen=True)
class Above:
    """The interval of a paired difference lies above a bound.

    Args:
        letter: letter by which the rule names the claim.
        difference: ``"arm@place - arm@place"``.
        bound: lower bound of the interval, in units of the score.
        text: the claim in words; empty for the text of ``difference``.
        score: function that returns the score of a row; None for the effect's score.

    Raises:
        ValueError: if the difference is not of this form.

    Example:
        >>> Above("A", "pcs@2000 - none@2000").places
        ['pcs@2000', 'none@2000']
    """

    letter: str
    difference: str
    bound: float = 0.0
    text: str = ""
    score: Callable[[Row], float | None] | None = None

    def __post_init__(self) -> None:
        if len(self.places) != 2:
            raise ValueError(f"the difference {self.difference!r} is not of the form 'arm@place - arm@place'")

    @property
    def places(self) -> list[str]:
        """The two places that are compared."""
        return [part for part in re.split(r"\s+-\s+", self.difference) if part]

    def check(self, results: Results) -> list[Check]:
        """Return whether the interval lies above the bound."""
        ours, other = self.places
        interval = results.difference(ours, other, self.score)
        holds = interval is not None and interval.above(self.bound)
        return [Check(f"({self.letter}) {self.text or self.difference}", interval_text(interval), self.bound, holds)]


@dataclass(frozen=True)
class Quantity:
    """A number computed from all results is at least, or at most, a bound.

    Args:
        letter: letter by which the rule names the claim.
        text: the claim in words.
        value: function of the results that returns the number, or None while rows are missing; or a pair of the number
            and the text to print for it.
        bound: number that the value is compared with.
        most: true if the value has to be at most the bound, false if at least.
        places: places whose rows ``value`` needs.

    Example:
        >>> Quantity("C", "ratio", lambda results: 2.0, 1.8).check(Results([], {}, float))[0].holds
        True
    """

    letter: str
    text: str
    value: Callable[[Results], float | None]
    bound: float
    most: bool = False
    places: list[str] = field(default_factory=list)

    def check(self, results: Results) -> list[Check]:
        """Return whether the number is on the right side of the bound."""
        value = self.value(results)
        holds = value is not None and (value <= self.bound if self.most else value >= self.bound)
        return [Check(f"({self.letter}) {self.text}", value, self.bound, holds)]


Condition = Callable[[Mapping[str, bool]], bool]


@dataclass(frozen=True)
class _Letters:
    letters: tuple[str, ...]
    every: bool

    def __call__(self, held: Mapping[str, bool]) -> bool:
        return (all if self.every else any)(held[letter] for letter in self.letters)


def all_of(letters: Sequence[str]) -> _Letters:
    """Return the condition that all of these claims hold.

    Args:
        letters: letters of the claims, as a string or a list.

    Example:
        >>> all_of("AB")({"A": True, "B": False})
        False
    """
    return _Letters(tuple(letters), True)


def any_of(letters: Sequence[str]) -> _Letters:
    """Return the condition that one of these claims holds.

    Args:
        letters: letters of the claims, as a string or a list.

    Example:
        >>> any_of("AB")({"A": True, "B": False})
        True
    """
    return _Letters(tuple(letters), False)


@dataclass(frozen=True)
class Rule:
    """The rule of the verdict, stated before the run.

    Args:
        reproduced: condition under which the verdict is ``reproduced``.
        partly: condition under which it is ``partly``; without either it is ``not reproduced``.

    Example:
        >>> Rule(all_of("AB"), any_of("A")).verdict({"A": True, "B": False})
        'partly'
    """

    reproduced: _Letters
    partly: _Letters

    @property
    def letters(self) -> set[str]:
        """Letters of the claims that the rule reads."""
        return {*self.reproduced.letters, *self.partly.letters}

    def verdict(self, held: Mapping[str, bool]) -> Verdict:
        """Return the verdict that follows from the claims that hold.

        Args:
            held: whether each claim holds, by letter.
        """
        if self.reproduced(held):
            return "reproduced"
        return "partly" if self.partly(held) else "not reproduced"
