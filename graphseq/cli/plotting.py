"""``graphseq plot``: the curves of one or more runs as small multiples, from their CSV logs."""

import argparse
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphseq.bench.directions import lower_is_better
from graphseq.cli.labels import run_labels, saved_settings
from graphseq.cli.logs import (
    STAGES,
    Curve,
    Point,
    Run,
    RunError,
    best_point,
    find_logs,
    read_run,
    run_names,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_runs", "main"]

# palette of Okabe and Ito, distinguishable with all common kinds of colour vision; its yellow is too pale for lines
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_STYLES: dict[str, Any] = {"train": (0, (4, 1.5)), "val": "-", "test": (0, (1, 1.5)), "": "-"}
_GREY = "#555555"


def _colours(count: int) -> list[Any]:
    if count <= len(_COLOURS):
        return list(_COLOURS[:count])
    import matplotlib

    shades = matplotlib.colormaps["viridis"]
    return [shades(0.95 * index / (count - 1)) for index in range(count)]


def _choose(runs: Sequence[Run], wanted: Sequence[str]) -> list[Run]:
    """Runs with selected curves only: by full name, by metric, or all that have a stage."""
    known = sorted({curve.name for run in runs for curve in run.curves})
    metrics = {curve.metric for run in runs for curve in run.curves}
    unknown = [name for name in wanted if name not in known and name not in metrics]
    if unknown:
        raise RunError(f"no run has the metric {', '.join(unknown)}; there are {', '.join(known)}")
    staged = any(curve.stage for run in runs for curve in run.curves)

    def keeps(curve: Curve) -> bool:
        if wanted:
            return curve.name in wanted or curve.metric in wanted
        return bool(curve.stage) or not staged  # learning rates only when asked for

    return [Run(run.log, tuple(filter(keeps, run.curves))) for run in runs]


def _uses_epochs(runs: Sequence[Run]) -> bool:
    """Whether each curve has at most one value per epoch, so that the axis can show epochs instead of steps."""
    for curve in (curve for run in runs for curve in run.curves if curve.stage != "test"):
        epochs = [point.epoch for point in curve.points]
        if None in epochs or len(set(epochs)) < len(epochs):
            return False
    return True


def _spread(heights: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move labels inside the panel by the least amount that leaves ``gap`` between neighbours."""
    order = sorted(range(len(heights)), key=heights.__getitem__)
    placed = [min(max(heights[index], low), high) for index in order]
    for _ in range(50):
        for below in range(len(placed) - 1):
            overlap = gap - (placed[below + 1] - placed[below])
            if overlap > 1e-9:
                placed[below] -= overlap / 2
                placed[below + 1] += overlap / 2
        placed = [min(max(height, low), high) for height in placed]
    result = [0.0] * len(heights)
    for index, height in zip(order, placed, strict=True):
        result[index] = height
    return result


def _label_ends(axes: "Axes", ends: Sequence[tuple[str, float, Any]], panel_height: float) -> None:
    """Write each line's name beside its right end, in axes coordinates, without overlaps."""
    axes.get_ylim()  # settles the limits, which transData alone does not
    fractions = [float(axes.transAxes.inverted().transform(axes.transData.transform((0, y)))[1]) for _, y, _ in ends]
    line = 0.15 / panel_height  # height of a line of text in inches, as a share of the panel
    for (text, _, colour), height in zip(ends, _spread(fractions, line, 0.02, 0.98), strict=True):
        axes.text(1.03, height, text, color=colour, fontsize=9, va="center", transform=axes.transAxes)


def _draw_panel(axes: "Axes", metric: str, runs: Sequence[Run], names: Sequence[str], epochs: bool) -> None:
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    colours = _colours(len(runs))
    ends: list[tuple[str, float, Any]] = []
    values: list[float] = []

    def position(point: Point, index: int) -> float:
        place = point.epoch if epochs else point.step
        return float(index if place is None else place)

    for run, colour in zip(runs, colours, strict=True):
        for curve in (curve for curve in run.curves if curve.metric == metric):
            finite = [(position(p, i), p.value) for i, p in enumerate(curve.points) if math.isfinite(p.value)]
            if not finite:
                continue
            values += [y for _, y in finite]
            style = {"color": colour, "linestyle": _STYLES[curve.stage]}
            if curve.stage == "test":
                y = finite[-1][1]
                axes.axhline(y, linewidth=1.4, **style)
                axes.plot([1], [y], marker="D", markersize=5, color=colour, transform=axes.get_yaxis_transform(),
                          clip_on=False, zorder=4)  # fmt: skip
                ends.append((f"test {y:.3g}", y, colour))
                continue
            dense = len(finite) > 150
            single = len(finite) == 1
            widths = (1.8, 1.3)
            axes.plot(*zip(*finite, strict=True), linewidth=0.9 if dense else widths[curve.stage == "train"],
                      alpha=0.75 if dense else 1.0,
                      marker="o" if single else None, markersize=5, **style)  # fmt: skip
            ends.append((curve.stage, finite[-1][1], colour))
            best = best_point(curve)
            if curve.stage == "val" and best is not None:
                index = curve.points.index(best)
                axes.plot([position(best, index)], [best.value], marker="o", markersize=6, markerfacecolor="white",
                          markeredgewidth=1.6, color=colour, zorder=5)  # fmt: skip
    if values and lower_is_better(metric) and min(values) > 0 and max(values) / min(values) > 20:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_locator(NullLocator())
    axes.set_title(metric, fontsize=11, loc="left", fontweight="bold")
    if lower_is_better(metric):
        axes.set_title("lower is better", fontsize=9, loc="right", color=_GREY)
    axes.set_xlabel("epoch" if epochs else "step", fontsize=9)
    axes.tick_params(labelsize=9, labelbottom=True)
    axes.grid(True, color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.02)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10], integer=True))
    if not values:
        axes.text(0.5, 0.5, "no finite value", transform=axes.transAxes, ha="center", color=_GREY)
    if len(runs) == 1:
        _label_ends(axes, ends, panel_height=2.3)


