"""Annealing of proximal matching: stages of its loss and of the learning rate."""

import itertools
import math
import warnings
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback

from graphseq.nn import ProximalMatchingLoss
from graphseq.tasks.base import Task

__all__ = ["ProximalAnnealing"]


class ProximalAnnealing(Callback):
    r"""Train with proximal matching in stages: first the mean absolute error, then a falling :math:`\gamma`.

    Each stage has a number of steps of the optimiser, a width :math:`\gamma`, and a learning rate. The last one lasts
    until the training ends. The stage follows from the number of steps so far, which checkpoints hold, so that an
    interrupted and resumed run equals an uninterrupted one. Task and loss are not replaced; validation uses the width
    that the loss was built with.

    Logs:
        to loggers, at the first step of a stage: ``proximal_gamma`` (0 for the mean absolute error) and
        ``proximal_learning_rate``.

    Source: arXiv 2310.14344, section 3 and the authors' code: for images half of the steps with the mean absolute error
    and a learning rate of 1e-3, then four equal stages with 1e-4 and :math:`\gamma = 8, 4, 2, 1` times 0.08 times the
    root of the number of values. Differs from it: none known.

    Args:
        stages: number of steps, at least 1; width, above 0 and never larger than before, or None for the mean absolute
            error, in the first stages only; and learning rate, above 0, of each stage.

    Raises:
        ValueError: if a stage is not of this form.
        TypeError: when a run starts, if the task is not a :class:`graphseq.tasks.Task`, its loss is not a
            :class:`graphseq.nn.ProximalMatchingLoss`, or it has a scheduler.

    Example:
        >>> annealing = ProximalAnnealing([(500, None, 1e-3), (200, 0.5, 1e-4), (200, 0.25, 1e-4)])
        >>> [annealing.stage(step) for step in (0, 499, 500, 699, 700, 10_000)]
        [0, 0, 1, 1, 2, 2]
    """

    def __init__(self, stages: list[tuple[int, float | None, float]]) -> None:
        if not stages:
            raise ValueError("stages is empty; give (steps, gamma, learning rate) of at least one stage")
        largest = math.inf
        for place, each in enumerate(stages):
            if len(each) != 3:
                raise ValueError(f"stages[{place}] is {each}; give (steps, gamma, learning rate)")
            steps, gamma, rate = each
            if steps < 1 or not 0 < rate < math.inf:
                raise ValueError(
                    f"stages[{place}] has {steps} steps and learning rate {rate}; give at least 1, and a rate above 0"
                )
            if gamma is None:
                if largest < math.inf:
                    raise ValueError(
                        f"stages[{place}] has gamma None, the mean absolute error; put such stages before all others"
                    )
            elif not 0 < gamma <= largest or gamma == math.inf:
                raise ValueError(
                    f"stages[{place}] has gamma {gamma}; it must be above 0 and at most that of the stage before, "
                    f"{largest:g}"
                )
            else:
                largest = gamma
        self.stages: list[tuple[int, float | None, float]] = [(steps, gamma, rate) for steps, gamma, rate in stages]
        self._ends = list(itertools.accumulate(steps for steps, *_ in stages))
        self._current: int | None = None

    def stage(self, step: int) -> int:
        """Return the number of the stage to which a step of the optimiser belongs.

        Args:
            step: number of steps that were done before it.
        """
        return sum(step >= end for end in self._ends[:-1])

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Refuse tasks without the loss."""
        if stage != "fit":
            return
        loss = getattr(pl_module, "loss", None)  # of any task that a user gives
        if not isinstance(pl_module, Task) or not isinstance(loss, ProximalMatchingLoss):
            raise TypeError(
                f"{type(pl_module).__name__} has the loss {type(loss).__name__}; give a task of graphseq such as "
                "Regression with loss=graphseq.nn.ProximalMatchingLoss()"
            )
        if pl_module.scheduler is not None:
            raise TypeError("the task has a scheduler, and stages have learning rates of their own; leave one out")

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Warn of stages that the training does not reach."""
        self._current = None
        begin = self._ends[-2] if len(self._ends) > 1 else 0
        if trainer.estimated_stepping_batches <= begin:
            warnings.warn(
                f"the run has {trainer.estimated_stepping_batches:g} steps and the last stage begins at {begin}: the "
                "training ends before it",
                UserWarning,
                stacklevel=2,
            )

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Set width and learning rate where a stage begins, or a run resumes."""
        stage = self.stage(trainer.global_step)
        if stage == self._current:
            return
        self._current = stage
        _, gamma, rate = self.stages[stage]
        pl_module.loss.training_gamma = gamma
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        for logger in trainer.loggers:
            logger.log_metrics(
                {"proximal_gamma": gamma or 0.0, "proximal_learning_rate": rate}, step=trainer.global_step
            )

    def teardown(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Give the loss its own width again."""
        loss = getattr(pl_module, "loss", None)
        if stage == "fit" and isinstance(loss, ProximalMatchingLoss):
            loss.training_gamma = loss.gamma
