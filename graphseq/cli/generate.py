"""``graphseq generate``: text from the checkpoint of a language model, without the data it was trained on."""

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
import yaml

from graphseq.cli.checkpoints import checkpoint_of_run, newest_checkpoint, run_folder
from graphseq.core.errors import CheckpointError, DataError
from graphseq.core.vocabulary import Vocabulary
from graphseq.core.wrappers import unwrapped
from graphseq.models.sequence.language import DecodesByState, generate_tokens
from graphseq.tasks.checkpoints import load
from graphseq.tasks.sequence.language import LanguageModeling

__all__ = ["generate"]


def generate(arguments: Sequence[str]) -> int:
    """Print a text and return the exit status: 0 done, 1 failed, 2 wrong usage.

    Args:
        arguments: words of the command line after ``graphseq generate``.

    Example:
        >>> generate(["--ckpt_path", "missing.ckpt"])
        1
    """
    try:
        given = _parser().parse_args(list(arguments))
    except SystemExit as stop:  # argparse has said what is wrong, or printed the help
        return stop.code if isinstance(stop.code, int) else 2
    try:
        path = _checkpoint(given.ckpt_path, given.config)
        print(_text(path, given.prompt, given.length, given.temperature, given.top_k, given.seed))
    except (CheckpointError, FileNotFoundError, ValueError) as error:  # DataError is a ValueError
        print(f"graphseq generate: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="graphseq generate",
        description="Continue a prompt with text from the checkpoint of a LanguageModeling run.",
    )
    add = parser.add_argument
    add("--ckpt_path", required=True, metavar="PATH|last|best", help="checkpoint, or which one of the newest run")
    add("--config", metavar="FILE", help="config whose runs last and best mean; needed where runs/ has several models")
    add("--prompt", default="\n", metavar="TEXT", help="text that is continued (default: the beginning of a line)")
    add("--length", type=int, default=500, metavar="N", help="new tokens (default: 500)")
    add("--temperature", type=float, default=0.8, metavar="T", help="0 takes the likeliest token (default: 0.8)")
    add("--top_k", type=int, default=None, metavar="K", help="draw among the K likeliest tokens (default: all)")
    add("--seed", type=int, default=0, metavar="S", help="seed of the draws (default: 0)")
    return parser


def _checkpoint(which: str, config: str | None) -> Path:
    """Return the checkpoint that ``--ckpt_path`` and ``--config`` mean."""
    if which not in ("last", "best"):
        if not Path(which).is_file():
            raise CheckpointError(f"there is no checkpoint {which}; give a file, 'last' or 'best'")
        return Path(which)
    if config is None:
        root = Path("runs")
        names = sorted(folder.name for folder in root.glob("*") if _has_language_model(folder))
        if len(names) != 1:
            found = f"has those of {', '.join(names)}" if names else "has none"
            raise CheckpointError(
                f"--ckpt_path {which} without --config means the one language model below {root}/, which {found}; "
                "name its config with --config, or give a file"
            )
        return Path(newest_checkpoint(root, names[0], which))
    if not Path(config).is_file():
        raise CheckpointError(f"there is no config {config}")
    run = run_folder(Path(config))
    if run is not None:
        return Path(checkpoint_of_run(run, which))
    trainer = (yaml.safe_load(Path(config).read_text("utf-8")) or {}).get("trainer") or {}
    return Path(newest_checkpoint(Path(trainer.get("default_root_dir") or "runs"), Path(config).stem, which))


def _has_language_model(folder: Path) -> bool:
    """Whether any run of a name has a checkpoint with a vocabulary."""
    for path in sorted(folder.glob("version_*/checkpoints/*.ckpt")):
        try:
            saved = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except Exception:
            continue
        if "vocabulary" in saved.get("graphseq", {}):
            return True
    return False


def _text(path: Path, prompt: str, length: int, temperature: float, top_k: int | None, seed: int) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what loading says of optimisers is of no use here
        task = load(path, map_location="cpu")
    if not isinstance(task, LanguageModeling):
        raise CheckpointError(f"{path} holds a {type(task).__name__}; text needs a LanguageModeling task")
    vocabulary = task.vocabulary
    if vocabulary is None:
        raise CheckpointError(
            f"{path} holds no vocabulary: it was trained without a data module of plain text, such as "
            "CharacterDataModule. Denoisers (DenoisingDataModule) add tokens that no text has; call the network of "
            "graphseq.load(path) on the tokens of a MixtureOfDenoisers"
        )
    model = unwrapped(task.model)
    if not isinstance(model, DecodesByState):
        raise CheckpointError(
            f"the network of {path} is a {type(model).__name__}, which has no forward_with_state(ids, state); text is "
            "made token by token with it, as RecurrentLanguageModel does"
        )
    ids = _prompt_ids(vocabulary, prompt)
    task.eval()
    new = generate_tokens(
        model,
        ids[None],
        length,
        temperature=temperature,
        top_k=top_k,
        forbidden=torch.tensor([0]),  # the unknown token stands for no text
        generator=torch.Generator().manual_seed(seed),
    )
    return vocabulary.decode([*ids.tolist(), *new[0].tolist()])


def _prompt_ids(vocabulary: Vocabulary, prompt: str) -> torch.Tensor:
    unknown = vocabulary.unknown(prompt)
    if unknown:
        known = vocabulary.tokens[1:]
        shown = "".join(known) if vocabulary.unit == "character" else ", ".join(known[:20])
        more = "" if vocabulary.unit == "character" or len(known) <= 20 else f" and {len(known) - 20} more"
        raise DataError(
            f"the prompt has {', '.join(map(repr, unknown))}, which the model has never seen; it knows the "
            f"{vocabulary.unit}s {shown!r}{more}"
        )
    ids = vocabulary.encode(prompt)
    if not len(ids):
        raise DataError(f"the prompt {prompt!r} has no token; give at least one {vocabulary.unit}")
    return ids
