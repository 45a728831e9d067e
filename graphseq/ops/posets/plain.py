"""Tropical polynomial of a partially ordered set from the sums over all upper sets: the equation as it stands."""

import functools
from collections.abc import Sequence
from contextlib import nullcontext

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
    # sums keep the precision of the values under autocast, which the meta device does not have
    with nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False):
        return (x @ _filters(poset, x.dtype, x.device).T).amax(-1)


@functools.lru_cache(maxsize=64)
def _filters(poset: Poset, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Upper sets as rows (F, n), kept for each device, for a copy to it would stop every step."""
    with torch.inference_mode(False):  # what is made in inference mode could not be used in training
        return torch.tensor(poset.filters(), dtype=dtype, device=device)
