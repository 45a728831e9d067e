"""Loader of windows of a text in their order, so that each row of a batch goes on where the same row ended before."""

from typing import Any

from torch import Tensor

from graphseq.core.errors import DataError
from graphseq.data.loader import BatchLoader
from graphseq.data.store import Store

__all__ = ["StreamLoader"]


class StreamLoader(BatchLoader):
    r"""Loader that reads a sequence of samples as B streams, one for each row of a batch.

    .. math:: \text{row } b \text{ of batch } k = \text{sample } b\, m + k, \qquad m = \lfloor n / B \rfloor

    of n samples. Row b of a batch follows row b of the batch before, so that the state of a network can be carried from
    one to the next. The last n - B m samples, fewer than B, are left out. The order is the same in every epoch.

    Args:
        store: store of the samples.
        batch_size: number B of streams, at least 1.
        options: further arguments of :class:`BatchLoader`; ``shuffle`` is always false.

    Raises:
        ValueError: if there are several processes, whose rows would not go on.
        DataError: if there are fewer samples than streams.

    Example:
        >>> import torch
        >>> from graphseq.data import TensorStore
        >>> [batch[0].tolist() for batch in StreamLoader(TensorStore(torch.arange(7)), 2)]
        [[0, 3], [1, 4], [2, 5]]
    """

    def __init__(self, store: Store, batch_size: int, **options: Any) -> None:
        super().__init__(store, batch_size, shuffle=False, **options)
        if self.world_size > 1:
            raise ValueError(f"world_size is {self.world_size}; streams are read by one process: train with devices=1")
        if len(self.index) < batch_size:
            raise DataError(
                f"{len(self.index)} windows make no {batch_size} streams; give a smaller batch_size or "
                "eval_batch_size, shorter windows or a longer text"
            )
        self._global_sizes = [batch_size] * (len(self.index) // batch_size)

    def order(self) -> Tensor:
        """Return the order of the samples, batch after batch."""
        steps = len(self)
        return self.index[: steps * self.batch_size].view(self.batch_size, steps).T.flatten()
