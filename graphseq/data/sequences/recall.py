"""Associative recall: pairs of a key and a value, and later the keys alone, whose values are to be predicted."""

from collections.abc import Sequence
from typing import Unpack

import torch
from torch import Generator, Tensor

from graphseq.core.batches import IGNORED
from graphseq.data.base import DataOptions
from graphseq.data.sequences.base import PaddedDataModule
from graphseq.data.sequences.store import SequenceStore
from graphseq.data.splits import check_fractions, random_split

__all__ = ["AssociativeRecallDataModule", "associative_recall"]


def associative_recall(
    num_sequences: int,
    *,
    num_tokens: int = 64,
    length: int = 64,
    num_pairs: int = 4,
    num_segments: int = 1,
    concentration: float = 0.01,
    random_fillers: bool = False,
    generator: Generator | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Generate sequences of multi-query associative recall.

    A segment begins with :math:`k_1 v_1 \dots k_P v_P`, different keys from the lower half of the tokens and different
    values from the upper half. After them each key occurs once more, at an even distance 2 g, and the label of that
    step is its value; all other steps have the label -100. The distances of a segment are different and drawn with

    .. math:: p(g) \propto a\, (g + 1)^{a - 1}, \qquad g = 0, \dots, (L - 2P) / 2 - 1

    so that most queries come early for the concentration a = 0.01, and all distances are alike for a = 1. The other
    steps hold the filler 0, or random tokens.

    Sequences of several segments tell whether a network forgets: each segment draws new values for the same P keys,
    and begins with the token ``num_tokens`` where the first step of a single segment would be a filler.

    Source: arXiv 2312.04927, appendix (multi-query associative recall). Differs from it: segments with new values.

    Args:
        num_sequences: number N of sequences, at least 1.
        num_tokens: number of tokens, fillers, keys and values together, at least 4 and more than 2 P.
        length: number L of steps of a segment, even and at least 4 P.
        num_pairs: number P of pairs of a segment, at least 1.
        num_segments: number S of segments, at least 1; with more than one each is longer by 2 steps, the token
            ``num_tokens`` and a filler.
        concentration: exponent a of the distances of the queries, above 0.
        random_fillers: whether the other steps hold random tokens in place of 0.
        generator: source of the random numbers; None for torch's own.

    Returns:
        tokens int64 (N, T) and labels int64 (N, T), with T = L, or S (L + 2) for S > 1.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> x, y = associative_recall(3, num_tokens=12, length=16, num_pairs=2, generator=Generator().manual_seed(0))
        >>> x.shape, (y != -100).sum(1).tolist(), bool((y[y != -100] >= 6).all())
        (torch.Size([3, 16]), [2, 2, 2], True)
    """
    least = {"num_sequences": (num_sequences, 1), "num_pairs": (num_pairs, 1), "num_segments": (num_segments, 1)}
    for name, (number, lowest) in {**least, "length": (length, 4 * num_pairs)}.items():
        if number < lowest:
            raise ValueError(f"{name} is {number}; it must be at least {lowest}")
    if length % 2:
        raise ValueError(f"length is {length}; it must be even")
    keys, values = num_tokens // 2 - 1, num_tokens - num_tokens // 2
    if min(keys, values) < num_pairs:
        raise ValueError(f"num_tokens is {num_tokens}; {num_pairs} pairs need at least {2 * num_pairs + 2}")
    if not concentration > 0:
        raise ValueError(f"concentration is {concentration}; it must be above 0")
    pairs = (num_sequences, num_segments, num_pairs)

    def different(highest: int, first: int, rows: tuple[int, ...]) -> Tensor:
        """Different numbers from ``first`` on in each row, (*rows, P)."""
        return torch.rand(*rows, highest, generator=generator).topk(num_pairs, -1).indices + first

    key = different(keys, 1, (num_sequences, 1)).expand(pairs)  # (N, S, P)
    value = different(values, num_tokens // 2, (num_sequences, num_segments))
    places = (length - 2 * num_pairs) // 2
    weight = concentration * torch.arange(1.0, places + 1).pow(concentration - 1)
    drawn = torch.multinomial(weight.expand(num_sequences * num_segments, -1), num_pairs, generator=generator)
    query = (2 * num_pairs + 2 * drawn).view(pairs)  # step of each query
    shape = (num_sequences, num_segments, length)
    if random_fillers:
        x = torch.randint(num_tokens, shape, generator=generator)
    else:
        x = torch.zeros(shape, dtype=torch.int64)
    x[..., : 2 * num_pairs] = torch.stack([key, value], -1).flatten(-2)
    x.scatter_(2, query, key)
    y = torch.full(shape, IGNORED).scatter_(2, query, value)
    if num_segments > 1:
        begin = torch.tensor([num_tokens, 0]).expand(num_sequences, num_segments, -1)
        x, y = torch.cat([begin, x], -1), torch.cat([torch.full_like(begin, IGNORED), y], -1)
    return x.flatten(1), y.flatten(1)


class AssociativeRecallDataModule(PaddedDataModule):
    """Sequences of :func:`associative_recall`, for tagging of steps, without any file.

    Training sequences are drawn once, with the seed; the store lies on the device of the network.

    Args:
        num_sequences: number of sequences in all splits together, at least 10.
        num_tokens: number of tokens, fillers, keys and values together, at least 4 and more than 2 P.
        length: number L of steps of a segment, even and at least 4 P.
        num_pairs: number P of pairs of a segment, at least 1.
        num_segments: number of segments with the same keys and new values, at least 1.
        concentration: exponent of the distances of the queries, above 0; 1 for equal chances.
        random_fillers: whether the other steps hold random tokens in place of 0.
        fractions: shares of train, validation and test, summing to 1.
        options: further arguments of :class:`PaddedDataModule`; ``seed`` is also the seed of the sequences.

    Yields:
        ``SequenceBatch`` with x int64 (B, T), lengths and step_y int64 (B, T), -100 where nothing is asked.

    Raises:
        ValueError: if an argument is out of range; see :func:`associative_recall`.

    Example:
        >>> data = AssociativeRecallDataModule(100, num_tokens=16, length=16, num_pairs=2)
        >>> data.vocab_size, data.num_outputs, next(data.batches()).x.shape[1]
        (16, 16, 16)
    """

    def __init__(
        self,
        num_sequences: int = 12_000,
        num_tokens: int = 64,
        length: int = 64,
        num_pairs: int = 4,
        num_segments: int = 1,
        *,
        concentration: float = 0.01,
        random_fillers: bool = False,
        fractions: Sequence[float] = (0.8, 0.1, 0.1),
        **options: Unpack[DataOptions],
    ) -> None:
        super().__init__(**options)
        if num_sequences < 10:
            raise ValueError(f"num_sequences is {num_sequences}; give at least 10 for three splits")
        self.num_sequences, self.num_tokens, self.length = num_sequences, num_tokens, length
        self.num_pairs, self.num_segments = num_pairs, num_segments
        self.concentration, self.random_fillers = concentration, random_fillers
        self.fractions = check_fractions(fractions)
        self._draw(1, 0)  # the ranges, at once

    def _draw(self, number: int, seed: int) -> tuple[Tensor, Tensor]:
        return associative_recall(
            number,
            num_tokens=self.num_tokens,
            length=self.length,
            num_pairs=self.num_pairs,
            num_segments=self.num_segments,
            concentration=self.concentration,
            random_fillers=self.random_fillers,
            generator=Generator().manual_seed(seed),
        )

    def read(self) -> tuple[SequenceStore, dict[str, Tensor]]:
        """Return the sequences drawn with the seed, and their splits."""
        x, y = self._draw(self.num_sequences, self.seed)
        ptr = torch.arange(len(x) + 1) * x.shape[1]
        splits = random_split(len(x), self.fractions, self.seed, None) if self.divides(True) else {}
        return SequenceStore(x.flatten(), ptr, step_y=y.flatten()), splits

    @property
    def vocab_size(self) -> int:
        """Number of tokens, with that which begins a segment if there are several."""
        return self.num_tokens + (self.num_segments > 1)

    @property
    def num_outputs(self) -> int:
        """Number of classes of a step: all tokens."""
        return self.num_tokens
