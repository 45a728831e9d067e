"""Elastic weight consolidation: a quadratic penalty on changes of weights that are important to earlier tasks."""

from collections.abc import Mapping
from typing import Unpack

import torch
from torch import Tensor, nn
from torch.func import functional_call

from graphseq.core.continual import TaskBatch
from graphseq.tasks.base import TaskOptions
from graphseq.tasks.continual.base import SequentialFinetuning
from graphseq.tasks.continual.fisher import diagonal_fisher

__all__ = ["ElasticWeightConsolidation"]


class ElasticWeightConsolidation(SequentialFinetuning):
    r"""Train one network on one task after the other, with a penalty on changes of weights important to earlier tasks.

    .. math:: L = L_T(\theta) + \frac{\lambda}{2} \sum_p \Big(\sum_{t < T} F_{t p}\Big) (\theta_p - \theta^*_p)^2

    :math:`F_t` is the diagonal Fisher information of task t, computed from its training samples at its end, and
    :math:`\theta^*` are the weights at the end of the previous task.

    Source: arXiv 1612.00796, eq. 3. Differs from it: all tasks share the last anchor, as arXiv 1712.03847 proposes, so
    that memory does not grow with the tasks; the Fisher information is the empirical one, with the labels of the
    samples.

    Procedure:
        1. when a task begins, the Fisher information of the previous one is added and the current weights become the
        anchor; 2. cross-entropy and penalty; 3. one step of the optimiser.

    Logs:
        as :class:`SequentialFinetuning`; ``train/task_loss`` and ``train/kept``, the penalty.

    Args:
        model: network whose output is logits, (B, num_heads * K).
        num_outputs: number K of classes of a task, at least 2.
        num_tasks: number of tasks, at least 1.
        num_heads: number of heads of the network: 1 head for all tasks, or at least one for each.
        strength: factor :math:`\lambda` of the penalty, at least 0.
        options: arguments of :class:`Task`.

    Raises:
        ValueError: if an argument is out of range, see :class:`SequentialFinetuning`.

    Example:
        >>> task = ElasticWeightConsolidation(nn.Linear(4, 2), num_outputs=2, num_tasks=3)
        >>> task.penalty()
        tensor(0., grad_fn=<MulBackward0>)
    """

    importance: Tensor
    anchor: Tensor

    def __init__(
        self,
        model: nn.Module,
        num_outputs: int,
        num_tasks: int,
        num_heads: int = 1,
        strength: float = 100.0,
        **options: Unpack[TaskOptions],
    ) -> None:
        super().__init__(model, num_outputs, num_tasks, num_heads, **options)
        if not 0 <= strength < float("inf"):
            raise ValueError(f"strength is {strength}; it must be at least 0")
        self.strength = strength
        count = sum(weight.numel() for weight in self._weights().values())
        self.register_buffer("importance", torch.zeros(count))
        self.register_buffer("anchor", torch.zeros(count))

    def _weights(self) -> dict[str, nn.Parameter]:
        return {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}

    def end_task(self, task: int) -> None:
        """Add the Fisher information of the task, and make the current weights the anchor.

        Args:
            task: number of the task.
        """

        def logits(weights: Mapping[str, Tensor], x: Tensor) -> Tensor:
            return self.head_of(functional_call(self.model, dict(weights), (x,)), task)

        with self.evaluating(), torch.enable_grad():
            found = diagonal_fisher(logits, self._weights(), self.task_batches(task))
        self.importance += torch.cat([each.flatten() for each in found.values()])
        self.anchor.copy_(self._flat().detach())

    def _flat(self) -> Tensor:
        return torch.cat([weight.flatten() for weight in self._weights().values()])

    def penalty(self) -> Tensor:
        """Return the penalty of the current weights."""
        return self.strength / 2 * (self.importance * (self._flat() - self.anchor).square()).sum()

    def keep(self, batch: TaskBatch) -> Tensor | None:
        """Return the penalty; None in the first task.

        Args:
            batch: one training batch.
        """
        return self.penalty() if batch.task > 0 else None
