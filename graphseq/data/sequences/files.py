"""Readers of labelled sequences: ``.ts`` files of the UEA and UCR archives, and CSV tables."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from graphseq.core.errors import DataError
from graphseq.data.records import RecordReader, read_blocks
from graphseq.data.sequences.store import narrowed
from graphseq.data.text.files import read_text

__all__ = ["LabelledSequences", "read_sequence_csv", "read_ts"]


@dataclass
class LabelledSequences:
    """Concatenated sequences of a file, with a label for each sequence.

    Args:
        x: features of all steps (M, D): float32, or float64 where a feature would lose its differences in float32.
        ptr: position of the first step of each sequence, and M at the end, int64 (N + 1,).
        labels: label of each sequence.
        class_names: all possible labels, in the order of their class numbers.

    Example:
        >>> LabelledSequences(torch.ones(3, 1), torch.tensor([0, 3]), ["up"], ["up", "down"]).y
        tensor([0])
    """

    x: Tensor
    ptr: Tensor
    labels: list[str]
    class_names: list[str]

    @property
    def y(self) -> Tensor:
        """Class number of each sequence, int64 (N,); -1 for a label that is none of the classes."""
        number = {name: position for position, name in enumerate(self.class_names)}
        return torch.tensor([number.get(label, -1) for label in self.labels])


def read_ts(path: str | os.PathLike[str]) -> LabelledSequences:
    r"""Read a ``.ts`` file: a header of ``@`` lines, then one line for each sequence.

    A line holds a comma-separated list for each channel and the class, separated by ``:``. Sequences may have
    different lengths; the channels of one sequence may not.

    Args:
        path: path of the file, UTF-8, plain or ``.gz``.

    Raises:
        DataError: if the header lacks ``@classLabel true`` with the classes or ``@data``, declares time stamps, or
            does not match the lines; if a line has no value, an empty or missing value (``?``), a value that is not a
            finite number, or a class that the header does not name. The message names the line.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "small.ts")
        ...     _ = path.write_text("@problemName small\n@classLabel true a b\n@data\n1,2:3,4:a\n5:6:b\n")
        ...     read_ts(path).x.tolist()
        [[1.0, 3.0], [2.0, 4.0], [5.0, 6.0]]
    """
    path = Path(path)
    lines = read_text(path).split("\n")
    header, begin = _header(path, lines)
    classes = header["classlabel"].split()
    if len(classes) < 3 or classes[0].lower() != "true":
        raise DataError(
            f"{path}: the header says '@classLabel {header['classlabel']}'; '@classLabel true' and at least two "
            "classes are needed: only classification files are read"
        )
    names = classes[1:]
    if len(set(names)) < len(names):
        raise DataError(f"{path}: the header says '@classLabel {header['classlabel']}'; name each class once")
    if header.get("timestamps", "false").lower() == "true":
        raise DataError(f"{path}: the header says '@timeStamps true'; sequences with time stamps are not read")
    dimensions = _dimensions(path, header)
    steps, lengths, labels = [], [], []
    for number, line in enumerate(lines[begin:], begin + 1):
        if not line.strip() or line.startswith("#"):
            continue
        *channels, label = line.strip().split(":")
        label = label.strip()
        if label not in names:
            raise DataError(f"{path}, line {number}: class {label!r} is not in the header; it names {', '.join(names)}")
        dimensions = len(channels) if dimensions is None else dimensions
        if len(channels) != dimensions or not channels:
            raise DataError(f"{path}, line {number}: {len(channels)} channels; {dimensions or 'at least 1'} are needed")
        steps.append(_channels(path, number, channels))
        lengths.append(len(steps[-1]))
        labels.append(label)
    if not steps:
        raise DataError(f"{path} has no sequence behind @data")
    x = narrowed(torch.from_numpy(np.concatenate(steps)))
    return LabelledSequences(x, torch.tensor([0, *lengths]).cumsum(0), labels, names)


def _header(path: Path, lines: list[str]) -> tuple[dict[str, str], int]:
    """The ``@`` lines by lower-case name, and the number of lines up to and including ``@data``."""
    header: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if not text.startswith("@"):
            raise DataError(
                f"{path}, line {number}: {text[:40]!r} stands before @data; the header of a .ts file is made of lines "
                "that begin with @, such as '@classLabel true a b', and ends with @data"
            )
        name, _, value = text[1:].partition(" ")
        if name.lower() == "data":
            if "classlabel" not in header:
                raise DataError(f"{path}: the header has no @classLabel; give '@classLabel true' and the classes")
            return header, number
        header[name.lower()] = value.strip()
    raise DataError(f"{path} has no line @data; is it a .ts file?")


def _dimensions(path: Path, header: dict[str, str]) -> int | None:
    given = header.get("dimensions") or header.get("dimension")
    if given is None:
        return 1 if header.get("univariate", "").lower() == "true" else None
    if not given.isdecimal() or int(given) < 1:
        raise DataError(f"{path}: the header says '@dimensions {given}'; give a whole number of at least 1")
    return int(given)


def _channels(path: Path, number: int, channels: Sequence[str]) -> np.ndarray:
    """Steps of one line, float64 (T, D), all within float32."""
    columns = []
    for position, channel in enumerate(channels):
        cells = channel.split(",")
        if "_" in channel:  # NumPy would take 1_0 for 10
            wrong = next(cell for cell in cells if "_" in cell)
            raise DataError(f"{path}, line {number}, channel {position + 1} holds {wrong.strip()!r}, not a number")
        try:
            with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused below
                column = np.array(cells, dtype=np.float64)
                rounded = column.astype(np.float32)
        except ValueError:
            wrong = next(cell for cell in cells if not _is_number(cell))
            what = "a missing value" if wrong.strip() in ("", "?") else f"{wrong.strip()!r}, which is not a number"
            raise DataError(
                f"{path}, line {number}, channel {position + 1} has {what}; fill it in or leave the sequence out"
            ) from None
        if not np.isfinite(rounded).all():
            step = int(np.flatnonzero(~np.isfinite(rounded))[0])
            raise DataError(
                f"{path}, line {number}, channel {position + 1}, step {step + 1} is {cells[step].strip()}, which is no "
                "finite number of type float32; fill it in or leave the sequence out"
            )
        columns.append(column)
    sizes = {len(column) for column in columns}
    if len(sizes) > 1:
        raise DataError(
            f"{path}, line {number}: channels have {', '.join(map(str, sorted(sizes)))} steps; all channels of a "
            "sequence must have the same number"
        )
    return np.stack(columns, 1)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def read_sequence_csv(
    path: str | os.PathLike[str],
    sequence: str,
    target: str,
    *,
    features: Sequence[str] | None = None,
    delimiter: str = ",",
    class_names: Sequence[str] | None = None,
) -> LabelledSequences:
    r"""Read a CSV table with one line for each step; the steps of a sequence are in order.

    Blanks around headers, names of sequences and labels do not count.

    Args:
        path: path of a table with a header, UTF-8, plain or compressed by gzip.
        sequence: header of the column that names the sequence of a step; sequences are in the order of first
            occurrence, and their lines need not be adjacent.
        target: header of the column with the label of the sequence, which is the same in all its lines.
        features: headers of the feature columns, in this order; None for all other columns.
        delimiter: character that separates cells.
        class_names: names of all classes, of which the table may lack some, and the column of labels too, as in a table
            of sequences to predict; None for the labels of the table.

    Raises:
        ValueError: if ``features`` is text or ``delimiter`` is not one ASCII character.
        DataError: if a column is missing or repeated, a line has too few or too many cells, the table has no lines, a
            name of a sequence is empty, a feature is empty or not a finite number, or a sequence has two labels; the
            message names the line.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "steps.csv")
        ...     _ = path.write_text("id,speed,kind\n7,0.5,walk\n7,0.7,walk\n9,3.0,run\n")
        ...     read_sequence_csv(path, "id", "kind").ptr
        tensor([0, 2, 3])
    """
    path = Path(path)
    if isinstance(features, str):
        raise ValueError(f"features is {features!r}; give a list of headers, or None for all other columns")
    table = read_cells(path, delimiter)
    if features is None:
        features = [name for name in table.columns if name not in (sequence, target)]
    labelled = class_names is None or target in table.columns
    for name in (sequence, *features, *([target] if labelled else [])):
        if name not in table.columns:
            raise DataError(f"{path} has no column {name!r}; its columns are {', '.join(table.columns)}")
    if not features:
        raise DataError(f"{path} has no feature beside {sequence!r} and {target!r}")
    named = table[sequence].str.strip()
    nameless = np.flatnonzero(named.to_numpy() == "")
    if len(nameless):
        raise DataError(
            f"{path}, line {table.index[nameless[0]]}, column {sequence!r} is empty; every step needs the name of its "
            "sequence"
        )
    numbers, _ = _codes(named)
    order = np.argsort(numbers, kind="stable")
    values = narrowed(torch.from_numpy(np.stack([_numbers(path, table[name]) for name in features], 1)[order]))
    begin = np.flatnonzero(np.diff(numbers[order], prepend=-1))
    ptr = torch.from_numpy(np.append(begin, len(order)).astype(np.int64))
    if not labelled:
        return LabelledSequences(values, ptr, [], list(class_names or ()))
    given = table[target].str.strip().to_numpy()
    labels, empty = given[order], np.flatnonzero(given == "")
    if len(empty) and class_names is None:
        raise DataError(
            f"{path}, line {table.index[empty[0]]}, column {target!r}: the label is empty; every step needs one"
        )
    of_sequence = labels[begin]
    sizes = np.diff([*begin, len(labels)])
    other = np.flatnonzero(labels != np.repeat(of_sequence, sizes))
    if len(other):
        raise DataError(
            f"{path}, line {table.index[order[other[0]]]}, column {target!r}: sequence "
            f"{named.iloc[order[other[0]]]!r} has two labels; give each sequence one"
        )
    names = sort_labels(of_sequence.tolist()) if class_names is None else list(class_names)
    return LabelledSequences(values, ptr, of_sequence.tolist(), names)


def read_cells(path: Path, delimiter: str):  # type: ignore[no-untyped-def]  # pandas has no types here
    r"""Return the cells of a CSV table as a pandas ``DataFrame`` of strings, without inference of types.

    Its index holds the line of the file at which each row begins.

    Args:
        path: path of a table with a header, UTF-8, plain or compressed by gzip.
        delimiter: ASCII character that separates cells.

    Raises:
        ValueError: if ``delimiter`` is not one ASCII character.
        DataError: if the file cannot be read as a table, has no line below its header, a header occurs twice, or a line
            has too few or too many cells.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "one.csv").write_text("a,b\n1,x")
        ...     read_cells(Path(folder, "one.csv"), ",").to_numpy().tolist()
        [['1', 'x']]
    """
    import io

    import pandas

    if len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n\0':
        raise ValueError(f"delimiter is {delimiter!r}; give one ASCII character, such as ',' or ';', and no quote")
    pieces = list(RecordReader(path, delimiter, multiline=True).read(read_blocks(path, comments=False)))
    lines = np.concatenate([np.empty(0, np.int64), *(piece.lines for piece in pieces)])
    if len(lines) < 2:
        raise DataError(f"{path} has no line below its header")
    # pandas would leave out cells beyond the header, and fill up short lines
    widths = np.concatenate([piece.fields for piece in pieces])
    wrong = np.flatnonzero(widths != widths[0])
    if len(wrong):
        raise DataError(
            f"{path}, line {lines[wrong[0]]} has {widths[wrong[0]]} cells, its header {widths[0]}, separated by "
            f"{delimiter!r}; put a cell that holds the separator in quotes"
        )
    try:
        table = pandas.read_csv(
            io.BytesIO(b"".join(piece.text for piece in pieces)), sep=delimiter, dtype=str, keep_default_na=False,
            header=None, index_col=False, skip_blank_lines=False,
        )  # fmt: skip
    except ValueError as error:  # pandas' own errors of parsing are ValueErrors too
        raise DataError(f"{path} cannot be read as a table: {error}") from error
    header = [str(name).strip() for name in table.iloc[0]]
    repeated = sorted({name for name in header if name and header.count(name) > 1})
    if repeated:
        raise DataError(f"{path} has more than one column {', '.join(map(repr, repeated))}; give each its own header")
    table = table.iloc[1:].set_axis(header, axis=1)
    return table.set_axis(lines[1:], axis=0)


def sort_labels(labels: Sequence[str]) -> list[str]:
    """Return the distinct labels in order: by value if all are integers, else as text.

    Args:
        labels: labels as text.

    Raises:
        DataError: if there is only one distinct label.

    Example:
        >>> sort_labels(["10", "9", "9"])
        ['9', '10']
    """
    different = sorted(set(labels))
    if len(different) < 2:
        raise DataError(f"all labels are {different[0]!r}; two classes are needed")
    if all(re.fullmatch(r"\s*-?\d+\s*", label) for label in different):
        return sorted(different, key=int)
    return different


def _codes(column):  # type: ignore[no-untyped-def]  # pandas has no types here
    import pandas

    return pandas.factorize(column)


def _numbers(path: Path, column) -> np.ndarray:  # type: ignore[no-untyped-def]  # pandas has no types here
    import pandas

    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused below
        values = pandas.to_numeric(column, errors="coerce").to_numpy(np.float64)
        wrong = np.flatnonzero(~np.isfinite(values.astype(np.float32)))
    if len(wrong):
        raise DataError(
            f"{path}, line {column.index[wrong[0]]}, column {column.name!r}: {column.iloc[wrong[0]]!r} is not a finite "
            f"number ({len(wrong)} such cells in this column); fill them in or leave the column out of features"
        )
    return values
