"""Differences of time as vectors of cosines, slow and fast ones side by side."""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from graphseq.core import Recorded
from graphseq.ops.processor import arrays, compiled_loops

__all__ = ["TimeEncoder"]

TimeInit = Literal["geometric", "uniform"]


def time_phase(dt: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return ``dt * weight + bias``, what the cosine is taken of: (*) and (D,), (D,) -> (*, D)."""
    return torch.addcmul(bias, dt.to(weight.dtype).unsqueeze(-1), weight)


def time_cosines(dt: Tensor, weight: Tensor, bias: Tensor, *, keep: bool) -> tuple[Tensor, Tensor | None]:
    """Return ``cos(dt * weight + bias)`` without gradient, and the sine if asked: (N,), (D,) -> (N, D)."""
    loops = compiled_loops(f"{__package__}.compiled", weight, bias)
    if loops is None:
        phase = time_phase(dt, weight, bias)
        return (phase.cos(), phase.sin_()) if keep else (phase.cos_(), None)
    cosine, sine = (torch.empty(len(dt), len(weight), dtype=weight.dtype) for _ in range(2))
    loops.encode_times(*arrays(dt.double(), weight, bias, cosine, sine))
    return cosine, sine


def time_gradients(gradient: Tensor, sine: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of ``weight`` and ``bias`` from that of the cosines; ``gradient`` (N, D) is overwritten."""
    if loops := compiled_loops(f"{__package__}.compiled", gradient, sine):
        total = torch.zeros(2, sine.shape[1], dtype=torch.float64)
        loops.sum_time_slopes(*arrays(gradient, sine, dt.double(), *total))
        of_weight, of_bias = total.to(sine.dtype)
        return of_weight, of_bias
    slope = gradient.mul_(sine)
    # one product reads the slopes once for both sums
    moments = dt.to(slope.dtype)
    of_weight, of_bias = (torch.stack((moments, torch.ones_like(moments))).neg_() @ slope).unbind()
    return of_weight, of_bias


def time_turns(dt: Tensor, weight: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return cosine and sine of ``dt * weight + bias``, precise enough to be turned on by the angle of a later moment.

    The phase of raw seconds is rounded to a tenth of a turn in float32. Here it is counted in turns, with frequencies
    in two parts, and multiply-adds take whole turns off without rounding between: (*) and (D,), (D,) -> (*, D) twice.
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


class TimeEncoder(Recorded, nn.Module):
    r"""Cosines of a time difference at several frequencies.

    .. math:: \phi(\Delta t)_i = \cos(w_i\, \Delta t + b_i)

    The geometric frequencies :math:`w_i = 10^{-9 i / (D - 1)}`, with :math:`b = 0`, reach from a period of 6 to one of
    6 billion units of time: right for raw seconds. The uniform ones, :math:`w_i, b_i \sim U(-1, 1)`, are those of a
    new ``nn.Linear(1, dim)``, all fast: right for differences that were scaled to the order of one.

    Source: arXiv 2002.07962, eq. 6 (the encoding); arXiv 2006.10637 takes it over, and its code the geometric
    frequencies. Differs from them: no factor :math:`1/\sqrt{D}`, as in that code.

    Args:
        dim: number of cosines D, at least 1.
        trainable: whether frequencies and phases learn.
        init: how frequencies and phases start.

    Shape:
        dt (*), int64, float64 or float32 -> (*, D) in the type of the frequencies. Differences of times must be
        taken before the call, in the type of the times: float32 has no seconds left after 2**24 of them.

    Raises:
        ValueError: if ``dim`` < 1 or ``init`` is unknown.

    Example:
        >>> TimeEncoder(dim=4)(torch.tensor([0, 86400])).shape
        torch.Size([2, 4])
    """

    def __init__(self, dim: int, trainable: bool = True, init: TimeInit = "geometric") -> None:
        super().__init__()
        if dim < 1:
            raise ValueError(f"TimeEncoder(dim={dim}): give the number of cosines, >= 1")
        if init not in ("geometric", "uniform"):
            raise ValueError(f"TimeEncoder(init={init!r}): use 'geometric' or 'uniform'")
        self.dim = dim
        self.init = init
        self.weight = nn.Parameter(torch.empty(dim), requires_grad=trainable)
        self.bias = nn.Parameter(torch.empty(dim), requires_grad=trainable)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set frequencies and phases to their first values."""
        if self.init == "uniform":
            nn.init.uniform_(self.weight, -1, 1)
            nn.init.uniform_(self.bias, -1, 1)
            return
        with torch.no_grad():
            exponents = torch.arange(self.dim, dtype=torch.float64) * (-9 / max(self.dim - 1, 1))
            self.weight.copy_(10**exponents)
            self.bias.zero_()

    def forward(self, dt: Tensor) -> Tensor:
        """Encode time differences (*) as (*, D)."""
        return time_phase(dt, self.weight, self.bias).cos()

    def extra_repr(self) -> str:
        """Return what the module prints about itself."""
        return f"dim={self.dim}, trainable={self.weight.requires_grad}, init={self.init!r}"
