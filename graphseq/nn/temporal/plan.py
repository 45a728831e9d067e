"""Which nodes a temporal batch touches: who is scored, whose neighbours are asked, who is written to."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from graphseq.core.errors import DataError
from graphseq.core.events import EventBatch
from graphseq.ops.processor import arrays, compiled_loops

__all__ = ["Distinct", "Plan", "Rows", "Seats", "plan_batch"]

_SEATS = 4  # rows that share a lookup, at most: few enough that most seats are taken


class Distinct(nn.Module):
    """Distinct entries of a list of node ids, in order of first occurrence, and the place of each entry among them.

    Nothing is sorted: each entry leaves its place in a buffer over all nodes, where the smallest stays. For
    thousands of entries that takes a fraction of the time of ``torch.unique``, whatever the order in which threads
    write.

    Args:
        num_nodes: ids are below it.

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
        if loops := compiled_loops(f"{__package__}.compiled_nodes", ids):
            unique, places = torch.empty(len(ids), dtype=torch.int64), torch.empty(len(ids), dtype=torch.int64)
            count = loops.distinct(*arrays(ids, self.place, unique, places))
            return unique[:count], places
        entries = torch.arange(len(ids), device=ids.device)
        self.place.scatter_reduce_(0, ids, entries, "amin", include_self=False)
        first = self.place.index_select(0, ids)
        new = first == entries
        rank = new.cumsum(0) - 1
        return ids.masked_select(new), rank.index_select(0, first)


@dataclass
class Seats:
    """Rows of the same node, which have the same neighbours at different moments, seated G by G at one lookup.

    Args:
        position: place of each lookup's node in ``Plan.nodes``, int64 (Q,).
        t: moment of each lookup, that of its first row (Q,).
        later: time from there to the moment of each seat's row, 0 where nobody sits (Q, G).
        seat: place of each row among the Q G seats, int64 (R,).

    Example:
        >>> one = torch.zeros(1, dtype=torch.int64)
        >>> Seats(one, one, torch.zeros(1, 4), one).later.shape
        torch.Size([1, 4])
    """

    position: Tensor
    t: Tensor
    later: Tensor
    seat: Tensor

    @property
    def lookup(self) -> Tensor:
        """Lookup of each row, int64 (R,)."""
        return self.seat // self.later.size(1)


@dataclass
class Rows:
    """Nodes at a moment, and their neighbours: what one layer of an embedding works on.

    Args:
        position: place of each row's node in ``Plan.nodes``, int64 (R,).
        t: moment of each row (R,).
        neighbor: places of its neighbours in ``Plan.nodes``, int64 (R, K).
        neighbor_t: times of the events with them (R, K).
        msg: features of those events (R, K, D).
        mask: whether there is such a neighbour, bool (R, K).
        seats: who shares a lookup; the four columns of neighbours are then (Q, K). None if each row has its own.

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
    seats: Seats | None = None


@dataclass
class Plan:
    """A batch, worked out before any parameter is touched.

    Args:
        batch: the events.
        nodes: distinct nodes of rows and neighbours in the order in which rows, then neighbours, first name them, so
            those of the events first, int64 (U,). Embeddings rely on it.
        layers: rows of each layer of the embedding, the last layer first; rows of a later entry are the flattened
            neighbours of the entry before. One entry without neighbours if no layer asks for them.
        row: row of ``layers[0]`` of each endpoint: B sources, B destinations, B M negative destinations, then their
            sources if they have their own.
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
    """Look up neighbours of all endpoints below the cut, and list the distinct nodes.

    Args:
        batch: the events with their negatives.
        distinct: for the nodes of the stream.
        num_neighbors: neighbours of each row, 0 for none.
        num_layers: layers that ask for neighbours.
        share_rows: whether endpoints of the same node share one row, which then has no moment of its own (its ``t``
            is that of its first occurrence); otherwise each endpoint is a row at the time of its event.
        share_lookups: whether rows of the same node share lookups of their neighbours, see :class:`Seats`. Of no
            effect where they may differ: with several layers, or if events have cuts of their own.

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
    opener: Tensor | None = None  # first row of each shared lookup
    seat: Tensor | None = None
    asked, moments, cut = nodes, times, batch.start if cuts is None else cuts
    if share_lookups and not share_rows and num_neighbors and num_layers == 1 and cuts is None:
        opener, seat = _seated(nodes)
        asked, moments = nodes.index_select(0, opener), times.index_select(0, opener)
    listed = [nodes]
    for _ in range(num_layers if num_neighbors else 0):
        if batch.history is None:
            raise DataError(
                "the network asks for neighbours and the batch has no history; take the batch from a temporal data "
                "module, or set EventBatch.history"
            )
        near = batch.history.recent(asked, cut, num_neighbors)
        found.append((near, moments))
        listed.append(near.node.flatten())
        asked, moments = near.node.flatten(), moments.repeat_interleave(num_neighbors)
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
    if opener is not None and seat is not None:
        looked = times.index_select(0, opener)
        since = times - looked.index_select(0, seat // _SEATS)
        later = since.new_zeros(len(opener) * _SEATS).index_copy_(0, seat, since)
        layers[0].t = times
        layers[0].seats = Seats(parts[0].index_select(0, opener), looked, later.view(-1, _SEATS), seat)
    endpoint = parts[0].index_select(0, row[: 2 * len(batch)])
    return Plan(batch, unique, layers, row, endpoint)


def _seated(nodes: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first row of each lookup, and the seat of each row: rows of a node sit side by side."""
    ordered, order = nodes.sort(stable=True)
    entry = torch.arange(len(nodes), device=nodes.device)
    begins = torch.ones_like(ordered, dtype=torch.bool)
    torch.ne(ordered[1:], ordered[:-1], out=begins[1:])
    rank = entry - torch.where(begins, entry, 0).cummax(0).values
    opens = rank % _SEATS == 0
    seat = (opens.cumsum(0) - 1) * _SEATS + rank % _SEATS
    return order.masked_select(opens), torch.empty_like(seat).index_copy_(0, order, seat)


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
