"""Figures of sample weights, of the dependence between variables, and of prompts on graphs."""

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor

from graphseq.ops import effective_sample_size

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PromptedGraph: TypeAlias = tuple[Tensor, Tensor, Tensor, list[str] | None, str]

__all__ = ["draw_correlations", "draw_effective_sample_size", "draw_prompts", "draw_returns", "draw_weights"]

# from the palette of Okabe and Ito, distinguishable with all common kinds of colour vision
_BLUE, _ORANGE = "#0072B2", "#D55E00"


def _figure(columns: int = 1, width: float = 6.4, height: float = 3.8) -> "tuple[Figure, list[Axes]]":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)  # no window, whatever the user's backend
    axes = [figure.add_subplot(1, columns, number + 1) for number in range(columns)]
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
    return figure, axes


def draw_weights(weight: Tensor) -> "Figure":
    """Draw the histogram of sample weights; the axis is logarithmic where they differ by more than a factor of 100.

    Args:
        weight: weight of each sample, positive and of mean 1, (N,).

    Example:
        >>> len(draw_weights(torch.rand(50) + 0.5).axes)
        1
    """
    values = weight.detach().double().cpu()
    figure, (axes,) = _figure()
    low, high = float(values.min()), float(values.max())
    logarithmic = low > 0 and high > 100 * low
    if high - low < 1e-6:
        low, high = low - 0.5, high + 0.5
    ends = (math.log10(low), math.log10(high)) if logarithmic else (low, high)
    bins = (torch.logspace if logarithmic else torch.linspace)(*ends, 41, dtype=torch.float64).tolist()
    bins[0], bins[-1] = min(bins[0], low), max(bins[-1], high)  # rounding must not lose the ends
    axes.hist(values.tolist(), bins=bins, color=_BLUE)
    axes.axvline(1, color=_ORANGE, linewidth=1.5, label="equal weights")
    if logarithmic:
        axes.set_xscale("log")
    axes.set_xlabel("weight")
    axes.set_ylabel("training samples")
    share = float(effective_sample_size(values))
    axes.set_title(f"{len(values)} weights, effective sample size {share:.2f}", loc="left", fontsize=10)
    axes.legend(frameon=False)
    return figure


def draw_effective_sample_size(epochs: Sequence[int], shares: Sequence[float], bound: float = 0.0) -> "Figure":
    """Draw the effective sample size of the weights over the epochs.

    Args:
        epochs: numbers of the epochs.
        shares: effective sample size after each epoch, as a share of all samples, in (0, 1].
        bound: smallest share that is allowed, drawn as a line; 0 for no bound.

    Example:
        >>> len(draw_effective_sample_size([0, 1], [1.0, 0.6], 0.2).axes[0].lines)
        2
    """
    from matplotlib.ticker import MaxNLocator

    figure, (axes,) = _figure()
    axes.plot(list(epochs), list(shares), color=_BLUE, linewidth=1.8, marker="o" if len(epochs) < 30 else None, ms=4)
    if bound:
        axes.axhline(
            bound, color=_ORANGE, linestyle=(0, (4, 1.5)), linewidth=1.2, label=f"least allowed in a batch, {bound:g}"
        )
        axes.legend(frameon=False, loc="lower left")
    axes.set_ylim(0, 1.05)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    axes.set_ylabel("effective sample size")
    return figure


def _correlation(z: Tensor, weight: Tensor) -> Tensor:
    """Return weighted correlations; 0 for a constant variable."""
    share = weight / weight.sum()
    centred = z - share @ z
    covariance = (share[:, None] * centred).T @ centred
    deviation = covariance.diagonal().clamp(min=0).sqrt()
    varies = deviation > 1e-6 * z.abs().amax(0).clamp(min=1e-6)
    scaled = covariance / torch.where(varies, deviation, 1.0) / torch.where(varies, deviation, 1.0)[:, None]
    return torch.where(varies & varies[:, None], scaled, 0.0)


