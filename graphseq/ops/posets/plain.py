"""Tropical polynomial of a partially ordered set from the sums over all upper sets: the equation as it stands."""

from collections.abc import Sequence

import torch
from torch import Tensor

from graphseq.ops.posets.order import Poset


def tropical_polynomial(values: Sequence[Tensor], poset: Poset) -> Tensor:
    """Return the largest sum over an upper set; equally large ones share the gradient.

    Args:
        values: value of each point, n tensors of one shape.
        poset: order of the n points.

    Example:
        >>> tropical_polynomial([torch.tensor(3.0), torch.tensor(-1.0)], Poset.parse("a<b"))
        tensor(2.)
    """
    x = torch.stack(list(values), -1)  # (*, n)
    filters = torch.tensor(poset.filters(), dtype=x.dtype, device=x.device)  # (F, n)
    return (x @ filters.T).amax(-1)
