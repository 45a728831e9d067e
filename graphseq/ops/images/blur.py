"""Gaussian blur of images."""

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["gaussian_blur"]


def gaussian_blur(images: Tensor, kernel_size: int, sigma: float) -> Tensor:
    r"""Return images convolved with a normalised Gaussian, along rows and columns one after the other.

    .. math:: k_i \propto \exp\bigl(-i^2 / (2 \sigma^2)\bigr), \quad |i| < K / 2, \qquad \textstyle\sum_i k_i = 1

    Borders are reflected, so that constant images stay as they are up to rounding.

    Args:
        images: images of any number of channels.
        kernel_size: number of pixels K of the kernel, odd; 1 changes nothing.
        sigma: standard deviation in pixels, above 0.

    Shape:
        images (B, C, Y, X) -> (B, C, Y, X)

    Raises:
        ValueError: if ``kernel_size`` or ``sigma`` is outside its range, the images are not (B, C, Y, X), or half the
            kernel does not fit into them.
        TypeError: if the images have an integer type.

    Example:
        >>> step = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(1, 1, 4, 4)
        >>> gaussian_blur(step, 3, 1.0)[0, 0, 0]
        tensor([0.0000, 0.2741, 0.7259, 1.0000])
    """
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size is {kernel_size}; it must be odd and at least 1")
    if not sigma > 0:
        raise ValueError(f"sigma is {sigma}; it must be above 0")
    if images.dim() != 4 or min(images.shape[2:]) <= kernel_size // 2:
        raise ValueError(
            f"images are {tuple(images.shape)}; (B, C, Y, X) with more than {kernel_size // 2} rows and columns is "
            f"needed for a kernel of {kernel_size}"
        )
    if not images.is_floating_point():
        raise TypeError(f"images are {images.dtype}; give real numbers, such as images.float() / 255")
    half = kernel_size // 2
    offset = torch.arange(-half, half + 1, dtype=images.dtype, device=images.device)
    kernel = torch.softmax(-offset.square() / (2 * sigma**2), 0)  # the normalised Gaussian
    channels = images.size(1)
    padded = functional.pad(images, (half, half, half, half), mode="reflect")
    rows = kernel.view(1, 1, -1, 1).expand(channels, 1, -1, 1)
    blurred = functional.conv2d(padded, rows, groups=channels)
    return functional.conv2d(blurred, rows.transpose(2, 3), groups=channels)
