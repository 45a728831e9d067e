"""Targets that are classes: one for each sample, or several labels of which some are missing."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from graphseq.core.errors import DataError
from graphseq.metrics.multilabel import MaskedAUROC, MaskedAveragePrecision
from graphseq.tasks.objectives.objective import Objective, check_outputs, class_logits, named_columns, reshaped
from graphseq.tasks.predictions import Column, output_names

__all__ = ["Classes", "Labels"]


@dataclass(frozen=True)
class Classes(Objective):
    r"""One class for each sample: cross-entropy of the logits; accuracy and macro F1.

    .. math:: L = -\frac{1}{B} \sum_b \log \operatorname{softmax}(f_b)_{y_b}

    Args:
        num_outputs: number of classes K, at least 2.
        label_smoothing: share of the target spread over all classes, in [0, 1).

    Shape:
        output (B, K), target integer (B,) or (B, 1)

    Raises:
        ValueError: if an argument is out of range; in a step, if the network's width is not K.
        DataError: in a step, if labels are not integers, of another shape, or out of range.

    Example:
        >>> loss, size = Classes(2).loss(torch.zeros(3, 2), torch.tensor([0, 1, 1]))
        >>> round(float(loss), 3), size
        (0.693, 3)
    """

    num_outputs: int
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        """Check the arguments."""
        check_outputs(self.num_outputs, 2, "multiclass")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing is {self.label_smoothing}; it must be in [0, 1)")

    def align(self, output: Tensor, target: Tensor, network: nn.Module) -> tuple[Tensor, Tensor]:
        """Return logits (B, K) and labels int64 (B,).

        Args:
            output: output of the network.
            target: labels of any integer type, (B,) or (B, 1).
            network: network, named in error messages.
        """
        logits = class_logits(output, network, self.num_outputs)
        if target.is_floating_point():
            raise DataError(
                f"labels are {target.dtype}; multiclass labels must be integers. Use target='multilabel' for labels "
                "0, 1 or NaN, or the Regression task for numbers"
            )
        if target.dim() == 2 and target.size(1) == 1:
            target = target.squeeze(1)
        if target.shape != (len(logits),):
            raise DataError(
                f"labels are {tuple(target.shape)} for {len(logits)} predictions; multiclass labels must be "
                f"({len(logits)},)"
            )
        # on a GPU the check would synchronise; there the loss kernel reports labels that are out of range
        if target.device.type == "cpu" and len(target):
            low, high = (int(bound) for bound in target.aminmax())
            if not 0 <= low <= high < self.num_outputs:
                raise DataError(
                    f"labels range from {low} to {high}; with num_outputs={self.num_outputs} they must be in "
                    f"0..{self.num_outputs - 1}"
                )
        return logits, target.long()

    def loss(self, prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> tuple[Tensor, int | Tensor]:
        """Return the mean cross-entropy, and the number of samples or the sum of their weights.

        Args:
            prediction: logits (B, K).
            target: class of each sample, int64 (B,).
            weight: weight of each class, (K,); a batch whose classes all have weight 0 has loss 0.
        """
        if weight is None:
            return functional.cross_entropy(prediction, target, label_smoothing=self.label_smoothing), len(target)
        weight = weight.to(prediction.dtype)
        total = functional.cross_entropy(
            prediction, target, weight=weight, label_smoothing=self.label_smoothing, reduction="sum"
        )
        size = weight[target].sum()
        return total / torch.where(size > 0, size, torch.inf), size

    def sample_losses(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the cross-entropy of each sample, (B,), and ones, (B,).

        Args:
            prediction: logits (B, K).
            target: class of each sample, int64 (B,).
        """
        terms = functional.cross_entropy(prediction, target, reduction="none", label_smoothing=self.label_smoothing)
        return terms, torch.ones_like(terms)

    def columns(self, output: Tensor, target: Tensor | None, network: nn.Module, data: object) -> dict[str, Column]:
        """Return the class of each sample where known, the predicted class and the probability of each.

        Args:
            output: output of the network.
            target: class of each sample, below 0 where unknown; None where there are none.
            network: network, named in error messages.
            data: data module, which may know the names of the classes.
        """
        p = class_logits(output, network, self.num_outputs).softmax(1)
        names = output_names(data, self.num_outputs)
        known: dict[str, Column] = {}
        if target is not None:
            if target.is_floating_point() or target.numel() != len(p):
                raise DataError(f"labels are {target.dtype} {tuple(target.shape)}; give one integer for each sample")
            known["target"] = named_classes(target.flatten(), names)
        probabilities = {f"p_{name}": p[:, number] for number, name in enumerate(names)}
        return {**known, "prediction": named_classes(p.argmax(1), names), **probabilities}

    def metrics(self) -> MetricCollection:
        """Return accuracy ``acc`` and macro F1 ``f1``."""
        return MetricCollection(
            {
                "acc": MulticlassAccuracy(self.num_outputs, average="micro"),
                "f1": MulticlassF1Score(self.num_outputs, average="macro"),
            }
        )


