"""Loaders of tasks that are learned one after another: one task an epoch in training, all of them in evaluation."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from graphseq.core.continual import TaskBatch
from graphseq.data.loader import BatchLoader
from graphseq.data.store import Store

__all__: list[str] = []


class TaskTrainingLoader(BatchLoader):
    """Batches of the task whose turn it is: the first one for some epochs, then the second, up to the last.

    An epoch has as many batches as the smallest task gives; of larger tasks other samples are left out in each epoch.

    Args:
        store: store of inputs and targets.
        batch_size: number of samples of a batch.
        indices: positions of the samples of each task, in the order in which tasks are learned.
        epochs_per_task: number of epochs of each task, at least 1; further epochs are of the last task.
        options: arguments of :class:`graphseq.data.BatchLoader`.

    Example:
        >>> from graphseq.data import TensorStore
        >>> store = TensorStore(torch.arange(4), torch.zeros(4))
        >>> indices = [torch.arange(2), torch.arange(2, 4)]
        >>> loader = TaskTrainingLoader(store, 2, indices, epochs_per_task=1, shuffle=False)
        >>> for epoch in range(2):
        ...     loader.set_epoch(epoch)
        ...     print([(batch.x.tolist(), batch.task) for batch in loader])
        [([0, 1], 0)]
        [([2, 3], 1)]
    """

    def __init__(
        self, store: Store, batch_size: int, indices: Sequence[Tensor], *, epochs_per_task: int, **options: Any
    ) -> None:
        super().__init__(store, batch_size, index=min(indices, key=len), **options)
        self.indices, self.epochs_per_task = list(indices), epochs_per_task

    @property
    def task(self) -> int:
        """Number of the task of the current epoch."""
        return min(self.epoch // self.epochs_per_task, len(self.indices) - 1)

    def order(self) -> Tensor:
        """Return the order of the samples of the current task; the first of them are used."""
        self.index = self.indices[self.task]
        return super().order()

    def __iter__(self) -> Iterator[TaskBatch]:
        for x, y in super().__iter__():
            yield TaskBatch(x, y, self.task)


class TaskEvaluationLoader:
    """Batches of all tasks, one task after the other.

    Args:
        store: store of inputs and targets.
        batch_size: number of samples of a batch, but for the last of each task.
        indices: positions of the samples of each task, in the order in which tasks are learned.
        device: device of the batches; None for that of the store.

    Example:
        >>> from graphseq.data import TensorStore
        >>> store = TensorStore(torch.arange(3), torch.zeros(3))
        >>> [batch.task for batch in TaskEvaluationLoader(store, 2, [torch.arange(2), torch.arange(3)])]
        [0, 1, 1]
    """

    def __init__(
        self, store: Store, batch_size: int, indices: Sequence[Tensor], device: torch.device | None = None
    ) -> None:
        self.loaders = {
            task: BatchLoader(store, batch_size, shuffle=False, index=index, device=device)
            for task, index in enumerate(indices)
            if len(index)
        }

    def set_epoch(self, epoch: int) -> None:
        """Do nothing: the order is the same in all epochs.

        Args:
            epoch: number of the epoch.
        """

    def __len__(self) -> int:
        return sum(len(loader) for loader in self.loaders.values())

    def __iter__(self) -> Iterator[TaskBatch]:
        for task, loader in self.loaders.items():
            for x, y in loader:
                yield TaskBatch(x, y, task)
