"""Gated linear attention chunk by chunk, for training, and as one matrix of scores."""

import torch
from torch import Tensor
from torch.nn import functional

from graphseq.ops.gated_linear.inputs import prepared

__all__ = ["gated_linear_chunkwise", "gated_linear_quadratic"]


def gated_linear_chunkwise(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    *,
    state: Tensor | None = None,
    scale: float | None = None,
    chunk_size: int = 32,
) -> tuple[Tensor, Tensor]:
    r"""Return outputs and last state of gated linear attention, chunk by chunk.

    .. math::
        S_{n+1} &= \operatorname{Diag}(e^{b_C})\, S_n + (K_n \odot e^{b_C - b})^\top V_n \\
        O_n &= \lambda\,(Q_n \odot e^{b})\, S_n + \operatorname{tril}(A_n)\, V_n, \qquad
        A_{ij} = \lambda \textstyle\sum_c q_{ic}\, k_{jc}\, e^{b_{ic} - b_{jc}}

    with the sums b of g within chunk n of C steps. Time and memory are linear in T; the only loop runs over the
    T / C chunks. It gives the numbers of :func:`gated_linear_recurrent`; a last chunk that is not full is padded with
    steps that leave the state as it is.

    No exponential of a positive number is taken, whatever the gates: A is made of the scores between the two halves of
    a chunk, of each half, and so on. From one half to the other, :math:`e^{b_i - b_j}` is the product of the gates up
    to i in the second half and of those after j in the first one, all at most 1: no gate is divided by.

    Source: arXiv 2312.06635, sections 4.2 and 4.3 (secondary chunking). Differs from it: halves of halves in place of
    sub-chunks of 16 steps, so that no tensor has an entry for each pair of steps and channel.

    Args:
        q: queries.
        k: keys.
        v: values.
        g: logarithm of the gate of each key channel, at most 0: 0 keeps the state, ``-inf`` (a gate of 0) clears it.
        state: state before the first step, as any form returns it; None for zeros.
        scale: factor :math:`\lambda` of the queries; None for :math:`1 / \sqrt K`.
        chunk_size: number C of steps of a chunk, a power of 2.

    Shape:
        q, k, g (B, H, T, K), v (B, H, T, V), state (B, H, K, V) -> o (B, H, T, V) of the type of v, state of float32
        or float64

    Raises:
        ValueError: if shapes do not fit together, or ``chunk_size`` is no power of 2.

    Example:
        >>> q, k, v = torch.randn(3, 1, 2, 100, 4).unbind()
        >>> o, state = gated_linear_chunkwise(q, k, v, torch.full((1, 2, 100, 4), -0.1))
        >>> o.shape, state.shape
        (torch.Size([1, 2, 100, 4]), torch.Size([1, 2, 4, 4]))
    """
    if chunk_size < 1 or chunk_size & (chunk_size - 1):
        raise ValueError(f"chunk_size is {chunk_size}; give a power of 2, such as 32")
    with torch.autocast(q.device.type, enabled=False):
        given = prepared(q, k, v, g, state, scale)
        steps = q.shape[2]
        size = min(chunk_size, _power_of_two(steps))
        number = -(-steps // size)
        padding = (0, 0, 0, number * size - steps)  # g = 0 and k = 0 leave the state as it is
        chunked = (functional.pad(part, padding).unflatten(2, (number, size)) for part in given[:4])
        qs, ks, vs, gs = chunked  # (B, H, N, C, .)
        scores, reading, writing, total = _scores(qs, ks, gs)
        decay = total.mT  # (B, H, N, K, 1)
        added = writing.mT @ vs  # (B, H, N, K, V)
        s, before = given.state, []
        for kept, new in zip(decay.unbind(2), added.unbind(2), strict=True):
            before.append(s)
            s = torch.addcmul(new, kept, s)
        o = scores @ vs + reading @ torch.stack(before, 2)  # (B, H, N, C, V)
        return o.flatten(2, 3)[:, :, :steps].to(v.dtype), s


def gated_linear_quadratic(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, *, state: Tensor | None = None, scale: float | None = None
) -> tuple[Tensor, Tensor]:
    r"""Return outputs and last state of gated linear attention from the matrix of all scores.

    .. math:: O = \lambda\,(Q \odot e^{b})\, S_0 + \operatorname{tril}(A)\, V, \qquad
        A_{ij} = \lambda \textstyle\sum_c q_{ic}\, k_{jc}\, e^{b_{ic} - b_{jc}}

    It is the form with one chunk of :func:`gated_linear_chunkwise`, as stable as that, with memory for T x T scores of
    each head; T is padded to a power of 2.

    Source: arXiv 2312.06635, section 4.1. Differs from it: the scores are not a product of two scaled matrices, which
    overflows.

    Args:
        q: queries.
        k: keys.
        v: values.
        g: logarithm of the gate of each key channel, at most 0: 0 keeps the state, ``-inf`` (a gate of 0) clears it.
        state: state before the first step, as any form returns it; None for zeros.
        scale: factor :math:`\lambda` of the queries; None for :math:`1 / \sqrt K`.

    Shape:
        q, k, g (B, H, T, K), v (B, H, T, V), state (B, H, K, V) -> o (B, H, T, V) of the type of v, state of float32
        or float64

    Raises:
        ValueError: if shapes do not fit together.

    Example:
        >>> q, k, v = torch.randn(3, 1, 2, 5, 4).unbind()
        >>> o, _ = gated_linear_quadratic(q, k, v, torch.zeros(1, 2, 5, 4), scale=1.0)
        >>> bool(torch.allclose(o, (q @ k.transpose(2, 3)).tril() @ v, atol=1e-5))
        True
    """
    whole = _power_of_two(q.shape[2]) if q.dim() == 4 else 1
    return gated_linear_chunkwise(q, k, v, g, state=state, scale=scale, chunk_size=whole)


def _power_of_two(number: int) -> int:
    """Return the least power of 2 that is not below a number."""
    return 1 << max(0, number - 1).bit_length()


def _halves(part: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first and the second of each pair of blocks, (..., 2 N, h, D) -> (..., N, h, D) twice."""
    first, second = part.unflatten(-3, (-1, 2)).unbind(-3)
    return first, second


def _scores(q: Tensor, k: Tensor, g: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the scores A of the steps of a chunk, and what the chunk reads of the state before it and adds to it.

    Blocks of one step are joined in pairs until a block is a chunk. Each query carries the gates from the beginning of
    its block up to its step, each key those after its step: a join multiplies the queries of the second block by all
    gates of the first, and the keys of the first by all gates of the second. All factors are at most 1.

    Args:
        q: scaled queries (..., C, K), with a power of 2 for C.
        k: keys (..., C, K).
        g: logarithms of the gates (..., C, K).

    Returns:
        scores (..., C, C), 0 above the diagonal; queries times the gates up to each step (..., C, K); keys times the
        gates after each step (..., C, K); product of all gates of the chunk (..., 1, K).
    """
    total = g.exp()[..., None, :]  # (..., C, 1, K), blocks of one step
    q, k = q[..., None, :], k[..., None, :]
    scores = (q * k).sum(-1, keepdim=True)  # (..., C, 1, 1): nothing decays between a step and itself
    q = q * total
    while scores.shape[-3] > 1:
        (k_first, k_second), (q_first, q_second), (first, second) = _halves(k), _halves(q), _halves(total)
        earlier, later = _halves(scores)
        cross = q_second @ k_first.mT  # (..., N, h, h)
        scores = torch.cat([functional.pad(earlier, (0, earlier.shape[-1])), torch.cat([cross, later], -1)], -2)
        q = torch.cat([q_first, q_second * first], -2)
        k = torch.cat([k_first * second, k_second], -2)
        total = first * second
    return scores.squeeze(-3), q.squeeze(-3), k.squeeze(-3), total.squeeze(-3)
