"""The gated update of memories from their mail.

``plain`` is the equation in differentiable torch operations; ``fused`` never puts the message together and has its own
gradient; ``compiled`` does the same with gates in one loop, on the CPU.
"""

import torch
from torch import Tensor

from graphseq.ops.gru import compiled, fused
from graphseq.ops.processor import use_compiled

__all__ = ["mail_gru"]


def mail_gru(
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
    r"""Update memories from the last message of each node by a gated recurrent unit.

    .. math::
        m = [\,s_{own} \,\Vert\, s_{other} \,\Vert\, x \,\Vert\, \cos(\Delta t\, w + b)\,], \qquad
        s' = \mathrm{GRU}(m, s_{own})

    The cell is that of ``torch.nn.GRUCell``, with its parameters and its order of gates. Gradients go to the six last
    arguments only, and only once: memories and mail are state, and cannot be differentiated twice.

    Source: arXiv 2006.10637, section 3.1 (identity message, gated updater). Differs from it: none known.

    Args:
        own: memories of the nodes, which are also the first block of the messages.
        mail: memories of the partners at the time of the message, then features of the event, of which there may be
            none.
        dt: time from the last update to the message, in the unit of ``time_weight``; where ``time_weight`` is None,
            the encoded times themselves, such as means over several messages.
        weight_ih: weights of the message, as ``GRUCell(2 D + D_e + D_t, D).weight_ih``.
        weight_hh: weights of the memory, as ``GRUCell.weight_hh``.
        bias_ih: biases of the message, as ``GRUCell.bias_ih``.
        bias_hh: biases of the memory, as ``GRUCell.bias_hh``.
        time_weight: frequencies of the time encoder, or None.
        time_bias: phases of the time encoder, or None.

    Shape:
        own (U, D), mail (U, D + D_e), dt (U,) of any real type or (U, D_t),
        weight_ih (3 D, 2 D + D_e + D_t), weight_hh (3 D, D), biases (3 D,), time weight and bias (D_t,) -> (U, D)

    Raises:
        ValueError: if ``weight_ih`` does not fit the message, one of ``time_weight`` and ``time_bias`` is missing, or
            a gradient is required for memories or mail.

    Example:
        >>> cell, own = torch.nn.GRUCell(2 * 4 + 1 + 3, 4), torch.zeros(2, 4)
        >>> time = torch.ones(3), torch.zeros(3)
        >>> mail_gru(own, torch.ones(2, 5), torch.tensor([5, 0]), *cell.parameters(), *time).shape
        torch.Size([2, 4])
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
    weights = (weight_ih, weight_hh, bias_ih, bias_hh)
    # gates and memories stay in their own precision: the state of a stream adds up rounding errors
    if torch.is_autocast_enabled(own.device.type):
        with torch.autocast(own.device.type, enabled=False):
            return mail_gru(own, mail, dt, *weights, time_weight, time_bias)
    form = compiled if use_compiled(own, mail, *weights) else fused
    return fused.mail_gru(fused.Gates(form.gate, form.gate_backward), own, mail, dt, *weights, time_weight, time_bias)
