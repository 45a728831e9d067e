"""Intersection over union, and accuracy, of masks that are predicted by real or complex logits."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from graphseq.ops.images.masks import Decision, decided_mask, mask_iou

__all__ = ["ComplexIoU", "MaskAccuracy", "complex_iou", "mask_accuracy"]


def _masks(logits: Tensor, target: Tensor, decision: Decision) -> tuple[Tensor, Tensor]:
    if logits.shape != target.shape or logits.dim() < 2:
        raise ValueError(f"logits are {tuple(logits.shape)}, targets {tuple(target.shape)}; both must be (B, N)")
    if target.is_complex():
        raise TypeError(f"targets are {target.dtype}; masks are real, 0 and 1")
    return decided_mask(logits, decision).flatten(1), (target > 0.5).flatten(1)


def _unless_nan(scores: Tensor, logits: Tensor) -> Tensor:
    """Return scores of samples, NaN where a logit is: its mask would be empty, which may be right by chance."""
    return torch.where(logits.isnan().flatten(1).any(1), torch.nan, scores)


def complex_iou(logits: Tensor, target: Tensor, decision: Decision = "or") -> Tensor:
    r"""Return the intersection over union of the predicted and the true mask of each sample.

    .. math:: \mathrm{IoU} = \frac{|P \cap M|}{|P \cup M|}, \qquad \mathrm{IoU} = 1 \text{ if both are empty}

    Source: arXiv 2506.11048, the complex intersection over union. Differs from the published code: two empty masks
    give 1 where the code gives NaN. NaN for a sample with a NaN logit.

    Args:
        logits: real or complex logits.
        target: true mask, 0 and 1.
        decision: decision on complex logits, see :func:`graphseq.ops.decided_mask`.

    Shape:
        logits (B, N), target (B, N) -> (B,)

    Raises:
        ValueError: if the shapes differ, or ``decision`` is another word.

    Example:
        >>> complex_iou(torch.tensor([[1 - 1j, -1 + 1j, -1 - 1j, -1 - 1j]]), torch.tensor([[1, 0, 1, 0]]))
        tensor([0.3333])
    """
    return _unless_nan(mask_iou(*_masks(logits, target, decision)), logits)


def mask_accuracy(logits: Tensor, target: Tensor, decision: Decision = "or") -> Tensor:
    """Return the share of entries of each sample where the predicted mask is right; NaN if a logit of it is.

    Where few entries are true it is high for an empty prediction as well: compare with one, or judge by
    :func:`complex_iou`.

    Args:
        logits: real or complex logits (B, N).
        target: true mask, 0 and 1 (B, N).
        decision: decision on complex logits, see :func:`graphseq.ops.decided_mask`.

    Raises:
        ValueError: if the shapes differ, or ``decision`` is another word.

    Example:
        >>> mask_accuracy(torch.tensor([[1.0, -1.0, -1.0, -1.0]]), torch.tensor([[0, 1, 0, 0]]))
        tensor([0.5000])
    """
    predicted, true = _masks(logits, target, decision)
    return _unless_nan((predicted == true).float().mean(1), logits)


class ComplexIoU(Metric):
    """Mean over samples of the intersection over union of masks; reduction over processes: sums over counts.

    The functional twin is :func:`complex_iou`.

    Args:
        decision: decision on complex logits, see :func:`graphseq.ops.decided_mask`.
        kwargs: further arguments of ``torchmetrics.Metric``.

    Raises:
        ValueError: if ``decision`` is another word.

    Example:
        >>> metric = ComplexIoU()
        >>> metric.update(torch.tensor([[1 - 1j, -1 - 1j], [-1 - 1j, -1 - 1j]]), torch.tensor([[1, 1], [0, 0]]))
        >>> metric.compute()
        tensor(0.7500)
    """

    full_state_update = False
    higher_is_better = True
    is_differentiable = False
    total: Tensor
    count: Tensor

    def __init__(self, decision: Decision = "or", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        decided_mask(torch.zeros(()), decision)  # refuses an unknown decision
        self.decision = decision
        self.add_state("total", default=torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", default=torch.tensor(0), dist_reduce_fx="sum")

    def update(self, logits: Tensor, target: Tensor) -> None:
        """Add one batch.

        Args:
            logits: real or complex logits (B, N).
            target: true mask, 0 and 1 (B, N).
        """
        self.total += self._each(logits, target).double().sum()
        self.count += len(logits)

    def _each(self, logits: Tensor, target: Tensor) -> Tensor:
        return complex_iou(logits, target, self.decision)

    def compute(self) -> Tensor:
        """Return the mean over samples; NaN before the first one."""
        return (self.total / self.count).float()


class MaskAccuracy(ComplexIoU):
    """Mean over samples of the share of entries where the mask is right; reduction over processes: sums over counts.

    The functional twin is :func:`mask_accuracy`.

    Args:
        decision: decision on complex logits, see :func:`graphseq.ops.decided_mask`.
        kwargs: further arguments of ``torchmetrics.Metric``.

    Raises:
        ValueError: if ``decision`` is another word.

    Example:
        >>> metric = MaskAccuracy()
        >>> metric.update(torch.tensor([[1 - 1j, -1 - 1j], [-1 - 1j, -1 - 1j]]), torch.tensor([[1, 1], [0, 0]]))
        >>> metric.compute()
        tensor(0.7500)
    """

    def _each(self, logits: Tensor, target: Tensor) -> Tensor:
        return mask_accuracy(logits, target, self.decision)
