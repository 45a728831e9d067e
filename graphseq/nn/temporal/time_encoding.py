"""Encoding of time differences as cosines of several frequencies."""

from typing import Literal

import torch
from torch import Tensor, nn

from graphseq.core import Recorded
from graphseq.ops.time_encoding import encode_times

__all__ = ["TimeEncoder"]

TimeInit = Literal["geometric", "uniform"]


class TimeEncoder(Recorded, nn.Module):
    r"""Cosines of a time difference at several frequencies.

    .. math:: \phi(\Delta t)_i = \cos(w_i\, \Delta t + b_i)

    The geometric frequencies :math:`w_i = 10^{-9 i / (D - 1)}`, with :math:`b = 0`, have periods from 6 to
    6 billion units of time: suited to raw seconds. The uniform ones, :math:`w_i, b_i \sim U(-1, 1)`, are those of a
    new ``nn.Linear(1, dim)``, all fast: suited to differences scaled to the order of one.

    Source: arXiv 2002.07962, eq. 6 (the encoding); arXiv 2006.10637 takes it over, and its code the geometric
    frequencies. Differs from them: no factor :math:`1/\sqrt{D}`, as in that code.

    Args:
        dim: number of cosines D, at least 1.
        trainable: whether frequencies and phases are learned.
        init: initial frequencies and phases, ``geometric`` or ``uniform``.

    Shape:
        dt (*), int64, float64 or float32 -> (*, D) in the type of the frequencies. Differences of times must be
        taken before the call, in the type of the times: float32 cannot represent single seconds above 2**24.

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
        """Set frequencies and phases to their initial values."""
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
        return encode_times(dt, self.weight, self.bias)

    def extra_repr(self) -> str:
        """Return the arguments that ``repr`` shows."""
        return f"dim={self.dim}, trainable={self.weight.requires_grad}, init={self.init!r}"
