"""Attention along edges with rectified scores of sum one, which keeps nothing of the size of the messages."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from graphseq.ops.segment.reduce import segment_sum

__all__ = ["rectified_edge_attention"]

SMALLEST = 1e-6
"""Smallest sum of scores that is divided by."""


def rectified_edge_attention(query: Tensor, keys: Tensor, edge_index: Tensor) -> Tensor:
    r"""Return, for each node, the mean of the keys of its neighbours weighted by rectified scores.

    .. math:: s_{ij} = \max(0, q_i \cdot k_j), \qquad
        y_i = \frac{\sum_{j \to i} s_{ij}\, k_j}{\max(\sum_{j \to i} s_{ij}, 10^{-6})}

    The gathered rows of the E edges are computed again in the backward pass, which keeps inputs, scores and their sums.
    A node without a positive score gets 0.

    Source: arXiv 2308.14316. Differs from it: pairs of nodes are those of edges.

    Args:
        query: features q of the nodes that edges lead to.
        keys: features k of the nodes that edges come from.
        edge_index: edges from row 0 to row 1.

    Shape:
        query (N, D), keys (N, D), edge_index int64 (2, E) -> (N, D)

    Raises:
        ValueError: if shapes do not fit.

    Example:
        >>> q, k = torch.tensor([[1.0], [2.0], [1.0]]), torch.tensor([[3.0], [1.0], [-1.0]])
        >>> rectified_edge_attention(q, k, torch.tensor([[0, 1, 2], [1, 1, 1]])).flatten().tolist()
        [0.0, 2.5, 0.0]
    """
    if query.dim() != 2 or query.shape != keys.shape or edge_index.dim() != 2 or len(edge_index) != 2:
        raise ValueError(
            f"query is {tuple(query.shape)}, keys {tuple(keys.shape)}, edge_index {tuple(edge_index.shape)}; they must "
            "be (N, D), (N, D) and (2, E)"
        )
    result: Tensor = _EdgeAttention.apply(query, keys, edge_index)
    return result


class _EdgeAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, keys: Tensor, edge_index: Tensor) -> Tensor:
        source, target = edge_index
        values = keys[source]  # (E, D)
        scores = (query[target] * values).sum(1).relu()  # (E,)
        total = segment_sum(scores, target, num_segments=len(query))  # (N,)
        ctx.save_for_backward(query, keys, edge_index, scores, total)
        return _divided(segment_sum(scores[:, None] * values, target, num_segments=len(query)), total)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        query, keys, edge_index, scores, total = ctx.saved_tensors
        source, target = edge_index
        size = len(query)
        values, scaled = keys[source], _divided(grad, total)[target]  # (E, D)
        share = (values * scaled).sum(1)  # (E,), gradient of the scores in the numerator
        # gradient of the divisor, which is a constant below its bound
        inner = segment_sum(scores * share, target, num_segments=size) / total.clamp(min=SMALLEST)
        inner = inner.masked_fill(total < SMALLEST, 0)
        slope = ((share - inner[target]) * (scores > 0))[:, None]
        to_query = segment_sum(slope * values, target, num_segments=size)
        to_keys = segment_sum(scores[:, None] * scaled + slope * query[target], source, num_segments=size)
        return to_query, to_keys, None


def _divided(x: Tensor, total: Tensor) -> Tensor:
    return x / total.clamp(min=SMALLEST)[:, None]
