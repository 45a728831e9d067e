"""Gated linear attention in three forms that give the same numbers, and the rule by which layers choose one.

``recurrent`` reads like the equation and is the truth; ``chunkwise`` is for training, and with a single chunk it is the
quadratic form; ``kernels`` calls flash-linear-attention on a GPU.
"""

from torch import Tensor

from graphseq.ops.gated_linear.chunkwise import gated_linear_chunkwise
from graphseq.ops.gated_linear.kernels import gated_linear_kernel, use_kernels
from graphseq.ops.gated_linear.recurrent import gated_linear_recurrent

__all__ = ["gated_linear_attention"]


def gated_linear_attention(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, *, state: Tensor | None = None, scale: float | None = None
) -> tuple[Tensor, Tensor]:
    r"""Return outputs and last state of gated linear attention, in the form that suits device and length.

    .. math:: S_t = \operatorname{Diag}(e^{g_t})\, S_{t-1} + k_t^\top v_t, \qquad o_t = \lambda\, q_t S_t

    On a GPU with flash-linear-attention installed its kernels are called, in float32. Elsewhere one step is
    :func:`gated_linear_recurrent`, and more are :func:`gated_linear_chunkwise`. All give the same numbers up to
    rounding.

    Source: arXiv 2312.06635. Differs from it: none.

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
        >>> import torch
        >>> q, k, v, g = torch.randn(4, 1, 2, 6, 4).unbind()
        >>> o, state = gated_linear_attention(q, k, v, -g.abs())
        >>> step, _ = gated_linear_attention(q[:, :, :1], k[:, :, :1], v[:, :, :1], g[:, :, :1], state=state)
        >>> o.shape, step.shape
        (torch.Size([1, 2, 6, 4]), torch.Size([1, 2, 1, 4]))
    """
    if use_kernels(q, g):
        return gated_linear_kernel(q, k, v, g, state=state, scale=scale)
    if q.dim() == 4 and q.shape[2] == 1:
        return gated_linear_recurrent(q, k, v, g, state=state, scale=scale)
    return gated_linear_chunkwise(q, k, v, g, state=state, scale=scale)
