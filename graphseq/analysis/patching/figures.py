"""Figure of effects over layers and positions: where in a network an answer is carried."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from graphseq.analysis.patching.scores import PatchingScores

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_patching_scores"]


def draw_patching_scores(scores: Mapping[str, PatchingScores], positions: Sequence[str] | None = None) -> "Figure":
    """Draw effects by layer and position: a row of panels for each site, a column for each estimate.

    Colours of a row have one scale. Titles give the Pearson correlation with the first estimate.

    Args:
        scores: estimates by their names, the exact one first.
        positions: names of the positions, such as tokens; None for their numbers.

    Raises:
        ValueError: if there are no estimates, they are of different sites, or the numbers of names and positions
            differ.

    Example:
        >>> import torch
        >>> scores = PatchingScores({"residual": torch.randn(4, 10), "mlp": torch.randn(4, 10)})
        >>> len(draw_patching_scores({"ActP": scores, "AtP": scores}).axes)  # and a scale for each row
        6
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not scores:
        raise ValueError("scores is empty; give at least one estimate")
    first = next(iter(scores.values()))
    for site, value in first.values.items():
        if positions is not None and len(positions) != value.shape[1]:
            raise ValueError(f"positions has {len(positions)} names; the site {site!r} has {value.shape[1]} positions")
    agreement = {name: first.pearson(estimate) for name, estimate in scores.items()}
    sites = list(first.values)
    figure = Figure(figsize=(1.2 + 2.9 * len(scores), 0.6 + 1.9 * len(sites)), layout="constrained")
    FigureCanvasAgg(figure)  # no window, whatever the user's backend
    panels = figure.subplots(len(sites), len(scores), squeeze=False)
    for row, site in zip(panels, sites, strict=True):
        limit = max(float(estimate.values[site].abs().max()) for estimate in scores.values()) or 1.0
        for axes, (name, estimate) in zip(row, scores.items(), strict=True):
            image = axes.imshow(
                estimate.values[site].float().numpy(), cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto"
            )
            told = "" if estimate is first else f", Pearson {agreement[name][site]:.3f}"
            axes.set_title(f"{name}: {site}{told}", loc="left", fontsize=9)
            number = len(estimate.values[site])
            axes.set_yticks(range(0, number, -(-number // 8)))  # a few of many layers, so that they do not overlap
            if positions is not None:
                axes.set_xticks(range(len(positions)), positions, rotation=90, fontsize=7)
        row[0].set_ylabel("layer")
        figure.colorbar(image, ax=list(row), label="effect")
    for axes in panels[-1]:
        axes.set_xlabel("position")
    return figure
