"""What networks with a memory have in common: who is read, scored and written, and in which order."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

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
    """What a batch leaves to be written once its loss has been taken.

    Args:
        plan: the batch and its nodes (U).
        read: memories and mail as they were read; None for a network without memory.
        memory: memories that the embeddings were made of, corrected where there is a corrector, with gradient (U, D).
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


class MemoryNetwork(Recorded, nn.Module):
    r"""A memory for each node, an embedding of memories, and a decoder that scores pairs of embeddings.

    For a batch of events that start at stream position a:

    1. memories of all endpoints and of their neighbours before a, with the mail of earlier batches applied;
    2. embeddings of the endpoints, and logits of events and negatives;
    3. after the loss, :meth:`commit` stores the memories of the events' endpoints and puts down the events' mail.

    Step 2 never sees an event of its own batch; negatives write nothing. :meth:`forward` is steps 1 and 2 and changes
    no state. All state is in buffers, so a checkpoint holds it.

    Source: arXiv 2006.10637, algorithm 2. Differs from it: none known.

    Args:
        memory: memory of the nodes; None for a network without, whose nodes start from zeros.
        embedding: from memories to embeddings.
        time_encoder: encoder of time differences, the one the memory has.
        decoder: scores pairs; default a :class:`~graphseq.nn.LinkDecoder` of the embedding's width. Called as that is,
            with embeddings, rows of sources (B, 1) or (B, 1 + M), and rows of destinations (B, 1 + M).
        corrector: PRES, between memory and embedding; None for none.
        num_nodes: number of nodes; needed without ``memory``.
        dim: size of a memory; needed without ``memory``.
        mean_gap: mean time between events of a node, the time scale of the corrector.

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
            raise ValueError("a network without memory needs num_nodes and dim")
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

    def reset_parameters(self) -> None:
        """Set all parameters to their first values; the state stays, see :meth:`reset_state`."""
        reset_children(self)

    def forward(self, data: EventBatch) -> Tensor:
        """Return the logits of a batch and change no state.

        Args:
            data: events with their negatives.
        """
        return self.forward_with_update(data)[0]

    def forward_with_update(self, data: EventBatch) -> tuple[Tensor, MemoryUpdate]:
        """Return the logits of a batch, and what :meth:`commit` writes once the loss is taken.

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
        embedding = self.embedding
        known = embedding.msg_channels if self.memory is None else self.memory.msg_channels
        if known is not None and data.msg.size(1) != known:
            raise DataError(f"events have {data.msg.size(1)} features; the network was built for {known}")
        if data.t.dtype not in (torch.int64, torch.float64):
            raise DataError(f"t is {data.t.dtype}; times are int64 or float64, since float32 tells no seconds apart")
        try:
            plan = plan_batch(
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
        if self.memory is None:
            z = self.time_encoder.weight.new_zeros(len(plan.nodes), self.dim)
            last_update = torch.zeros(len(plan.nodes), dtype=torch.float64, device=z.device)
            return MemoryUpdate(plan, None, z, embedding(z, plan, last_update, self.time_encoder))
        read = self.memory.read(plan.nodes)
        z = read.measured
        if self.corrector is not None:
            z = self.corrector(
                plan.nodes,
                read.previous,
                read.measured,
                read.pending,
                elapsed=read.elapsed,
                num_events=read.num_events,
                type_counts=read.type_counts,
            )
        return MemoryUpdate(plan, read, z, embedding(z, plan, read.last_update, self.time_encoder))

    def _score(self, update: MemoryUpdate) -> Tensor:
        """Return the logits (B, 1 + M) of a batch from what was encoded."""
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
        """Return what the decoder scores, for each row: the embeddings.

        Args:
            update: what was encoded.
        """
        return update.embedding

    def partner(self, update: MemoryUpdate) -> Tensor | None:
        """Return what mail carries of the other end, by endpoint (2 B, D); None for its memory.

        Args:
            update: what was encoded.
        """
        return None

    @torch.no_grad()
    def commit(self, update: MemoryUpdate) -> None:
        """Write memories and mail of a batch; before the optimiser's step, so that they are those of the loss.

        Args:
            update: of :meth:`forward_with_update`.
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
        """Forget all events: the state before the first."""
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
        """Put back what :meth:`state_buffers` returned.

        Args:
            buffers: copies by name.

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
        """Make room for nodes that the network was not built for; their memory starts at zero.

        Args:
            num_nodes: at least the present number.

        Raises:
            ValueError: if it is less, or a corrector keeps moments by node.
        """
        if num_nodes < self.num_nodes:
            raise ValueError(f"num_nodes is {num_nodes}; the network knows {self.num_nodes} nodes and cannot shrink")
        if self.corrector is not None and num_nodes != self.num_nodes:
            raise ValueError("a network with a corrector cannot grow: its moments are kept by node")
        if self.memory is not None:
            self.memory.resize(num_nodes)
        self.distinct = Distinct(num_nodes).to(self.distinct.place.device)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        saved = state_dict.get(f"{prefix}memory.memory")
        # the constructor's arguments know nothing of the nodes that came later
        if self.corrector is None and isinstance(saved, Tensor) and saved.dim() == 2 and len(saved) > self.num_nodes:
            self.resize(len(saved))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _refuse_unknown(self, data: EventBatch) -> None:
        """Say which node is unknown. Asked only when listing the nodes has failed: looking costs time in each batch."""
        ids = [data.src, data.dst, *(part for part in (data.neg_dst, data.neg_src) if part is not None)]
        for part in ids:
            low, high = (int(bound) for bound in part.aminmax()) if part.numel() else (0, 0)
            if low < 0 or high >= self.num_nodes:
                raise DataError(
                    f"the batch names node {high if low >= 0 else low}; the network knows nodes 0 to "
                    f"{self.num_nodes - 1}. Build it with more num_nodes, or call resize"
                )


def _shape(buffers: dict[str, Tensor], name: str) -> tuple[int, ...] | str:
    return tuple(buffers[name].shape) if name in buffers else "absent"
