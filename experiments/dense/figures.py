"""Figure of ``effect.snn``: accuracy of deep fully connected networks by kind and depth."""

from collections.abc import Sequence
from typing import Any

from graphseq.bench import Results, Row
from graphseq.bench.records.drawing import Panel, draw_panels

WORDS = {
    "plain": "plain (ReLU)",
    "batch": "batch normalisation",
    "layer": "layer normalisation",
    "weight": "weight normalisation",
    "highway": "highway gates",
    "selu alone": "SELU, default initialisation",
    "snn": "self-normalising (SNN)",
}


def finding(results: Results, checks: Sequence[Row]) -> str:
    """Return on how many sets the self-normalising networks are above every other arm at 32 layers, and by how much."""
    sets = [data for data in results.axes["data"] if results.select("snn", data=data, **{DEPTH: 32})]
    above, leads = [], []
    for data in sets:
        where = {"data": data, DEPTH: 32}
        others = [results.difference("snn", arm, **where) for arm in results.arms(**where) if arm != "snn"]
        found = [interval for interval in others if interval is not None]
        if found and all(interval.above(0.0) for interval in found):
            above.append(data)
            leads.append(min(interval.mean for interval in found))
    lead = f", by {min(leads):.0f} points or more" if leads else ""
    return f"self-normalising networks lead all others at 32 layers on {len(above)} of {len(sets)} data sets{lead}"


DEPTH = "model.model.num_layers"


def figure(results: Results, drawn: Any, text: str, reruns: Sequence[Results] = ()) -> None:
    """Draw the test accuracy of every arm: a column for each data set, a row for each depth."""
    panels = []
    for depth in results.axes[DEPTH]:
        for data in results.axes["data"]:
            where = {"data": data, DEPTH: depth}
            values: dict[str, Sequence[float]] = {
                WORDS[arm]: list(results.values(arm, **where).values()) for arm in results.arms(**where)
            }
            if values:
                panels.append(Panel(f"{data}, {depth} layers", values))
    draw_panels(drawn, panels, finding=text, label="test accuracy in percent", ours=[WORDS["snn"]],
                baseline=WORDS["plain"])  # fmt: skip
