"""Compiled loops over steps for linear recurrences: one pass over the data, channels side by side.

Arguments are C-contiguous arrays of one type, float32 or float64. Steps are counted from the end if ``back`` is true.
"""

import numpy as np
import torch
from torch import Tensor

from graphseq.ops.processor import arrays, compile_loop
from graphseq.ops.scan.plain import is_block

__all__: list[str] = []


def scan(a: Tensor, b: Tensor, initial: Tensor, reverse: bool = False) -> Tensor:
    """Return the states, see :func:`graphseq.ops.linear_scan`."""
    h = torch.empty(b.shape, dtype=b.dtype)
    loop = _block_scan if is_block(a, b) else _scan
    loop(*arrays(a, b, initial, h), reverse)
    return h


def gradients(arriving: Tensor, a: Tensor, h: Tensor, initial: Tensor, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of matrices, inputs and initial state.

    Args:
        arriving: gradient of the states, of their shape.
        a: matrices.
        h: states that :func:`scan` returned.
        initial: state before the first step.
        reverse: whether the recurrence runs from the last step to the first.
    """
    to_a, to_b = torch.empty(a.shape, dtype=a.dtype), torch.empty(h.shape, dtype=h.dtype)
    to_initial = torch.zeros(initial.shape, dtype=h.dtype)
    loop = _block_gradients if is_block(a, h) else _gradients
    loop(*arrays(arriving, a, h, initial, to_a, to_b, to_initial), reverse)
    return to_a, to_b, to_initial


@compile_loop
def _scan(a, b, initial, h, back):  # type: ignore[no-untyped-def]
    """Write the states of a diagonal recurrence to ``h``, all (B, T, D).

    Example:
        >>> h = np.empty((1, 3, 1))
        >>> _scan(np.full((1, 3, 1), 0.5), np.ones((1, 3, 1)), np.zeros((1, 1)), h, False)
        >>> h.ravel()
        array([1.  , 1.5 , 1.75])
    """
    steps = b.shape[1]
    state = np.empty(b.shape[2], b.dtype)
    for row in range(b.shape[0]):
        state[:] = initial[row]
        for count in range(steps):
            t = steps - 1 - count if back else count
            for i in range(b.shape[2]):
                state[i] = a[row, t, i] * state[i] + b[row, t, i]
                h[row, t, i] = state[i]


@compile_loop
def _gradients(arriving, a, h, initial, to_a, to_b, to_initial, back):  # type: ignore[no-untyped-def]
    """Write the gradients of :func:`_scan`: one pass from its last step to its first.

    Example:
        >>> to_a, to_b, to_initial = np.empty((1, 2, 1)), np.empty((1, 2, 1)), np.zeros((1, 1))
        >>> one = np.ones((1, 2, 1))
        >>> _gradients(one, 3 * one, one, np.full((1, 1), 5.0), to_a, to_b, to_initial, False)
        >>> to_a.ravel(), to_b.ravel(), to_initial.ravel()
        (array([20.,  1.]), array([4., 1.]), array([12.]))
    """
    steps, dim = h.shape[1], h.shape[2]
    carry = np.empty(dim, h.dtype)
    for row in range(h.shape[0]):
        carry[:] = 0
        for count in range(steps):
            t = count if back else steps - 1 - count
            before = initial[row] if count == steps - 1 else h[row, t + 1] if back else h[row, t - 1]
            for i in range(dim):
                total = arriving[row, t, i] + carry[i]
                to_b[row, t, i] = total
                to_a[row, t, i] = total * before[i]
                carry[i] = a[row, t, i] * total
        to_initial[row] = carry


@compile_loop
def _block_scan(a, b, initial, h, back):  # type: ignore[no-untyped-def]
    """Write the states of a recurrence with 2 x 2 blocks to ``h``; a (B, T, 2, 2, D), the others (B, T, 2, D).

    Example:
        >>> h = np.empty((1, 2, 2, 1))
        >>> _block_scan(np.ones((1, 2, 2, 2, 1)), np.zeros((1, 2, 2, 1)), np.ones((1, 2, 1)), h, False)
        >>> h.ravel()
        array([2., 2., 4., 4.])
    """
    steps, dim = b.shape[1], b.shape[3]
    first, second = np.empty(dim, b.dtype), np.empty(dim, b.dtype)
    for row in range(b.shape[0]):
        first[:] = initial[row, 0]
        second[:] = initial[row, 1]
        for count in range(steps):
            t = steps - 1 - count if back else count
            for i in range(dim):
                x, y = first[i], second[i]
                first[i] = a[row, t, 0, 0, i] * x + a[row, t, 0, 1, i] * y + b[row, t, 0, i]
                second[i] = a[row, t, 1, 0, i] * x + a[row, t, 1, 1, i] * y + b[row, t, 1, i]
                h[row, t, 0, i] = first[i]
                h[row, t, 1, i] = second[i]


@compile_loop
def _block_gradients(arriving, a, h, initial, to_a, to_b, to_initial, back):  # type: ignore[no-untyped-def]
    """Write the gradients of :func:`_block_scan`: one pass from its last step to its first.

    Example:
        >>> to_a, to_b, to_initial = np.empty((1, 1, 2, 2, 1)), np.empty((1, 1, 2, 1)), np.zeros((1, 2, 1))
        >>> state = np.array([1.0, 2.0]).reshape(1, 2, 1)
        >>> given = 3 * np.ones((1, 1, 2, 1)), np.ones((1, 1, 2, 2, 1)), np.ones((1, 1, 2, 1)), state
        >>> _block_gradients(*given, to_a, to_b, to_initial, False)
        >>> to_a.ravel(), to_initial.ravel()
        (array([3., 6., 3., 6.]), array([6., 6.]))
    """
    steps, dim = h.shape[1], h.shape[3]
    first, second = np.empty(dim, h.dtype), np.empty(dim, h.dtype)
    for row in range(h.shape[0]):
        first[:] = 0
        second[:] = 0
        for count in range(steps):
            t = count if back else steps - 1 - count
            before = initial[row] if count == steps - 1 else h[row, t + 1] if back else h[row, t - 1]
            for i in range(dim):
                x = arriving[row, t, 0, i] + first[i]
                y = arriving[row, t, 1, i] + second[i]
                to_b[row, t, 0, i] = x
                to_b[row, t, 1, i] = y
                to_a[row, t, 0, 0, i] = x * before[0, i]
                to_a[row, t, 0, 1, i] = x * before[1, i]
                to_a[row, t, 1, 0, i] = y * before[0, i]
                to_a[row, t, 1, 1, i] = y * before[1, i]
                first[i] = a[row, t, 0, 0, i] * x + a[row, t, 1, 0, i] * y
                second[i] = a[row, t, 0, 1, i] * x + a[row, t, 1, 1, i] * y
        to_initial[row, 0] = first
        to_initial[row, 1] = second
