"""Plug-and-play restoration of images from linear measurements, with any denoiser, and classical denoisers."""

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from graphseq.core import OptionalDependencyError
from graphseq.nn.measurements import LinearMeasurement

__all__ = [
    "Restoration", "TotalVariationDenoiser", "WaveletDenoiser", "plug_and_play_admm", "plug_and_play_descent",
]  # fmt: skip

Order = Literal["image first", "dual first"]


@dataclass(frozen=True)
class Restoration:
    r"""Restored images and the convergence of the iteration.

    Args:
        images: restored images (B, C, Y, X).
        changes: root-mean-square change of the images in each iteration, float64 (iterations,); it falls to 0 where the
            iteration converges.

    Example:
        >>> Restoration(torch.zeros(1, 1, 2, 2), torch.tensor([0.5, 0.1])).settled
        False
    """

    images: Tensor
    changes: Tensor

    @property
    def settled(self) -> bool:
        """Whether the last change is below a thousandth of the first one, or 0."""
        return bool(self.changes[-1] <= 1e-3 * self.changes[0])


@torch.no_grad()
def plug_and_play_admm(
    measurement: Tensor,
    operator: LinearMeasurement,
    denoiser: Callable[[Tensor], Tensor],
    rho: float = 0.1,
    num_iterations: int = 20,
    order: Order = "image first",
    tolerance: float = 1e-6,
    max_inner: int = 100,
) -> Restoration:
    r"""Restore images from measurements by the alternating direction method of multipliers with a denoiser.

    .. math::
        x \leftarrow \arg\min_x \tfrac12 \lVert A x - v \rVert^2 + \tfrac{\rho}{2} \lVert x - z + u \rVert^2, \qquad
        z \leftarrow f(x + u), \qquad u \leftarrow u + x - z

    x is found by conjugate gradients; z starts at :math:`A^\top v` and is the result, u starts at 0. With the proximal
    operator f of R, fixed points are stationary points of :math:`\tfrac12 \lVert A x - v \rVert^2 + \rho R(x)`, and for
    a convex R the minimum. A learned f converges under conditions that hold for
    :class:`graphseq.models.LearnedProximal` with ``alpha`` above 0; for other networks, check
    :attr:`Restoration.changes`.

    Source: arXiv 2310.14344, section 4 and Algorithm 2. Differs from it: none known.

    Args:
        measurement: measurements v (B, \*).
        operator: linear map A with its adjoint, such as a :class:`graphseq.nn.LinearMeasurement`.
        denoiser: function or network f from images to images; a network is called in evaluation mode.
        rho: weight :math:`\rho` of the prior, above 0.
        num_iterations: number of iterations, at least 1.
        order: ``image first`` as in the formula, or ``dual first``: x, then u with the last z, then z.
        tolerance: residual, relative to the right-hand side, at which the conjugate gradients stop, above 0.
        max_inner: largest number of iterations of the conjugate gradients in each step, above 0.

    Returns:
        Restored images, and the change of each iteration.

    Raises:
        ValueError: if an argument is out of range, the measurements are not finite or do not fit the operator, the
            denoiser changes the shape, or :math:`A^\top v` lies outside the range of the values that a
            :class:`graphseq.models.LearnedProximal` was trained on.
        TypeError: if the measurements are not real, the operator has no adjoint, or the denoiser cannot be called.

    Example:
        >>> from graphseq.nn import Inpainting
        >>> v = torch.tensor([[[[4.0, 0.0], [4.0, 4.0]]]])
        >>> mean = lambda x: x.mean((2, 3), keepdim=True).expand_as(x)  # a projection onto constant images
        >>> plug_and_play_admm(v, Inpainting([[1, 0], [1, 1]]), mean, num_iterations=60).images.round(decimals=2)
        tensor([[[[4., 4.],
                  [4., 4.]]]])
    """
    _check(measurement, operator, denoiser, num_iterations, rho=rho, tolerance=tolerance, max_inner=max_inner)
    if order not in get_args(Order):
        raise ValueError(f"order is {order!r}; it must be {' or '.join(map(repr, get_args(Order)))}")
    back = operator.adjoint(measurement)
    _check_range(denoiser, back)
    x = z = back
    u = torch.zeros_like(back)
    changes = []
    with _evaluated(denoiser):
        for _ in range(num_iterations):
            before = z
            x = _conjugate_gradients(operator, rho, back + rho * (z - u), x, tolerance, max_inner)
            if order == "dual first":
                u = u + x - z
            z = _denoised(denoiser, x + u)
            if order == "image first":
                u = u + x - z
            changes.append(_change(z, before))
    return Restoration(z, torch.stack(changes))


