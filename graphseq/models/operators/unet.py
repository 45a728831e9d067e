"""U-Net on fields, a baseline for operators: a hierarchy of grids with activations in between."""

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphseq.core import Recorded
from graphseq.nn.causal import positive
from graphseq.nn.conv.spectral import check_real_fields

__all__ = ["UNet2d"]


class UNet2d(Recorded, nn.Module):
    r"""U-Net: pairs of convolutions and activations on ever coarser grids, and back to the finest by skip connections.

    Each grid has half the points along each axis of the one before (means of 2 x 2) and twice the channels; on the way
    back, values are interpolated linearly and concatenated with those of the way down. Zeros lie beyond the edge.
    Unlike a cycle of :class:`graphseq.nn.MgConv2d`, it has activations on every grid. There is no batch norm, so that
    the prediction of a sample does not depend on the rest of the batch.

    Source: arXiv 1505.04597, figure 1. Differs from it: GELU in place of ReLU, zero padding so that fields keep their
    size, means in place of maxima, linear interpolation.

    Args:
        in_channels: number of channels of the input.
        out_channels: number of channels of the output.
        width: number of channels on the finest grid.
        levels: number of grids, at least 1.

    Shape:
        x (B, in_channels, Y, X) real -> (B, out_channels, Y, X)

    Raises:
        ValueError: if a size is below 1; in ``forward`` if ``x`` has another shape, or fewer than 2^(levels - 1) points
            along an axis.
        TypeError: in ``forward``, if ``x`` is complex or of integers.

    Example:
        >>> import torch
        >>> UNet2d(1, 1, width=4, levels=3)(torch.randn(2, 1, 31, 40)).shape
        torch.Size([2, 1, 31, 40])
    """

    def __init__(self, in_channels: int = 1, out_channels: int = 1, width: int = 16, levels: int = 4) -> None:
        super().__init__()
        positive(in_channels=in_channels, out_channels=out_channels, width=width, levels=levels)
        self.in_channels, self.levels = in_channels, levels
        widths = [width * 2**level for level in range(levels)]
        self.down = nn.ModuleList(_pair(before, after) for before, after in itertools.pairwise([in_channels, *widths]))
        self.up = nn.ModuleList(_pair(3 * after, after) for after in widths[:-1])
        self.head = nn.Conv2d(width, out_channels, 1)

    def reset_parameters(self) -> None:
        """Reinitialise all convolutions as ``torch.nn.Conv2d`` does."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                module.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """Return the output fields.

        Args:
            x: input fields (B, in_channels, Y, X).
        """
        check_real_fields(x)
        if x.dim() != 4 or x.shape[1] != self.in_channels or min(x.shape[2:]) < 2 ** (self.levels - 1):
            raise ValueError(
                f"fields have shape {tuple(x.shape)}, where (B, {self.in_channels}, Y, X) is needed, with at least "
                f"{2 ** (self.levels - 1)} points along Y and X for levels={self.levels}"
            )
        passed: list[Tensor] = []
        for level, pair in enumerate(self.down):
            x = pair(functional.avg_pool2d(x, 2) if level else x)
            passed.append(x)
        for pair, beside in zip(reversed(self.up), reversed(passed[:-1]), strict=True):
            wide = functional.interpolate(x, size=beside.shape[2:], mode="bilinear", align_corners=False)
            x = pair(torch.cat([wide, beside], 1))
        return self.head(x)


def _pair(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1),
        nn.GELU(),
        nn.Conv2d(out_channels, out_channels, 3, padding=1),
        nn.GELU(),
    )
