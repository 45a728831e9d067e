"""Attention of roots over their padded neighbours from the side of the query, with its own gradient.

The usual order makes a key and a value for each (root, neighbour) pair. Here the weights of keys were folded into the
queries, and those of values are applied to weighted sums, so that all products with weights have one row a root; pairs
only see gathers, cosines and batched products of small matrices. Memories, messages and cosines stay three tensors:
copying them into one costs as much as the product that reads it.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from graphseq.nn.temporal.time_encoding import time_cosines, time_gradients

__all__ = ["neighbor_attention"]

Query = tuple[Tensor, Tensor, Tensor]
Attended = tuple[Tensor, Tensor, Tensor, Tensor]


def _pairs(z: Tensor, neighbor: Tensor) -> Tensor:
    return z.index_select(0, neighbor.reshape(-1)).view(*neighbor.shape, z.shape[1])


def _add_products(target: Tensor, left: tuple[Tensor, ...], right: tuple[Tensor, ...]) -> Tensor:
    """Add the batched products of (R, H, F) with (R, K, F) to (R, H, K) in place."""
    for one, other in zip(left, right, strict=True):
        if one.shape[-1]:
            target.baddbmm_(one, other.transpose(1, 2))
    return target


def _weights(query: Query, keys: Query, mask: Tensor, dropout_mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the softmax over neighbours, and what is left of it after masks: (R, H, K) each.

    A low number instead of minus infinity, and zeros multiplied afterwards, leave no NaN in rows without neighbours.
    """
    dtype, heads = query[0].dtype, query[0].shape[1]
    present = mask.to(dtype).unsqueeze(1)
    logits = ((1 - present) * (torch.finfo(dtype).min / 2)).repeat(1, heads, 1)
    share = _add_products(logits, query, keys).softmax(-1)
    kept = share * present if dropout_mask is None else share * (present * dropout_mask)
    return share, kept


class _NeighborAttention(Function):
    @staticmethod
    def forward(
        ctx: Any,
        query_z: Tensor,
        query_msg: Tensor,
        query_time: Tensor,
        z: Tensor,
        neighbor: Tensor,
        dt: Tensor,
        msg: Tensor,
        mask: Tensor,
        time_weight: Tensor,
        time_bias: Tensor,
        dropout_mask: Tensor | None,
    ) -> Attended:
        query = (query_z, query_msg, query_time)
        dt = dt.to(z.dtype) * mask  # cosines of 0 are fast, those of an absent neighbour count for nothing
        keys = (_pairs(z, neighbor), msg, time_cosines(dt, time_weight, time_bias))
        share, kept = _weights(query, keys, mask, dropout_mask)
        ctx.save_for_backward(*query, *keys, neighbor, dt, time_weight, time_bias, share, kept)
        ctx.num_rows = z.shape[0]
        return kept.bmm(keys[0]), kept.bmm(msg), kept.bmm(keys[2]), kept.sum(-1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "neighbor_attention cannot be differentiated twice (create_graph=True): use plain modules"
            )
        *blocks, neighbor, dt, time_weight, time_bias, share, kept = ctx.saved_tensors
        query, keys = blocks[:3], blocks[3:]
        *of_sums, of_total = gradients
        to_logits = _add_products(
            of_total.unsqueeze(-1).expand_as(kept).contiguous(), (of_sums[0], of_sums[1], of_sums[2]), keys
        ).mul_(kept)
        to_logits = torch.addcmul(to_logits, share, to_logits.sum(-1, keepdim=True), value=-1)
        to_query = [to_logits.bmm(key) for key in keys]

        # a neighbour is reached as a key and as a value: one product for both
        sides = torch.cat((kept, to_logits), 1).transpose(1, 2)
        to_z: Tensor | None = None
        to_time: tuple[Tensor | None, Tensor | None] = (None, None)
        if ctx.needs_input_grad[3]:
            pairs = sides.bmm(torch.cat((of_sums[0], query[0]), 1)).flatten(0, 1)
            to_z = pairs.new_zeros(ctx.num_rows, pairs.shape[1]).index_add_(0, neighbor.reshape(-1), pairs)
        if ctx.needs_input_grad[8] or ctx.needs_input_grad[9]:
            cosines = sides.bmm(torch.cat((of_sums[2], query[2]), 1)).flatten(0, 1)
            to_time = time_gradients(cosines, dt.reshape(-1), time_weight, time_bias)
        return *to_query, to_z, None, None, None, None, *to_time, None


