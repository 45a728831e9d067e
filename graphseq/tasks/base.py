"""Base class of all training procedures: steps, logging, optimisers, checkpoints."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, Self, TypedDict

import torch
import torch.distributed
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.types import LRSchedulerConfigType, OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics import MetricCollection

from graphseq import __version__
from graphseq.core.batches import apply_model
from graphseq.core.elastic import adopt_sizes
from graphseq.core.errors import UnsupportedStrategyError
from graphseq.core.spec import record_foreign_modules
from graphseq.tasks.averaging import averages_weights, keep_state, named_statistics
from graphseq.tasks.checkpoints import Noted, check_checkpoint, generator_states, restore_generator_states
from graphseq.tasks.precision import check_epsilon
from graphseq.tasks.resumption import restore_checkpoint_choices, restore_early_stop

__all__ = ["Stage", "Step", "Task", "TaskOptions"]

Stage = Literal["train", "val", "test"]
"""What a step is taken for; also the name of the split and the first part of every logged name."""


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
        scheduler_interval: whether the scheduler steps once an ``epoch`` or once a ``step``; default ``epoch``.
        stop_on_nonfinite: whether a NaN or infinite training loss stops the run; default true. On a GPU the loss is
            read where losses are logged, so that no step waits for it.

    Example:
        >>> options: TaskOptions = {"scheduler_interval": "step"}
    """

    optimizer: OptimizerCallable | None
    scheduler: LRSchedulerCallable | None
    scheduler_interval: Literal["epoch", "step"]
    stop_on_nonfinite: bool


