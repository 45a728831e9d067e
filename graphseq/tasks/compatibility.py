"""Checks that a checkpoint fits a task, and what differs where it does not."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

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
            f"{'; '.join(different[:3])}{more}. Built with {_differences(there, mine)}{_renamed(own, given)}"
        )


def noted(checkpoint: Checkpoint, path: str, keys: Iterable[str] = ()) -> Any:
    """Return an entry that graphseq added to a checkpoint, after a check that its layout is that of this version.

    Args:
        checkpoint: contents of the checkpoint.
        path: names from the outermost to that of the entry, such as ``generators`` or ``stream.next_event``.
        keys: names that the entry must hold, unless it is None.

    Returns:
        The entry; None if the checkpoint holds nothing of graphseq at all.

    Raises:
        CheckpointError: if one of the names is not there: another version has written the checkpoint.

    Example:
        >>> noted({"graphseq": {"version": "0.1.0", "stream": {"next_event": 3}}}, "stream.next_event")
        3
    """
    added = checkpoint.get("graphseq")
    if added is None:
        return None
    entry, above = added, ""

    def check(names: Iterable[str]) -> None:
        missing = ", ".join(f"{above}{name}" for name in names if name not in entry)
        if missing:
            raise CheckpointError(
                f"the checkpoint (graphseq {added.get('version', 'unknown')}, installed {__version__}) has no "
                f"{missing}, only {', '.join(f'{above}{name}' for name in sorted(entry))}: its layout is that of "
                "another version. Go on with the version that wrote it, or take its weights alone: "
                "task.load_state_dict(torch.load(path)['state_dict'])"
            )

    for name in path.split("."):
        check([name])
        entry, above = entry[name], f"{above}{name}."
    if entry is not None:
        check(keys)
    return entry


def _renamed(own: Mapping[str, object], given: Mapping[str, object]) -> str:
    """Name pairs of keys that seem to be one tensor under an old and a new name: of equal shape, in their order."""
    here = [name for name in own if name not in given]
    pairs = []
    for old in (name for name in given if name not in own):
        ending = old.rsplit(".", 1)[-1]
        alike = [name for name in here if _shape(own, name) == _shape(given, old)]
        new = next((name for name in alike if name.rsplit(".", 1)[-1] == ending), next(iter(alike), None))
        if new is not None:
            here.remove(new)
            pairs.append(f"{old} -> {new}")
    if not pairs:
        return ""
    more = f" and {len(pairs) - 3} more" if len(pairs) > 3 else ""
    return (
        f". Equal shapes suggest that keys were renamed: {', '.join(pairs[:3])}{more}; to convert the file, rename "
        "them in its 'state_dict' and save it"
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
                walk(left.get(key, "not recorded"), right.get(key, "not recorded"), step)
        elif left != right and not isinstance(left, nn.Module):  # an override given to graphseq.load
            found.append(f"{path} = {left} there, {right} here")

    walk(_with_defaults(there), _with_defaults(here), "")
    found.sort(key=lambda text: not text.startswith("model"))
    same = "the same arguments: the code of the network has changed, or an argument that is not recorded differs"
    return "; ".join(found[:4]) or same
