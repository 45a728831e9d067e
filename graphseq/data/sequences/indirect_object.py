"""Indirect objects: of two names, one occurs again, and the other one is to be predicted."""

from collections.abc import Sequence
from typing import Unpack

import torch
from torch import Generator, Tensor

from graphseq.core.batches import IGNORED
from graphseq.data.base import DataOptions
from graphseq.data.sequences.base import PaddedDataModule
from graphseq.data.sequences.store import SequenceStore
from graphseq.data.splits import check_fractions, random_split

__all__ = ["IndirectObjectDataModule", "indirect_objects", "swap_subjects"]


def indirect_objects(
    num_sequences: int,
    *,
    num_names: int = 16,
    num_fillers: int = 6,
    length: int = 10,
    places: tuple[int, int] | None = None,
    generator: Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Generate prompts that name two persons, then one of them again: the answer is the other.

    The form is that of "When Mary and John went to the shop, John gave a drink to", with the answer "Mary". Names are
    the tokens below ``num_names``, fillers those after them; the two names stand at two steps among fillers, the
    repeated one at the step before the last, and the last step holds the query token ``num_names + num_fillers``.

    Source: arXiv 2211.00593, section 2. Differs from it: tokens in place of English, and fillers without meaning.

    Args:
        num_sequences: number N of prompts, at least 1.
        num_names: number of names, at least 2.
        num_fillers: number of filler tokens, at least 1.
        length: number T of steps, at least 4.
        places: steps of the two names, different and below T - 2; None for two random steps in each prompt.
        generator: source of the random numbers; None for torch's own.

    Returns:
        tokens int64 (N, T) and answers int64 (N,).

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> x, y = indirect_objects(2, places=(1, 4), generator=Generator().manual_seed(0))
        >>> bool(((x[:, [1, 4]] == y[:, None]).sum(1) == 1).all()), x[:, -1].tolist()
        (True, [22, 22])
    """
    least = {"num_sequences": (num_sequences, 1), "num_names": (num_names, 2), "num_fillers": (num_fillers, 1)}
    for name, (number, lowest) in {**least, "length": (length, 4)}.items():
        if number < lowest:
            raise ValueError(f"{name} is {number}; it must be at least {lowest}")
    if places is not None and (len(set(places)) != 2 or not all(0 <= place < length - 2 for place in places)):
        raise ValueError(f"places is {places}; give two different steps from 0 to {length - 3}")
    names = torch.rand(num_sequences, num_names, generator=generator).topk(2, -1).indices  # (N, 2), different
    steps = torch.rand(num_sequences, length - 2, generator=generator).topk(2, -1).indices
    if places is not None:
        steps = torch.tensor(places).expand(num_sequences, -1)
    again = torch.randint(2, (num_sequences, 1), generator=generator)
    x = num_names + torch.randint(num_fillers, (num_sequences, length), generator=generator)
    x.scatter_(1, steps, names)
    x[:, -2:-1] = names.gather(1, again)
    x[:, -1] = num_names + num_fillers
    return x, names.gather(1, 1 - again)[:, 0]


def swap_subjects(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the corrupted prompts, which repeat the other name, and their answers: the names repeated before.

    Args:
        x: tokens of :func:`indirect_objects`, int64 (N, T).
        y: answers, int64 (N,).

    Example:
        >>> x, y = indirect_objects(5)
        >>> again, answer = swap_subjects(*swap_subjects(x, y))
        >>> torch.equal(again, x), torch.equal(answer, y)
        (True, True)
    """
    corrupted = x.clone()
    corrupted[:, -2] = y
    return corrupted, x[:, -2].clone()


class IndirectObjectDataModule(PaddedDataModule):
    """Prompts of :func:`indirect_objects`, for tagging of the last step, without any file.

    Training prompts are drawn once, with the seed; the store lies on the device of the network.

    Args:
        num_sequences: number of prompts in all splits together, at least 10.
        num_names: number of names, at least 2.
        num_fillers: number of filler tokens, at least 1.
        length: number T of steps, at least 4.
        fractions: shares of train, validation and test, summing to 1.
        options: further arguments of :class:`PaddedDataModule`; ``seed`` is also the seed of the prompts.

    Yields:
        ``SequenceBatch`` with x int64 (B, T), lengths and step_y int64 (B, T), -100 before the last step.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> data = IndirectObjectDataModule(100, length=8)
        >>> data.vocab_size, data.num_outputs, next(data.batches()).x.shape[1]
        (23, 16, 8)
    """

    def __init__(
        self,
        num_sequences: int = 10_000,
        num_names: int = 16,
        num_fillers: int = 6,
        length: int = 10,
        *,
        fractions: Sequence[float] = (0.8, 0.1, 0.1),
        **options: Unpack[DataOptions],
    ) -> None:
        super().__init__(**options)
        if num_sequences < 10:
            raise ValueError(f"num_sequences is {num_sequences}; give at least 10 for three splits")
        self.num_sequences, self.num_names, self.num_fillers = num_sequences, num_names, num_fillers
        self.length, self.fractions = length, check_fractions(fractions)
        self.draw(1, Generator())  # the ranges, at once

    def draw(self, number: int, generator: Generator, places: tuple[int, int] | None = None) -> tuple[Tensor, Tensor]:
        """Return other prompts (number, T) of the same form and their answers (number,).

        Args:
            number: number of prompts.
            generator: source of the random numbers.
            places: steps of the two names; None for two random steps in each prompt.
        """
        return indirect_objects(
            number,
            num_names=self.num_names,
            num_fillers=self.num_fillers,
            length=self.length,
            places=places,
            generator=generator,
        )

    def read(self) -> tuple[SequenceStore, dict[str, Tensor]]:
        """Return the prompts drawn with the seed, and their splits."""
        x, y = self.draw(self.num_sequences, Generator().manual_seed(self.seed))
        step_y = torch.full_like(x, IGNORED)
        step_y[:, -1] = y
        ptr = torch.arange(len(x) + 1) * self.length
        splits = random_split(len(x), self.fractions, self.seed, None) if self.divides(True) else {}
        return SequenceStore(x.flatten(), ptr, step_y=step_y.flatten()), splits

    @property
    def vocab_size(self) -> int:
        """Number of tokens: names, fillers and the query."""
        return self.num_names + self.num_fillers + 1

    @property
    def num_outputs(self) -> int:
        """Number of classes of the last step: all names."""
        return self.num_names
