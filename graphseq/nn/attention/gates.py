"""Gates of gated linear attention: logarithms of the share of each key channel that is kept."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphseq.core import Recorded
from graphseq.nn.causal import positive

__all__ = ["ConstantGate", "LowRankGate"]


class LowRankGate(Recorded, nn.Module):
    r"""Gate of each key channel that depends on the input of the step.

    .. math:: \log \alpha_t = \tfrac{1}{\tau} \log \sigma(x_t W_1 W_2 + b)

    With the temperature :math:`\tau` = 16, gates are near 1 at the start, 0.96 for inputs of 0.

    Source: arXiv 2312.06635, section 4.4. Differs from it: none.

    Args:
        dim: number of features of a step.
        channels: number of key channels, over all heads.
        rank: width between the two matrices, at least 1.
        temperature: divisor :math:`\tau` of the logarithm, above 0.

    Shape:
        x (B, T, dim) -> logarithms of the gates, float32 or float64, at most 0 (B, T, channels)

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> gate = LowRankGate(8, channels=4)
        >>> bool((gate(torch.randn(2, 5, 8)) < 0).all())
        True
    """

    def __init__(self, dim: int, channels: int, rank: int = 16, temperature: float = 16.0) -> None:
        super().__init__()
        positive(dim=dim, channels=channels, rank=rank)
        if not temperature > 0:
            raise ValueError(f"temperature is {temperature}; it must be above 0")
        self.channels, self.temperature = channels, temperature
        self.down = nn.Linear(dim, rank, bias=False)
        self.up = nn.Linear(rank, channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Reinitialise the matrices; the bias is 0."""
        self.down.reset_parameters()
        self.up.reset_parameters()
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logarithms of the gates.

        Args:
            x: inputs (B, T, dim).
        """
        logits = self.up(self.down(x))  # (B, T, channels)
        # a sum of many logarithms follows: not in half precision
        return functional.logsigmoid(logits if logits.dtype == torch.float64 else logits.float()) / self.temperature


class ConstantGate(Recorded, nn.Module):
    r"""The same gate at all steps and channels: linear attention for 1, retention for less.

    .. math:: \log \alpha_t = \log \alpha

    Args:
        channels: number of key channels, over all heads.
        value: the gate :math:`\alpha`, in (0, 1].

    Shape:
        x (B, T, D) -> (B, T, channels)

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> ConstantGate(4)(torch.randn(2, 5, 8)).abs().max()
        tensor(0.)
    """

    def __init__(self, channels: int, value: float = 1.0) -> None:
        super().__init__()
        positive(channels=channels)
        if not 0 < value <= 1:
            raise ValueError(f"value is {value}; give a gate in (0, 1]")
        self.channels, self.value = channels, value

    def forward(self, x: Tensor) -> Tensor:
        """Return the logarithm of the gate for each step.

        Args:
            x: inputs (B, T, D).
        """
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        return torch.full((*x.shape[:2], self.channels), math.log(self.value), dtype=dtype, device=x.device)
