"""Encoder and decoder with a fixed set of output symbols, with and without attention."""

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphseq.models.sequence.classifier import output_size
from graphseq.models.sequence.decoding import DecoderMemory, DecodingNetwork
from graphseq.models.sequence.pointer import checked_symbols, encoded
from graphseq.models.sequence.tokens import checked_tokens
from graphseq.nn.attention.feedback import SymbolFeedback
from graphseq.nn.attention.pointer import PointerAttention
from graphseq.nn.recurrent.stack import RecurrentStack

__all__ = ["AttentionEncoderDecoder", "EncoderDecoder"]


class EncoderDecoder(DecodingNetwork):
    r"""LSTM encoder and LSTM decoder that writes symbols of a fixed set.

    .. math:: d_i = \mathrm{LSTM}(z_i, d_{i-1}), \quad d_0 = e_T, \qquad \operatorname{logits}_i = W d_i + b

    where :math:`z_i` is the output of :attr:`feedback` for the previous symbol. The decoder sees only the last state of
    the encoder. As a baseline of pointer networks the symbols are the positions of the input, and one network is needed
    for each number of positions.

    Source: arXiv 1506.03134, section 2.1, after arXiv 1409.3215. Differs from it: the input is not reversed.

    Args:
        num_symbols: number S of output symbols, at least 1.
        in_channels: number of features D of each input step; give either this or ``vocab_size``.
        vocab_size: number of input tokens; give either this or ``in_channels``.
        hidden_channels: size H of encoder and decoder, at least 1.
        num_layers: number of layers of encoder and decoder, at least 1.
        end_token: whether outputs end with an end symbol, slot 0; if not, an output is as long as its input.
        feedback: module ``(x, previous) -> (B, M, output_size)`` whose output for the previous symbol is the input of
            the decoder, such as :class:`graphseq.nn.PointFeedback`; None for an embedding of the symbol, of size H.

    Shape:
        x (B, T, D) real or (B, T) int64, lengths (B,), y int64 (B, M), -100 after the last -> logits
        (B, M + 1, S + 1), slot 0 for the end and slot k + 1 for symbol k; (B, M, S + 1) without ``end_token``

    Raises:
        ValueError: if not exactly one of ``in_channels`` and ``vocab_size`` is given, or a size is below 1; in
            ``forward`` if ``x`` does not fit, or ``y`` is missing.

    Example:
        >>> model = EncoderDecoder(6, vocab_size=9, hidden_channels=16)
        >>> model(torch.randint(9, (2, 7)), None, torch.tensor([[5, 0], [3, -100]])).shape
        torch.Size([2, 3, 7])
    """

    def __init__(
        self,
        num_symbols: int,
        in_channels: int | None = None,
        vocab_size: int | None = None,
        hidden_channels: int = 256,
        num_layers: int = 1,
        end_token: bool = True,
        feedback: nn.Module | None = None,
    ) -> None:
        super().__init__(end_token)
        if (in_channels is None) == (vocab_size is None):
            raise ValueError(
                f"in_channels is {in_channels} and vocab_size {vocab_size}; give one of them: in_channels for "
                "sequences of features, vocab_size for token numbers"
            )
        sizes = {"num_symbols": num_symbols, "hidden_channels": hidden_channels}
        sizes["in_channels" if vocab_size is None else "vocab_size"] = in_channels or vocab_size or 0
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name} is {size}; give a whole number of at least 1")
        self.num_symbols, self.hidden_channels = num_symbols, hidden_channels
        self.embedding = None if vocab_size is None else nn.Embedding(vocab_size, hidden_channels)
        self.encoder = RecurrentStack(in_channels or hidden_channels, hidden_channels, num_layers)
        self.feedback = SymbolFeedback(num_symbols, hidden_channels) if feedback is None else feedback
        self._build_decoder(output_size(self.feedback), num_layers)

    def _build_decoder(self, width: int, num_layers: int) -> None:
        self.decoder = RecurrentStack(width, self.hidden_channels, num_layers)
        self.head = nn.Linear(self.hidden_channels, self.num_symbols + 1)

    def reset_parameters(self) -> None:
        """Reinitialise all weights as in the constructor."""
        for module in self.children():
            if callable(reset := getattr(module, "reset_parameters", None)):  # a feedback of a user's own may have none
                reset()

    def encode(self, x: Tensor, lengths: Tensor | None = None) -> DecoderMemory:
        """Return the outputs of the encoder and its last state.

        Args:
            x: features (B, T, D), or token numbers (B, T).
            lengths: number of steps of each input, int64 (B,); None if all have T.
        """
        steps = x
        if self.embedding is not None:
            steps = self.embedding(checked_tokens(x, self.embedding.num_embeddings, "inputs are"))
        e, state, known = encoded(self.encoder, steps, lengths)
        allowed = torch.ones(len(x), self.num_symbols + 1, dtype=torch.bool, device=x.device)
        allowed[:, 0] = self.end_token
        return DecoderMemory(x, e, allowed, known, state)

    def _logits(self, hidden: Tensor, memory: DecoderMemory) -> Tensor:
        return self.head(hidden).masked_fill(~memory.allowed[:, None], -torch.inf)  # (B, M, S + 1)

    def decode_step(self, previous: Tensor, memory: DecoderMemory) -> tuple[Tensor, DecoderMemory]:
        """Return the scores of all slots at one step, (B, S + 1), and the memory with the state after it.

        Args:
            previous: symbol of the previous step, int64 (B,); -1 at the first step.
            memory: encoded inputs, with the state before the step.
        """
        hidden, memory = self._run(self.feedback(memory.x, previous[:, None]), memory)
        return self._logits(hidden, memory)[:, 0], memory

    def forward(self, x: Tensor, lengths: Tensor | None = None, y: Tensor | None = None) -> Tensor:
        """Return logits of each step of the outputs ``y``, each from the true symbols before it.

        Args:
            x: features (B, T, D), or token numbers (B, T).
            lengths: number of steps of each input, int64 (B,); None if all have T.
            y: symbols of the outputs, int64 (B, M), -100 after the last of each.
        """
        memory = self.encode(x, lengths)
        hidden, memory = self._run(self.feedback(x, self.shifted(checked_symbols(y, x))), memory)
        return self._logits(hidden, memory)

    def _run(self, z: Tensor, memory: DecoderMemory) -> tuple[Tensor, DecoderMemory]:
        """Return what the logits are computed from at each step (B, M, *), and the memory after the last one."""
        hidden, state = self.decoder(z, memory.state)
        return hidden, replace(memory, state=state)


