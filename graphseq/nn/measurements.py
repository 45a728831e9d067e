"""Linear measurements of images and their adjoints: blur, missing pixels, compressed sensing."""

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from graphseq.core import Recorded

__all__ = ["Blur", "CompressedSensing", "Inpainting", "LinearMeasurement", "gaussian_kernel"]


class LinearMeasurement(Recorded, nn.Module):
    r"""Base of linear maps A of images with their adjoint.

    .. math:: \langle A x, v \rangle = \langle x, A^\top v \rangle

    A subclass defines ``forward`` and :meth:`adjoint`. Noise is not included.

    Shape:
        x (B, C, Y, X) -> (B, \*)

    Example:
        >>> class Half(LinearMeasurement):
        ...     def forward(self, x):
        ...         return x / 2
        ...     def adjoint(self, v):
        ...         return v / 2
        >>> float(Half().squared_norm(torch.ones(1, 1, 2, 2)))
        0.25
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return the measurements of images.

        Args:
            x: images.
        """
        raise TypeError(f"{type(self).__name__} must define forward(x) and adjoint(v)")

    def adjoint(self, v: Tensor) -> Tensor:
        """Return the adjoint of measurements, images.

        Args:
            v: measurements.
        """
        raise TypeError(f"{type(self).__name__} must define forward(x) and adjoint(v)")

    @torch.no_grad()
    def squared_norm(self, x: Tensor, num_iterations: int = 30) -> Tensor:
        r"""Return :math:`\lVert A \rVert^2`, estimated from below by power iteration.

        Args:
            x: an image that gives shape, type and device; its values do not matter.
            num_iterations: number of iterations, at least 1.

        Returns:
            Scalar.
        """
        generator = Generator().manual_seed(0)  # the same number at each call
        v = torch.randn(x[:1].shape, generator=generator, dtype=x.dtype).to(x.device)
        norm = v.norm()
        for _ in range(num_iterations):
            v = self.adjoint(self(v / norm))
            norm = v.norm()
        return norm


class Blur(LinearMeasurement):
    r"""Convolution of each channel with one kernel; beyond the borders images are 0.

    .. math:: (A x)_{ij} = \sum_{kl} h_{kl}\, x_{i+k,\, j+l}, \qquad A^\top v = \sum_{kl} h_{kl}\, v_{i-k,\, j-l}

    Source: the measurement of arXiv 2310.14344, section 5.2. Differs from it: borders of 0.

    Args:
        kernel: rows of the kernel h, an odd number of rows and columns, such as :func:`gaussian_kernel` returns.

    Shape:
        x (B, C, Y, X) -> (B, C, Y, X)

    Raises:
        ValueError: if the kernel is not a matrix with odd numbers of rows and columns, or is not finite, or 0; in a
            call, if images have another shape.
        TypeError: in a call, if images are integers.

    Example:
        >>> image = torch.zeros(1, 1, 3, 3)
        >>> image[0, 0, 1, 1] = 1.0
        >>> Blur([[0.0, 0.0, 0.0], [0.25, 0.5, 0.25], [0.0, 0.0, 0.0]])(image)[0, 0, 1]
        tensor([0.2500, 0.5000, 0.2500])
    """

    kernel: Tensor

    def __init__(self, kernel: Sequence[Sequence[float]]) -> None:
        super().__init__()
        given = _matrix(kernel, "kernel")
        if any(size % 2 == 0 for size in given.shape) or not bool(given.isfinite().all()) or not bool(given.any()):
            raise ValueError(
                f"kernel has shape {tuple(given.shape)}; give finite numbers, not all of them 0, an odd number of rows "
                "and of columns"
            )
        self.register_buffer("kernel", given)

    def forward(self, x: Tensor) -> Tensor:
        """Return blurred images.

        Args:
            x: images.
        """
        return functional.conv2d(x, self._weights(x), padding=self._padding, groups=x.size(1))

    def adjoint(self, v: Tensor) -> Tensor:
        """Return images convolved with the mirrored kernel.

        Args:
            v: blurred images.
        """
        return functional.conv_transpose2d(v, self._weights(v), padding=self._padding, groups=v.size(1))

    def extra_repr(self) -> str:
        """Return the size of the kernel."""
        return f"{self.kernel.size(0)} x {self.kernel.size(1)}"

    @property
    def _padding(self) -> tuple[int, int]:
        return self.kernel.size(0) // 2, self.kernel.size(1) // 2

    def _weights(self, x: Tensor) -> Tensor:
        _check_images(x)
        if x.dim() != 4:
            raise ValueError(f"images have shape {tuple(x.shape)}; (B, C, Y, X) is needed")
        return self.kernel.to(x.dtype).expand(x.size(1), 1, -1, -1)