def _legend(figure: "Figure", runs: Sequence[Run], names: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    size = {"frameon": False, "fontsize": 9, "handlelength": 2.4, "columnspacing": 1.5}
    width = figure.get_size_inches()[0]
    columns = max(1, min(len(names), int(width / (0.7 + 0.08 * max(map(len, names))))))
    coloured = [
        Line2D([], [], color=colour, linewidth=4, label=name)
        for name, colour in zip(names, _colours(len(runs)), strict=True)
    ]
    figure.legend(handles=coloured, loc="outside upper left", ncols=columns, **size)
    drawn = {curve.stage for run in runs for curve in run.curves}
    styled = []
    for stage in (stage for stage in STAGES if stage in drawn):
        marker = "D" if stage == "test" else None
        styled.append(
            Line2D([], [], color=_GREY, linestyle=_STYLES[stage], marker=marker, markersize=5, label=stage)
        )  # fmt: skip
    if "val" in drawn:
        styled.append(
            Line2D([], [], color=_GREY, linestyle="", marker="o", markerfacecolor="white", label="best val")
        )  # fmt: skip
    if styled:
        figure.legend(handles=styled, loc="outside lower left", ncols=len(styled), **size)


def draw_runs(runs: Sequence[Run], names: Sequence[str], title: str = "") -> "Figure":
    """Draw one panel for each metric: one colour per run, one line style per stage, horizontal lines for test values.

    An open circle marks the best validation value. A single run has labels at the ends of its lines, several runs have
    a legend.

    Args:
        runs: the runs to draw: at least one, with at least one curve among them.
        names: names of the runs for the legend.
        title: text above the panels; empty for none.

    Example:
        >>> from pathlib import Path
        >>> curve = Curve("val", "loss", (Point(1.0, 9, 0), Point(0.5, 19, 1)))
        >>> figure = draw_runs([Run(Path("runs/gin/metrics.csv"), (curve,))], ["gin"])
        >>> [axes.get_title("left") for axes in figure.axes]
        ['loss']
    """
    from matplotlib.figure import Figure  # not pyplot: no window, no backend, no global state

    metrics = sorted({curve.metric for run in runs for curve in run.curves}, key=lambda name: (name != "loss", name))
    columns = min(len(metrics), 3) if len(metrics) != 4 else 2
    lines = math.ceil(len(metrics) / columns)
    figure = Figure(figsize=(4.4 * columns + (0.8 if columns == 1 else 0.0), 3.1 * lines + 0.5), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False, sharex=True)
    epochs = _uses_epochs(runs)
    if title:
        figure.suptitle(title, fontsize=12, x=0.01, ha="left")
    for axes, metric in zip(grid.flat, metrics, strict=False):
        _draw_panel(axes, metric, runs, names, epochs)
    for axes in list(grid.flat)[len(metrics) :]:
        axes.remove()
    if len(runs) > 1:
        _legend(figure, runs, names)
    return figure


def _rank(curve: Curve) -> int:
    return STAGES.index(curve.stage) if curve.stage else len(STAGES)


def _summary(runs: Sequence[Run], names: Sequence[str]) -> list[dict[str, Any]]:
    rows = []
    for run, name in zip(runs, names, strict=True):
        for curve in sorted(run.curves, key=lambda curve: (curve.metric != "loss", curve.metric, _rank(curve))):
            best, last = best_point(curve), curve.points[-1]
            row = {"run": name, "metric": curve.name, "best": best.value if best else None}
            row["epoch"], row["step"] = (best.epoch, best.step) if best else (None, None)
            rows.append({**row, "last": last.value})
    return rows


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="graphseq plot",
        description="Draw loss and metric curves of runs to PNG, one panel a metric, from the CSV logs. The legend "
        "shows the settings in which the runs of one config differ.",
    )
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="folder such as runs/gin or "
                        "runs/gin/version_0, or a metrics.csv; of several versions the newest counts")  # fmt: skip
    parser.add_argument("--all", action="store_true", help="draw every run and version below each RUN (runs/)")
    parser.add_argument("--metric", nargs="+", action="extend", default=[], metavar="NAME",
                        help="draw only these metrics: acc for all stages, val/acc for one")  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="FILE", help="PNG file (default: curves.png in the run folder)")
    parser.add_argument("--title", default="", help="text above the panels")
    return parser