def draw_correlations(z: Tensor, weight: Tensor, cluster: Tensor | None = None) -> "Figure":
    """Draw the correlations of variables, ordered by cluster, under equal and under learned weights.

    Args:
        z: representations, (N, D).
        weight: weight of each row, (N,).
        cluster: cluster of each variable, int64 (D,); None keeps the order of the variables.

    Example:
        >>> figure = draw_correlations(torch.randn(20, 4), torch.ones(20), torch.tensor([0, 1, 0, 1]))
        >>> [axes.get_title(loc="left") for axes in figure.axes[:2]]
        ['equal weights', 'learned weights']
    """
    rows, weight = z.detach().double().cpu(), weight.detach().double().cpu()
    order = torch.arange(z.size(1)) if cluster is None else cluster.cpu().argsort(stable=True)
    figure, axes = _figure(2, 8.6, 4.1)
    image = None
    for each, title, value in (
        (axes[0], "equal weights", torch.ones_like(weight)),
        (axes[1], "learned weights", weight),
    ):
        shown = _correlation(rows, value)[order][:, order]
        image = each.imshow(shown.tolist(), vmin=-1, vmax=1, cmap="RdBu_r", interpolation="nearest")
        each.set_title(title, loc="left", fontsize=10)
        each.spines[:].set_visible(False)
        if cluster is not None:
            ends = torch.bincount(cluster.cpu()).cumsum(0)
            for end in ends[:-1].tolist():
                each.axhline(end - 0.5, color="black", linewidth=1)
                each.axvline(end - 0.5, color="black", linewidth=1)
            middle = (ends - torch.bincount(cluster.cpu()) / 2 - 0.5).tolist()
            each.set_xticks(middle, [str(number) for number in range(len(middle))])
            each.set_yticks(middle, [str(number) for number in range(len(middle))])
            each.tick_params(length=0)
        each.set_xlabel("variables" if cluster is None else "variables by cluster")
    if image is not None:
        figure.colorbar(image, ax=axes, label="correlation", shrink=0.85)
    return figure


def draw_prompts(graphs: "Sequence[PromptedGraph]") -> "Figure":
    """Draw graphs side by side, each node coloured by the size of its prompt; nodes without a prompt are white.

    Args:
        graphs: places of nodes (N, 2), edges (2, E), size of the prompt of each node (N,), 0 for none, name of each
            node, or None, and a title.

    Raises:
        ValueError: if there is no graph.

    Example:
        >>> place, edges = torch.tensor([[0.0, 0.0], [1.0, 0.0]]), torch.tensor([[0], [1]])
        >>> len(draw_prompts([(place, edges, torch.tensor([0.0, 0.2]), ["C", "O"], "one")]).axes)
        2
    """
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize, to_hex

    if not graphs:
        raise ValueError("graphs is empty; give at least one graph")
    figure, axes = _figure(len(graphs), 3.4 * len(graphs) + 0.8, 3.6)
    largest = max((float(size.max()) for _, _, size, _, _ in graphs if size.numel()), default=0.0)
    scale = ScalarMappable(Normalize(0, largest or 1.0), colormaps["YlOrRd"])
    for each, (place, edges, size, names, title) in zip(axes, graphs, strict=True):
        for source, target in edges[:, edges[0] < edges[1]].T.tolist():
            ends = place[[source, target]]
            each.plot(*ends.T.tolist(), color="#888888", linewidth=1.2, zorder=1)
        colors = [to_hex(tuple(scale.to_rgba(value))) if value else "#ffffff" for value in size.tolist()]
        x, y = place.T.tolist()
        each.scatter(x, y, s=130, c=colors, edgecolors="#444444", linewidths=0.8, zorder=2)
        for name, where, value in zip(names or [], place.tolist(), size.tolist(), strict=False):
            shade = "white" if value > 0.7 * largest and value else "black"
            each.annotate(name, where, ha="center", va="center", fontsize=7, color=shade, zorder=3)
        each.set_title(title, loc="left", fontsize=9)
        each.set_aspect("equal")
        each.margins(0.12)
        each.axis("off")
    figure.colorbar(scale, ax=axes, label="mean absolute entry of the prompt", shrink=0.8)
    return figure


def draw_returns(returns: "dict[str, dict[int, float]]") -> "Figure":
    """Draw returns over the epochs, the mean decrease of the loss of a graph by its prompts.

    Args:
        returns: for each name, the return of each epoch.

    Example:
        >>> len(draw_returns({"training": {0: -0.1, 1: 0.2}, "validation": {1: 0.1}}).axes[0].lines)
        3
    """
    from matplotlib.ticker import MaxNLocator

    figure, (axes,) = _figure()
    colors = itertools.cycle((_BLUE, _ORANGE, "#009E73", "#CC79A7"))
    for (name, values), color in zip(returns.items(), colors, strict=False):
        marker = "o" if len(values) < 30 else None
        axes.plot(list(values), list(values.values()), color=color, linewidth=1.8, marker=marker, ms=4, label=name)
    axes.axhline(0, color="#888888", linewidth=0.8)
    epochs = [epoch for values in returns.values() for epoch in values] or [0]
    axes.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    axes.set_ylabel("return (decrease of the loss)")
    axes.legend(frameon=False)
    return figure
