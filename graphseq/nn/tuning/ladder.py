"""Side networks of a frozen network: a ladder that reads its hidden states one by one, or the last state alone."""

import torch
from torch import Tensor, nn

from graphseq.core import Recorded
from graphseq.nn.causal import positive
from graphseq.nn.tuning.interaction import DenseInteraction
from graphseq.nn.tuning.parallel import check_states, checked_sizes
from graphseq.nn.tuning.tokens import Tokens

__all__ = ["LadderSide", "LastState"]


class LadderSide(Recorded, nn.Module):
    r"""Narrow side network of a frozen one: block i reads the output of block i - 1 and hidden state i.

    .. math:: s_0 = W_0 H_0, \qquad
        s_i = \operatorname{block}_i\bigl(\mu_i\, s_{i-1} + (1 - \mu_i)\, W_i H_i\bigr), \qquad
        \mu_i = \sigma(\alpha_i / 0.1), \qquad y = W_{up} \operatorname{LN}(s_L)

    with blocks that mix the tokens and then apply two layers to each,

    .. math:: h = s + V \operatorname{interaction}(\operatorname{LN}(s), \operatorname{LN}(s)), \qquad
        \operatorname{block}(s) = h + W_2 \max(0, W_1 \operatorname{LN}(h))

    Source: arXiv 2206.06522, sections 3.1 and 3.2. Differs from it: blocks mix tokens by ``interaction`` in place of
    narrow copies of the network's own blocks, and start from random weights.

    Args:
        hidden_channels: width of each hidden state, of the first one to the last; at least two.
        out_channels: number of features of the outputs; None for the width of the last hidden state.
        dim: width of the side network; None for half of ``out_channels``, rounded up.
        interaction: module ``(anchor, states, tokens) -> states``, such as :class:`EdgeInteraction`; None for
            :class:`DenseInteraction`.

    Shape:
        L + 1 states (B, T, hidden_channels) or (N, hidden_channels) -> (B, T, out_channels) or (N, out_channels)

    Raises:
        ValueError: if there are fewer than two hidden states, or a size is below 1; in ``forward`` if number or widths
            of the hidden states differ from those given.

    Example:
        >>> from graphseq.nn import SequenceTokens
        >>> LadderSide([8, 8, 8])([torch.randn(2, 5, 8)] * 3, SequenceTokens()).shape
        torch.Size([2, 5, 8])
    """

    def __init__(
        self,
        hidden_channels: list[int],
        out_channels: int | None = None,
        dim: int | None = None,
        interaction: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.hidden_channels, self.out_channels, self.dim = checked_sizes(hidden_channels, out_channels, dim)
        self.down = nn.ModuleList(nn.Linear(width, self.dim) for width in hidden_channels)
        self.interaction = DenseInteraction() if interaction is None else interaction
        number = len(hidden_channels) - 1
        self.gates = nn.Parameter(torch.zeros(number))
        self.values = nn.ModuleList(nn.Linear(self.dim, self.dim) for _ in range(number))
        self.mixing_norms = nn.ModuleList(nn.LayerNorm(self.dim) for _ in range(number))
        self.feed_forward = nn.ModuleList(_feed_forward(self.dim) for _ in range(number))
        self.norm = nn.LayerNorm(self.dim)
        self.up = nn.Linear(self.dim, self.out_channels)

    def reset_parameters(self) -> None:
        """Reinitialise all weights as in the constructor."""
        nn.init.zeros_(self.gates)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.LayerNorm):
                module.reset_parameters()

    def forward(self, hidden: list[Tensor], tokens: Tokens) -> Tensor:
        """Return the features of all tokens; those of padding have no meaning.

        Args:
            hidden: hidden states, from the first to the last.
            tokens: tokens of each sample.
        """
        check_states(hidden, self.hidden_channels, tokens)
        first, *rest = [down(state) for down, state in zip(self.down, hidden, strict=True)]
        side = first
        blocks = zip(torch.sigmoid(self.gates / 0.1), rest, self.mixing_norms, self.values, self.feed_forward,
                     strict=True)  # fmt: skip
        for gate, state, norm, value, feed_forward in blocks:
            side = gate * side + (1 - gate) * state
            read = norm(side)
            side = side + value(self.interaction(read, read, tokens))
            side = side + feed_forward(side)
        return self.up(self.norm(side))


class LastState(Recorded, nn.Module):
    """The last hidden state alone: with a linear head, the linear probe of a frozen network.

    On a network that is trained it is fine-tuning, and on :class:`LoRA` low-rank fine-tuning.

    Args:
        out_channels: width of the last hidden state.
        norm: norm of the state, such as ``torch.nn.RMSNorm`` for blocks that have their norms before their layers; None
            for none.

    Shape:
        states (B, T, out_channels) or (N, out_channels) -> the same

    Raises:
        ValueError: if ``out_channels`` is below 1; in ``forward`` if the last state has another width.

    Example:
        >>> from graphseq.nn import SequenceTokens
        >>> LastState(1)([torch.zeros(1, 1, 1), torch.ones(1, 1, 1)], SequenceTokens()).item()
        1.0
    """

    def __init__(self, out_channels: int, norm: nn.Module | None = None) -> None:
        super().__init__()
        positive(out_channels=out_channels)
        self.out_channels = out_channels
        self.norm = nn.Identity() if norm is None else norm

    def forward(self, hidden: list[Tensor], tokens: Tokens) -> Tensor:
        """Return the last hidden state, after the norm.

        Args:
            hidden: hidden states, from the first to the last.
            tokens: tokens of each sample, not used.
        """
        if hidden[-1].shape[-1] != self.out_channels:
            raise ValueError(
                f"out_channels is {self.out_channels} and the last hidden state has the width {hidden[-1].shape[-1]}; "
                "give that"
            )
        return self.norm(hidden[-1])


def _feed_forward(dim: int) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim))
