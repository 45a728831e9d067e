"""APAN over lists: node by node, head by head, mail by mail in float64, and deliveries one after the other.

Vectors are torch tensors, so that autograd gives the gradients of logits; state is Python lists and numbers.
"""

import math

import torch

from tests.reference.recent_neighbors import recent


class Boxes:
    """The latest mails of each node, newest first."""

    def __init__(self, num_nodes, num_mails):
        self.mails = [[] for _ in range(num_nodes)]
        self.times = [0.0] * num_nodes
        self.num_mails = num_mails

    def deliver(self, deliveries):
        """One mail for each receiver: the mean of what a list of (receiver, mail, time) brings to it."""
        for node in range(len(self.mails)):
            brought = [(mail, time) for receiver, mail, time in deliveries if receiver == node]
            if not brought:
                continue
            self.mails[node].insert(0, sum(mail for mail, _ in brought) / len(brought))
            del self.mails[node][self.num_mails :]
            self.times[node] = max(time for _, time in brought)


def multihead(weights, z, mails, heads):
    """Attention of one vector over a list of vectors; ``weights`` names matrices and biases."""
    size = len(z) // heads
    query = weights["query.weight"] @ z + weights["query.bias"]
    parts = []
    for head in range(heads):
        rows = slice(head * size, (head + 1) * size)
        entries = []
        for mail in mails:
            key, value = (weights[f"{name}.weight"] @ mail for name in ("key", "value"))
            logit = (query[rows] * key[rows]).sum() / math.sqrt(size)
            entries.append((torch.exp(logit), (value + weights["value.bias"])[rows]))
        total = sum(entry[0] for entry in entries)
        parts.append(sum(entry[0] / total * entry[1] for entry in entries))
    return weights["out.weight"] @ torch.cat(parts) + weights["out.bias"]


class APAN:
    """``weights`` are those of the encoder and of the decoder by name, double; ``msg`` the features of all events.

    With ``tracker`` (of ``tests.reference.pres``) embeddings are corrected with weight ``gamma`` for the measured one.
    """

    def __init__(
        self, encoder, decoder, num_nodes, dim, num_mails, num_neighbors, heads, tracker=None, gamma=1.0, persist=True
    ):
        self.encoder, self.decoder = encoder, decoder
        self.num_nodes, self.dim, self.heads, self.num_neighbors = num_nodes, dim, heads, num_neighbors
        self.z = [torch.zeros(dim, dtype=torch.float64) for _ in range(num_nodes)]
        self.known = [0.0] * num_nodes
        self.boxes = Boxes(num_nodes, num_mails)
        self.num_events = [0] * num_nodes
        self.src, self.dst = [], []
        self.tracker, self.gamma, self.persist = tracker, gamma, persist

    def encode(self, node):
        weights, mails = self.encoder, []
        for rank, mail in enumerate(self.boxes.mails[node]):
            seen, beside = mail[: self.dim], mail[self.dim :]
            if len(beside):
                seen = seen + weights["project.weight"] @ beside
            mails.append(seen + weights["rank.weight"][rank])
        z = self.z[node]
        attended = multihead(weights, z, mails, self.heads) if mails else torch.zeros_like(z)
        h = torch.cat([z, attended])
        h = (h - h.mean()) / torch.sqrt(((h - h.mean()) ** 2).mean() + 1e-5)
        h = h * weights["norm.weight"] + weights["norm.bias"]
        h = torch.clamp(weights["first.weight"] @ h + weights["first.bias"], min=0)
        return weights["second.weight"] @ h + weights["second.bias"]

    def elapsed(self, node):
        return self.boxes.times[node] - self.known[node]

    def correct(self, node, measured):
        if self.tracker is None or not self.boxes.mails[node]:
            return measured
        predicted = self.tracker.predict(node, self.z[node].tolist(), 1, [1], self.elapsed(node), self.num_events[node])
        if predicted is None:
            return measured
        return self.gamma * measured + (1 - self.gamma) * torch.tensor(predicted, dtype=torch.float64)

    def score(self, one, other):
        weights = self.decoder
        hidden = weights["source.weight"] @ one + weights["source.bias"] + weights["destination.weight"] @ other
        return (weights["out.weight"] @ torch.clamp(hidden, min=0) + weights["out.bias"])[0]

    def batch(self, src, dst, t, msg, pairs):
        """Logits of a batch, (B, 1 + M); then its events happen. ``pairs`` lists each event's negatives."""
        measured, z = {}, {}
        for node in range(self.num_nodes):
            measured[node] = self.encode(node)
            z[node] = self.correct(node, measured[node])
        logits = [
            torch.stack([self.score(z[u], z[v]) for u, v in [(a, b), *negatives]])
            for a, b, negatives in zip(src, dst, pairs, strict=True)
        ]
        endpoints = sorted({*src, *dst})
        stored = {node: (z if self.persist else measured)[node].detach() for node in endpoints}
        for node in endpoints:
            if self.tracker is not None and self.boxes.mails[node]:
                self.tracker.observe(
                    node, self.z[node].tolist(), z[node].tolist(), [1], self.elapsed(node), self.num_events[node]
                )
        deliveries = []
        for node in endpoints:
            self.z[node], self.known[node] = stored[node], self.boxes.times[node]
            own = [event for event in range(len(src)) if node in (src[event], dst[event])]
            self.num_events[node] = len(own)
            messages = []
            for event in own:
                message, features = stored[src[event]] + stored[dst[event]], msg[event].double()
                added = len(features) == self.dim
                messages.append(message + features if added else torch.cat([message, features]))
            sent = sum(messages) / len(messages), max(float(t[event]) for event in own)
            neighbors = recent(self.src, self.dst, node, len(self.src), self.num_neighbors)
            deliveries += [(receiver, *sent) for receiver in [node, *(other for other, _ in neighbors)]]
        self.boxes.deliver(deliveries)
        self.src += src
        self.dst += dst
        return torch.stack(logits)
