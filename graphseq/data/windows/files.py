"""Time series from text tables: one column for each variable, and one for the time."""

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from graphseq.core.errors import DataError
from graphseq.data.records import is_number
from graphseq.data.tables import Column, TextTable, all_grouped

__all__ = ["SeriesTable", "read_series"]


@dataclass(frozen=True)
class SeriesTable:
    """Series of equal length on a regular grid of times.

    Args:
        values: values, float64 (S, steps, V); NaN where missing.
        series: name of each series.
        variables: name of each variable.
        times: time of each step, ``datetime64[ns]`` (steps,); None if the table has no times.

    Example:
        >>> SeriesTable(torch.zeros(1, 4, 2, dtype=torch.float64), ["all"], ["a", "b"]).values.shape
        torch.Size([1, 4, 2])
    """

    values: Tensor
    series: list[str]
    variables: list[str]
    times: np.ndarray | None = None


def read_series(
    path: str | os.PathLike[str],
    *,
    time: str | None = None,
    variables: Sequence[str] | None = None,
    series: str | None = None,
    delimiter: str = ",",
    fill_gaps: bool = False,
) -> SeriesTable:
    r"""Read series from a table with a header, one row for each time, or for each time of each series.

    Times must be at equal distances. They are dates that pandas reads (ISO 8601 and others, with or without time zone)
    from 1678 to 2261, or numbers, which calendar covariates take for seconds since 1970. Dates that may be read with
    the day or with the month first, such as 02/01/2024, are refused. An empty cell is a missing value. Values are read
    in float64.

    Args:
        path: path of the table, UTF-8 with a header, plain or compressed by gzip.
        time: header of the column of times; None for rows that are consecutive steps.
        variables: headers of the variables; None for all columns that hold numbers, except ``time`` and ``series``.
        series: header of the column that names the series of a row; None for one series. Needs ``time``.
        delimiter: ASCII character that separates cells.
        fill_gaps: whether times that are absent become steps with missing values; else they are refused.

    Raises:
        ValueError: if ``series`` is given without ``time``, a column is named twice, ``variables`` is text, or
            ``delimiter`` is not one ASCII character.
        DataError: if the table is missing, malformed or has no variable, no column is named and the first line holds
            numbers in place of a header, a time is not a date or number, times are not ascending or occur twice, steps
            are missing and ``fill_gaps`` is false, or there would be a hundred missing steps for each row; the message
            names the line.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "sales.csv")
        ...     _ = path.write_text("day,sold\n2024-01-01,3\n2024-01-02,5\n")
        ...     table = read_series(path, time="day")
        >>> table.variables, table.values.flatten().tolist()
        (['sold'], [3.0, 5.0])
    """
    check_names(time, variables, series, delimiter)
    wanted = [name for name in (time, series) if name is not None]
    if variables is None:
        variables = _numeric(path, delimiter, wanted)
    table = TextTable(Path(path), [delimiter], header="columns", names=[*wanted, *variables])
    place = {name: position for position, name in enumerate(table.header)}
    columns: list[Column] = [(place[name], "measured") for name in variables]
    times_and_names: list[Column] = [] if time is None else [(place[time], "text")]
    times_and_names += [] if series is None else [(place[series], "name")]
    found = table.read([*columns, *times_and_names])
    values = np.stack([found[column] for column in columns], 1)  # (rows, V)
    labels = list(variables)
    if time is None:
        return SeriesTable(torch.from_numpy(values)[None], [Path(path).name], labels)
    times = _times(table, found[place[time], "text"], time)
    groups = np.zeros(len(times), dtype=np.int64)
    series_names = [Path(path).name]
    if series is not None:
        import pandas

        groups, uniques = pandas.factorize(found[place[series], "name"])
        series_names = [str(name) for name in uniques]
    _check_order(table, times, groups, time)
    return _on_grid(table, values, times, groups, labels, series_names, time, fill_gaps=fill_gaps)


def check_names(time: str | None, variables: Sequence[str] | None, series: str | None, delimiter: str = ",") -> None:
    """Refuse names of columns that do not fit together, and a delimiter that is none.

    Args:
        time: header of the column of times.
        variables: headers of the variables.
        series: header of the column that names the series of a row.
        delimiter: ASCII character that separates cells.

    Raises:
        ValueError: if they do not.
    """
    if len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n\0':
        raise ValueError(f"delimiter is {delimiter!r}; give one ASCII character, such as ',' or ';', and no quote")
    if series is not None and time is None:
        raise ValueError(f"series is {series!r} and time None; rows of several series need times, so name the column")
    if isinstance(variables, str):
        raise ValueError(f"variables is {variables!r}; give a list of headers, or None for all columns of numbers")
    named = [name for name in (time, series, *(variables or ())) if name is not None]
    twice = sorted({name for name in named if named.count(name) > 1})
    if twice:
        raise ValueError(
            f"time is {time!r}, series {series!r} and variables {variables}: {', '.join(map(repr, twice))} is named "
            "twice; a column is the time, the name of the series or a variable"
        )


