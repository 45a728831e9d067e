"""The base of procedures that weigh samples, or groups of them, against each other."""

from typing import Any, Literal, cast

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from graphseq.core.batches import batch_target
from graphseq.core.errors import DataError
from graphseq.metrics.multilabel import MaskedAUROC, MaskedAveragePrecision
from graphseq.metrics.regression import MaskedMeanAbsoluteError, MaskedRootMeanSquaredError
from graphseq.tasks.base import Step, Task
from graphseq.tasks.supervised.classification import class_logits, multiclass_target

__all__ = ["SampleTask"]

Target = Literal["multiclass", "multilabel", "regression"]


def batch_field(batch: Any, name: str, purpose: str) -> Tensor:
    """Return a field with one entry a sample.

    Args:
        batch: dictionary, or an object with attributes.
        name: of the field.
        purpose: what it is and who has it, for the message.

    Raises:
        DataError: if there is none.

    Example:
        >>> batch_field({"idx": torch.tensor([3])}, "idx", "position of each sample")
        tensor([3])
    """
    value = batch.get(name) if isinstance(batch, dict) else getattr(batch, name, None)
    if not isinstance(value, Tensor):
        raise DataError(f"a {type(batch).__name__} without `{name}` was given; it must hold the {purpose}")
    return value


class SampleTask(Task):
    r"""Base of procedures that need the loss of each sample: a sum :math:`s_n` over :math:`c_n` known targets.

    With equal weights the loss :math:`\sum_n s_n / \sum_n c_n` is that of :class:`Classification` or
    :class:`Regression`: cross-entropy, binary cross-entropy of the known labels, or squared error of the known numbers.
    A subclass says in ``training_loss`` what is made of them in training; validation and test take the mean.

    The *representation* of a sample is what the network's ``head`` reads.

    Args:
        model: network with a module ``head`` that turns one vector a sample into outputs.
        num_outputs: classes, labels or numbers K of a sample, at least 1; at least 2 for multiclass.
        target: integer labels (B,); 0, 1 or NaN (B, K); or numbers or NaN (B, K).
        loss: for regression, module from outputs and targets to losses of the same shape; default squared error.
        optimizer: see :class:`Task`.
        scheduler: see :class:`Task`.
        scheduler_interval: see :class:`Task`.
        stop_on_nonfinite: see :class:`Task`.

    Raises:
        ValueError: if an argument is out of range.
        TypeError: if the network has no ``head``.
        DataError: in a step, if targets are not of the kind that ``target`` says.

    Example:
        >>> from graphseq.models import GraphClassifier
        >>> task = SampleTask(GraphClassifier(3, 2), num_outputs=2)
        >>> graph = {"x": torch.ones(4, 3), "edge_index": torch.tensor([[0], [1]]), "y": torch.tensor([1])}
        >>> task.step(graph).size
        tensor(1.)
    """

    def __init__(
        self,
        model: nn.Module,
        num_outputs: int,
        *,
        target: Target = "multiclass",
        loss: nn.Module | None = None,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
        scheduler_interval: Literal["epoch", "step"] = "epoch",
        stop_on_nonfinite: bool = True,
    ) -> None:
        super().__init__(
            model,
            optimizer=optimizer,
            scheduler=scheduler,
            scheduler_interval=scheduler_interval,
            stop_on_nonfinite=stop_on_nonfinite,
        )
        if target not in ("multiclass", "multilabel", "regression"):
            raise ValueError(f"target is {target!r}; it must be 'multiclass', 'multilabel' or 'regression'")
        least = 2 if target == "multiclass" else 1
        if num_outputs < least:
            raise ValueError(f"num_outputs is {num_outputs}; {target} targets need at least {least}")
        if loss is not None and (target != "regression" or getattr(loss, "reduction", "none") != "none"):
            raise ValueError(
                f"loss is {loss!r} with target={target!r}; a loss can be given for regression, and must keep the "
                "entries apart: torch.nn.L1Loss(reduction='none')"
            )
        if not isinstance(getattr(model, "head", None), nn.Module):
            raise TypeError(
                f"{type(model).__name__} has no module `head`; give a network whose head reads one vector a sample, "
                "such as graphseq.models.GraphClassifier, or FromPyG with out_channels"
            )
        self.num_outputs = num_outputs
        self.target = target
        self.loss = nn.MSELoss(reduction="none") if loss is None else loss

    def configure_metrics(self) -> MetricCollection:
        """Return the metrics of :class:`Classification` or :class:`Regression`."""
        if self.target == "regression":
            return MetricCollection({"mae": MaskedMeanAbsoluteError(), "rmse": MaskedRootMeanSquaredError()})
        if self.target == "multilabel":
            return MetricCollection(
                {"auroc": MaskedAUROC(self.num_outputs), "ap": MaskedAveragePrecision(self.num_outputs)}
            )
        return MetricCollection(
            {
                "acc": MulticlassAccuracy(self.num_outputs, average="micro"),
                "f1": MulticlassF1Score(self.num_outputs, average="macro"),
            }
        )

    @property
    def head(self) -> nn.Module:
        """The module whose input is the representation."""
        return cast(nn.Module, self.model.head)

    def represent(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Return the network's output and what its head read, (B, D).

        Args:
            batch: one batch.

        Raises:
            ValueError: if the head did not read one vector a sample.
        """
        read: list[Any] = []
        handle = self.head.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
        try:
            output = self(batch)
        finally:
            handle.remove()
        if len(read) != 1 or not isinstance(read[0], Tensor) or read[0].dim() != 2:
            raise ValueError(
                f"the head of {type(self.model).__name__} was called {len(read)} times in one pass; it must read one "
                "matrix (B, D), once"
            )
        return output, read[0]

    def aligned_target(self, batch: Any, prediction: Tensor) -> tuple[Tensor, Tensor]:
        """Return predictions (B, K) in float32 or wider and the targets that belong to them.

        Args:
            batch: one batch.
            prediction: output of the network.
        """
        prediction = class_logits(prediction, self.model, self.num_outputs)
        target = batch_target(batch)
        if self.target == "multiclass":
            return prediction, multiclass_target(target, len(prediction), self.num_outputs)
        if target.dim() == 1 and target.numel() == prediction.numel():
            target = target.view(prediction.shape)  # PyG joins targets (K,) of graphs to (B K,)
        target = target.to(prediction.dtype)
        if target.shape != prediction.shape:
            raise DataError(
                f"targets are {tuple(target.shape)}, predictions {tuple(prediction.shape)}; they must be equal"
            )
        checked = self.target == "multilabel" and target.device.type == "cpu"
        if checked and bool((~torch.isnan(target) & (target != 0) & (target != 1)).any()):
            raise DataError("multilabel targets must be 0, 1 or NaN (missing); other values were given")
        return prediction, target

    def sample_losses(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sum of the losses of each sample and over how many known targets it runs: (B,), (B,).

        Args:
            prediction: (B, K).
            target: as :meth:`aligned_target` returns it.
        """
        if self.target == "multiclass":
            terms = functional.cross_entropy(prediction, target, reduction="none")
            return terms, torch.ones_like(terms)
        known = ~torch.isnan(target)
        filled = torch.where(known, target, prediction.detach() if self.target == "regression" else 0)
        if self.target == "regression":
            each = self.loss(prediction, filled)
        else:
            each = functional.binary_cross_entropy_with_logits(prediction, filled, reduction="none")
        return torch.where(known, each, 0).sum(1), known.sum(1).to(prediction.dtype)

    def training_loss(
        self, terms: Tensor, sizes: Tensor, batch: Any, prediction: Tensor, representation: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the loss of a training batch and the number of terms it is a mean of.

        Args:
            terms: sum of the losses of each sample, (B,).
            sizes: number of terms of each sum, (B,).
            batch: the batch.
            prediction: that the losses are of, (B, K).
            representation: what the head read, (B, D).
        """
        size = sizes.sum()
        return terms.sum() / size.clamp(min=1), size

    def step(self, batch: Any) -> Step:
        """Return the loss of a batch: in training as the procedure weighs it, else the mean.

        Args:
            batch: tuple, PyG batch or dictionary with a target.
        """
        output, representation = self.represent(batch)
        prediction, target = self.aligned_target(batch, output)
        terms, sizes = self.sample_losses(prediction, target)
        if self.stage == "train":
            loss, size = self.training_loss(terms, sizes, batch, prediction, representation)
        else:
            loss, size = SampleTask.training_loss(self, terms, sizes, batch, prediction, representation)
        return Step(loss, prediction, target, size)
