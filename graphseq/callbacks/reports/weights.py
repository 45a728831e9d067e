"""Report of learned sample weights: figures, and a table of the samples with the largest weights."""

import csv
import io
import os
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from graphseq.callbacks.files import report_folder, save_figure, write_file
from graphseq.callbacks.reports.figures import draw_correlations, draw_effective_sample_size, draw_weights
from graphseq.nn.reweighting.outer import DecorrelationOuter
from graphseq.nn.reweighting.weights import FeatureQueue, SampleWeights
from graphseq.ops import effective_sample_size

__all__ = ["WeightReport"]


class WeightReport(Callback):
    """Write figures and a table of the weights of training samples into the folder of the run when training ends.

    Files:
        ``weights.png``: histogram of the weights. ``effective_sample_size.png``: effective sample size over the epochs.
        ``correlations.png``: correlations of the representations in the queue, ordered by cluster, under equal and
        under learned weights, if the task has a queue. ``weighted_up.csv``: the samples with the largest weights and
        their fields in the data, such as number of nodes, label and environment.

    Weights have mean 1 over the training split and are not clipped to the bound that applies within a batch. The
    effective sample sizes are in the checkpoint, so that a resumed run draws all its epochs. It works with any task
    that has ``weights``, such as :class:`graphseq.tasks.Reweighted`; files are written where the logger writes, else
    into the trainer's root folder, by the first process.

    Args:
        num_samples: number of samples in the table, at least 1.
        folder: folder for the files; None for that of the logger.

    Raises:
        ValueError: if ``num_samples`` is below 1.
        TypeError: at the start of training, if the task has no sample weights.

    Example:
        >>> WeightReport(num_samples=20).shares
        []
    """

    def __init__(self, num_samples: int = 50, folder: str | os.PathLike[str] | None = None) -> None:
        if num_samples < 1:
            raise ValueError(f"num_samples is {num_samples}; it must be at least 1")
        self.num_samples = num_samples
        self.folder = folder
        self.epochs: list[int] = []
        self.shares: list[float] = []

    def state_dict(self) -> dict[str, Any]:
        """Return the effective sample sizes so far."""
        return {"epochs": list(self.epochs), "shares": list(self.shares)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the effective sample sizes.

        Args:
            state_dict: state that :meth:`state_dict` returned.
        """
        self.epochs, self.shares = list(state_dict["epochs"]), list(state_dict["shares"])

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Refuse a task without weights."""
        if stage == "fit" and not isinstance(getattr(pl_module, "weights", None), SampleWeights):
            raise TypeError(
                f"{type(pl_module).__name__} has no sample weights; WeightReport needs a task with a "
                "graphseq.nn.SampleWeights as `weights`, such as graphseq.tasks.Reweighted"
            )

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Forget an earlier run of this object."""
        if trainer.global_step == 0:
            self.epochs, self.shares = [], []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Record the effective sample size."""
        self.epochs.append(trainer.current_epoch)
        self.shares.append(float(effective_sample_size(_weights(trainer, pl_module)[1])))

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Draw the figures and write the table."""
        folder = None if trainer.fast_dev_run else report_folder(trainer, self.folder)  # type: ignore[attr-defined]
        if folder is None:
            return
        index, weight = _weights(trainer, pl_module)
        save_figure(draw_weights(weight), folder / "weights.png")
        if self.shares:
            figure = draw_effective_sample_size(self.epochs, self.shares, pl_module.weights.ess_min)
            save_figure(figure, folder / "effective_sample_size.png")
        queue = getattr(pl_module, "queue", None)
        if isinstance(queue, FeatureQueue) and len(queue) > 1:
            learned = pl_module.weights.bound(pl_module.weights.normalize(queue.logit))
            found = getattr(getattr(pl_module, "outer", None), "decorrelation", None)
            cluster = found.cluster if isinstance(found, DecorrelationOuter) and len(found.cluster) else None
            save_figure(draw_correlations(queue.z, learned, cluster), folder / "correlations.png")
        store = getattr(getattr(trainer, "datamodule", None), "store", None)
        table = _table(index, weight, store, self.num_samples)
        write_file(folder / "weighted_up.csv", lambda path: path.write_text(table, encoding="utf-8"))


@torch.no_grad()
def _weights(trainer: Trainer, task: Any) -> tuple[Tensor, Tensor]:
    """Return positions and weights of the training samples on the host; those of all samples if there is no split."""
    logit = task.weights.logit.detach()
    splits = getattr(getattr(trainer, "datamodule", None), "splits", None)
    index = torch.arange(len(logit)) if splits is None else splits["train"].cpu()
    return index, task.weights.normalize(logit[index.to(logit.device)]).cpu()


def _table(index: Tensor, weight: Tensor, store: Any, number: int) -> str:
    """Return the samples with the largest weights as CSV, with all fields that have one value for each sample."""
    top = weight.argsort(descending=True, stable=True)[:number]
    columns: dict[str, list[Any]] = {"idx": index[top].tolist(), "weight": [f"{w:.6g}" for w in weight[top].tolist()]}
    batch: Any = store.take(index[top]) if store is not None else {}
    fields = batch if isinstance(batch, dict) else batch.to_dict() if hasattr(batch, "to_dict") else {}
    pointer = fields.get("ptr")
    if isinstance(pointer, Tensor):
        columns["num_nodes"] = pointer.diff().tolist()
    own = fields.get("idx")
    if isinstance(own, Tensor) and own.shape == top.shape and not torch.equal(own.cpu(), index[top]):
        columns["own idx"] = own.tolist()  # a field of the data that happens to have this name
    per_node = isinstance(pointer, Tensor) and int(pointer[-1]) == len(top)  # then a field of nodes has as many entries
    for name, value in fields.items():
        known = isinstance(value, Tensor | list) and name not in ("batch", "ptr", "idx") and len(value) == len(top)
        if not known or (per_node and name in ("x", "pos")):
            continue
        if isinstance(value, Tensor) and value.dim() == 2 and value.size(1) <= 20:
            columns.update({f"{name}_{k}": column.tolist() for k, column in enumerate(value.unbind(1))})
        elif isinstance(value, list) or value.dim() == 1:
            columns[name] = value if isinstance(value, list) else value.tolist()
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return out.getvalue()
