"""Base class of causal sequence layers: checks of inputs and lengths, and outputs without the state."""

from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

from graphseq.core.batches import step_mask

__all__: list[str] = []


class CausalLayer(nn.Module):
    """Base class of layers ``(x, state, lengths) -> (y, state)`` whose outputs do not depend on later steps.

    Attributes:
        input_size: number of features of each step.
        output_size: number of features of each output.
    """

    input_size: int
    output_size: int

    def outputs(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the outputs without the state; outputs after the length of a sequence are 0.

        Args:
            x: inputs (B, T, D).
            lengths: number of steps of each sequence, int64 (B,), each in 0..T; None if all have T.
        """
        return self(x, None, lengths)[0]

    def reset_parameters(self) -> None:
        """Reinitialise all weights; defined by each subclass that has any."""

    def checked(self, x: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Check the inputs; return them with padding set to 0, and a mask of the steps that are not padding.

        Args:
            x: inputs.
            lengths: number of steps of each sequence.

        Returns:
            inputs (B, T, D), and whether each step lies within its sequence, bool (B, T, 1), None if all do.

        Raises:
            ValueError: if ``x`` is not (B, T, D) with T of at least 1, holds integers, or a length is not in 0..T; on
                an accelerator values of lengths are not read, since that would synchronise.
        """
        if x.dim() != 3 or x.shape[2] != self.input_size or not x.shape[1]:
            raise ValueError(
                f"inputs have shape {tuple(x.shape)}, where (B, T, {self.input_size}) with T of at least 1 is needed"
            )
        if not (x.is_floating_point() or x.is_complex()):
            raise ValueError(f"inputs are {x.dtype}; real numbers are needed: embed token numbers, or call x.float()")
        if lengths is None:
            return x, None
        checked_lengths(lengths, len(x), x.shape[1], "lengths")
        inside = step_mask(lengths.to(x.device), x.shape[1])[..., None]
        return x.masked_fill(~inside, 0), inside


def checked_lengths(lengths: Tensor, rows: int, steps: int, name: str) -> None:
    """Check numbers of steps; on an accelerator their values are not read, since that would synchronise.

    Args:
        lengths: number of steps of each sequence.
        rows: number of sequences B.
        steps: padded number of steps T.
        name: name of the argument, for messages.

    Raises:
        ValueError: if they are not integers (B,), or one is not in 0..T.

    Example:
        >>> checked_lengths(torch.tensor([0, 3]), 2, 3, "lengths")
    """
    if not isinstance(lengths, Tensor):
        raise ValueError(f"{name} is a {type(lengths).__name__}; give a tensor of integers ({rows},)")
    if lengths.shape != (rows,) or lengths.is_floating_point() or lengths.dtype == torch.bool:
        raise ValueError(f"{name} is {lengths.dtype} {tuple(lengths.shape)}; give integers ({rows},)")
    if lengths.device.type == "cpu" and rows and not (int(lengths.min()) >= 0 and int(lengths.max()) <= steps):
        low, high = int(lengths.min()), int(lengths.max())
        raise ValueError(f"values of {name} range from {low} to {high}; they must be in 0..{steps}")


def last_steps(known: Tensor, number: int, lengths: Tensor | None) -> Tensor:
    """Return the last steps of each sequence, (B, number, D), as the state for the steps that follow.

    Args:
        known: ``number`` steps before the inputs and then the inputs, (B, number + T, D).
        number: number of steps to keep.
        lengths: number of steps of each sequence among the inputs, int64 (B,); None if all have T.

    Example:
        >>> last_steps(torch.arange(5.0).view(1, 5, 1), 2, torch.tensor([1])).flatten().tolist()
        [1.0, 2.0]
    """
    if lengths is None:
        return known[:, known.shape[1] - number :]
    place = lengths.to(known.device)[:, None] + torch.arange(number, device=known.device)  # (B, number)
    return known.gather(1, place[..., None].expand(-1, -1, known.shape[2]))


def positive(**sizes: Any) -> None:
    """Check that sizes are whole numbers of at least 1.

    Args:
        **sizes: sizes by the names of their arguments.

    Raises:
        ValueError: if one is below 1, or not a whole number.

    Example:
        >>> positive(dim=3)
    """
    for name, size in sizes.items():
        if not isinstance(size, Integral) or size < 1:
            raise ValueError(f"{name} is {size!r}; give a whole number of at least 1")
