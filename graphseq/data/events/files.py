"""Readers of files with one event a line: JODIE csv, SNAP and KONECT edge lists, signed edges, contacts."""

import csv
import gzip
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from graphseq.core.errors import DataError
from graphseq.data.events.table import TemporalEvents, check_num_nodes, numbered

__all__ = [
    "read_contacts",
    "read_edge_list",
    "read_event_table",
    "read_jodie_csv",
    "read_node_labels",
    "read_signed_edges",
]

EdgeFeatures = Literal["auto", "all", "none"]
"""Which features of a file are kept: ``auto`` all unless every column is constant, ``all``, or ``none``."""

_COMMENTS = ("#", "%")

_ENCODING = "utf-8-sig"
"""UTF-8, perhaps with the mark that spreadsheets write before the first line."""


def read_jodie_csv(path: Path | str, edge_features: EdgeFeatures = "auto", *, sort: bool = False) -> TemporalEvents:
    r"""Read a file of the JODIE format: a header, then ``user,item,timestamp,state_label,feature,...``.

    Items are numbered after the users. Times that are all whole numbers become integers; others stay fractional,
    where PyG's ``JODIEDataset`` cuts them off.

    Args:
        path: file, may be compressed (``.gz``).
        edge_features: ``auto`` drops features whose columns are all constant, which tell nothing.
        sort: whether unsorted lines are put in order.

    Raises:
        DataError: if a line is not of this form, with its number; see also :class:`TemporalEvents`.

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
    _check_header(path, ",", "Put a line with names before it")
    width = len(_first_line(path, header=True).split(","))
    if width < 4:
        raise DataError(f"{path} has {width} columns; user, item, timestamp and state_label are needed")
    fields: list[tuple] = [("src", "i8"), ("dst", "i8"), ("t", "i8"), ("y", "f8")]
    if width > 4:
        fields.append(("msg", "f4", (width - 4,)))
    table = _read(path, fields, ",", header=True)
    if len(table) and min(int(table["src"].min()), int(table["dst"].min())) < 0:
        raise DataError(f"{path} has users or items below 0; they are numbered from 0")
    src, dst = _tensor(table["src"]), _tensor(table["dst"])
    num_sources = int(src.max()) + 1
    check_num_nodes(num_sources + int(dst.max()) + 1, src, -1 - dst)  # before the sum, which may not fit into int64
    msg = _tensor(table["msg"]) if width > 4 and edge_features != "none" else None
    if msg is not None and edge_features == "auto" and bool((msg == msg[0]).all()):
        msg = None
    y = _whole(table["y"])
    return TemporalEvents(src, dst + num_sources, _whole(table["t"]), msg, y, num_sources=num_sources, sort=sort)


def read_edge_list(
    path: Path | str,
    kind: Literal["snap", "konect"] = "snap",
    *,
    bipartite: bool = False,
    header: bool = False,
    sort: bool = False,
) -> TemporalEvents:
    r"""Read an edge list: ``src dst t`` (SNAP) or ``src dst weight t`` (KONECT), between blanks, tabs or commas.

    Ids may have gaps and begin anywhere; nodes are numbered from 0 in the order of their ids, which ``node_ids``
    keeps. Lines that begin with ``#`` or ``%`` are comments.

    Args:
        path: file, may be compressed (``.gz``).
        kind: which columns there are; a weight becomes the one feature of the event.
        bipartite: whether sources and destinations are numbered apart, so that equal ids mean two nodes.
        header: whether the first line that is no comment names the columns.
        sort: whether unsorted lines are put in order; KONECT's are often unsorted.

    Raises:
        DataError: if a line is not of this form, with its number; see also :class:`TemporalEvents`.

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
    if header:
        _check_header(path, None, "Give header=False")
    weight = [("msg", "f4", (1,))] if kind == "konect" else []
    table = _read(path, [("src", "i8"), ("dst", "i8"), *weight, ("t", "i8")], None, header=header)
    node_ids, src, dst, num_sources = numbered(_tensor(table["src"]), _tensor(table["dst"]), bipartite)
    msg = _tensor(table["msg"]) if weight else None
    return TemporalEvents(src, dst, _whole(table["t"]), msg, node_ids=node_ids, num_sources=num_sources, sort=sort)


