"""Rules that divide a stream of events into batches."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Generator, Tensor

from graphseq.data.events.table import TemporalEvents
from graphseq.data.store import batch_sizes

__all__ = ["AdaptiveBatches", "Batching", "FixedBatches", "RandomChunkBatches", "TBatches", "TimeWindowBatches"]


class Batching(ABC):
    """Rule that divides events into batches; the number of batches is the same in every epoch.

    :meth:`plan` may depend only on its arguments, so that an interrupted epoch can be continued.

    Example:
        >>> class Halves(Batching):
        ...     def plan(self, events, index, generator):
        ...         return index, [len(index) // 2, len(index) - len(index) // 2]
    """

    random: bool = False
    """Whether epochs differ."""
    reorders: bool = False
    """Whether a batch may begin before the one that it follows, which is refused otherwise."""

    @abstractmethod
    def plan(self, events: TemporalEvents, index: Tensor, generator: Generator) -> tuple[Tensor, list[int]]:
        """Return the events in the order of the batches, and the sizes of the batches.

        Args:
            events: the whole stream, on any device.
            index: positions of the events to use, ascending, int64 (M,).
            generator: generator for random rules, seeded for each epoch.

        Returns:
            positions (M,), ascending within each batch, and sizes that sum to M.
        """

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in vars(self).items() if not name.startswith("_"))
        return f"{type(self).__name__}({options})"


class FixedBatches(Batching):
    """Batches of equal size; the last one may be smaller.

    Args:
        batch_size: number of events of one batch, at least 1.

    Raises:
        ValueError: if ``batch_size`` is out of range.

    Example:
        >>> stream = TemporalEvents(*torch.arange(5).repeat(3, 1))
        >>> FixedBatches(2).plan(stream, torch.arange(5), torch.Generator())[1]
        [2, 2, 1]
    """

    def __init__(self, batch_size: int) -> None:
        self.batch_size = _at_least_one("batch_size", batch_size)

    def plan(self, events: TemporalEvents, index: Tensor, generator: Generator) -> tuple[Tensor, list[int]]:
        """Return the index unchanged and equal sizes."""
        return index, batch_sizes(len(index), self.batch_size)


class TimeWindowBatches(Batching):
    """One batch for each window of time, so that the task does not depend on the rate of events.

    Windows start at multiples of their width from the first event of the stream; empty ones give no batch.

    Source: arXiv 2406.04897 (there called link forecasting).

    Args:
        seconds: width of a window, positive, in the unit of the times, which is seconds for every set here.
        max_batch_size: number of events above which a window is divided into batches; None for no limit.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> when = torch.tensor([0, 4, 9, 10, 35])
        >>> stream = TemporalEvents(torch.zeros(5).long(), torch.ones(5).long(), when)
        >>> TimeWindowBatches(10).plan(stream, torch.arange(5), torch.Generator())[1]
        [3, 1, 1]
    """

    def __init__(self, seconds: float, max_batch_size: int | None = None) -> None:
        if not seconds > 0:
            raise ValueError(f"seconds is {seconds}; the width of a window must be positive")
        self.seconds = seconds
        self.max_batch_size = None if max_batch_size is None else _at_least_one("max_batch_size", max_batch_size)

    def plan(self, events: TemporalEvents, index: Tensor, generator: Generator) -> tuple[Tensor, list[int]]:
        """Return the index unchanged and the number of events of each window."""
        since = events.t[index].cpu() - events.t[0].cpu()
        # by a float torch would divide whole times in float32, which knows no single seconds after half a year
        whole = not since.is_floating_point() and self.seconds < 2**63 and float(self.seconds).is_integer()
        since, width = (since, int(self.seconds)) if whole else (since.double(), self.seconds)
        window = since.div(width, rounding_mode="floor")
        return index, _cut(window.unique_consecutive(return_counts=True)[1].tolist(), self.max_batch_size)


class RandomChunkBatches(Batching):
    r"""Batches of equal size whose boundaries change from epoch to epoch, and with them the pending events.

    The first batch has :math:`\lfloor k b / c \rfloor` events with k uniform in 1..c; the last has the remaining
    events, up to :math:`2 b`, so that every epoch has the same number of batches.

    Source: arXiv 2203.14883, section 3.2. Differs from the paper: the last batch is not divided, so that the number
    of steps is constant.

    Args:
        batch_size: number of events b of one batch, at least 1.
        num_chunks: number of chunks c in a batch, from 1, which leaves the boundaries fixed, to ``batch_size``.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> stream = TemporalEvents(*torch.arange(10).repeat(3, 1))
        >>> sizes = RandomChunkBatches(4, 2).plan(stream, torch.arange(10), torch.Generator())[1]
        >>> sizes in ([2, 4, 4], [4, 4, 2])
        True
    """

    random = True

    def __init__(self, batch_size: int, num_chunks: int) -> None:
        self.batch_size = _at_least_one("batch_size", batch_size)
        if not 1 <= num_chunks <= batch_size:
            raise ValueError(f"num_chunks is {num_chunks}; it must be in 1..batch_size, which is {batch_size}")
        self.num_chunks = num_chunks

    def plan(self, events: TemporalEvents, index: Tensor, generator: Generator) -> tuple[Tensor, list[int]]:
        """Return the index unchanged and sizes of which the first is random."""
        num_batches = -(-len(index) // self.batch_size)
        if num_batches == 1:
            return index, [len(index)]
        chunks = int(torch.randint(1, self.num_chunks + 1, (), generator=generator))
        first = chunks * self.batch_size // self.num_chunks
        middle = [self.batch_size] * (num_batches - 2)
        return index, [first, *middle, len(index) - first - sum(middle)]


class AdaptiveBatches(Batching):
    r"""The largest batches with a bounded share of events that depend on earlier events of the same batch.

    An event is pending if an earlier event of its batch shares a node with it: its node's memory is then older than
    it would be in sequence. Each batch takes as many events as keep the share of pending ones at most
    ``max_pending_ratio``, and never more than ``max_batch_size``.

    Source: own, after the bounded information loss of ETC (VLDB 2024).

    Args:
        max_pending_ratio: largest share of pending events in a batch, in [0, 1].
        max_batch_size: largest number of events of one batch, at least 1.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> src, dst = torch.tensor([0, 1, 0, 0]), torch.tensor([2, 3, 2, 3])
        >>> stream = TemporalEvents(src, dst, torch.arange(4))
        >>> AdaptiveBatches(0.0, 100).plan(stream, torch.arange(4), torch.Generator())[1]
        [2, 1, 1]
    """

    def __init__(self, max_pending_ratio: float, max_batch_size: int) -> None:
        if not 0 <= max_pending_ratio <= 1:
            raise ValueError(f"max_pending_ratio is {max_pending_ratio}; it must be in [0, 1]")
        self.max_pending_ratio = max_pending_ratio
        self.max_batch_size = _at_least_one("max_batch_size", max_batch_size)

    def plan(self, events: TemporalEvents, index: Tensor, generator: Generator) -> tuple[Tensor, list[int]]:
        """Return the index unchanged and the greedy sizes."""
        previous = _previous(events.src[index].cpu(), events.dst[index].cpu()).numpy()
        total, begin = len(previous), 0
        sizes: list[int] = []
        ranks = torch.arange(1, self.max_batch_size + 1, dtype=torch.float64).numpy()
        while begin < total:
            ahead = previous[begin : begin + self.max_batch_size]
            share = (ahead >= begin).cumsum() / ranks[: len(ahead)]
            size = int((share <= self.max_pending_ratio).nonzero()[0][-1]) + 1  # the first event is never pending
            sizes.append(size)
            begin += size
        return index, sizes


class TBatches(Batching):
    """Batches in which no node occurs twice and the events of each node stay in order, as in JODIE.

    An event is in the batch after the last one that contains its source or its destination. Events of different nodes
    may therefore be out of the order of time, so this rule is for training only.

    Source: arXiv 1908.01207, section 3.3.

    Args:
        max_batch_size: number of events above which a batch is divided; None for no limit.

    Raises:
        ValueError: if ``max_batch_size`` is out of range.

    Example:
        >>> src, dst = torch.tensor([0, 0, 1, 1]), torch.tensor([2, 3, 4, 2])
        >>> stream = TemporalEvents(src, dst, torch.arange(4))
        >>> order, sizes = TBatches().plan(stream, torch.arange(4), torch.Generator())
        >>> order.tolist(), sizes
        ([0, 2, 1, 3], [2, 2])
    """

    reorders = True

    def __init__(self, max_batch_size: int | None = None) -> None:
        self.max_batch_size = None if max_batch_size is None else _at_least_one("max_batch_size", max_batch_size)

    def plan(self, events: TemporalEvents, index: Tensor, generator: Generator) -> tuple[Tensor, list[int]]:
        """Return the events batch by batch, and the sizes."""
        held = [0] * events.num_nodes
        levels = []
        # each event needs the level of the ones before it: a loop, once for a stream
        for source, destination in zip(events.src[index].tolist(), events.dst[index].tolist(), strict=True):
            level = max(held[source], held[destination])
            levels.append(level)
            held[source] = held[destination] = level + 1
        level = torch.tensor(levels, dtype=torch.int64)
        order = level.argsort(stable=True)
        return index[order], _cut(level.bincount().tolist(), self.max_batch_size)


def checked_batching(name: str, given: Any) -> Batching:
    """Return a rule unchanged after a check that it is one and not a name or a number.

    Args:
        name: name of the option, for the error message.
        given: value that was given for the option.

    Raises:
        TypeError: if ``given`` is not a rule.
    """
    if not isinstance(given, Batching):
        rules = "FixedBatches(200), TimeWindowBatches, RandomChunkBatches, AdaptiveBatches or TBatches"
        raise TypeError(f"{name} is {given!r}; it must be a Batching from graphseq.data, such as {rules}")
    return given


def _at_least_one(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} is {value!r}; it must be an integer of at least 1")
    return value


def _cut(sizes: list[int], limit: int | None) -> list[int]:
    return sizes if limit is None else [part for size in sizes for part in batch_sizes(size, limit)]


def _previous(src: Tensor, dst: Tensor) -> Tensor:
    """Rank of the last event before each one that shares a node with it, -1 if there is none, int64 (M,)."""
    count = len(src)
    key = (torch.cat([src, dst]) * count + torch.arange(count).repeat(2)).sort().values
    node, rank = key.div(count, rounding_mode="floor"), key.remainder(count)
    last = rank.roll(1).masked_fill(node != node.roll(1), -1)
    last[:1] = -1
    # a self-loop stands twice for its node; its second entry must not find its first
    twice = rank == last
    last[twice] = last.roll(1)[twice]
    return torch.full((count,), -1).scatter_reduce(0, rank, last, "amax")