class Inpainting(LinearMeasurement):
    r"""Pixels that are known, the others set to 0: :math:`A x = m \odot x`, which is its own adjoint.

    Source: the measurement is standard.

    Args:
        mask: rows of the mask m, for all channels, true or 1 where a pixel is known, else false or 0.

    Shape:
        x (B, C, Y, X) -> (B, C, Y, X)

    Raises:
        ValueError: if the mask is not a matrix of zeros and ones, or has no 1; in a call, if images have another size.
        TypeError: in a call, if images are integers.

    Example:
        >>> Inpainting([[True, False], [True, True]])(torch.full((1, 1, 2, 2), 5.0))[0, 0].tolist()
        [[5.0, 0.0], [5.0, 5.0]]
    """

    mask: Tensor

    def __init__(self, mask: Sequence[Sequence[bool | float]]) -> None:
        super().__init__()
        given = _matrix(mask, "mask")
        if not bool(((given == 0) | (given == 1)).all()) or not bool(given.any()):
            raise ValueError("mask must hold only 0 and 1, 1 where a pixel is known, and at least one 1")
        self.register_buffer("mask", given)

    def forward(self, x: Tensor) -> Tensor:
        """Return images with unknown pixels set to 0.

        Args:
            x: images.
        """
        _check_images(x)
        if x.dim() != 4 or x.shape[2:] != self.mask.shape:
            needed = ", ".join(map(str, self.mask.shape))
            raise ValueError(f"images have shape {tuple(x.shape)}; (B, C, {needed}) is needed for this mask")
        return x * self.mask.to(x.dtype)

    def adjoint(self, v: Tensor) -> Tensor:
        """Return the same as the measurement.

        Args:
            v: measured images.
        """
        return self(v)


class CompressedSensing(LinearMeasurement):
    r"""Fewer random projections than pixels: :math:`A x = G \operatorname{vec}(x) / \sqrt{M}`, G of standard normals.

    Source: the measurement is standard.

    Args:
        num_measurements: number M of projections, at least 1.
        image_shape: channels, rows and columns of an image.
        seed: seed of the random matrix, which is drawn again and not stored in checkpoints.

    Shape:
        x (B, C, Y, X) -> (B, M)

    Raises:
        ValueError: if a number is below 1; in a call, if the shape is another one.
        TypeError: in a call, if images are integers.

    Example:
        >>> sensing = CompressedSensing(20, (1, 8, 8))
        >>> v = sensing(torch.randn(3, 1, 8, 8))
        >>> v.shape, sensing.adjoint(v).shape
        (torch.Size([3, 20]), torch.Size([3, 1, 8, 8]))
    """

    matrix: Tensor

    def __init__(self, num_measurements: int, image_shape: tuple[int, int, int], seed: int = 0) -> None:
        super().__init__()
        if num_measurements < 1 or len(image_shape) != 3 or min(image_shape) < 1:
            raise ValueError(
                f"num_measurements is {num_measurements} and image_shape {image_shape}; give at least 1, and channels, "
                "rows and columns"
            )
        self.num_measurements, self.image_shape, self.seed = num_measurements, tuple(image_shape), seed
        drawn = torch.randn(num_measurements, math.prod(image_shape), generator=Generator().manual_seed(seed))
        self.register_buffer("matrix", drawn / math.sqrt(num_measurements), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the projections of each image, (B, M).

        Args:
            x: images.
        """
        _check_images(x)
        if tuple(x.shape[1:]) != self.image_shape:
            needed = ", ".join(map(str, self.image_shape))
            raise ValueError(f"images have shape {tuple(x.shape)}; (B, {needed}) is needed")
        return x.flatten(1) @ self.matrix.to(x.dtype).T

    def adjoint(self, v: Tensor) -> Tensor:
        """Return images, sums of the random ones with the measurements as weights.

        Args:
            v: measurements (B, M).
        """
        _check_images(v)
        if v.dim() != 2 or v.size(1) != self.num_measurements:
            raise ValueError(f"measurements have shape {tuple(v.shape)}; (B, {self.num_measurements}) is needed")
        return (v @ self.matrix.to(v.dtype)).unflatten(1, self.image_shape)


def _matrix(rows: Sequence[Sequence[float]], name: str) -> Tensor:
    if not all(hasattr(row, "__len__") for row in rows) or len({len(row) for row in rows}) != 1:
        raise ValueError(f"{name} has rows of different lengths, or none; give a matrix")
    return torch.as_tensor(rows, dtype=torch.get_default_dtype())


def _check_images(x: Tensor) -> None:
    if not (x.is_floating_point() or x.is_complex()):  # weights would be rounded to integers
        raise TypeError(f"images or measurements are {x.dtype}; give floating-point numbers, such as images / 255")


def gaussian_kernel(size: int, sigma: float) -> list[list[float]]:
    r"""Return a normalised Gaussian kernel, as rows.

    .. math:: h_{kl} \propto \exp\bigl(-(k^2 + l^2) / (2 \sigma^2)\bigr), \qquad \textstyle\sum_{kl} h_{kl} = 1

    Args:
        size: number of rows and columns, odd.
        sigma: standard deviation in pixels, above 0.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> [[round(value, 3) for value in row] for row in gaussian_kernel(3, 1.0)]
        [[0.075, 0.124, 0.075], [0.124, 0.204, 0.124], [0.075, 0.124, 0.075]]
    """
    if size < 1 or size % 2 == 0 or not 0 < sigma < math.inf:
        raise ValueError(f"size is {size} and sigma {sigma}; give an odd number of at least 1, and a number above 0")
    offset = torch.arange(size, dtype=torch.float64) - size // 2
    line = torch.softmax(-offset.square() / (2 * sigma**2), 0)
    rows: list[list[float]] = torch.outer(line, line).tolist()
    return rows
