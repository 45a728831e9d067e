"""Figure of ``effect.g2gnet``: accuracy of dense and sparse networks."""

from collections.abc import Sequence
from typing import Any

from graphseq.bench import Results, Row
from graphseq.bench.records.drawing import Panel, draw_panels

WORDS = {
    "dense": "dense, equal width",
    "narrow": "dense, equal weights",
    "er": "random graph (ER)",
    "index": "G2G, contiguous groups",
    "mixer": "G2G, mixer",
    "edges": "G2G, mixer, single weights",
    "set": "mixer + SET",
    "rigl": "mixer + gradient growth",
    "hebb": "mixer + Hebbian growth",
}


def finding(results: Results, checks: Sequence[Row]) -> str:
    """Return by how much the mixer differs from the dense network and from the random graph, in points."""
    parts = []
    for data in results.axes["data"]:
        found = {arm: results.difference("mixer", arm, data=data) for arm in ("dense", "er")}
        if all(found.values()):
            dense, er = (interval.mean for interval in found.values())  # type: ignore[union-attr]
            parts.append(f"{data} {dense:+.1f} to dense, {er:+.1f} to ER")
    return f"a quarter of the weights in groups: {'; '.join(parts)}" if parts else ""


def figure(results: Results, drawn: Any, text: str, reruns: Sequence[Results] = ()) -> None:
    """Draw the test accuracy of every arm, a panel for each data set."""
    panels = []
    for data in results.axes["data"]:
        values: dict[str, Sequence[float]] = {
            WORDS[arm]: list(results.values(arm, data=data).values()) for arm in results.arms(data=data)
        }
        if values:
            panels.append(Panel(data, values, scale=data))  # accuracies of the two are far apart
    draw_panels(drawn, panels, finding=text, label="test accuracy in percent", ours=[WORDS["mixer"]],
                baseline=WORDS["dense"])  # fmt: skip
