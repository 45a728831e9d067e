"""Recurrent network on a graph, vertex by vertex and edge by edge in plain Python. Imports nothing of graphseq."""

import math

GATES = {"rnn_tanh": 1, "rnn_relu": 1, "gru": 3, "lstm": 4}


def sigmoid(value):
    return 1 / (1 + math.exp(-value))


def layer_of(vertex, edges):
    """Length of the longest path that ends in a vertex."""
    return max((1 + layer_of(u, edges) for u, v in edges if v == vertex), default=0)


def layers_of(num_vertices, edges):
    numbers = [layer_of(vertex, edges) for vertex in range(num_vertices)]
    return [[v for v in range(num_vertices) if numbers[v] == layer] for layer in range(max(numbers) + 1)]


def unit(cell, a, r, h, c):
    """New h and c of one unit from what its gates get from inputs (a) and recurrence (r)."""
    if cell == "rnn_tanh":
        return math.tanh(a[0] + r[0]), c
    if cell == "rnn_relu":
        return max(0.0, a[0] + r[0]), c
    if cell == "gru":
        reset, update = sigmoid(a[0] + r[0]), sigmoid(a[1] + r[1])
        candidate = math.tanh(a[2] + reset * r[2])
        return (1 - update) * candidate + update * h, c
    c = sigmoid(a[1] + r[1]) * c + sigmoid(a[0] + r[0]) * math.tanh(a[2] + r[2])
    return sigmoid(a[3] + r[3]) * math.tanh(c), c


class Cell:
    """Units of one layer, each with its own edges; ``columns[v]`` are (column of the weights, name of the input)."""

    def __init__(self, cell, vertices, columns, weights, partners):
        self.cell, self.vertices, self.columns, self.partners = cell, vertices, columns, partners
        self.diagonal = partners is None
        self.w_ih, self.w_hh, self.b_ih, self.b_hh = weights
        self.h = dict.fromkeys(vertices, 0.0)
        self.c = dict.fromkeys(vertices, 0.0)

    def step(self, value):
        n, new = len(self.vertices), {}
        for i, v in enumerate(self.vertices):
            a, r = [], []
            for gate in range(GATES[self.cell]):
                row = gate * n + i
                a.append(self.b_ih[row] + sum(self.w_ih[row][k] * value(name) for k, name in self.columns[v]))
                if self.diagonal:
                    own = self.w_hh[gate][i] * self.h[v]
                else:
                    kept = [(j, w) for j, w in enumerate(self.vertices) if w in self.partners[v]]
                    own = sum(self.w_hh[row][j] * self.h[w] for j, w in kept)
                r.append(self.b_hh[row] + own)
            new[v] = unit(self.cell, a, r, self.h[v], self.c[v])
        self.h = {v: h for v, (h, _) in new.items()}
        self.c = {v: c for v, (_, c) in new.items()}
        return self.h


def network(cell, num_vertices, edges, weights, skip_weights, xs, recurrent, skip):
    """Outputs of all vertices at all steps of one sequence, as a list of dictionaries.

    ``weights[l]`` and ``skip_weights[s, l]`` are (W_ih, W_hh, b_ih, b_hh); those of ``recurrent == "diagonal"`` have
    one row of W_hh for each gate.
    """
    layers = layers_of(num_vertices, edges)
    number = {v: k for k, layer in enumerate(layers) for v in layer}
    near = {v: {u for e in edges for u in e if v in e and u != v} for v in range(num_vertices)}

    def partners(v):
        same = {w for w in range(num_vertices) if number[w] == number[v]}
        return same if recurrent == "dense" else {w for w in same if w == v or near[v] & near[w]}

    def columns(sources, v):
        before = [u for source in sources for u in layers[source]]
        return [(k, u) for k, u in enumerate(before) if (u, v) in edges]

    def among(vertices):
        return None if recurrent == "diagonal" else {v: partners(v) for v in vertices}

    cells, skips = [], {}
    for target, vertices in enumerate(layers):
        if target == 0:
            sources = []
        elif skip == "cell":
            sources = [target - 1]
        else:
            sources = sorted({number[u] for u, v in edges if v in vertices})
        given = {v: [(k, k) for k in range(len(xs[0]))] if target == 0 else columns(sources, v) for v in vertices}
        cells.append(Cell(cell, vertices, given, weights[target], among(vertices)))
        for source in range(target - 1) if skip == "cell" else ():
            if any(number[u] == source and v in vertices for u, v in edges):
                given = {v: columns([source], v) for v in vertices}
                skips[source, target] = Cell(cell, vertices, given, skip_weights[source, target], among(vertices))
    out = []
    for x in xs:
        y = {}
        for target, layer in enumerate(cells):
            y |= layer.step(x.__getitem__ if target == 0 else y.__getitem__)
            for (_, other), extra in skips.items():
                if other == target:
                    added = extra.step(y.__getitem__)
                    y |= {v: y[v] + added[v] for v in layer.vertices}
        out.append(y)
    return out
