"""JODIE: recurrent memory that drifts with the time since a node's last event."""

from typing import Literal

from graphseq.models.temporal.memory_network import MemoryNetwork, event_types
from graphseq.nn.temporal.embeddings import TimeProjectionEmbedding
from graphseq.nn.temporal.memory import NodeMemory
from graphseq.nn.temporal.pres import PRESCorrector
from graphseq.nn.temporal.time_encoding import TimeEncoder

__all__ = ["JODIE"]


class JODIE(MemoryNetwork):
    """Recurrent memory whose embedding drifts with the time since a node's last event.

    Source: arXiv 1908.01207 in the form of arXiv 2006.10637, table 1: RNN updater, last message, time projection, a
    decoder in place of the regression on item embeddings.

    Args:
        num_nodes: number of nodes.
        edge_channels: width of the event features, 0 without.
        time_statistics: mean and deviation of the gaps of sources and of destinations on the training split; linked
            from the data on the command line. None for mean 0 and deviation 1, which leaves times
            as they are.
        memory_dim: size of a memory.
        time_dim: width of an encoded time.
        updater: recurrent cell that updates memories, ``rnn`` or ``gru``.
        time_init: initial frequencies of the time encoder, see :class:`~graphseq.nn.TimeEncoder`.
        corrector: PRES corrector of the memories; None for no correction.
        mean_gap: mean time between events of a node, the time scale of the corrector; linked from the data on the
            command line.

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
        time_encoder, types = TimeEncoder(time_dim, init=time_init), event_types(corrector)
        memory = NodeMemory(num_nodes, memory_dim, edge_channels, time_encoder, updater=updater, num_event_types=types)
        embedding = TimeProjectionEmbedding(memory_dim, time_statistics or [0.0, 1.0, 0.0, 1.0])
        super().__init__(memory, embedding, time_encoder, corrector=corrector, mean_gap=mean_gap)
