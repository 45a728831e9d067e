"""Transformer for the classification of sequences."""

from typing import Literal

from torch import Tensor, nn

from graphseq.core import Recorded
from graphseq.core.batches import step_mask
from graphseq.models.sequence.tokens import checked_tokens
from graphseq.models.transformer.language import checked_stack
from graphseq.nn.causal import positive

__all__ = ["TransformerClassifier"]


class TransformerClassifier(Recorded, nn.Module):
    r"""Transformer encoder with one output vector for each sequence.

    .. math:: h = \operatorname{layers}(\operatorname{dropout}(E_x)), \qquad
        y = W\, \operatorname{pool}_t(h_t) + b

    with the embedding E of tokens, or a linear layer for features. The pooled step is the mean over the sequence, its
    first or its last step.

    Source: arXiv 1706.03762, section 3. Differs from it: one output for each sequence.

    Args:
        out_channels: number of outputs.
        layers: blocks of the network, a :class:`graphseq.nn.BlockStack`.
        in_channels: number of features of each step; give either this or ``vocab_size``.
        vocab_size: number of tokens; give either this or ``in_channels``.
        pool: summary of a sequence: the ``mean`` of its steps, the ``first`` or the ``last`` one.
        dropout: probability in [0, 1) of setting a feature of an embedded step to zero.

    Shape:
        x (B, T, in_channels) real or (B, T) int64, lengths (B,) -> (B, out_channels)

    Raises:
        ValueError: if not exactly one of ``in_channels`` and ``vocab_size`` is given, or an argument is outside its
            range; in ``forward`` if ``x`` or ``lengths`` does not fit.
        TypeError: if ``layers`` is not a :class:`graphseq.nn.BlockStack`.

    Example:
        >>> import torch
        >>> from graphseq.nn import BlockStack, SelfAttention, SequenceBlock
        >>> model = TransformerClassifier(3, BlockStack([SequenceBlock(SelfAttention(16))]), vocab_size=9)
        >>> model(torch.randint(9, (2, 5)), torch.tensor([5, 2])).shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        out_channels: int,
        layers: nn.Module,
        in_channels: int | None = None,
        vocab_size: int | None = None,
        pool: Literal["mean", "first", "last"] = "mean",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.layers = checked_stack(layers, "layers")
        positive(out_channels=out_channels)
        if pool not in ("mean", "first", "last"):
            raise ValueError(f"pool is {pool!r}; it must be 'mean', 'first' or 'last'")
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout is {dropout}; give a probability in [0, 1)")
        self.pool = pool
        self.input = input_layer(in_channels, vocab_size, self.layers.input_size)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(self.layers.output_size, out_channels)

    def reset_parameters(self) -> None:
        """Reinitialise all weights as in the constructor."""
        for module in (self.input, self.layers, self.head):
            module.reset_parameters()

    def _embedded(self, x: Tensor) -> Tensor:
        return self.dropout(embedded(self.input, x))  # (B, T, D)

    def hidden_states(self, x: Tensor, lengths: Tensor | None = None) -> list[Tensor]:
        """Return the input of the first block and the output of each block, L + 1 tensors (B, T, D).

        Args:
            x: features (B, T, in_channels), or token numbers (B, T).
            lengths: number of steps of each sequence, int64 (B,); None if all have T.
        """
        return self.layers.hidden_states(self._embedded(x), lengths)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the outputs of all sequences.

        Args:
            x: features (B, T, in_channels), or token numbers (B, T).
            lengths: number of steps of each sequence, int64 (B,); None if all have T.
        """
        h, _ = self.layers(self._embedded(x), None, lengths)
        return self.head(pooled(h, lengths, self.pool))


def input_layer(in_channels: int | None, vocab_size: int | None, width: int) -> nn.Linear | nn.Embedding:
    """Return the layer that gives each step the width of the blocks.

    Args:
        in_channels: number of features of each step, or None.
        vocab_size: number of tokens, or None.
        width: width D of the blocks.

    Raises:
        ValueError: if not exactly one number is given, or it is below 1.

    Example:
        >>> input_layer(None, 9, 4)
        Embedding(9, 4)
    """
    if (in_channels is None) == (vocab_size is None):
        raise ValueError(
            f"in_channels is {in_channels} and vocab_size {vocab_size}; give one of them: in_channels for sequences of "
            "features, vocab_size for token numbers"
        )
    if vocab_size is not None:
        positive(vocab_size=vocab_size)
        return nn.Embedding(vocab_size, width)
    positive(in_channels=in_channels)
    return nn.Linear(in_channels, width)  # type: ignore[arg-type]


def embedded(layer: nn.Linear | nn.Embedding, x: Tensor) -> Tensor:
    """Return the steps at the width of the blocks, (B, T, D).

    Args:
        layer: layer of :func:`input_layer`.
        x: features (B, T, in_channels), or token numbers (B, T).

    Raises:
        ValueError: if ``x`` has another shape, or a token is outside the vocabulary.

    Example:
        >>> import torch
        >>> embedded(nn.Embedding(9, 4), torch.tensor([[8, 0]])).shape
        torch.Size([1, 2, 4])
    """
    if isinstance(layer, nn.Embedding):
        return layer(checked_tokens(x, layer.num_embeddings, "inputs are"))
    if x.dim() != 3 or x.shape[2] != layer.in_features or not x.is_floating_point():
        raise ValueError(f"inputs are {x.dtype} {tuple(x.shape)}; real (B, T, {layer.in_features}) is needed")
    return layer(x)


def pooled(h: Tensor, lengths: Tensor | None, pool: Literal["mean", "first", "last"]) -> Tensor:
    """Return one vector for each sequence, (B, D).

    Args:
        h: outputs of all steps (B, T, D), 0 at padding.
        lengths: number of steps of each sequence, int64 (B,); None if all have T.
        pool: ``mean`` of the steps, ``first`` or ``last`` one.

    Example:
        >>> import torch
        >>> h = torch.tensor([[[1.0], [3.0], [0.0]]])
        >>> [float(pooled(h, torch.tensor([2]), pool)) for pool in ("mean", "first", "last")]
        [2.0, 1.0, 3.0]
    """
    if pool == "first":
        return h[:, 0]
    if lengths is None:
        return h.mean(1) if pool == "mean" else h[:, -1]
    lengths = lengths.to(h.device)
    if pool == "mean":
        inside = step_mask(lengths, h.shape[1])[..., None]
        return (h * inside).sum(1) / lengths.clamp(min=1)[:, None]
    place = (lengths - 1).clamp(min=0)[:, None, None].expand(-1, 1, h.shape[2])
    return h.gather(1, place)[:, 0]
