"""Published sets of time series."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal, Unpack, cast

import numpy as np
import torch

from graphseq.core.errors import DataError
from graphseq.data.cache import raw_files
from graphseq.data.windows.files import SeriesTable, read_series
from graphseq.data.windows.graph import SeriesGraph
from graphseq.data.windows.module import WindowDataModule, WindowOptions

__all__ = [
    "COVIDDataModule",
    "ChickenpoxDataModule",
    "ETTDataModule",
    "ExchangeRateDataModule",
    "USFluDataModule",
]


class _Published(WindowDataModule):
    """Base of sets whose files have known checksums.

    Args:
        verify_checksums: whether to refuse a file that differs from the published one, where its checksum is known.
        options: further arguments of :class:`WindowDataModule`.
    """

    defaults: ClassVar[WindowOptions] = {}
    """Arguments of :class:`WindowDataModule` that the set has in place of that class's defaults."""

    def __init__(self, *, verify_checksums: bool = True, **options: Unpack[WindowOptions]) -> None:
        options = _with_defaults(options, self.defaults)
        super().__init__(**options)
        self.verify_checksums = verify_checksums

    def _found(self, dataset: str, names: Sequence[str], base: str | None = None) -> dict[str, Path]:
        """Return the files of the set from the mirror, the cache or an address below ``base``."""
        address = None if base is None else lambda file: f"https://raw.githubusercontent.com/{base}/{file}"
        return raw_files(dataset, names, address=address, checksums=_CHECKSUMS if self.verify_checksums else None)


class ETTDataModule(_Published):
    """Load and oil temperature of an electricity transformer: one series of 7 variables, 17,420 hours.

    Source: arXiv 2012.07436. The files are under CC BY-ND 4.0. By default the split is the customary one, 12 months
    for training, 4 for validation and 4 for test, after which the rest of the file is left out.

    Args:
        name: transformer and spacing: ``ETTh1`` and ``ETTh2`` (hours), ``ETTm1`` and ``ETTm2`` (quarters of an hour).
        customary: whether to use the first 20 months of 30 days only, split 12, 4 and 4; else ``val`` and ``test``
            divide the whole file.
        verify_checksums: whether to refuse a file that differs from the published one, where its checksum is known.
        options: further arguments of :class:`WindowDataModule`.

    Yields:
        :class:`graphseq.core.WindowBatch` with x (B, 1, T, 7).

    Raises:
        ValueError: if the name is unknown, or ``val`` or ``test`` is given with ``customary``.
        DataError: when the series are read, if the file is neither in the mirror nor downloaded, or malformed.

    Example:
        >>> ETTDataModule("ETTh1", window=96, horizon=24).window
        96
    """

    def __init__(
        self,
        name: Literal["ETTh1", "ETTh2", "ETTm1", "ETTm2"] = "ETTh1",
        *,
        customary: bool = True,
        verify_checksums: bool = True,
        **options: Unpack[WindowOptions],
    ) -> None:
        if name not in ("ETTh1", "ETTh2", "ETTm1", "ETTm2"):
            raise ValueError(f"name is {name!r}; it must be 'ETTh1', 'ETTh2', 'ETTm1' or 'ETTm2'")
        self.months = 0
        if customary:
            given = [key for key in ("val", "test") if key in options]
            if given:
                raise ValueError(f"{given[0]} is given with customary=True, which sets the split; give customary=False")
            self.months = 30 * 24 * (1 if name.startswith("ETTh") else 4)
            options["val"] = options["test"] = 4 * self.months
        options.setdefault("season", 24 if name.startswith("ETTh") else 96)
        super().__init__(verify_checksums=verify_checksums, **options)
        self.name = name

    def series(self) -> SeriesTable:
        """Return the series, from the mirror, the cache or the network."""
        file = f"{self.name}.csv"
        found = self._found("ETT", [file], f"zhouhaoyi/ETDataset/{_ETT_COMMIT}/ETT-small")
        table = read_series(found[file], time="date")
        kept = 20 * self.months or table.values.shape[1]
        times = None if table.times is None else table.times[:kept]
        return SeriesTable(table.values[:, :kept], [str(self.name)], table.variables, times)


