"""Figures of forecasts: past, truth and forecast; error by step; the matrix that mixes variables."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from graphseq.callbacks.reports.figures import _BLUE, _ORANGE, _figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_errors_by_step", "draw_forecasts", "draw_mixing", "draw_mixing_network"]

_COLOURS = (_BLUE, _ORANGE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def draw_forecasts(past: Tensor, forecast: Tensor, truth: Tensor | None = None, names: Sequence[str] = ()) -> "Figure":
    """Draw the window, the forecast and the truth of each variable of one series, one panel for each.

    Args:
        past: values of the window (T, V).
        forecast: predicted values (Z, V), or quantiles in ascending order (Z, V, Q), drawn as a band around the middle.
        truth: true values (Z, V), NaN where unknown; None if they lie ahead.
        names: name of each variable; empty for numbers.

    Raises:
        ValueError: if the numbers of variables or steps differ.

    Example:
        >>> len(draw_forecasts(torch.zeros(8, 2), torch.ones(4, 2)).axes)
        2
    """
    variables, steps = past.shape[1], len(past)
    if forecast.shape[1] != variables or (truth is not None and truth.shape != forecast.shape[:2]):
        raise ValueError(
            f"past is {tuple(past.shape)}, forecast {tuple(forecast.shape)} and truth "
            f"{None if truth is None else tuple(truth.shape)}; variables and predicted steps must agree"
        )
    figure, panels = _figure(variables, width=max(6.4, 3.2 * variables))
    bands = forecast.dim() == 3
    middle = forecast[..., forecast.shape[2] // 2] if bands else forecast
    ahead = range(steps, steps + len(forecast))
    for place, axes in enumerate(panels):
        axes.plot(range(steps), past[:, place].tolist(), color="black", label="past")
        if truth is not None:
            axes.plot(ahead, truth[:, place].tolist(), color=_BLUE, label="truth")
        axes.plot(ahead, middle[:, place].tolist(), color=_ORANGE, linestyle="--", label="forecast")
        if bands:
            axes.fill_between(
                ahead, forecast[:, place, 0].tolist(), forecast[:, place, -1].tolist(), color=_ORANGE, alpha=0.2,
                linewidth=0, label="lowest to highest quantile",
            )  # fmt: skip
        axes.axvline(steps - 0.5, color="gray", linewidth=0.8)
        axes.set_xlabel("step")
        axes.set_title(names[place] if names else f"variable {place}", loc="left", fontsize=10)
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=8
    )
    return figure


def draw_errors_by_step(errors: dict[str, Sequence[float]], unit: str = "mean absolute error") -> "Figure":
    """Draw the error of one or more forecasts over the predicted steps; lower is better.

    Args:
        errors: error at each step, by name of the forecast, all of one length.
        unit: name of the error.

    Raises:
        ValueError: if there are no errors, or their lengths differ.

    Example:
        >>> len(draw_errors_by_step({"drift": [1.0, 2.0], "nlinear": [0.5, 1.0]}).axes)
        1
    """
    if not errors or len({len(values) for values in errors.values()}) != 1:
        raise ValueError(
            f"errors have lengths { {name: len(v) for name, v in errors.items()} }; give one for each step"
        )
    figure, (axes,) = _figure()
    for place, (name, values) in enumerate(errors.items()):
        axes.plot(range(1, len(values) + 1), list(values), color=_COLOURS[place % 7], label=name, marker=".")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("predicted step")
    axes.set_ylabel(f"{unit} (lower is better)")
    axes.legend(frameon=False, fontsize=8)
    return figure


def draw_mixing(matrices: dict[str, Tensor], names: Sequence[str] = ()) -> "Figure":
    """Draw matrices that mix variables, such as those of ReGENN's evolutions, as heat maps on one scale.

    Args:
        matrices: matrix by name, (V, V): row a holds the weights of the output a.
        names: name of each variable; empty for numbers.

    Raises:
        ValueError: if there is no matrix, or one is not square.

    Example:
        >>> from graphseq.nn import GraphSoftEvolution
        >>> len(draw_mixing({"source": GraphSoftEvolution(3).mixing_matrix()}).axes)
        2
    """
    values = _square(matrices)
    figure, panels = _figure(len(values), width=max(6.4, 3.6 * len(values)))
    largest = max(float(matrix.abs().max()) for matrix in values.values()) or 1.0
    for axes, (name, matrix) in zip(panels, values.items(), strict=True):
        image = axes.imshow(matrix.numpy(), cmap="RdBu_r", vmin=-largest, vmax=largest)
        labels = list(names) or [str(place) for place in range(len(matrix))]
        axes.set_xticks(range(len(matrix)), labels, rotation=45, ha="right", fontsize=8)
        axes.set_yticks(range(len(matrix)), labels, fontsize=8)
        axes.set_xlabel("read from")
        axes.set_ylabel("written to")
        axes.set_title(name, loc="left", fontsize=10)
        for row, column in torch.cartesian_prod(*[torch.arange(len(matrix))] * 2).tolist() if len(matrix) <= 8 else []:
            weight = float(matrix[row, column])
            axes.text(column, row, f"{weight:.2f}", ha="center", va="center", fontsize=8,
                      color="white" if abs(weight) > 0.6 * largest else "black")  # fmt: skip
    figure.colorbar(image, ax=panels, shrink=0.8)
    return figure


def draw_mixing_network(matrices: dict[str, Tensor], names: Sequence[str] = (), least: float = 0.2) -> "Figure":
    """Draw matrices that mix variables as networks on one scale: an arrow leads from an input to an output.

    Width and colour of an arrow are the weight, orange above 0 and blue below; the weight of a variable for itself
    colours its circle. Arrows in opposite directions are curved apart.

    Args:
        matrices: matrix by name, (V, V): row a holds the weights of the output a.
        names: name of each variable; empty for numbers.
        least: smallest absolute weight that is drawn, as a share of the largest one, in [0, 1].

    Raises:
        ValueError: if there is no matrix, one is not square, or ``least`` is out of range.

    Example:
        >>> len(draw_mixing_network({"before": torch.eye(3), "after": torch.ones(3, 3)}).axes)
        2
    """
    if not 0 <= least <= 1:
        raise ValueError(f"least is {least}; it is a share in [0, 1]")
    values = _square(matrices)
    figure, panels = _figure(len(values), width=max(6.4, 3.6 * len(values)))
    largest = max(float(matrix.abs().max()) for matrix in values.values()) or 1.0
    for axes, (name, matrix) in zip(panels, values.items(), strict=True):
        count = len(matrix)
        angles = torch.arange(count) * (2 * math.pi / count) + math.pi / 2
        across, up = angles.cos().tolist(), angles.sin().tolist()
        spots = list(zip(across, up, strict=True))
        for row, column in torch.cartesian_prod(torch.arange(count), torch.arange(count)).tolist():
            share = float(matrix[row, column]) / largest
            if row == column or abs(share) < least:
                continue
            style = {
                "arrowstyle": "-|>", "connectionstyle": "arc3,rad=0.15", "mutation_scale": 12, "shrinkA": 14,
                "shrinkB": 14, "linewidth": 0.5 + 3 * abs(share), "color": _ORANGE if share > 0 else _BLUE,
                "alpha": 0.3 + 0.7 * abs(share),
            }  # fmt: skip
            axes.annotate("", spots[row], spots[column], arrowprops=style)
        own = [float(matrix[place, place]) / largest for place in range(count)]
        shades = [(*_channels(_ORANGE if share > 0 else _BLUE), abs(share)) for share in own]
        axes.scatter(across, up, s=420, c="white", zorder=2)
        axes.scatter(across, up, s=420, c=shades, edgecolors="black", zorder=3)
        for place, (x, y) in enumerate(spots):
            label = names[place] if names else str(place)
            side = "center" if abs(x) < 0.3 else "left" if x > 0 else "right"  # away from the circle
            axes.annotate(label, (1.22 * x, 1.28 * y), ha=side, va="center", fontsize=9)
        axes.set_title(name, loc="left", fontsize=10)
        axes.set_xlim(-2.1, 2.1)
        axes.set_ylim(-1.6, 1.6)
        axes.set_aspect("equal")
        axes.set_axis_off()
    figure.supxlabel(
        f"arrows from {least:g} of the largest weight, {largest:.2g}, on; orange above 0, blue below", fontsize=8
    )
    return figure


def _square(matrices: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return matrices as float32 on the CPU, after a check."""
    if not matrices or any(m.dim() != 2 or m.shape[0] != m.shape[1] for m in matrices.values()):
        shapes = {name: tuple(matrix.shape) for name, matrix in matrices.items()}
        raise ValueError(f"matrices are {shapes}; give at least one, each square")
    return {name: matrix.detach().float().cpu() for name, matrix in matrices.items()}


def _channels(colour: str) -> tuple[float, float, float]:
    """Return red, green and blue, in [0, 1], of a colour written as ``#RRGGBB``."""
    red, green, blue = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
    return red, green, blue
