"""Store of events: batches are slices of one stream on one device, with its history for neighbour lookups."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal, Self

import torch
from torch import Tensor

from graphseq.core.errors import DataError
from graphseq.core.events import EventBatch
from graphseq.data.events.adjacency import TemporalAdjacency
from graphseq.data.events.table import TemporalEvents
from graphseq.data.store import batch_sizes, retain_freed_memory

__all__ = ["EventStore"]


class EventStore:
    """Store of events on one device; batches of consecutive events are views, without a copy.

    If the index has gaps, for example without the events of held-out nodes, the events of a batch are gathered.

    Args:
        events: stream of events.
        history: index of the stream that batches carry for neighbour lookups, on the same device; None for no lookups.
        cut: part of the history that a batch may look up: ``batch`` for the events before its first one, or ``time``
            for all events of an earlier time than each event, some of which may be in the same batch.
        new_node: whether an endpoint of each event does not occur in training, bool (E,); None if this is not known.

    Raises:
        ValueError: if ``cut`` is neither ``batch`` nor ``time``.
        DataError: if ``new_node`` is not bool (E,).

    Example:
        >>> events = TemporalEvents(torch.zeros(5).long(), torch.ones(5).long(), torch.tensor([0, 0, 1, 1, 1]))
        >>> first, second = EventStore(events, cut="time").batches(torch.arange(5), 3)
        >>> second.t.tolist(), second.e_id.tolist(), second.start, second.cut.tolist()
        ([1, 1], [3, 4], 3, [2, 2])
    """

    def __init__(
        self,
        events: TemporalEvents,
        history: TemporalAdjacency | None = None,
        cut: Literal["batch", "time"] = "batch",
        new_node: Tensor | None = None,
    ) -> None:
        if cut not in ("batch", "time"):
            raise ValueError(f"cut is {cut!r}; it must be 'batch' or 'time'")
        if new_node is not None and (new_node.dtype != torch.bool or new_node.shape != events.src.shape):
            raise DataError(f"new_node is {new_node.dtype} {tuple(new_node.shape)}; it must be bool ({len(events)},)")
        retain_freed_memory()  # for the steps that follow: thousands of page faults each without
        self.events = events
        self.history = history
        self.cut = cut
        self._elsewhere: TemporalAdjacency | None = None
        self._columns = {**events.columns(), "e_id": torch.arange(len(events), device=events.device)}
        if cut == "time":
            self._columns["cut"] = torch.searchsorted(events.t, events.t, right=False)
        if new_node is not None:
            self._columns["new_node"] = new_node.to(events.device)

    def __len__(self) -> int:
        return len(self.events)

    def __repr__(self) -> str:
        return f"EventStore({self.events!r}, cut={self.cut!r}, {self.nbytes / 2**20:.1f} MB, {self.device})"

    @property
    def device(self) -> torch.device:
        """Device of the events."""
        return self.events.device

    @property
    def nbytes(self) -> int:
        """Memory of the events and their history in bytes."""
        return sum(value.nbytes for value in self._columns.values()) + (self.history.nbytes if self.history else 0)

    def to(self, device: torch.device | str) -> Self:
        """Return the store with events and history on ``device``; tensors that are on it already are shared.

        Args:
            device: device of the returned store.
        """
        events = self.events.to(device)
        history = None if self.history is None else self.history.to(device, msg=events.msg)
        return type(self)(events, history, self.cut, self._columns.get("new_node"))

    def for_training(self, history: TemporalAdjacency | None) -> Self:
        """Return a store of the same events with another history and without ``new_node``.

        Args:
            history: index of the training events, on any device; it is moved to the device of the events.
        """
        if history is not None and history.device != self.device:
            history = history.to(self.device, msg=self.events.msg)
        return type(self)(self.events, history, self.cut)

    def batches(self, index: Tensor, sizes: int | Sequence[int], device: torch.device | None = None) -> Iterator[Any]:
        """Yield the events at ``index`` in batches, which are views of the stream if they are consecutive.

        Args:
            index: positions of the events, ascending within each batch, int64 (M,).
            sizes: size of all batches, or a list with the size of each batch.
            device: device of the batches; None for the device of the events. The history is moved there as a whole.

        Raises:
            DataError: if positions do not ascend within a batch.
        """
        index = index.cpu()
        listed = batch_sizes(len(index), sizes)
        ends = torch.tensor(listed).cumsum(0)
        begins = ends - torch.tensor(listed)
        step = index.diff()
        back = step <= 0
        back[begins[1:] - 1] = False  # between batches any order will do
        if bool(back.any()):
            at = int(back.nonzero()[0])
            raise DataError(
                f"positions must ascend within a batch, but {int(index[at + 1])} comes after {int(index[at])}"
            )
        history = self.history
        if history is not None and device is not None:
            if self._elsewhere is None or self._elsewhere.device != device:
                self._elsewhere = history.to(device)
            history = self._elsewhere
        first, last = index[begins].tolist(), index[ends - 1].tolist()
        for low, high, begin, size in zip(first, last, begins.tolist(), listed, strict=True):
            run = slice(low, high + 1) if high - low == size - 1 else index[begin : begin + size].to(self.device)
            yield self._batch(run, low, high + 1, device, history)

    def _batch(
        self, run: slice | Tensor, start: int, stop: int, device: torch.device | None, history: TemporalAdjacency | None
    ) -> EventBatch:
        columns = {name: value[run] for name, value in self._columns.items()}
        if device is not None:
            columns = {name: value.to(device, non_blocking=True) for name, value in columns.items()}
        return EventBatch(**columns, start=start, stop=stop, history=history, reordered=False)

    def take(self, index: Tensor) -> EventBatch:
        """Return the events at ``index`` as one batch.

        Args:
            index: positions of the events, ascending, int64 (M,).
        """
        return next(self.batches(index, [len(index)]))