class ExchangeRateDataModule(_Published):
    """Daily exchange rates of 8 currencies: one series of 8 variables, 7,588 days of 1990 to 2016.

    Source: arXiv 1703.07015.

    Args:
        verify_checksums: whether to refuse a file that differs from the published one.
        options: further arguments of :class:`WindowDataModule`; by default 60 % of the days are training, 20 % each
            validation and test, as in the source.

    Yields:
        :class:`graphseq.core.WindowBatch` with x (B, 1, T, 8).

    Raises:
        DataError: when the series are read, if the file is neither in the mirror nor downloaded, or malformed.

    Example:
        >>> ExchangeRateDataModule(window=30, horizon=7).horizon
        7
    """

    defaults: ClassVar[WindowOptions] = {"val": 0.2}

    def series(self) -> SeriesTable:
        """Return the series, from the mirror, the cache or the network."""
        file = "exchange_rate.txt.gz"
        base = f"laiguokun/multivariate-time-series-data/{_EXCHANGE_COMMIT}/exchange_rate"
        values = _matrix(self._found("ExchangeRate", [file], base)[file], 8)
        return SeriesTable(torch.from_numpy(values)[None], ["exchange"], [f"currency {n}" for n in range(8)])


class ChickenpoxDataModule(_Published):
    """Weekly cases of chickenpox in the 20 counties of Hungary: 20 series of one variable, 521 weeks, with a graph.

    The published values are standardised over *all* weeks, which lets statistics of the test weeks into the inputs;
    that cannot be undone, and holds for every result on this file.

    Source: arXiv 2102.08100.

    Args:
        verify_checksums: whether to refuse a file that differs from the published one.
        options: further arguments of :class:`WindowDataModule`.

    Yields:
        :class:`graphseq.core.WindowBatch` with x (B, 20, T, 1), and edges between neighbouring counties.

    Raises:
        DataError: when the series are read, if the file is neither in the mirror nor downloaded, or malformed.

    Example:
        >>> ChickenpoxDataModule(window=8, horizon=4).season
        52
    """

    defaults: ClassVar[WindowOptions] = {"season": 52}
    _edges: torch.Tensor

    def series(self) -> SeriesTable:
        """Return the series, from the mirror, the cache or the network."""
        file = "chickenpox.json"
        base = f"benedekrozemberczki/pytorch_geometric_temporal/{_CHICKENPOX_COMMIT}/dataset"
        path = self._found("Chickenpox", [file], base)[file]
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            values = np.array(content["FX"], dtype=np.float64)
            self._edges = torch.tensor(content["edges"], dtype=torch.int64).reshape(-1, 2).T.contiguous()
            names = sorted(content["node_ids"], key=content["node_ids"].get)
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise DataError(
                f"{path} is not the published file: {error!r}; delete it to have it fetched again"
            ) from error
        return SeriesTable(torch.from_numpy(values.T.copy())[..., None], names, ["cases"])

    def graph(self) -> SeriesGraph:
        """Return the graph of neighbouring counties."""
        return SeriesGraph(self._edges, torch.ones(self._edges.shape[1]))


class USFluDataModule(_Published):
    """Weekly influenza-like illness in 49 states of the USA: 49 series of one variable, 360 weeks, with a graph.

    Source: arXiv 1912.10202 (Cola-GNN).

    Args:
        verify_checksums: whether to refuse files that differ from the published ones.
        options: further arguments of :class:`WindowDataModule`.

    Yields:
        :class:`graphseq.core.WindowBatch` with x (B, 49, T, 1), and edges between neighbouring states.

    Raises:
        DataError: when the series are read, if a file is neither in the mirror nor downloaded, or malformed.

    Example:
        >>> USFluDataModule(window=20, horizon=5).season
        52
    """

    defaults: ClassVar[WindowOptions] = {"season": 52}

    def _files(self) -> dict[str, Path]:
        names = ["state360.txt", "state-adj-49.txt"]
        return self._found("US_Flu_States", names, f"Xiefeng69/EpiGNN/{_FLU_COMMIT}/data")

    def series(self) -> SeriesTable:
        """Return the series, from the mirror, the cache or the network."""
        values = _matrix(self._files()["state360.txt"], 49)
        return SeriesTable(torch.from_numpy(values.T.copy())[..., None], [f"state {n}" for n in range(49)], ["cases"])

    def graph(self) -> SeriesGraph:
        """Return the graph of neighbouring states."""
        return SeriesGraph.from_adjacency(torch.from_numpy(_matrix(self._files()["state-adj-49.txt"], 49)))


