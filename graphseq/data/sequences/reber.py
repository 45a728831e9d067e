"""Generated strings of the Reber grammar and of the embedded one, with invalid strings that pairs do not reveal."""

from collections.abc import Sequence
from typing import Unpack

import numpy as np
from torch import Generator, randint

from graphseq.data.base import DataOptions
from graphseq.data.sequences.strings import LabelledStrings

__all__ = ["SyntheticReberDataModule", "is_reber_string", "reber_strings"]

_ARCS = {0: "TP", 1: "SX", 2: "TV", 3: "XS", 4: "PV"}  # letters of the two arcs of each inner state
_NEXT = np.array([[1, 2], [1, 3], [2, 4], [2, 5], [3, 5], [5, 5]])  # state that an arc leads to; 5 accepts
_STATES = {(state, letter): int(_NEXT[state, arc]) for state, both in _ARCS.items() for arc, letter in enumerate(both)}
_LETTERS = np.array([[ord(letter) for letter in _ARCS.get(state, "EE")] for state in range(6)], dtype=np.uint8)
_INNER = "PSTVX"
_FOREIGN_SHARE = 0.56  # share of the published invalid strings of other arcs with a letter outside the alphabet
_ROUNDS = 1000


def is_reber_string(string: str, embedded: bool = False) -> bool:
    """Return whether a string belongs to the Reber grammar, or to the embedded one.

    The grammar begins with B and ends with E. The embedded one is ``BT<string>TE`` or ``BP<string>PE`` for a string of
    the grammar, so that the last letter but one has to be remembered over all of it.

    Args:
        string: capital letters.
        embedded: whether the embedded grammar is meant.

    Example:
        >>> is_reber_string("BTSXSE"), is_reber_string("BTTXSE"), is_reber_string("BPBTSXSEPE", embedded=True)
        (True, False, True)
    """
    if embedded:
        outer = len(string) > 4 and string[0] == "B" and string[1] in "TP" and string[-2:] == f"{string[1]}E"
        return outer and is_reber_string(string[2:-2])
    if len(string) < 2 or string[0] != "B" or string[-1] != "E":
        return False
    state = 0
    for letter in string[1:-1]:
        found = _STATES.get((state, letter))
        if found is None:
            return False
        state = found
    return state == 5


def reber_strings(
    num_strings: int,
    hard_fraction: float = 0.3,
    *,
    embedded: bool = False,
    min_length: int = 11,
    max_length: int = 53,
    generator: Generator | None = None,
) -> tuple[list[str], list[int]]:
    """Generate different strings, half of them valid, in random order.

    Valid strings are walks on the automaton of the grammar, with equal chances at each branch. An invalid string that
    is not hard is such a walk with other letters on the arcs, as in the published data: the five inner letters
    exchanged (44 %) or drawn from A to Z (56 %), anew for each string. A hard one is a valid string with one letter
    replaced, left out or exchanged with the next one, within the alphabet. In the embedded grammar a hard one is a
    valid string with the other letter before its end: every pair of its letters occurs in valid strings.

    Args:
        num_strings: number of strings, at least 2.
        hard_fraction: share of the invalid strings that are hard, in [0, 1].
        embedded: whether strings are of the embedded grammar.
        min_length: least number of letters, at least 5; 9 for the embedded grammar.
        max_length: largest number of letters, at least ``min_length`` + 5.
        generator: source of the random numbers; None for torch's own.

    Returns:
        the strings, and 1 for each valid one, else 0.

    Raises:
        ValueError: if an argument is out of range, or there are too few strings of these lengths.

    Example:
        >>> import torch
        >>> strings, valid = reber_strings(100, generator=torch.Generator().manual_seed(0))
        >>> len(set(strings)), sum(valid), all(is_reber_string(s) == bool(v) for s, v in zip(strings, valid))
        (100, 50, True)
    """
    if num_strings < 2:
        raise ValueError(f"num_strings is {num_strings}; give at least 2, a valid one and another")
    if not 0 <= hard_fraction <= 1:
        raise ValueError(f"hard_fraction is {hard_fraction}; give a share of the invalid strings in [0, 1]")
    least = 9 if embedded else 5
    if min_length < least:
        raise ValueError(f"min_length is {min_length}; the shortest strings have {least} letters")
    if max_length < min_length + 5:
        raise ValueError(f"max_length is {max_length}; with min_length {min_length} give at least {min_length + 5}")
    seed = int(randint(2**62, (1,), generator=generator))
    draw = _Draw(np.random.default_rng(seed), embedded, min_length, max_length)
    num_valid = (num_strings + 1) // 2
    num_hard = round(hard_fraction * (num_strings - num_valid))
    wanted = {"valid": num_valid, "hard": num_hard, "other": num_strings - num_valid - num_hard}
    found: dict[str, int] = {}
    for kind, number in wanted.items():
        draw.add(found, kind, number)
    strings = list(found)
    order = draw.generator.permutation(len(strings))
    return [strings[n] for n in order], [found[strings[n]] for n in order]


