"""Classification of strings by character: a CSV table of your own, and strings of the Reber grammar."""

import itertools
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import Tensor

from graphseq.core.errors import DataError
from graphseq.core.vocabulary import UNKNOWN, Vocabulary
from graphseq.data.base import DataOptions
from graphseq.data.cache import raw_files
from graphseq.data.sequences.base import PaddedDataModule
from graphseq.data.sequences.files import read_cells, sort_labels
from graphseq.data.sequences.store import SequenceStore
from graphseq.data.splits import check_fractions, random_split

__all__ = ["LabelledStrings", "ReberDataModule", "StringDataModule", "pair_rule_accuracy"]


def pair_rule_accuracy(
    train: Sequence[str], train_valid: Sequence[int], test: Sequence[str], test_valid: Sequence[int]
) -> float:
    """Return the accuracy of the rule: valid if every pair of neighbouring letters occurs in a valid training string.

    It is what a classifier has to beat that is said to know a grammar: on the published strings it has 0.94.

    Args:
        train: strings that the pairs are taken from.
        train_valid: 1 for each valid one, else 0.
        test: strings that the rule is tested on.
        test_valid: 1 for each valid one, else 0.

    Raises:
        ValueError: if there are no test strings, or the numbers of strings and labels differ.

    Example:
        >>> pair_rule_accuracy(["ABA", "CC"], [1, 0], ["AB", "CC", "AA"], [1, 0, 1]) == 2 / 3
        True
    """
    if not len(test) or len(test) != len(test_valid) or len(train) != len(train_valid):
        raise ValueError(
            f"test has {len(test)} strings and {len(test_valid)} labels, train {len(train)} and {len(train_valid)}; "
            "give one label a string, and at least one test string"
        )
    accepted = [text for text, valid in zip(train, train_valid, strict=True) if valid]
    known = {pair for text in accepted for pair in itertools.pairwise(text)}
    right = [
        known.issuperset(itertools.pairwise(text)) == bool(valid) for text, valid in zip(test, test_valid, strict=True)
    ]
    return sum(right) / len(right)


