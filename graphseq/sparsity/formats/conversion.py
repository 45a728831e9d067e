"""Conversion of dense weights with a mask into the sparse formats, and back."""

import torch
from torch import Tensor

from graphseq.sparsity.formats.csr import CSRPattern, csr_pattern
from graphseq.sparsity.masks import group_units

__all__ = ["from_block_diagonal", "from_csr", "from_packed", "to_block_diagonal", "to_csr", "to_packed"]


def to_packed(weight: Tensor, mask: Tensor, group_of_out: Tensor) -> tuple[Tensor, Tensor]:
    """Return weights and inputs of each group of a mask whose groups of outputs each read the same inputs.

    Args:
        weight: dense weight (out_features, in_features).
        mask: true where a weight exists, bool (out_features, in_features).
        group_of_out: group of each output (out_features,).

    Returns:
        Weights (G, K, n) and inputs int64 (G, K), in ascending order.

    Raises:
        ValueError: if units of a group read different inputs, or the groups read different numbers of them.

    Example:
        >>> mask = torch.tensor([[True, False, True], [True, False, True]])
        >>> packed, index = to_packed(torch.arange(6.0).view(2, 3), mask, torch.tensor([0, 0]))
        >>> index, packed.shape
        (tensor([[0, 2]]), torch.Size([1, 2, 2]))
    """
    units = group_units(group_of_out, int(group_of_out.max()) + 1)  # (G, n)
    by_group = mask[units]  # (G, n, in_features)
    reads = by_group[:, 0]
    if not torch.equal(by_group, reads[:, None].expand_as(by_group)):
        raise ValueError("mask lets units of one group read different inputs; the packed format needs whole columns")
    counts = reads.sum(1)
    if bool((counts != counts[0]).any()):
        raise ValueError(f"mask gives the groups {counts.tolist()} inputs; the packed format needs one number for all")
    index = reads.nonzero()[:, 1].view(len(units), -1)  # (G, K)
    return weight[units[:, None, :], index[:, :, None]], index


def from_packed(packed: Tensor, index: Tensor, group_of_out: Tensor, in_features: int) -> tuple[Tensor, Tensor]:
    """Return the dense weight and the mask of packed weights.

    Args:
        packed: weights (G, K, n).
        index: inputs of each group (G, K).
        group_of_out: group of each output (G n,).
        in_features: number of inputs.

    Returns:
        Weight and mask (G n, in_features).

    Example:
        >>> from_packed(torch.ones(1, 1, 2), torch.tensor([[1]]), torch.tensor([0, 0]), 2)[0]
        tensor([[0., 1.],
                [0., 1.]])
    """
    units = group_units(group_of_out, len(packed))
    weight = packed.new_zeros(len(group_of_out), in_features)
    mask = torch.zeros_like(weight, dtype=torch.bool)
    weight[units[:, None, :], index[:, :, None]] = packed
    mask[units[:, None, :], index[:, :, None]] = True
    return weight, mask


def to_block_diagonal(weight: Tensor, group_of_out: Tensor, group_of_in: Tensor) -> Tensor:
    """Return the weights within groups; those between groups are left out.

    Args:
        weight: dense weight (out_features, in_features).
        group_of_out: group of each output (out_features,).
        group_of_in: group of each input (in_features,).

    Returns:
        Weights of each group (G, m, n), inputs first.

    Example:
        >>> to_block_diagonal(torch.arange(4.0).view(2, 2), torch.tensor([0, 1]), torch.tensor([0, 1])).flatten()
        tensor([0., 3.])
    """
    groups = int(group_of_out.max()) + 1
    out, into = group_units(group_of_out, groups), group_units(group_of_in, groups)
    return weight[out[:, None, :], into[:, :, None]]


def from_block_diagonal(blocks: Tensor, group_of_out: Tensor, group_of_in: Tensor) -> tuple[Tensor, Tensor]:
    """Return the dense weight and the mask of the weights within groups.

    Args:
        blocks: weights of each group (G, m, n), inputs first.
        group_of_out: group of each output (G n,).
        group_of_in: group of each input (G m,).

    Returns:
        Weight and mask (G n, G m).

    Example:
        >>> from_block_diagonal(torch.ones(2, 1, 1), torch.tensor([0, 1]), torch.tensor([0, 1]))[0]
        tensor([[1., 0.],
                [0., 1.]])
    """
    out, into = group_units(group_of_out, len(blocks)), group_units(group_of_in, len(blocks))
    weight = blocks.new_zeros(len(group_of_out), len(group_of_in))
    weight[out[:, None, :], into[:, :, None]] = blocks
    return weight, group_of_out[:, None] == group_of_in[None, :]


def to_csr(weight: Tensor, mask: Tensor) -> tuple[Tensor, CSRPattern]:
    """Return the values of the weights that exist, by output and then by input, and their places.

    Args:
        weight: dense weight (out_features, in_features).
        mask: true where a weight exists, bool (out_features, in_features).

    Example:
        >>> to_csr(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[False, True], [True, False]]))[0]
        tensor([2., 3.])
    """
    return weight[mask], csr_pattern(mask)


def from_csr(values: Tensor, pattern: CSRPattern) -> tuple[Tensor, Tensor]:
    """Return the dense weight and the mask of values at their places.

    Args:
        values: weights (nnz,).
        pattern: their places.

    Returns:
        Weight and mask (out_features, in_features).

    Example:
        >>> from_csr(*to_csr(torch.ones(2, 2), torch.eye(2, dtype=torch.bool)))[0]
        tensor([[1., 0.],
                [0., 1.]])
    """
    weight = values.new_zeros(len(pattern.crow) - 1, len(pattern.ccol) - 1)
    row = torch.repeat_interleave(pattern.crow.diff())
    mask = torch.zeros_like(weight, dtype=torch.bool)
    weight[row, pattern.col] = values
    mask[row, pattern.col] = True
    return weight, mask
