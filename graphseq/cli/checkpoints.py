"""Resolution of ``--ckpt_path last`` and ``--ckpt_path best`` to checkpoint files of a run, by their contents.

Times and names of files are not used, so that a copied run folder gives the same result.
"""

import pickle
import re
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from graphseq.core.errors import CheckpointError
from graphseq.data.cache import complete_or_absent

__all__ = ["check_newest_run", "checkpoint_of_run", "claim_run", "keep_best_files", "newest_checkpoint", "run_folder"]

_VERSION = re.compile(r"version_(\d+)")
_GIVE_A_FILE = "give a file with --ckpt_path"


@dataclass(frozen=True)
class Saved:
    """A checkpoint file of a run, without its tensors.

    Args:
        path: checkpoint file.
        step: number of optimiser steps done.
        resumable: true where optimisers were saved, false where it holds weights only.
        choices: state of each ``ModelCheckpoint``, in the order of the trainer's callbacks.

    Example:
        >>> Saved(Path("checkpoints/last.ckpt"), step=30, resumable=True, choices=()).path.name
        'last.ckpt'
    """

    path: Path
    step: int
    resumable: bool
    choices: tuple[Mapping[str, Any], ...]


def _read(path: Path) -> Saved:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        states = content.get("callbacks") or {}
        choices = tuple(state for state in states.values() if isinstance(state, dict) and "best_model_path" in state)
        return Saved(path, content["global_step"], bool(content.get("optimizer_states")), choices)
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError, AttributeError, KeyError, TypeError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"{path} is no checkpoint that can be read ({why[:80]}); delete it, or {_GIVE_A_FILE}"
        ) from None


def _files(run: Path) -> list[Path]:
    return sorted(path for path in (run / "checkpoints").rglob("*.ckpt") if path.is_file())


def _latest(files: list[Saved]) -> Saved:
    """The file written last: the one with most steps; among equals, the one whose callbacks list the others."""
    most = max(saved.step for saved in files)
    rivals = [saved for saved in files if saved.step == most]

    def knows(saved: Saved) -> int:
        noted = {Path(path).name for state in saved.choices for path in _noted(state)}
        return len(noted & {rival.path.name for rival in rivals})

    return max(rivals, key=lambda saved: (saved.resumable, knows(saved)))


def _noted(state: Mapping[str, Any]) -> set[str]:
    return {*state.get("best_k_models", ()), state["best_model_path"], state.get("last_model_path", "")} - {""}


def _best(run: Path, files: list[Saved]) -> Path:
    """The file that the first callback with a monitored value calls the best."""
    with_choices = [saved for saved in files if saved.choices]
    if not with_choices:
        raise CheckpointError(
            f"the checkpoints of {run} hold weights only, which do not tell which of them is the best; {_GIVE_A_FILE}"
        )
    states = [state for state in _latest(with_choices).choices if state.get("monitor") and state["best_model_path"]]
    if not states:
        raise CheckpointError(
            f"{run} has no best checkpoint: no ModelCheckpoint of it monitors a value. Use last, or {_GIVE_A_FILE}"
        )
    chosen = states[0]
    if len(states) > 1:
        others = ", ".join(str(state["monitor"]) for state in states[1:])
        warnings.warn(
            f"best is that of {chosen['monitor']}, the first ModelCheckpoint of {run}; others monitor {others}",
            stacklevel=4,
        )
    noted = Path(chosen["best_model_path"])
    places = [run / "checkpoints" / noted.name, noted]
    owner = run_folder(noted)  # this run or an earlier one beside it; the folder of both may have been moved
    if owner is not None:
        inside = noted.relative_to(owner)
        places = [run / inside, run.parent / owner.name / inside, *places]
    found = next((place for place in places if place.is_file()), None)
    score = chosen.get("best_model_score")
    reached = f"{chosen['monitor']} {float(score):.4f}" if score is not None else str(chosen["monitor"])
    if found is None:
        raise CheckpointError(
            f"the best checkpoint of {run} is {noted.name} ({reached}), which is no longer there; it was written to "
            f"{noted.parent}. Use last, or {_GIVE_A_FILE}"
        )
    if not found.resolve().is_relative_to(run.resolve()):
        warnings.warn(
            f"the best checkpoint of {run} ({reached}) is one of the run that it continues: {found}", stacklevel=4
        )
    return found


