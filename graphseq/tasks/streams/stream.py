"""Base class of procedures on event streams: when the network's state is reset, restored and saved."""

import contextlib
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Unpack, cast

import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SubsetRandomSampler, WeightedRandomSampler
from torchmetrics import MetricCollection

from graphseq.core.checkpoint import Checkpoint
from graphseq.core.errors import CheckpointError, DataError, UnsupportedStrategyError
from graphseq.core.events import EventBatch
from graphseq.core.protocols import (
    DataSource,
    EventSource,
    PredictsSplit,
    ShufflingLoader,
    StreamNetwork,
    missing_members,
)
from graphseq.core.wrappers import unwrapped
from graphseq.nn.temporal.pres import moments_tracked
from graphseq.tasks.averaging import refreshes_statistics
from graphseq.tasks.base import Step, Task, TaskOptions
from graphseq.tasks.compatibility import noted
from graphseq.tasks.predictions import Column, PredictionRows
from graphseq.tasks.streams.columns import event_columns

__all__ = ["StreamTask"]


@dataclass
class _State:
    """State of a network, and the stream position up to which it includes all events."""

    buffers: dict[str, Tensor]
    next_event: int


class StreamTask(Task[EventBatch]):
    """Base class of procedures whose network has a state that depends on earlier events.

    The network has ``forward_with_update(batch) -> (output, update)``, ``commit(update)``, ``reset_state()``,
    ``state_buffers()`` and ``load_state_buffers(buffers)``, as :class:`graphseq.models.MemoryNetwork` has.

    Procedure:
        1. The state is reset at the first batch of each training epoch.
        2. Each batch is predicted, then committed to the state, before the optimiser steps.
        3. Validation continues from the current state, which is restored for training afterwards; the sanity check
           changes nothing. Validation on its own starts from the state after training or ``observe``.
        4. Testing continues from the state after validation and restores it at the end, so that it can be
           repeated. Prediction does the same.

    A checkpoint written after validation holds both states: the network's buffers are those after validation, from
    which a test continues, and the state of training is stored separately, from which training resumes. So the best
    weights come with the state that they produced.

    ``StochasticWeightAveraging`` of a network with running statistics adds one epoch, which replays the stream through
    the averaged weights without steps of the optimiser; statistics and state are those of this replay.

    Several processes, accumulated gradients and loaders that shuffle are refused: batches depend on each other. So are
    batches out of order, and an evaluation that begins before the events the network has seen.

    Args:
        model: network with a memory of events, see :class:`graphseq.core.StreamNetwork`.
        options: arguments of :class:`Task`.

    Raises:
        TypeError: if the network lacks one of the methods.
        UnsupportedStrategyError: at the start of a run with several processes, accumulated gradients or a loader that
            shuffles.

    Example:
        >>> StreamTask(nn.Linear(2, 1))
        Traceback (most recent call last):
        TypeError: Linear has no commit, forward_with_update, load_state_buffers, reset_state, state_buffers; give ...
    """

    def __init__(self, model: nn.Module, **options: Unpack[TaskOptions]) -> None:
        super().__init__(model, **options)
        missing = missing_members(unwrapped(model), StreamNetwork)
        if missing:
            raise TypeError(
                f"{type(unwrapped(model)).__name__} has no {', '.join(missing)}; give a network with memory, such as "
                "graphseq.models.TGN"
            )
        self._after_training: _State | None = None
        self._set_aside: _State | None = None
        self._next_event = 0
        self._last_start: dict[str, int] = {}
        self._anchor: Tensor | None = None

    @property
    def network(self) -> StreamNetwork:
        """The network without wrappers, typed as a stream network."""
        return cast(StreamNetwork, unwrapped(self.model))  # the constructor has checked it

    # networks without parameters

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimiser; a network without parameters, such as EdgeBank, gets one that changes nothing."""
        if any(True for _ in self.model.parameters()):
            return super().configure_optimizers()
        # of a step of this optimiser Lightning learns that the epoch has gone on, and writes checkpoints
        self._anchor = torch.zeros((), device=self.device, requires_grad=True)
        return torch.optim.SGD([self._anchor], lr=0.0)

    def total_loss(self, step: Step, batch_idx: int) -> Tensor:
        """Log and check the loss, and return it for the optimiser.

        Args:
            step: result of :meth:`step` for a training batch.
            batch_idx: number of the batch in its epoch.
        """
        loss = super().total_loss(step, batch_idx)
        return loss if self._anchor is None else loss + 0 * self._anchor

    # refusals

    def setup(self, stage: str) -> None:
        """Refuse several processes and accumulated gradients, and build the metrics."""
        trainer = self.trainer
        if trainer.world_size > 1:
            raise UnsupportedStrategyError(
                f"{type(self).__name__} runs on one process, {trainer.world_size} were given: each batch needs the "
                "memory that the batch before left. Train independent streams, or parts of the graph, in separate "
                "runs; memory is not shared between them"
            )
        if stage == "fit":
            self._refuse_accumulation()
        super().setup(stage)
        # an interrupted test or validation could not restore the state
        self._put_back()
        for metrics in self._metrics.values():
            if isinstance(metrics, MetricCollection):
                metrics.reset()

    def _refuse_accumulation(self) -> None:
        if self.trainer.accumulate_grad_batches != 1:
            raise UnsupportedStrategyError(
                f"accumulate_grad_batches is {self.trainer.accumulate_grad_batches}; the optimiser has to step after "
                "every batch, because each commits the memory that the next one reads. Use a larger batch_size"
            )

    def _refuse_shuffling(self, loader: object) -> None:
        given = loader[0] if isinstance(loader, list | tuple) else loader  # Lightning refuses several
        if isinstance(given, Mapping):
            raise UnsupportedStrategyError(
                f"{len(given)} loaders by name were given; a network remembers one stream at a time. Give one loader"
            )
        shuffles = isinstance(given, ShufflingLoader) and given.shuffle
        if isinstance(given, DataLoader):
            inner = given.batch_sampler.sampler if isinstance(given.batch_sampler, BatchSampler) else None
            random = (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)
            shuffles = isinstance(given.sampler, random) or isinstance(inner, random)
        if shuffles:
            raise UnsupportedStrategyError(
                f"the {type(given).__name__} shuffles; the events of a stream are read in their order. "
                "Use shuffle=False, or graphseq.data.TemporalDataModule"
            )

    def _refuse_disorder(self, stage: str, batch: EventBatch, batch_idx: int) -> None:
        """Refuse a batch that begins before the previous one; only positions on the host are compared."""
        last = -1 if batch_idx == 0 else self._last_start.get(stage, -1)
        if batch.start <= last and not batch.reordered:
            raise DataError(
                f"the batch that begins at event {batch.start} comes after the one that begins at event {last}; the "
                "events of a stream are read in their order. Use graphseq.data.TemporalDataModule, or a loader that "
                "does not shuffle"
            )
        self._last_start[stage] = batch.start

    def _refuse_past(self, what: str, batch: EventBatch) -> None:
        if batch.start < self._next_event:
            raise DataError(
                f"{what} begins at event {batch.start}, and the network has seen the events before "
                f"{self._next_event}; give later events, or call reset_state() to begin again"
            )

    def on_train_start(self) -> None:
        """Refuse loaders that shuffle, and restore the generators."""
        self._refuse_shuffling(self.trainer.train_dataloader)
        super().on_train_start()

    def on_train_epoch_start(self) -> None:
        """Refuse accumulated gradients that are scheduled for a later epoch."""
        if not refreshes_statistics(self.trainer):  # which replays the stream without steps of the optimiser
            self._refuse_accumulation()

    # states of training, validation and test

    def _state(self) -> _State:
        return _State(self.network.state_buffers(), self._next_event)

    def _go_to(self, state: _State) -> None:
        self.network.load_state_buffers(state.buffers)
        self._next_event = state.next_event

    def on_train_batch_start(self, batch: EventBatch, batch_idx: int) -> None:
        """Reset the state at the start of an epoch, or restore it after a validation within the epoch."""
        self._refuse_disorder("train", batch, batch_idx)
        if batch_idx == 0:
            self.reset_state()
        elif self._after_training is not None:
            self._go_to(self._after_training)
        self._after_training = None

    def on_validation_start(self) -> None:
        """Store the state of training; if it is stored already, start from it."""
        self._refuse_shuffling(self.trainer.val_dataloaders)
        if self._after_training is None:
            self._after_training = self._state()
        else:  # validation on its own, again, or once more after it broke off
            self._go_to(self._after_training)

    def on_validation_end(self) -> None:
        """Restore the state from before the sanity check."""
        if self.trainer.sanity_checking and self._after_training is not None:
            self._go_to(self._after_training)
            self._after_training = None

    def on_test_start(self) -> None:
        """Store the state that the test starts from."""
        self._refuse_shuffling(self.trainer.test_dataloaders)
        self._set_aside = self._state()

    def on_test_end(self) -> None:
        """Restore the state that the test started from."""
        self._put_back()

    def on_predict_start(self) -> None:
        """Store the state that the prediction starts from; data that are read to be predicted are seen from the start.

        The network then sees all events before those to predict, as in :meth:`predictions`.
        """
        self._refuse_shuffling(self.trainer.predict_dataloaders)
        self._set_aside = self._state()
        data = self.datamodule
        if isinstance(data, EventSource) and isinstance(data, PredictsSplit) and data.predicting:
            self._go_to_split(data, data.prediction_split)

    def on_predict_end(self) -> None:
        """Restore the state that the prediction started from."""
        self._put_back()

    def _put_back(self) -> None:
        if self._set_aside is not None:
            self._go_to(self._set_aside)
            self._set_aside = None

    def on_validation_batch_start(self, batch: EventBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Refuse events that are past or out of order; warn if validation on its own starts from an empty state."""
        self._refuse_disorder("validate", batch, batch_idx)
        if batch_idx == 0 and not self.trainer.sanity_checking:
            self._refuse_past("validation", batch)
            if self.trainer.state.fn == TrainerFn.VALIDATING and self._next_event == 0:
                self._warn_of_gap("validation", batch)

    def on_test_batch_start(self, batch: EventBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Refuse events that are past or out of order; warn if the state does not reach up to the first one."""
        self._begin_or_go_on("the test", batch, batch_idx)

    def on_predict_batch_start(self, batch: EventBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Refuse events that are past or out of order; warn if the state does not reach up to the first one."""
        self._begin_or_go_on("the prediction", batch, batch_idx)

    def _begin_or_go_on(self, what: str, batch: EventBatch, batch_idx: int) -> None:
        self._refuse_disorder(what, batch, batch_idx)
        if batch_idx == 0:
            self._refuse_past(what, batch)
            self._warn_of_gap(what, batch)

    def _warn_of_gap(self, what: str, batch: EventBatch) -> None:
        if batch.start <= self._next_event:
            return
        if not self._next_event and self._has_state():
            known = "remembers events that this task has not given it, maybe those to be evaluated"
            remedy = "load the checkpoint of the task, or call reset_state() and observe(batches) what comes before"
        else:
            known = f"has seen the events before {self._next_event} only"
            remedy = "run what comes before, or task.observe(batches) over what is missing"
        warnings.warn(f"{what} begins at event {batch.start}, and the network {known}; {remedy}", stacklevel=3)

    def _has_state(self) -> bool:
        """Return whether the state of the network differs from that before the first event."""
        before = self.network.state_buffers()
        self.network.reset_state()
        empty = self.network.state_buffers()
        self.network.load_state_buffers(before)
        return any(not torch.equal(value, empty[name]) for name, value in before.items())

    def on_train_batch_end(self, outputs: object, batch: EventBatch, batch_idx: int) -> None:
        """Record the stream position up to which events have been processed."""
        self._note(batch)

    def on_validation_batch_end(
        self, outputs: object, batch: EventBatch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Record the stream position up to which events have been processed."""
        self._note(batch)

    def _note(self, batch: EventBatch) -> None:
        self._next_event = max(self._next_event, batch.end)

    def reset_state(self) -> None:
        """Reset the network's state and the stored state of training; weights are left unchanged."""
        self.network.reset_state()
        self._next_event = 0
        self._after_training = None

    @torch.no_grad()
    def observe(self, batches: Iterable[EventBatch], *, track_moments: bool = False) -> None:
        """Commit events to the network's state without training; weights are left unchanged.

        Validation, test and prediction then start from that state. To replay the stream with other weights, call
        :meth:`reset_state` first.

        Args:
            batches: event batches in the order of the stream, such as ``data.batches("train")``.
            track_moments: whether the moments of a :class:`~graphseq.nn.PRESCorrector` are updated, as in training:
                give True for the events of the training split.

        Raises:
            DataError: if the first batch is older than the state, or a batch begins before the previous one.
        """
        modes = [(module, module.training) for module in self.model.modules()]
        self.model.eval()
        try:
            with moments_tracked(self.model) if track_moments else contextlib.nullcontext():
                for number, batch in enumerate(batches):
                    self._refuse_disorder("observe", batch, number)
                    if number == 0:
                        self._refuse_past("the first batch", batch)
                    _, update = self.network.forward_with_update(batch)
                    self.network.commit(update)
                    self._note(batch)
                    self._after_training = None  # the state has left it behind
        finally:
            for module, mode in modes:
                module.training = mode

    def predict_step(self, batch: EventBatch, batch_idx: int) -> object:
        """Return the network's output for a batch, and commit its events."""
        output, update = self.network.forward_with_update(batch)
        self.network.commit(update)
        return output

    def prediction_batches(self, data: DataSource, split: str, size: int) -> Iterator[EventBatch]:
        """Yield the event batches of a split; the network has seen all events before, and gets its state back.

        Args:
            data: data module of a stream.
            split: name of the split.
            size: not used: streams keep the batches of the data module, on which results depend.
        """
        if not isinstance(data, EventSource):
            raise DataError(f"data is a {type(data).__name__}; give a data module of events")
        before, after_training = self._state(), self._after_training
        try:
            self._go_to_split(data, split)
            for batch in data.loader(split):
                yield batch if batch.src.device == self.device else batch.to(self.device)
        finally:
            self._go_to(before)
            self._after_training = after_training

    def _go_to_split(self, data: EventSource, split: str) -> None:
        """Let the network see the events before a split, and no others; what it has seen already is not replayed."""
        begins = {name: int(data.splits[name][0]) for name in ("train", "val", "test") if len(data.splits[name])}
        begin = 0 if split == "all" else begins[split]
        earlier = [name for name in begins if begins[name] < begin]
        seen = self._next_event
        if self._after_training is not None and seen > begin:
            self._go_to(self._after_training)
            seen = self._next_event
        if seen == begin and seen:
            return
        missing = [name for name in earlier if begins[name] >= seen]
        # that no event was seen does not mean that there is no state: the weights may have come with one
        if not seen or seen > begin or not missing or begins[missing[0]] != seen:
            self.reset_state()
            missing = earlier
        for name in missing:
            batches = (batch.to(self.device) for batch in data.loader(name))
            self.observe(batches, track_moments=name == "train")

    def prediction_rows(self, batch: EventBatch, output: Tensor, split: str, data: object = None) -> PredictionRows:
        """Return one row for each event: its position, nodes and time in the source, and the outputs.

        Args:
            batch: events.
            output: result of :meth:`predict_step`.
            split: name of the split.
            data: data module, which may know ids of nodes and the offset of times.
        """
        return PredictionRows(
            {**event_columns(batch, data), **self.event_outputs(batch, output)}, ids=batch.e_id, count=len(batch)
        )

    def event_outputs(self, batch: EventBatch, output: Tensor) -> dict[str, Column]:
        """Return the columns of outputs of :meth:`prediction_rows`, with one entry for each event.

        Args:
            batch: events.
            output: result of :meth:`predict_step`.
        """
        return {"output": output}

    # checkpoints

    def on_save_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Add the state of training if the buffers hold that of validation."""
        super().on_save_checkpoint(checkpoint)
        after = None if self._after_training is None else vars(self._after_training)
        checkpoint["graphseq"]["stream"] = {"after_training": after, "next_event": self._next_event}

    def on_load_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Restore the state of training from the checkpoint.

        Raises:
            CheckpointError: if it was not written by a procedure on a stream.
        """
        super().on_load_checkpoint(checkpoint)
        if checkpoint.get("graphseq", {}).get("stream") is None:
            raise CheckpointError(
                "the checkpoint holds no state of an event stream; give one that was written by a task on streams"
            )
        stream = noted(checkpoint, "stream", ["after_training", "next_event"])
        after = noted(checkpoint, "stream.after_training", ["buffers", "next_event"])
        if after is not None:
            self._check_buffers(after["buffers"])
        # tensors may be on another device than the network: they are copied into its buffers
        self._after_training = None if after is None else _State(**after)
        self._next_event = stream["next_event"]

    def _check_buffers(self, saved: dict[str, Tensor]) -> None:
        different = sorted(self.network.state_buffers().keys() ^ saved.keys())
        if different:
            named = ", ".join(f"{name} ({'there' if name in saved else 'here'} only)" for name in different)
            raise CheckpointError(
                f"the state of training in the checkpoint is not that of a {type(self.network).__name__}: {named}. "
                "It was written by another version; begin the stream again from the weights alone"
            )
