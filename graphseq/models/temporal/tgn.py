"""Networks that remember: TGN, JODIE, DyRep and the memory-less TGAT."""

from typing import Literal

from torch import Tensor

from graphseq.models.temporal.memory_network import MemoryNetwork, MemoryUpdate
from graphseq.nn.temporal.embeddings import TemporalAttentionEmbedding, TemporalEmbedding, TimeProjectionEmbedding
from graphseq.nn.temporal.memory import NodeMemory
from graphseq.nn.temporal.pres import PRESCorrector
from graphseq.nn.temporal.time_encoding import TimeEncoder

__all__ = ["JODIE", "TGAT", "TGN", "DyRep"]


class TGN(MemoryNetwork):
    """Temporal graph network: gated memory, last message, attention over the most recent neighbours.

    Source: arXiv 2006.10637, TGN-attn; sizes of its section 5. Differs from it: none known; see
    :class:`~graphseq.nn.NodeMemory` for what differs from its code.

    Args:
        num_nodes: number of nodes.
        edge_channels: width of the event features, 0 without.
        memory_dim: size of a memory.
        time_dim: width of an encoded time.
        embedding_dim: width of an embedding.
        num_neighbors: neighbours of each node, the latest ones.
        num_layers: layers of attention.
        num_heads: heads; they divide ``memory_dim + time_dim``.
        dropout: of attention weights, in [0, 1).
        aggregation: of several messages to a node in one batch, ``last`` or ``mean``.
        embedding: another embedding than attention; ``num_neighbors`` to ``dropout`` are then its own business.
        time_init: how the time encoder starts, see :class:`~graphseq.nn.TimeEncoder`.
        corrector: PRES, or None.
        mean_gap: mean time between events of a node, for the corrector; linked from the data on the command line.

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
        time_encoder = TimeEncoder(time_dim, init=time_init)
        types = 0 if corrector is None or corrector.num_components == 1 else corrector.num_components
        memory = NodeMemory(
            num_nodes, memory_dim, edge_channels, time_encoder, aggregation=aggregation, num_event_types=types
        )
        if embedding is None:
            embedding = TemporalAttentionEmbedding(
                memory_dim, embedding_dim, edge_channels, time_dim, num_neighbors, num_layers, num_heads, dropout
            )
        super().__init__(memory, embedding, time_encoder, corrector=corrector, mean_gap=mean_gap)


class JODIE(MemoryNetwork):
    """Recurrent memory whose embedding drifts with the time since a node's last event.

    Source: arXiv 1908.01207 in the form of arXiv 2006.10637, table 1: RNN updater, last message, time projection, a
    decoder in place of the regression on item embeddings.

    Args:
        num_nodes: number of nodes.
        edge_channels: width of the event features, 0 without.
        time_statistics: mean and deviation of the gaps of sources and of destinations on the training split; linked
            from the data on the command line. Default 0 and 1: times as they are.
        memory_dim: size of a memory.
        time_dim: width of an encoded time.
        updater: ``rnn``, or ``gru``.
        time_init: how the time encoder starts, see :class:`~graphseq.nn.TimeEncoder`.
        corrector: PRES, or None.
        mean_gap: mean time between events of a node, for the corrector; linked from the data.

    Shape:
        batch of B events with M negatives each -> logits (B, 1 + M)

    Raises:
        ValueError: if a size is out of range.

    Example:
        >>> JODIE(num_nodes=9).embedding.num_neighbors
        0
    """

    def __init__(
        self,
        num_nodes: int,
        edge_channels: int = 0,
        time_statistics: list[float] | None = None,
        *,
        memory_dim: int = 100,
        time_dim: int = 100,
        updater: Literal["gru", "rnn"] = "rnn",
        time_init: Literal["geometric", "uniform"] = "geometric",
        corrector: PRESCorrector | None = None,
        mean_gap: float | None = None,
    ) -> None:
        time_encoder = TimeEncoder(time_dim, init=time_init)
        types = 0 if corrector is None or corrector.num_components == 1 else corrector.num_components
        memory = NodeMemory(num_nodes, memory_dim, edge_channels, time_encoder, updater=updater, num_event_types=types)
        embedding = TimeProjectionEmbedding(memory_dim, time_statistics or [0.0, 1.0, 0.0, 1.0])
        super().__init__(memory, embedding, time_encoder, corrector=corrector, mean_gap=mean_gap)


class DyRep(MemoryNetwork):
    """Recurrent memory that is told the embedding of the partner, an attention over its neighbourhood.

    Source: DyRep (Trivedi et al., ICLR 2019) in the form of arXiv 2006.10637, table 1: RNN updater, memory as
    embedding, the attention embedding of the other end in the message. Differs from the former: mail has no gradient,
    as in the code of the latter, so that the attention keeps its first weights.

    Args:
        num_nodes: number of nodes.
        edge_channels: width of the event features, 0 without.
        memory_dim: size of a memory and of an embedding.
        time_dim: width of an encoded time.
        num_neighbors: neighbours of each node, the latest ones.
        num_heads: heads; they divide ``memory_dim + time_dim``.
        dropout: of attention weights, in [0, 1).
        time_init: how the time encoder starts, see :class:`~graphseq.nn.TimeEncoder`.
        corrector: PRES, or None.
        mean_gap: mean time between events of a node, for the corrector; linked from the data.

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
        time_encoder = TimeEncoder(time_dim, init=time_init)
        types = 0 if corrector is None or corrector.num_components == 1 else corrector.num_components
        memory = NodeMemory(num_nodes, memory_dim, edge_channels, time_encoder, updater="rnn", num_event_types=types)
        embedding = TemporalAttentionEmbedding(
            memory_dim, memory_dim, edge_channels, time_dim, num_neighbors, 1, num_heads, dropout
        )
        super().__init__(memory, embedding, time_encoder, corrector=corrector, mean_gap=mean_gap)

    def decoded(self, update: MemoryUpdate) -> Tensor:
        """Return the memories of the rows.

        Args:
            update: what was encoded.
        """
        return update.memory.index_select(0, update.plan.layers[0].position)

    def partner(self, update: MemoryUpdate) -> Tensor:
        """Return the embeddings of the endpoints.

        Args:
            update: what was encoded.
        """
        return update.embedding.index_select(0, update.plan.row[: 2 * len(update.plan.batch)])


class TGAT(MemoryNetwork):
    """Attention over recent neighbours without memory: structure, times and event features alone.

    Source: arXiv 2002.07962 in the form of arXiv 2006.10637 (TGN without memory): the most recent neighbours where
    the paper samples, and zeros as node features.

    Args:
        num_nodes: number of nodes.
        edge_channels: width of the event features, 0 without.
        embedding_dim: width of an embedding.
        time_dim: width of an encoded time.
        num_neighbors: neighbours of each node, the latest ones.
        num_layers: layers of attention.
        num_heads: heads; they divide ``embedding_dim + time_dim``.
        dropout: of attention weights, in [0, 1).
        time_init: how the time encoder starts, see :class:`~graphseq.nn.TimeEncoder`.

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
