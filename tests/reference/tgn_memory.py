"""Temporal graph networks node by node and event by event, with dictionaries of lists, in double precision.

Weights are those of a network's ``state_dict``, by name; gradients come from autograd through plain vector operations.
"""

import math

import torch


def linear(w, name, x):
    return w[f"{name}.weight"] @ x + w.get(f"{name}.bias", 0)


def encode(w, dt):
    return torch.cos(float(dt) * w["time_encoder.weight"] + w["time_encoder.bias"])


def cell(w, message, state):
    entering = w["memory.cell.weight_ih"] @ message + w["memory.cell.bias_ih"]
    recurrent = w["memory.cell.weight_hh"] @ state + w["memory.cell.bias_hh"]
    if len(entering) == len(state):
        return torch.tanh(entering + recurrent)
    (r, u, n), (hr, hu, hn) = entering.chunk(3), recurrent.chunk(3)
    update = torch.sigmoid(u + hu)
    return (1 - update) * torch.tanh(n + torch.sigmoid(r + hr) * hn) + update * state


class Memory:
    """Memory, time of the last update and unread mail of each node."""

    def __init__(self, num_nodes, dim, mean=False):
        self.mean = mean
        self.memory = {node: torch.zeros(dim, dtype=torch.float64) for node in range(num_nodes)}
        self.last_update = dict.fromkeys(range(num_nodes), 0.0)
        self.mail = {node: [] for node in range(num_nodes)}

    def read(self, w, node):
        state, mail = self.memory[node], self.mail[node]
        if not mail:
            return state, self.last_update[node]
        read = [torch.cat([own, other, x, encode(w, dt) if phi is None else phi]) for own, other, x, dt, phi, _ in mail]
        return cell(w, sum(read) / len(read) if self.mean else read[-1], state), mail[-1][5]

    def write(self, w, events, values, partners=None):
        """Store what was read (``values`` by node), then put down the mail of the events (src, dst, t, x)."""
        nodes = {node for event in events for node in event[:2]}
        for node in nodes:
            state, self.last_update[node] = values[node]
            self.memory[node], self.mail[node] = state.detach(), []
        for number, (src, dst, t, x) in enumerate(events):
            ends = [(src, dst)] if src == dst else [(src, dst), (dst, src)]  # a self-loop is one message
            for role, (node, other) in enumerate(ends):
                sent = self.memory[other] if partners is None else partners[number][1 - role].detach()
                dt = t - self.last_update[node]
                phi = encode(w, dt).detach() if self.mean else None  # a mean keeps no single times
                self.mail[node].append((self.memory[node], sent, x, dt, phi, float(t)))


def sequential(w, num_nodes, dim, events):
    """Memory after a stream in which every event is applied before the next one is looked at."""
    memory = {node: torch.zeros(dim, dtype=torch.float64) for node in range(num_nodes)}
    last = dict.fromkeys(range(num_nodes), 0.0)
    for src, dst, t, x in events:
        before = {node: memory[node] for node in (src, dst)}
        since = {node: t - last[node] for node in (src, dst)}
        for node, other in ((src, dst), (dst, src)):
            message = torch.cat([before[node], before[other], x, encode(w, since[node])])
            memory[node], last[node] = cell(w, message, before[node]), float(t)
    return memory, last


def recent(events, node, cut, k):
    """The latest events of a node below a position, newest first: (partner, time, features)."""
    found = []
    for src, dst, t, x in reversed(events[:cut]):
        if node in (src, dst) and len(found) < k:
            found.append((dst if node == src else src, t, x))
    return found


def softmax(logits):
    weights = torch.exp(torch.stack(logits))
    return weights / weights.sum()


def attention_layer(w, name, own, entries, heads):
    query = linear(w, f"{name}.query", torch.cat([own, encode(w, 0)]))
    attended = torch.zeros_like(query)
    if entries:
        inputs = [torch.cat([h, x, encode(w, dt)]) for h, x, dt in entries]
        keys = [linear(w, f"{name}.key", one).chunk(heads) for one in inputs]
        values = [linear(w, f"{name}.value", one).chunk(heads) for one in inputs]
        parts = []
        for head, part in enumerate(query.chunk(heads)):
            weights = softmax([part @ key[head] / math.sqrt(len(part)) for key in keys])
            parts.append(sum(weight * value[head] for weight, value in zip(weights, values, strict=True)))
        attended = linear(w, f"{name}.out", torch.cat(parts))
    hidden = torch.relu(linear(w, f"{name}.merge.first", torch.cat([attended, own])))
    return linear(w, f"{name}.merge.second", hidden)


