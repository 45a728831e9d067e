"""Encoder and memory of APAN: nodes are encoded from their mailbox, and messages are sent to neighbours afterwards."""

import math
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphseq.core.errors import DataError
from graphseq.core.spec import Recorded
from graphseq.nn.temporal.mailbox import Mailbox
from graphseq.nn.temporal.memory import MemoryRead
from graphseq.nn.temporal.plan import Plan

__all__ = ["APANEncoder", "APANMemory"]


class APANEncoder(Recorded, nn.Module):
    r"""Attention of a node's last embedding over its mails, followed by a perceptron on both.

    .. math::
        x_i = m_i + P e_i + p_i, \qquad
        a = \mathrm{MultiHead}(z, x, x), \qquad
        z' = W_2\, \mathrm{ReLU}(W_1\, \mathrm{dropout}(\mathrm{LayerNorm}([\,z \,\Vert\, a\,])) + b_1) + b_2

    where :math:`m_i` is the i-th mail, newest first, :math:`e_i` the event features it carries beside, P their
    projection and :math:`p_i` a learned embedding of its rank. Without mails :math:`a = 0`.

    The weights of keys are folded into the queries and those of values are applied to weighted sums of mails, so no
    key or value is made for any mail.

    Source: arXiv 2011.11545, section 3 (attention encoder), with the layers and sizes of its code. Differs from that
    code: empty slots of a mailbox are masked; ranks follow the arrival of mails, not their times, which
    is the same in a stream.

    Args:
        dim: width D of an embedding; a multiple of ``num_heads``.
        num_mails: number of mails M that a node keeps.
        num_heads: number of attention heads.
        dropout: probability of dropping an attention weight, or an input of the perceptron, in [0, 1).
        msg_channels: width D_e of event features that are stored beside the mails and projected; 0 for none.

    Shape:
        z (U, D), mail (U, M, D + D_e), mask (U, M) -> (U, D)

    Raises:
        ValueError: if a size is out of range; in ``forward`` if shapes or types do not fit.

    Example:
        >>> encoder = APANEncoder(dim=8, num_mails=3)
        >>> encoder(torch.randn(5, 8), torch.randn(5, 3, 8), torch.rand(5, 3) < 0.5).shape
        torch.Size([5, 8])
    """

    def __init__(
        self, dim: int, num_mails: int = 10, num_heads: int = 2, dropout: float = 0.1, msg_channels: int = 0
    ) -> None:
        super().__init__()
        if min(dim, num_mails, num_heads) < 1 or msg_channels < 0:
            raise ValueError(
                f"dim is {dim}, num_mails {num_mails}, num_heads {num_heads}, msg_channels {msg_channels}; at least "
                "1, 1, 1 and 0 are needed"
            )
        if dim % num_heads:
            raise ValueError(f"dim is {dim}; it must be a multiple of num_heads = {num_heads}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout is {dropout}; it must be in [0, 1)")
        self.dim, self.num_heads, self.dropout = dim, num_heads, dropout
        self.project = nn.Linear(msg_channels, dim, bias=False) if msg_channels else None
        self.rank = nn.Embedding(num_mails, dim)
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim, bias=False)  # a key's bias cancels in the softmax
        self.value = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(2 * dim)
        self.first = nn.Linear(2 * dim, 3 * dim // 2)
        self.second = nn.Linear(3 * dim // 2, dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Reinitialise all weights as ``nn.MultiheadAttention``, ``nn.Embedding`` and ``nn.Linear`` do."""
        for module in (self.project, self.rank, self.out, self.norm, self.first, self.second):
            if module is not None:
                module.reset_parameters()
        for linear in (self.query, self.key, self.value):
            # nn.MultiheadAttention draws the three as one matrix of 3 D rows
            nn.init.xavier_uniform_(linear.weight, gain=math.sqrt(0.5))
        for biased in (self.query, self.value, self.out):
            nn.init.zeros_(biased.bias)

    def forward(self, z: Tensor, mail: Tensor, mask: Tensor) -> Tensor:
        """Return the new embeddings.

        Args:
            z: last embedding of each node.
            mail: mails of each node, newest first, with the event features to be projected in the last columns.
            mask: whether there is such a mail, bool.
        """
        needed = (len(z), self.rank.num_embeddings)
        if mail.dim() != 3 or mail.shape[:2] != needed or mask.shape != needed or mask.dtype != torch.bool:
            raise ValueError(
                f"mail is {tuple(mail.shape)}, mask {mask.dtype} {tuple(mask.shape)} for {len(z)} nodes; "
                f"({needed[0]}, {needed[1]}, C) and bool {needed} are needed"
            )
        h = torch.cat([z, self._attend(z, mail, mask)], dim=1)
        h = functional.dropout(self.norm(h), self.dropout, self.training)
        return self.second(functional.relu(self.first(h)))

    def _attend(self, z: Tensor, mail: Tensor, mask: Tensor) -> Tensor:
        heads, size = self.num_heads, self.dim // self.num_heads
        # what each head looks for in a mail, (H, U, D): its queries times its key weights
        query = self.query(z).view(-1, heads, size).transpose(0, 1)
        query = torch.bmm(query, self.key.weight.view(heads, size, self.dim)) / math.sqrt(size)
        sought = query if self.project is None else torch.cat([query, query @ self.project.weight], dim=2)
        logits = sought.transpose(0, 1) @ mail.transpose(1, 2) + (query @ self.rank.weight.t()).transpose(0, 1)
        # a low number instead of minus infinity, and zeros afterwards: no NaN without mails
        logits = logits.masked_fill(~mask.unsqueeze(1), torch.finfo(logits.dtype).min / 2)
        share = logits.softmax(2) * mask.unsqueeze(1)  # (U, H, M)
        share = functional.dropout(share, self.dropout, self.training)
        attended, features = torch.bmm(share, mail.to(share.dtype)).split([self.dim, mail.size(2) - self.dim], dim=2)
        if self.project is not None:
            attended = attended + self.project(features)
        attended = (attended + share @ self.rank.weight).transpose(0, 1)
        values = torch.bmm(attended, self.value.weight.view(heads, size, self.dim).transpose(1, 2)).transpose(0, 1)
        values = values + share.sum(2, keepdim=True) * self.value.bias.view(heads, size)
        return self.out(values.flatten(1)) * mask.any(1, keepdim=True)


class APANMemory(Recorded, nn.Module):
    r"""Last embedding and mailbox of each node, read and written as :class:`~graphseq.nn.NodeMemory` is.

    .. math::
        m_e = z_u + z_v + x_e, \qquad
        \bar m_u = \operatorname{mean}_{e \ni u} m_e, \qquad
        \mathrm{mail}_w = \operatorname{mean}_{u \,:\, w \in \{u\} \cup N(u)} \bar m_u

    :meth:`read` encodes nodes from their last embedding and their mails: no neighbour is looked up, so the time to
    score an event does not grow with the graph. :meth:`commit`, after the scores, stores the embeddings of the events'
    endpoints, and delivers each endpoint's mean message to itself and to its ``num_neighbors`` most recent neighbours
    from before the batch; a neighbour that occurs several times counts as often.

    A corrector corrects z: the previous memory is the stored z, the measured one the newly encoded z.

    Where features are not as wide as embeddings they are kept beside the mails and projected when mails are read, so
    that the projection learns. On a GPU the messages of a node are added in changing order unless
    ``torch.use_deterministic_algorithms`` is on.

    Embeddings start from zeros for all nodes. Without event features nodes differ only in the number and the senders
    of their mails.

    Source: arXiv 2011.11545, section 3. Differs from it: one hop. From its code: endpoints receive what they sent,
    where the code lets the event of the batch itself carry the partner's mail back; negatives send and store
    nothing, where the code stores their embeddings and counts zeros from them; a self-loop is one event.

    Args:
        num_nodes: number of nodes N.
        dim: width D of an embedding.
        msg_channels: width of the event features, 0 without features.
        num_mails: number of mails that a node keeps.
        num_neighbors: number of neighbours of an endpoint that receive its messages, the most recent ones; 0 for none.
        num_heads: number of heads of the attention over mails; it must divide ``dim``.
        dropout: dropout probability of the :class:`APANEncoder`, in [0, 1).
        num_event_types: number C of event types to count for a :class:`~graphseq.nn.PRESCorrector`, 0 for none. Types
            above C - 1 count as C - 1; events without a type are of type 0 for their source and 1 for their
            destination.

    Shape:
        state: memory (N, D), float64 times (N,), mailbox.

    Raises:
        ValueError: if a size is out of range.

    Example:
        >>> memory = APANMemory(num_nodes=5, dim=8)
        >>> memory.read(torch.tensor([1, 3])).measured.shape
        torch.Size([2, 8])
    """

    memory: Tensor
    last_update: Tensor
    num_events: Tensor
    type_counts: Tensor | None

    def __init__(
        self,
        num_nodes: int,
        dim: int,
        msg_channels: int = 0,
        *,
        num_mails: int = 10,
        num_neighbors: int = 20,
        num_heads: int = 2,
        dropout: float = 0.1,
        num_event_types: int = 0,
    ) -> None:
        super().__init__()
        if num_nodes < 1 or min(msg_channels, num_neighbors, num_event_types) < 0:
            raise ValueError(
                f"num_nodes is {num_nodes}, msg_channels {msg_channels}, num_neighbors {num_neighbors}, "
                f"num_event_types {num_event_types}; at least 1, 0, 0 and 0 are needed"
            )
        beside = 0 if msg_channels == dim else msg_channels
        self.dim, self.msg_channels, self.num_neighbors = dim, msg_channels, num_neighbors
        self.encoder = APANEncoder(dim, num_mails, num_heads, dropout, beside)
        self.mailbox = Mailbox(num_nodes, dim + beside, num_mails)
        state = {
            "memory": torch.zeros(num_nodes, dim),
            "last_update": torch.zeros(num_nodes, dtype=torch.float64),
            "num_events": torch.zeros(num_nodes, dtype=torch.int32),
            "type_counts": torch.zeros(num_nodes, num_event_types, dtype=torch.int32) if num_event_types else None,
        }
        for name, value in state.items():
            self.register_buffer(name, value)

    @property
    def num_nodes(self) -> int:
        """Number of nodes."""
        return len(self.memory)

    def reset_parameters(self) -> None:
        """Reinitialise the encoder."""
        self.encoder.reset_parameters()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # as the mailbox does with its times
        known = self.last_update
        super()._apply(fn, recurse)
        if self.last_update.dtype != known.dtype:
            self.last_update = known.to(self.last_update.device)
        return self

    @torch.no_grad()
    def reset_state(self) -> None:
        """Reset the state: embeddings of zeros, empty mailboxes."""
        for buffer in self.buffers():
            buffer.zero_()

    @torch.no_grad()
    def resize(self, num_nodes: int) -> None:
        """Allocate more nodes and keep the state of the others; new nodes have the initial state.

        Args:
            num_nodes: new number of nodes, at least the current one.

        Raises:
            ValueError: if ``num_nodes`` is smaller.
        """
        self.mailbox.resize(num_nodes)
        for name, buffer in list(self.named_buffers(recurse=False)):
            fresh = buffer.new_zeros(num_nodes - len(buffer), *buffer.shape[1:])
            setattr(self, name, torch.cat([buffer, fresh]))

    def read(self, nodes: Tensor) -> MemoryRead:
        """Return the stored and the newly encoded embeddings of nodes; changes no state.

        ``last_update`` is the time of the newest mail, and ``elapsed`` what has passed between it and the newest
        mail that the stored embedding knew of; ``num_events`` are the node's own events since it was stored.

        Args:
            nodes: node ids, int64 (U,).
        """
        previous = self.memory.index_select(0, nodes)
        mail, mask = self.mailbox.read(nodes)
        t = self.mailbox.t.index_select(0, nodes)
        counts = None if self.type_counts is None else self.type_counts.index_select(0, nodes)
        # the state of a stream adds up rounding errors: it keeps its own precision
        with torch.autocast(nodes.device.type, enabled=False):
            measured = self.encoder(previous, mail, mask)
        return MemoryRead(
            previous=previous,
            measured=measured,
            pending=mask[:, 0],
            last_update=t,
            elapsed=t - self.last_update.index_select(0, nodes),
            num_events=self.num_events.index_select(0, nodes),
            type_counts=counts,
        )

    @torch.no_grad()
    def commit(self, plan: Plan, read: MemoryRead, memory: Tensor, partner: Tensor | None = None) -> None:
        """Store the embeddings of the events' endpoints and deliver the mails of the events.

        Args:
            plan: plan of the batch; its negatives are ignored.
            read: embeddings and mails as they were read for ``plan.nodes``.
            memory: embeddings to be stored, from which messages are made (U, D).
            partner: not used, since mails carry both ends of an event.

        Raises:
            DataError: if the batch has no history to find neighbours in, or features of another width.
        """
        batch, history = plan.batch, plan.batch.history
        if self.num_neighbors and history is None:
            raise DataError(
                "mails go to neighbours and the batch has no history; take the batch from an event data module, set "
                "EventBatch.history, or deliver to endpoints only with num_neighbors=0"
            )
        if batch.msg.size(1) != self.msg_channels:
            raise DataError(f"events have {batch.msg.size(1)} features; the network was built for {self.msg_channels}")
        if not len(batch):
            return
        source, destination = plan.endpoint.split(len(batch))
        stored = memory.detach().to(self.memory.dtype)
        message = stored.index_select(0, source) + stored.index_select(0, destination)  # (B, D)
        msg = batch.msg.to(message.dtype)
        if self.msg_channels == self.dim:
            message = message + msg
        elif self.msg_channels:
            message = torch.cat([message, msg], dim=1)
        # a self-loop is one event of its node, not two
        once = torch.cat([torch.ones_like(batch.src, dtype=torch.bool), batch.src != batch.dst]).to(torch.int32)
        count = once.new_zeros(len(plan.nodes)).index_add_(0, plan.endpoint, once)
        total = message.new_zeros(len(plan.nodes), message.size(1)).index_add_(0, source, message)  # (U, D + D_e)
        total.index_add_(0, destination, message * once[len(batch) :].unsqueeze(1))
        latest = torch.full_like(plan.nodes, -torch.inf, dtype=torch.float64)
        latest.scatter_reduce_(0, plan.endpoint, torch.cat([batch.t, batch.t]).double(), "amax")

        written = count.nonzero().squeeze(1)  # places of the C endpoints among the U nodes
        nodes, count = plan.nodes.index_select(0, written), count.index_select(0, written)
        self.memory.index_copy_(0, nodes, stored.index_select(0, written))
        self.last_update.index_copy_(0, nodes, read.last_update.index_select(0, written))
        self.num_events.index_copy_(0, nodes, count)
        if self.type_counts is not None:
            kinds = self._count_types(batch.event_type, plan, once)
            self.type_counts.index_copy_(0, nodes, kinds.index_select(0, written))

        receiver = nodes
        sender = torch.arange(len(nodes), device=nodes.device)
        if history is not None and self.num_neighbors:
            near = history.recent(nodes, batch.start, self.num_neighbors)
            sender = torch.cat([sender, sender.unsqueeze(1).expand_as(near.node).masked_select(near.mask)])
            receiver = torch.cat([receiver, near.node.masked_select(near.mask)])
        mean = total.index_select(0, written) / count.unsqueeze(1)  # (C, D + D_e)
        self.mailbox.deliver(mean, latest.index_select(0, written), sender, receiver)

    def _count_types(self, event_type: Tensor | None, plan: Plan, once: Tensor) -> Tensor:
        """Count events of ``plan.nodes`` by type, or by role (source, destination) where they have no type."""
        types = 1 if self.type_counts is None else self.type_counts.size(1)
        if event_type is None:
            kind = torch.arange(2, device=once.device).repeat_interleave(len(once) // 2)
        else:
            kind = torch.cat([event_type, event_type])
        flat = plan.endpoint * types + kind.clamp(0, types - 1)
        return once.new_zeros(len(plan.nodes) * types).index_add_(0, flat, once).view(-1, types)
