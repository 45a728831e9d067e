"""Pruning of the matrices of recurrent networks, with the number of epochs until the accuracy is regained."""

import warnings
from typing import Any, get_args

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torchmetrics import MetricCollection

from graphseq.core.protocols import DataSource
from graphseq.nn.recurrent.masked import MaskedRNN, Matrices, Scope, Score
from graphseq.sparsity.schedules import gradual_sparsity
from graphseq.tasks.base import Task

__all__ = ["RecurrentPruning"]

_EVALUATED = 512  # samples of a batch of the evaluations before and after pruning


class RecurrentPruning(Callback):
    r"""Prune the smallest weights of a network's recurrent layers, and record what retraining regains.

    The weights of all :class:`graphseq.nn.MaskedRNN` layers are masked by :meth:`graphseq.nn.MaskedRNN.prune_` before
    the first batch of an epoch: once (``num_steps=1``) or over several epochs, after the k-th of n of which the share

    .. math:: a_k = a\, (1 - (1 - k / n)^3)

    is masked. Biases, embeddings and read-outs are not pruned. Right before and after each pruning the metric is
    evaluated on the validation split, and again by the trainer's own validations afterwards.

    Recorded in attributes, which checkpoints hold, so that a resumed run is bit-identical to an uninterrupted one:
        ``prunings``: epoch, amount, and metric before and after each pruning; ``curve``: metric of each validation
        after the first pruning; ``epochs_to_regain``: number of epochs of retraining after the last pruning until the
        metric is within ``tolerance`` of its value before the first one: 0 if pruning itself does not cost more, None
        as long as it is not regained.

    Logs:
        ``pruning/amount``, ``pruning/before`` and ``pruning/after`` at the step of a pruning;
        ``pruning/epochs_to_regain``.

    Source: arXiv 2407.20601. Differs from it: none known for one pruning of a trained network, which the paper retrains
    for ten epochs with a new optimiser. For several prunings arXiv 1710.01878, eq. 1.

    Args:
        amount: share of the weights of the matrices that is masked in the end, in [0, 1]; 1 keeps only the largest
            weight.
        matrices: which matrices are pruned: ``input_hidden``, ``hidden_hidden`` or ``both``.
        scope: weights that are compared with each other: ``global``, of each ``layer``, or of each ``matrix``; see
            :meth:`graphseq.nn.MaskedRNN.prune_`.
        score: ``magnitude``, or ``random`` as a control.
        start_epoch: epoch, counted from 0, before whose first batch the first pruning happens.
        num_steps: number of prunings, one in each of as many consecutive epochs, at least 1.
        monitor: validation metric that is to be regained, ``val/<metric>``; larger is better.
        tolerance: decrease of the metric, in its own units, that still counts as regained, at least 0.
        reset_optimizer: whether the optimiser forgets its moments at each pruning; else only those of masked weights.

    Raises:
        ValueError: if an argument is outside its range; when training starts, if the task has no such metric.
        TypeError: when training starts, if the network has no ``MaskedRNN``, or the data module no store.

    Example:
        >>> RecurrentPruning(0.8, "hidden_hidden", num_steps=4).amounts()
        [0.4625, 0.7, 0.7875, 0.8]
    """

    def __init__(
        self,
        amount: float,
        matrices: Matrices = "both",
        scope: Scope = "global",
        *,
        score: Score = "magnitude",
        start_epoch: int = 0,
        num_steps: int = 1,
        monitor: str = "val/acc",
        tolerance: float = 0.0,
        reset_optimizer: bool = True,
    ) -> None:
        if not 0.0 <= amount <= 1.0:
            raise ValueError(f"amount is {amount}; give a share of the weights in [0, 1]")
        if matrices not in get_args(Matrices):
            raise ValueError(f"matrices is {matrices!r}; it must be one of {', '.join(get_args(Matrices))}")
        if scope not in get_args(Scope):
            raise ValueError(f"scope is {scope!r}; it must be one of {', '.join(get_args(Scope))}")
        if score not in get_args(Score):
            raise ValueError(f"score is {score!r}; it must be one of {', '.join(get_args(Score))}")
        if start_epoch < 0 or num_steps < 1:
            raise ValueError(
                f"start_epoch is {start_epoch} and num_steps {num_steps}; give whole numbers of at least 0 and 1"
            )
        if tolerance < 0:
            raise ValueError(f"tolerance is {tolerance}; it must be at least 0")
        if not monitor.startswith("val/"):
            raise ValueError(f"monitor is {monitor!r}; give a validation metric, such as 'val/acc'")
        self.amount, self.matrices, self.scope, self.score = amount, matrices, scope, score
        self.start_epoch, self.num_steps = start_epoch, num_steps
        self.monitor, self.tolerance, self.reset_optimizer = monitor, tolerance, reset_optimizer
        self.prunings: list[dict[str, float]] = []
        self.curve: list[float] = []
        self.epochs_to_regain: int | None = None

    def amounts(self) -> list[float]:
        """Return the share of the weights that is masked after each pruning."""
        steps = range(1, self.num_steps + 1)
        return [round(gradual_sparsity(step / self.num_steps, self.amount), 12) for step in steps]

    @property
    def state_key(self) -> str:
        """Key of the state in a checkpoint: one for each choice of matrices, so that two callbacks do not share it."""
        return f"RecurrentPruning[{self.matrices}]"

    def state_dict(self) -> dict[str, Any]:
        """Return what was pruned and measured so far."""
        return {
            "prunings": [dict(pruning) for pruning in self.prunings],
            "curve": list(self.curve),
            "epochs_to_regain": self.epochs_to_regain,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what was pruned and measured.

        Args:
            state_dict: state that :meth:`state_dict` returned.
        """
        self.prunings = [dict(pruning) for pruning in state_dict["prunings"]]
        self.curve = list(state_dict["curve"])
        self.epochs_to_regain = state_dict["epochs_to_regain"]

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Raise if there is no layer to prune, no data module, or no such metric."""
        if not _layers(pl_module):
            raise TypeError(f"{type(pl_module).__name__} has no graphseq.nn.MaskedRNN; build the network with one")
        if not isinstance(trainer.datamodule, DataSource):  # type: ignore[attr-defined]
            raise TypeError("trainer has no data module with a store; give fit() a data module of graphseq")
        metrics = pl_module.metrics("val") if isinstance(pl_module, Task) else None
        known = [] if metrics is None else [str(name) for name, _ in metrics.items()]
        if self.monitor not in known:
            raise ValueError(f"monitor is {self.monitor!r}; the task's metrics are {', '.join(known) or 'none'}")
        if trainer.max_epochs is not None and 0 <= trainer.max_epochs < self.start_epoch + self.num_steps:
            warnings.warn(
                f"start_epoch is {self.start_epoch} and num_steps {self.num_steps}, but max_epochs is "
                f"{trainer.max_epochs}: training ends before the last pruning",
                UserWarning,
                stacklevel=2,
            )

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Prune before the first batch of an epoch if a pruning is due."""
        # not at the start of the epoch: a run resumed from the last batch of the epoch before does not come there
        done = len(self.prunings)
        if batch_idx == 0 and done < self.num_steps and trainer.current_epoch >= self.start_epoch + done:
            self._prune(trainer, pl_module, self.amounts()[done])

    def _prune(self, trainer: Trainer, task: Task[Any], amount: float) -> None:
        before = self._evaluate(trainer, task)
        for layer in _layers(task):
            layer.prune_(amount, self.matrices, self.scope, self.score)
            for optimizer in trainer.optimizers:
                self._forget(optimizer, layer)
        after = self._evaluate(trainer, task)
        self.prunings.append({"epoch": trainer.current_epoch, "amount": amount, "before": before, "after": after})
        self.epochs_to_regain = 0 if len(self.prunings) == self.num_steps and self._is_regained(after) else None
        values = {"pruning/amount": amount, "pruning/before": before, "pruning/after": after}
        self._log(trainer, values if self.epochs_to_regain is None else {**values, "pruning/epochs_to_regain": 0.0})

    def _forget(self, optimizer: torch.optim.Optimizer, layer: MaskedRNN) -> None:
        if self.reset_optimizer:
            optimizer.state.clear()
            return
        for weight, mask in layer.masked_weights().values():
            for value in optimizer.state.get(weight, {}).values():
                if isinstance(value, Tensor) and value.shape == weight.shape:
                    value.masked_fill_(~mask, 0.0)

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Record the metric of a validation after pruning."""
        if trainer.sanity_checking or not self.prunings or trainer.state.fn != "fit":
            return
        self.curve.append(float(trainer.callback_metrics[self.monitor]))
        last = self.prunings[-1]["epoch"]
        if len(self.prunings) == self.num_steps and self.epochs_to_regain is None and self._is_regained(self.curve[-1]):
            self.epochs_to_regain = trainer.current_epoch - int(last) + 1
            self._log(trainer, {"pruning/epochs_to_regain": float(self.epochs_to_regain)})

    def _is_regained(self, value: float) -> bool:
        return value >= self.prunings[0]["before"] - self.tolerance

    def _log(self, trainer: Trainer, values: dict[str, float]) -> None:
        for logger in trainer.loggers:
            logger.log_metrics(values, step=trainer.global_step)

    @torch.no_grad()
    def _evaluate(self, trainer: Trainer, task: Task[Any]) -> float:
        """Metric on the whole validation split, without drawing random numbers."""
        data: DataSource = trainer.datamodule  # type: ignore[attr-defined]
        metrics = task.metrics("val")
        if not isinstance(metrics, MetricCollection):
            raise ValueError(
                f"{type(task).__name__} has no validation metrics; use a task with metrics, such as "
                "SequenceClassification"
            )
        fresh = metrics.clone()
        fresh.reset()
        modes = {module: module.training for module in task.modules()}
        task.eval()
        for batch in task.prediction_batches(data, "val", _EVALUATED):
            step = task.step(batch, "val")
            fresh.update(step.prediction, step.target, **step.metric_arguments)
        for module, mode in modes.items():
            module.training = mode
        return float(fresh.compute()[self.monitor])


def _layers(task: nn.Module) -> list[MaskedRNN]:
    return [module for module in task.modules() if isinstance(module, MaskedRNN)]
