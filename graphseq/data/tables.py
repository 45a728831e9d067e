"""Strict reading of text tables: each record of the file is one row, or an error names the line.

pandas parses the columns. What it does not report is checked here before and after: the number of cells of each record,
opening and closing quotes, the number of rows, and whether every cell is a value of its column's type.
"""

import csv
import io
import re
from collections.abc import Collection, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn

import numpy as np

from graphseq.core.dates import date_problem, parse_dates, seconds
from graphseq.core.errors import DataError
from graphseq.data.records import RecordReader, Records, is_number, read_blocks

if TYPE_CHECKING:
    import pandas

__all__: list[str] = []

Kind = Literal[
    "integer",
    "id",
    "name",
    "time",
    "date",
    "zoned",
    "label",
    "float32",
    "real",
    "optional",
    "measured",
    "feature",
    "text",
]
"""What a column must hold.

``integer``: integers within int64.
``id``: as ``integer``; the error for another cell says how to read ids as text.
``name``: any cell that is not empty.
``date``: dates in ISO 8601 without a time zone, as seconds since 1970: integers if all are whole, else float64.
``zoned``: as ``date``, with a time zone.
``time``: integers within int64, or finite decimals that float64 tells apart (below 2**53).
``label``: integers within int64, or finite decimals within float32.
``float32``: finite numbers within float32.
``real``: finite numbers, as float64.
``optional``: as ``float32``, and NaN for an empty cell.
``measured``: as ``real``, and NaN for an empty cell.
``feature``: as ``real`` where the column has any number at all, else the column is not returned.
``text``: any cell.
"""

Column = tuple[int, Kind]
"""Position of a column, from 0, and what it must hold."""

