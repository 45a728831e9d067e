"""The nodes of a batch of events: the distinct ones, and the last event of each."""

from torch import Tensor

from graphseq.ops.nodes import compiled, plain
from graphseq.ops.processor import use_compiled

__all__: list[str] = []


def distinct(ids: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    """Return distinct ids and the place of each entry, see :func:`graphseq.ops.nodes.plain.distinct`."""
    return (compiled if use_compiled(ids) else plain).distinct(ids, place)


def last_events(endpoint: Tensor, once: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the sender of each node's last mail, see :func:`graphseq.ops.nodes.plain.last_events`."""
    return (compiled if use_compiled(endpoint) else plain).last_events(endpoint, once, count)
