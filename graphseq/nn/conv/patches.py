"""Encoder of images by independent patches."""

from typing import Literal

from torch import Tensor, nn

from graphseq.core.spec import Recorded

__all__ = ["PatchEncoder"]


class PatchEncoder(Recorded, nn.Module):
    r"""Features of the patches of an image: one convolution whose kernel and stride are the patch, and ReLU.

    Patches do not overlap, so that the features of a patch depend on no other one.

    Source: arXiv 2508.14140, overview. The closest public code flattens the features ``channel`` by ``channel``, so
    that a contiguous group of features spans all patches; the default here is ``patch`` by ``patch``, where it spans
    few.

    Args:
        in_shape: numbers of channels, rows and columns of an image.
        patch_grid: number of patches along rows and along columns, a divisor of both.
        channels: number of features of a patch.
        order: what varies slowest in the output: ``patch`` or ``channel``.

    Shape:
        x (B, C, Y, X) real -> (B, patch_grid^2 * channels)

    Raises:
        ValueError: if the grid does not divide the image, or an argument is out of range; in ``forward`` if images
            have another shape.

    Example:
        >>> import torch
        >>> PatchEncoder((1, 28, 28))(torch.randn(2, 1, 28, 28)).shape
        torch.Size([2, 512])
    """

    def __init__(
        self,
        in_shape: tuple[int, int, int],
        patch_grid: int = 4,
        channels: int = 32,
        order: Literal["patch", "channel"] = "patch",
    ) -> None:
        super().__init__()
        if len(in_shape) != 3 or min(in_shape) < 1:
            raise ValueError(f"in_shape is {tuple(in_shape)}; it must be (channels, rows, columns)")
        for name, size in {"patch_grid": patch_grid, "channels": channels}.items():
            if size < 1:
                raise ValueError(f"{name} is {size}; it must be at least 1")
        if order not in ("patch", "channel"):
            raise ValueError(f"order is {order!r}; it must be 'patch' or 'channel'")
        _, height, width = in_shape
        if height % patch_grid or width % patch_grid:
            raise ValueError(
                f"patch_grid is {patch_grid}, which does not divide images of {height} x {width}; give a divisor of "
                "both"
            )
        self.in_shape = tuple(in_shape)
        self.order = order
        self.out_features = patch_grid**2 * channels
        patch = (height // patch_grid, width // patch_grid)
        self.convolution = nn.Conv2d(in_shape[0], channels, kernel_size=patch, stride=patch)

    def reset_parameters(self) -> None:
        """Reinitialise the convolution."""
        self.convolution.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """Return the features of all patches, side by side.

        Args:
            x: images (B, C, Y, X).
        """
        if x.dim() != 4 or tuple(x.shape[1:]) != self.in_shape:
            raise ValueError(f"images have shape {tuple(x.shape)}; (B, {', '.join(map(str, self.in_shape))}) is needed")
        features = self.convolution(x).relu().flatten(2)  # (B, channels, patches)
        return (features.transpose(1, 2) if self.order == "patch" else features).flatten(1)
