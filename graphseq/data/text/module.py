"""Data modules for language models: windows of the characters or words of a text file."""

import os
import warnings
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Unpack

import numpy as np
import torch
from torch import Tensor

from graphseq.core.errors import DataError
from graphseq.core.vocabulary import UNKNOWN, Vocabulary, split_tokens
from graphseq.data.base import DataOptions, Stage
from graphseq.data.cache import raw_files
from graphseq.data.loader import BatchLoader
from graphseq.data.sequences.base import PaddedDataModule
from graphseq.data.splits import check_fractions
from graphseq.data.text.files import read_text
from graphseq.data.text.store import TokenStore, smallest_integers, windows
from graphseq.data.text.streams import StreamLoader

__all__ = [
    "CharacterDataModule",
    "TextDataModule",
    "TextOptions",
    "TinyShakespeareDataModule",
    "WikiText2SmallDataModule",
    "WordDataModule",
]

_SPLITS = ("train", "val", "test")

Order = Literal["shuffled", "streams"]


class TextOptions(DataOptions, total=False):
    """Arguments that data modules of text pass on to :class:`TextDataModule` as ``**options: Unpack[TextOptions]``.

    Args:
        order: order of the windows: ``shuffled`` in training, or in ``streams``, see :class:`TextDataModule`; default
            ``shuffled``.

    Example:
        >>> "order" in TextOptions.__annotations__
        True
    """

    order: Order


