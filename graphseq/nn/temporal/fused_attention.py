"""Attention of roots over their padded neighbours from the side of the query, with its own gradient.

The usual order makes a key and a value for each (root, neighbour) pair. Here the weights of keys were folded into the
queries, and those of values are applied to weighted sums, so that all products with weights have one row a root; pairs
only see gathers, cosines and batched products of small matrices. Memories, messages and cosines stay three tensors:
copying them into one costs as much as the product that reads it.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import Function

from graphseq.nn.temporal.time_encoding import time_cosines, time_gradients, time_turns

__all__ = ["neighbor_attention"]

_CHUNK = 128  # roots whose pairs stay in the cache of a processor while they are worked on

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


def _softmax(logits: Tensor) -> Tensor:
    """Return the softmax over the last dimension.

    On a processor torch's own takes four times as long for rows as short as these.
    """
    if logits.device.type != "cpu":
        return logits.softmax(-1)
    shares = (logits - logits.amax(-1, keepdim=True)).exp_()
    return shares.div_(shares.sum(-1, keepdim=True))


def _weights(query: Query, keys: Query, mask: Tensor, dropout_mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the softmax over neighbours, and what is left of it after masks: (R, H, K) each.

    A low number instead of minus infinity, and zeros multiplied afterwards, leave no NaN in rows without neighbours.
    """
    dtype, heads = query[0].dtype, query[0].shape[1]
    present = mask.to(dtype).unsqueeze(1)
    logits = ((1 - present) * (torch.finfo(dtype).min / 2)).repeat(1, heads, 1)
    share = _softmax(_add_products(logits, query, keys))
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
        learns_time = ctx.needs_input_grad[8] or ctx.needs_input_grad[9]
        encoded, phase = time_cosines(dt, time_weight, time_bias, keep=learns_time)
        keys = (_pairs(z, neighbor), msg, encoded)
        share, kept = _weights(query, keys, mask, dropout_mask)
        ctx.save_for_backward(*query, *keys, neighbor, dt, phase, share, kept)
        ctx.num_rows = z.shape[0]
        return kept.bmm(keys[0]), kept.bmm(msg), kept.bmm(keys[2]), kept.sum(-1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "neighbor_attention cannot be differentiated twice (create_graph=True): use plain modules"
            )
        *blocks, neighbor, dt, phase, share, kept = ctx.saved_tensors
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
        if phase is not None:
            cosines = sides.bmm(torch.cat((of_sums[2], query[2]), 1)).flatten(0, 1)
            to_time = time_gradients(cosines, phase.flatten(0, 1), dt.reshape(-1))
        return *to_query, to_z, None, None, None, None, *to_time, None


