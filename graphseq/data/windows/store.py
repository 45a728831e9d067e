"""Store of multivariate time series whose samples are windows; a batch is one gather, and windows are never copied."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Self

import torch
from torch import Tensor

from graphseq.core.errors import DataError
from graphseq.core.windows import WindowBatch
from graphseq.data.store import (
    DEVICE_BLOCK_BYTES,
    ROW_BLOCK_BYTES,
    Index,
    batch_sizes,
    blocks,
    positions,
    retain_freed_memory,
)
from graphseq.data.windows.graph import SeriesGraph
from graphseq.data.windows.scaling import Scaling

__all__ = ["WindowStore"]


class WindowStore:
    """Windows of S series of V variables: window n reads the steps n..n+T-1 and predicts the Z steps after them.

    The scaled series are kept once, with time as the first axis, so that a window is one contiguous piece of memory
    and a batch is one ``index_select`` over overlapping views of it. No window exists before it is asked for.

    Memory: 4 bytes a value (one copy of the series), 4 a covariate, and for series with gaps one more byte a value.
    A batch takes 4 bytes for each value of its windows.

    Args:
        series: values in original units, float (S, steps, V); NaN where missing.
        window: number T of steps that a network reads, at least 1.
        horizon: number Z of steps to predict, at least 1.
        scaling: statistics by which values are scaled; None for no scaling.
        naive: mean absolute error of the seasonal naive forecast over the training span, in original units, float
            (S, V); None for batches without it.
        targets: positions of the variables to predict; None for all.
        known: covariates that are known in advance, float (steps, F).
        graph: graph whose nodes are the series.

    Raises:
        ValueError: if ``window`` or ``horizon`` is below 1.
        DataError: if the series are not (S, steps, V), hold infinite values or fewer steps than one window and
            horizon, or another argument does not fit them.

    Example:
        >>> store = WindowStore(torch.arange(10.0).view(1, 10, 1), window=3, horizon=2)
        >>> batch = store.take(torch.tensor([4]))
        >>> len(store), batch.x.flatten().tolist(), batch.y.flatten().tolist()
        (6, [4.0, 5.0, 6.0], [7.0, 8.0])
    """

    def __init__(
        self,
        series: Tensor,
        window: int,
        horizon: int,
        *,
        scaling: Scaling | None = None,
        naive: Tensor | None = None,
        targets: Sequence[int] | None = None,
        known: Tensor | None = None,
        graph: SeriesGraph | None = None,
    ) -> None:
        check_series(series)
        for name, value in (("window", window), ("horizon", horizon)):
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        count, steps, variables = series.shape
        if steps < window + horizon:
            raise DataError(
                f"series of {steps} steps hold no window of {window} and horizon of {horizon}; give longer series, or "
                "a smaller window or horizon"
            )
        if known is not None and (known.dim() != 2 or len(known) != steps or not bool(known.isfinite().all())):
            raise DataError(f"known is {tuple(known.shape)}; covariates of {steps} steps must be ({steps}, F), finite")
        chosen = list(range(variables)) if targets is None else list(targets)
        if not chosen or len(set(chosen)) != len(chosen) or not set(chosen) <= set(range(variables)):
            raise DataError(f"targets is {chosen}; give positions of variables in 0..{variables - 1}, each once")
        if graph is not None:
            graph.check(count, steps)
            # windows of weights are overlapping views of their memory
            graph = graph if graph.edge_weight.is_contiguous() else replace(graph, edge_weight=graph.edge_weight.clone(
                memory_format=torch.contiguous_format))  # fmt: skip
        self.window, self.horizon, self.graph = window, horizon, graph
        self._targets = None if targets is None else torch.tensor(chosen)
        scaling = scaling or Scaling(torch.zeros(count, variables), torch.ones(count, variables))
        # a location that is large beside its scale would lose the values themselves in float32
        coarse = scaling.loc.abs() * 2.0**-24 > 1e-3 * scaling.scale
        exact = torch.float64 if bool(coarse.any()) else torch.float32
        self._loc, self._scale = (part[:, None, chosen].to(exact).contiguous() for part in (scaling.loc, scaling.scale))
        self._naive = None if naive is None else naive[:, None, chosen].float().contiguous()
        scaled = ((series.transpose(0, 1) - scaling.loc.double()) / scaling.scale.double()).float()  # (steps, S, V)
        if bool(scaled.isinf().any()):
            step, row, column = scaled.isinf().nonzero()[0].tolist()
            raise DataError(
                f"series {row}, step {step}, variable {column} is {float(series[row, step, column]):g}, which does not "
                "fit into float32 after scaling; rescale the variable"
            )
        self._values = scaled.contiguous()
        observed = ~self._values.isnan()
        # the last windows of all may predict steps that lie ahead: what they read is what a mask is needed for
        self._observed = None if bool(observed[: steps - horizon].all()) else observed
        self._known = None if known is None else known.float().contiguous()
        retain_freed_memory()

    def __len__(self) -> int:
        return len(self._values) - self.window - self.horizon + 1

    def __repr__(self) -> str:
        steps, series, variables = self._values.shape
        return (
            f"WindowStore({series} series, {steps} steps, {variables} variables, window={self.window}, "
            f"horizon={self.horizon}, {self.nbytes / 2**20:.1f} MB, {self.device})"
        )

    @property
    def device(self) -> torch.device:
        """Device of the series."""
        return self._values.device

    @property
    def nbytes(self) -> int:
        """Memory of series, masks, covariates, graph and statistics in bytes."""
        own = sum(value.nbytes for value in vars(self).values() if isinstance(value, Tensor))
        return own + (0 if self.graph is None else self.graph.nbytes)

    def to(self, device: torch.device | str) -> Self:
        """Return the store with its tensors on ``device``; tensors that are on it already are shared."""
        moved = object.__new__(type(self))
        moved.__dict__ = {
            key: value.to(device) if isinstance(value, Tensor) else value for key, value in vars(self).items()
        }
        moved.graph = None if self.graph is None else self.graph.to(device)
        return moved

    def _gather(self, values: Tensor, rows: Tensor, length: int) -> Tensor:
        """Return the windows ``rows`` of values (steps, ...) as (B, length, ...): one copy of contiguous pieces."""
        width = values[0].numel()
        overlapping = values.as_strided((len(values) - length + 1, length * width), (width, 1))
        return overlapping.index_select(0, rows).view(len(rows), length, *values.shape[1:])

    def batches(
        self, index: Index, sizes: int | Sequence[int], device: torch.device | None = None
    ) -> Iterator[WindowBatch]:
        """Yield windows in batches; each block of about 2 MB is gathered once and split into views.

        Args:
            index: numbers of the windows: a tensor, array or list of integers (M,), a slice, or a mask.
            sizes: size of all batches, or a list with the size of each batch.
            device: device of the batches; default that of the store.
        """
        index = positions(index, len(self)).to(self.device)
        length = self.window + self.horizon
        row_bytes = length * (self._values[0].nbytes + (0 if self._observed is None else self._observed[0].nbytes))
        shared = self._shared(device)
        block_bytes = ROW_BLOCK_BYTES if self.device.type == "cpu" else DEVICE_BLOCK_BYTES
        for rows, block_sizes in blocks(index, batch_sizes(len(index), sizes), row_bytes, block_bytes):
            fields = self._fields(rows)
            if device is not None:
                fields = {name: field.to(device, non_blocking=True) for name, field in fields.items()}
            for views in zip(*(field.split(block_sizes) for field in fields.values()), strict=True):
                yield WindowBatch(**dict(zip(fields, views, strict=True)), **shared)

    def _fields(self, rows: Tensor) -> dict[str, Tensor]:
        """Return what differs between windows, by name in the batch."""
        length = self.window + self.horizon
        values = self._gather(self._values, rows, length).transpose(1, 2)  # (B, S, T + Z, V)
        y = values[:, :, self.window :]
        fields = {
            "x": values[:, :, : self.window],
            "y": y if self._targets is None else y[..., self._targets],
            "start": rows,
        }
        if self._observed is not None:
            # the network must not see NaN; targets keep it, so that the loss leaves them out
            mask = self._gather(self._observed, rows, self.window).transpose(1, 2)
            fields |= {"x": fields["x"].where(mask, 0.0), "mask": mask}
        if self._known is not None:
            fields["known"] = self._gather(self._known, rows, length)
        if self.graph is not None and self.graph.changes:
            fields["edge_weight"] = self._gather(self.graph.edge_weight, rows, self.window)
        return fields

    def _shared(self, device: torch.device | None) -> dict[str, Tensor]:
        """Return what all windows have in common, by name in the batch."""
        shared = {"loc": self._loc, "scale": self._scale}
        if self._naive is not None:
            shared["naive"] = self._naive
        if self.graph is not None:
            shared["edge_index"] = self.graph.edge_index
            if not self.graph.changes:
                shared["edge_weight"] = self.graph.edge_weight
        return {name: value if device is None else value.to(device) for name, value in shared.items()}

    def take(self, index: Index) -> WindowBatch:
        """Return windows as one batch.

        Args:
            index: numbers of the windows: a tensor, array or list of integers (B,), a slice, or a mask.
        """
        rows = positions(index, len(self)).to(self.device)
        return WindowBatch(**self._fields(rows), **self._shared(None))


def check_series(series: Tensor) -> None:
    """Raise ``DataError`` unless series are floating-point (S, steps, V), and each is finite or NaN.

    Args:
        series: values of all series.

    Example:
        >>> check_series(torch.zeros(1, 5, 2))
    """
    if not isinstance(series, Tensor) or series.dim() != 3 or not series.is_floating_point() or not series.numel():
        given = f"{series.dtype} {tuple(series.shape)}" if isinstance(series, Tensor) else type(series).__name__
        raise DataError(f"series is {given}; it must be floating-point of shape (series, steps, variables), not empty")
    infinite = series.isinf().nonzero()
    if len(infinite):
        where = infinite[0].tolist()
        raise DataError(
            f"series {where[0]}, step {where[1]}, variable {where[2]} is infinite; give NaN for a missing value"
        )
