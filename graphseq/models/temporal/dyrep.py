"""DyRep: recurrent memory whose messages carry the embedding of the partner."""

from typing import Literal

from torch import Tensor

from graphseq.models.temporal.memory_network import MemoryNetwork, MemoryUpdate, event_types
from graphseq.nn.temporal.embeddings import TemporalAttentionEmbedding
from graphseq.nn.temporal.memory import NodeMemory
from graphseq.nn.temporal.pres import PRESCorrector
from graphseq.nn.temporal.time_encoding import TimeEncoder

__all__ = ["DyRep"]


class DyRep(MemoryNetwork):
    """Recurrent memory whose messages carry the embedding of the partner, an attention over its neighbourhood.

    Source: DyRep (Trivedi et al., ICLR 2019) in the form of arXiv 2006.10637, table 1: RNN updater, memory as
    embedding, the attention embedding of the other end in the message. Differs from the former: mail has no gradient,
    as in the code of the latter, so that the attention keeps its first weights.

    Args:
        num_nodes: number of nodes.
        edge_channels: width of the event features, 0 without.
        memory_dim: size of a memory and of an embedding.
        time_dim: width of an encoded time.
        num_neighbors: number of neighbours looked up for each node, the most recent ones.
        num_heads: number of attention heads; it must divide ``memory_dim + time_dim``.
        dropout: probability of dropping an attention weight, in [0, 1).
        time_init: initial frequencies of the time encoder, see :class:`~graphseq.nn.TimeEncoder`.
        corrector: PRES corrector of the memories; None for no correction.
        mean_gap: mean time between events of a node, the time scale of the corrector; linked from the data on the
            command line.

    Shape:
        batch of B events with M negatives each -> logits (B, 1 + M)

    Raises:
        ValueError: if a size is out of range.

    Example:
        >>> DyRep(num_nodes=9).embedding.num_neighbors
        10
    """

    def __init__(
        self,
        num_nodes: int,
        edge_channels: int = 0,
        *,
        memory_dim: int = 100,
        time_dim: int = 100,
        num_neighbors: int = 10,
        num_heads: int = 2,
        dropout: float = 0.1,
        time_init: Literal["geometric", "uniform"] = "geometric",
        corrector: PRESCorrector | None = None,
        mean_gap: float | None = None,
    ) -> None:
        time_encoder, types = TimeEncoder(time_dim, init=time_init), event_types(corrector)
        memory = NodeMemory(num_nodes, memory_dim, edge_channels, time_encoder, updater="rnn", num_event_types=types)
        embedding = TemporalAttentionEmbedding(
            memory_dim, memory_dim, edge_channels, time_dim, num_neighbors, 1, num_heads, dropout
        )
        super().__init__(memory, embedding, time_encoder, corrector=corrector, mean_gap=mean_gap)

    def decoded(self, update: MemoryUpdate) -> Tensor:
        """Return the memories of the rows.

        Args:
            update: memories and embeddings of the batch.
        """
        return update.memory.index_select(0, update.plan.layers[0].position)

    def partner(self, update: MemoryUpdate) -> Tensor:
        """Return the embeddings of the endpoints.

        Args:
            update: memories and embeddings of the batch.
        """
        return update.embedding.index_select(0, update.plan.row[: 2 * len(update.plan.batch)])
