"""Callbacks that average weights over steps: what of a task they may average, and what they must leave alone."""

from collections.abc import Iterator
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor
from torch.nn.modules.batchnorm import _NormBase

__all__: list[str] = []

_STATISTICS = ("running_mean", "running_var")


def averages_weights(trainer: Trainer | None) -> bool:
    """Return whether a callback of a trainer averages the buffers of a module beside its parameters.

    Args:
        trainer: the running trainer; None outside a run.

    Example:
        >>> averages_weights(None)
        False
    """
    callbacks = getattr(trainer, "callbacks", [])  # the trainer sets this attribute dynamically
    return any(isinstance(callback, WeightAveraging) for callback in callbacks)


def named_statistics(module: LightningModule, remove_duplicate: bool = True) -> Iterator[tuple[str, Tensor]]:
    """Yield the buffers that an average may hold, by name: the running statistics of normalisation layers.

    Of all other buffers an average means nothing: memories, times of events, queues, masks, counters.

    Args:
        module: any module.
        remove_duplicate: whether a layer that lies in several places is yielded once only.

    Example:
        >>> from torch import nn
        >>> from graphseq.tasks import Regression
        >>> [name for name, _ in named_statistics(Regression(nn.BatchNorm1d(2)))]
        ['model.running_mean', 'model.running_var']
    """
    for prefix, part in module.named_modules(remove_duplicate=remove_duplicate):
        if isinstance(part, _NormBase):
            for name, buffer in part.named_buffers(recurse=False):
                if name in _STATISTICS:
                    yield f"{prefix}.{name}", buffer


def keep_state(module: LightningModule, checkpoint: dict[str, Any]) -> None:
    """Put the state of the run into a checkpoint whose weights are averages.

    Lightning's callback saves the buffers of its copy of the task, which nobody has updated.

    Args:
        module: the task.
        checkpoint: the checkpoint, after the callback has written its averages.

    Example:
        >>> from torch import nn
        >>> from graphseq.tasks import Regression
        >>> keep_state(Regression(nn.Linear(2, 1)), {"state_dict": {}})
    """
    current = checkpoint.get("current_model_state")
    if current is None:
        return
    # what lies in several places has several names in a checkpoint
    averaged = {name for name, _ in named_statistics(module, remove_duplicate=False)}
    averaged |= {name for name, _ in module.named_parameters(remove_duplicate=False)}
    for name, value in current.items():
        if name not in averaged:
            checkpoint["state_dict"][name] = value