class TextDataModule(PaddedDataModule):
    """Base class of the data modules of text: windows of one long sequence of tokens, split by position.

    The vocabulary consists of the tokens of the training split; all others become the unknown token, number 0, and a
    warning gives their number (:attr:`unknown_tokens`). Checkpoints hold the vocabulary, so that a network is tested on
    another text with the token numbers of its training.

    Each row of a batch has ``length + 1`` tokens: the first ``length`` are the input of a language model, the last
    ``length`` its targets. With ``stride = length`` each token of a split but its first is predicted once in each
    epoch; the last window may be shorter.

    Memory: 1 byte a token for up to 256 different tokens, 2 up to 32,768, and 16 bytes a window.

    Args:
        path: path of the training text, UTF-8, plain or ``.gz``.
        val_path: path of the validation text; None takes the split from the end of ``path``.
        test_path: path of the test text; None takes the split from the end of ``path``, after the validation split.
        length: number of input tokens of a window, at least 1.
        stride: distance between the starts of two training windows, in 1..length; None for ``length``. Validation and
            test windows are always ``length`` apart, so that each token is predicted once.
        fractions: shares of training, validation and test split in the tokens of ``path``; the share of a split with
            its own file is ignored, and the others keep their proportion.
        min_count: smallest number of occurrences of a token in the training split to be in the vocabulary, at least 1.
        order: ``shuffled`` draws the order of training windows anew in each epoch; in ``streams`` each row of a batch
            goes on where the same row of the batch before ended, in all splits, as
            :class:`graphseq.tasks.CarriedLanguageModeling` needs it, and fewer windows than rows are left out.
        options: further arguments of :class:`PaddedDataModule`; ``pool_batches`` has little effect, since all windows
            have one length.

    Yields:
        ``TokenBatch`` with ids (B, T), T up to ``length + 1``.

    Raises:
        ValueError: if an argument is out of range.
        DataError: when the text is read, if a file is missing, empty or not UTF-8, or a split is too short.

    Example:
        >>> from graphseq.data import SyntheticTextDataModule
        >>> data = SyntheticTextDataModule(length=16, batch_size=4)
        >>> next(data.batches("val")).ids.shape
        torch.Size([4, 17])
    """

    unit: ClassVar[Literal["character", "word"]] = "character"

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        val_path: str | os.PathLike[str] | None = None,
        test_path: str | os.PathLike[str] | None = None,
        length: int = 128,
        stride: int | None = None,
        fractions: Sequence[float] = (0.9, 0.05, 0.05),
        min_count: int = 1,
        order: Order = "shuffled",
        **options: Unpack[DataOptions],
    ) -> None:
        super().__init__(**options)
        if order not in ("shuffled", "streams"):
            raise ValueError(f"order is {order!r}; it must be 'shuffled' or 'streams'")
        if order == "streams" and stride not in (None, length):
            raise ValueError(
                f"stride is {stride} with order 'streams'; windows that overlap do not go on: leave it out"
            )
        if isinstance(length, bool) or not isinstance(length, int) or length < 1:
            raise ValueError(f"length is {length!r}; it must be an integer of at least 1")
        if stride is not None and not 1 <= stride <= length:
            raise ValueError(f"stride is {stride} with length {length}; it must be in 1..length")
        if min_count < 1:
            raise ValueError(f"min_count is {min_count}; it must be at least 1")
        self.files = {"train": path, "val": val_path, "test": test_path}
        self.length = length
        self.stride = stride
        self.fractions = check_fractions(fractions)
        self.min_count = min_count
        self.order: Order = order
        self._vocabulary: Vocabulary | None = None
        self._unknown: dict[str, int] = {}
        self._bounds: dict[str, tuple[int, int]] = {}

    @property
    def vocabulary(self) -> Vocabulary:
        """Vocabulary made of the tokens of the training split."""
        self.load()
        if self._vocabulary is None:
            raise DataError(f"{type(self).__name__}.read() set no vocabulary")
        return self._vocabulary

    @property
    def vocab_size(self) -> int:
        """Number of tokens of the vocabulary, including the unknown token."""
        return len(self.vocabulary)

    @property
    def num_outputs(self) -> int:
        """Number of classes of a prediction: the size of the vocabulary."""
        return self.vocab_size

    @property
    def unknown_tokens(self) -> dict[str, int]:
        """Number of unknown tokens of each split."""
        self.load()
        return dict(self._unknown)

    @property
    def in_streams(self) -> bool:
        """Whether each row of a batch goes on where the same row of the batch before ended."""
        return self.order == "streams"

    def loader(self, stage: Stage) -> BatchLoader:
        """Return the loader of one stage.

        Args:
            stage: name of the split.
        """
        plain = super().loader(stage)
        if not self.in_streams:
            return plain
        return StreamLoader(
            plain.store, plain.batch_size, index=plain.index, world_size=plain.world_size, rank=plain.rank,
            device=plain.device,
        )  # fmt: skip

    def texts(self) -> dict[str, str]:
        """Return the text of ``path`` and of each split that has its own file."""
        return {name: read_text(path) for name, path in self.files.items() if path is not None}

    def read(self) -> tuple[TokenStore, dict[str, Tensor]]:
        """Return the concatenated tokens of all splits, and the windows of each split."""
        numbers, names = _numbered(self.texts(), self.unit)
        bounds = self._cut({name: len(part) for name, part in numbers.items()})
        codes = np.concatenate(list(numbers.values()))
        if self._vocabulary is None:
            self._vocabulary = _fit(codes[slice(*bounds["train"])], names, self.min_count, self.unit)
        number = {token: position for position, token in enumerate(self._vocabulary.tokens)}
        ids = np.array([number.get(name, 0) for name in names])[codes]
        self._bounds = bounds
        self._report_unknown(ids)
        return self._windowed(torch.from_numpy(ids))

    def _cut(self, sizes: dict[str, int]) -> dict[str, tuple[int, int]]:
        """Begin and end of each split in the concatenated tokens."""
        shares = [share if name == "train" or name not in sizes else 0.0
                  for name, share in zip(_SPLITS, self.fractions, strict=True)]  # fmt: skip
        total = sizes["train"]
        edges = [round(total * sum(shares[:upto]) / sum(shares)) for upto in range(len(shares) + 1)]
        bounds = {name: (edges[n], edges[n + 1]) for n, name in enumerate(_SPLITS)}
        begin = total
        for name in _SPLITS[1:]:
            if name in sizes:
                bounds[name] = (begin, begin + sizes[name])
                begin += sizes[name]
        for name, share in zip(_SPLITS, self.fractions, strict=True):
            count = bounds[name][1] - bounds[name][0]
            if count < 2 and (share > 0 or name in sizes):
                raise DataError(
                    f"the {name} split has {count} tokens; at least two are needed, one to read and one to predict. "
                    f"Give a longer text, or a fraction of 0 for {name}"
                )
        count = bounds["train"][1] - bounds["train"][0]
        if count < self.length + 1:
            raise DataError(
                f"length is {self.length}, the training split has {count} tokens; a window needs length + 1. "
                "Give a smaller length or a longer text"
            )
        return bounds

    def _report_unknown(self, ids: np.ndarray) -> None:
        self._unknown = {name: int((ids[slice(*self._bounds[name])] == 0).sum()) for name in _SPLITS}
        found = {name: count for name, count in self._unknown.items() if name != "train" and count}
        if found:
            listed = ", ".join(
                f"{count} of {self._bounds[name][1] - self._bounds[name][0]} tokens of {name}"
                for name, count in found.items()
            )
            warnings.warn(f"{listed} are not in the vocabulary of the training split; they read {UNKNOWN}",
                          stacklevel=2)  # fmt: skip

    def _windowed(self, ids: Tensor) -> tuple[TokenStore, dict[str, Tensor]]:
        starts, lengths, splits, count = [], [], {}, 0
        for name in _SPLITS:
            begin, end = self._bounds[name]
            if begin == end:
                splits[name] = torch.arange(0)
                continue
            first, size = windows(begin, end, self.length, self.stride if name == "train" else None)
            starts.append(first)
            lengths.append(size)
            splits[name] = torch.arange(count, count + len(first))
            count += len(first)
        return TokenStore(smallest_integers(ids), torch.cat(starts), torch.cat(lengths)), splits

    def state_dict(self) -> dict[str, Any]:
        """Return the state for checkpoints: splits and vocabulary."""
        return {**super().state_dict(), "vocabulary": self.vocabulary.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Check that the data match a checkpoint, and number the tokens by its vocabulary.

        Raises:
            DataError: if training would resume on another split, or the vocabulary of the checkpoint has another unit.
        """
        super().load_state_dict(state_dict)
        theirs = Vocabulary.from_state_dict(state_dict["vocabulary"])
        mine = self.vocabulary
        if theirs == mine:
            return
        if theirs.unit != mine.unit:
            raise DataError(f"the checkpoint numbers {theirs.unit}s, {type(self).__name__} {mine.unit}s")
        self._vocabulary = theirs
        self._host, _ = self.read()
        self._resident = None if self._resident is None else self._host.to(self._resident.device)


def _numbered(texts: dict[str, str], unit: Literal["character", "word"]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Number the tokens of all texts by first occurrence; return the numbers and the tokens."""
    import pandas

    joined: np.ndarray
    if unit == "character":
        columns = [np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32) for text in texts.values()]
        joined, sizes = np.concatenate(columns), [len(column) for column in columns]
        codes, uniques = pandas.factorize(joined)
        names = [chr(point) for point in uniques]
    else:
        words = [split_tokens(text, unit) for text in texts.values()]
        joined, sizes = np.array([word for part in words for word in part], dtype=object), list(map(len, words))
        codes, uniques = pandas.factorize(joined)
        names = list(uniques)
    parts = np.split(codes, np.cumsum(sizes)[:-1])
    return dict(zip(texts, parts, strict=True)), names


