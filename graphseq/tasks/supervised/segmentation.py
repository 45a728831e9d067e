"""Segmentation of a spectrum, or of any row of positions, into occupied and free ones."""

from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection

from graphseq.core.batches import batch_target
from graphseq.core.errors import DataError
from graphseq.metrics.masks import ComplexIoU, MaskAccuracy
from graphseq.ops.images.masks import Decision, decided_mask
from graphseq.tasks.base import Stage, Step, Task, TaskOptions
from graphseq.tasks.predictions import PredictionRows, known_target

__all__ = ["Segmentation"]


class Segmentation(Task[object]):
    r"""Predict a mask over positions from real or complex logits, with the given loss.

    Procedure:
        1. logits (B, N) of the batch; 2. loss against the mask; 3. one step of the optimiser.

    Logs:
        ``<stage>/loss``; ``val/iou``, the mean over samples of the intersection over union, ``val/acc``, the share of
        correct positions, and the same for test. Where most positions are free, an empty mask has a high accuracy, too:
        compare by ``iou``.

    Args:
        model: network from samples to logits (B, N), such as :class:`graphseq.models.CMuSeNet`.
        loss: module from logits and masks to a mean: :class:`graphseq.nn.ComplexFocalLoss` for complex logits,
            :class:`graphseq.nn.FocalLoss` or ``torch.nn.BCEWithLogitsLoss()`` for real ones.
        num_outputs: number of positions N; None for no check of the network's width.
        decision: decision on complex logits, ``or``, ``and`` or ``real``, see :func:`graphseq.ops.decided_mask`.
        options: arguments of :class:`Task`.

    Raises:
        TypeError: if ``loss`` is not a module; in a step, if the loss does not take the network's kind of logits.
        ValueError: if ``decision`` is unknown, or in a step if the network's width differs.
        DataError: in a step, if masks are of another shape or hold other numbers than 0 and 1.

    Example:
        >>> from graphseq.models import CMuSeNet
        >>> from graphseq.nn import ComplexFocalLoss
        >>> task = Segmentation(CMuSeNet(16, (2,), (1,), "1d"), ComplexFocalLoss())
        >>> batch = {"x": torch.randn(3, 16, dtype=torch.complex64), "y": torch.zeros(3, 16)}
        >>> task.step(batch).prediction.shape
        torch.Size([3, 16])
    """

    monitor, mode = "val/iou", "max"

    def __init__(
        self,
        model: nn.Module,
        loss: nn.Module,
        num_outputs: int | None = None,
        *,
        decision: Decision = "or",
        **options: Unpack[TaskOptions],
    ) -> None:
        super().__init__(model, **options)
        if not isinstance(loss, nn.Module):
            raise TypeError(f"loss is a {type(loss).__name__}; give a module such as graphseq.nn.ComplexFocalLoss()")
        decided_mask(torch.zeros(()), decision)  # refuses an unknown decision
        self.loss, self.num_outputs, self.decision = loss, num_outputs, decision

    def configure_metrics(self) -> MetricCollection:
        """Return the mean intersection over union and the accuracy."""
        return MetricCollection({"iou": ComplexIoU(self.decision), "acc": MaskAccuracy(self.decision)})

    def step(self, batch: object, stage: Stage = "train") -> Step:
        """Return the loss of a batch.

        Args:
            batch: tuple or dictionary with masks, ``y``, of 0 and 1.
            stage: stage of the run; the loss does not depend on it.
        """
        logits, mask = self(batch), batch_target(batch)
        width = self.num_outputs
        if not isinstance(logits, Tensor) or logits.dim() != 2 or width not in (None, logits.shape[1]):
            given = tuple(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
            raise ValueError(
                f"{type(self.model).__name__} returned {given}; logits of masks must be (B, {width or 'N'})"
            )
        if mask.shape != logits.shape:
            raise DataError(
                f"masks are {tuple(mask.shape)} and logits {tuple(logits.shape)}; give masks of the shape of the logits"
            )
        if mask.device.type == "cpu" and bool(((mask != 0) & (mask != 1)).any()):
            raise DataError("masks hold numbers other than 0 and 1, or NaN; give masks of 0 and 1")
        wide = torch.promote_types(logits.dtype, torch.float32)  # complex types stay complex
        logits = logits.to(wide)
        try:
            loss = self.loss(logits, mask.to(logits.real.dtype))
        except NotImplementedError as error:
            kind = "complex" if logits.is_complex() else "real"
            raise TypeError(
                f"{type(self.loss).__name__} does not take the {kind} logits of {type(self.model).__name__}; give "
                "graphseq.nn.ComplexFocalLoss() for complex logits, graphseq.nn.FocalLoss() for real ones"
            ) from error
        return Step(loss, logits, mask, len(mask))

    def prediction_rows(self, batch: Any, output: Any, split: str, data: object = None) -> PredictionRows:
        """Return the predicted mask of each sample, and the true one where it is known.

        Args:
            batch: batch of the predictions, with or without masks.
            output: logits (B, N).
            split: name of the split.
            data: data module; not read.
        """
        target = known_target(batch)
        known = {} if target is None else {"target": target.int()}
        return PredictionRows({**known, "mask": decided_mask(output, self.decision).int()})
