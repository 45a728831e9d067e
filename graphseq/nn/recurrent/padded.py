"""Base class of recurrent layers: outputs and states of padded and of packed sequences."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from graphseq.core.batches import check_lengths, step_mask
from graphseq.ops.recurrent import RecurrentMode, RecurrentState

__all__: list[str] = []


class PaddedRecurrence(nn.Module):
    """Base class of layers whose :meth:`run` takes padded or packed sequences.

    Attributes:
        cell: kind of cell; the state of ``lstm`` is a pair.
        input_size: number of features of each step.
        batch_axis: axis of the batch in a part of the state.
    """

    cell: RecurrentMode
    input_size: int
    batch_axis = 0

    @property
    def state_is_pair(self) -> bool:
        """Whether the state has two parts, h and c; else it is h alone."""
        return self.cell == "lstm"

    def run(self, x: Tensor, batch_sizes: Tensor | None, state: RecurrentState | None) -> tuple[Tensor, RecurrentState]:
        """Return the outputs and the state after the last step; defined by each subclass.

        Args:
            x: inputs (B, T, D), or the data of packed sequences (M, D).
            batch_sizes: number of sequences at each step of packed sequences, None for padded ones.
            state: parts of the state before the first step, None for zeros.
        """
        raise NotImplementedError(f"{type(self).__name__} must define run")

    def outputs(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the outputs without the state; outputs after the length of a sequence are 0.

        Args:
            x: inputs (B, T, D).
            lengths: number of steps of each sequence, int64 (B,); None if all have T.
        """
        self._check(x)
        if lengths is not None:
            check_lengths(lengths, x.shape[0], x.shape[1], least=0)
        y, _ = self.run(x, None, None)  # (B, T, R); causal, so padding at the end does not change earlier steps
        return y if lengths is None else y.masked_fill(~step_mask(lengths.to(y.device), x.shape[1])[..., None], 0)

    def forward(self, x: Tensor, state: Any = None, lengths: Tensor | None = None) -> tuple[Tensor, Any]:
        """Return the outputs of all steps and the state after the last one.

        With ``lengths`` the sequences are packed, which needs one synchronisation on an accelerator.

        Args:
            x: inputs (B, T, D).
            state: state before the first step, as this method returns it: h, or (h, c) of LSTM cells; None for zeros.
            lengths: number of steps of each sequence, int64 (B,), each in 1..T; None if all have T.
        """
        self._check(x)
        given = self._parts(x, state)
        if lengths is not None:
            check_lengths(lengths, x.shape[0], x.shape[1])
        if lengths is None or not len(x):  # an empty batch cannot be packed
            y, after = self.run(x, None, given)
        else:
            y, after = self.run_padded(x, lengths, given)
        return y, after if self.state_is_pair else after[0]

    def run_padded(self, x: Tensor, lengths: Tensor, state: RecurrentState | None) -> tuple[Tensor, RecurrentState]:
        """Return the outputs, 0 after the length of a sequence, and the state after its last step.

        By default the sequences are packed for :meth:`run`.

        Args:
            x: inputs (B, T, D).
            lengths: number of steps of each sequence, int64 (B,), each in 1..T.
            state: parts of the state before the first step, None for zeros.
        """
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        order, back = packed.sorted_indices, packed.unsorted_indices
        if state is not None and order is not None:
            state = tuple(part.index_select(self.batch_axis, order) for part in state)
        data, after = self.run(packed.data, packed.batch_sizes, state)
        if back is not None:
            after = tuple(part.index_select(self.batch_axis, back) for part in after)
        repacked = PackedSequence(data, packed.batch_sizes, order, back)
        return pad_packed_sequence(repacked, batch_first=True, total_length=x.shape[1])[0], after  # (B, T, R)

    def _parts(self, x: Tensor, state: Any) -> RecurrentState | None:
        """Parts of a state, with the number of rows of the inputs."""
        if state is None:
            return None
        parts = state_parts(state, self.state_is_pair)
        check_state(parts, len(x), self.batch_axis)
        return parts

    def _check(self, x: Tensor) -> None:
        check_inputs(x, self.input_size)


def check_inputs(x: Tensor, input_size: int) -> None:
    """Raise if inputs are not sequences of real numbers.

    Args:
        x: inputs.
        input_size: number of features of each step.

    Raises:
        ValueError: if they are not (B, T, input_size) with T of at least 1, or hold integers.

    Example:
        >>> import torch
        >>> check_inputs(torch.zeros(2, 4, 3), 3)
    """
    if x.dim() != 3 or x.shape[2] != input_size or not x.shape[1]:
        raise ValueError(
            f"inputs have shape {tuple(x.shape)}, where (B, T, {input_size}) with T of at least 1 is needed"
        )
    if not x.is_floating_point():
        raise ValueError(f"inputs are {x.dtype}; real numbers are needed: embed token numbers, or call x.float()")


def state_parts(state: Any, is_pair: bool) -> tuple[Tensor, ...]:
    """Return the parts of a state as a layer returns it: h, or (h, c).

    Args:
        state: the state.
        is_pair: whether it has two parts.

    Raises:
        ValueError: if it has another number of parts.

    Example:
        >>> import torch
        >>> len(state_parts((torch.zeros(1, 2, 5), torch.zeros(1, 2, 5)), True))
        2
    """
    if not is_pair:
        return (state,)
    if not isinstance(state, tuple | list) or len(state) != 2:
        given = f"{len(state)} parts" if isinstance(state, tuple | list) else f"a {type(state).__name__}"
        raise ValueError(f"state is {given}; give h and c, as this layer returned them, or None for zeros")
    return tuple(state)


def check_state(state: Sequence[Any], rows: int, batch_axis: int) -> None:
    """Raise if a state has another number of rows than the inputs.

    Args:
        state: parts of the state.
        rows: number of rows of the inputs.
        batch_axis: axis of the batch in a part of the state.

    Raises:
        ValueError: if a part is not a tensor, or has another number of rows.

    Example:
        >>> import torch
        >>> check_state((torch.zeros(1, 2, 5),), 2, 1)
    """
    for part in state:
        if not isinstance(part, Tensor) or part.dim() <= batch_axis or part.shape[batch_axis] != rows:
            shape = tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__
            raise ValueError(
                f"state holds {shape}, where axis {batch_axis} must have the {rows} rows of the inputs; "
                "give the state that this layer returned for the same sequences"
            )
