"""Training of networks that forecast time series."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, Unpack, get_args

import torch
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from graphseq.core.errors import DataError
from graphseq.core.protocols import FittedNetwork, NamedSeries, SeriesSource, TeacherForcedNetwork
from graphseq.core.windows import WindowBatch
from graphseq.core.wrappers import unwrapped
from graphseq.metrics.forecasting import (
    AtStep,
    MaskedMeanSquaredLogError,
    MaskedSymmetricMeanAbsolutePercentageError,
    MeanAbsoluteScaledError,
)
from graphseq.metrics.regression import MaskedMeanAbsoluteError, MaskedRootMeanSquaredError
from graphseq.tasks.base import Stage, Step, Task, TaskOptions
from graphseq.tasks.objectives.quantities import Numbers, Quantiles
from graphseq.tasks.predictions import Column, PredictionRows

__all__ = ["Forecasting"]

Error = Literal["mae", "rmse", "mase", "smape", "msle"]

_ERRORS: dict[str, type[Metric]] = {
    "mae": MaskedMeanAbsoluteError,
    "rmse": MaskedRootMeanSquaredError,
    "mase": MeanAbsoluteScaledError,
    "smape": MaskedSymmetricMeanAbsolutePercentageError,
    "msle": MaskedMeanSquaredLogError,
}


class Forecasting(Task[WindowBatch]):
    r"""Minimise the error of forecasts of all steps of the horizon, in scaled values; report it in original units.

    .. math:: L = \frac{1}{|M|} \sum_{m \in M} \ell(f_m, y_m), \quad M = \{(b,s,t,k) : y_{bstk} \text{ is a number}\}

    Missing targets (NaN) are ignored in loss and metrics. Metrics are sums divided by counts, in float64, so that they
    depend neither on the batch size nor on how windows are distributed over processes.

    Each module of the network with a method ``fit_to(span)`` gets the training span once before the first step, and
    nothing after that span. A network with ``forward_with_target(x, target, share, known)`` is trained with teacher
    forcing.

    Procedure:
        1. forecast (B, S, Z, K) of the scaled windows; 2. mean loss over known targets; 3. one step of the optimiser.

    Logs:
        ``<stage>/loss`` in scaled values; ``val/<metric>`` in original units for each of ``metrics``, ``val/mae@3`` for
        step 3, ``val/mae[0]`` for the first variable, and the same for test; with quantiles the errors of the level
        nearest to 0.5, the first among equals.

    Args:
        model: network from scaled windows to scaled forecasts (B, S, Z, K), or with quantiles (B, S, Z, K, Q).
        loss: module from predictions and targets to losses of the same shape; default absolute error.
        quantiles: levels in (0, 1), ascending, for the pinball loss in place of ``loss``; None for point forecasts.
        metrics: errors to report: ``mae``, ``rmse``, ``mase`` (relative to the naive forecast), ``smape`` (in [0, 2]),
            ``msle`` (targets of at least 0 only).
        steps: predicted steps, from 1, whose mean absolute error is reported separately.
        variables: positions of predicted variables, from 0, whose mean absolute error is reported separately.
        teacher_forcing: share of the decoder's inputs that are true values at the start of training, in [0, 1].
        teacher_forcing_epochs: number of epochs after which this share has fallen linearly to 0, at least 1.
        options: arguments of :class:`Task`.

    Raises:
        ValueError: if an argument is out of range or unknown; in a step, if the network's output has another shape.
        TypeError: if ``loss`` is not a module, or teacher forcing is set for a network without ``forward_with_target``.
        DataError: in a step, if the batch is not a ``WindowBatch``.

    Example:
        >>> from graphseq.models import ReGENN
        >>> task = Forecasting(ReGENN(num_variables=3, window=8, horizon=4))
        >>> one = torch.ones(1, 1, 3)
        >>> batch = WindowBatch(torch.randn(2, 5, 8, 3), torch.randn(2, 5, 4, 3), loc=0 * one, scale=one)
        >>> int(task.step(batch).size)
        120
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        loss: nn.Module | None = None,
        quantiles: Sequence[float] | None = None,
        metrics: Sequence[Error] = ("mae", "rmse", "mase"),
        steps: Sequence[int] = (),
        variables: Sequence[int] = (),
        teacher_forcing: float = 0.0,
        teacher_forcing_epochs: int = 10,
        **options: Unpack[TaskOptions],
    ) -> None:
        super().__init__(model, **options)
        if loss is not None and not isinstance(loss, nn.Module):
            raise TypeError(f"loss is a {type(loss).__name__}; give a torch.nn.Module such as torch.nn.MSELoss")
        if loss is not None and (quantiles is not None or getattr(loss, "reduction", "none") != "none"):
            raise ValueError(
                f"loss is {loss!r} with quantiles={quantiles}; a loss is for point forecasts, and must keep the "
                "entries apart: torch.nn.MSELoss(reduction='none')"
            )
        unknown = [name for name in metrics if name not in get_args(Error)]
        if unknown or not metrics:
            raise ValueError(f"metrics is {list(metrics)}; give at least one of {', '.join(get_args(Error))}")
        if any(step < 1 for step in steps):
            raise ValueError(f"steps is {list(steps)}; predicted steps count from 1")
        if any(variable < 0 for variable in variables):
            raise ValueError(f"variables is {list(variables)}; positions of variables count from 0")
        if not 0 <= teacher_forcing <= 1 or teacher_forcing_epochs < 1:
            raise ValueError(
                f"teacher_forcing is {teacher_forcing} over {teacher_forcing_epochs} epochs; give a share in [0, 1] "
                "and at least one epoch"
            )
        if teacher_forcing and not isinstance(unwrapped(model), TeacherForcedNetwork):
            raise TypeError(
                f"teacher_forcing is {teacher_forcing}, but {type(unwrapped(model)).__name__} has no method "
                "forward_with_target(x, target, share, known); give 0, or a network that decodes step by step"
            )
        self.loss = nn.L1Loss(reduction="none") if loss is None else loss
        self.quantiles = None if quantiles is None else list(quantiles)
        self.target_kind = Numbers(measure=self.loss) if self.quantiles is None else Quantiles(self.quantiles)
        self.errors = list(metrics)
        self.steps = list(steps)
        self.variables = list(variables)
        self.teacher_forcing = teacher_forcing
        self.teacher_forcing_epochs = teacher_forcing_epochs

    def configure_metrics(self) -> MetricCollection:
        """Return the errors by name, and the mean absolute error of each of ``steps``."""
        metrics: dict[str, Metric | MetricCollection] = {name: _ERRORS[name]() for name in self.errors}
        metrics |= {f"mae@{step}": AtStep(MaskedMeanAbsoluteError(), step=step) for step in self.steps}
        metrics |= {f"mae[{place}]": AtStep(MaskedMeanAbsoluteError(), variable=place) for place in self.variables}
        collection = MetricCollection(metrics, compute_groups=False)
        # sums of millions of float32 errors would lose digits
        return collection.set_dtype(torch.float64)

    def on_fit_start(self) -> None:
        """Give the training span to the parts of the network that are fitted to it, unless a checkpoint is resumed."""
        # a fitted network may stand within another, such as one that reads windows relative to their last value
        fitted = [part for part in self.model.modules() if isinstance(part, FittedNetwork)]
        if not fitted or self.trainer.ckpt_path is not None:
            return
        data = self.datamodule
        if not isinstance(data, SeriesSource):
            raise DataError(
                f"{type(fitted[0]).__name__} is fitted to the training span, which the data do not give; pass a data "
                "module with training_span(), such as graphseq.data.SeriesDataModule"
            )
        span = data.training_span().to(self.device)
        for part in fitted:
            part.fit_to(span)

    def step(self, batch: WindowBatch, stage: Stage = "train") -> Step:
        """Return the loss of a batch over its known targets, in scaled values.

        Args:
            batch: batch of windows.
            stage: stage of the run; only training uses teacher forcing.
        """
        if not isinstance(batch, WindowBatch):
            raise DataError(
                f"a {type(batch).__name__} was given; forecasts need a WindowBatch, as WindowStore makes it"
            )
        share = self.teacher_forcing_share() if stage == "train" else 0.0
        network = unwrapped(self.model)
        if share > 0 and isinstance(network, TeacherForcedNetwork):
            output = network.forward_with_target(batch.x, batch.y, share, batch.known)
        else:
            output = self(batch)
        prediction, target = self.target_kind.align(output, batch.y, self.model)
        terms, sizes = self.target_kind.sample_losses(prediction, target)
        size = sizes.sum()
        return Step(terms.sum() / size.clamp(min=1), prediction, target, size)

    def teacher_forcing_share(self) -> float:
        """Return the share of true values among the decoder's inputs in the current epoch."""
        epoch = self.current_epoch if self._trainer is not None else 0
        return self.teacher_forcing * max(0.0, 1 - epoch / self.teacher_forcing_epochs)

    def record(self, stage: Literal["val", "test"], batch: WindowBatch, step: Step) -> None:
        """Log the loss of an evaluation batch, and update the metrics in original units.

        Args:
            stage: stage of the evaluation: ``val`` or ``test``.
            batch: batch that the step was computed from.
            step: result of :meth:`step` for the batch.
        """
        middle = step.prediction
        if self.quantiles is not None:
            distance = [abs(level - 0.5) for level in self.quantiles]
            middle = middle[..., distance.index(min(distance))]
        naive = torch.ones_like(batch.scale) if batch.naive is None else batch.naive
        original = replace(
            step,
            prediction=batch.restore(middle.detach()),
            target=_exact_zeros(batch.restore(step.target), batch.loc),
            metric_arguments={"naive": naive},
        )
        super().record(stage, batch, original)

    def predict_step(self, batch: WindowBatch, batch_idx: int) -> Tensor:
        """Return the forecast of a batch in original units."""
        return batch.restore(self(batch))

    def prediction_rows(self, batch: WindowBatch, output: Tensor, split: str, data: object = None) -> PredictionRows:
        """Return one row for each window, series and predicted step, in original units.

        Columns: ``series`` and ``step``, ``time`` where the series have times, and for each variable its target, empty
        where it is not known, and its prediction, or one column for each quantile. The split ``predict``, which lies
        ahead of the series, has no targets.

        Args:
            batch: batch of windows.
            output: result of :meth:`predict_step`.
            split: name of the split.
            data: data module, which may know the names and times.
        """
        windows, series, horizon, variables = batch.y.shape
        sample, row, step = (index.flatten() for index in torch.meshgrid(
            *(torch.arange(size) for size in (windows, series, horizon)), indexing="ij"))  # fmt: skip
        source = data if isinstance(data, NamedSeries) else None
        names = [str(n) for n in range(series)] if source is None else source.series_names
        columns: dict[str, Column] = {"series": [names[place] for place in row.tolist()], "step": step + 1}
        if source is not None and batch.start is not None:
            times = source.times_of(batch.start.cpu()[sample] + batch.x.shape[2] + step)
            columns |= {} if times is None else {"time": times}
        targets = batch.restore(batch.y).reshape(-1, variables)
        outputs = output.reshape(len(targets), variables, -1)
        for place in range(variables):
            name = str(place) if source is None else source.target_names[place]
            if split != "predict":  # not by the targets: all batches of a table need the same columns
                columns[f"target_{name}"] = targets[:, place]
            for number in range(outputs.shape[2]):
                level = "" if self.quantiles is None else f"_{self.quantiles[number]:g}"
                columns[f"prediction_{name}{level}"] = outputs[:, place, number]
        return PredictionRows(columns, sample=sample, count=windows)


def _exact_zeros(restored: Tensor, loc: Tensor) -> Tensor:
    """Return restored values with 0 where they are 0 up to rounding, as counts may be: they must not be negative."""
    rounding = 4 * torch.finfo(torch.float32).eps * loc.abs()
    return restored.masked_fill(restored.abs() <= rounding, 0.0)
