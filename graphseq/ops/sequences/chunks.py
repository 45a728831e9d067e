"""Causal softmax attention within chunks of a sequence, with a state for single steps."""

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["chunked_attention"]

ChunkState = tuple[Tensor, Tensor, Tensor]


def chunked_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor,
    *,
    state: ChunkState | None = None,
    lengths: Tensor | None = None,
) -> tuple[Tensor, ChunkState]:
    r"""Attend causally within chunks of C steps, and return the outputs and the chunk that is not yet full.

    .. math:: o_t = \sum_{s} \operatorname{softmax}_s\bigl(q_t \cdot k_s / \sqrt{Z} + b_{t - s}\bigr)\, v_s, \qquad
        C \lfloor t / C \rfloor \le s \le t

    Time and memory are T C. A sequence that goes on from a state continues its chunk, so that parts of any length and
    single steps give the same numbers; a single step costs C at every position.

    Args:
        q: queries.
        k: keys.
        v: values.
        bias: number :math:`b` added to the score at each distance, which also says how long a chunk is.
        state: state before the first step, as this function returns it; None at the beginning of sequences.
        lengths: number of steps of each sequence, int64 (B,), each in 0..T; None if all have T.

    Shape:
        q, k (B, T, Z), v (B, T, V), bias (C,), state (keys (B, C, Z), values (B, C, V), steps in the chunk (B,)) ->
        o (B, T, V)

    Raises:
        ValueError: if shapes do not fit together.

    Example:
        >>> q, k, v = torch.randn(3, 2, 7, 4).unbind()
        >>> o, (keys, values, place) = chunked_attention(q, k, v, torch.zeros(3))
        >>> o.shape, place.tolist()
        (torch.Size([2, 7, 4]), [1, 1])
    """
    size, (batch, steps, width) = len(bias), q.shape
    if k.shape != q.shape or v.shape[:2] != q.shape[:2]:
        raise ValueError(
            f"q, k and v have shapes {tuple(q.shape)}, {tuple(k.shape)} and {tuple(v.shape)}, where (B, T, Z) twice "
            "and (B, T, V) are needed"
        )
    if state is not None and (state[0].shape != (batch, size, width) or state[1].shape != (batch, size, v.shape[2])):
        raise ValueError(
            f"state has shapes {tuple(state[0].shape)} and {tuple(state[1].shape)}, where {(batch, size, width)} and "
            f"{(batch, size, v.shape[2])} are needed: give the state that was returned for the same {batch} sequences"
        )
    start = torch.zeros(batch, dtype=torch.int64, device=q.device) if state is None else state[2]
    end = start + (steps if lengths is None else lengths.to(q.device))  # (B,)
    place = start[:, None] + torch.arange(steps, device=q.device)  # (B, T), counted from the beginning of the chunk
    number = -(-steps // size) if state is None else (steps + size - 2) // size + 1  # chunks that are touched
    room = torch.arange(size, device=q.device)
    if state is None:
        padding = (0, 0, 0, number * size - steps)
        keys, values = functional.pad(k, padding), functional.pad(v, padding)  # (B, N C, .)
    else:
        keys, values = (
            functional.pad(old.to(new.dtype), (0, 0, 0, (number - 1) * size)).scatter(
                1, place[..., None].expand_as(new), new
            )
            for old, new in zip(state[:2], (k, v), strict=True)
        )
    if steps == 1 and state is not None:  # one query, one chunk
        distance = place - room  # (B, C)
        scores = (q @ keys.mT)[:, 0] * width**-0.5 + bias[distance.clamp(min=0)]
        weights = scores.masked_fill(distance < 0, -torch.inf).softmax(-1)
        o = weights[:, None] @ values
    else:
        if state is None:
            queries = functional.pad(q, (0, 0, 0, number * size - steps))
        else:
            queries = q.new_zeros(batch, number * size, width).scatter(1, place[..., None].expand_as(q), q)
        distance = room[:, None] - room  # (C, C)
        added = bias[distance.clamp(min=0)].masked_fill(distance < 0, -torch.inf).to(q.dtype)
        qs, ks, vs = (part.unflatten(1, (number, size)) for part in (queries, keys, values))  # (B, N, C, .)
        whole = functional.scaled_dot_product_attention(qs, ks, vs, attn_mask=added).flatten(1, 2)  # (B, N C, V)
        o = whole[:, :steps] if state is None else whole.gather(1, place[..., None].expand(-1, -1, v.shape[2]))
    begin = (end // size * size)[:, None] + room  # (B, C), steps of the last chunk; empty if it begins with the next
    kept = tuple(
        functional.pad(part, (0, 0, 0, size)).gather(1, begin[..., None].expand(-1, -1, part.shape[2]))
        for part in (keys, values)
    )
    return o, (kept[0], kept[1], end % size)