def _numeric(path: str | os.PathLike[str], delimiter: str, others: Sequence[str]) -> list[str]:
    """Return the headers of the columns that hold a number, except ``others``."""
    table = TextTable(Path(path), [delimiter], header="columns", names=others)
    # 0, 1, 2, ... are the headers that pandas gives to columns without a name
    unnamed = table.header == [str(position) for position in range(len(table.header))]
    if not others and not unnamed and all(map(is_number, table.header)):
        raise DataError(
            f"{path}: the first line should name the columns, but holds numbers only and would be lost as a row: "
            f"{', '.join(table.header)[:80]!r}. Put a line with names before it, or name the variables if these are "
            "their names"
        )
    places = {name: position for position, name in enumerate(table.header) if name and name not in others}
    cells = table.read([(position, "text") for position in places.values()])
    names = []
    for name, place in places.items():
        written = {cell for cell in cells[place, "text"] if cell.strip()}
        # a column of numbers in another notation is not text, and is refused when it is read
        if any(map(is_number, written)) or all_grouped(written):
            names.append(name)
    if not names:
        raise DataError(
            f"{path} has no column of numbers{' beside ' * bool(others)}{', '.join(others)}; separated by "
            f"{delimiter!r} its columns are {', '.join(table.header)[:200]}"
        )
    return names


def _times(table: TextTable, cells: np.ndarray, name: str) -> np.ndarray:
    """Return times as int64 nanoseconds, of numbers as seconds."""
    import pandas

    text = pandas.Series(cells)
    empty = np.flatnonzero(text.str.strip() == "")
    if len(empty):
        table.fail(int(empty[0]), f", column {name!r}: the time is empty; every row needs one")
    numbers = pandas.to_numeric(text, errors="coerce")
    if bool(numbers.notna().all()):
        return _nanoseconds(table, cells, numbers.to_numpy(np.float64), name)
    wrong = np.flatnonzero(numbers.isna())
    if not bool(numbers.isna()[0]) and not _is_date(cells[wrong[0]]):
        table.fail(int(wrong[0]), f", column {name!r}: {cells[wrong[0]]!r} is not a number, and the first time is one")
    dates = pandas.to_datetime(text, errors="coerce", utc=True, format="ISO8601")
    if bool(dates.isna().any()):
        with warnings.catch_warnings():  # pandas warns of what is checked here
            warnings.simplefilter("ignore")
            # one format for all, found from the first cell
            dates, other = (pandas.to_datetime(text, errors="coerce", utc=True, dayfirst=day) for day in (False, True))
        if not bool(dates.isna().any()) and not bool(other.isna().any()) and bool((dates != other).any()):
            row = int(np.flatnonzero(dates != other)[0])
            table.fail(
                row,
                f", column {name!r}: {cells[row]!r} may be {dates[row].date()} or {other[row].date()}; write ISO 8601, "
                "such as 2024-01-31",
            )
    wrong = np.flatnonzero(dates.isna())
    if len(wrong):
        table.fail(
            int(wrong[0]),
            f", column {name!r}: {cells[wrong[0]]!r} is no date like the others; write ISO 8601, such as 2024-01-31",
        )
    outside = np.flatnonzero((dates.dt.year < 1678) | (dates.dt.year > 2261))
    if len(outside):
        table.fail(
            int(outside[0]),
            f", column {name!r}: {cells[outside[0]]!r} is outside of the years 1678 to 2261, which nanoseconds in "
            "int64 reach; give numbers, such as of years or days",
        )
    return dates.to_numpy(dtype="datetime64[ns]").astype(np.int64)


def _is_date(cell: str) -> bool:
    import pandas

    return bool(pandas.notna(pandas.to_datetime(cell, errors="coerce", format="ISO8601")))


