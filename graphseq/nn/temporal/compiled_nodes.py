"""Compiled loops over the nodes of a batch: which there are, and what is written to them."""

from graphseq.ops.processor import compile_loop

__all__: list[str] = []


@compile_loop
def distinct(ids, place, unique, places):  # type: ignore[no-untyped-def]
    """Write the distinct ids in the order of their first occurrence, and return how many there are.

    Args:
        ids: int64 (M,).
        place: room to work in, one entry a node, int64 (N,).
        unique: written as far as there are distinct ids (M,).
        places: written, the place of each entry among them (M,).
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
def last_events(endpoint, once, source, number):  # type: ignore[no-untyped-def]
    """Write who sends the last mail of each node of a batch, and of how many events it is the last.

    Args:
        endpoint: place of the 2 B endpoints of the events among the nodes, sources first.
        once: which endpoints count, all but the second of a self-loop (2 B,).
        source: written, the entry of ``endpoint`` that is the other end of the node's last event (C,).
        number: added to (C,).
    """
    events = endpoint.shape[0] // 2
    for event in range(events):
        for role in range(2):
            entry = event + role * events
            source[endpoint[entry]] = event + (1 - role) * events
            number[endpoint[entry]] += once[entry]
