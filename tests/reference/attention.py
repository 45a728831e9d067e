"""Attention over recent neighbours: root by root, head by head, neighbour by neighbour in double precision.

``neighbor_attention`` is the definition; its gradients come from autograd through plain vector operations.
``explicit`` is multi-head attention with a key and a value for each pair of root and neighbour, as it is usually
written; it is also what a faster function has to be faster than.
"""

import math

import torch


def neighbor_attention(query, z, neighbor, dt, msg, mask, time_weight, time_bias, dropout_mask=None):
    query_z, query_msg, query_time = query
    roots, heads, width = query_z.shape
    results = [[], [], [], []]
    for root in range(roots):
        for head in range(heads):
            entries = []
            for place in range(neighbor.shape[1]):
                if not mask[root, place]:
                    continue
                memory, event = z[neighbor[root, place]], msg[root, place]
                encoded = torch.cos(dt[root, place].double() * time_weight + time_bias)
                logit = (
                    (query_z[root, head] * memory).sum()
                    + (query_msg[root, head] * event).sum()
                    + (query_time[root, head] * encoded).sum()
                )
                scale = 1.0 if dropout_mask is None else dropout_mask[root, head, place]
                entries.append((torch.exp(logit), scale, memory, event, encoded))
            total = sum(entry[0] for entry in entries)
            weights = [entry[0] / total * entry[1] for entry in entries]
            for place, size in enumerate((width, msg.shape[2], time_weight.shape[0])):
                start = torch.zeros(size, dtype=z.dtype)
                results[place].append(
                    sum((w * entry[2 + place] for w, entry in zip(weights, entries, strict=True)), start)
                )
            results[3].append(sum(weights, torch.zeros((), dtype=z.dtype)))
    return tuple(torch.stack(rows).view(roots, heads, *rows[0].shape) for rows in results)


def explicit(query, z, neighbor, dt, msg, mask, key, value, time_weight, time_bias, heads, dropout_mask=None):
    """Multi-head attention; ``key`` and ``value`` are linear layers on [z | msg | phi], ``query`` is (R, H * C)."""
    encoded = torch.cos(dt.to(z.dtype).unsqueeze(-1) * time_weight + time_bias)
    pairs = torch.cat([z[neighbor], msg, encoded], dim=-1)
    keys = key(pairs).unflatten(-1, (heads, -1))  # (R, K, H, C)
    values = value(pairs).unflatten(-1, (heads, -1))
    queries = query.unflatten(-1, (heads, -1)).unsqueeze(1)
    logits = (queries * keys).sum(-1) / math.sqrt(keys.shape[-1])
    logits = logits.masked_fill(~mask.unsqueeze(-1), -torch.inf)
    weights = torch.nan_to_num(logits.softmax(1))  # rows without neighbours
    if dropout_mask is not None:
        weights = weights * dropout_mask.transpose(1, 2)
    return (weights.unsqueeze(-1) * values).sum(1).flatten(1)
