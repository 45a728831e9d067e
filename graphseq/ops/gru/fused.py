"""The gated update of memories from their mail as one function with its own gradient.

What is saved against ``GRUCell(cat(own, other, msg, phi), own)``: the message is never put together, the own memory
is multiplied once instead of twice for two of three gates, no gradient is computed for memories and mail (they are
buffers), and gates are made and kept in one tensor.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.autograd import Function

from graphseq.ops.time_encoding import cosines, cosines_and_sines
from graphseq.ops.time_encoding import gradients as time_gradients

__all__: list[str] = []


class Gates(NamedTuple):
    """Forward and backward pass of the gates, see :func:`gate` and :func:`gate_backward`."""

    gate: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    gate_backward: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def _inputs(
    own: Tensor,
    mail: Tensor,
    encoded: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor,
    bias_hh: Tensor,
) -> Tensor:
    """Return what enters reset gate, update gate and candidate, and the candidate's recurrent part (U, 4 D)."""
    dim, both, width = own.shape[1], 2 * own.shape[1], own.shape[1] + mail.shape[1]
    # the own memory is in the message and in the state: two gates only need the sum of the two weights
    weight = torch.cat((weight_ih[:both, :dim] + weight_hh[:both], weight_ih[both:, :dim], weight_hh[both:]))
    bias = torch.cat((bias_ih[:both] + bias_hh[:both], bias_ih[both:], bias_hh[both:]))
    gates = torch.addmm(bias, own, weight.t())
    entering = gates[:, : 3 * dim]
    entering.addmm_(mail, weight_ih[:, dim:width].t())
    entering.addmm_(encoded, weight_ih[:, width:].t())
    return gates


def gate(gates: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """Return candidate and new memories (U, D).

    Args:
        gates: inputs of the gates (U, 4 D); reset and update gate replace their inputs in place.
        own: memories (U, D).
    """
    gates[:, : 2 * own.shape[1]].sigmoid_()
    reset, update, entered, recurrent = gates.chunk(4, 1)
    candidate = torch.addcmul(entered, reset, recurrent).tanh_()
    return candidate, torch.lerp(candidate, own, update)


def gate_backward(gradient: Tensor, gates: Tensor, own: Tensor, candidate: Tensor) -> Tensor:
    """Return the gradient of the inputs of the gates (U, 4 D).

    Args:
        gradient: gradient of the new memories (U, D).
        gates: reset and update gate, then the two parts of the candidate's input, as :func:`gate` left them.
        own: memories before the update (U, D).
        candidate: candidate that :func:`gate` returned (U, D).
    """
    to_inputs = torch.empty_like(gates)
    reset, update, _, recurrent = gates.chunk(4, 1)
    to_reset, to_update, to_candidate, to_recurrent = to_inputs.chunk(4, 1)
    sigmoid_backward, tanh_backward = torch.ops.aten.sigmoid_backward, torch.ops.aten.tanh_backward
    to_candidate.copy_(tanh_backward(gradient * (1 - update), candidate))
    torch.mul(to_candidate, reset, out=to_recurrent)
    to_reset.copy_(sigmoid_backward(to_candidate * recurrent, reset))
    to_update.copy_(sigmoid_backward(gradient * (own - candidate), update))
    return to_inputs


class _MailGRU(Function):
    @staticmethod
    def forward(
        ctx: Any,
        form: Gates,
        own: Tensor,
        mail: Tensor,
        dt: Tensor,
        weight_ih: Tensor,
        weight_hh: Tensor,
        bias_ih: Tensor,
        bias_hh: Tensor,
        time_weight: Tensor | None,
        time_bias: Tensor | None,
    ) -> Tensor:
        encoded, sine = dt, None
        if time_weight is not None and time_bias is not None:
            if ctx.needs_input_grad[8] or ctx.needs_input_grad[9]:
                encoded, sine = cosines_and_sines(dt, time_weight, time_bias)
            else:
                encoded = cosines(dt, time_weight, time_bias)
        gates = _inputs(own, mail, encoded, weight_ih, weight_hh, bias_ih, bias_hh)  # (U, 4 D)
        candidate, new = form.gate(gates, own)
        ctx.gate_backward = form.gate_backward
        ctx.save_for_backward(own, mail, dt, encoded, sine, weight_ih, gates, candidate)
        return new

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "mail_gru cannot be differentiated twice (create_graph=True): use nn.GRUCell on whole messages"
            )
        own, mail, dt, encoded, sine, weight_ih, gates, candidate = ctx.saved_tensors
        dim, both, width = own.shape[1], 2 * own.shape[1], own.shape[1] + mail.shape[1]
        inner = ctx.gate_backward(gradients[0], gates, own, candidate)

        entering = inner[:, : 3 * dim]
        columns = entering.t()
        of_own = (own.t() @ inner).t()  # the faster of the two orders
        of_bias = inner.sum(0)
        to_weight = torch.cat((of_own[: 3 * dim], columns @ mail, columns @ encoded), 1)
        to_hidden_weight = torch.cat((of_own[:both], of_own[3 * dim :]))
        to_hidden_bias = torch.cat((of_bias[:both], of_bias[3 * dim :]))

        to_time: tuple[Tensor | None, Tensor | None] = (None, None)
        if sine is not None and any(ctx.needs_input_grad[8:]):
            to_time = time_gradients(entering @ weight_ih[:, width:], sine, dt)
        return None, None, None, None, to_weight, to_hidden_weight, of_bias[: 3 * dim], to_hidden_bias, *to_time


def mail_gru(
    form: Gates,
    own: Tensor,
    mail: Tensor,
    dt: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor,
    bias_hh: Tensor,
    time_weight: Tensor | None,
    time_bias: Tensor | None,
) -> Tensor:
    """Return the new memories of :func:`graphseq.ops.mail_gru`, with gates in the given form."""
    weights = (weight_ih, weight_hh, bias_ih, bias_hh)
    return cast(Tensor, _MailGRU.apply(form, own, mail, dt, *weights, time_weight, time_bias))
