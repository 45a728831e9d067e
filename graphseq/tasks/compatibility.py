"""Checks that a checkpoint fits a task, and what differs where it does not."""

import inspect
from collections.abc import Mapping

from lightning.pytorch import LightningModule
from torch import Tensor, nn

from graphseq import __version__
from graphseq.core.checkpoint import Checkpoint
from graphseq.core.errors import CheckpointError
from graphseq.core.spec import Record, import_path, to_spec

__all__: list[str] = []


def check_checkpoint(task: LightningModule, note: Record | None, checkpoint: Checkpoint) -> None:
    """Check that a checkpoint was written by the same task class with a network of the same shapes.

    Args:
        task: task that the checkpoint is loaded into; with ``strict_loading = False`` shapes are not compared.
        note: constructor call of the task, as :class:`graphseq.core.Recorded` records it.
        checkpoint: contents of the checkpoint.

    Raises:
        CheckpointError: if it was not; the message names the difference.

    Example:
        >>> from graphseq.tasks import Regression
        >>> task = Regression(nn.Linear(2, 1))
        >>> check_checkpoint(task, None, {"state_dict": task.state_dict()})
    """
    saved = checkpoint.get("hyper_parameters", {})
    mine = note or {"class_path": None, "init_args": {}}
    if saved.get("_class_path") not in (None, mine["class_path"]):
        raise CheckpointError(
            f"the checkpoint holds a {saved['_class_path']}, the run is a {mine['class_path']}; "
            "use the config it was trained with, or graphseq.load(path)"
        )
    own, given = task.state_dict(), checkpoint["state_dict"]
    different = [
        f"{name} is {_shape(given, name)} there and {_shape(own, name)} here"
        for name in sorted(set(own) | set(given))
        if _shape(own, name) != _shape(given, name)
    ]
    if different and task.strict_loading:
        more = f", and {len(different) - 3} more" if len(different) > 3 else ""
        plain = {name: value for name, value in saved.items() if not name.startswith("_")}
        there = {"class_path": saved.get("_class_path"), "init_args": plain}
        made_by = checkpoint.get("graphseq", {}).get("version")
        raise CheckpointError(
            f"the checkpoint (graphseq {made_by}) does not fit this {type(task).__name__} ({__version__}): "
            f"{'; '.join(different[:3])}{more}. Built with {_differences(there, mine)}"
        )


def _shape(state: Mapping[str, object], name: str) -> tuple[int, ...] | str:
    if name not in state:
        return "absent"
    value = state[name]
    return tuple(value.shape) if isinstance(value, Tensor) else "an object"


def _with_defaults(value: object) -> object:
    """Complete the records inside a value with the defaults of their constructors, as loading does."""
    if not isinstance(value, dict):
        return value
    value = {name: _with_defaults(item) for name, item in value.items()}
    path, given = value.get("class_path"), value.get("init_args")
    if isinstance(path, str) and isinstance(given, dict):
        try:
            owners = reversed(inspect.getmro(import_path(path)))
        except (ImportError, AttributeError):  # gone, or no class
            return value
        # **kwargs hand arguments up to the classes above
        parameters = [p for owner in owners for p in inspect.signature(owner.__init__).parameters.values()]  # type: ignore[misc]
        defaults = {p.name: to_spec(p.default) for p in parameters if p.default is not inspect.Parameter.empty}
        value["init_args"] = {**defaults, **given}
    return value


def _differences(there: Record, here: Record) -> str:
    """Name the first arguments that differ between two records, those of the network before others."""
    found: list[str] = []

    def walk(left: object, right: object, path: str) -> None:
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
