"""Support for weight-averaging callbacks: which tensors of a task they average, and which they leave unchanged."""

from collections.abc import Iterator

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging
from torch import Tensor
from torch.nn.modules.batchnorm import _NormBase

from graphseq.core.checkpoint import Checkpoint
from graphseq.core.errors import UnsupportedStrategyError
from graphseq.nn.complex.norm import ComplexBatchNorm

__all__: list[str] = []

_STATISTICS = ("running_mean", "running_var", "running_covariance")


def _callbacks(trainer: Trainer | None) -> list[Callback]:
    return getattr(trainer, "callbacks", [])  # the trainer sets this attribute dynamically


def averages_weights(trainer: Trainer | None) -> bool:
    """Return whether a callback of a trainer averages the buffers of a module beside its parameters.

    Args:
        trainer: the running trainer; None outside a run.

    Example:
        >>> averages_weights(None)
        False
    """
    return any(isinstance(callback, WeightAveraging) for callback in _callbacks(trainer))


def refreshes_statistics(trainer: Trainer) -> bool:
    """Return whether the epoch is the one that ``StochasticWeightAveraging`` adds at the end for networks with norms.

    In it no optimiser steps; the batches are passed once through the averaged weights, whose running statistics the
    norms take from them. Lightning sets ``accumulate_grad_batches`` meanwhile.

    Args:
        trainer: the running trainer.

    Example:
        >>> refreshes_statistics(Trainer(logger=False, accelerator="cpu"))
        False
    """
    averaging = (one for one in _callbacks(trainer) if isinstance(one, StochasticWeightAveraging))
    return any(trainer.current_epoch == one.swa_end + 1 for one in averaging)


def named_statistics(module: LightningModule, remove_duplicate: bool = True) -> Iterator[tuple[str, Tensor]]:
    """Yield the buffers that an average may hold, by name: the running statistics of normalisation layers.

    Averages of all other buffers are meaningless: memories, times of events, queues, masks, counters.

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
        if isinstance(part, _NormBase | ComplexBatchNorm):
            for name, buffer in part.named_buffers(recurse=False):
                if name in _STATISTICS:
                    yield f"{prefix}.{name}", buffer


def keep_state(module: LightningModule, checkpoint: Checkpoint) -> None:
    """Put the state of the run into a checkpoint whose weights are averages.

    Lightning's callback saves the buffers of its own copy of the task, which are never updated.

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


class AveragesParameters(LightningModule):
    """Module that shows weight-averaging callbacks its parameters and running statistics, but no other buffers.

    Example:
        >>> AveragesParameters().configure_callbacks()
        []
    """

    _is_averaged = False

    def configure_callbacks(self) -> list[Callback]:
        """Return no callback; record whether a callback of the trainer averages weights."""
        self._is_averaged = averages_weights(self._trainer)
        return []

    def setup(self, stage: str) -> None:
        """Refuse a subclass that hides the callback that averages weights."""
        super().setup(stage)
        if averages_weights(self._trainer) and not self._is_averaged:
            raise UnsupportedStrategyError(
                f"{type(self).__name__}.configure_callbacks does not call super().configure_callbacks(); without it "
                "the callback that averages weights would average memories, masks and counters too"
            )

    def teardown(self, stage: str) -> None:
        """Make :meth:`buffers` yield all buffers again."""
        self._is_averaged = False

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """Yield all buffers; during a run with a weight-averaging callback, only those that may be averaged.

        Such a callback averages, swaps and copies all tensors of ``parameters()`` and ``buffers()``.

        Args:
            recurse: whether to include buffers of submodules.
        """
        if self._is_averaged:
            return (buffer for _, buffer in named_statistics(self))
        return super().buffers(recurse)
