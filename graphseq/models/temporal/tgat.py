"""TGAT: attention over recent neighbours, without memory."""

from typing import Literal

from graphseq.models.temporal.memory_network import MemoryNetwork
from graphseq.nn.temporal.embeddings import TemporalAttentionEmbedding
from graphseq.nn.temporal.time_encoding import TimeEncoder

__all__ = ["TGAT"]


class TGAT(MemoryNetwork):
    """Attention over recent neighbours without memory: structure, times and event features alone.

    Source: arXiv 2002.07962 in the form of arXiv 2006.10637 (TGN without memory): the most recent neighbours where
    the paper samples, and zeros as node features.

    Args:
        num_nodes: number of nodes.
        edge_channels: width of the event features, 0 without.
        embedding_dim: width of an embedding.
        time_dim: width of an encoded time.
        num_neighbors: number of neighbours looked up for each node, the most recent ones.
        num_layers: number of attention layers.
        num_heads: number of attention heads; it must divide ``embedding_dim + time_dim``.
        dropout: probability of dropping an attention weight, in [0, 1).
        time_init: initial frequencies of the time encoder, see :class:`~graphseq.nn.TimeEncoder`.

    Shape:
        batch of B events with M negatives each -> logits (B, 1 + M)

    Raises:
        ValueError: if a size is out of range.

    Example:
        >>> TGAT(num_nodes=9).memory is None
        True
    """

    def __init__(
        self,
        num_nodes: int,
        edge_channels: int = 0,
        *,
        embedding_dim: int = 100,
        time_dim: int = 100,
        num_neighbors: int = 10,
        num_layers: int = 2,
        num_heads: int = 2,
        dropout: float = 0.1,
        time_init: Literal["geometric", "uniform"] = "geometric",
    ) -> None:
        time_encoder = TimeEncoder(time_dim, init=time_init)
        embedding = TemporalAttentionEmbedding(
            embedding_dim, embedding_dim, edge_channels, time_dim, num_neighbors, num_layers, num_heads, dropout
        )
        super().__init__(None, embedding, time_encoder, num_nodes=num_nodes, dim=embedding_dim)
