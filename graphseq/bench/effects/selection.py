"""A claim on the best of several forms, and the best of several baselines, as validation selects them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from graphseq.bench.effects.results import Results, Score, interval_text
from graphseq.bench.experiment import Check

__all__ = ["BestAbove"]


@dataclass(frozen=True)
class BestAbove:
    """The form that validation prefers is above a control, and above the other arm that validation prefers.

    Each comparison is a check: the interval of the paired difference lies above 0.

    Args:
        letter: letter by which the rule names the claim.
        forms: arms of which the one with the best mean validation score stands for the method.
        control: arm to compare with in any case, left out of the selection.
        at: values of the grid, such as ``BBBP``; several joined by ``@``.
        score: score of a row, see :func:`~graphseq.bench.effects.results.read_score`; None for the effect's score.
        validation: validation score of a row, larger is better.
        test: name of the test, for the text of the claim.

    Example:
        >>> worth = {"control": 0.0, "other": 1.0, "first": 2.0, "second": 3.0}
        >>> rows = [{"arm": arm, "seed": seed, "val": x, "x": x} for arm, x in worth.items() for seed in range(2)]
        >>> claim = BestAbove("A", ("first", "second"), "control")
        >>> [check.claim for check in claim.check(Results(rows, {}, "x"))]
        ['(A) second less control (control)', '(A) second less other (best other on validation)']
    """

    letter: str
    forms: Sequence[str]
    control: str
    at: str = ""
    score: Score | None = None
    validation: Score = "val"
    test: str = ""

    @property
    def places(self) -> list[str]:
        """Places that the claim compares in any case."""
        return [self._place(arm) for arm in (*self.forms, self.control)]

    @property
    def words(self) -> str:
        """The condition in words, for the protocol."""
        forms = " and ".join(self.forms)
        return f"{self._setting}the best of {forms} less {self.control}, and less the best other, lie above 0"

    @property
    def _setting(self) -> str:
        name = ", ".join(part for part in (self.at.replace("@", ", "), self.test) if part)
        return f"{name}: " if name else ""

    def _place(self, arm: str) -> str:
        return f"{arm}@{self.at}" if self.at else arm

    def check(self, results: Results) -> list[Check]:
        """Return both comparisons; one without a value where an arm of the claim has no rows."""
        means = {arm: results.mean(self._place(arm), self.validation) for arm in results.arms() if arm != self.control}
        known: dict[str, Any] = {arm: mean for arm, mean in means.items() if mean is not None}
        others = {arm: mean for arm, mean in known.items() if arm not in self.forms}
        if not known.keys() >= set(self.forms) or not others or not results.select(self._place(self.control)):
            return [Check(f"({self.letter}) {self._setting}{' and '.join(self.forms)}", None, 0.0, False)]
        ours = max(self.forms, key=known.__getitem__)
        checks = []
        for other, why in (
            (self.control, "control"),
            (max(others, key=others.__getitem__), "best other on validation"),
        ):
            found = results.difference(self._place(ours), self._place(other), self.score)
            text = f"({self.letter}) {self._setting}{ours} less {other} ({why})"
            checks.append(Check(text, interval_text(found), 0.0, found is not None and found.above(0.0)))
        return checks
