"""Geometry of the representations of any layer over training: alignments, dimension, dichotomies of conditions."""

import fnmatch
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from graphseq.callbacks.files import save_figure
from graphseq.callbacks.reports.figures import _BLUE, _ORANGE, _figure
from graphseq.callbacks.reports.representations import OF_TARGETS, LayerRows, layer_outputs, present, untouched
from graphseq.core import DataError, DataSource
from graphseq.metrics import (
    cross_condition_generalization,
    dichotomy_decodability,
    feature_alignment,
    parallelism_score,
    partial_feature_alignment,
    participation_ratio,
)
from graphseq.tasks.base import Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["RepresentationGeometry", "draw_representation_geometry"]

Measure = Literal[
    "target_alignment",
    "input_alignment",
    "input_beyond_target",
    "participation_ratio",
    "parallelism",
    "generalization",
    "decodability",
]
_LABELS: dict[str, str] = {
    "target_alignment": "alignment with targets",
    "input_alignment": "alignment with inputs",
    "input_beyond_target": "with inputs beyond targets",
    "participation_ratio": "participation ratio",
    "parallelism": "parallelism score",
    "generalization": "generalisation to conditions",
    "decodability": "decodable dichotomies",
}
_OF_CONDITIONS = ("parallelism", "generalization", "decodability")


