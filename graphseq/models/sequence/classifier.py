"""Recurrent networks for the classification of sequences, or of each of their steps."""

from typing import Literal

import torch
from torch import Tensor, nn

from graphseq.core import Recorded
from graphseq.core.batches import check_lengths, step_mask
from graphseq.models.sequence.tokens import checked_tokens
from graphseq.nn.recurrent.composed import Bidirectional, LayerStack
from graphseq.nn.recurrent.stack import Cell, RecurrentStack, SequenceLayer, layer_outputs

__all__ = ["SequenceClassifier", "SequenceTagger"]


class SequenceTagger(Recorded, nn.Module):
    r"""Recurrent network with an output for each step of a sequence.

    .. math:: h = \mathrm{recurrent}(\mathrm{embed}(x)), \qquad y_t = W\, \mathrm{dropout}(h_t) + b

    Sequences of token numbers are embedded (``vocab_size``); sequences of features (``in_channels``) are the input of
    the recurrent layers. Outputs within the length of a sequence do not depend on padding; those after it have no
    meaning.

    Args:
        out_channels: number of outputs of each step.
        in_channels: number of features D of each step; give either this or ``vocab_size``.
        vocab_size: number of tokens; give either this or ``in_channels``.
        hidden_channels: size of the hidden state, and of the embedding of a token.
        num_layers: number of recurrent layers, at least 1.
        cell: kind of recurrent layer: ``lstm``, ``gru``, or ``rnn`` for the Elman network with tanh.
        bidirectional: whether each sequence is processed in both directions.
        dropout: probability in [0, 1) of setting a feature to zero between layers and before the head.
        recurrent: sequence layer ``(x, state, lengths) -> (y, state)`` that replaces the recurrent layers built from
            the other arguments; its ``input_size`` is ``hidden_channels`` for tokens and ``in_channels`` for features,
            and it has an ``output_size``.

    Shape:
        x (B, T, D) real or (B, T) int64, lengths (B,) -> (B, T, out_channels)

    Raises:
        ValueError: if not exactly one of ``in_channels`` and ``vocab_size`` is given, or an argument is outside its
            range; in ``forward`` if ``x`` does not fit.
        TypeError: if ``recurrent`` has no ``output_size``.

    Example:
        >>> model = SequenceTagger(out_channels=3, in_channels=2, hidden_channels=8)
        >>> model(torch.randn(4, 7, 2), torch.tensor([7, 7, 3, 1])).shape
        torch.Size([4, 7, 3])
    """

    def __init__(
        self,
        out_channels: int,
        in_channels: int | None = None,
        vocab_size: int | None = None,
        hidden_channels: int = 64,
        num_layers: int = 1,
        cell: Cell = "gru",
        bidirectional: bool = False,
        dropout: float = 0.0,
        recurrent: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if (in_channels is None) == (vocab_size is None):
            raise ValueError(
                f"in_channels is {in_channels} and vocab_size {vocab_size}; give one of them: in_channels for "
                "sequences of features, vocab_size for token numbers"
            )
        sizes = {"out_channels": out_channels, "hidden_channels": hidden_channels}
        sizes |= {"vocab_size": vocab_size} if vocab_size is not None else {}
        sizes |= {"in_channels": in_channels} if in_channels is not None else {}
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name} is {size}; give a whole number of at least 1")
        self.in_channels = in_channels
        self.vocab_size = vocab_size
        self.out_channels = out_channels
        width = hidden_channels if in_channels is None else in_channels
        self.embedding = None if vocab_size is None else nn.Embedding(vocab_size, hidden_channels)
        self.recurrent = (
            RecurrentStack(width, hidden_channels, num_layers, cell, dropout, bidirectional)
            if recurrent is None
            else recurrent
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(output_size(self.recurrent), out_channels)

    def reset_parameters(self) -> None:
        """Reinitialise all weights as in the constructor."""
        for module in (self.embedding, self.recurrent, self.head):
            if isinstance(module, nn.Embedding | nn.Linear | SequenceLayer):
                module.reset_parameters()

    def encode_steps(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the outputs of the recurrent layers at all steps, (B, T, H).

        Args:
            x: features (B, T, D), or token numbers (B, T).
            lengths: number of steps of each sequence, int64 (B,); None if all have T.
        """
        if self.embedding is not None:
            x = self.embedding(checked_tokens(x, self.embedding.num_embeddings, "inputs are"))  # (B, T, H)
        elif x.dim() != 3 or x.shape[2] != self.in_channels:
            raise ValueError(f"inputs have shape {tuple(x.shape)}, where (B, T, {self.in_channels}) is needed")
        return layer_outputs(self.recurrent, x, lengths)  # (B, T, H)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return logits for each step.

        Args:
            x: features (B, T, D), or token numbers (B, T).
            lengths: number of steps of each sequence, int64 (B,); None if all have T.
        """
        return self.head(self.dropout(self.encode_steps(x, lengths)))  # (B, T, H) -> (B, T, K)


class SequenceClassifier(SequenceTagger):
    r"""Recurrent network with one output vector for each sequence.

    .. math:: h = \mathrm{recurrent}(\mathrm{embed}(x)), \qquad
        y = W\, \mathrm{dropout}(\mathrm{pool}_t(h_t)) + b

    Only steps within the length of a sequence are pooled, so outputs do not depend on padding.

    Args:
        out_channels: number of outputs of each sequence.
        in_channels: number of features D of each step; give either this or ``vocab_size``.
        vocab_size: number of tokens; give either this or ``in_channels``.
        hidden_channels: size of the hidden state, and of the embedding of a token.
        num_layers: number of recurrent layers, at least 1.
        cell: kind of recurrent layer: ``lstm``, ``gru``, or ``rnn`` for the Elman network with tanh.
        bidirectional: whether each sequence is processed in both directions.
        dropout: probability in [0, 1) of setting a feature to zero between layers and before the head.
        pool: ``last`` for the output at the last step (of the backward direction, at the first step), or ``mean`` over
            all steps.
        recurrent: sequence layer ``(x, state, lengths) -> (y, state)`` that replaces the recurrent layers built from
            the other arguments, see :class:`SequenceTagger`.

    Shape:
        x (B, T, D) real or (B, T) int64, lengths (B,) -> (B, out_channels)

    Raises:
        ValueError: as for :class:`SequenceTagger`, or if ``pool`` is neither ``last`` nor ``mean``.
        TypeError: if ``recurrent`` has no ``output_size``.

    Example:
        >>> model = SequenceClassifier(out_channels=2, vocab_size=27, cell="lstm")
        >>> model(torch.randint(27, (4, 9)), torch.tensor([9, 5, 5, 2])).shape
        torch.Size([4, 2])
    """

    def __init__(
        self,
        out_channels: int,
        in_channels: int | None = None,
        vocab_size: int | None = None,
        hidden_channels: int = 64,
        num_layers: int = 1,
        cell: Cell = "gru",
        bidirectional: bool = False,
        dropout: float = 0.0,
        pool: Literal["last", "mean"] = "last",
        recurrent: nn.Module | None = None,
    ) -> None:
        super().__init__(
            out_channels,
            in_channels,
            vocab_size,
            hidden_channels,
            num_layers,
            cell,
            bidirectional,
            dropout,
            recurrent,
        )
        if pool not in ("last", "mean"):
            raise ValueError(f"pool is {pool!r}; it must be 'last' or 'mean'")
        self.pool = pool
        self.two_ends = is_bidirectional(self.recurrent)

    def encode(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return one vector for each sequence, the input of the head, (B, H).

        Args:
            x: features (B, T, D), or token numbers (B, T).
            lengths: number of steps of each sequence, int64 (B,); None if all have T.
        """
        if lengths is not None:
            check_lengths(lengths, x.shape[0], x.shape[1])  # a sequence without steps has no mean and no last step
        h = self.encode_steps(x, lengths)  # (B, T, H)
        if self.pool == "mean":
            if lengths is None:
                return h.mean(1)  # (B, H)
            inside = step_mask(lengths, h.shape[1])[..., None]  # (B, T, 1)
            return h.masked_fill(~inside, 0).sum(1) / lengths[:, None]  # (B, H)
        if lengths is None:
            last = h[:, -1]  # (B, H)
        else:
            last = h.gather(1, (lengths - 1)[:, None, None].expand(-1, 1, h.shape[2])).squeeze(1)  # (B, H)
        if not self.two_ends:
            return last
        half = h.shape[2] // 2
        return torch.cat([last[:, :half], h[:, 0, half:]], 1)  # (B, H)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return logits for each sequence.

        Args:
            x: features (B, T, D), or token numbers (B, T).
            lengths: number of steps of each sequence, int64 (B,); None if all have T.
        """
        return self.head(self.dropout(self.encode(x, lengths)))  # (B, H) -> (B, K)


def is_bidirectional(layer: nn.Module) -> bool:
    """Return whether the last outputs of a layer are those of both directions, one half each.

    Args:
        layer: any sequence layer.

    Example:
        >>> is_bidirectional(RecurrentStack(3, 5, bidirectional=True))
        True
    """
    if isinstance(layer, LayerStack):
        return is_bidirectional(layer.layers[-1])
    return isinstance(layer, RecurrentStack | Bidirectional) and layer.bidirectional


def output_size(layer: nn.Module) -> int:
    """Return the attribute ``output_size`` of a sequence layer.

    Args:
        layer: any sequence layer.

    Raises:
        TypeError: if the layer has no integer ``output_size``.

    Example:
        >>> output_size(RecurrentStack(3, 5, bidirectional=True))
        10
    """
    if not isinstance(layer, nn.Module):
        raise TypeError(
            f"recurrent is {layer!r}; give a layer (x, state, lengths) -> (y, state) that is built, such as "
            "graphseq.nn.RecurrentStack(in_channels, hidden_channels)"
        )
    size = vars(layer).get("output_size")
    if not isinstance(size, int):
        raise TypeError(
            f"recurrent is a {type(layer).__name__} without output_size; give a layer "
            "(x, state, lengths) -> (y, state) with the number of its "
            "output features as output_size, such as graphseq.nn.RecurrentStack"
        )
    return size