@torch.no_grad()
def plug_and_play_descent(
    measurement: Tensor,
    operator: LinearMeasurement,
    denoiser: Callable[[Tensor], Tensor],
    step: float | None = None,
    num_iterations: int = 100,
) -> Restoration:
    r"""Restore images from measurements by proximal gradient descent with a denoiser.

    .. math:: x \leftarrow f\bigl(x - \eta A^\top (A x - v)\bigr)

    x starts at :math:`A^\top v`. With the proximal operator f of R, fixed points are stationary points of
    :math:`\tfrac12 \lVert A x - v \rVert^2 + R(x) / \eta`.

    Source: arXiv 2310.14344, section 4. Differs from it: none known.

    Args:
        measurement: measurements v (B, \*).
        operator: linear map A with its adjoint, such as a :class:`graphseq.nn.LinearMeasurement`.
        denoiser: function or network f from images to images; a network is called in evaluation mode.
        step: step size :math:`\eta`, above 0; None for :math:`1 / \lVert A \rVert^2`, up to which the iteration
            converges for a convex R.
        num_iterations: number of iterations, at least 1.

    Returns:
        Restored images, and the change of each iteration.

    Raises:
        ValueError: as in :func:`plug_and_play_admm`.
        TypeError: as in :func:`plug_and_play_admm`.

    Example:
        >>> from graphseq.nn import Inpainting
        >>> v = torch.tensor([[[[4.0, 0.0], [4.0, 4.0]]]])
        >>> mean = lambda x: x.mean((2, 3), keepdim=True).expand_as(x)
        >>> plug_and_play_descent(v, Inpainting([[1, 0], [1, 1]]), mean).images.round(decimals=2)
        tensor([[[[4., 4.],
                  [4., 4.]]]])
    """
    _check(measurement, operator, denoiser, num_iterations, step=1.0 if step is None else step)
    x = operator.adjoint(measurement)
    _check_range(denoiser, x)
    length = 1 / operator.squared_norm(x) if step is None else step
    changes = []
    with _evaluated(denoiser):
        for _ in range(num_iterations):
            before = x
            x = _denoised(denoiser, x - length * operator.adjoint(operator(x) - measurement))
            changes.append(_change(x, before))
    return Restoration(x, torch.stack(changes))


class _evaluated:
    """Evaluation mode of a network, put back afterwards."""

    def __init__(self, denoiser: object) -> None:
        self.network = denoiser if isinstance(denoiser, nn.Module) else None
        self.modes = [] if self.network is None else [(part, part.training) for part in self.network.modules()]

    def __enter__(self) -> None:
        if self.network is not None:
            self.network.eval()

    def __exit__(self, *error: object) -> None:
        for part, mode in self.modes:
            part.training = mode


def _conjugate_gradients(
    operator: LinearMeasurement, rho: float, right: Tensor, start: Tensor, tolerance: float, max_iterations: int
) -> Tensor:
    """Solve (A^T A + rho) x = right for each image."""

    def product(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).flatten(1).sum(1).view(-1, *[1] * (a.dim() - 1))  # (B, 1, 1, 1)

    def normal(x: Tensor) -> Tensor:
        return operator.adjoint(operator(x)) + rho * x

    x = start
    residual = right - normal(x)
    direction, size = residual, product(residual, residual)
    enough = tolerance**2 * product(right, right)
    for _ in range(max_iterations):
        if not bool((size > enough).any()):
            break
        ahead = normal(direction)
        curvature = product(direction, ahead)
        length = torch.where(size > enough, size / curvature, 0)  # images that are done stay as they are
        x = x + length * direction
        residual = residual - length * ahead
        new = product(residual, residual)
        direction = residual + torch.where(size > enough, new / size, 0) * direction
        size = new
    return x


def _denoised(denoiser: Callable[[Tensor], Tensor], noisy: Tensor) -> Tensor:
    result = denoiser(noisy)
    if result.shape != noisy.shape:
        raise ValueError(
            f"the denoiser returned {tuple(result.shape)} for images {tuple(noisy.shape)}; it must keep the shape"
        )
    return result


def _change(new: Tensor, old: Tensor) -> Tensor:
    return (new - old).double().square().mean().sqrt()