class AttentionEncoderDecoder(EncoderDecoder):
    r"""Encoder and decoder with attention: at each step the decoder reads a weighted mean of the encoder's outputs.

    .. math::
        d_i = \mathrm{LSTM}([z_i, d'_{i-1}], d_{i-1}), \qquad
        a_{ij} = \operatorname{softmax}_j\bigl(v^\top \tanh(W_1 e_j + W_2 d_i)\bigr), \qquad
        d'_i = \sum_j a_{ij} e_j, \qquad \operatorname{logits}_i = W [d_i, d'_i] + b

    The mean is fed to the next step, so that training runs step by step, unlike that of :class:`EncoderDecoder` and of
    :class:`PointerNet`.

    Source: arXiv 1506.03134, section 2.2, after arXiv 1409.0473. Differs from it: none.

    Args:
        num_symbols: number S of output symbols, at least 1.
        in_channels: number of features D of each input step; give either this or ``vocab_size``.
        vocab_size: number of input tokens; give either this or ``in_channels``.
        hidden_channels: size H of encoder, decoder and attention, at least 1.
        num_layers: number of layers of encoder and decoder, at least 1.
        end_token: whether outputs end with an end symbol, slot 0; if not, an output is as long as its input.
        feedback: module ``(x, previous) -> (B, M, output_size)``, see :class:`EncoderDecoder`.

    Shape:
        as :class:`EncoderDecoder`

    Raises:
        ValueError: as :class:`EncoderDecoder`.

    Example:
        >>> model = AttentionEncoderDecoder(6, in_channels=2, hidden_channels=16)
        >>> model(torch.rand(2, 6, 2), None, torch.tensor([[5, 0], [3, -100]])).shape
        torch.Size([2, 3, 7])
    """

    def _build_decoder(self, width: int, num_layers: int) -> None:
        size = self.hidden_channels
        self.decoder = RecurrentStack(width + size, size, num_layers)
        self.attention = PointerAttention(size, size, size)
        self.head = nn.Linear(2 * size, self.num_symbols + 1)

    def encode(self, x: Tensor, lengths: Tensor | None = None) -> DecoderMemory:
        """Return the outputs of the encoder beside their projections, its last state, and a context of zeros.

        Args:
            x: features (B, T, D), or token numbers (B, T).
            lengths: number of steps of each input, int64 (B,); None if all have T.
        """
        memory = super().encode(x, lengths)
        e = memory.keys
        zeros = e.new_zeros(1, len(x), self.hidden_channels)
        return replace(memory, keys=torch.cat([e, self.attention.project(e)], 2), state=(*memory.state, zeros))

    def _run(self, z: Tensor, memory: DecoderMemory) -> tuple[Tensor, DecoderMemory]:
        """Return [d, d'] at each step (B, M, 2 H), and the memory after the last one."""
        e, projected = memory.keys.chunk(2, 2)  # (B, T, H)
        *state, context = memory.state
        inside = torch.arange(e.shape[1], device=e.device) < memory.lengths[:, None]  # (B, T)
        context, hidden = context[0], []
        for step in z.unbind(1):
            d, state = self.decoder(torch.cat([step, context], 1)[:, None], tuple(state))  # (B, 1, H)
            weights = functional.softmax(self.attention.scores(d, projected, inside), 2)  # (B, 1, T)
            context = (weights @ e)[:, 0]  # (B, H)
            hidden.append(torch.cat([d[:, 0], context], 1))
        return torch.stack(hidden, 1), replace(memory, state=(*state, context[None]))
