"""Base class of recurrent layers with a loop over steps in Python, for cells without a kernel in torch."""

import torch
from torch import Tensor

from graphseq.nn.recurrent.padded import PaddedRecurrence
from graphseq.ops.recurrent import RecurrentState

__all__: list[str] = []


class StepRecurrence(PaddedRecurrence):
    """Base class of layers with a loop over the steps in Python; inputs of all steps are projected at once.

    A subclass defines :meth:`project`, :meth:`step` and :meth:`initial_state`.

    Attributes:
        output_size: number of features of each output.
    """

    batch_axis = 1
    output_size: int

    def project(self, x: Tensor) -> Tensor:
        """Return the part of each step that does not depend on the state, (..., R).

        Args:
            x: inputs (..., D).
        """
        raise NotImplementedError(f"{type(self).__name__} must define project")

    def step(self, z: Tensor, state: RecurrentState) -> tuple[Tensor, RecurrentState]:
        """Return the output of one step, (B, output_size), and the state after it.

        Args:
            z: projected inputs of the step, (B, R).
            state: parts of the state before the step, each (B, *).
        """
        raise NotImplementedError(f"{type(self).__name__} must define step")

    def initial_state(self, size: int, like: Tensor) -> RecurrentState:
        """Return the parts of the state before the first step, each (B, *).

        Args:
            size: number of sequences B.
            like: tensor whose type and device the state has.
        """
        raise NotImplementedError(f"{type(self).__name__} must define initial_state")

    def run(self, x: Tensor, batch_sizes: Tensor | None, state: RecurrentState | None) -> tuple[Tensor, RecurrentState]:
        """Return the outputs and the state after the last step, of padded or of packed sequences.

        Args:
            x: inputs (B, T, D), or the data of packed sequences (M, D).
            batch_sizes: number of sequences at each step of packed sequences, None for padded ones.
            state: parts of the state before the first step, each (1, B, *); None for zeros.
        """
        z = self.project(x)
        size = len(x) if batch_sizes is None else int(batch_sizes[0])
        current = self.initial_state(size, x)
        if state is not None:
            needed, given = [(1, *part.shape) for part in current], [tuple(part.shape) for part in state]
            if needed != given:
                raise ValueError(f"state has shapes {given}, where {needed} are needed: give what this layer returned")
            current = tuple(part[0] for part in state)
        outputs: list[Tensor] = []
        ended: list[RecurrentState] = []  # states of the sequences that end, the longest ones last
        for each in z.unbind(1) if batch_sizes is None else z.split(batch_sizes.tolist()):
            if len(each) < len(current[0]):
                ended.append(tuple(part[len(each) :] for part in current))
                current = tuple(part[: len(each)] for part in current)
            y, current = self.step(each, current)
            outputs.append(y)
        parts = zip(current, *reversed(ended), strict=True)
        after = tuple(torch.cat(list(part))[None] for part in parts)
        return torch.stack(outputs, 1) if batch_sizes is None else torch.cat(outputs), after
