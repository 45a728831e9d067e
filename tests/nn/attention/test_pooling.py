"""Attention pooling against loops over heads and vectors, with gradients, and what its order does not change."""

import math

import pytest
import torch
from torch import nn

from graphseq.nn import AttentionPooling


def normalised(row, norm):
    mean = sum(row) / len(row)
    variance = sum((value - mean) ** 2 for value in row) / len(row)
    return (row - mean) / (variance + 1e-5) ** 0.5 * norm.weight + norm.bias


def by_loops(layer, vectors):
    """Summary of one set of vectors (N, D)."""
    rows = [layer.start, *vectors]
    for part in layer.layers:
        attention, heads = part.self_attn, part.self_attn.num_heads
        weights, biases = attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3)
        queries, keys, values = ([w @ row + b for row in rows] for w, b in zip(weights, biases, strict=True))
        width, mixed = layer.dim // heads, []
        for query in queries:
            joined = []
            for head in range(heads):
                own = slice(head * width, (head + 1) * width)
                scores = [(query[own] * key[own]).sum() / math.sqrt(width) for key in keys]
                whole = sum(score.exp() for score in scores)
                joined.append(sum(s.exp() / whole * value[own] for s, value in zip(scores, values, strict=True)))
            mixed.append(attention.out_proj.weight @ torch.cat(joined) + attention.out_proj.bias)
        rows = [normalised(row + more, part.norm1) for row, more in zip(rows, mixed, strict=True)]
        wide = [part.linear1.weight @ row + part.linear1.bias for row in rows]
        wide = [row * (1 + torch.erf(row / math.sqrt(2))) / 2 for row in wide]
        rows = [
            normalised(row + part.linear2.weight @ more + part.linear2.bias, part.norm2)
            for row, more in zip(rows, wide, strict=True)
        ]
    return rows[0]


@pytest.fixture
def layer():
    torch.manual_seed(0)
    made = AttentionPooling(4, num_layers=2, num_heads=2, hidden_features=3, dropout=0.0).double()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.7)
    return made


def test_equals_the_loops_with_gradients(layer):
    h = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    expected = torch.stack([by_loops(layer, vectors) for vectors in h])
    torch.testing.assert_close(layer(h), expected, rtol=1e-10, atol=1e-10)
    with torch.no_grad():
        torch.testing.assert_close(layer.eval()(h), expected, rtol=1e-10, atol=1e-10)
    leaves, incoming = [h, *layer.parameters()], torch.randn(2, 4, dtype=torch.float64)
    ours, theirs = (torch.autograd.grad(y, leaves, incoming) for y in (layer.train()(h), expected))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)


def test_order_does_not_matter_and_without_vectors_it_is_that_of_the_learned_one(layer):
    h = torch.randn(2, 5, 4, dtype=torch.float64)
    torch.testing.assert_close(layer(h[:, [3, 0, 4, 1, 2]]), layer(h))
    alone = by_loops(layer, h[0, :0])
    torch.testing.assert_close(layer(h[:, :0]), alone.expand(2, 4))
