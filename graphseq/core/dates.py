"""Dates in ISO 8601, and dates of numpy and pandas, as seconds since 1970 in UTC."""

import datetime
import re
from collections.abc import Sequence

import numpy as np

from graphseq.core.errors import DataError

__all__: list[str] = []

_ISO = re.compile(
    r"\s*\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?(?P<zone>\s?(Z|[+-]\d\d(:?\d\d)?))?)?\s*", re.ASCII
)
ACCEPTED_DATES = "ISO 8601, such as 2024-01-05 or 2024-01-05T10:00:30+02:00"


def is_date(cell: str) -> bool:
    """Return whether a text has the form of a date in ISO 8601, with or without a time of day.

    Args:
        cell: any text.

    Example:
        >>> is_date("2024-01-05T10:00+02:00"), is_date("05.01.2024")
        (True, False)
    """
    return _ISO.fullmatch(cell) is not None


def has_zone(cell: str) -> bool:
    """Return whether a date in ISO 8601 names its time zone.

    Args:
        cell: date in ISO 8601.

    Example:
        >>> has_zone("2024-01-05T10:00Z"), has_zone("2024-01-05")
        (True, False)
    """
    found = _ISO.fullmatch(cell)
    return found is not None and found["zone"] is not None


def date_problem(cell: str, *, zoned: bool) -> str | None:
    """Return why a text is no date in ISO 8601, or None if it is one.

    Args:
        cell: any text.
        zoned: whether the date must name its time zone; otherwise it must not, for a column holds either kind.

    Example:
        >>> date_problem("2024-13-05", zoned=False)
        "'2024-13-05' is no date of the calendar"
    """
    if not is_date(cell):
        return (
            f"{cell!r} is not a date in {ACCEPTED_DATES}; write it so, or read the column by pandas.to_datetime(..., "
            "format=...) and hand the frame to TemporalEvents.from_frame"
        )
    if has_zone(cell) != zoned:
        other = "no time zone, and the first date of the column has one" if zoned else "a time zone, the first has none"
        return f"{cell!r} has {other}; give all dates of a column a zone or none (which is read as UTC)"
    return None if _parsed([cell]) is not None else f"{cell!r} is no date of the calendar"


def parse_dates(cells: Sequence[str], *, zoned: bool) -> np.ndarray | None:
    """Return dates in ISO 8601 as ``datetime64`` in UTC, or None if :func:`date_problem` finds one that is invalid.

    Args:
        cells: texts.
        zoned: whether all dates must name their time zones; otherwise none may.

    Example:
        >>> parse_dates(["2024-01-05T10:00+02:00"], zoned=True).astype("datetime64[h]").tolist()
        [datetime.datetime(2024, 1, 5, 8, 0)]
    """
    for cell in cells:
        found = _ISO.fullmatch(cell)
        if found is None or (found["zone"] is not None) != zoned:
            return None
    return _parsed(cells)


def _parsed(cells: Sequence[str]) -> np.ndarray | None:
    import pandas

    texts = pandas.Series([cell.strip() for cell in cells], dtype=object)
    dates = pandas.to_datetime(texts, format="ISO8601", utc=True, errors="coerce")
    return None if bool(dates.isna().any()) else dates.dt.tz_localize(None).to_numpy()


def seconds(name: str, dates: np.ndarray) -> np.ndarray:
    """Return ``datetime64`` as seconds since 1970: integers if all are whole, else float64 to the microsecond.

    Args:
        name: description of the dates for error messages.
        dates: dates in UTC, ``datetime64`` (E,).

    Raises:
        DataError: if a date is missing, or finer than a microsecond.

    Example:
        >>> seconds("t", np.array(["1970-01-02"], dtype="datetime64[D]"))
        array([86400])
    """
    missing = np.flatnonzero(np.isnat(dates))
    if len(missing):
        raise DataError(f"{name} holds a missing date, the first in row {missing[0]}")
    exact = dates.astype("datetime64[us]")  # reaches further than nanoseconds do
    cut = np.flatnonzero(exact.astype(dates.dtype) != dates)
    if len(cut):
        raise DataError(
            f"{name}, row {cut[0]}: {dates[cut[0]]} is finer than a microsecond or beyond int64, and cannot be "
            "given in seconds as float64; give integers, such as nanoseconds by .astype('int64')"
        )
    microseconds = exact.astype(np.int64)
    return microseconds // 10**6 if not (microseconds % 10**6).any() else microseconds / 1e6


def seconds_of(name: str, value: object) -> np.ndarray | None:
    """Return one date or several as seconds since 1970 in UTC, or None if the value holds no dates.

    Args:
        name: name of the argument for error messages.
        value: text in ISO 8601, ``datetime``, ``numpy.datetime64``, or a sequence or array of one kind of these.
            Dates without a time zone are read as UTC.

    Raises:
        DataError: if a text is not a date.

    Example:
        >>> seconds_of("t", "1970-01-01T00:01Z"), seconds_of("t", [1, 2])
        (array([60]), None)
    """
    one = isinstance(value, str | datetime.date | np.datetime64)
    values = [value] if one else value
    if isinstance(values, np.ndarray) and values.dtype.kind == "M":
        return seconds(name, values)
    if not isinstance(values, list | tuple | np.ndarray) or not len(values):
        return None
    first = values[0]
    if isinstance(first, np.datetime64):
        return seconds(name, np.array(values))
    if isinstance(first, datetime.date):
        texts = [date.isoformat() for date in values]
    elif isinstance(first, str):
        texts = [str(text) for text in values]
    else:
        return None
    zoned = has_zone(texts[0])
    dates = parse_dates(texts, zoned=zoned)
    if dates is None:
        problems = ((row, date_problem(text, zoned=zoned)) for row, text in enumerate(texts))
        row, problem = next((row, problem) for row, problem in problems if problem)
        raise DataError(f"{name}[{row}]: {problem}")
    return seconds(name, dates)
