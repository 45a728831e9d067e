"""Packed format: the units of a group read the same inputs, which are gathered for one matrix product a group.

Inputs are held feature by feature, (in_features, B), so that gathering copies whole rows; the output is a view of the
same layout, and a chain of packed layers never transposes.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["PackedIndex", "block_diagonal_linear", "gather_features", "packed_index", "packed_linear"]


class PackedIndex(NamedTuple):
    """Inputs that each group reads, and where each input is read.

    Args:
        inputs: inputs of each group (G, K).
        order: positions in the flattened ``inputs``, sorted by input (G K,).
        offsets: where the positions of each input begin in ``order``, and their number (in_features + 1,).

    Example:
        >>> packed_index(torch.tensor([[0, 2], [0, 1]]), 3).offsets
        tensor([0, 2, 3, 4])
    """

    inputs: Tensor
    order: Tensor
    offsets: Tensor


def packed_index(index: Tensor, in_features: int) -> PackedIndex:
    """Return the plan by which gradients of gathered inputs are added up.

    Args:
        index: inputs of each group, int64 (G, K).
        in_features: number of inputs.

    Raises:
        ValueError: if an input is out of range.

    Example:
        >>> packed_index(torch.tensor([[0, 2], [0, 1]]), 3).order
        tensor([0, 2, 3, 1])
    """
    if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < in_features:
        raise ValueError(
            f"index has inputs from {int(index.min())} to {int(index.max())}, outside 0..{in_features - 1}"
        )
    flat = index.flatten()
    counts = torch.bincount(flat, minlength=in_features)
    return PackedIndex(index, flat.argsort(stable=True), torch.cat([counts.new_zeros(1), counts.cumsum(0)]))


class _Gather(torch.autograd.Function):
    """Rows by index; its gradient sums the rows of each index, in one pass and in a fixed order."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, flat: Tensor, order: Tensor, offsets: Tensor) -> Tensor:
        ctx.save_for_backward(flat, order, offsets)
        return rows.index_select(0, flat)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return _Sum.apply(grads[0], *ctx.saved_tensors), None, None, None


class _Sum(torch.autograd.Function):
    """Sums of the rows of each index: the transposed map of :class:`_Gather`, and its gradient is a gather."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, flat: Tensor, order: Tensor, offsets: Tensor) -> Tensor:
        ctx.save_for_backward(flat, order, offsets)
        if rows.numel() == 0:
            return rows.new_zeros(len(offsets) - 1, rows.size(1))
        return torch.nn.functional.embedding_bag(
            order, rows.contiguous(), offsets, mode="sum", include_last_offset=True
        )

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return _Gather.apply(grads[0], *ctx.saved_tensors), None, None, None


def gather_features(x: Tensor, index: PackedIndex) -> Tensor:
    """Return features of each sample by index, stored feature by feature: copies of rows where ``x`` is so as well.

    Args:
        x: inputs (*, in_features).
        index: features to take, from :func:`packed_index`.

    Shape:
        (*, G K)

    Example:
        >>> gather_features(torch.tensor([5.0, 6.0, 7.0]), packed_index(torch.tensor([[2, 0]]), 3))
        tensor([7., 5.])
    """
    rows = x.reshape(-1, x.size(-1)).t().contiguous()
    return _unflatten(_Gather.apply(rows, index.inputs.flatten(), index.order, index.offsets), x)


def packed_linear(x: Tensor, weight: Tensor, index: PackedIndex, bias: Tensor | None = None) -> Tensor:
    r"""Return the outputs of groups that each read K inputs: gather, then one batched matrix product.

    .. math:: y_{g n + j} = \sum_k x_{\mathrm{index}_{gk}}\, W_{gkj} + b_{g n + j}

    Args:
        x: inputs (*, in_features).
        weight: weights (G, K, n).
        index: inputs that each group reads, from :func:`packed_index`.
        bias: bias (G n,), or None.

    Shape:
        (*, G n), the units of a group side by side

    Example:
        >>> weight, index = torch.ones(2, 1, 2), packed_index(torch.tensor([[2], [0]]), 3)
        >>> packed_linear(torch.tensor([[1.0, 2.0, 3.0]]), weight, index)
        tensor([[3., 3., 1., 1.]])
    """
    groups, fan_in, _ = weight.shape
    rows = x.reshape(-1, x.size(-1)).t().contiguous()  # (in_features, B)
    gathered = _Gather.apply(rows, index.inputs.flatten(), index.order, index.offsets)
    return _product(gathered.view(groups, fan_in, rows.size(1)), weight, bias, x, interleaved=False)


def block_diagonal_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, interleaved: bool = False) -> Tensor:
    r"""Return the outputs of groups that each read their own group of inputs: one batched product, nothing is gathered.

    Args:
        x: inputs (*, G m).
        weight: weights of each group (G, m, n).
        bias: bias (G n,), or None.
        interleaved: whether unit i belongs to group i mod G, in inputs, outputs and bias; else groups are contiguous.

    Shape:
        (*, G n)

    Example:
        >>> block_diagonal_linear(torch.tensor([[1.0, 2.0]]), torch.ones(2, 1, 1))
        tensor([[1., 2.]])
    """
    groups, size, _ = weight.shape
    rows = x.reshape(-1, x.size(-1)).t()  # (G m, B), a view
    blocks = rows.unflatten(0, (size, groups)).transpose(0, 1) if interleaved else rows.unflatten(0, (groups, size))
    return _product(blocks, weight, bias, x, interleaved)


def _product(blocks: Tensor, weight: Tensor, bias: Tensor | None, x: Tensor, interleaved: bool) -> Tensor:
    groups, _, size = weight.shape
    if bias is None:
        out = torch.bmm(weight.transpose(1, 2), blocks)  # (G, n, B)
    else:
        start = bias.view(size, groups).t() if interleaved else bias.view(groups, size)
        out = torch.baddbmm(start.unsqueeze(2), weight.transpose(1, 2), blocks)
    out = out.transpose(0, 1) if interleaved else out
    return _unflatten(out.flatten(0, 1), x)


def _unflatten(rows: Tensor, x: Tensor) -> Tensor:
    """Return rows (features, B) as (*, features), with the leading axes of the inputs."""
    return rows.t().unflatten(0, x.shape[:-1]) if x.dim() > 1 else rows.flatten()
