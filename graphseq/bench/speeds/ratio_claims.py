"""Claims on how many times as fast one contender of a speed comparison is as another."""

import itertools
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from graphseq.bench.experiment import Check, Row

__all__ = ["MEASURED", "AtLeast", "Claim", "Linear", "TakesAtMost", "case_label", "case_of"]

MEASURED = ("rounds", "calls", "ms", "ratio", "limit", "peak_mb", "versions", "absent")
"""Columns of every row of a speed comparison; they follow the keys of its case."""


@dataclass(frozen=True)
class AtLeast:
    """Claim: one contender is at least ``bound`` times as fast as another.

    Args:
        ratio: ``"ours/PyG"``: how many times as fast the first is as the second, seconds of the second over
            seconds of the first.
        bound: the least ratio.
        where: keys of cases and their values; only these cases count. All by default.
        text: the claim in words, in which ``{bound}`` stands for the bound; written from the other arguments by
            default.
        over: ``"every case"`` holds the smallest median ratio against the bound, ``"geometric mean"`` that of all.
        aim: larger bound that is checked beside the claim, as a check of its own; None for none.

    Raises:
        ValueError: if ``ratio`` does not name two contenders, ``bound`` is not positive, or ``aim`` is not above it.

    Example:
        >>> claim = AtLeast("ours/PyG", 10)
        >>> row = {"data": "NCI1", "ratio": {"ours/PyG": {"median": 12.0, "low": 11.0, "high": 13.0}}}
        >>> claim([row])[0].claim
        'ours at least 10 times as fast as PyG in every case (smallest: data NCI1)'
    """

    ratio: str
    bound: float
    where: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""
    over: Literal["every case", "geometric mean"] = "every case"
    aim: float | None = None

    def __post_init__(self) -> None:
        if self.ratio.count("/") != 1 or not all(self.contenders):
            raise ValueError(f"ratio is {self.ratio!r}; it names two contenders, as in 'ours/PyG'")
        if not self.bound > 0:
            raise ValueError(f"bound is {self.bound}; it must be positive")
        if self.aim is not None and not self.aim > self.bound:
            raise ValueError(f"aim is {self.aim}; it must be above the bound {self.bound}")

    @property
    def contenders(self) -> tuple[str, str]:
        """Names of the two contenders."""
        ours, _, other = self.ratio.partition("/")
        return ours, other

    def __call__(self, rows: Sequence[Row]) -> list[Check]:
        """Return the check of the claim; no check if no case matches ``where``.

        Args:
            rows: rows of the cases that ran.
        """
        counting = _matching(rows, self.where, self.ratio)
        if not counting:
            return []
        ours, peer = self.contenders
        text = self.text or f"{ours} at least {{bound}} times as fast as {peer}"
        if self.over == "geometric mean":
            value = statistics.geometric_mean(row["ratio"][self.ratio]["median"] for row in counting)
            text += f" in the geometric mean of {len(counting)} cases"
        else:
            worst = min(counting, key=lambda row: row["ratio"][self.ratio]["median"])
            value = worst["ratio"][self.ratio]["median"]
            if len(counting) > 1 or not self.where:
                text += "" if self.text else " in every case"
                text += f" (smallest: {case_label(case_of(worst), self.where)})"
        bounds = {"": self.bound} if self.aim is None else {"claim: ": self.bound, "aim: ": self.aim}
        return [
            Check(word + text.replace("{bound}", f"{bound:g}"), value, bound, value >= bound)
            for word, bound in bounds.items()
        ]


