"""How the last hidden state of a network reads an earlier one: between all tokens, along edges, or not at all."""

from torch import Tensor, nn

from graphseq.core import Recorded
from graphseq.nn.tuning.tokens import GraphTokens, Tokens
from graphseq.ops.graphs.edge_attention import SMALLEST, rectified_edge_attention

__all__ = ["DenseInteraction", "EdgeInteraction", "IdentityInteraction"]


class DenseInteraction(Recorded, nn.Module):
    r"""Each token of the anchor reads all tokens of its sample.

    .. math:: S = \max(0, A X^\top), \qquad
        M = X + \frac{S X}{\max(S \mathbf{1}, 10^{-6})}

    for each sample, with the same tokens in A and X, so that the scores are those of attention without a softmax, plus
    the identity. It computes T² scores for a sample of T tokens; graphs are padded to the largest one.

    Source: arXiv 2308.14316, section 3.2, as in the authors' released code. Differs from it: none known.

    Shape:
        anchor and states in the layout of the tokens, (B, T, D) or (N, D) -> the same

    Example:
        >>> import torch
        >>> from graphseq.nn import SequenceTokens
        >>> DenseInteraction()(torch.zeros(1, 2, 1), torch.tensor([[[1.0], [3.0]]]), SequenceTokens()).flatten()
        tensor([1., 3.])
    """

    def forward(self, anchor: Tensor, states: Tensor, tokens: Tokens) -> Tensor:
        """Return the states after the interaction.

        Args:
            anchor: features A of the last hidden state.
            states: features X of an earlier hidden state.
            tokens: tokens of each sample.
        """
        a, x = tokens.padded(anchor), tokens.padded(states)  # (B, T, D), 0 at padding, which so has no score
        scores = (a @ x.transpose(1, 2)).relu()  # (B, T, T)
        return states + tokens.unpadded((scores @ x) / scores.sum(2, keepdim=True).clamp(min=SMALLEST))


class EdgeInteraction(Recorded, nn.Module):
    r"""Each node of the anchor reads its neighbours, along the edges of its graph.

    .. math:: s_{ij} = \max(0, a_i \cdot x_j), \qquad
        m_i = x_i + \frac{\sum_{j \to i} s_{ij}\, x_j}{\max(\sum_{j \to i} s_{ij}, 10^{-6})}

    It costs one score for each edge, and needs no padding and no synchronisation.

    Source: arXiv 2308.14316, section 3.2. Differs from it: only tokens that are joined by an edge interact.

    Shape:
        anchor (N, D), states (N, D) -> (N, D)

    Raises:
        TypeError: in ``forward``, if the tokens are not those of graphs.

    Example:
        >>> import torch
        >>> from graphseq.nn import GraphTokens
        >>> x = torch.tensor([[1.0], [3.0]])
        >>> EdgeInteraction()(x, x, GraphTokens.of(2, torch.tensor([[0], [1]]))).flatten()
        tensor([1., 4.])
    """

    def forward(self, anchor: Tensor, states: Tensor, tokens: Tokens) -> Tensor:
        """Return the states after the interaction.

        Args:
            anchor: features A of the last hidden state.
            states: features X of an earlier hidden state.
            tokens: nodes and edges of the graphs.
        """
        if not isinstance(tokens, GraphTokens):
            raise TypeError(
                f"tokens are {type(tokens).__name__}, which have no edges; sequences need DenseInteraction or "
                "IdentityInteraction"
            )
        return states + rectified_edge_attention(anchor, states, tokens.edge_index)


class IdentityInteraction(Recorded, nn.Module):
    r"""No interaction, :math:`M = X`: each token stays by itself, the control of the other forms.

    Source: arXiv 2308.14316, section 3.2. Differs from it: the scores are left out.

    Shape:
        anchor and states in the layout of the tokens, (B, T, D) or (N, D) -> the same

    Example:
        >>> import torch
        >>> from graphseq.nn import SequenceTokens
        >>> x = torch.ones(1, 2, 1)
        >>> IdentityInteraction()(x, 2 * x, SequenceTokens()).flatten()
        tensor([2., 2.])
    """

    def forward(self, anchor: Tensor, states: Tensor, tokens: Tokens) -> Tensor:
        """Return the states unchanged.

        Args:
            anchor: features A of the last hidden state, not used.
            states: features X of an earlier hidden state.
            tokens: tokens of each sample, not used.
        """
        return states
