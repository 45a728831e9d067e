"""The most recent events of a node by one binary search in sorted keys."""

from typing import NamedTuple

import torch
from torch import Tensor

from graphseq.core.events import Neighbors

__all__: list[str] = []

_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class EventIndex(NamedTuple):
    """The sorted index of E events; node u's event at position p has the key ``u * E + p``.

    Args:
        keys: -1, then the sorted keys of all endpoints, int64.
        endpoints: 0, then ``src ^ dst`` of each event, int64 (1 + E,).
        t: 0, then the time of each event (1 + E,).
        msg: features of each event (E, D).
    """

    keys: Tensor
    endpoints: Tensor
    t: Tensor
    msg: Tensor


def recent(index: EventIndex, nodes: Tensor, cut: int | Tensor, k: int) -> Neighbors:
    """Return the ``k`` latest events of each node among those at positions below ``cut``, newest first.

    Args:
        index: the sorted index.
        nodes: queried nodes, int64.
        cut: position at most E, one for all or one for each node.
        k: number of neighbours, at least 1.

    Shape:
        nodes (Q,), cut (Q,) -> each field (Q, k)
    """
    nodes = nodes.unsqueeze(1)  # (Q, 1)
    first = nodes * len(index.msg)
    last = torch.searchsorted(index.keys, first + (cut.unsqueeze(1) if isinstance(cut, Tensor) else cut)) - 1
    place = (last - torch.arange(k, device=nodes.device)).clamp_(min=0)  # (Q, K)
    # (Q, K): 1 + position; the keys looked back at belong to this node or to a lower one, whose come out below 1
    row = index.keys.index_select(0, place.view(-1)).view(place.shape).sub_(first).add_(1).clamp_(min=0)
    mask, flat = row > 0, row.view(-1)
    msg = index.msg.new_zeros(*mask.shape, index.msg.shape[1])
    if index.msg.numel():
        msg = zero_absent(index.msg.index_select(0, (flat - 1).clamp_(min=0)).view(*mask.shape, -1), mask)
    return Neighbors(
        node=index.endpoints.index_select(0, flat).view(row.shape).bitwise_xor_(nodes),
        t=index.t.index_select(0, flat).view(row.shape),
        msg=msg,
        mask=mask,
        e_id=row - 1,
    )


def zero_absent(msg: Tensor, mask: Tensor) -> Tensor:
    """Return features with those of absent neighbours at 0, in place.

    Done by bits: as fast as a product, and features that are not finite become 0 too.

    Args:
        msg: features (Q, K, D), overwritten.
        mask: whether there is such a neighbour, bool (Q, K).
    """
    bits = msg.view(_BITS[msg.element_size()])
    return bits.bitwise_and_(mask.unsqueeze(-1).to(bits.dtype).neg_()).view(msg.dtype)
