"""The base of every training procedure: steps, logging, optimisers, random state, checkpoints."""

import functools
import inspect
import os
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, cast

import torch
import torch.distributed
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torchmetrics import MetricCollection

from graphseq import __version__
from graphseq.core.batches import apply_model
from graphseq.core.errors import CheckpointError
from graphseq.core.random import capture_generators, restore_generators
from graphseq.core.spec import Recorded, import_path, record_foreign_modules, to_spec
from graphseq.tasks.resumption import restore_checkpoint_choices, restore_early_stop

__all__ = ["Step", "Task", "load"]

Stage = Literal["train", "val", "test"]


@dataclass
class Step:
    """What one batch gave.

    Args:
        loss: mean over ``size`` terms, a scalar with a gradient.
        prediction: what metrics compare with the target.
        target: what metrics compare the prediction with.
        size: number of terms of the loss: samples, labelled nodes, known labels; their weights added up where the
            mean is a weighted one.

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

    def __post_init__(self) -> None:
        """Check the loss."""
        if self.loss.dim() != 0:
            raise ValueError(f"the loss is {tuple(self.loss.shape)}; it must be one number, the mean over its terms")


class _Gaps(Recorded):
    """Notes also which arguments could not be noted. Not part of Task: jsonargparse prefers `__new__` to `__init__`."""

    _left_out: list[str]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        self = cast(Self, super().__new__(cls, *args, **kwargs))
        given = [*list(inspect.signature(cls.__init__).parameters)[1 : len(args) + 1], *kwargs]
        noted = self._record["init_args"] if self._record else given
        self.__dict__["_left_out"] = [name for name in given if name not in noted]
        return self


class Task(_Gaps, LightningModule):
    """Base of the training procedures; the network is handed in and is always called ``model``.

    A subclass writes :meth:`step` and :meth:`configure_metrics`. Written here once: the three Lightning steps,
    logging under ``<stage>/<metric>``, optimiser and scheduler, penalties, the weighting that makes several
    processes equal one, and everything a checkpoint needs so that a stopped run continues bit for bit.

    A checkpoint holds the constructor call as plain data (see :class:`graphseq.core.Recorded`) and no pickled
    object; :func:`graphseq.load` opens it. ``penalties`` maps a name to a bound method ``(task) -> Tensor`` that is
    added to the training loss and logged as ``train/penalty/<name>``; callbacks set entries in their ``setup`` and
    remove them in ``teardown``.

    A procedure with several optimisers sets ``automatic_optimization = False``, overrides ``training_step``, and
    steps only through ``self.optimizers()``: steps of a raw optimiser are not counted, and no checkpoint is written.

    Args:
        model: the network.
        optimizer: callable from parameters to an optimiser; default ``torch.optim.Adam`` with its own defaults.
        scheduler: callable from the optimiser to a learning-rate scheduler; default none.
        scheduler_interval: whether the scheduler steps once an ``epoch`` or once a ``step``.
        stop_on_nonfinite: whether a NaN or infinite training loss stops the run. On a GPU it is read where losses
            are logged, so that no step waits for it.

    Raises:
        TypeError: if ``model`` is no module, or ``optimizer`` or ``scheduler`` cannot be called.

    Example:
        >>> class Fit(Task):
        ...     def step(self, batch):
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
        for name, value in (("optimizer", optimizer), ("scheduler", scheduler)):
            if value is not None and not callable(value):
                raise TypeError(
                    f"{name} is {value!r}; give a callable such as functools.partial(torch.optim.Adam, lr=1e-3)"
                )
        if scheduler_interval not in ("epoch", "step"):
            raise ValueError(f"scheduler_interval is {scheduler_interval!r}; it must be 'epoch' or 'step'")
        self.model = model
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.scheduler_interval = scheduler_interval
        self.stop_on_nonfinite = stop_on_nonfinite
        self.penalties: dict[str, Callable[[Task], Tensor]] = {}
        self.stage: Stage = "train"
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

    def save_hyperparameters(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the constructor call is noted already, as plain data; this would put live modules in."""

    # what a procedure defines

    def step(self, batch: Any) -> Step:
        """Return loss, prediction and target of one batch; no logging, no optimiser. ``self.stage`` tells the stage.

        Args:
            batch: one batch.
        """
        raise TypeError(f"{type(self).__name__} must define step(batch)")

    def configure_metrics(self) -> MetricCollection | None:
        """Return the metrics of validation and test, without prefix; called once before the run."""
        return None

    # what every procedure has

    def forward(self, batch: Any) -> Any:
        """Return the network's output for a batch, as :func:`graphseq.core.apply_model` calls it.

        Args:
            batch: one batch; the network takes the fields its ``forward`` names.
        """
        return apply_model(self.model, batch)

    def setup(self, stage: str) -> None:
        """Build the metrics of validation and test."""
        if not self._metrics:
            metrics = self.configure_metrics()
            if metrics is not None:
                self._metrics["val"] = metrics.clone(prefix="val/")
                self._metrics["test"] = metrics.clone(prefix="test/")

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss of one batch with its penalties, weighted so that uneven shards count by their size."""
        self.stage = "train"
        step = self.step(batch)
        loss = step.loss
        logged = {"train/loss": loss.detach()}
        for name, penalty in self.penalties.items():
            value = penalty(self)
            logged[f"train/penalty/{name}"] = value.detach()
            loss = loss + value
        self._watch(loss, batch_idx)
        self.log_dict(
            logged, batch_size=cast(int, step.size), on_step=False, on_epoch=True, prog_bar=True, sync_dist=True
        )
        return loss * self._share(step.size, loss.dtype)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Log the loss and metrics of a validation batch."""
        self._evaluate("val", batch)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Log the loss and metrics of a test batch."""
        self._evaluate("test", batch)

    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        """Return the network's output for a batch."""
        return self(batch)

    def _evaluate(self, stage: Literal["val", "test"], batch: Any) -> None:
        self.stage = stage
        self._log_evaluation(stage, self.step(batch))

    def _log_evaluation(self, stage: Literal["val", "test"], step: Step) -> None:
        logged: dict[str, Any] = {f"{stage}/loss": step.loss}
        self.log_dict(
            logged, batch_size=cast(int, step.size), on_step=False, on_epoch=True, prog_bar=True, sync_dist=True
        )
        if stage in self._metrics:
            metrics = cast(MetricCollection, self._metrics[stage])
            metrics.update(step.prediction.detach(), step.target)
            self.log_dict(metrics, batch_size=cast(int, step.size), on_step=False, on_epoch=True, prog_bar=True)

    def _share(self, size: int | Tensor, dtype: torch.dtype) -> Tensor | float:
        """Return the factor that turns DDP's mean over processes into the mean over all samples."""
        if self._trainer is None or self.trainer.world_size == 1:
            return 1.0
        total = torch.as_tensor(size, dtype=torch.float64, device=self.device).clone()
        mine = total.clone()
        torch.distributed.all_reduce(total)
        # where nothing is known on any process the losses are 0, and their share may be 0 as well
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
        """Stop if a loss of this epoch was not finite."""
        if self.stop_on_nonfinite:
            self._stop_if_bad()

    def configure_optimizers(self) -> Any:
        """Return the optimiser over the parameters that require a gradient, and the scheduler if there is one.

        Raises:
            ValueError: if no parameter requires a gradient.
            TypeError: if the callables do not return an optimiser and a scheduler.
        """
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        if not parameters:
            raise ValueError(
                f"no parameter of {type(self.model).__name__} requires a gradient; there is nothing to train"
            )
        optimizer = torch.optim.Adam(parameters) if self.optimizer is None else self.optimizer(parameters)
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise TypeError(f"optimizer returned a {type(optimizer).__name__}; it must return a torch.optim.Optimizer")
        if self.scheduler is None:
            return optimizer
        scheduler = self.scheduler(optimizer)
        kinds = (torch.optim.lr_scheduler.LRScheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)
        if not isinstance(scheduler, kinds):
            raise TypeError(f"scheduler returned a {type(scheduler).__name__}; it must return a torch LRScheduler")
        entry: dict[str, Any] = {"scheduler": scheduler, "interval": self.scheduler_interval}
        if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            entry["monitor"] = vars(scheduler).get("monitor", self.monitor)
        return {"optimizer": optimizer, "lr_scheduler": entry}

    # checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the version and the state of every random generator of every process."""
        states: list[Any] = [capture_generators()]
        if self._trainer is not None and self.trainer.world_size > 1 and torch.distributed.is_initialized():
            states = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(states, capture_generators())
        checkpoint["graphseq"] = {"version": __version__, "generators": states, "left_out": self._left_out}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that the checkpoint is of this task and network, and note its generators for the start of training.

        Raises:
            CheckpointError: if it is not, saying what differs.
        """
        saved = checkpoint.get("hyper_parameters", {})
        mine = self._record or {"class_path": None, "init_args": {}}
        made_by = checkpoint.get("graphseq", {}).get("version")
        if saved.get("_class_path") not in (None, mine["class_path"]):
            raise CheckpointError(
                f"the checkpoint holds a {saved['_class_path']}, the run is a {mine['class_path']}; "
                "use the config it was trained with, or graphseq.load(path)"
            )
        own, given = self.state_dict(), checkpoint["state_dict"]
        different = [
            f"{name} is {_shape(given, name)} there and {_shape(own, name)} here"
            for name in sorted(set(own) | set(given))
            if _shape(own, name) != _shape(given, name)
        ]
        if different and self.strict_loading:
            more = f", and {len(different) - 3} more" if len(different) > 3 else ""
            plain = {name: value for name, value in saved.items() if not name.startswith("_")}
            there = {"class_path": saved.get("_class_path"), "init_args": plain}
            raise CheckpointError(
                f"the checkpoint (graphseq {made_by}) does not fit this {type(self).__name__} ({__version__}): "
                f"{'; '.join(different[:3])}{more}. Built with {_differences(there, mine)}"
            )
        if "graphseq" in checkpoint:
            self._saved_generators = checkpoint["graphseq"]["generators"]
        if self._trainer is not None and self.trainer.state.fn == "fit":
            restore_checkpoint_choices(self.trainer, checkpoint)
            restore_early_stop(self.trainer, checkpoint)

    def on_train_start(self) -> None:
        """Put the generators back to where the checkpoint left them, after everything that draws on the way here."""
        if self._saved_generators is None:
            return
        rank = self.trainer.global_rank
        if len(self._saved_generators) != self.trainer.world_size:
            warnings.warn(
                f"the checkpoint was made by {len(self._saved_generators)} processes, this run has "
                f"{self.trainer.world_size}: random numbers will differ from the uninterrupted run",
                stacklevel=2,
            )
        restore_generators(self._saved_generators[min(rank, len(self._saved_generators) - 1)])
        self._saved_generators = None

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **kwargs: Any) -> Self:
        """Build the task from a checkpoint; :func:`graphseq.load` does it without naming the class."""
        record_foreign_modules()
        kwargs.setdefault("weights_only", True)
        return super().load_from_checkpoint(checkpoint_path, *args, **kwargs)


def _shape(state: dict[str, Any], name: str) -> Any:
    if name not in state:
        return "absent"
    return tuple(state[name].shape) if isinstance(state[name], Tensor) else "an object"


def _with_defaults(value: Any) -> Any:
    """Complete the records inside a value with the defaults of their constructors, as loading does."""
    if not isinstance(value, dict):
        return value
    value = {name: _with_defaults(item) for name, item in value.items()}
    if isinstance(value.get("class_path"), str) and isinstance(value.get("init_args"), dict):
        try:
            owners = reversed(inspect.getmro(import_path(value["class_path"])))
        except (ImportError, AttributeError):  # gone, or no class
            return value
        # **kwargs hand arguments up to the classes above
        parameters = [p for owner in owners for p in inspect.signature(owner.__init__).parameters.values()]  # type: ignore[misc]
        defaults = {p.name: to_spec(p.default) for p in parameters if p.default is not inspect.Parameter.empty}
        value["init_args"] = {**defaults, **value["init_args"]}
    return value


def _differences(there: dict[str, Any], here: dict[str, Any]) -> str:
    """Name the first arguments that differ between two records, those of the network before others."""
    found: list[str] = []

    def walk(left: Any, right: Any, path: str) -> None:
        if isinstance(left, dict) and isinstance(right, dict):
            for key in sorted({*left, *right}, key=str):
                step = path if key == "init_args" else f"{path}.{key}" if path else str(key)
                walk(left.get(key, "not noted"), right.get(key, "not noted"), step)
        elif left != right and not isinstance(left, nn.Module):  # an override given to graphseq.load
            found.append(f"{path} = {left} there, {right} here")

    walk(_with_defaults(there), _with_defaults(here), "")
    found.sort(key=lambda text: not text.startswith("model"))
    same = "the same arguments: the code of the network has changed, or an argument that is not noted differs"
    return "; ".join(found[:4]) or same


def _noted_function(spec: Any) -> Callable[..., Any] | None:
    """Import a function, or a partial of one, from its note; classes and the like are left to jsonargparse."""
    path, arguments = (spec.get("class_path"), spec.get("init_args", {})) if isinstance(spec, dict) else (spec, {})
    target = import_path(path) if isinstance(path, str) else None
    if target is None or isinstance(target, type):
        return None
    return cast(Callable[..., Any], functools.partial(target, **arguments) if arguments else target)


def load(path: str | os.PathLike[str], map_location: Any = None, **override: Any) -> Task:
    """Return the task that a checkpoint holds, network, weights and all, whoever wrote it: script or command line.

    Args:
        path: checkpoint file.
        map_location: device of the weights, as ``torch.load`` takes it; default where they were.
        override: constructor arguments that replace or complete the noted ones, such as ``model=net`` for a
            network that could not be written as plain data. Without it such an argument takes its default, if it has
            one, and a warning names it.

    Raises:
        CheckpointError: if the file is not a checkpoint of graphseq, or does not fit the installed version.
        FileNotFoundError: if there is no such file.
        TypeError: if ``override`` names what is no argument of the task.

    Example:
        >>> import graphseq
        >>> graphseq.load("missing.ckpt")
        Traceback (most recent call last):
        FileNotFoundError: there is no checkpoint missing.ckpt
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no checkpoint {os.fspath(path)}")
    if not zipfile.is_zipfile(path):
        raise CheckpointError(f"{os.fspath(path)} is no checkpoint: it is damaged, or torch.save did not write it")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise CheckpointError(f"{os.fspath(path)} cannot be read as a checkpoint: {error}") from error
    saved = checkpoint.get("hyper_parameters", {}) if isinstance(checkpoint, dict) else {}
    if "_class_path" not in saved:
        raise CheckpointError(f"{os.fspath(path)} is no checkpoint of a graphseq task: nothing says how to build it")
    added = checkpoint.get("graphseq", {})
    made_by = added.get("version", "unknown")
    try:
        task_class = import_path(saved["_class_path"])
    except ImportError as error:
        raise CheckpointError(
            f"{os.fspath(path)} (graphseq {made_by}, installed {__version__}) holds a {saved['_class_path']}, "
            f"which cannot be imported: {error}"
        ) from error
    if not (isinstance(task_class, type) and issubclass(task_class, Task)):
        raise CheckpointError(f"{os.fspath(path)} names {saved['_class_path']}, which is not a graphseq task")
    parameters = inspect.signature(task_class.__init__).parameters
    unknown = [name for name in override if name not in parameters]
    if unknown and not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        raise TypeError(
            f"{task_class.__name__} has no argument {', '.join(unknown)}; it has {', '.join(list(parameters)[1:])}"
        )
    missing = [name for name in added.get("left_out", []) if name not in override]
    how = ", ".join(f"{name}=..." for name in missing or ["name"])
    try:
        for name in {"optimizer", "scheduler"} & set(saved) - set(override):
            function = _noted_function(saved[name])  # jsonargparse takes functions only with annotations
            if function is not None:
                override[name] = function
        task = task_class.load_from_checkpoint(path, map_location=map_location, **override)
    except (CheckpointError, FileNotFoundError):
        raise
    except Exception as error:
        raise CheckpointError(
            f"{os.fspath(path)} (graphseq {made_by}, installed {__version__}) could not be built again: {error}. "
            f"Give arguments that could not be noted, or must be others: graphseq.load(path, {how})"
        ) from error
    if missing:
        warnings.warn(
            f"{', '.join(missing)} of {task_class.__name__} could not be noted in {os.fspath(path)}, so the default is "
            f"used; to have what it was trained with: graphseq.load(path, {how})",
            stacklevel=2,
        )
    return task
