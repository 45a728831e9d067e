"""Compiled loops of memory networks: encoded times, attention over neighbours, gates of the update of memories.

Arguments are C-contiguous arrays of one type, float32 or float64; times are float64, and phases are counted in float64:
raw seconds times a frequency leave no digits for the angle in float32.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.polynomial import Chebyshev, Polynomial

from graphseq.ops.processor import compile_loop, inline_loop

__all__: list[str] = []


def _coefficients(function: Callable[[Any], Any], degree: int, low: float, high: float) -> list[np.float32]:
    """Return the coefficients of the polynomial through a function at Chebyshev's points, lowest power first."""
    fitted = Chebyshev.interpolate(function, degree, [low, high]).convert(kind=Polynomial)
    return [np.float32(value) for value in fitted.coef]


# With u in [-1/2, 1/2] turns and v = |u| - 1/4: cos 2 pi u = -sin 2 pi v and sin 2 pi |u| = cos 2 pi v, and both are
# short polynomials of v^2 (error 1e-7).
_S0, _S1, _S2, _S3, _S4, _S5 = _coefficients(lambda s: math.tau * np.sinc(2 * np.sqrt(np.abs(s))), 5, 0, 1 / 16)
_C0, _C1, _C2, _C3, _C4, _C5 = _coefficients(lambda s: np.cos(math.tau * np.sqrt(np.abs(s))), 5, 0, 1 / 16)
_E0, _E1, _E2, _E3, _E4, _E5, _E6 = _coefficients(np.exp2, 6, -0.5, 0.5)
_QUARTER, _HALF, _ZERO, _ONE, _TWO = (np.float32(value) for value in (0.25, 0.5, 0, 1, 2))
_LOG2_E = np.float32(1 / math.log(2))
_HIGHEST = np.float32(126)  # powers of 2 whose inverse float32 can hold too
_TURN = math.tau


@inline_loop
def _encode(elapsed, frequency, phase, turns, cosine, sine):  # type: ignore[no-untyped-def]
    """Write cosine and sine of one time; ``frequency`` and ``phase`` in turns, ``turns`` is room to work in."""
    for i in range(frequency.shape[0]):
        angle = elapsed * frequency[i] + phase[i]
        turns[i] = angle - np.floor(angle + 0.5)
    if turns.itemsize == 4:
        for i in range(frequency.shape[0]):
            u = turns[i]
            v = abs(u) - _QUARTER
            s = v * v
            cosine[i] = -v * (_S0 + s * (_S1 + s * (_S2 + s * (_S3 + s * (_S4 + s * _S5)))))
            above = _C0 + s * (_C1 + s * (_C2 + s * (_C3 + s * (_C4 + s * _C5))))
            sine[i] = -above if u < _ZERO else above
    else:
        for i in range(frequency.shape[0]):
            cosine[i] = math.cos(_TURN * turns[i])
            sine[i] = math.sin(_TURN * turns[i])


@inline_loop
def _sigmoid(x, y, exponent, power):  # type: ignore[no-untyped-def]
    """Write 1 / (1 + exp(-x)) to ``y``; ``exponent`` int32 and ``power`` float32 are the same memory, to work in."""
    if y.itemsize == 4:
        for i in range(x.shape[0]):
            a = -_LOG2_E * x[i]
            a = _HIGHEST if a > _HIGHEST else a  # in this form NaN stays NaN
            a = -_HIGHEST if a < -_HIGHEST else a
            whole = np.floor(a + _HALF)
            r = a - whole
            y[i] = _E0 + r * (_E1 + r * (_E2 + r * (_E3 + r * (_E4 + r * (_E5 + r * _E6)))))
            exponent[i] = (np.int32(whole) + np.int32(127)) << np.int32(23)  # the bits of 2 to that power
        for i in range(x.shape[0]):
            y[i] = _ONE / (_ONE + y[i] * power[i])
    else:
        for i in range(x.shape[0]):
            y[i] = 1 / (1 + math.exp(-x[i]))


