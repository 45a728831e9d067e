"""Recurrent language models, and generation of text token by token."""

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Generator, Tensor, nn

from graphseq.core import Recorded
from graphseq.models.sequence.classifier import output_size
from graphseq.models.sequence.tokens import checked_tokens
from graphseq.nn.recurrent.composed import Bidirectional, LayerStack
from graphseq.nn.recurrent.stack import Cell, RecurrentStack, SequenceLayer, layer_outputs

__all__ = ["RecurrentLanguageModel", "generate_tokens"]


class RecurrentLanguageModel(Recorded, nn.Module):
    r"""Logits of the next token at each step of a text.

    .. math:: h = \mathrm{recurrent}(\mathrm{dropout}(E_{x})), \qquad
        \operatorname{logits}_t = W\, P\, \mathrm{dropout}(h_t) + b

    with the embedding E. With ``tie_weights`` W is E itself, and P projects to its width where the layers have a
    different one (arXiv 1608.05859); otherwise P is the identity.

    Args:
        vocab_size: number of tokens V.
        embedding_channels: size of the embedding of a token.
        hidden_channels: size of the hidden state of each layer.
        num_layers: number of recurrent layers, at least 1.
        cell: kind of recurrent layer: ``lstm``, ``gru``, or ``rnn`` for the Elman network with tanh.
        dropout: probability in [0, 1) of setting a feature to zero after the embedding, between layers and before
            the head.
        tie_weights: whether the head shares the weights of the embedding.
        recurrent: causal sequence layer ``(x, state, lengths) -> (y, state)`` that replaces the recurrent layers built
            from the other arguments; its ``input_size`` is ``embedding_channels``, and it has an ``output_size``.

    Shape:
        ids int64 (B, T) -> logits (B, T, vocab_size)

    Raises:
        ValueError: if an argument is outside its range, or ``recurrent`` is bidirectional; in
            ``forward`` if ``ids`` does not fit.
        TypeError: if ``recurrent`` has no ``output_size``.

    Example:
        >>> model = RecurrentLanguageModel(vocab_size=65, hidden_channels=32)
        >>> model(torch.randint(65, (2, 10))).shape
        torch.Size([2, 10, 65])
    """

    def __init__(
        self,
        vocab_size: int,
        embedding_channels: int = 64,
        hidden_channels: int = 256,
        num_layers: int = 1,
        cell: Cell = "lstm",
        dropout: float = 0.0,
        tie_weights: bool = False,
        recurrent: nn.Module | None = None,
    ) -> None:
        super().__init__()
        sizes = {"vocab_size": vocab_size, "embedding_channels": embedding_channels}
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name} is {size}; give a whole number of at least 1")
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout is {dropout}; give a probability in [0, 1)")
        if isinstance(recurrent, RecurrentStack | Bidirectional | LayerStack) and recurrent.bidirectional:
            raise ValueError(
                "recurrent is bidirectional, so that each step would see the token that it predicts; give a causal "
                "layer"
            )
        self.vocab_size = vocab_size
        self.embedding = nn.Embedding(vocab_size, embedding_channels)
        self.recurrent = (
            RecurrentStack(embedding_channels, hidden_channels, num_layers, cell, dropout)
            if recurrent is None
            else recurrent
        )
        self.dropout = nn.Dropout(dropout)
        width = output_size(self.recurrent)
        projected = embedding_channels if tie_weights else width
        self.projection = nn.Identity() if projected == width else nn.Linear(width, projected, bias=False)
        self.head = nn.Linear(projected, vocab_size)
        self.tie_weights = tie_weights
        # the weights of layers that were handed in are their own, perhaps trained
        self._reset(*([self.recurrent] if recurrent is None else []))

    def reset_parameters(self) -> None:
        """Reinitialise all weights; tied weights get a small variance, so that the first logits are near 0."""
        self._reset(self.recurrent)

    def _reset(self, *recurrent: nn.Module) -> None:
        for module in (self.embedding, *recurrent, self.projection, self.head):
            if isinstance(module, nn.Embedding | nn.Linear | SequenceLayer):
                module.reset_parameters()
        if self.tie_weights:
            nn.init.normal_(self.embedding.weight, std=self.embedding.embedding_dim**-0.5)
            self.head.weight = self.embedding.weight

    def _logits(self, y: Tensor) -> Tensor:
        return self.head(self.projection(self.dropout(y)))  # (B, T, H) -> (B, T, V)

    def _embedded(self, ids: Tensor) -> Tensor:
        return self.dropout(self.embedding(checked_tokens(ids, self.vocab_size, "ids is")))  # (B, T, D)

    def forward(self, ids: Tensor) -> Tensor:
        """Return logits of the next token at each step; those at padding have no meaning.

        Args:
            ids: token numbers (B, T).
        """
        return self._logits(layer_outputs(self.recurrent, self._embedded(ids), None))

    def forward_with_state(self, ids: Tensor, state: Any = None, lengths: Tensor | None = None) -> tuple[Tensor, Any]:
        """Return logits of the next token at each step, and the state after the last step.

        Args:
            ids: token numbers (B, T).
            state: state after the preceding tokens, as this method returned it; None at the beginning of a text.
            lengths: number of tokens of each row, int64 (B,); None if all have T.
        """
        y, state = self.recurrent(self._embedded(ids), state, lengths)  # (B, T, H)
        return self._logits(y), state


