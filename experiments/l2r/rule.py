"""What the effects of learned weights conclude, and how they are drawn: the rule is the same on all data."""

import statistics
from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from experiments.l2r.training import ARMS, FORMS, POOLED
from graphseq.bench.experiment import Check, Row, Verdict
from graphseq.bench.statistics import PairedInterval, paired_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Shifts", "conclude_shifts", "draw_shifts"]


class Shifts:
    """Rows sorted by data and arm.

    Args:
        rows: the cells that ran: ``data``, ``arm``, ``seed``, ``val`` and ``test`` by name; more is better.

    Example:
        >>> row = {"data": "a", "arm": "ERM", "seed": 0, "val": 60.0, "test": {"test": 50.0}}
        >>> Shifts([row]).values("a", "ERM", "test")
        {0: 50.0}
    """

    def __init__(self, rows: list[Row]) -> None:
        self._rows: dict[tuple[str, str], dict[int, Row]] = defaultdict(dict)
        for row in rows:
            self._rows[row["data"], row["arm"]][row["seed"]] = row
        self.names = list(dict.fromkeys(row["data"] for row in rows))
        self.settings = list(dict.fromkeys((row["data"], test) for row in rows for test in row["test"]))

    def rows(self, data: str, arm: str) -> list[Row]:
        """Return the rows of an arm, one a seed."""
        return list(self._rows.get((data, arm), {}).values())

    def arms(self, data: str) -> list[str]:
        """Return the arms that ran, in their order."""
        return [arm for arm in ARMS if (data, arm) in self._rows]

    def values(self, data: str, arm: str, test: str) -> dict[int, float]:
        """Return the test score of each seed."""
        return {seed: row["test"][test] for seed, row in self._rows.get((data, arm), {}).items()}

    def chosen(self, data: str, forms: bool) -> str | None:
        """Return the form of L2R, or the baseline, with the best mean validation score.

        Args:
            data: name of the data.
            forms: whether a form of L2R is asked for.
        """
        means = {
            arm: statistics.fmean(row["val"] for row in self.rows(data, arm))
            for arm in self.arms(data)
            if arm != POOLED and (arm in FORMS) == forms
        }
        return max(means, key=means.__getitem__) if means else None

    def gain(self, data: str, arm: str, other: str, test: str) -> PairedInterval | None:
        """Return the score of one arm less that of another with its interval, or None without two common seeds."""
        ours, theirs = self.values(data, arm, test), self.values(data, other, test)
        paired = sorted(ours.keys() & theirs.keys())
        if len(paired) < 2:
            return None
        return paired_interval([ours[seed] for seed in paired], [theirs[seed] for seed in paired])


def _text(interval: PairedInterval) -> str:
    return f"{interval.mean:+.3g} [{interval.low:+.3g}, {interval.high:+.3g}]"


def conclude_shifts(
    rows: list[Row], reported: Mapping[tuple[str, str, str], str] | None = None
) -> tuple[Verdict | None, list[Check], list[Row]]:
    """Apply the rule: L2R above pooled training, and above the best other baseline, in each setting.

    Args:
        rows: the cells that ran.
        reported: numbers printed elsewhere, by data, test and arm; an arm that did not run gets a line of its own.

    Returns:
        Verdict, checks and table.

    Example:
        >>> conclude_shifts([])
        (None, [], [])
    """
    shifts, checks, pairs = Shifts(rows), [], []
    for data, test in shifts.settings:
        ours, best = shifts.chosen(data, forms=True), shifts.chosen(data, forms=False)
        held = []
        for other, why in ((POOLED, "pooled training"), (best, "best other on validation")):
            interval = shifts.gain(data, ours, other, test) if ours and other else None
            if interval is not None:
                held.append(interval.above(0.0))
                claim = f"{data}, {test}: {ours} less {other} ({why})"
                checks.append(Check(claim, _text(interval), 0.0, held[-1]))
        pairs.append(held)
    verdict: Verdict | None = None
    if pairs and all(len(held) == 2 for held in pairs):
        won = sum(all(held) for held in pairs)
        verdict = "reproduced" if won == len(pairs) else "partly" if won else "not reproduced"
    return verdict, checks, _table(shifts, reported or {})


