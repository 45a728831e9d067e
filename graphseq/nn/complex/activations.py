"""Activations that act on the real and on the imaginary part of complex numbers."""

import torch
from torch import Tensor, nn

from graphseq.core import Recorded

__all__ = ["CReLU", "SplitActivation"]


def check_complex(x: Tensor, layer: nn.Module, shape: str = "") -> None:
    """Raise ``TypeError`` if the input of a complex layer is not complex.

    Args:
        x: input of the layer.
        layer: layer, named in the error message.
        shape: shape that the layer takes, for the message.

    Example:
        >>> check_complex(torch.zeros(2, dtype=torch.complex64), nn.Identity())
    """
    if not x.is_complex():
        raise TypeError(
            f"{type(layer).__name__} was given {x.dtype} {tuple(x.shape)}; it takes complex numbers{shape}: convert by "
            "torch.complex(real, imaginary), or use the layer for real numbers"
        )


class SplitActivation(Recorded, nn.Module):
    r"""Apply an activation to the real and to the imaginary part.

    .. math:: y = f(\operatorname{Re} x) + i\, f(\operatorname{Im} x)

    With ``nn.Sigmoid()`` it is the complex sigmoid of arXiv 2506.11048.

    Args:
        activation: module from real tensors to real tensors of the same shape.

    Shape:
        x (*) complex -> (*) complex

    Raises:
        TypeError: in ``forward``, if the input is real.

    Example:
        >>> from graphseq.core import make
        >>> SplitActivation(make(nn.Sigmoid))(torch.tensor([0.0 + 0.0j]))
        tensor([0.5000+0.5000j])
    """

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """Return the activation of each part.

        Args:
            x: complex input.
        """
        check_complex(x, self)
        return torch.complex(self.activation(x.real), self.activation(x.imag))


class CReLU(SplitActivation):
    r"""ReLU of the real and of the imaginary part.

    .. math:: y = \max(\operatorname{Re} x, 0) + i \max(\operatorname{Im} x, 0)

    Source: arXiv 1705.09792, eq. 7.

    Shape:
        x (*) complex -> (*) complex

    Raises:
        TypeError: in ``forward``, if the input is real.

    Example:
        >>> CReLU()(torch.tensor([1.0 - 2.0j, -1.0 + 2.0j]))
        tensor([1.+0.j, 0.+2.j])
    """

    def __init__(self) -> None:
        super().__init__(nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """Return the ReLU of each part.

        Args:
            x: complex input.
        """
        check_complex(x, self)
        return torch.view_as_complex(torch.view_as_real(x.resolve_conj()).relu())  # one pass over both parts
