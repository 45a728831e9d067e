"""Masks of linear layers: between groups of units, and uniformly at random."""

from typing import Literal

import torch
from torch import Generator, Tensor

__all__ = ["group_labels", "group_mask", "group_units", "random_mask"]

Grouping = Literal["index", "interleaved", "random"]
Granularity = Literal["edge", "column", "block"]


def group_labels(
    features: int, groups: int, grouping: Grouping = "index", generator: Generator | None = None
) -> Tensor:
    r"""Return the group of each unit of a layer.

    With :math:`n` units in a group, unit :math:`i` belongs to group :math:`\lfloor i / n \rfloor` (``index``), to
    :math:`i \bmod G` (``interleaved``), or to a group of equal size drawn at random (``random``).

    Args:
        features: number of units, a multiple of ``groups``.
        groups: number of groups G, at least 1.
        grouping: rule that assigns units to groups.
        generator: generator of the random assignment; None for the global one.

    Returns:
        Group of each unit, int64 (features,).

    Raises:
        ValueError: if ``groups`` does not divide ``features``, or an argument is out of range.

    Example:
        >>> group_labels(6, 2), group_labels(6, 2, "interleaved")
        (tensor([0, 0, 0, 1, 1, 1]), tensor([0, 1, 0, 1, 0, 1]))
    """
    for name, number in (("groups", groups), ("features", features)):
        if not isinstance(number, int):
            raise ValueError(f"{name} is {number!r}; it must be a whole number")
    if groups < 1:
        raise ValueError(f"groups is {groups}; it must be at least 1")
    if features < 1 or features % groups:
        raise ValueError(
            f"groups is {groups}, which does not divide the {features} units; give a divisor of {features}"
        )
    if grouping not in ("index", "interleaved", "random"):
        raise ValueError(f"grouping is {grouping!r}; it must be 'index', 'interleaved' or 'random'")
    if grouping == "interleaved":
        return torch.arange(features) % groups
    labels = torch.arange(features) // (features // groups)
    return labels if grouping == "index" else labels[torch.randperm(features, generator=generator)]


def group_units(labels: Tensor, groups: int) -> Tensor:
    """Return the units of each group, in ascending order.

    Args:
        labels: group of each unit, all groups of one size, (features,).
        groups: number of groups G.

    Returns:
        Positions of the units of each group (G, features / G).

    Raises:
        ValueError: if the groups have different sizes.

    Example:
        >>> group_units(torch.tensor([0, 1, 0, 1]), 2)
        tensor([[0, 2],
                [1, 3]])
    """
    sizes = torch.bincount(labels, minlength=groups)
    if len(sizes) != groups or bool((sizes != sizes[0]).any()):
        raise ValueError(f"labels has groups of {sizes.tolist()} units; {groups} groups of one size are needed")
    return labels.argsort(stable=True).view(groups, -1)


