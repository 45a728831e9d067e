"""Fourier neural operator on a plane, a baseline for operators between fields."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphseq.core import Recorded
from graphseq.nn.causal import positive
from graphseq.nn.conv.spectral import SpectralConv2d, check_real_fields

__all__ = ["FNO2d"]


class FNO2d(Recorded, nn.Module):
    r"""Operator between fields whose layers multiply their lowest Fourier modes with learned matrices.

    .. math:: u_0 = P\,[x, y, \text{input}], \qquad u_{k+1} = \sigma(\mathcal F^{-1} W_k \mathcal F u_k + L_k u_k +
        b_k), \qquad \text{output} = Q\, \sigma(Q' u_K)

    The coordinates of the points, in [0, 1], are two more input channels, and zeros follow the last row and column,
    since Fourier transforms treat fields as periodic. The last layer has no activation before the projection.

    Source: arXiv 2010.08895, section 4 and figure 2. Differs from it: padding is a share of the grid, so that it covers
    the same length on finer grids; GELU in place of ReLU, as in later versions of the authors' code.

    Args:
        in_channels: number of channels of the input.
        out_channels: number of channels of the output.
        width: number of channels of the layers.
        num_layers: number of layers K, at least 1.
        modes: number of Fourier modes along each axis, at least 1; grids need twice as many points.
        padding: zeros after the last row and column, as a share of their number, in [0, 1]; 0 for periodic fields.
        hidden_channels: number of channels of the projection between its two matrices.

    Shape:
        x (B, in_channels, Y, X) real -> (B, out_channels, Y, X)

    Raises:
        ValueError: if an argument is out of range; in ``forward`` if ``x`` has another shape, or fewer than 2 ``modes``
            points along an axis.
        TypeError: in ``forward``, if ``x`` is complex or of integers.

    Example:
        >>> FNO2d(1, 1, width=8, num_layers=2, modes=6)(torch.randn(2, 1, 31, 40)).shape
        torch.Size([2, 1, 31, 40])
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        width: int = 32,
        num_layers: int = 4,
        modes: int = 12,
        padding: float = 0.125,
        hidden_channels: int = 128,
    ) -> None:
        super().__init__()
        positive(in_channels=in_channels, out_channels=out_channels, width=width, num_layers=num_layers)
        positive(hidden_channels=hidden_channels)
        if not 0 <= padding <= 1:
            raise ValueError(f"padding is {padding}; give a share of the grid in [0, 1]")
        self.in_channels, self.padding = in_channels, padding
        self.lift = nn.Conv2d(in_channels + 2, width, 1)
        self.spectral = nn.ModuleList(SpectralConv2d(width, width, modes) for _ in range(num_layers))
        self.pointwise = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(num_layers))
        self.project = nn.Conv2d(width, hidden_channels, 1)
        self.head = nn.Conv2d(hidden_channels, out_channels, 1)

    def reset_parameters(self) -> None:
        """Reinitialise all layers as in the constructor."""
        for layer in (self.lift, *self.spectral, *self.pointwise, self.project, self.head):
            layer.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """Return the output fields.

        Args:
            x: input fields (B, in_channels, Y, X).
        """
        check_real_fields(x)
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            raise ValueError(f"fields have shape {tuple(x.shape)}, where (B, {self.in_channels}, Y, X) is needed")
        height, width = x.shape[2:]
        along_y, along_x = (torch.linspace(0, 1, size, device=x.device, dtype=x.dtype) for size in (height, width))
        places = torch.stack(torch.meshgrid(along_y, along_x, indexing="ij")).expand(len(x), -1, -1, -1)
        u = self.lift(torch.cat([places, x], 1))
        u = functional.pad(u, (0, round(self.padding * width), 0, round(self.padding * height)))
        for k, (spectral, pointwise) in enumerate(zip(self.spectral, self.pointwise, strict=True), start=1):
            u = spectral(u) + pointwise(u)
            u = functional.gelu(u) if k < len(self.spectral) else u
        return self.head(functional.gelu(self.project(u[..., :height, :width])))
