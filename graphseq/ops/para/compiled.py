"""Compiled loops over steps for cells with diagonal weights, and their gradients backwards.

Gates stay in the cache of the processor: forward reads the inputs of the gates and writes the states, backward reads
both, makes the gates anew, and writes the gradient of their inputs. Arguments are C-contiguous arrays of one type,
float32 or float64.
"""

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function

from graphseq.ops.activations.sigmoid import sigmoid
from graphseq.ops.processor import arrays, compile_loop

__all__: list[str] = []

_ONE, _TWO = np.float32(1), np.float32(2)


def _refuse_second_derivatives() -> None:
    if torch.is_grad_enabled():
        raise RuntimeError(
            "the states of a nonlinear recurrence cannot be differentiated twice (create_graph=True): record a loop "
            "over steps instead"
        )


class _GRU(Function):
    @staticmethod
    def forward(ctx: Any, gates: Tensor, weight: Tensor, initial: Tensor) -> Tensor:
        states = torch.empty((*gates.shape[:2], initial.shape[1]), dtype=gates.dtype)
        _gru(*arrays(gates, weight, initial, states))
        ctx.save_for_backward(gates, weight, initial, states)
        return states

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        _refuse_second_derivatives()
        gates, weight, initial, states = ctx.saved_tensors
        to_gates = torch.empty(gates.shape, dtype=gates.dtype)
        to_weight, to_initial = (torch.zeros(part.shape, dtype=part.dtype) for part in (weight, initial))
        _gru_gradients(*arrays(gradients[0], gates, weight, initial, states, to_gates, to_weight, to_initial))
        return to_gates, to_weight, to_initial


class _LSTM(Function):
    @staticmethod
    def forward(ctx: Any, gates: Tensor, weight: Tensor, initial: Tensor) -> Tensor:
        states = torch.empty((*gates.shape[:2], *initial.shape[1:]), dtype=gates.dtype)
        _lstm(*arrays(gates, weight, initial, states))
        ctx.save_for_backward(gates, weight, initial, states)
        return states

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        _refuse_second_derivatives()
        gates, weight, initial, states = ctx.saved_tensors
        to_gates = torch.empty(gates.shape, dtype=gates.dtype)
        to_weight, to_initial = (torch.zeros(part.shape, dtype=part.dtype) for part in (weight, initial))
        _lstm_gradients(*arrays(gradients[0], gates, weight, initial, states, to_gates, to_weight, to_initial))
        return to_gates, to_weight, to_initial


def gru(gates: Tensor, weight: Tensor, initial: Tensor) -> Tensor:
    """Return the states (B, T, D) of :func:`graphseq.ops.para_gru`.

    Args:
        gates: inputs of the gates (B, T, 3 D).
        weight: diagonals (3, D).
        initial: state before the first step (B, D).
    """
    return cast(Tensor, _GRU.apply(gates, weight, initial))


def lstm(gates: Tensor, weight: Tensor, initial: Tensor) -> Tensor:
    """Return the states (B, T, 2, D) of :func:`graphseq.ops.para_lstm`.

    Args:
        gates: inputs of the gates (B, T, 3 D).
        weight: diagonals (5, D).
        initial: state before the first step (B, 2, D).
    """
    return cast(Tensor, _LSTM.apply(gates, weight, initial))


@compile_loop
def _gru(gates, weight, initial, states):  # type: ignore[no-untyped-def]
    """Write the states of the cell of :func:`graphseq.ops.para_gru`.

    Args:
        gates: inputs of the gates z, r and n (B, T, 3 D).
        weight: diagonals of the gates z, r and n (3, D).
        initial: state before the first step (B, D).
        states: states after each step, written (B, T, D).

    Example:
        >>> states = np.empty((1, 2, 1))
        >>> _gru(np.zeros((1, 2, 3)), np.zeros((3, 1)), np.ones((1, 1)), states)
        >>> states.ravel()
        array([0.5 , 0.25])
    """
    dim = states.shape[2]
    entering, opened = np.empty(2 * dim, gates.dtype), np.empty(2 * dim, gates.dtype)
    last, candidate = np.empty(dim, gates.dtype), np.empty(dim, gates.dtype)
    exponent = np.empty(2 * dim, np.int32)
    power = exponent.view(np.float32)
    h = np.empty(dim, gates.dtype)
    for row in range(gates.shape[0]):
        h[:] = initial[row]
        for t in range(gates.shape[1]):
            for i in range(dim):
                entering[i] = weight[0, i] * h[i] + gates[row, t, i]
                entering[dim + i] = weight[1, i] * h[i] + gates[row, t, dim + i]
            sigmoid(entering, opened, exponent, power)
            for i in range(dim):
                last[i] = _TWO * (weight[2, i] * h[i] * opened[dim + i] + gates[row, t, 2 * dim + i])
            sigmoid(last, candidate, exponent, power)
            for i in range(dim):
                h[i] = h[i] + opened[i] * (_TWO * candidate[i] - _ONE - h[i])  # tanh x = 2 sigmoid 2 x - 1
                states[row, t, i] = h[i]


