"""Gated linear attention step by step: the reference, and the form for decoding."""

import torch
from torch import Tensor

from graphseq.ops.gated_linear.inputs import prepared

__all__ = ["gated_linear_recurrent"]


def gated_linear_recurrent(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, *, state: Tensor | None = None, scale: float | None = None
) -> tuple[Tensor, Tensor]:
    r"""Return outputs and last state of gated linear attention, one step after the other.

    .. math:: S_t = \operatorname{Diag}(e^{g_t})\, S_{t-1} + k_t^\top v_t, \qquad o_t = \lambda\, q_t S_t

    The gate multiplies the state before :math:`k_t^\top v_t` is added, so a step is not decayed at once. It takes
    T steps of H K V operations each, so it suits decoding; :func:`gated_linear_chunkwise` gives the same numbers in
    few large products.

    Source: arXiv 2312.06635, section 4.1. Differs from it: none.

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
        >>> o, state = gated_linear_recurrent(q, k, v, torch.zeros(1, 2, 5, 4))
        >>> o.shape, state.shape
        (torch.Size([1, 2, 5, 4]), torch.Size([1, 2, 4, 4]))
    """
    with torch.autocast(q.device.type, enabled=False):
        given = prepared(q, k, v, g, state, scale)
        steps = zip(*(part.unbind(2) for part in (given.q, given.k, given.v, given.g.exp())), strict=True)
        s, outputs = given.state, []
        for query, key, value, gate in steps:
            s = gate[..., None] * s + key[..., None] * value[..., None, :]  # (B, H, K, V)
            outputs.append((query[..., None, :] @ s).squeeze(-2))  # (B, H, V)
        return torch.stack(outputs, 2).to(v.dtype), s