class RepresentationGeometry(Callback):
    r"""Log the geometry of the outputs of layers, before training and after every few epochs.

    A split of the data module, or the batches of ``probe``, go through the network in evaluation mode without
    gradients. For each layer, the output of one sample is one row; it is compared with the rows of inputs and targets
    (classes as one-hot rows). In graph networks the rows are nodes or graphs, depending on the layer: nodes get the
    target of their graph, graphs the mean input of their nodes. Where batches have a field ``condition``, as those of
    :class:`graphseq.data.AlignedTaskDataModule`, rows are averaged over the samples of each condition first.

    * ``target_alignment``, ``input_alignment``: :func:`graphseq.metrics.feature_alignment`; with both there is also
      ``input_floor``, the alignment of targets with inputs, which a representation of the targets alone has;
    * ``input_beyond_target``: the part of the latter that targets do not explain,
      :func:`graphseq.metrics.partial_feature_alignment`;
    * ``participation_ratio``: :func:`graphseq.metrics.participation_ratio`;
    * ``parallelism``, ``generalization``: :func:`graphseq.metrics.parallelism_score` and
      :func:`graphseq.metrics.cross_condition_generalization`, means over binary targets; these and ``decodability``,
      :func:`graphseq.metrics.dichotomy_decodability`, need conditions.

    They are logged under ``geometry/<layer>/<measure>`` and kept in :attr:`history`, which checkpoints hold. A figure
    is written to the folder of the run at the end of training. Training is the same as without the callback, bit for
    bit: modes of modules, buffers and random generators are restored, and no hook remains. A representation that is not
    finite, or has no variance, has the value NaN.

    Source: arXiv 2401.13558. Differs from it: none.

    Args:
        layers: names of layers within the task, such as ``model.hidden.0``; ``*`` matches any characters and ``?`` any
            one; matched layers that a forward pass does not run are ignored.
        measures: names of the measures, of those above.
        split: name of the split of the data module whose samples are probed; ``conditions`` of
            :class:`graphseq.data.AlignedTaskDataModule` holds each condition once, without noise.
        probe: batches to be probed in place of a split, on any device; None for the split.
        every_n_epochs: number of epochs from one probe to the next, at least 1.
        max_samples: largest number of samples of the split, drawn with a fixed seed, at least 2.
        batch_size: number of samples of one forward pass, at least 1.
        figure: file name of the figure; None for no figure.

    Raises:
        ValueError: if a number is too small, there is no layer or no measure, a measure is unknown, or ``probe`` is a
            single batch or an iterator.
        DataError: at the start of a run, if a name matches no layer; at the first probe, if there are no such data,
            rows of a layer fit neither samples nor nodes, all targets are equal, or conditions are missing.

    Example:
        >>> RepresentationGeometry(["model.hidden.*"], measures=["participation_ratio"]).every_n_epochs
        1
    """

    def __init__(
        self,
        layers: Sequence[str],
        *,
        measures: Sequence[Measure] = ("target_alignment", "input_alignment", "participation_ratio"),
        split: str = "val",
        probe: Iterable[Any] | None = None,
        every_n_epochs: int = 1,
        max_samples: int = 2000,
        batch_size: int = 512,
        figure: str | None = "geometry.png",
    ) -> None:
        numbers = {
            "every_n_epochs": (every_n_epochs, 1),
            "max_samples": (max_samples, 2),
            "batch_size": (batch_size, 1),
        }
        for name, (number, least) in numbers.items():
            if number < least:
                raise ValueError(f"{name} is {number}; it must be at least {least}")
        if isinstance(measures, str):
            raise ValueError(f"measures is {measures!r}; give a list of names")
        if isinstance(probe, Iterator):
            raise ValueError(
                f"probe is a {type(probe).__name__}, which gives its batches only once; give a list, or a loader"
            )
        one = isinstance(probe, Tensor) or hasattr(probe, "keys")  # a dictionary, or graphs of PyG
        if one or (isinstance(probe, tuple | list) and any(isinstance(each, Tensor) for each in probe)):
            raise ValueError("probe is one batch; give a list of batches, such as [batch]")
        if isinstance(layers, str) or not layers:
            raise ValueError(f"layers is {layers!r}; give a list of names of layers, such as ['model.hidden.0']")
        unknown = [name for name in measures if name not in get_args(Measure)]
        if unknown or not measures:
            raise ValueError(f"measures are {list(measures)}; each is one of {', '.join(get_args(Measure))}")
        self.layers, self.measures, self.split, self.probe = list(layers), list(measures), split, probe
        self.every_n_epochs, self.max_samples, self.batch_size = every_n_epochs, max_samples, batch_size
        self.figure = figure
        self.history: list[dict[str, Any]] = []

    @property
    def state_key(self) -> str:
        """Key of the state in checkpoints, which distinguishes several of these callbacks of one trainer."""
        return self._generate_state_key(layers=self.layers, measures=self.measures, split=self.split)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that each name matches a layer."""
        self.names(pl_module)

    def names(self, task: nn.Module) -> list[str]:
        """Return the full names of the layers.

        Args:
            task: task that holds the layers.

        Raises:
            DataError: if a name matches nothing.
        """
        there = [name for name, _ in task.named_modules() if name]
        found: dict[str, None] = {}
        for pattern in self.layers:
            matched = fnmatch.filter(there, pattern)
            if not matched:
                raise DataError(
                    f"layers has {pattern!r}, which matches no layer of the {type(task).__name__}; there are "
                    f"{', '.join(there[:40])}{', …' if len(there) > 40 else ''}"
                )
            found.update(dict.fromkeys(matched))
        return list(found)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Probe the untrained network; a resumed run has done it."""
        if trainer.global_step == 0:
            self.history = []  # of an earlier run of this object
            self._note(trainer, pl_module, 0)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Probe if it is due."""
        done = trainer.current_epoch + 1
        if done % self.every_n_epochs == 0:
            self._note(trainer, pl_module, done)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the figure."""
        folder = trainer.log_dir  # asked of every process: it is broadcast
        if self.figure is not None and self.history and folder is not None and trainer.is_global_zero:
            Path(folder).mkdir(parents=True, exist_ok=True)
            save_figure(draw_representation_geometry(self.history), Path(folder) / self.figure)

    def state_dict(self) -> dict[str, Any]:
        """Return the history."""
        return {"history": [dict(entry) for entry in self.history]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the history of a checkpoint."""
        self.history = [dict(entry) for entry in state_dict["history"]]

    def _note(self, trainer: Trainer, task: LightningModule, epoch: int) -> None:
        values = self.measure(task, getattr(trainer, "datamodule", None))
        self.history.append({"epoch": epoch, "values": values})
        named = {f"geometry/{layer}/{name}": value for layer, each in values.items() for name, value in each.items()}
        for logger in trainer.loggers:
            logger.log_metrics(named, step=trainer.global_step)

    def measure(self, task: LightningModule, data: object = None) -> dict[str, dict[str, float]]:
        """Return the measures of each layer by name, without a trainer.

        Args:
            task: task that holds the layers.
            data: data module with a store and splits; not needed with ``probe``.

        Raises:
            DataError: as in a run.
        """
        if not isinstance(task, Task):
            raise DataError(f"RepresentationGeometry probes tasks of graphseq; this is a {type(task).__name__}")
        names = self.names(task)
        required = [name for name in names if name in self.layers]  # of patterns, containers never run
        columns: dict[str, list[LayerRows]] = {name: [] for name in names}
        with untouched(task), torch.no_grad():
            for batch in self._batches(task, data):
                for name, output in layer_outputs(task, batch, names, required).items():
                    columns[name].append(LayerRows.of(name, output, batch, self.measures))
        if not any(columns.values()):
            raise DataError("probe has no batch; give at least one")
        return {name: self._values(name, parts) for name, parts in columns.items() if parts}

    def _batches(self, task: Task[Any], data: object) -> Iterator[Any]:
        if self.probe is not None:
            for batch in self.probe:
                yield task.transfer_batch_to_device(batch, task.device, 0)
            return
        if not isinstance(data, DataSource):
            raise DataError(
                "RepresentationGeometry needs a data module with a store and splits, such as those of graphseq.data, "
                "or batches as `probe`"
            )
        if self.split not in data.splits:
            raise DataError(f"split is {self.split!r}; the data module has {', '.join(data.splits)}")
        chosen = data.splits[self.split]
        if len(chosen) < 2:
            raise DataError(f"the split {self.split} has {len(chosen)} samples; a geometry needs at least 2")
        if len(chosen) > self.max_samples:
            order = torch.randperm(len(chosen), generator=torch.Generator().manual_seed(0))
            chosen = chosen[order[: self.max_samples].sort().values]
        for part in chosen.split(self.batch_size):
            batch = data.transfer_batch_to_device(data.store.take(part), task.device, 0)
            yield data.transformed(batch, "test")

    def _values(self, name: str, parts: list[LayerRows]) -> dict[str, float]:
        rows = LayerRows.joined(name, parts)
        if any(measure in _OF_CONDITIONS for measure in self.measures) and rows.condition is None:
            raise DataError(
                f"measures are {self.measures}; {', '.join(_OF_CONDITIONS)} need batches with a field `condition`, "
                "such as those of graphseq.data.AlignedTaskDataModule"
            )
        rows = rows.averaged()
        if rows.y is not None and bool((rows.y == rows.y[0]).all()):
            raise DataError(f"all {len(rows.y)} targets are equal; {', '.join(OF_TARGETS)} need different ones")
        finite = bool(rows.z.isfinite().all())
        values: dict[str, float] = {
            measure: float(_value(measure, rows)) if finite else math.nan for measure in self.measures
        }
        if "input_alignment" in self.measures and rows.y is not None:
            values["input_floor"] = float(feature_alignment(rows.y, present(rows.x)))
        return values


def _value(measure: str, rows: LayerRows) -> Tensor | float:
    if measure == "participation_ratio":
        return participation_ratio(rows.z)
    if measure == "decodability":
        return dichotomy_decodability(rows.z, torch.arange(len(rows.z), device=rows.z.device))
    if measure == "input_alignment":
        return feature_alignment(rows.z, present(rows.x))
    if measure == "target_alignment":
        return feature_alignment(rows.z, present(rows.y))
    if measure == "input_beyond_target":
        return partial_feature_alignment(rows.z, present(rows.x), present(rows.y))
    score = parallelism_score if measure == "parallelism" else cross_condition_generalization
    sides = present(rows.y)
    if sides.shape[1] == 2 and bool((sides.sum(1) == 1).all()):
        sides = sides[:, :1]  # two classes as one-hot rows are one dichotomy
    return torch.stack([score(rows.z, side) for side in sides.T]).mean()


def draw_representation_geometry(history: Sequence[Mapping[str, Any]]) -> "Figure":
    """Draw each measure of each layer over the epochs, one panel for each measure.

    Args:
        history: ``epoch`` and ``values`` of each probe, as :class:`RepresentationGeometry` keeps them.

    Raises:
        ValueError: if ``history`` is empty.

    Example:
        >>> values = {"model.hidden.0": {"participation_ratio": 2.5}}
        >>> draw_representation_geometry([{"epoch": 0, "values": values}]).axes[0].get_title(loc="left")
        'participation ratio'
    """
    if not history:
        raise ValueError("history is empty; there was no probe to draw")
    layers = list(history[-1]["values"])
    measures = [name for name in history[-1]["values"][layers[0]] if name in _LABELS]
    figure, panels = _figure(len(measures), 3.1 * len(measures) + 0.5, 3.2)
    colours = (_BLUE, _ORANGE, "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
    epochs = [entry["epoch"] for entry in history]
    for axes, measure in zip(panels, measures, strict=True):
        for number, layer in enumerate(layers):
            values = [entry["values"].get(layer, {}).get(measure, math.nan) for entry in history]
            marker = "o" if len(epochs) < 30 else None
            axes.plot(epochs, values, color=colours[number % len(colours)], marker=marker, ms=3, label=layer)
        floor = history[-1]["values"][layers[0]].get("input_floor")
        if measure == "input_alignment" and floor is not None:
            axes.axhline(floor, color="#888888", linestyle=(0, (4, 2)), linewidth=1.2, label="targets alone")
            axes.legend(axes.lines[-1:], ["targets alone"], frameon=False, fontsize=8)
        axes.set_title(_LABELS[measure], loc="left", fontsize=10)
        axes.set_xlabel("epoch")
        low, high = axes.get_ylim()
        if measure == "participation_ratio":
            axes.set_ylim(0.9, max(high, 1.5))
        elif measure in ("parallelism", "input_beyond_target"):
            axes.set_ylim(min(low, -0.05), 1.05)
        else:
            axes.set_ylim(0, 1.05)
    panels[0].legend(frameon=False, fontsize=8)
    return figure
