"""Truncated back-propagation through time: the state of a language model goes on from window to window."""

from typing import Any, Protocol, Unpack, runtime_checkable

import torch
from torch import Tensor, nn

from graphseq.core.batches import TokenBatch
from graphseq.core.checkpoint import Checkpoint
from graphseq.core.protocols import StreamedText
from graphseq.core.wrappers import unwrapped
from graphseq.tasks.base import Stage, TaskOptions
from graphseq.tasks.sequence.language import LanguageModeling

__all__ = ["CarriedLanguageModeling"]


@runtime_checkable
class CarriesState(Protocol):
    """Language model whose state after a text can be given to the next call.

    Example:
        >>> from graphseq.models import RecurrentLanguageModel
        >>> isinstance(RecurrentLanguageModel(vocab_size=5), CarriesState)
        True
    """

    def forward_with_state(self, ids: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Return logits (B, T, V) and the state after the last token.

        Args:
            ids: token numbers (B, T).
            state: state after the preceding tokens; None at the beginning of a text.
        """


class CarriedLanguageModeling(LanguageModeling):
    r"""Language modelling by truncated back-propagation through time, with the state carried from window to window.

    .. math:: s^{(k)} = f\bigl(x^{(k)}, \operatorname{stop}(s^{(k-1)})\bigr)

    Window k of a row begins with the state in which the row ended window k - 1, by value: gradients reach back to the
    beginning of a window, while the network remembers everything before it. The data module has to yield windows in
    their order, by ``order: streams``. The state is zero at the beginning of an epoch and of each evaluation; that of
    training survives a validation and is part of a checkpoint.

    Procedure:
        1. logits of the window from the carried state; 2. cross-entropy with the next tokens; 3. one step of the
        optimiser; 4. the state is detached and kept.

    Logs:
        as :class:`LanguageModeling`.

    Source: arXiv 1506.00019, section 2.4. Differs from it: gradients reach as far back as the window, k1 = k2.

    Args:
        model: causal network with ``forward_with_state(ids, state)``, such as
            :class:`graphseq.models.RecurrentLanguageModel`.
        num_outputs: V, number of tokens of the vocabulary, at least 2.
        options: arguments of :class:`Task`.

    Raises:
        ValueError: if ``num_outputs`` is below 2, or the data module shuffles windows; in a step, if the batch has
            another number of rows than the one before.
        TypeError: if the network has no ``forward_with_state``.

    Example:
        >>> from graphseq.models import RecurrentLanguageModel
        >>> task = CarriedLanguageModeling(RecurrentLanguageModel(vocab_size=5), num_outputs=5)
        >>> first, second = (task.step(torch.tensor([[1, 2, 3]]), "val").loss for _ in range(2))
        >>> bool(first == second)
        False
    """

    def __init__(self, model: nn.Module, num_outputs: int, **options: Unpack[TaskOptions]) -> None:
        super().__init__(model, num_outputs, **options)
        if not isinstance(unwrapped(model), CarriesState):
            raise TypeError(
                f"{type(unwrapped(model)).__name__} has no forward_with_state(ids, state); give a network that carries "
                "a state, such as graphseq.models.RecurrentLanguageModel"
            )
        self._states: dict[Stage, Any] = {}  # after the last window, by stage; that of training is in checkpoints

    def setup(self, stage: str) -> None:
        """Check that the windows of the data module go on from batch to batch."""
        data = self.datamodule
        if isinstance(data, StreamedText) and not data.in_streams:
            raise ValueError(
                f"order is 'shuffled' in {type(data).__name__}, so that windows do not continue where the last one "
                "ended; "
                "set order='streams' in the data module, or take graphseq.tasks.LanguageModeling"
            )
        super().setup(stage)

    def forget(self, stage: Stage) -> None:
        """Let the next window of a stage begin with a state of zero.

        Args:
            stage: stage of the run.
        """
        self._states.pop(stage, None)

    def outputs(self, batch: TokenBatch, stage: Stage) -> Tensor:
        """Return the logits of the next token at each position, (B, T, V), and keep the state after the window.

        Args:
            batch: tokens that are read; a row that is padded has no next window, so that its lengths are not needed.
            stage: stage of the run.
        """
        network = unwrapped(self.model)
        assert isinstance(network, CarriesState)  # checked in the constructor
        logits, state = network.forward_with_state(batch.ids, _moved(self._states.get(stage), batch.ids.device))
        self._states[stage] = _detached(state)
        return logits

    # an epoch that goes on after a checkpoint does not come to its start again: what counts is the number of the batch

    def training_step(self, batch: object, batch_idx: int) -> Tensor:
        """Return the loss of one window of each row; the first of an epoch begins with a state of zero."""
        if batch_idx == 0:
            self.forget("train")
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch: object, batch_idx: int) -> None:
        """Log the loss and metrics of one window of each row; the first begins with a state of zero."""
        if batch_idx == 0:
            self.forget("val")
        super().validation_step(batch, batch_idx)

    def test_step(self, batch: object, batch_idx: int) -> None:
        """Log the loss and metrics of one window of each row; the first begins with a state of zero."""
        if batch_idx == 0:
            self.forget("test")
        super().test_step(batch, batch_idx)

    def on_save_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Add the carried state of training to the checkpoint."""
        super().on_save_checkpoint(checkpoint)
        if "train" in self._states:
            checkpoint["graphseq"]["carried"] = _moved(self._states["train"], torch.device("cpu"))

    def on_load_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Check the checkpoint, and take its carried state."""
        super().on_load_checkpoint(checkpoint)
        if "carried" in checkpoint.get("graphseq", {}):
            self._states = {"train": checkpoint["graphseq"]["carried"]}


def _detached(state: Any) -> Any:
    """Return a state of nested tuples, lists or dictionaries of tensors without its graph."""
    if isinstance(state, Tensor):
        return state.detach()
    if isinstance(state, dict):
        return {key: _detached(part) for key, part in state.items()}
    return type(state)(_detached(part) for part in state) if isinstance(state, tuple | list) else state


def _moved(state: Any, device: torch.device) -> Any:
    if isinstance(state, Tensor):
        return state.to(device)
    if isinstance(state, dict):
        return {key: _moved(part, device) for key, part in state.items()}
    return type(state)(_moved(part, device) for part in state) if isinstance(state, tuple | list) else state
