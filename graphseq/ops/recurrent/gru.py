"""A narrow gated recurrent layer over all steps of sequences, in one compiled loop, on the CPU.

Torch's own loop takes a dozen operations a step, and several dozen for gradients; with few units each of them does
almost nothing. Here numbers of a unit lie side by side over the batch, (steps, units, batch), so that the loops over
the batch are vector instructions. Wide layers are left to matrix products, which these loops are not as fast as.
"""

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function

from graphseq.ops.activations.sigmoid import sigmoid
from graphseq.ops.processor import arrays, compile_loop

__all__: list[str] = []

_ONE, _TWO = np.float32(1), np.float32(2)

WIDEST = 32
"""Number of units up to which the compiled loop is faster than torch's products, by measurement."""


def known_steps(sizes: Tensor) -> Tensor:
    """Return which sequences have a step, bool (T, B).

    Args:
        sizes: number of sequences that have a step, not increasing, the first B, int64 (T,).
    """
    return torch.arange(int(sizes[0])) < sizes[:, None]


@compile_loop
def _forward(gates, sizes, weight, h, before, candidate, y):  # type: ignore[no-untyped-def]
    """Run the recurrence, with inputs and gates as :func:`graphseq.ops.gru.compiled._gate` orders them.

    Args:
        gates: inputs of the gates without those from the state; the gates overwrite their inputs (T, 4 D, B).
        sizes: number of sequences that have a step (T,), not increasing.
        weight: weights of the state, of both gates and of the second part of the candidate's input (3 D, D).
        h: state before the first step, written with the state after the last one (D, B).
        before: state before each step, written (T, D, B).
        candidate: candidate for the new state, written (T, D, B).
        y: state after each step, written (T, D, B).

    Example:
        >>> state = np.ones((1, 1))
        >>> _forward(np.zeros((1, 4, 1)), np.ones(1, np.int64), np.zeros((3, 1)), state, *np.empty((3, 1, 1, 1)))
        >>> state
        array([[0.5]])
    """
    dim, batch = h.shape
    exponent = np.empty(batch, np.int32)
    power = exponent.view(np.float32)
    opened, entering = np.empty(batch, gates.dtype), np.empty(batch, gates.dtype)
    for t in range(sizes.shape[0]):
        count = sizes[t]
        for k in range(dim):
            for b in range(count):
                before[t, k, b] = h[k, b]
        for j in range(3 * dim):
            row = gates[t, j if j < 2 * dim else dim + j]
            for k in range(dim):
                factor, column = weight[j, k], before[t, k]
                for b in range(count):
                    row[b] += factor * column[b]
        for j in range(2 * dim):
            sigmoid(gates[t, j, :count], opened, exponent, power)  # not in place: such a loop stays scalar
            for b in range(count):
                gates[t, j, b] = opened[b]
        for i in range(dim):
            reset, update = gates[t, i], gates[t, dim + i]
            first, second = gates[t, 2 * dim + i], gates[t, 3 * dim + i]
            for b in range(count):
                entering[b] = _TWO * (first[b] + reset[b] * second[b])
            sigmoid(entering[:count], opened, exponent, power)
            old, new, out = h[i], candidate[t, i], y[t, i]
            for b in range(count):
                new[b] = _TWO * opened[b] - _ONE  # tanh x = 2 sigmoid 2 x - 1
                out[b] = new[b] + update[b] * (old[b] - new[b])
            for b in range(count):
                old[b] = out[b]