@compile_loop
def _gru_gradients(arriving, gates, weight, initial, states, to_gates, to_weight, to_initial):  # type: ignore[no-untyped-def]
    """Write the gradients of :func:`_gru`.

    Args:
        arriving: gradient of the states (B, T, D).
        gates: inputs of the gates (B, T, 3 D).
        weight: diagonals (3, D).
        initial: state before the first step (B, D).
        states: states that :func:`_gru` wrote (B, T, D).
        to_gates: gradient of the inputs of the gates, written (B, T, 3 D).
        to_weight: gradient of the diagonals, zeros that are added to (3, D).
        to_initial: gradient of the initial state, written (B, D).

    Example:
        >>> one, to_gates, to_weight, to_initial = np.ones((1, 1)), *(np.zeros(s) for s in ((1, 1, 3), (3, 1), (1, 1)))
        >>> zeros, h = np.zeros((1, 1, 3)), np.full((1, 1, 1), 0.5)
        >>> _gru_gradients(one[None], zeros, np.zeros((3, 1)), one, h, to_gates, to_weight, to_initial)
        >>> to_gates.ravel(), to_initial
        (array([-0.25,  0.  ,  0.5 ]), array([[0.5]]))
    """
    dim = states.shape[2]
    entering, opened = np.empty(2 * dim, gates.dtype), np.empty(2 * dim, gates.dtype)
    last, candidate = np.empty(dim, gates.dtype), np.empty(dim, gates.dtype)
    exponent = np.empty(2 * dim, np.int32)
    power = exponent.view(np.float32)
    carry, sums = np.empty(dim, gates.dtype), np.empty((3, dim), gates.dtype)
    for row in range(gates.shape[0]):
        carry[:] = 0
        sums[:] = 0
        for t in range(gates.shape[1] - 1, -1, -1):
            h = states[row, t - 1] if t > 0 else initial[row]
            for i in range(dim):
                entering[i] = weight[0, i] * h[i] + gates[row, t, i]
                entering[dim + i] = weight[1, i] * h[i] + gates[row, t, dim + i]
            sigmoid(entering, opened, exponent, power)
            for i in range(dim):
                last[i] = _TWO * (weight[2, i] * h[i] * opened[dim + i] + gates[row, t, 2 * dim + i])
            sigmoid(last, candidate, exponent, power)
            for i in range(dim):
                z, r, n = opened[i], opened[dim + i], _TWO * candidate[i] - _ONE
                total = arriving[row, t, i] + carry[i]
                to_z = total * (n - h[i]) * z * (_ONE - z)
                to_n = total * z * (_ONE - n * n)
                to_r = to_n * weight[2, i] * h[i] * r * (_ONE - r)
                to_gates[row, t, i] = to_z
                to_gates[row, t, dim + i] = to_r
                to_gates[row, t, 2 * dim + i] = to_n
                sums[0, i] += to_z * h[i]
                sums[1, i] += to_r * h[i]
                sums[2, i] += to_n * h[i] * r
                carry[i] = total * (_ONE - z) + to_z * weight[0, i] + to_r * weight[1, i] + to_n * r * weight[2, i]
        to_initial[row] = carry
        to_weight += sums


@compile_loop
def _lstm(gates, weight, initial, states):  # type: ignore[no-untyped-def]
    """Write the states of the cell of :func:`graphseq.ops.para_lstm`.

    Args:
        gates: inputs of the gates f, z and o (B, T, 3 D).
        weight: diagonals from h to f, z and o, and from c to f and o (5, D).
        initial: c and h before the first step (B, 2, D).
        states: c and h after each step, written (B, T, 2, D).

    Example:
        >>> states = np.empty((1, 1, 2, 1))
        >>> _lstm(np.zeros((1, 1, 3)), np.zeros((5, 1)), np.ones((1, 2, 1)), states)
        >>> states.ravel().round(4)
        array([0.5   , 0.2311])
    """
    dim = states.shape[3]
    entering, opened = np.empty(2 * dim, gates.dtype), np.empty(2 * dim, gates.dtype)
    exponent = np.empty(2 * dim, np.int32)
    power = exponent.view(np.float32)
    c, h = np.empty(dim, gates.dtype), np.empty(dim, gates.dtype)
    for row in range(gates.shape[0]):
        c[:] = initial[row, 0]
        h[:] = initial[row, 1]
        for t in range(gates.shape[1]):
            for i in range(dim):
                entering[i] = weight[0, i] * h[i] + weight[3, i] * c[i] + gates[row, t, i]
                entering[dim + i] = _TWO * (weight[1, i] * h[i] + gates[row, t, dim + i])
            sigmoid(entering, opened, exponent, power)
            for i in range(dim):
                z = _TWO * opened[dim + i] - _ONE  # tanh x = 2 sigmoid 2 x - 1
                c[i] = z + opened[i] * (c[i] - z)
                entering[i] = weight[2, i] * h[i] + weight[4, i] * c[i] + gates[row, t, 2 * dim + i]
                entering[dim + i] = _TWO * c[i]
            sigmoid(entering, opened, exponent, power)
            for i in range(dim):
                h[i] = opened[i] * (_TWO * opened[dim + i] - _ONE)
                states[row, t, 0, i] = c[i]
                states[row, t, 1, i] = h[i]


