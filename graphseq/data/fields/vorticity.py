"""Two-dimensional flow in a periodic square, by its vorticity and Fourier transforms."""

import math

import torch
from torch import Tensor

from graphseq.core import DataError

__all__ = ["evolve_vorticity"]


def evolve_vorticity(
    vorticity: Tensor, *, viscosity: float, duration: float, num_steps: int, forcing: Tensor | float = 0.0
) -> Tensor:
    r"""Return the vorticity of an incompressible flow in the periodic unit square after some time.

    .. math:: \partial_t w + v \cdot \nabla w = \nu \Delta w + f, \qquad
        v = (\partial_y \psi, -\partial_x \psi), \quad -\Delta \psi = w

    Derivatives are taken of Fourier modes, products of fields on the grid without the modes above two thirds of the
    largest. Viscosity acts exactly, by an integrating factor, the rest by the Runge-Kutta method of fourth order. The
    mean of the vorticity is that of the beginning.

    Source: arXiv 2010.08895, section 5.3, for the equation. Differs from it: the time step is of fourth order.

    Args:
        vorticity: vorticity w at the beginning, real (N, Y, X), the first axis of space y, the second x.
        viscosity: viscosity :math:`\nu`, at least 0.
        duration: time that passes, above 0.
        num_steps: number of time steps, at least 1; the flow should pass less than a point in each.
        forcing: source f of vorticity, real (Y, X) or (N, Y, X), or one number; its mean is left out.

    Returns:
        Vorticity at the end, float64 (N, Y, X).

    Raises:
        ValueError: if a number is out of range.
        DataError: if the vorticity is not (N, Y, X) or not finite, the source does not fit, or the vorticity is not
            finite at the end, which too few time steps cause.

    Example:
        >>> x = torch.arange(16).double() / 16 * 2 * torch.pi
        >>> wave = torch.cos(x).expand(1, 16, 16)  # a shear flow, which decays as it is
        >>> after = evolve_vorticity(wave, viscosity=0.01, duration=1.0, num_steps=4)
        >>> torch.allclose(after, wave * math.exp(-0.01 * (2 * math.pi) ** 2), atol=1e-6)
        True
    """
    if not (viscosity >= 0 and duration > 0 and num_steps >= 1):
        raise ValueError(
            f"viscosity is {viscosity}, duration {duration} and num_steps {num_steps}; they must be at least 0, above "
            "0 and at least 1"
        )
    if vorticity.dim() != 3 or vorticity.is_complex() or not len(vorticity):
        raise DataError(
            f"vorticity is {vorticity.dtype} {tuple(vorticity.shape)}; real numbers (N, Y, X) are needed, of at least "
            "one sample"
        )
    if not bool(vorticity.isfinite().all()):
        raise DataError("vorticity is not finite everywhere; remove NaN and infinite numbers")
    w = vorticity.double()
    rows, columns = w.shape[1:]
    wave_y = torch.fft.fftfreq(rows, 1 / rows, dtype=torch.float64, device=w.device)[:, None]
    wave_x = torch.fft.rfftfreq(columns, 1 / columns, dtype=torch.float64, device=w.device)
    slope_y, slope_x = 2j * math.pi * wave_y, 2j * math.pi * wave_x
    laplacian = -((2 * math.pi) ** 2) * (wave_y.square() + wave_x.square())  # (Y, X / 2 + 1)
    inverse = torch.where(laplacian < 0, -1 / laplacian, 0.0)
    kept = (wave_y.abs() < rows / 3) & (wave_x < columns / 3)
    source = torch.as_tensor(forcing, dtype=torch.float64, device=w.device)
    if source.shape not in ((), w.shape[1:], w.shape) or not bool(source.isfinite().all()):
        raise DataError(
            f"forcing has shape {tuple(source.shape)}; finite numbers {tuple(w.shape[1:])} or {tuple(w.shape)} are "
            "needed, as of the vorticity, or one number"
        )
    source = source.expand(w.shape)
    force = torch.fft.rfft2(source) * (laplacian < 0)
    step = duration / num_steps
    half = torch.exp(viscosity * laplacian * step / 2)
    whole = half.square()

    def change(modes: Tensor) -> Tensor:
        stream = inverse * modes
        parts = torch.stack([slope_y * stream, -slope_x * stream, slope_x * modes, slope_y * modes])
        v_x, v_y, w_x, w_y = torch.fft.irfft2(parts * kept, s=(rows, columns))
        return force - kept * torch.fft.rfft2(v_x * w_x + v_y * w_y)

    modes = torch.fft.rfft2(w)
    for _ in range(num_steps):  # each step needs the one before
        first = change(modes)
        second = change(half * (modes + step / 2 * first))
        third = change(half * modes + step / 2 * second)
        fourth = change(whole * modes + step * half * third)
        modes = whole * modes + step / 6 * (whole * first + 2 * half * (second + third) + fourth)
    after = torch.fft.irfft2(modes, s=(rows, columns))
    if not bool(after.isfinite().all()):
        raise DataError(f"the flow is not finite after {num_steps} steps of {step:g}; take more, shorter steps")
    return after
