"""Attention of roots over their padded neighbours from the side of the query, with its own gradient.

The usual order makes a key and a value for each (root, neighbour) pair. Here the weights of keys were folded into the
queries, and those of values are applied to weighted sums, so that all products with weights have one row a root; pairs
only see gathers, cosines and batched products of small matrices: on a processor a compiled loop over rows, elsewhere
operations of torch, for which memories, messages and cosines stay three tensors, since copying them into one costs as
much as the product that reads it.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import Function

from graphseq.nn.temporal.time_encoding import time_gradients, time_phase, time_turns
from graphseq.ops.processor import arrays, compiled_loops

__all__ = ["neighbor_attention"]

_CHUNK = 128  # roots whose pairs stay in the cache of a processor while they are worked on

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


def _refuse_second_derivative() -> None:
    if torch.is_grad_enabled():
        raise RuntimeError("neighbor_attention cannot be differentiated twice (create_graph=True): use plain modules")


class _CompiledAttention(Function):
    """Both of the functions below as loops over rows, for a processor."""

    @staticmethod
    def forward(
        ctx: Any,
        loops: Any,
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
        seat: Tensor | None,
    ) -> Tensor:
        query = query.transpose(0, 1)  # heads first, as products by head make it and take it
        (heads, roots, width), places = query.shape, neighbor.shape[1]
        lookup, moment, keep = torch.arange(roots), torch.zeros(roots, dtype=torch.float64), dropout_mask
        if later is not None and seat is not None:
            lookup, moment = seat // later.shape[1], later.flatten().index_select(0, seat).double()
            keep = None if keep is None else keep.reshape(-1, heads, places).index_select(0, seat)
        if keep is None:
            keep = query.new_ones(len(lookup), heads, places)
        sums = torch.empty(heads, len(lookup), width + 1, dtype=query.dtype)
        share, kept = (torch.empty(keep.shape, dtype=query.dtype) for _ in range(2))
        inputs = (query, z, neighbor, dt.double(), msg, mask, moment, lookup)
        time, results = (time_weight, time_bias), (sums, share, kept)
        loops.attend(*arrays(*inputs, keep, *time, *results))
        ctx.loops = loops
        ctx.save_for_backward(*inputs, *time, share, kept)
        return sums.transpose(0, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_second_derivative()
        query, z, *_, time_weight, _, _, _ = ctx.saved_tensors
        # of their own strides: loops write to contiguous memory
        to_query, to_z = (torch.zeros(x.shape, dtype=x.dtype) for x in (query, z))
        of_time = torch.zeros(2, len(time_weight), dtype=torch.float64)
        results = (to_query, to_z, *of_time)
        ctx.loops.attend_backward(*arrays(gradients[0].transpose(0, 1), *ctx.saved_tensors, *results))
        to_time = of_time.to(time_weight.dtype)
        return None, to_query.transpose(0, 1), to_z, None, None, None, None, *to_time.unbind(), None, None, None


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
        phase = time_phase(dt, time_weight, time_bias)
        encoded, sine = phase.cos(), phase.sin_() if ctx.needs_input_grad[6] or ctx.needs_input_grad[7] else None
        keys = (_pairs(z, neighbor), msg, encoded)
        widths = (z.shape[1], msg.shape[2], encoded.shape[2])
        share, kept = _weights(_blocks(query, widths), keys, mask, dropout_mask)
        ctx.save_for_backward(query, *keys, neighbor, dt, sine, share, kept)
        ctx.num_rows = z.shape[0]
        return torch.cat((*(kept.bmm(key) for key in keys), kept.sum(-1, keepdim=True)), 2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_second_derivative()
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


class _SeatedAttention(Function):
    """G rows sit at each root: queries, neighbours and cosines are theirs in common, and only the moment differs.

    The cosine at a later moment is cos(a + b) = cos a cos b - sin a sin b: with a of the pair and b of the seat, it
    turns queries before they meet cosines and sines of the pair, and weighted sums of these after.
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
        seat: Tensor,
    ) -> Tensor:
        (roots, heads, _), seats = query.shape, later.shape[1]
        dt = dt.to(z.dtype) * mask
        later = later.to(z.dtype)
        widths = (z.shape[1], msg.shape[2], time_weight.shape[0])
        query_z, query_msg, query_time = _blocks(query, widths)
        # room for the sums of all seats, which chunks of roots fill
        sums = [z.new_empty(roots, seats * heads, width) for width in (*widths, widths[2])]
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
            share = _add_products(logits, turned, (cosine, sine)).softmax(-1)
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
            *(query, z, neighbor, dt, later, msg, time_weight, time_bias),
            *(share, kept, of_cosine, of_sine, seat, *turns),
        )
        results = torch.cat((of_z, of_msg, of_time, kept.sum(-1, keepdim=True)), 2)
        return results.view(roots * seats, heads, -1).index_select(0, seat)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_second_derivative()
        device = gradients[0].device.type
        if torch.is_autocast_enabled(device):  # products of the same types as ahead
            with torch.autocast(device, enabled=False):
                return _SeatedAttention.backward(ctx, *gradients)
        query, z, neighbor, dt, later, msg, time_weight, time_bias, *rest = ctx.saved_tensors
        share, kept, of_cosine, of_sine, seat, *turns = rest
        (roots, heads, _), seats = query.shape, later.shape[1]
        widths = (z.shape[1], msg.shape[2], time_weight.shape[0])
        query_z, _, query_time = _blocks(query, widths)
        # back to the seats; nothing comes from those where nobody sits
        gradient = gradients[0]
        placed = gradient.new_zeros(roots * seats, *gradient.shape[1:]).index_copy_(0, seat, gradient)
        placed = placed.view(roots, seats * heads, -1)
        (to_z_sum, to_msg_sum, to_time_sum), to_total = _blocks(placed, widths), placed[..., -1:]
        to_query = [query.new_empty(roots, heads, width) for width in widths]
        to_z = torch.zeros_like(z) if ctx.needs_input_grad[1] else None
        learns_time = ctx.needs_input_grad[6] or ctx.needs_input_grad[7]
        to_weight, to_bias = torch.zeros_like(time_weight), torch.zeros_like(time_bias)
        for rows, (cosine, sine, ahead_cosine, ahead_sine) in zip(_chunks(z, roots), _fours(turns), strict=True):
            near = _pairs(z, neighbor[rows])
            to_time = to_time_sum[rows].unflatten(1, (seats, heads))
            to_cosine_sum = (to_time * ahead_cosine.unsqueeze(2)).flatten(1, 2)
            to_sine_sum = (to_time * ahead_sine.neg().unsqueeze(2)).flatten(1, 2)
            to_logits = to_total[rows].expand_as(kept[rows]).contiguous()
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
                asked = query_time[rows].unsqueeze(1)
                to_ahead_cosine = (
                    to_turned_cosine.mul_(asked).addcmul_(to_time, of_cosine[rows].view_as(to_time)).sum(2)
                )
                to_ahead_sine = to_turned_sine.mul_(asked).addcmul_(to_time, of_sine[rows].view_as(to_time)).sum(2)
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
    """Return queries (R, H, T) turned by the angles of their G seats, (R, G H, T): for cosines, and for sines."""
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
    dropout_mask: Tensor | None = None,
    *,
    later: Tensor | None = None,
    seat: Tensor | None = None,
) -> Tensor:
    r"""Attend over neighbours, messages and encoded times, and return their weighted sums before any value weights.

    .. math::
        x_{rk} = [\,z_{n(r,k)} \,\Vert\, x_e \,\Vert\, \cos(\Delta t_{rk}\, w + b)\,], \quad
        \alpha_{rhk} = \mathrm{softmax}_{k}(q_{rh} \cdot x_{rk}), \quad
        \tilde\alpha_{rhk} = d_{rhk}\, \alpha_{rhk}, \qquad
        y_{rh} = \sum_k \tilde\alpha_{rhk}\, [\,x_{rk} \,\Vert\, 1\,]

    over the present neighbours k of root r; zeros for a root without neighbours. The last column is what is left of
    the weights. An attention with queries Q, key weights K, value weights V and value bias c is
    :math:`[V \,\Vert\, c]_h\, y_{rh}` with :math:`q_h = K_h^\top Q_h / \sqrt{C_h}`; a bias of the keys changes
    nothing, since it adds the same number to all logits of a root.

    Gradients go to queries, ``z`` and the time encoder, and cannot be differentiated twice; messages are data. On a
    GPU those of ``z`` are added in changing order unless ``torch.use_deterministic_algorithms`` is on.

    Source: arXiv 2006.10637, section 3.1 (temporal graph attention). Differs from it: the order of products only.

    Args:
        query: already folded with the weights of the keys and scaled; columns for memories, then messages, then times.
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
        query (R, H, F) with F = D + D_e + D_t, z (U, D), neighbor (R, K) int64, dt (R, K) of any real type,
        msg (R, K, D_e), mask (R, K) bool, time weight and bias (D_t,), dropout_mask (R, H, K) -> (R, H, F + 1);
        with later (R, G) and seat (S,): dropout_mask (R, G H, K), the G H with heads inside, -> (S, H, F + 1)

    Raises:
        ValueError: if the query is not as wide as what it is multiplied with, one of ``later`` and ``seat`` is
            missing, or a gradient is asked for messages or times.

    Example:
        >>> neighbor, mask = torch.randint(9, (5, 3)), torch.ones(5, 3, dtype=torch.bool)
        >>> sums = neighbor_attention(torch.randn(5, 2, 8 + 4), torch.randn(9, 8), neighbor, torch.rand(5, 3),
        ...     torch.zeros(5, 3, 0), mask, torch.ones(4), torch.zeros(4))
        >>> sums.shape, sums[..., -1].allclose(torch.ones(5, 2))
        (torch.Size([5, 2, 13]), True)
    """
    widths = (z.shape[1], msg.shape[-1], time_weight.shape[0])
    if query.shape[-1] != sum(widths):
        raise ValueError(
            f"neighbor_attention(query of width {query.shape[-1]}): z, msg and the time encoder have {widths}, "
            f"{sum(widths)} together; fold all columns of the key weights into the queries"
        )
    if (later is None) != (seat is None):
        raise ValueError("neighbor_attention got one of later and seat; give both, or none for one row a root")
    if torch.is_grad_enabled() and (msg.requires_grad or dt.requires_grad):
        raise ValueError("neighbor_attention gives no gradient to msg and dt: detach them")
    device = z.device.type
    if torch.is_autocast_enabled(device):
        with torch.autocast(device, enabled=False):
            dtype = time_weight.dtype
            data = (z.to(dtype), neighbor, dt, msg.to(dtype), mask)
            time = (time_weight, time_bias)
            return neighbor_attention(query.to(dtype), *data, *time, dropout_mask, later=later, seat=seat)
    arguments = (query, z, neighbor, dt, msg, mask, time_weight, time_bias, dropout_mask)
    if loops := compiled_loops(f"{__package__}.compiled", query, z, msg, time_weight, time_bias):
        return cast(Tensor, _CompiledAttention.apply(loops, *arguments, later, seat))
    if later is not None and seat is not None:
        return cast(Tensor, _SeatedAttention.apply(*arguments, later, seat))
    return cast(Tensor, _NeighborAttention.apply(*arguments))
