"""A narrow Elman layer over all steps of sequences, in one compiled loop, on the CPU; see ``gru.py`` beside it."""

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function

from graphseq.ops.activations.sigmoid import sigmoid
from graphseq.ops.processor import arrays, compile_loop
from graphseq.ops.recurrent.gru import known_steps

__all__: list[str] = []

_ONE, _TWO = np.float32(1), np.float32(2)


@compile_loop
def _forward(inputs, sizes, weight, h, before, y, rectified):  # type: ignore[no-untyped-def]
    """Run the recurrence ``h <- f(inputs + weight h)``.

    Args:
        inputs: inputs of the units without those from the state, overwritten (T, D, B).
        sizes: number of sequences that have a step (T,), not increasing.
        weight: weights of the state (D, D).
        h: state before the first step, written with the state after the last one (D, B).
        before: state before each step, written (T, D, B).
        y: state after each step, written (T, D, B).
        rectified: whether f is the rectifier; else the hyperbolic tangent.

    Example:
        >>> state = np.ones((1, 1))
        >>> _forward(np.ones((1, 1, 1)), np.ones(1, np.int64), np.ones((1, 1)), state, *np.empty((2, 1, 1, 1)), True)
        >>> state
        array([[2.]])
    """
    dim, batch = h.shape
    exponent = np.empty(batch, np.int32)
    power = exponent.view(np.float32)
    opened = np.empty(batch, inputs.dtype)
    for t in range(sizes.shape[0]):
        count = sizes[t]
        for k in range(dim):
            for b in range(count):
                before[t, k, b] = h[k, b]
        for j in range(dim):
            row, out, new = inputs[t, j], y[t, j], h[j]
            for k in range(dim):
                factor, column = weight[j, k], before[t, k]
                for b in range(count):
                    row[b] += factor * column[b]
            if rectified:
                for b in range(count):
                    out[b] = 0 if row[b] <= 0 else row[b]  # in this form NaN stays NaN
            else:
                for b in range(count):
                    row[b] = _TWO * row[b]
                sigmoid(row[:count], opened, exponent, power)
                for b in range(count):
                    out[b] = _TWO * opened[b] - _ONE  # tanh x = 2 sigmoid 2 x - 1
            for b in range(count):
                new[b] = out[b]


@compile_loop
def _backward(of_y, sizes, weight, y, arriving, inner, rectified):  # type: ignore[no-untyped-def]
    """Write the gradients of the inputs of the units, and of the first state.

    Args:
        of_y: gradient of the state after each step (T, D, B).
        sizes: number of sequences that have a step (T,).
        weight: weights of the state (D, D).
        y: state after each step (T, D, B).
        arriving: gradient of the last state, written with that of the first (D, B).
        inner: gradient of the inputs of the units, zeros, written where a sequence has a step (T, D, B).
        rectified: whether the units are rectifiers; else hyperbolic tangents.

    Example:
        >>> gradient, inner, one = np.ones((1, 1)), np.zeros((1, 1, 1)), np.ones((1, 1, 1))
        >>> _backward(0 * one, np.ones(1, np.int64), np.full((1, 1), 0.5), 0.5 * one, gradient, inner, False)
        >>> inner.flatten(), gradient
        (array([0.75]), array([[0.375]]))
    """
    dim = arriving.shape[0]
    for t in range(sizes.shape[0] - 1, -1, -1):
        count = sizes[t]
        for i in range(dim):
            total, here, new, out = arriving[i], of_y[t, i], y[t, i], inner[t, i]
            if rectified:
                for b in range(count):
                    out[b] = 0 if new[b] <= 0 else total[b] + here[b]
            else:
                for b in range(count):
                    out[b] = (total[b] + here[b]) * (_ONE - new[b] * new[b])
            for b in range(count):
                total[b] = 0
        for j in range(dim):
            row = inner[t, j]
            for k in range(dim):
                factor, total = weight[j, k], arriving[k]
                for b in range(count):
                    total[b] += factor * row[b]


class _ElmanLayer(Function):
    @staticmethod
    def forward(
        ctx: Any, rectified: bool, sizes: Tensor, x: Tensor, state: Tensor, weight_ih: Tensor, weight_hh: Tensor,
        bias_ih: Tensor, bias_hh: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        (steps, _, batch), dim = x.shape, state.shape[1]
        inputs = weight_ih @ x + (bias_ih + bias_hh)[:, None]  # (T, D, B)
        h = state.t().clone(memory_format=torch.contiguous_format)
        before, y = x.new_empty(steps, dim, batch), x.new_zeros(steps, dim, batch)
        _forward(*arrays(inputs, sizes, weight_hh, h, before, y), rectified)
        ctx.rectified = rectified
        ctx.save_for_backward(sizes, x, weight_ih, weight_hh, before, y)
        return y, h.t()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError("a recurrent layer on the CPU cannot be differentiated twice (create_graph=True)")
        of_y, of_last = gradients
        sizes, x, weight_ih, weight_hh, before, y = ctx.saved_tensors
        arriving, inner = of_last.t().clone(memory_format=torch.contiguous_format), torch.zeros_like(y)
        _backward(*arrays(of_y, sizes, weight_hh, y, arriving, inner), ctx.rectified)
        rows = inner.transpose(0, 1).flatten(1)  # (D, T B)
        states = before.masked_fill(~known_steps(sizes)[:, None], 0).transpose(0, 1).flatten(1)
        of_bias = rows.sum(1)
        of_x = weight_ih.t() @ inner if ctx.needs_input_grad[2] else None
        of_weight = rows @ x.transpose(0, 1).flatten(1).t()
        return None, None, of_x, arriving.t(), of_weight, rows @ states.t(), of_bias, of_bias


def elman_layer(
    rectified: bool,
    sizes: Tensor,
    x: Tensor,
    state: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor,
    bias_hh: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return the outputs (T, H, B) of a layer, 0 where a sequence has no step, and its last state (B, H).

    Args:
        rectified: whether units are rectifiers; else hyperbolic tangents.
        sizes: number of sequences that have a step, not increasing, int64 (T,).
        x: inputs (T, D, B), finite where a sequence has no step.
        state: state before the first step (B, H).
        weight_ih: weights of the inputs (H, D).
        weight_hh: weights of the state (H, H).
        bias_ih: biases of the inputs (H,).
        bias_hh: biases of the state (H,).
    """
    given = (rectified, sizes, x, state, weight_ih, weight_hh, bias_ih, bias_hh)
    return cast("tuple[Tensor, Tensor]", _ElmanLayer.apply(*given))
