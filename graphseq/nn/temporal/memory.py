"""Memory of every node with its pending mail: the message, aggregate and update steps of TGN."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphseq.core.events import EventBatch
from graphseq.core.spec import Recorded
from graphseq.nn.temporal.plan import Plan
from graphseq.nn.temporal.time_encoding import TimeEncoder
from graphseq.ops.gru import mail_gru
from graphseq.ops.nodes import last_events
from graphseq.ops.processor import reads_are_free

__all__ = ["MemoryRead", "NodeMemory", "mail_gru"]


@dataclass
class MemoryRead:
    """Result of :meth:`NodeMemory.read` for U nodes.

    Args:
        previous: memories before their mail, without gradient (U, D).
        measured: memories after their mail, with gradient to the updater (U, D).
        pending: whether a node had mail, bool (U,).
        last_update: time of the last event of each node, its mail included, float64 (U,).
        elapsed: time between the last event in the memory and the event of the mail, float64 (U,).
        num_events: number of events aggregated in the mail, 0 without mail (U,).
        type_counts: number of events of each type aggregated in the mail (U, C); None if the memory does not count
            types.

    Example:
        >>> memory = NodeMemory(3, 4, 0, TimeEncoder(2))
        >>> memory.read(torch.tensor([0, 2])).pending
        tensor([False, False])
    """

    previous: Tensor
    measured: Tensor
    pending: Tensor
    last_update: Tensor
    elapsed: Tensor
    num_events: Tensor
    type_counts: Tensor | None


class NodeMemory(Recorded, nn.Module):
    r"""Memory of each node, updated by the mail of the last batch in which the node took part.

    .. math::
        \text{message:}\quad m_e = [\,s_u \,\Vert\, s_v \,\Vert\, x_e \,\Vert\, \phi(t_e - t_u)\,], \qquad
        \text{aggregate:}\quad \bar m_u = \operatorname{agg}_{e \ni u} m_e, \qquad
        \text{update:}\quad s_u \leftarrow \mathrm{cell}(\mathrm{message}(\bar m_u), s_u)

    for the events e of node u with partners v in one batch, where :math:`t_u` is the time of u's last update. The
    steps are divided between two calls::

        events of a batch --> raw messages --> aggregate --> mail           commit, after the loss of the batch
        mail, memory ------> message -------> update ----> measured memory  read, for the nodes of a later batch

    :meth:`read` applies waiting mail to copies, differentiably and for the queried nodes only; :meth:`commit` stores
    the memories of the endpoints of the events and aggregates the events into new mail. Mail holds the values at the
    time of the event: a partner that is updated later changes nothing.

    Of several events of a node in one batch, ``last`` keeps the one at the largest stream position, over both roles;
    ``mean`` averages their messages, with the encoded times as they were when the mail was aggregated. A self-loop is
    one event and one message of its node.

    Source: arXiv 2006.10637, sections 3.1 and 3.2. Differs from it: none known; from its code: nodes in both roles
    get the last of all their messages, a self-loop sends one message instead of two equal ones, and the time encoder
    learns from mail too when the aggregation is ``last``.

    Args:
        num_nodes: number of nodes N.
        dim: size D of a memory.
        msg_channels: width D_e of the event features, 0 without features.
        time_encoder: encoder of time differences, shared with the network that owns the memory.
        updater: recurrent cell that updates memories, ``gru`` or ``rnn`` (tanh).
        aggregation: aggregation of several messages to a node in one batch, ``last`` or ``mean``.
        message: module from raw messages (U, 2 D + D_e + D_t) to messages; None leaves raw messages as they are.
        message_dim: width of the output of ``message``; needed with ``message``.
        num_event_types: number C of event types to count for a :class:`~graphseq.nn.PRESCorrector`, 0 for none. Types
            above C - 1 count as C - 1; events without a type are of type 0 for their source and 1 for their
            destination.

    Shape:
        state: memory (N, D), mail (N, D + D_e), float64 times (N,): 8 D + 4 D_e + 21 bytes for each node, with ``mean``
            4 D_t more. Times stay float64 whatever type the module is moved to.

    Raises:
        ValueError: for sizes below 1 or unknown choices.
        TypeError: if ``message`` or ``time_encoder`` is not a module.

    Example:
        >>> memory = NodeMemory(num_nodes=5, dim=8, msg_channels=0, time_encoder=TimeEncoder(4))
        >>> memory.read(torch.tensor([1, 3])).measured.shape
        torch.Size([2, 8])
    """

    memory: Tensor
    last_update: Tensor
    mail: Tensor
    mail_t: Tensor
    mail_time: Tensor | None
    pending: Tensor
    num_events: Tensor
    type_counts: Tensor | None

    def __init__(
        self,
        num_nodes: int,
        dim: int,
        msg_channels: int,
        time_encoder: TimeEncoder,
        *,
        updater: Literal["gru", "rnn"] = "gru",
        aggregation: Literal["last", "mean"] = "last",
        message: nn.Module | None = None,
        message_dim: int | None = None,
        num_event_types: int = 0,
    ) -> None:
        super().__init__()
        if num_nodes < 1 or dim < 1 or msg_channels < 0 or num_event_types < 0:
            raise ValueError(
                f"num_nodes is {num_nodes}, dim {dim}, msg_channels {msg_channels}, num_event_types {num_event_types}; "
                "at least 1, 1, 0 and 0 are needed"
            )
        if updater not in ("gru", "rnn") or aggregation not in ("last", "mean"):
            raise ValueError(f"updater is {updater!r}, aggregation {aggregation!r}; use gru or rnn, last or mean")
        if (message is None) != (message_dim is None):
            raise ValueError("one of message and message_dim is missing; give both or neither")
        if message_dim is not None and message_dim < 1:
            raise ValueError(f"message_dim is {message_dim}; it must be at least 1")
        for name, part in (("message", nn.Identity() if message is None else message), ("time_encoder", time_encoder)):
            if not isinstance(part, nn.Module):
                given = part.__name__ if isinstance(part, type) else repr(part)
                raise TypeError(f"{name} is {given}; give a module that is built")
        self.num_nodes, self.dim, self.msg_channels = num_nodes, dim, msg_channels
        self.aggregation = aggregation
        self.time_encoder = time_encoder
        self.message = message
        width = message_dim or 2 * dim + msg_channels + time_encoder.dim
        self.cell: nn.GRUCell | nn.RNNCell = nn.GRUCell(width, dim) if updater == "gru" else nn.RNNCell(width, dim)
        state = {
            "memory": torch.zeros(num_nodes, dim),
            "last_update": torch.zeros(num_nodes, dtype=torch.float64),
            "mail": torch.zeros(num_nodes, dim + msg_channels),
            "mail_t": torch.zeros(num_nodes, dtype=torch.float64),
            "mail_time": torch.zeros(num_nodes, time_encoder.dim) if aggregation == "mean" else None,
            "pending": torch.zeros(num_nodes, dtype=torch.bool),
            "num_events": torch.zeros(num_nodes, dtype=torch.int32),
            "type_counts": torch.zeros(num_nodes, num_event_types, dtype=torch.int32) if num_event_types else None,
        }
        for name, value in state.items():
            self.register_buffer(name, value)

    def reset_parameters(self) -> None:
        """Reinitialise updater and time encoder, and the message module if it has ``reset_parameters``."""
        reset_children(self)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # seconds since the epoch do not fit into the float32 or bfloat16 that the rest may be cast to
        times = {"last_update": self.last_update, "mail_t": self.mail_t}
        super()._apply(fn, recurse)
        for name, before in times.items():
            moved = getattr(self, name)
            if moved.dtype != before.dtype:
                setattr(self, name, before.to(moved.device))
        return self

    @torch.no_grad()
    def reset_state(self) -> None:
        """Reset the state: zero memories, no mail, times at 0."""
        for buffer in self.buffers(recurse=False):
            buffer.zero_()

    @torch.no_grad()
    def resize(self, num_nodes: int) -> None:
        """Allocate more nodes and keep the state of the others; new nodes have the initial state.

        Args:
            num_nodes: new number of nodes, at least the current one.

        Raises:
            ValueError: if ``num_nodes`` is smaller.
        """
        if num_nodes < self.num_nodes:
            raise ValueError(f"num_nodes is {num_nodes}; the memory holds {self.num_nodes} nodes and cannot shrink")
        for name, buffer in list(self.named_buffers(recurse=False)):
            grown = buffer.new_zeros(num_nodes, *buffer.shape[1:])
            grown[: self.num_nodes] = buffer
            setattr(self, name, grown)
        self.num_nodes = num_nodes

    def read(self, nodes: Tensor) -> MemoryRead:
        """Return memories of the nodes with their mail applied (message and update); changes no state.

        Args:
            nodes: node ids, int64 (U,).
        """
        previous = self.memory.index_select(0, nodes)  # (U, D)
        pending = self.pending.index_select(0, nodes)
        known, t = self.last_update.index_select(0, nodes), self.mail_t.index_select(0, nodes)
        elapsed = t - known
        if reads_are_free(nodes.device):
            some = pending.nonzero().squeeze(1)
            new = self._update(*(x.index_select(0, some) for x in (nodes, previous, elapsed)))
            measured = previous.index_copy(0, some, new)
        else:
            measured = torch.where(pending[:, None], self._update(nodes, previous, elapsed), previous)
        counts = None if self.type_counts is None else self.type_counts.index_select(0, nodes)
        # a node without mail has none to come: its mail time is that of its last update
        return MemoryRead(previous, measured, pending, t, elapsed, self.num_events.index_select(0, nodes), counts)

    def _update(self, nodes: Tensor, own: Tensor, elapsed: Tensor) -> Tensor:
        """Return the memories (U, D) updated by the messages of pending mail; finite values for nodes without mail."""
        mail = self.mail.index_select(0, nodes)  # (U, D + D_e)
        stored = None if self.mail_time is None else self.mail_time.index_select(0, nodes)  # (U, D_t)
        if isinstance(self.cell, nn.GRUCell) and self.message is None:
            weights = (self.cell.weight_ih, self.cell.weight_hh, self.cell.bias_ih, self.cell.bias_hh)
            if stored is not None:
                return mail_gru(own, mail, stored, *weights, None, None)
            return mail_gru(own, mail, elapsed, *weights, self.time_encoder.weight, self.time_encoder.bias)
        # the state of a stream adds up rounding errors: it keeps its own precision, as in mail_gru
        with torch.autocast(own.device.type, enabled=False):
            parts = (own, mail, self.time_encoder(elapsed) if stored is None else stored)
            if self.message is not None:
                return self.cell(self.message(torch.cat(parts, dim=1)), own)
            return _recurrent(self.cell, *parts)

    @torch.no_grad()
    def commit(self, plan: Plan, read: MemoryRead, memory: Tensor, partner: Tensor | None = None) -> None:
        """Store the memories of the events' endpoints and aggregate the events of each into its new mail.

        Args:
            plan: plan of the batch; its negatives and neighbours are ignored.
            read: memories and mail as they were read for ``plan.nodes``.
            memory: memories to store and to send to partners (U, D).
            partner: vectors to send in place of memories, for each endpoint, sources first (2 B, D).
        """
        batch, endpoint = plan.batch, plan.endpoint
        if not len(batch):
            return
        events, count = len(batch), int(endpoint.max()) + 1
        nodes = plan.nodes[:count]  # the endpoints of the events are the first of the plan
        once = torch.ones_like(endpoint, dtype=torch.int32)
        once[events:] = batch.src != batch.dst  # a self-loop is one event of its node, not two
        source, num_events = last_events(endpoint, once, count)  # (count,) each
        self.memory.index_copy_(0, nodes, memory.detach()[:count].to(self.memory.dtype))
        self.last_update.index_copy_(0, nodes, read.last_update[:count])
        self.mail_t.index_copy_(0, nodes, batch.t.index_select(0, source % events).double())
        self.pending.index_fill_(0, nodes, True)
        self.num_events.index_copy_(0, nodes, num_events)
        if self.type_counts is not None:
            self.type_counts.index_copy_(0, nodes, self._count_types(batch.event_type, endpoint, once, count))
        # what each endpoint sends to the other end of its event, and where it stands
        sent, row = memory.detach(), endpoint
        if partner is not None:
            sent, row = partner.detach(), torch.arange(2 * events, device=endpoint.device)
        if self.aggregation == "last":
            self._aggregate_last(batch, nodes, sent, row, source)
        else:
            elapsed = torch.cat([batch.t, batch.t]).double() - read.last_update.index_select(0, endpoint)  # (2 B,)
            self._aggregate_mean(batch, nodes, sent.index_select(0, row.roll(events)), elapsed, endpoint, once)

    def _aggregate_last(self, batch: EventBatch, nodes: Tensor, sent: Tensor, row: Tensor, source: Tensor) -> None:
        """Store the raw message of the last event of each node; its time is encoded when the mail is read."""
        sent = sent.index_select(0, row.index_select(0, source))
        msg = batch.msg.index_select(0, source % len(batch))
        self.mail.index_copy_(0, nodes, torch.cat([part.to(self.mail.dtype) for part in (sent, msg)], 1))

    def _aggregate_mean(
        self, batch: EventBatch, nodes: Tensor, sent: Tensor, elapsed: Tensor, endpoint: Tensor, once: Tensor
    ) -> None:
        """Store the mean of the raw messages of each node, and of their encoded times."""
        number = once.new_zeros(len(nodes)).index_add_(0, endpoint, once)
        msg = torch.cat([batch.msg, batch.msg]).to(sent.dtype)
        raw, encoded = torch.cat([sent, msg], 1), self.time_encoder(elapsed)  # (2 B, D + D_e), (2 B, D_t)
        for buffer, value in ((self.mail, raw), (self.mail_time, encoded)):
            if buffer is not None:
                total = buffer.new_zeros(len(nodes), buffer.size(1))
                total.index_add_(0, endpoint, value.to(buffer.dtype) * once[:, None])
                buffer.index_copy_(0, nodes, total / number[:, None])

    def _count_types(self, event_type: Tensor | None, entry: Tensor, once: Tensor, count: int) -> Tensor:
        """Count events by type, or by role (source, destination) where the events have no type."""
        types = 1 if self.type_counts is None else self.type_counts.size(1)
        if event_type is not None:
            kind = torch.cat([event_type, event_type])
        else:
            kind = torch.arange(2, device=entry.device).repeat_interleave(len(entry) // 2)
        flat = entry * types + kind.clamp(0, types - 1)
        return once.new_zeros(count * types).index_add_(0, flat, once).view(count, types)


def _recurrent(cell: nn.RNNCellBase, own: Tensor, mail: Tensor, encoded: Tensor) -> Tensor:
    """Apply an ``RNNCell`` to messages without concatenating them, with the own memory multiplied only once.

    Gradients are then made for the encoded times only, not for memories, which are three quarters of the message.
    """
    of_own, of_mail, of_time = cell.weight_ih.split([part.size(1) for part in (own, mail, encoded)], 1)
    bias = None if cell.bias_ih is None else cell.bias_ih + cell.bias_hh
    total = functional.linear(own, of_own + cell.weight_hh, bias).addmm(mail, of_mail.t())
    return total.addmm(encoded, of_time.t()).tanh()


def reset_children(module: nn.Module) -> None:
    """Call ``reset_parameters`` of every submodule; submodules of one that has it are left to it."""
    for child in module.children():
        if callable(reset := getattr(child, "reset_parameters", None)):
            reset()
        else:
            reset_children(child)