def _fit(codes: np.ndarray, names: list[str], min_count: int, unit: Literal["character", "word"]) -> Vocabulary:
    """Return the vocabulary of the tokens ``codes``: characters by code point, words by descending count."""
    counts = np.bincount(codes, minlength=len(names))
    kept = [code for code in np.flatnonzero(counts >= min_count).tolist() if names[code] != UNKNOWN]
    if not kept:
        most = int(counts.max(initial=0))
        raise DataError(
            f"min_count is {min_count}, and the most frequent {unit} of the training split occurs {most} times; give a "
            "smaller min_count, or the vocabulary is empty"
        )
    kept.sort(key=lambda code: names[code] if unit == "character" else (-counts[code], names[code]))
    return Vocabulary([names[code] for code in kept], unit)


class CharacterDataModule(TextDataModule):
    """Windows of the characters of a text file, for language models over characters; see :class:`TextDataModule`.

    Args:
        path: path of the training text, UTF-8, plain or ``.gz``.
        val_path: path of the validation text; None takes the split from the end of ``path``.
        test_path: path of the test text; None takes the split from the end of ``path``, after the validation split.
        length: number of input characters of a window, at least 1.
        stride: distance between the starts of two training windows, in 1..length; None for ``length``.
        fractions: shares of training, validation and test split in the text of ``path``; shares of splits with their
            own file are ignored.
        min_count: smallest number of occurrences of a token in the training split to be in the vocabulary, at least 1.
        options: further arguments of :class:`TextDataModule`.

    Yields:
        ``TokenBatch`` with ids (B, T), T up to ``length + 1``.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "text.txt")
        ...     _ = path.write_text("the cat and the dog. " * 20)
        ...     CharacterDataModule(path, length=8).vocab_size
        12
    """

    unit = "character"


class WordDataModule(TextDataModule):
    r"""Windows of the words of a text file, for language models over words; see :class:`TextDataModule`.

    Words are separated by white space, and each line end is the word ``<eos>``: punctuation should be separated from
    words beforehand.

    Args:
        path: path of the training text, UTF-8, plain or ``.gz``.
        val_path: path of the validation text; None takes the split from the end of ``path``.
        test_path: path of the test text; None takes the split from the end of ``path``, after the validation split.
        length: number of input words of a window, at least 1.
        stride: distance between the starts of two training windows, in 1..length; None for ``length``.
        fractions: shares of training, validation and test split in the text of ``path``; shares of splits with their
            own file are ignored.
        min_count: smallest number of occurrences of a token in the training split to be in the vocabulary, at least 1.
        options: further arguments of :class:`TextDataModule`.

    Yields:
        ``TokenBatch`` with ids (B, T), T up to ``length + 1``.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "text.txt")
        ...     _ = path.write_text("the cat and the dog\n" * 20)
        ...     WordDataModule(path, length=8).vocabulary.tokens
        ['<unk>', 'the', '<eos>', 'and', 'cat', 'dog']
    """

    unit = "word"


