"""Plans a batch of events: its distinct nodes, neighbour lookups and rows to score."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from graphseq.core.errors import DataError
from graphseq.core.events import EventBatch
from graphseq.ops.nodes import distinct as distinct_nodes

__all__: list[str] = []

_SLOTS = 4  # rows that share a lookup, at most: few enough that most slots are used


class Distinct(nn.Module):
    """Distinct entries of a list of node ids, in order of first occurrence, and the place of each entry among them.

    Args:
        num_nodes: number of nodes N; all ids are below it.

    Example:
        >>> Distinct(9)(torch.tensor([5, 2, 5]))
        (tensor([5, 2]), tensor([0, 1, 0]))
    """

    place: Tensor

    def __init__(self, num_nodes: int) -> None:
        super().__init__()
        self.register_buffer("place", torch.zeros(num_nodes, dtype=torch.int64), persistent=False)

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return the distinct ids and, for each entry of ``ids`` (M,), its place among them."""
        return distinct_nodes(ids, self.place)


@dataclass
class SharedLookups:
    """Groups up to G rows of one node per neighbour lookup; unused slots hold 0.

    Rows of one node have the same neighbours before the batch, at different moments.

    Args:
        position: place of each lookup's node in ``Plan.nodes``, int64 (Q,).
        t: moment of each lookup, which is the moment of its first row (Q,).
        later: time from the moment of the lookup to the moment of each slot's row, 0 in unused slots (Q, G).
        slot: place of each row among the Q G slots, int64 (R,).

    Example:
        >>> one = torch.zeros(1, dtype=torch.int64)
        >>> SharedLookups(one, one, torch.zeros(1, 4), one).later.shape
        torch.Size([1, 4])
    """

    position: Tensor
    t: Tensor
    later: Tensor
    slot: Tensor

    @property
    def lookup(self) -> Tensor:
        """Lookup of each row, int64 (R,)."""
        return self.slot // self.later.size(1)


@dataclass
class Rows:
    """Nodes at a moment, and their neighbours: what one layer of an embedding works on.

    Args:
        position: place of each row's node in ``Plan.nodes``, int64 (R,).
        t: moment of each row (R,).
        neighbor: place of each neighbour in ``Plan.nodes``, int64 (R, K).
        neighbor_t: time of the event with each neighbour (R, K).
        msg: features of those events (R, K, D).
        mask: whether there is such a neighbour, bool (R, K).
        shared: lookups that rows share; the four fields of neighbours then have Q rows. None if each row has its own.

    Example:
        >>> one = torch.zeros(1, dtype=torch.int64)
        >>> Rows(one, one, one[:, None], one[:, None], torch.zeros(1, 1, 0), one[:, None].bool()).position
        tensor([0])
    """

    position: Tensor
    t: Tensor
    neighbor: Tensor | None = None
    neighbor_t: Tensor | None = None
    msg: Tensor | None = None
    mask: Tensor | None = None
    shared: SharedLookups | None = None


@dataclass
class Plan:
    """A batch of events, planned before any parameter is used.

    Args:
        batch: events with their negatives.
        nodes: distinct nodes of rows and neighbours, in order of first occurrence in the rows and then in the
            neighbours, so that the endpoints of the events come first, int64 (U,). Embeddings rely on this order.
        layers: rows of each layer of the embedding, the last layer first; rows of a later entry are the flattened
            neighbours of the entry before. One entry without neighbours if no layer looks them up.
        row: row of ``layers[0]`` of each endpoint: B sources, B destinations, B M negative destinations, then the
            sources of the negatives if they have their own.
        endpoint: place in ``nodes`` of the 2 B endpoints of the events, sources first.

    Example:
        >>> from graphseq.core import EventBatch
        >>> one = torch.tensor([1])
        >>> batch = EventBatch(one - 1, one, one, torch.zeros(1, 0), one, start=1, neg_dst=torch.tensor([[2]]))
        >>> plan_batch(batch, Distinct(3)).nodes
        tensor([0, 1, 2])
    """

    batch: EventBatch
    nodes: Tensor
    layers: list[Rows]
    row: Tensor
    endpoint: Tensor


