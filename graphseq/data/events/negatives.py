"""Negative sampling for link prediction: random, historical and inductive negatives.

Negatives depend only on seed, split, epoch and position in the stream, so there is no state to save.
"""

import copy
import zlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from graphseq.core.errors import DataError
from graphseq.core.events import EventBatch

__all__ = ["HistoricalNegatives", "InductiveNegatives", "NegativeSampler", "RandomNegatives"]

_SPLITS = {"train": 0, "val": 1, "test": 2, "predict": 3}
_REDRAWS = 8


class Stream(Protocol):
    """Attributes of :class:`TemporalEvents` that samplers read."""

    src: Tensor
    dst: Tensor
    t: Tensor
    num_nodes: int


def contains(codes: Tensor, query: Tensor) -> Tensor:
    """Return whether each query is among the sorted codes; at least one code is required."""
    found = torch.searchsorted(codes, query).clamp_(max=len(codes) - 1)
    return codes[found] == query


def first_distinct(ids: Tensor, allowed: Tensor, count: int) -> Tensor:
    """Return the first ``count`` distinct allowed ids of each row, (R, count), padded with -1."""
    ids = torch.where(allowed, ids, -1)
    ordered, column = ids.sort(dim=1, stable=True)
    new = ordered >= 0
    new[:, 1:] &= ordered[:, 1:] != ordered[:, :-1]
    keep = torch.zeros_like(new).scatter_(1, column, new)
    rank = keep.cumsum(1) - 1
    # what is not wanted gets a place of its own behind the rest: places written twice have no defined content on a GPU
    behind = torch.arange(count, count + ids.size(1), device=ids.device)
    place = torch.where(keep & (rank < count), rank, behind)
    return ids.new_full((len(ids), count + ids.size(1)), -1).scatter_(1, place, ids)[:, :count]


def first_seen(codes: Tensor) -> Tensor:
    """Return the position of the first occurrence of each distinct code, ascending."""
    ordered, place = codes.sort(stable=True)
    new = torch.ones_like(ordered, dtype=torch.bool)
    new[1:] = ordered[1:] != ordered[:-1]
    return place[new].sort().values


class NegativeSampler(ABC):
    """Base class of negative samplers: prepared once for each split, then a pure function of batch and epoch.

    Negatives differ between training epochs and are the same in every evaluation.

    Args:
        num_negatives: number of negatives M of each event, at least 1.
        seed: seed of the random negatives, together with split, epoch and position; at least 0.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> isinstance(RandomNegatives(seed=1), NegativeSampler)
        True
    """

    def __init__(self, num_negatives: int = 1, seed: int = 0) -> None:
        name = type(self).__name__
        if isinstance(num_negatives, bool) or not isinstance(num_negatives, int) or num_negatives < 1:
            raise ValueError(f"{name}(num_negatives={num_negatives!r}): give an integer of at least 1")
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise ValueError(f"{name}(seed={seed!r}): give an integer of at least 0")
        self.num_negatives = num_negatives
        self.seed = seed
        self._split: str | None = None
        self._device = torch.device("cpu")

    def __repr__(self) -> str:
        split = "" if self._split is None else f", split={self._split}"
        return f"{type(self).__name__}({self.num_negatives}, seed={self.seed}{split})"

    @property
    def nbytes(self) -> int:
        """Memory of the tensors that :meth:`sample` reads, in bytes."""
        return sum(value.nbytes for value in vars(self).values() if isinstance(value, Tensor))

    def prepare(self, events: Stream, train_index: Tensor, split: str, index: Tensor | None = None) -> Self:
        """Return a copy for one split of a stream; the object itself is unchanged and serves other splits.

        Args:
            events: whole stream of events, in order of time.
            train_index: positions of the training events, int64.
            split: name of the split, ``"train"``, ``"val"``, ``"test"`` or ``"predict"``.
            index: positions of the events of this split, ascending int64; default ``train_index`` in training, and
                else all events after the last one of training. Tables have rows for these events only.

        Raises:
            ValueError: if ``split`` is another name.
            DataError: if there are no events, or an index is empty, out of range or not int64.
        """
        if split not in _SPLITS:
            raise ValueError(f"split is {split!r}; it must be one of {', '.join(_SPLITS)}")
        total = len(events.src)
        if index is None and split != "train" and len(train_index):
            index = torch.arange(int(train_index.max()) + 1, total)
        index = train_index if index is None else index
        for name, positions in (("train_index", train_index), (f"index of split {split}", index)):
            if positions.dim() != 1 or positions.dtype != torch.int64:
                shape = tuple(positions.shape)
                raise DataError(f"{name} is {positions.dtype} of shape {shape}; give int64 positions of shape (M,)")
            if len(positions) == 0:
                raise DataError(f"{name} is empty: there is nothing to draw negatives for among {total} events")
            low, high = int(positions.min()), int(positions.max())
            if low < 0 or high >= total:
                raise DataError(f"{name} ranges from {low} to {high}, the stream has {total} events")
        ready = copy.copy(self)
        ready._split = split
        ready._prepare(events, train_index.cpu(), index.cpu())
        return ready

    def to(self, device: torch.device | str) -> Self:
        """Return the sampler with its tensors on ``device``, the device of the batches; sampled pairs depend on it."""
        moved = copy.copy(self)
        moved._device = torch.device(device)
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(moved, name, value.to(device))
        return moved

    @abstractmethod
    def _prepare(self, events: Stream, train_index: Tensor, index: Tensor) -> None:
        """Store the tensors that ``sample`` needs; indices are on the CPU."""

    @abstractmethod
    def sample(self, batch: EventBatch, epoch: int) -> tuple[Tensor | None, Tensor]:
        """Return sources and destinations of negatives, both (B, M); None in place of sources for those of the events.

        Args:
            batch: events of the split.
            epoch: epoch of training, from 0; without effect in evaluation.

        Raises:
            ValueError: if :meth:`prepare` was not called.
            DataError: if the batch has events outside the split.
        """

    def _round(self, epoch: int) -> int:
        if self._split is None:
            raise ValueError(f"{self!r} knows no stream yet: use what .prepare(events, train_index, split) returns")
        return epoch if self._split == "train" else 0

    def _generator(self, device: torch.device, *key: int) -> torch.Generator:
        words = [self.seed, zlib.crc32(type(self).__name__.encode()), _SPLITS[self._split or "train"], *key]
        return torch.Generator(device).manual_seed(int(np.random.SeedSequence(words).generate_state(1)[0]))


