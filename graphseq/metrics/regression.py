"""Errors of regression with missing targets."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import MeanAbsoluteError, MeanSquaredError, Metric

__all__ = [
    "MaskedMeanAbsoluteError",
    "MaskedRootMeanSquaredError",
    "masked_mean_absolute_error",
    "masked_root_mean_squared_error",
]


def check_numbers(**values: Tensor) -> None:
    """Refuse anything but a tensor of real numbers.

    Args:
        **values: tensors by the names that messages give them.

    Raises:
        TypeError: if a value is not a tensor, or complex.

    Example:
        >>> check_numbers(prediction=torch.ones(3))
    """
    for name, value in values.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} is a {type(value).__name__}; give a tensor, such as by torch.as_tensor")
        if value.is_complex():
            raise TypeError(f"{name} is {value.dtype}; give real numbers")


def known_pairs(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return predictions and targets where the target is known, flat, in float32 or wider: half precision overflows."""
    check_numbers(prediction=prediction, target=target)
    if prediction.shape != target.shape:
        raise ValueError(
            f"predictions are {tuple(prediction.shape)}, targets {tuple(target.shape)}; they must be equal"
        )
    known = ~torch.isnan(target)
    wide = torch.promote_types(torch.promote_types(prediction.dtype, target.dtype), torch.float32)
    return prediction[known].to(wide), target[known].to(wide)


def masked_mean_absolute_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the mean absolute error over the known targets; NaN if there is none.

    Args:
        prediction: predictions of any shape.
        target: targets of the same shape, NaN where unknown.

    Raises:
        ValueError: if the shapes differ.
        TypeError: if they are not tensors of real numbers.

    Example:
        >>> masked_mean_absolute_error(torch.tensor([1.0, 5.0]), torch.tensor([3.0, float("nan")]))
        tensor(2.)
    """
    prediction, target = known_pairs(prediction, target)
    return (prediction - target).abs().mean()


def masked_root_mean_squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the root of the mean squared error over the known targets; NaN if there is none.

    Args:
        prediction: predictions of any shape.
        target: targets of the same shape, NaN where unknown.

    Raises:
        ValueError: if the shapes differ.
        TypeError: if they are not tensors of real numbers.

    Example:
        >>> masked_root_mean_squared_error(torch.tensor([1.0, 5.0]), torch.tensor([3.0, float("nan")]))
        tensor(2.)
    """
    prediction, target = known_pairs(prediction, target)
    return (prediction - target).square().mean().sqrt()


class OverKnownTargets(Metric):
    """Base that stands before a metric of torchmetrics, and gives it the known targets and their predictions only."""

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add one batch.

        Args:
            preds: predictions of any shape.
            target: targets of the same shape, NaN where unknown.
        """
        super().update(*self.chosen(preds, target))  # type: ignore[safe-super]  # of the metric that stands after this

    def chosen(self, preds: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the predictions and targets that count, flat.

        Args:
            preds: predictions of any shape.
            target: targets of the same shape, NaN where unknown.
        """
        return known_pairs(preds, target)


class MaskedMeanAbsoluteError(OverKnownTargets, MeanAbsoluteError):
    """Mean absolute error over the known targets; reduction over processes: sum of errors over sum of counts.

    The functional twin is :func:`masked_mean_absolute_error`.

    Example:
        >>> metric = MaskedMeanAbsoluteError()
        >>> metric.update(torch.tensor([1.0, 5.0]), torch.tensor([3.0, float("nan")]))
        >>> metric.compute()
        tensor(2.)
    """


class MaskedRootMeanSquaredError(OverKnownTargets, MeanSquaredError):
    """Root mean squared error over the known targets; reduction over processes: sum of squares over sum of counts.

    The functional twin is :func:`masked_root_mean_squared_error`.

    Args:
        kwargs: further arguments of ``torchmetrics.Metric``.

    Example:
        >>> metric = MaskedRootMeanSquaredError()
        >>> metric.update(torch.tensor([1.0, 5.0]), torch.tensor([3.0, float("nan")]))
        >>> metric.compute()
        tensor(2.)
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(squared=False, **kwargs)
