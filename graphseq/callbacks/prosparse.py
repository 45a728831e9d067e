"""ProSparse: gates of a network are made sparse by ReLU, by a penalty that grows in stages, and by a threshold."""

import warnings
from typing import Any, Literal

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from graphseq.core import SequenceBatch, TokenBatch
from graphseq.metrics import ActivationSparsity
from graphseq.nn import GatedFeedForward, rectify_gates, shift_gates
from graphseq.nn.blocks.rectified import rectifiable_gates
from graphseq.sparsity.schedules import check_stages, progressive_weight
from graphseq.tasks.base import Task

__all__ = ["ProSparse"]

_NAME = "prosparse"


class ProSparse(Callback):
    r"""Make the gates of a network sparse during training, in three steps.

    For each gated feed-forward part :math:`y = (s \odot x V) W_2`, :math:`s = \phi(x W)`:

    1. *Substitution*: at step ``start`` SiLU and GELU of all gates become ReLU.
    2. *Progressive penalty*: :math:`\lambda(t)`, of :func:`graphseq.sparsity.progressive_weight`, times the L1 norm of
       the intermediate outputs :math:`s \odot x V`, averaged over tokens and then over layers, is added to the loss.
    3. *Threshold*: after the last step ReLU becomes :class:`graphseq.nn.FATReLU`, before the last validation. A
    training that stops earlier keeps ReLU. A run that resumes from its checkpoint trains with ReLU and applies the
    threshold at its own end, so that an interrupted and resumed run equals an uninterrupted one.

    Padding, where the batch has lengths, counts neither in the penalty nor in the sparsity. Training does not become
    faster: zeros of the gates save time only in decoding, see :func:`graphseq.nn.sparse_decoding`. Checkpoints hold
    which of the three steps was reached, and networks loaded from them have its activations.

    Logs:
        ``train/penalty/prosparse``, the penalty with its weight; ``train/prosparse_weight``, the weight;
        ``train/prosparse_l1`` and ``train/prosparse_l1_sum``, the norm with and without division by the number of
        units. ``<stage>/gate_sparsity``, the share of zeros in the gates over tokens and then over layers, in
        validation and test; to loggers also ``gate_sparsity/<layer>``, which is in ``values``, too.

    Source: arXiv 2402.13516, section 3.2. Differs from the paper: the scale of its penalty is not known, here the norm
    is a mean over units by default; the formula of the ramps is taken from memory.

    Args:
        stages: weight at the end of each stage and the step of the optimiser, counted from the beginning of the run, at
            which the stage ends. In the paper the first stage has no penalty, so that its weight is 0.
        start: number of optimiser steps before the substitution, at least 0; 0 for a pre-trained network.
        threshold: entries of the gates below it are 0 after training, at least 0; its scale is that of the activations,
            see :func:`graphseq.nn.calibrate_threshold`. None for no threshold.
        norm: L1 norm as the ``mean`` over the units of a layer, so that weights do not depend on its width, or their
            ``sum``.

    Raises:
        ValueError: if an argument is outside its range.
        TypeError: when a run starts, if the task is not a :class:`graphseq.tasks.Task`, its network has no gated
            feed-forward part, or a gate is neither rectified nor SiLU nor GELU.

    Example:
        >>> ProSparse([(0.0, 500), (0.005, 600), (0.05, 1000), (0.05, 1200)], threshold=0.01).phase
        'smooth'
    """

    def __init__(
        self,
        stages: list[tuple[float, int]],
        start: int = 0,
        threshold: float | None = None,
        norm: Literal["mean", "sum"] = "mean",
    ) -> None:
        self.stages = check_stages(stages)
        if start < 0:
            raise ValueError(f"start is {start}; it must be at least 0")
        if threshold is not None and not 0.0 <= threshold < float("inf"):
            raise ValueError(f"threshold is {threshold}; it must be a finite number of at least 0")
        if norm not in ("mean", "sum"):
            raise ValueError(f"norm is {norm!r}; it must be 'mean' or 'sum'")
        self.start, self.threshold, self.norm = start, threshold, norm
        self.phase: Literal["smooth", "rectified", "shifted"] = "smooth"
        self.values: dict[str, float] = {}
        self._shift = 0.0  # threshold of the phase "shifted"
        self._weight = 0.0  # of the penalty in this step
        self._norms: list[tuple[Tensor, int]] | None = None  # None where no penalty is read
        self._inside: Tensor | None = None
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._watched: list[torch.utils.hooks.RemovableHandle] = []
        self._metrics: dict[str, ActivationSparsity] = {}

    # state

    def state_dict(self) -> dict[str, Any]:
        """Return the step of the method that was reached, and the threshold that gates have now."""
        return {"phase": self.phase, "shift": self._shift}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state; activations follow when the run starts.

        Args:
            state_dict: state that :meth:`state_dict` returned.
        """
        self.phase, self._shift = state_dict["phase"], float(state_dict["shift"])

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Refuse networks without gates, and register the penalty."""
        if not isinstance(pl_module, Task):
            raise TypeError(f"the task is a {type(pl_module).__name__}; ProSparse needs a task of graphseq")
        rectifiable_gates(pl_module.model)
        if stage == "fit":
            pl_module.penalties[_NAME] = self.penalty

    def teardown(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Remove the penalty and the hooks."""
        if isinstance(pl_module, Task):
            pl_module.penalties.pop(_NAME, None)
        _remove(self._handles)
        _remove(self._watched)
        self._norms = None

    def _apply(self, task: Task[Any]) -> None:
        """Give the gates the activations of the phase."""
        if self.phase != "smooth":
            rectify_gates(task.model)
        if self.phase == "shifted":
            shift_gates(task.model, self._shift)

    # training

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Set the gates back to ReLU if a threshold was applied, and register hooks on the intermediate outputs."""
        if self.phase == "shifted":
            rectify_gates(pl_module.model)
            shift_gates(pl_module.model, 0.0)
            self.phase, self._shift = "rectified", 0.0
        self._apply(pl_module)
        if trainer.estimated_stepping_batches < self.stages[-1][1]:
            warnings.warn(
                f"the run has {trainer.estimated_stepping_batches:g} steps and the last stage ends at "
                f"{self.stages[-1][1]}: the penalty does not reach its last weight",
                UserWarning,
                stacklevel=2,
            )
        _remove(self._handles)
        outputs = {id(layer.output): layer.output for layer in _gates(pl_module.model).values()}
        self._handles = [output.register_forward_pre_hook(self._collect) for output in outputs.values()]

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Replace the activations if it is time, and look up the weight of the penalty."""
        step = trainer.global_step
        if self.phase == "smooth" and step >= self.start:
            self.phase = "rectified"
            self._apply(pl_module)
        self._weight = progressive_weight(step, self.stages)
        self._norms, self._inside = [], _inside(batch)

    def _collect(self, output: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if self._norms is None:
            return  # a validation
        (hidden,) = inputs
        with torch.set_grad_enabled(self._weight > 0 and torch.is_grad_enabled()):
            exact = torch.promote_types(hidden.dtype, torch.float32)  # a sum over units overflows in half precision
            norm = hidden.abs().sum(-1, dtype=exact)  # (*)
            inside = _fitting(self._inside, hidden)
            mean = norm.mean() if inside is None else (norm * inside).sum() / inside.sum().clamp(min=1)
        self._norms.append((mean, hidden.shape[-1]))

    def penalty(self, task: Task[Any]) -> Tensor:
        """Return the weighted norm of the intermediate outputs of the step, and forget them.

        Args:
            task: the task, after the step of a training batch.
        """
        found, self._norms = self._norms, []
        if not found:
            raise RuntimeError(
                f"no gated feed-forward part of {type(task.model).__name__} ran in this step; ProSparse reads their "
                "intermediate outputs"
            )
        total = torch.stack([norm for norm, _ in found]).mean()
        mean = torch.stack([norm / units for norm, units in found]).mean()
        logged: dict[str, Tensor | float] = {"l1": mean.detach(), "l1_sum": total.detach(), "weight": self._weight}
        named = {f"train/prosparse_{name}": value for name, value in logged.items()}
        task.log_dict(named, batch_size=1, on_step=False, on_epoch=True)
        return self._weight * (mean if self.norm == "mean" else total)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *rest: Any) -> None:
        """Shift the threshold after the last step."""
        self._norms = None
        if self.threshold is None or self.phase != "rectified":
            return
        last_epoch = trainer.max_epochs is not None and trainer.current_epoch + 1 == trainer.max_epochs
        if (trainer.is_last_batch and last_epoch) or trainer.global_step == trainer.max_steps:
            self.phase, self._shift = "shifted", self.threshold
            self._apply(pl_module)

    # evaluation

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Register hooks on the gates."""
        self._watch(pl_module)

    def on_test_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Register hooks on the gates."""
        self._watch(pl_module)

    def on_predict_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Give the gates the activations of the checkpoint."""
        self._apply(pl_module)

    def on_validation_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, *rest: Any) -> None:
        """Note which steps are padding."""
        self._inside = _inside(batch)

    def on_test_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, *rest: Any) -> None:
        """Note which steps are padding."""
        self._inside = _inside(batch)

    def _watch(self, task: Task[Any]) -> None:
        self._apply(task)
        _remove(self._watched)
        self._metrics = {}
        for name, layer in {id(gate.activation): (name, gate) for name, gate in _gates(task.model).items()}.values():
            metric = self._metrics[name] = ActivationSparsity().to(task.device)

            def count(_: nn.Module, inputs: Any, gate: Tensor, metric: ActivationSparsity = metric) -> None:
                metric.update(gate, _fitting(self._inside, gate))

            self._watched.append(layer.activation.register_forward_hook(count))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Log the sparsity."""
        self._log(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Log the sparsity."""
        self._log(trainer, pl_module, "test")

    def _log(self, trainer: Trainer, task: Task[Any], stage: str) -> None:
        _remove(self._watched)
        found = {name: metric.compute() for name, metric in self._metrics.items()}
        # summed over processes by the metrics
        task.log(f"{stage}/gate_sparsity", torch.stack(list(found.values())).mean(), on_step=False, on_epoch=True)
        self.values = {f"gate_sparsity/{name}": float(value) for name, value in found.items()}
        for logger in trainer.loggers if not trainer.sanity_checking else ():
            logger.log_metrics(self.values, step=trainer.global_step)


def _gates(network: nn.Module) -> dict[str, GatedFeedForward]:
    return {name: layer for name, layer in network.named_modules() if isinstance(layer, GatedFeedForward)}


def _remove(handles: list[torch.utils.hooks.RemovableHandle]) -> None:
    for handle in handles:
        handle.remove()
    handles.clear()


def _inside(batch: Any) -> Tensor | None:
    """Return which steps of a batch are no padding, bool (B, T); None where there are no lengths."""
    return batch.mask if isinstance(batch, TokenBatch | SequenceBatch) else None


def _fitting(inside: Tensor | None, hidden: Tensor) -> Tensor | None:
    """Return the mask of the tokens of ``hidden``; networks that predict the next token do not read the last one."""
    for mask in () if inside is None else (inside, inside[:, 1:]):
        if mask.shape == hidden.shape[:-1]:
            return mask
    return None