def group_mask(
    group_of_out: Tensor,
    group_of_in: Tensor,
    p_intra: float = 1.0,
    p_inter: float = 0.15,
    granularity: Granularity = "edge",
    generator: Generator | None = None,
) -> Tensor:
    r"""Draw the mask of a layer that connects units of the same group densely and other units sparsely.

    ``edge``: each weight exists with probability ``p_intra`` within a group and ``p_inter`` between groups.
    ``column``: every target group reads :math:`\mathrm{round}(p\, n)` of the :math:`n` units of each source group, the
    same ones for all of its units. ``block``: every target group reads whole source groups, its own where ``p_intra``
    is 1, and :math:`\mathrm{round}(p_\mathrm{inter}\,(G - 1))` of the others. The density is
    :math:`p_\mathrm{intra} / G + (1 - 1/G)\, p_\mathrm{inter}`, in expectation for ``edge``, up to rounding for the
    other two.

    Source: arXiv 2508.14140, whose pattern is ``edge``; ``column`` and ``block`` are ours, for fast execution.

    Args:
        group_of_out: group of each output unit (out_features,).
        group_of_in: group of each input unit (in_features,).
        p_intra: probability of a weight within a group, in [0, 1]; 0 or 1 for ``block``.
        p_inter: probability of a weight between two groups, in [0, 1].
        granularity: what is drawn as a whole: ``edge``, ``column`` or ``block``.
        generator: generator of the random numbers; None for the global one.

    Returns:
        True where a weight exists, bool (out_features, in_features).

    Raises:
        ValueError: if a probability is outside its range, or an output unit is left without any input.

    Example:
        >>> labels = group_labels(4, 2)
        >>> group_mask(labels, labels, p_inter=0.0).int()
        tensor([[1, 1, 0, 0],
                [1, 1, 0, 0],
                [0, 0, 1, 1],
                [0, 0, 1, 1]], dtype=torch.int32)
    """
    for name, p in {"p_intra": p_intra, "p_inter": p_inter}.items():
        if not 0.0 <= p <= 1.0:
            raise ValueError(f"{name} is {p}; it must be a probability in [0, 1]")
    groups = int(group_of_out.max()) + 1
    if granularity == "edge":
        same = group_of_out[:, None] == group_of_in[None, :]
        mask = torch.rand(same.shape, generator=generator) < torch.where(same, p_intra, p_inter)
    elif granularity == "column":
        units = group_units(group_of_in, groups)  # (G, m)
        size = units.size(1)
        own = torch.eye(groups, dtype=torch.bool)
        count = torch.where(own, round(p_intra * size), round(p_inter * size))  # (G, G), target and source
        rank = torch.rand(groups, groups, size, generator=generator).argsort(-1).argsort(-1)
        reads = torch.zeros(groups, len(group_of_in), dtype=torch.bool)
        reads[:, units.flatten()] = (rank < count[..., None]).flatten(1)
        mask = reads[group_of_out]
    elif granularity == "block":
        if p_intra not in (0.0, 1.0):
            raise ValueError(f"p_intra is {p_intra}; blocks within a group are there or not, give 0 or 1")
        others = torch.rand(groups, groups, generator=generator)
        others.fill_diagonal_(2.0)  # its own group comes last
        blocks = others.argsort(-1).argsort(-1) < round(p_inter * (groups - 1))
        blocks.fill_diagonal_(p_intra == 1.0)
        mask = blocks[group_of_out][:, group_of_in]
    else:
        raise ValueError(f"granularity is {granularity!r}; it must be 'edge', 'column' or 'block'")
    return _checked(mask, f"p_intra={p_intra} and p_inter={p_inter}")


def random_mask(out_features: int, in_features: int, density: float, generator: Generator | None = None) -> Tensor:
    """Draw a mask with a given number of weights at places chosen uniformly: a random bipartite graph.

    Args:
        out_features: number of output units.
        in_features: number of input units.
        density: share of the weights that exist, in (0, 1]; their number is rounded.
        generator: generator of the random numbers; None for the global one.

    Returns:
        True where a weight exists, bool (out_features, in_features).

    Raises:
        ValueError: if ``density`` is outside its range, or an output unit is left without any input.

    Example:
        >>> random_mask(20, 30, 0.25).sum()
        tensor(150)
    """
    if not 0.0 < density <= 1.0:
        raise ValueError(f"density is {density}; it must be in (0, 1]")
    total = out_features * in_features
    mask = torch.zeros(total, dtype=torch.bool)
    mask[torch.randperm(total, generator=generator)[: round(density * total)]] = True
    return _checked(mask.view(out_features, in_features), f"density={density}")


def _checked(mask: Tensor, given: str) -> Tensor:
    empty = int((~mask.any(1)).sum())
    if empty:
        raise ValueError(
            f"{given} leaves {empty} of {len(mask)} units without inputs, of {mask.size(1)} possible ones; "
            "give a larger density"
        )
    return mask
