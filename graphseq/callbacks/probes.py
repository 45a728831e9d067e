"""Linear probes of a representation before and after a layer, such as a projection head."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from graphseq.core import DataError, DataSource, batch_target
from graphseq.metrics import effective_rank, linear_probe
from graphseq.tasks.base import Task

__all__ = ["LinearProbe"]


@runtime_checkable
class FineLabelled(Protocol):
    """Data module whose samples have classes beside the labels that are trained on.

    Example:
        >>> from graphseq.data import ImageDataModule
        >>> isinstance(ImageDataModule("digits", class_groups=[[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]]), FineLabelled)
        True
    """

    @property
    def fine_labels(self) -> Tensor:
        """Class of each sample, int64 (N,)."""


class LinearProbe(Callback):
    """Log the accuracies of linear classifiers on the features before a layer and on those after it.

    At the end of a test, and of every few validations, the features of training samples and of all samples of the split
    are collected without augmentation, a logistic regression is fitted to the former and tested on the latter (see
    :func:`graphseq.metrics.linear_probe`). The classes are ``fine_labels`` where the data module has them, such as
    :class:`graphseq.data.ImageDataModule` with ``class_groups``, else the labels of the batches. It logs

    * ``<stage>/probe_before_acc`` and ``<stage>/probe_after_acc``, the accuracies;
    * ``<stage>/rank_before`` and ``<stage>/rank_after``, see :func:`graphseq.metrics.effective_rank`.

    The features are the input and the output of the layer in a forward pass of the network. A layer that the pass does
    not reach, such as the projection of :class:`graphseq.tasks.GraphContrast`, is applied to the network's output.

    Source: arXiv 2403.11391.

    Args:
        layer: dotted name of the layer in the task; ``model.projection`` of the networks with a projection head.
        num_train: largest number of training samples that the probe is fitted to, at least 1, drawn with a fixed seed.
        inverse_penalty: inverse strength of the L2 penalty of the logistic regression, C of scikit-learn, above 0.
        batch_size: number of samples in one forward pass, at least 1.
        every_n_epochs: number of validation epochs from one probe to the next, at least 1; None to probe in tests only.

    Raises:
        ValueError: if an argument is out of range.
        DataError: at the start of a run, if the task has no such layer, or the data module has no splits.

    Example:
        >>> LinearProbe(num_train=1000).layer
        'model.projection'
    """

    def __init__(
        self,
        layer: str = "model.projection",
        *,
        num_train: int = 5000,
        inverse_penalty: float = 1.0,
        batch_size: int = 512,
        every_n_epochs: int | None = None,
    ) -> None:
        for name, value in (("num_train", num_train), ("batch_size", batch_size), ("every_n_epochs", every_n_epochs)):
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        if not inverse_penalty > 0:
            raise ValueError(f"inverse_penalty is {inverse_penalty}; it must be above 0")
        self.layer = layer
        self.num_train = num_train
        self.inverse_penalty = inverse_penalty
        self.batch_size = batch_size
        self.every_n_epochs = every_n_epochs

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that the task has the layer and the data module has splits."""
        names = [name for name, _ in pl_module.named_modules() if name]
        if self.layer not in names:
            raise DataError(
                f"LinearProbe(layer={self.layer!r}): the {type(pl_module).__name__} has no such layer; it has "
                f"{', '.join(name for name in names if name.count('.') < 2)}"
            )
        if stage in ("fit", "test") and not isinstance(getattr(trainer, "datamodule", None), DataSource):
            raise DataError("LinearProbe needs a data module with a store and splits, such as those of graphseq.data")

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Probe the validation split if it is due."""
        if self.every_n_epochs is None or trainer.sanity_checking:
            return
        if (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            self._probe(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Probe the test split."""
        self._probe(trainer, pl_module, "test")

    def _probe(self, trainer: Trainer, task: LightningModule, stage: Literal["val", "test"]) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]  # set by the trainer in a run
        if not isinstance(task, Task):
            raise DataError(f"LinearProbe probes tasks of graphseq; this is a {type(task).__name__}")
        train, there = (self.features(task, data, split) for split in ("train", stage))
        values: dict[str, float] = {}
        for place in ("before", "after"):
            values[f"{stage}/probe_{place}_acc"] = linear_probe(
                train[place], train["labels"], there[place], there["labels"], self.inverse_penalty
            )
            values[f"{stage}/rank_{place}"] = float(effective_rank(there[place]))
        task.log_dict(values)

    @torch.no_grad()
    def features(self, task: Task, data: DataSource, split: str) -> dict[str, Tensor]:
        """Return the features ``before`` and ``after`` the layer, (N, D) each, and the ``labels`` (N,), on the host.

        Args:
            task: task that holds the layer; it is in evaluation mode meanwhile.
            data: data module with a store and splits.
            split: name of the split; of ``train`` at most ``num_train`` samples.
        """
        chosen = data.splits[split]
        if split == "train" and len(chosen) > self.num_train:
            order = torch.randperm(len(chosen), generator=torch.Generator().manual_seed(0))
            chosen = chosen[order[: self.num_train].sort().values]
        layer = task.get_submodule(self.layer)
        columns: dict[str, list[Tensor]] = {"before": [], "after": [], "labels": []}
        with _evaluating(task):
            for part in chosen.split(self.batch_size):
                batch = data.transfer_batch_to_device(data.store.take(part), task.device, 0)
                batch = data.transformed(batch, "test")
                before, after = _around(layer, task, batch)
                columns["before"].append(before.flatten(1).float().cpu())
                columns["after"].append(after.flatten(1).float().cpu())
                columns["labels"].append(
                    data.fine_labels[part.cpu()] if isinstance(data, FineLabelled) else batch_target(batch).cpu()
                )
        found = {name: torch.cat(parts) for name, parts in columns.items()}
        if found["labels"].is_floating_point() or found["labels"].numel() != len(chosen):
            raise DataError(
                f"labels are {found['labels'].dtype} {tuple(found['labels'].shape)} for {len(chosen)} samples; a "
                "linear probe needs one whole number for each sample"
            )
        return {**found, "labels": found["labels"].flatten()}


def _around(layer: nn.Module, task: Task, batch: object) -> tuple[Tensor, Tensor]:
    """Return the first input and the output of a layer in a forward pass."""
    # copies, since the layer and those after it may write into what they are given
    before: list[Tensor] = []
    after: list[Tensor] = []
    handles = [
        layer.register_forward_pre_hook(lambda _, inputs: before.append(inputs[0].clone())),
        layer.register_forward_hook(lambda _, inputs, output: after.append(output.clone())),
    ]
    try:
        output = task(batch)
        if not after:
            layer(output)
    finally:
        for handle in handles:
            handle.remove()
    return before[-1], after[-1]


@contextmanager
def _evaluating(task: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in task.modules()]
    task.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