@runtime_checkable
class DecodesByState(Protocol):
    """Protocol of the language models that :func:`generate_tokens` accepts.

    Example:
        >>> model: DecodesByState = RecurrentLanguageModel(vocab_size=5)
    """

    def forward_with_state(self, ids: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Return logits (B, T, V) and the state after the last token.

        Args:
            ids: token numbers (B, T).
            state: state after the preceding tokens; None at the beginning of a text.
        """
        ...


@torch.no_grad()
def generate_tokens(
    model: DecodesByState,
    prompt: Tensor,
    length: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    forbidden: Tensor | None = None,
    generator: Generator | None = None,
) -> Tensor:
    r"""Continue a text token by token; the state is carried along, so that each token costs the same.

    .. math:: x_{t+1} \sim \operatorname{softmax}(\operatorname{logits}_t / \tau)

    Call ``model.eval()`` before, to switch dropout off.

    Args:
        model: language model with ``forward_with_state(ids, state) -> (logits, state)``.
        prompt: token numbers of the text to continue, int64 (B, T), T at least 1.
        length: number of new tokens, at least 0.
        temperature: divisor :math:`\tau` of the logits, at least 0; 0 takes the likeliest token, the first among
            equals.
        top_k: number of likeliest tokens among which each token is drawn; None for all.
        forbidden: token numbers that are never drawn, int64 (F,); None for none.
        generator: source of the random numbers, on the device of the prompt; None for torch's own.

    Returns:
        New tokens, int64 (B, length).

    Raises:
        ValueError: if the prompt is empty or an argument is outside its range.

    Example:
        >>> model = RecurrentLanguageModel(vocab_size=5, hidden_channels=8).eval()
        >>> generate_tokens(model, torch.tensor([[1, 2]]), 3, temperature=0.0).shape
        torch.Size([1, 3])
    """
    if prompt.dim() != 2 or not prompt.shape[1]:
        raise ValueError(f"prompt is {tuple(prompt.shape)}; it must be (B, T) with at least one token")
    if length < 0:
        raise ValueError(f"length is {length}; it must be at least 0")
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature is {temperature}; it must be a finite number of at least 0")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k is {top_k}; it must be at least 1")
    drawn = []
    ids, state = prompt, None
    for _ in range(length):
        logits, state = model.forward_with_state(ids, state)
        ids = _draw(logits[:, -1].float(), temperature, top_k, forbidden, generator)  # (B, V) -> (B, 1)
        drawn.append(ids)
    return torch.cat(drawn, 1) if drawn else prompt[:, :0]  # (B, length)


def _draw(
    logits: Tensor, temperature: float, top_k: int | None, forbidden: Tensor | None, generator: Generator | None
) -> Tensor:
    """Draw one token for each row, (B, 1), from logits (B, V)."""
    if forbidden is not None:
        logits = logits.index_fill(1, forbidden.to(logits.device), -torch.inf)
    if temperature == 0:
        return logits.argmax(1, keepdim=True)
    if top_k is not None and top_k < logits.shape[1]:
        # a stable sort, so that ties are broken alike on all processors
        order = logits.sort(dim=1, descending=True, stable=True).indices
        logits = logits.scatter(1, order[:, top_k:], -torch.inf)
    return torch.multinomial((logits / temperature).softmax(1), 1, generator=generator)