def neighbor_attention(
    query: tuple[Tensor, Tensor, Tensor],
    z: Tensor,
    neighbor: Tensor,
    dt: Tensor,
    msg: Tensor,
    mask: Tensor,
    time_weight: Tensor,
    time_bias: Tensor,
    dropout_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    r"""Attend over neighbours, messages and encoded times, and return their weighted sums before any value weights.

    .. math::
        \phi_{rk} = \cos(\Delta t_{rk}\, w + b), \quad
        \alpha_{rhk} = \mathrm{softmax}_{k}\bigl(
            q^{z}_{rh} \cdot z_{n(r,k)} + q^{x}_{rh} \cdot x_{rk} + q^{t}_{rh} \cdot \phi_{rk}\bigr), \quad
        \tilde\alpha_{rhk} = d_{rhk}\, \alpha_{rhk}

    over the present neighbours k of root r; the results are the sums over k of :math:`\tilde\alpha z`,
    :math:`\tilde\alpha x`, :math:`\tilde\alpha \phi` and :math:`\tilde\alpha`, zeros for a root without neighbours.
    An attention with queries Q, key weights K, value weights V and value bias c is
    :math:`V [\ldots] + c \sum_k \tilde\alpha` with :math:`q_h = K_h^\top Q_h / \sqrt{D_h}`; a bias of the keys
    changes nothing, since it adds the same number to all logits of a root.

    Gradients go to queries, ``z`` and the time encoder, and cannot be differentiated twice; messages are data. On a
    GPU those of ``z`` are added in changing order unless ``torch.use_deterministic_algorithms`` is on.

    Source: arXiv 2006.10637, section 3.1 (temporal graph attention). Differs from it: the order of products only.

    Args:
        query: one block for memories, one for messages, one for times; already folded with the weights of the keys
            and scaled.
        z: memories or embeddings of the nodes of the batch.
        neighbor: rows of ``z``; where ``mask`` is False any valid row.
        dt: time between root and event, in the unit of ``time_weight``; finite also where ``mask`` is False.
        msg: features of the events; D_e may be 0; finite also where ``mask`` is False.
        mask: whether there is such a neighbour.
        time_weight: frequencies of the time encoder.
        time_bias: phases of the time encoder.
        dropout_mask: what the softmax is multiplied by: 0 or 1 / (1 - p). None for no dropout.

    Shape:
        query (R, H, D), (R, H, D_e), (R, H, D_t), z (U, D), neighbor (R, K) int64, dt (R, K) of any real type,
        msg (R, K, D_e), mask (R, K) bool, time weight and bias (D_t,), dropout_mask (R, H, K)
        -> (R, H, D), (R, H, D_e), (R, H, D_t), (R, H)

    Raises:
        ValueError: if a block of the query is not as wide as what it is multiplied with, or a gradient is asked for
            messages or times.

    Example:
        >>> query = torch.randn(5, 2, 8), torch.randn(5, 2, 0), torch.randn(5, 2, 4)
        >>> neighbor, mask = torch.randint(9, (5, 3)), torch.ones(5, 3, dtype=torch.bool)
        >>> z, _, times, share = neighbor_attention(query, torch.randn(9, 8), neighbor, torch.rand(5, 3),
        ...     torch.zeros(5, 3, 0), mask, torch.ones(4), torch.zeros(4))
        >>> z.shape, times.shape, share.allclose(torch.ones(5, 2))
        (torch.Size([5, 2, 8]), torch.Size([5, 2, 4]), True)
    """
    widths, needed = tuple(block.shape[-1] for block in query), (z.shape[1], msg.shape[-1], time_weight.shape[0])
    if widths != needed:
        raise ValueError(
            f"neighbor_attention(query of widths {widths}): z, msg and the time encoder have {needed}; "
            "fold the columns of the key weights that belong to each block into the queries"
        )
    if torch.is_grad_enabled() and (msg.requires_grad or dt.requires_grad):
        raise ValueError("neighbor_attention gives no gradient to msg and dt: detach them")
    device = z.device.type
    if torch.is_autocast_enabled(device):
        with torch.autocast(device, enabled=False):
            dtype = time_weight.dtype
            query_z, query_msg, query_time = (block.to(dtype) for block in query)
            wide = query_z, query_msg, query_time
            return neighbor_attention(
                wide, z.to(dtype), neighbor, dt, msg.to(dtype), mask, time_weight, time_bias, dropout_mask
            )
    return _NeighborAttention.apply(*query, z, neighbor, dt, msg, mask, time_weight, time_bias, dropout_mask)
