"""Synthetic text from a small grammar, for language models without any file."""

from typing import Unpack

import torch
from torch import Generator, Tensor

from graphseq.data.text.module import CharacterDataModule, TextOptions

__all__ = ["SyntheticTextDataModule", "sentence_text"]

_NOUNS = ("cat", "dog", "king", "queen", "river", "tree", "star", "child")
_ADJECTIVES = ("", "old ", "small ", "quiet ")
_VERBS = ("sees", "follows", "finds", "calls")
_VERBS_OF_MANY = ("see", "follow", "find", "call")


def sentence_text(num_sentences: int, *, generator: Generator | None = None) -> Tensor:
    """Draw sentences of subject, verb and object as ASCII codes, one sentence a line.

    The verb agrees with the number of its subject, mostly with an adjective between them, so that a model
    with a context of a few characters cannot predict it.

    Args:
        num_sentences: number of sentences, at least 1.
        generator: source of the random numbers; None for torch's own.

    Returns:
        ASCII codes, uint8 (M,).

    Raises:
        ValueError: if ``num_sentences`` is below 1.

    Example:
        >>> text = sentence_text(2, generator=torch.Generator().manual_seed(0))
        >>> bytes(text.tolist()).decode().count(".")
        2
    """
    if num_sentences < 1:
        raise ValueError(f"num_sentences is {num_sentences}; it must be at least 1")

    def draw(count: int) -> list[int]:
        return torch.randint(count, (num_sentences,), generator=generator).tolist()

    subjects, objects, many, many_objects = draw(len(_NOUNS)), draw(len(_NOUNS)), draw(2), draw(2)
    first, second, verbs = draw(len(_ADJECTIVES)), draw(len(_ADJECTIVES)), draw(len(_VERBS))
    lines = [
        f"the {_ADJECTIVES[first[n]]}{_plural(_NOUNS[subjects[n]], many[n])} "
        f"{(_VERBS_OF_MANY if many[n] else _VERBS)[verbs[n]]} "
        f"the {_ADJECTIVES[second[n]]}{_plural(_NOUNS[objects[n]], many_objects[n])}.\n"
        for n in range(num_sentences)
    ]
    return torch.frombuffer(bytearray("".join(lines).encode("ascii")), dtype=torch.uint8)


def _plural(noun: str, many: int) -> str:
    return noun if not many else "children" if noun == "child" else f"{noun}s"


class SyntheticTextDataModule(CharacterDataModule):
    """Windows of the characters of :func:`sentence_text`, small enough for a test and without any file.

    Args:
        num_sentences: number of sentences in all splits together, at least 1.
        length: number of input characters of a window, at least 1.
        stride: distance between the starts of two training windows, in 1..length; None for ``length``.
        options: further arguments of :class:`TextDataModule`; ``seed`` is also the seed of the text.

    Yields:
        ``TokenBatch`` with ids (B, T), T up to ``length + 1``.

    Example:
        >>> SyntheticTextDataModule(num_sentences=200).vocab_size
        24
    """

    def __init__(
        self,
        num_sentences: int = 1000,
        *,
        length: int = 64,
        stride: int | None = None,
        **options: Unpack[TextOptions],
    ) -> None:
        super().__init__("generated", length=length, stride=stride, fractions=(0.8, 0.1, 0.1), **options)
        self.num_sentences = num_sentences

    def texts(self) -> dict[str, str]:
        """Return the text drawn with the seed."""
        codes = sentence_text(self.num_sentences, generator=torch.Generator().manual_seed(self.seed))
        return {"train": codes.numpy().tobytes().decode("ascii")}