def checkpoint_of_run(run: Path, which: str, resumable: bool = False) -> str:
    """Return the last or the best checkpoint of one run.

    The last is the one with the most optimiser steps. The best is the one that the run's ``ModelCheckpoint`` calls
    the best in its newest saved state: the first one, where several monitor a value.

    Args:
        run: folder of the run, which holds ``checkpoints/``.
        which: checkpoint to return, ``last`` or ``best``.
        resumable: whether training will be resumed from the checkpoint; files with weights only are then not eligible
            as the last.

    Raises:
        CheckpointError: if the run has no such checkpoint, it was deleted, or a file cannot be read.

    Example:
        >>> checkpoint_of_run(Path("nowhere/version_0"), "last")
        Traceback (most recent call last):
        graphseq.core.errors.CheckpointError: nowhere/version_0 has no last checkpoint; ...
    """
    files = [_read(path) for path in _files(run)]
    if not files:
        raise CheckpointError(f"{run} has no {which} checkpoint; {_GIVE_A_FILE}")
    if which == "best":
        return str(_best(run, files))
    whole = [saved for saved in files if saved.resumable]
    if resumable and not whole:
        raise CheckpointError(
            f"the checkpoints of {run} hold weights only, from which training cannot go on; train with "
            "save_weights_only: false"
        )
    return str(_latest(whole if resumable else files).path)


_OF_NO_RUN = ("max_epochs", "default_root_dir", "accelerator", "devices", "logger", "inference_mode")
_OF_NO_RUN_PREFIX = ("enable_", "limit_val", "limit_test", "limit_predict")
"""Entries of the trainer that do not tell one run from another: how long it goes, and where."""


