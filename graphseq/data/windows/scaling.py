"""Scaling of time series by statistics of the training span, and only of it."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from graphseq.core.errors import DataError

__all__ = ["Scaling", "naive_error"]

Kind = Literal["standard", "max", "none"]
Per = Literal["series", "variable"]


@dataclass(frozen=True)
class Scaling:
    r"""Location and scale of each variable of each series: a raw value r becomes :math:`(r - loc) / scale`.

    Args:
        loc: location, float64 (S, V).
        scale: positive scale, float64 (S, V).

    Example:
        >>> fitted = Scaling.fit(torch.tensor([[[1.0], [3.0]]]), "standard")
        >>> fitted.loc.tolist(), fitted.scale.tolist()
        ([[2.0]], [[1.0]])
    """

    loc: Tensor
    scale: Tensor

    @classmethod
    def fit(cls, series: Tensor, kind: Kind, per: Per = "series") -> "Scaling":
        """Return the statistics of series; missing values are left out.

        Args:
            series: the steps of the training span and no others, float (S, steps, V), NaN where missing.
            kind: ``standard`` for mean and standard deviation, ``max`` for 0 and the largest absolute value, or
                ``none`` for 0 and 1. A constant value has the scale 1.
            per: whether each ``series`` has statistics of its own, or all series share those of a ``variable``.

        Raises:
            ValueError: if ``kind`` or ``per`` is unknown.
            DataError: if nothing was observed of a variable that has statistics of its own.
        """
        if kind not in get_args(Kind) or per not in get_args(Per):
            raise ValueError(f"scaling is {kind!r} per {per!r}; it must be one of {get_args(Kind)}, {get_args(Per)}")
        count, _, variables = series.shape
        if kind == "none":
            return cls(
                torch.zeros(count, variables, dtype=torch.float64), torch.ones(count, variables, dtype=torch.float64)
            )
        values = series.double()
        if per == "variable":
            values = values.reshape(1, -1, variables)
        known = ~values.isnan()
        empty = (~known.any(1)).nonzero()
        if len(empty):
            row, column = empty[0].tolist()
            raise DataError(
                f"series {row}, variable {column} has no observed value in the training span, so it cannot be scaled; "
                "leave it out, train on a longer span, or give scaling='none'"
            )
        number, filled = known.sum(1), values.nan_to_num(0.0)
        if kind == "max":
            loc, scale = torch.zeros_like(filled[:, 0]), filled.abs().amax(1)
        else:
            loc = filled.sum(1) / number
            scale = ((filled - loc[:, None]).where(known, 0.0).square().sum(1) / number).sqrt()
        # rounding gives a constant a deviation slightly above zero
        smallest = torch.finfo(torch.float64).eps * 16 * filled.abs().amax(1)
        scale = scale.where(scale > smallest, 1.0)
        return cls(loc.expand(count, variables).contiguous(), scale.expand(count, variables).contiguous())


def naive_error(series: Tensor, season: int = 1) -> Tensor:
    r"""Return the mean absolute error of the seasonal naive forecast, the denominator of the scaled error.

    .. math:: q = \frac{1}{|M|} \sum_{t \in M} |r_t - r_{t-m}|

    Source: Hyndman and Koehler (2006), "Another look at measures of forecast accuracy", for one step ahead.

    Args:
        series: the steps of the training span, float (S, steps, V), NaN where missing.
        season: number m of steps of a season, at least 1 and below the number of steps.

    Returns:
        error float64 (S, V); NaN where no pair was observed or the error is 0, so that the scaled error leaves it out.

    Raises:
        ValueError: if ``season`` is out of range.

    Example:
        >>> naive_error(torch.tensor([[[1.0], [3.0], [4.0]]]))
        tensor([[1.5000]], dtype=torch.float64)
    """
    if not 1 <= season < series.shape[1]:
        raise ValueError(
            f"season is {season}; with a training span of {series.shape[1]} steps it must be at least 1 and below it"
        )
    error = (series[:, season:].double() - series[:, :-season].double()).abs().nanmean(1)
    return error.where(error > 0, torch.nan)