@compile_loop
def _backward(of_y, sizes, weight, gates, before, candidate, arriving, inner):  # type: ignore[no-untyped-def]
    """Write the gradients of the inputs of the gates, and of the first state.

    Args:
        of_y: gradient of the state after each step (T, D, B).
        sizes: number of sequences that have a step (T,).
        weight: weights of the state (3 D, D).
        gates: gates and the two parts of the candidate's input, as :func:`_forward` left them (T, 4 D, B).
        before: state before each step (T, D, B).
        candidate: candidate of each step (T, D, B).
        arriving: gradient of the last state, written with that of the first (D, B).
        inner: gradient of the inputs of the gates, zeros, written where a sequence has a step (T, 4 D, B).

    Example:
        >>> gradient, inner = np.ones((1, 1)), np.zeros((1, 4, 1))
        >>> given = np.zeros((1, 1, 1)), np.ones(1, np.int64), np.zeros((3, 1))
        >>> _backward(*given, np.full((1, 4, 1), 0.5), np.ones((1, 1, 1)), np.zeros((1, 1, 1)), gradient, inner)
        >>> inner.flatten(), gradient
        (array([0.0625, 0.25  , 0.5   , 0.25  ]), array([[0.5]]))
    """
    dim = arriving.shape[0]
    for t in range(sizes.shape[0] - 1, -1, -1):
        count = sizes[t]
        for i in range(dim):
            total, reset, update, second = arriving[i], gates[t, i], gates[t, dim + i], gates[t, 3 * dim + i]
            new, old, here = candidate[t, i], before[t, i], of_y[t, i]
            to_reset, to_update = inner[t, i], inner[t, dim + i]
            to_first, to_second = inner[t, 2 * dim + i], inner[t, 3 * dim + i]
            for b in range(count):
                whole = total[b] + here[b]
                to_candidate = whole * (_ONE - update[b]) * (_ONE - new[b] * new[b])
                to_reset[b] = to_candidate * second[b] * reset[b] * (_ONE - reset[b])
                to_update[b] = whole * (old[b] - new[b]) * update[b] * (_ONE - update[b])
                to_first[b] = to_candidate
                to_second[b] = to_candidate * reset[b]
                total[b] = whole * update[b]
        for j in range(3 * dim):
            row = inner[t, j if j < 2 * dim else dim + j]
            for k in range(dim):
                factor, total = weight[j, k], arriving[k]
                for b in range(count):
                    total[b] += factor * row[b]


class _GRULayer(Function):
    @staticmethod
    def forward(
        ctx: Any, sizes: Tensor, x: Tensor, state: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias_ih: Tensor,
        bias_hh: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        (steps, _, batch), dim = x.shape, state.shape[1]
        both = 2 * dim
        bias = torch.cat([bias_ih[:both] + bias_hh[:both], bias_ih[both:], bias_hh[both:]])
        gates = bias.view(1, -1, 1).repeat(steps, 1, batch)  # (T, 4 D, B)
        gates[:, : 3 * dim] += weight_ih @ x
        h = state.t().clone(memory_format=torch.contiguous_format)
        before, candidate = (x.new_empty(steps, dim, batch) for _ in range(2))
        y = x.new_zeros(steps, dim, batch)
        _forward(*arrays(gates, sizes, weight_hh, h, before, candidate, y))
        ctx.save_for_backward(sizes, x, weight_ih, weight_hh, gates, before, candidate)
        return y, h.t()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError("a recurrent layer on the CPU cannot be differentiated twice (create_graph=True)")
        of_y, of_last = gradients
        sizes, x, weight_ih, weight_hh, gates, before, candidate = ctx.saved_tensors
        dim = weight_hh.shape[1]
        both = 2 * dim
        arriving, inner = of_last.t().clone(memory_format=torch.contiguous_format), torch.zeros_like(gates)
        _backward(*arrays(of_y, sizes, weight_hh, gates, before, candidate, arriving, inner))
        entering = inner[:, : 3 * dim]
        rows = inner.transpose(0, 1).flatten(1)  # (4 D, T B)
        of_bias = rows.sum(1)
        # not written where a sequence has no step; the gradient there is 0, and 0 times NaN would not be
        states = before.masked_fill(~known_steps(sizes)[:, None], 0).transpose(0, 1).flatten(1)
        of_hidden = torch.cat([rows[:both], rows[3 * dim :]]) @ states.t()
        return (
            None,
            weight_ih.t() @ entering if ctx.needs_input_grad[1] else None,
            arriving.t(),
            rows[: 3 * dim] @ x.transpose(0, 1).flatten(1).t(),
            of_hidden,
            of_bias[: 3 * dim],
            torch.cat([of_bias[:both], of_bias[3 * dim :]]),
        )


def gru_layer(
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
        sizes: number of sequences that have a step, not increasing, int64 (T,).
        x: inputs (T, D, B), finite where a sequence has no step.
        state: state before the first step (B, H).
        weight_ih: weights of the inputs (3 H, D), as ``torch.nn.GRU`` orders them.
        weight_hh: weights of the state (3 H, H).
        bias_ih: biases of the inputs (3 H,).
        bias_hh: biases of the state (3 H,).
    """
    return cast("tuple[Tensor, Tensor]", _GRULayer.apply(sizes, x, state, weight_ih, weight_hh, bias_ih, bias_hh))