class _SeatedAttention(Function):
    """G rows sit at each root: queries, neighbours and cosines are theirs in common, and only the moment differs.

    The cosine at a later moment is cos(a + b) = cos a cos b - sin a sin b: with a of the pair and b of the seat, it
    turns queries before they meet cosines and sines of the pair, and weighted sums of these after.
    """

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
        later: Tensor,
        seat: Tensor,
    ) -> Attended:
        (roots, heads, _), seats = query_z.shape, later.shape[1]
        dt = dt.to(z.dtype) * mask
        later = later.to(z.dtype)
        # room for the sums of all seats, which chunks of roots fill
        widths = (z.shape[1], msg.shape[2], query_time.shape[2], query_time.shape[2])
        sums = [z.new_empty(roots, seats * heads, width) for width in widths]
        of_time = torch.empty_like(sums[2])
        shares, keeps, turns = [], [], []
        for rows in _chunks(z, roots):
            present = mask[rows].to(z.dtype).unsqueeze(1)
            cosine, sine = time_turns(dt[rows], time_weight, time_bias)
            ahead_cosine, ahead_sine = time_turns(later[rows], time_weight)
            near = _pairs(z, neighbor[rows])
            logits = ((1 - present) * (torch.finfo(z.dtype).min / 2)).repeat(1, heads, 1)
            logits = _add_products(logits, (query_z[rows], query_msg[rows]), (near, msg[rows])).repeat(1, seats, 1)
            turned = _turned(query_time[rows], ahead_cosine, ahead_sine)
            share = _softmax(_add_products(logits, turned, (cosine, sine)))
            kept = share * (present if dropout_mask is None else present * dropout_mask[rows])
            for total, part in zip(sums, (near, msg[rows], cosine, sine), strict=True):
                torch.bmm(kept, part, out=total[rows])
            shape = (len(near), seats, heads, -1)
            turned_back = torch.mul(sums[2][rows].view(shape), ahead_cosine.unsqueeze(2), out=of_time[rows].view(shape))
            turned_back.addcmul_(sums[3][rows].view(shape), ahead_sine.unsqueeze(2), value=-1)
            shares.append(share)
            keeps.append(kept)
            turns += [cosine, sine, ahead_cosine, ahead_sine]
        share, kept = torch.cat(shares), torch.cat(keeps)
        of_z, of_msg, of_cosine, of_sine = sums
        ctx.save_for_backward(
            *(query_z, query_msg, query_time, z, neighbor, dt, later, msg, time_weight, time_bias),
            *(share, kept, of_cosine, of_sine, seat, *turns),
        )
        results = (of_z, of_msg, of_time, kept.sum(-1))
        taken = (block.view(roots * seats, heads, *block.shape[2:]).index_select(0, seat) for block in results)
        return cast(Attended, tuple(taken))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "neighbor_attention cannot be differentiated twice (create_graph=True): use plain modules"
            )
        device = gradients[0].device.type
        if torch.is_autocast_enabled(device):  # products of the same types as ahead
            with torch.autocast(device, enabled=False):
                return _SeatedAttention.backward(ctx, *gradients)
        query_z, query_msg, query_time, z, neighbor, dt, later, msg, time_weight, time_bias, *rest = ctx.saved_tensors
        share, kept, of_cosine, of_sine, seat, *turns = rest
        (roots, heads, _), seats = query_z.shape, later.shape[1]
        # back to the seats; nothing comes from those where nobody sits
        placed = [
            gradient.new_zeros(roots * seats, *gradient.shape[1:]).index_copy_(0, seat, gradient)
            for gradient in gradients
        ]
        to_z_sum, to_msg_sum, to_time_sum, to_total = (
            block.view(roots, seats * heads, *block.shape[2:]) for block in placed
        )
        to_query = [query.new_empty(query.shape) for query in (query_z, query_msg, query_time)]
        to_z = torch.zeros_like(z) if ctx.needs_input_grad[3] else None
        learns_time = ctx.needs_input_grad[8] or ctx.needs_input_grad[9]
        to_weight, to_bias = torch.zeros_like(time_weight), torch.zeros_like(time_bias)
        for rows, (cosine, sine, ahead_cosine, ahead_sine) in zip(_chunks(z, roots), _fours(turns), strict=True):
            near = _pairs(z, neighbor[rows])
            to_time = to_time_sum[rows].view(len(near), seats, heads, -1)
            to_cosine_sum = (to_time * ahead_cosine.unsqueeze(2)).flatten(1, 2)
            to_sine_sum = (to_time * ahead_sine.neg().unsqueeze(2)).flatten(1, 2)
            to_logits = to_total[rows].unsqueeze(-1).expand_as(kept[rows]).contiguous()
            sums = (to_z_sum[rows], to_msg_sum[rows], to_cosine_sum, to_sine_sum)
            to_logits = _add_products(to_logits, sums, (near, msg[rows], cosine, sine)).mul_(kept[rows])
            to_logits = torch.addcmul(to_logits, share[rows], to_logits.sum(-1, keepdim=True), value=-1)
            together = to_logits.view(len(near), seats, heads, -1).sum(1)
            torch.bmm(together, near, out=to_query[0][rows])
            torch.bmm(together, msg[rows], out=to_query[1][rows])
            to_turned_cosine = to_logits.bmm(cosine).view_as(to_time)
            to_turned_sine = to_logits.bmm(sine).view_as(to_time)
            turned_back = to_turned_cosine * ahead_cosine.unsqueeze(2)
            turned_back.addcmul_(to_turned_sine, ahead_sine.unsqueeze(2), value=-1)
            torch.sum(turned_back, 1, out=to_query[2][rows])
            if to_z is not None:
                pairs = kept[rows].transpose(1, 2).bmm(to_z_sum[rows])
                pairs.baddbmm_(together.transpose(1, 2), query_z[rows])
                to_z.index_add_(0, neighbor[rows].reshape(-1), pairs.flatten(0, 1))
            if learns_time:
                turned = _turned(query_time[rows], ahead_cosine, ahead_sine)
                by_value, by_key = kept[rows].transpose(1, 2), to_logits.transpose(1, 2)
                slope = by_value.bmm(to_sine_sum).baddbmm_(by_key, turned[1]).mul_(cosine)
                slope.addcmul_(by_value.bmm(to_cosine_sum).baddbmm_(by_key, turned[0]), sine, value=-1)
                query = query_time[rows].unsqueeze(1)
                to_ahead_cosine = (
                    to_turned_cosine.mul_(query).addcmul_(to_time, of_cosine[rows].view_as(to_time)).sum(2)
                )
                to_ahead_sine = to_turned_sine.mul_(query).addcmul_(to_time, of_sine[rows].view_as(to_time)).sum(2)
                ahead_slope = to_ahead_sine.mul_(ahead_cosine).addcmul_(to_ahead_cosine, ahead_sine).neg_()
                slope, ahead_slope = slope.flatten(0, 1), ahead_slope.flatten(0, 1)
                moments = dt[rows].reshape(-1)
                of_weight, of_bias = (torch.stack((moments, torch.ones_like(moments))) @ slope).unbind()
                to_weight.add_(of_weight).add_(later[rows].reshape(1, -1).mm(ahead_slope)[0])
                to_bias.add_(of_bias)
        time = (to_weight, to_bias) if learns_time else (None, None)
        return *to_query, to_z, None, None, None, None, *time, None, None, None


