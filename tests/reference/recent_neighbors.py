"""The most recent events of a node: plain Python loops over lists, back from a position to the start of the stream.

And the small random streams on which the structures are compared with them.
"""

import torch

KINDS = ["unipartite", "bipartite", "loops", "repeated", "tied", "isolated", "single", "empty"]
NUM_NODES = 14


def stream(kind, seed=0, num_events=90, width=3, time=torch.int64):
    """Columns src, dst, t, msg of a small random stream on NUM_NODES nodes, ties in time included."""
    generator = torch.Generator().manual_seed(seed)
    num_events = {"single": 1, "empty": 0}.get(kind, num_events)

    def draw(low, high, *shape):
        return torch.randint(low, high, shape or (num_events,), generator=generator)

    src, dst = draw(0, NUM_NODES), draw(0, NUM_NODES)
    if kind == "bipartite":
        src, dst = draw(0, NUM_NODES // 2), draw(NUM_NODES // 2, NUM_NODES)
    elif kind == "loops":
        src = torch.where(draw(0, 2) == 0, src, dst)
    elif kind == "repeated":
        src, dst = src % 2, 2 + dst % 2
    elif kind == "isolated":
        src, dst = 5 + src % 3, 5 + dst % 3
    t = draw(0, 3).cumsum(0) if kind != "tied" else torch.full((num_events,), 7)
    msg = torch.randn(num_events, width, generator=generator)
    return src, dst, t if time == torch.int64 else t.to(time) / 2, msg


def columns(found):
    """Lists in the order of :func:`padded`."""
    return [getattr(found, name).tolist() for name in ("node", "t", "msg", "mask", "e_id")]


def recent(src, dst, node, cut, k, keep=None):
    """List of (other endpoint, position), newest first, of the last ``k`` events of ``node`` below ``cut``."""
    found = []
    for event in range(min(cut, len(src)) - 1, -1, -1):
        if len(found) == k:
            break
        if keep is not None and not keep[event]:
            continue
        if src[event] == node:
            found.append((dst[event], event))
        elif dst[event] == node:
            found.append((src[event], event))
    return found


def buffered(src, dst, node, inserted, cut, k, size):
    """The same from a memory of the last ``size`` events of each node among the first ``inserted``."""
    held = recent(src, dst, node, inserted, size)
    return [(other, event) for other, event in held if event < cut][:k]


def cut_before(times, query):
    """Number of events that are strictly older than ``query``."""
    return sum(1 for time in times if time < query)


def padded(src, dst, times, features, nodes, cuts, k, keep=None):
    """Columns (other endpoint, time, features, whether, position) of rows of ``k`` entries; absent ones are filled."""
    columns = [[] for _ in range(5)]
    for node, cut in zip(nodes, cuts, strict=True):
        found = recent(src, dst, node, cut, k, keep)
        missing = k - len(found)
        width = len(features[0]) if features else 0
        columns[0].append([other for other, _ in found] + [node] * missing)
        columns[1].append([times[event] for _, event in found] + [0] * missing)
        columns[2].append([features[event] for _, event in found] + [[0.0] * width] * missing)
        columns[3].append([True] * len(found) + [False] * missing)
        columns[4].append([event for _, event in found] + [-1] * missing)
    return columns
