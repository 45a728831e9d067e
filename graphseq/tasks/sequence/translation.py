"""Training of networks that read a sequence and write another one."""

from typing import Unpack

from torch import Tensor, nn
from torchmetrics import MetricCollection

from graphseq.core.batches import IGNORED
from graphseq.core.errors import DataError
from graphseq.metrics.pointing.positions import ExactMatch
from graphseq.tasks.base import TaskOptions
from graphseq.tasks.sequence.writing import Constraint, WritingTask

__all__ = ["SequenceToSequence"]


class SequenceToSequence(WritingTask):
    r"""Minimise the cross-entropy between true symbols and the network's logits, each from the symbols before it.

    .. math:: L = -\frac{1}{\sum_b m_b} \sum_b \sum_{i=1}^{m_b} \log p(y_{bi} \mid y_{b1}, \dots, y_{b,i-1}, x_b)

    where the last symbol of an output is the end symbol, if the network writes one. Evaluation decodes by beam search;
    the loss of an evaluation is under teacher forcing.

    Procedure:
        1. logits of all steps from the true outputs (teacher forcing); 2. cross-entropy over the steps that count; 3.
        one step of the optimiser. Validation and test: 1. the same loss; 2. ``decode`` of the network; 3. metrics of
        the decoded outputs.

    Logs:
        ``<stage>/loss``; of val and test ``acc``, the share of outputs that are correct in every symbol.

    Source: arXiv 1409.3215, eq. 1. Differs from it: none.

    Args:
        model: network that writes symbols, such as :class:`graphseq.models.TransformerEncoderDecoder`.
        num_outputs: number S of output symbols, at least 1; targets are checked against it.
        beam_size: number of partial outputs of the beam search in evaluations, at least 1.
        mask: constraint of decoding: ``none``, or ``visited`` to forbid symbols that are written already.
        max_length: largest number of symbols of a decoded output; None for twice the longest input.
        options: arguments of :class:`Task`.

    Raises:
        ValueError: if an argument is outside its range; in a step, if the network has another number of symbols.
        TypeError: if the network does not decode.
        DataError: in a step, if the batch has no lengths or no outputs, or a symbol is out of range.

    Example:
        >>> import torch
        >>> from graphseq.core import SequenceBatch
        >>> from graphseq.models import EncoderDecoder
        >>> task = SequenceToSequence(EncoderDecoder(6, vocab_size=9, hidden_channels=8), num_outputs=6)
        >>> batch = SequenceBatch(torch.tensor([[1, 8]]), torch.tensor([2]), torch.tensor([[0, 5, 2]]))
        >>> int(task.step(batch, "train").size)
        4
    """

    def __init__(
        self,
        model: nn.Module,
        num_outputs: int,
        *,
        beam_size: int = 1,
        mask: Constraint = "none",
        max_length: int | None = None,
        **options: Unpack[TaskOptions],
    ) -> None:
        super().__init__(model, beam_size, mask, **options)
        for name, value in (("num_outputs", num_outputs), ("max_length", max_length)):
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; give a whole number of at least 1")
        self.num_outputs = num_outputs
        self.max_length = max_length

    def configure_metrics(self) -> MetricCollection:
        """Return the share of correct outputs."""
        return MetricCollection({"acc": ExactMatch()})

    def checked_outputs(self, y: Tensor, lengths: Tensor) -> None:
        """Check that symbols are those of the network.

        Args:
            y: symbols int64 (B, M), -100 after the last of each.
            lengths: number of steps of each input, int64 (B,).
        """
        wrong = ((y >= self.num_outputs) | (y < 0)) & (y != IGNORED)
        if bool(wrong.any()):
            row = int(wrong.any(1).nonzero()[0])
            raise DataError(
                f"y[{row}] holds {int(y[row][wrong[row]][0])}; with num_outputs={self.num_outputs} symbols are "
                f"0..{self.num_outputs - 1}, and -100 stands after the last one"
            )

    def checked_logits(self, logits: Tensor, x: Tensor) -> None:
        """Check that the network has a slot for each symbol.

        Args:
            logits: logits of all steps (B, M, S + 1).
            x: inputs (B, T, *).
        """
        if logits.shape[2] != self.num_outputs + 1:
            raise ValueError(
                f"{type(self.network).__name__} has {logits.shape[2] - 1} output symbols and num_outputs is "
                f"{self.num_outputs}; they must be equal"
            )

    def max_steps(self, x: Tensor) -> int | None:
        """Return the largest number of symbols of a decoded output, None for that of the network.

        Args:
            x: inputs (B, T, *).
        """
        return self.max_length
