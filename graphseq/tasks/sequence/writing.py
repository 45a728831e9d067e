"""Base class of tasks whose networks write a sequence: loss under teacher forcing, outputs by beam search."""

from typing import Any, Literal, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphseq.core.batches import IGNORED, batch_field
from graphseq.core.errors import DataError
from graphseq.core.protocols import PointingNetwork, missing_members
from graphseq.core.wrappers import unwrapped
from graphseq.tasks.base import Stage, Step, Task, TaskOptions
from graphseq.tasks.predictions import Column, PredictionRows
from graphseq.tasks.sequence.classification import checked_lengths

__all__: list[str] = []

Constraint = Literal["none", "visited"]


class WritingTask(Task[object]):
    """Base class of tasks whose network writes symbols; a subclass defines which are allowed and how many.

    Args:
        model: network that writes symbols, such as :class:`graphseq.models.PointerNet`.
        beam_size: number of partial outputs of the beam search in evaluations, at least 1.
        mask: constraint of decoding: ``none``, or ``visited`` to forbid symbols that are written already.
        options: arguments of :class:`Task`.
    """

    def __init__(
        self, model: nn.Module, beam_size: int = 1, mask: Constraint = "none", **options: Unpack[TaskOptions]
    ) -> None:
        super().__init__(model, **options)
        missing = missing_members(unwrapped(model), PointingNetwork)
        if missing:
            raise TypeError(
                f"{type(unwrapped(model)).__name__} has no {', '.join(missing)}; give a network that writes symbols or "
                "positions, such as graphseq.models.TransformerEncoderDecoder or graphseq.models.PointerNet"
            )
        if mask not in ("none", "visited"):
            raise ValueError(f"mask is {mask!r}; it must be 'none' or 'visited'")
        if beam_size < 1:
            raise ValueError(f"beam_size is {beam_size}; it must be at least 1")
        self.beam_size = beam_size
        self.mask = mask

    @property
    def network(self) -> PointingNetwork:
        """The network without wrappers, such as that of ``torch.compile``."""
        network = unwrapped(self.model)
        assert isinstance(network, PointingNetwork)  # checked in the constructor
        return network

    def checked_outputs(self, y: Tensor, lengths: Tensor) -> None:
        """Check values of the outputs; defined by each subclass that can. It is called on the CPU only.

        Args:
            y: symbols int64 (B, M), -100 after the last of each.
            lengths: number of steps of each input, int64 (B,).
        """

    def checked_logits(self, logits: Tensor, x: Tensor) -> None:
        """Check the number of slots; defined by each subclass that knows it.

        Args:
            logits: logits of all steps (B, M, S + 1).
            x: inputs (B, T, *).
        """

    def max_steps(self, x: Tensor) -> int | None:
        """Return the largest number of symbols of an output, None for that of the network.

        Args:
            x: inputs (B, T, *).
        """
        return None

    def metric_arguments(self, x: Tensor, lengths: Tensor) -> dict[str, Any]:
        """Return what the metrics need beside outputs and targets.

        Args:
            x: inputs (B, T, *).
            lengths: number of steps of each input, int64 (B,).
        """
        return {}

    def step(self, batch: object, stage: Stage = "train") -> Step:
        """Return the cross-entropy of the outputs; in evaluations the prediction is the decoded outputs.

        Args:
            batch: ``SequenceBatch``, or another batch with ``x`` (B, T, *), ``lengths`` and ``y`` int64 (B, m), -100
                after the last symbol of each output.
            stage: stage of the run.
        """
        lengths = checked_lengths(batch)
        x, y = batch_field(batch, "x"), self._targets(batch_field(batch, "y"), lengths)
        logits = self.model(x, lengths, y)  # (B, M, S + 1)
        self.checked_logits(logits, x)
        slots = self.network.slots(y)
        wide = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
        total = functional.cross_entropy(wide.flatten(0, 1), slots.flatten(), ignore_index=IGNORED, reduction="sum")
        size = (slots != IGNORED).sum()
        loss = total / size
        if stage == "train":
            return Step(loss, logits, slots, size)
        arguments = self.metric_arguments(x, lengths)
        return Step(loss, self.decoded(x, lengths), y, size, metric_arguments=arguments)

    def _targets(self, y: object, lengths: Tensor) -> Tensor:
        if not isinstance(y, Tensor) or y.dim() != 2 or y.is_floating_point() or len(y) != len(lengths):
            given = f"{y.dtype} {tuple(y.shape)}" if isinstance(y, Tensor) else "missing"
            raise DataError(f"y is {given}; outputs must be integers ({len(lengths)}, m), -100 after the last position")
        if y.device.type == "cpu":  # on a GPU the check would synchronise
            self.checked_outputs(y, lengths)
        return y.long()

    def decoded(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Return the outputs that the network writes, int64 (B, M), -100 after the last symbol of each.

        Args:
            x: inputs (B, T, *).
            lengths: number of steps of each input, int64 (B,).
        """
        return self.network.decode(x, lengths, self.beam_size, self.mask, self.max_steps(x))[0]

    def predict_step(self, batch: object, batch_idx: int) -> Tensor:
        """Return the outputs that the network writes for a batch."""
        return self.decoded(batch_field(batch, "x"), checked_lengths(batch))

    def prediction_rows(self, batch: object, output: Tensor, split: str, data: object = None) -> PredictionRows:
        """Return one row for each input, with the symbols of its output separated by blanks.

        Args:
            batch: ``SequenceBatch``, or another batch with ``x`` and ``lengths``, with or without ``y``.
            output: decoded outputs.
            split: name of the split.
            data: data module, which is not read.
        """
        target = batch_field(batch, "y")
        known: dict[str, Column] = {"target": _texts(target)} if isinstance(target, Tensor) else {}
        return PredictionRows({**known, "prediction": _texts(output)})


def _texts(sequences: Tensor) -> list[str]:
    return [" ".join(str(symbol) for symbol in row if symbol >= 0) for row in sequences.tolist()]
