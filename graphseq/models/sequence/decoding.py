"""Networks that read a sequence and write another one symbol by symbol, and their decoding by beam search."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from graphseq.core import Recorded
from graphseq.core.batches import IGNORED, step_mask

__all__ = ["DecoderMemory", "DecodingNetwork"]

END = 0
"""Slot of the end of an output; symbol k has slot k + 1, so that neither moves with padding."""

Constraint = Callable[[Tensor], Tensor]
"""Function from the symbols written so far, int64 (R, i), to the symbols that may follow, bool (R, S)."""

CHECK_EVERY = 8
"""Steps of decoding between two questions whether all outputs have ended; each waits for the device."""


@dataclass
class DecoderMemory:
    """Result of an encoder, as the decoder reads it.

    Args:
        x: input sequences, (B, T, *).
        keys: outputs of the encoder, as the decoder attends to them or points at them, (B, *, H).
        allowed: slots that can be written: the end, and each symbol, bool (B, S + 1).
        lengths: number of steps of each input, int64 (B,).
        state: state of the decoder before its first step, tensors with the batch on axis 1.

    Example:
        >>> memory = DecoderMemory(*torch.zeros(2, 2, 3, 2), torch.ones(2, 4).bool(), torch.tensor([3, 3]), ())
        >>> memory.repeated(2).x.shape
        torch.Size([4, 3, 2])
    """

    x: Tensor
    keys: Tensor
    allowed: Tensor
    lengths: Tensor
    state: tuple[Tensor, ...]

    def repeated(self, times: int) -> "DecoderMemory":
        """Return the memory with each row repeated, for beams.

        Args:
            times: number of copies of each row, at least 1.
        """
        if times == 1:
            return self
        return replace(
            self,
            x=self.x.repeat_interleave(times, 0),
            keys=self.keys.repeat_interleave(times, 0),
            allowed=self.allowed.repeat_interleave(times, 0),
            lengths=self.lengths.repeat_interleave(times, 0),
            state=tuple(part.repeat_interleave(times, 1) for part in self.state),
        )


class DecodingNetwork(Recorded, nn.Module):
    """Base class of networks with an encoder and a decoder whose outputs are symbols, or positions of the input.

    A subclass defines :meth:`encode`, :meth:`decode_step` and :meth:`forward`. Logits have one slot for each symbol
    and slot 0 for the end of the output.

    Args:
        end_token: whether outputs end with an end symbol, slot 0; if not, an output is as long as its input.

    Example:
        >>> from graphseq.models import PointerNet
        >>> issubclass(PointerNet, DecodingNetwork)
        True
    """

    def __init__(self, end_token: bool = True) -> None:
        super().__init__()
        self.end_token = end_token

    def encode(self, x: Tensor, lengths: Tensor | None = None) -> DecoderMemory:
        """Return what the decoder reads of the inputs; defined by each subclass.

        Args:
            x: inputs (B, T, *).
            lengths: number of steps of each input, int64 (B,); None if all have T.
        """
        raise NotImplementedError(f"{type(self).__name__} must define encode")

    def decode_step(self, previous: Tensor, memory: DecoderMemory) -> tuple[Tensor, DecoderMemory]:
        """Return the scores of all slots at one step, (B, S + 1), and the memory with the state after it.

        Args:
            previous: symbol of the previous step, int64 (B,); -1 at the first step.
            memory: encoded inputs, with the state before the step.
        """
        raise NotImplementedError(f"{type(self).__name__} must define decode_step")

    def forward(self, x: Tensor, lengths: Tensor | None = None, y: Tensor | None = None) -> Tensor:
        """Return logits of each step of the outputs ``y``, each from the true symbols before it.

        Args:
            x: inputs (B, T, *).
            lengths: number of steps of each input, int64 (B,); None if all have T.
            y: symbols of the outputs, int64 (B, M), -100 after the last of each.

        Returns:
            logits (B, M + 1, S + 1), the last step for the end; (B, M, S + 1) without ``end_token``.
        """
        raise NotImplementedError(f"{type(self).__name__} must define forward")

    def shifted(self, y: Tensor) -> Tensor:
        """Return the symbol that the decoder reads at each step under teacher forcing, -1 at the first.

        Args:
            y: symbols of the outputs, int64 (B, M), -100 after the last of each.

        Returns:
            int64 (B, M + 1), or (B, M) without ``end_token``; symbols after the last have no meaning.
        """
        # also where all outputs are empty, the end is a step
        start = y.new_full((len(y), 1), -1) if self.end_token else torch.full_like(y[:, :1], -1)
        return torch.cat([start, y if self.end_token else y[:, :-1]], 1).clamp(min=-1)

    def slots(self, y: Tensor) -> Tensor:
        """Return the slot that each step has to write, int64, shaped as the steps of :meth:`forward`; -100 for none.

        Args:
            y: symbols of the outputs, int64 (B, M), -100 after the last of each.
        """
        slots = torch.where(y == IGNORED, IGNORED, y + 1)
        if not self.end_token:
            return slots
        slots = torch.cat([slots, y.new_full((len(y), 1), IGNORED)], 1)
        ends = (y != IGNORED).sum(1, keepdim=True)
        return slots.scatter(1, ends, END)

    @torch.no_grad()
    def decode(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        beam_size: int = 1,
        mask: Literal["none", "visited"] | Constraint = "none",
        max_steps: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        r"""Return the output that beam search finds for each input, and its log-probability.

        At each step each of the K partial outputs is extended by every slot, and the K likeliest remain; those that
        have ended remain with their probability. A beam of 1 writes the likeliest slot at each step. Log-probabilities
        are sums, without a correction for length. Scores of forbidden slots are -inf before the softmax.

        Args:
            x: inputs (B, T, *).
            lengths: number of steps of each input, int64 (B,); None if all have T.
            beam_size: number K of partial outputs, at least 1.
            mask: ``none`` for no constraint, ``visited`` to forbid symbols that are written already, or a function
                from the symbols so far, int64 (R, i), to those that may follow, bool (R, S). Without ``end_token`` at
                least one has to follow.
            max_steps: largest number of symbols before the end, which is then written; None for twice the number of
                steps of the longest input. Without ``end_token`` an output is as long as its input.

        Returns:
            symbols int64 (B, M), -100 after the last of each, and log-probabilities (B,).

        Raises:
            ValueError: if ``beam_size`` or ``max_steps`` is below 1, or ``mask`` is unknown.

        Example:
            >>> from graphseq.models import PointerNet
            >>> symbols, log_prob = PointerNet(2, 8, end_token=False).decode(torch.rand(3, 5, 2), mask="visited")
            >>> symbols.sort(1).values[0].tolist(), log_prob.shape
            ([0, 1, 2, 3, 4], torch.Size([3]))
        """
        for name, value in (("beam_size", beam_size), ("max_steps", max_steps)):
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        if not callable(mask) and mask not in ("none", "visited"):
            raise ValueError(f"mask is {mask!r}; it must be 'none', 'visited' or a function")
        count, beams = len(x), beam_size
        memory = self.encode(x, lengths).repeated(beams)  # (B K, ...)
        longest = x.shape[1] if not self.end_token else 2 * x.shape[1] if max_steps is None else max_steps
        width = memory.allowed.shape[1]
        written = memory.lengths.new_empty(count * beams, 0)
        visited = torch.zeros_like(memory.allowed)
        ended = torch.zeros_like(memory.lengths, dtype=torch.bool)
        is_end = torch.arange(width, device=x.device) == END
        kind = torch.promote_types(next(self.parameters()).dtype, torch.float32)
        # the beams are equal at first, so that only one of them counts
        total = torch.full((count, beams), -torch.inf, dtype=kind, device=x.device)
        total[:, 0] = 0
        previous = torch.full_like(memory.lengths, -1)
        first = torch.arange(count, device=x.device)[:, None] * beams
        for step in range(longest + int(self.end_token)):
            if not self.end_token:
                ended = memory.lengths <= step
            if step and step % CHECK_EVERY == 0 and bool(ended.all()):
                break
            scores, memory = self.decode_step(previous, memory)
            open_slots = self._open(memory, written, visited, mask) | (ended[:, None] & is_end)
            gains = scores.to(kind).masked_fill(~open_slots, -torch.inf).log_softmax(1)  # (B K, S + 1)
            gains = torch.where(ended[:, None], torch.where(is_end, 0.0, -torch.inf), gains)
            # of partial outputs that no slot allows, which a function may see, none may follow
            gains = torch.where(total.view(-1, 1) == -torch.inf, -torch.inf, gains)
            if step == longest:
                gains = gains.masked_fill(~is_end, -torch.inf)
            total, place = (total[..., None] + gains.view(count, beams, width)).flatten(1).topk(beams, 1)  # (B, K)
            rows = (first + place // width).flatten()  # beam that each new one extends
            slot = (place % width).flatten()
            memory = replace(memory, state=tuple(part.index_select(1, rows) for part in memory.state))
            symbol = torch.where(slot == END, IGNORED, slot - 1)
            written = torch.cat([written[rows], symbol[:, None]], 1)
            visited = visited[rows].scatter(1, slot[:, None], True)
            ended = ended[rows] | (slot == END)
            previous = symbol.clamp(min=0)
        best = written.view(count, beams, -1)[:, 0]
        used = max(1, int((best != IGNORED).sum(1).max()))
        return best[:, :used], total[:, 0]

    def _open(
        self, memory: DecoderMemory, written: Tensor, visited: Tensor, mask: Literal["none", "visited"] | Constraint
    ) -> Tensor:
        """Return the slots that each beam may write if it has not ended, bool (R, S + 1)."""
        slots = memory.allowed
        if callable(mask):
            slots = torch.cat([slots[:, :1], slots[:, 1:] & mask(written)], 1)
        elif mask == "visited":
            slots = slots & ~visited
        end = torch.full_like(slots[:, :1], self.end_token)
        return torch.cat([end, slots[:, 1:]], 1)


def all_slots(lengths: Tensor, steps: int) -> Tensor:
    """Return the end and the positions within each input as slots, bool (B, T + 1).

    Args:
        lengths: number of steps of each input, int64 (B,).
        steps: padded number of steps T.

    Example:
        >>> all_slots(torch.tensor([1]), 2).tolist()
        [[True, True, False]]
    """
    return torch.cat([torch.ones_like(lengths, dtype=torch.bool)[:, None], step_mask(lengths, steps)], 1)