@dataclass(frozen=True)
class TakesAtMost:
    """Claim: one contender takes at most ``bound`` times as long as another.

    Args:
        time: ``"ours/plain"``: seconds of the first over seconds of the second.
        bound: the largest quotient.
        where: keys of cases and their values; only these cases count. All by default.
        text: the claim in words; written from the other arguments by default.

    Raises:
        ValueError: if ``time`` does not name two contenders, or ``bound`` is not positive.

    Example:
        >>> row = {"ratio": {"ours/plain": {"median": 0.5, "low": 0.4, "high": 0.6}}}
        >>> TakesAtMost("ours/plain", 2.0)([row])[0].holds
        True
    """

    time: str
    bound: float
    where: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""

    def __post_init__(self) -> None:
        AtLeast(self.time, self.bound)

    @property
    def contenders(self) -> tuple[str, str]:
        """Names of the two contenders."""
        return AtLeast(self.time, self.bound).contenders

    def __call__(self, rows: Sequence[Row]) -> list[Check]:
        """Return the check of the claim; no check if no case matches ``where``.

        Args:
            rows: rows of the cases that ran.
        """
        counting = _matching(rows, self.where, self.time)
        if not counting:
            return []
        ours, other = self.contenders
        value = max(1 / row["ratio"][self.time]["median"] for row in counting)
        text = self.text or f"{ours} takes at most {self.bound:g} times as long as {other}"
        return [Check(text, value, self.bound, value <= self.bound)]


@dataclass(frozen=True)
class Linear:
    """Claim: the time of one contender over that of another grows linearly with a size, beside which the other has 0.

    Args:
        time: ``"ours/base"``: seconds of the first over seconds of the second, medians of pairs.
        size: key of the cases whose value begins with the size, such as ``8 blocks``.
        bound: least share of the variance that a straight line explains, in (0, 1).
        where: keys of cases and their values; only these cases count.
        text: the claim in words.

    Raises:
        ValueError: if ``bound`` is not in (0, 1).

    Example:
        >>> rows = [{"size": n, "ratio": {"ours/base": {"median": 1 / (1 + n)}}} for n in (1, 2, 4)]
        >>> Linear("ours/base", "size", 0.98)(rows)[0].value
        1.0
    """

    time: str
    size: str
    bound: float
    where: Mapping[str, Any] = field(default_factory=dict)
    text: str = "share of the variance that a straight line explains"

    def __post_init__(self) -> None:
        AtLeast(self.time, self.bound)
        if not self.bound < 1:
            raise ValueError(f"bound is {self.bound}; it must be in (0, 1)")

    @property
    def contenders(self) -> tuple[str, str]:
        """Names of the two contenders."""
        return AtLeast(self.time, self.bound).contenders

    def __call__(self, rows: Sequence[Row]) -> list[Check]:
        """Return the check of the claim; no check with fewer than two sizes.

        Args:
            rows: rows of the cases that ran.
        """
        counting = _matching(rows, self.where, self.time)
        if len(counting) < 2:
            return []
        sizes = [0.0, *(float(str(row[self.size]).split()[0]) for row in counting)]
        times = [1.0, *(1 / row["ratio"][self.time]["median"] for row in counting)]
        fit = statistics.correlation(sizes, times) ** 2
        return [Check(self.text, fit, self.bound, fit >= self.bound)]


Claim: TypeAlias = AtLeast | Linear | TakesAtMost | Callable[[Sequence[Row]], list[Check]]
"""Rows to checks: :class:`AtLeast`, :class:`TakesAtMost`, or a function for what they cannot say."""


def _matching(rows: Sequence[Row], where: Mapping[str, Any], ratio: str) -> list[Row]:
    return [row for row in rows if where.items() <= row.items() and ratio in row.get("ratio", {})]


def case_label(case: Row, without: Mapping[str, Any] | Sequence[str] = ()) -> str:
    """Return a case as text, ``key value`` after ``key value``.

    Args:
        case: the case, as a dictionary of its keys.
        without: keys to leave out.

    Example:
        >>> case_label({"data": "NCI1", "batch_size": 32})
        'data NCI1, batch_size 32'
    """
    return ", ".join(f"{key} {value}" for key, value in case.items() if key not in without)


def case_of(row: Row) -> Row:
    """Return the keys of the case and the device from a row, without its measurements.

    Args:
        row: a row of a speed comparison.

    Example:
        >>> case_of({"data": "NCI1", "rounds": 9, "ms": {}})
        {'data': 'NCI1'}
    """
    return dict(itertools.takewhile(lambda item: item[0] not in MEASURED, row.items()))
