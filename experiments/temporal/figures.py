"""Figure of ``effect.tgn_wikipedia``: average precision of networks with memory."""

from collections.abc import Mapping, Sequence
from typing import Any

from graphseq.bench import Results, Row
from graphseq.bench.records.drawing import Panel, draw_panels

__all__ = ["draw_networks", "networks_in_words", "read_networks"]


def read_networks(row: Row) -> Row:
    """Return a row of the record of 2026-11-24 of ``effect.tgn_wikipedia`` in today's columns."""
    if "model" not in row:
        return row
    test = {kind: {"ap": ap, "batch_ap": row["batch_ap"][kind]} for kind, ap in row["test_ap"].items()}
    return {"data": row["data"], "arm": row["model"], "seed": row["seed"], "test": test}


def networks_in_words(results: Results, checks: Sequence[Row], ours: str, peer: str) -> str:
    """Return the average precision of ours and the peer's network on Wikipedia, and their difference."""
    means = [results.mean(arm, data="Wikipedia") for arm in (ours, peer)]
    found = results.difference(ours, peer, data="Wikipedia")
    if means[0] is None or means[1] is None or found is None:
        return f"{sum(check['holds'] for check in checks)} of {len(checks)} claims hold"
    return (
        f"{ours} has an average precision of {means[0]:.3f} on Wikipedia, {peer} {means[1]:.3f} "
        f"(difference {found.mean:+.3f}, 95 % interval {found.low:+.3f} to {found.high:+.3f})"
    )


def draw_networks(results: Results, figure: Any, text: str, words: Mapping[str, str], ours: Sequence[str]) -> None:
    """Draw the test average precision of all networks: a row for each kind of negatives, a column for each data set.

    Args:
        results: results of the effect.
        figure: empty figure of matplotlib.
        text: sentence above the figure.
        words: arms spelled out in words; others keep their names.
        ours: arms of the method.
    """
    kinds = list(results.rows[0]["test"])
    panels = []
    for kind in kinds:
        for data in [point["data"] for point in results.places()]:
            found = {
                arm: results.values(arm, lambda row, kind=kind: row["test"][kind]["ap"], data=data)
                for arm in results.arms(data=data)
            }
            values = {words.get(arm, arm): list(seeds.values()) for arm, seeds in found.items()}
            panels.append(Panel(f"{data}, {kind} negatives", values, line=0.5))
    draw_panels(figure, panels, finding=text, label="test average precision; dashed line: chance", columns=4,
                ours=[words.get(arm, arm) for arm in ours])  # fmt: skip