def read_event_table(
    path: Path | str,
    src: str = "src",
    dst: str = "dst",
    t: str = "t",
    *,
    msg: Sequence[str] = (),
    y: str | None = None,
    event_type: str | None = None,
    bipartite: bool = False,
    sort: bool = False,
) -> TemporalEvents:
    r"""Read a table whose first line names its columns, between commas, tabs or blanks; others are passed over.

    Nodes are numbered as :func:`read_edge_list` does.

    Args:
        path: file, may be compressed (``.gz``).
        src: column of the sources, integers.
        dst: column of the destinations, integers.
        t: column of the times, numbers.
        msg: columns of the features.
        y: column of the labels.
        event_type: column of the kinds of events, integers from 0.
        bipartite: see :func:`read_edge_list`.
        sort: whether unsorted lines are put in order.

    Raises:
        DataError: if a column is missing or a line is not of this form, with its number.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "calls.csv"
        ...     _ = path.write_text("when,caller,callee,note\n3,1,2,hello\n8,2,1,\n")
        ...     events = read_event_table(path, "caller", "callee", "when")
        >>> events.src.tolist(), events.t.tolist()
        ([0, 1], [0, 5])
    """
    first = _first_line(path, header=False)
    delimiter = next((mark for mark in (",", "\t", ";") if mark in first), None)
    present = [name.strip().strip('"') for name in first.split(delimiter)]
    types = {src: "i8", dst: "i8", **dict.fromkeys(msg, "f4"), t: "i8"}
    types |= {name: kind for name, kind in ((y, "f8"), (event_type, "i8")) if name is not None}
    missing = [name for name in types if name not in present]
    if missing:
        raise DataError(f"{path} has no column {', '.join(missing)}; its first line names {', '.join(present)}")
    place = {name: f"column {present.index(name)}" for name in types}
    fields = [(f"column {number}", types.get(name, "U1")) for number, name in enumerate(present)]
    table = _read(path, fields, delimiter, header=True, time=place[t], comments=None)
    node_ids, source, destination, num_sources = numbered(
        _tensor(table[place[src]]), _tensor(table[place[dst]]), bipartite
    )
    return TemporalEvents(
        source,
        destination,
        _whole(table[place[t]]),
        torch.stack([_tensor(table[place[name]]) for name in msg], dim=1) if msg else None,
        None if y is None else _whole(table[place[y]]),
        None if event_type is None else _whole(table[place[event_type]]),
        node_ids=node_ids,
        num_sources=num_sources,
        sort=sort,
    )


