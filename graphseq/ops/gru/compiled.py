"""Compiled loops of the gates: what a gated recurrent unit makes of the inputs of its gates.

Arguments are C-contiguous arrays of one type, float32 or float64.
"""

import numpy as np
import torch
from torch import Tensor

from graphseq.ops.activations.sigmoid import sigmoid
from graphseq.ops.gru import fused
from graphseq.ops.processor import arrays, compile_loop, use_compiled

__all__: list[str] = []


_ONE, _TWO = np.float32(1), np.float32(2)


def gate(gates: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """Return candidate and new memories, see :func:`graphseq.ops.gru.fused.gate`."""
    candidate, new = (torch.empty(own.shape, dtype=own.dtype) for _ in range(2))
    _gate(*arrays(gates, own, candidate, new))
    return candidate, new


def gate_backward(gradient: Tensor, gates: Tensor, own: Tensor, candidate: Tensor) -> Tensor:
    """Return the gradient of the inputs of the gates, see :func:`graphseq.ops.gru.fused.gate_backward`."""
    if not use_compiled(gradient):  # a batch of gradients has no memory that loops could work on
        return fused.gate_backward(gradient, gates, own, candidate)
    to_inputs = torch.empty(gates.shape, dtype=gates.dtype)
    _gate_backward(*arrays(gradient, gates, own, candidate, to_inputs))
    return to_inputs


@compile_loop
def _gate(gates, own, candidate, new):  # type: ignore[no-untyped-def]
    """Write what a gated recurrent unit makes of the inputs of its gates.

    Args:
        gates: inputs of reset gate and update gate, then the two parts of the candidate's input, of which the reset
            gate multiplies the second; the two gates overwrite their inputs (U, 4 D).
        own: memories (U, D).
        candidate: candidate for the new memory, written (U, D).
        new: memories after the update, written (U, D).

    Example:
        >>> candidate, new = np.empty((2, 1, 1))
        >>> _gate(np.zeros((1, 4)), np.ones((1, 1)), candidate, new)
        >>> new
        array([[0.5]])
    """
    dim = own.shape[1]
    exponent = np.empty(2 * dim, np.int32)
    power = exponent.view(np.float32)
    opened, entering = np.empty(2 * dim, gates.dtype), np.empty(dim, gates.dtype)
    for row in range(own.shape[0]):
        sigmoid(gates[row, : 2 * dim], opened, exponent, power)  # not in place: such a loop stays scalar
        gates[row, : 2 * dim] = opened
        for i in range(dim):
            entering[i] = _TWO * (gates[row, 2 * dim + i] + opened[i] * gates[row, 3 * dim + i])
        sigmoid(entering, candidate[row], exponent, power)
        for i in range(dim):
            candidate[row, i] = _TWO * candidate[row, i] - _ONE  # tanh x = 2 sigmoid 2 x - 1
            new[row, i] = candidate[row, i] + gates[row, dim + i] * (own[row, i] - candidate[row, i])


@compile_loop
def _gate_backward(gradient, gates, own, candidate, to_inputs):  # type: ignore[no-untyped-def]
    """Write the gradients of the inputs of the gates, in the order of :func:`_gate`.

    Args:
        gradient: gradient of the new memories (U, D).
        gates: gates and the two parts of the candidate's input, as :func:`_gate` left them (U, 4 D).
        own: memories before the update (U, D).
        candidate: candidate that :func:`_gate` wrote (U, D).
        to_inputs: gradient of the inputs of the gates, written (U, 4 D).

    Example:
        >>> to_inputs = np.empty((1, 4))
        >>> _gate_backward(np.ones((1, 1)), np.full((1, 4), 0.5), np.ones((1, 1)), np.zeros((1, 1)), to_inputs)
        >>> to_inputs
        array([[0.0625, 0.25  , 0.5   , 0.25  ]])
    """
    dim = own.shape[1]
    for row in range(own.shape[0]):
        for i in range(dim):
            reset, update, recurrent = gates[row, i], gates[row, dim + i], gates[row, 3 * dim + i]
            arriving, new = gradient[row, i], candidate[row, i]
            to_candidate = arriving * (_ONE - update) * (_ONE - new * new)
            to_inputs[row, i] = to_candidate * recurrent * reset * (_ONE - reset)
            to_inputs[row, dim + i] = arriving * (own[row, i] - new) * update * (_ONE - update)
            to_inputs[row, 2 * dim + i] = to_candidate
            to_inputs[row, 3 * dim + i] = to_candidate * reset
