"""Columns of a table of predictions that identify an event: its nodes and its time in the source."""

from typing import Any, Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from graphseq.core.events import EventBatch
from graphseq.tasks.predictions import Column

__all__: list[str] = []


@runtime_checkable
class _Numbered(Protocol):
    """Events whose nodes were renumbered and whose times were shifted."""

    time_offset: int | float

    def ids_of(self, nodes: Tensor) -> Tensor | np.ndarray:
        """Return the external ids of numbered nodes."""


@runtime_checkable
class _OfSource(Protocol):
    """Data module of events."""

    @property
    def events(self) -> Any:
        """All events."""


def event_columns(batch: EventBatch, data: object) -> dict[str, Column]:
    """Return source, destination and time of each event, as they were before renumbering and shifting.

    Args:
        batch: events.
        data: data module of the events; without one, numbers of nodes and times since the first event are returned.

    Example:
        >>> import torch
        >>> one = torch.tensor([1])
        >>> batch = EventBatch(one, one + 1, one, torch.zeros(1, 0), one, start=1)
        >>> {name: column.tolist() for name, column in event_columns(batch, None).items()}
        {'src': [1], 'dst': [2], 't': [1]}
    """
    events = data.events if isinstance(data, _OfSource) else None
    if not isinstance(events, _Numbered):
        return {"src": batch.src, "dst": batch.dst, "t": batch.t}
    offset = int(events.time_offset) if float(events.time_offset).is_integer() else events.time_offset
    return {"src": events.ids_of(batch.src), "dst": events.ids_of(batch.dst), "t": batch.t.cpu() + offset}
