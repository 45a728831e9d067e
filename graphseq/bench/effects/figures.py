"""Default figure of effects: differences to the baseline, seed by seed."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from graphseq.bench.effects.results import Results
from graphseq.bench.records.drawing import Panel, draw_panels

__all__ = ["differences", "draw_differences"]


def differences(results: Results, baseline: str, words: Mapping[str, str], **where: Any) -> dict[str, list[float]]:
    """Return the differences of each arm to the baseline, one for each common seed, by the arm in words.

    Args:
        results: results of the effect.
        baseline: name of the arm that the others are compared with.
        words: arms spelled out in words; others keep their names.
        where: point of the grid: axis -> value.

    Example:
        >>> rows = [{"arm": arm, "seed": s, "x": x + s} for arm, x in (("none", 0), ("pcs", 2)) for s in (0, 1)]
        >>> differences(Results(rows, {}, lambda row: row["x"]), "none", {"pcs": "correction"})
        {'correction': [2, 2]}
    """
    plain = results.values(baseline, **where)
    found = {}
    for arm in results.arms(**where):
        values = results.values(arm, **where)
        if arm != baseline and (common := sorted(values.keys() & plain.keys())):
            found[words.get(arm, arm)] = [values[seed] - plain[seed] for seed in common]
    return found


def draw_differences(
    results: Results,
    figure: Any,
    *,
    baseline: str,
    finding: str,
    unit: str,
    words: Mapping[str, str],
    better: Literal["higher", "lower", "neither"] = "higher",
    reruns: Sequence[Results] = (),
) -> None:
    """Draw the difference of each arm to the baseline at each point of the grid: seeds, means and 95 % intervals.

    Args:
        results: results of the effect.
        figure: empty figure of matplotlib.
        baseline: name of the arm that the others are compared with.
        finding: sentence above the figure.
        unit: unit of the score, for the label of the axis.
        words: arms spelled out in words; others keep their names.
        better: whether higher or lower scores are better, or neither.
        reruns: results of cells that were run again, in panels of their own.

    Example:
        >>> draw_differences(results, figure, baseline="none", finding="", unit="percent", words={})  # doctest: +SKIP
    """
    panels = []
    for run, again in [(results, ""), *((rerun, " (again)") for rerun in reruns)]:
        for point in run.places():
            names = [f"{axis.rpartition('.')[2]} " * (not isinstance(value, str)) for axis, value in point.items()]
            title = ", ".join(f"{name}{value}" for name, value in zip(names, point.values(), strict=True)) + again
            if found := differences(run, baseline, words, **point):
                panels.append(Panel(title, found, line=0.0))
    label = f"difference to {words.get(baseline, baseline)} in {unit}"
    draw_panels(figure, panels, finding=finding, label=label, better="" if better == "neither" else better)
