"""Generated tasks that ask for a memory: the adding problem, and copying after a delay."""

from collections.abc import Sequence
from typing import Unpack

import torch
from torch import Generator, Tensor

from graphseq.core.batches import IGNORED
from graphseq.data.base import DataOptions
from graphseq.data.sequences.base import PaddedDataModule
from graphseq.data.sequences.store import SequenceStore
from graphseq.data.splits import check_fractions, ordered_split

__all__ = ["AddingDataModule", "CopyMemoryDataModule", "adding_problem", "copy_memory"]


def _check(**values: tuple[int, int]) -> None:
    for name, (value, least) in values.items():
        if value < least:
            raise ValueError(f"{name} is {value}; it must be at least {least}")


def adding_problem(num_sequences: int, length: int, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
    """Generate sequences of numbers of which two are marked, and the sum of the two.

    Numbers are uniform in [0, 1]; one mark stands in the first half, the other in the second. A network that answers
    with the mean, 1, has a squared error of 1/6.

    Args:
        num_sequences: number N of sequences, at least 1.
        length: number T of steps, at least 2.
        generator: source of the random numbers; None for torch's own.

    Returns:
        x float32 (N, T, 2), number and mark of each step, and the sums float32 (N, 1).

    Raises:
        ValueError: if a number is outside its range.

    Example:
        >>> x, y = adding_problem(3, 10)
        >>> torch.allclose((x[..., 0] * x[..., 1]).sum(1, keepdim=True), y), x[..., 1].sum(1).tolist()
        (True, [2.0, 2.0, 2.0])
    """
    _check(num_sequences=(num_sequences, 1), length=(length, 2))
    numbers = torch.rand(num_sequences, length, generator=generator)
    half = length // 2
    first = torch.randint(half, (num_sequences, 1), generator=generator)
    second = torch.randint(half, length, (num_sequences, 1), generator=generator)
    places = torch.cat([first, second], 1)
    marks = torch.zeros_like(numbers).scatter(1, places, 1.0)
    return torch.stack([numbers, marks], 2), numbers.gather(1, places).sum(1, keepdim=True)


def copy_memory(
    num_sequences: int, delay: int, num_symbols: int = 8, length: int = 10, generator: Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Generate strings of symbols that have to be repeated after a delay.

    A sequence is ``length`` symbols 1..K, then ``delay`` blanks 0, then the signal K + 1 and ``length`` - 1 blanks. The
    targets of the last ``length`` steps are the symbols, as classes 0..K - 1; guessing reaches 1 / K.

    Args:
        num_sequences: number N of sequences, at least 1.
        delay: number of blanks between the symbols and the signal, at least 0.
        num_symbols: number K of symbols, at least 2.
        length: number of symbols to repeat, at least 1.
        generator: source of the random numbers; None for torch's own.

    Returns:
        tokens int64 (N, T) and targets int64 (N, T), -100 where nothing is to be said, with T = delay + 2 length.

    Raises:
        ValueError: if a number is outside its range.

    Example:
        >>> x, y = copy_memory(1, delay=2, num_symbols=3, length=2, generator=torch.Generator().manual_seed(0))
        >>> x[0, 2:].tolist(), torch.equal(y[0, 4:] + 1, x[0, :2])
        ([0, 0, 4, 0], True)
    """
    _check(num_sequences=(num_sequences, 1), delay=(delay, 0), num_symbols=(num_symbols, 2), length=(length, 1))
    symbols = torch.randint(num_symbols, (num_sequences, length), generator=generator)
    x = torch.zeros(num_sequences, delay + 2 * length, dtype=torch.int64)
    x[:, :length] = symbols + 1
    x[:, length + delay] = num_symbols + 1
    y = torch.full_like(x, IGNORED)
    y[:, length + delay :] = symbols
    return x, y


class _EquallyLong(PaddedDataModule):
    """Base class of generated sequences of one length, split in order."""

    def __init__(
        self, num_sequences: int, fractions: Sequence[float], steps: int, **options: Unpack[DataOptions]
    ) -> None:
        super().__init__(**options)
        _check(num_sequences=(num_sequences, 1))
        self.num_sequences, self.fractions, self.steps = num_sequences, check_fractions(fractions), steps

    def generate(self, generator: Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the inputs (N, T, *) and the targets by name; defined by a subclass.

        Args:
            generator: source of the random numbers.
        """
        raise TypeError(f"{type(self).__name__} must define generate(generator)")

    def read(self) -> tuple[SequenceStore, dict[str, Tensor]]:
        """Return the sequences drawn with the seed, and their splits."""
        x, targets = self.generate(Generator().manual_seed(self.seed))
        ptr = torch.arange(self.num_sequences + 1) * self.steps
        return SequenceStore(x.flatten(0, 1), ptr, **targets), ordered_split(torch.arange(len(x)), self.fractions)


class AddingDataModule(_EquallyLong):
    """Sequences of :func:`adding_problem`, for the regression of the sum.

    Memory: 8 bytes for each step, 20 for each sequence.

    Source: arXiv 1506.00019, section 4.1, after Hochreiter and Schmidhuber (1997). Differs from it: numbers are in
    [0, 1], as in later work, and all sequences have the same length.

    Args:
        num_sequences: number of sequences in all splits together, at least 1.
        length: number of steps T, at least 2.
        fractions: shares of train, validation and test, summing to 1.
        options: further arguments of :class:`PaddedDataModule`; ``seed`` is also the seed of the sequences.

    Yields:
        ``SequenceBatch`` with x float32 (B, T, 2), lengths and y float32 (B, 1).

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> data = AddingDataModule(100, length=20, batch_size=10)
        >>> next(data.batches()).x.shape
        torch.Size([10, 20, 2])
    """

    def __init__(
        self,
        num_sequences: int = 10_000,
        length: int = 50,
        *,
        fractions: Sequence[float] = (0.8, 0.1, 0.1),
        **options: Unpack[DataOptions],
    ) -> None:
        super().__init__(num_sequences, fractions, length, **options)
        _check(length=(length, 2))

    def generate(self, generator: Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the sequences and their sums.

        Args:
            generator: source of the random numbers.
        """
        x, y = adding_problem(self.num_sequences, self.steps, generator)
        return x, {"y": y}

    @property
    def num_features(self) -> int:
        """Number of features of a step: a number and a mark."""
        return 2

    @property
    def num_outputs(self) -> int:
        """Number of targets of a sequence, 1."""
        return 1


class CopyMemoryDataModule(_EquallyLong):
    """Sequences of :func:`copy_memory`, for the classification of the steps at which a symbol is to be repeated.

    Memory: 16 bytes for each step, 16 for each sequence.

    Source: arXiv 1506.00019, section 4.1, after Hochreiter and Schmidhuber (1997). Differs from it: blanks are not
    asked for.

    Args:
        num_sequences: number of sequences in all splits together, at least 1.
        delay: number of blanks between the symbols and the signal, at least 0.
        num_symbols: number K of symbols, at least 2.
        length: number of symbols to repeat, at least 1.
        fractions: shares of train, validation and test, summing to 1.
        options: further arguments of :class:`PaddedDataModule`; ``seed`` is also the seed of the sequences.

    Yields:
        ``SequenceBatch`` with x int64 (B, T), lengths and step_y int64 (B, T).

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> data = CopyMemoryDataModule(100, delay=5, num_symbols=4, length=2, batch_size=10)
        >>> data.vocab_size, data.num_outputs, next(data.batches()).x.shape
        (6, 4, torch.Size([10, 9]))
    """

    def __init__(
        self,
        num_sequences: int = 10_000,
        delay: int = 30,
        *,
        num_symbols: int = 8,
        length: int = 10,
        fractions: Sequence[float] = (0.8, 0.1, 0.1),
        **options: Unpack[DataOptions],
    ) -> None:
        super().__init__(num_sequences, fractions, delay + 2 * length, **options)
        _check(delay=(delay, 0), num_symbols=(num_symbols, 2), length=(length, 1))
        self.delay, self.num_symbols, self.length = delay, num_symbols, length

    def generate(self, generator: Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the sequences and the symbols to repeat.

        Args:
            generator: source of the random numbers.
        """
        x, y = copy_memory(self.num_sequences, self.delay, self.num_symbols, self.length, generator)
        return x, {"step_y": y.flatten()}

    @property
    def vocab_size(self) -> int:
        """Number of tokens: the symbols, the blank and the signal."""
        return self.num_symbols + 2

    @property
    def num_outputs(self) -> int:
        """Number of symbols."""
        return self.num_symbols
