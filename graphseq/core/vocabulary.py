"""Vocabulary of a language model: text to token numbers and back."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal, Self

import torch
from torch import Tensor

from graphseq.core.errors import DataError

__all__ = ["Vocabulary"]

Unit = Literal["character", "word"]

UNKNOWN = "<unk>"
LINE_END = "<eos>"


class Vocabulary:
    """Maps the characters or words of a text to numbers; number 0 is the unknown token.

    Words are separated by white space; each line end is a word of its own, ``<eos>``. Characters are Unicode
    code points, the line end among them.

    Args:
        tokens: the known tokens, each once; they get the numbers 1, 2, ... in this order. ``<unk>`` may occur at
            any position and always has the number 0.
        unit: ``character`` or ``word``.

    Raises:
        ValueError: if ``unit`` is something else.
        DataError: if a token repeats, or is not one character where characters are numbered.

    Example:
        >>> vocabulary = Vocabulary(["a", "b"], "character")
        >>> vocabulary.encode("abc").tolist(), vocabulary.decode([1, 2])
        ([1, 2, 0], 'ab')
    """

    def __init__(self, tokens: Sequence[str], unit: Unit) -> None:
        if unit not in ("character", "word"):
            raise ValueError(f"unit is {unit!r}; it must be 'character' or 'word'")
        known = [token for token in tokens if token != UNKNOWN]
        if len(set(known)) != len(known):
            raise DataError("tokens repeat in the vocabulary; give each token once")
        wrong = next((token for token in known if len(token) != 1), None) if unit == "character" else None
        if wrong is not None:
            raise DataError(f"token {wrong!r} is not one character; a vocabulary of characters holds single ones")
        self.unit: Unit = unit
        self.tokens = [UNKNOWN, *known]
        self._number = {token: number for number, token in enumerate(self.tokens)}

    def __len__(self) -> int:
        return len(self.tokens)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and (self.unit, self.tokens) == (other.unit, other.tokens)

    __hash__ = None  # type: ignore[assignment]  # equality is by content

    def __repr__(self) -> str:
        return f"Vocabulary({len(self)} tokens, unit={self.unit!r})"

    def split(self, text: str) -> list[str]:
        """Return the tokens of a text as strings, including unknown ones.

        Args:
            text: any text.
        """
        return split_tokens(text, self.unit)

    def unknown(self, text: str) -> list[str]:
        """Return the tokens of a text that are not in the vocabulary, each once, in the order they appear.

        Args:
            text: any text.
        """
        return list(dict.fromkeys(token for token in self.split(text) if token not in self._number))

    def encode(self, text: str) -> Tensor:
        """Return the token numbers of a text, int64 (T,); 0 for tokens that are not in the vocabulary.

        Args:
            text: any text.
        """
        return torch.tensor([self._number.get(token, 0) for token in self.split(text)], dtype=torch.int64)

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of token numbers; words are joined by spaces.

        Args:
            ids: token numbers, each at least 0 and below the size of the vocabulary.

        Raises:
            DataError: if a number is out of range, such as -100 of padding.
        """
        numbers = [int(number) for number in ids]
        wrong = next((number for number in numbers if not 0 <= number < len(self)), None)
        if wrong is not None:
            raise DataError(f"ids hold {wrong}; the vocabulary has the token numbers 0 to {len(self) - 1}")
        return join_tokens([self.tokens[number] for number in numbers], self.unit)

    def state_dict(self) -> dict[str, Any]:
        """Return the vocabulary as plain data, as a checkpoint keeps it."""
        return {"unit": self.unit, "tokens": list(self.tokens)}

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> Self:
        """Return the vocabulary from its state dictionary.

        Args:
            state: plain data that :meth:`state_dict` returned.
        """
        return cls(state["tokens"], state["unit"])


def split_tokens(text: str, unit: Unit) -> list[str]:
    r"""Cut a text into characters, or into words with ``<eos>`` for each line end.

    Args:
        text: any text.
        unit: ``character`` or ``word``.

    Example:
        >>> split_tokens("to be\nor", "word")
        ['to', 'be', '<eos>', 'or']
    """
    return list(text) if unit == "character" else text.replace("\n", f" {LINE_END} ").split()


def join_tokens(tokens: Sequence[str], unit: Unit) -> str:
    r"""Put tokens together to a text; the inverse of :func:`split_tokens` up to white space.

    Args:
        tokens: tokens of the text.
        unit: ``character`` or ``word``.

    Example:
        >>> join_tokens(["to", "be", "<eos>", "or"], "word")
        'to be\nor'
    """
    if unit == "character":
        return "".join(tokens)
    lines: list[list[str]] = [[]]
    for token in tokens:
        if token == LINE_END:
            lines.append([])
        else:
            lines[-1].append(token)
    return "\n".join(" ".join(line) for line in lines)
