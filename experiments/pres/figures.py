"""Figure of ``effect.pres``: what each part of PRES and each batching gains over the plain network."""

from collections.abc import Sequence
from typing import Any

from graphseq.bench import Results, Row
from graphseq.bench.effects.figures import differences
from graphseq.bench.records.drawing import Panel, draw_panels

WORDS = {
    "none": "plain network",
    "pcs": "prediction-correction",
    "mcs": "memory coherence",
    "both": "both parts (PRES)",
    "exact": "exact memories (control)",
    "random_chunk": "random chunks",
    "adaptive": "adaptive batches",
}


def read(row: Row) -> Row:
    """Return a row of the record of 2026-11-25, which told settings by part, network and batch, in today's columns."""
    if "setting" in row:
        return row
    part = row["part"]
    names = {
        "train": f"{row.get('network')} {row.get('batch')}",
        "choose": f"validation of {row.get('data')}",
        "unseen": f"{row.get('data')} {row.get('batch')}",
        "memory": "memory",
        "controlled": f"controlled {row.get('batch')}",
        "known drift": f"drift known {row.get('batch')}",
    }
    usual = {"JODIE": 20, "TGN": 12}.get(row.get("network", ""))
    steps = ", equal steps" if part == "train" and row["epochs"] != usual else ""
    made: Row = {**row, "setting": names[part] + steps}
    made["arm"] = row.get("arm", "mcs" if row.get("coherence") else "none")
    if part == "known drift":
        made["distance"] = {name: row[name] for name in ("plain", "corrected", "moved on")}
    if "val_ap" in row:
        made["val"] = row["val_ap"] / 100
    if "test_ap" in row:
        made["test"] = {"": {"ap": row["test_ap"] / 100}}
    return made


def finding(results: Results, checks: Sequence[Row]) -> str:
    """Return which parts are above the plain network in the confirmatory cell, and by how much PRES is."""
    found = {arm: results.difference(arm, "none", setting="JODIE 2000") for arm in ("pcs", "mcs", "both")}
    clear = [WORDS[arm] for arm in ("pcs", "mcs") if (gain := found[arm]) and gain.above(0.0)]
    which = ["neither part alone is", f"{clear[0] if clear else ''} alone is", "each part alone is"][len(clear)]
    text = f"at batches of 2000, {which} clearly above the plain network"
    if (both := found["both"]) is not None:
        text += f"; both together gain {both.mean:.1f} points (95 % interval {both.low:.1f} to {both.high:.1f})"
    return text


def figure(results: Results, drawn: Any, text: str, reruns: Sequence[Results] = ()) -> None:
    """Draw the differences to the plain network: a row for each network, a column for each batch, and cells run again.

    Args:
        results: results of the effect.
        drawn: empty figure of matplotlib.
        text: sentence above the figure.
        reruns: results of cells that were run again.
    """
    panels = [
        panel_of(results, f"{network} {batch}", f"{network}, batches of {batch}")
        for network in ("JODIE", "TGN") for batch in (200, 800, 2000)
    ]  # fmt: skip
    gains = [rerun.difference("both", "none", setting="JODIE 2000") for rerun in reruns]
    text += "".join(f", run again {gain.mean:.1f} ({gain.low:.1f} to {gain.high:.1f})" for gain in gains if gain)
    again = [panel_of(rerun, "JODIE 2000", "JODIE, 2000, run again") for rerun in reruns]
    panels = [panel for panel in [*panels[:3], *again[:1], *panels[3:]] if panel.values]
    label = "test average precision less that of the plain network, in points"
    draw_panels(drawn, panels, finding=text, ours=[WORDS["both"]], label=label, columns=3 + len(again[:1]))


def panel_of(results: Results, setting: str, title: str) -> Panel:
    """Return the differences to the plain network in a setting, with its own score in the title."""
    plain = results.mean("none", setting=setting)
    text = title if plain is None else f"{title} (plain {plain:.1f})"
    return Panel(text, differences(results, "none", WORDS, setting=setting), line=0.0)
