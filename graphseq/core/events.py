"""A batch of events, and the lookups that a network may make in the events before it."""

from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

import torch
from torch import Tensor

__all__ = ["EventBatch", "EventHistory", "Neighbors"]


@dataclass(repr=False)
class Neighbors:
    """The most recent neighbours of Q queried nodes, newest first.

    Where ``mask`` is False there is no K-th neighbour: ``node`` holds the queried node itself, ``e_id`` -1, ``t`` and
    ``msg`` 0, so that every entry may be used as an index.

    Args:
        node: other endpoint of the event, int64 (Q, K).
        t: time of the event, int64 or float64 (Q, K).
        msg: features of the event, float32 (Q, K, D); D may be 0.
        mask: whether there is such a neighbour, bool (Q, K).
        e_id: position of the event in the stream, int64 (Q, K).

    Example:
        >>> none = torch.zeros(1, 2, dtype=torch.int64)
        >>> Neighbors(none, none, torch.zeros(1, 2, 0), none.bool(), none - 1).mask.any()
        tensor(False)
    """

    node: Tensor
    t: Tensor
    msg: Tensor
    mask: Tensor
    e_id: Tensor

    def __repr__(self) -> str:
        return shown(self)


class EventHistory(Protocol):
    """Looks up the latest events of a node: the index of a whole stream, or a buffer that grows with it.

    Example:
        >>> def last(history: EventHistory, node: int) -> Tensor:
        ...     return history.recent(torch.tensor([node]), 10**9, 1).node
    """

    def recent(self, nodes: Tensor, cut: int | Tensor, k: int) -> Neighbors:
        """Return the ``k`` latest events of each node among those at positions below ``cut``, newest first.

        Args:
            nodes: queried nodes, int64 (Q,).
            cut: position in the stream below which events count; one for all nodes, or one for each, int64 (Q,).
            k: number of neighbours, at least 1.
        """
        ...


@dataclass(repr=False)
class EventBatch:
    """Consecutive events of a stream: pairs of nodes with a time and features.

    Args:
        src: source node of each event, int64 (B,).
        dst: destination node of each event, int64 (B,).
        t: time of each event, non-decreasing, int64 or float64 (B,).
        msg: features of each event, float32 (B, D); D may be 0.
        e_id: position of each event in the stream, which orders events of equal time, int64 (B,).
        start: smallest position of the batch, a Python integer; all positions below it are earlier events.
        y: label of each event (B,), such as a state change; None for no labels.
        event_type: type of each event, int64 (B,), such as the sign of a rating; None for no types.
        neg_dst: negative destinations, events that did not happen, int64 (B, M); None where none were drawn.
        neg_src: sources of the negatives, int64 (B, M); None for the sources of the events.
        new_node: whether an endpoint was never seen in training, bool (B,); None where it is not known.
        history: earlier events, for neighbour lookups; None for no history.
        cut: position below which each event may look up history, int64 (B,); None for ``start``.
        stop: position after the last event, a Python integer; None for events without gaps, ``start + B``.
        reordered: whether a rule of batching chose the place of the batch, which may then begin before the batch that
            it follows.

    Example:
        >>> one = torch.tensor([1])
        >>> len(EventBatch(one, one, one, torch.zeros(1, 0), one, start=1))
        1
    """

    src: Tensor
    dst: Tensor
    t: Tensor
    msg: Tensor
    e_id: Tensor
    start: int
    y: Tensor | None = None
    event_type: Tensor | None = None
    neg_dst: Tensor | None = None
    neg_src: Tensor | None = None
    new_node: Tensor | None = None
    history: EventHistory | None = None
    cut: Tensor | None = None
    stop: int | None = None
    reordered: bool = False

    def __len__(self) -> int:
        return len(self.src)

    def __repr__(self) -> str:
        return shown(self)

    @property
    def end(self) -> int:
        """Position after the last event, without device synchronisation."""
        return self.start + len(self) if self.stop is None else self.stop

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """Return the batch with its tensors on ``device``; the history stays where it is.

        Args:
            device: device of the returned batch.
            non_blocking: whether the copy may return before it is done, as in ``Tensor.to``.
        """
        tensors: dict[str, Any] = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **{name: value.to(device, non_blocking=non_blocking) for name, value in tensors.items()})


def shown(batch: object) -> str:
    """Return the fields of a batch for printing: shapes of tensors, other values as they are, None and False left out.

    Args:
        batch: object with attributes.

    Example:
        >>> one = torch.tensor([1])
        >>> EventBatch(one, one, one, torch.zeros(1, 0), one, start=1)
        EventBatch(src=[1], dst=[1], t=[1], msg=[1, 0], e_id=[1], start=1)
    """
    fields = {
        name: list(value.shape) if isinstance(value, Tensor) else value
        for name, value in vars(batch).items()
        if value is not None and value is not False
    }
    return f"{type(batch).__name__}({', '.join(f'{name}={value}' for name, value in fields.items())})"
