"""Classification of each step of a sequence."""

from typing import Unpack

from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from graphseq.core.batches import IGNORED, batch_field, step_mask
from graphseq.core.errors import DataError
from graphseq.tasks.base import Stage, Step, Task, TaskOptions
from graphseq.tasks.objectives.classes import Classes
from graphseq.tasks.objectives.tokens import Tokens
from graphseq.tasks.predictions import PredictionRows
from graphseq.tasks.sequence.classification import checked_lengths

__all__ = ["SequenceTagging"]


class SequenceTagging(Task[object]):
    r"""Minimise the cross-entropy between the classes of steps and the network's logits at these steps.

    .. math:: L = -\frac{1}{|M|} \sum_{(b,t) \in M} \log \operatorname{softmax}(f(x_b)_t)_{y_{bt}},
        \quad M = \{(b,t) : t < n_b,\ y_{bt} \neq -100\}

    Steps after the length :math:`n_b` of a sequence are ignored, whatever their target, and so are steps with the
    target -100, which have no label. The mean is over all steps of a batch, so that long sequences have more weight.

    Procedure:
        1. logits (B, T, K) of the padded batch and its lengths; 2. cross-entropy over the steps that count; 3. one
        step of the optimiser.

    Logs:
        ``<stage>/loss``; ``val/acc``, ``val/f1`` (macro) over the steps that count, and the same for test.

    Args:
        model: network with ``forward(x, lengths)`` that returns the logits of each step, (B, T, K).
        num_outputs: number of classes of a step, at least 2.
        options: arguments of :class:`Task`.

    Raises:
        ValueError: if ``num_outputs`` is below 2; in a step, if the network's output is not (B, T, K).
        DataError: in a step, if the batch has no lengths or no target of each step, or a target is out of range.

    Example:
        >>> import torch
        >>> from graphseq.core import SequenceBatch
        >>> from graphseq.models import SequenceTagger
        >>> task = SequenceTagging(SequenceTagger(3, in_channels=1), 3)
        >>> batch = SequenceBatch(torch.randn(1, 3, 1), torch.tensor([2]), step_y=torch.tensor([[0, 2, 1]]))
        >>> int(task.step(batch, "train").size)
        2
    """

    def __init__(self, model: nn.Module, num_outputs: int, **options: Unpack[TaskOptions]) -> None:
        super().__init__(model, **options)
        self.target_kind = Tokens(num_outputs, IGNORED)
        self.num_outputs = num_outputs

    def configure_metrics(self) -> MetricCollection:
        """Return accuracy and macro F1 over the steps that count."""
        return MetricCollection(
            {
                "acc": MulticlassAccuracy(self.num_outputs, average="micro", ignore_index=IGNORED),
                "f1": MulticlassF1Score(self.num_outputs, average="macro", ignore_index=IGNORED),
            }
        )

    def step(self, batch: object, stage: Stage = "train") -> Step:
        """Return the cross-entropy over the steps that count.

        Args:
            batch: ``SequenceBatch``, or another batch with ``x``, ``lengths`` and ``step_y`` (B, T).
            stage: stage of the run; the loss does not depend on it.
        """
        lengths = checked_lengths(batch)
        target = batch_field(batch, "step_y")
        if not isinstance(target, Tensor):
            raise DataError(f"a {type(batch).__name__} without step_y was given; each step needs a target")
        logits, target = self.target_kind.align(self(batch), target, self.model, lengths)
        loss, size = self.target_kind.loss(logits, target)
        return Step(loss, logits.flatten(0, 1), target.flatten(), size)

    def prediction_rows(self, batch: object, output: Tensor, split: str, data: object = None) -> PredictionRows:
        """Return one row for each step of each sequence, with the number of the step.

        Args:
            batch: ``SequenceBatch``, or another batch with ``x`` and ``lengths``, with or without ``step_y``.
            output: logits of the steps (B, T, K).
            split: name of the split.
            data: data module, which may know the names of the classes.
        """
        sequence, step = step_mask(checked_lengths(batch), output.shape[1]).nonzero(as_tuple=True)
        target = batch_field(batch, "step_y")
        known = target[sequence, step] if isinstance(target, Tensor) else None
        columns = Classes(self.num_outputs).columns(output[sequence, step], known, self.model, data)
        return PredictionRows({"step": step, **columns}, sample=sequence)
