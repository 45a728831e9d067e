"""Feed-forward part of a block, with and without a gate."""

from torch import Tensor, nn

from graphseq.core import Recorded, make
from graphseq.nn.causal import positive

__all__ = ["FeedForward", "GatedFeedForward", "SwiGLU"]


class FeedForward(Recorded, nn.Module):
    r"""Two linear layers with an activation between them, applied to each step.

    .. math:: y = \phi(x W_1 + b_1)\, W_2 + b_2

    Source: arXiv 1706.03762, eq. 2. Differs from it: any activation.

    Args:
        dim: number D of features of inputs and outputs.
        hidden_channels: width between the layers; None for 4 ``dim``.
        activation: activation :math:`\phi`; None for ``torch.nn.GELU()``.
        bias: whether the layers have biases.
        dropout: probability in [0, 1) of setting an activation to zero.

    Shape:
        x (*, D) -> y (*, D)

    Raises:
        ValueError: if a size is below 1, or ``dropout`` is outside its range.
        TypeError: if ``activation`` is not a module.

    Example:
        >>> import torch
        >>> FeedForward(6, activation=make(nn.ReLU))(torch.randn(2, 5, 6)).shape
        torch.Size([2, 5, 6])
    """

    def __init__(
        self,
        dim: int,
        hidden_channels: int | None = None,
        activation: nn.Module | None = None,
        bias: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        hidden = 4 * dim if hidden_channels is None else hidden_channels
        positive(dim=dim, hidden_channels=hidden)
        _check_activation(activation)
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout is {dropout}; give a probability in [0, 1)")
        self.dim = dim
        self.input = nn.Linear(dim, hidden, bias)
        self.activation = make(nn.GELU) if activation is None else activation
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(hidden, dim, bias)

    def reset_parameters(self) -> None:
        """Reinitialise all weights as in the constructor."""
        _reset(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs of all steps.

        Args:
            x: inputs (*, D).
        """
        return self.output(self.dropout(self.activation(self.input(x))))


class GatedFeedForward(Recorded, nn.Module):
    r"""Gated linear unit followed by a linear layer, applied to each step.

    .. math:: y = \bigl(\phi(x W) \odot x V\bigr)\, W_2

    Source: arXiv 2002.05202, eq. 5 and 6. Differs from it: any activation of the gate.

    Args:
        dim: number D of features of inputs and outputs.
        hidden_channels: width between the layers; None for 8/3 of ``dim``, rounded up to a multiple of 8, which has as
            many weights as two layers of width 4 ``dim`` without a gate.
        activation: activation :math:`\phi` of the gate; None for ``torch.nn.SiLU()``.

    Shape:
        x (*, D) -> y (*, D)

    Raises:
        ValueError: if a size is below 1.
        TypeError: if ``activation`` is not a module.

    Example:
        >>> import torch
        >>> GatedFeedForward(6, activation=make(nn.ReLU))(torch.randn(2, 5, 6)).shape
        torch.Size([2, 5, 6])
    """

    def __init__(self, dim: int, hidden_channels: int | None = None, activation: nn.Module | None = None) -> None:
        super().__init__()
        hidden = -(-8 * dim // 24) * 8 if hidden_channels is None else hidden_channels
        positive(dim=dim, hidden_channels=hidden)
        _check_activation(activation)
        self.dim = dim
        self.gate_and_value = nn.Linear(dim, 2 * hidden, bias=False)
        self.activation = make(nn.SiLU) if activation is None else activation
        self.output = nn.Linear(hidden, dim, bias=False)

    def reset_parameters(self) -> None:
        """Reinitialise all weights as in the constructor."""
        _reset(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs of all steps.

        Args:
            x: inputs (*, D).
        """
        gate, value = self.gate_and_value(x).chunk(2, -1)
        return self.output(self.activation(gate) * value)


class SwiGLU(GatedFeedForward):
    r"""Gated linear unit with a swish gate, followed by a linear layer, applied to each step.

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
        super().__init__(dim, hidden_channels)


def _check_activation(activation: object) -> None:
    if activation is not None and not isinstance(activation, nn.Module):
        raise TypeError(f"activation is {activation!r}; give a module such as torch.nn.GELU() or PolyNorm()")


def _reset(module: nn.Module) -> None:
    """Reinitialise the parts of a module that say how; an activation may have parameters of its own."""
    for part in module.children():
        if callable(reset := getattr(part, "reset_parameters", None)):
            reset()
