"""Loader of a stream of events: in order, in batches by a rule, with negatives, never shuffled."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch
from torch import Generator, Tensor

from graphseq.core.errors import DataError, UnsupportedStrategyError
from graphseq.core.events import EventBatch
from graphseq.data.events.batching import Batching, FixedBatches, checked_batching
from graphseq.data.events.store import EventStore
from graphseq.data.loader import BatchLoader

__all__ = ["EventLoader"]


class PreparedNegatives(Protocol):
    """Negative sampler of one stream and split, whose results depend only on the epoch and the positions."""

    def sample(self, batch: EventBatch, epoch: int) -> tuple[Tensor | None, Tensor]:
        """Return sources (B, M), or None for those of the events, and destinations (B, M)."""
        ...


class EventLoader(BatchLoader):
    """Iterable over batches of consecutive events, the same number in every epoch, with a position that can be saved.

    All that differs between epochs (boundaries of random batches, negatives) depends only on ``(seed, epoch, pass)``,
    so that an interrupted epoch continues bit for bit; see :class:`BatchLoader` for the position and its use by
    Lightning.

    Args:
        store: store of the events.
        batching: rule of the batches; a number means :class:`FixedBatches` of that size.
        index: positions of the events to use, ascending, int64 (M,); None for all.
        negatives: negative sampler, prepared for the split of ``index``; None for no negatives.
        seed: seed of random batches, together with epoch and pass.
        world_size: number of processes, which must be 1.
        device: device of the batches; None for the device of the store.
        stop: position after the events of the split, if the last of them are not in ``index``; the last batch carries
            it.

    Raises:
        UnsupportedStrategyError: if there are several processes.
        TypeError: if ``batching`` is neither a rule nor a number.
        DataError: if there are no events, or ``index`` is out of range or not ascending.

    Example:
        >>> from graphseq.data import TemporalEvents
        >>> events = TemporalEvents(torch.zeros(5).long(), torch.ones(5).long(), torch.arange(5))
        >>> [batch.t.tolist() for batch in EventLoader(EventStore(events), 2)]
        [[0, 1], [2, 3], [4]]
    """

    def __init__(
        self,
        store: EventStore,
        batching: Batching | int,
        *,
        index: Tensor | None = None,
        negatives: PreparedNegatives | None = None,
        seed: int = 0,
        world_size: int = 1,
        device: torch.device | None = None,
        stop: int | None = None,
    ) -> None:
        if world_size > 1:
            raise UnsupportedStrategyError(
                f"events of one stream cannot be divided among {world_size} processes: each would miss what the others "
                "remember, for memory is not shared. Use devices=1; or give every process a stream or a partition of "
                "the graph of its own, as independent runs"
            )
        self.batching = FixedBatches(batching) if isinstance(batching, int) else checked_batching("batching", batching)
        super().__init__(store, max(len(store), 1), shuffle=False, index=index, seed=seed, device=device)
        _check_ascending(self.index)
        self.negatives = negatives
        self._stop = stop
        self._events = store.events
        self._fixed: tuple[Tensor, list[int]] | None = None
        self._global_sizes = self._plan()[1]
        self.batch_size = max(self._global_sizes)

    def __repr__(self) -> str:
        return f"EventLoader({len(self.index)} events in {len(self)} batches, {self.batching!r})"

    def _plan(self) -> tuple[Tensor, list[int]]:
        if self._fixed is not None:
            return self._fixed
        words = np.random.SeedSequence([self.seed, self._epoch, self._pass]).generate_state(2, np.uint32)
        generator = Generator().manual_seed(int(words[0]) << 31 ^ int(words[1]))
        plan = self.batching.plan(self._events, self.index, generator)
        order, sizes = plan
        if len(order) != len(self.index) or sum(sizes) != len(order) or min(sizes, default=0) < 1:
            raise DataError(
                f"{self.batching!r} planned {len(order)} events in batches of {min(sizes, default=0)} to "
                f"{max(sizes, default=0)}, {sum(sizes)} together, of {len(self.index)} events; a rule gives every "
                "event a batch, and every batch an event"
            )
        if not self.batching.random:
            self._fixed = plan
        return plan

    def order(self) -> Tensor:
        """Return the positions of the events in the order of the batches."""
        return self._plan()[0]

    def __iter__(self) -> Iterator[EventBatch]:
        # a generator, so that calling iter() without taking a batch changes nothing
        start, self._resume_at = self._resume_at, 0
        order, sizes = self._plan()
        self._position = start
        # a further pass without ``set_epoch`` counts as a further epoch
        draw = self._epoch + self._pass
        for batch in self.store.batches(order[sum(sizes[:start]) :], sizes[start:], self.device):
            if self.negatives is not None:
                neg_src, neg_dst = self.negatives.sample(batch, draw)
                batch = replace(batch, neg_src=neg_src, neg_dst=neg_dst)
            if self.batching.reorders:
                batch = replace(batch, reordered=True)
            # counted before the batch is yielded: a checkpoint saved during its step resumes after it
            self._position += 1
            if self._stop is not None and self._position == len(sizes):
                batch = replace(batch, stop=self._stop)
            yield batch
        self._pass, self._position = self._pass + 1, 0


def _check_ascending(index: Tensor) -> None:
    back = (index.diff() <= 0).nonzero()
    if len(back):
        at = int(back[0]) + 1
        raise DataError(
            f"index must ascend, for events are served in the order of time, but {int(index[at])} comes after "
            f"{int(index[at - 1])} at place {at}; sort the positions and give each once"
        )
