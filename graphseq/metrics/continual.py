"""Accuracy of several tasks and forgetting, for networks that learn tasks one after another."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

__all__ = ["TaskAccuracy", "forgetting"]


def forgetting(accuracies: Tensor) -> Tensor:
    r"""Return the mean loss of accuracy on earlier tasks, from when each was learned to the last row.

    .. math:: F = \frac{1}{T - 1} \sum_{t < T} (a_{t t} - a_{T t})

    It is 0 for one task and negative where later tasks help earlier ones.

    Source: arXiv 1906.00695, whose backward transfer is -F.

    Args:
        accuracies: accuracy of task t (column) after task s (row) was learned, (T, T) or the first rows (S, T); entries
            above the diagonal are not read.

    Shape:
        (S, T) with 1 <= S <= T -> scalar

    Raises:
        ValueError: if it is no matrix, has no row, or more rows than columns.

    Example:
        >>> forgetting(torch.tensor([[0.9, 0.0], [0.7, 0.8]]))
        tensor(0.2000)
    """
    if accuracies.dim() != 2 or not 1 <= len(accuracies) <= accuracies.shape[1]:
        raise ValueError(
            f"accuracies are {tuple(accuracies.shape)}; a matrix is needed with a row for each learned task and a "
            "column for each task"
        )
    last = len(accuracies) - 1
    if last == 0:
        return accuracies.new_zeros(())
    return (accuracies.diagonal()[:last] - accuracies[last, :last]).mean()


class TaskAccuracy(Metric):
    """Mean over tasks of the accuracy on each; tasks without samples do not count. Reduction over processes: sums.

    Args:
        num_tasks: number of tasks, at least 1.
        kwargs: further arguments of ``torchmetrics.Metric``.

    Raises:
        ValueError: if ``num_tasks`` is below 1; in ``update`` if there is no such task or shapes do not fit.

    Example:
        >>> metric = TaskAccuracy(num_tasks=3)
        >>> metric.update(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([1, 1]), torch.tensor(0))
        >>> metric.update(torch.tensor([[0.0, 1.0]]), torch.tensor([1]), torch.tensor(2))
        >>> metric.compute(), metric.accuracies()
        (tensor(0.7500), tensor([0.5000,    nan, 1.0000]))
    """

    full_state_update = False
    higher_is_better = True
    correct: Tensor
    total: Tensor

    def __init__(self, num_tasks: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if num_tasks < 1:
            raise ValueError(f"num_tasks is {num_tasks}; it must be at least 1")
        self.num_tasks = num_tasks
        self.add_state("correct", torch.zeros(num_tasks), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros(num_tasks), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor, task: Tensor) -> None:
        """Count the correct predictions of a task.

        Args:
            prediction: logits (B, K).
            target: labels (B,).
            task: number of the task, a scalar on the CPU, where no synchronisation is needed to read it.
        """
        place = int(task)
        if not 0 <= place < self.num_tasks:
            raise ValueError(f"task is {place}; it must be in 0..{self.num_tasks - 1}")
        if prediction.dim() != 2 or target.shape != prediction.shape[:1]:
            raise ValueError(
                f"prediction is {tuple(prediction.shape)}, target {tuple(target.shape)}; (B, K) and (B,) are needed"
            )
        self.correct[place] += (prediction.argmax(1) == target).sum()
        self.total[place] += len(target)

    def accuracies(self) -> Tensor:
        """Return the accuracy on each task, NaN where it has no samples, (T,)."""
        return self.correct / self.total

    def compute(self) -> Tensor:
        """Return the mean of the accuracies of the tasks that have samples."""
        return self.accuracies().nanmean()
