"""Figures of fields: input, solution, prediction and error, side by side."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from graphseq.callbacks.files import report_folder, save_figure
from graphseq.callbacks.probes import _evaluating

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["FieldReport", "draw_fields"]


def draw_fields(x: Tensor, target: Tensor, prediction: Tensor, titles: Sequence[str] = ()) -> "Figure":
    """Draw input, solution, prediction and error of fields, one row for each sample.

    Solution and prediction share a colour scale. The error is the prediction minus the solution, on a scale around 0.
    Of several channels the first is drawn; the relative L2 error beside a row is that of all channels.

    Args:
        x: inputs (N, C, Y, X).
        target: solutions (N, C', Y, X).
        prediction: predictions of the same shape.
        titles: name of each sample; empty for numbers.

    Raises:
        ValueError: if there is no sample, or shapes do not fit.

    Example:
        >>> figure = draw_fields(torch.rand(2, 1, 8, 8), torch.ones(2, 1, 8, 8), torch.zeros(2, 1, 8, 8))
        >>> len([axes for axes in figure.axes if axes.get_images()])
        8
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not len(x) or x.dim() != 4 or target.shape != prediction.shape or len(x) != len(target) or target.dim() != 4:
        raise ValueError(
            f"inputs are {tuple(x.shape)}, solutions {tuple(target.shape)} and predictions {tuple(prediction.shape)}; "
            "give at least one sample, (N, C, Y, X), and predictions like the solutions"
        )
    x, target, prediction = (fields.detach().float().cpu() for fields in (x, target, prediction))
    error = prediction - target
    relative = error.flatten(1).norm(dim=1) / target.flatten(1).norm(dim=1).clamp(min=1e-12)
    figure = Figure(figsize=(11.5, 0.3 + 2.6 * len(x)), layout="constrained")
    FigureCanvasAgg(figure)  # no window, whatever the user's backend
    grid = figure.subplots(len(x), 4, squeeze=False)
    for sample, row in enumerate(grid):
        low = float(torch.minimum(target[sample, 0].min(), prediction[sample, 0].min()))
        high = float(torch.maximum(target[sample, 0].max(), prediction[sample, 0].max()))
        largest = float(error[sample, 0].abs().max()) or 1.0
        panels: tuple[tuple[str, Tensor, dict[str, Any]], ...] = (
            ("input", x[sample, 0], {"cmap": "cividis"}),
            ("solution", target[sample, 0], {"cmap": "viridis", "vmin": low, "vmax": high}),
            ("prediction", prediction[sample, 0], {"cmap": "viridis", "vmin": low, "vmax": high}),
            ("error", error[sample, 0], {"cmap": "RdBu_r", "vmin": -largest, "vmax": largest}),
        )
        for axes, (name, field, scale) in zip(row, panels, strict=True):
            image = axes.imshow(field.numpy(), origin="lower", interpolation="nearest", **scale)
            figure.colorbar(image, ax=axes, shrink=0.8)
            axes.set_xticks([])
            axes.set_yticks([])
            if sample == 0:
                axes.set_title(name, fontsize=10)
        row[0].set_ylabel(titles[sample] if titles else f"sample {sample}", fontsize=9)
        row[3].set_xlabel(f"relative error {100 * float(relative[sample]):.2g} %", fontsize=9)
    return figure


class FieldReport(Callback):
    """Write a figure of the first fields of the validation split into the folder of the run when training ends.

    The file is ``fields.png``, see :func:`draw_fields`. It is written where the logger writes, else into the trainer's
    root folder, by the first process. Predictions are those of the last epoch.

    Args:
        num_samples: number of samples in the figure, at least 1.
        folder: folder for the file; None for that of the logger.

    Raises:
        ValueError: if ``num_samples`` is below 1.
        TypeError: when training ends, if a batch is not a pair of fields (B, C, Y, X).

    Example:
        >>> FieldReport(num_samples=2).num_samples
        2
    """

    def __init__(self, num_samples: int = 3, folder: str | os.PathLike[str] | None = None) -> None:
        if num_samples < 1:
            raise ValueError(f"num_samples is {num_samples}; it must be at least 1")
        self.num_samples, self.folder = num_samples, folder

    @torch.no_grad()
    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Predict the first samples and draw the figure."""
        data = getattr(trainer, "datamodule", None)
        if trainer.fast_dev_run or data is None:  # type: ignore[attr-defined]
            return
        folder = report_folder(trainer, self.folder)
        if folder is None:
            return
        split = "val" if len(data.splits["val"]) else "train"
        batch = data.transformed(data.store.take(data.splits[split][: self.num_samples]), "val")
        pair = batch if isinstance(batch, tuple | list) else ()
        if len(pair) != 2 or any(not isinstance(part, Tensor) or part.dim() != 4 for part in pair):
            raise TypeError(
                f"FieldReport was given a batch of {type(batch).__name__}; it needs data modules of fields, such as "
                "graphseq.data.DarcyDataModule, whose batches are pairs (B, C, Y, X)"
            )
        x, target = (part.to(pl_module.device) for part in pair)
        with _evaluating(pl_module):
            prediction = pl_module((x, target))
        titles = [f"{split} {sample}" for sample in range(len(x))]
        save_figure(draw_fields(x, target, prediction, titles), folder / "fields.png")
