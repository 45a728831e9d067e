"""Figures of learned weights: test scores of all arms, setting by setting, and what a step and an epoch cost."""

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from graphseq.bench import Results, Row
from graphseq.bench.records.drawing import COLOURS, Panel, draw_panels, plain_axes, set_finding, write_value

__all__ = ["MOST", "draw_steps", "finding", "options", "read", "read_steps", "selection_in_words", "steps_in_words"]

POOLED_IN_WORDS = "ERM on train + validation (control)"
FORMS_IN_WORDS = {"L2R, first order": "L2R-GNN, first order", "L2R, unrolled": "L2R-GNN, unrolled"}
WORDS = {
    "ERM, train + validation": POOLED_IN_WORDS,
    "ERM": "ERM",
    "class-balanced": "ERM, class-balanced",
    "IRM": "invariant risk (IRM)",
    "V-REx": "risk extrapolation (V-REx)",
    "GroupDRO": "worst group (GroupDRO)",
    "CORAL": "aligned features (CORAL)",
    "all pairs": "decorrelate all pairs",
    **FORMS_IN_WORDS,
}
_ORDER = list(WORDS)
MOST = {"training set": 1.3, "decorrelation": 2.0, "released": 1.0, "printed": 1.0}
"""Cost of a step over its base that ``speed.l2r_step`` claims at most."""


def read(row: Row) -> Row:
    """Return a row of the records of 2026-11-24, which hold scores in percent, in today's columns."""
    if all(isinstance(scores, dict) for scores in row["test"].values()):
        return row
    only, val = len(row["test"]) == 1, row["val"] or 0.0  # pooled training was not validated
    if row["data"] == "ESOL":  # minus the error, in the unit of the target
        (score,) = row["test"].values()
        return {**row, "test": {"": {"rmse": -score}}, "val": -val, "unit": 1.0}
    name = "auroc" if row["data"] in ("BBBP", "BACE", "SIDER") else "acc"
    test = {"" if only else kind: {name: score / 100} for kind, score in row["test"].items()}
    return {**row, "test": test, "val": val / 100, "unit": 1.0}


def finding(results: Results, checks: Sequence[Row]) -> str:
    """Return in how many settings L2R-GNN is above both of those it is compared with."""
    settings: dict[str, bool] = {}
    for check in checks:
        name = re.sub(r"^\(\w+\) ", "", check["claim"]).partition(":")[0].removesuffix(", test")
        settings[name] = settings.get(name, True) and check["holds"]
    won = [name for name, holds in settings.items() if holds]
    where = f" ({', '.join(won)})" if 0 < len(won) < len(settings) else ""
    count = "none" if not won else "all" if len(won) == len(settings) else str(len(won))
    return f"L2R-GNN is above pooled training and the best other baseline in {count} of {len(settings)} settings{where}"


_TESTED = {
    "val/acc": "accuracy in percent, higher is better",
    "val/auroc": "AUROC in percent, higher is better; ESOL: root mean squared error",
}


def options(score: Any, choose: str, tests: Sequence[str], *, columns: int) -> dict[str, Any]:
    """Return the options of an effect that draw its figure.

    Args:
        score: function of a row and a test that returns the score.
        choose: metric by which the epoch was chosen; it says what the axis shows.
        tests: name of each test.
        columns: largest number of panels side by side.
    """
    words = {test: f", {test} test" if test else "" for test in sorted(tests, reverse=True)}

    def figure(results: Results, drawn: Any, text: str, reruns: Sequence[Results] = ()) -> None:
        draw(results, drawn, text, words, score, f"test {_TESTED[choose]}", columns)

    return {"finding": finding, "figure": figure, "read": read}


def draw(
    results: Results, figure: Any, text: str, tests: Mapping[str, str], score: Any, label: str, columns: int
) -> None:
    """Draw the test scores of all arms: a row of panels for each test, a column for each setting."""
    panels = []
    for test, words in tests.items():
        for data in [point["data"] for point in results.places()]:
            error = any("rmse" in row["test"][test] for row in results.rows if row["data"] == data)
            values = {}
            for arm in sorted(results.arms(data=data), key=_ORDER.index):
                found = results.values(arm, lambda row, test=test: score(row, test), data=data)
                values[WORDS.get(arm, arm)] = [-value if error else value for value in found.values()]
            control = values.get(POOLED_IN_WORDS)
            title = f"{data}{words}" + ": error, lower is better" * error
            line = statistics.fmean(control) if control else None
            panels.append(Panel(title, values, line=line, scale="error" if error else ""))
    draw_panels(figure, panels, finding=text, label=f"{label}; dashed line: mean of the control", columns=columns,
                ours=list(FORMS_IN_WORDS.values()), baseline=POOLED_IN_WORDS, better="")  # fmt: skip


_WORDS_OF_STEPS = {
    "training set": "step of the weights: {what} over {base}",
    "epoch": "epoch with weights ({what}) over plain epoch",
    "published": "procedure as {what}: ours over a loop",
}


