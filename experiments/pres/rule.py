"""What follows from the rows of ``effect.pres``: comparisons paired by seed, checks, verdict, table and figure."""

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from experiments.pres.memory import ROLLOUTS
from experiments.pres.training import FORMS
from graphseq.bench.experiment import Check, Row, Verdict
from graphseq.bench.statistics import PairedInterval, paired_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["BASE", "CHOSEN", "FOUR", "TEN", "UNSEEN", "Groups", "checks_of", "draw_differences", "draw_scores"]

BASE, FOUR, TEN = 200, 800, 2000
"""Batch sizes: one, four and ten times."""

CHOSEN = "forgetting, stale only, coherence 1"
"""The form that validation chose; it must stand before the sets of :data:`UNSEEN` are tested."""

UNSEEN = ("Enron", "Bitcoin OTC", "PrimarySchool")

_Key: TypeAlias = tuple[object, ...]
_COLOURS = {"none": "black", "pcs": "C0", "mcs": "C1", "both": "C2", "random_chunk": "C4", "adaptive": "C5"}


def _key(row: Row) -> _Key:
    names = ("part", "data", "network", "batch", "epochs", "coherence", "arm")
    return tuple(row.get(name) for name in names)


class Groups:
    """Rows by everything but their seed.

    Args:
        rows: the cells that ran.

    Example:
        >>> row = {"part": "unseen", "data": "Enron", "batch": 800, "test_ap": 90.0}
        >>> groups = Groups([{**row, "arm": "none", "seed": 0}, {**row, "arm": "both", "seed": 0, "test_ap": 91.0}])
        >>> groups.difference(groups.unseen("Enron", 800, "both"), groups.unseen("Enron", 800, "none")).mean
        1.0
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows: dict[_Key, dict[int, Row]] = {}
        for row in rows:
            self.rows.setdefault(_key(row), {})[row["seed"]] = row
        lengths = [(row["network"], row["epochs"]) for row in rows if row["part"] == "train" and row["batch"] == FOUR]
        self.epochs: dict[str, int] = dict(lengths)

    def trained(self, network: str, batch: int, arm: str, *, equal_steps: bool = False) -> _Key:
        """Return the key of an arm on Wikipedia."""
        epochs = self.epochs.get(network, 0)
        return ("train", "Wikipedia", network, batch, epochs * batch // FOUR if equal_steps else epochs, None, arm)

    def unseen(self, data: str, batch: int, arm: str) -> _Key:
        """Return the key of an arm on a set that nothing was tried on."""
        return ("unseen", data, None, batch, None, None, arm)

    def values(self, key: _Key, column: str = "test_ap") -> dict[int, float]:
        """Return one number of each seed."""
        return {seed: row[column] for seed, row in self.rows.get(key, {}).items() if row.get(column) is not None}

    def difference(self, a: _Key, b: _Key, column: str = "test_ap") -> PairedInterval | None:
        """Return the mean of ``a - b`` over common seeds with its interval; None without any."""
        first, second = self.values(a, column), self.values(b, column)
        seeds = sorted(first.keys() & second.keys())
        return paired_interval([first[seed] for seed in seeds], [second[seed] for seed in seeds]) if seeds else None

    def seconds(self, key: _Key) -> float | None:
        """Return the median time of a training epoch."""
        values = self.values(key, "seconds_per_epoch")
        return statistics.median(values.values()) if values else None

    def table(self) -> list[Row]:
        """Return one line for each arm of each setting."""
        lines = []
        for key in self.rows:
            part = key[0]
            if part == "memory":
                lines += self._memory_lines(key)
            elif part == "known drift":
                lines += self._drift_lines(key)
            else:
                lines.append(self._trained_line(key))
        return lines

    def _trained_line(self, key: _Key) -> Row:
        part, data, network, batch, epochs, _, arm = key
        column = "val_ap" if part == "choose" else "test_ap"
        values = list(self.values(key, column).values())
        plain = self.difference(key, (*key[:-1], "none"), column) if arm != "none" else None
        own, gamma = (list(self.values(key, name).values()) for name in ("own_test_ap", "gamma"))
        where = {"train": f"{network}, {data}", "choose": f"validation of {data}", "unseen": data}.get(str(part))
        length = f", {epochs} epochs" if epochs else ""
        return {
            "setting": where or "controlled stream",
            "batch": f"{batch or FOUR}{length}",
            "arm": arm,
            "seeds": len(values),
            "value": f"{statistics.fmean(values):.2f} ± {_deviation(values):.2f}",
            "less none": _text(plain),
            "at its batch": statistics.fmean(own) if own else None,
            "gamma": statistics.fmean(gamma) if gamma else None,
            "s/epoch": self.seconds(key),
        }

    def _memory_lines(self, key: _Key) -> list[Row]:
        rows = list(self.rows[key].values())
        lines = []
        for name, (batch, _) in ROLLOUTS.items():
            per_mark = [
                100 * statistics.fmean(values) for values in zip(*(_errors(row, name) for row in rows), strict=True)
            ]
            changes = [100 * (_mean(row, name) / _mean(row, "b = 1000") - 1) for row in rows]
            other = _alone(changes) if name not in ("b = 10", "b = 100", "b = 1000") else None
            lines.append(
                {
                    "setting": f"memory error in %, trained with coherence {key[5]:g}",
                    "batch": str(batch),
                    "arm": "none" if other is None else name,
                    "seeds": len(rows),
                    "value": " / ".join(f"{value:.1f}" for value in per_mark),
                    "less none": f"{_text(other)} %" if other else None,
                }
            )
        return lines

    def _drift_lines(self, key: _Key) -> list[Row]:
        rows = list(self.rows[key].values())
        return [
            {
                "setting": "distance in items, drift known",
                "batch": str(key[3]),
                "arm": name,
                "seeds": len(rows),
                "value": f"{statistics.fmean(row[name] for row in rows):.3f}",
                "less none": _text(paired_interval([row[name] for row in rows], [row["plain"] for row in rows]))
                if name != "plain"
                else None,
            }
            for name in ("plain", "corrected", "moved on")
        ]


def _deviation(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def _errors(row: Row, name: str) -> list[float]:
    return row["errors"][name]


def _mean(row: Row, name: str) -> float:
    return statistics.fmean(_errors(row, name))


def _text(interval: PairedInterval | None) -> str | None:
    return None if interval is None else f"{interval.mean:+.2f} [{interval.low:.2f}, {interval.high:.2f}]"


def _alone(values: Sequence[float]) -> PairedInterval:
    """The interval of numbers that are differences already."""
    return paired_interval(values, [0.0] * len(values))


def _above(claim: str, interval: PairedInterval | None, bound: float = 0.0) -> Check:
    """A check that an interval lies above a bound; what did not run does not hold."""
    return Check(claim, _text(interval), bound, interval is not None and interval.above(bound))


def checks_of(groups: Groups) -> tuple[list[Check], Verdict | None]:
    """Return all checks, and the verdict by the rule; None as long as a part that decides has no rows.

    Args:
        groups: the rows.

    Example:
        >>> checks_of(Groups([]))[1] is None
        True
    """
    effects = _effect_checks(groups)
    claim, control, memory = _claim_checks(groups), _control_check(groups), _memory_checks(groups)
    checks = [*effects, *claim, control, *memory, *_further_checks(groups)]
    complete = all(check.value is not None for check in (*effects, *claim, control, *memory))
    if not complete:
        return checks, None
    claimed, remembered = (all(check.holds for check in part) for part in (claim, memory))
    owed = [*(check.holds for check in effects), control.holds, remembered]
    if all(owed) and claimed:
        return checks, "reproduced"
    return checks, "partly" if any(owed) else "not reproduced"


def _effect_checks(groups: Groups) -> list[Check]:
    plain = groups.trained("JODIE", TEN, "none")
    return [
        _above(
            f"({letter}) confirmatory cell: {arm} less none",
            groups.difference(groups.trained("JODIE", TEN, arm), plain),
        )
        for letter, arm in (("A", "pcs"), ("B", "mcs"))
    ]


def _claim_checks(groups: Groups, network: str = "JODIE", letter: str = "(C) ") -> list[Check]:
    pres, base = groups.trained(network, FOUR, "both"), groups.trained(network, BASE, "none")
    times = groups.seconds(pres), groups.seconds(base)
    ratio = times[0] / times[1] if times[0] and times[1] else None
    return [
        _above(f"{letter}{network}: both at {FOUR} less none at {BASE}", groups.difference(pres, base), -1.0),
        Check(
            f"{letter}{network}: time of an epoch of both at {FOUR} over none at {BASE}",
            ratio,
            0.5,
            ratio is not None and ratio <= 0.5,
        ),
    ]


def _control_check(groups: Groups, network: str = "JODIE", letter: str = "(D) ") -> Check:
    pres, plain = groups.trained(network, FOUR, "both"), groups.trained(network, FOUR, "none")
    return _above(f"{letter}{network}: both less none, both at {FOUR}", groups.difference(pres, plain))


def _memory_checks(groups: Groups) -> list[Check]:
    rows = list(groups.rows.get(("memory", None, None, None, None, 0.0, None), {}).values())
    rising, lower = "(E) error of memories rises from 10 to 100 to 1000", "(E) correction lowers it at 1000, in percent"
    if not rows:
        return [Check(rising, None, None, False), Check(lower, None, 0.0, False)]
    marks = range(len(_errors(rows[0], "update")))
    means = [
        [statistics.fmean(_errors(row, f"b = {batch}")[mark] for row in rows) for batch in (10, 100, 1000)]
        for mark in marks
    ]
    shares = [
        [100 * (1 - _errors(row, "update")[mark] / _errors(row, "b = 1000")[mark]) for row in rows] for mark in marks
    ]
    reductions = [_alone(values) for values in shares]
    shown = "; ".join(" < ".join(f"{value:.3f}" for value in mean) for mean in means)
    return [
        Check(rising, shown, None, all(low < middle < high for low, middle, high in means)),
        Check(
            lower,
            "; ".join(str(_text(interval)) for interval in reductions),
            0.0,
            all(i.above(0.0) for i in reductions),
        ),
    ]


def _further_checks(groups: Groups) -> list[Check]:
    checks = [*_claim_checks(groups, "TGN", ""), _control_check(groups, "TGN", "")]
    for network in ("JODIE", "TGN"):
        for batch in (BASE, TEN):
            pres, plain = (groups.trained(network, batch, arm, equal_steps=True) for arm in ("both", "none"))
            checks.append(_above(f"{network}, equal steps: both less none at {batch}", groups.difference(pres, plain)))
    return [*checks, *_controlled_checks(groups), *_chosen_checks(groups)]


def _controlled_checks(groups: Groups) -> list[Check]:
    large, small = (
        groups.difference(
            ("controlled", None, None, batch, None, None, "by time"),
            ("controlled", None, None, batch, None, None, "none"),
        )
        for batch in (TEN, 10)
    )
    tie = small is not None and small.low > -1.0 and small.high < 1.0
    known: dict[int, PairedInterval | None] = {}
    for batch in (TEN, 10):
        rows = groups.rows.get(("known drift", None, None, batch, None, None, None), {}).values()
        shares = [100 * (1 - row["corrected"] / row["plain"]) for row in rows]
        known[batch] = _alone(shares) if shares else None
    near = known[10]
    return [
        _above(f"controlled stream: correction by time less none at {TEN}", large),
        Check("controlled stream: within 1 point at 10", _text(small), 1.0, tie),
        _above(f"drift known: corrected nearer at {TEN}, in percent", known[TEN]),
        Check("drift known: within 2 % at 10", _text(near), 2.0, near is not None and max(-near.low, near.high) < 2.0),
    ]


def choice(groups: Groups) -> dict[str, float]:
    """Return the mean gain of each form over none on validation, over both sets and all seeds.

    Args:
        groups: the rows.

    Example:
        >>> choice(Groups([]))
        {}
    """
    gains: dict[str, float] = {}
    for form in FORMS:
        keys = [key for key in groups.rows if key[0] == "choose" and key[-1] == form]
        found = [groups.difference(key, (*key[:-1], "none"), "val_ap") for key in keys]
        means = [interval.mean for interval in found if interval is not None]
        if means and form != "none":
            gains[form] = statistics.fmean(means)
    return gains


def _chosen_checks(groups: Groups) -> list[Check]:
    gains = choice(groups)
    best = max(gains, key=gains.__getitem__) if gains else None
    checks = [Check("the chosen form is the best on validation", best, CHOSEN, best == CHOSEN)]
    for data in UNSEEN:
        chosen, plain, base = (
            groups.unseen(data, batch, arm) for batch, arm in ((FOUR, CHOSEN), (FOUR, "none"), (BASE, "none"))
        )
        checks += [
            _above(f"{data}: {CHOSEN} less none, both at {FOUR}", groups.difference(chosen, plain)),
            _above(f"{data}: {CHOSEN} at {FOUR} less none at {BASE}", groups.difference(chosen, base), -1.0),
        ]
    return checks


def draw_scores(groups: Groups, axes: "Axes") -> None:
    """Draw the test score of each arm over the batch.

    Args:
        groups: the rows.
        axes: empty Axes.
    """
    for network, style in (("JODIE", "-o"), ("TGN", "--s")):
        for arm, colour in _COLOURS.items():
            points = [
                (batch, statistics.fmean(values.values()))
                for batch in (BASE, FOUR, TEN)
                if (values := groups.values(groups.trained(network, batch, arm)))
            ]
            if points:
                label = arm.replace("_", " ") if network == "JODIE" else None
                axes.plot(*zip(*points, strict=True), style, color=colour, label=label, markersize=4, linewidth=1.3)
    axes.plot([], [], "--s", color="gray", markersize=4, label="TGN (dashed)")
    axes.set_xscale("log")
    axes.set_xticks([BASE, FOUR, TEN], [str(batch) for batch in (BASE, FOUR, TEN)])
    axes.minorticks_off()
    axes.set_xlabel("training batch (equal epochs)")
    axes.set_ylabel("test AP in percent, evaluated at 200")
    axes.set_title("Wikipedia, JODIE and TGN", fontsize="medium")
    axes.legend(frameon=False, fontsize="small")


def draw_differences(groups: Groups, axes: "Axes") -> None:
    """Draw differences to the plain network at the same batch, with intervals.

    Args:
        groups: the rows.
        axes: empty Axes.
    """
    entries: list[tuple[str, str, PairedInterval | None]] = []
    for network, batches in (("JODIE", (TEN, FOUR, BASE)), ("TGN", (TEN, FOUR, BASE))):
        for batch in batches:
            for arm in list(_COLOURS)[1:]:
                pair = groups.trained(network, batch, arm), groups.trained(network, batch, "none")
                entries.append((f"{network} {batch}: {arm.replace('_', ' ')}", _COLOURS[arm], groups.difference(*pair)))
    for data in UNSEEN:
        pair = groups.unseen(data, FOUR, CHOSEN), groups.unseen(data, FOUR, "none")
        entries.append((f"{data} {FOUR}: {CHOSEN}", "C3", groups.difference(*pair)))
    shown = [entry for entry in entries if entry[2] is not None]
    for place, (_, colour, interval) in enumerate(shown):
        assert interval is not None
        axes.plot([interval.low, interval.high], [place, place], color=colour, linewidth=1.6)
        axes.plot(interval.mean, place, "o", color=colour, markersize=4)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(shown)), [label for label, _, _ in shown], fontsize=6.5)
    axes.invert_yaxis()
    reach = [abs(interval.mean) + 4 for _, _, interval in shown if interval is not None]
    axes.set_xlim(-max(reach, default=1), max(reach, default=1))
    axes.set_xlabel("test AP less that of none, 95 % interval")
    axes.set_title("difference at the same batch", fontsize="medium")
