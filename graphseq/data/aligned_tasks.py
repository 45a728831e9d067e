"""Small tasks whose inputs and targets have a given alignment: clusters of conditions, labelled in two."""

import math
from typing import Unpack

import torch
from torch import Generator, Tensor

from graphseq.data.base import DataOptions, StoreDataModule
from graphseq.data.store import TensorStore

__all__ = ["AlignedTaskDataModule", "aligned_conditions", "simplex_alignment"]


def simplex_alignment(num_conditions: int, num_targets: int) -> float:
    r"""Return the alignment of equidistant conditions with their targets, :math:`c_0 = \sqrt{k / (P - 1)}`.

    A representation that is a function of the k targets alone has this alignment with such inputs: it is the floor that
    an alignment with inputs is compared with.

    Source: arXiv 2401.13558. Differs from it: none.

    Args:
        num_conditions: number P of conditions.
        num_targets: number k of balanced, uncorrelated binary targets, at most P - 1.

    Raises:
        ValueError: if there are more targets than P - 1, or fewer than 1.

    Example:
        >>> round(simplex_alignment(4, 1), 3)
        0.577
    """
    if not 1 <= num_targets < num_conditions:
        raise ValueError(
            f"num_targets is {num_targets}; with {num_conditions} conditions it must be in 1..{num_conditions - 1}"
        )
    return math.sqrt(num_targets / (num_conditions - 1))


def _spectrum(alignment: float, num_targets: int, num_others: int) -> tuple[float, float]:
    """Return the eigenvalues a of the target directions and b of the others, with k a^2 + q b^2 = 1."""
    if num_others:
        return alignment / math.sqrt(num_targets), math.sqrt((1 - alignment**2) / num_others)
    return 1 / math.sqrt(num_targets), 0.0


