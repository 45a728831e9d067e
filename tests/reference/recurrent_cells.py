"""Cells of recurrent networks, one number at a time. Imports nothing of graphseq."""

import math

from tests.reference.sequences import affine, sigmoid


def classical_lstm(weights, peephole, xs, forget_gate, h=None, c=None):
    """Outputs of one sequence and the last state; gates are i, f, g, o, or i, g, o."""
    w_ih, w_hh, b_ih, b_hh = weights
    size = len(w_hh[0])
    h, c, out = h or [0.0] * size, c or [0.0] * size, []
    names = "ifgo" if forget_gate else "igo"
    for x in xs:
        a, r = affine(w_ih, b_ih, x), affine(w_hh, b_hh, h)
        part = {name: [a[g * size + k] + r[g * size + k] for k in range(size)] for g, name in enumerate(names)}
        see = dict(zip("ifo" if forget_gate else "io", peephole or [[0.0] * size] * 3, strict=False))
        new_c, new_h = [], []
        for k in range(size):
            i = sigmoid(part["i"][k] + see["i"][k] * c[k])
            f = sigmoid(part["f"][k] + see["f"][k] * c[k]) if forget_gate else 1.0
            new_c.append(f * c[k] + i * math.tanh(part["g"][k]))
            o = sigmoid(part["o"][k] + see["o"][k] * new_c[k])
            new_h.append(o * math.tanh(new_c[k]))
        h, c = new_h, new_c
        out.append(h)
    return out, h, c


def jordan(input_layer, recurrent, output_layer, xs, decay, targets=None):
    """Outputs of one sequence and the last state; ``targets`` take the place of the outputs in the state."""
    state, out = [0.0] * len(recurrent[0]), []
    for t, x in enumerate(xs):
        a = affine(*input_layer, x)
        fed = [sum(w * s for w, s in zip(row, state, strict=True)) for row in recurrent]
        y = affine(*output_layer, [math.tanh(p + q) for p, q in zip(a, fed, strict=True)])
        out.append(y)
        back = y if targets is None else targets[t]
        state = [decay * s + v for s, v in zip(state, back, strict=True)]
    return out, state
