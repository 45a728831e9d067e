"""Feed-forward part of a block."""

from torch import Tensor, nn
from torch.nn import functional

from graphseq.core import Recorded
from graphseq.nn.causal import positive

__all__ = ["SwiGLU"]


class SwiGLU(Recorded, nn.Module):
    r"""Two layers with a gate between them, for each step by itself.

    .. math:: y = \bigl(\operatorname{swish}(x W) \odot x V\bigr)\, W_2

    Source: arXiv 2002.05202, eq. 6. Differs from it: none.

    Args:
        dim: number D of features of inputs and outputs.
        hidden_channels: width between the layers; None for 8/3 of ``dim``, rounded up to a multiple of 8, which has as
            many weights as two layers of width 4 ``dim`` without a gate.

    Shape:
        x (*, D) -> y (*, D)

    Raises:
        ValueError: if a size is below 1.

    Example:
        >>> import torch
        >>> SwiGLU(6)(torch.randn(2, 5, 6)).shape
        torch.Size([2, 5, 6])
    """

    def __init__(self, dim: int, hidden_channels: int | None = None) -> None:
        super().__init__()
        hidden = -(-8 * dim // 24) * 8 if hidden_channels is None else hidden_channels
        positive(dim=dim, hidden_channels=hidden)
        self.gate_and_value = nn.Linear(dim, 2 * hidden, bias=False)
        self.output = nn.Linear(hidden, dim, bias=False)

    def reset_parameters(self) -> None:
        """Reinitialise all weights as in the constructor."""
        self.gate_and_value.reset_parameters()
        self.output.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs of all steps.

        Args:
            x: inputs (*, D).
        """
        gate, value = self.gate_and_value(x).chunk(2, -1)
        return self.output(functional.silu(gate) * value)
