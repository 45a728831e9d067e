"""Batches of tasks that are learned one after another, and what their data modules offer."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self, runtime_checkable

import torch
from torch import Tensor

__all__ = ["TaskBatch", "TaskSource"]


@dataclass
class TaskBatch:
    """Samples of one task.

    Args:
        x: inputs (B, *).
        y: targets (B,), numbered within the task.
        task: number of the task, from 0, in the order in which tasks are learned.

    Example:
        >>> len(TaskBatch(torch.ones(3, 2), torch.zeros(3), task=1))
        3
    """

    x: Tensor
    y: Tensor
    task: int

    def __len__(self) -> int:
        return len(self.x)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """Return the batch with its tensors on ``device``.

        Args:
            device: target device.
            non_blocking: whether a copy from pinned memory may run asynchronously, as in ``Tensor.to``.
        """
        x, y = (each.to(device, non_blocking=non_blocking) for each in (self.x, self.y))
        return replace(self, x=x, y=y)


@runtime_checkable
class TaskSource(Protocol):
    """Data module of several tasks that are learned one after another.

    Example:
        >>> from graphseq.data import PermutedTasksDataModule
        >>> isinstance(PermutedTasksDataModule("digits"), TaskSource)
        True
    """

    @property
    def num_tasks(self) -> int:
        """Number of tasks."""

    def batches(self, stage: Any) -> Iterable[TaskBatch]:
        """Return the batches of a split, on the device and transformed.

        Args:
            stage: name of the split: ``train``, ``val`` or ``test``.
        """

    def task_batches(self, task: int) -> Iterable[TaskBatch]:
        """Return the training batches of a task on the device, in a fixed order and with the transform of evaluation.

        Args:
            task: number of the task, from 0.
        """