@compile_loop
def _lstm_gradients(arriving, gates, weight, initial, states, to_gates, to_weight, to_initial):  # type: ignore[no-untyped-def]
    """Write the gradients of :func:`_lstm`.

    Args:
        arriving: gradient of the states (B, T, 2, D).
        gates: inputs of the gates (B, T, 3 D).
        weight: diagonals (5, D).
        initial: state before the first step (B, 2, D).
        states: states that :func:`_lstm` wrote (B, T, 2, D).
        to_gates: gradient of the inputs of the gates, written (B, T, 3 D).
        to_weight: gradient of the diagonals, zeros that are added to (5, D).
        to_initial: gradient of the initial state, written (B, 2, D).

    Example:
        >>> to_gates, to_weight, to_initial = (np.zeros(shape) for shape in ((1, 1, 3), (5, 1), (1, 2, 1)))
        >>> states = np.array([0.0, 0.0]).reshape(1, 1, 2, 1)
        >>> zeros = np.zeros((1, 1, 3)), np.zeros((5, 1)), np.zeros((1, 2, 1))
        >>> _lstm_gradients(np.ones((1, 1, 2, 1)), *zeros, states, to_gates, to_weight, to_initial)
        >>> to_gates.ravel(), to_initial.ravel()
        (array([0.  , 0.75, 0.  ]), array([0.75, 0.  ]))
    """
    dim = states.shape[3]
    entering, opened = np.empty(2 * dim, gates.dtype), np.empty(2 * dim, gates.dtype)
    leaving = np.empty(2 * dim, gates.dtype)
    exponent = np.empty(2 * dim, np.int32)
    power = exponent.view(np.float32)
    carry_c, carry_h = np.empty(dim, gates.dtype), np.empty(dim, gates.dtype)
    to_c, to_f = np.empty(dim, gates.dtype), np.empty(dim, gates.dtype)
    to_z, to_o = np.empty(dim, gates.dtype), np.empty(dim, gates.dtype)
    sums = np.empty((5, dim), gates.dtype)
    for row in range(gates.shape[0]):
        carry_c[:] = 0
        carry_h[:] = 0
        sums[:] = 0
        for t in range(gates.shape[1] - 1, -1, -1):
            before = states[row, t - 1] if t > 0 else initial[row]
            now = states[row, t]
            for i in range(dim):
                entering[i] = weight[0, i] * before[1, i] + weight[3, i] * before[0, i] + gates[row, t, i]
                entering[dim + i] = _TWO * (weight[1, i] * before[1, i] + gates[row, t, dim + i])
            sigmoid(entering, opened, exponent, power)
            for i in range(dim):
                entering[i] = weight[2, i] * before[1, i] + weight[4, i] * now[0, i] + gates[row, t, 2 * dim + i]
                entering[dim + i] = _TWO * now[0, i]
            sigmoid(entering, leaving, exponent, power)
            # short loops: with more arrays in one of them it is not made of vector instructions
            for i in range(dim):
                o, g = leaving[i], _TWO * leaving[dim + i] - _ONE
                to_h = arriving[row, t, 1, i] + carry_h[i]
                to_o[i] = to_h * g * o * (_ONE - o)
                to_c[i] = to_h * o * (_ONE - g * g)
            for i in range(dim):
                to_c[i] = to_c[i] + arriving[row, t, 0, i] + carry_c[i] + to_o[i] * weight[4, i]
            for i in range(dim):
                f, z = opened[i], _TWO * opened[dim + i] - _ONE
                to_f[i] = to_c[i] * (before[0, i] - z) * f * (_ONE - f)
                to_z[i] = to_c[i] * (_ONE - f) * (_ONE - z * z)
            for i in range(dim):
                carry_c[i] = to_c[i] * opened[i] + to_f[i] * weight[3, i]
            for i in range(dim):
                carry_h[i] = to_f[i] * weight[0, i] + to_z[i] * weight[1, i] + to_o[i] * weight[2, i]
            for i in range(dim):
                to_gates[row, t, i] = to_f[i]
                to_gates[row, t, dim + i] = to_z[i]
                to_gates[row, t, 2 * dim + i] = to_o[i]
            for i in range(dim):
                sums[0, i] += to_f[i] * before[1, i]
                sums[3, i] += to_f[i] * before[0, i]
            for i in range(dim):
                sums[1, i] += to_z[i] * before[1, i]
            for i in range(dim):
                sums[2, i] += to_o[i] * before[1, i]
                sums[4, i] += to_o[i] * now[0, i]
        to_initial[row, 0] = carry_c
        to_initial[row, 1] = carry_h
        to_weight += sums
