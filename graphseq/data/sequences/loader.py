"""Loader of batches of samples of similar length, which reduces padding."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphseq.core.errors import DataError
from graphseq.data.loader import BatchLoader
from graphseq.data.store import Store

__all__ = ["BucketLoader"]


class BucketLoader(BatchLoader):
    """Shuffled loader whose batches hold samples of similar length.

    The shuffled order is cut into pools of ``pool_batches`` batches; each pool is sorted by length and cut into
    batches, whose order is shuffled. Like the order of :class:`BatchLoader` it is a function of ``(seed, epoch,
    pass)`` alone, so a run resumes bit for bit. A smaller last batch remains the last.

    Args:
        store: store of the samples.
        batch_size: number of samples of one batch over all ranks, at least 1.
        lengths: length of each sample of the store, on the CPU, (N,).
        pool_batches: number of batches of a pool, at least 1; 1 sorts within each batch only, larger pools need less
            padding and make batches less random.
        options: further arguments of :class:`BatchLoader`; ``shuffle`` is always true.

    Raises:
        ValueError: if ``pool_batches`` is below 1.
        DataError: if the number of lengths is not the number of samples.

    Example:
        >>> from graphseq.data import SequenceStore
        >>> store = SequenceStore.from_sequences([[1.0] * (1 + n % 2) for n in range(8)])
        >>> loader = BucketLoader(store, 2, lengths=store.lengths, pool_batches=4)
        >>> [len(set(batch.lengths.tolist())) for batch in loader]
        [1, 1, 1, 1]
    """

    def __init__(
        self, store: Store, batch_size: int, *, lengths: Tensor, pool_batches: int = 50, **options: Any
    ) -> None:
        super().__init__(store, batch_size, shuffle=True, **options)
        if pool_batches < 1:
            raise ValueError(f"pool_batches is {pool_batches}; it must be at least 1")
        if lengths.shape != (len(store),):
            raise DataError(f"lengths is {tuple(lengths.shape)}; it must be ({len(store)},), one for each sample")
        self.lengths = lengths.cpu()
        self.pool_batches = pool_batches

    def order(self) -> Tensor:
        """Return the order of the samples in the current pass, over all ranks."""
        shuffled = super().order()
        size = self.batch_size
        full = sum(1 for global_size in self._global_sizes if global_size == size)
        body, tail = shuffled[: full * size], shuffled[full * size :]
        if not full:
            return shuffled
        lengths = self.lengths[body].numpy()
        pool = np.arange(len(body)) // (self.pool_batches * size)
        body = body[torch.from_numpy(np.lexsort((lengths, pool)))]  # stable: equal lengths stay shuffled
        words = np.random.SeedSequence([self.seed, self._epoch, self._pass, 1]).generate_state(2, np.uint32)
        generator = torch.Generator().manual_seed(int(words[0]) << 31 ^ int(words[1]))
        batches = torch.randperm(full, generator=generator)
        return torch.cat([body.view(full, size)[batches].flatten(), tail])
