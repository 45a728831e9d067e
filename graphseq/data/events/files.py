"""Readers of files with one event in each line: JODIE CSV, SNAP and KONECT edge lists, signed edges, contacts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from graphseq.core.errors import DataError
from graphseq.data.events.table import TemporalEvents, check_num_nodes, numbered
from graphseq.data.tables import Column, TextTable

__all__ = [
    "read_contacts",
    "read_edge_list",
    "read_jodie_csv",
    "read_node_labels",
    "read_signed_edges",
]

EdgeFeatures = Literal["auto", "all", "none"]
"""Which features of a file are kept: ``auto`` all unless every column is constant, ``all``, or ``none``."""

NO_EVENT = "no event; at least one is needed"


def read_jodie_csv(path: Path | str, edge_features: EdgeFeatures = "auto", *, sort: bool = False) -> TemporalEvents:
    r"""Read a file of the JODIE format: a header, then ``user,item,timestamp,state_label,feature,...``.

    Items are numbered after the users. Times become integers if all of them are whole numbers; otherwise they stay
    fractional, where PyG's ``JODIEDataset`` truncates them.

    Args:
        path: path of the file, which may be compressed by gzip.
        edge_features: event features to keep: ``all``, ``none``, or ``auto``, which keeps them unless every column is
            constant.
        sort: whether to sort unsorted events by time (stably) instead of refusing them.

    Raises:
        DataError: if a line does not have this form; the message names the line. See also :class:`TemporalEvents`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "wikipedia.csv"
        ...     _ = path.write_text("user,item,t,label,f\n0,0,0.0,0,0\n1,0,36.0,1,0\n")
        ...     events = read_jodie_csv(path)
        >>> events.dst.tolist(), events.t.tolist(), events.y.tolist(), events.num_edge_features
        ([2, 2], [0, 36], [0, 1], 0)
    """
    if edge_features not in ("auto", "all", "none"):
        raise ValueError(f"edge_features is {edge_features!r}; it must be 'auto', 'all' or 'none'")
    table = TextTable(path, [","], header="free", comments=True, empty=NO_EVENT)
    if table.width < 4:
        raise DataError(f"{path} has {table.width} columns; user, item, timestamp and state_label are needed")
    kept = range(4, 4 if edge_features == "none" else table.width)
    features: list[Column] = [(position, "float32") for position in kept]
    names = {0: "user", 1: "item", 2: "timestamp", 3: "state_label"}
    columns = table.read([(0, "integer"), (1, "integer"), (2, "time"), (3, "label"), *features], names)
    for position in (0, 1):
        check_from_zero(table, columns[position, "integer"], names[position])
    src, dst = torch.from_numpy(columns[0, "integer"]), torch.from_numpy(columns[1, "integer"])
    num_sources = int(src.max()) + 1
    check_num_nodes(num_sources + int(dst.max()) + 1, src, -1 - dst)  # before the sum, which may not fit into int64
    msg = torch.from_numpy(np.stack([columns[feature] for feature in features], 1)) if features else None  # (E, D)
    if msg is not None and edge_features == "auto" and bool((msg == msg[0]).all()):
        msg = None
    t, y = whole_numbers(columns[2, "time"]), whole_numbers(columns[3, "label"])
    return TemporalEvents(src, dst + num_sources, t, msg, y, num_sources=num_sources, sort=sort)


def read_edge_list(
    path: Path | str,
    kind: Literal["snap", "konect"] = "snap",
    *,
    bipartite: bool = False,
    header: bool = False,
    sort: bool = False,
) -> TemporalEvents:
    r"""Read an edge list: ``src dst t`` (SNAP) or ``src dst weight t`` (KONECT), separated by blanks, tabs or commas.

    Ids may have gaps and begin anywhere; nodes are numbered from 0 in the order of their ids, which ``node_ids``
    keeps. Lines that begin with ``#`` or ``%`` are comments.

    Args:
        path: path of the file, which may be compressed by gzip.
        kind: format of the lines, ``snap`` or ``konect``; a weight becomes the one feature of the event.
        bipartite: whether sources and destinations are numbered separately, so that an id that occurs as both is two
            nodes.
        header: whether the first line that is not a comment names the columns.
        sort: whether to sort unsorted events by time (stably) instead of refusing them; KONECT's are often unsorted.

    Raises:
        DataError: if a line does not have this form; the message names the line. See also :class:`TemporalEvents`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "messages.txt"
        ...     _ = path.write_text("# from to when\n7 9 100\n9 7 130\n")
        ...     events = read_edge_list(path)
        >>> events.src.tolist(), events.t.tolist(), events.node_ids.tolist()
        ([0, 1], [0, 30], [7, 9])
    """
    if kind not in ("snap", "konect"):
        raise ValueError(f"kind is {kind!r}; it must be 'snap' (src dst t) or 'konect' (src dst weight t)")
    table = TextTable(path, [",", None], header="free" if header else None, comments=True, empty=NO_EVENT)
    names = ["src", "dst", *(["weight"] if kind == "konect" else []), "t"]
    _check_columns(table, names)
    time = len(names) - 1
    weight: list[Column] = [(2, "float32")] if kind == "konect" else []
    columns = table.read([(0, "integer"), (1, "integer"), *weight, (time, "time")], dict(enumerate(names)))
    node_ids, src, dst, num_sources = _numbered(columns, 0, 1, bipartite)
    msg = torch.from_numpy(columns[2, "float32"])[:, None] if weight else None  # (E, 1)
    t = whole_numbers(columns[time, "time"])
    return TemporalEvents(src, dst, t, msg, node_ids=node_ids, num_sources=num_sources, sort=sort)


def read_signed_edges(path: Path | str, scale: float = 10.0, *, sort: bool = False) -> TemporalEvents:
    r"""Read signed edges ``source,target,rating,time``, such as the Bitcoin trust networks.

    The rating divided by ``scale`` is the one feature; the event type is 1 for a positive rating and 0 otherwise.

    Args:
        path: path of the file, which may be compressed by gzip.
        scale: largest absolute rating, positive; ratings are divided by it.
        sort: whether to sort unsorted events by time (stably) instead of refusing them.

    Raises:
        DataError: if a line does not have this form; the message names the line. See also :class:`TemporalEvents`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "trust.csv"
        ...     _ = path.write_text("6,2,4,10.5\n6,5,-10,11\n")
        ...     events = read_signed_edges(path)
        >>> events.event_type.tolist(), events.msg[:, 0].tolist(), events.node_ids.tolist()
        ([1, 0], [0.4000000059604645, -1.0], [2, 5, 6])
    """
    if not scale > 0:
        raise ValueError(f"scale is {scale}; the largest rating must be positive")
    table = TextTable(path, [",", None], comments=True, empty=NO_EVENT)
    names = ["source", "target", "rating", "time"]
    _check_columns(table, names)
    columns = table.read([(0, "integer"), (1, "integer"), (2, "real"), (3, "time")], dict(enumerate(names)))
    node_ids, src, dst, _ = _numbered(columns, 0, 1)
    rating = torch.from_numpy(columns[2, "real"])
    msg, kind = (rating / scale)[:, None], (rating > 0).long()
    t = whole_numbers(columns[3, "time"])
    return TemporalEvents(src, dst, t, msg, event_type=kind, node_ids=node_ids, sort=sort)


def read_contacts(path: Path | str, *, sort: bool = False) -> tuple[TemporalEvents, list[str]]:
    r"""Read contacts ``time i j class_i class_j`` separated by blanks or tabs, the format of SocioPatterns.

    Args:
        path: path of the file, which may be compressed by gzip.
        sort: whether to sort unsorted events by time (stably) instead of refusing them.

    Returns:
        the events, with the class of each node in ``node_labels``, and the names of the classes.

    Raises:
        DataError: if a line does not have this form, or a node has two classes; the message names the line.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "school.csv"
        ...     _ = path.write_text("20\t15\t17\t3B\t1A\n40\t17\t19\t1A\t3B\n")
        ...     events, names = read_contacts(path)
        >>> events.src.tolist(), events.node_labels.tolist(), names
        ([0, 1], [1, 0, 1], ['1A', '3B'])
    """
    table = TextTable(path, [",", None], comments=True, empty=NO_EVENT)
    names = ["time", "i", "j", "class_i", "class_j"]
    _check_columns(table, names)
    columns = table.read(
        [(0, "time"), (1, "integer"), (2, "integer"), (3, "text"), (4, "text")], dict(enumerate(names))
    )
    node_ids, src, dst, _ = _numbered(columns, 1, 2)
    pairs = zip(columns[3, "text"], columns[4, "text"], strict=True)
    written = [str(cell).strip() for pair in pairs for cell in pair]
    if "" in written:
        table.fail(written.index("") // 2, ": a class is empty; every contact names the classes of both")
    named, given = np.unique(np.array(written, dtype=object), return_inverse=True)
    nodes, classes = torch.stack([src, dst], 1).flatten(), torch.from_numpy(given.astype(np.int64))  # (2 E,)
    labels, other = _agreed(nodes, classes, len(node_ids))
    if other is not None:
        both = f"{named[labels[nodes[other]]]} before and {named[classes[other]]} here"
        table.fail(other // 2, f": node {int(node_ids[nodes[other]])} has the class {both}; one is needed")
    events = TemporalEvents(
        src, dst, whole_numbers(columns[0, "time"]), node_ids=node_ids, node_labels=labels, sort=sort
    )
    return events, named.tolist()


def read_node_labels(path: Path | str, node_ids: Tensor) -> Tensor:
    r"""Read lines ``node,label`` and return the label of each node, -1 for nodes without a label.

    Args:
        path: path of the file, which may be compressed by gzip. Labels are any integers; they are renumbered from 0 in
            ascending order.
        node_ids: id of each node in the file, ascending, int64 (N,).

    Raises:
        DataError: if a line does not have this form, names an unknown node, or gives a node a second label; the message
            names the line.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "labels.csv"
        ...     _ = path.write_text("7,+1\n3,-1\n")
        ...     read_node_labels(path, torch.tensor([3, 5, 7]))
        tensor([ 0, -1,  1])
    """
    table = TextTable(path, [",", None], comments=True, empty="no labels; at least one is needed")
    names = ["node", "label"]
    _check_columns(table, names)
    columns = table.read([(0, "integer"), (1, "integer")], dict(enumerate(names)))
    node, label = torch.from_numpy(columns[0, "integer"]), torch.from_numpy(columns[1, "integer"])
    place = torch.searchsorted(node_ids, node).clamp(max=len(node_ids) - 1)
    unknown = (node_ids[place] != node).nonzero()
    if len(unknown):
        row = int(unknown[0, 0])
        table.fail(row, f" labels node {int(node[row])}, which takes part in no event; drop this line")
    named, given = label.unique(return_inverse=True)
    labels, other = _agreed(place, given, len(node_ids))
    if other is not None:
        both = f"{int(named[labels[place[other]]])} before and {int(label[other])} here"
        table.fail(other, f": node {int(node[other])} has the label {both}; one is needed")
    return labels


def _agreed(nodes: Tensor, classes: Tensor, num_nodes: int) -> tuple[Tensor, int | None]:
    """Return the first class of each node, -1 if there is none, and the first position with a different class."""
    found, first = np.unique(nodes.numpy(), return_index=True)
    labels = torch.full((num_nodes,), -1)
    labels[torch.from_numpy(found)] = classes[torch.from_numpy(first)]
    other = (labels[nodes] != classes).nonzero()
    return labels, int(other[0, 0]) if len(other) else None


def _check_columns(table: TextTable, names: Sequence[str]) -> None:
    if table.width != len(names):
        raise DataError(
            f"{table.path}, line {table.first_line} has {table.width} columns, {len(names)} are needed "
            f"({', '.join(names)})"
        )


def check_from_zero(table: TextTable, values: np.ndarray, name: str) -> None:
    """Refuse a column of numbers below 0.

    Args:
        table: table that was read.
        values: column of the table.
        name: name of the column.

    Raises:
        DataError: if a value is below 0; the message names the line.
    """
    if values.min() < 0:
        row = int(values.argmin())
        table.fail(row, f", column {name!r}: {values[row]} is below 0; these are numbered from 0")


def _numbered(
    columns: dict[Column, np.ndarray], src: int, dst: int, bipartite: bool = False
) -> tuple[Tensor, Tensor, Tensor, int | None]:
    ids = [torch.from_numpy(columns[position, "integer"]) for position in (src, dst)]
    return numbered(ids[0], ids[1], bipartite)


def whole_numbers(values: np.ndarray) -> Tensor:
    """Return integers if every number is whole and exact in float64, else float64.

    Args:
        values: column of numbers.
    """
    if values.dtype.kind == "f" and bool((values == np.floor(values)).all()) and np.abs(values).max(initial=0) < 2**53:
        values = values.astype(np.int64)
    return torch.from_numpy(values)
