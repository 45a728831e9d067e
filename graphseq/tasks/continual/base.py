"""Base of procedures that learn tasks one after another; by itself it is fine-tuning, which forgets."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection

from graphseq.core.continual import TaskBatch, TaskSource
from graphseq.core.errors import DataError, UnsupportedStrategyError
from graphseq.metrics.continual import TaskAccuracy, forgetting
from graphseq.tasks.base import Stage, Step, Task, TaskOptions
from graphseq.tasks.objectives.classes import Classes

__all__ = ["SequentialFinetuning"]


def _check_batch(batch: object) -> None:
    if not isinstance(batch, TaskBatch):
        raise DataError(
            f"a batch is a {type(batch).__name__}, which does not name its task; give a TaskBatch, as "
            "graphseq.data.SplitTasksDataModule does"
        )


class SequentialFinetuning(Task[TaskBatch]):
    r"""Train one network on a sequence of tasks by plain fine-tuning, without any protection against forgetting.

    .. math:: L = -\frac{1}{B} \sum_b \log \operatorname{softmax}(f(x_b))_{y_b}

    The baseline of continual learning, and the base of its procedures: a subclass overrides :meth:`begin_task`,
    :meth:`end_task` and :meth:`keep`. The task of each sample is known, in evaluation, too: with one head for each
    task, the outputs of the head of that task are used.

    Procedure:
        1. when a task begins, the state of the optimiser is reset; 2. cross-entropy of the batches of the task; 3.
        after each epoch all tasks that have begun are validated.

    Logs:
        ``<stage>/loss``; ``val/acc`` and ``test/acc``, the mean over the tasks that have begun of the accuracy on each;
        ``val/forgetting``, see :func:`graphseq.metrics.forgetting`; ``val/final_acc``, which is ``val/acc`` in the
        epochs of the last task and 0 before, so that the best epoch is one of those.

    Args:
        model: network whose output is logits, (B, num_heads * K).
        num_outputs: number K of classes of a task, at least 2.
        num_tasks: number of tasks, at least 1.
        num_heads: number of heads of the network: 1 head for all tasks, or at least one for each.
        options: arguments of :class:`Task`.

    Raises:
        ValueError: if a number is out of range, or there are more tasks than heads and more than one head.
        DataError: if a batch is not a ``TaskBatch``; in a run, if tasks do not come in the order of their numbers, or
            there are more than ``num_tasks``.

    Example:
        >>> task = SequentialFinetuning(nn.Linear(4, 6), num_outputs=2, num_tasks=3, num_heads=3)
        >>> task.step(TaskBatch(torch.ones(5, 4), torch.tensor([0, 1, 1, 0, 1]), task=2)).prediction.shape
        torch.Size([5, 2])
    """

    monitor = "val/final_acc"
    mode = "max"

    current_task: Tensor
    accuracies: Tensor
    validated_step: Tensor

    def __init__(
        self,
        model: nn.Module,
        num_outputs: int,
        num_tasks: int,
        num_heads: int = 1,
        **options: Unpack[TaskOptions],
    ) -> None:
        super().__init__(model, **options)
        for name, number in (("num_tasks", num_tasks), ("num_heads", num_heads)):
            if number < 1:
                raise ValueError(f"{name} is {number}; it must be at least 1")
        if 1 < num_heads < num_tasks:
            raise ValueError(
                f"num_tasks is {num_tasks} and num_heads {num_heads}: more tasks than heads; give a head to each task, "
                "or one to all of them"
            )
        self.target_kind = Classes(num_outputs)
        self.num_outputs, self.num_tasks, self.num_heads = num_outputs, num_tasks, num_heads
        self.register_buffer("current_task", torch.tensor(-1))
        # of task t (column) after the epochs of task s (row), 0 where unknown
        self.register_buffer("accuracies", torch.zeros(num_tasks, num_tasks))
        self.register_buffer("validated_step", torch.tensor(-1))
        self._current = -1  # on the host, so that no step waits for the device

    # what procedures override

    def begin_task(self, task: int) -> None:
        """Hook that is called before the first step of a task; does nothing here.

        Args:
            task: number of the task.
        """

    def end_task(self, task: int) -> None:
        """Hook that is called after the last step of a task, when the next one begins; does nothing here.

        Args:
            task: number of the task.
        """

    def keep(self, batch: TaskBatch) -> Tensor | None:
        """Return the term that is added to the loss of a batch to preserve earlier tasks; None for no term.

        Args:
            batch: one training batch.
        """
        return None

    # the run

    def setup(self, stage: str) -> None:
        """Build the metrics; refuse several processes, and data with more tasks than ``num_tasks``."""
        super().setup(stage)
        if self.trainer.world_size > 1:
            raise UnsupportedStrategyError(
                f"{type(self).__name__} runs in one process, {self.trainer.world_size} were given; set devices=1"
            )
        data = self.datamodule
        if isinstance(data, TaskSource) and data.num_tasks > self.num_tasks:
            raise DataError(
                f"the data module has {data.num_tasks} tasks and num_tasks is {self.num_tasks}; give "
                f"num_tasks={data.num_tasks}"
            )

    def on_train_start(self) -> None:
        """Restore the generators and the current task."""
        super().on_train_start()
        self._current = int(self.current_task)

    def on_train_batch_start(self, batch: TaskBatch, batch_idx: int) -> None:
        """Change the task if the batch is of the next one."""
        _check_batch(batch)
        if batch.task == self._current:
            return
        if batch.task != self._current + 1 or batch.task >= self.num_tasks:
            raise DataError(
                f"a batch of task {batch.task} follows on task {self._current}, where num_tasks is {self.num_tasks}; "
                "tasks must come in the order of their numbers"
            )
        if self._current >= 0:
            self._validate_once()
            self.end_task(self._current)
        self._current = batch.task
        self.current_task.fill_(batch.task)
        for optimizer in self.trainer.optimizers:
            optimizer.state.clear()
        self.begin_task(batch.task)

    def task_batches(self, task: int) -> Iterable[TaskBatch]:
        """Return the training batches of a task in a fixed order, from the data module.

        Args:
            task: number of the task.

        Raises:
            TypeError: if the data module does not offer them.
        """
        data = self.datamodule
        if not isinstance(data, TaskSource):
            raise TypeError(
                f"{type(self).__name__} reads the samples of a task from the data module; give fit() one such as "
                "graphseq.data.SplitTasksDataModule"
            )
        return data.task_batches(task)

    def configure_metrics(self) -> MetricCollection:
        """Return the mean accuracy over tasks."""
        return MetricCollection({"acc": TaskAccuracy(self.num_tasks)})

    def forward(self, batch: TaskBatch) -> Any:
        """Return the logits of the head of the batch's task, (B, K).

        Args:
            batch: samples of one task.
        """
        _check_batch(batch)
        return self.head_of(self.outputs(batch.x, batch.task), batch.task)

    def outputs(self, x: Tensor, task: int) -> Tensor:
        """Return the output of the network, with all its heads.

        Args:
            x: inputs (B, *).
            task: number of the task; not used here, since one network serves all tasks.
        """
        output: Tensor = self.model(x)
        return output

    def head_of(self, output: Tensor, task: int | Tensor) -> Tensor:
        """Return the outputs of the heads of tasks, (B, K).

        Args:
            output: output of the network, (B, num_heads * K).
            task: number of the task, or one for each sample, (B,).

        Raises:
            ValueError: if the network has another number of outputs, or there is no such task.
        """
        if isinstance(task, int) and not 0 <= task < max(self.num_heads, self.num_tasks):
            raise ValueError(
                f"a batch is of task {task}; with num_tasks={self.num_tasks} it must be in 0..{self.num_tasks - 1}"
            )
        if output.dim() != 2 or output.shape[1] != self.num_heads * self.num_outputs:
            raise ValueError(
                f"{type(self.model).__name__} returned {tuple(output.shape)}; (B, {self.num_heads * self.num_outputs}) "
                f"is needed, num_outputs={self.num_outputs} for each of num_heads={self.num_heads}"
            )
        if self.num_heads == 1:
            return output
        heads = output.unflatten(1, (self.num_heads, self.num_outputs))
        return heads[:, task] if isinstance(task, int) else heads[torch.arange(len(heads), device=heads.device), task]

    def step(self, batch: TaskBatch, stage: Stage = "train") -> Step:
        """Return the cross-entropy of a batch, in training plus the term of :meth:`keep`.

        Args:
            batch: samples of one task.
            stage: stage of the run.
        """
        prediction, target = self.target_kind.align(self(batch), batch.y, self.model)
        loss, size = self.target_kind.loss(prediction, target)
        logged: dict[str, Tensor] = {}
        kept = self.keep(batch) if stage == "train" else None
        if kept is not None:
            logged = {"task_loss": loss, "kept": kept}
            loss = loss + kept
        return Step(loss, prediction, target, size, logged, {"task": torch.tensor(batch.task)})

    def validation_step(self, batch: TaskBatch, batch_idx: int) -> None:
        """Log loss and accuracy of a batch of a task that has begun, of any before the first step."""
        if self._current < 0 or batch.task <= self._current:
            super().validation_step(batch, batch_idx)

    def test_step(self, batch: TaskBatch, batch_idx: int) -> None:
        """Log loss and accuracy of a batch of a task that has begun, of any before the first step."""
        if self._current < 0 or batch.task <= self._current:
            super().test_step(batch, batch_idx)

    def on_validation_epoch_start(self) -> None:
        """Reset the metrics, and read which tasks have begun: a checkpoint may have been loaded."""
        super().on_validation_epoch_start()
        self._current = int(self.current_task)

    def on_test_epoch_start(self) -> None:
        """Reset the metrics, and read which tasks have begun: a checkpoint may have been loaded."""
        super().on_test_epoch_start()
        self._current = int(self.current_task)

    def on_validation_epoch_end(self) -> None:
        """Record the accuracies, and log forgetting."""
        super().on_validation_epoch_end()
        metrics = self.metrics("val")
        if metrics is None or self._current < 0:
            self._log_progress(torch.tensor(0.0), torch.tensor(0.0))
            return
        (accuracy,) = (metric for metric in metrics.values() if isinstance(metric, TaskAccuracy))
        found = accuracy.accuracies()
        if self.trainer.state.fn == "fit":
            self._note(found)
        done = self._current + 1 == self.num_tasks
        self._log_progress(
            forgetting(self.accuracies[: self._current + 1]), found.nanmean() if done else found.new_zeros(())
        )

    def _note(self, found: Tensor) -> None:
        self.accuracies[self._current] = found.nan_to_num(0.0)
        self.validated_step.fill_(self.trainer.global_step)

    def _validate_once(self) -> None:
        """Note the accuracies at the end of a task where no validation did.

        A run that is resumed from the last batch of an epoch does not come to the validation of that epoch.
        """
        data = self.datamodule
        if int(self.validated_step) == self.trainer.global_step or not isinstance(data, TaskSource):
            return
        accuracy = TaskAccuracy(self.num_tasks).to(self.device)
        with self.evaluating():
            for batch in data.batches("val"):
                if batch.task <= self._current:
                    accuracy.update(self(batch), batch.y, torch.tensor(batch.task))
        self._note(accuracy.accuracies())

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Context in which the network is in evaluation mode and no gradients are kept."""
        mode = self.model.training
        self.model.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.model.train(mode)

    def _log_progress(self, forgot: Tensor, final: Tensor) -> None:
        self.log_dict({"val/forgetting": forgot, "val/final_acc": final}, batch_size=1)