class COVIDDataModule(_Published):
    """Cumulative cases of COVID-19 by country: confirmed, deaths and recovered, from 2020-01-22 on.

    Provinces are added up to countries; those countries are kept that all three files have. The recovered cases end on
    2021-08-04, and so do the series. Cumulative counts are corrected downwards at times, so daily differences can be
    negative.

    Source: Johns Hopkins University, the source of the data of arXiv 2008.12833; not that paper's own files, in
    which two of three variables are identical.

    Args:
        days: number of days from the first one on, at most 561; the paper used about 120.
        variables: any of ``confirmed``, ``deaths`` and ``recovered``.
        verify_checksums: whether to refuse files that differ from the known ones.
        options: further arguments of :class:`WindowDataModule`; by default a window of 7 days, a horizon of 14, and
            14 days each for validation and test, as in the paper's code.

    Yields:
        :class:`graphseq.core.WindowBatch` with x (B, countries, T, variables).

    Raises:
        ValueError: if ``days`` or a variable is out of range.
        DataError: when the series are read, if a file is neither in the mirror nor in the cache, or malformed.

    Example:
        >>> COVIDDataModule(days=120).horizon
        14
    """

    defaults: ClassVar[WindowOptions] = {"window": 7, "horizon": 14, "val": 14, "test": 14, "scaling": "max"}

    def __init__(
        self,
        *,
        days: int = 120,
        variables: Sequence[Literal["confirmed", "deaths", "recovered"]] = ("confirmed", "deaths", "recovered"),
        verify_checksums: bool = True,
        **options: Unpack[WindowOptions],
    ) -> None:
        if not 1 <= days <= _COVID_DAYS:
            raise ValueError(f"days is {days}; it must be in 1..{_COVID_DAYS}, since recovered cases end on 2021-08-04")
        if not variables or len(set(variables)) != len(variables) or not set(variables) <= set(_COVID_VARIABLES):
            raise ValueError(f"variables is {list(variables)}; give some of {', '.join(_COVID_VARIABLES)}, each once")
        super().__init__(verify_checksums=verify_checksums, **options)
        self.days = days
        self.variables = list(variables)

    def series(self) -> SeriesTable:
        """Return the series, from the mirror or the cache."""
        import pandas

        names = {name: f"time_series_covid19_{name}_global.csv.gz" for name in _COVID_VARIABLES}
        found = self._found("JHU_COVID19", list(names.values()))
        frames = {}
        for name, file in names.items():
            try:
                frame = pandas.read_csv(found[file]).drop(columns=["Province/State", "Lat", "Long"])
                frames[name] = frame.groupby("Country/Region").sum()
            except (KeyError, ValueError) as error:
                raise DataError(
                    f"{found[file]} is not the known file: {error}; delete it to have it copied again"
                ) from error
        countries = sorted(set.intersection(*(set(frame.index) for frame in frames.values())))
        values = np.stack(
            [frames[name].loc[countries].iloc[:, : self.days].to_numpy(np.float64) for name in self.variables], 2
        )  # (countries, days, variables)
        times = np.datetime64("2020-01-22") + np.arange(self.days)
        return SeriesTable(torch.from_numpy(values), countries, list(self.variables), times.astype("datetime64[ns]"))


def _with_defaults(options: WindowOptions, defaults: WindowOptions) -> WindowOptions:
    return {**defaults, **options}


def _matrix(path: Path, columns: int) -> np.ndarray:
    """Return a table of numbers without header, separated by commas."""
    try:
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
            values = np.loadtxt(file, delimiter=",", dtype=np.float64, ndmin=2)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not a table of numbers: {error}; delete it to have it fetched again") from error
    if values.shape[1] != columns or not np.isfinite(values).all():
        raise DataError(f"{path} has {values.shape[1]} columns of numbers, {columns} finite ones are published")
    return cast(np.ndarray, values)


_COVID_DAYS = 561
_COVID_VARIABLES = ("confirmed", "deaths", "recovered")
_ETT_COMMIT = "1d16c8f4f943005d613b5bc962e9eeb06058cf07"
_EXCHANGE_COMMIT = "7f402f185cc2435b5e66aed13a3b560ed142e023"
_CHICKENPOX_COMMIT = "adefe44265ad8faf239fd6cf3b59b95ca3ee60aa"
_FLU_COMMIT = "1c0bb8c2e162126c30eeb76218ee264cbad0e217"
_CHECKSUMS = {
    "ETTh1.csv": "f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066",
    "exchange_rate.txt.gz": "6a4fbb561dcdee43f071a83badbeec9223a335552278348656738b556f1c2e9d",
    "chickenpox.json": "724b48cfb274b2ecbb855bdb99b970b5ef9dd3671694fa477435dc1e08293735",
    "state360.txt": "364c1047dba84bc62b9011360332b679bc9cbcba1dbff1b9db210166f4289bf1",
    "state-adj-49.txt": "e8b147e43035bbf59deb9114af87b8bc6b098d031d3aeb9ed38338d19eeb087c",
    "time_series_covid19_confirmed_global.csv.gz": "b346d81ac30e23b288900915d611bd4b583be330a626bda4e126e5812648373c",
    "time_series_covid19_deaths_global.csv.gz": "37df8105cb1b7131e32a7c289beb5830e7cd827bb6ad76e0ed17fd448056b672",
    "time_series_covid19_recovered_global.csv.gz": "3db14735120051ba15b6f2cbb9ccf6a1b59c539b235c311f5b9927bdecd708af",
}
