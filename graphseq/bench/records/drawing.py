"""Parts of figures of experiments: a finding as title, and panels of dots with every seed, mean and interval."""

import math
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["COLOURS", "Panel", "draw_panels", "even", "plain_axes", "set_finding", "write_value"]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Colours of Okabe and Ito, which all common kinds of colour vision tell apart; their yellow is too pale for lines."""

_BASELINE, _OTHER, _GRID = "#000000", "#6b6b6b", "#dddddd"


@dataclass(frozen=True)
class Panel:
    """Values of several arms under the same conditions.

    Args:
        title: conditions, such as the name of the data set.
        values: arm in words -> one value for each seed.
        line: value that a vertical line marks, such as that of the baseline; None for no line.
        band: two values, such as a published mean less and plus a deviation; None for no band.
        scale: name of the axis of values; panels with the same name share its limits.

    Example:
        >>> Panel("MUTAG", {"with edges": [0.8, 0.9]}).line is None
        True
    """

    title: str
    values: Mapping[str, Sequence[float]]
    line: float | None = None
    band: tuple[float, float] | None = None
    scale: str = ""


@dataclass(frozen=True)
class _Spread:
    """Mean of some values and the half width of its 95 % interval, None for fewer than three values."""

    values: Sequence[float]
    mean: float = field(init=False)
    half: float | None = field(init=False)

    def __post_init__(self) -> None:
        half = None
        if len(self.values) > 2:
            from scipy import stats

            error = statistics.stdev(self.values) / math.sqrt(len(self.values))
            half = float(stats.t.ppf(0.975, len(self.values) - 1)) * error
        object.__setattr__(self, "mean", statistics.fmean(self.values))
        object.__setattr__(self, "half", half)


def set_finding(figure: Any, finding: str) -> None:
    """Write the finding of a figure above it, in as many lines as its width needs.

    Args:
        figure: figure of matplotlib, in its final size.
        finding: one sentence.

    Example:
        >>> from matplotlib.figure import Figure
        >>> figure = Figure()
        >>> set_finding(figure, "Reproduced: all 4 claims hold.")
        >>> figure.get_suptitle()
        'Reproduced: all 4 claims hold.'
    """
    text = textwrap.fill(finding, max(30, int(10.2 * figure.get_size_inches()[0])))
    figure.suptitle(text, x=0.01, ha="left", fontsize=11, fontweight="bold")


def plain_axes(axes: "Axes", grid: Literal["x", "y"]) -> None:
    """Give axes a light grid along one direction, no frame above and to the right, and small labels.

    Args:
        axes: axes of matplotlib.
        grid: direction along which values are read.

    Example:
        >>> from matplotlib.figure import Figure
        >>> axes = Figure().subplots()
        >>> plain_axes(axes, "x")
        >>> bool(axes.spines["top"].get_visible())
        False
    """
    axes.grid(True, axis=grid, color=_GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)


def write_value(axes: "Axes", place: float, text: str, colour: str) -> None:
    """Write a value beside the right end of a row.

    Args:
        axes: axes of matplotlib.
        place: height of the row, in data coordinates.
        text: the value.
        colour: colour of the text.

    Example:
        >>> from matplotlib.figure import Figure
        >>> axes = Figure().subplots()
        >>> write_value(axes, 0, "0.93", "black")
        >>> axes.texts[0].get_text()
        '0.93'
    """
    axes.annotate(text, (1, place), (3, 0), xycoords=axes.get_yaxis_transform(), textcoords="offset points",
                  fontsize=8, va="center", color=colour, annotation_clip=False)  # fmt: skip


def even(count: int, width: float) -> list[float]:
    """Return evenly spread offsets around zero, so that equal values stay visible side by side.

    Args:
        count: number of offsets.
        width: distance between the first and the last.

    Example:
        >>> even(3, 0.2), even(1, 0.2)
        ([-0.1, 0.0, 0.1], [0.0])
    """
    return [width * (place / (count - 1) - 0.5) for place in range(count)] if count > 1 else [0.0]


def _decimals(panels: Sequence[Panel]) -> int:
    """Decimals that tell the values of some panels apart."""
    values = [value for panel in panels for seeds in panel.values.values() for value in seeds if math.isfinite(value)]
    span = max(values) - min(values) if values else 0.0
    return 1 if span >= 5 else 2 if span >= 0.3 else 3


def _draw_panel(axes: "Axes", panel: Panel, arms: Sequence[str], colours: Mapping[str, str], decimals: int) -> None:
    if panel.band is not None:
        axes.axvspan(*panel.band, color="#D55E00", alpha=0.15, linewidth=0)
    if panel.line is not None:
        axes.axvline(panel.line, color=_BASELINE, linewidth=0.9, linestyle=(0, (4, 2)))
    for place, arm in enumerate(arms):
        values = [value for value in panel.values.get(arm, ()) if math.isfinite(value)]
        if not values:
            continue
        spread, colour = _Spread(values), colours.get(arm, _OTHER)
        heights = [place + 0.28 + offset for offset in even(len(values), 0.16)]  # below the mean, which would hide them
        axes.scatter(values, heights, s=9, color=colour, alpha=0.45, linewidths=0)
        error = None if spread.half is None else [[spread.half], [spread.half]]
        axes.errorbar([spread.mean], [place], xerr=error, fmt="o", markersize=5, color=colour, capsize=2.5)
        write_value(axes, place, f"{spread.mean:.{decimals}f}", colour)
    axes.set_title(panel.title, fontsize=10, loc="left")
    plain_axes(axes, "x")


def draw_panels(
    figure: Any,
    panels: Sequence[Panel],
    *,
    finding: str,
    label: str,
    ours: Sequence[str] = (),
    baseline: str = "",
    better: Literal["higher", "lower", ""] = "higher",
    columns: int = 3,
    seeds: str = "seeds",
) -> None:
    """Draw one row of dots for each arm in each panel: every seed, the mean, and its 95 % interval from three seeds on.

    All panels share the order of arms, and those of one scale the axis of values; means stand at the right. Without
    any value nothing is drawn.

    Args:
        figure: empty figure of matplotlib; its size is set.
        panels: panels in order, at least one.
        finding: sentence above the figure.
        label: what the axis shows, with its unit; after a semicolon, what lines and bands are.
        ours: arms of the method, drawn in blue.
        baseline: arm that the others are compared with, drawn in black.
        better: whether higher or lower values are better; empty for neither.
        columns: largest number of panels side by side.
        seeds: what the small dots are, in the plural, such as ``"folds"``.

    Example:
        >>> from matplotlib.figure import Figure
        >>> figure = Figure()
        >>> draw_panels(figure, [Panel("digits", {"plain": [1, 2, 3], "ours": [2, 3, 4]})], finding="Ours is better.",
        ...             label="accuracy", ours=["ours"], baseline="plain")
        >>> [text.get_text() for text in figure.axes[0].get_yticklabels()]
        ['plain', 'ours']
    """
    if not any(values for panel in panels for values in panel.values.values()):
        return
    arms = list(dict.fromkeys(arm for panel in panels for arm in panel.values))
    colours = {**dict.fromkeys(ours, COLOURS[0]), baseline: _BASELINE}
    across = min(columns, len(panels))
    down = math.ceil(len(panels) / across)
    names = 0.075 * max(map(len, arms))
    width = max(6.5, names + (2.6 if across > 2 else 3.2) * across + 0.3)
    if (layout := figure.get_layout_engine()) is not None:
        layout.set(wspace=0.05)
    figure.set_size_inches(width, 1.1 + down * (0.55 + 0.24 * len(arms)))
    grid = figure.subplots(down, across, squeeze=False, sharey=True)
    for axes, panel in zip(grid.flat, panels, strict=False):
        _draw_panel(axes, panel, arms, colours, _decimals([other for other in panels if other.scale == panel.scale]))
    for scale in {panel.scale for panel in panels}:
        sharing = [axes for axes, panel in zip(grid.flat, panels, strict=False) if panel.scale == scale]
        limits = [axes.get_xlim() for axes in sharing]
        for axes in sharing:
            axes.set_xlim(min(low for low, _ in limits), max(high for _, high in limits))
    for axes in list(grid.flat)[len(panels) :]:
        axes.remove()
    grid[0][0].set_yticks(range(len(arms)), arms)
    grid[0][0].set_ylim(len(arms) - 0.5, -0.5)
    for row in grid:
        for tick, arm in zip(row[0].get_yticklabels(), arms, strict=True):
            tick.set_color(colours.get(arm, _BASELINE))
    what, semicolon, more = label.partition(";")
    direction = f", {better} is better" if better else ""
    dots = f"large dots: means, with 95 % intervals from three {seeds} on; small dots: single {seeds}"
    figure.supxlabel(f"{what}{direction}{semicolon}{more}\n{dots}", fontsize=9)
    set_finding(figure, finding)
