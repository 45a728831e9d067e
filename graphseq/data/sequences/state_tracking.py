"""State tracking: the product of all elements of a group up to each step, such as the parity of bits."""

import itertools
import math
from collections.abc import Sequence
from typing import Literal, Unpack, get_args

import torch
from torch import Generator, Tensor

from graphseq.data.base import DataOptions
from graphseq.data.sequences.base import PaddedDataModule
from graphseq.data.sequences.store import SequenceStore
from graphseq.data.splits import check_fractions

__all__ = ["StateTrackingDataModule", "group_products"]

Group = Literal["cyclic", "symmetric"]


def group_products(words: Tensor, group: Group = "cyclic", degree: int = 2) -> Tensor:
    r"""Return the product of the elements of each word up to each step.

    .. math:: s_t = x_t \circ s_{t-1}, \qquad s_0 = e

    In the ``cyclic`` group of a degree n the elements are the numbers 0..n - 1 and the product is their sum modulo n,
    for n = 2 the parity. In the ``symmetric`` group they are the n! permutations of n things, in lexicographic order.

    Args:
        words: numbers of elements, int64 (N, T).
        group: ``cyclic`` or ``symmetric``.
        degree: n, at least 2; at most 6 for the symmetric group.

    Returns:
        Number of the product up to each step, int64 (N, T).

    Raises:
        ValueError: if an argument is out of range, or a word holds no such element.

    Example:
        >>> group_products(torch.tensor([[1, 1, 0, 1]])).tolist()
        [[1, 0, 0, 1]]
        >>> group_products(torch.tensor([[1, 2]]), "symmetric", 3).tolist()  # (0 2 1), then (1 0 2): (1 2 0)
        [[1, 3]]
    """
    order = _order(group, degree)
    if words.dim() != 2 or words.dtype != torch.int64:
        raise ValueError(f"words is {words.dtype} {tuple(words.shape)}; give element numbers, int64 (N, T)")
    if words.numel() and not 0 <= int(words.min()) <= int(words.max()) < order:
        raise ValueError(f"words range from {int(words.min())} to {int(words.max())}; there are {order} elements")
    if group == "cyclic":
        return words.cumsum(1) % degree
    elements = torch.tensor(list(itertools.permutations(range(degree))))  # (n!, n)
    place = degree ** torch.arange(degree - 1, -1, -1)
    codes = (elements * place).sum(1)  # ascending, as the order is lexicographic
    later, earlier = elements[:, None].expand(-1, order, -1), elements[None].expand(order, -1, -1)
    table = torch.searchsorted(codes, (later.gather(2, earlier) * place).sum(2))  # [x, s]: number of x after s
    state = torch.zeros(len(words), dtype=torch.int64)  # the identity comes first
    states = torch.empty_like(words)
    for step in range(words.shape[1]):
        state = table[words[:, step], state]
        states[:, step] = state
    return states


def _order(group: str, degree: int) -> int:
    if group not in get_args(Group):
        raise ValueError(f"group is {group!r}; it must be one of {', '.join(get_args(Group))}")
    if degree < 2 or (group == "symmetric" and degree > 6):
        raise ValueError(f"degree is {degree}; give at least 2, and at most 6 for the symmetric group")
    return degree if group == "cyclic" else math.factorial(degree)


class StateTrackingDataModule(PaddedDataModule):
    """Words of random elements of a group, labelled with :func:`group_products`; parity by default, without any file.

    A network must keep the state exactly over the whole word. Linear recurrences with factors between 0 and 1 cannot
    tell the parity, and none with diagonal matrices tracks the permutations of five things (arXiv 2404.08819). Test
    words may be longer than those of training, to see whether a network has found the rule.

    Args:
        num_sequences: number of words in all splits together, at least 10.
        group: ``cyclic`` (sums modulo ``degree``) or ``symmetric`` (permutations of ``degree`` things).
        degree: degree of the group, at least 2; at most 6 for permutations.
        min_length: least number of elements of a word, at least 1.
        max_length: largest number of elements of a word, at least ``min_length``.
        test_length: number of elements of each test word; None for lengths as in training.
        fractions: shares of train, validation and test, summing to 1.
        pool_batches: number of batches within which training samples are sorted by length, at least 1; None for a fully
            random order.
        options: further arguments of :class:`PaddedDataModule`; ``seed`` is also the seed of the words.

    Yields:
        ``SequenceBatch`` with x int64 (B, T), lengths, y (B,), the state after the last step, and step_y (B, T), that
        after each step.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> data = StateTrackingDataModule(100, max_length=8, batch_size=4)
        >>> batch = next(data.batches())
        >>> data.vocab_size, data.num_outputs, bool((batch.step_y[0, 0] == batch.x[0, 0]).all())
        (2, 2, True)
    """

    def __init__(
        self,
        num_sequences: int = 10_000,
        group: Group = "cyclic",
        degree: int = 2,
        *,
        min_length: int = 1,
        max_length: int = 64,
        test_length: int | None = None,
        fractions: Sequence[float] = (0.8, 0.1, 0.1),
        pool_batches: int | None = None,
        **options: Unpack[DataOptions],
    ) -> None:
        super().__init__(pool_batches=pool_batches, **options)
        self.order = _order(group, degree)
        least = {"num_sequences": (num_sequences, 10), "min_length": (min_length, 1)}
        least |= {"max_length": (max_length, min_length)}
        least |= {} if test_length is None else {"test_length": (test_length, 1)}
        for name, (value, lowest) in least.items():
            if value < lowest:
                raise ValueError(f"{name} is {value}; it must be at least {lowest}")
        self.num_sequences, self.degree = num_sequences, degree
        self.group: Group = group
        self.min_length, self.max_length, self.test_length = min_length, max_length, test_length
        self.fractions = check_fractions(fractions)

    @property
    def vocab_size(self) -> int:
        """Number of elements of the group."""
        return self.order

    @property
    def num_outputs(self) -> int:
        """Number of states, which are the elements of the group."""
        return self.order

    def read(self) -> tuple[SequenceStore, dict[str, Tensor]]:
        """Return the words drawn with the seed, and their splits."""
        generator = Generator().manual_seed(self.seed)
        number = self.num_sequences
        train, val = (round(sum(self.fractions[:count]) * number) for count in (1, 2))
        longest = max(self.max_length, self.test_length or 0)
        lengths = torch.randint(self.min_length, self.max_length + 1, (number,), generator=generator)
        if self.test_length is not None:
            lengths[val:] = self.test_length
        words = torch.randint(self.order, (number, longest), generator=generator)
        states = group_products(words, self.group, self.degree)
        inside = torch.arange(longest) < lengths[:, None]
        ptr = torch.cat([torch.zeros(1, dtype=torch.int64), lengths]).cumsum(0)
        last = states.gather(1, lengths[:, None] - 1).squeeze(1)
        places = torch.arange(number)
        splits = {"train": places[:train], "val": places[train:val], "test": places[val:]}
        return SequenceStore(words[inside], ptr, y=last, step_y=states[inside]), splits
