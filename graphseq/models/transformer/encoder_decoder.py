"""Transformer that reads a sequence and writes another one."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from graphseq.core.batches import step_mask
from graphseq.models.sequence.decoding import DecoderMemory, DecodingNetwork
from graphseq.models.sequence.pointer import checked_symbols
from graphseq.models.transformer.classifier import embedded, input_layer
from graphseq.models.transformer.language import checked_stack
from graphseq.nn.attention.feedback import SymbolFeedback
from graphseq.nn.blocks.stack import CrossBlock
from graphseq.nn.causal import positive

__all__ = ["TransformerEncoderDecoder"]


@dataclass
class _Memory(DecoderMemory):
    """Memory of a transformer: the tensors of its state, and the nested lists that they come from."""

    form: Any = None


class TransformerEncoderDecoder(DecodingNetwork):
    r"""Encoder that reads a sequence, and decoder that writes symbols of a fixed set and attends to the encoder.

    .. math:: M = \operatorname{encoder}(E_x), \qquad d = \operatorname{decoder}(z, M), \qquad
        \operatorname{logits}_i = W d_i + b

    where :math:`z_i` embeds the previous symbol. All steps of an output are trained at once. Decoding stores the keys
    and values of the encoder outputs and of earlier steps, so that a new symbol does not run the earlier steps again.

    Source: arXiv 1706.03762, section 3. Differs from it: layers and norms are arguments; the head does not share
    weights with the embedding.

    Args:
        num_symbols: number S of output symbols, at least 1.
        encoder: blocks that read the input, such as those with :class:`graphseq.nn.SelfAttention`.
        decoder: stack of :class:`graphseq.nn.CrossBlock` with causal mixers; their memory has the width of the encoder.
        in_channels: number of features of each input step; give either this or ``vocab_size``.
        vocab_size: number of input tokens; give either this or ``in_channels``.
        end_token: whether outputs end with an end symbol, slot 0; if not, an output is as long as its input.

    Shape:
        x (B, T, D) real or (B, T) int64, lengths (B,), y int64 (B, M), -100 after the last -> logits
        (B, M + 1, S + 1), slot 0 for the end and slot k + 1 for symbol k; (B, M, S + 1) without ``end_token``

    Raises:
        ValueError: if not exactly one of ``in_channels`` and ``vocab_size`` is given, a size does not fit, or the
            decoder is bidirectional; in ``forward`` if ``x`` does not fit, or ``y`` is missing or holds other symbols.
        TypeError: if ``encoder`` or ``decoder`` is not a :class:`graphseq.nn.BlockStack`, or a block of the decoder
            does not attend to a memory.

    Example:
        >>> from graphseq.nn import BlockStack, CausalAttention, CrossAttention, SelfAttention, SequenceBlock
        >>> encoder = BlockStack([SequenceBlock(SelfAttention(16))])
        >>> decoder = BlockStack([CrossBlock(CausalAttention(16), CrossAttention(16))])
        >>> model = TransformerEncoderDecoder(6, encoder, decoder, vocab_size=9)
        >>> model(torch.randint(9, (2, 7)), None, torch.tensor([[5, 0], [3, -100]])).shape
        torch.Size([2, 3, 7])
    """

    def __init__(
        self,
        num_symbols: int,
        encoder: nn.Module,
        decoder: nn.Module,
        in_channels: int | None = None,
        vocab_size: int | None = None,
        end_token: bool = True,
    ) -> None:
        super().__init__(end_token)
        positive(num_symbols=num_symbols)
        self.num_symbols = num_symbols
        self.encoder, self.decoder = checked_stack(encoder, "encoder"), checked_stack(decoder, "decoder")
        for place, block in enumerate(self.decoder.blocks):
            if not isinstance(block, CrossBlock):
                raise TypeError(
                    f"block {place} of decoder is a {type(block).__name__}; give a graphseq.nn.CrossBlock, which "
                    "attends to the encoder"
                )
            if block.cross.memory_dim != self.encoder.output_size:
                raise ValueError(
                    f"block {place} of decoder attends to {block.cross.memory_dim} features; the encoder has "
                    f"{self.encoder.output_size}"
                )
        if self.decoder.bidirectional:
            raise ValueError(
                "decoder is bidirectional, so that each step would see the symbol that it predicts; give causal mixers"
            )
        self.input = input_layer(in_channels, vocab_size, self.encoder.input_size)
        self.feedback = SymbolFeedback(num_symbols, self.decoder.input_size)
        self.head = nn.Linear(self.decoder.output_size, num_symbols + 1)

    def reset_parameters(self) -> None:
        """Reinitialise all weights as in the constructor."""
        for module in (self.input, self.encoder, self.decoder, self.feedback, self.head):
            module.reset_parameters()

    def encode(self, x: Tensor, lengths: Tensor | None = None) -> DecoderMemory:
        """Return the outputs of the encoder, and their keys and values in each block of the decoder.

        Args:
            x: features (B, T, D), or token numbers (B, T).
            lengths: number of steps of each input, int64 (B,); None if all have T.
        """
        keys, _ = self.encoder(embedded(self.input, x), None, lengths)
        allowed = torch.ones(len(x), self.num_symbols + 1, dtype=torch.bool, device=x.device)
        allowed[:, 0] = self.end_token
        known = torch.full_like(allowed[:, 0], x.shape[1], dtype=torch.int64)
        read = [block.cross.project(keys) for block in self.decoder.blocks]  # type: ignore[operator, union-attr]
        form = (read, None)
        known = known if lengths is None else lengths.to(x.device)
        return _Memory(x, keys, allowed, known, _leaves(form), form)

    def decode_step(self, previous: Tensor, memory: DecoderMemory) -> tuple[Tensor, DecoderMemory]:
        """Return the scores of all slots at one step, (B, S + 1), and the memory with the state after it.

        Args:
            previous: symbol of the previous step, int64 (B,); -1 at the first step.
            memory: encoded inputs, with the state before the step.
        """
        logits, memory = self._run(previous[:, None], memory)
        return logits[:, 0], memory

    def forward(self, x: Tensor, lengths: Tensor | None = None, y: Tensor | None = None) -> Tensor:
        """Return logits of each step of the outputs ``y``, each from the true symbols before it.

        Args:
            x: features (B, T, D), or token numbers (B, T).
            lengths: number of steps of each input, int64 (B,); None if all have T.
            y: symbols of the outputs, int64 (B, M), -100 after the last of each.
        """
        previous = self._previous(x, y)
        return self._run(previous, self.encode(x, lengths))[0]

    def hidden_states(self, x: Tensor, lengths: Tensor | None = None) -> list[Tensor]:
        """Return the input of the first block of the encoder and the output of each block, L + 1 tensors (B, T, D).

        Args:
            x: features (B, T, D), or token numbers (B, T).
            lengths: number of steps of each input, int64 (B,); None if all have T.
        """
        return self.encoder.hidden_states(embedded(self.input, x), lengths)

    def decoder_states(self, x: Tensor, lengths: Tensor | None = None, y: Tensor | None = None) -> list[Tensor]:
        """Return the input of the first block of the decoder and the output of each block, each (B, M + 1, D).

        Args:
            x: features (B, T, D), or token numbers (B, T).
            lengths: number of steps of each input, int64 (B,); None if all have T.
            y: symbols of the outputs, int64 (B, M), -100 after the last of each; without ``end_token`` there are M
                steps.
        """
        previous = self._previous(x, y)
        memory = self.encode(x, lengths)
        assert isinstance(memory, _Memory)
        z, context, _ = self._inputs(previous, memory)
        return self.decoder.hidden_states(z, **context)

    def _previous(self, x: Tensor, y: Tensor | None) -> Tensor:
        """Return the symbol before each step of the outputs ``y``, -1 before the first."""
        symbols = checked_symbols(y, x)
        # on a GPU the check would synchronise
        if symbols.device.type == "cpu" and symbols.numel() and int(symbols.max()) >= self.num_symbols:
            raise ValueError(
                f"y reaches {int(symbols.max())}; with num_symbols={self.num_symbols} symbols are in "
                f"0..{self.num_symbols - 1}, and -100 stands after the last one"
            )
        return self.shifted(symbols)

    def _inputs(self, previous: Tensor, memory: _Memory) -> tuple[Tensor, dict[str, Any], Any]:
        """Return the inputs of the decoder, what its blocks read of the encoder, and the state."""
        read, state = _rebuilt(memory.form, iter(memory.state))
        inside = step_mask(memory.lengths, memory.keys.shape[1])
        context = {"memory": read, "inside": [inside] * len(self.decoder.blocks)}
        return self.feedback(memory.x, previous), context, state

    def _run(self, previous: Tensor, memory: DecoderMemory) -> tuple[Tensor, DecoderMemory]:
        """Return the logits (B, M, S + 1) after the symbols before, (B, M), and the memory after them."""
        assert isinstance(memory, _Memory)  # of encode
        z, context, state = self._inputs(previous, memory)
        d, state = self.decoder(z, state, **context)
        logits = self.head(d).masked_fill(~memory.allowed[:, None], -torch.inf)  # (B, M, S + 1)
        form = (context["memory"], state)
        return logits, replace(memory, state=_leaves(form), form=form)


def _leaves(form: Any) -> tuple[Tensor, ...]:
    """Return the tensors of nested lists and tuples, with the batch on axis 1 as decoding wants it."""
    if isinstance(form, Tensor):
        return (form[None],)
    return () if form is None else tuple(leaf for part in form for leaf in _leaves(part))


def _rebuilt(form: Any, leaves: Iterator[Tensor]) -> Any:
    """Return nested lists and tuples of the given form with other tensors."""
    if isinstance(form, Tensor):
        return next(leaves)[0]
    return None if form is None else type(form)(_rebuilt(part, leaves) for part in form)
