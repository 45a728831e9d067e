"""The neighbour lookup as one compiled loop over the queried nodes."""

import torch
from torch import Tensor

from graphseq.core.events import Neighbors
from graphseq.ops.lookup.plain import EventIndex
from graphseq.ops.processor import arrays, compile_loop

__all__: list[str] = []


def recent(index: EventIndex, nodes: Tensor, cut: int | Tensor, k: int) -> Neighbors:
    """Return the latest events of each node, see :func:`graphseq.ops.lookup.plain.recent`."""
    cuts = cut if isinstance(cut, Tensor) else torch.tensor([cut])
    node, e_id = (torch.empty(len(nodes), k, dtype=torch.int64) for _ in range(2))
    t, mask = torch.empty(len(nodes), k, dtype=index.t.dtype), torch.empty(len(nodes), k, dtype=torch.bool)
    msg = torch.empty(len(nodes), k, index.msg.shape[1], dtype=index.msg.dtype)
    results = (node, t, msg, mask, e_id)
    _recent(*arrays(*index), len(index.msg), *arrays(nodes, cuts, *results))
    return Neighbors(*results)


@compile_loop
def _recent(keys, endpoints, t, msg, num_events, nodes, cuts, node, when, features, mask, e_id):  # type: ignore[no-untyped-def]
    """Write the latest events of each node before a position, newest first.

    Args:
        keys: sorted keys, the first below the keys of every node, int64.
        endpoints: both endpoints of each event, combined by exclusive or, from entry 1, int64 (1 + E,).
        t: time of each event, from entry 1 (1 + E,).
        msg: features of each event (E, D).
        num_events: number of events E.
        nodes: queried nodes, int64 (Q,).
        cuts: position below which events count, for each node or one for all, int64 (Q,) or (1,).
        node: neighbours, written (Q, K).
        when: times, written (Q, K).
        features: event features, written (Q, K, D).
        mask: whether there is such a neighbour, written (Q, K).
        e_id: positions of the events, written (Q, K).
    """
    for row in range(nodes.shape[0]):
        first = nodes[row] * num_events
        sought = first + cuts[row if cuts.shape[0] > 1 else 0]
        low, high = 0, keys.shape[0]
        while low < high:
            middle = (low + high) >> 1
            if keys[middle] < sought:
                low = middle + 1
            else:
                high = middle
        for place in range(e_id.shape[1]):
            low -= 1
            event = keys[low] - first if low >= 0 else -1
            if event >= 0:
                node[row, place] = endpoints[event + 1] ^ nodes[row]
                when[row, place] = t[event + 1]
                features[row, place] = msg[event]
                mask[row, place] = True
                e_id[row, place] = event
            else:  # the keys below belong to other nodes
                node[row, place:] = nodes[row]
                when[row, place:] = 0
                features[row, place:] = 0
                mask[row, place:] = False
                e_id[row, place:] = -1
                break
