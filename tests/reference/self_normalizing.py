"""Moments of SELU by Gauss-Legendre quadrature on each side of its kink, and dropout by loops, in float64."""

import itertools
import math

import numpy as np

ALPHA, SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946


def selu(z, alpha=ALPHA, scale=SCALE):
    return scale * np.where(z > 0, z, alpha * np.expm1(np.minimum(z, 0)))


def moments(mean, var, weight_sum=0.0, weight_square_sum=1.0, alpha=ALPHA, scale=SCALE, nodes=400):
    """Mean and variance of selu(z), z normal of mean m and variance v, over 14 deviations either side."""
    m, v = mean * weight_sum, var * weight_square_sum
    s = math.sqrt(v)
    x, w = np.polynomial.legendre.leggauss(nodes)
    ends = sorted({m - 14 * s, min(max(0.0, m - 14 * s), m + 14 * s), m + 14 * s})
    first = second = 0.0
    for low, high in itertools.pairwise(ends):
        z = (high - low) / 2 * x + (high + low) / 2
        density = np.exp(-((z - m) ** 2) / (2 * v)) / math.sqrt(2 * math.pi * v) * w * (high - low) / 2
        y = selu(z, alpha, scale)
        first += float((density * y).sum())
        second += float((density * y * y).sum())
    return first, second - first**2


def alpha_dropout(x, kept, p, mean=0.0, var=1.0):
    """One unit after another."""
    bound, q = -ALPHA * SCALE, 1 - p
    a = math.sqrt(var / (q * (p * (bound - mean) ** 2 + var)))
    b = mean - a * (q * mean + p * bound)
    return [a * (value if keep else bound) + b for value, keep in zip(x, kept, strict=True)]
