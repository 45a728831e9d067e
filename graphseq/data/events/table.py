"""A stream of events as columns of tensors: sources, destinations, times, features and labels."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import TemporalData

from graphseq.core.errors import DataError
from graphseq.core.numbering import NodeNumbering, Role
from graphseq.data.events.columns import as_column, features, frame_column, frame_names, integers, labels, times

if TYPE_CHECKING:
    import pandas

__all__ = ["TemporalEvents"]

_COLUMNS = ("src", "dst", "t", "msg", "y", "event_type")

_MOST_NODES = 10**9
"""From here on a stream must have events enough for its nodes: a state is kept for each node that is numbered."""


class TemporalEvents:
    """Events of a temporal graph, sorted by time; an event is identified by its position.

    Events of equal time keep their given order. Times are shifted to start at 0, since networks use only differences;
    ``time_offset`` is the time that was subtracted.

    Args:
        src: source node of each event, integers from 0 (E,), a tensor or, as all columns, an array of numpy.
        dst: destination node of each event, integers from 0 (E,).
        t: time of each event, non-decreasing, integers or float64 (E,), in any unit. Floats must be below the number
            from which they cannot represent every integer (2**53 for float64, 2**24 for float32).
        msg: features of the events, float (E, D); None for D = 0.
        y: label of each event, such as a change of the source's state, finite numbers (E,).
        event_type: type of each event, such as the sign of a rating, integers from 0 (E,).
        num_nodes: number of nodes N; default the largest node number plus one.
        num_sources: number of source nodes of a bipartite graph, whose destinations are numbered after them; None
            for a graph that is not bipartite.
        time_offset: offset that was already subtracted from the times; None to subtract the first time here.
        node_ids: external id of each node, such as its number or name in a file: int64 (N,), or N texts.
        node_labels: class of each node, constant in time, -1 if unknown, int64 (N,).
        sort: whether to sort unsorted events (stably) instead of refusing them.

    Raises:
        DataError: if columns differ in length or kind, times are not finite, too coarse or out of order, an id is
            negative or not below ``num_nodes``, ids have such large gaps that tensors over nodes do not fit into
            memory, or features or labels are not finite.

    Example:
        >>> events = TemporalEvents(torch.tensor([0, 1]), torch.tensor([2, 2]), torch.tensor([1_600_000_000] * 2))
        >>> len(events), events.num_nodes, events.num_edge_features, events.t.tolist(), events.time_offset
        (2, 3, 0, [0, 0], 1600000000)
    """

    def __init__(
        self,
        src: Tensor | np.ndarray,
        dst: Tensor | np.ndarray,
        t: Tensor | np.ndarray,
        msg: Tensor | np.ndarray | None = None,
        y: Tensor | np.ndarray | None = None,
        event_type: Tensor | np.ndarray | None = None,
        *,
        num_nodes: int | None = None,
        num_sources: int | None = None,
        time_offset: int | float | None = None,
        node_ids: Tensor | list[str] | None = None,
        node_labels: Tensor | None = None,
        sort: bool = False,
    ) -> None:
        self.src = integers("src", as_column(src))
        self.dst = integers("dst", as_column(dst))
        self.t = times(as_column(t))
        self.msg = torch.zeros(len(src), 0, device=self.src.device) if msg is None else features(as_column(msg))
        self.y = None if y is None else labels(as_column(y))
        self.event_type = None if event_type is None else integers("event_type", as_column(event_type))
        self.node_ids = node_ids
        self.node_labels = None if node_labels is None else integers("node_labels", node_labels)
        lengths = {name: len(value) for name, value in self.columns().items()}
        if len(set(lengths.values())) != 1:
            raise DataError(f"columns differ in length: {lengths}; give one entry for each event")
        if not len(self.src):
            raise DataError("there are no events; at least one is needed")
        self._order(sort)
        largest = max(int(self.src.max()), int(self.dst.max()))
        self.num_nodes = largest + 1 if num_nodes is None else int(num_nodes)
        check_num_nodes(self.num_nodes, self.src, self.dst)
        self.num_sources = num_sources
        self._check_ids(largest)
        if time_offset is None:
            time_offset = self.t[0].item()
            self.t = self.t - time_offset
        elif not math.isfinite(time_offset):
            raise DataError(f"time_offset is {time_offset}; it must be finite, or None to shift the times here")
        self.time_offset = time_offset

    def _order(self, sort: bool) -> None:
        backwards = self.t[1:] < self.t[:-1]
        if not bool(backwards.any()):
            return
        if not sort:
            at = int(backwards.nonzero()[0]) + 1
            raise DataError(
                f"times are not sorted: event {at} is at {self.t[at].item()}, the one before at "
                f"{self.t[at - 1].item()}, and {int(backwards.sum())} events go back like this; if their order does "
                "not matter give sort=True, which keeps the order of events at equal times"
            )
        order = self.t.argsort(stable=True)
        for name, value in self.columns().items():
            setattr(self, name, value[order])

    def _check_ids(self, largest: int) -> None:
        for name in ("src", "dst", "event_type"):
            value = getattr(self, name)
            if value is not None and int(value.min()) < 0:
                at = int((value < 0).nonzero()[0])
                remedy = "" if name == "event_type" else ": renumber them, as from_frame(..., renumber=True) does"
                raise DataError(f"{name} of event {at} is {int(value[at])}; ids and types are numbered from 0{remedy}")
        if largest >= self.num_nodes:
            raise DataError(f"events reach node {largest}, num_nodes is {self.num_nodes}; ids must be below it")
        limit = self.num_sources
        if limit is not None and not int(self.src.max()) < limit <= int(self.dst.min()):
            raise DataError(
                f"num_sources is {limit}, but sources reach {int(self.src.max())} and destinations begin at "
                f"{int(self.dst.min())}; in a bipartite graph destinations are numbered after the sources"
            )
        for name in ("node_ids", "node_labels"):
            value = getattr(self, name)
            if value is not None and len(value) != self.num_nodes:
                raise DataError(f"{name} has {len(value)} entries for {self.num_nodes} nodes; give one for each node")
        if self.node_labels is not None and int(self.node_labels.min()) < -1:
            raise DataError(f"node_labels reach {int(self.node_labels.min())}; classes begin at 0, -1 is unknown")

    @classmethod
    def from_temporal_data(cls, data: TemporalData, **options: Any) -> Self:
        """Return the events of a PyG ``TemporalData``; with its ``y`` and ``event_type`` if it has them.

        Args:
            data: PyG events with ``src``, ``dst``, ``t`` and optionally ``msg``.
            options: other arguments of :class:`TemporalEvents`.

        Example:
            >>> one = torch.tensor([1])
            >>> len(TemporalEvents.from_temporal_data(TemporalData(src=one, dst=one, t=one, msg=torch.rand(1, 4))))
            1
        """
        missing = [name for name in ("src", "dst", "t") if not isinstance(data.get(name), Tensor)]
        if missing:
            raise DataError(f"TemporalData has no {', '.join(missing)}; src, dst and t are needed")
        return cls(*(data.get(name) for name in _COLUMNS), **options)

    @classmethod
    def from_frame(
        cls,
        frame: "pandas.DataFrame",
        src: str = "src",
        dst: str = "dst",
        t: str = "t",
        *,
        msg: Sequence[str] = (),
        y: str | None = None,
        event_type: str | None = None,
        renumber: bool = False,
        bipartite: bool = False,
        **options: Any,
    ) -> Self:
        """Return the rows of a pandas ``DataFrame`` as events.

        Args:
            frame: pandas ``DataFrame`` with one event in each row.
            src: name of the column of source ids, integers or text.
            dst: name of the column of destination ids, integers or text.
            t: name of the column of times: numbers, or dates, which become seconds since 1970 (in UTC if they have a
                time zone), also as text in ISO 8601.
            msg: names of the columns of event features, numbers.
            y: name of the column of event labels, numbers.
            event_type: name of the column of event types, integers from 0.
            renumber: whether nodes are renumbered from 0 in the order of their ids, which ``node_ids`` keeps, so that
                ids may have gaps and begin anywhere; otherwise integer ids are node numbers. Ids of text are always
                renumbered, those of both columns if one holds text.
            bipartite: whether sources and destinations are numbered separately, so that an id that occurs as both
                is two nodes; nodes are then always renumbered.
            options: other arguments of :class:`TemporalEvents`.

        Raises:
            ValueError: if ``msg`` is text.
            DataError: if a column is missing or repeated, or does not hold numbers or dates.

        Example:
            >>> class Frame(dict):  # stands for a pandas.DataFrame here
            ...     columns = ("user", "page", "when")
            >>> frame = Frame(user=np.array([0, 1]), page=np.array([2, 2]), when=np.array([5.5, 7.0]))
            >>> TemporalEvents.from_frame(frame, "user", "page", "when").t.tolist()
            [0.0, 1.5]
        """
        if isinstance(msg, str):
            raise ValueError(f"msg is {msg!r}; give a list of columns, such as [{msg!r}]")
        named = [src, dst, t, *msg, *(name for name in (y, event_type) if name is not None)]
        missing = [name for name in named if name not in frame.columns]
        if missing:
            raise DataError(
                f"the frame has no column {', '.join(missing)}; it has {', '.join(map(str, frame.columns))}"
            )
        columns = {name: frame_column(name, frame[name]) for name in named if name not in (src, dst, t)}
        names = [frame_names(column, frame[column]) for column in (src, dst)]
        if names[0] is not None or names[1] is not None:
            texts = [
                _as_text(column, frame[column]) if found is None else found
                for column, found in zip((src, dst), names, strict=True)
            ]
            distinct, source, destination, num_sources = numbered_names(texts[0], texts[1], bipartite)
            options = {"node_ids": distinct, "num_sources": num_sources} | options
        else:
            source, destination = frame_column(src, frame[src]), frame_column(dst, frame[dst])
            if renumber or bipartite:
                source, destination = integers(f"column {src}", source), integers(f"column {dst}", destination)
                node_ids, source, destination, num_sources = numbered(source, destination, bipartite)
                options = {"node_ids": node_ids, "num_sources": num_sources} | options
        return cls(
            source,
            destination,
            frame_column(t, frame[t], dates=True),
            torch.stack([columns[name].float() for name in msg], dim=1) if msg else None,
            None if y is None else columns[y],
            None if event_type is None else columns[event_type],
            **options,
        )

    def ids_of(self, nodes: Tensor) -> Tensor | np.ndarray:
        """Return the external ids of numbered nodes: int64, or an array of text; the numbers where there are no ids.

        Args:
            nodes: numbers of nodes, int64 of any shape.

        Example:
            >>> one = torch.tensor([0])
            >>> TemporalEvents(one, one + 1, one, node_ids=["ann", "bob"]).ids_of(one + 1).tolist()
            ['bob']
        """
        if self.node_ids is None or isinstance(self.node_ids, Tensor):
            return nodes if self.node_ids is None else self.node_ids[nodes.cpu()]
        names = self.node_ids  # of the nodes that are asked for only: there may be millions of others
        return np.array([names[node] for node in nodes.flatten().tolist()], dtype=object).reshape(nodes.shape)

    def renumbered(self, nodes: NodeNumbering) -> Self:
        """Return the same events with the numbers that another table gives to the ids of their nodes.

        Args:
            nodes: ids and numbers, such as those of a checkpoint.

        Raises:
            DataError: if an event has a node that the table does not know.
        """
        if self.node_ids is None:
            return self
        own = NodeNumbering(self.node_ids, self.num_sources)
        if own.is_text != nodes.is_text or (own.num_sources is None) != (nodes.num_sources is None):
            raise DataError("ids of nodes are text or bipartite here and not in the checkpoint; read the table as then")
        columns: dict[str, Tensor] = {}
        for name, role in (("src", "source"), ("dst", "destination")):
            ids = own.ids_of(getattr(self, name))
            found = nodes.find(ids, cast(Role, role))
            if bool((found < 0).any()):
                unknown = list(dict.fromkeys(np.asarray(ids)[(found < 0).numpy()].tolist()))
                raise DataError(
                    f"{len(unknown)} {role}s are not among the {len(nodes)} nodes of training, such as "
                    f"{', '.join(map(repr, unknown[:3]))}; drop their events, or train on a table that has them"
                )
            columns[name] = found
        classes = None
        if self.node_labels is not None:
            classes = torch.full((len(nodes),), -1)
            classes[columns["src"]], classes[columns["dst"]] = self.node_labels[self.src], self.node_labels[self.dst]
        known = nodes.state()["ids"]
        changed = {**columns, "num_nodes": len(nodes), "num_sources": nodes.num_sources, "node_ids": known}
        return self.from_dict({**self.to_dict(), **changed, "node_labels": classes})

    def columns(self) -> dict[str, Tensor]:
        """Return the columns by name, without those that are None; each has one entry for each event."""
        return {name: value for name in _COLUMNS if (value := getattr(self, name)) is not None}

    def to_dict(self) -> dict[str, Any]:
        """Return tensors and plain data from which :meth:`from_dict` rebuilds the events."""
        extra = ("num_nodes", "num_sources", "time_offset", "node_ids", "node_labels")
        return {**self.columns(), **{name: getattr(self, name) for name in extra}}

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Self:
        """Return the events from the dictionary of :meth:`to_dict`, without checking them again.

        Args:
            state: dictionary that :meth:`to_dict` returned.
        """
        events = cls.__new__(cls)
        events.__dict__.update(dict.fromkeys(_COLUMNS), **state)
        return events

    def __len__(self) -> int:
        return len(self.src)

    def __getitem__(self, which: slice) -> Self:
        """Return consecutive events as views with the same ids, number of nodes and origin of time."""
        if not isinstance(which, slice) or which.step not in (None, 1):
            raise TypeError(f"events are taken by slices of step 1, such as events[100:200], not by {which!r}")
        return self.from_dict({**self.to_dict(), **{name: value[which] for name, value in self.columns().items()}})

    def __repr__(self) -> str:
        span = f", {self.t[0].item()} to {self.t[-1].item()}" if len(self) else ""
        extra = "".join(f", {name}" for name in ("y", "event_type") if getattr(self, name) is not None)
        return f"TemporalEvents({len(self)} events, {self.num_nodes} nodes, D={self.num_edge_features}{span}{extra})"

    @property
    def num_edge_features(self) -> int:
        """Width of the features; 0 if there are none."""
        return self.msg.size(1)

    @property
    def num_event_types(self) -> int:
        """Number of event types; 1 if events have no types."""
        return 1 if self.event_type is None else int(self.event_type.max()) + 1

    @property
    def bipartite(self) -> bool:
        """Whether the graph is bipartite."""
        return self.num_sources is not None

    @property
    def device(self) -> torch.device:
        """Device of the columns."""
        return self.src.device

    @property
    def nbytes(self) -> int:
        """Memory of the columns in bytes."""
        return sum(value.nbytes for value in self.columns().values())

    def to(self, device: torch.device | str) -> Self:
        """Return the events with their columns on ``device``; columns that are on it already are shared.

        Args:
            device: target device.
        """
        return self.from_dict({**self.to_dict(), **{name: value.to(device) for name, value in self.columns().items()}})


def _as_text(name: str, column: Any) -> np.ndarray:
    """Return integers as text; others are refused, for 7.0 is not the 7 of another column and a gap is no node."""
    return integers(f"column {name}", frame_column(name, column)).numpy().astype(str).astype(object)


def numbered(src: Tensor, dst: Tensor, bipartite: bool = False) -> tuple[Tensor, Tensor, Tensor, int | None]:
    """Number all nodes that occur, from 0 in the order of their ids.

    Args:
        src: id of each event's source, int64 (E,).
        dst: id of each event's destination, int64 (E,).
        bipartite: whether sources and destinations are numbered separately, sources first.

    Returns:
        Ids of the nodes, numbers of the sources, numbers of the destinations, and the number of source nodes (None
        unless ``bipartite``).
    """
    if not bipartite:
        node_ids, ranks = torch.cat([src, dst]).unique(return_inverse=True)
        return node_ids, *ranks.chunk(2), None
    (sources, source), (destinations, destination) = (ids.unique(return_inverse=True) for ids in (src, dst))
    return torch.cat([sources, destinations]), source, destination + len(sources), len(sources)


def numbered_names(
    src: np.ndarray, dst: np.ndarray, bipartite: bool = False
) -> tuple[list[str], Tensor, Tensor, int | None]:
    """Number all nodes that occur as :func:`numbered` does, where ids are text.

    Args:
        src: id of each event's source, text (E,).
        dst: id of each event's destination, text (E,).
        bipartite: whether sources and destinations are numbered separately, sources first.
    """
    import pandas

    def rank(names: np.ndarray) -> tuple[Tensor, list[str]]:  # by hashing, and sorting of the distinct names only
        numbers, distinct = pandas.factorize(names, sort=True)
        return torch.from_numpy(numbers.astype(np.int64)), [str(name) for name in distinct]

    if not bipartite:
        ranks, names = rank(np.concatenate([src, dst]))
        return names, ranks[: len(src)], ranks[len(src) :], None
    (source, sources), (destination, destinations) = rank(src), rank(dst)
    return sources + destinations, source, destination + len(sources), len(sources)


def check_num_nodes(num_nodes: int, src: Tensor, dst: Tensor) -> None:
    """Refuse a number of nodes far above the number of events, for which tensors over nodes do not fit into memory.

    Args:
        num_nodes: largest node number plus one.
        src: source node of each event, int64 (E,).
        dst: destination node of each event, int64 (E,).

    Raises:
        DataError: if there are more than 10**9 nodes and more than 100 for each event.
    """
    if num_nodes <= max(_MOST_NODES, 100 * len(src)):
        return
    distinct = len(torch.cat([src, dst]).unique())
    raise DataError(
        f"ids run to {num_nodes - 1} for only {distinct} distinct nodes, and a state is kept for every number up to "
        "there. Number the nodes from 0 without gaps, as TemporalEvents.from_frame(..., renumber=True), "
        "read_event_table and read_edge_list do"
    )
