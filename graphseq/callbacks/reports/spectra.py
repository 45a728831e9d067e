"""Report of a segmentation of spectra: spectra with their masks, and scores by signal-to-noise ratio."""

import csv
import io
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from graphseq.callbacks.files import report_folder, save_figure, write_file
from graphseq.callbacks.reports.figures import _BLUE, _ORANGE, _figure
from graphseq.core.errors import DataError
from graphseq.metrics.masks import complex_iou, mask_accuracy
from graphseq.ops.images.masks import Decision, best_threshold, decided_mask

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["SpectrumReport", "draw_scores_by_snr", "draw_spectra"]

_COLOURS = (_BLUE, _ORANGE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def draw_spectra(
    spectra: Tensor, masks: Tensor, predicted: Tensor, titles: Sequence[str], unit: str = "bin"
) -> "Figure":
    """Draw spectra in decibels in panels one below the other, each with its true and its predicted mask.

    Args:
        spectra: complex spectra (P, N).
        masks: true masks, bool (P, N).
        predicted: predicted masks, bool (P, N).
        titles: title of each panel.
        unit: name of the horizontal axis.

    Raises:
        ValueError: if the shapes differ, or there is no spectrum.

    Example:
        >>> x, mask = torch.randn(2, 64, dtype=torch.complex64), torch.zeros(2, 64, dtype=torch.bool)
        >>> len(draw_spectra(x, mask, mask, ["one", "two"]).axes)
        2
    """
    if not len(spectra) or spectra.shape != masks.shape or masks.shape != predicted.shape:
        raise ValueError(
            f"spectra are {tuple(spectra.shape)}, masks {tuple(masks.shape)} and {tuple(predicted.shape)}; all must be "
            "(P, N) with at least one row"
        )
    figure, (first,) = _figure(1, 8.0, 1.7 * len(spectra) + 0.9)
    first.remove()
    panels = [figure.add_subplot(len(spectra), 1, row + 1) for row in range(len(spectra))]
    for axes, x, mask, guess, title in zip(panels, spectra.cpu(), masks.cpu(), predicted.cpu(), titles, strict=True):
        level = (20 * x.abs().clamp(min=1e-6).log10()).clamp(min=-80)
        bins = list(range(len(level)))
        low, high = float(level.quantile(0.02)) - 3, float(level.max()) + 2
        strip = 0.09 * (high - low)
        axes.plot(bins, level.tolist(), color="black", linewidth=0.6)
        for place, (name, shown, colour) in enumerate((("true", mask, _BLUE), ("predicted", guess, _ORANGE))):
            top = low - (place + 0.4) * strip
            axes.fill_between(
                bins, top - 0.8 * strip, top, where=shown.tolist(), step="mid", color=colour, linewidth=0,
                label=f"{name} mask",
            )  # fmt: skip
        axes.fill_between(bins, low, high, where=mask.tolist(), step="mid", color=_BLUE, alpha=0.13, linewidth=0)
        axes.set_xlim(0, len(level) - 1)
        axes.set_ylim(low - 2.6 * strip, high)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_ylabel("dB")
        axes.set_title(title, loc="left", fontsize=9)
        if axes is not panels[-1]:
            axes.set_xticklabels([])
    panels[-1].set_xlabel(unit)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper right", ncols=2, frameon=False, fontsize=8)
    return figure


def draw_scores_by_snr(scores: Mapping[str, Mapping[float, float]], unit: str = "mean IoU") -> "Figure":
    """Draw the score of one or more methods over the signal-to-noise ratio; higher is better.

    Args:
        scores: for each name, the score at each ratio in decibels.
        unit: name of the score.

    Raises:
        ValueError: if there are no scores.

    Example:
        >>> scores = {"network": {-10.0: 0.5, 0.0: 0.9}, "empty mask": {-10.0: 0.0, 0.0: 0.0}}
        >>> len(draw_scores_by_snr(scores).axes[0].lines)
        2
    """
    if not scores or not all(scores.values()):
        raise ValueError(f"scores are {dict(scores)}; give at least one name with scores")
    figure, (axes,) = _figure()
    for place, (name, values) in enumerate(scores.items()):
        ratios = sorted(values)
        colour = _COLOURS[place % len(_COLOURS)]
        axes.plot(ratios, [values[ratio] for ratio in ratios], color=colour, marker="o", ms=4, label=name)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("ratio of the weakest emitter to the noise (dB)")
    axes.set_ylabel(f"{unit} (higher is better)")
    axes.legend(frameon=False, fontsize=8)
    return figure


class SpectrumReport(Callback):
    """Write figures and a table of a segmentation of spectra when training ends, and when a test ends.

    Files:
        ``spectra.png``: spectra at the lowest, a middle and the highest signal-to-noise ratio, with true and predicted
        mask. ``iou_by_snr.png`` and ``scores_by_snr.csv``: intersection over union and accuracy of the network, of the
        detector and of an empty mask at each ratio. The empty mask is included because its accuracy is high, too.

    After training the validation split is shown, after a test the test split. The threshold of the detector is the best
    one on the training split. Files are written where the logger writes, else into the trainer's root folder, by the
    first process.

    Args:
        detector: module from spectra (B, N) to real scores, such as :class:`graphseq.models.EnergyDetector`; None for
            no detector.
        decision: decision on complex logits, see :func:`graphseq.ops.decided_mask`.
        folder: folder for the files; None for that of the logger.

    Raises:
        ValueError: if ``decision`` is unknown.
        DataError: when it writes, if batches are not dictionaries with ``x``, ``y`` and ``snr``.

    Example:
        >>> SpectrumReport(decision="and").decision
        'and'
    """

    def __init__(
        self,
        detector: nn.Module | None = None,
        decision: Decision = "or",
        folder: str | os.PathLike[str] | None = None,
    ) -> None:
        decided_mask(torch.zeros(()), decision)  # refuses an unknown decision
        self.detector, self.decision, self.folder = detector, decision, folder

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the report of the validation split."""
        self._write(trainer, pl_module, "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the report of the test split."""
        self._write(trainer, pl_module, "test")

    @torch.no_grad()
    def _write(self, trainer: Trainer, task: LightningModule, split: str) -> None:
        data: Any = getattr(trainer, "datamodule", None)
        if trainer.fast_dev_run or data is None or not len(data.splits[split]):  # type: ignore[attr-defined]
            return
        folder = report_folder(trainer, self.folder)
        if folder is None:
            return
        x, mask, snr, logits = _read(task, data, split)
        guesses = {"network": logits}
        if self.detector is not None:
            seen, truth, _, _ = _read(None, data, "train")
            score = self.detector(seen)
            levels = score.float().flatten()[:: max(1, score.numel() // 10000)].quantile(torch.linspace(0, 1, 65))
            threshold, _ = best_threshold(score, truth, levels.tolist())
            guesses["energy detector"] = self.detector(x) - threshold
        guesses["empty mask"] = torch.full(mask.shape, -1.0)
        ratios = snr.unique()
        middle = [ratios[0], ratios[len(ratios) // 2], ratios[-1]][: len(ratios)]
        rows = torch.tensor([int((snr == ratio).nonzero()[0]) for ratio in middle])
        predicted = decided_mask(logits, self.decision)
        overlap = complex_iou(logits, mask, self.decision)
        titles = [f"SNR {snr[row]:g} dB, IoU {overlap[row]:.2f}" for row in rows.tolist()]
        save_figure(draw_spectra(x[rows], mask[rows], predicted[rows], titles), folder / "spectra.png")
        table = _table(guesses, mask, snr, self.decision)
        scores: dict[str, dict[float, float]] = {name: {} for name in guesses}
        for name, ratio, _, iou, _ in table:
            scores[name][ratio] = iou
        save_figure(draw_scores_by_snr(scores), folder / "iou_by_snr.png")
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows([("method", "snr", "recordings", "iou", "accuracy"), *table])
        write_file(folder / "scores_by_snr.csv", lambda path: path.write_text(out.getvalue(), encoding="utf-8"))


def _read(task: LightningModule | None, data: Any, split: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return spectra, masks, ratios and the logits of a task for a split, on the host; training data for 1,000."""
    index = data.splits[split][: 1000 if task is None else None]
    modes = [] if task is None else [(module, module.training) for module in task.modules()]
    for module, _ in modes:
        module.training = False  # when training ends norms still take in what they see
    parts = []
    for part in index.split(256):
        taken = data.store.take(part)
        if not isinstance(taken, dict) or not {"x", "y", "snr"} <= taken.keys():
            raise DataError(
                f"{type(data).__name__} does not give dictionaries with x, y and snr, which SpectrumReport needs; use "
                "graphseq.data.WidebandDataModule or a store of these fields"
            )
        device = taken["x"].device if task is None else task.device
        batch = data.transformed(data.transfer_batch_to_device(taken, device, 0), "test")
        logits = taken["snr"] if task is None else task(batch)
        parts.append((batch["x"].cpu(), batch["y"].cpu() > 0.5, taken["snr"].cpu(), logits.cpu()))
    for module, mode in modes:
        module.training = mode
    x, mask, snr, logits = (torch.cat(column) for column in zip(*parts, strict=True))
    return x, mask, snr, logits


def _table(
    guesses: Mapping[str, Tensor], mask: Tensor, snr: Tensor, decision: Decision
) -> list[tuple[str, float, int, float, float]]:
    """Return method, ratio, number of recordings, mean intersection over union, and accuracy."""
    rows = []
    for name, logits in guesses.items():
        overlap, accuracy = complex_iou(logits, mask, decision), mask_accuracy(logits, mask, decision)
        for ratio in snr.unique().tolist():
            here = snr == ratio
            scores = (round(float(overlap[here].mean()), 4), round(float(accuracy[here].mean()), 4))
            rows.append((name, ratio, int(here.sum()), *scores))
    return rows