def _chunks(like: Tensor, count: int) -> list[slice]:
    size = _CHUNK if like.device.type == "cpu" else max(count, 1)
    return [slice(first, first + size) for first in range(0, count, size)]


def _fours(tensors: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
    return [tuple(tensors[first : first + 4]) for first in range(0, len(tensors), 4)]


def _turned(query: Tensor, cosine: Tensor, sine: Tensor) -> tuple[Tensor, Tensor]:
    """Return queries (R, H, T) turned by the angles of their G seats, (R, G H, T): for cosines, and for sines."""
    query = query.unsqueeze(1)
    return (query * cosine.unsqueeze(2)).flatten(1, 2), (query * sine.neg().unsqueeze(2)).flatten(1, 2)


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
    *,
    later: Tensor | None = None,
    seat: Tensor | None = None,
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
        later: where G rows share each root: what ``dt`` is more for each of them, so that all but the moment is
            looked up and encoded once. None for one row a root.
        seat: place of each row among the R G, none twice; given together with ``later``. Results are those of the
            rows.

    Shape:
        query (R, H, D), (R, H, D_e), (R, H, D_t), z (U, D), neighbor (R, K) int64, dt (R, K) of any real type,
        msg (R, K, D_e), mask (R, K) bool, time weight and bias (D_t,), dropout_mask (R, H, K)
        -> (R, H, D), (R, H, D_e), (R, H, D_t), (R, H); with later (R, G) and seat (S,): dropout_mask (R, G H, K), the
        G H with heads inside, -> (S, H, D), (S, H, D_e), (S, H, D_t), (S, H)

    Raises:
        ValueError: if a block of the query is not as wide as what it is multiplied with, one of ``later`` and ``seat``
            is missing, or a gradient is asked for messages or times.

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
    if (later is None) != (seat is None):
        raise ValueError("neighbor_attention got one of later and seat; give both, or none for one row a root")
    if torch.is_grad_enabled() and (msg.requires_grad or dt.requires_grad):
        raise ValueError("neighbor_attention gives no gradient to msg and dt: detach them")
    device = z.device.type
    if torch.is_autocast_enabled(device):
        with torch.autocast(device, enabled=False):
            dtype = time_weight.dtype
            query_z, query_msg, query_time = (block.to(dtype) for block in query)
            wide = query_z, query_msg, query_time
            data = (z.to(dtype), neighbor, dt, msg.to(dtype), mask)
            return neighbor_attention(wide, *data, time_weight, time_bias, dropout_mask, later=later, seat=seat)
    if later is not None and seat is not None:
        arguments = (*query, z, neighbor, dt, msg, mask, time_weight, time_bias, dropout_mask)
        return _SeatedAttention.apply(*arguments, later, seat)
    return _NeighborAttention.apply(*query, z, neighbor, dt, msg, mask, time_weight, time_bias, dropout_mask)
