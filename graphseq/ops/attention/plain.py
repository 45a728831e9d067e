"""Attention over padded neighbours as the equation has it: the definition that the other forms are tested against."""

import torch
from torch import Tensor
from torch.nn import functional

from graphseq.ops.time_encoding.plain import encode_times

__all__: list[str] = []


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
    later: Tensor | None = None,
    slot: Tensor | None = None,
) -> Tensor:
    """Return the weighted sums of :func:`graphseq.ops.neighbor_attention`."""
    if later is not None and slot is not None:  # rows that share a lookup become roots of their own
        root, heads = slot // later.shape[1], query.shape[1]
        dt = dt[root] + later.flatten()[slot].unsqueeze(1)  # (S, K)
        query, neighbor, msg, mask = query[root], neighbor[root], msg[root], mask[root]
        if dropout_mask is not None:
            dropout_mask = dropout_mask.unflatten(1, (-1, heads)).flatten(0, 1)[slot]  # (S, H, K)
    x = torch.cat([z[neighbor], msg, encode_times(dt, time_weight, time_bias)], dim=2)  # (R, K, F)
    logits = torch.einsum("rhf,rkf->rhk", query, x)
    present = mask.unsqueeze(1)  # (R, 1, K)
    # the lowest number instead of minus infinity: no NaN in rows without neighbours
    share = logits.masked_fill(~present, torch.finfo(logits.dtype).min).softmax(2) * present
    if dropout_mask is not None:
        share = share * dropout_mask
    return torch.einsum("rhk,rkf->rhf", share, functional.pad(x, (0, 1), value=1.0))  # (R, H, F + 1)