@inline_loop
def _dot(a, b):  # type: ignore[no-untyped-def]
    total = _ZERO
    for i in range(a.shape[0]):
        total += a[i] * b[i]
    return total


@inline_loop
def _add(factor, x, y):  # type: ignore[no-untyped-def]
    for i in range(x.shape[0]):
        y[i] += factor * x[i]


@inline_loop
def _add_two(factor, x, other, y, target):  # type: ignore[no-untyped-def]
    """Add multiples of the first entries of two rows."""
    for i in range(target.shape[0]):
        target[i] += factor * x[i] + other * y[i]


@compile_loop
def encode_times(elapsed, weight, bias, cosine, sine):  # type: ignore[no-untyped-def]
    """Write cos(dt w + b) and sin(dt w + b).

    Args:
        elapsed: times dt (N,), float64.
        weight: frequencies w (T,).
        bias: phases b (T,).
        cosine: written (N, T).
        sine: written (N, T).

    Example:
        >>> cosine, sine = np.empty((2, 1, 3))
        >>> encode_times(np.zeros(1), np.ones(3), np.zeros(3), cosine, sine)
        >>> cosine
        array([[1., 1., 1.]])
    """
    frequency, phase = weight.astype(np.float64) / _TURN, bias.astype(np.float64) / _TURN
    turns = np.empty_like(weight)
    for row in range(elapsed.shape[0]):
        _encode(elapsed[row], frequency, phase, turns, cosine[row], sine[row])


@compile_loop
def sum_time_slopes(gradient, sine, elapsed, to_weight, to_bias):  # type: ignore[no-untyped-def]
    """Add the gradients of frequencies and phases, from that of the cosines.

    Args:
        gradient: of the cosines (N, T).
        sine: what :func:`encode_times` wrote (N, T).
        elapsed: times (N,), float64.
        to_weight: float64, added to (T,).
        to_bias: float64, added to (T,).

    Example:
        >>> to_weight, to_bias = np.zeros((2, 3))
        >>> sum_time_slopes(np.ones((2, 3)), np.ones((2, 3)), np.full(2, 5.0), to_weight, to_bias)
        >>> to_weight, to_bias
        (array([-10., -10., -10.]), array([-2., -2., -2.]))
    """
    for row in range(elapsed.shape[0]):
        dt = elapsed[row]
        for i in range(sine.shape[1]):
            slope = gradient[row, i] * sine[row, i]
            to_weight[i] -= slope * dt
            to_bias[i] -= slope