def transformer_layer(w, name, own, entries, heads):
    query, result = linear(w, f"{name}.query", own), []
    edges = [linear(w, f"{name}.edge", torch.cat([x, encode(w, dt)])) for _, x, dt in entries]
    for head, part in enumerate(query.chunk(heads)):
        near = list(zip(entries, edges, strict=True))
        keys = [(linear(w, f"{name}.key", h) + edge).chunk(heads)[head] for (h, _, _), edge in near]
        values = [(linear(w, f"{name}.value", h) + edge).chunk(heads)[head] for (h, _, _), edge in near]
        weights = softmax([part @ key / math.sqrt(len(part)) for key in keys]) if keys else []
        result.append(sum((a * value for a, value in zip(weights, values, strict=True)), torch.zeros_like(part)))
    return torch.cat(result) + linear(w, f"{name}.skip", own)


def sum_layer(w, name, own, entries, heads):
    start = torch.zeros_like(w[f"{name}.neighbor.bias"])
    near = (linear(w, f"{name}.neighbor", torch.cat([h, x, encode(w, dt)])) for h, x, dt in entries)
    return linear(w, f"{name}.merge", torch.cat([torch.relu(sum(near, start)), own, encode(w, 0)]))


LAYERS = {"attention": attention_layer, "transformer": transformer_layer, "sum": sum_layer}


class Network:
    """One network over one stream; ``kind`` is its embedding, and DyRep the one that scores and sends otherwise."""

    def __init__(self, num_nodes, dim, kind, *, mean=False, layers=1, k=0, relative="query", heads=2, dyrep=False):
        self.memory = Memory(num_nodes, dim, mean) if dim else None
        self.kind, self.layers, self.k, self.relative, self.heads, self.dyrep = kind, layers, k, relative, heads, dyrep
        self.statistics, self.width = [0.0, 1.0, 0.0, 1.0], None
        self.known = {}  # what was worked out for the present batch

    def read(self, w, node):
        if self.memory is None:
            return torch.zeros(self.width, dtype=torch.float64), 0.0
        if node not in self.known:
            self.known[node] = self.memory.read(w, node)
        return self.known[node]

    def embed(self, w, events, cut, node, t, level, source=True):
        key = (node, cut, t, level, source or self.kind != "projection")
        if key not in self.known:
            self.known[key] = self.embedding(w, events, cut, node, t, level, source)
        return self.known[key]

    def embedding(self, w, events, cut, node, t, level, source):
        z, last = self.read(w, node)
        if level == 0 or self.kind == "identity":
            return z
        if self.kind == "projection":
            mean, deviation = self.statistics[:2] if source else self.statistics[2:]
            return z * (1 + (t - last - mean) / deviation * w["embedding.weight"] + w["embedding.bias"])
        entries = []
        for other, then, x in recent(events, node, cut, self.k):
            dt = t - then if self.relative == "query" else self.read(w, other)[1] - then
            entries.append((self.embed(w, events, cut, other, t, level - 1), x, dt))
        own = self.embed(w, events, cut, node, t, level - 1)
        return LAYERS[self.kind](w, f"embedding.layers.{level - 1}", own, entries, self.heads)

    def step(self, w, events, start, end, negatives, negative_sources=None, cuts=None):
        """Logits of events [start, end) and their negatives; then their effect on memory."""
        rows, partners = [], []
        self.known.clear()
        for place in range(start, end):
            src, dst, t, _ = events[place]
            cut = start if cuts is None else cuts[place - start]
            drawn = negatives[place - start]
            sources = [src] * len(drawn) if negative_sources is None else negative_sources[place - start]
            logits = []
            for left, right in [(src, dst), *zip(sources, drawn, strict=True)]:
                h_left = self.embed(w, events, cut, left, t, self.layers)
                h_right = self.embed(w, events, cut, right, t, self.layers, source=False)
                if not logits:
                    partners.append((h_left, h_right))
                if self.dyrep:
                    h_left, h_right = self.read(w, left)[0], self.read(w, right)[0]
                hidden = torch.relu(linear(w, "decoder.source", h_left) + linear(w, "decoder.destination", h_right))
                logits.append(linear(w, "decoder.out", hidden)[0])
            rows.append(torch.stack(logits))
        if self.memory is not None:
            batch = events[start:end]
            values = {node: self.read(w, node) for event in batch for node in event[:2]}
            self.memory.write(w, batch, values, partners if self.dyrep else None)
        return torch.stack(rows)
