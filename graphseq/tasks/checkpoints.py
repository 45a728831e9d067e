"""Checkpoints of tasks: what is added to them, what is restored from them, and building a task from one."""

import functools
import inspect
import os
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self, get_args, get_origin, is_typeddict

import torch
import torch.distributed
from lightning.pytorch import LightningModule, Trainer
from torch.serialization import MAP_LOCATION

from graphseq import __version__
from graphseq.core.checkpoint import Checkpoint
from graphseq.core.elastic import adopt_sizes
from graphseq.core.errors import CheckpointError, constructor_message
from graphseq.core.random import GeneratorStates, capture_generators, restore_generators
from graphseq.core.spec import Recorded, import_path, record_foreign_modules
from graphseq.tasks.averaging import keep_state
from graphseq.tasks.compatibility import check_checkpoint, noted
from graphseq.tasks.resumption import restore_checkpoint_choices, restore_early_stop

if TYPE_CHECKING:
    from graphseq.tasks.base import Task

__all__ = ["load"]


class Noted(Recorded):
    """Records the constructor call, and the names of arguments that could not be recorded (``_left_out``).

    A base of ``Task`` and not a part of it, because jsonargparse prefers ``__new__`` to ``__init__`` where one class
    has both.

    Example:
        >>> class Scale(Noted):
        ...     def __init__(self, factor, function):
        ...         pass
        >>> import warnings
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")
        ...     Scale(2.0, lambda x: x)._left_out
        ['function']
    """

    _left_out: list[str]

    def __new__(cls, *args: object, **kwargs: object) -> Self:
        """Build the object and record the call."""
        self = super().__new__(cls, *args, **kwargs)
        given = [*list(inspect.signature(cls.__init__).parameters)[1 : len(args) + 1], *kwargs]
        noted = self._record["init_args"] if self._record else given
        self.__dict__["_left_out"] = [name for name in given if name not in noted]
        return self


def generator_states(trainer: Trainer | None) -> list[GeneratorStates]:
    """Return the state of the random generators of every process.

    Args:
        trainer: trainer of the run; None outside a run.

    Example:
        >>> len(generator_states(None))
        1
    """
    mine = capture_generators()
    if trainer is None or trainer.world_size == 1 or not torch.distributed.is_initialized():
        return [mine]
    states: list[GeneratorStates] = [mine] * trainer.world_size
    torch.distributed.all_gather_object(states, mine)
    return states


def restore_generator_states(states: list[GeneratorStates], rank: int, world_size: int) -> None:
    """Restore the random generators of this process from a checkpoint.

    Args:
        states: generator states in the checkpoint, as :func:`generator_states` returned them.
        rank: number of this process.
        world_size: number of processes; a warning is issued if it differs from that of the checkpoint.

    Example:
        >>> restore_generator_states(generator_states(None), rank=0, world_size=1)
    """
    if len(states) != world_size:
        warnings.warn(
            f"the checkpoint was made by {len(states)} processes, this run has "
            f"{world_size}: random numbers will differ from the uninterrupted run",
            stacklevel=3,
        )
    restore_generators(states[min(rank, len(states) - 1)])


class Checkpointed(Noted, LightningModule):
    """Module whose checkpoints hold everything from which a stopped run continues bit for bit.

    Beside Lightning's contents they hold the version, the states of all generators of all processes, and the names of
    constructor arguments that could not be recorded.

    Example:
        >>> checkpoint = {"state_dict": {}}
        >>> Checkpointed().on_save_checkpoint(checkpoint)
        >>> sorted(checkpoint["graphseq"])
        ['generators', 'left_out', 'version']
    """

    _saved_generators: list[GeneratorStates] | None = None

    def on_save_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Add the version and the state of every random generator of every process."""
        states = generator_states(self._trainer)
        keep_state(self, checkpoint)
        checkpoint["graphseq"] = {"version": __version__, "generators": states, "left_out": self._left_out}

    def on_load_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Check that the checkpoint belongs to this task and network, and keep its generator states.

        Raises:
            CheckpointError: if it does not; the message names the difference.
        """
        adopt_sizes(self, checkpoint["state_dict"])
        check_checkpoint(self, self._record, checkpoint)
        self._saved_generators = noted(checkpoint, "generators")
        if self._trainer is not None and self.trainer.state.fn == "fit":
            restore_checkpoint_choices(self.trainer, checkpoint)
            restore_early_stop(self.trainer, checkpoint)

    def on_train_start(self) -> None:
        """Restore the generators from the checkpoint, after all set-up that draws random numbers."""
        if self._saved_generators is not None:
            restore_generator_states(self._saved_generators, self.trainer.global_rank, self.trainer.world_size)
            self._saved_generators = None

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: str | Path | IO[Any], *args: Any, **kwargs: Any) -> Self:
        """Build the task from a checkpoint; :func:`graphseq.load` does it without naming the class."""
        record_foreign_modules()
        kwargs.setdefault("weights_only", True)
        # not by Lightning's wrapper, which reads the source of every frame of the stack to look for torch.jit
        build = super().load_from_checkpoint.__func__  # type: ignore[attr-defined] # typed as an ordinary classmethod
        return build(cls, checkpoint_path, *args, **kwargs)