def _read(paths: Sequence[Path], every: bool) -> list[Run]:
    """Read each run once; with ``every``, all below the paths but those that logged nothing."""
    if not every:
        if not paths:
            raise RunError("name a run such as runs/gin, or draw all runs below runs/ with --all")
        return list({run.log.resolve(): run for run in map(read_run, paths)}.values())
    logs = {log.resolve(): log for path in paths or [Path("runs")] for log in find_logs(path)}
    runs, problems = [], []
    for log in logs.values():
        try:
            runs.append(read_run(log))
        except RunError as error:
            problems.append(error)
    if not runs:
        raise problems[0]
    for problem in problems:
        print(f"graphseq plot: left out: {problem}", file=sys.stderr)
    return runs


def _labels(runs: Sequence[Run]) -> list[str]:
    """Label runs by what differs between those of one config, else by their names."""
    folders = [run.folder.resolve() for run in runs]
    groups = [folder.parent.name if folder.name.startswith("version_") else folder.name for folder in folders]
    return run_labels(groups, [saved_settings(folder) for folder in folders], run_names(runs))


def main(argv: Sequence[str]) -> int:
    """Run ``graphseq plot`` with the given arguments and return the exit status: 0, or 2 for wrong arguments.

    Args:
        argv: words of the command line after ``graphseq plot``.

    Example:
        >>> main(["runs/there_is_none"])
        2
    """
    try:
        arguments = _parser().parse_args(list(argv))
    except SystemExit as stop:  # argparse has said what is wrong, or printed the help
        return int(stop.code or 0)
    try:
        runs = _read(arguments.runs, arguments.all)
        chosen = _choose(runs, arguments.metric)
    except (OSError, RunError, UnicodeDecodeError) as error:
        print(f"graphseq plot: {error}", file=sys.stderr)
        return 2
    names = _labels(runs)
    folders = [run.folder.resolve() for run in runs]
    out = arguments.out or Path(os.path.commonpath(folders)) / "curves.png"
    if out.suffix.lower() != ".png":
        print(f"graphseq plot: --out {out} is not a .png file; the curves are written as PNG", file=sys.stderr)
        return 2

    from rich.console import Console

    from graphseq.bench.records.files import replacing
    from graphseq.bench.records.table import print_table

    try:
        with replacing(out) as temporary:
            draw_runs(chosen, names, arguments.title).savefig(temporary, dpi=150)
    except OSError as error:
        print(f"graphseq plot: {out} cannot be written ({error}); name another place with --out", file=sys.stderr)
        return 2
    print_table(_summary(chosen, names), Console())
    print(f"wrote {os.path.relpath(out)}")
    return 0
