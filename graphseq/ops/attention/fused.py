"""Attention over padded neighbours with its own gradient, in torch operations.

Memories, messages and cosines stay three tensors, since copying them into one costs as much as the product that reads
it; pairs of root and neighbour only see gathers, cosines and batched products of small matrices.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import Function

from graphseq.ops.time_encoding import gradients as time_gradients
from graphseq.ops.time_encoding import precise_cosines_and_sines
from graphseq.ops.time_encoding.plain import phase

__all__: list[str] = []

_CHUNK = 128  # roots whose pairs stay in the cache of a processor together

Blocks = tuple[Tensor, Tensor, Tensor]


def _pairs(z: Tensor, neighbor: Tensor) -> Tensor:
    return z.index_select(0, neighbor.reshape(-1)).view(*neighbor.shape, z.shape[1])


def _blocks(x: Tensor, widths: tuple[int, int, int]) -> Blocks:
    """Return the columns of x (..., F or more) that belong to memories, to messages and to times."""
    of_z, of_msg, of_time = widths
    return x[..., :of_z], x[..., of_z : of_z + of_msg], x[..., of_z + of_msg : of_z + of_msg + of_time]


def _add_products(target: Tensor, left: tuple[Tensor, ...], right: tuple[Tensor, ...]) -> Tensor:
    """Add the batched products of (R, H, F) with (R, K, F) to (R, H, K) in place."""
    for one, other in zip(left, right, strict=True):
        if one.shape[-1]:
            target.baddbmm_(one, other.transpose(1, 2))
    return target


def _weights(query: Blocks, keys: Blocks, mask: Tensor, dropout_mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the softmax over neighbours, and what is left of it after masks: (R, H, K) each.

    A low number instead of minus infinity, and zeros multiplied afterwards, leave no NaN in rows without neighbours.
    """
    dtype, heads = query[0].dtype, query[0].shape[1]
    present = mask.to(dtype).unsqueeze(1)
    logits = ((1 - present) * (torch.finfo(dtype).min / 2)).repeat(1, heads, 1)
    share = _add_products(logits, query, keys).softmax(-1)
    kept = share * present if dropout_mask is None else share * (present * dropout_mask)
    return share, kept


def refuse_second_derivative() -> None:
    """Raise where a gradient is recorded in order to be differentiated again."""
    if torch.is_grad_enabled():
        raise RuntimeError("neighbor_attention cannot be differentiated twice (create_graph=True): use plain modules")