class _Draw:
    """Draws strings of one kind until there are enough different ones."""

    def __init__(self, generator: np.random.Generator, embedded: bool, min_length: int, max_length: int) -> None:
        self.generator, self.embedded = generator, embedded
        outer = 4 if embedded else 0
        self.inner = (min_length - outer - 2, max_length - outer - 2)  # letters between B and E

    def add(self, found: dict[str, int], kind: str, number: int) -> None:
        """Add ``number`` new strings to those that were found."""
        goal = len(found) + number
        draw = {"valid": self._valid, "hard": self._hard, "other": self._other}[kind]
        for _ in range(_ROUNDS):
            if len(found) >= goal:
                return
            valid = kind == "valid"
            for string in draw(max(4096, 3 * (goal - len(found)))):
                if len(found) < goal and string not in found and is_reber_string(string, self.embedded) == valid:
                    found[string] = int(valid)
        low, high = self.inner
        raise ValueError(
            f"max_length leaves too few strings: {goal - len(found)} more {kind} ones are needed; give fewer strings, "
            f"or more lengths than {low + 2} to {high + 2} letters of the plain grammar"
        )

    def _walks(self, number: int) -> tuple[np.ndarray, np.ndarray, list[int]]:
        """Walks of allowed length: states and arcs (N, T) and the number of steps; all are drawn at once."""
        low, high = self.inner
        arcs = self.generator.integers(2, size=(number, high))
        state = np.zeros(number, dtype=np.int64)
        states = np.empty((number, high), dtype=np.int64)
        for step in range(high):
            states[:, step] = state
            state = _NEXT[state, arcs[:, step]]
        length = np.where(state == 5, (states != 5).sum(1), 0)
        chosen = np.flatnonzero((length >= low) & (length <= high))
        return states[chosen], arcs[chosen], length[chosen].tolist()

    def _wrapped(self, codes: np.ndarray, lengths: list[int]) -> list[str]:
        """Strings of the letters (N, T), with B and E and in the embedded grammar two more letters around them."""
        inner = [row[:length] for row, length in zip(codes.tobytes().decode().split("\n"), lengths, strict=False)]
        if not self.embedded:
            return [f"B{string}E" for string in inner]
        outer = ["TP"[choice] for choice in self.generator.integers(2, size=len(inner)).tolist()]
        return [f"B{letter}B{string}E{letter}E" for letter, string in zip(outer, inner, strict=True)]

    def _valid(self, number: int) -> list[str]:
        states, arcs, lengths = self._walks(number)
        return self._wrapped(_lines(_LETTERS[states, arcs]), lengths)

    def _other(self, number: int) -> list[str]:
        states, arcs, lengths = self._walks(number)
        foreign = self.generator.integers(ord("A"), ord("Z") + 1, size=(len(lengths), 5, 2)).astype(np.uint8)
        exchanged = self.generator.random((len(lengths), len(_INNER))).argsort(1)  # a permutation of the inner letters
        codes = np.frombuffer(_INNER.encode(), np.uint8)
        place = np.searchsorted(codes, _LETTERS[:5])  # of the letter of each arc among the inner letters
        either = self.generator.random(len(lengths)) < _FOREIGN_SHARE
        names = np.where(either[:, None, None], foreign, codes[exchanged][:, place])  # (N, 5, 2)
        names = np.concatenate([names, names[:, :1]], 1)  # of the accepting state, which has no arcs
        return self._wrapped(_lines(names[np.arange(len(lengths))[:, None], states, arcs]), lengths)

    def _hard(self, number: int) -> list[str]:
        valid = self._valid(number)
        if self.embedded:
            return [f"{string[:-2]}{'P' if string[1] == 'T' else 'T'}E" for string in valid]
        places = self.generator.random(len(valid)).tolist()
        kinds = self.generator.integers(3, size=len(valid)).tolist()
        new = self.generator.integers(len(_INNER), size=len(valid)).tolist()
        edited = [
            _edited(string, 1 + int(place * (len(string) - 3)), kind, _INNER[letter])
            for string, place, kind, letter in zip(valid, places, kinds, new, strict=True)
        ]
        return [string for string in edited if len(string) >= self.inner[0] + 2]


