"""Message passing one node at a time: loops over nodes and edges, float64 tensors so that gradients can be compared."""

import math

import torch


def incoming(num_nodes, edge_index):
    """For each node the list of (source, number of the edge)."""
    lists = [[] for _ in range(num_nodes)]
    for edge, (source, target) in enumerate(zip(*edge_index.tolist(), strict=True)):
        lists[target].append((source, edge))
    return lists


def linear(rows, weight, bias=None):
    return [weight @ row + (0 if bias is None else bias) for row in rows]


def relu(rows):
    return [row * (row > 0) for row in rows]


def batch_norm(rows, weight, bias, mean=None, var=None, eps=1e-5):
    """With ``mean`` and ``var`` as in evaluation, without as in training."""
    if mean is None:
        mean = sum(rows) / len(rows)
        var = sum((row - mean) ** 2 for row in rows) / len(rows)
    return [(row - mean) / torch.sqrt(var + eps) * weight + bias for row in rows]


def layer_norm(rows, weight, bias, eps=1e-5):
    normed = []
    for row in rows:
        mean = sum(row) / len(row)
        var = sum((entry - mean) ** 2 for entry in row) / len(row)
        normed.append((row - mean) / torch.sqrt(var + eps) * weight + bias)
    return normed


def gin_mlp(rows, first, norm, second):
    return linear(relu(batch_norm(linear(rows, *first), *norm)), *second)


def gin_sum(rows, edge_index, eps):
    summed = []
    for node, edges in enumerate(incoming(len(rows), edge_index)):
        total = (1 + eps) * rows[node]
        for source, _ in edges:
            total = total + rows[source]
        summed.append(total)
    return summed


def gine_sum(rows, edge_index, edge_rows, eps):
    """``edge_rows``: edge features already mapped to the width of the nodes."""
    summed = []
    for node, edges in enumerate(incoming(len(rows), edge_index)):
        total = (1 + eps) * rows[node]
        for source, edge in edges:
            message = rows[source] + edge_rows[edge]
            total = total + message * (message > 0)
        summed.append(total)
    return summed


def gcn(rows, edge_index, weight, bias):
    """One self-loop a node replaces those of the graph; the degree counts it."""
    lists = incoming(len(rows), edge_index)
    neighbours = [[source for source, _ in edges if source != node] + [node] for node, edges in enumerate(lists)]
    degree = [len(sources) for sources in neighbours]
    out = []
    for node, sources in enumerate(neighbours):
        total = 0
        for source in sources:
            total = total + (weight @ rows[source]) / math.sqrt(degree[node] * degree[source])
        out.append(total + bias)
    return out


def sage(rows, edge_index, weight_neighbours, bias, weight_self):
    out = []
    for node, edges in enumerate(incoming(len(rows), edge_index)):
        new = weight_self @ rows[node] + bias
        for source, _ in edges:
            new = new + weight_neighbours @ rows[source] / len(edges)
        out.append(new)
    return out


def gat(rows, edge_index, weight, source_score, target_score, bias, edge_rows=None, edge_weight=None, edge_score=None):
    """Scores are (heads, width); a self-loop replaces those of the graph, with the mean of the incoming features."""
    heads, width = source_score.shape
    mapped = [(weight @ row).reshape(heads, width) for row in rows]
    out = []
    for node, edges in enumerate(incoming(len(rows), edge_index)):
        others = [(source, edge) for source, edge in edges if source != node]
        sources = [source for source, _ in others] + [node]
        features = None
        if edge_rows is not None:
            features = [edge_rows[edge] for _, edge in others]
            zeros = torch.zeros_like(edge_weight[0])
            features.append(sum(features) / len(features) if features else zeros)
        joined = []
        for head in range(heads):
            scores = []
            for position, source in enumerate(sources):
                score = mapped[source][head] @ source_score[head] + mapped[node][head] @ target_score[head]
                if features is not None:
                    edge = (edge_weight @ features[position]).reshape(heads, width)
                    score = score + edge[head] @ edge_score[head]
                scores.append(score if score > 0 else 0.2 * score)
            exponentials = [torch.exp(score) for score in scores]
            total = sum(exponentials)
            joined.append(
                sum(e / total * mapped[source][head] for e, source in zip(exponentials, sources, strict=True))
            )
        out.append(torch.cat(joined) + bias)
    return out


def pool(rows, graphs, num_graphs, mode):
    pooled = []
    for graph in range(num_graphs):
        members = [row for row, owner in zip(rows, graphs, strict=True) if owner == graph]
        if not members:
            pooled.append(torch.zeros_like(rows[0]))
        elif mode == "max":
            pooled.append(torch.stack([max(entries, key=torch.Tensor.item) for entries in zip(*members, strict=True)]))
        else:
            pooled.append(sum(members) / (len(members) if mode == "mean" else 1))
    return pooled


def virtual_update(states, rows, graphs, stages):
    """Residual update of one state a graph; ``stages``: (linear, norm) arguments of the perceptron's two stages."""
    pooled = pool(rows, graphs, len(states), "sum")
    new = [state + total for state, total in zip(states, pooled, strict=True)]
    for mapping, norm in stages:
        new = relu(batch_norm(linear(new, *mapping), *norm))
    return [state + change for state, change in zip(states, new, strict=True)]
