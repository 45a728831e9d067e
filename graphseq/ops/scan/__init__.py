"""Linear recurrences over the steps of sequences, diagonal or with 2 x 2 blocks.

``plain`` is the loop over steps; ``parallel`` holds the scans in torch operations; ``fused`` adds the gradient, one
scan backwards; ``compiled`` is the loop over steps for a processor, which moves the fewest bytes there.
"""

from typing import Literal, get_args

import torch
from torch import Tensor

from graphseq.core.batches import check_lengths, step_mask
from graphseq.ops.processor import use_compiled
from graphseq.ops.scan import fused
from graphseq.ops.scan.plain import is_block

__all__ = ["linear_scan"]

ScanMethod = Literal["auto", "compiled", "chunked", "tree", "doubling", "loop"]


def linear_scan(
    a: Tensor,
    b: Tensor,
    initial: Tensor | None = None,
    lengths: Tensor | None = None,
    *,
    reverse: bool = False,
    method: ScanMethod = "auto",
) -> Tensor:
    r"""Return all states of a linear recurrence.

    .. math:: h_t = A_t h_{t-1} + b_t, \qquad t = 1, \dots, T

    with diagonal matrices A, or with a 2 x 2 block for each channel. Entries may be negative or zero. The gradient is
    one scan backwards, :math:`\lambda_t = g_t + A_{t+1}^\top \lambda_{t+1}`, whatever the form; it can itself be
    differentiated. Numbers in half precision are added up in float32.

    Steps at or after the length of a row keep the state as it is, so that the last state is that of each row's own
    last step; a row of length 0 keeps its initial state.

    Forms: ``tree`` (recursion over pairs, O(T) work in 2 log T levels, the choice on an accelerator), ``doubling``
    (O(T log T) work in log T levels), ``chunked`` (chunks of :math:`\sqrt T` steps), ``compiled`` (a loop over steps
    compiled by numba, the choice on the CPU; without numba it is ``chunked``) and ``loop`` (in Python).

    Args:
        a: diagonals (B, T, D), or blocks (B, T, 2, 2, D) whose first axis is the row.
        b: inputs (B, T, D), or (B, T, 2, D).
        initial: state before the first step (B, D), or (B, 2, D); None for zeros.
        lengths: number of steps of each row, int64 (B,), each in 0..T; None if all have T.
        reverse: whether the recurrence runs from the last step to the first, :math:`h_t = A_t h_{t+1} + b_t`.
        method: form of the scan; ``auto`` chooses one by the device.

    Shape:
        a (B, T, D), b (B, T, D), initial (B, D) -> (B, T, D), or
        a (B, T, 2, 2, D), b (B, T, 2, D), initial (B, 2, D) -> (B, T, 2, D)

    Raises:
        ValueError: if shapes or types do not fit, a length is outside 0..T (checked on the CPU only), ``method``
            is unknown, or ``compiled`` where numba or a tensor does not allow it.

    Example:
        >>> linear_scan(torch.full((1, 4, 1), 0.5), torch.ones(1, 4, 1)).flatten()
        tensor([1.0000, 1.5000, 1.7500, 1.8750])
    """
    _check(a, b, initial, lengths, method)
    if b.dtype in (torch.float16, torch.bfloat16):
        start = None if initial is None else initial.float()
        return linear_scan(a.float(), b.float(), start, lengths, reverse=reverse, method=method).to(b.dtype)
    if initial is None:
        initial = b.new_zeros(b.shape[0], *b.shape[2:])
    if not b.shape[1]:
        return b
    if method == "compiled" and not use_compiled(a, b, initial):
        raise ValueError(
            f"method is 'compiled' for {b.dtype} on {b.device}; it needs numba, and float32 or float64 on a CPU"
        )
    if lengths is not None:
        inside = step_mask(lengths.to(b.device), b.shape[1])
        b = b.masked_fill(~inside.view(*inside.shape, *[1] * (b.dim() - 2)), 0)
        a = torch.where(inside.view(*inside.shape, *[1] * (a.dim() - 2)), a, _identity(a, b))
    return fused.linear_scan(a, b, initial, reverse, method)


def _identity(a: Tensor, b: Tensor) -> Tensor:
    """Matrix that keeps a state, to be broadcast over rows and steps."""
    if is_block(a, b):
        return torch.eye(2, dtype=a.dtype, device=a.device)[:, :, None]
    return torch.ones((), dtype=a.dtype, device=a.device)


def _check(a: Tensor, b: Tensor, initial: Tensor | None, lengths: Tensor | None, method: str) -> None:
    if method not in get_args(ScanMethod):
        raise ValueError(f"method is {method!r}; it must be one of {', '.join(get_args(ScanMethod))}")
    block = is_block(a, b)
    fits = (
        b.dim() == 4 and b.shape[2] == 2 and a.shape == (*b.shape[:2], 2, *b.shape[2:])
        if block
        else b.dim() == 3 and a.shape == b.shape
    )
    if not fits:
        raise ValueError(
            f"a is {tuple(a.shape)} and b {tuple(b.shape)}; give (B, T, D) and (B, T, D) for diagonal matrices, or "
            "(B, T, 2, 2, D) and (B, T, 2, D) for blocks"
        )
    if a.dtype != b.dtype or not b.is_floating_point() or (initial is not None and initial.dtype != b.dtype):
        third = "" if initial is None else f" and initial {initial.dtype}"
        raise ValueError(f"a is {a.dtype}, b {b.dtype}{third}; they must have one floating-point type")
    state = (b.shape[0], *b.shape[2:])
    if initial is not None and initial.shape != state:
        raise ValueError(f"initial is {tuple(initial.shape)}; inputs of shape {tuple(b.shape)} need {state}")
    if lengths is not None:
        check_lengths(lengths, b.shape[0], b.shape[1], least=0)
