"""Experience replay: stored samples of earlier tasks are mixed into the training."""

from typing import Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphseq.core.continual import TaskBatch
from graphseq.core.elastic import Elastic
from graphseq.tasks.base import TaskOptions
from graphseq.tasks.continual.base import SequentialFinetuning

__all__ = ["ExperienceReplay", "ReplayMemory"]


class ReplayMemory(Elastic):
    """Memory with up to a fixed number of samples of each earlier task, which checkpoints hold.

    Args:
        samples_per_task: number of samples of each task, at least 1.

    Raises:
        ValueError: if ``samples_per_task`` is below 1.

    Example:
        >>> memory = ReplayMemory(samples_per_task=2)
        >>> memory.add(torch.arange(10.0).view(5, 2), torch.zeros(5, dtype=torch.int64), task=0)
        >>> memory.x.shape, memory.task
        (torch.Size([2, 2]), tensor([0, 0]))
    """

    elastic = ("x", "y", "task")
    x: Tensor
    y: Tensor
    task: Tensor

    def __init__(self, samples_per_task: int) -> None:
        super().__init__()
        if samples_per_task < 1:
            raise ValueError(f"samples_per_task is {samples_per_task}; it must be at least 1")
        self.samples_per_task = samples_per_task
        self.register_buffer("x", torch.zeros(0))
        self.register_buffer("y", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("task", torch.zeros(0, dtype=torch.int64))

    def __len__(self) -> int:
        return len(self.y)

    def add(self, x: Tensor, y: Tensor, task: int) -> None:
        """Add samples of a task, drawn from those given.

        Args:
            x: inputs (N, *).
            y: labels (N,).
            task: number of the task.
        """
        chosen = torch.randperm(len(x))[: self.samples_per_task].to(x.device)
        self.x = torch.cat([self.x, x[chosen]]) if len(self) else x[chosen]
        self.y = torch.cat([self.y.to(y.device), y[chosen]])
        self.task = torch.cat([self.task.to(y.device), torch.full_like(y[chosen], task)])

    def draw(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return inputs, labels and tasks of some samples, drawn with replacement.

        Args:
            count: number of samples.
        """
        if not len(self):
            raise ValueError("the memory holds no samples; add() some before draw()")
        chosen = torch.randint(len(self), (count,)).to(self.y.device)
        return self.x[chosen], self.y[chosen], self.task[chosen]


class ExperienceReplay(SequentialFinetuning):
    r"""Train one network on a sequence of tasks, with stored samples of earlier tasks in each step.

    .. math:: L = L_T + \frac{T - 1}{B} \sum_{b} \ell(f(\tilde x_b), \tilde y_b), \qquad
        (\tilde x_b, \tilde y_b) \text{ of the } T - 1 \text{ tasks before}

    so that all tasks have equal weights.

    Source: arXiv 1902.10486. Differs from it: the memory holds a fixed number of samples of each task.

    Procedure:
        1. when a task begins, samples of the one before are added to the memory; 2. cross-entropy of the batch and of
        as many samples of the memory; 3. one step of the optimiser.

    Logs:
        as :class:`SequentialFinetuning`; ``train/task_loss`` and ``train/kept``, the loss of the memory.

    Args:
        model: network whose output is logits, (B, num_heads * K).
        num_outputs: number K of classes of a task, at least 2.
        num_tasks: number of tasks, at least 1.
        num_heads: number of heads of the network: 1 head for all tasks, or at least one for each.
        samples_per_task: number of samples of each task that are kept, at least 1.
        options: arguments of :class:`Task`.

    Raises:
        ValueError: if an argument is out of range, see :class:`SequentialFinetuning`.

    Example:
        >>> ExperienceReplay(nn.Linear(4, 2), num_outputs=2, num_tasks=3).memory.samples_per_task
        50
    """

    def __init__(
        self,
        model: nn.Module,
        num_outputs: int,
        num_tasks: int,
        num_heads: int = 1,
        samples_per_task: int = 50,
        **options: Unpack[TaskOptions],
    ) -> None:
        super().__init__(model, num_outputs, num_tasks, num_heads, **options)
        self.memory = ReplayMemory(samples_per_task)

    def end_task(self, task: int) -> None:
        """Keep samples of the task.

        Args:
            task: number of the task.
        """
        batches = list(self.task_batches(task))
        self.memory.add(torch.cat([batch.x for batch in batches]), torch.cat([batch.y for batch in batches]), task)

    def keep(self, batch: TaskBatch) -> Tensor | None:
        """Return the loss of samples of the memory; None in the first task.

        Args:
            batch: one training batch.
        """
        if batch.task == 0:
            return None
        x, y, tasks = self.memory.draw(len(batch))
        logits = self.head_of(self.outputs(x, batch.task), tasks)
        return batch.task * functional.cross_entropy(logits, y)
