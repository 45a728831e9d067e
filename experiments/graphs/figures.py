"""Figure of ``effect.gin_tu``: accuracy of GIN beside the published one, fold by fold."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from graphseq.bench import Results, Row
from graphseq.bench.records.drawing import Panel, draw_panels

__all__ = ["by_arm", "draw", "finding", "read"]

WORDS = {
    "GIN, published": "GIN, epoch of the best test mean",
    "GIN, fair": "GIN, epoch chosen on validation",
    "no edges, published": "the same without edges (control)",
    "majority class": "majority class",
}


def read(row: Row) -> Row:
    """Return a row of the record of 2026-11-23, which told arms by network and protocol, in today's columns."""
    if "protocol" not in row:
        return row
    curve = [value / 100 for value in row["test_accuracy"]]
    score = curve[-1]
    if row["protocol"] == "fair":
        right = row["val_accuracy"]
        score = curve[right.index(max(right))]
    return {
        "data": row["data"], "arm": f"{row['network']}, {row['protocol']}", "seed": 10 * row["seed"] + row["fold"],
        "curve": curve, "test": {"": {"acc": score}}, "majority": row["majority_accuracy"],
    }  # fmt: skip


def by_arm(results: Results, majority_of: str) -> dict[str, dict[str, list[float]]]:
    """Return the accuracy of each fold by set and arm; that of the majority class comes from the rows of one arm."""
    found = {}
    for point in results.places():
        arms = {arm: list(results.values(arm, **point).values()) for arm in results.arms(**point)}
        arms["majority class"] = [row["majority"] for row in results.select(majority_of, **point).values()]
        found[point["data"]] = arms
    return found


def draw(
    figure: Any, finding: str, accuracies: Mapping[str, Mapping[str, Sequence[float]]], published: Mapping[str, Any]
) -> None:
    """Draw the accuracy of every fold, one panel for each data set.

    Args:
        figure: empty figure of matplotlib.
        finding: sentence above the figure.
        accuracies: data set -> arm -> accuracy of each fold, in percent.
        published: data set -> published mean and deviation, first among others.
    """
    panels = []
    for data, arms in accuracies.items():
        mean, deviation = published[data][:2]
        values = {words: arms[arm] for arm, words in WORDS.items() if arms.get(arm)}
        title = f"{data} (published {mean} ± {deviation})"
        panels.append(Panel(title, values, line=mean, band=(mean - deviation, mean + deviation)))
    draw_panels(figure, panels, finding=finding, ours=[WORDS["GIN, published"], WORDS["GIN, fair"]], seeds="folds",
                label="test accuracy in percent; dashed line and band: published mean and deviation")  # fmt: skip


def finding(accuracies: Mapping[str, Mapping[str, Sequence[float]]], published: Mapping[str, Any]) -> str:
    """Return on how many sets GIN is within one published deviation of the published mean, and what edges give."""
    means = {
        data: {arm: statistics.fmean(values) for arm, values in arms.items() if values}
        for data, arms in accuracies.items()
    }
    within = [data for data, arms in means.items() if arms["GIN, published"] >= published[data][0] - published[data][1]]
    gains = sorted(arms["GIN, published"] - arms["no edges, published"] for arms in means.values())
    return (
        f"GIN comes within one deviation of the published accuracy on {len(within)} of {len(means)} data sets; "
        f"edges give {gains[0]:.0f} to {gains[-1]:.0f} points"
    )