def read_steps(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of the record of 2026-11-24, which holds medians of each part, in today's columns."""
    made: list[Row] = []

    def add(part: str, what: str, base: str, ms: Sequence[float], median: float, low: Any, high: Any) -> None:
        ratio = {"ours/base": {"median": median, "low": low, "high": high}}
        times = dict(zip(("ours", "base"), ms, strict=True))
        made.append({"part": part, "what": what, "base": base, "ms": times, "ratio": ratio, "versions": {}})

    for row in rows:
        part, ms = row["part"], row["ms"]
        if "what" in row:
            made.append(row)
        elif part == "published":
            for what, text in row["ratio"].items():
                median, low, high = map(float, re.findall(r"\d+\.\d+", text))
                add(part, what, "loop", [ms[f"{what}, ours"], ms[f"{what}, peer"]], median, low, high)
        else:
            (base, least), *others = ms.items()
            for what, time in others:
                add(part, what, base, [time, least], least / time, None, None)  # no range was kept
    return made


def _times(row: Row) -> tuple[float, list[list[float]] | None]:
    """How many times as long as its base a row takes, and its range over rounds where that was kept."""
    ratio = row["ratio"]["ours/base"]
    median = 1 / ratio["median"]
    if ratio["low"] is None:
        return median, None
    return median, [[median - 1 / ratio["high"]], [1 / ratio["low"] - median]]


def steps_in_words(rows: Sequence[Row]) -> str:
    """Return what a larger training set and an epoch with weights cost, each over its base."""
    parts = []
    for row in rows:
        if row["part"] == "training set":
            cost = _times(row)[0]
            parts.append(f"a step of the weights takes {cost:.2f} times as long for {row['what']} as for {row['base']}")
    epochs = [_times(row)[0] for row in rows if row["part"] == "epoch"]
    if epochs:
        parts.append(f"an epoch with weights {min(epochs):.1f} to {max(epochs):.1f} times as long as a plain one")
    return ", ".join(parts)


def draw_steps(rows: Sequence[Row], figure: Any, text: str, bounds: Mapping[str, float]) -> None:
    """Draw the cost of the queue as a line, and of everything else as dots, each over its base.

    Args:
        rows: rows of the cases that ran.
        figure: empty figure of matplotlib; its size is set.
        text: sentence above the figure.
        bounds: largest claimed cost, by part or by what is timed.
    """
    figure.set_size_inches(11.5, 3.9)
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.15])
    kept = True
    queue = [row for row in rows if row["part"] == "queue"]
    left.plot([0, *(int(row["what"].split()[0]) for row in queue)], [1.0, *(_times(row)[0] for row in queue)],
              color=COLOURS[0], linewidth=1.2)  # fmt: skip
    for row in queue:
        median, spread = _times(row)
        kept &= spread is not None
        left.errorbar([int(row["what"].split()[0])], [median], yerr=spread, fmt="o", capsize=3, color=COLOURS[0])
    left.plot([0], [1.0], "o", color="black")
    left.set_ylim(bottom=0)
    left.set_title("step of the weights, by blocks in the queue", fontsize=10, loc="left")
    left.set_xlabel("blocks of 64 graphs in the queue", fontsize=9)
    left.set_ylabel("times a step without queue", fontsize=9)
    plain_axes(left, "y")
    others = [row for row in rows if row["part"] != "queue"]
    for place, row in enumerate(others):
        median, spread = _times(row)
        kept &= spread is not None
        right.errorbar([median], [place], xerr=spread, fmt="o", capsize=3, color=COLOURS[0])
        bound = bounds.get(row["what"], bounds.get(row["part"]))
        if bound is not None:
            right.scatter([bound], [place], s=140, marker="|", linewidths=2, color="black")
        write_value(right, place, f"{median:.3g}", "black")
    right.axvline(1.0, color="black", linewidth=0.9, linestyle=(0, (4, 2)))
    right.set_yticks(range(len(others)), [_WORDS_OF_STEPS[row["part"]].format(**row) for row in others])
    right.set_ylim(max(1, len(others)) - 0.5, -0.5)
    right.set_xscale("log")
    right.set_xticks([0.05, 0.1, 0.2, 0.5, 1, 2], ["0.05", "0.1", "0.2", "0.5", "1", "2"])
    right.tick_params(axis="x", which="minor", bottom=False)
    right.set_title("cost over the base", fontsize=10, loc="left")
    right.set_xlabel("times as long; black marks: most that is claimed", fontsize=9)
    plain_axes(right, "x")
    note = "medians and ranges over rounds" if kept else "medians; ranges over rounds where the record holds them"
    figure.supxlabel(f"lower is better; {note}", fontsize=9)
    set_finding(figure, text)


def selection_in_words(results: Results, plain: str, pairs: str, clusters: str) -> str:
    """Return by how much clusters lower error and spread of least squares, and whether they beat all pairs."""

    def lowered(key: str) -> float:
        ours, usual = (results.mean(f"{arm}@1000", lambda row: row[key]) for arm in (clusters, plain))
        return 100 * (1 - ours / usual) if ours is not None and usual else math.nan

    gain = results.difference(f"{clusters}@1000", f"{pairs}@1000")
    beats = "and beat" if gain is not None and gain.above(0.0) else "but do not clearly beat"
    return (
        f"clusters lower the error of least squares by {lowered('rmse'):.0f} % and its spread over tests by "
        f"{lowered('deviation'):.0f} %, {beats} all pairs"
    )
