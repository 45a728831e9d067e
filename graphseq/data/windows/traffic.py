"""Speeds of road traffic by sensor, with the graph of the roads: METR-LA and PEMS-BAY."""

from pathlib import Path
from typing import Literal, Unpack

import numpy as np
import torch

from graphseq.core.errors import DataError, OptionalDependencyError
from graphseq.data.cache import raw_files
from graphseq.data.windows.files import SeriesTable
from graphseq.data.windows.graph import SeriesGraph
from graphseq.data.windows.module import WindowDataModule, WindowOptions

__all__ = ["TrafficDataModule"]


class TrafficDataModule(WindowDataModule):
    """Speeds at sensors on roads, every five minutes: one series of one variable a sensor, with the graph of the roads.

    ``METR-LA`` has 34,272 steps of 207 sensors, ``PEMS-BAY`` 52,116 of 325. The published tables (``metr-la.h5``,
    ``pems-bay.h5``) cannot be downloaded by a program; put them into the folder ``<name>`` of the mirror or of the
    cache. Beside them may lie the graph, ``adj.npz`` (``scipy.sparse.save_npz``) or ``adj.csv`` (a matrix without
    header), its rows in the order of the table's columns; without it batches have no edges. A pickled graph
    (``adj_mx.pkl``) is refused, since opening a pickle runs what it holds.

    Source: arXiv 1707.01926. Rows are consecutive steps, as in the source; where the table lacks an hour
    (daylight saving time), the times show it.

    Args:
        name: name of the set: ``METR-LA`` or ``PEMS-BAY``.
        zero_is_missing: whether a speed of 0 counts as missing, as in the source; else as a speed.
        options: further arguments of :class:`WindowDataModule`; by default windows and horizons of an hour, and shares
            of 70, 10 and 20 % for training, validation and test, as in the source.

    Yields:
        :class:`graphseq.core.WindowBatch` with x (B, sensors, T, 1), and edges between sensors where there is a graph.

    Raises:
        ValueError: if the name is unknown.
        DataError: when the series are read, if the table is neither in the mirror nor in the cache, a file is
            malformed, the graph has another number of sensors, or there is only a pickled graph.
        OptionalDependencyError: when the series are read, if h5py is not installed.

    Example:
        >>> TrafficDataModule("METR-LA", cycles=["hour", "weekday"]).horizon
        12
    """

    def __init__(
        self,
        name: Literal["METR-LA", "PEMS-BAY"] = "METR-LA",
        *,
        zero_is_missing: bool = True,
        **options: Unpack[WindowOptions],
    ) -> None:
        if name not in ("METR-LA", "PEMS-BAY"):
            raise ValueError(f"name is {name!r}; it must be 'METR-LA' or 'PEMS-BAY'")
        options.setdefault("window", 12)
        options.setdefault("season", 288)
        super().__init__(**options)
        self.name = name
        self.zero_is_missing = zero_is_missing
        self._files: dict[str, Path] = {}
        self._sensors = 0

    def series(self) -> SeriesTable:
        """Return the series, from the mirror or the cache."""
        name = str(self.name)  # Lightning declares it optional
        table = f"{name.lower()}.h5"
        self._files = raw_files(name, [table], optional=["adj.npz", "adj.csv", "adj_mx.pkl"])
        values, sensors, times = _read_frame(self._files[table])
        self._sensors = len(sensors)
        if self.zero_is_missing:
            values = np.where(values == 0, np.nan, values)
        return SeriesTable(torch.from_numpy(values.T.copy())[..., None], sensors, ["speed"], times)

    def graph(self) -> SeriesGraph | None:
        """Return the graph of the roads; None if no file holds it."""
        if "adj.npz" in self._files:
            adjacency = _read_sparse(self._files["adj.npz"])
        elif "adj.csv" in self._files:
            adjacency = _read_matrix(self._files["adj.csv"])
        elif "adj_mx.pkl" in self._files:
            raise DataError(
                f"{self._files['adj_mx.pkl']} is a pickle, which runs what it holds when it is opened; if you trust "
                "its source, write the last of the three objects in it to adj.npz by scipy.sparse.save_npz, and "
                "delete it"
            )
        else:
            return None
        if adjacency.shape != (self._sensors, self._sensors):
            raise DataError(f"the graph is {adjacency.shape}, the table has {self._sensors} sensors; they must agree")
        return SeriesGraph.from_adjacency(torch.from_numpy(adjacency))


def _read_frame(path: Path) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Return values (steps, sensors), names and times of a table that ``pandas.DataFrame.to_hdf`` wrote."""
    try:
        import h5py
    except ImportError as error:
        raise OptionalDependencyError("h5py", "reading METR-LA and PEMS-BAY", extra="traffic") from error
    try:
        with h5py.File(path, "r") as file:
            group = next(entry for entry in file.values() if "block0_values" in entry)
            values = np.asarray(group["block0_values"], dtype=np.float64)
            sensors = [name.decode() if isinstance(name, bytes) else str(name) for name in group["block0_items"][:]]
            times = np.asarray(group["axis1"], dtype=np.int64).astype("datetime64[ns]")
            whole = len(group["axis0"]) == len(sensors)
    except (AttributeError, KeyError, OSError, StopIteration, TypeError, UnicodeDecodeError, ValueError) as error:
        raise DataError(
            f"{path} is no table of numbers as pandas.DataFrame.to_hdf writes it: {error!r}; fetch it again"
        ) from error
    if not whole or values.shape != (len(times), len(sensors)):
        raise DataError(f"{path} has values {values.shape} for {len(times)} times and {len(sensors)} sensors")
    if bool((np.diff(times) <= np.timedelta64(0)).any()):
        row = int(np.flatnonzero(np.diff(times) <= np.timedelta64(0))[0]) + 1
        raise DataError(f"{path}, row {row}: its time {times[row]} is not after that of the row before; sort the rows")
    return values, sensors, times


def _read_sparse(path: Path) -> np.ndarray:
    from scipy import sparse

    try:
        return np.asarray(sparse.load_npz(path).todense(), dtype=np.float64)  # never unpickles
    except (KeyError, OSError, ValueError) as error:
        raise DataError(f"{path} is no sparse matrix as scipy.sparse.save_npz writes it: {error}") from error


def _read_matrix(path: Path) -> np.ndarray:
    try:
        return np.loadtxt(path, delimiter=",", dtype=np.float64, ndmin=2)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not a table of numbers without header: {error}") from error
