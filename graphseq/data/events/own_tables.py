"""Reader of a table of events of your own: ids of any kind, times or dates, text or Parquet."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch

from graphseq.core.dates import ACCEPTED_DATES, date_problem, has_zone, is_date
from graphseq.core.errors import DataError, OptionalDependencyError
from graphseq.data.events.files import NO_EVENT, check_from_zero, whole_numbers
from graphseq.data.events.table import TemporalEvents, numbered, numbered_names
from graphseq.data.records import is_number
from graphseq.data.tables import Column, Kind, TextTable, all_grouped, first_cells

if TYPE_CHECKING:
    import pandas

__all__ = ["read_event_table"]

Ids = Literal["auto", "integer", "text"]
"""What ids are: ``integer``, ``text``, or ``auto``, which decides by the first row."""

ColumnName = int | str | None
"""A column by its position from 0 or by its header; None to find it."""

_DELIMITERS = (",", "\t", ";", None)
_STANDARD = ("src", "dst", "t")
_TIMES = ("t", "time", "timestamp", "ts", "date", "datetime", "when")


def read_event_table(
    path: Path | str,
    src: ColumnName = None,
    dst: ColumnName = None,
    t: ColumnName = None,
    *,
    msg: Sequence[int | str] = (),
    y: int | str | None = None,
    event_type: int | str | None = None,
    bipartite: bool = False,
    ids: Ids = "auto",
    sort: bool = False,
) -> TemporalEvents:
    r"""Read a table with one event in each row: text with or without a header, gzip, or Parquet.

    Text is separated by commas, tabs, semicolons or blanks. Without other names the columns are ``src``, ``dst`` and
    ``t`` if the header has all three. Else the time is the one column that is called like a time (``time``,
    ``timestamp``, ``date``, ``when``, ...), or the third; source and destination are the first two of the others. The
    first line is a header if its cell of the time is neither a number nor a date. Other columns are ignored.

    Nodes are numbered from 0 in the order of their ids, which ``node_ids`` keeps; integers may have gaps and begin
    anywhere. Dates in ISO 8601 become seconds since 1970; those without a time zone are read as UTC.

    Args:
        path: path of the table, plain or compressed by gzip; or a Parquet file, which needs pyarrow.
        src: column of source ids, by its header or its position from 0; None to find it as above.
        dst: column of destination ids, in the same way.
        t: column of times, in the same way: numbers, or dates in ISO 8601.
        msg: columns of event features, numbers within float32.
        y: column of event labels, numbers.
        event_type: column of event types, integers from 0.
        bipartite: whether sources and destinations are numbered separately, so that an id that occurs as both is two
            nodes.
        ids: kind of the ids: ``integer``, ``text``, or ``auto``, which takes integers if the first ids of both columns
            are numbers, so that a word among numbers is an error and not one more node.
        sort: whether to sort unsorted events by time (stably) instead of refusing them.

    Raises:
        ValueError: if ``ids`` is unknown or ``msg`` is text.
        OptionalDependencyError: if a Parquet file is read without pyarrow.
        DataError: if a column is missing or a line does not have this form; the message names the line.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "mails.csv"
        ...     _ = path.write_text("who,whom,when\nann,bob,2024-01-05T10:00+02:00\nbob,eve,2024-01-05T08:01Z\n")
        ...     events = read_event_table(path)
        >>> events.node_ids, events.src.tolist(), events.t.tolist()
        (['ann', 'bob', 'eve'], [0, 1], [0, 60])
    """
    path = Path(path)
    if isinstance(msg, str):
        raise ValueError(f"msg is {msg!r}; give a list of columns, such as [{msg!r}]")
    if ids not in get_args(Ids):
        raise ValueError(f"ids is {ids!r}; it must be one of {', '.join(get_args(Ids))}")
    others = [*msg, *(column for column in (y, event_type) if column is not None)]
    if _is_parquet(path):
        return _from_parquet(path, [src, dst, t], msg, y, event_type, bipartite, ids, sort)
    table = _opened(path, [src, dst, t], others)
    header = table.header or None
    source, destination, time = _three_columns(path, header, table.width, src, dst, t)
    place = {column: _position(path, header, table.width, column) for column in others}
    id_kind = _id_kind(ids, [table.first[source], table.first[destination]])
    time_kind = _time_kind(table, table.first[time])
    features: list[Column] = [(place[column], "float32") for column in msg]
    labels: list[Column] = [] if y is None else [(place[y], "label")]
    types: list[Column] = [] if event_type is None else [(place[event_type], "integer")]
    names = None if header else {source: "source", destination: "destination", time: "time"}
    columns = table.read(
        [(source, id_kind), (destination, id_kind), (time, time_kind), *features, *labels, *types], names
    )
    if event_type is not None:
        check_from_zero(table, columns[types[0]], str(event_type))
    given = [columns[position, id_kind] for position in (source, destination)]
    node_ids: torch.Tensor | list[str]
    if id_kind == "name":
        node_ids, first, second, num_sources = numbered_names(given[0], given[1], bipartite)
    else:
        node_ids, first, second, num_sources = numbered(
            torch.from_numpy(given[0]), torch.from_numpy(given[1]), bipartite
        )
    return TemporalEvents(
        first,
        second,
        whole_numbers(columns[time, time_kind]),
        torch.from_numpy(np.stack([columns[feature] for feature in features], 1)) if features else None,  # (E, D)
        whole_numbers(columns[labels[0]]) if labels else None,
        torch.from_numpy(columns[types[0]]) if types else None,
        node_ids=node_ids,
        num_sources=num_sources,
        sort=sort,
    )


def table_columns(path: Path) -> list[str]:
    r"""Return the cells of the first line of a table, or the names of the columns of a Parquet file.

    Args:
        path: path of the table.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "mails.csv").write_text("who,whom,when\nann,bob,3\n")
        ...     table_columns(Path(folder) / "mails.csv")
        ['who', 'whom', 'when']
    """
    return list(map(str, _parquet_frame(path).columns)) if _is_parquet(path) else first_cells(path, _DELIMITERS)


def _opened(path: Path, three: Sequence[ColumnName], others: Sequence[int | str]) -> TextTable:
    """Return the table with its header, if it has one."""
    named = [column for column in [*three, *others] if isinstance(column, str)]
    if not named and set(_STANDARD) <= set(first_cells(path, _DELIMITERS, _STANDARD)):
        named = list(_STANDARD)
    if not named:
        cells = first_cells(path, _DELIMITERS)
        used = [default if column is None else column for default, column in enumerate(three)]
        known = [cells[column] for column in used if isinstance(column, int) and 0 <= column < len(cells)]
        if not cells or (len(known) == 3 and (is_number(known[2]) or is_date(known[2]))):
            return TextTable(path, _DELIMITERS, empty=NO_EVENT)
        wrong = next((cell for cell in known if is_number(cell) or date_like(cell)), None)
        if wrong is not None or len(cells) < 3:
            shown = ", ".join(map(repr, cells[:8]))
            raise DataError(
                f"{path}: the first line, {shown}, is neither names nor an event: source, destination, and the time as "
                f"a number or a date in {ACCEPTED_DATES}, are needed, in this order unless src, dst and t name or "
                "number the columns"
            )
    return TextTable(path, _DELIMITERS, header="columns", names=named, empty=NO_EVENT)


def date_like(cell: str) -> bool:
    """Return whether a text begins like a date in any notation.

    Args:
        cell: any text.

    Example:
        >>> date_like("05.01.2024"), date_like("date")
        (True, False)
    """
    return is_date(cell) or (sum(mark in "./-:" for mark in cell) >= 2 and sum(map(str.isdigit, cell)) >= 4)


def _three_columns(
    path: Path, header: list[str] | None, width: int, src: ColumnName, dst: ColumnName, t: ColumnName
) -> list[int]:
    """Return the positions of source, destination and time."""
    given = [src, dst, t]
    found = [None if column is None else _position(path, header, width, column) for column in given]
    names = [name.strip().lower() for name in header or []]
    for rank, name in enumerate(_STANDARD):
        if found[rank] is None and name in (header or []) and (header or []).index(name) not in found:
            found[rank] = (header or []).index(name)
    if found[2] is None:
        times = [place for place, name in enumerate(names) if name in _TIMES and place not in found]
        found[2] = times[0] if len(times) == 1 else None
    # a column without a name, such as the index that pandas writes, is none of the three
    free = [place for place in range(width) if place not in found and (not names or names[place])]
    if len(free) < found.count(None):
        shown = "" if header is None else f" ({', '.join(header[:20])})"
        raise DataError(
            f"{path} has {width} columns{shown}; source, destination and time are needed: name them by src, dst and t"
        )
    places = [free.pop(0) if place is None else place for place in found]
    if len(set(places)) < 3:
        raise DataError(f"{path}: src {src!r}, dst {dst!r} and t {t!r} are not three columns; give one for each")
    return places


def _position(path: Path, header: list[str] | None, width: int, column: int | str) -> int:
    if isinstance(column, bool):
        raise DataError(f"{path}: {column} is given for a column; give its header or its position from 0")
    if isinstance(column, int):
        if not 0 <= column < width:
            raise DataError(f"{path} has {width} columns, and column {column} is none; they are numbered from 0")
        return column
    if header is None or column not in header:
        raise DataError(f"{path} has no column {column!r}; its columns are {', '.join(header or [])}")
    return header.index(column)


def _id_kind(ids: Ids, first: Sequence[str]) -> Kind:
    if ids == "auto":
        ids = "integer" if all(map(is_number, first)) else "text"
    return "id" if ids == "integer" else "name"


def _time_kind(table: TextTable, cell: str) -> Kind:
    if is_number(cell):
        return "time"
    if not is_date(cell):
        problem = date_problem(cell, zoned=False)
        if all_grouped([cell]):
            problem = (
                f"{cell!r} has thousands separators or a decimal comma; write it without, and with a decimal point"
            )
        raise DataError(f"{table.path}, line {table.first_line}: the time is neither a number nor a date: {problem}")
    return "zoned" if has_zone(cell) else "date"


def _is_parquet(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) == b"PAR1"
    except OSError:  # the reader of text says what is wrong
        return False


def _from_parquet(
    path: Path,
    three: list[ColumnName],
    msg: Sequence[int | str],
    y: int | str | None,
    event_type: int | str | None,
    bipartite: bool,
    ids: Ids,
    sort: bool,
) -> TemporalEvents:
    frame = _parquet_frame(path)
    header = [str(name) for name in frame.columns]
    frame.columns = header
    if not len(frame):
        raise DataError(f"{path} holds {NO_EVENT}")
    places = _three_columns(path, header, len(header), *three)
    names = [header[place] for place in places]
    if ids == "text":
        for name in names[:2]:
            empty = frame[name].isna().to_numpy().nonzero()[0]
            if len(empty):
                raise DataError(f"{path}: column {name}, row {empty[0]}: the id is empty; every event needs one")
        frame = frame.astype(dict.fromkeys(names[:2], str))
    label, kind = (
        None if column is None else header[_position(path, header, len(header), column)] for column in (y, event_type)
    )
    features = [header[_position(path, header, len(header), column)] for column in msg]
    try:
        return TemporalEvents.from_frame(
            frame,
            *names,
            msg=features,
            y=label,
            event_type=kind,
            renumber=True,
            bipartite=bipartite,
            sort=sort,
        )
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _parquet_frame(path: Path) -> "pandas.DataFrame":
    import pandas

    try:
        return pandas.read_parquet(path)
    except ImportError as error:
        raise OptionalDependencyError("pyarrow", "reading Parquet", extra="parquet") from error
    except (OSError, ValueError) as error:  # pyarrow's own errors are of these kinds
        raise DataError(f"{path} cannot be read as Parquet: {error}; it is damaged") from error
