"""Base class of all training procedures: the step, its logging, and the optimiser."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypedDict

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.types import LRSchedulerConfigType, OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torchmetrics import MetricCollection
from typing_extensions import TypeVar

from graphseq.core.batches import apply_model
from graphseq.tasks.averaging import AveragesParameters
from graphseq.tasks.checkpoints import Checkpointed
from graphseq.tasks.finite import note_bad_loss, stop_at_bad_loss
from graphseq.tasks.optimizers import build_optimizer, build_scheduler, check_callables
from graphseq.tasks.predictions import Predicting
from graphseq.tasks.processes import share_of_processes

__all__ = ["Stage", "Step", "Task", "TaskOptions"]

BatchT = TypeVar("BatchT", default=Any)
"""Type of the batches of a procedure."""

Stage = Literal["train", "val", "test"]
"""Stage of a run; also the name of the split and the first part of every logged name."""


@dataclass
class Step:
    """Loss and predictions of one batch.

    Args:
        loss: mean over ``size`` terms, a scalar with a gradient.
        prediction: predictions that the metrics take.
        target: targets that the metrics take.
        size: denominator of the mean loss: a count of samples, labelled nodes or known labels, or the sum of their
            weights.
        logged: further scalars to log, by name; ``loss`` is always logged.
        metric_arguments: further arguments of the ``update`` of metrics, by name; each metric gets those it names.

    Raises:
        ValueError: if the loss is not a scalar.

    Example:
        >>> Step(torch.tensor(0.5), torch.zeros(2), torch.zeros(2), 2).size
        2
    """

    loss: Tensor
    prediction: Tensor
    target: Tensor
    size: int | Tensor
    logged: dict[str, Tensor] = field(default_factory=dict)
    metric_arguments: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the loss."""
        if self.loss.dim() != 0:
            raise ValueError(f"the loss is {tuple(self.loss.shape)}; it must be one number, the mean over its terms")


class TaskOptions(TypedDict, total=False):
    """Arguments that every task passes on to :class:`Task`, for ``**options: Unpack[TaskOptions]``.

    Args:
        optimizer: callable from parameters to an optimiser; default ``torch.optim.Adam`` with its own defaults
            (with eps=1e-4 in float16, where the default would round to 0).
        scheduler: callable from the optimiser to a learning-rate scheduler; default no scheduler.
        scheduler_interval: whether the scheduler steps once per ``epoch`` or once per ``step``; default ``epoch``.
        stop_on_nonfinite: whether a NaN or infinite training loss stops the run; default true. On a GPU the loss is
            read where losses are logged, so that no step waits for it.

    Example:
        >>> options: TaskOptions = {"scheduler_interval": "step"}
    """

    optimizer: OptimizerCallable | None
    scheduler: LRSchedulerCallable | None
    scheduler_interval: Literal["epoch", "step"]
    stop_on_nonfinite: bool