def read_signed_edges(path: Path | str, scale: float = 10.0, *, sort: bool = False) -> TemporalEvents:
    r"""Read signed edges ``source,target,rating,time``, such as the Bitcoin trust networks.

    The rating divided by ``scale`` is the one feature; the event type is 1 for a positive rating and 0 otherwise.

    Args:
        path: file, may be compressed (``.gz``).
        scale: largest absolute rating, positive.
        sort: whether unsorted lines are put in order.

    Raises:
        DataError: if a line is not of this form, with its number; see also :class:`TemporalEvents`.

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
    table = _read(path, [("src", "i8"), ("dst", "i8"), ("rating", "f8"), ("t", "i8")], None)
    node_ids, src, dst, _ = numbered(_tensor(table["src"]), _tensor(table["dst"]))
    rating = _tensor(table["rating"])
    msg, kind = (rating / scale)[:, None], (rating > 0).long()
    return TemporalEvents(src, dst, _whole(table["t"]), msg, event_type=kind, node_ids=node_ids, sort=sort)


def read_contacts(path: Path | str, *, sort: bool = False) -> tuple[TemporalEvents, list[str]]:
    r"""Read contacts ``time i j class_i class_j`` between blanks or tabs, as SocioPatterns publishes them.

    Args:
        path: file, may be compressed (``.gz``).
        sort: whether unsorted lines are put in order.

    Returns:
        the events, with the class of each node in ``node_labels``, and the names of the classes.

    Raises:
        DataError: if a line is not of this form, with its number, or a node changes its class.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "school.csv"
        ...     _ = path.write_text("20\t15\t17\t3B\t1A\n40\t17\t19\t1A\t3B\n")
        ...     events, names = read_contacts(path)
        >>> events.src.tolist(), events.node_labels.tolist(), names
        ([0, 1], [1, 0, 1], ['1A', '3B'])
    """
    fields = [("t", "i8"), ("src", "i8"), ("dst", "i8"), ("class_src", "O"), ("class_dst", "O")]
    table = _read(path, fields, None)
    node_ids, src, dst, _ = numbered(_tensor(table["src"]), _tensor(table["dst"]))
    named, given = np.unique(np.concatenate([table["class_src"], table["class_dst"]]), return_inverse=True)
    nodes, classes = torch.cat([src, dst]), torch.from_numpy(given.astype(np.int64))
    labels = torch.zeros(len(node_ids), dtype=torch.int64).scatter_reduce(0, nodes, classes, "amax")
    other = (labels[nodes] != classes).nonzero()
    if len(other):
        node = int(nodes[other[0, 0]])
        names = sorted({str(named[number]) for number in classes[nodes == node].tolist()})
        raise DataError(f"{path} gives node {int(node_ids[node])} the classes {', '.join(names)}; one is needed")
    events = TemporalEvents(src, dst, _whole(table["t"]), node_ids=node_ids, node_labels=labels, sort=sort)
    return events, named.tolist()


def read_node_labels(path: Path | str, node_ids: Tensor) -> Tensor:
    r"""Read lines ``node,label`` and return the label of each node, -1 where the file has none.

    Args:
        path: file, may be compressed (``.gz``); labels are any integers, numbered from 0 in ascending order here.
        node_ids: name of each node in the file, ascending, int64 (N,).

    Raises:
        DataError: if a line is not of this form, with its number, names a node that is not there, or gives a node
            another label than a line before.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "labels.csv"
        ...     _ = path.write_text("7,+1\n3,-1\n")
        ...     read_node_labels(path, torch.tensor([3, 5, 7]))
        tensor([ 0, -1,  1])
    """
    table = _read(path, [("node", "i8"), ("label", "i8")], None)
    node, label = _tensor(table["node"]), _tensor(table["label"])
    place = torch.searchsorted(node_ids, node).clamp(max=len(node_ids) - 1)
    unknown = (node_ids[place] != node).nonzero()
    if len(unknown):
        raise DataError(f"{path} labels node {int(node[unknown[0, 0]])}, which takes part in no event")
    labels = torch.full((len(node_ids),), -1)
    found, labels[place] = label.unique(return_inverse=True)
    other = (found[labels[place]] != label).nonzero()
    if len(other):
        name = int(node[other[0, 0]])
        given = ", ".join(str(one) for one in label[node == name].unique().tolist())
        raise DataError(f"{path} gives node {name} the labels {given}; one is needed: drop the lines that are wrong")
    return labels


def _whole(values: np.ndarray) -> Tensor:
    """Integers where every number is whole and exact, else float64."""
    if values.dtype.kind == "f" and bool(np.isfinite(values).all()):
        whole = bool((values == np.floor(values)).all()) and float(np.abs(values).max(initial=0)) < 2**53
        values = values.astype(np.int64) if whole else values
    return _tensor(values)


def _tensor(values: np.ndarray) -> Tensor:
    # a copy, for a field of a single line counts as contiguous whatever its stride is
    return torch.from_numpy(values.copy())


def _lines(path: Path | str) -> Iterator[tuple[int, str]]:
    """Lines that hold data or a header, with their numbers from 1."""
    path = Path(path)
    with gzip.open(path, "rt", encoding=_ENCODING) if path.suffix == ".gz" else path.open(encoding=_ENCODING) as file:
        for number, line in enumerate(file, 1):
            if line.strip() and not line.startswith(_COMMENTS):
                yield number, line.strip()


def _first_line(path: Path | str, *, header: bool) -> str:
    lines = _lines(path)
    try:
        found = [line for _, line in (next(lines, (0, "")) for _ in range(1 + header))]
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}; it is damaged or not text") from error
    if not found[-1]:
        raise DataError(f"{path} holds no event")
    return found[-1]


def _check_header(path: Path | str, delimiter: str | None, remedy: str) -> None:
    """Refuse a first line of numbers where names are expected: an event would be lost."""
    _first_line(path, header=False)  # says so if there is none
    number, line = next(_lines(path))
    if delimiter is None and "," in line:
        delimiter = ","
    try:
        for field in line.split(delimiter):
            float(field)
    except ValueError:
        return
    raise DataError(
        f"{path}, line {number} should name the columns, but holds numbers only and would be lost as an event: "
        f"{line[:80]!r}. {remedy}"
    )


def _read(
    path: Path | str,
    fields: Sequence[tuple],
    delimiter: str | None,
    *,
    header: bool = False,
    time: str = "t",
    comments: Sequence[str] | None = _COMMENTS,
) -> np.ndarray:
    """Return the columns as a structured array; without a delimiter, commas are sought in the first line."""
    first = _first_line(path, header=header)
    if delimiter is None and "," in first:
        delimiter = ","
    begin = next(number for number, _ in _lines(path)) if header else 0
    try:
        return np.loadtxt(
            path,
            dtype=np.dtype(list(fields)),
            delimiter=delimiter,
            comments=comments,
            quotechar=None if comments else '"',
            skiprows=begin,
            ndmin=1,
            encoding=_ENCODING,
        )
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}; it is damaged or not text") from error
    except ValueError as error:
        # whole times are read as integers, of which none is rounded; fractional ones make the column a float one;
        # anything else is a bad line
        if (time, "i8") in fields:
            wider = [(time, "f8") if field == (time, "i8") else field for field in fields]
            return _read(path, wider, delimiter, header=header, comments=comments)
        raise _bad_line(path, fields, delimiter, header) or DataError(f"{path}: {error}") from error


def _bad_line(path: Path | str, fields: Sequence[tuple], delimiter: str | None, header: bool) -> DataError | None:
    """Find the first line that does not fit; slow, but only run when there is one."""
    kinds = [field[1][0] for field in fields for _ in range(field[2][0] if len(field) > 2 else 1)]
    names = ", ".join(field[0] for field in fields)
    for position, (number, line) in enumerate(_lines(path)):
        if header and not position:
            continue
        parts = line.split() if delimiter is None else next(csv.reader([line], delimiter=delimiter))
        if len(parts) != len(kinds):
            return DataError(
                f"{path}, line {number} has {len(parts)} columns, {len(kinds)} are needed ({names}): {line[:80]!r}"
            )
        for part, kind in zip(parts, kinds, strict=True):
            try:
                {"i": int, "f": float, "U": str, "O": str}[kind](part)
            except ValueError:
                wanted = "an integer" if kind == "i" else "a number"
                return DataError(f"{path}, line {number}: {part!r} is not {wanted} ({names}): {line[:80]!r}")
    return None