@compile_loop
def attend(query, z, neighbor, elapsed, msg, mask, later, lookup, dropout, weight, bias, sums, share, kept):  # type: ignore[no-untyped-def]
    """Write the sums of :func:`graphseq.nn.neighbor_attention`, heads first, and the softmax before and after dropout.

    Args:
        query: (H, R, F).
        z: (U, D).
        neighbor: int64 (R, K).
        elapsed: float64 (R, K).
        msg: (R, K, D_e).
        mask: bool (R, K).
        later: what is added to the times of each row, float64 (S,).
        lookup: which query and neighbours each row has, int64 (S,).
        dropout: multiplies the softmax (S, H, K).
        weight: frequencies (T,).
        bias: phases (T,).
        sums: written (H, S, F + 1).
        share: written, zeros where there is no neighbour (S, H, K).
        kept: written, as ``share`` (S, H, K).

    Example:
        >>> one, sums, share = np.ones((1, 1)), np.empty((1, 1, 4)), np.empty((1, 1, 1))
        >>> z, times, row = np.array([[3.0, 5.0]]), np.zeros((1, 1)), np.zeros(1, np.int64)
        >>> attend(np.ones((1, 1, 3)), z, row[None], times, np.empty((1, 1, 0)), one > 0, times[0], row, one[None],
        ...     one[0], times[0], sums, share, share.copy())
        >>> sums
        array([[[3., 5., 1., 1.]]])
    """
    heads, width = query.shape[0], query.shape[2]
    places, dim, channels = neighbor.shape[1], z.shape[1], msg.shape[2]
    frequency, phase = weight.astype(np.float64) / _TURN, bias.astype(np.float64) / _TURN
    turns, sine = np.empty_like(weight), np.empty_like(weight)
    keys = np.empty((places, width), query.dtype)
    for row in range(lookup.shape[0]):
        root = lookup[row]
        if root < 0 or root >= query.shape[1]:
            raise IndexError("a seat is at no root")
        for k in range(places):
            if mask[root, k]:
                if neighbor[root, k] < 0 or neighbor[root, k] >= z.shape[0]:
                    raise IndexError("a neighbour is no row of z")
                keys[k, :dim] = z[neighbor[root, k]]
                keys[k, dim : dim + channels] = msg[root, k]
                _encode(elapsed[root, k] + later[row], frequency, phase, turns, keys[k, dim + channels :], sine)
        for h in range(heads):
            highest = -np.inf
            for k in range(places):
                if mask[root, k]:
                    share[row, h, k] = _dot(query[h, root], keys[k])
                    highest = max(highest, share[row, h, k])
            total = _ZERO
            for k in range(places):
                if mask[root, k]:
                    share[row, h, k] = math.exp(share[row, h, k] - highest)
                    total += share[row, h, k]
                else:
                    share[row, h, k] = 0
            sums[h, row, :] = 0
            for k in range(places):
                kept[row, h, k] = 0
                if mask[root, k]:
                    share[row, h, k] /= total
                    kept[row, h, k] = share[row, h, k] * dropout[row, h, k]
                    _add(kept[row, h, k], keys[k], sums[h, row, :width])
                    sums[h, row, width] += kept[row, h, k]


@compile_loop
def attend_backward(  # type: ignore[no-untyped-def]
    gradient, query, z, neighbor, elapsed, msg, mask, later, lookup, weight, bias, share, kept,
    to_query, to_z, to_weight, to_bias,
):  # fmt: skip
    """Add the gradients of queries, memories, frequencies and phases, from that of the sums of :func:`attend`.

    Args:
        gradient: of the sums (H, S, F + 1).
        query: as there.
        z: as there.
        neighbor: as there.
        elapsed: as there.
        msg: as there.
        mask: as there.
        later: as there.
        lookup: as there.
        weight: as there.
        bias: as there.
        share: as written there.
        kept: as written there.
        to_query: added to (H, R, F).
        to_z: added to (U, D).
        to_weight: float64, added to (T,).
        to_bias: float64, added to (T,).

    Example:
        >>> one, row, times = np.ones((1, 1, 1)), np.zeros(1, np.int64), np.zeros((1, 1))
        >>> to_query, to_z, to_time = np.zeros((1, 1, 2)), np.zeros((1, 1)), np.zeros(1)
        >>> attend_backward(np.ones((1, 1, 3)), np.ones((1, 1, 2)), one[0], row[None], times, np.empty((1, 1, 0)),
        ...     one[0] > 0, times[0], row, one[0, 0], times[0], one, one, to_query, to_z, to_time, to_time)
        >>> to_z
        array([[1.]])
    """
    heads, width = query.shape[0], query.shape[2]
    places, dim, channels = neighbor.shape[1], z.shape[1], msg.shape[2]
    before = dim + channels
    frequency, phase = weight.astype(np.float64) / _TURN, bias.astype(np.float64) / _TURN
    turns, slope = np.empty_like(weight), np.empty_like(weight)
    of_weight, of_bias = np.empty_like(weight), np.empty_like(weight)  # of one row: short sums in the short type
    moment = np.empty(1, weight.dtype)
    keys, sine = np.empty((places, width), query.dtype), np.empty((places, weight.shape[0]), query.dtype)
    to_logit = np.empty((heads, places), query.dtype)
    for row in range(lookup.shape[0]):
        root = lookup[row]
        for k in range(places):
            if mask[root, k]:
                keys[k, :dim] = z[neighbor[root, k]]
                keys[k, dim:before] = msg[root, k]
                _encode(elapsed[root, k] + later[row], frequency, phase, turns, keys[k, before:], sine[k])
        for h in range(heads):
            total = _ZERO
            for k in range(places):
                if mask[root, k]:
                    to_kept = gradient[h, row, width] + _dot(gradient[h, row, :width], keys[k])
                    to_logit[h, k] = to_kept * kept[row, h, k]
                    total += to_logit[h, k]
            for k in range(places):
                if mask[root, k]:
                    to_logit[h, k] -= share[row, h, k] * total
                    _add(to_logit[h, k], keys[k], to_query[h, root])
        of_weight[:], of_bias[:] = 0, 0
        for k in range(places):
            if mask[root, k]:
                # a neighbour is reached as a key and as a value
                target, slope[:] = to_z[neighbor[root, k]], 0
                for h in range(heads):
                    as_value, as_key = kept[row, h, k], to_logit[h, k]
                    _add_two(as_value, gradient[h, row], as_key, query[h, root], target)
                    _add_two(as_value, gradient[h, row, before:], as_key, query[h, root, before:], slope)
                moment[0] = elapsed[root, k] + later[row]
                dt = moment[0]
                for i in range(slope.shape[0]):
                    part = slope[i] * sine[k, i]
                    of_weight[i] += part * dt
                    of_bias[i] += part
        for i in range(slope.shape[0]):
            to_weight[i] -= of_weight[i]
            to_bias[i] -= of_bias[i]


