"""APAN: a network that scores from mailboxes and delivers messages to neighbours afterwards."""

from dataclasses import replace
from typing import Any, cast

from torch import nn

from graphseq.core.events import EventBatch
from graphseq.models.temporal.memory_network import MemoryNetwork, MemoryUpdate, event_types
from graphseq.nn.temporal.apan import APANMemory
from graphseq.nn.temporal.embeddings import IdentityEmbedding
from graphseq.nn.temporal.pres import PRESCorrector

__all__ = ["APAN"]


class APAN(MemoryNetwork):
    r"""Asynchronous propagation attention network: each node attends over its own mailbox; no neighbours are looked up.

    For a batch of events that start at stream position a:

    1. the embedding of each node is encoded from its last one and the mails in its box;
    2. logits of events and negatives from pairs of embeddings;
    3. after the loss, :meth:`commit` stores the embeddings of the events' endpoints and delivers their messages to them
       and to their recent neighbours before a.

    A corrector acts on the embeddings: the stored embedding is its previous state, and the encoded one its measurement.
    Batches need a history for step 3 only; cuts of single events, as ``cut="time"`` gives them, change nothing.

    Source: arXiv 2011.11545; sizes of its code, but embeddings of 100 where that has the width of the event features.
    Differs from it: see :class:`~graphseq.nn.APANEncoder` and :class:`~graphseq.nn.APANMemory`; no dropout in the
    decoder.

    Args:
        num_nodes: number of nodes.
        edge_channels: width of the event features, 0 without; they are projected where it is not ``memory_dim``.
        memory_dim: width of an embedding.
        num_mails: number of mails that a node keeps.
        num_neighbors: number of neighbours of an endpoint that receive its messages, the most recent ones; 0 for none.
        num_heads: number of heads of the attention over mails; it must divide ``memory_dim``.
        dropout: probability of dropping an attention weight or a unit of the encoder, in [0, 1).
        corrector: PRES corrector of the embeddings; None for no correction.
        mean_gap: mean time between events of a node, the time scale of the corrector; linked from the data on the
            command line.

    Shape:
        batch of B events with M negatives each -> logits (B, 1 + M)

    Raises:
        ValueError: if a size is out of range.

    Example:
        >>> import torch
        >>> network, one = APAN(num_nodes=4, memory_dim=8, num_neighbors=0), torch.tensor([1])
        >>> batch = EventBatch(one, one + 1, one, torch.zeros(1, 0), one, start=1, neg_dst=one[None] + 2)
        >>> logits, update = network.forward_with_update(batch)
        >>> network.commit(update)
        >>> logits.shape, network.memory.mailbox.count
        (torch.Size([1, 2]), tensor([0, 1, 1, 0]))
    """

    def __init__(
        self,
        num_nodes: int,
        edge_channels: int = 0,
        *,
        memory_dim: int = 100,
        num_mails: int = 10,
        num_neighbors: int = 20,
        num_heads: int = 2,
        dropout: float = 0.1,
        corrector: PRESCorrector | None = None,
        mean_gap: float | None = None,
    ) -> None:
        memory = APANMemory(
            num_nodes,
            memory_dim,
            edge_channels,
            num_mails=num_mails,
            num_neighbors=num_neighbors,
            num_heads=num_heads,
            dropout=dropout,
            num_event_types=event_types(corrector),
        )
        # the memory is read and written as a NodeMemory is; nothing here encodes times
        super().__init__(
            cast(Any, memory), IdentityEmbedding(memory_dim), cast(Any, None), corrector=corrector, mean_gap=mean_gap
        )

    def encode(self, data: EventBatch) -> MemoryUpdate:
        """Return the embeddings of all endpoints of a batch, before its events happen.

        Args:
            data: events, with or without negatives.

        Raises:
            DataError: if a node is not below ``num_nodes``.
        """
        # nodes are encoded once for the whole batch: no history is looked up, so there is nothing to cut
        return super().encode(replace(data, cut=None))

    def _state_modules(self) -> dict[str, nn.Module]:
        return {**super()._state_modules(), "mailbox": cast(APANMemory, self.memory).mailbox}
