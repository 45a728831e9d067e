"""Solutions of elliptic equations on the unit square by finite volumes and sparse direct factorisation."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphseq.core import DataError

__all__ = ["solve_darcy", "solve_helmholtz"]


def solve_darcy(coefficient: Tensor, forcing: Tensor | float = 1.0) -> Tensor:
    r"""Solve the equation of Darcy's flow, with zeros on the edge; Poisson's equation where the coefficient is 1.

    .. math:: -\nabla \cdot (a \nabla u) = f \ \text{ in } (0, 1)^2, \qquad u = 0 \ \text{ on the edge}

    Points divide the sides from end to end, edge included. A face between two points has the harmonic mean of their
    coefficients, so that the flux is continuous where the coefficient jumps. The error falls with the square of the
    distance of points where the coefficient is smooth.

    Args:
        coefficient: coefficient a at all points, above 0, real (N, Y, X), or (1, Y, X) for one of all samples, which
            is then factorised once.
        forcing: right-hand side f at all points, real (N, Y, X), or one number.

    Returns:
        Solutions u at all points, zeros on the edge, float64 (N, Y, X).

    Raises:
        DataError: if the coefficient is not above 0 everywhere, or shapes do not fit.

    Example:
        >>> u = solve_darcy(torch.ones(1, 33, 33))
        >>> round(float(u.max()), 4)
        0.0736
    """
    a = _field(coefficient, "coefficient")
    if not bool((a > 0).all()):
        sample = int((a <= 0).flatten(1).any(1).nonzero()[0]) if bool(a.isfinite().all()) else -1
        where = "not finite" if sample < 0 else f"{float(a[sample].min()):g} at its smallest in sample {sample}"
        raise DataError(
            f"coefficient is {where}; the equation needs numbers above 0 everywhere, such as the exponential of a field"
        )
    f = torch.full_like(a, _number(forcing)) if isinstance(forcing, int | float) else _field(forcing, "forcing")
    a, f = _samples(a, f, "coefficient")
    faces_y = 2 / (1 / a[:, 1:] + 1 / a[:, :-1])  # (M, Y - 1, X)
    faces_x = 2 / (1 / a[:, :, 1:] + 1 / a[:, :, :-1])
    inner = torch.zeros(a.shape[1:], dtype=torch.bool)
    inner[1:-1, 1:-1] = True
    return _solved(faces_y, faces_x, torch.zeros_like(a), f, inner)


def solve_helmholtz(wavenumber: Tensor, flux: Tensor, forcing: Tensor | float = 0.0) -> Tensor:
    r"""Solve Helmholtz' equation with a given flux on the last row, and none on the other sides.

    .. math:: -\Delta u - k^2 u = f \ \text{ in } (0, 1)^2, \qquad
        \partial_n u = g \ \text{ on } y = 1, \qquad \partial_n u = 0 \ \text{ on the other sides}

    Points divide the sides from end to end, edge included. The error falls with the square of the distance of points;
    ten points a wave, :math:`2 \pi / k`, are few.

    Args:
        wavenumber: wavenumber k at all points, real (N, Y, X), or (1, Y, X) for one of all samples.
        flux: outward flux g through the last row, real (N, X).
        forcing: right-hand side f at all points, real (N, Y, X), or one number.

    Returns:
        Solutions u at all points, float64 (N, Y, X).

    Raises:
        DataError: if shapes do not fit, or the equation has no single solution, as where k is that of a standing wave.

    Example:
        >>> u = solve_helmholtz(torch.full((1, 33, 33), 5.0), torch.ones(2, 33))
        >>> u.shape
        torch.Size([2, 33, 33])
    """
    k = _field(wavenumber, "wavenumber")
    rows, columns = k.shape[1:]
    _real(flux, "flux")
    g = flux.detach().double().cpu()
    if g.dim() != 2 or g.shape[1] != columns or not bool(g.isfinite().all()):
        raise DataError(f"flux has shape {tuple(g.shape)}; finite numbers (N, {columns}) are needed, for each column")
    if isinstance(forcing, int | float):
        f = torch.full((len(g), rows, columns), _number(forcing), dtype=torch.float64)
    else:
        f = _field(forcing, "forcing")
    if len(f) != len(g):
        raise DataError(f"flux is given for {len(g)} samples and forcing for {len(f)}; give both for all samples")
    k, f = _samples(k, f, "wavenumber")
    f[:, -1] += 2 * g * (rows - 1)  # the flux through the edge of half a cell, over its volume
    faces = torch.ones_like(k)
    return _solved(faces[:, 1:], faces[:, :, 1:], -k.square(), f, torch.ones(rows, columns, dtype=torch.bool))


def _real(values: object, name: str) -> None:
    if not isinstance(values, Tensor) or values.is_complex():
        given = values.dtype if isinstance(values, Tensor) else type(values).__name__
        raise DataError(f"{name} is {given}; a tensor of real numbers is needed, such as torch.as_tensor gives")


def _number(value: float) -> float:
    if not math.isfinite(value):
        raise DataError(f"forcing is {value}; give a finite number")
    return float(value)


def _field(values: Tensor, name: str) -> Tensor:
    _real(values, name)
    if values.dim() != 3 or min(values.shape[1:]) < 3:
        raise DataError(f"{name} has shape {tuple(values.shape)}; real numbers (N, Y, X) are needed, at least 3 x 3")
    if not bool(values.isfinite().all()):
        raise DataError(f"{name} is not finite everywhere; remove NaN and infinite numbers")
    return values.detach().double().cpu()


def _samples(given: Tensor, forcing: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """Return both after a check that there is one sample of each, or one ``given`` for all."""
    if given.shape[1:] != forcing.shape[1:] or len(given) not in (1, len(forcing)):
        raise DataError(
            f"{name} has shape {tuple(given.shape)} and forcing {tuple(forcing.shape)}; give one of each for every "
            "sample, on one grid"
        )
    return given, forcing.clone()


def _solved(faces_y: Tensor, faces_x: Tensor, mass: Tensor, forcing: Tensor, inner: Tensor) -> Tensor:
    """Return the solution of the sum of fluxes through faces plus ``mass`` u = ``forcing``, zero where not ``inner``.

    Cells at the edge are halves and quarters, so that the matrix is symmetric and no flux leaves through the edge.
    """
    rows, columns = inner.shape
    step_y, step_x = 1 / (rows - 1), 1 / (columns - 1)
    size_y, size_x = (torch.full((n,), 1 / (n - 1), dtype=torch.float64) for n in (rows, columns))
    for size in (size_y, size_x):
        size[0], size[-1] = size[0] / 2, size[-1] / 2
    volume = torch.outer(size_y, size_x)
    down = (faces_y * size_x / step_y).numpy()  # flux through a face for a difference of 1
    across = (faces_x * size_y[:, None] / step_x).numpy()
    diagonal = (mass * volume).numpy()
    right = (forcing * volume).flatten(1).numpy()
    place = np.flatnonzero(inner.numpy())
    u = np.zeros_like(right)
    if len(down) == 1:  # one matrix for all samples
        u[:, place] = _factorised(down[0], across[0], diagonal[0], place)(right[:, place].T).T
    else:
        for sample in range(len(right)):
            solve = _factorised(down[sample], across[sample], diagonal[sample], place)
            u[sample, place] = solve(right[sample, place])
    return torch.from_numpy(u).view(-1, rows, columns)


def _factorised(down: np.ndarray, across: np.ndarray, diagonal: np.ndarray, place: np.ndarray) -> Any:
    """Return the function that solves with the matrix of one sample, restricted to some points."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.linalg import splu

    number = np.arange(diagonal.size).reshape(diagonal.shape)
    first = np.concatenate([number[:-1].ravel(), number[:, :-1].ravel()])
    second = np.concatenate([number[1:].ravel(), number[:, 1:].ravel()])
    flux = np.concatenate([down.ravel(), across.ravel()])
    ends = np.concatenate([first, second, first, second, number.ravel()])
    others = np.concatenate([first, second, second, first, number.ravel()])
    entries = np.concatenate([flux, flux, -flux, -flux, diagonal.ravel()])
    matrix = coo_matrix((entries, (ends, others))).tocsr()[place][:, place].tocsc()
    singular = "the equation has no single solution: its matrix is singular; change the coefficients slightly"
    try:
        factors = splu(matrix, permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True})
    except RuntimeError as error:
        raise DataError(singular) from error
    pivots = np.abs(factors.U.diagonal())
    if not pivots.min() > 1e-12 * pivots.max():
        raise DataError(singular)
    return factors.solve
