"""Prompts of node features, node by node, in float64."""

import torch


def softmax(row):
    return torch.exp(row) / torch.exp(row).sum()


def gpf_plus(rows, prompt, weight, bias):
    out = []
    for row in rows:
        share = softmax(torch.stack([(weight[k] * row).sum() + bias[k] for k in range(len(bias))]))
        out.append(sum(share[k] * prompt[k] for k in range(len(bias))))
    return torch.stack(out)


def supt(rows, edges, prompt, weight, bias):
    """edges: pairs (source, target); one more edge from each node to itself."""
    every = [*edges, *((i, i) for i in range(len(rows)))]
    degree = [sum(1 for _, target in every if target == i) for i in range(len(rows))]
    out = []
    for i in range(len(rows)):
        mixed = sum(rows[u] / (degree[u] * degree[i]) ** 0.5 for u, v in every if v == i)
        share = softmax(mixed @ weight + bias)
        out.append(sum(share[k] * prompt[k] for k in range(len(bias))))
    return torch.stack(out)


def tokens(rows, vectors, threshold):
    out = []
    for row in rows:
        total = torch.zeros_like(row)
        for token in vectors:
            weight = 1 / (1 + torch.exp(-(token * row).sum()))
            if weight > threshold:
                total = total + weight * token
        out.append(total)
    return torch.stack(out)
