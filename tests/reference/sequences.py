"""Sequences by plain loops: padding, windows, recurrent cells in float64, perplexity. Imports nothing of graphseq."""

import math


def pad_rows(rows, pad):
    """Rows of different lengths as a rectangle, padded on the right."""
    width = max(len(row) for row in rows)
    return [list(row) + [pad] * (width - len(row)) for row in rows]


def windows(tokens, length, stride):
    """Windows of length inputs and one more token, until the last token has been a target."""
    out, start = [], 0
    while True:
        out.append(tokens[start : start + length + 1])
        if start + length >= len(tokens) - 1:
            return out
        start += stride


def sigmoid(value):
    return 1 / (1 + math.exp(-value))


def affine(weight, bias, vector):
    return [sum(w * v for w, v in zip(row, vector, strict=True)) + b for row, b in zip(weight, bias, strict=True)]


def recurrent(cell, weights, xs):
    """Outputs of one layer over one sequence; ``weights`` is (W_ih, W_hh, b_ih, b_hh) as torch has them."""
    w_ih, w_hh, b_ih, b_hh = weights
    size = len(w_hh[0])
    h, c, out = [0.0] * size, [0.0] * size, []
    for x in xs:
        a, r = affine(w_ih, b_ih, x), affine(w_hh, b_hh, h)
        if cell == "rnn":
            h = [math.tanh(a[k] + r[k]) for k in range(size)]
        elif cell == "gru":
            new = []
            for k in range(size):
                reset = sigmoid(a[k] + r[k])
                update = sigmoid(a[size + k] + r[size + k])
                candidate = math.tanh(a[2 * size + k] + reset * r[2 * size + k])
                new.append((1 - update) * candidate + update * h[k])
            h = new
        else:
            gate = [a[k] + r[k] for k in range(4 * size)]
            c = [sigmoid(gate[size + k]) * c[k] + sigmoid(gate[k]) * math.tanh(gate[2 * size + k]) for k in range(size)]
            h = [sigmoid(gate[3 * size + k]) * math.tanh(c[k]) for k in range(size)]
        out.append(h)
    return out


def negative_log_likelihoods(rows, targets, ignored=-100):
    """-log softmax of each target, for rows of logits; ignored ones are left out."""
    out = []
    for logits, target in zip(rows, targets, strict=True):
        if target == ignored:
            continue
        top = max(logits)
        out.append(top + math.log(sum(math.exp(value - top) for value in logits)) - logits[target])
    return out


def perplexity(rows, targets, ignored=-100):
    terms = negative_log_likelihoods(rows, targets, ignored)
    return math.exp(sum(terms) / len(terms))