def aligned_conditions(
    num_conditions: int = 4,
    num_targets: int = 1,
    alignment: float | None = None,
    *,
    rank: int | None = None,
    dim: int = 100,
    generator: Generator | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Return inputs of conditions and their binary targets, whose centred kernels have a given alignment exactly.

    The targets are k columns, drawn at random, of a Hadamard matrix of P rows without the constant one: balanced and
    uncorrelated. The centred kernel of the inputs has these columns and others of the matrix as eigenvectors, with
    eigenvalues a and b,

    .. math::
        \mathrm{CKA}(K_X, K_Y) = \frac{a \sqrt{k}}{\sqrt{k a^2 + q b^2}} = c

    for q other columns. It is embedded in ``dim`` dimensions by a random isometry, and scaled so that the mean squared
    coordinate of an input is 1.

    Special cases for P = 4 and k = 1: ``alignment=0`` is XOR on a square, a small alignment XOR with a third axis that
    separates the classes by little, ``alignment=None`` equidistant clusters, and an alignment of 0.7071 (the root of
    1/2) with ``rank=2`` a square with a labelled side.

    Source: arXiv 2401.13558, the family of tasks. Differs from it: two different eigenvalues; the paper's way to draw a
    kernel could not be read.

    Args:
        num_conditions: number P of conditions, a power of 2, at least 4.
        num_targets: number k of binary targets, from 1 to P - 1.
        alignment: alignment c, in [0, 1]; None for equidistant conditions, see :func:`simplex_alignment`.
        rank: number of directions in which the inputs vary, at most P - 1; None for as many as the alignment allows.
        dim: number D of features, at least the rank.
        generator: source of the random numbers; None for torch's own.

    Returns:
        inputs float64 (P, D), of mean 0, and targets 0 or 1, float64 (P, k).

    Raises:
        ValueError: if an argument is out of range, or ``rank`` does not allow the alignment: k directions are needed
            for c = 1, 1 for c = 0, and k + 1 between them.

    Example:
        >>> from graphseq.metrics import feature_alignment
        >>> x, y = aligned_conditions(8, 2, alignment=0.2)
        >>> x.shape, y.shape, round(float(feature_alignment(x, y)), 8)
        (torch.Size([8, 100]), torch.Size([8, 2]), 0.2)
    """
    if num_conditions < 4 or num_conditions & (num_conditions - 1):
        raise ValueError(f"num_conditions is {num_conditions}; it must be a power of 2, at least 4")
    floor = simplex_alignment(num_conditions, num_targets)
    alignment = floor if alignment is None else alignment
    if not 0 <= alignment <= 1:
        raise ValueError(f"alignment is {alignment}; it must be in [0, 1]")
    used = num_targets if alignment > 0 else 0  # directions of the targets
    others = num_conditions - 1 - num_targets if alignment < 1 else 0
    needed = used + (alignment < 1)
    if used + others < needed:
        raise ValueError(
            f"alignment is {alignment}; {num_targets} targets of {num_conditions} conditions leave no other direction, "
            "so that only 1 is possible: give fewer targets"
        )
    if rank is not None:
        if not needed <= rank <= num_conditions - 1:
            raise ValueError(
                f"rank is {rank}; an alignment of {alignment:g} with {num_targets} targets of {num_conditions} "
                f"conditions needs at least {needed}, and at most {num_conditions - 1} are there"
            )
        others = min(others, rank - used)
    rank = used + others
    if dim < rank:
        raise ValueError(f"dim is {dim}; inputs of rank {rank} need at least as many features")
    hadamard = torch.ones(1, 1, dtype=torch.float64)
    while len(hadamard) < num_conditions:
        hadamard = torch.cat([torch.cat([hadamard, hadamard], 1), torch.cat([hadamard, -hadamard], 1)])
    columns = hadamard[:, 1:][:, torch.randperm(num_conditions - 1, generator=generator)]  # all but the constant one
    a, b = _spectrum(alignment, num_targets, others)
    eigenvalues = columns.new_tensor([a] * num_targets + [b] * others)
    points = columns[:, : num_targets + others] * eigenvalues.sqrt()  # (P, k + q); rows have equal lengths
    points = points / points.square().sum(1).mean().sqrt() * math.sqrt(dim)
    kept = points[:, -rank:] if not used else points
    lift = torch.linalg.qr(torch.randn(dim, rank, dtype=torch.float64, generator=generator)).Q  # (D, rank)
    return kept @ lift.T, (columns[:, :num_targets] + 1) / 2


class AlignedTaskDataModule(StoreDataModule):
    """Noisy samples of conditions whose inputs and binary targets have a given alignment; needs no file.

    Each sample is the input of a condition, see :func:`aligned_conditions`, with isotropic Gaussian noise, and the
    targets of the condition. All splits hold equally many samples of every condition, up to one. The further split
    ``conditions`` holds each condition once, without noise.

    Source: arXiv 2401.13558. Differs from it: as :func:`aligned_conditions`.

    Args:
        num_conditions: number P of conditions, a power of 2, at least 4.
        num_targets: number k of binary targets, from 1 to P - 1.
        alignment: alignment of inputs and targets, in [0, 1]; 0 is XOR on a square for 4 conditions, None equidistant
            conditions.
        rank: number of directions in which the inputs vary, at most P - 1; None for as many as the alignment allows.
        dim: number D of features, at least the rank.
        noise: standard deviation of the noise of each feature, at least 0; features of inputs have mean square 1.
        num_train: number of training samples, at least P.
        num_val: number of validation samples, at least 0.
        num_test: number of test samples, at least 0.
        options: further arguments of :class:`StoreDataModule`; ``seed`` is also the seed of conditions and noise.

    Yields:
        dictionaries with x float32 (B, D), y 0 or 1, float32 (B, k), and condition, int64 (B,).

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> data = AlignedTaskDataModule(alignment=0.0, num_train=8, num_val=4, num_test=4)
        >>> batch = data.store.take(data.splits["conditions"])
        >>> batch["x"].shape, batch["condition"].tolist(), data.num_features, data.num_outputs
        (torch.Size([4, 100]), [0, 1, 2, 3], 100, 1)
    """

    def __init__(
        self,
        num_conditions: int = 4,
        num_targets: int = 1,
        alignment: float | None = None,
        *,
        rank: int | None = None,
        dim: int = 100,
        noise: float = 1.0,
        num_train: int = 5000,
        num_val: int = 1000,
        num_test: int = 1000,
        **options: Unpack[DataOptions],
    ) -> None:
        super().__init__(**options)
        if not 0 <= noise < math.inf:
            raise ValueError(f"noise is {noise}; a standard deviation is at least 0 and finite")
        for name, number, least in (
            ("num_train", num_train, num_conditions), ("num_val", num_val, 0), ("num_test", num_test, 0),
        ):  # fmt: skip
            if number < least:
                raise ValueError(f"{name} is {number}; it must be at least {least}")
        self.num_conditions, self.num_targets, self.alignment = num_conditions, num_targets, alignment
        self.rank, self.dim, self.noise = rank, dim, noise
        self.sizes = {"train": num_train, "val": num_val, "test": num_test}
        self._conditions(Generator().manual_seed(0))  # the ranges, at once

    def _conditions(self, generator: Generator) -> tuple[Tensor, Tensor]:
        return aligned_conditions(
            self.num_conditions, self.num_targets, self.alignment, rank=self.rank, dim=self.dim, generator=generator
        )

    def read(self) -> tuple[TensorStore, dict[str, Tensor]]:
        """Return the samples drawn with the seed, and their splits."""
        generator = Generator().manual_seed(self.seed)
        inputs, targets = self._conditions(generator)
        sizes = {**self.sizes, "conditions": self.num_conditions}
        condition = torch.cat([torch.arange(size) % self.num_conditions for size in sizes.values()])
        noisy = len(condition) - self.num_conditions
        x = inputs.float()[condition]
        x[:noisy] += self.noise * torch.randn(noisy, self.dim, generator=generator)
        splits = dict(zip(sizes, torch.arange(len(condition)).split(list(sizes.values())), strict=True))
        return TensorStore(x=x, y=targets.float()[condition], condition=condition), splits

    @property
    def num_features(self) -> int:
        """Number of features of an input."""
        return self.dim

    @property
    def input_size(self) -> int:
        """Number of features, under the name that is linked to the width of an MLP."""
        return self.dim

    @property
    def num_outputs(self) -> int:
        """Number of binary targets."""
        return self.num_targets