def _nanoseconds(table: TextTable, cells: np.ndarray, numbers: np.ndarray, name: str) -> np.ndarray:
    """Return numbers of seconds as nanoseconds."""
    import pandas

    wrong = np.flatnonzero(~(np.abs(numbers) * 1e9 < 2**63))
    if len(wrong):
        table.fail(
            int(wrong[0]),
            f", column {name!r}: {cells[wrong[0]]!r} seconds do not fit into nanoseconds in int64, which reach to "
            "9.2e9 seconds; write times in seconds, or as dates in ISO 8601, such as 2024-01-31",
        )
    if all(len(cell.strip()) == 8 and cell.strip().isdigit() for cell in cells):
        dates = pandas.to_datetime(pandas.Series(cells).str.strip(), format="%Y%m%d", errors="coerce")
        if bool(dates.dt.year.between(1900, 2100).all()):
            table.fail(
                0,
                f", column {name!r}: {cells[0]!r} and all other times read as dates without separators, and would be "
                f"taken for seconds; write ISO 8601, such as {dates[0].date()}",
            )
    whole = numbers == np.trunc(numbers)
    if whole.all() and bool((np.abs(numbers) < 2**32).all()):
        return (numbers * 1e9).astype(np.int64)  # exact: 1e9 is 2**9 * 5**9, of which the second part has 21 bits
    # float64 rounds seconds with a fraction to some hundred nanoseconds, and equal distances would differ
    return np.array([int(Decimal(cell.strip()).scaleb(9).to_integral_value()) for cell in cells], dtype=np.int64)


def _check_order(table: TextTable, times: np.ndarray, groups: np.ndarray, name: str) -> None:
    order = np.argsort(groups, kind="stable")
    later = np.diff(times[order])
    same = np.diff(groups[order]) == 0
    for wrong, what in (
        (same & (later == 0), "occurs twice"),
        (same & (later < 0), "is before the time of the row above it"),
    ):
        if wrong.any():
            row = int(order[np.flatnonzero(wrong)[0] + 1])
            table.fail(row, f", column {name!r}: this time {what} in its series; sort the rows by time, each time once")


def _on_grid(
    table: TextTable,
    values: np.ndarray,
    times: np.ndarray,
    groups: np.ndarray,
    labels: list[str],
    names: list[str],
    name: str,
    *,
    fill_gaps: bool,
) -> SeriesTable:
    """Arrange rows as (S, steps, V) on a regular grid of times."""
    distinct = np.unique(times)
    expected = (int(distinct[-1]) - int(distinct[0])) // int(np.diff(distinct).min(initial=2**62)) + 1
    if expected * len(names) > 100 * len(times) + 10**6:
        raise DataError(
            f"{table.path}, column {name!r}: the smallest distance of two times makes {expected} steps for "
            f"{len(names)} series, and the table has {len(times)} rows; remove times that are too close, or "
            "resample the series, for instance by pandas.DataFrame.resample"
        )
    step, moment = _grid(times)
    off = np.flatnonzero(moment[step] != times)
    if len(off):
        table.fail(
            int(off[0]),
            f", column {name!r}: times are at distances that are no multiples of the smallest one; resample the "
            "series, for instance by pandas.DataFrame.resample",
        )
    steps = len(moment)
    grid = np.full((len(names), steps, len(labels)), np.nan)
    grid[groups, step] = values
    present = np.zeros((len(names), steps), dtype=bool)
    present[groups, step] = True
    if not present.all() and not fill_gaps:
        row, gap = np.argwhere(~present)[0]
        when = moment[gap].astype("datetime64[ns]").astype("datetime64[s]")
        raise DataError(
            f"{table.path}: series {names[row]!r} has no row for {when}, and {int((~present).sum())} rows are missing "
            "in all; give fill_gaps=True to take them as missing values"
        )
    return SeriesTable(torch.from_numpy(grid), names, labels, moment.astype("datetime64[ns]"))


def _grid(times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the step of each time, and the times of all steps, at the smallest distance that occurs.

    Months, quarters and years have no fixed length: times that lie on one day of the month are counted in months.
    """
    distinct = np.unique(times)
    spacing = int(np.diff(distinct).min()) if len(distinct) > 1 else 1
    dates = distinct.astype("datetime64[ns]")
    months = dates.astype("datetime64[M]")
    within = (dates - months.astype("datetime64[ns]")).astype(np.int64)
    if spacing >= 28 * 86_400 * 10**9 and (within == within[0]).all():
        every = int(np.diff(months.astype(np.int64)).min())
        count = int((months[-1] - months[0]).astype(np.int64)) // every + 1
        grid = (months[0] + np.arange(count) * every).astype("datetime64[ns]").astype(np.int64) + within[0]
        here = times.astype("datetime64[ns]").astype("datetime64[M]")
        return (here - months[0]).astype(np.int64) // every, grid
    step = (times - distinct[0]) // spacing
    return step, distinct[0] + np.arange(int(step.max()) + 1) * spacing