class TinyShakespeareDataModule(CharacterDataModule):
    """Windows of the characters of Tiny Shakespeare: 1,115,394 characters of plays, 65 different ones.

    Source: the text of arXiv 1506.02078's code, split 90/5/5 by position.

    Args:
        length: number of input characters of a window, at least 1.
        stride: distance between the starts of two training windows, in 1..length; None for ``length``.
        fractions: shares of training, validation and test split in the text of ``path``; shares of splits with their
            own file are ignored.
        verify_checksums: whether to refuse a file that differs from the published one.
        options: further arguments of :class:`TextDataModule`.

    Yields:
        ``TokenBatch`` with ids (B, T), T up to ``length + 1``.

    Raises:
        DataError: when the text is read, if the file is neither in the mirror nor in the cache and cannot be
            downloaded.

    Example:
        >>> TinyShakespeareDataModule(length=64).length
        64
    """

    def __init__(
        self,
        *,
        length: int = 128,
        stride: int | None = None,
        fractions: Sequence[float] = (0.9, 0.05, 0.05),
        verify_checksums: bool = True,
        **options: Unpack[TextOptions],
    ) -> None:
        super().__init__("input.txt", length=length, stride=stride, fractions=fractions, **options)
        self.verify_checksums = verify_checksums

    def texts(self) -> dict[str, str]:
        """Return the text, from the mirror, the cache or the network."""
        found = raw_files(
            "TinyShakespeare",
            ["input.txt"],
            address=lambda name: f"https://raw.githubusercontent.com/karpathy/char-rnn/{_SHAKESPEARE_COMMIT}/{name}",
            checksums=_SHAKESPEARE_CHECKSUMS if self.verify_checksums else None,
        )
        return {"train": read_text(found["input.txt"])}


class WikiText2SmallDataModule(WordDataModule):
    """Windows of the words of WikiText-2's validation and test parts: 0.22 and 0.25 million words with line ends.

    The training part of WikiText-2 is not used: the network trains on the published validation part, validates on
    its end and is tested on the published test part, so that perplexities are not comparable with published ones.

    Source: arXiv 1609.07843.

    Args:
        length: number of input words of a window, at least 1.
        stride: distance between the starts of two training windows, in 1..length; None for ``length``.
        val_fraction: share of the published validation part that is the validation split, in (0, 1).
        min_count: smallest number of occurrences of a token in the training split to be in the vocabulary, at least 1.
        verify_checksums: whether to refuse files that differ from the published ones.
        options: further arguments of :class:`TextDataModule`.

    Yields:
        ``TokenBatch`` with ids (B, T), T up to ``length + 1``.

    Raises:
        ValueError: if an argument is out of range.
        DataError: when the text is read, if a file is neither in the mirror nor in the cache.

    Example:
        >>> WikiText2SmallDataModule(length=64).length
        64
    """

    def __init__(
        self,
        *,
        length: int = 64,
        stride: int | None = None,
        val_fraction: float = 0.1,
        min_count: int = 2,
        verify_checksums: bool = True,
        **options: Unpack[TextOptions],
    ) -> None:
        if not 0 < val_fraction < 1:
            raise ValueError(f"val_fraction is {val_fraction}; it must be in (0, 1)")
        super().__init__(
            "valid.txt.gz",
            test_path="test.txt.gz",
            length=length,
            stride=stride,
            fractions=(1 - val_fraction, val_fraction, 0.0),
            min_count=min_count,
            **options,
        )
        self.verify_checksums = verify_checksums

    def texts(self) -> dict[str, str]:
        """Return the published validation part as training text, and the test part."""
        found = raw_files(
            "WikiText2_small",
            ["valid.txt.gz", "test.txt.gz"],
            checksums=_WIKITEXT_CHECKSUMS if self.verify_checksums else None,
        )
        return {"train": read_text(found["valid.txt.gz"]), "test": read_text(found["test.txt.gz"])}


_SHAKESPEARE_COMMIT = "6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e/data/tinyshakespeare"
_SHAKESPEARE_CHECKSUMS = {"input.txt": "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"}
_WIKITEXT_CHECKSUMS = {
    "test.txt.gz": "688887879b4b526692cb2e423a516dcc5f6584a01fd3f33a8e164fbed2de8090",
    "valid.txt.gz": "3cdd8cb5bb349a05840c7c3bef9578d90d64df77e27e0c25c033ba9342757ee3",
}
