"""Convolution of fields by the product of their lowest Fourier modes with learned matrices."""

import torch
from torch import Tensor, nn

from graphseq.core import Recorded
from graphseq.nn.causal import positive

__all__ = ["SpectralConv2d"]


def check_real_fields(f: Tensor) -> None:
    """Check that fields are real floating-point numbers.

    Args:
        f: fields.

    Raises:
        TypeError: if they are complex, or integers.

    Example:
        >>> check_real_fields(torch.zeros(1, 1, 4, 4))
    """
    if not f.is_floating_point():
        raise TypeError(
            f"fields are {f.dtype}; give real floating-point numbers: real and imaginary parts as two channels, "
            "integers after .float()"
        )


class SpectralConv2d(Recorded, nn.Module):
    r"""Linear operator between channels of periodic fields, given by a matrix for each of the lowest Fourier modes.

    .. math:: \hat u_k = W_k \hat f_k \ \text{ for } -M \le k_y < M, \; 0 \le k_x < M, \qquad
        \hat u_k = 0 \ \text{ otherwise}

    Fourier coefficients are divided by the number of points, so that one layer is the same operator on grids of any
    size. The modes of negative :math:`k_x` follow from those above, since the fields are real. Fourier transforms are
    taken in float32 or wider.

    Source: arXiv 2010.08895, section 4. Differs from it: none.

    Args:
        in_channels: number of channels of the input.
        out_channels: number of channels of the output.
        modes: number M of modes along each axis, at least 1.

    Shape:
        f (B, in_channels, Y, X) real -> (B, out_channels, Y, X)

    Raises:
        ValueError: if a size is below 1; in ``forward`` if ``f`` has another shape, or fewer than 2 M points along an
            axis.
        TypeError: in ``forward``, if ``f`` is complex or has an integer type.

    Example:
        >>> SpectralConv2d(3, 8, modes=4)(torch.randn(2, 3, 16, 20)).shape
        torch.Size([2, 8, 16, 20])
    """

    def __init__(self, in_channels: int, out_channels: int, modes: int) -> None:
        super().__init__()
        positive(in_channels=in_channels, out_channels=out_channels, modes=modes)
        self.in_channels, self.out_channels, self.modes = in_channels, out_channels, modes
        # real and imaginary parts are an axis, so that the layer can be cast to float64
        self.weight = nn.Parameter(torch.zeros(out_channels, in_channels, 2 * modes, modes, 2))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Reinitialise real and imaginary parts uniformly in [0, 1 / (in_channels out_channels))."""
        nn.init.uniform_(self.weight, 0, 1 / (self.in_channels * self.out_channels))

    def forward(self, f: Tensor) -> Tensor:
        """Return the operator applied to fields.

        Args:
            f: fields (B, in_channels, Y, X).
        """
        check_real_fields(f)
        if f.dim() != 4 or f.shape[1] != self.in_channels or min(f.shape[2:]) < 2 * self.modes:
            raise ValueError(
                f"fields have shape {tuple(f.shape)}, where (B, {self.in_channels}, Y, X) is needed, with at least "
                f"{2 * self.modes} points along Y and X for modes={self.modes}"
            )
        height, width = f.shape[2:]
        if not len(f):  # of which there are no transforms
            return f.new_zeros(0, self.out_channels, height, width)
        wide = torch.promote_types(f.dtype, torch.float32)
        with torch.autocast(f.device.type, enabled=False):
            spectrum = torch.fft.rfft2(f.to(wide), norm="forward")
            low = torch.cat([spectrum[:, :, : self.modes], spectrum[:, :, -self.modes :]], 2)[..., : self.modes]
            product = torch.einsum("biyx,oiyx->boyx", low, torch.view_as_complex(self.weight.to(wide)))
            full = product.new_zeros(len(f), self.out_channels, height, width // 2 + 1)
            full[:, :, : self.modes, : self.modes] = product[:, :, : self.modes]
            full[:, :, -self.modes :, : self.modes] = product[:, :, self.modes :]
            return torch.fft.irfft2(full, s=(height, width), norm="forward").to(f.dtype)

    def extra_repr(self) -> str:
        """Return the sizes, for printing."""
        return f"{self.in_channels}, {self.out_channels}, modes={self.modes}"
