"""Figures of connectivity: how masks change in training, and how strongly groups are joined."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from graphseq.callbacks.reports.figures import _figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_group_strengths", "draw_mask_evolution"]


def draw_mask_evolution(history: Sequence[Mapping[str, Any]], names: Sequence[str] = ()) -> "Figure":
    """Draw the share of the initial connections that remain, and the share each update replaced, for each layer.

    Args:
        history: updates of :class:`graphseq.callbacks.DynamicSparse`: ``step``, and for each layer ``overlap`` with the
            initial connections and the share ``rewired``.
        names: names of the layers; empty for numbers.

    Raises:
        ValueError: if ``history`` is empty.

    Example:
        >>> history = [{"step": 10, "overlap": [0.9], "rewired": [0.1]}]
        >>> [axes.get_ylabel() for axes in draw_mask_evolution(history).axes]
        ['share of the first connections', 'share exchanged in the update']
    """
    if not history:
        raise ValueError("history is empty; there was no update to draw")
    figure, panels = _figure(2, width=9.0)
    steps = [entry["step"] for entry in history]
    titles = {"overlap": "share of the first connections", "rewired": "share exchanged in the update"}
    for axes, (key, title) in zip(panels, titles.items(), strict=True):
        for place in range(len(history[0][key])):
            label = names[place] if names else f"layer {place + 1}"
            axes.plot(steps, [entry[key][place] for entry in history], marker=".", label=label)
        axes.set_xlabel("step")
        axes.set_ylabel(title)
        axes.set_ylim(bottom=0)
    panels[0].legend(frameon=False, fontsize=8)
    return figure


def draw_group_strengths(strength: Tensor, title: str = "") -> "Figure":
    """Draw the strengths of the connections between groups, one panel for each layer.

    Args:
        strength: strength from each source group to each target group (L, G, G), targets first, such as
            ``strength`` of :func:`graphseq.analysis.group_graph`.
        title: title of the figure.

    Example:
        >>> import torch
        >>> len(draw_group_strengths(torch.rand(3, 4, 4)).axes)
        4
    """
    figure, panels = _figure(len(strength), width=2.6 * len(strength) + 1.0, height=3.2)
    high = max(float(strength.max()), 1e-12)
    for place, axes in enumerate(panels):
        image = axes.imshow(strength[place].tolist(), cmap="viridis", vmin=0.0, vmax=high)
        axes.set_title(f"layer {place + 1}", fontsize=9)
        axes.set_xlabel("source group")
        axes.set_ylabel("target group" if place == 0 else "")
    figure.colorbar(image, ax=panels, shrink=0.8)
    figure.suptitle(title)
    return figure
