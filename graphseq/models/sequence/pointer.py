"""Pointer network: a decoder whose outputs are positions of the input."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from graphseq.models.sequence.classifier import output_size
from graphseq.models.sequence.decoding import DecoderMemory, DecodingNetwork, all_slots
from graphseq.nn.attention.feedback import PointFeedback
from graphseq.nn.attention.pointer import PointerAttention
from graphseq.nn.recurrent.stack import RecurrentStack

__all__ = ["PointerNet"]

WIDTH = 0.08
"""Weights are drawn uniformly between -0.08 and 0.08, as in the paper."""


class PointerNet(DecodingNetwork):
    r"""LSTM encoder, and LSTM decoder whose outputs are positions of the input, however long it is.

    ::

        x_1 ... x_n -> encoder LSTM -> e_1 ... e_n          e_0, a learned vector, stands for the end
                            | state         |
        s, x_C1 ... -> decoder LSTM -> d_i -> u_ij = v' tanh(W1 e_j + W2 d_i) -> softmax over j = 0 ... n

    The number of parameters does not depend on n, and sets of any size can be given. Under teacher forcing the decoder
    has no feedback, so that it runs over all steps at once. The order of the input matters, since the encoder reads it
    as a sequence.

    Source: arXiv 1506.03134, eq. 1 to 3 and section 4.1. Differs from it: the paper does not say how the end is
    written, nor where the decoder starts; here the end is a learned key at slot 0, and the decoder starts in the last
    state of the encoder.

    Args:
        in_channels: number of features D of an input step, at least 1.
        hidden_channels: size H of encoder, decoder and attention, at least 1.
        num_layers: number of layers of encoder and decoder, at least 1.
        end_token: whether outputs end with an end symbol, slot 0; if not, an output is as long as its input, as a tour
            is.

    Shape:
        x (B, n, D), lengths (B,), y int64 (B, M), -100 after the last -> logits (B, M + 1, n + 1), slot 0 for the end
        and slot j + 1 for position j; (B, M, n + 1) without ``end_token``

    Raises:
        ValueError: if a size is below 1; in ``forward`` if ``x`` does not fit, or ``y`` is missing.

    Example:
        >>> model = PointerNet(2, 16)
        >>> model(torch.rand(3, 5, 2), None, torch.tensor([[0, 2, 1], [4, 3, -100], [1, 2, 0]])).shape
        torch.Size([3, 4, 6])
    """

    def __init__(
        self, in_channels: int = 2, hidden_channels: int = 256, num_layers: int = 1, end_token: bool = True
    ) -> None:
        super().__init__(end_token)
        if in_channels < 1 or hidden_channels < 1:
            raise ValueError(
                f"in_channels is {in_channels} and hidden_channels {hidden_channels}; both must be at least 1"
            )
        self.encoder = RecurrentStack(in_channels, hidden_channels, num_layers)
        self.feedback = PointFeedback(in_channels)
        self.decoder = RecurrentStack(in_channels, hidden_channels, num_layers)
        self.attention = PointerAttention(output_size(self.decoder), hidden_channels, hidden_channels)
        self.end = nn.Parameter(torch.empty(hidden_channels))  # e_0; unused without end_token
        self.end.requires_grad_(end_token)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights uniformly between -0.08 and 0.08."""
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -WIDTH, WIDTH)

    def encode(self, x: Tensor, lengths: Tensor | None = None) -> DecoderMemory:
        """Return the projected keys, with that of the end before them, and the last state of the encoder.

        Args:
            x: inputs (B, n, D).
            lengths: number of steps of each input, int64 (B,); None if all have n.
        """
        e, state, known = encoded(self.encoder, x, lengths)  # (B, n, H)
        keys = torch.cat([self.end.expand(len(x), 1, -1), e], 1)  # (B, n + 1, H)
        return DecoderMemory(x, self.attention.project(keys), all_slots(known, x.shape[1]), known, state)

    def _scores(self, d: Tensor, memory: DecoderMemory) -> Tensor:
        mask = memory.allowed
        if not self.end_token:
            mask = torch.cat([torch.zeros_like(mask[:, :1]), mask[:, 1:]], 1)
        return self.attention.scores(d, memory.keys, mask)  # (B, M, n + 1)

    def decode_step(self, previous: Tensor, memory: DecoderMemory) -> tuple[Tensor, DecoderMemory]:
        """Return the scores of all slots at one step, (B, n + 1), and the memory with the state after it.

        Args:
            previous: position of the previous step, int64 (B,); -1 at the first step.
            memory: encoded inputs, with the state before the step.
        """
        d, state = self.decoder(self.feedback(memory.x, previous[:, None]), memory.state)
        return self._scores(d, memory)[:, 0], replace(memory, state=state)

    def forward(self, x: Tensor, lengths: Tensor | None = None, y: Tensor | None = None) -> Tensor:
        """Return logits of each step of the outputs ``y``, each from the true positions before it.

        Args:
            x: inputs (B, n, D).
            lengths: number of steps of each input, int64 (B,); None if all have n.
            y: positions of the outputs, int64 (B, M), -100 after the last of each.
        """
        memory = self.encode(x, lengths)
        d, _ = self.decoder(self.feedback(x, self.shifted(checked_symbols(y, x))), memory.state)  # (B, M + 1, H)
        return self._scores(d, memory)


def encoded(encoder: nn.Module, x: Tensor, lengths: Tensor | None) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
    """Return the outputs of an LSTM encoder, its last state and the lengths of the inputs.

    Args:
        encoder: sequence layer ``(x, state, lengths) -> (y, (h, c))``.
        x: inputs (B, T, D).
        lengths: number of steps of each input, int64 (B,); None if all have T.

    Example:
        >>> e, (h, c), lengths = encoded(RecurrentStack(2, 4), torch.rand(3, 5, 2), None)
        >>> e.shape, h.shape, lengths.tolist()
        (torch.Size([3, 5, 4]), torch.Size([1, 3, 4]), [5, 5, 5])
    """
    known = torch.full((len(x),), x.shape[1], device=x.device) if lengths is None else lengths
    # packing costs time; on a CPU the lengths can be looked at
    full = lengths is None or (lengths.device.type == "cpu" and bool((lengths == x.shape[1]).all()))
    e, state = encoder(x, None, None if full else lengths)
    return e, tuple(state), known


def checked_symbols(y: Tensor | None, x: Tensor) -> Tensor:
    """Return the outputs under teacher forcing, after a check of their shape.

    Args:
        y: symbols int64 (B, M).
        x: inputs (B, T, *).

    Raises:
        ValueError: if there are none, or they are not integers (B, M).

    Example:
        >>> checked_symbols(torch.tensor([[1]]), torch.zeros(1, 2, 2)).tolist()
        [[1]]
    """
    if y is None or y.dim() != 2 or len(y) != len(x) or y.is_floating_point():
        given = "missing" if y is None else f"{y.dtype} {tuple(y.shape)}"
        raise ValueError(
            f"y is {given}; outputs must be integers ({len(x)}, M). Without outputs call decode(x, lengths)"
        )
    return y
