"""Default figure of speed comparisons: how many times as fast, case by case, with the range over rounds."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from graphseq.bench.experiment import Row
from graphseq.bench.records.drawing import COLOURS, plain_axes, set_finding, write_value
from graphseq.bench.speeds.ratio_claims import case_of

__all__ = ["draw_groups", "draw_ratios", "draw_sizes", "ratios_in_words"]


def ratios_in_words(rows: Sequence[Row]) -> str:
    """Return the smallest and the largest median ratio of the first contender to the second, in words.

    Cases in which the second took no part are left out.

    Args:
        rows: rows of the cases that ran.

    Example:
        >>> ratios_in_words([{"ratio": {"ours/PyG": {"median": median}}} for median in (2.0, 5.0)])
        'ours is 2 to 5 times as fast as PyG in 2 cases'
    """
    first = next((pair for row in rows for pair in row.get("ratio", {})), "")
    if not first:
        return ""
    ours, _, peer = first.partition("/")
    medians = sorted(row["ratio"][first]["median"] for row in rows if first in row.get("ratio", {}))
    low, high = f"{medians[0]:.3g}", f"{medians[-1]:.3g}"
    cases = f"in {len(medians)} cases" if len(medians) > 1 else ""
    return f"{ours} is {low if low == high else f'{low} to {high}'} times as fast as {peer} {cases}".rstrip()


def draw_ratios(rows: Sequence[Row], figure: Any, finding: str, bounds: Callable[[Row, str], Sequence[float]]) -> None:
    r"""Draw each ratio as a dot with its range over rounds, and marks at the bounds of the claims.

    Args:
        rows: rows of the cases that ran.
        figure: empty figure of matplotlib; its height is set.
        finding: sentence above the figure.
        bounds: function of a row and a pair of contenders that returns the bounds of the claims on it.

    Example:
        >>> from matplotlib.figure import Figure
        >>> figure = Figure()
        >>> rows = [{"data": "NCI1", "ratio": {"ours/PyG": {"median": 2.0, "low": 1.5, "high": 2.5}}}]
        >>> draw_ratios(rows, figure, "Ours is faster.", lambda row, pair: [1.2])
        >>> figure.axes[0].get_xlabel()
        'times as fast as PyG, higher is better\nmedian and range over rounds\nvertical marks: claims'
    """
    dots = [(row, pair, ratio) for row in rows for pair, ratio in row.get("ratio", {}).items()]
    pairs = list(dict.fromkeys(pair for _, pair, _ in dots))
    figure.set_size_inches(7.0, max(2.6, 1.3 + 0.22 * len(dots)))
    axes = figure.subplots()
    marked = False
    for place, (row, pair, ratio) in enumerate(dots):
        spread = [[ratio["median"] - ratio["low"]], [ratio["high"] - ratio["median"]]]
        colour = COLOURS[pairs.index(pair) % len(COLOURS)]
        axes.errorbar([ratio["median"]], [place], xerr=spread, fmt="o", markersize=5, capsize=2.5, color=colour)
        marks = bounds(row, pair)
        marked = marked or len(marks) > 0
        axes.scatter(marks, [place] * len(marks), s=120, marker="|", linewidths=2, color="black", zorder=3)
        write_value(axes, place, f"{ratio['median']:.3g}", colour)
    cases = [", ".join(str(value) for value in case_of(row).values()) for row, _, _ in dots]
    names = [f"{case}: {pair}" if len(pairs) > 1 else case for case, (_, pair, _) in zip(cases, dots, strict=True)]
    axes.set_yticks(range(len(dots)), names)
    axes.set_ylim(max(len(dots), 1) - 0.5, -0.5)
    peer = pairs[0].partition("/")[2] if len(pairs) == 1 else "the other"
    label = f"times as fast as {peer}, higher is better\nmedian and range over rounds"
    label += "\nvertical marks: claims" if marked else ""
    axes.set_xlabel(label, fontsize=9)
    medians = [ratio["median"] for _, _, ratio in dots]
    if medians and max(medians) > 30 * min(medians):
        axes.set_xscale("log")
    axes.axvline(1.0, color="#000000", linewidth=0.9, linestyle=(0, (4, 2)))
    plain_axes(axes, "x")
    set_finding(figure, finding)


def draw_sizes(
    sweeps: Sequence[Row], figure: Any, finding: str, times: Mapping[str, str], bound: float, item: str
) -> None:
    """Draw median times over the size with their range over rounds, from zero, and the band that each is to stay in.

    Args:
        sweeps: rows of the sweeps, each with a line for each size.
        figure: empty figure of matplotlib; its size is set.
        finding: sentence above the figure.
        times: column of each time -> its name in words.
        bound: largest quotient of the times of a sweep.
        item: what the times are of, with its article.

    Example:
        >>> from matplotlib.figure import Figure
        >>> figure = Figure()
        >>> sizes = [{"nodes": n, "us": 2.0, "us_low": 1.0, "us_high": 3.0} for n in (10, 100)]
        >>> draw_sizes([{"sweep": "nodes", "sizes": sizes}], figure, "Constant.", {"us": "steps"}, 1.5, "a node")
        >>> figure.axes[0].get_title("left")
        'steps, by number of nodes'
    """
    figure.set_size_inches(8.0, 0.6 + 2.3 * len(times))
    grid = figure.subplots(len(times), max(1, len(sweeps)), squeeze=False, sharey="row", sharex="col")
    for line, ((key, name), colour) in enumerate(zip(times.items(), COLOURS, strict=False)):
        for axes, row in zip(grid[line], sweeps, strict=False):
            places = [size[row["sweep"]] for size in row["sizes"]]
            medians, low, high = ([size[key + end] for size in row["sizes"]] for end in ("", "_low", "_high"))
            ranges = [[abs(median - end) for median, end in zip(medians, ends, strict=True)] for ends in (low, high)]
            axes.axhspan(min(medians), bound * min(medians), color=colour, alpha=0.15, linewidth=0)
            axes.errorbar(places, medians, ranges, marker="o", capsize=3, color=colour)
            for place, median in zip(places, medians, strict=True):
                axes.annotate(f"{median:.3g}", (place, median), (6, 5), textcoords="offset points",
                              fontsize=8, color=colour)  # fmt: skip
            plain_axes(axes, "y")
            axes.set(xscale="log")
            axes.margins(x=0.12)
            axes.set_title(f"{name}, by number of {row['sweep']}", fontsize=10, loc="left")
            axes.set_xticks(places, [f"{place:,}" for place in places])
            axes.tick_params(axis="x", which="minor", bottom=False)
            axes.tick_params(labelbottom=True)
        grid[line][0].set_ylim(bottom=0)
        grid[line][0].set_ylabel(f"µs {item}", fontsize=9)
    for axes, row in zip(grid[-1], sweeps, strict=False):
        axes.set_xlabel(row["sweep"], fontsize=9)
    figure.supxlabel(f"lower is better; median and range over rounds; band: smallest median to {bound:g} times it",
                     fontsize=9)  # fmt: skip
    set_finding(figure, finding)


def draw_groups(points: Mapping[str, Sequence[tuple[str, float]]], figure: Any, finding: str) -> None:
    """Draw ratios over groups of cases, a colour for each peer and a dot for each case.

    Args:
        points: peer -> group and median ratio of each case.
        figure: empty figure of matplotlib.
        finding: sentence above the figure.

    Example:
        >>> from matplotlib.figure import Figure
        >>> figure = Figure()
        >>> draw_groups({"PyG": [("sum", 2.0), ("max", 1.5)]}, figure, "Ours is faster.")
        >>> [label.get_text() for label in figure.axes[0].get_xticklabels()]
        ['sum', 'max']
    """
    axes = figure.subplots()
    groups = list(dict.fromkeys(group for found in points.values() for group, _ in found))
    for number, (peer, found) in enumerate(points.items()):
        shift = 0.3 * (number - (len(points) - 1) / 2)
        places = [groups.index(group) + shift for group, _ in found]
        axes.scatter(places, [ratio for _, ratio in found], s=12, alpha=0.5, label=peer, color=COLOURS[number])
    axes.axhline(1.0, color="black", linewidth=0.9, linestyle=(0, (4, 2)))
    axes.set_yscale("log")
    axes.set_ylabel("times as fast as the peer, higher is better\none dot a case", fontsize=9)
    axes.set_xticks(range(len(groups)), groups)
    axes.legend(frameon=False, fontsize=9)
    plain_axes(axes, "y")
    set_finding(figure, finding)