def _check(measurement: Tensor, operator: object, denoiser: object, num_iterations: int, **numbers: float) -> None:
    if not isinstance(measurement, Tensor) or not measurement.is_floating_point():
        given = measurement.dtype if isinstance(measurement, Tensor) else type(measurement).__name__
        raise TypeError(f"measurement is {given}; give a tensor of real floating-point numbers")
    if not callable(getattr(operator, "adjoint", None)):
        raise TypeError(
            f"operator is a {type(operator).__name__} without adjoint(v); give a graphseq.nn.LinearMeasurement"
        )
    if not callable(denoiser):
        raise TypeError(f"denoiser is a {type(denoiser).__name__}; give a network, or a function from images to images")
    if not measurement.numel() or not bool(measurement.isfinite().all()):
        raise ValueError(
            f"measurement {tuple(measurement.shape)} is empty or holds NaN or infinite values; give finite numbers"
        )
    if not isinstance(num_iterations, int) or num_iterations < 1:
        raise ValueError(f"num_iterations is {num_iterations}; it must be a whole number of at least 1")
    for name, number in numbers.items():
        if not 0 < number < math.inf:
            raise ValueError(f"{name} is {number}; it must be above 0 and finite")


def _check_range(denoiser: object, images: Tensor) -> None:
    """Refuse images in other units than those that a learned proximal network was trained on."""
    check = getattr(denoiser, "check_range", None)  # models are not imported here; any network may have it
    if callable(check):
        check(images, "the adjoint map of the measurement")


class TotalVariationDenoiser(nn.Module):
    r"""Denoising by total variation, the proximal operator of :math:`w\, \mathrm{TV}`, on the CPU.

    .. math:: f(y) = \arg\min_x \tfrac12 \lVert x - y \rVert^2 + w \sum_{ij} \lVert (\nabla x)_{ij} \rVert

    Source: Chambolle's algorithm, as scikit-image has it (``denoise_tv_chambolle``), for each image, channels jointly.

    Args:
        weight: weight w, above 0.

    Shape:
        y (B, C, Y, X) -> (B, C, Y, X)

    Raises:
        ValueError: if ``weight`` is not above 0.
        OptionalDependencyError: if scikit-image is not installed (extra ``restoration``).

    Example:
        >>> denoiser = TotalVariationDenoiser(weight=0.2)  # doctest: +SKIP
        >>> denoiser(torch.rand(2, 1, 8, 8)).shape  # doctest: +SKIP
        torch.Size([2, 1, 8, 8])
    """

    def __init__(self, weight: float = 0.1) -> None:
        super().__init__()
        self.weight = _positive("weight", weight)
        self._restoration = _scikit_image("denoising by total variation")

    def forward(self, y: Tensor) -> Tensor:
        """Return denoised images.

        Args:
            y: images.
        """
        return _each(y, lambda image: self._restoration.denoise_tv_chambolle(image, self.weight, channel_axis=0))


class WaveletDenoiser(nn.Module):
    r"""Denoising by a soft threshold of wavelet coefficients (BayesShrink), on the CPU.

    Source: scikit-image's ``denoise_wavelet`` with Daubechies' first wavelet, which fits small images.

    Args:
        sigma: standard deviation of the noise, above 0.

    Shape:
        y (B, C, Y, X) -> (B, C, Y, X)

    Raises:
        ValueError: if ``sigma`` is not above 0.
        OptionalDependencyError: if scikit-image or PyWavelets is not installed (extra ``restoration``).

    Example:
        >>> WaveletDenoiser(sigma=0.2)(torch.rand(2, 1, 8, 8)).shape  # doctest: +SKIP
        torch.Size([2, 1, 8, 8])
    """

    def __init__(self, sigma: float = 0.1) -> None:
        super().__init__()
        self.sigma = _positive("sigma", sigma)
        self._restoration = _scikit_image("denoising by wavelets", also="pywt")

    def forward(self, y: Tensor) -> Tensor:
        """Return denoised images.

        Args:
            y: images.
        """
        return _each(
            y,
            lambda image: self._restoration.denoise_wavelet(
                image, sigma=self.sigma, wavelet="db1", mode="soft", channel_axis=0, rescale_sigma=False
            ),
        )


def _positive(name: str, value: float) -> float:
    if not 0 < value < math.inf:
        raise ValueError(f"{name} is {value}; it must be above 0 and finite")
    return value


def _scikit_image(purpose: str, also: str = "") -> Any:
    try:
        if also:
            importlib.import_module(also)
        return importlib.import_module("skimage.restoration")
    except ImportError as error:
        raise OptionalDependencyError("scikit-image", purpose, extra="restoration") from error


def _each(y: Tensor, denoise: Callable[[Any], Any]) -> Tensor:
    """Apply a function of numpy images to each image of a batch."""
    if y.dim() != 4 or not y.is_floating_point():
        raise ValueError(f"images are {y.dtype} {tuple(y.shape)}; real images (B, C, Y, X) are needed")
    host = y.detach().double().cpu()
    done = [torch.as_tensor(denoise(image.numpy())) for image in host]
    return torch.stack(done).to(y)
