"""Data modules of series of one's own: tensors, arrays and tables."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

import numpy as np
import torch
from torch import Tensor

from graphseq.core.errors import DataError
from graphseq.data.windows.files import SeriesTable, check_names, read_series
from graphseq.data.windows.graph import SeriesGraph
from graphseq.data.windows.module import WindowDataModule, WindowOptions
from graphseq.data.windows.store import check_series

__all__ = ["SeriesDataModule", "SeriesTableDataModule"]


class SeriesDataModule(WindowDataModule):
    """Windows of series that are given as a tensor or an array.

    Args:
        values: values in original units, (S, steps, V), or (steps, V) for one series, such as a pandas ``DataFrame``
            whose rows are consecutive steps; NaN where missing, and so are masked entries of a masked array.
        edge_index: edges of a graph whose nodes are the series, int64 (2, E).
        edge_weight: weight of each edge, (E,), or of each edge at each step, (steps, E); None for 1.
        known: covariates that are known in advance, (steps, F), or (steps + horizon, F) to predict beyond the end.
        options: further arguments of :class:`WindowDataModule`.

    Yields:
        :class:`graphseq.core.WindowBatch` with x (B, S, T, V) and y (B, S, Z, K).

    Raises:
        DataError: if the values are not numbers of shape (S, steps, V), or the graph does not fit them.

    Example:
        >>> data = SeriesDataModule(torch.randn(100, 3), window=10, horizon=5)
        >>> data.num_series, data.num_variables, data.split_sizes()
        (1, 3, {'train': 56, 'val': 6, 'test': 16, 'predict': 1})
    """

    def __init__(
        self,
        values: Tensor | np.ndarray,
        *,
        edge_index: Tensor | np.ndarray | None = None,
        edge_weight: Tensor | np.ndarray | None = None,
        known: Tensor | np.ndarray | None = None,
        **options: Unpack[WindowOptions],
    ) -> None:
        super().__init__(**options)
        given = _tensor("values", values)
        if given.dim() == 1:
            raise DataError(
                f"values is {tuple(given.shape)}; give (S, steps, V), or (steps, V): values[:, None] for one variable"
            )
        given = given[None] if given.dim() == 2 else given
        self._values = given if given.is_floating_point() else given.double()
        check_series(self._values)
        if edge_index is None and edge_weight is not None:
            raise DataError("edge_weight was given without edge_index; give the edges that the weights belong to")
        self._graph = None
        if edge_index is not None:
            edges = _tensor("edge_index", edge_index)
            weight = torch.ones(edges.shape[-1]) if edge_weight is None else _tensor("edge_weight", edge_weight)
            self._graph = SeriesGraph(edges, weight)
            self._graph.check(*self._values.shape[:2])
        self._covariates = None if known is None else _tensor("known", known)
        if self._covariates is not None and self._covariates.dim() != 2:
            raise DataError(f"known is {tuple(self._covariates.shape)}; it must be (steps, F): known[:, None] for one")

    def series(self) -> SeriesTable:
        """Return the given values."""
        count, _, variables = self._values.shape
        return SeriesTable(
            self._values, [f"series {n}" for n in range(count)], [f"variable {n}" for n in range(variables)]
        )

    def graph(self) -> SeriesGraph | None:
        """Return the given graph."""
        return self._graph

    def covariates(self) -> Tensor | None:
        """Return the given covariates."""
        return self._covariates


def _tensor(name: str, values: object) -> Tensor:
    """Return a tensor, an array, a list or a pandas frame as a tensor."""
    if isinstance(values, Tensor):
        return values
    if np.ma.is_masked(values):  # what lies under a mask is no value, and often a huge one
        values = np.ma.filled(np.ma.asarray(values).astype(np.float64), np.nan)
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise DataError(f"{name} is a {type(values).__name__} of {array.dtype} that holds no numbers; give numbers")
    return torch.from_numpy(np.ascontiguousarray(array).reshape(array.shape))


class SeriesTableDataModule(WindowDataModule):
    """Windows of the series of a CSV table with a header, one row for each time, or for each time of each series.

    Args:
        path: path of the table, UTF-8 with a header, plain or compressed by gzip.
        time: header of the column of times, dates or numbers at equal distances, see :func:`read_series`; None for
            rows that are consecutive steps.
        variables: headers of the variables; None for all columns that hold numbers.
        series: header of the column that names the series of a row; None for one series.
        delimiter: ASCII character that separates cells.
        fill_gaps: whether times that are absent become steps with missing values; else they are refused.
        options: further arguments of :class:`WindowDataModule`.

    Yields:
        :class:`graphseq.core.WindowBatch` with x (B, S, T, V) and y (B, S, Z, K).

    Raises:
        ValueError: if ``series`` is given without ``time``, a column is named twice, ``variables`` is text, or
            ``delimiter`` is not one ASCII character.
        DataError: when the table is read, if it is missing or malformed; see :func:`read_series`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "sales.csv")
        ...     rows = ["day,sold", *(f"2024-01-{day:02},{day % 7}" for day in range(1, 32))]
        ...     _ = path.write_text(chr(10).join(rows))
        ...     data = SeriesTableDataModule(path, time="day", window=7, horizon=2, cycles=["weekday"])
        ...     data.variable_names, data.num_known
        (['sold'], 2)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        time: str | None = None,
        variables: Sequence[str] | None = None,
        series: str | None = None,
        delimiter: str = ",",
        fill_gaps: bool = False,
        **options: Unpack[WindowOptions],
    ) -> None:
        super().__init__(**options)
        check_names(time, variables, series, delimiter)
        self.path = Path(path)
        self.time = time
        self.delimiter = delimiter
        self.fill_gaps = fill_gaps
        self._arguments = (variables, series)

    def series(self) -> SeriesTable:
        """Return the series of the table."""
        variables, series = self._arguments
        return read_series(
            self.path, time=self.time, variables=variables, series=series, delimiter=self.delimiter,
            fill_gaps=self.fill_gaps,
        )  # fmt: skip
