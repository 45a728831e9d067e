"""Transformer that predicts the next token of a text."""

from typing import Any

from torch import Tensor, nn

from graphseq.core import Recorded
from graphseq.models.sequence.tokens import checked_tokens
from graphseq.nn.blocks.stack import BlockStack
from graphseq.nn.causal import positive

__all__ = ["TransformerLanguageModel"]


class TransformerLanguageModel(Recorded, nn.Module):
    r"""Transformer decoder: logits of the next token at each step of a text.

    .. math:: h = \operatorname{layers}(\operatorname{dropout}(E_x)), \qquad \operatorname{logits}_t = W h_t

    with the embedding E, and W equal to E with ``tie_weights``. The given blocks decide about attention or another
    causal mixer, the placement of the norms, the feed-forward part and the positions. With ``prefix`` it is a prefix
    decoder: every step attends to the first tokens of a text. ::

        ids ── embedding ── dropout ── [positions] ── block 1 ── … ── block L ── norm ── head ── logits
                                              (hidden_states: before block 1, after each block)

    Text is continued with keys and values of earlier steps (:meth:`forward_with_state`), or with the state of constant
    size that :class:`graphseq.nn.GatedLinearAttention` has.

    Source: arXiv 1706.03762, with the causal form of arXiv 1801.10198. Differs from them: embeddings are drawn from
    N(0, 0.02²).

    Args:
        vocab_size: number of tokens V.
        layers: blocks of the network, a :class:`graphseq.nn.BlockStack`; none may read later steps.
        dropout: probability in [0, 1) of setting a feature of an embedding to zero.
        tie_weights: whether the head shares the weights of the embedding.

    Shape:
        ids int64 (B, T), prefix int64 (B,) -> logits (B, T, vocab_size)

    Raises:
        ValueError: if an argument is outside its range, or a block is bidirectional; in ``forward`` if ``ids`` or
            ``prefix`` does not fit.
        TypeError: if ``layers`` is not a :class:`graphseq.nn.BlockStack`.

    Example:
        >>> import torch
        >>> from graphseq.nn import CausalAttention, FeedForward, SequenceBlock
        >>> layers = BlockStack([SequenceBlock(CausalAttention(32), FeedForward(32))], repeats=2)
        >>> model = TransformerLanguageModel(65, layers)
        >>> ids = torch.randint(65, (2, 10))
        >>> model(ids).shape, len(model.hidden_states(ids))
        (torch.Size([2, 10, 65]), 3)
    """

    def __init__(self, vocab_size: int, layers: nn.Module, dropout: float = 0.0, tie_weights: bool = True) -> None:
        super().__init__()
        positive(vocab_size=vocab_size)
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout is {dropout}; give a probability in [0, 1)")
        self.layers = checked_stack(layers, "layers")
        if self.layers.bidirectional:
            raise ValueError(
                "layers are bidirectional, so that each step would see the token that it predicts; give causal layers"
            )
        self.vocab_size, self.tie_weights = vocab_size, tie_weights
        self.embedding = nn.Embedding(vocab_size, self.layers.input_size)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(self.layers.output_size, vocab_size, bias=False)
        self._start()

    def reset_parameters(self) -> None:
        """Reinitialise all weights as in the constructor."""
        self.layers.reset_parameters()
        self.head.reset_parameters()
        self._start()

    def _start(self) -> None:
        nn.init.normal_(self.embedding.weight, std=0.02)
        if self.tie_weights:
            self.head.weight = self.embedding.weight

    def _embedded(self, ids: Tensor) -> Tensor:
        return self.dropout(self.embedding(checked_tokens(ids, self.vocab_size, "ids is")))  # (B, T, D)

    def forward(self, ids: Tensor, prefix: Tensor | None = None) -> Tensor:
        """Return logits of the next token at each step; those at padding have no meaning.

        Args:
            ids: token numbers (B, T).
            prefix: number of leading tokens that every step attends to, int64 (B,); None for none.
        """
        return self.head(self.layers(self._embedded(ids), None, None, prefix)[0])

    def forward_with_state(
        self, ids: Tensor, state: Any = None, lengths: Tensor | None = None, prefix: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """Return logits of the next token at each step, and the state after the last step.

        Args:
            ids: token numbers (B, T).
            state: state after the preceding tokens, as this method returned it; None at the beginning of a text.
            lengths: number of tokens of each row, int64 (B,); None if all have T.
            prefix: number of leading tokens that every step attends to, int64 (B,), at the beginning of a text; None
                for none.
        """
        y, state = self.layers(self._embedded(ids), state, lengths, prefix)
        return self.head(y), state

    def hidden_states(self, ids: Tensor, prefix: Tensor | None = None) -> list[Tensor]:
        """Return the input of the first block and the output of each block, L + 1 tensors (B, T, D).

        Args:
            ids: token numbers (B, T).
            prefix: number of leading tokens that every step attends to, int64 (B,); None for none.
        """
        return self.layers.hidden_states(self._embedded(ids), None, prefix)


def checked_stack(layers: nn.Module, name: str) -> BlockStack:
    """Return ``layers`` if it is a stack of blocks.

    Args:
        layers: argument of a constructor.
        name: name of the argument, for messages.

    Raises:
        TypeError: if it is another module.

    Example:
        >>> from graphseq.nn import CausalAttention, SequenceBlock
        >>> checked_stack(BlockStack([SequenceBlock(CausalAttention(8))]), "layers").input_size
        8
    """
    if not isinstance(layers, BlockStack):
        raise TypeError(f"{name} is a {type(layers).__name__}; give a graphseq.nn.BlockStack of blocks")
    return layers
