"""Default figure of effects: differences to the baseline, with intervals."""

from typing import TYPE_CHECKING

from graphseq.bench.effects.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_differences"]


def draw_differences(results: Results, baseline: str, unit: str, axes: "Axes") -> None:
    """Draw the mean difference of each arm to the baseline at each point of the grid, with 95 % intervals.

    Args:
        results: results of the effect.
        baseline: name of the arm that the others are compared with.
        unit: unit of the score, for the label of the axis.
        axes: one empty matplotlib Axes.

    Example:
        >>> draw_differences(results, "none", "percent", axes)  # doctest: +SKIP
    """
    places, labels = 0, []
    arms = [arm for arm in results.arms() if arm != baseline]
    for point in results.places():
        for arm in arms:
            interval = results.difference(arm, baseline, **point)
            if interval is None:
                continue
            error = [[interval.mean - interval.low], [interval.high - interval.mean]]
            axes.errorbar(interval.mean, places, xerr=error, fmt="o", color=f"C{arms.index(arm) % 10}", capsize=3)
            labels.append(" ".join([*(str(value) for value in point.values()), arm]))
            places += 1
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(places), labels, fontsize="small")
    axes.set_ylim(max(places, 1) - 0.5, -0.5)
    axes.set_xlabel(f"difference to {baseline} in {unit}, 95 % interval")
    axes.figure.set_size_inches(7.0, max(2.5, 1.0 + 0.28 * places))  # type: ignore[union-attr]
