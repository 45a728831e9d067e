"""Losses of self-supervised training and random parts of graphs, by loops in float64."""

import math

import torch


def masked_cross_entropy(logits, target, mask):
    total, count = 0.0, 0
    for row, wanted, counts in zip(logits, target.tolist(), mask.tolist(), strict=True):
        if counts:
            total = total - (row[wanted] - torch.log(sum(torch.exp(entry) for entry in row)))
            count += 1
    return total / count


def link_loss(node, edges, non_edges, counts, valid):
    present, absent = [], []
    for place in range(edges.shape[1]):
        if counts[place]:
            u, v = edges[:, place].tolist()
            present.append(-torch.log(1 / (1 + torch.exp(-(node[u] * node[v]).sum()))))
        if counts[place] and valid[place]:
            u, v = non_edges[:, place].tolist()
            absent.append(-torch.log(1 / (1 + torch.exp((node[u] * node[v]).sum()))))
    return sum(present) / len(present) + sum(absent) / len(absent)


def info_nce_loss(first, second, temperature):
    def similarity(a, b):
        return (a * b).sum() / (math.sqrt(1.0) * a.norm() * b.norm() * temperature)

    count, total = len(first), 0.0
    for g in range(count):
        own = torch.exp(similarity(first[g], second[g]))
        rows = sum(torch.exp(similarity(first[g], second[k])) for k in range(count))
        columns = sum(torch.exp(similarity(first[k], second[g])) for k in range(count))
        total = total - torch.log(own / rows) - torch.log(own / columns)
    return total / (2 * count)


def mutual_information_loss(node, corrupted, summary, negative_summary):
    total = 0.0
    for i in range(len(node)):
        total = total - torch.log(torch.sigmoid((node[i] * summary[i]).sum()))
        total = total - torch.log(1 - torch.sigmoid((corrupted[i] * negative_summary[i]).sum()))
    return total / len(node)


def smallest(values, counts, ptr):
    marked = [False] * len(values)
    for g, count in enumerate(counts):
        rows = sorted(range(ptr[g], ptr[g + 1]), key=lambda row: (values[row], row))
        for row in rows[:count]:
            marked[row] = True
    return marked


def reached(edges, start, hops):
    """Nodes within a number of hops of a node, along the edges."""
    found = {start}
    for _ in range(hops):
        found |= {v for u, v in edges if u in found}
    return found
