"""Errors of forecasts with missing targets: logarithmic, symmetric and scaled, and errors of a chosen step."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import MeanSquaredLogError, Metric, SymmetricMeanAbsolutePercentageError
from torchmetrics.wrappers.abstract import WrapperMetric

from graphseq.metrics.regression import OverKnownTargets, check_numbers, known_pairs

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


def _in_naive_units(prediction: Tensor, target: Tensor, naive: Tensor) -> tuple[Tensor, Tensor]:
    check_numbers(prediction=prediction, target=target, naive=naive)
    if prediction.shape != target.shape:
        raise ValueError(
            f"predictions are {tuple(prediction.shape)}, targets {tuple(target.shape)}; they must be equal"
        )
    # broadcasting must not add predictions, and the naive error of a variable is the same at all steps
    sizes = zip(reversed(naive.shape), reversed(target.shape), strict=False)
    fits = naive.dim() <= target.dim() and all(size in (1, whole) for size, whole in sizes)
    if not fits or (naive.dim() > 1 and naive.shape[-2] != 1):
        raise ValueError(f"naive is {tuple(naive.shape)} for targets {tuple(target.shape)}; it must be (S, 1, K)")
    if naive.device.type == "cpu" and bool((naive <= 0).any()):
        raise ValueError(
            f"naive reaches down to {float(naive.nan_to_num(torch.inf).min())}; errors of the naive forecast are above "
            "0: give NaN for a variable that was constant, which leaves it out"
        )
    wide = torch.promote_types(naive.dtype, torch.float32)
    return prediction / naive.to(wide), target / naive.to(wide)


def mean_absolute_scaled_error(prediction: Tensor, target: Tensor, naive: Tensor) -> Tensor:
    """Return the mean absolute error in units of the error of the naive forecast; NaN if no target is known.

    Source: Hyndman and Koehler (2006), "Another look at measures of forecast accuracy".

    Args:
        prediction: predictions (B, S, Z, K).
        target: targets of the same shape, NaN where unknown.
        naive: mean absolute error of the naive forecast over the training span, (S, 1, K); NaN leaves out a variable
            that was constant there.

    Raises:
        ValueError: if the shapes differ, or an error of the naive forecast is not above 0; on an accelerator its
            values are not read.
        TypeError: if one of them is not a tensor of real numbers.

    Example:
        >>> one = torch.ones(1, 1, 1, 1)
        >>> mean_absolute_scaled_error(3 * one, one, 4 * one[0])
        tensor(0.5000)
    """
    prediction, target = known_pairs(*_in_naive_units(prediction, target, naive))
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
        prediction, known = known_pairs(*_in_naive_units(preds, target, naive))
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
        ValueError: if ``step`` is below 1 or ``variable`` below 0; in an update, if they are beyond the forecast, or
            predictions and targets are not (B, S, Z, K) both.
        TypeError: if ``metric`` is no metric.

    Example:
        >>> from graphseq.metrics import MaskedMeanAbsoluteError
        >>> metric = AtStep(MaskedMeanAbsoluteError(), step=2)
        >>> metric.update(torch.tensor([1.0, 5.0]).view(1, 1, 2, 1), torch.zeros(1, 1, 2, 1))
        >>> metric.compute()
        tensor(5.)
    """

    def __init__(self, metric: Metric, step: int | None = None, variable: int | None = None) -> None:
        super().__init__()
        if not isinstance(metric, Metric):
            given = f"the class {metric.__name__}" if isinstance(metric, type) else f"a {type(metric).__name__}"
            raise TypeError(f"metric is {given}; give a metric that is built, such as MaskedMeanAbsoluteError()")
        whole = all(place is None or isinstance(place, int) for place in (step, variable))
        if not whole or (step is not None and step < 1) or (variable is not None and variable < 0):
            raise ValueError(
                f"step is {step!r}, variable {variable!r}; steps are whole numbers from 1, variables from 0"
            )
        self.metric = metric
        self.step = step
        self.variable = variable

    def _pair(self, preds: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        # before a step is chosen: forecasts over different spans would have equal shapes afterwards
        if preds.shape != target.shape or preds.dim() != 4:
            raise ValueError(
                f"predictions are {tuple(preds.shape)}, targets {tuple(target.shape)}; both must be (B, S, Z, K)"
            )
        return self._chosen(preds), self._chosen(target)

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
        self.metric.update(*self._pair(preds, target))

    def compute(self) -> Tensor:
        """Return the value of the metric."""
        return self.metric.compute()

    def forward(self, preds: Tensor, target: Tensor) -> Tensor:
        """Add one batch, and return the value for it alone.

        Args:
            preds: predictions (B, S, Z, K).
            target: targets of the same shape.
        """
        return self.metric(*self._pair(preds, target))

    def merge_state(self, incoming_state: dict[str, Any] | Metric) -> None:
        """Add the batches that another such metric, or its state, has seen.

        Args:
            incoming_state: metric of the same kind, or the state of the metric inside.

        Raises:
            ValueError: if it is that of another step or variable.
        """
        if isinstance(incoming_state, AtStep):
            if (incoming_state.step, incoming_state.variable) != (self.step, self.variable):
                raise ValueError(
                    f"the other metric is that of step {incoming_state.step} and variable {incoming_state.variable}; "
                    f"this is that of step {self.step} and variable {self.variable}"
                )
            incoming_state = incoming_state.metric
        self.metric.merge_state(incoming_state)

    def reset(self) -> None:
        """Forget all batches."""
        super().reset()
        self.metric.reset()

    def set_dtype(self, dst_type: str | torch.dtype) -> Metric:
        """Set the type of the sums, which are those of the metric inside.

        Args:
            dst_type: floating-point type.
        """
        self.metric.set_dtype(dst_type)
        return super().set_dtype(dst_type)
