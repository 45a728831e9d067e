"""Rates of dead neurons of every ReLU, logged with each evaluation."""

from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from graphseq.core.random import seeded
from graphseq.metrics.neurons import DeadNeuronRate
from graphseq.sparsity.rectified import trace_relus
from graphseq.tasks.base import Task

__all__ = ["DeadNeuronMonitor"]


class DeadNeuronMonitor(Callback):
    r"""Log the shares of units behind ReLUs that are dead in validation and test, by cause.

    A unit is dead on a sample if its output is 0: *dynamically* where it has weights, *statically* where all weights
    from its inputs are pruned; see :func:`graphseq.metrics.dead_neuron_rate`. Units of a convolutional layer are the
    positions of its channels; tokens of a sequence count as samples.

    It reads activations during evaluation only, so that it does not change the training.

    Logs:
        ``<stage>/dead_dynamic``, ``<stage>/dead_static`` and ``<stage>/dead_always`` over the units of all ReLUs. To
        loggers also ``dead/<ReLU>/dynamic`` and so on for each, by the name of the module; for a ReLU that is called
        several times, by name and number of the call. The most recent values are also in ``values``.

    Source: the abstract of arXiv 2212.06145, which calls the share of dynamically dead units the dynamic dead neuron
    rate.

    Raises:
        TypeError: when an evaluation starts, if the task is not a :class:`graphseq.tasks.Task`.
        ValueError: when an evaluation starts, if the network has no ``nn.ReLU``.

    Example:
        >>> DeadNeuronMonitor().values
        {}
    """

    def __init__(self) -> None:
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._outputs: list[Tensor] = []
        self._sources: list[tuple[str, nn.Module | None]] = []
        self._metrics: dict[str, DeadNeuronRate] = {}
        self.values: dict[str, float] = {}

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Register the hooks."""
        self._start(pl_module)

    def on_test_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Register the hooks."""
        self._start(pl_module)

    def _start(self, task: Any) -> None:
        if not isinstance(task, Task):
            raise TypeError(f"the task is a {type(task).__name__}; DeadNeuronMonitor needs a task of graphseq")
        relus = [module for module in task.model.modules() if isinstance(module, nn.ReLU)]
        if not relus:
            raise ValueError(
                f"{type(task.model).__name__} has no torch.nn.ReLU, whose outputs are counted; units of other "
                "activations are not dead. Write functional ReLUs as modules"
            )
        self._remove()
        self._handles = [relu.register_forward_hook(self._collect) for relu in relus]

    def _collect(self, relu: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self._outputs.append(output.detach() != 0)  # at once: what follows may write into the output

    def on_validation_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, *rest: Any) -> None:
        """Find the layers that the ReLUs follow, with the first batch."""
        self._trace(trainer, pl_module, batch)

    def on_test_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, *rest: Any) -> None:
        """Find the layers that the ReLUs follow, with the first batch."""
        self._trace(trainer, pl_module, batch)

    def _trace(self, trainer: Trainer, task: Task[Any], batch: Any) -> None:
        if not self._sources:
            with seeded(0), trainer.precision_plugin.forward_context():
                found = trace_relus(task.model, lambda: task(batch))
            layers, calls = dict(task.model.named_modules()), [name for name, _ in found.sources]
            for number, (name, layer) in enumerate(found.sources):
                key = f"{name}.{calls[:number].count(name)}" if calls.count(name) > 1 else name
                self._sources.append((key, None if layer is None else layers[layer]))
            self._metrics = {name: DeadNeuronRate().to(task.device) for name, _ in self._sources}
        self._outputs.clear()

    def on_validation_batch_end(self, trainer: Trainer, pl_module: Any, *rest: Any) -> None:
        """Count the batch."""
        self._count()

    def on_test_batch_end(self, trainer: Trainer, pl_module: Any, *rest: Any) -> None:
        """Count the batch."""
        self._count()

    def _count(self) -> None:
        # a task that runs its network several times a batch counts all runs
        for number, output in enumerate(self._outputs):
            name, layer = self._sources[number % len(self._sources)]
            self._metrics[name].update(*_units(output, layer))
        self._outputs.clear()

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Log the rates, and remove the hooks."""
        self._log(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Log the rates, and remove the hooks."""
        self._log(trainer, pl_module, "test")

    def _log(self, trainer: Trainer, task: Task[Any], stage: str) -> None:
        if not self._metrics:
            return  # no batch
        rates = {name: metric.compute() for name, metric in self._metrics.items()}
        units = torch.tensor([metric.num_units for metric in self._metrics.values()], device=task.device)
        totals = {}
        for kind in ("dynamic", "static", "always"):
            each = torch.stack([found[kind] for found in rates.values()])  # (ReLUs,)
            totals[f"{stage}/dead_{kind}"] = (each * units).sum() / units.sum()
        # summed over processes by the metrics
        task.log_dict(totals, on_step=False, on_epoch=True)
        self.values = {f"dead/{name}/{kind}": float(rate) for name in rates for kind, rate in rates[name].items()}
        for logger in trainer.loggers if not trainer.sanity_checking else ():
            logger.log_metrics(self.values, step=trainer.global_step)
        self._remove()

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        """Remove the hooks."""
        self._remove()

    def _remove(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles, self._outputs, self._sources, self._metrics = [], [], [], {}


def _units(output: Tensor, layer: nn.Module | None) -> tuple[Tensor, Tensor | None]:
    """Return activations with one axis of samples, and whether each unit has a weight."""
    if layer is None:
        return output, None
    linear = isinstance(layer, nn.Linear)
    if linear and output.dim() > 2:
        output = output.flatten(0, -2)  # (B, T, D): tokens count as samples
    weight: Any = layer.weight
    mask: Any = getattr(layer, "mask", None)
    connected = (weight != 0 if mask is None else mask).flatten(1).any(1)  # (units,)
    if not linear:
        connected = connected.view(-1, *[1] * (output.dim() - 2))  # (C, 1, 1)
    return output, connected if output.size(1) == len(connected) else None
