"""Networks with a memory of nodes: reading, correction, embedding, scoring and writing of memories."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from graphseq.core.elastic import Elastic
from graphseq.core.errors import DataError
from graphseq.core.events import EventBatch
from graphseq.core.spec import Recorded
from graphseq.nn.temporal.decoder import LinkDecoder
from graphseq.nn.temporal.embeddings import TemporalEmbedding
from graphseq.nn.temporal.memory import MemoryRead, NodeMemory, reset_children
from graphseq.nn.temporal.plan import Distinct, Plan, plan_batch
from graphseq.nn.temporal.pres import PRESCorrector
from graphseq.nn.temporal.time_encoding import TimeEncoder

__all__ = ["MemoryNetwork", "MemoryUpdate"]


@dataclass
class MemoryUpdate:
    """Memories and embeddings of a batch, to be committed after its loss is computed.

    Args:
        plan: the batch with its U distinct nodes and R rows to score.
        read: memories and mail as they were read; None for a network without memory.
        memory: memories from which the embeddings were made, corrected where there is a corrector, with gradient
            (U, D).
        embedding: embedding of each row (R, C).

    Example:
        >>> from graphseq.models import JODIE
        >>> one = torch.tensor([1])
        >>> batch = EventBatch(one, one + 1, one, torch.zeros(1, 0), one, start=1)
        >>> JODIE(num_nodes=3, memory_dim=4).encode(batch).memory.shape
        torch.Size([2, 4])
    """

    plan: Plan
    read: MemoryRead | None
    memory: Tensor
    embedding: Tensor

    @property
    def previous(self) -> Tensor:
        """Memories before their mail, (U, D); those of a network without memory are its zeros."""
        return self.memory if self.read is None else self.read.previous

    @property
    def pending(self) -> Tensor:
        """Whether a node had mail, bool (U,)."""
        return torch.zeros_like(self.plan.nodes, dtype=torch.bool) if self.read is None else self.read.pending


class MemoryNetwork(Recorded, Elastic):
    r"""A memory for each node, an embedding of memories, and a decoder that scores pairs of embeddings.

    The steps of the paper for a batch of events that start at stream position a::

        earlier batches                      this batch of events and negatives
             |                                      |
             v                                      v
        memory (N, D) -- read: message, update --> z (U, D) --[corrector]--> embed --> h (R, C) --> decoder
        mail (N, ...)                               |                                                 |
             ^                                      |                                                 v
             +------- commit: store, aggregate -----+  after the loss                    logits (B, 1 + M)

    1. **message, update**: memories of all endpoints and of their neighbours before a, with the mail of earlier
       batches applied (:meth:`NodeMemory.read`);
    2. **embed**: embeddings of the endpoints, and logits of events and negatives;
    3. **aggregate**: after the loss, :meth:`commit` stores the memories of the endpoints of the events and aggregates
       the raw messages of the events into new mail (:meth:`NodeMemory.commit`).

    Step 2 never sees an event of its own batch; negatives write nothing. :meth:`forward` is steps 1 and 2 and changes
    no state. All state is in buffers, so a checkpoint holds it.

    Source: arXiv 2006.10637, algorithm 2. Differs from it: none known.

    Args:
        memory: memory of the nodes; None for a network without memory, whose nodes start from zeros.
        embedding: module that turns memories into embeddings.
        time_encoder: encoder of time differences, the same module as in the memory.
        decoder: module that scores pairs; None for a :class:`~graphseq.nn.LinkDecoder` of the embedding's width. It is
            called with embeddings, rows of sources (B, 1) or (B, 1 + M), and rows of destinations (B, 1 + M).
        corrector: PRES corrector between memory and embedding; None for no correction.
        num_nodes: number of nodes; required without ``memory``.
        dim: size of a memory; required without ``memory``.
        mean_gap: mean time between events of a node, the time scale of the corrector; None leaves the corrector's own.

    Shape:
        batch of B events with M negatives each -> logits (B, 1 + M), the event itself in column 0

    Raises:
        ValueError: if ``memory`` is None and the sizes are missing, or a corrector is given without a memory.

    Example:
        >>> from graphseq.nn import IdentityEmbedding, NodeMemory, TimeEncoder
        >>> time_encoder = TimeEncoder(4)
        >>> network = MemoryNetwork(NodeMemory(5, 8, 0, time_encoder), IdentityEmbedding(8), time_encoder)
        >>> one = torch.tensor([1])
        >>> network(EventBatch(one, one + 1, one, torch.zeros(1, 0), one, start=1, neg_dst=one[None] + 2)).shape
        torch.Size([1, 2])
    """

    def __init__(
        self,
        memory: NodeMemory | None,
        embedding: TemporalEmbedding,
        time_encoder: TimeEncoder,
        decoder: nn.Module | None = None,
        *,
        corrector: PRESCorrector | None = None,
        num_nodes: int | None = None,
        dim: int | None = None,
        mean_gap: float | None = None,
    ) -> None:
        super().__init__()
        if memory is not None:
            num_nodes, dim = memory.num_nodes, memory.dim
        elif num_nodes is None or dim is None:
            raise ValueError(
                "memory, num_nodes or dim is missing; give a memory, or num_nodes and dim for a network without memory"
            )
        if corrector is not None:
            if memory is None:
                raise ValueError("a corrector corrects memories: give a memory, or no corrector")
            corrector.materialize(num_nodes, dim, mean_gap)
        self.dim = dim
        self.memory = memory
        self.embedding = embedding
        self.time_encoder = time_encoder
        self.decoder = decoder if decoder is not None else LinkDecoder(embedding.out_channels)
        self.corrector = corrector
        self.distinct = Distinct(num_nodes)

    @property
    def num_nodes(self) -> int:
        """Number of nodes."""
        return len(self.distinct.place)

    @property
    def msg_channels(self) -> int | None:
        """Width of the event features the network was built for; None if it uses none."""
        return self.embedding.msg_channels if self.memory is None else self.memory.msg_channels

    def reset_parameters(self) -> None:
        """Reinitialise all parameters; the state is unchanged, see :meth:`reset_state`."""
        reset_children(self)

    def forward(self, data: EventBatch) -> Tensor:
        """Return the logits of a batch and change no state.

        Args:
            data: events with their negatives.
        """
        return self.forward_with_update(data)[0]

    def forward_with_update(self, data: EventBatch) -> tuple[Tensor, MemoryUpdate]:
        """Return the logits of a batch, and the update that :meth:`commit` writes after the loss.

        Args:
            data: events with their negatives.
        """
        update = self.encode(data)
        return self._score(update), update

    def encode(self, data: EventBatch) -> MemoryUpdate:
        """Return memories and embeddings of all endpoints of a batch, before its events happen.

        Args:
            data: events, with or without negatives.

        Raises:
            DataError: if a node is not below ``num_nodes``, times are neither int64 nor float64, or events have another
                width than the network was built for.
        """
        plan = self._plan(data)
        if self.memory is None:
            z = self.time_encoder.weight.new_zeros(len(plan.nodes), self.dim)  # (U, D)
            last_update = torch.zeros(len(plan.nodes), dtype=torch.float64, device=z.device)
            return MemoryUpdate(plan, None, z, self.embedding(z, plan, last_update, self.time_encoder))
        read = self.memory.read(plan.nodes)
        z = read.measured if self.corrector is None else self._correct(plan, read, self.corrector)  # (U, D)
        h = self.embedding(z, plan, read.last_update, self.time_encoder)  # (R, C)
        return MemoryUpdate(plan, read, z, h)

    def _plan(self, data: EventBatch) -> Plan:
        """Plan a batch for the embedding after checking that it fits the network."""
        embedding = self.embedding
        if self.msg_channels not in (None, data.msg.size(1)):
            raise DataError(f"events have {data.msg.size(1)} features; the network was built for {self.msg_channels}")
        if data.t.dtype not in (torch.int64, torch.float64):
            raise DataError(f"t is {data.t.dtype}; give int64 or float64, since float32 cannot resolve single seconds")
        try:
            return plan_batch(
                data,
                self.distinct,
                embedding.num_neighbors,
                embedding.num_layers,
                share_rows=embedding.share_rows,
                share_lookups=embedding.share_lookups,
            )
        except (IndexError, RuntimeError):
            self._refuse_unknown(data)
            raise

    @staticmethod
    def _correct(plan: Plan, read: MemoryRead, corrector: PRESCorrector) -> Tensor:
        """Return the corrected memories (U, D)."""
        return corrector(
            plan.nodes,
            read.previous,
            read.measured,
            read.pending,
            elapsed=read.elapsed,
            num_events=read.num_events,
            type_counts=read.type_counts,
        )

    def _score(self, update: MemoryUpdate) -> Tensor:
        """Return the logits (B, 1 + M) of a batch from its embeddings."""
        plan, batch = update.plan, update.plan.batch
        events, row = len(batch), plan.row
        negatives = 0 if batch.neg_dst is None else batch.neg_dst.size(1)
        end = (2 + negatives) * events
        source, happened, drawn = row[:events, None], row[events : 2 * events, None], row[2 * events : end]
        if negatives and batch.neg_src is not None:
            source = torch.cat([source, row[end:].view(events, negatives)], dim=1)
        destination = torch.cat([happened, drawn.view(events, negatives)], dim=1)
        return self.decoder(self.decoded(update), source, destination)

    def decoded(self, update: MemoryUpdate) -> Tensor:
        """Return the input of the decoder, one vector for each row: the embeddings.

        Args:
            update: memories and embeddings of the batch.
        """
        return update.embedding

    def partner(self, update: MemoryUpdate) -> Tensor | None:
        """Return the vectors sent to the partner of each endpoint in place of its memory (2 B, D); None for memories.

        Args:
            update: memories and embeddings of the batch.
        """
        return None

    @torch.no_grad()
    def commit(self, update: MemoryUpdate) -> None:
        """Write memories and mail of a batch, before the optimiser's step, so that they are those of the loss.

        Args:
            update: memories and embeddings that :meth:`forward_with_update` returned.
        """
        if self.memory is None or update.read is None:
            return
        read, stored = update.read, update.memory
        if self.corrector is not None:
            written = torch.zeros_like(read.pending).index_fill_(0, update.plan.endpoint, True)
            self.corrector.update(
                update.plan.nodes,
                read.previous,
                update.memory.detach(),
                read.pending & written,
                elapsed=read.elapsed,
                num_events=read.num_events,
                type_counts=read.type_counts,
            )
            stored = update.memory if self.corrector.persist else read.measured
        self.memory.commit(update.plan, read, stored, self.partner(update))

    def _state_modules(self) -> dict[str, nn.Module]:
        modules = {"memory": self.memory, "corrector": self.corrector}
        return {name: module for name, module in modules.items() if module is not None}

    def reset_state(self) -> None:
        """Reset the state to that before the first event."""
        if self.memory is not None:
            self.memory.reset_state()
        if self.corrector is not None:
            self.corrector.reset_state()

    def state_buffers(self) -> dict[str, Tensor]:
        """Return copies of all state that events have written, by name."""
        return {
            f"{name}.{key}": buffer.clone()
            for name, module in self._state_modules().items()
            for key, buffer in module.named_buffers(recurse=False)
        }

    @torch.no_grad()
    def load_state_buffers(self, buffers: dict[str, Tensor]) -> None:
        """Restore a state that :meth:`state_buffers` returned.

        Args:
            buffers: copies of the state by name.

        Raises:
            ValueError: if names or shapes are not those of this network.
        """
        own = {
            f"{name}.{key}": buffer
            for name, module in self._state_modules().items()
            for key, buffer in module.named_buffers(recurse=False)
        }
        different = [name for name in own.keys() | buffers.keys() if _shape(own, name) != _shape(buffers, name)]
        if different:
            raise ValueError(
                f"the state does not fit: {sorted(different)[0]} is {_shape(buffers, sorted(different)[0])} there and "
                f"{_shape(own, sorted(different)[0])} here"
            )
        for name, buffer in own.items():
            buffer.copy_(buffers[name])

    def resize(self, num_nodes: int) -> None:
        """Allocate more nodes, whose memory starts at zero.

        Args:
            num_nodes: new number of nodes, at least the current one.

        Raises:
            ValueError: if ``num_nodes`` is smaller, or a corrector keeps moments by node.
        """
        if num_nodes < self.num_nodes:
            raise ValueError(f"num_nodes is {num_nodes}; the network knows {self.num_nodes} nodes and cannot shrink")
        if self.corrector is not None and num_nodes != self.num_nodes:
            raise ValueError(
                "a network with a corrector cannot grow: its moments are kept by node; build it with more num_nodes"
            )
        if self.memory is not None:
            self.memory.resize(num_nodes)
        self.distinct = Distinct(num_nodes).to(self.distinct.place.device)

    def make_room(self, saved: Mapping[str, Tensor]) -> None:
        """Allocate the number of nodes of a saved state, which may be larger than that of the constructor.

        Args:
            saved: tensors of a saved state by name.
        """
        memory = saved.get("memory.memory")
        if self.corrector is None and memory is not None and memory.dim() == 2 and len(memory) > self.num_nodes:
            self.resize(len(memory))

    def _refuse_unknown(self, data: EventBatch) -> None:
        """Say which node is unknown; called only when listing the nodes has failed, since the check costs time."""
        ids = [data.src, data.dst, *(part for part in (data.neg_dst, data.neg_src) if part is not None)]
        for part in ids:
            low, high = (int(bound) for bound in part.aminmax()) if part.numel() else (0, 0)
            if low < 0 or high >= self.num_nodes:
                raise DataError(
                    f"the batch names node {high if low >= 0 else low}; the network knows nodes 0 to "
                    f"{self.num_nodes - 1}. Build it with more num_nodes, or call resize"
                )


def event_types(corrector: PRESCorrector | None) -> int:
    """Return the number of event types that a memory counts for its corrector; 0 if the corrector has one component."""
    return 0 if corrector is None or corrector.num_components == 1 else corrector.num_components


def _shape(buffers: dict[str, Tensor], name: str) -> tuple[int, ...] | str:
    return tuple(buffers[name].shape) if name in buffers else "absent"