def checked_sampler(name: str, given: Any) -> NegativeSampler:
    """Return a sampler unchanged after a check that it is one and not a name.

    Args:
        name: name of the option, for the error message.
        given: value that was given for the option.

    Raises:
        TypeError: if ``given`` is not a sampler.
    """
    if not isinstance(given, NegativeSampler):
        samplers = "RandomNegatives(), HistoricalNegatives, InductiveNegatives or RankingNegatives"
        raise TypeError(f"{name} is {given!r}; it must be a NegativeSampler from graphseq.data, such as {samplers}")
    return given


class TableSource(Protocol):
    """Protocol of objects that sample the rows of a table."""

    def draw(self, positions: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """Return ``count`` destinations for each event, int64 (R, M).

        Args:
            positions: positions of the events in the stream, int64 (R,).
            count: number of negatives M of each event.
            generator: random number generator on the CPU.
        """
        ...


@dataclass
class _Uniform:
    """Uniform distribution over destinations."""

    destinations: Tensor

    def draw(self, positions: Tensor, count: int, generator: torch.Generator) -> Tensor:
        return self.destinations[torch.randint(len(self.destinations), (len(positions), count), generator=generator)]


class TableNegatives(NegativeSampler):
    """Destinations from a table with a row for each event, sampled on the CPU: the same on every device."""

    def _keep(self, events: Stream, index: Tensor, source: TableSource | None, table: Tensor) -> None:
        """Store the table, or the object that samples it."""
        self._first, self._stop = int(index.min()), int(index.max()) + 1
        # half the memory; a batch is widened when it is read
        self._dtype = torch.int32 if events.num_nodes <= torch.iinfo(torch.int32).max else torch.int64
        self._source = source
        self._table = table.to(self._dtype)
        self._drawn = 0 if source is None else -1
        if source is not None and self._split != "train":
            self._draw(0)
            self._source = None

    def _draw(self, number: int) -> None:
        if self._source is not None:
            generator = self._generator(torch.device("cpu"), number)
            positions = torch.arange(self._first, self._stop)
            table = self._source.draw(positions, self.num_negatives, generator)
            self._table = table.to(self._dtype).to(self._device)
        self._drawn = number

    def sample(self, batch: EventBatch, epoch: int) -> tuple[None, Tensor]:
        """Return None, since sources are those of the events, and the rows of the table, int64 (B, M).

        Args:
            batch: events of the split.
            epoch: epoch of training, from 0; without effect in evaluation.

        Raises:
            ValueError: if :meth:`prepare` was not called.
            DataError: if the batch has events outside the split.
        """
        number = self._round(epoch)
        if number != self._drawn:
            self._draw(number)
        if batch.start < self._first or batch.start + len(batch) > self._stop:
            raise DataError(
                f"events {batch.start} to {batch.start + len(batch) - 1} were asked of negatives for split "
                f"{self._split}, events {self._first} to {self._stop - 1}; prepare them for the split that is read"
            )
        rows = batch.e_id - self._first if self._first else batch.e_id
        return None, self._table.index_select(0, rows).long()


class RandomNegatives(TableNegatives):
    """Destinations drawn uniformly, with replacement, from all that occur in the stream.

    In training they are drawn in every epoch from the distinct destinations of training events; in evaluation once
    from those of the whole stream. A negative may equal the true destination. A row of the table depends on the
    position alone, not on the batch; the table takes 4 M bytes for each event of the split (8 M beyond 2^31 nodes).

    Source: code of arXiv 2006.10637.

    Args:
        num_negatives: number of negatives M of each event, at least 1.
        seed: seed of the random negatives, together with split, epoch and position; at least 0.

    Raises:
        ValueError: if an argument is out of range.
        DataError: in ``prepare``, if all events have the same destination.

    Example:
        >>> from types import SimpleNamespace
        >>> src, dst = torch.tensor([0, 1, 0]), torch.tensor([2, 3, 3])
        >>> events = SimpleNamespace(src=src, dst=dst, t=torch.arange(3), num_nodes=4)
        >>> negatives = RandomNegatives(num_negatives=5).prepare(events, torch.arange(3), "train")
        >>> batch = EventBatch(src, dst, torch.arange(3), torch.zeros(3, 0), torch.arange(3), start=0)
        >>> negatives.sample(batch, epoch=0)[1].unique()
        tensor([2, 3])
    """

    def _prepare(self, events: Stream, train_index: Tensor, index: Tensor) -> None:
        dst = events.dst.cpu()
        pool = _distinct(dst.index_select(0, train_index.cpu()) if self._split == "train" else dst, events.num_nodes)
        if len(pool) < 2:
            raise DataError(f"all events go to node {int(pool[0])}: there is no other destination to draw")
        self._keep(events, index, _Uniform(pool), dst[:0])


def _distinct(nodes: Tensor, num_nodes: int) -> Tensor:
    """Return the distinct nodes in ascending order; marks take a tenth of the time of sorting millions of events."""
    if num_nodes > 8 * len(nodes):
        return nodes.unique()
    return torch.zeros(num_nodes, dtype=torch.bool).index_fill_(0, nodes, True).nonzero().squeeze(1)


class _PairNegatives(NegativeSampler):
    """Distinct pairs that occurred before the batch and are not in it."""

    def _keep(self, events: Stream, positions: Tensor, unwanted: Tensor | None, fill: Tensor) -> None:
        """Store the pairs of some events by first occurrence, without those of unwanted events.

        The pairs that occurred before any position are then a prefix.
        """
        if events.num_nodes**2 > torch.iinfo(torch.int64).max:
            raise DataError(f"{events.num_nodes} nodes make more pairs than int64 can number; use RandomNegatives")
        src, dst = events.src.cpu(), events.dst.cpu()
        self._num_nodes = events.num_nodes
        codes = src * events.num_nodes + dst
        first = positions[first_seen(codes[positions])]
        if unwanted is not None:
            first = first[~torch.isin(codes[first], codes[unwanted])]
        self._seen_at = first.numpy()  # stays on the host: the length of the prefix must not wait for the device
        self._pair_src, self._pair_dst = src[first], dst[first]
        self._sources, self._destinations = src[fill].unique(), dst[fill].unique()

    def sample(self, batch: EventBatch, epoch: int) -> tuple[Tensor, Tensor]:
        """Return sources and destinations, both int64 (B, M): earlier pairs, then random ones if there are too few.

        Args:
            batch: events of the split.
            epoch: epoch of training, from 0; without effect in evaluation.

        Raises:
            ValueError: if :meth:`prepare` was not called.
        """
        number = self._round(epoch)
        count = len(batch) * self.num_negatives
        generator = self._generator(batch.src.device, number, batch.start, len(batch))
        taken = (batch.src * self._num_nodes + batch.dst).sort().values
        src, dst = self._fill(taken, count, generator)
        known = int(np.searchsorted(self._seen_at, batch.start))
        if known:
            src, dst = self._seen(taken, count, known, generator, src, dst)
        return src.view(len(batch), -1), dst.view(len(batch), -1)

    def _seen(
        self, taken: Tensor, count: int, known: int, generator: torch.Generator, src: Tensor, dst: Tensor
    ) -> tuple[Tensor, Tensor]:
        # few pairs are shuffled whole; of many, 4 draws a place leave enough after repeats and pairs of the batch
        if known <= 8 * count + 256:
            drawn = torch.randperm(known, generator=generator, device=taken.device)
        else:
            drawn = torch.randint(known, (4 * count + 64,), generator=generator, device=taken.device)
        codes = self._pair_src[drawn] * self._num_nodes + self._pair_dst[drawn]
        pair = first_distinct(drawn[None], ~contains(taken, codes)[None], count)[0]
        there, pair = pair >= 0, pair.clamp(min=0)
        return torch.where(there, self._pair_src[pair], src), torch.where(there, self._pair_dst[pair], dst)

    def _fill(self, taken: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        shape = (_REDRAWS, count)
        src = self._sources[torch.randint(len(self._sources), shape, generator=generator, device=taken.device)]
        dst = self._destinations[
            torch.randint(len(self._destinations), shape, generator=generator, device=taken.device)
        ]
        free = ~contains(taken, src * self._num_nodes + dst)
        best = free.to(torch.uint8).argmax(0, keepdim=True)
        return src.gather(0, best)[0], dst.gather(0, best)[0]


class HistoricalNegatives(_PairNegatives):
    """Pairs that occurred before the batch and are not in it, drawn uniformly without replacement.

    If there are too few, the rest are random pairs that are not in the batch (up to 8 tries each). Pairs
    are directed, sources are not those of the events, and the result depends on the batch boundaries, as the
    definition does. In training only pairs of training events are used. Memory: 24 bytes for each distinct pair.

    Source: arXiv 2207.10128, section 4.1. Differs from the paper: pairs have an earlier position in the stream,
    which distinguishes events at the time of the first one of the batch.

    Args:
        num_negatives: number of negatives M of each event, at least 1.
        seed: seed of the random negatives, together with split, epoch and position; at least 0.

    Raises:
        ValueError: if an argument is out of range.
        DataError: in ``prepare``, if N^2 does not fit into int64.

    Example:
        >>> from types import SimpleNamespace
        >>> src, dst = torch.tensor([0, 1, 0]), torch.tensor([2, 3, 3])
        >>> events = SimpleNamespace(src=src, dst=dst, t=torch.arange(3), num_nodes=4)
        >>> negatives = HistoricalNegatives().prepare(events, torch.arange(2), "val")
        >>> last = torch.tensor([2])
        >>> src, dst = negatives.sample(EventBatch(src[2:], dst[2:], last, torch.zeros(1, 0), last, start=2), epoch=0)
        >>> (int(src), int(dst)) in {(0, 2), (1, 3)}
        True
    """

    def _prepare(self, events: Stream, train_index: Tensor, index: Tensor) -> None:
        positions = train_index.sort().values if self._split == "train" else torch.arange(len(events.src))
        self._keep(events, positions, None, positions)


class InductiveNegatives(_PairNegatives):
    """Pairs that occurred before the batch but not in training, and are not in the batch; for evaluation only.

    They are drawn uniformly without replacement; if there are too few, the rest are random pairs that are not in the
    batch (up to 8 tries each), which are all pairs of the first batch. Known pairs are those of training events, and
    of everything between them and the split: with ``index`` given to ``prepare``, those of validation are known in
    test. Memory: at most 24 bytes for each distinct pair.

    Source: arXiv 2207.10128, section 4.1. Differs from the paper as :class:`HistoricalNegatives` does.

    Args:
        num_negatives: number of negatives M of each event, at least 1.
        seed: seed of the random negatives, together with split and position; at least 0.

    Raises:
        ValueError: if an argument is out of range, or ``prepare`` is called for training.
        DataError: in ``prepare``, if N^2 does not fit into int64.

    Example:
        >>> from types import SimpleNamespace
        >>> src, dst = torch.tensor([0, 1, 0]), torch.tensor([2, 3, 3])
        >>> events = SimpleNamespace(src=src, dst=dst, t=torch.arange(3), num_nodes=4)
        >>> negatives = InductiveNegatives().prepare(events, torch.tensor([0]), "val")
        >>> last = torch.tensor([2])
        >>> negatives.sample(EventBatch(src[2:], dst[2:], last, torch.zeros(1, 0), last, start=2), epoch=0)
        (tensor([[1]]), tensor([[3]]))
    """

    def _prepare(self, events: Stream, train_index: Tensor, index: Tensor) -> None:
        if self._split == "train":
            raise ValueError(
                "InductiveNegatives are pairs never seen in training, so there are none to train with; "
                "use RandomNegatives or HistoricalNegatives in training"
            )
        total, end = len(events.src), int(train_index.max()) + 1
        begin = max(end, int(index.min()))
        known = torch.cat([train_index, torch.arange(end, begin)])
        self._keep(events, torch.arange(begin, total), known, torch.arange(total))