@dataclass(frozen=True)
class Labels(Objective):
    r"""Several binary labels for each sample, some missing: binary cross-entropy; AUROC and average precision.

    .. math:: L = \frac{1}{|M|} \sum_{(b,k) \in M} \mathrm{BCE}(\sigma(f_{bk}), y_{bk}),
        \quad M = \{(b,k) : y_{bk} \text{ is a number}\}

    Args:
        num_outputs: number of labels K, at least 1.

    Shape:
        output (B, K), target 0, 1 or NaN (B, K), or flat (B K,) as PyG joins labels (K,) of graphs

    Raises:
        ValueError: if ``num_outputs`` is below 1; in a step, if the network's width is not K.
        DataError: in a step, if labels are of another shape, or other numbers.

    Example:
        >>> loss, size = Labels(2).loss(torch.zeros(1, 2), torch.tensor([[1.0, float("nan")]]))
        >>> round(float(loss), 3), int(size)
        (0.693, 1)
    """

    num_outputs: int

    def __post_init__(self) -> None:
        """Check the argument."""
        check_outputs(self.num_outputs, 1, "multilabel")

    def align(self, output: Tensor, target: Tensor, network: nn.Module) -> tuple[Tensor, Tensor]:
        """Return logits (B, K) and labels in their type, (B, K).

        Args:
            output: output of the network.
            target: 0, 1 or NaN, (B, K) or flat.
            network: network, named in error messages.
        """
        logits = class_logits(output, network, self.num_outputs)
        target = reshaped(target, logits, "labels")
        if target.device.type == "cpu" and bool((~torch.isnan(target) & (target != 0) & (target != 1)).any()):
            raise DataError(
                "multilabel targets hold other values than 0, 1 and NaN; give 0, 1, or NaN where a label is missing"
            )
        return logits, target

    def loss(self, prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the mean binary cross-entropy over known labels, and their number.

        Args:
            prediction: logits (B, K).
            target: labels 0, 1 or NaN, (B, K).
            weight: weight of the positive class of each label, (K,).
        """
        known = ~torch.isnan(target)
        size = known.sum()
        return self._each(prediction, target, known, weight).sum() / size.clamp(min=1), size

    def sample_losses(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sum of the losses over the known labels of each sample, (B,), and their number, (B,).

        Args:
            prediction: logits (B, K).
            target: labels 0, 1 or NaN, (B, K).
        """
        known = ~torch.isnan(target)
        return self._each(prediction, target, known, None).sum(1), known.sum(1).to(prediction.dtype)

    def _each(self, prediction: Tensor, target: Tensor, known: Tensor, weight: Tensor | None) -> Tensor:
        each = functional.binary_cross_entropy_with_logits(
            prediction, torch.where(known, target, 0), pos_weight=weight, reduction="none"
        )
        return torch.where(known, each, 0)  # (B, K)

    def columns(self, output: Tensor, target: Tensor | None, network: nn.Module, data: object) -> dict[str, Column]:
        """Return each label where known, and the probability of each.

        Args:
            output: output of the network.
            target: labels 0, 1 or NaN; None where there are none.
            network: network, named in error messages.
            data: data module, which may know the names of the labels.
        """
        p = class_logits(output, network, self.num_outputs).sigmoid()
        return {**named_columns("target", target, p, data), **named_columns("p", p, p, data)}

    def metrics(self) -> MetricCollection:
        """Return ``auroc`` and ``ap``, means over the labels with both classes present."""
        return MetricCollection(
            {"auroc": MaskedAUROC(self.num_outputs), "ap": MaskedAveragePrecision(self.num_outputs)}
        )


def named_classes(numbers: Tensor, names: Sequence[str]) -> Column:
    """Return the name of each class, None for a number below 0; plain numbers where classes have no other names.

    Args:
        numbers: number of the class of each sample, integers (B,).
        names: names of the classes.

    Example:
        >>> named_classes(torch.tensor([1, -1]), ["cat", "dog"])
        ['dog', None]
    """
    listed = numbers.tolist()
    if list(names) != [str(number) for number in range(len(names))]:
        return [names[number] if 0 <= number < len(names) else None for number in listed]
    return numbers if min(listed, default=0) >= 0 else [number if number >= 0 else None for number in listed]
