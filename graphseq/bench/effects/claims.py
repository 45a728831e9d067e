"""Claims that an effect states before the run: comparisons of arms paired by seed, and the rule of the verdict."""

import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from graphseq.bench.effects.results import Results, Score, interval_text
from graphseq.bench.effects.statistics import PairedInterval
from graphseq.bench.experiment import Check, Row, Scale, Verdict

__all__ = [
    "Above", "Claim", "MeanAbove", "Quantity", "Ratio", "Rule", "Seeds", "Within", "all_of", "any_of", "matches",
]  # fmt: skip


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

    @property
    def words(self) -> str:
        """The seeds in words, for the protocol."""
        text = f"{self.default} of each arm, from {self.first} on"
        text += "".join(f"; at least {number} where {condition}" for condition, number in self.confirm.items())
        for condition, seeds in self.ranges.items():
            text += f"; {', '.join(map(str, seeds))} where {condition}"
        return text + (f"; scale full: {self.full}" if self.full else "")


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


class Claim(Protocol):
    """A condition on the results, named by a letter; its ``places`` are checked when the effect is constructed."""

    letter: str

    @property
    def places(self) -> list[str]:
        """Places that the claim compares; each must exist."""
        ...

    @property
    def words(self) -> str:
        """The condition in words, for the protocol."""
        ...

    def check(self, results: Results) -> list[Check]:
        """Return the checks of the claim; their value is None where rows are missing."""
        ...


