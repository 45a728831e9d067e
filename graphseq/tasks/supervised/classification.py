"""Classification of whole samples: graphs, sequences, images, rows."""

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
from graphseq.tasks.base import Step, Task

__all__ = ["Classification"]


class Classification(Task):
    r"""Minimise the cross-entropy between labels and the network's logits.

    Multiclass, one label a sample:

    .. math:: L = -\frac{1}{B} \sum_b \log \operatorname{softmax}(f(x_b))_{y_b}

    Multilabel, K binary labels a sample of which some are missing (NaN): the mean of the binary cross-entropies of
    the known ones.

    Procedure:
        1. logits (B, K) of the batch; 2. cross-entropy; 3. one step of the optimiser.

    Logs:
        ``<stage>/loss``; multiclass ``val/acc``, ``val/f1`` (macro) and the same for test; multilabel ``val/auroc``
        and ``val/ap``, means over the labels with both classes present.

    Args:
        model: network whose output is logits.
        num_outputs: number of classes or labels, at least 2 for multiclass.
        target: ``multiclass`` (integer labels (B,)) or ``multilabel`` (0, 1 or NaN, (B, K)).
        class_weights: weight of each class (multiclass; the mean is weighted) or of the positive class of each label
            (multilabel), at least 0; or ``balanced`` for the ``class_weights`` that the data module counts in its
            training split (graphs have them) when training starts. The checkpoint keeps those.
        label_smoothing: share of the target spread over all classes, in [0, 1); multiclass only.
        optimizer: see :class:`Task`.
        scheduler: see :class:`Task`.
        scheduler_interval: see :class:`Task`.
        stop_on_nonfinite: see :class:`Task`.

    Raises:
        ValueError: if an argument is out of range.
        DataError: in a step, if labels are not of the kind that ``target`` says or out of range.

    Example:
        >>> task = Classification(nn.Linear(4, 3), num_outputs=3)
        >>> task.step((torch.ones(5, 4), torch.tensor([0, 1, 2, 0, 1]))).prediction.shape
        torch.Size([5, 3])
    """

    class_weights: Tensor | None

    def __init__(
        self,
        model: nn.Module,
        num_outputs: int,
        *,
        target: Literal["multiclass", "multilabel"] = "multiclass",
        class_weights: list[float] | Literal["balanced"] | None = None,
        label_smoothing: float = 0.0,
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
        if target not in ("multiclass", "multilabel"):
            raise ValueError(f"target is {target!r}; it must be 'multiclass' or 'multilabel'")
        least = 2 if target == "multiclass" else 1
        if num_outputs < least:
            raise ValueError(f"num_outputs is {num_outputs}; {target} classification needs at least {least}")
        if isinstance(class_weights, str) and class_weights != "balanced":
            raise ValueError(f"class_weights is {class_weights!r}; it must be a list of numbers, 'balanced' or None")
        self.balances = isinstance(class_weights, str)
        given = [1.0] * num_outputs if isinstance(class_weights, str) else class_weights
        if given is not None and len(given) != num_outputs:
            raise ValueError(f"class_weights has {len(given)} entries for {num_outputs} outputs")
        if given is not None and not (min(given) >= 0 and 0 < sum(given) < float("inf")):
            raise ValueError(f"class_weights is {given}; weights must be at least 0 and finite, not all 0")
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing is {label_smoothing}; it must be in [0, 1)")
        if label_smoothing and target == "multilabel":
            raise ValueError(
                f"label_smoothing is {label_smoothing}; multilabel targets are not smoothed, leave it at 0"
            )
        self.num_outputs = num_outputs
        self.target = target
        self.label_smoothing = label_smoothing
        weights = None if given is None else torch.tensor([float(weight) for weight in given])
        self.register_buffer("class_weights", weights, persistent=self.balances)

    def setup(self, stage: str) -> None:
        """Count the classes where weights are to balance them, and build the metrics."""
        super().setup(stage)
        if stage != "fit" or not self.balances:
            return
        counted = getattr(getattr(self.trainer, "datamodule", None), "class_weights", None)
        if counted is None:
            raise DataError(
                "class_weights='balanced' needs a data module with class_weights, such as those of graphs; give a list "
                "with the weight of each class"
            )
        if len(counted) != self.num_outputs:
            raise DataError(f"the data have {len(counted)} classes or labels, the task {self.num_outputs}")
        weights = cast(Tensor, self.class_weights)
        weights.copy_(torch.tensor(counted))

    def configure_metrics(self) -> MetricCollection:
        """Return accuracy and macro F1, or AUROC and average precision for multilabel targets."""
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

    def step(self, batch: Any) -> Step:
        """Return the cross-entropy of a batch.

        Args:
            batch: tuple, PyG batch or dictionary with a target.
        """
        target = batch_target(batch)
        logits = class_logits(self(batch), self.model, self.num_outputs)
        if self.target == "multilabel":
            return multilabel_step(logits, target, self.class_weights)
        target = multiclass_target(target, len(logits), self.num_outputs)
        if self.class_weights is None:
            loss = functional.cross_entropy(logits, target, label_smoothing=self.label_smoothing)
            return Step(loss, logits, target, len(target))
        weights = self.class_weights.to(logits.dtype)
        total = functional.cross_entropy(
            logits, target, weight=weights, label_smoothing=self.label_smoothing, reduction="sum"
        )
        # the mean is over the weights of the samples; a batch of classes of weight 0 has loss 0
        size = weights[target].sum()
        return Step(total / torch.where(size > 0, size, torch.inf), logits, target, size)


def class_logits(output: Any, model: nn.Module, num_outputs: int) -> Tensor:
    """Return a network's output as logits (B, K) in float32 or wider, after a check of its shape.

    Args:
        output: what the network returned.
        model: the network, named in the message.
        num_outputs: K.

    Raises:
        ValueError: if the output is not (B, K).

    Example:
        >>> class_logits(torch.zeros(2, 3, dtype=torch.bfloat16), nn.Linear(4, 3), 3).dtype
        torch.float32
    """
    if not isinstance(output, Tensor) or output.dim() != 2 or output.size(1) != num_outputs:
        given = tuple(output.shape) if isinstance(output, Tensor) else f"a {type(output).__name__}"
        raise ValueError(
            f"{type(model).__name__} returned {given}; logits of {num_outputs} outputs "
            f"must be (B, {num_outputs}). Set the network's last width to num_outputs"
        )
    return output.to(torch.promote_types(output.dtype, torch.float32))


def multiclass_target(target: Tensor, count: int, num_outputs: int) -> Tensor:
    """Return class labels as int64 (B,) after a check of kind, shape and, on the host, range.

    Args:
        target: labels, any integer type, (B,) or (B, 1).
        count: B.
        num_outputs: number of classes.

    Raises:
        DataError: if they are not that.

    Example:
        >>> multiclass_target(torch.tensor([[1], [0]]), 2, 2)
        tensor([1, 0])
    """
    if target.is_floating_point():
        raise DataError(
            f"labels are {target.dtype}; multiclass labels must be integers. Use target='multilabel' for labels 0, 1 "
            "or NaN, or the Regression task for numbers"
        )
    if target.dim() == 2 and target.size(1) == 1:
        target = target.squeeze(1)
    if target.shape != (count,):
        raise DataError(
            f"labels are {tuple(target.shape)} for {count} predictions; multiclass labels must be ({count},)"
        )
    # on a device the check would wait for it; there the loss itself reports labels that are out of range
    if target.device.type == "cpu" and count and not 0 <= int(target.min()) <= int(target.max()) < num_outputs:
        raise DataError(
            f"labels reach from {int(target.min())} to {int(target.max())}; with num_outputs={num_outputs} "
            f"they must be in 0..{num_outputs - 1}"
        )
    return target.long()


def multilabel_step(logits: Tensor, target: Tensor, positive_weight: Tensor | None = None) -> Step:
    r"""Return the mean binary cross-entropy over the labels that are known.

    .. math:: L = \frac{1}{|K|} \sum_{(b,k) \in K} \mathrm{BCE}(\sigma(f(x_b)_k), y_{bk}),
        \quad K = \{(b,k) : y_{bk} \text{ is a number}\}

    Args:
        logits: (B, K).
        target: 0, 1 or NaN, (B, K), or flat: (B,) for one label, (B K,) as PyG joins labels (K,) of graphs.
        positive_weight: weight of the positive class of each label, (K,).

    Raises:
        DataError: if the shapes differ.

    Example:
        >>> float(multilabel_step(torch.zeros(1, 2), torch.tensor([[1.0, float("nan")]])).loss)
        0.6931471824645996
    """
    if target.dim() == 1 and target.numel() == logits.numel():
        target = target.view(logits.shape)
    target = target.to(logits.dtype)
    if target.shape != logits.shape:
        raise DataError(f"labels are {tuple(target.shape)}, predictions {tuple(logits.shape)}; they must be equal")
    known = ~torch.isnan(target)
    if target.device.type == "cpu" and bool((known & (target != 0) & (target != 1)).any()):
        raise DataError("multilabel targets must be 0, 1 or NaN (missing); other values were given")
    each = functional.binary_cross_entropy_with_logits(
        logits, torch.where(known, target, 0), pos_weight=positive_weight, reduction="none"
    )
    size = known.sum()
    loss = torch.where(known, each, 0).sum() / size.clamp(min=1)
    return Step(loss, logits, target, size)
