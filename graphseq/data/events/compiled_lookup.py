"""The compiled loop of the neighbour lookup."""

from graphseq.ops.processor import compile_loop

__all__: list[str] = []


@compile_loop
def recent(keys, endpoints, t, msg, num_events, nodes, cuts, node, when, features, mask, e_id):  # type: ignore[no-untyped-def]
    """Write the latest events of each node before a position, newest first; see ``TemporalAdjacency.recent``.

    Args:
        keys: sorted, the first below that of every node, int64.
        endpoints: by event from 1, int64.
        t: by event from 1.
        msg: by event from 0 (E, D).
        num_events: number of events E.
        nodes: who asks (Q,), int64.
        cuts: position of each, or one for all, int64 (Q,) or (1,).
        node: written (Q, K).
        when: written (Q, K).
        features: written (Q, K, D).
        mask: written (Q, K).
        e_id: written (Q, K).
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
            else:  # the keys below are of other nodes
                node[row, place:] = nodes[row]
                when[row, place:] = 0
                features[row, place:] = 0
                mask[row, place:] = False
                e_id[row, place:] = -1
                break
