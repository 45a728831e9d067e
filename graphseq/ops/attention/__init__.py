"""Attention of roots over their padded neighbours, with key weights folded into the queries.

The usual order makes a key and a value for each pair of root and neighbour. Here the weights of the keys were folded
into the queries, and the weights of the values are applied to weighted sums, so that all products with weights have
one row a root. ``plain`` is the equation in differentiable torch operations; ``fused`` has its own gradient;
``compiled`` is one loop over rows, on the CPU.
"""

import torch
from torch import Tensor

from graphseq.ops.attention import compiled, fused
from graphseq.ops.processor import use_compiled

__all__ = ["neighbor_attention"]


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
    slot: Tensor | None = None,
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
        query: queries, already folded with the weights of the keys and scaled; columns for memories, then messages,
            then times.
        z: memories or embeddings of the nodes of the batch.
        neighbor: row of ``z`` of each neighbour; any valid row where ``mask`` is False.
        dt: time between root and event, in the unit of ``time_weight``; finite also where ``mask`` is False.
        msg: features of the events; D_e may be 0; finite also where ``mask`` is False.
        mask: whether there is such a neighbour.
        time_weight: frequencies of the time encoder.
        time_bias: phases of the time encoder.
        dropout_mask: factor of the softmax, 0 or 1 / (1 - p); None for no dropout.
        later: time to be added to ``dt`` for each of up to G rows that share a root's lookup, so that all but the
            moment is looked up and encoded once; None for one row a root.
        slot: place of each row among the R G slots of ``later``, none twice; given together with ``later``. One
            result for each row.

    Shape:
        query (R, H, F) with F = D + D_e + D_t, z (U, D), neighbor (R, K) int64, dt (R, K) of any real type,
        msg (R, K, D_e), mask (R, K) bool, time weight and bias (D_t,), dropout_mask (R, H, K) -> (R, H, F + 1);
        with later (R, G) and slot (S,): dropout_mask (R, G H, K), the G H with heads inside, -> (S, H, F + 1)

    Raises:
        ValueError: if the query is not as wide as what it is multiplied with, one of ``later`` and ``slot`` is
            missing, or a gradient is required for messages or times.

    Example:
        >>> neighbor, mask = torch.randint(9, (5, 3)), torch.ones(5, 3, dtype=torch.bool)
        >>> sums = neighbor_attention(torch.randn(5, 2, 8 + 4), torch.randn(9, 8), neighbor, torch.rand(5, 3),
        ...     torch.zeros(5, 3, 0), mask, torch.ones(4), torch.zeros(4))
        >>> sums.shape, sums[..., -1].allclose(torch.ones(5, 2), atol=1e-5)
        (torch.Size([5, 2, 13]), True)
    """
    widths = (z.shape[1], msg.shape[-1], time_weight.shape[0])
    if query.shape[-1] != sum(widths):
        raise ValueError(
            f"neighbor_attention(query of width {query.shape[-1]}): z, msg and the time encoder have {widths}, "
            f"{sum(widths)} together; fold all columns of the key weights into the queries"
        )
    if (later is None) != (slot is None):
        raise ValueError("neighbor_attention got one of later and slot; give both, or none for one row a root")
    if torch.is_grad_enabled() and (msg.requires_grad or dt.requires_grad):
        raise ValueError("neighbor_attention gives no gradient to msg and dt: detach them")
    if dropout_mask is not None:
        dropout_mask = dropout_mask.to(time_weight.dtype)  # under autocast it may have the type of a product
    if not torch.is_autocast_enabled(z.device.type):
        form = compiled if use_compiled(query, z, msg, time_weight, time_bias) else fused
        return form.neighbor_attention(
            query, z, neighbor, dt, msg, mask, time_weight, time_bias, dropout_mask, later, slot
        )
    with torch.autocast(z.device.type, enabled=False):
        dtype = time_weight.dtype
        pairs = (query.to(dtype), z.to(dtype), neighbor, dt, msg.to(dtype), mask)
        return neighbor_attention(*pairs, time_weight, time_bias, dropout_mask, later=later, slot=slot)
