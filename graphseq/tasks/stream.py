"""The base of procedures over event streams: whose state is kept, put back and saved, and when."""

import warnings
from typing import Any, Literal, cast

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

from graphseq.core.errors import CheckpointError, UnsupportedStrategyError
from graphseq.core.events import EventBatch
from graphseq.tasks.base import Task

__all__ = ["StreamTask"]

_METHODS = ("forward_with_update", "commit", "reset_state", "state_buffers", "load_state_buffers")


class StreamTask(Task):
    """Base of procedures whose network remembers the events it has seen.

    The network has ``forward_with_update(batch) -> (output, update)``, ``commit(update)``, ``reset_state()``,
    ``state_buffers()`` and ``load_state_buffers(buffers)``, as :class:`graphseq.models.MemoryNetwork` has.

    Procedure:
        1. The state is reset at the first batch of each training epoch.
        2. Each batch is predicted, then committed: inside the step, before the optimiser's.
        3. Validation continues from the state at hand, which training gets back afterwards; the sanity check leaves no
           trace. Validation on its own starts from the state that training ended with.
        4. Testing continues from the state after validation and puts it back when it is over, so that it can be
           repeated. Prediction does the same.

    A checkpoint written after validation holds both states: the network's buffers are those after validation, from
    which a test continues, and the state of training lies beside them, from which training resumes. So the best
    weights come with the state that they made.

    Several processes, accumulated gradients and shuffled events are refused: batches depend on each other.

    Args:
        model: the network.
        optimizer: see :class:`Task`.
        scheduler: see :class:`Task`.
        scheduler_interval: see :class:`Task`.
        stop_on_nonfinite: see :class:`Task`.

    Raises:
        TypeError: if the network lacks one of the methods.
        UnsupportedStrategyError: at the start of a run with several processes or accumulated gradients.

    Example:
        >>> StreamTask(nn.Linear(2, 1))
        Traceback (most recent call last):
        TypeError: Linear has no forward_with_update; give a network with memory, such as graphseq.models.TGN
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
        scheduler_interval: Literal["epoch", "step"] = "epoch",
        stop_on_nonfinite: bool = True,
    ) -> None:
        super().__init__(
            model,
            optimizer=optimizer,
            scheduler=scheduler,
            scheduler_interval=scheduler_interval,
            stop_on_nonfinite=stop_on_nonfinite,
        )
        missing = [name for name in _METHODS if not callable(getattr(model, name, None))]
        if missing:
            raise TypeError(
                f"{type(model).__name__} has no {', '.join(missing[:1])}; give a network with memory, such as "
                "graphseq.models.TGN"
            )
        self._after_training: dict[str, Tensor] | None = None
        self._set_aside: dict[str, Tensor] | None = None
        self._next_event = 0  # stream position up to which the state has seen all events

    @property
    def network(self) -> Any:
        """The network, with the methods of one that remembers."""
        return self.model

    # refusals

    def setup(self, stage: str) -> None:
        """Refuse what would tear the stream apart, and build the metrics."""
        trainer = self.trainer
        if trainer.world_size > 1:
            raise UnsupportedStrategyError(
                f"{type(self).__name__} runs on one process, {trainer.world_size} were given: each batch needs the "
                "memory that the batch before left. Train independent streams, or parts of the graph, in separate "
                "runs; memory is not shared between them"
            )
        if stage == "fit" and trainer.accumulate_grad_batches != 1:
            raise UnsupportedStrategyError(
                f"accumulate_grad_batches is {trainer.accumulate_grad_batches}; the optimiser has to step after every "
                "batch, because each commits the memory that the next one reads. Use a larger batch_size"
            )
        super().setup(stage)

    # whose state when

    def on_train_batch_start(self, batch: EventBatch, batch_idx: int) -> None:
        """Start an epoch from nothing, or go on from where validation interrupted it."""
        if batch_idx == 0:
            self.network.reset_state()
            self._next_event = 0
        elif self._after_training is not None:
            self.network.load_state_buffers(self._after_training)
        self._after_training = None

    def on_validation_start(self) -> None:
        """Set the state of training aside; validation on its own starts from it."""
        if self.trainer.state.fn == TrainerFn.FITTING:
            self._after_training = self.network.state_buffers()
        elif self._after_training is not None:
            self.network.load_state_buffers(self._after_training)

    def on_validation_end(self) -> None:
        """Undo the sanity check."""
        if self.trainer.sanity_checking:
            self.network.load_state_buffers(self._after_training)
            self._after_training = None

    def on_test_start(self) -> None:
        """Note the state that the test starts from."""
        self._set_aside = self.network.state_buffers()

    def on_test_end(self) -> None:
        """Put the state back that the test started from."""
        self._put_back()

    def on_predict_start(self) -> None:
        """Note the state that the prediction starts from."""
        self._set_aside = self.network.state_buffers()

    def on_predict_end(self) -> None:
        """Put the state back that the prediction started from."""
        self._put_back()

    def _put_back(self) -> None:
        if self._set_aside is not None:
            self.network.load_state_buffers(self._set_aside)
            self._set_aside = None

    def on_test_batch_start(self, batch: EventBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Warn if the state does not reach up to the first event of the test."""
        if batch_idx == 0 and batch.start > self._next_event:
            warnings.warn(
                f"the test begins at event {batch.start}, and the network has seen the events before "
                f"{self._next_event} only; run validation first, or task.observe(batches) over what is missing",
                stacklevel=2,
            )

    def on_train_batch_end(self, outputs: Any, batch: EventBatch, batch_idx: int) -> None:
        """Note how far the stream has been seen."""
        self._note(batch)

    def on_validation_batch_end(self, outputs: Any, batch: EventBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Note how far the stream has been seen."""
        if not self.trainer.sanity_checking:
            self._note(batch)

    def _note(self, batch: EventBatch) -> None:
        # events left out of training leave gaps; the start is on the host, the last position may not be
        self._next_event = max(self._next_event, batch.start + len(batch))

    @torch.no_grad()
    def observe(self, batches: Any) -> None:
        """Let the network see events without training: the state goes on, weights stay.

        Args:
            batches: iterable of event batches in the order of the stream, such as ``data.batches("train")``.
        """
        training = self.model.training
        self.model.eval()
        for batch in batches:
            _, update = self.network.forward_with_update(batch)
            self.network.commit(update)
            self._note(batch)
        self.model.train(training)

    def predict_step(self, batch: EventBatch, batch_idx: int) -> Any:
        """Return the network's output for a batch, and commit its events."""
        output, update = self.network.forward_with_update(batch)
        self.network.commit(update)
        return output

    # checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the state of training where validation is the one in the buffers."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["graphseq"]["stream"] = {"after_training": self._after_training, "next_event": self._next_event}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the state of training from the checkpoint.

        Raises:
            CheckpointError: if it was not written by a procedure over a stream.
        """
        super().on_load_checkpoint(checkpoint)
        stream = checkpoint.get("graphseq", {}).get("stream")
        if stream is None:
            raise CheckpointError("the checkpoint holds no state of an event stream; it is of another task")
        after = cast("dict[str, Tensor] | None", stream["after_training"])
        self._after_training = None if after is None else {name: value.to(self.device) for name, value in after.items()}
        self._next_event = stream["next_event"]
