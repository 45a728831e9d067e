"""Tables for terminals of any width and for pipes."""

import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from graphseq.bench.experiment import Row

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = ["columns_of", "format_value", "is_numeric", "print_table"]

_GAP = 2  # spaces between columns
_LONGEST_WORD = 24  # a longer word may be broken


def format_value(value: Any) -> str:
    """Return a value as text for tables: four significant digits, thousands apart, yes or no, a dash for None.

    Args:
        value: plain data.

    Example:
        >>> [format_value(value) for value in (0.123456, 12345.6, 7, True, None, "gin", [1, 2])]
        ['0.1235', '12,346', '7', 'yes', '-', 'gin', '1, 2']
    """
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if 1e4 <= abs(value) < 1e7 else f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, list | tuple):
        return ", ".join(format_value(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {format_value(item)}" for key, item in value.items())
    return str(value)


def is_numeric(values: Iterable[Any]) -> bool:
    """Return whether a column is aligned to the right: it has only numbers and None, no booleans.

    Args:
        values: values of one column.

    Example:
        >>> is_numeric([1, 0.5, None]), is_numeric([True, False])
        (True, False)
    """
    return all(value is None or (isinstance(value, int | float) and not isinstance(value, bool)) for value in values)


def columns_of(rows: Iterable[Row]) -> list[str]:
    """Return the columns of rows, which may differ from row to row, in the order of first appearance.

    Args:
        rows: lines of a table.

    Example:
        >>> columns_of([{"arm": "gin"}, {"arm": "mlp", "skipped": "no torch"}])
        ['arm', 'skipped']
    """
    return list(dict.fromkeys(key for row in rows for key in row))


def _longest_word(text: str) -> int:
    from rich.cells import cell_len

    return min(_LONGEST_WORD, max((cell_len(word) for word in text.split()), default=1))


class _Column:
    def __init__(self, name: str, values: Sequence[Any]) -> None:
        from rich.cells import cell_len

        self.name = name
        self.cells = [format_value(value) if value != "" else "" for value in values]
        self.numeric = is_numeric(values)
        self.natural = max(cell_len(text) for text in (name, *self.cells))
        bodies = [cell_len(text) if self.numeric else _longest_word(text) for text in self.cells]
        self.least = max([_longest_word(name), *bodies])


def _widths(columns: list[_Column], width: int) -> list[int] | None:
    """Widths of the columns that fit, the widest are reduced first; None if even the smallest widths do not fit."""
    room = width - _GAP * (len(columns) - 1)
    widths = [column.natural for column in columns]
    while sum(widths) > room:
        yielding = [index for index, column in enumerate(columns) if widths[index] > column.least]
        if not yielding:
            return None
        widths[max(yielding, key=widths.__getitem__)] -= 1
    return widths


def _key(columns: list[_Column], width: int) -> list[_Column]:
    """The first columns that identify rows, if they take at most half of the width; else the first column alone."""
    for end in range(1, len(columns)):
        key = columns[:end]
        if _widths(key, width // 2) is None:
            break
        lines = list(zip(*(column.cells for column in key), strict=True))
        if len(set(lines)) == len(lines):
            return key
    return columns[:1]


def _groups(columns: list[_Column], width: int) -> list[list[_Column]]:
    """Columns distributed over as many tables as the width requires, each beginning with those that identify rows."""
    groups: list[list[_Column]] = []
    key = _key(columns, width)
    current = columns[:1]
    for column in columns[1:]:
        if len(current) > (1 if not groups else len(key)) and _widths([*current, column], width) is None:
            groups.append(current)
            current = [*key]
        current = [*current, column]
    return [*groups, current]


def _rich_table(columns: list[_Column], width: int, *, lines: bool, header: bool) -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    # the box draws one of the spaces between columns
    table = Table(
        box=SIMPLE_HEAD if lines else None,
        show_edge=False,
        show_header=header,
        pad_edge=False,
        padding=(0, _GAP - 1 if lines else _GAP, 0, 0),
        header_style="bold",
    )
    sizes = _widths(columns, width) or [column.least for column in columns]
    for column, size in zip(columns, sizes, strict=True):
        justify: Literal["left", "right"] = "right" if column.numeric else "left"
        table.add_column(Text(column.name), justify=justify, width=size, overflow="fold")
    for cells in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*(Text(cell) for cell in cells))
    return table


def print_table(
    rows: Sequence[Row],
    console: "Console",
    *,
    title: str = "",
    columns: Sequence[str] | None = None,
    wrap: bool = True,
    header: bool = True,
) -> None:
    """Print rows as a table that fits the console: text wraps, numbers never do.

    If even that is too wide, the columns are distributed over several tables that all begin with the columns that
    identify rows. Outside a terminal it is plain text, without lines, colours and trailing spaces.

    Args:
        rows: lines of the table, column name -> plain data.
        console: console of ``rich`` to print on.
        title: title above the table; empty for none.
        columns: names of the columns to print, in order; None for all.
        wrap: whether long text wraps outside a terminal; if not, each row is one line.
        header: whether the names of the columns stand above them.

    Example:
        >>> from rich.console import Console
        >>> print_table([{"arm": "gin", "accuracy": 0.75}, {"arm": "mlp", "accuracy": None}], Console(width=40))
        arm  accuracy
        gin      0.75
        mlp         -
    """
    names = list(columns) if columns is not None else columns_of(rows)
    if not rows or not names:
        return
    made = [_Column(name, [row.get(name, "") for row in rows]) for name in names]
    width = console.width if wrap or console.is_terminal else max(console.width, 1_000_000)
    tables = [_rich_table(group, width, lines=console.is_terminal, header=header) for group in _groups(made, width)]
    if console.is_terminal:
        if title:
            console.print(title, style="bold", markup=False, highlight=False)
        for table in tables:
            console.print(table)
        return
    from rich.console import Console

    text = io.StringIO()
    plain = Console(width=width, file=text, color_system=None, force_terminal=False)
    if title:
        plain.print(title, markup=False, highlight=False)
    for table in tables:
        plain.print(table)
    for line in text.getvalue().splitlines():
        console.file.write(f"{line.rstrip()}\n")
