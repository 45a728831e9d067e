"""Records of a text file, which may span lines inside quotes, with the line at which each begins."""

import contextlib
import gzip
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from graphseq.core.errors import DataError

__all__: list[str] = []

_BLOCK = 2**22  # bytes that are read and parsed at a time
_QUOTE, _BREAK, _BLANK, _TAB = b'"\n \t'
_COMMENT = re.compile(rb"^[ \t]*[#%].*$", re.MULTILINE)


@dataclass
class Records:
    """Consecutive records of a file, without blank lines, each closed by one line feed."""

    text: bytes
    stops: np.ndarray  # position in the text of the line break that ends each record (R,)
    lines: np.ndarray  # line at which each record begins (R,)
    fields: np.ndarray  # cells of each record (R,)


class RecordReader:
    """Splits blocks of lines into records at the line breaks outside of quotes.

    Args:
        path: path of the file, for error messages.
        delimiter: separator of cells; None for any run of blanks and tabs.
        multiline: whether a quoted cell may hold line breaks.
    """

    def __init__(self, path: Path, delimiter: str | None, *, multiline: bool) -> None:
        self.path = path
        self.delimiter = delimiter
        self.multiline = multiline

    def read(self, blocks: Iterable[bytes]) -> Iterator[Records]:
        """Yield the records of blocks, several at a time.

        Args:
            blocks: whole lines of text, see :func:`read_blocks`.

        Raises:
            DataError: if a quote does not open at the beginning of a cell, does not close at its end, or never closes.
        """
        line, held = 1, b""
        waiting: list[bytes] = []
        for block in blocks:
            waiting.append(block)
            if sum(map(len, waiting)) < len(held):
                continue  # a record of many blocks is gone through a few times, not once for every block
            data = b"".join([held, *waiting])
            waiting = []
            piece, used = self._records(data, line)
            line += data.count(b"\n", 0, used)
            held = data[used:]
            if piece is not None:
                yield piece
        data = b"".join([held, *waiting])
        if not data:
            return
        piece, used = self._records(data, line)
        if piece is not None:
            yield piece
        if used < len(data):
            quotes = np.flatnonzero(np.frombuffer(data, np.uint8) == _QUOTE)
            at = _opening(quotes, len(quotes) - 1)
            self._refuse(data, at, line, "a quote opens here that is never closed")

    def _refuse(self, data: bytes, at: int, line: int, message: str) -> NoReturn:
        start, stop = data.rfind(b"\n", 0, at) + 1, data.find(b"\n", at)
        shown = data[start:stop][:80].decode(errors="replace")
        line += data.count(b"\n", 0, at)
        raise DataError(f"{self.path}, line {line}: {message}: {shown!r}")

    def _records(self, data: bytes, line: int) -> tuple[Records | None, int]:
        """Return the complete records at the beginning of a text, and their number of bytes."""
        codes = np.frombuffer(data, np.uint8)
        breaks = np.flatnonzero(codes == _BREAK)
        quotes = np.flatnonzero(codes == _QUOTE) if b'"' in data else breaks[:0]
        begins = _cell_begins(codes, self.delimiter)
        closed = np.arange(len(breaks))  # line breaks that end a record
        if len(quotes):
            self._check_quotes(data, quotes, line)
            # outside of quotes an even number of them stands before
            begins = begins[np.searchsorted(quotes, begins) % 2 == 0]
            closed = closed[np.searchsorted(quotes, breaks) % 2 == 0]
        if not len(closed):
            return None, 0
        ends = breaks[closed]
        used = int(ends[-1]) + 1
        starts = np.concatenate([[0], ends[:-1] + 1])
        first = np.concatenate([[0], closed[:-1] + 1])  # breaks before each record
        fields = np.diff(np.searchsorted(begins, ends), prepend=0)
        if self.delimiter is not None:
            fields += 1
        for record in np.flatnonzero(closed > first):
            self._check_lines(data[starts[record] : ends[record]], int(fields[record]), line + int(first[record]))
        keep = np.ones(len(ends), bool)
        for record in np.flatnonzero(fields <= 1):
            keep[record] = bool(data[starts[record] : ends[record]].strip(b" " if self.delimiter == "\t" else b" \t"))
        if not keep.any():
            return None, used
        lengths = ends + 1 - starts
        text = data[:used] if keep.all() else codes[:used][np.repeat(keep, lengths)].tobytes()
        return Records(text, lengths[keep].cumsum() - 1, line + first[keep], fields[keep]), used

    def _check_quotes(self, data: bytes, quotes: np.ndarray, line: int) -> None:
        """Refuse quotes that do not open at the beginning of a cell or do not close at its end."""
        codes = np.frombuffer(data, np.uint8)
        opening, closing = quotes[::2], quotes[1::2]
        outer = [_BREAK, *((_BLANK, _TAB) if self.delimiter is None else (ord(self.delimiter),))]
        before = np.where(opening > 0, codes[opening - 1], _BREAK)
        doubled = np.zeros(len(opening), bool)
        doubled[1:] = opening[1:] == closing[: len(opening) - 1] + 1
        for number in np.flatnonzero(~np.isin(before, outer) & ~doubled):
            at = start = int(opening[number])
            while start and codes[start - 1] == _BLANK:
                start -= 1
            if start and codes[start - 1] not in outer:
                previous = _opening(quotes, 2 * int(number) - 2) if number else at
                spans = data.find(b"\n", previous, at) >= 0 and quotes[2 * number - 1] > data.find(b"\n", previous)
                where = previous if spans else at
                self._refuse(data, where, line, "a quote inside a cell; put the cell in quotes and double those inside")
        after = codes[closing + 1]  # lines end with a break, so there is a next byte
        for number in np.flatnonzero(~np.isin(after, [*outer, _QUOTE])):
            stop = int(closing[number]) + 1
            while codes[stop] == _BLANK:
                stop += 1
            if codes[stop] not in outer:
                at = _opening(quotes, 2 * int(number))
                self._refuse(
                    data, at, line, "a quote opens here and closes before the end of a cell; close it, or double the "
                    "quotes that belong to the text"
                )  # fmt: skip

    def _check_lines(self, record: bytes, fields: int, line: int) -> None:
        """Refuse a record of several lines each of which could be a row, since a quote was probably left open."""
        if not self.multiline:
            raise DataError(f"{self.path}, line {line}: a quote opens here that is not closed in this line")
        mark = None if self.delimiter is None else self.delimiter.encode()
        rows = [part.replace(b'"', b"").split(mark) for part in record.split(b"\n")]
        if any(len(row) != fields for row in rows) or fields < 2:
            return
        numbers = [[is_number(cell.decode(errors="replace")) for cell in row] for row in rows]
        if all(number or not known for row in numbers[1:] for number, known in zip(row, numbers[0], strict=True)):
            raise DataError(
                f"{self.path}, line {line}: a quote opens here that closes {len(rows) - 1} lines below, and each of "
                f"these lines is a row by itself: {rows[0][-1].decode(errors='replace')[:80]!r}; close the quote"
            )