@compile_loop
def gate_memories(gates, own, candidate, new):  # type: ignore[no-untyped-def]
    """Write what a gated recurrent unit makes of the inputs of its gates.

    Args:
        gates: inputs of reset gate and update gate, then the two parts of the candidate's, of which the reset gate
            multiplies the second; overwritten with the gates where they are (U, 4 D).
        own: memories (U, D).
        candidate: written (U, D).
        new: memories after the update, written (U, D).

    Example:
        >>> candidate, new = np.empty((2, 1, 1))
        >>> gate_memories(np.zeros((1, 4)), np.ones((1, 1)), candidate, new)
        >>> new
        array([[0.5]])
    """
    dim = own.shape[1]
    exponent = np.empty(2 * dim, np.int32)
    power = exponent.view(np.float32)
    opened, entering = np.empty(2 * dim, gates.dtype), np.empty(dim, gates.dtype)
    for row in range(own.shape[0]):
        _sigmoid(gates[row, : 2 * dim], opened, exponent, power)  # not in place: such a loop stays scalar
        gates[row, : 2 * dim] = opened
        for i in range(dim):
            entering[i] = _TWO * (gates[row, 2 * dim + i] + opened[i] * gates[row, 3 * dim + i])
        _sigmoid(entering, candidate[row], exponent, power)
        for i in range(dim):
            candidate[row, i] = _TWO * candidate[row, i] - _ONE  # tanh x = 2 sigmoid 2 x - 1
            new[row, i] = candidate[row, i] + gates[row, dim + i] * (own[row, i] - candidate[row, i])


@compile_loop
def gate_memories_backward(gradient, gates, own, candidate, to_inputs):  # type: ignore[no-untyped-def]
    """Write the gradients of the inputs of the gates, in the order of :func:`gate_memories`.

    Args:
        gradient: of the new memories (U, D).
        gates: as written there (U, 4 D).
        own: memories (U, D).
        candidate: as written there (U, D).
        to_inputs: written (U, 4 D).

    Example:
        >>> to_inputs = np.empty((1, 4))
        >>> gate_memories_backward(np.ones((1, 1)), np.full((1, 4), 0.5), np.ones((1, 1)), np.zeros((1, 1)), to_inputs)
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
