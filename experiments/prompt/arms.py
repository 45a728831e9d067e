"""Arms that the experiments on prompts share: networks, prompts, their lengths, and the encoder they all take."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import yaml
from filelock import FileLock  # torch requires it

import graphseq
from graphseq.bench import Effect, Row, Scale, new
from graphseq.bench.effects.training import build, overridden, quiet
from graphseq.bench.records.closure import source_digest
from graphseq.data import cache_folder

__all__ = ["EQUAL", "HEAD_STEPS", "RELIEF", "UNIFORM", "Length", "arms", "pretrained", "trained"]

RELIEF, UNIFORM, EQUAL = "RELIEF", "RELIEF, uniform nodes", "GPF-plus, equal passes"
HEAD_STEPS = 20
_PRETRAINED = new("graphseq.nn.Pretrained", path="")
_ADAM = new("torch.optim.Adam", lr=1e-3)


@dataclass(frozen=True)
class Length:
    """Length of training: epochs of RELIEF, and number of validations of every arm.

    Args:
        epochs: epochs of RELIEF, a multiple of the number of validations.
        validations: number of validations of every arm.
    """

    epochs: int
    validations: int

    def of(self, arm: str, passes: int) -> dict[str, int]:
        """Return the overrides of an arm.

        Args:
            arm: name of the arm.
            passes: passes of the encoder over a graph in an epoch of RELIEF.
        """
        each = {RELIEF: 1, UNIFORM: 1, EQUAL: passes}.get(arm, HEAD_STEPS)  # the others take one step an epoch
        epochs = self.epochs * each
        return {"trainer.max_epochs": epochs, "trainer.check_val_every_n_epoch": epochs // self.validations}


def arms(
    target: Literal["multilabel", "multiclass"], scratch: Mapping[str, Any], relief: Mapping[str, Any] | None = None
) -> dict[str, dict[str, Any]]:
    """Return the overrides of each arm of a config of ``PromptTuning``.

    Args:
        target: kind of target.
        scratch: arguments of the network that is trained from scratch, those of the encoder.
        relief: arguments of RELIEF beside the defaults.
    """

    def prompted(name: str, **init_args: Any) -> dict[str, Any]:
        return {"model.prompt": new(f"graphseq.nn.{name}", **init_args)}

    def classified(network: dict[str, Any]) -> dict[str, Any]:
        return {"model": new("graphseq.tasks.Classification", target=target, model=network, optimizer=_ADAM)}

    def probed(freeze: bool) -> dict[str, Any]:
        encoder = new("graphseq.nn.Pretrained", path="", freeze=freeze)
        return classified(new("graphseq.models.EncoderClassifier", encoder=encoder, head_layers=2))

    def reinforced(**init_args: Any) -> dict[str, Any]:
        given = {"model": _PRETRAINED, "target": target, "head_layers": 2, "optimizer": _ADAM, **(relief or {})}
        task = new("graphseq.tasks.ReinforcedPromptTuning", head_steps=HEAD_STEPS, **given, **init_args)
        return {"model": task}

    return {
        "fine-tuning": probed(freeze=False),
        "from scratch": classified(new("graphseq.models.GraphClassifier", head_layers=2, **scratch)),
        "linear head": probed(freeze=True),
        "GPF": prompted("GPF"),
        "GPF-plus": prompted("GPFPlus", num_prompts=10),
        "SUPT": prompted("SUPT", num_prompts=10),
        "prompt tokens": prompted("PromptTokens", num_tokens=10),
        "random prompts": prompted("RandomPrompt", magnitude=0.1),
        # arms of equal overrides are refused: that this one is longer, Length says
        EQUAL: {**prompted("GPFPlus", num_prompts=10), "trainer.max_epochs": None},
        UNIFORM: reinforced(node_choice="random"),
        RELIEF: reinforced(),
    }


def pretrained(config: str, scale: Scale, overrides: Mapping[str, Any]) -> Path:
    """Return the checkpoint of an encoder, which is trained if it is not there yet, by today's code and config.

    Args:
        config: config of the training, relative to the repository.
        scale: scale of the experiment.
        overrides: overrides of the config.
    """
    root = Path(graphseq.__file__).parents[1]
    digest = _digest(root / config, f"{scale} {sorted(overrides.items())}")
    path = cache_folder() / "bench" / f"{Path(config).stem}-{digest}.ckpt"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):  # cells that run at once wait for the one that trains
        if not path.exists():
            made = overridden(yaml.safe_load((root / config).read_text("utf-8")), overrides)
            with quiet(), TemporaryDirectory() as folder:
                task, data, trainer = build(made, [], default_root_dir=folder)
                trainer.fit(task, data)
            partial = path.with_suffix(".partial")
            trainer.save_checkpoint(partial)
            partial.rename(path)
    return path


@functools.cache  # files that change during a run are not the code that runs
def _digest(config: Path, settings: str) -> str:
    return source_digest([config], more=settings)[:16]


def trained(
    cell: Row,
    scale: Scale,
    effect: Effect,
    encoder: Path,
    more: Mapping[str, Any],
    measure: Callable[..., Row] | None = None,
) -> Row:
    """Train an arm on an encoder, and return the row with coverage and magnitude of prompts.

    Args:
        cell: cell of the effect.
        scale: scale of the experiment.
        effect: the effect.
        encoder: checkpoint of the encoder.
        more: overrides of the arm, such as its length.
        measure: function of the tested task and its data module that returns further numbers.
    """
    place = {"from scratch": None, "linear head": "model.model.encoder.path", "fine-tuning": "model.model.encoder.path"}
    key = place.get(cell["arm"], "model.model.path")
    row = effect.train(cell, scale, {**more, **({} if key is None else {key: str(encoder)})}, measure)
    return {**row, **{name: row["test"][""].get(name) for name in ("pcr", "apm")}}