def _noted_function(spec: object) -> Callable[..., object] | None:
    """Import a function, or a partial of one, from its record; classes are left to jsonargparse."""
    path, arguments = (spec.get("class_path"), spec.get("init_args", {})) if isinstance(spec, dict) else (spec, {})
    target = import_path(path) if isinstance(path, str) else None
    if target is None or isinstance(target, type) or not callable(target):
        return None
    return functools.partial(target, **arguments) if arguments else target


def argument_names(task_class: type) -> list[str] | None:
    """Return the names of a constructor's arguments, those of an ``Unpack[...]`` too; None where any name is taken.

    Args:
        task_class: class of a task.

    Example:
        >>> from graphseq.tasks import NodeClassification
        >>> argument_names(NodeClassification)[:3]
        ['model', 'num_outputs', 'optimizer']
    """
    names: list[str] = []
    for parameter in list(inspect.signature(task_class.__init__).parameters.values())[1:]:  # type: ignore[misc]
        if parameter.kind is not parameter.VAR_KEYWORD:
            names.append(parameter.name)
            continue
        options = get_args(parameter.annotation)[0] if get_origin(parameter.annotation) is not None else None
        if options is None or not is_typeddict(options):
            return None
        names += options.__annotations__
    return names


def load(path: str | os.PathLike[str], map_location: MAP_LOCATION = None, **override: object) -> "Task":
    """Return the task that a checkpoint of a script or of the command line holds, with its network and weights.

    Args:
        path: checkpoint file.
        map_location: device of the weights, as ``torch.load`` takes it; default where they were.
        override: constructor arguments that replace or complete the recorded ones, such as ``model=net`` for a
            network that could not be written as plain data. Without it such an argument takes its default, if it has
            one, and a warning names it.

    Raises:
        CheckpointError: if the file is not a checkpoint of graphseq, or does not fit the installed version.
        FileNotFoundError: if there is no such file.
        TypeError: if ``override`` names something that is not an argument of the task.

    Example:
        >>> import graphseq
        >>> graphseq.load("missing.ckpt")
        Traceback (most recent call last):
        FileNotFoundError: there is no checkpoint missing.ckpt
    """
    from graphseq.tasks.base import Task  # base imports this file

    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no checkpoint {os.fspath(path)}")
    if not zipfile.is_zipfile(path):
        raise CheckpointError(f"{os.fspath(path)} is not a checkpoint: it is damaged, or not written by torch.save")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise CheckpointError(f"{os.fspath(path)} cannot be read as a checkpoint: {error}") from error
    saved = checkpoint.get("hyper_parameters", {}) if isinstance(checkpoint, dict) else {}
    if "_class_path" not in saved:
        raise CheckpointError(f"{os.fspath(path)} is not a checkpoint of a graphseq task: it does not record the task")
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
    accepted = argument_names(task_class)
    unknown = [name for name in override if accepted is not None and name not in accepted]
    if unknown and accepted is not None:
        raise TypeError(f"{task_class.__name__} has no argument {', '.join(unknown)}; it has {', '.join(accepted)}")
    missing = [name for name in added.get("left_out", []) if name not in override]
    how = ", ".join(f"{name}=..." for name in missing or ["name"])
    try:
        for name in {"optimizer", "scheduler"} & set(saved) - set(override):
            function = _noted_function(saved[name])  # jsonargparse takes functions only with annotations
            if function is not None:
                override[name] = function
        task = task_class.load_from_checkpoint(Path(path), map_location=map_location, **override)
    except (CheckpointError, FileNotFoundError):
        raise
    except Exception as error:
        raise CheckpointError(
            f"{os.fspath(path)} (graphseq {made_by}, installed {__version__}) could not be built again: "
            f"{constructor_message(error)}. "
            f"Give the arguments that could not be recorded, or that must change: graphseq.load(path, {how})"
        ) from error
    if missing:
        warnings.warn(
            f"{', '.join(missing)} of {task_class.__name__} could not be recorded in {os.fspath(path)}, so the "
            f"default is used; to have what it was trained with: graphseq.load(path, {how})",
            stacklevel=2,
        )
    return task
