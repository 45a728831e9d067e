"""Time series from text tables: one column for each variable, and one for the time."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from graphseq.core.errors import DataError
from graphseq.data.records import is_number
from graphseq.data.tables import Column, TextTable

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

    Times are dates that pandas reads (ISO 8601 and others, with or without time zone) or numbers, and must be at equal
    distances. An empty cell is a missing value.

    Args:
        path: path of the table, UTF-8 with a header, plain or compressed by gzip.
        time: header of the column of times; None for rows that are consecutive steps.
        variables: headers of the variables; None for all columns that hold numbers, except ``time`` and ``series``.
        series: header of the column that names the series of a row; None for one series. Needs ``time``.
        delimiter: character that separates cells.
        fill_gaps: whether times that are absent become steps with missing values; else they are refused.

    Raises:
        ValueError: if ``series`` is given without ``time``.
        DataError: if the table is missing, malformed or has no variable, a time is not a date or number, times are not
            ascending or occur twice, or steps are missing and ``fill_gaps`` is false; the message names the line.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "sales.csv")
        ...     _ = path.write_text("day,sold\n2024-01-01,3\n2024-01-02,5\n")
        ...     table = read_series(path, time="day")
        >>> table.variables, table.values.flatten().tolist()
        (['sold'], [3.0, 5.0])
    """
    if series is not None and time is None:
        raise ValueError(f"series is {series!r} and time None; rows of several series need times, so name the column")
    wanted = [name for name in (time, series) if name is not None]
    if variables is None:
        variables = _numeric(path, delimiter, wanted)
    table = TextTable(Path(path), [delimiter], header="columns", names=[*wanted, *variables])
    place = {name: position for position, name in enumerate(table.header)}
    columns: list[Column] = [(place[name], "optional") for name in variables]
    found = table.read([*columns, *((place[name], "text") for name in wanted)])
    values = np.stack([found[column].astype(np.float64) for column in columns], 1)  # (rows, V)
    labels = list(variables)
    if time is None:
        return SeriesTable(torch.from_numpy(values)[None], [Path(path).name], labels)
    times = _times(table, found[place[time], "text"], time)
    groups = np.zeros(len(times), dtype=np.int64)
    series_names = [Path(path).name]
    if series is not None:
        import pandas

        groups, uniques = pandas.factorize(found[place[series], "text"])
        series_names = [str(name) for name in uniques]
    _check_order(table, times, groups, time)
    return _on_grid(table, values, times, groups, labels, series_names, time, fill_gaps=fill_gaps)


def _numeric(path: str | os.PathLike[str], delimiter: str, others: Sequence[str]) -> list[str]:
    """Return the headers of the columns that hold a number, except ``others``."""
    table = TextTable(Path(path), [delimiter], header="columns", names=others)
    places = {name: position for position, name in enumerate(table.header) if name and name not in others}
    cells = table.read([(position, "text") for position in places.values()])
    names = [name for name, place in places.items() if any(is_number(cell) for cell in set(cells[place, "text"]))]
    if not names:
        raise DataError(f"{path} has no column of numbers{' beside ' * bool(others)}{', '.join(others)}")
    return names


def _times(table: TextTable, cells: np.ndarray, name: str) -> np.ndarray:
    """Return times as int64 nanoseconds, of numbers as seconds."""
    import pandas

    text = pandas.Series(cells)
    numbers = pandas.to_numeric(text, errors="coerce")
    if bool(numbers.notna().all()):
        return (numbers.to_numpy(np.float64) * 1e9).round().astype(np.int64)
    dates = pandas.to_datetime(text, errors="coerce", utc=True, format="ISO8601")
    if bool(dates.isna().any()):
        dates = pandas.to_datetime(text, errors="coerce", utc=True)  # one format for all, found from the first cell
    wrong = np.flatnonzero(dates.isna())
    if len(wrong):
        table.fail(
            int(wrong[0]),
            f", column {name!r}: {cells[wrong[0]]!r} is no date like the others; write ISO 8601, such as 2024-01-31",
        )
    return dates.to_numpy(dtype="datetime64[ns]").astype(np.int64)


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
