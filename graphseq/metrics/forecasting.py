"""Errors of forecasts with missing targets: logarithmic, symmetric and scaled, and errors of a chosen step."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import MeanSquaredLogError, Metric, SymmetricMeanAbsolutePercentageError
from torchmetrics.wrappers.abstract import WrapperMetric

from graphseq.metrics.regression import OverKnownTargets, known_pairs

__all__ = [
    "AtStep",
    "MaskedMeanSquaredLogError",
    "MaskedSymmetricMeanAbsolutePercentageError",
    "MeanAbsoluteScaledError",
    "masked_mean_squared_log_error",
    "masked_symmetric_mean_absolute_percentage_error",
    "mean_absolute_scaled_error",
]


def _not_negative(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    prediction, target = known_pairs(prediction, target)
    if target.numel() and float(target.min()) < 0:
        raise ValueError(
            f"target reaches down to {float(target.min())}; the squared logarithmic error needs targets of at least 0, "
            "such as counts. Take another metric"
        )
    return prediction.clamp(min=0), target


def masked_mean_squared_log_error(prediction: Tensor, target: Tensor) -> Tensor:
    r"""Return the mean of :math:`(\log(1 + p) - \log(1 + y))^2` over the known targets; NaN if there is none.

    Args:
        prediction: predictions of any shape; those below 0 count as 0.
        target: targets of at least 0 of the same shape, NaN where unknown.

    Raises:
        ValueError: if the shapes differ, or a target is negative.

    Example:
        >>> masked_mean_squared_log_error(torch.tensor([0.0, 5.0]), torch.tensor([0.0, float("nan")]))
        tensor(0.)
    """
    prediction, target = _not_negative(prediction, target)
    return (prediction.log1p() - target.log1p()).square().mean()


class MaskedMeanSquaredLogError(OverKnownTargets, MeanSquaredLogError):
    """Mean squared logarithmic error over the known targets; reduction: sum of errors over sum of counts.

    The functional twin is :func:`masked_mean_squared_log_error`.

    Example:
        >>> metric = MaskedMeanSquaredLogError()
        >>> metric.update(torch.tensor([0.0, 5.0]), torch.tensor([0.0, float("nan")]))
        >>> metric.compute()
        tensor(0.)
    """

    def chosen(self, preds: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the predictions and targets that count, flat.

        Args:
            preds: predictions of any shape; those below 0 count as 0.
            target: targets of at least 0 of the same shape, NaN where unknown.
        """
        return _not_negative(preds, target)


def masked_symmetric_mean_absolute_percentage_error(prediction: Tensor, target: Tensor) -> Tensor:
    r"""Return the mean of :math:`2 |p - y| / (|p| + |y|)` over the known targets, in [0, 2]; NaN if there is none.

    Args:
        prediction: predictions of any shape.
        target: targets of the same shape, NaN where unknown.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> masked_symmetric_mean_absolute_percentage_error(torch.tensor([1.0]), torch.tensor([3.0]))
        tensor(1.)
    """
    prediction, target = known_pairs(prediction, target)
    # both 0 is no error
    size = (prediction.abs() + target.abs()).clamp(min=1.17e-06)  # torchmetrics' constant
    return (2 * (prediction - target).abs() / size).mean()


class MaskedSymmetricMeanAbsolutePercentageError(OverKnownTargets, SymmetricMeanAbsolutePercentageError):
    """Symmetric absolute percentage error over the known targets; reduction: sum of errors over sum of counts.

    The functional twin is :func:`masked_symmetric_mean_absolute_percentage_error`.

    Example:
        >>> metric = MaskedSymmetricMeanAbsolutePercentageError()
        >>> metric.update(torch.tensor([1.0, 5.0]), torch.tensor([3.0, float("nan")]))
        >>> metric.compute()
        tensor(1.)
    """