def _told_apart_by(config: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a config by which runs of one name differ."""
    trainer = {
        name: value
        for name, value in (config.get("trainer") or {}).items()
        if name not in _OF_NO_RUN and not name.startswith(_OF_NO_RUN_PREFIX)
    }
    return {"trainer": trainer, **{part: config.get(part) for part in ("model", "data", "seed_everything")}}


def _differences(first: Any, second: Any, key: str = "") -> list[str]:
    if isinstance(first, dict) and isinstance(second, dict):
        names = sorted({*first, *second})
        return [
            each
            for name in names
            for each in _differences(
                first.get(name), second.get(name), key if name == "init_args" else f"{key}.{name}".lstrip(".")
            )
        ]
    return [] if first == second else [f"{key} {first}"]


def check_newest_run(root: Path, name: str, which: str, config: Mapping[str, Any]) -> None:
    """Refuse to guess a run: the newest one had another config than asked for, and others of the name differ from it.

    Args:
        root: folder of all runs.
        name: name of the run, the stem of its config file.
        which: checkpoint that was asked for, ``last`` or ``best``.
        config: config of the command.

    Raises:
        CheckpointError: if so; the message names the runs.

    Example:
        >>> check_newest_run(Path("nowhere"), "gin", "last", {})
    """
    runs = [folder for folder in _versions(root, name) if (folder / "config.yaml").is_file() and _files(folder)]
    if len(runs) < 2:
        return
    saved = [_told_apart_by(yaml.safe_load((run / "config.yaml").read_text("utf-8"))) for run in runs]
    asked = _told_apart_by(config)
    if saved[0] == asked or all(other == saved[0] for other in saved):
        return
    fitting = [run for run, other in zip(runs, saved, strict=True) if other == asked]
    differences = _differences(saved[0], asked)
    more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
    choice = (fitting or runs[1:])[0]
    others = f" and {choice}" if fitting else ""
    raise CheckpointError(
        f"{which} of {name} is not clear: the newest run {runs[0]} was started with "
        f"{', '.join(differences[:3])}{more}, unlike this command{others}. Name the run by the config that it saved, "
        f"--config {choice / 'config.yaml'}, or {_GIVE_A_FILE}"
    )


def _versions(root: Path, name: str) -> list[Path]:
    """Folders of all runs of a name, the newest first."""
    runs = [folder for folder in (root / name).glob("version_*") if _VERSION.fullmatch(folder.name)]
    return sorted(runs, key=lambda folder: int(folder.name.removeprefix("version_")), reverse=True)


def newest_checkpoint(root: Path, name: str, which: str, resumable: bool = False) -> str:
    """Return the last or the best checkpoint of the newest run of a name: the highest version that has checkpoints.

    Args:
        root: folder of all runs.
        name: name of the run, the stem of its config file.
        which: checkpoint to return: ``last``, or ``best`` by the monitored metric.
        resumable: whether training will be resumed from the checkpoint; files with weights only are then not eligible
            as the last.

    Raises:
        CheckpointError: if the run has no such checkpoint, it was deleted, or a file cannot be read.

    Example:
        >>> newest_checkpoint(Path("nowhere"), "gin", "last")
        Traceback (most recent call last):
        graphseq.core.errors.CheckpointError: no run of gin in nowhere has a last checkpoint; ...
    """
    runs = _versions(root, name)
    run = next((folder for folder in runs if _files(folder)), None)
    if run is None:
        raise CheckpointError(
            f"no run of {name} in {root} has a {which} checkpoint; run graphseq fit, or {_GIVE_A_FILE}"
        )
    if run != runs[0]:
        warnings.warn(f"{runs[0]} has no checkpoint yet; {which} is that of {run.name}", stacklevel=3)
    return checkpoint_of_run(run, which, resumable)


def claim_run(root: Path, name: str) -> Path:
    """Create and return the folder of a new run; of runs that start at the same time each gets its own.

    Args:
        root: folder of all runs.
        name: name of the run, the stem of its config file.

    Example:
        >>> import tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> [claim_run(root, "gin").name for _ in range(2)]
        ['version_0', 'version_1']
    """
    above = root / name
    above.mkdir(parents=True, exist_ok=True)
    taken = [int(found[1]) for folder in above.iterdir() if (found := _VERSION.fullmatch(folder.name))]
    version = max(taken, default=-1) + 1
    while True:
        try:
            (above / f"version_{version}").mkdir()
        except FileExistsError:
            version += 1
        else:
            return above / f"version_{version}"


def run_folder(path: Path) -> Path | None:
    """Return the folder of the run that a checkpoint or saved config belongs to; None if it belongs to no run.

    Args:
        path: file of a run, such as ``runs/gin/version_0/config.yaml`` or one below ``runs/gin/version_0/checkpoints``.

    Example:
        >>> run_folder(Path("runs/gin/version_0/checkpoints/last.ckpt"))
        PosixPath('runs/gin/version_0')
        >>> run_folder(Path("configs/graph/gine_digits.yaml"))
    """
    if path.suffix == ".ckpt":
        return next((folder.parent for folder in path.parents if folder.name == "checkpoints"), None)
    folder = path.parent
    if path.name != "config.yaml":
        return None
    is_run = _VERSION.fullmatch(folder.absolute().name) or ((folder / "checkpoints").is_dir() and _was_saved(path))
    return folder if is_run else None


def _was_saved(config: Path) -> bool:
    """Whether a run has saved the config, with the header that Lightning writes; else it is the user's own."""
    return config.is_file() and config.read_text("utf-8", errors="replace").startswith("# lightning.pytorch==")


def keep_best_files(trainer: Trainer) -> None:
    """Copy the best checkpoint of each callback into the folder of the run, where it lies in that of an earlier run.

    A resumed run that never became better would otherwise depend on the folder of the run it continued.

    Args:
        trainer: trainer after ``fit``.

    Example:
        >>> keep_best_files(Trainer(logger=False, accelerator="cpu"))
    """
    for callback in trainer.checkpoint_callbacks:
        if not isinstance(callback, ModelCheckpoint) or not callback.dirpath or not trainer.is_global_zero:
            continue
        best, folder = Path(callback.best_model_path), Path(callback.dirpath)
        if not best.is_file() or best.resolve().is_relative_to(folder.resolve()):
            continue
        own = folder / best.name
        if not own.exists():
            with complete_or_absent(own) as temporary:
                shutil.copyfile(best, temporary)
        if callback.best_model_path in callback.best_k_models:
            callback.best_k_models[str(own)] = callback.best_k_models.pop(callback.best_model_path)
        callback.best_model_path = str(own)
