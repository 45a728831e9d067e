"""UniPT: a side network that reads all hidden states of a frozen network at once."""

import torch
from torch import Tensor, nn

from graphseq.core import Recorded
from graphseq.nn.causal import positive
from graphseq.nn.tuning.interaction import DenseInteraction
from graphseq.nn.tuning.tokens import Tokens

__all__ = ["GatedConfidence", "UniPT", "UniformConfidence"]


class GatedConfidence(Recorded, nn.Module):
    r"""Weight of each hidden state, for each sample, by one gate for all of them.

    .. math:: u_i = w^\top (\bar a \odot \bar x_i) + b, \qquad c = \operatorname{softmax}_i(u)

    with the means :math:`\bar a` of the anchor and :math:`\bar x_i` of state i over the tokens of the sample.

    Source: arXiv 2308.14316, section 3.3, as in the authors' released code. Differs from it: none known.

    Args:
        dim: width D of the means.

    Shape:
        anchor (B, D), states (L, B, D) -> (L, B)

    Raises:
        ValueError: if ``dim`` is below 1.

    Example:
        >>> GatedConfidence(4)(torch.randn(2, 4), torch.randn(3, 2, 4)).sum(0).detach().round(decimals=4)
        tensor([1., 1.])
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        positive(dim=dim)
        self.gate = nn.Linear(dim, 1)

    def reset_parameters(self) -> None:
        """Reinitialise the gate."""
        self.gate.reset_parameters()

    def forward(self, anchor: Tensor, states: Tensor) -> Tensor:
        """Return the weights, which sum to 1 over the hidden states.

        Args:
            anchor: mean of the anchor of each sample (B, D).
            states: mean of each hidden state of each sample (L, B, D).
        """
        return self.gate(anchor * states)[..., 0].softmax(0)


class UniformConfidence(Recorded, nn.Module):
    r"""Equal weights :math:`c_i = 1 / L` of all hidden states, the control of :class:`GatedConfidence`.

    Source: arXiv 2308.14316, section 3.3. Differs from it: there is no gate.

    Shape:
        anchor (B, D), states (L, B, D) -> (L, B)

    Example:
        >>> UniformConfidence()(torch.randn(2, 4), torch.randn(4, 2, 4))[0]
        tensor([0.2500, 0.2500])
    """

    def forward(self, anchor: Tensor, states: Tensor) -> Tensor:
        """Return the weights.

        Args:
            anchor: mean of the anchor of each sample (B, D).
            states: mean of each hidden state of each sample (L, B, D).
        """
        return states.new_full(states.shape[:2], 1 / len(states))


class UniPT(Recorded, nn.Module):
    r"""Features of tokens from all hidden states :math:`H_0, \ldots, H_L` of a frozen network, in parallel.

    .. math:: X_i = \operatorname{LN}_i(W_i H_i), \qquad A = X_L, \qquad
        M = \sum_{i < L} c_i\, \operatorname{interaction}(A, X_i)

    .. math:: Z = A + \operatorname{LN}(W M), \qquad Y = W_{up} \max(0, Z)

    The weights c are those of ``confidence``, one for each sample and state. The states are not read in sequence, and
    no gradient flows into the frozen network: training stores only its hidden states. ::

        frozen network   H_0 ──── H_1 ──── … ──── H_L
                          │        │               │
                          X_0      X_1      …      A ─────────────┐
                          └────────┴─ interaction, confidence ─ M ┴─ Z ── Y

    Source: arXiv 2308.14316, section 3; details that the paper leaves open follow the authors' released code. Differs
    from it: all networks use the variant for text encoders, without the learned pooling of the variant for
    convolutional networks.

    Args:
        hidden_channels: width of each hidden state, of the first one to the last; at least two.
        out_channels: number of features of the outputs; None for the width of the last hidden state.
        dim: width D of the side network; None for half of ``out_channels``, rounded up.
        interaction: module ``(anchor, states, tokens) -> states``, such as :class:`EdgeInteraction`; None for
            :class:`DenseInteraction`.
        confidence: module ``(anchor, states) -> weights``, such as :class:`UniformConfidence`; None for
            :class:`GatedConfidence`.

    Shape:
        L + 1 states (B, T, hidden_channels) or (N, hidden_channels) -> (B, T, out_channels) or (N, out_channels)

    Raises:
        ValueError: if there are fewer than two hidden states, or a size is below 1; in ``forward`` if number or widths
            of the hidden states differ from those given.

    Example:
        >>> from graphseq.nn import SequenceTokens
        >>> side = UniPT([8, 8, 8])
        >>> side([torch.randn(2, 5, 8)] * 3, SequenceTokens(torch.tensor([5, 3]))).shape
        torch.Size([2, 5, 8])
    """

    def __init__(
        self,
        hidden_channels: list[int],
        out_channels: int | None = None,
        dim: int | None = None,
        interaction: nn.Module | None = None,
        confidence: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.hidden_channels, self.out_channels, self.dim = checked_sizes(hidden_channels, out_channels, dim)
        self.down = nn.ModuleList(nn.Linear(width, self.dim) for width in hidden_channels)
        self.norms = nn.ModuleList(nn.LayerNorm(self.dim) for _ in hidden_channels)
        self.interaction = DenseInteraction() if interaction is None else interaction
        self.confidence = GatedConfidence(self.dim) if confidence is None else confidence
        self.projection = nn.Linear(self.dim, self.dim)
        self.norm = nn.LayerNorm(self.dim)
        self.up = nn.Linear(self.dim, self.out_channels)

    def reset_parameters(self) -> None:
        """Reinitialise all weights as in the constructor."""
        for module in (*self.down, *self.norms, self.confidence, self.projection, self.norm, self.up):
            if callable(reset := getattr(module, "reset_parameters", None)):
                reset()

    def forward(self, hidden: list[Tensor], tokens: Tokens) -> Tensor:
        """Return the features of all tokens; those of padding have no meaning.

        Args:
            hidden: hidden states, from the first to the last.
            tokens: tokens of each sample.
        """
        *states, anchor = self._reduced(hidden, tokens)
        mixed = torch.zeros_like(anchor)
        for weight, state in zip(self._weights(anchor, states, tokens), states, strict=True):
            mixed = mixed + tokens.spread(weight) * self.interaction(anchor, state, tokens)
        return self.up((anchor + self.norm(self.projection(mixed))).relu())

    def confidences(self, hidden: list[Tensor], tokens: Tokens) -> Tensor:
        """Return the weight of each hidden state but the last one for each sample, (L, B).

        Args:
            hidden: hidden states, from the first to the last.
            tokens: tokens of each sample.
        """
        *states, anchor = self._reduced(hidden, tokens)
        return self._weights(anchor, states, tokens)

    def _reduced(self, hidden: list[Tensor], tokens: Tokens) -> list[Tensor]:
        check_states(hidden, self.hidden_channels, tokens)
        return [norm(down(state)) for norm, down, state in zip(self.norms, self.down, hidden, strict=True)]

    def _weights(self, anchor: Tensor, states: list[Tensor], tokens: Tokens) -> Tensor:
        return self.confidence(tokens.mean(anchor), torch.stack([tokens.mean(state) for state in states]))


def checked_sizes(hidden_channels: list[int], out_channels: int | None, dim: int | None) -> tuple[list[int], int, int]:
    """Return widths of the hidden states, of the outputs and of the side network, with their defaults.

    Args:
        hidden_channels: width of each hidden state.
        out_channels: number of features of the outputs, or None.
        dim: width of the side network, or None.

    Raises:
        ValueError: if there are fewer than two hidden states, or a size is below 1.

    Example:
        >>> checked_sizes([8, 6], None, None)
        ([8, 6], 6, 3)
    """
    if not isinstance(hidden_channels, list | tuple):
        raise ValueError(
            f"hidden_channels is {hidden_channels!r}; give a list with the width of each hidden state, the first one "
            "(the embedding) included"
        )
    if len(hidden_channels) < 2 or min(hidden_channels) < 1:
        raise ValueError(
            f"hidden_channels is {hidden_channels}; give the widths of at least two hidden states, each at least 1"
        )
    out = hidden_channels[-1] if out_channels is None else out_channels
    width = -(-out // 2) if dim is None else dim
    positive(out_channels=out, dim=width)
    return list(hidden_channels), out, width


def check_states(hidden: list[Tensor], hidden_channels: list[int], tokens: Tokens) -> None:
    """Check the number and the shapes of hidden states, and that tokens are given.

    Args:
        hidden: hidden states of a network.
        hidden_channels: widths that are expected.
        tokens: tokens of each sample.

    Raises:
        ValueError: if number, widths or shapes differ.
        TypeError: if ``tokens`` is of another class.

    Example:
        >>> from graphseq.nn import SequenceTokens
        >>> check_states([torch.ones(1, 2, 3)], [3], SequenceTokens())
    """
    widths = [state.shape[-1] for state in hidden]
    if widths != hidden_channels:
        raise ValueError(
            f"hidden_channels is {hidden_channels}, but the hidden states of the network have the widths {widths}; "
            "give those"
        )
    shapes = [tuple(state.shape[:-1]) for state in hidden]
    if len(set(shapes)) > 1:
        raise ValueError(f"hidden states have the leading shapes {shapes}; all must have the same tokens")
    if not all(callable(getattr(tokens, name, None)) for name in ("mean", "spread", "padded", "unpadded")):
        raise TypeError(
            f"tokens is a {type(tokens).__name__}; give SequenceTokens(lengths) for sequences (B, T, D), or "
            "GraphTokens.of(num_nodes, edge_index, batch) for nodes (N, D)"
        )
