"""Continual learning by a hypernetwork, with a penalty on changes of the weights of earlier tasks."""

from typing import Unpack

import torch
from torch import Tensor

from graphseq.core.continual import TaskBatch
from graphseq.nn.hyper.chunked import TaskHyperNetwork
from graphseq.nn.hyper.recurrent import RNNHyperNetwork
from graphseq.nn.hyper.regularizer import OutputRegularizer
from graphseq.tasks.base import TaskOptions
from graphseq.tasks.continual.base import SequentialFinetuning
from graphseq.tasks.continual.fisher import diagonal_fisher
from graphseq.tasks.continual.growth import GrowthRule, extend_optimizer

__all__ = ["ContinualHypernet"]


class ContinualHypernet(SequentialFinetuning):
    r"""Train a hypernetwork on a sequence of tasks, with a penalty on changes of the weights of earlier tasks.

    .. math:: L = L_T(f(x; \theta_T)) + \frac{\beta}{T - 1} \sum_{t < T} \lVert \theta_t - \theta^*_t \rVert^2

    :math:`\theta^*_t` are the weights that were generated for task t when the current task began. Embeddings of earlier
    tasks are no longer trained. Each task has all weights of the network to itself, the last layer included, so that
    one head of K outputs is enough.

    Source: arXiv 1906.00695 for the procedure, without the look-ahead of the regulariser; arXiv 2209.07712 for the
    recurrent hypernetwork, importances and growth, of which only the abstract could be read.

    Procedure:
        1. when a task begins, the weights of all earlier ones are generated and stored, and the importances of the
        previous task are estimated if the regulariser uses them; 2. cross-entropy of the batches of the task with the
        weights of its embedding, and the regulariser; 3. one step of the optimiser; 4. with a rule of growth, after the
        trial of each task but the first, units are added if the loss is too high.

    Logs:
        as :class:`SequentialFinetuning`; ``train/task_loss`` and ``train/kept``, the regulariser.

    Args:
        model: hypernetwork of tasks, such as :class:`graphseq.nn.RNNHyperNetwork`, whose network has K outputs.
        num_outputs: number K of classes of a task, at least 2.
        num_tasks: number of tasks, at least 1 and not more than the hypernetwork has.
        regularizer: regulariser; None for :class:`graphseq.nn.OutputRegularizer` with its defaults.
        growth: rule by which a recurrent hypernetwork grows; None for no growth.
        options: arguments of :class:`Task`.

    Raises:
        ValueError: if a number is out of range, or the hypernetwork has fewer tasks.
        TypeError: if the model is not a hypernetwork of tasks, or cannot grow and a rule is given.

    Example:
        >>> from torch import nn
        >>> task = ContinualHypernet(RNNHyperNetwork(nn.Linear(4, 2), 3, hidden_size=8), num_outputs=2, num_tasks=3)
        >>> task.step(TaskBatch(torch.ones(5, 4), torch.tensor([0, 1, 1, 0, 1]), task=0)).prediction.shape
        torch.Size([5, 2])
    """

    model: TaskHyperNetwork
    noted: Tensor
    importance: Tensor
    trial: Tensor

    def __init__(
        self,
        model: TaskHyperNetwork,
        num_outputs: int,
        num_tasks: int,
        regularizer: OutputRegularizer | None = None,
        growth: GrowthRule | None = None,
        **options: Unpack[TaskOptions],
    ) -> None:
        super().__init__(model, num_outputs, num_tasks, **options)
        if not isinstance(model, TaskHyperNetwork):
            raise TypeError(
                f"model is a {type(model).__name__}; give a hypernetwork of tasks such as graphseq.nn.RNNHyperNetwork"
            )
        if model.num_tasks < num_tasks:
            raise ValueError(
                f"num_tasks is {num_tasks} and model has {model.num_tasks} tasks; give model at least as many"
            )
        if growth is not None and not isinstance(model, RNNHyperNetwork):
            raise TypeError(f"growth is given, and a {type(model).__name__} cannot grow; give an RNNHyperNetwork")
        self.regularizer = OutputRegularizer() if regularizer is None else regularizer
        self.growth = growth
        self.register_buffer("noted", torch.zeros(num_tasks, model.num_weights))
        rows = num_tasks if self.regularizer.weighted else 0
        self.register_buffer("importance", torch.zeros(rows, model.num_weights))
        self.register_buffer("trial", torch.zeros(2))  # steps of the task, and sum of losses of the trial's second half
        self._steps = 0

    def outputs(self, x: Tensor, task: int) -> Tensor:
        """Return the output of the network with the weights of a task.

        Args:
            x: inputs (B, *).
            task: number of the task.
        """
        output: Tensor = self.model(x, task)
        return output

    def _embeddings(self, tasks: list[int]) -> Tensor:
        """Return the embeddings of earlier tasks, which are not trained."""
        return torch.stack([self.model.embedding(task).detach() for task in tasks])

    def begin_task(self, task: int) -> None:
        """Store the weights that are generated for the earlier tasks.

        Args:
            task: number of the task.
        """
        self.trial.zero_()
        self._steps = 0
        if task > 0:
            with self.evaluating():
                self.noted[:task] = self.model.generate(self._embeddings(list(range(task))))

    def end_task(self, task: int) -> None:
        """Estimate how important each generated weight is to the task, with mean 1, if the regulariser uses it.

        Args:
            task: number of the task.
        """
        if not self.regularizer.weighted:
            return
        with self.evaluating():
            weights = self.model.weights(task)
            with torch.enable_grad():
                found = diagonal_fisher(self.model.call, weights, self.task_batches(task))
        flat = torch.cat([each.flatten() for each in found.values()])
        self.importance[task] = flat / flat.mean().clamp(min=torch.finfo(flat.dtype).tiny)

    def keep(self, batch: TaskBatch) -> Tensor | None:
        """Return the regulariser; None in the first task, and where its factor is 0.

        Args:
            batch: one training batch.
        """
        if batch.task == 0 or self.regularizer.beta == 0:
            return None
        chosen = self.regularizer.choose(batch.task)
        generated = self.model.generate(self._embeddings(chosen))
        rows = slice(batch.task) if len(chosen) == batch.task else chosen  # a list is copied to the device
        importance = self.importance[rows] if self.regularizer.weighted else None
        return self.regularizer(generated, self.noted[rows], importance)

    # growth

    def on_train_start(self) -> None:
        """Restore the generators, the current task, and its trial."""
        super().on_train_start()
        self._steps = int(self.trial[0])

    def on_train_batch_start(self, batch: TaskBatch, batch_idx: int) -> None:
        """Change the task if the batch is of the next one; grow if the trial is over and its loss is too high."""
        super().on_train_batch_start(batch, batch_idx)
        rule = self.growth
        if rule is None or batch.task == 0 or self._steps != rule.trial_steps:
            return
        mean = float(self.trial[1]) / (rule.trial_steps - rule.trial_steps // 2)
        if mean > rule.threshold and isinstance(self.model, RNNHyperNetwork):
            grown = self.model.grow(rule.num_units)
            for optimizer in self.trainer.optimizers:
                extend_optimizer(optimizer, grown)

    def training_step(self, batch: TaskBatch, batch_idx: int) -> Tensor:
        """Return the loss of a batch, and count it for the trial."""
        step = self.step(batch, "train")
        if self.growth is not None:
            if self.growth.trial_steps // 2 <= self._steps < self.growth.trial_steps:
                self.trial[1] += step.logged.get("task_loss", step.loss).detach()
            self._steps += 1
            self.trial[0] += 1
        return self.total_loss(step, batch_idx)
