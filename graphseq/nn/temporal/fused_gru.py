"""The update of memories from their mail as one function with its own gradient.

What is saved against ``GRUCell(cat(own, other, msg, phi), own)``: the message is never put together, the own memory
is multiplied once instead of twice for two of three gates, no gradient is computed for memories and mail (they are
buffers), and gates are made and kept in one tensor.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from graphseq.nn.temporal.time_encoding import time_cosines, time_gradients
from graphseq.ops.processor import arrays, compiled_loops

__all__ = ["mail_gru"]


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


def _update(gates: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """Return candidate and new memories (U, D); of ``gates`` (U, 4 D) the first two become the gates in place."""
    if loops := compiled_loops(f"{__package__}.compiled", gates, own):
        candidate, new = (torch.empty(own.shape, dtype=own.dtype) for _ in range(2))
        loops.gate_memories(*arrays(gates, own, candidate, new))
        return candidate, new
    gates[:, : 2 * own.shape[1]].sigmoid_()
    reset, update, entered, recurrent = gates.chunk(4, 1)
    candidate = torch.addcmul(entered, reset, recurrent).tanh_()
    return candidate, torch.lerp(candidate, own, update)


def _update_backward(gradient: Tensor, gates: Tensor, own: Tensor, candidate: Tensor) -> Tensor:
    """Return the gradient of what :func:`_inputs` returned, from that of the new memories."""
    inner = torch.empty_like(gates)
    if loops := compiled_loops(f"{__package__}.compiled", gradient, gates, own):
        loops.gate_memories_backward(*arrays(gradient, gates, own, candidate, inner))
        return inner
    reset, update, _, recurrent = gates.chunk(4, 1)
    to_reset, to_update, to_candidate, to_recurrent = inner.chunk(4, 1)
    sigmoid_backward, tanh_backward = torch.ops.aten.sigmoid_backward, torch.ops.aten.tanh_backward
    to_candidate.copy_(tanh_backward(gradient * (1 - update), candidate))
    torch.mul(to_candidate, reset, out=to_recurrent)
    to_reset.copy_(sigmoid_backward(to_candidate * recurrent, reset))
    to_update.copy_(sigmoid_backward(gradient * (own - candidate), update))
    return inner


class _MailGRU(Function):
    @staticmethod
    def forward(
        ctx: Any,
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
            learns_time = ctx.needs_input_grad[7] or ctx.needs_input_grad[8]
            encoded, sine = time_cosines(dt, time_weight, time_bias, keep=learns_time)
        gates = _inputs(own, mail, encoded, weight_ih, weight_hh, bias_ih, bias_hh)
        candidate, new = _update(gates, own)
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
        inner = _update_backward(gradients[0], gates, own, candidate)

        entering = inner[:, : 3 * dim]
        columns = entering.t()
        of_own = (own.t() @ inner).t()  # the faster of the two orders
        of_bias = inner.sum(0)
        to_weight = torch.cat((of_own[: 3 * dim], columns @ mail, columns @ encoded), 1)
        to_hidden_weight = torch.cat((of_own[:both], of_own[3 * dim :]))
        to_hidden_bias = torch.cat((of_bias[:both], of_bias[3 * dim :]))

        to_time: tuple[Tensor | None, Tensor | None] = (None, None)
        if sine is not None and any(ctx.needs_input_grad[7:]):
            to_time = time_gradients(entering @ weight_ih[:, width:], sine, dt)
        return None, None, None, to_weight, to_hidden_weight, of_bias[: 3 * dim], to_hidden_bias, *to_time


def mail_gru(
    own: Tensor,
    mail: Tensor,
    dt: Tensor,
    pending: Tensor | None,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor,
    bias_hh: Tensor,
    time_weight: Tensor | None,
    time_bias: Tensor | None,
) -> Tensor:
    r"""Update memories from the last message of each node by a gated recurrent unit; nodes without mail stay.

    .. math::
        m = [\,s_{own} \,\Vert\, s_{other} \,\Vert\, x \,\Vert\, \cos(\Delta t\, w + b)\,], \qquad
        s' = \begin{cases} \mathrm{GRU}(m, s_{own}) & \text{pending} \\ s_{own} & \text{else, bit for bit}\end{cases}

    The cell is that of ``torch.nn.GRUCell``, with its parameters and its order of gates. Gradients go to the eight
    last arguments only, and only once: memories and mail are state, and cannot be differentiated twice.

    Source: arXiv 2006.10637, section 3.1 (identity message, gated updater). Differs from it: none known.

    Args:
        own: memories, which are also the first block of the messages.
        mail: memories of the partners at the time of the message, then features of the event, of which there may be
            none.
        dt: time from the last update to the message, in the unit of ``time_weight``; where ``time_weight`` is None,
            the encoded times themselves, such as means over several messages.
        pending: whether there is a message; None if all rows have one. Rows without one must still hold finite
            numbers.
        weight_ih: as ``GRUCell(2 D + D_e + D_t, D).weight_ih``.
        weight_hh: as ``GRUCell.weight_hh``.
        bias_ih: as ``GRUCell.bias_ih``.
        bias_hh: as ``GRUCell.bias_hh``.
        time_weight: frequencies of the time encoder, or None.
        time_bias: phases of the time encoder, or None.

    Shape:
        own (U, D), mail (U, D + D_e), dt (U,) of any real type or (U, D_t), pending (U,) bool,
        weight_ih (3 D, 2 D + D_e + D_t), weight_hh (3 D, D), biases (3 D,), time weight and bias (D_t,) -> (U, D)

    Raises:
        ValueError: if ``weight_ih`` does not fit the message, one of ``time_weight`` and ``time_bias`` is missing, or
            a gradient is asked for memories or mail.

    Example:
        >>> cell = torch.nn.GRUCell(2 * 4 + 1 + 3, 4)
        >>> own, pending = torch.zeros(2, 4), torch.tensor([True, False])
        >>> new = mail_gru(own, torch.ones(2, 5), torch.tensor([5, 0]), pending, *cell.parameters(),
        ...     torch.ones(3), torch.zeros(3))
        >>> (new != own).any(1)
        tensor([ True, False])
    """
    if (time_weight is None) != (time_bias is None):
        raise ValueError("mail_gru got one of time_weight and time_bias; give both, or none and encoded times as dt")
    time_dim = dt.shape[-1] if time_weight is None else time_weight.shape[0]
    width = own.shape[1] + mail.shape[1] + time_dim
    if weight_ih.shape != (3 * own.shape[1], width):
        raise ValueError(
            f"mail_gru(weight_ih of shape {tuple(weight_ih.shape)}): memories of width {own.shape[1]}, mail of "
            f"width {mail.shape[1]} and {time_dim} cosines need {(3 * own.shape[1], width)}"
        )
    if torch.is_grad_enabled() and any(state.requires_grad for state in (own, mail, dt)):
        raise ValueError("mail_gru gives no gradient to own, mail and dt: detach them, or use nn.GRUCell")
    # gates and memories stay in their own precision: the state of a stream adds up rounding errors
    device = own.device.type
    if torch.is_autocast_enabled(device):
        with torch.autocast(device, enabled=False):
            return mail_gru(own, mail, dt, pending, weight_ih, weight_hh, bias_ih, bias_hh, time_weight, time_bias)
    new = _MailGRU.apply(own, mail, dt, weight_ih, weight_hh, bias_ih, bias_hh, time_weight, time_bias)
    return new if pending is None else torch.where(pending.unsqueeze(-1), new, own)
