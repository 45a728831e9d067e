"""Classification of whole sequences."""

from torch import Tensor

from graphseq.core.batches import batch_field
from graphseq.core.errors import DataError
from graphseq.tasks.base import Stage, Step
from graphseq.tasks.supervised.classification import Classification

__all__ = ["SequenceClassification"]


class SequenceClassification(Classification):
    r"""Minimise the cross-entropy between the classes of sequences and the network's logits.

    .. math:: L = -\frac{1}{B} \sum_b \log \operatorname{softmax}(f(x_b, n_b))_{y_b}

    with the length :math:`n_b` of each sequence. It is :class:`Classification` on batches with lengths, which are
    checked; the network has to ignore padding, as :class:`graphseq.models.SequenceClassifier` does.

    Procedure:
        1. logits (B, K) of the padded batch and its lengths; 2. cross-entropy; 3. one step of the optimiser.

    Logs:
        ``<stage>/loss``; ``val/acc``, ``val/f1`` (macro) and the same for test; see :class:`Classification` for
        several labels.

    Args:
        model: network with ``forward(x, lengths)`` that returns logits (B, K).
        num_outputs: number of classes or labels, at least 2 for multiclass.
        target: ``multiclass`` (integer labels (B,)) or ``multilabel`` (0, 1 or NaN, (B, K)).
        class_weights: weight of each class (multiclass) or of the positive class of each label (multilabel), at least
            0; or ``balanced`` for the weights that the data module counts, see :class:`Classification`. None for equal
            weights.
        label_smoothing: share of the target spread over all classes, in [0, 1); multiclass only.
        options: arguments of :class:`Task`.

    Raises:
        ValueError: if an argument is out of range.
        DataError: in a step, if the batch has no lengths, or one that is not in 1..T; or see :class:`Classification`.

    Example:
        >>> import torch
        >>> from graphseq.core import SequenceBatch
        >>> from graphseq.models import SequenceClassifier
        >>> task = SequenceClassification(SequenceClassifier(3, in_channels=1), 3)
        >>> batch = SequenceBatch(torch.randn(2, 5, 1), torch.tensor([5, 2]), y=torch.tensor([0, 2]))
        >>> task.step(batch, "train").prediction.shape
        torch.Size([2, 3])
    """

    def step(self, batch: object, stage: Stage = "train") -> Step:
        """Return the cross-entropy of a batch.

        Args:
            batch: ``SequenceBatch``, or another batch with ``x``, ``lengths`` and ``y``.
            stage: stage of the run; the loss does not depend on it.
        """
        checked_lengths(batch)
        return super().step(batch, stage)


def checked_lengths(batch: object) -> Tensor:
    """Return the lengths of a batch's sequences; on a CPU they are checked.

    Args:
        batch: batch with ``x`` and ``lengths``.

    Raises:
        DataError: if it has no lengths (B,), or one is not in 1..T.

    Example:
        >>> import torch
        >>> checked_lengths({"x": torch.ones(1, 3), "lengths": torch.tensor([2])})
        tensor([2])
    """
    x, lengths = batch_field(batch, "x"), batch_field(batch, "lengths")
    if not isinstance(x, Tensor) or not isinstance(lengths, Tensor) or lengths.shape != x.shape[:1] or x.dim() < 2:
        given = [None if not isinstance(value, Tensor) else tuple(value.shape) for value in (x, lengths)]
        raise DataError(
            f"the batch has x {given[0]} and lengths {given[1]}; sequences need x (B, T, ...) and lengths (B,), as the "
            "batches of SequenceStore have them"
        )
    # on a GPU the check would synchronise
    if lengths.device.type == "cpu" and not 1 <= int(lengths.min()) <= int(lengths.max()) <= x.shape[1]:
        raise DataError(
            f"lengths range from {int(lengths.min())} to {int(lengths.max())}; they must be in 1..{x.shape[1]}"
        )
    return lengths