class LabelledStrings(PaddedDataModule):
    """Base class of data modules of labelled strings, which are read character by character.

    The vocabulary consists of the characters of the training split; all others become the unknown token, number 0,
    and a warning gives their number. Checkpoints hold the vocabulary.

    Args:
        fractions: shares of train, validation and test, summing to 1; each split has the same share of each class.
        pool_batches: number of batches within which training samples are sorted by length, at least 1; None for a fully
            random order.
        options: further arguments of :class:`PaddedDataModule`.

    Yields:
        ``SequenceBatch`` with x int64 (B, T), lengths and y (B,).

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> class Letters(LabelledStrings):
        ...     def read_strings(self):
        ...         return [letter * n for letter in "ab" for n in range(1, 11)], ["a"] * 10 + ["b"] * 10
        >>> Letters().vocab_size, Letters().class_names
        (3, ['a', 'b'])
    """

    def __init__(
        self,
        *,
        fractions: Sequence[float] = (0.8, 0.1, 0.1),
        pool_batches: int | None = None,
        **options: Unpack[DataOptions],
    ) -> None:
        super().__init__(pool_batches=pool_batches, **options)
        self.fractions = check_fractions(fractions)
        self._vocabulary: Vocabulary | None = None
        self._class_names: list[str] = []

    def read_strings(self) -> tuple[list[str], list[str]]:
        """Return different strings, none of them empty, and the label of each; defined by each subclass."""
        raise TypeError(f"{type(self).__name__} must define read_strings()")

    def read(self) -> tuple[SequenceStore, dict[str, Tensor]]:
        """Return the strings as character numbers, and their splits."""
        strings, labels = self.read_strings()
        if self.predicting:
            if not self.trained("vocabulary"):
                raise DataError(
                    f"the checkpoint was trained on other data than a {type(self).__name__}, so it has no vocabulary"
                )
            self._class_names = list(self.trained("class_names"))
            self._vocabulary = Vocabulary.from_state_dict(self.trained("vocabulary"))
        else:
            self._class_names = sort_labels(labels)
        number = {name: position for position, name in enumerate(self._class_names)}
        y = torch.tensor([number.get(label, -1) for label in labels]) if labels else None
        labelled = y is not None and bool((y >= 0).all())
        splits = random_split(len(strings), self.fractions, self.seed, y) if self.divides(labelled) else {}
        if self._vocabulary is None:
            known = sorted(set("".join(strings[n] for n in splits["train"].tolist())))
            self._vocabulary = Vocabulary(known, "character")
        x = self._vocabulary.encode("".join(strings))
        if bool((x == 0).any()):
            warnings.warn(
                f"{int((x == 0).sum())} characters are not in the training split's vocabulary; they read {UNKNOWN}",
                stacklevel=2,
            )
        ptr = torch.tensor([0, *map(len, strings)]).cumsum(0)
        return SequenceStore(x, ptr, y=y), splits

    @property
    def vocabulary(self) -> Vocabulary:
        """Vocabulary made of the characters of the training split."""
        self.load()
        if self._vocabulary is None:
            raise DataError(f"{type(self).__name__}.read() set no vocabulary")
        return self._vocabulary

    @property
    def vocab_size(self) -> int:
        """Number of characters of the vocabulary, including the unknown token."""
        return len(self.vocabulary)

    @property
    def class_names(self) -> list[str]:
        """Label of each class, as in the table."""
        self.load()
        return list(self._class_names)

    @property
    def num_outputs(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    def state_dict(self) -> dict[str, Any]:
        """Return the state for checkpoints: splits, vocabulary and classes."""
        fitted = {"vocabulary": self.vocabulary.state_dict(), "class_names": self.class_names}
        return {**super().state_dict(), **fitted}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Check that the data match a checkpoint, and number the characters by its vocabulary.

        Raises:
            DataError: if training would resume on another split, or the table has other classes.
        """
        super().load_state_dict(state_dict)
        if state_dict["class_names"] != self.class_names:
            raise DataError(
                f"the checkpoint was trained with classes {state_dict['class_names']}; {self.origin} has the classes "
                f"{self.class_names}"
            )
        theirs = Vocabulary.from_state_dict(state_dict["vocabulary"])
        if theirs != self.vocabulary:
            self._vocabulary = theirs
            self._host, _ = self.read()
            self._resident = None if self._resident is None else self._host.to(self._resident.device)

    @property
    def origin(self) -> str:
        """Where the strings come from, for messages."""
        return f"this {type(self).__name__}"

    @property
    def pair_accuracy(self) -> float:
        """Accuracy on the test split of the rule that a string is of the last class if all its pairs of letters are.

        That is :func:`pair_rule_accuracy` with the pairs of the training strings of the last class; two classes only.

        Raises:
            DataError: if there are not two classes.
        """
        if self.num_outputs != 2:
            raise DataError(f"there are {self.num_outputs} classes; the rule of pairs tells 2 apart")
        strings, labels = self.read_strings()
        valid = [int(label == self.class_names[-1]) for label in labels]
        train, test = (self.splits[split].tolist() for split in ("train", "test"))
        return pair_rule_accuracy(
            [strings[n] for n in train], [valid[n] for n in train], [strings[n] for n in test], [valid[n] for n in test]
        )


class StringDataModule(LabelledStrings):
    """Labelled strings from two columns of a CSV table.

    The vocabulary consists of the characters of the training split; all others become the unknown token, number 0,
    and a warning gives their number. Checkpoints hold the vocabulary. A string that occurs twice is used once, so that
    no string is in two splits.

    Memory: 8 bytes for each character, without padding; see :class:`SequenceStore`.

    Args:
        path: path of the table, UTF-8, plain or ``.gz``.
        text: header of the column with the strings.
        target: header of the column with the labels.
        delimiter: character that separates cells.
        fractions: shares of train, validation and test, summing to 1; each split has the same share of each class.
        pool_batches: number of batches within which training samples are sorted by length, at least 1; None for a fully
            random order.
        options: further arguments of :class:`PaddedDataModule`.

    Yields:
        ``SequenceBatch`` with x int64 (B, T), lengths and y (B,).

    Raises:
        ValueError: if an argument is out of range.
        DataError: when the data are read, if a column is missing, a string or a label is empty, a string has two
            labels, or there is only one class.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "strings.csv")
        ...     rows = ["text,kind", *(f"{'ab'[n % 2] * (n + 1)},{n % 2}" for n in range(20))]
        ...     _ = path.write_text(chr(10).join(rows))
        ...     data = StringDataModule(path, "text", "kind")
        ...     data.vocab_size, data.num_outputs
        (3, 2)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        text: str,
        target: str,
        *,
        delimiter: str = ",",
        fractions: Sequence[float] = (0.8, 0.1, 0.1),
        pool_batches: int | None = None,
        **options: Unpack[DataOptions],
    ) -> None:
        super().__init__(fractions=fractions, pool_batches=pool_batches, **options)
        self.path = Path(path)
        self.text = text
        self.target = target
        self.delimiter = delimiter

    def table(self) -> Path:
        """Return the path of the table."""
        return self.path

    @property
    def origin(self) -> str:
        """Path of the table."""
        return str(self.table())

    def read_strings(self) -> tuple[list[str], list[str]]:
        """Return the strings of the table, each once, and their labels."""
        path = self.table()
        table = read_cells(path, self.delimiter)
        unlabelled = self.predicting and self.target not in table.columns
        for name in (self.text, *([] if unlabelled else [self.target])):
            if name not in table.columns:
                raise DataError(f"{path} has no column {name!r}; its columns are {', '.join(table.columns)}")
            if name == self.target:
                table[name] = table[name].str.strip()
            empty = (table[name] == "").to_numpy().nonzero()[0]
            if len(empty) and not (self.predicting and name == self.target):
                line = table.index[empty[0]]
                raise DataError(f"{path}, line {line}, column {name!r} is empty; fill it in or drop the line")
        if unlabelled:
            return table[self.text].tolist(), []
        pairs = table[[self.text, self.target]].drop_duplicates()
        twice = pairs[self.text].duplicated()
        if twice.any():
            raise DataError(f"{path}: {pairs[self.text][twice].iloc[0]!r} has two labels; give each string one")
        return pairs[self.text].tolist(), pairs[self.target].tolist()