class _NeighborAttention(Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        z: Tensor,
        neighbor: Tensor,
        dt: Tensor,
        msg: Tensor,
        mask: Tensor,
        time_weight: Tensor,
        time_bias: Tensor,
        dropout_mask: Tensor | None,
    ) -> Tensor:
        dt = dt.to(z.dtype) * mask  # those of an absent neighbour count for nothing
        learns_time = ctx.needs_input_grad[6] or ctx.needs_input_grad[7]
        angle = phase(dt, time_weight, time_bias)  # (R, K, T)
        encoded, sine = angle.cos(), angle.sin_() if learns_time else None
        keys = (_pairs(z, neighbor), msg, encoded)
        widths = (z.shape[1], msg.shape[2], encoded.shape[2])
        share, kept = _weights(_blocks(query, widths), keys, mask, dropout_mask)
        ctx.save_for_backward(query, *keys, neighbor, dt, sine, share, kept)
        ctx.num_rows = z.shape[0]
        return torch.cat((*(kept.bmm(key) for key in keys), kept.sum(-1, keepdim=True)), 2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        query, *keys, neighbor, dt, sine, share, kept = ctx.saved_tensors
        widths = (keys[0].shape[2], keys[1].shape[2], keys[2].shape[2])
        of_sums, of_total = gradients[0][..., :-1], gradients[0][..., -1:]
        to_logits = _add_products(of_total.expand_as(kept).contiguous(), _blocks(of_sums, widths), tuple(keys))
        to_logits = to_logits.mul_(kept)
        to_logits = torch.addcmul(to_logits, share, to_logits.sum(-1, keepdim=True), value=-1)
        to_query = torch.cat([to_logits.bmm(key) for key in keys], 2)

        # a neighbour is reached as a key and as a value: one product for both
        sides = torch.cat((kept, to_logits), 1).transpose(1, 2)
        by_z, _, by_time = _blocks(torch.cat((of_sums, query), 1), widths)
        to_z: Tensor | None = None
        to_time: tuple[Tensor | None, Tensor | None] = (None, None)
        if ctx.needs_input_grad[1]:
            pairs = sides.bmm(by_z).flatten(0, 1)
            to_z = pairs.new_zeros(ctx.num_rows, pairs.shape[1]).index_add_(0, neighbor.reshape(-1), pairs)
        if sine is not None:
            to_time = time_gradients(sides.bmm(by_time).flatten(0, 1), sine.flatten(0, 1), dt.reshape(-1))
        return to_query, to_z, None, None, None, None, *to_time, None


class _SharedAttention(Function):
    """Up to G rows share each lookup: queries, neighbours and cosines are common to them, and only the moment differs.

    The cosine at a later moment is cos(a + b) = cos a cos b - sin a sin b. With a the phase of the pair and b the
    phase of the row, queries are turned before they are multiplied with cosines and sines of the pair, and weighted
    sums of these are turned back after.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        z: Tensor,
        neighbor: Tensor,
        dt: Tensor,
        msg: Tensor,
        mask: Tensor,
        time_weight: Tensor,
        time_bias: Tensor,
        dropout_mask: Tensor | None,
        later: Tensor,
        slot: Tensor,
    ) -> Tensor:
        (roots, heads, _), slots = query.shape, later.shape[1]
        dt = dt.to(z.dtype) * mask
        later = later.to(z.dtype)
        widths = (z.shape[1], msg.shape[2], time_weight.shape[0])
        query_z, query_msg, query_time = _blocks(query, widths)
        # the sums of all slots, which chunks of roots fill
        sums = [z.new_empty(roots, slots * heads, width) for width in (*widths, widths[2])]
        of_time = torch.empty_like(sums[2])
        shares, keeps, turns = [], [], []
        for rows in _chunks(z, roots):
            present = mask[rows].to(z.dtype).unsqueeze(1)
            cosine, sine = precise_cosines_and_sines(dt[rows], time_weight, time_bias)
            ahead_cosine, ahead_sine = precise_cosines_and_sines(later[rows], time_weight)
            near = _pairs(z, neighbor[rows])
            logits = ((1 - present) * (torch.finfo(z.dtype).min / 2)).repeat(1, heads, 1)
            logits = _add_products(logits, (query_z[rows], query_msg[rows]), (near, msg[rows])).repeat(1, slots, 1)
            turned = _turned(query_time[rows], ahead_cosine, ahead_sine)
            share = _add_products(logits, turned, (cosine, sine)).softmax(-1)
            kept = share * (present if dropout_mask is None else present * dropout_mask[rows])
            for total, part in zip(sums, (near, msg[rows], cosine, sine), strict=True):
                torch.bmm(kept, part, out=total[rows])
            shape = (len(near), slots, heads, -1)
            turned_back = torch.mul(sums[2][rows].view(shape), ahead_cosine.unsqueeze(2), out=of_time[rows].view(shape))
            turned_back.addcmul_(sums[3][rows].view(shape), ahead_sine.unsqueeze(2), value=-1)
            shares.append(share)
            keeps.append(kept)
            turns += [cosine, sine, ahead_cosine, ahead_sine]
        share, kept = torch.cat(shares), torch.cat(keeps)
        of_z, of_msg, of_cosine, of_sine = sums
        ctx.save_for_backward(
            *(query, z, neighbor, dt, later, msg, time_weight, time_bias),
            *(share, kept, of_cosine, of_sine, slot, *turns),
        )
        results = torch.cat((of_z, of_msg, of_time, kept.sum(-1, keepdim=True)), 2)
        return results.view(roots * slots, heads, -1).index_select(0, slot)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        device = gradients[0].device.type
        if torch.is_autocast_enabled(device):  # products of the same types as ahead
            with torch.autocast(device, enabled=False):
                return _SharedAttention.backward(ctx, *gradients)
        query, z, neighbor, dt, later, msg, time_weight, time_bias, *rest = ctx.saved_tensors
        share, kept, of_cosine, of_sine, slot, *turns = rest
        (roots, heads, _), slots = query.shape, later.shape[1]
        widths = (z.shape[1], msg.shape[2], time_weight.shape[0])
        query_z, _, query_time = _blocks(query, widths)
        # back to the slots; unused ones get no gradient
        gradient = gradients[0]
        placed = gradient.new_zeros(roots * slots, *gradient.shape[1:]).index_copy_(0, slot, gradient)
        placed = placed.view(roots, slots * heads, -1)
        (to_z_sum, to_msg_sum, to_time_sum), to_total = _blocks(placed, widths), placed[..., -1:]
        to_query = [query.new_empty(roots, heads, width) for width in widths]
        to_z = torch.zeros_like(z) if ctx.needs_input_grad[1] else None
        learns_time = ctx.needs_input_grad[6] or ctx.needs_input_grad[7]
        to_weight, to_bias = torch.zeros_like(time_weight), torch.zeros_like(time_bias)
        for rows, (cosine, sine, ahead_cosine, ahead_sine) in zip(_chunks(z, roots), _fours(turns), strict=True):
            near = _pairs(z, neighbor[rows])
            to_time = to_time_sum[rows].unflatten(1, (slots, heads))
            to_cosine_sum = (to_time * ahead_cosine.unsqueeze(2)).flatten(1, 2)
            to_sine_sum = (to_time * ahead_sine.neg().unsqueeze(2)).flatten(1, 2)
            to_logits = to_total[rows].expand_as(kept[rows]).contiguous()
            sums = (to_z_sum[rows], to_msg_sum[rows], to_cosine_sum, to_sine_sum)
            to_logits = _add_products(to_logits, sums, (near, msg[rows], cosine, sine)).mul_(kept[rows])
            to_logits = torch.addcmul(to_logits, share[rows], to_logits.sum(-1, keepdim=True), value=-1)
            together = to_logits.view(len(near), slots, heads, -1).sum(1)
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
                queried = query_time[rows].unsqueeze(1)
                to_ahead_cosine = (
                    to_turned_cosine.mul_(queried).addcmul_(to_time, of_cosine[rows].view_as(to_time)).sum(2)
                )
                to_ahead_sine = to_turned_sine.mul_(queried).addcmul_(to_time, of_sine[rows].view_as(to_time)).sum(2)
                ahead_slope = to_ahead_sine.mul_(ahead_cosine).addcmul_(to_ahead_cosine, ahead_sine).neg_()
                slope, ahead_slope = slope.flatten(0, 1), ahead_slope.flatten(0, 1)
                moments = dt[rows].reshape(-1)
                of_weight, of_bias = (torch.stack((moments, torch.ones_like(moments))) @ slope).unbind()
                to_weight.add_(of_weight).add_(later[rows].reshape(1, -1).mm(ahead_slope)[0])
                to_bias.add_(of_bias)
        time = (to_weight, to_bias) if learns_time else (None, None)
        return torch.cat(to_query, 2), to_z, None, None, None, None, *time, None, None, None


def _chunks(like: Tensor, count: int) -> list[slice]:
    size = _CHUNK if like.device.type == "cpu" else max(count, 1)
    return [slice(first, first + size) for first in range(0, count, size)]


def _fours(tensors: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
    return [tuple(tensors[first : first + 4]) for first in range(0, len(tensors), 4)]


def _turned(query: Tensor, cosine: Tensor, sine: Tensor) -> tuple[Tensor, Tensor]:
    """Return queries (R, H, T) turned by the angles of their G slots, (R, G H, T): for cosines, and for sines."""
    query = query.unsqueeze(1)
    return (query * cosine.unsqueeze(2)).flatten(1, 2), (query * sine.neg().unsqueeze(2)).flatten(1, 2)


def neighbor_attention(
    query: Tensor,
    z: Tensor,
    neighbor: Tensor,
    dt: Tensor,
    msg: Tensor,
    mask: Tensor,
    time_weight: Tensor,
    time_bias: Tensor,
    dropout_mask: Tensor | None,
    later: Tensor | None,
    slot: Tensor | None,
) -> Tensor:
    """Return the weighted sums of :func:`graphseq.ops.neighbor_attention`."""
    arguments = (query, z, neighbor, dt, msg, mask, time_weight, time_bias, dropout_mask)
    if later is not None and slot is not None:
        return cast(Tensor, _SharedAttention.apply(*arguments, later, slot))
    return cast(Tensor, _NeighborAttention.apply(*arguments))
