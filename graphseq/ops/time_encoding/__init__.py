r"""Time differences as cosines at several frequencies, :math:`\phi(\Delta t)_i = \cos(w_i\, \Delta t + b_i)`.

``plain`` is the equation and has autograd's gradient. Functions that bring their own gradient use cosine and sine
without autograd: ``fused`` in torch operations, ``compiled`` as one loop on the CPU.
"""

import math

import torch
from torch import Tensor

from graphseq.ops.processor import use_compiled
from graphseq.ops.time_encoding import compiled, fused
from graphseq.ops.time_encoding.plain import encode_times

__all__: list[str] = []


def cosines(dt: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return ``cos(dt * weight + bias)`` without gradient.

    Args:
        dt: time differences (N,), of any real type.
        weight: frequencies (D,), in radians per unit of time.
        bias: phases (D,), in radians.

    Shape:
        (N,), (D,), (D,) -> (N, D)
    """
    if use_compiled(weight, bias):
        return compiled.cosines_and_sines(dt, weight, bias)[0]
    return encode_times(dt, weight.detach(), bias.detach())


def cosines_and_sines(dt: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cosine of ``dt * weight + bias`` and the sine, from which :func:`gradients` makes gradients.

    Args:
        dt: time differences (N,), of any real type.
        weight: frequencies (D,), in radians per unit of time.
        bias: phases (D,), in radians.

    Shape:
        (N,), (D,), (D,) -> (N, D), (N, D)
    """
    return (compiled if use_compiled(weight, bias) else fused).cosines_and_sines(dt, weight, bias)


def gradients(gradient: Tensor, sine: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of frequencies and phases from the gradient of the cosines.

    Args:
        gradient: gradient of the cosines (N, D); it may be overwritten.
        sine: sine of the phases (N, D), from :func:`cosines_and_sines`.
        dt: time differences (N,).

    Shape:
        (N, D), (N, D), (N,) -> (D,), (D,)
    """
    return (compiled if use_compiled(gradient, sine) else fused).gradients(gradient, sine, dt)


def precise_cosines_and_sines(dt: Tensor, weight: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return cosine and sine of ``dt * weight + bias``, precise enough to be turned on by the angle of a later moment.

    The phase of raw seconds is rounded to a tenth of a turn in float32. Here it is counted in turns, with frequencies
    in two parts, and multiply-adds take whole turns off without rounding between.

    Args:
        dt: time differences (*).
        weight: frequencies (D,).
        bias: phases (D,); None for phases of 0.

    Shape:
        (*), (D,), (D,) -> (*, D), (*, D)
    """
    dt = dt.to(weight.dtype).unsqueeze(-1)
    if weight.dtype == torch.float32 and dt.device.type == "cpu":
        exact = weight.double() / math.tau
        most = exact.float()
        turns = (dt * most).round_().addcmul_(dt, most, value=-1).addcmul_(dt, (exact - most).float(), value=-1)
        phase = turns.mul_(-math.tau) if bias is None else torch.add(bias, turns, alpha=-math.tau)
    else:
        phase = dt * weight if bias is None else torch.addcmul(bias, dt, weight)
    return phase.cos(), phase.sin_()
