"""Data modules of random points with exact solutions: convex hulls, Delaunay triangulations, shortest tours."""

from typing import ClassVar, Unpack

import numpy as np
import torch
from torch import Generator, Tensor

from graphseq.core.batches import IGNORED
from graphseq.data.base import DataOptions
from graphseq.data.geometry.solutions import LARGEST_TOUR, convex_hulls, delaunay_triangles, shortest_tours
from graphseq.data.sequences.base import PaddedDataModule
from graphseq.data.sequences.pairs import SequencePairStore

__all__ = ["ConvexHullDataModule", "DelaunayDataModule", "PointsDataModule", "TourDataModule", "random_points"]


def random_points(num_sets: int, num_points: int, generator: Generator | None = None) -> Tensor:
    """Draw sets of points uniformly in the unit square; sets in which two points coincide are drawn again.

    Args:
        num_sets: number of sets N, at least 1.
        num_points: number n of points of a set, at least 1.
        generator: source of the random numbers; None for torch's own.

    Returns:
        points float32 (N, n, 2).

    Raises:
        ValueError: if a number is below 1.

    Example:
        >>> random_points(3, 5).shape
        torch.Size([3, 5, 2])
    """
    for name, value in (("num_sets", num_sets), ("num_points", num_points)):
        if value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 1")
    points = torch.rand(num_sets, num_points, 2, generator=generator)
    while True:
        # both coordinates, multiples of 2^-24, as one integer
        keys = (points.double() * 2**24).long().mul(torch.tensor([2**25, 1])).sum(2).sort(1).values  # (N, n)
        twice = (keys.diff(dim=1) == 0).any(1)
        if not bool(twice.any()):
            return points
        points[twice] = torch.rand(int(twice.sum()), num_points, 2, generator=generator)


class PointsDataModule(PaddedDataModule):
    """Base class of the data modules of points in the unit square whose target is a sequence of positions.

    A subclass defines :meth:`solve`. The number of points of a set is drawn uniformly from a range; sets of the test
    split can be larger than those of the training split.

    Memory: 8 bytes for each point, 1 to 8 for each position of a target, 48 for each set.

    Args:
        num_train: number of training sets, at least 1.
        num_val: number of validation sets, at least 0.
        num_test: number of test sets, at least 0.
        min_points: smallest number of points of a training or validation set.
        max_points: largest number of points of a training or validation set; None for ``min_points``.
        test_points: number of points of all test sets; None for the range of the training sets.
        pool_batches: number of batches within which training sets are sorted by length, at least 1; None for a fully
            random order.
        options: further arguments of :class:`PaddedDataModule`; ``seed`` is also the seed of the points.

    Yields:
        ``SequenceBatch`` with x float32 (B, n, 2), lengths (B,) and y int64 (B, m), padded by -100.

    Raises:
        ValueError: if a number is outside its range.

    Example:
        >>> class Leftmost(PointsDataModule):
        ...     def solve(self, points):
        ...         return points[..., 0].argmin(1, keepdims=True)
        >>> next(Leftmost(num_train=8, num_val=1, num_test=1, batch_size=4).batches()).y.shape
        torch.Size([4, 1])
    """

    least_points: ClassVar[int] = 3
    """Fewest points for which the problem has an answer."""
    most_points: ClassVar[int] = 2**15 - 1
    """Most points for which the answer is computed."""

    def __init__(
        self,
        num_train: int = 10_000,
        num_val: int = 1000,
        num_test: int = 1000,
        *,
        min_points: int = 5,
        max_points: int | None = None,
        test_points: int | None = None,
        pool_batches: int | None = None,
        **options: Unpack[DataOptions],
    ) -> None:
        super().__init__(pool_batches=pool_batches, **options)
        max_points = min_points if max_points is None else max_points
        for name, number, least in (("num_train", num_train, 1), ("num_val", num_val, 0), ("num_test", num_test, 0)):
            if number < least:
                raise ValueError(f"{name} is {number}; it must be at least {least}")
        sizes = {"min_points": min_points, "max_points": max_points, "test_points": test_points}
        for name, size in sizes.items():
            if size is not None and not self.least_points <= size <= self.most_points:
                raise ValueError(
                    f"{name} is {size}; a {type(self).__name__} takes {self.least_points} to {self.most_points} points"
                )
        if max_points < min_points:
            raise ValueError(f"max_points is {max_points}, below min_points {min_points}")
        self.sizes = {"train": num_train, "val": num_val, "test": num_test}
        self.min_points, self.max_points, self.test_points = min_points, max_points, test_points

    def solve(self, points: np.ndarray) -> np.ndarray:
        """Return the targets of sets of equally many points, int64 (N, m), filled with -100; defined by a subclass.

        Args:
            points: points float32 (N, n, 2).
        """
        raise TypeError(f"{type(self).__name__} must define solve(points)")

    def read(self) -> tuple[SequencePairStore, dict[str, Tensor]]:
        """Return the sets drawn with the seed, and their splits."""
        x: list[Tensor] = []
        lengths: list[Tensor] = []
        target: list[Tensor] = []
        target_lengths: list[Tensor] = []
        splits: dict[str, Tensor] = {}
        begin = 0
        for number, (split, count) in enumerate(self.sizes.items()):
            words = np.random.SeedSequence([self.seed, number]).generate_state(2, np.uint32)
            generator = Generator().manual_seed(int(words[0]) << 31 ^ int(words[1]))
            fixed = self.test_points if split == "test" else None
            low, high = (self.min_points, self.max_points) if fixed is None else (fixed, fixed)
            drawn = torch.randint(low, high + 1, (count,), generator=generator)
            for size in sorted(set(drawn.tolist())):  # sets of one size are solved together, and stand together
                points = random_points(int((drawn == size).sum()), size, generator)
                answers = torch.from_numpy(self.solve(points.numpy()))  # (N, m)
                x.append(points.flatten(0, 1))
                lengths.append(torch.full((len(points),), size))
                target.append(answers[answers != IGNORED])
                target_lengths.append((answers != IGNORED).sum(1))
            splits[split] = torch.arange(begin, begin + count)
            begin += count
        dtype = torch.uint8 if max(self.max_points, self.test_points or 0) <= 256 else torch.int16
        store = SequencePairStore(torch.cat(x), _ptr(lengths), torch.cat(target).to(dtype), _ptr(target_lengths))
        return store, splits

    @property
    def num_features(self) -> int:
        """Number of coordinates of a point, 2."""
        return 2


