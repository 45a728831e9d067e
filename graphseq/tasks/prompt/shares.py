"""Shares of the graphs of a batch on which the members of an ensemble are trained."""

import torch
from torch import Tensor

__all__: list[str] = []

_MULTIPLIER = 0x9E3779B1  # of Knuth's multiplicative hashing: an order that has nothing to do with that of the data


def overlapping_shares(positions: Tensor, num_shares: int, overlap: float) -> list[Tensor]:
    """Cut samples into parts of equal size, and add to each part the end of every other one.

    Which sample is in which part follows from the positions alone, so that it is the same in every epoch.

    Args:
        positions: position of each sample in the data set, int64 (B,), on the host.
        num_shares: number of parts.
        overlap: share of each other part that is added, in [0, 1].

    Returns:
        For each part, places of its samples among the positions.

    Example:
        >>> [len(share) for share in overlapping_shares(torch.arange(30), 3, 0.2)]
        [14, 14, 14]
    """
    order = (positions * _MULTIPLIER % 2**32).argsort(stable=True)
    parts = order.tensor_split(num_shares)
    ends = [part[len(part) - round(overlap * len(part)) :] for part in parts]
    return [
        torch.cat([parts[number], *(end for other, end in enumerate(ends) if other != number)])
        for number in range(num_shares)
    ]
