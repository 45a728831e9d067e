"""Softmax attention by loops over heads and steps; rotary positions as products of complex numbers."""

import cmath
import math


def rotated(x, position, base=10_000.0):
    """Rotate the pairs (i, i + K / 2) of a list of K channels."""
    half = len(x) // 2
    turned = [complex(x[i], x[i + half]) * cmath.exp(1j * position * base ** (-i / half)) for i in range(half)]
    return [z.real for z in turned] + [z.imag for z in turned]


def attention(queries, keys, values, visible, turn=lambda x, position: x):
    """Return the outputs of one head; ``visible(t, s)`` says whether step t reads step s."""
    outputs = []
    for t, q in enumerate(queries):
        read = [s for s in range(len(keys)) if visible(t, s)]
        scores = [
            sum(a * b for a, b in zip(turn(q, t), turn(keys[s], s), strict=True)) / math.sqrt(len(q)) for s in read
        ]
        top = max(scores)
        weights = [math.exp(score - top) for score in scores]
        total = sum(weights)
        outputs.append(
            [sum(w * values[s][c] for w, s in zip(weights, read, strict=True)) / total for c in range(len(values[0]))]
        )
    return outputs
