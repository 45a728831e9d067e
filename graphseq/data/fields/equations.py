"""Data modules of generated fields: solutions of differential equations."""

import math
from abc import abstractmethod
from typing import Literal, Unpack

import torch
from torch import Generator, Tensor

from graphseq.data.base import DataOptions
from graphseq.data.fields.elliptic import solve_darcy, solve_helmholtz
from graphseq.data.fields.module import FieldDataModule
from graphseq.data.fields.random import gaussian_random_fields
from graphseq.data.fields.vorticity import evolve_vorticity

__all__ = ["DarcyDataModule", "HelmholtzDataModule", "PoissonDataModule", "VorticityDataModule"]


class _Generated(FieldDataModule):
    """Fields drawn with the seed, of the same samples on every grid."""

    def __init__(
        self, num_train: int, num_val: int, num_test: int, resolution: int, **options: Unpack[DataOptions]
    ) -> None:
        super().__init__(**options)
        for name, value, least in (
            ("num_train", num_train, 1),
            ("num_val", num_val, 0),
            ("num_test", num_test, 0),
            ("resolution", resolution, 3),
        ):
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{name} is {value}; it must be a whole number of at least {least}")
        self.counts = {"train": num_train, "val": num_val, "test": num_test}
        self.resolution = resolution

    def fields(self) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return the fields drawn with the seed, training first."""
        x, y = self.draw(sum(self.counts.values()), Generator().manual_seed(self.seed))
        splits = dict(zip(self.counts, torch.arange(len(x)).split(list(self.counts.values())), strict=True))
        return x[:, None], y[:, None], splits

    @abstractmethod
    def draw(self, number: int, generator: Generator) -> tuple[Tensor, Tensor]:
        """Return inputs and outputs (N, Y, X).

        Args:
            number: number of samples N.
            generator: generator of all that is random.
        """


class DarcyDataModule(_Generated):
    r"""Flow through a random medium: from the coefficient to the solution of :func:`graphseq.data.solve_darcy`, f = 1.

    The coefficient is made of a Gaussian field of covariance :math:`(-\Delta + 9)^{-2}`, see
    :func:`graphseq.data.gaussian_random_fields`: ``rough``, 12 where the field is above 0 and 3 elsewhere; ``smooth``,
    its exponential. The grid holds the points within the square, the solution being 0 on its edge: sizes 31, 63, 127
    coarsen to a single point with ``alignment="vertex"``. Samples are the same on all grids.

    Source: arXiv 2010.08895, section 5.2 (rough). Differs from it: the smooth coefficient; grids without the edge.

    Args:
        kind: kind of coefficient: ``rough`` or ``smooth``.
        num_train: number of training samples.
        num_val: number of validation samples.
        num_test: number of test samples.
        resolution: number of points along each axis, at least 3; a sample of 63 x 63 takes some 30 ms.
        options: further arguments of :class:`StoreDataModule`; ``seed`` is also the seed of the coefficients.

    Yields:
        coefficients and solutions, float32 (B, 1, resolution, resolution) each.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> data = DarcyDataModule(num_train=4, num_val=1, num_test=1, resolution=15, batch_size=2)
        >>> x, y = next(data.batches("train"))
        >>> x.shape, x.unique().tolist()
        (torch.Size([2, 1, 15, 15]), [3.0, 12.0])
    """

    def __init__(
        self,
        kind: Literal["rough", "smooth"] = "rough",
        *,
        num_train: int = 1000,
        num_val: int = 100,
        num_test: int = 200,
        resolution: int = 63,
        **options: Unpack[DataOptions],
    ) -> None:
        super().__init__(num_train, num_val, num_test, resolution, **options)
        if kind not in ("rough", "smooth"):
            raise ValueError(f"kind is {kind!r}; it must be 'rough' or 'smooth'")
        self.kind = kind

    def draw(self, number: int, generator: Generator) -> tuple[Tensor, Tensor]:
        """Return coefficients and solutions at the points within the square."""
        field = gaussian_random_fields(number, self.resolution + 2, generator=generator)
        coefficient = torch.where(field > 0, 12.0, 3.0).double() if self.kind == "rough" else field.exp()
        inner = slice(1, -1)
        return coefficient[:, inner, inner], solve_darcy(coefficient)[:, inner, inner]


class PoissonDataModule(_Generated):
    r"""Poisson's equation, a linear operator: from a random right-hand side to the solution that is 0 on the edge.

    .. math:: -\Delta u = f \ \text{ in } (0, 1)^2, \qquad u = 0 \ \text{ on the edge}

    The right-hand side is a Gaussian field of covariance :math:`(-\Delta + 9)^{-\alpha}` and variance 1. The grid holds
    the points within the square, as in :class:`DarcyDataModule`.

    Args:
        num_train: number of training samples.
        num_val: number of validation samples.
        num_test: number of test samples.
        resolution: number of points along each axis, at least 3.
        exponent: power :math:`\alpha` of the covariance, the larger the smoother, above 1.
        options: further arguments of :class:`StoreDataModule`; ``seed`` is also the seed of the right-hand sides.

    Yields:
        right-hand sides and solutions, float32 (B, 1, resolution, resolution) each.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> x, y = next(PoissonDataModule(num_train=4, num_val=1, num_test=1, resolution=15).batches("train"))
        >>> y.shape
        torch.Size([4, 1, 15, 15])
    """

    def __init__(
        self,
        *,
        num_train: int = 1000,
        num_val: int = 100,
        num_test: int = 200,
        resolution: int = 63,
        exponent: float = 2.0,
        **options: Unpack[DataOptions],
    ) -> None:
        super().__init__(num_train, num_val, num_test, resolution, **options)
        if not exponent > 1:
            raise ValueError(f"exponent is {exponent}; it must be above 1")
        self.exponent = exponent

    def draw(self, number: int, generator: Generator) -> tuple[Tensor, Tensor]:
        """Return right-hand sides and solutions at the points within the square."""
        size, inner = self.resolution + 2, slice(1, -1)
        forcing = gaussian_random_fields(number, size, exponent=self.exponent, generator=generator)
        solution = solve_darcy(torch.ones(1, size, size), forcing)
        return forcing[:, inner, inner], solution[:, inner, inner]


class HelmholtzDataModule(_Generated):
    r"""Waves in a random medium: from the speed of waves to the solution of :func:`graphseq.data.solve_helmholtz`.

    The speed is :math:`c = 1 + \tanh(a) / 20` with a Gaussian field a, the wavenumber :math:`k / c`; the flux through
    the last row is a bump, :math:`e^{-50 (x - 1/2)^2}`, the same in all samples. The grid has the edge: sizes 33, 65,
    129 coarsen with ``boundary="neumann"`` and ``alignment="vertex"``.

    Source: the data of arXiv 2310.19809 as they were described: c = 20 + tanh(a), frequency 1000, 101 x 101 points.
    Differs from it: units in which the mean speed is 1, and a smaller wavenumber by default.

    Args:
        num_train: number of training samples.
        num_val: number of validation samples.
        num_test: number of test samples.
        resolution: number of points along each axis, edge included, at least 3.
        wavenumber: wavenumber k where the speed is 1, above 0; ten points a wave need a resolution of 1.6 k.
        options: further arguments of :class:`StoreDataModule`; ``seed`` is also the seed of the speeds.

    Yields:
        speeds and solutions, float32 (B, 1, resolution, resolution) each.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> x, y = next(HelmholtzDataModule(num_train=4, num_val=1, num_test=1, resolution=17).batches("train"))
        >>> y.shape
        torch.Size([4, 1, 17, 17])
    """

    def __init__(
        self,
        *,
        num_train: int = 1000,
        num_val: int = 100,
        num_test: int = 200,
        resolution: int = 65,
        wavenumber: float = 15.0,
        **options: Unpack[DataOptions],
    ) -> None:
        super().__init__(num_train, num_val, num_test, resolution, **options)
        if not wavenumber > 0:
            raise ValueError(f"wavenumber is {wavenumber}; it must be above 0")
        self.wavenumber = wavenumber

    def draw(self, number: int, generator: Generator) -> tuple[Tensor, Tensor]:
        """Return speeds and solutions at all points."""
        speed = 1 + gaussian_random_fields(number, self.resolution, generator=generator).tanh() / 20
        x = torch.linspace(0, 1, self.resolution, dtype=torch.float64)
        bump = torch.exp(-50 * (x - 0.5).square()).expand(number, -1)
        return speed, solve_helmholtz(self.wavenumber / speed, bump)


class VorticityDataModule(_Generated):
    r"""Flow in a periodic square: from the vorticity at the beginning to that after some time.

    The beginning is a Gaussian field of covariance :math:`(-\Delta + 49)^{-5/2}` and variance 1, the source
    :math:`\tfrac{1}{10} (\sin 2\pi(x + y) + \cos 2\pi(x + y))`, the solution that of
    :func:`graphseq.data.evolve_vorticity`. Even sizes coarsen with ``boundary="periodic"``.

    Source: arXiv 2010.08895, section 5.3. Differs from it: the scale of the beginning, and one time in place of a
    sequence of times.

    Args:
        num_train: number of training samples.
        num_val: number of validation samples.
        num_test: number of test samples.
        resolution: number of points along each axis, at least 3.
        viscosity: viscosity, at least 0; 0.001 to 0.00001 in the literature, the smaller the finer the flow.
        duration: time between input and output, above 0.
        time_step: longest time step of the solver, above 0.
        options: further arguments of :class:`StoreDataModule`; ``seed`` is also the seed of the beginnings.

    Yields:
        vorticities at the beginning and at the end, float32 (B, 1, resolution, resolution) each.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> data = VorticityDataModule(num_train=4, num_val=1, num_test=1, resolution=16, duration=0.2)
        >>> next(data.batches("train"))[1].shape
        torch.Size([4, 1, 16, 16])
    """

    def __init__(
        self,
        *,
        num_train: int = 400,
        num_val: int = 50,
        num_test: int = 100,
        resolution: int = 64,
        viscosity: float = 1e-3,
        duration: float = 5.0,
        time_step: float = 0.05,
        **options: Unpack[DataOptions],
    ) -> None:
        super().__init__(num_train, num_val, num_test, resolution, **options)
        if not (viscosity >= 0 and duration > 0 and time_step > 0):
            raise ValueError(
                f"viscosity is {viscosity}, duration {duration} and time_step {time_step}; they must be at least 0, "
                "above 0 and above 0"
            )
        self.viscosity, self.duration, self.time_step = viscosity, duration, time_step

    def draw(self, number: int, generator: Generator) -> tuple[Tensor, Tensor]:
        """Return vorticities at the beginning and at the end."""
        start = gaussian_random_fields(
            number, self.resolution, exponent=2.5, shift=49.0, edge="periodic", generator=generator
        )
        x = torch.arange(self.resolution, dtype=torch.float64) / self.resolution
        phase = 2 * torch.pi * (x[:, None] + x)
        steps = max(1, math.ceil(self.duration / self.time_step))
        end = evolve_vorticity(
            start, viscosity=self.viscosity, duration=self.duration, num_steps=steps,
            forcing=0.1 * (phase.sin() + phase.cos()),
        )  # fmt: skip
        return start, end