def read_blocks(path: Path, *, comments: bool) -> Iterator[bytes]:
    """Yield blocks of whole lines of valid UTF-8 without a byte-order mark, each line closed by one line feed.

    Args:
        path: path of a text file with any line ends, plain or compressed by gzip.
        comments: whether lines that begin with ``#`` or ``%`` are replaced by empty lines.

    Raises:
        DataError: if the file is missing, damaged, or not UTF-8; the message names the line.
    """
    line, left, begun = 1, b"", False
    check_file(path)
    try:
        with path.open("rb") as raw, contextlib.ExitStack() as stack:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            file = stack.enter_context(gzip.open(raw, "rb")) if packed else raw
            while block := file.read(_BLOCK):
                while block.endswith(b"\r"):  # perhaps the first half of a line break
                    more = file.read(1)
                    block += more
                    if not more:
                        break
                if not begun:
                    block, begun = block.removeprefix(b"\xef\xbb\xbf"), True
                if b"\r" in block:
                    block = block.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
                cut = block.rfind(b"\n") + 1
                if not cut:
                    left += block
                    continue
                whole, left = left + block[:cut], block[cut:]
                _check_text(path, whole, line)
                line += whole.count(b"\n")
                yield _COMMENT.sub(b"", whole) if comments and (b"#" in whole or b"%" in whole) else whole
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}; it is missing, damaged or not text") from error
    if left:
        _check_text(path, left, line)
        yield (_COMMENT.sub(b"", left) if comments else left) + b"\n"


def check_file(path: Path) -> None:
    """Refuse a path that names no file.

    Args:
        path: path of the file.

    Raises:
        DataError: if there is nothing, or a folder.
    """
    if path.is_dir():
        raise DataError(f"{path} is a folder; give the path of a file in it")
    if not path.exists():
        raise DataError(f"there is no file {path}; a path is relative to the working directory, {Path.cwd()}")


def is_number(cell: str) -> bool:
    """Return whether Python parses a cell as a number, including NaN and infinity.

    Args:
        cell: text of the cell.
    """
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _check_text(path: Path, data: bytes, line: int) -> None:
    at, what = data.find(b"\0"), "a zero byte"
    if at < 0 and not data.isascii():
        try:
            data.decode()
        except UnicodeDecodeError as error:
            at, what = error.start, f"{data[error.start : error.start + 1]!r}, which is not UTF-8"
    if at >= 0:
        line += data.count(b"\n", 0, at)
        raise DataError(
            f"{path}, line {line} cannot be read: it holds {what}; the file is "
            "damaged or not text, or in another encoding: save it as UTF-8"
        )


def _cell_begins(codes: np.ndarray, delimiter: str | None) -> np.ndarray:
    """Positions of the separators; where blanks separate, of the first character of each cell."""
    if delimiter is not None:
        return np.flatnonzero(codes == ord(delimiter))
    blank = (codes == _BLANK) | (codes == _TAB) | (codes == _BREAK)
    begins = ~blank
    begins[1:] &= blank[:-1]
    return np.flatnonzero(begins)


def _opening(quotes: np.ndarray, number: int) -> int:
    """Position of the opening quote of a cell, skipping doubled quotes."""
    number -= number % 2
    while number >= 2 and quotes[number] == quotes[number - 1] + 1:
        number -= 2
    return int(quotes[number])