class ReberDataModule(StringDataModule):
    """Strings of the Reber grammar and others, 24,992 different ones of 11 to 53 capital letters; valid or not.

    Many invalid strings contain a letter that no valid string has: this rule alone reaches an accuracy of 0.78, and
    the pairs of letters in valid training strings reach 0.94. Compare with these, not with chance.

    Source: arXiv 2407.20601; test share as in the paper. Differs from it: strings that occur twice are used once, and
    validation strings are drawn from the training strings.

    Args:
        fractions: shares of train, validation and test, summing to 1.
        verify_checksums: whether to refuse a file that differs from the published one.
        pool_batches: number of batches within which training samples are sorted by length, at least 1; None for a fully
            random order.
        options: further arguments of :class:`PaddedDataModule`.

    Yields:
        ``SequenceBatch`` with x int64 (B, T), lengths and y (B,), 1 for valid.

    Raises:
        DataError: when the data are read, if the file is neither in the mirror nor in the cache.

    Example:
        >>> ReberDataModule(batch_size=32).batch_size
        32
    """

    def __init__(
        self,
        *,
        fractions: Sequence[float] = (0.7, 0.05, 0.25),
        verify_checksums: bool = True,
        pool_batches: int | None = None,
        **options: Unpack[DataOptions],
    ) -> None:
        super().__init__(
            "reber_sequences.csv.gz", "string", "valid", fractions=fractions, pool_batches=pool_batches, **options
        )
        self.verify_checksums = verify_checksums

    def table(self) -> Path:
        """Return the file in the cache."""
        name = str(self.path)
        return raw_files("Reber", [name], checksums=_CHECKSUMS if self.verify_checksums else None)[name]


_CHECKSUMS = {"reber_sequences.csv.gz": "e464a595791555fa50efd201572435b71212e06a5a1ee0ab3b18fa4253eef530"}
