"""Batches, gaps, splits of event streams in plain loops over events; imports nothing of the package."""


def t_batches(src, dst):
    """JODIE's assignment: the batch after the last one that holds the source or the destination."""
    last, batches = {}, []
    for event, (u, v) in enumerate(zip(src, dst, strict=True)):
        number = 1 + max(last.get(u, -1), last.get(v, -1))
        last[u] = last[v] = number
        if number == len(batches):
            batches.append([])
        batches[number].append(event)
    return batches


def pending_share(src, dst):
    """Share of the events of one batch that have an earlier event of the batch with a node in common."""
    seen, pending = set(), 0
    for u, v in zip(src, dst, strict=True):
        pending += u in seen or v in seen
        seen |= {u, v}
    return pending / len(src)


def adaptive_sizes(src, dst, ratio, limit):
    """Sizes of the batches that are each the longest admissible piece of what is left."""
    sizes = []
    while src:
        size = max(n for n in range(1, min(limit, len(src)) + 1) if pending_share(src[:n], dst[:n]) <= ratio)
        sizes.append(size)
        src, dst = src[size:], dst[size:]
    return sizes


def node_gaps(src, dst, t):
    """(gap, first) of the source and of the destination of each event, since their last event in either role."""
    last, sources, destinations = {}, [], []
    for u, v, now in zip(src, dst, t, strict=True):
        for node, out in ((u, sources), (v, destinations)):
            out.append((now - last.get(node, 0), node not in last))
        last[u] = last[v] = now
    return sources, destinations


def earlier(t):
    """For each event, the number of events of an earlier time."""
    return [sum(other < now for other in t) for now in t]


def quantile(values, share):
    """The quantile by linear interpolation."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])
