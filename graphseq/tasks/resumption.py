"""Callbacks of a resumed run: checkpoints and early stopping continue from the scores of the earlier run."""

import warnings
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from graphseq.core.checkpoint import Checkpoint


def restore_checkpoint_choices(trainer: Trainer, checkpoint: Checkpoint) -> None:
    """Prepare the states of ``ModelCheckpoint`` callbacks in a checkpoint for the run that resumes from it.

    ``ModelCheckpoint.load_state_dict`` drops all scores when its folder is not the one in the checkpoint. A resumed
    run that logs to a new version folder has such a new folder, and would compare only with its own epochs. Here the
    state gets the new folder before it is loaded, and each file its present place, so that a run folder may have been
    moved in between. Files of the earlier run are compared with, but never deleted.

    Args:
        trainer: the trainer that is about to fit; its callbacks have been set up.
        checkpoint: the loaded checkpoint; the entries of its ``callbacks`` are replaced.

    Example:
        >>> checkpoint = {"callbacks": {}}
        >>> restore_checkpoint_choices(Trainer(logger=False, accelerator="cpu"), checkpoint)
    """
    states = checkpoint.get("callbacks") or {}
    for callback in trainer.checkpoint_callbacks:
        state = states.get(callback.state_key)
        if not isinstance(callback, ModelCheckpoint) or not isinstance(state, dict):
            continue
        paths = {*state.get("best_k_models", ()), state["best_model_path"]} - {""}
        # one process looks, so that all of them name the same files
        places = trainer.strategy.broadcast({path: _present_place(trainer, path, state) for path in paths})
        _warn_of_missing(trainer, state, places)
        scores = {places[path]: score for path, score in state.get("best_k_models", {}).items()}
        moved = {name: places.get(state.get(name), "") for name in ("best_model_path", "kth_best_model_path")}
        states[callback.state_key] = {**state, **moved, "best_k_models": scores, "dirpath": callback.dirpath}


def _present_place(trainer: Trainer, path: str, state: dict[str, Any]) -> str:
    """Where a file of the earlier run lies now: in the folder of the checkpoint that is resumed, or as it was noted."""
    if "://" in path or not trainer.is_global_zero:
        return path
    noted = Path(path)
    folder = Path(state.get("dirpath") or noted.parent)
    inside = noted.relative_to(folder) if noted.is_relative_to(folder) else Path(noted.name)
    beside = Path(str(trainer.ckpt_path)).parent
    return next((str(place) for place in (beside / inside, beside / noted.name) if place.is_file()), path)


def _warn_of_missing(trainer: Trainer, state: dict[str, Any], places: dict[str, str]) -> None:
    best = places.get(state["best_model_path"])
    if best is None or not trainer.is_global_zero or "://" in best or Path(best).exists():
        return
    score, monitor = state.get("best_model_score"), state.get("monitor")
    reached = "" if score is None else f"; its {monitor} of {float(score):.4f} stays the value to beat"
    warnings.warn(f"the best checkpoint of the run that is resumed, {best}, is no longer there{reached}", stacklevel=2)


def restore_early_stop(trainer: Trainer, checkpoint: Checkpoint) -> None:
    """Make a run that ``EarlyStopping`` had ended stop at once when it is resumed.

    Checkpoints do not hold the trainer's decision to stop, so that each resumption would train one more epoch.

    Args:
        trainer: the trainer that is about to fit.
        checkpoint: the loaded checkpoint.

    Example:
        >>> trainer = Trainer(logger=False, accelerator="cpu")
        >>> restore_early_stop(trainer, {"callbacks": {}})
        >>> trainer.should_stop
        False
    """
    states = checkpoint.get("callbacks") or {}
    for callback in trainer.callbacks:  # type: ignore[attr-defined]  # the trainer sets this attribute dynamically
        state = states.get(callback.state_key)
        if isinstance(callback, EarlyStopping) and isinstance(state, dict) and state.get("stopping_reason"):
            warnings.warn(
                f"EarlyStopping(monitor={callback.monitor!r}) had ended the run that is resumed, in epoch "
                f"{state['stopped_epoch']}; leave the callback out to train on",
                stacklevel=2,
            )
            trainer.should_stop = True
