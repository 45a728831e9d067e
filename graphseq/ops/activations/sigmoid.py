"""The logistic function as part of compiled loops."""

import math

import numpy as np

from graphseq.ops.activations.polynomials import coefficients
from graphseq.ops.processor import inline_loop

__all__: list[str] = []

# 2^x for x in [-1/2, 1/2] as a polynomial (error 1e-7)
_E0, _E1, _E2, _E3, _E4, _E5, _E6 = coefficients(np.exp2, 6, -0.5, 0.5)
_HALF, _ONE = np.float32(0.5), np.float32(1)
_LOG2_E = np.float32(1 / math.log(2))
_HIGHEST = np.float32(126)  # powers of 2 whose inverse float32 can hold too


@inline_loop
def sigmoid(x, y, exponent, power):  # type: ignore[no-untyped-def]
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
