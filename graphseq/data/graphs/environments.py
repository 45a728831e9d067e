"""Environments of samples, defined by sizes or by groups such as scaffolds."""

import heapq

import torch
from torch import Tensor

from graphseq.core.errors import DataError

__all__ = ["group_environments", "size_environments"]


def check_num_environments(number: int | None) -> int | None:
    """Return a number of environments after a check.

    Args:
        number: number of training environments; None for no environments.

    Raises:
        ValueError: if ``number`` is below 2.

    Example:
        >>> check_num_environments(3)
        3
    """
    if number is not None and (isinstance(number, bool) or number < 2):
        raise ValueError(f"num_environments is {number}; it must be at least 2, or None for graphs without env")
    return number


def size_environments(sizes: Tensor, train: Tensor, num_environments: int) -> Tensor:
    """Return the environment of each sample by its size: quantiles of training sizes, and one for larger samples.

    Training samples are in environments 0, 1, ... of about equal numbers; equal sizes are in one environment, so
    there may be fewer environments. Samples larger than all of training are in a further, last environment.

    Args:
        sizes: size of each sample, (N,).
        train: positions of the training samples, int64 (M,).
        num_environments: number of training environments, at least 1.

    Shape:
        -> (N,) int64

    Raises:
        ValueError: if ``num_environments`` is below 1.

    Example:
        >>> size_environments(torch.tensor([1, 2, 3, 4, 9]), torch.arange(4), 2)
        tensor([0, 0, 1, 1, 2])
    """
    if num_environments < 1:
        raise ValueError(f"num_environments is {num_environments}; it must be at least 1")
    trained = sizes[train].double()
    shares = torch.arange(1, num_environments, dtype=torch.float64) / num_environments
    # quantiles are sizes of samples, not interpolated, so that equal sizes are never divided
    cuts = torch.quantile(trained, shares, interpolation="lower")
    found = torch.bucketize(sizes.double(), cuts)
    present = found[train].unique()
    number = torch.searchsorted(present, found).clamp(max=len(present) - 1)
    return torch.where(sizes > sizes[train].max(), len(present), number)


def group_environments(groups: Tensor, train: Tensor, num_environments: int) -> Tensor:
    """Return the environment of each sample by its group: bins of training groups, and one for all other groups.

    The training groups, the largest first, are assigned one by one to the environment with the fewest training samples.
    Samples of other groups are in a further, last environment.

    Args:
        groups: group of each sample, such as the number of its scaffold, int64 (N,).
        train: positions of the training samples, int64 (M,).
        num_environments: number of training environments, at least 1.

    Shape:
        -> (N,) int64

    Raises:
        ValueError: if ``num_environments`` is below 1.
        DataError: if training has fewer groups than environments.

    Example:
        >>> group_environments(torch.tensor([5, 5, 5, 7, 8, 9]), torch.arange(5), 2)
        tensor([0, 0, 0, 1, 1, 2])
    """
    if num_environments < 1:
        raise ValueError(f"num_environments is {num_environments}; it must be at least 1")
    known, counts = groups[train].unique(return_counts=True)
    if len(known) < num_environments:
        raise DataError(
            f"training samples are of {len(known)} groups, too few for {num_environments} environments; ask for at "
            f"most {len(known)}"
        )
    filled = [(0, number) for number in range(num_environments)]
    table = torch.zeros(len(known), dtype=torch.int64)
    for place in counts.argsort(descending=True, stable=True).tolist():
        held, number = heapq.heappop(filled)
        table[place] = number
        heapq.heappush(filled, (held + int(counts[place]), number))
    place = torch.searchsorted(known, groups).clamp(max=len(known) - 1)
    return torch.where(known[place] == groups, table[place], num_environments)