def _table(shifts: Shifts, reported: Mapping[tuple[str, str, str], str]) -> list[Row]:
    lines = []
    for data, test in shifts.settings:
        for arm in shifts.arms(data):
            rows, scores = shifts.rows(data, arm), list(shifts.values(data, arm, test).values())
            gain = shifts.gain(data, arm, POOLED, test)
            ratios = [row["weight_ratio"] for row in rows if "weight_ratio" in row]
            validation = [row["val"] for row in rows if row["val"] is not None]
            line = {
                "data": data,
                "test": test,
                "arm": arm,
                "score": statistics.fmean(scores),
                "deviation": statistics.stdev(scores) if len(scores) > 1 else 0.0,
                "less pooled ERM": _text(gain) if gain is not None and arm != POOLED else None,
                "validation": statistics.fmean(validation) if validation else None,
                "ESS": statistics.fmean(row["ess"] for row in rows),
                "seeds": len(scores),
                "cpu s": statistics.fmean(row["cpu_seconds"] for row in rows),
            }
            if any("weight_ratio" in row for arm in shifts.arms(data) for row in shifts.rows(data, arm)):
                line["weight ratio"] = statistics.fmean(ratios) if ratios else None
            if reported:
                line["reported elsewhere"] = reported.get((data, test, arm))
            lines.append(line)
        shown = {line["arm"] for line in lines if (line["data"], line["test"]) == (data, test)}
        lines += [
            {"data": data, "test": test, "arm": arm, "reported elsewhere": value}
            for (where, what, arm), value in reported.items()
            if (where, what) == (data, test) and arm not in shown
        ]
    return lines


def draw_shifts(record: Row, axes: "Axes", unit: str = "percentage points") -> None:
    """Draw for each setting how much each arm is above training on training and validation graphs, with intervals.

    Args:
        record: the record.
        axes: empty Axes.
        unit: of the scores.
    """
    shifts = Shifts([row for row in record["rows"] if "skipped" not in row])
    tests = list(dict.fromkeys(test for _, test in shifts.settings))
    names = shifts.names
    figure: Any = axes.figure
    axes.remove()
    # tests above each other where there are several, else two rows of data
    grid = (len(tests), len(names)) if len(tests) > 1 else (-(-len(names) // 3), min(3, len(names)))
    figure.set_size_inches(2.6 + 2.6 * grid[1], 1.0 + 2.7 * grid[0])
    panels = figure.subplots(*grid, squeeze=False, sharey=True)
    arms = [arm for arm in ARMS if arm != POOLED and any(arm in shifts.arms(name) for name in names)][::-1]
    places = [(data, test) for test in tests for data in names] if len(tests) > 1 else shifts.settings
    for (data, test), panel in zip(places, panels.flatten(), strict=False):
        for place, arm in enumerate(arms):
            gain = shifts.gain(data, arm, POOLED, test)
            if gain is None:
                continue
            color = "tab:blue" if arm in FORMS else "tab:gray"
            error = [[gain.mean - gain.low], [gain.high - gain.mean]]
            panel.errorbar(gain.mean, place, xerr=error, fmt="o", color=color, capsize=3, markersize=5)
        panel.axvline(0, color="black", linewidth=1, linestyle="--")
        panel.set_yticks(range(len(arms)), arms)
        panel.set_title(data if test == "test" else f"{data}, {test}", fontsize="medium")
        panel.grid(axis="x", alpha=0.3)
    for panel in panels.flatten()[len(places) :]:
        panel.axis("off")
    figure.supxlabel(f"test score less that of ERM on train + validation, {unit} (95 % interval)", fontsize="medium")
