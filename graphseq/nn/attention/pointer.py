"""Additive attention whose weights are the output: a distribution over the positions of the input."""

import torch
from torch import Tensor, nn

from graphseq.core import Recorded
from graphseq.ops.sequences.additive_attention import additive_scores

__all__ = ["PointerAttention"]


class PointerAttention(Recorded, nn.Module):
    r"""Score of each key for each query, by a network with one hidden layer.

    .. math:: u_{ij} = v^\top \tanh(W_1 e_j + W_2 d_i), \qquad p(j \mid i) = \operatorname{softmax}_j(u_{ij})

    with keys e and queries d. No context vector is formed: the softmax itself, over as many positions as there are
    keys, is the output. A decoder with one query in each step projects the keys once, by :meth:`project`, and calls
    :meth:`scores`. :meth:`node_scores` takes the nodes of graphs as keys, so that a graph encoder can be pointed into
    as well.

    Source: arXiv 1506.03134, eq. 3. Differs from it: none.

    Args:
        query_channels: width of a query, at least 1.
        key_channels: width of a key, at least 1.
        hidden_channels: number of hidden units H, at least 1.
        bias: whether the projection of the queries has a bias; the paper states none.

    Shape:
        query (B, M, query_channels), keys (B, N, key_channels), key_mask (B, N) -> scores (B, M, N)

    Raises:
        ValueError: if a size is below 1; in ``forward`` if shapes or types do not fit.

    Example:
        >>> layer = PointerAttention(4, 5, 8)
        >>> keys = torch.randn(2, 3, 5)
        >>> layer(torch.randn(2, 6, 4), keys, torch.tensor([[True, True, True], [True, True, False]])).shape
        torch.Size([2, 6, 3])
    """

    def __init__(self, query_channels: int, key_channels: int, hidden_channels: int, bias: bool = False) -> None:
        super().__init__()
        sizes = {"query_channels": query_channels, "key_channels": key_channels, "hidden_channels": hidden_channels}
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name} is {size}; give a whole number of at least 1")
        self.key = nn.Linear(key_channels, hidden_channels, bias=False)  # W_1
        self.query = nn.Linear(query_channels, hidden_channels, bias=bias)  # W_2
        self.weight = nn.Parameter(torch.empty(hidden_channels))  # v
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Reinitialise all weights."""
        self.key.reset_parameters()
        self.query.reset_parameters()
        bound = self.weight.numel() ** -0.5
        nn.init.uniform_(self.weight, -bound, bound)

    def project(self, keys: Tensor) -> Tensor:
        """Return the projected keys that :meth:`scores` takes, (B, N, H).

        Args:
            keys: keys (B, N, key_channels).
        """
        return self.key(keys)

    def scores(self, query: Tensor, projected: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """Return the scores of queries with keys that :meth:`project` has projected, (B, M, N).

        Args:
            query: queries (B, M, query_channels).
            projected: projected keys (B, N, H).
            key_mask: true where a key may be pointed at, bool (B, N); None for all. Elsewhere scores are -inf.
        """
        u = additive_scores(self.query(query), projected, self.weight)  # (B, M, N)
        if key_mask is not None and (key_mask.dtype != torch.bool or key_mask.shape != projected.shape[:2]):
            raise ValueError(
                f"key_mask is {key_mask.dtype} {tuple(key_mask.shape)}; bool {tuple(projected.shape[:2])} is needed"
            )
        return u if key_mask is None else u.masked_fill(~key_mask[:, None], -torch.inf)

    def forward(self, query: Tensor, keys: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """Return the scores of queries with keys, (B, M, N).

        Args:
            query: queries (B, M, query_channels).
            keys: keys (B, N, key_channels).
            key_mask: true where a key may be pointed at, bool (B, N); None for all. Elsewhere scores are -inf.
        """
        return self.scores(query, self.project(keys), key_mask)

    def node_scores(self, query: Tensor, keys: Tensor, batch: Tensor) -> Tensor:
        """Return the score of each node for the query of its graph; :func:`graphseq.ops.segment_softmax` normalises it.

        Args:
            query: one query for each graph, (G, query_channels).
            keys: node features (N, key_channels).
            batch: graph of each node, int64 (N,).

        Returns:
            scores (N,).
        """
        if keys.dim() != 2 or query.dim() != 2 or batch.shape != keys.shape[:1]:
            raise ValueError(
                f"query is {tuple(query.shape)}, keys {tuple(keys.shape)}, batch {tuple(batch.shape)}; they must be "
                f"(G, {self.query.in_features}), (N, {self.key.in_features}) and (N,)"
            )
        return torch.tanh(self.query(query).index_select(0, batch) + self.key(keys)) @ self.weight
