"""Compiled loops over the nodes of a batch: the distinct ones, and the last event of each."""

import torch
from torch import Tensor

from graphseq.ops.processor import arrays, compile_loop

__all__: list[str] = []


def distinct(ids: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    """Return distinct ids and the place of each entry, see :func:`graphseq.ops.nodes.plain.distinct`."""
    unique, places = (torch.empty(len(ids), dtype=torch.int64) for _ in range(2))
    count = _distinct(*arrays(ids, place, unique, places))
    return unique[:count], places


def last_events(endpoint: Tensor, once: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the sender of each node's last mail, see :func:`graphseq.ops.nodes.plain.last_events`."""
    source, number = torch.empty(count, dtype=torch.int64), once.new_zeros(count)
    _last_events(*arrays(endpoint, once, source, number))
    return source, number


@compile_loop
def _distinct(ids, place, unique, places):  # type: ignore[no-untyped-def]
    """Write the distinct ids in the order of their first occurrence, and return how many there are.

    Args:
        ids: node ids, int64 (M,).
        place: working memory, one entry a node, int64 (N,).
        unique: distinct ids, of which as many entries are written as there are (M,).
        places: place of each entry among the distinct ids, written (M,).
    """
    for entry in range(ids.shape[0]):
        if ids[entry] < 0 or ids[entry] >= place.shape[0]:
            raise IndexError("a node id is out of range")
        place[ids[entry]] = -1
    count = 0
    for entry in range(ids.shape[0]):
        node = ids[entry]
        if place[node] < 0:
            place[node] = count
            unique[count] = node
            count += 1
        places[entry] = place[node]
    return count


@compile_loop
def _last_events(endpoint, once, source, number):  # type: ignore[no-untyped-def]
    """Write the sender of the last mail of each node of a batch, and the number of the node's events.

    Args:
        endpoint: place among the nodes of the 2 B endpoints of the events, sources first, int64 (2 B,).
        once: 1 for each endpoint that counts, 0 for the second endpoint of a self-loop, int32 (2 B,).
        source: entry of ``endpoint`` that is the other end of each node's last event, written (C,).
        number: number of events of each node, added to (C,).
    """
    events = endpoint.shape[0] // 2
    for event in range(events):
        for role in range(2):
            entry = event + role * events
            source[endpoint[entry]] = event + (1 - role) * events
            number[endpoint[entry]] += once[entry]
