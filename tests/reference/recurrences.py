"""Linear recurrences, and cells with diagonal weights, by loops over numbers. Imports nothing of graphseq."""

import math


def sigmoid(value):
    return 1 / (1 + math.exp(-value))


def linear(a, b, initial, reverse=False):
    """States of one channel: ``a`` numbers or 2 x 2 lists, ``b`` and ``initial`` numbers or pairs."""
    order = range(len(b) - 1, -1, -1) if reverse else range(len(b))
    state, found = initial, [None] * len(b)
    for t in order:
        if isinstance(state, float):
            state = a[t] * state + b[t]
        else:
            state = [a[t][i][0] * state[0] + a[t][i][1] * state[1] + b[t][i] for i in range(2)]
        found[t] = state
    return found


def gru_step(h, gates, weight):
    """One channel; ``gates`` are the inputs of z, r, n and ``weight`` their diagonals."""
    z = sigmoid(weight[0] * h + gates[0])
    r = sigmoid(weight[1] * h + gates[1])
    n = math.tanh(weight[2] * (h * r) + gates[2])
    return (1 - z) * h + z * n


def lstm_step(state, gates, weight):
    """One channel, (c, h); ``gates`` are the inputs of f, z, o; ``weight``: h to f, z, o, then c to f and o."""
    c, h = state
    f = sigmoid(weight[0] * h + weight[3] * c + gates[0])
    z = math.tanh(weight[1] * h + gates[1])
    c = f * c + (1 - f) * z
    o = sigmoid(weight[2] * h + weight[4] * c + gates[2])
    return [c, o * math.tanh(c)]


def states(cell, gates, weight, initial):
    """States of all steps of one row: ``gates`` (T, 3 D), ``weight`` (K, D), ``initial`` (D,) or (2, D), as lists."""
    dim = len(weight[0])
    step = gru_step if cell == "gru" else lstm_step
    state = list(initial) if cell == "gru" else [list(pair) for pair in zip(*initial, strict=True)]
    found = []
    for row in gates:
        state = [step(state[d], [row[k * dim + d] for k in range(3)], [line[d] for line in weight]) for d in range(dim)]
        found.append(list(state) if cell == "gru" else [list(part) for part in zip(*state, strict=True)])
    return found