class Task(Checkpointed, AveragesParameters, Predicting, LightningModule, Generic[BatchT]):
    """Base class of training procedures; the network is an argument and is always called ``model``.

    A subclass defines :meth:`step` and :meth:`configure_metrics`. This class defines the three Lightning steps, logging
    under ``<stage>/<metric>``, optimiser and scheduler, penalties, the weighting by which several processes give the
    result of one, and the contents of checkpoints from which a stopped run continues bit for bit.

    A checkpoint holds the constructor call as plain data (see :class:`graphseq.core.Recorded`) and no pickled
    object; :func:`graphseq.load` opens it. ``penalties`` maps a name to a bound method ``(task) -> Tensor`` that is
    added to the training loss and logged as ``train/penalty/<name>``; callbacks set entries in their ``setup`` and
    remove them in ``teardown``.

    A procedure with several optimisers sets ``automatic_optimization = False``, overrides ``training_step``, and
    steps only through ``self.optimizers()``: steps of an optimiser without Lightning's wrapper are not counted, and no
    checkpoint is written.

    Callbacks that average weights, such as Lightning's ``EMAWeightAveraging``, average parameters and the running
    statistics of norms. All other buffers are state of the run and stay as they are: memories, queues, masks, counters.

    The type parameter is that of the batches that a procedure takes: ``Task[EventBatch]``; plain ``Task`` takes any.

    A subclass with further arguments takes those of this class by ``**options: Unpack[TaskOptions]`` and passes them
    on; the command line shows each of them.

    Args:
        model: the network.
        optimizer: callable from parameters to an optimiser; default ``torch.optim.Adam`` with its own defaults.
        scheduler: callable from the optimiser to a learning-rate scheduler; default no scheduler.
        scheduler_interval: whether the scheduler steps once per ``epoch`` or once per ``step``.
        stop_on_nonfinite: whether a NaN or infinite training loss stops the run. On a GPU the loss is read where
            losses are logged, so that no step waits for it.

    Raises:
        TypeError: if ``model`` is not a module, ``optimizer`` or ``scheduler`` cannot be called, or the ``step`` of a
            subclass does not take the stage.

    Example:
        >>> class Fit(Task):
        ...     def step(self, batch, stage="train"):
        ...         x, y = batch
        ...         prediction = self.model(x)
        ...         return Step((prediction - y).square().mean(), prediction, y, len(y))
        >>> Fit(nn.Linear(2, 1)).step((torch.ones(3, 2), torch.ones(3, 1))).size
        3
    """

    _bad_batch: Tensor

    monitor: str = "val/loss"
    mode: Literal["min", "max"] = "min"

    def __init__(
        self,
        model: nn.Module,
        *,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
        scheduler_interval: Literal["epoch", "step"] = "epoch",
        stop_on_nonfinite: bool = True,
    ) -> None:
        super().__init__()
        if not isinstance(model, nn.Module):
            raise TypeError(f"model is a {type(model).__name__}; it must be a torch.nn.Module")
        check_callables(optimizer, scheduler, scheduler_interval)
        try:
            inspect.signature(self.step).bind("batch", "train")
        except TypeError as error:
            raise TypeError(
                f"{type(self).__name__}.step{inspect.signature(self.step)} does not take the stage; define "
                "step(self, batch, stage), where stage is 'train', 'val' or 'test'"
            ) from error
        self.model = model
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.scheduler_interval = scheduler_interval
        self.stop_on_nonfinite = stop_on_nonfinite
        self.penalties: dict[str, Callable[[Task], Tensor]] = {}
        self._metrics = nn.ModuleDict()
        # number of the first training batch with a bad loss, or -1
        self.register_buffer("_bad_batch", torch.tensor(-1), persistent=False)
        if self._record is not None:
            LightningModule.save_hyperparameters(
                self,
                {
                    "_class_path": self._record["class_path"],
                    **self._record["init_args"],
                    "_instantiator": "lightning.pytorch.cli.instantiate_module",
                },
            )

    def save_hyperparameters(self, *args: object, **kwargs: object) -> None:
        """Do nothing: the constructor call is recorded as plain data already; Lightning would record modules."""

    # defined by each procedure

    def step(self, batch: BatchT, stage: Stage = "train") -> Step:
        """Return loss, prediction and target of one batch, without logging and without an optimiser step.

        Args:
            batch: one batch.
            stage: stage of the run: ``train``, ``val`` or ``test``.
        """
        raise TypeError(f"{type(self).__name__} must define step(batch, stage)")

    def configure_metrics(self) -> MetricCollection | None:
        """Return the metrics of validation and test, without prefix; called once before the run."""
        return None

    def record(self, stage: Literal["val", "test"], batch: BatchT, step: Step) -> None:
        """Log the loss of an evaluation batch and update the metrics with it.

        Args:
            stage: stage of the evaluation: ``val`` or ``test``.
            batch: batch that the step was computed from.
            step: result of :meth:`step` for the batch.
        """
        self._log({f"{stage}/loss": step.loss}, step, stage)
        metrics = self.metrics(stage)
        if metrics is not None:
            metrics.update(step.prediction.detach(), step.target, **step.metric_arguments)
            self.log_dict(metrics, batch_size=_count(step), on_step=False, on_epoch=True, prog_bar=True)

    # common to all procedures

    def forward(self, batch: BatchT) -> object:
        """Return the network's output for a batch, as :func:`graphseq.core.apply_model` calls it.

        Args:
            batch: one batch; the network takes the fields its ``forward`` names.
        """
        return apply_model(self.model, batch)

    def setup(self, stage: str) -> None:
        """Build the metrics of validation and test."""
        super().setup(stage)
        if not self._metrics:
            metrics = self.configure_metrics()
            if metrics is not None:
                self._metrics["val"] = metrics.clone(prefix="val/")
                self._metrics["test"] = metrics.clone(prefix="test/")

    def metrics(self, stage: Literal["val", "test"]) -> MetricCollection | None:
        """Return the metrics of an evaluation, with their prefix; None if there are none, or before :meth:`setup`.

        Args:
            stage: stage of the evaluation: ``val`` or ``test``.
        """
        metrics = dict(self._metrics.items()).get(stage)
        return metrics if isinstance(metrics, MetricCollection) else None

    @property
    def datamodule(self) -> object:
        """Data module of the run; None if the trainer was given loaders instead."""
        return getattr(self._trainer, "datamodule", None)  # the trainer has this attribute only in a run

    def training_step(self, batch: BatchT, batch_idx: int) -> Tensor:
        """Return the loss of one batch with penalties, weighted by the size of each process's share of the batch."""
        return self.total_loss(self.step(batch, "train"), batch_idx)

    def validation_step(self, batch: BatchT, batch_idx: int) -> None:
        """Log the loss and metrics of a validation batch."""
        self.record("val", batch, self.step(batch, "val"))

    def test_step(self, batch: BatchT, batch_idx: int) -> None:
        """Log the loss and metrics of a test batch."""
        self.record("test", batch, self.step(batch, "test"))

    def on_validation_epoch_start(self) -> None:
        """Reset the metrics."""
        self._reset_metrics("val")

    def on_test_epoch_start(self) -> None:
        """Reset the metrics."""
        self._reset_metrics("test")

    def _reset_metrics(self, stage: Literal["val", "test"]) -> None:
        # Lightning resets at the end of an evaluation, in inference mode, which validation in a fit is not: metrics
        # that add in place could not write into such a state
        metrics = self.metrics(stage)
        if metrics is not None:
            metrics.reset()

    def predict_step(self, batch: BatchT, batch_idx: int) -> object:
        """Return the network's output for a batch."""
        return self(batch)

    def total_loss(self, step: Step, batch_idx: int) -> Tensor:
        """Log and check the loss, and return it with penalties and weighted over processes, for the optimiser.

        Args:
            step: result of :meth:`step` for a training batch.
            batch_idx: number of the batch in its epoch.

        Raises:
            FloatingPointError: if the loss is not finite and ``stop_on_nonfinite`` is set.
        """
        loss = step.loss
        logged = {"train/loss": loss.detach()}
        for name, penalty in self.penalties.items():
            value = penalty(self)
            logged[f"train/penalty/{name}"] = value.detach()
            loss = loss + value
        self._watch(loss, batch_idx)
        self._log(logged, step, "train")
        return loss * self._share(step.size, loss.dtype)

    def _log(self, values: dict[str, Tensor], step: Step, stage: Stage) -> None:
        size = _count(step)
        self.log_dict(values, batch_size=size, on_step=False, on_epoch=True, prog_bar=True, sync_dist=True)
        if step.logged:
            named = {f"{stage}/{name}": value.detach() for name, value in step.logged.items()}
            self.log_dict(named, batch_size=size, on_step=False, on_epoch=True, sync_dist=True)

    def _share(self, size: int | Tensor, dtype: torch.dtype) -> Tensor | float:
        """Return the factor that turns DDP's mean over processes into the mean over all samples."""
        if self._trainer is None or self.trainer.world_size == 1:
            return 1.0
        return share_of_processes(size, self.trainer.world_size, self.device, dtype)

    def _watch(self, loss: Tensor, batch_idx: int) -> None:
        if not self.stop_on_nonfinite:
            return
        note_bad_loss(self._bad_batch, loss, batch_idx)
        every = getattr(self._trainer, "log_every_n_steps", 1)  # the trainer sets this attribute dynamically
        if loss.device.type == "cpu" or (every and (batch_idx + 1) % every == 0):
            stop_at_bad_loss(self, self._bad_batch)

    def on_train_epoch_end(self) -> None:
        """Raise if a loss of this epoch was not finite."""
        if self.stop_on_nonfinite:
            stop_at_bad_loss(self, self._bad_batch)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimiser over the parameters that require a gradient, and the scheduler if there is one.

        Raises:
            ValueError: if no parameter requires a gradient.
            TypeError: if the callables do not return an optimiser and a scheduler.
        """
        optimizer = self.make_optimizer([parameter for parameter in self.parameters() if parameter.requires_grad])
        scheduler = self.make_scheduler(optimizer)
        if scheduler is None:
            return optimizer
        entry: LRSchedulerConfigType = {"scheduler": scheduler, "interval": self.scheduler_interval}
        if isinstance(scheduler, ReduceLROnPlateau):
            entry["monitor"] = vars(scheduler).get("monitor", self.monitor)
        return {"optimizer": optimizer, "lr_scheduler": entry}

    def make_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """Return the optimiser that the argument ``optimizer`` builds for some parameters.

        Args:
            parameters: parameters to optimise, at least one.
        """
        return build_optimizer(self.optimizer, parameters, self.model)

    def make_scheduler(self, optimizer: torch.optim.Optimizer) -> LRScheduler | ReduceLROnPlateau | None:
        """Return the scheduler that the argument ``scheduler`` builds for an optimiser; None if there is no scheduler.

        Args:
            optimizer: optimiser that :meth:`make_optimizer` returned.
        """
        return build_scheduler(self.scheduler, optimizer)


def _count(step: Step) -> int:
    return step.size  # type: ignore[return-value]  # Lightning takes a tensor as well, and does not wait for it
