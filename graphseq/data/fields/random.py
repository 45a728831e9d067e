"""Gaussian random fields on the unit square, by their coefficients, so that a draw is the same on every grid."""

import math
from typing import Literal, get_args

import torch
from torch import Generator, Tensor

__all__ = ["gaussian_random_fields"]

Edge = Literal["neumann", "periodic"]


def gaussian_random_fields(
    num_fields: int,
    size: int,
    *,
    exponent: float = 2.0,
    shift: float = 9.0,
    edge: Edge = "neumann",
    num_modes: int = 32,
    generator: Generator | None = None,
) -> Tensor:
    r"""Draw Gaussian fields with the covariance of a power of the Laplacian, scaled to variance 1.

    .. math:: a(y, x) \propto \sum_{k, l < M} \xi_{kl}\,(\lambda_k + \lambda_l + \tau)^{-\alpha / 2}\,
        \varphi_k(y)\,\varphi_l(x), \qquad \xi_{kl} \sim N(0, 1)

    without the constant k = l = 0. The variance is the mean over the square. Coefficients are drawn in float64 whatever
    the grid, so that a generator in the same state gives the same fields on grids of all sizes.

    Source: arXiv 2010.08895, appendix A.3: the fields of its data. Differs from it: the scale, and that the number of
    modes does not grow with the grid.

    Args:
        num_fields: number of fields N.
        size: number of points along each axis. With ``neumann`` they divide the side from end to end, with ``periodic``
            the last one is a step before the first.
        exponent: power :math:`\alpha` of the Laplacian, the larger the smoother, above 1.
        shift: number :math:`\tau` that bounds the length of waves, above 0.
        edge: basis functions: ``neumann``, cosines of half waves, whose slope at the edge is 0, or ``periodic``,
            cosines and sines of whole waves.
        num_modes: number M of basis functions along an axis, at least 2.
        generator: generator of the coefficients; None for torch's own.

    Returns:
        Fields, float64 (N, size, size).

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> draw = lambda size: gaussian_random_fields(2, size, generator=Generator().manual_seed(0))
        >>> torch.allclose(draw(33)[:, ::2, ::2], draw(17), atol=1e-5)
        True
    """
    if num_fields < 1 or size < 2 or num_modes < 2:
        raise ValueError(f"num_fields is {num_fields}, size {size} and num_modes {num_modes}; give at least 1, 2 and 2")
    if not (exponent > 1 and shift > 0):
        raise ValueError(f"exponent is {exponent} and shift {shift}; give numbers above 1 and above 0")
    if edge not in get_args(Edge):
        raise ValueError(f"edge is {edge!r}; it must be 'neumann' or 'periodic'")
    number = torch.arange(num_modes, dtype=torch.float64)
    if edge == "neumann":
        waves = number / 2
        phase = torch.outer(torch.linspace(0, 1, size, dtype=torch.float64), waves)
        basis = torch.cos(2 * math.pi * phase)  # (size, M)
    else:
        waves = torch.ceil(number / 2)  # 0, 1, 1, 2, 2, ...
        phase = torch.outer(torch.arange(size, dtype=torch.float64) / size, waves)
        basis = torch.where(number % 2 == 1, torch.cos(2 * math.pi * phase), torch.sin(2 * math.pi * phase))
        basis[:, 0] = 1
    basis[:, 1:] *= math.sqrt(2)
    eigenvalue = (2 * math.pi * waves).square()
    deviation = (eigenvalue[:, None] + eigenvalue + shift).pow(-exponent / 2)
    deviation[0, 0] = 0
    drawn = torch.randn(num_fields, num_modes, num_modes, dtype=torch.float64, generator=generator)
    return basis @ (drawn * deviation / deviation.norm()) @ basis.T