def _ptr(lengths: list[Tensor]) -> Tensor:
    return torch.cat([torch.zeros(1, dtype=torch.int64), *lengths]).cumsum(0)


class ConvexHullDataModule(PointsDataModule):
    """Random points in the unit square, and the corners of their convex hull; see :func:`convex_hulls`.

    Corners are counter-clockwise from the leftmost point, a rule that is seen in the coordinates.

    Source: arXiv 1506.03134, section 3.1. Differs from it: the paper does not state direction and first corner; the
    first corner is not repeated at the end.

    Args:
        num_train: number of training sets, at least 1.
        num_val: number of validation sets, at least 0.
        num_test: number of test sets, at least 0.
        options: further arguments of :class:`PointsDataModule`.

    Yields:
        ``SequenceBatch`` with x float32 (B, n, 2), lengths (B,) and y int64 (B, m), padded by -100.

    Example:
        >>> data = ConvexHullDataModule(num_train=8, num_val=1, num_test=1, batch_size=4)
        >>> next(data.batches()).x.shape
        torch.Size([4, 5, 2])
    """

    def solve(self, points: np.ndarray) -> np.ndarray:
        """Return the corners of the hulls.

        Args:
            points: points float32 (N, n, 2).
        """
        return convex_hulls(points)


class DelaunayDataModule(PointsDataModule):
    """Random points in the unit square, and the triangles of their Delaunay triangulation.

    The target is the positions of the corners, three for each triangle, see :func:`delaunay_triangles`.

    Source: arXiv 1506.03134, section 3.2. Differs from it: a triangle is three outputs; how the paper emits a triple is
    not stated.

    Args:
        num_train: number of training sets, at least 1.
        num_val: number of validation sets, at least 0.
        num_test: number of test sets, at least 0.
        options: further arguments of :class:`PointsDataModule`.

    Yields:
        ``SequenceBatch`` with x float32 (B, n, 2), lengths (B,) and y int64 (B, 3 t), padded by -100.

    Example:
        >>> data = DelaunayDataModule(num_train=8, num_val=1, num_test=1, batch_size=4)
        >>> next(data.batches()).y.shape[1] % 3
        0
    """

    def solve(self, points: np.ndarray) -> np.ndarray:
        """Return the triangles of each set.

        Args:
            points: points float32 (N, n, 2).
        """
        found = [delaunay_triangles(each).ravel() for each in points]
        padded = np.full((len(found), max(map(len, found))), IGNORED, dtype=np.int64)
        for row, triangles in zip(padded, found, strict=True):
            row[: len(triangles)] = triangles
        return padded


class TourDataModule(PointsDataModule):
    """Random cities in the unit square, 3 to 16 in a set, and the shortest closed tour; see :func:`shortest_tours`.

    A tour begins at the first city, and of its two directions has the one whose second city has the smaller position.
    All tours are exact; larger sets than 16, for which the paper takes heuristics, are refused.

    Source: arXiv 1506.03134, section 3.3. Differs from it: the paper does not state the direction.

    Args:
        num_train: number of training sets, at least 1.
        num_val: number of validation sets, at least 0.
        num_test: number of test sets, at least 0.
        options: further arguments of :class:`PointsDataModule`.

    Yields:
        ``SequenceBatch`` with x float32 (B, n, 2), lengths (B,) and y int64 (B, n), padded by -100.

    Example:
        >>> data = TourDataModule(num_train=8, num_val=1, num_test=1, batch_size=4)
        >>> next(data.batches()).y[:, 0].tolist()
        [0, 0, 0, 0]
    """

    most_points = LARGEST_TOUR

    def solve(self, points: np.ndarray) -> np.ndarray:
        """Return the tours.

        Args:
            points: points float32 (N, n, 2).
        """
        return shortest_tours(points)
