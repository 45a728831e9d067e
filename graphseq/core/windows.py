"""A batch of windows of multivariate time series: what forecasting networks read and what they predict."""

from dataclasses import dataclass

import torch
from torch import Tensor

from graphseq.core.batches import _OfTensors

__all__ = ["SeriesSpan", "WindowBatch"]


@dataclass
class SeriesSpan(_OfTensors):
    """The steps of the training span of several series, for networks that are fitted to it before the first step.

    Args:
        scaled: values as a network reads them, float (S, steps, V); a missing value is 0.
        original: values in original units, float (S, steps, V); a missing value is 0.
        observed: where a value was observed, bool (S, steps, V).

    Example:
        >>> span = SeriesSpan(torch.zeros(1, 5, 2), torch.ones(1, 5, 2), torch.ones(1, 5, 2, dtype=torch.bool))
        >>> span.to("cpu").original.shape
        torch.Size([1, 5, 2])
    """

    scaled: Tensor
    original: Tensor
    observed: Tensor


@dataclass
class WindowBatch(_OfTensors):
    r"""Windows of several series, each with the steps that a network reads and the steps after them to predict.

    Values are scaled by statistics of the training span, :math:`x = (r - loc) / scale` for a raw value :math:`r`.

    Args:
        x: scaled past values, float (B, S, T, V); a missing value is 0, the training mean with standard scaling.
        y: scaled future values of the target variables, float (B, S, Z, K); a missing value is NaN.
        loc: location of each target variable of each series in original units, float (S, 1, K); float64 where float32
            would round it by more than a thousandth of the scale.
        scale: scale of the same, positive, float (S, 1, K).
        naive: mean absolute error of the seasonal naive forecast over the training span in original units, float
            (S, 1, K); the denominator of the mean absolute scaled error.
        mask: True where a past value was observed, bool (B, S, T, V); None if all were.
        known: covariates that are known for past and future steps, such as the hour of the day, float
            (B, T + Z, F); None without covariates.
        edge_index: edges of a graph whose nodes are the series, int64 (2, E); None without a graph.
        edge_weight: weight of each edge, float (E,), or for each past step, float (B, T, E); None without weights.
        start: number of each window's first step in the series, int64 (B,); None if it is not known.

    Example:
        >>> x, y = torch.zeros(2, 1, 4, 3), torch.ones(2, 1, 2, 3)
        >>> batch = WindowBatch(x, y, loc=torch.full((1, 1, 3), 5.0), scale=torch.full((1, 1, 3), 2.0))
        >>> len(batch), float(batch.restore(batch.y)[0, 0, 0, 0])
        (2, 7.0)
    """

    x: Tensor
    y: Tensor
    loc: Tensor
    scale: Tensor
    naive: Tensor | None = None
    mask: Tensor | None = None
    known: Tensor | None = None
    edge_index: Tensor | None = None
    edge_weight: Tensor | None = None
    start: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        shapes = {name: tuple(value.shape) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return f"WindowBatch({', '.join(f'{name}={shape}' for name, shape in shapes.items())})"

    @property
    def horizon(self) -> int:
        """Number of steps to predict, Z."""
        return self.y.shape[2]

    def restore(self, values: Tensor) -> Tensor:
        """Return scaled target variables in original units, in float32 or wider.

        Args:
            values: scaled values (B, S, Z, K), or quantiles of them (B, S, Z, K, Q).
        """
        loc, scale = (self.loc, self.scale) if values.dim() == 4 else (self.loc[..., None], self.scale[..., None])
        return values.to(torch.promote_types(values.dtype, torch.float32)) * scale + loc
