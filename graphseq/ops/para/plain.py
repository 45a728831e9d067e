"""Cells whose state-to-state weights are diagonal, and their Jacobians, as the equations have them.

All functions work on any leading axes, so that one call covers one step or all of them.
"""

import torch
from torch import Tensor

__all__: list[str] = []


def gru(state: Tensor, gates: Tensor, weight: Tensor) -> Tensor:
    """Return the next state (..., D) of the cell of :func:`graphseq.ops.para_gru`.

    Args:
        state: h (..., D).
        gates: inputs of the gates z, r and n (..., 3 D).
        weight: diagonals of the gates z, r and n (3, D).
    """
    z, _, n = _gru_gates(state, gates, weight)
    return state + z * (n - state)


def _gru_gates(h: Tensor, gates: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    zx, rx, nx = gates.chunk(3, -1)
    z, r = torch.sigmoid(weight[0] * h + zx), torch.sigmoid(weight[1] * h + rx)
    return z, r, torch.tanh(weight[2] * h * r + nx)


def gru_jacobian(state: Tensor, gates: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the next state and its derivative by the state, both (..., D).

    Args:
        state: h (..., D).
        gates: inputs of the gates z, r and n (..., 3 D).
        weight: diagonals of the gates z, r and n (3, D).
    """
    z, r, n = _gru_gates(state, gates, weight)
    difference = n - state
    through_reset = weight[2] * r * (1 + state * (1 - r) * weight[1])
    slope = z * (difference * (1 - z) * weight[0] + (1 - n * n) * through_reset - 1) + 1
    return state + z * difference, slope


def lstm(state: Tensor, gates: Tensor, weight: Tensor) -> Tensor:
    """Return the next state (..., 2, D), cell and output, of the cell of :func:`graphseq.ops.para_lstm`.

    Args:
        state: c and h (..., 2, D).
        gates: inputs of the gates f, z and o (..., 3 D).
        weight: diagonals from h to f, z and o, then those from c to f and o (5, D).
    """
    c, h = state.unbind(-2)
    fx, zx, ox = gates.chunk(3, -1)
    f, z = torch.sigmoid(weight[0] * h + weight[3] * c + fx), torch.tanh(weight[1] * h + zx)
    c = z + f * (c - z)
    o = torch.sigmoid(weight[2] * h + weight[4] * c + ox)
    return torch.stack([c, o * torch.tanh(c)], -2)


def lstm_jacobian(state: Tensor, gates: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the next state (..., 2, D) and its derivative by the state, blocks (..., 2, 2, D).

    Args:
        state: c and h (..., 2, D).
        gates: inputs of the gates f, z and o (..., 3 D).
        weight: diagonals from h to f, z and o, then those from c to f and o (5, D).
    """
    c, h = state.unbind(-2)
    fx, zx, ox = gates.chunk(3, -1)
    f, z = torch.sigmoid(weight[0] * h + weight[3] * c + fx), torch.tanh(weight[1] * h + zx)
    opening = (c - z) * f * (1 - f)
    new = z + f * (c - z)
    o, g = torch.sigmoid(weight[2] * h + weight[4] * new + ox), torch.tanh(new)
    c_by_c = f + opening * weight[3]
    c_by_h = opening * weight[0] + (1 - f) * (1 - z * z) * weight[1]
    reading = g * o * (1 - o)
    h_by_new = reading * weight[4] + o * (1 - g * g)
    h_by_c = h_by_new * c_by_c
    h_by_h = h_by_new * c_by_h + reading * weight[2]
    jacobian = torch.stack([torch.stack([c_by_c, c_by_h], -2), torch.stack([h_by_c, h_by_h], -2)], -3)
    return torch.stack([new, o * g], -2), jacobian
