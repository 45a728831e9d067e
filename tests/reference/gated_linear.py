"""Gated linear attention of one head as a sum over pairs of steps, with the product of the gates between them."""

import torch


def outputs_and_state(q, k, v, alpha, state=None, scale=None):
    """Outputs (T, V) and state (K, V) from q, k, gates (T, K), v (T, V) and the state before the first step."""
    steps, width = q.shape
    scale = width**-0.5 if scale is None else scale
    out = []
    for t in range(steps):
        total = torch.zeros(v.shape[1], dtype=v.dtype)
        for s in range(t + 1):
            kept = torch.ones(width, dtype=v.dtype)
            for r in range(s + 1, t + 1):
                kept = kept * alpha[r]
            total = total + (q[t] * k[s] * kept).sum() * v[s]
        if state is not None:
            total = total + (q[t] * alpha[: t + 1].prod(0)) @ state
        out.append(scale * total)
    last = torch.zeros(width, v.shape[1], dtype=v.dtype) if state is None else alpha.prod(0)[:, None] * state
    for s in range(steps):
        last = last + (k[s] * alpha[s + 1 :].prod(0))[:, None] * v[s]
    return torch.stack(out), last


def factorised(q, k, v, g):
    """The parallel form as a product of two scaled matrices, which overflows where the gates are small."""
    b = g.cumsum(-2)
    scores = (q * b.exp()) @ (k * (-b).exp()).mT * q.shape[-1] ** -0.5
    return scores.tril() @ v