_WORD = re.compile(r'"((?:[^"]|"")*)"|(\S+)')
_INTEGER = re.compile(r"\s*[+-]?[0-9]+\s*", re.ASCII)
_NUMBER = re.compile(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*", re.ASCII)
_DATE = re.compile(r"\s*(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{4}|.*\d:\d\d)", re.ASCII)
_GROUPED = re.compile(r"\s*[+-]?([0-9]{1,3}([,.'_ \u00a0\u202f][0-9]{3})+([.,][0-9]*)?|[0-9]*,[0-9]+)\s*", re.ASCII)
_TEXT_KINDS = ("text", "name", "date", "zoned")
_OPTIONAL_KINDS = ("optional", "measured")
_INT64 = np.iinfo(np.int64)
_FLOAT32_MAX = float(np.finfo(np.float32).max)
_EXACT = 2**53  # from here on float64 does not hold every integer


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


class TextTable:
    r"""A text table with known separator and header, whose columns :meth:`read` parses.

    Blank lines are skipped. Cells may be quoted, with quotes doubled inside; a quote that opens within a cell or
    never closes is refused, and so is a quoted cell with line breaks if each of its lines is a row by itself.

    Args:
        path: path of a UTF-8 file, with or without a byte-order mark, plain or compressed by gzip.
        delimiters: characters that may separate cells, None for any run of blanks and tabs. The first with which the
            header has all ``names`` is used, else the first that occurs in the first line.
        header: kind of the first record: ``columns`` for one name for each column, ``free`` for names without a fixed
            number, which must not be numbers; None if there is no header. ``first`` holds the cells of the first row.
        names: columns that the header must name.
        comments: whether every line that begins with ``#`` or ``%`` is a comment; otherwise such lines are comments
            only before the header, and the last of them is the header if it alone has all ``names``.
        empty: error message for a table without rows.

    Raises:
        DataError: if the file cannot be read, has no rows, or lacks or repeats a column of ``names``.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "calls.csv")
        ...     _ = path.write_text("src,dst,note\n1,2,hello\n")
        ...     table = TextTable(path, [","], header="columns", names=["src"])
        ...     table.header, table.read([(0, "integer")])[0, "integer"].tolist()
        (['src', 'dst', 'note'], [1])
    """

    def __init__(
        self,
        path: Path | str,
        delimiters: Sequence[str | None],
        *,
        header: Literal["columns", "free"] | None = None,
        names: Sequence[str] = (),
        comments: bool = False,
        empty: str = "no rows; at least one is needed",
    ) -> None:
        self.path = Path(path)
        self.header: list[str] = []
        self.lines = np.empty(0, np.int64)
        self._names: dict[int, str] = {}
        blocks = read_blocks(self.path, comments=comments)
        first = next(blocks, b"\n")
        if header != "free" and not comments:
            self.delimiter, first = _find_header(first, delimiters, names)
        else:
            self.delimiter = _find_delimiter(first, delimiters, skip=header is not None)
        pieces = RecordReader(self.path, self.delimiter, multiline=not comments).read(chain([first], blocks))
        piece = next(pieces, None)
        if header is not None and piece is not None:
            line, piece = self._take_header(piece, header)
            piece = next(pieces, None) if piece is None else piece
            repeated = sorted({name for name in names if self.header.count(name) > 1})
            missing = [name for name in names if name not in self.header]
            if missing:
                known = ", ".join(self.header[:20]) + (" ..." if len(self.header) > 20 else "")
                raise DataError(f"{path}, line {line} names no column {', '.join(missing)}; the columns are {known}")
            if repeated:
                raise DataError(
                    f"{path}, line {line} has more than one column {', '.join(map(repr, repeated))}; give each its "
                    "own name"
                )
        if piece is None:
            raise DataError(f"{path} holds {empty}")
        self.width = len(self.header) if header == "columns" else int(piece.fields[0])
        self.first_line = int(piece.lines[0])
        self.first = _cells(piece.text[: int(piece.stops[0])].decode(), self.delimiter)
        self._rest = chain([piece], pieces)

    def read(self, columns: Sequence[Column], names: Mapping[int, str] | None = None) -> dict[Column, np.ndarray]:
        """Parse columns, and store in ``lines`` the line at which each row begins; to be called once.

        Args:
            columns: position and kind of each column.
            names: names of columns for error messages, if there is no header.

        Returns:
            The columns by position and kind; a ``feature`` without any number is left out.

        Raises:
            DataError: if a record has too few or too many cells, or a cell is not of its column's kind; the message
                names the line.
        """
        header = dict(enumerate(self.header)) if self.width == len(self.header) else {}
        self._names = {**header, **(names or {})}
        parts: dict[Column, list[np.ndarray]] = {column: [] for column in columns}
        lines: list[np.ndarray] = []
        numeric: set[Column] = set()
        wrong: dict[Column, DataError] = {}  # features with text, which may hold numbers elsewhere
        for piece in self._rest:
            self._check_width(piece)
            frame = self._parse(piece, columns)
            for column in parts:
                values = frame[column[0]].to_numpy()
                found = _converted(values, column[1])
                if found is None:
                    error, any_number = self._find_wrong(piece, column)
                    if column[1] != "feature":
                        raise error
                    wrong.setdefault(column, error)
                    found = np.full(len(values), np.nan)
                    numeric.update([column] * any_number)
                else:
                    numeric.add(column)
                parts[column].append(found)
            lines.append(piece.lines)
        self.lines = np.concatenate(lines)
        result = {column: np.concatenate(found) for column, found in parts.items() if column in numeric}
        for column, values in result.items():
            if column in wrong:
                raise wrong[column]
            if column[1] == "time" and values.dtype == np.float64:
                self._check_exact(values, column[0])
            if column[1] in ("date", "zoned"):
                result[column] = seconds(f"{self.path}, column {self._names.get(column[0], column[0] + 1)!r}", values)
        return result

    def fail(self, row: int, message: str) -> NoReturn:
        """Raise an error that names the line of a row.

        Args:
            row: position of the row.
            message: description of the error.

        Raises:
            DataError: always, with the path and the line of the row before the message.
        """
        raise DataError(f"{self.path}, line {self.lines[row]}{message}")

    def _take_header(self, piece: Records, header: str) -> tuple[int, Records | None]:
        """Separate the header; return its line and the rest."""
        stop = int(piece.stops[0])
        text, line = piece.text[:stop].decode(), int(piece.lines[0])
        self.header = _cells(text, self.delimiter)
        if header == "free" and all(map(is_number, self.header)):
            raise DataError(
                f"{self.path}, line {line} should name the columns, but holds numbers only and would be lost as a "
                f"row: {text[:80]!r}. Put a line with names before it, or give header=False to a reader that takes it"
            )
        if len(piece.lines) == 1:
            return line, None
        return line, Records(piece.text[stop + 1 :], piece.stops[1:] - stop - 1, piece.lines[1:], piece.fields[1:])

    def _check_width(self, piece: Records) -> None:
        wrong = np.flatnonzero(piece.fields != self.width)
        if not len(wrong):
            return
        row = int(wrong[0])
        text = piece.text[piece.stops[row - 1] + 1 if row else 0 : piece.stops[row]].decode()
        names = ", ".join(self._names[position] for position in sorted(self._names))
        raise DataError(
            f"{self.path}, line {piece.lines[row]} has {piece.fields[row]} columns, {self.width} are needed"
            f"{f' ({names[:200]})' if names else ''}, separated by "
            f"{'blanks' if self.delimiter is None else repr(self.delimiter)}: {text[:80]!r}"
        )

    def _parse(self, piece: Records, columns: Sequence[Column]) -> "pandas.DataFrame":
        import pandas

        optional = [position for position, kind in columns if kind in _OPTIONAL_KINDS]
        frame = pandas.read_csv(
            io.BytesIO(piece.text),
            sep=r"\s+" if self.delimiter is None else self.delimiter,
            header=None,
            names=list(range(self.width)),
            usecols=sorted({position for position, _ in columns}),
            index_col=False,
            dtype={position: object for position, kind in columns if kind in _TEXT_KINDS},
            na_values={position: [""] for position in optional},
            na_filter=bool(optional),
            keep_default_na=False,
            skipinitialspace=self.delimiter not in (" ", None),
            skip_blank_lines=False,
            quoting=csv.QUOTE_MINIMAL if b'"' in piece.text else csv.QUOTE_NONE,
            low_memory=False,
            # decimals are exact by default from pandas 3.1 on, where asking for it is deprecated
            **({} if _release(pandas.__version__) >= (3, 1) else {"float_precision": "round_trip"}),
        )
        if len(frame) != len(piece.lines):
            raise DataError(
                f"{self.path}: pandas gives {len(frame)} rows for the {len(piece.lines)} records from line "
                f"{piece.lines[0]} to line {piece.lines[-1]}; please report this"
            )
        return frame

    def _find_wrong(self, piece: Records, column: Column) -> tuple[DataError, bool]:
        """Return an error for the first invalid cell, and whether the column has any number."""
        position, kind = column
        cells = self._parse(piece, [(position, "text")])[position].tolist()
        name = self._names.get(position, str(position + 1))
        row = next((row for row, cell in enumerate(cells) if _problem(cell, kind)), None)
        if row is None:
            raise DataError(f"{self.path}, column {name!r}: a cell from line {piece.lines[0]} on is not of kind {kind}")
        written = {cell for cell in cells if cell.strip()}
        # a column of numbers in another notation is not text
        numbers = any(map(_NUMBER.fullmatch, written)) or all_grouped(written)
        error = DataError(f"{self.path}, line {piece.lines[row]}, column {name!r}: {_problem(cells[row], kind)}")
        return error, numbers

    def _check_exact(self, values: np.ndarray, position: int) -> None:
        coarse = np.flatnonzero(np.abs(values) >= _EXACT)
        if len(coarse):
            row, name = int(coarse[0]), self._names.get(position, str(position + 1))
            self.fail(
                row,
                f", column {name!r}: {values[row]:.17g} is beyond 2**53, and the column has a value with a fraction or "
                "exponent, or beyond int64, so that float64 would round it and lose the order of events; write all "
                "values as integers within int64",
            )


def all_grouped(cells: Collection[str]) -> bool:
    """Return whether there are cells, and all are numbers with thousands separators or a decimal comma.

    Args:
        cells: texts.
    """
    return bool(cells) and all(map(_GROUPED.fullmatch, cells))


def first_cells(path: Path, delimiters: Sequence[str | None], names: Sequence[str] = ()) -> list[str]:
    """Return the cells of the header as :class:`TextTable` finds it, or of the first row where there is no header.

    Args:
        path: path of the file.
        delimiters: characters that may separate cells, None for any run of blanks and tabs.
        names: names by which a header is told from a comment.

    Raises:
        DataError: if the file cannot be read.
    """
    delimiter, text = _find_header(next(read_blocks(path, comments=False), b"\n"), delimiters, names)
    line = re.search(rb"[^\n]*\S[^\n]*", text)
    return [] if line is None else _cells(line[0].decode(), delimiter)


def _find_delimiter(text: bytes, delimiters: Sequence[str | None], *, skip: bool) -> str | None:
    """Return the first separator that occurs outside of quotes in the first line, or in the one after it."""
    lines = (found[0] for found in re.finditer(rb"[^\n]*\S[^\n]*", text))
    if skip:
        next(lines, b"")
    return _present(next(lines, b""), delimiters)


def _present(line: bytes, delimiters: Sequence[str | None]) -> str | None:
    bare = re.sub(rb'"[^"]*"', b"", line)
    return next((mark for mark in delimiters if mark is not None and mark.encode() in bare), delimiters[-1])


def _find_header(text: bytes, delimiters: Sequence[str | None], names: Sequence[str]) -> tuple[str | None, bytes]:
    """Return the separator, and the text with blanks in place of lines before the header."""
    offset, comment = 0, -1
    while offset < len(text):
        stop = text.find(b"\n", offset)
        line = text[offset:stop].strip()
        if line and not line.startswith((b"#", b"%")):
            break
        comment = offset if line else comment
        offset = stop + 1
    choices = [(offset, text)]
    if comment >= 0:
        choices += [(comment, text), (comment, text[:comment] + re.sub(rb"[#%]", b" ", text[comment:], count=1))]
    for start, content in choices:
        line, data = content[start : content.find(b"\n", start)], text[offset : text.find(b"\n", offset)]
        for mark in delimiters:
            cells = _cells(line.decode(), mark)
            # a comment that is the header has a name for each cell
            if (
                names
                and not set(names) - set(cells)
                and (start == offset or len(cells) == len(_cells(data.decode(), mark)))
            ):
                return mark, re.sub(rb"[^\n]", b" ", content[:start]) + content[start:]
    return _present(text[offset : text.find(b"\n", offset)], delimiters), re.sub(rb"[^\n]", b" ", text[:offset]) + text[
        offset:
    ]


def _cells(record: str, delimiter: str | None) -> list[str]:
    if delimiter is None:
        return [bare or quoted.replace('""', '"') for quoted, bare in _WORD.findall(record)]
    cells = csv.reader(io.StringIO(record, newline=""), delimiter=delimiter, skipinitialspace=True)
    try:
        return [cell.strip() for cell in next(cells, [])]
    except csv.Error:  # a cell of more than csv.field_size_limit() characters is no name
        return [record]


def _converted(values: np.ndarray, kind: Kind) -> np.ndarray | None:
    """Return the values in the type of their column, or None if one cannot be converted."""
    if kind == "text":
        return values
    if kind == "name":
        stripped = np.array([cell.strip() for cell in values], dtype=object)
        return None if (stripped == "").any() else stripped
    if kind in ("date", "zoned"):
        return parse_dates(values.tolist(), zoned=kind == "zoned")
    if values.dtype == np.int64 and kind in ("integer", "id", "time", "label"):
        return values
    if kind in ("integer", "id") or (values.dtype.kind in "uO" and kind in ("time", "label")):
        return None
    given = _from_objects(values, kind) if values.dtype == object else values
    if given is None or given.dtype.kind not in "iuf":
        return None
    given = given.astype(np.float64)
    bad = np.isinf(given) if kind in _OPTIONAL_KINDS else ~np.isfinite(given)
    if kind in ("float32", "label", "optional"):
        bad |= np.abs(given) > _FLOAT32_MAX
    if bad.any():
        return None
    return given.astype(np.float32) if kind in ("float32", "optional") else given


def _from_objects(values: np.ndarray, kind: Kind) -> np.ndarray | None:
    """Return numbers that pandas left as text or Python integers: optional numbers with blanks, and large integers."""
    cells = ["" if isinstance(value, float) else str(value) for value in values]  # NaN stands for an empty cell
    if any(_problem(cell, kind) for cell in cells):
        return None
    return np.array([float(cell) if cell.strip() else np.nan for cell in cells])


def _problem(cell: str, kind: Kind) -> str | None:
    """Return why a cell is invalid in its column, or None if it is valid."""
    if not cell.strip():
        if kind in _TEXT_KINDS:
            return f"the cell is empty; every row needs {'an id' if kind == 'name' else 'a date'}"
        return (
            None if kind in _OPTIONAL_KINDS else f"{cell!r} is not a number: the cell is empty; fill it or drop the row"
        )
    if kind == "name":
        return None
    if kind in ("date", "zoned"):
        return date_problem(cell, zoned=kind == "zoned")
    if kind in ("integer", "id"):
        remedy = "; correct it, or read all ids as text by ids='text'" if kind == "id" else ""
        if not _INTEGER.fullmatch(cell):
            return f"{cell!r} is not an integer{remedy}"
        return None if _INT64.min <= int(cell) <= _INT64.max else f"{cell!r} does not fit into int64{remedy}"
    if not _NUMBER.fullmatch(cell):
        if _DATE.match(cell):
            return (
                f"{cell!r} is not a number; write all times as numbers, such as seconds, or all as dates in ISO 8601, "
                "which read_event_table takes"
            )
        remedy = "; write it without thousands separators and with a decimal point" if _GROUPED.fullmatch(cell) else ""
        if kind in _OPTIONAL_KINDS and not remedy:
            remedy = "; leave the cell empty if the value is missing"
        return f"{cell!r} is not a finite number{remedy}"
    if kind in ("time", "label") and _INTEGER.fullmatch(cell):
        return None if _INT64.min <= int(cell) <= _INT64.max else f"{cell!r} does not fit into int64"
    number = abs(float(cell))
    if not number < np.inf:
        return f"{cell!r} is not a finite number, for float64 does not reach it"
    if kind in ("float32", "optional", "label") and number > _FLOAT32_MAX:
        return f"{cell!r} does not fit into float32"
    return None
