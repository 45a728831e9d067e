"""Compiled loops of encoded times.

Times are float64 and phases are counted in float64: raw seconds times a frequency leave no digits for the angle in
float32.
"""

import math

import numpy as np
import torch
from torch import Tensor

from graphseq.ops.activations.polynomials import coefficients
from graphseq.ops.processor import arrays, compile_loop, inline_loop

__all__: list[str] = []

TURN = math.tau


# With u in [-1/2, 1/2] turns and v = |u| - 1/4: cos 2 pi u = -sin 2 pi v and sin 2 pi |u| = cos 2 pi v, and both are
# short polynomials of v^2 (error 1e-7).
_S0, _S1, _S2, _S3, _S4, _S5 = coefficients(lambda s: math.tau * np.sinc(2 * np.sqrt(np.abs(s))), 5, 0, 1 / 16)
_C0, _C1, _C2, _C3, _C4, _C5 = coefficients(lambda s: np.cos(math.tau * np.sqrt(np.abs(s))), 5, 0, 1 / 16)
_QUARTER, _ZERO = np.float32(0.25), np.float32(0)


def cosines_and_sines(dt: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cosine and the sine of ``dt * weight + bias``, without gradient: (N,), (D,), (D,) -> (N, D) twice."""
    cosine, sine = (torch.empty(len(dt), len(weight), dtype=weight.dtype) for _ in range(2))
    _write_cosines_and_sines(*arrays(dt.double(), weight, bias, cosine, sine))
    return cosine, sine


def gradients(gradient: Tensor, sine: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of ``weight`` and ``bias`` from the gradient of the cosines (N, D)."""
    total = torch.zeros(2, sine.shape[1], dtype=torch.float64)
    _sum_gradients(*arrays(gradient, sine, dt.double(), *total))
    to_weight, to_bias = total.to(sine.dtype)
    return to_weight, to_bias


@inline_loop
def encode_row(elapsed, frequency, phase, turns, cosine, sine):  # type: ignore[no-untyped-def]
    """Write cosines and sines of one time; ``frequency`` and ``phase`` count turns, ``turns`` is working memory."""
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
            cosine[i] = math.cos(TURN * turns[i])
            sine[i] = math.sin(TURN * turns[i])


@compile_loop
def _write_cosines_and_sines(elapsed, weight, bias, cosine, sine):  # type: ignore[no-untyped-def]
    """Write cos(dt w + b) and sin(dt w + b).

    Args:
        elapsed: times dt (N,), float64.
        weight: frequencies w (T,).
        bias: phases b (T,).
        cosine: cosines, written (N, T).
        sine: sines, written (N, T).

    Example:
        >>> cosine, sine = np.empty((2, 1, 3))
        >>> _write_cosines_and_sines(np.zeros(1), np.ones(3), np.zeros(3), cosine, sine)
        >>> cosine
        array([[1., 1., 1.]])
    """
    frequency, phase = weight.astype(np.float64) / TURN, bias.astype(np.float64) / TURN
    turns = np.empty_like(weight)
    for row in range(elapsed.shape[0]):
        encode_row(elapsed[row], frequency, phase, turns, cosine[row], sine[row])


@compile_loop
def _sum_gradients(gradient, sine, elapsed, to_weight, to_bias):  # type: ignore[no-untyped-def]
    """Add the gradients of frequencies and phases, from that of the cosines.

    Args:
        gradient: gradient of the cosines (N, T).
        sine: sines that :func:`_write_cosines_and_sines` wrote (N, T).
        elapsed: times (N,), float64.
        to_weight: gradient of the frequencies, float64, added to (T,).
        to_bias: gradient of the phases, float64, added to (T,).

    Example:
        >>> to_weight, to_bias = np.zeros((2, 3))
        >>> _sum_gradients(np.ones((2, 3)), np.ones((2, 3)), np.full(2, 5.0), to_weight, to_bias)
        >>> to_weight, to_bias
        (array([-10., -10., -10.]), array([-2., -2., -2.]))
    """
    for row in range(elapsed.shape[0]):
        dt = elapsed[row]
        for i in range(sine.shape[1]):
            slope = gradient[row, i] * sine[row, i]
            to_weight[i] -= slope * dt
            to_bias[i] -= slope
