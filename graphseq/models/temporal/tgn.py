"""TGN: gated memory and attention over the most recent neighbours."""

from typing import Literal

from graphseq.models.temporal.memory_network import MemoryNetwork, event_types
from graphseq.nn.temporal.embeddings import TemporalAttentionEmbedding, TemporalEmbedding
from graphseq.nn.temporal.memory import NodeMemory
from graphseq.nn.temporal.pres import PRESCorrector
from graphseq.nn.temporal.time_encoding import TimeEncoder

__all__ = ["TGN"]


class TGN(MemoryNetwork):
    """Temporal graph network: gated memory, last message, attention over the most recent neighbours.

    The steps of the paper by name: ``message``, ``aggregate`` and ``update`` in :class:`~graphseq.nn.NodeMemory`,
    ``embed`` in :class:`~graphseq.nn.TemporalAttentionEmbedding`, their order in :class:`MemoryNetwork`.

    Source: arXiv 2006.10637, TGN-attn; sizes of its section 5. Differs from it: none known; see
    :class:`~graphseq.nn.NodeMemory` for what differs from its code.

    Args:
        num_nodes: number of nodes.
        edge_channels: width of the event features, 0 without.
        memory_dim: size of a memory.
        time_dim: width of an encoded time.
        embedding_dim: width of an embedding.
        num_neighbors: number of neighbours looked up for each node, the most recent ones.
        num_layers: number of attention layers.
        num_heads: number of attention heads; it must divide ``memory_dim + time_dim``.
        dropout: probability of dropping an attention weight, in [0, 1).
        aggregation: aggregation of several messages to a node in one batch, ``last`` or ``mean``.
        embedding: embedding to be used in place of attention; ``num_neighbors``, ``num_layers``, ``num_heads`` and
            ``dropout`` have no effect then.
        time_init: initial frequencies of the time encoder, see :class:`~graphseq.nn.TimeEncoder`.
        corrector: PRES corrector of the memories; None for no correction.
        mean_gap: mean time between events of a node, the time scale of the corrector; linked from the data on the
            command line.

    Shape:
        batch of B events with M negatives each -> logits (B, 1 + M)

    Raises:
        ValueError: if a size is out of range.

    Example:
        >>> sum(weight.numel() for weight in TGN(num_nodes=9, edge_channels=1).parameters())
        342501
    """

    def __init__(
        self,
        num_nodes: int,
        edge_channels: int = 0,
        *,
        memory_dim: int = 100,
        time_dim: int = 100,
        embedding_dim: int = 100,
        num_neighbors: int = 10,
        num_layers: int = 1,
        num_heads: int = 2,
        dropout: float = 0.1,
        aggregation: Literal["last", "mean"] = "last",
        embedding: TemporalEmbedding | None = None,
        time_init: Literal["geometric", "uniform"] = "geometric",
        corrector: PRESCorrector | None = None,
        mean_gap: float | None = None,
    ) -> None:
        time_encoder, types = TimeEncoder(time_dim, init=time_init), event_types(corrector)
        memory = NodeMemory(
            num_nodes,
            memory_dim,
            edge_channels,
            time_encoder,
            aggregation=aggregation,
            num_event_types=types,
        )
        if embedding is None:
            embedding = TemporalAttentionEmbedding(
                memory_dim, embedding_dim, edge_channels, time_dim, num_neighbors, num_layers, num_heads, dropout
            )
        super().__init__(memory, embedding, time_encoder, corrector=corrector, mean_gap=mean_gap)
