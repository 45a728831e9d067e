"""Training of language models, which predict the next token of a text."""

from typing import Unpack

import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection

from graphseq.core.batches import IGNORED, PrefixBatch, TokenBatch, apply_model
from graphseq.core.checkpoint import Checkpoint
from graphseq.core.errors import DataError
from graphseq.core.protocols import TextSource
from graphseq.core.vocabulary import Vocabulary
from graphseq.tasks.base import Stage, Step, Task, TaskOptions
from graphseq.tasks.compatibility import noted
from graphseq.tasks.objectives.tokens import Tokens
from graphseq.tasks.predictions import PredictionRows

__all__ = ["LanguageModeling"]


class LanguageModeling(Task[object]):
    r"""Minimise the cross-entropy between each token of a window and the logits at the token before it.

    .. math:: L = -\frac{1}{|M|} \sum_{(b,t) \in M} \log \operatorname{softmax}(f(x_{b,\le t})_t)_{x_{b,t+1}}, \quad
        M = \{(b,t) : t + 1 < n_b\}, \quad \mathrm{perplexity} = e^L, \quad \mathrm{bpc} = L / \log 2

    A window of T + 1 tokens gives T predictions, each from the tokens of the window up to it. Padding is left out, and
    so are the tokens that are given in a ``PrefixBatch``, which a network with a ``prefix`` sees as a whole.
    Checkpoints hold the vocabulary of the data module (:attr:`vocabulary`), so that ``graphseq generate`` needs no
    data.

    Procedure:
        1. logits (B, T, V) of the first T tokens; 2. cross-entropy with the last T tokens; 3. one step of the
        optimiser.

    Logs:
        ``<stage>/loss``; ``val/ppl`` (perplexity of a token) and, unless tokens are words, ``val/bpc`` (bits per
        character), over all tokens that are predicted, and the same for test.

    Args:
        model: causal network from token numbers (B, T) to logits (B, T, V) of the next token.
        num_outputs: V, number of tokens of the vocabulary, at least 2.
        options: arguments of :class:`Task`.

    Raises:
        ValueError: if ``num_outputs`` is below 2; in a step, if the network's output is not (B, T, V).
        DataError: in a step, if a batch has no tokens (B, T) with T at least 2, or a token is out of range.

    Example:
        >>> from graphseq.models import RecurrentLanguageModel
        >>> task = LanguageModeling(RecurrentLanguageModel(vocab_size=5), num_outputs=5)
        >>> batch = TokenBatch(torch.tensor([[1, 2, 3, 4], [1, 2, 0, 0]]), torch.tensor([4, 2]))
        >>> int(task.step(batch, "train").size)
        4
    """

    def __init__(self, model: nn.Module, num_outputs: int, **options: Unpack[TaskOptions]) -> None:
        super().__init__(model, **options)
        self.target_kind = Tokens(num_outputs)
        self.num_outputs = num_outputs
        self.vocabulary: Vocabulary | None = None

    def setup(self, stage: str) -> None:
        """Store the vocabulary of the data module, and build the metrics."""
        data = self.datamodule
        if isinstance(data, TextSource):
            self.vocabulary = data.vocabulary
        super().setup(stage)

    def configure_metrics(self) -> MetricCollection:
        """Return perplexity and, unless tokens are words, bits per character."""
        metrics = self.target_kind.metrics()
        if self.vocabulary is None or self.vocabulary.unit == "character":
            return metrics
        return MetricCollection({"ppl": metrics["ppl"]})

    def step(self, batch: object, stage: Stage = "train") -> Step:
        """Return the mean cross-entropy of the predicted tokens.

        Args:
            batch: ``TokenBatch`` or ``PrefixBatch``, or token numbers (B, T) of full rows.
            stage: stage of the run; the loss does not depend on it.
        """
        ids = batch.ids if isinstance(batch, TokenBatch) else batch
        if not isinstance(ids, Tensor) or ids.dim() != 2 or ids.shape[1] < 2:
            given = tuple(ids.shape) if isinstance(ids, Tensor) else f"a {type(batch).__name__}"
            raise DataError(f"the batch is {given}; token numbers (B, T) with T of at least 2 are needed")
        lengths = batch.lengths if isinstance(batch, TokenBatch) else torch.full_like(ids[:, 0], ids.shape[1])
        known = lengths - 1
        # a row of one token has no target, but the network gets a length of at least 1
        read, target = TokenBatch(ids[:, :-1], known.clamp(min=1)), ids[:, 1:]
        if isinstance(batch, PrefixBatch):
            read = PrefixBatch(read.ids, read.lengths, torch.minimum(batch.prefix, read.lengths))
            is_given = torch.arange(1, ids.shape[1], device=ids.device) < batch.prefix[:, None]
            target = target.masked_fill(is_given, IGNORED)
        logits, target = self.target_kind.align(self.outputs(read, stage), target, self.model, known)
        loss, size = self.target_kind.loss(logits, target)
        return Step(loss, logits, target, size)

    def outputs(self, batch: TokenBatch, stage: Stage) -> Tensor:
        """Return the logits of the next token at each position, (B, T, V).

        Args:
            batch: tokens that are read.
            stage: stage of the run.
        """
        return apply_model(self.model, batch)

    def prediction_rows(self, batch: object, output: Tensor, split: str, data: object = None) -> PredictionRows:
        """Refuse: a table would have a row for each token of the text.

        Raises:
            DataError: always.
        """
        raise DataError(
            "a language model has no predictions for samples; graphseq generate writes text, graphseq test measures "
            "perplexity"
        )

    def on_save_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Add the vocabulary to the checkpoint."""
        super().on_save_checkpoint(checkpoint)
        if self.vocabulary is not None:
            checkpoint["graphseq"]["vocabulary"] = self.vocabulary.state_dict()

    def on_load_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Check the checkpoint, and store its vocabulary."""
        super().on_load_checkpoint(checkpoint)
        if "vocabulary" in checkpoint.get("graphseq", {}):
            saved = noted(checkpoint, "vocabulary", ["unit", "tokens"])
            self.vocabulary = Vocabulary.from_state_dict(saved)
