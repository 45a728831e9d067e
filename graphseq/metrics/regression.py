"""Errors of numbers of which some are missing."""

import torch
from torch import Tensor
from torchmetrics import MeanAbsoluteError, MeanSquaredError

__all__ = [
    "MaskedMeanAbsoluteError",
    "MaskedRootMeanSquaredError",
    "masked_mean_absolute_error",
    "masked_root_mean_squared_error",
]


def masked_mean_absolute_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the mean absolute error over the known targets.

    Args:
        prediction: any shape.
        target: the same shape, NaN where unknown.

    Example:
        >>> masked_mean_absolute_error(torch.tensor([1.0, 5.0]), torch.tensor([3.0, float("nan")]))
        tensor(2.)
    """
    known = ~torch.isnan(target)
    return (prediction[known] - target[known]).abs().mean()


def masked_root_mean_squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the root of the mean squared error over the known targets.

    Args:
        prediction: any shape.
        target: the same shape, NaN where unknown.

    Example:
        >>> masked_root_mean_squared_error(torch.tensor([1.0, 5.0]), torch.tensor([3.0, float("nan")]))
        tensor(2.)
    """
    known = ~torch.isnan(target)
    return (prediction[known] - target[known]).square().mean().sqrt()


class MaskedMeanAbsoluteError(MeanAbsoluteError):
    """Mean absolute error over the known targets; reduction over processes: sum of errors over sum of counts.

    The functional twin is :func:`masked_mean_absolute_error`.

    Example:
        >>> metric = MaskedMeanAbsoluteError()
        >>> metric.update(torch.tensor([1.0, 5.0]), torch.tensor([3.0, float("nan")]))
        >>> metric.compute()
        tensor(2.)
    """

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add one batch.

        Args:
            preds: any shape.
            target: the same shape, NaN where unknown.
        """
        known = ~torch.isnan(target)
        super().update(preds[known], target[known])


class MaskedRootMeanSquaredError(MeanSquaredError):
    """Root mean squared error over the known targets; reduction over processes: sum of squares over sum of counts.

    The functional twin is :func:`masked_root_mean_squared_error`.

    Example:
        >>> metric = MaskedRootMeanSquaredError()
        >>> metric.update(torch.tensor([1.0, 5.0]), torch.tensor([3.0, float("nan")]))
        >>> metric.compute()
        tensor(2.)
    """

    def __init__(self) -> None:
        super().__init__(squared=False)

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add one batch.

        Args:
            preds: any shape.
            target: the same shape, NaN where unknown.
        """
        known = ~torch.isnan(target)
        super().update(preds[known], target[known])
