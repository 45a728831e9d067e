"""Classification of whole samples: graphs, sequences, images, rows."""

from typing import Literal, Unpack

import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection

from graphseq.core.batches import batch_target
from graphseq.core.errors import DataError
from graphseq.core.protocols import CountedClasses
from graphseq.tasks.base import Stage, Step, Task, TaskOptions
from graphseq.tasks.objectives.classes import Classes, Labels

__all__ = ["Classification"]


class Classification(Task[object]):
    r"""Minimise the cross-entropy between labels and the network's logits.

    Multiclass, one label for each sample:

    .. math:: L = -\frac{1}{B} \sum_b \log \operatorname{softmax}(f(x_b))_{y_b}

    Multilabel, K binary labels for each sample, NaN where missing: the mean of the binary cross-entropies of the known
    labels.

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
            training split (graphs have them) when training starts. The checkpoint holds them.
        label_smoothing: share of the target spread over all classes, in [0, 1); multiclass only.
        options: arguments of :class:`Task`.

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
        **options: Unpack[TaskOptions],
    ) -> None:
        super().__init__(model, **options)
        if target not in ("multiclass", "multilabel"):
            raise ValueError(f"target is {target!r}; it must be 'multiclass' or 'multilabel'")
        if label_smoothing and target == "multilabel":
            raise ValueError(
                f"label_smoothing is {label_smoothing}; multilabel targets are not smoothed, leave it at 0"
            )
        self.target_kind = Classes(num_outputs, label_smoothing) if target == "multiclass" else Labels(num_outputs)
        if isinstance(class_weights, str) and class_weights != "balanced":
            raise ValueError(f"class_weights is {class_weights!r}; it must be a list of numbers, 'balanced' or None")
        self.balances = isinstance(class_weights, str)
        given = [1.0] * num_outputs if isinstance(class_weights, str) else class_weights
        if given is not None and len(given) != num_outputs:
            raise ValueError(f"class_weights has {len(given)} entries for {num_outputs} outputs; give one for each")
        if given is not None and not (min(given) >= 0 and 0 < sum(given) < float("inf")):
            raise ValueError(f"class_weights is {given}; weights must be at least 0 and finite, not all 0")
        self.num_outputs = num_outputs
        self.target = target
        self.label_smoothing = label_smoothing
        weights = None if given is None else torch.tensor([float(weight) for weight in given])
        self.register_buffer("class_weights", weights, persistent=self.balances)

    def setup(self, stage: str) -> None:
        """Take the class weights of the data module if they are ``balanced``, and build the metrics."""
        super().setup(stage)
        if stage != "fit" or not self.balances or self.class_weights is None:
            return
        data = self.datamodule
        if not isinstance(data, CountedClasses):
            raise DataError(
                "class_weights='balanced' needs a data module with class_weights, such as those of graphs; give a list "
                "with the weight of each class"
            )
        counted = data.class_weights
        if len(counted) != self.num_outputs:
            raise DataError(
                f"the data have {len(counted)} classes or labels; set num_outputs={len(counted)}, not "
                f"{self.num_outputs}"
            )
        self.class_weights.copy_(torch.tensor(counted))

    def configure_metrics(self) -> MetricCollection:
        """Return accuracy and macro F1, or AUROC and average precision for multilabel targets."""
        return self.target_kind.metrics()

    def step(self, batch: object, stage: Stage = "train") -> Step:
        """Return the cross-entropy of a batch.

        Args:
            batch: tuple, PyG batch or dictionary with a target.
            stage: stage of the run; the loss does not depend on it.
        """
        prediction, target = self.target_kind.align(self(batch), batch_target(batch), self.model)
        loss, size = self.target_kind.loss(prediction, target, self.class_weights)
        return Step(loss, prediction, target, size)