def mean_absolute_scaled_error(prediction: Tensor, target: Tensor, naive: Tensor) -> Tensor:
    """Return the mean absolute error in units of the error of the naive forecast; NaN if no target is known.

    Source: Hyndman and Koehler (2006), "Another look at measures of forecast accuracy".

    Args:
        prediction: predictions (B, S, Z, K).
        target: targets of the same shape, NaN where unknown.
        naive: mean absolute error of the naive forecast over the training span, (S, 1, K); NaN leaves out a variable
            that was constant there.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> one = torch.ones(1, 1, 1, 1)
        >>> mean_absolute_scaled_error(3 * one, one, 4 * one[0])
        tensor(0.5000)
    """
    prediction, target = known_pairs(prediction / naive, target / naive)
    return (prediction - target).abs().mean()


class MeanAbsoluteScaledError(Metric):
    """Mean absolute scaled error over the known targets; reduction: sum of errors over sum of counts.

    The functional twin is :func:`mean_absolute_scaled_error`.

    Args:
        kwargs: arguments of ``torchmetrics.Metric``.

    Example:
        >>> metric = MeanAbsoluteScaledError()
        >>> metric.update(torch.full((1, 1, 1, 1), 3.0), torch.ones(1, 1, 1, 1), naive=torch.full((1, 1, 1), 4.0))
        >>> metric.compute()
        tensor(0.5000)
    """

    is_differentiable = True
    higher_is_better = False
    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("total", default=torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", default=torch.tensor(0), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor, naive: Tensor) -> None:
        """Add one batch.

        Args:
            preds: predictions (B, S, Z, K).
            target: targets of the same shape, NaN where unknown.
            naive: mean absolute error of the naive forecast, (S, 1, K).
        """
        prediction, known = known_pairs(preds / naive, target / naive)
        self.total += (prediction - known).abs().sum(dtype=torch.float64)
        self.count += known.numel()

    def compute(self) -> Tensor:
        """Return the mean; NaN without a known target."""
        return (self.total / self.count).float()


class AtStep(WrapperMetric):
    """A metric of forecasts at one predicted step, or of one variable, or both; reduction: that of the metric.

    Args:
        metric: metric of predictions and targets (B, S, Z, K).
        step: predicted step, from 1; None for all.
        variable: position of the variable, from 0; None for all.

    Raises:
        ValueError: if ``step`` is below 1 or ``variable`` below 0; in an update, if they are beyond the forecast.

    Example:
        >>> from graphseq.metrics import MaskedMeanAbsoluteError
        >>> metric = AtStep(MaskedMeanAbsoluteError(), step=2)
        >>> metric.update(torch.tensor([1.0, 5.0]).view(1, 1, 2, 1), torch.zeros(1, 1, 2, 1))
        >>> metric.compute()
        tensor(5.)
    """

    def __init__(self, metric: Metric, step: int | None = None, variable: int | None = None) -> None:
        super().__init__()
        if (step is not None and step < 1) or (variable is not None and variable < 0):
            raise ValueError(f"step is {step}, variable {variable}; steps count from 1, variables from 0")
        self.metric = metric
        self.step = step
        self.variable = variable

    def _chosen(self, values: Tensor) -> Tensor:
        for name, place, size in (("step", self.step, values.shape[-2]), ("variable", self.variable, values.shape[-1])):
            if place is not None and place >= size + (name == "step"):
                raise ValueError(f"{name} is {place}; the forecast has {size}")
        values = values if self.step is None else values[..., self.step - 1 : self.step, :]
        return values if self.variable is None else values[..., self.variable : self.variable + 1]

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add one batch.

        Args:
            preds: predictions (B, S, Z, K).
            target: targets of the same shape.
        """
        self.metric.update(self._chosen(preds), self._chosen(target))

    def compute(self) -> Tensor:
        """Return the value of the metric."""
        return self.metric.compute()

    def forward(self, preds: Tensor, target: Tensor) -> Tensor:
        """Add one batch, and return the value for it alone.

        Args:
            preds: predictions (B, S, Z, K).
            target: targets of the same shape.
        """
        return self.metric(self._chosen(preds), self._chosen(target))

    def reset(self) -> None:
        """Forget all batches."""
        super().reset()
        self.metric.reset()
