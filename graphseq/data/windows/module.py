"""Data modules of time series: windows on the device, splits by time, scaling fitted on the training span."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Unpack, get_args

import numpy as np
import torch
from torch import Tensor

from graphseq.core.errors import DataError
from graphseq.core.windows import SeriesSpan, WindowBatch
from graphseq.data.base import DataOptions, Stage, StoreDataModule
from graphseq.data.precision import TRUE_PRECISIONS
from graphseq.data.windows.calendar import Cycle, calendar_covariates, times_after
from graphseq.data.windows.files import SeriesTable
from graphseq.data.windows.graph import SeriesGraph
from graphseq.data.windows.scaling import Kind, Per, Scaling, naive_error
from graphseq.data.windows.splits import window_split
from graphseq.data.windows.store import WindowStore, check_series

__all__ = ["WindowDataModule", "WindowOptions"]


class WindowOptions(DataOptions, total=False):
    """Arguments that data modules of series pass on to :class:`WindowDataModule`.

    Args:
        window: number of steps that a network reads, at least 1.
        horizon: number of steps to predict, at least 1.
        val: validation steps, as a share in [0, 1) (float) or a number of steps (int).
        test: test steps, in the same way.
        fold: number of the fold of an evaluation by rolling origin, in 0..num_folds-1.
        num_folds: number of parts into which the test steps are divided.
        stride: distance between the starts of two training windows.
        eval_stride: the same for validation and test windows; ``horizon`` predicts each step once.
        scaling: ``standard`` (mean and deviation), ``max`` (largest absolute value) or ``none``.
        scale_per: whether each ``series`` has its own statistics, or all share those of a ``variable``.
        season: steps of a season, for the denominator of the mean absolute scaled error; that error is NaN if the
            training span is not longer than a season.
        targets: names or positions of the variables to predict; None for all.
        cycles: calendar covariates: ``hour``, ``weekday``, ``day``, ``month``.
        batch_size: number of training windows of one batch over all processes, at least 1.
        eval_batch_size: number of windows of one validation, test or prediction batch; default ``batch_size``.
        seed: seed of generated data and of the order of training batches.
        device_resident: whether the store moves to the training device: ``true``, ``false``, or ``auto``.
        drop_last: whether training leaves out a last batch smaller than ``batch_size``.
        train_transform: module applied on the device to each training batch.
        eval_transform: module applied on the device to each validation, test and prediction batch.

    Example:
        >>> options: WindowOptions = {"window": 24, "horizon": 12, "val": 0.1}
    """

    window: int
    horizon: int
    val: int | float
    test: int | float
    fold: int
    num_folds: int
    stride: int
    eval_stride: int
    scaling: Kind
    scale_per: Per
    season: int
    targets: Sequence[str | int] | None
    cycles: Sequence[Cycle]


class WindowDataModule(StoreDataModule):
    """Base class of data modules of time series.

    A subclass defines :meth:`series`. A sample is one window of all series. The split ``predict`` holds the last
    window, whose predicted steps lie after the end of the series, so that ``graphseq predict`` forecasts the
    future; it is left out where covariates are not known that far. Windows belong to the split in which all their
    predicted steps lie; the steps that they read may lie before it. Scaling and the denominator of the scaled
    error are computed from the training span, all steps before the first validation step, and nothing after it.
    Checkpoints hold the fitted scaling, so that a network is tested on other series in the units of its training.

    Memory: 4 bytes for each value of the series, not of the windows; see :class:`WindowStore`.

    Args:
        window: number T of steps that a network reads, at least 1.
        horizon: number Z of steps to predict, at least 1.
        val: validation steps before the test steps, as a share in [0, 1) (float) or a number of steps (int).
        test: test steps at the end, in the same way.
        fold: number of the fold of an evaluation by rolling origin, in 0..num_folds-1; see :func:`window_split`.
        num_folds: number of parts into which the test steps are divided, at least 1.
        stride: distance between the starts of two training windows, at least 1.
        eval_stride: the same for validation and test windows; ``horizon`` predicts each step once.
        scaling: ``standard`` (mean and standard deviation), ``max`` (largest absolute value) or ``none``.
        scale_per: whether each ``series`` has its own statistics, or all share those of a ``variable``.
        season: number of steps of a season, at least 1, for the denominator of the mean absolute scaled error; that
            error is NaN if the training span is not longer than a season.
        targets: names or positions of the variables to predict; None for all. The others are read only.
        cycles: covariates from the calendar for series with times: ``hour``, ``weekday``, ``day``, ``month``.
        options: further arguments of :class:`StoreDataModule`; ``batch_size`` counts windows, default 32.

    Yields:
        :class:`graphseq.core.WindowBatch` with x (B, S, T, V) and y (B, S, Z, K).

    Raises:
        ValueError: if an argument is out of range or unknown.
        DataError: when the series are read, if a split holds no window, a target does not exist, or values are
            infinite.

    Example:
        >>> from graphseq.data import DriverPanelDataModule
        >>> data = DriverPanelDataModule(window=8, horizon=4, num_series=5, steps=100)
        >>> next(data.batches("test")).x.shape
        torch.Size([17, 5, 8, 4])
    """

    def __init__(
        self,
        *,
        window: int = 24,
        horizon: int = 12,
        val: int | float = 0.1,  # int first: a config is read as the first type that fits, and 14 would become 14.0
        test: int | float = 0.2,
        fold: int = 0,
        num_folds: int = 1,
        stride: int = 1,
        eval_stride: int = 1,
        scaling: Kind = "standard",
        scale_per: Per = "series",
        season: int = 1,
        targets: Sequence[str | int] | None = None,
        cycles: Sequence[Cycle] = (),
        **options: Unpack[DataOptions],
    ) -> None:
        options.setdefault("batch_size", 32)
        super().__init__(**options)
        if scaling not in get_args(Kind) or scale_per not in get_args(Per):
            raise ValueError(
                f"scaling is {scaling!r} and scale_per {scale_per!r}; they must be one of {', '.join(get_args(Kind))}, "
                f"and one of {', '.join(get_args(Per))}"
            )
        if season < 1:
            raise ValueError(f"season is {season}; it must be at least 1")
        for name, listed in (("targets", targets), ("cycles", cycles)):
            if isinstance(listed, str):
                raise ValueError(f"{name} is {listed!r}; give a list, such as [{listed!r}]")
        unknown = [cycle for cycle in cycles if cycle not in get_args(Cycle)]
        if unknown:
            raise ValueError(f"cycles has {unknown}; each must be one of {', '.join(get_args(Cycle))}")
        # the arguments of the split are checked now; whether the series are long enough when they are read
        window_split(10**9, window, horizon, val=val, test=test, fold=fold, num_folds=num_folds,
                     stride=10**6 * stride, eval_stride=10**6 * eval_stride)  # fmt: skip
        self.window, self.horizon = window, horizon
        self.val, self.test = val, test
        self.fold, self.num_folds = fold, num_folds
        self.stride, self.eval_stride = stride, eval_stride
        self.scaling: Kind = scaling
        self.scale_per: Per = scale_per
        self.season = season
        self.targets = None if targets is None else list(targets)
        self.cycles = list(cycles)
        self._fitted: Scaling | None = None
        self._naive: Tensor | None = None
        self._span = 0
        self._series: SeriesTable | None = None

    def series(self) -> SeriesTable:
        """Return the series in original units; called once."""
        raise TypeError(f"{type(self).__name__} must define series()")

    def graph(self) -> SeriesGraph | None:
        """Return a graph whose nodes are the series; None for none. Called once, after :meth:`series`."""
        return None

    def covariates(self) -> Tensor | None:
        """Return covariates that are known in advance, beside those of ``cycles``; None for none.

        They are float (steps, F), or (steps + horizon, F) with those of the steps after the end of the series.
        """
        return None

    def read(self) -> tuple[WindowStore, dict[str, Tensor]]:
        """Return the store of windows and the windows of each split."""
        table = self.series()
        check_series(table.values)
        given = self.covariates()
        if given is not None and len(given) not in (table.values.shape[1], table.values.shape[1] + self.horizon):
            raise DataError(
                f"known has {len(given)} steps; the series have {table.values.shape[1]}, and {self.horizon} may follow"
            )
        steps = table.values.shape[1]
        splits, span = window_split(
            steps, self.window, self.horizon, val=self.val, test=self.test, fold=self.fold, num_folds=self.num_folds,
            stride=self.stride, eval_stride=self.eval_stride,
        )  # fmt: skip
        past = table.values[:, :span]
        if self._fitted is None:
            self._fitted = Scaling.fit(past, self.scaling, self.scale_per)
            unknown = torch.full_like(self._fitted.loc, torch.nan)
            self._naive = naive_error(past, self.season) if self.season < span else unknown
        self._series, self._span = table, span
        if self._fitted.loc.shape != table.values[:, 0].shape:
            raise DataError(
                f"the scaling of the checkpoint is for {tuple(self._fitted.loc.shape)} series and variables, these are "
                f"{tuple(table.values[:, 0].shape)}; use series with the same variables"
            )
        known = self._known(table)
        ahead = self.horizon if known is None or len(known) >= steps + self.horizon else 0
        values = torch.cat(
            [table.values, table.values.new_full((len(table.values), ahead, table.values.shape[2]), torch.nan)], 1
        )
        store = WindowStore(
            values, self.window, self.horizon, scaling=self._fitted, naive=self._naive,
            targets=self._target_positions(table.variables), known=None if known is None else known[: steps + ahead],
            graph=_extended(self.graph(), steps, ahead),
        )  # fmt: skip
        if ahead:
            splits["predict"] = torch.tensor([steps - self.window])
        return store, splits

    def _known(self, table: SeriesTable) -> Tensor | None:
        given = self.covariates()
        parts = [] if given is None else [given.float()]
        if self.cycles:
            if table.times is None:
                raise DataError(
                    f"cycles is {self.cycles}, but the series have no times; name their column, or leave it out"
                )
            times = np.concatenate([table.times, times_after(table.times, self.horizon)])
            parts.append(calendar_covariates(times, self.cycles))
        return torch.cat([part[: min(map(len, parts))] for part in parts], 1) if parts else None

    def times_of(self, steps: Tensor) -> np.ndarray | None:
        """Return the times of steps, of which the last may lie ahead of the series; None for series without times.

        Args:
            steps: numbers of steps, int64, below the number of steps plus ``horizon``.
        """
        times = self.times
        return None if times is None else np.concatenate([times, times_after(times, self.horizon)])[steps.cpu().numpy()]

    def _target_positions(self, variables: list[str]) -> list[int] | None:
        if self.targets is None:
            return None
        unknown = [name for name in self.targets if name not in variables and not isinstance(name, int)]
        if unknown:
            raise DataError(f"targets names {', '.join(map(str, unknown))}; the variables are {', '.join(variables)}")
        return [name if isinstance(name, int) else variables.index(name) for name in self.targets]

    def _table(self) -> SeriesTable:
        self.load()
        if self._series is None:
            raise DataError(f"{type(self).__name__}.read() kept no series")
        return self._series

    @property
    def series_names(self) -> list[str]:
        """Name of each series."""
        return list(self._table().series)

    @property
    def variable_names(self) -> list[str]:
        """Name of each variable that a network reads."""
        return list(self._table().variables)

    @property
    def target_names(self) -> list[str]:
        """Name of each variable to predict."""
        return [self.variable_names[place] for place in self.target_positions]

    @property
    def times(self) -> np.ndarray | None:
        """Time of each step, ``datetime64[ns]`` (steps,); None for series without times."""
        return self._table().times

    @property
    def span(self) -> int:
        """Number of steps of the training span, from which scaling is fitted."""
        self.load()
        return self._span

    def training_span(self) -> SeriesSpan:
        """Return the series of the training span, scaled and in original units."""
        values = self._table().values[:, : self.span]
        if self._fitted is None:
            raise DataError(f"{type(self).__name__}.read() fitted no scaling")
        scaled = (values - self._fitted.loc[:, None]) / self._fitted.scale[:, None]
        return SeriesSpan(scaled.nan_to_num(0.0).float(), values.nan_to_num(0.0).float(), ~values.isnan())

    @property
    def target_positions(self) -> list[int]:
        """Position of each variable to predict among those that a network reads."""
        positions = self._target_positions(self.variable_names)
        return list(range(self.num_variables)) if positions is None else positions

    @property
    def num_series(self) -> int:
        """Number of series S."""
        return len(self._table().series)

    @property
    def num_variables(self) -> int:
        """Number of variables V that a network reads."""
        return len(self._table().variables)

    @property
    def num_targets(self) -> int:
        """Number of variables K to predict."""
        return self.num_variables if self.targets is None else len(self.targets)

    @property
    def num_outputs(self) -> int:
        """Number of variables K to predict."""
        return self.num_targets

    @property
    def num_known(self) -> int:
        """Number F of covariates that are known in advance."""
        known = next(self.batches("train")).known
        return 0 if known is None else known.shape[-1]

    def transformed(self, batch: WindowBatch, stage: Stage) -> WindowBatch:
        """Return a batch after the transform of a stage, its inputs in the precision of the trainer.

        Targets and statistics stay in float32 or wider, so that errors in original units are exact.

        Args:
            batch: batch of windows.
            stage: name of the split.
        """
        if batch.y.dtype in (torch.float16, torch.bfloat16) and batch.start is not None:
            # Lightning has cast the whole batch, so that targets are rounded and a large location is infinite
            batch = self.store.take(batch.start.to(self.store.device)).to(batch.y.device)
        transform = self.train_transform if stage == "train" else self.eval_transform
        if transform is not None:
            batch = self.apply_transform(transform, batch, stage)
        dtype = None if self.trainer is None else TRUE_PRECISIONS.get(str(self.trainer.precision))
        if dtype is None:
            return batch
        inputs = ("x", "known", "edge_weight")
        for name in (*inputs, "y", "loc", "scale", "naive"):
            value = getattr(batch, name)
            if isinstance(value, Tensor) and (name in inputs or dtype == torch.float64):
                setattr(batch, name, value.to(dtype))
        return batch

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Return batches that are on the device already unchanged, since the loader moves whole blocks."""
        if isinstance(batch, WindowBatch) and batch.x.device == device:
            return batch
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def state_dict(self) -> dict[str, Any]:
        """Return the state for checkpoints: splits, names of the variables, and the fitted scaling."""
        self.load()
        if self._fitted is None or self._naive is None:
            raise DataError(f"{type(self).__name__}.read() fitted no scaling")
        return {
            **super().state_dict(),
            "variables": self.variable_names,
            "series": self.series_names,
            "loc": self._fitted.loc,
            "scale": self._fitted.scale,
            "naive": self._naive,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Check that the data match a checkpoint, and scale by its statistics.

        The same series in another order have the statistics of their names; others those of their positions, with a
        warning if the statistics differ between series.

        Raises:
            DataError: if training would resume on another split, or the series have other variables.
        """
        here = self.series_names
        state_dict = {"series": here, **state_dict}  # checkpoints of earlier versions do not name them
        super().load_state_dict(state_dict)
        if state_dict["variables"] != self.variable_names:
            raise DataError(
                f"the checkpoint was trained on variables {state_dict['variables']}, these are {self.variable_names}; "
                "use series with the same variables"
            )
        loc, scale, naive, names = (state_dict[key] for key in ("loc", "scale", "naive", "series"))
        if names != here and sorted(names) == sorted(here) and len(set(here)) == len(here):
            order = [names.index(name) for name in here]
            loc, scale, naive = loc[order], scale[order], naive[order]
        elif names != here and bool((loc != loc[:1]).any() | (scale != scale[:1]).any()):
            warnings.warn(
                f"the checkpoint was trained on series {', '.join(names)[:200]}, these are {', '.join(here)[:200]}; "
                "each is scaled by the statistics of the series at its position. Give the same series, or train with "
                "scale_per='variable'",
                stacklevel=2,
            )
        saved = Scaling(loc, scale)
        if (
            self._fitted is not None
            and torch.equal(saved.loc, self._fitted.loc)
            and torch.equal(saved.scale, self._fitted.scale)
        ):
            return
        self._fitted, self._naive = saved, naive
        self._host, self._splits = self.read()
        self._resident = None if self._resident is None else self._host.to(self._resident.device)


def _extended(graph: SeriesGraph | None, steps: int, ahead: int) -> SeriesGraph | None:
    """Return a graph whose weights, if they change, reach over steps ahead of the series too; those are never read."""
    if graph is None or not graph.changes or len(graph.edge_weight) != steps or not ahead:
        return graph
    last = graph.edge_weight[-1:].expand(ahead, -1)
    return replace(graph, edge_weight=torch.cat([graph.edge_weight, last]))