class Task(Noted, LightningModule):
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

    A subclass with further arguments takes those of this class by ``**options: Unpack[TaskOptions]`` and passes them
    on; the command line shows each of them.

    Args:
        model: the network.
        optimizer: callable from parameters to an optimiser; default ``torch.optim.Adam`` with its own defaults.
        scheduler: callable from the optimiser to a learning-rate scheduler; default no scheduler.
        scheduler_interval: whether the scheduler steps once an ``epoch`` or once a ``step``.
        stop_on_nonfinite: whether a NaN or infinite training loss stops the run. On a GPU the loss is read where
            losses are logged, so that no step waits for it.

    Raises:
        TypeError: if ``model`` is no module, ``optimizer`` or ``scheduler`` cannot be called, or the ``step`` of a
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
    _is_averaged = False

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
        for name, value in (("optimizer", optimizer), ("scheduler", scheduler)):
            if value is not None and not callable(value):
                raise TypeError(
                    f"{name} is {value!r}; give a callable such as functools.partial(torch.optim.Adam, lr=1e-3)"
                )
        if scheduler_interval not in ("epoch", "step"):
            raise ValueError(f"scheduler_interval is {scheduler_interval!r}; it must be 'epoch' or 'step'")
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
        self._saved_generators: list[dict[str, Any]] | None = None
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

    def step(self, batch: Any, stage: Stage = "train") -> Step:
        """Return loss, prediction and target of one batch, without logging and without an optimiser step.

        Args:
            batch: one batch.
            stage: stage of the run: ``train``, ``val`` or ``test``.
        """
        raise TypeError(f"{type(self).__name__} must define step(batch, stage)")

    def configure_metrics(self) -> MetricCollection | None:
        """Return the metrics of validation and test, without prefix; called once before the run."""
        return None

    def record(self, stage: Literal["val", "test"], batch: Any, step: Step) -> None:
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

    def forward(self, batch: Any) -> Any:
        """Return the network's output for a batch, as :func:`graphseq.core.apply_model` calls it.

        Args:
            batch: one batch; the network takes the fields its ``forward`` names.
        """
        return apply_model(self.model, batch)

    def configure_callbacks(self) -> list[Callback]:
        """Return no callback; record whether a callback of the trainer averages weights."""
        self._is_averaged = averages_weights(self._trainer)
        return []

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """Yield all buffers; during a run with a weight-averaging callback, only those that may be averaged.

        Such a callback averages, swaps and copies all tensors of ``parameters()`` and ``buffers()``.

        Args:
            recurse: whether to include buffers of submodules.
        """
        if self._is_averaged:
            return (buffer for _, buffer in named_statistics(self))
        return super().buffers(recurse)

    def teardown(self, stage: str) -> None:
        """Make :meth:`buffers` yield all buffers again."""
        self._is_averaged = False

    def setup(self, stage: str) -> None:
        """Build the metrics of validation and test."""
        if averages_weights(self._trainer) and not self._is_averaged:
            raise UnsupportedStrategyError(
                f"{type(self).__name__}.configure_callbacks does not call super().configure_callbacks(); without it "
                "the callback that averages weights would average memories, masks and counters too"
            )
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

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss of one batch with penalties, weighted by the size of each process's share of the batch."""
        return self.total_loss(self.step(batch, "train"), batch_idx)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Log the loss and metrics of a validation batch."""
        self.record("val", batch, self.step(batch, "val"))

    def test_step(self, batch: Any, batch_idx: int) -> None:
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

    def predict_step(self, batch: Any, batch_idx: int) -> Any:
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
        total = torch.as_tensor(size, dtype=torch.float64, device=self.device).clone()
        mine = total.clone()
        torch.distributed.all_reduce(total)
        # without known targets on any process all losses are 0, and the factor may be 0 as well
        return (mine * self.trainer.world_size / total.clamp(min=torch.finfo(total.dtype).tiny)).to(dtype)

    def _watch(self, loss: Tensor, batch_idx: int) -> None:
        if not self.stop_on_nonfinite:
            return
        fresh = (self._bad_batch < 0) & ~torch.isfinite(loss.detach())
        self._bad_batch.copy_(torch.where(fresh, batch_idx, self._bad_batch))
        every = getattr(self._trainer, "log_every_n_steps", 1)  # the trainer sets this attribute dynamically
        if loss.device.type == "cpu" or (every and (batch_idx + 1) % every == 0):
            self._stop_if_bad()

    def _stop_if_bad(self) -> None:
        batch_idx = int(self._bad_batch)
        if batch_idx < 0:
            return
        self._bad_batch.fill_(-1)
        bad = (name for name, value in self.named_parameters() if not bool(torch.isfinite(value).all()))
        first = next(bad, None)
        where = (
            f"the first parameter with such a value is {first}"
            if first
            else "all parameters are finite, so look at the data"
        )
        raise FloatingPointError(
            f"the training loss became NaN or infinite in epoch {self.current_epoch if self._trainer else 0}, "
            f"batch {batch_idx}, step {self.global_step if self._trainer else 0}; {where}. "
            "Lower the learning rate or clip gradients; stop_on_nonfinite=False continues regardless"
        )

    def on_train_epoch_end(self) -> None:
        """Raise if a loss of this epoch was not finite."""
        if self.stop_on_nonfinite:
            self._stop_if_bad()

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
        if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            entry["monitor"] = vars(scheduler).get("monitor", self.monitor)
        return {"optimizer": optimizer, "lr_scheduler": entry}

    def make_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """Return the optimiser that the argument ``optimizer`` builds for some parameters.

        Args:
            parameters: parameters to optimise, at least one.
        """
        if not parameters:
            raise ValueError(
                f"no parameter of {type(self.model).__name__} requires a gradient; there is nothing to train"
            )
        optimizer = torch.optim.Adam(parameters) if self.optimizer is None else self.optimizer(parameters)
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise TypeError(f"optimizer returned a {type(optimizer).__name__}; it must return a torch.optim.Optimizer")
        check_epsilon(optimizer, replace=self.optimizer is None)
        return optimizer

    def make_scheduler(
        self, optimizer: torch.optim.Optimizer
    ) -> torch.optim.lr_scheduler.LRScheduler | torch.optim.lr_scheduler.ReduceLROnPlateau | None:
        """Return the scheduler that the argument ``scheduler`` builds for an optimiser; None if there is no scheduler.

        Args:
            optimizer: optimiser that :meth:`make_optimizer` returned.
        """
        if self.scheduler is None:
            return None
        scheduler = self.scheduler(optimizer)
        kinds = (torch.optim.lr_scheduler.LRScheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)
        if not isinstance(scheduler, kinds):
            raise TypeError(f"scheduler returned a {type(scheduler).__name__}; it must return a torch LRScheduler")
        return scheduler

    # checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the version and the state of every random generator of every process."""
        states = generator_states(self._trainer)
        keep_state(self, checkpoint)
        checkpoint["graphseq"] = {"version": __version__, "generators": states, "left_out": self._left_out}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that the checkpoint belongs to this task and network, and keep its generator states.

        Raises:
            CheckpointError: if it does not; the message names the difference.
        """
        adopt_sizes(self, checkpoint["state_dict"])
        check_checkpoint(self, self._record, checkpoint)
        if "graphseq" in checkpoint:
            self._saved_generators = checkpoint["graphseq"]["generators"]
        if self._trainer is not None and self.trainer.state.fn == "fit":
            restore_checkpoint_choices(self.trainer, checkpoint)
            restore_early_stop(self.trainer, checkpoint)

    def on_train_start(self) -> None:
        """Restore the generators from the checkpoint, after all set-up that draws random numbers."""
        if self._saved_generators is not None:
            restore_generator_states(self._saved_generators, self.trainer.global_rank, self.trainer.world_size)
            self._saved_generators = None

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **kwargs: Any) -> Self:
        """Build the task from a checkpoint; :func:`graphseq.load` does it without naming the class."""
        record_foreign_modules()
        kwargs.setdefault("weights_only", True)
        return super().load_from_checkpoint(checkpoint_path, *args, **kwargs)


def _count(step: Step) -> int:
    return step.size  # type: ignore[return-value]  # Lightning takes a tensor as well, and does not wait for it