@dataclass(frozen=True)
class Above:
    """The interval of a paired difference lies above a bound.

    Args:
        letter: letter by which the rule names the claim.
        difference: ``"arm@place - arm@place"``, or one place for its score itself.
        bound: lower bound of the interval, in units of the score.
        text: the claim in words; empty for the text of ``difference``.
        score: score of a row, see :func:`~graphseq.bench.effects.results.read_score`; None for the effect's score.

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
    score: Score | None = None

    _condition: ClassVar[str] = "lies above {:g}"

    def __post_init__(self) -> None:
        if len(self.places) not in (1, 2):
            raise ValueError(f"the difference {self.difference!r} is not of the form 'arm@place - arm@place'")

    @property
    def places(self) -> list[str]:
        """The places that are compared."""
        return [part for part in re.split(r"\s+-\s+", self.difference) if part]

    @property
    def words(self) -> str:
        """The condition in words, for the protocol."""
        return f"{self.text or self.difference} {self._condition.format(self.bound)}"

    def check(self, results: Results) -> list[Check]:
        """Return whether the interval is where it is claimed to be."""
        ours, other = (*self.places, None)[:2]
        found = results.difference(str(ours), other, self.score)
        value, holds = (None, False) if found is None else self._judged(found)
        return [Check(f"({self.letter}) {self.text or self.difference}", value, self.bound, holds)]

    def _judged(self, found: PairedInterval) -> tuple[float | str | None, bool]:
        return interval_text(found), found.above(self.bound)


@dataclass(frozen=True)
class Within(Above):
    """The interval of a paired difference lies within a bound of 0, on both sides.

    Args:
        letter: letter by which the rule names the claim.
        difference: ``"arm@place - arm@place"``, or one place for its score itself.
        bound: largest distance of either end of the interval from 0, in units of the score.
        text: the claim in words; empty for the text of ``difference``.
        score: score of a row, see :func:`~graphseq.bench.effects.results.read_score`; None for the effect's score.

    Example:
        >>> rows = [{"arm": arm, "seed": seed, "x": 0.1 * (arm == "b")} for arm in "ab" for seed in range(3)]
        >>> Within("A", "a - b", 0.2).check(Results(rows, {}, "x"))[0].holds
        True
    """

    _condition: ClassVar[str] = "lies within {:g} of 0"

    def _judged(self, found: PairedInterval) -> tuple[float | str | None, bool]:
        return interval_text(found), max(-found.low, found.high) <= self.bound


@dataclass(frozen=True)
class MeanAbove(Above):
    """The mean of a paired difference, whatever its interval, is at least a bound.

    Args:
        letter: letter by which the rule names the claim.
        difference: ``"arm@place - arm@place"``, or one place for its score itself.
        bound: smallest mean for which the claim holds, in units of the score.
        text: the claim in words; empty for the text of ``difference``.
        score: score of a row, see :func:`~graphseq.bench.effects.results.read_score`; None for the effect's score.

    Example:
        >>> rows = [{"arm": "a", "seed": seed, "x": float(seed)} for seed in range(3)]
        >>> MeanAbove("A", "a", 1.0).check(Results(rows, {}, "x"))
        [Check(claim='(A) a', value=1.0, bound=1.0, holds=True)]
    """

    _condition: ClassVar[str] = "is at least {:g} in the mean"

    def _judged(self, found: PairedInterval) -> tuple[float | str | None, bool]:
        return found.mean, found.mean >= self.bound


@dataclass(frozen=True)
class Ratio:
    """The ratio of the averages of two places is at least, or at most, a bound.

    Args:
        letter: letter by which the rule names the claim.
        ratio: ``"arm@place / arm@place"``.
        bound: number that the ratio is compared with.
        most: true if the ratio has to be at most the bound, false if at least.
        text: name of the quantity, put before ``ratio``.
        score: score of a row, see :func:`~graphseq.bench.effects.results.read_score`; None for the effect's score.
        average: function of the scores of all seeds of a place, such as ``statistics.median``.

    Raises:
        ValueError: if the ratio is not of this form.

    Example:
        >>> rows = [{"arm": arm, "seed": seed, "x": 1.0 + (arm == "b")} for arm in "ab" for seed in range(2)]
        >>> Ratio("A", "b / a", 1.5).check(Results(rows, {}, "x"))[0].value
        2.0
    """

    letter: str
    ratio: str
    bound: float
    most: bool = False
    text: str = ""
    score: Score | None = None
    average: Callable[[Sequence[float]], float] = statistics.fmean

    def __post_init__(self) -> None:
        if len(self.places) != 2:
            raise ValueError(f"the ratio {self.ratio!r} is not of the form 'arm@place / arm@place'")

    @property
    def places(self) -> list[str]:
        """The two places that are compared."""
        return [part for part in re.split(r"\s+/\s+", self.ratio) if part]

    @property
    def words(self) -> str:
        """The condition in words, for the protocol."""
        return f"{self._name} is at {'most' if self.most else 'least'} {self.bound:g}"

    @property
    def _name(self) -> str:
        return f"{self.text}, {self.ratio}" if self.text else self.ratio

    def check(self, results: Results) -> list[Check]:
        """Return whether the ratio is on the right side of the bound."""
        ours, other = (list(results.values(place, self.score).values()) for place in self.places)
        value = self.average(ours) / self.average(other) if ours and other else None
        holds = value is not None and (value <= self.bound if self.most else value >= self.bound)
        return [Check(f"({self.letter}) {self._name}", value, self.bound, holds)]


@dataclass(frozen=True)
class Quantity:
    """A number computed from all results is at least, or at most, a bound.

    Args:
        letter: letter by which the rule names the claim.
        text: the claim in words.
        value: function of the results that returns the number, or None while rows are missing.
        bound: number that the value is compared with.
        most: true if the value has to be at most the bound, false if at least.
        places: places whose rows ``value`` needs.

    Example:
        >>> Quantity("C", "ratio", lambda results: 2.0, 1.8).check(Results([], {}, "x"))[0].holds
        True
    """

    letter: str
    text: str
    value: Callable[[Results], float | None]
    bound: float
    most: bool = False
    places: list[str] = field(default_factory=list)

    @property
    def words(self) -> str:
        """The condition in words, for the protocol."""
        return f"{self.text} is at {'most' if self.most else 'least'} {self.bound:g}"

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

    @property
    def words(self) -> str:
        """The condition in words, for the protocol."""
        names = ", ".join(f"({letter})" for letter in self.letters)
        if len(self.letters) == 1:
            return f"{names} holds"
        return f"{names} all hold" if self.every else f"one of {names} holds"


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

    @property
    def words(self) -> str:
        """The rule in words, for the protocol."""
        return f"*reproduced* if {self.reproduced.words}, *partly* if {self.partly.words}, else *not reproduced*"

    def verdict(self, held: Mapping[str, bool]) -> Verdict:
        """Return the verdict that follows from the claims that hold.

        Args:
            held: whether each claim holds, by letter.
        """
        if self.reproduced(held):
            return "reproduced"
        return "partly" if self.partly(held) else "not reproduced"
