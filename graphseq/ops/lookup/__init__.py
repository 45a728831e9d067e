"""The most recent events of each node, from a sorted index of the whole stream."""

from torch import Tensor

from graphseq.core.events import Neighbors
from graphseq.ops.lookup import compiled, plain
from graphseq.ops.lookup.plain import EventIndex
from graphseq.ops.lookup.plain import zero_absent as zero_absent
from graphseq.ops.processor import use_compiled

__all__: list[str] = []


def recent(index: EventIndex, nodes: Tensor, cut: int | Tensor, k: int) -> Neighbors:
    """Return the latest events of each node before a position, see :func:`graphseq.ops.lookup.plain.recent`."""
    form = compiled if use_compiled(index.keys, nodes) and use_compiled(index.msg) else plain
    return form.recent(index, nodes, cut, k)
