"""Pointer networks and their problems by plain loops. Imports nothing of graphseq."""

import itertools
import math

import torch


def cross(o, a, b):
    return (a[0] - o[0]) * (b[1] - o[1]) - (a[1] - o[1]) * (b[0] - o[0])


def hull(points):
    """Corners by the edges that have no point on their right: each in turn, from the leftmost and lowest point."""
    points = [tuple(map(float, point)) for point in points]
    distinct = [points.index(point) for point in dict.fromkeys(points)]
    start = min(distinct, key=lambda k: points[k])
    corners, here = [start], start
    while True:
        for there in distinct:
            rest = [k for k in distinct if k not in (here, there)]
            turns = [cross(points[here], points[there], points[k]) for k in rest]
            beyond = [
                math.dist(points[here], points[k]) < math.dist(points[here], points[there])
                and (points[k] > points[here]) == (points[there] > points[here])
                for k in rest
            ]
            if there != here and all(t > 0 or (t == 0 and b) for t, b in zip(turns, beyond, strict=True)):
                break
        else:
            return corners
        if there == start:
            return corners
        corners.append(there)
        here = there


def length(points, tour):
    return sum(math.dist(points[a], points[b]) for a, b in zip(tour, [*tour[1:], tour[0]], strict=True))


def shortest(points):
    """Length of the shortest tour, over all permutations."""
    rest = range(1, len(points))
    return min(length(points, (0, *order)) for order in itertools.permutations(rest))


def in_circle(a, b, c, d):
    """Positive if d lies within the circle through the triangle a, b, c, in whichever direction it is given."""
    rows = [[p[0] - d[0], p[1] - d[1], (p[0] - d[0]) ** 2 + (p[1] - d[1]) ** 2] for p in (a, b, c)]
    return float(torch.linalg.det(torch.tensor(rows, dtype=torch.float64))) * math.copysign(1, cross(a, b, c))


def segments_meet(a, b, c, d):
    """Whether two closed segments have a point in common."""
    turns = [cross(a, b, c), cross(a, b, d), cross(c, d, a), cross(c, d, b)]
    if turns[0] * turns[1] < 0 and turns[2] * turns[3] < 0:
        return True
    for turn, (p, q, r) in zip(turns, [(a, b, c), (a, b, d), (c, d, a), (c, d, b)], strict=True):
        if turn == 0 and all(min(p[k], q[k]) <= r[k] <= max(p[k], q[k]) for k in range(2)):
            return True
    return False


def is_simple(points, corners):
    """Whether a polygon has three corners, and edges that meet at common corners only."""
    if len(corners) > 1 and corners[0] == corners[-1]:
        corners = corners[:-1]
    count = len(corners)
    at = [tuple(map(float, points[k])) for k in corners]
    if count < 3 or len(set(at)) < count:
        return False
    edges = [(at[k], at[(k + 1) % count]) for k in range(count)]
    for i, j in itertools.combinations(range(count), 2):
        if j == i + 1 or (i == 0 and j == count - 1):
            shared = edges[i][1] if j == i + 1 else edges[i][0]
            first = edges[i][0] if j == i + 1 else edges[i][1]
            second = edges[j][1] if j == i + 1 else edges[j][0]
            ahead = sum((first[k] - shared[k]) * (second[k] - shared[k]) for k in range(2)) > 0
            if cross(shared, first, second) == 0 and ahead:
                return False
        elif segments_meet(*edges[i], *edges[j]):
            return False
    return True


def lstm_step(weights, x, h, c):
    """One step of an LSTM; ``weights`` is (W_ih, W_hh, b_ih, b_hh) as torch has them, x, h and c are vectors."""
    w_ih, w_hh, b_ih, b_hh = weights
    i, f, g, o = (w_ih @ x + b_ih + w_hh @ h + b_hh).chunk(4)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def encode(weights, x):
    """Outputs of an LSTM over one sequence (n, D), and its last state."""
    h = c = torch.zeros(weights[1].shape[1], dtype=x.dtype)
    out = []
    for step in x:
        h, c = lstm_step(weights, step, h, c)
        out.append(h)
    return out, h, c


def score(w1, w2, v, key, query):
    total = 0.0
    for k in range(len(v)):
        total = total + v[k] * torch.tanh(w1[k] @ key + w2[k] @ query)
    return total


def pointer_network(parts, x, target, end_token=True):
    """-log p of each step for one input (n, D), one step and one candidate at a time.

    ``parts``: weights of both LSTMs, start, end key, W1, W2, v.
    """
    e, h, c = encode(parts["encoder"], x)
    candidates = [(-1, parts["end"])] if end_token else []
    candidates += list(enumerate(e))
    z, terms = parts["start"], []
    for wanted in [*target, -1] if end_token else target:
        h, c = lstm_step(parts["decoder"], z, h, c)
        scores = torch.stack([score(parts["w1"], parts["w2"], parts["v"], key, h) for _, key in candidates])
        place = [k for k, _ in candidates].index(wanted)
        terms.append(torch.logsumexp(scores, 0) - scores[place])
        z = x[wanted] if wanted >= 0 else None
    return terms


def attention_network(parts, x, target):
    """-log p of each step for one input, by an encoder and a decoder with attention and an embedding of symbols."""
    e, h, c = encode(parts["encoder"], x)
    context = torch.zeros_like(h)
    symbol, terms = -1, []
    for wanted in [*target, -1]:
        h, c = lstm_step(parts["decoder"], torch.cat([parts["embedding"][symbol + 1], context]), h, c)
        weights = torch.softmax(torch.stack([score(parts["w1"], parts["w2"], parts["v"], key, h) for key in e]), 0)
        context = sum(weight * key for weight, key in zip(weights, e, strict=True))
        logits = parts["head"] @ torch.cat([h, context]) + parts["bias"]
        terms.append(torch.logsumexp(logits, 0) - logits[wanted + 1])
        symbol = wanted
    return terms