def plan_batch(
    batch: EventBatch,
    distinct: Distinct,
    num_neighbors: int = 0,
    num_layers: int = 0,
    *,
    share_rows: bool = False,
    share_lookups: bool = False,
) -> Plan:
    """Look up neighbours of all endpoints before the batch, and list the distinct nodes.

    Args:
        batch: events with their negatives.
        distinct: finds the distinct nodes of a list of ids below the number of nodes.
        num_neighbors: number of neighbours looked up for each row, 0 for none.
        num_layers: number of layers that look up neighbours.
        share_rows: whether endpoints of the same node share one row, which then has no moment of its own (its ``t``
            is that of its first occurrence); otherwise each endpoint is a row at the time of its event.
        share_lookups: whether rows of the same node share neighbour lookups, see :class:`SharedLookups`. Without
            effect where their neighbours may differ: with several layers, or if events have cuts of their own.

    Raises:
        DataError: if neighbours are needed and the batch has no history, or their rows are shared and events have
            cuts of their own.

    Example:
        >>> from graphseq.core import EventBatch
        >>> node = torch.tensor([0, 0])
        >>> batch = EventBatch(node, node + 1, node, torch.zeros(2, 0), torch.arange(2), start=0)
        >>> plan_batch(batch, Distinct(2), share_rows=True).row
        tensor([0, 0, 1, 1])
    """
    nodes, times, cuts = _endpoints(batch)
    if share_rows and num_neighbors and batch.cut is not None:
        raise DataError(
            "rows shared by all events of a batch need cut='batch' in the data module; cut='time' gives each event "
            "neighbours of its own, so use relative_time='query'"
        )
    if share_rows:
        nodes, row = distinct(nodes)
        first = torch.full_like(nodes, len(row)).scatter_reduce_(
            0, row, torch.arange(len(row), device=row.device), "amin"
        )
        times = times.index_select(0, first)
    else:
        row = torch.arange(len(nodes), device=nodes.device)
    found = []
    opener: Tensor | None = None  # first row of each shared lookup (Q,)
    slot: Tensor | None = None  # slot of each row (R,)
    queried, moments, cut = nodes, times, batch.start if cuts is None else cuts
    if share_lookups and not share_rows and num_neighbors and num_layers == 1 and cuts is None:
        opener, slot = _group_rows(nodes)
        queried, moments = nodes.index_select(0, opener), times.index_select(0, opener)
    listed = [nodes]
    for _ in range(num_layers if num_neighbors else 0):
        if batch.history is None:
            raise DataError(
                "the network looks up neighbours and the batch has no history; take the batch from an event data "
                "module, or set EventBatch.history"
            )
        near = batch.history.recent(queried, cut, num_neighbors)
        found.append((near, moments))
        listed.append(near.node.flatten())
        queried, moments = near.node.flatten(), moments.repeat_interleave(num_neighbors)
        cut = cut if isinstance(cut, int) else cut.repeat_interleave(num_neighbors)
    every = torch.cat(listed) if len(listed) > 1 else nodes
    if share_rows and not found:
        unique, places = nodes, torch.arange(len(nodes), device=nodes.device)
    else:
        unique, places = distinct(every)
    parts = places.split([len(part) for part in listed])
    layers = [
        Rows(part, moments, inner.view_as(near.node), near.t, near.msg, near.mask)
        for part, inner, (near, moments) in zip(parts[:-1], parts[1:], found, strict=True)
    ] or [Rows(parts[0], times)]
    if opener is not None and slot is not None:
        looked = times.index_select(0, opener)
        since = times - looked.index_select(0, slot // _SLOTS)
        later = since.new_zeros(len(opener) * _SLOTS).index_copy_(0, slot, since)
        layers[0].t = times
        layers[0].shared = SharedLookups(parts[0].index_select(0, opener), looked, later.view(-1, _SLOTS), slot)
    endpoint = parts[0].index_select(0, row[: 2 * len(batch)])
    return Plan(batch, unique, layers, row, endpoint)


def _group_rows(nodes: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first row of each lookup, and the slot of each row: rows of one node stand side by side."""
    ordered, order = nodes.sort(stable=True)
    entry = torch.arange(len(nodes), device=nodes.device)
    begins = torch.ones_like(ordered, dtype=torch.bool)
    torch.ne(ordered[1:], ordered[:-1], out=begins[1:])
    rank = entry - torch.where(begins, entry, 0).cummax(0).values
    opens = rank % _SLOTS == 0
    slot = (opens.cumsum(0) - 1) * _SLOTS + rank % _SLOTS
    return order.masked_select(opens), torch.empty_like(slot).index_copy_(0, order, slot)


def _endpoints(batch: EventBatch) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return node, time and cut of sources, destinations, negative destinations and their sources, in that order."""
    nodes, counts = [batch.src, batch.dst], [1, 1]
    for extra in (batch.neg_dst, batch.neg_src):
        if extra is not None:
            nodes.append(extra.flatten())
            counts.append(extra.size(1))
    times = torch.cat([batch.t if count == 1 else batch.t.repeat_interleave(count) for count in counts])
    cuts = None
    if batch.cut is not None:
        cuts = torch.cat([batch.cut if count == 1 else batch.cut.repeat_interleave(count) for count in counts])
    return torch.cat(nodes), times, cuts