def _lines(codes: np.ndarray) -> np.ndarray:
    """Letters (N, T) with a line break after each row."""
    return np.concatenate([codes, np.full((len(codes), 1), ord("\n"), np.uint8)], 1).astype(np.uint8)


def _edited(string: str, place: int, kind: int, letter: str) -> str:
    """A string with the letter at a place replaced, left out, or exchanged with the next one."""
    if kind == 0:
        return string[:place] + letter + string[place + 1 :]
    if kind == 1:
        return string[:place] + string[place + 1 :]
    return string[:place] + string[place + 1] + string[place] + string[place + 2 :]


class SyntheticReberDataModule(LabelledStrings):
    """Strings of :func:`reber_strings`, valid or not, without any file.

    ``pair_accuracy`` is what pairs of letters alone reach on the test split. With ``embedded=True`` and
    ``hard_fraction=1`` it is 0.5: only a network that remembers the second letter to the end does better.

    Source: arXiv 2407.20601; its grammar and the two kinds of its invalid strings. Differs from it: strings are drawn
    anew, none occurs twice, and there are hard invalid strings.

    Args:
        num_strings: number of strings in all splits together, at least 10.
        hard_fraction: share of the invalid strings that differ from a valid one by one letter, in [0, 1].
        embedded: whether strings are of the embedded grammar.
        min_length: least number of letters, at least 5; 9 for the embedded grammar.
        max_length: largest number of letters, at least ``min_length`` + 5.
        fractions: shares of train, validation and test, summing to 1.
        pool_batches: number of batches within which training samples are sorted by length, at least 1; None for a fully
            random order.
        options: further arguments of :class:`PaddedDataModule`; ``seed`` is also the seed of the strings.

    Yields:
        ``SequenceBatch`` with x int64 (B, T), lengths and y (B,), 1 for valid.

    Raises:
        ValueError: if an argument is out of range; see :func:`reber_strings`.

    Example:
        >>> data = SyntheticReberDataModule(400, hard_fraction=1.0, embedded=True)
        >>> data.vocab_size, data.num_outputs, data.pair_accuracy
        (8, 2, 0.5)
    """

    def __init__(
        self,
        num_strings: int = 25_000,
        hard_fraction: float = 0.3,
        embedded: bool = False,
        *,
        min_length: int = 11,
        max_length: int = 53,
        fractions: Sequence[float] = (0.7, 0.05, 0.25),
        pool_batches: int | None = None,
        **options: Unpack[DataOptions],
    ) -> None:
        super().__init__(fractions=fractions, pool_batches=pool_batches, **options)
        if num_strings < 10:
            raise ValueError(f"num_strings is {num_strings}; give at least 10 for three splits")
        self.num_strings, self.hard_fraction, self.embedded = num_strings, hard_fraction, embedded
        self.min_length, self.max_length = min_length, max_length
        reber_strings(2, hard_fraction, embedded=embedded, min_length=min_length, max_length=max_length,
                      generator=Generator().manual_seed(0))  # fmt: skip  # the ranges, at once

    def read_strings(self) -> tuple[list[str], list[str]]:
        """Return the strings drawn with the seed, and their labels."""
        strings, valid = reber_strings(
            self.num_strings,
            self.hard_fraction,
            embedded=self.embedded,
            min_length=self.min_length,
            max_length=self.max_length,
            generator=Generator().manual_seed(self.seed),
        )
        return strings, [str(label) for label in valid]
