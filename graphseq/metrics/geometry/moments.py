"""Moments of features in blocks, collected batch by batch around the mean so far, in float64."""

import math
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor
from torchmetrics import Metric

__all__: list[str] = []

_ROUNDING = 64 * torch.finfo(torch.float64).eps


def checked_rows(features: Tensor, name: str, least: int = 2) -> Tensor:
    """Return features in float64; refuse what is no matrix of numbers, has too few rows, or is not finite.

    Args:
        features: rows of features (n, D).
        name: name of the argument, for the message.
        least: smallest number of rows.

    Raises:
        ValueError: if something is wrong with them.

    Example:
        >>> checked_rows(torch.ones(2, 1), "features").dtype
        torch.float64
    """
    if features.dim() != 2 or not features.shape[1] or features.is_complex():
        raise ValueError(
            f"{name} is {features.dtype} {tuple(features.shape)}; give real numbers (n, D), one row each: further axes "
            "by flatten(1), classes as one-hot rows"
        )
    if len(features) < least:
        raise ValueError(f"{name} has {len(features)} rows; this score needs at least {least}")
    features = features.double()
    bad = ~features.isfinite().all(1)
    if bool(bad.any()):
        raise ValueError(
            f"{name} holds NaN or infinite numbers in {int(bad.sum())} of {len(features)} rows, the first of them row "
            f"{int(bad.nonzero()[0])}; leave these rows out, or look for the layer where they arise"
        )
    return features


@dataclass
class Moments:
    r"""Count, mean and central moments of rows u that consist of blocks, or of several parts that are to be merged.

    With :math:`\bar u` the row without its mean and :math:`q_b = \lVert \bar u_b \rVert^2` for each of m blocks:
    ``scatter`` is :math:`\sum \bar u \bar u^\top`, ``third`` :math:`\sum q\, \bar u^\top`, ``fourth``
    :math:`\sum q\, q^\top`. They tell everything that alignments of linear kernels need, unbiased ones too.

    Args:
        blocks: which of D features belong to each block, 0 or 1, (m, D).
        count: number of rows, (*).
        mean: mean row, (*, D).
        scatter: sum of products of features, (*, D, D).
        third: sum of the squared lengths of blocks times the row, (*, m, D).
        fourth: sum of products of the squared lengths of blocks, (*, m, m).

    Example:
        >>> moments = Moments.of(torch.tensor([[1.0, 0.0], [3.0, 2.0]]).double(), block_membership([1, 1]))
        >>> moments.mean.tolist(), moments.scatter.tolist()
        ([2.0, 1.0], [[2.0, 2.0], [2.0, 2.0]])
    """

    blocks: Tensor
    count: Tensor
    mean: Tensor
    scatter: Tensor
    third: Tensor
    fourth: Tensor

    @classmethod
    def of(cls, rows: Tensor, blocks: Tensor) -> Self:
        """Return the moments of rows, float64 (n, D), with blocks as of :func:`block_membership`."""
        blocks = blocks.to(rows)
        mean = rows.mean(0) if len(rows) else rows.new_zeros(rows.shape[1])
        centred = rows - mean
        lengths = centred.square() @ blocks.T  # (n, m)
        count = rows.new_tensor(float(len(rows)))
        return cls(blocks, count, mean, centred.T @ centred, lengths.T @ centred, lengths.T @ lengths)

    @property
    def lengths(self) -> Tensor:
        """Sum of the squared lengths of each block, (*, m)."""
        return self.scatter.diagonal(dim1=-2, dim2=-1) @ self.blocks.T

    def merged(self) -> "Moments":
        """Return the moments of all parts together, which stand along the first axis."""
        total = self.count.sum()
        mean = (self.count[:, None] * self.mean).sum(0) / total.clamp(min=1)
        # about another centre, each power of u - d has further terms; those with a single sum over u vanish
        shift = mean - self.mean  # d, (R, D)
        inside = self.blocks * shift[:, None]  # d within each block, (R, m, D)
        square = inside.square().sum(-1)  # (R, m)
        lengths, count = self.lengths, self.count[:, None, None]
        scatter = self.scatter + count * shift[:, :, None] * shift[:, None]
        third = (
            self.third - lengths[..., None] * shift[:, None] - 2 * inside @ self.scatter
            - count * square[..., None] * shift[:, None]
        )  # fmt: skip
        crossed = self.third @ inside.mT  # (R, m, m)
        both = lengths[..., None] * square[:, None]
        fourth = (
            self.fourth - 2 * (crossed + crossed.mT) + both + both.mT + 4 * inside @ self.scatter @ inside.mT
            + count * square[..., None] * square[:, None]
        )  # fmt: skip
        return Moments(self.blocks, total, mean, scatter.sum(0), third.sum(0), fourth.sum(0))

    def varies(self) -> Tensor:
        """Return whether each block has any variance beyond rounding, bool (m,)."""
        level = self.mean.square() @ self.blocks.T
        return self.lengths > self.count * (_ROUNDING**2 * level).clamp(min=torch.finfo(torch.float64).tiny)

    def independence(self, unbiased: bool) -> Tensor:
        """Return the Hilbert-Schmidt criteria of all pairs of blocks, up to a common factor, (m, m)."""
        squares = self.blocks @ self.scatter.square() @ self.blocks.T  # |S_ab|^2
        if not unbiased:
            return squares
        n, traces = self.count, self.lengths
        # rows of centred kernels add up to 0, so those without their diagonal add up to minus the diagonal
        product = traces[:, None] * traces / ((n - 1) * (n - 2))
        return squares - self.fourth + product - 2 / (n - 2) * self.fourth


def block_membership(sizes: list[int]) -> Tensor:
    """Return which features belong to each block, bool (m, D).

    Args:
        sizes: number of features of each block.

    Example:
        >>> block_membership([1, 2]).int().tolist()
        [[1, 0, 0], [0, 1, 1]]
    """
    number = torch.repeat_interleave(torch.tensor(sizes))
    return number == torch.arange(len(sizes))[:, None]


class FeatureMoments(Metric):
    r"""Base of metrics over linear kernels: collects moments of features, never a matrix over samples.

    Memory is that of :math:`D^2` numbers for D features of all blocks together, whatever the number of samples. Moments
    are kept around the mean so far and merged exactly, so that features far from 0 lose no digits.

    With ``num_conditions``, each row belongs to a condition, and the score is that of the mean rows of the conditions;
    only their sums are kept. Reduction over processes: moments are gathered and merged, sums are added.

    Args:
        sizes: number of features of each block, at least 1 each.
        num_conditions: number P of conditions; None for a score over all rows.
        kwargs: further arguments of ``torchmetrics.Metric``.

    Raises:
        ValueError: if a size is below 1 or ``num_conditions`` below 2.

    Example:
        >>> class TotalVariance(FeatureMoments):
        ...     def update(self, features):
        ...         self.collect([features])
        ...     def compute(self):
        ...         return self.moments().lengths[0] / self.moments().count
        >>> metric = TotalVariance([1])
        >>> metric.update(torch.tensor([[1.0], [3.0]]))
        >>> metric.compute()
        tensor(1., dtype=torch.float64)
    """

    # the states of two batches cannot be added: torchmetrics must call `update` for each
    full_state_update = True
    is_differentiable = False
    blocks: Tensor
    count: Tensor
    mean: Tensor
    scatter: Tensor
    third: Tensor
    fourth: Tensor
    sums: Tensor
    counts: Tensor

    def __init__(self, sizes: list[int], num_conditions: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not sizes or min(sizes) < 1:
            raise ValueError(f"numbers of features are {sizes}; each must be at least 1")
        if num_conditions is not None and num_conditions < 2:
            raise ValueError(f"num_conditions is {num_conditions}; a geometry needs at least 2")
        self.sizes, self.num_conditions = list(sizes), num_conditions
        # bool, so that no change of the type of a network's numbers reaches it
        self.register_buffer("blocks", block_membership(sizes), persistent=False)
        total, parts = sum(sizes), len(sizes)
        shapes: dict[str, tuple[int, ...]]
        if num_conditions is None:
            shapes = {"count": (), "mean": (total,), "scatter": (total, total), "third": (parts, total),
                      "fourth": (parts, parts)}  # fmt: skip
        else:
            shapes = {"sums": (num_conditions, total), "counts": (num_conditions,)}
        for name, shape in shapes.items():
            reduction = None if num_conditions is None else "sum"
            self.add_state(name, default=torch.zeros(shape, dtype=torch.float64), dist_reduce_fx=reduction)

    def collect(self, parts: list[Tensor], condition: Tensor | None = None) -> None:
        """Take one batch.

        Args:
            parts: features of each block, (B, size).
            condition: condition of each row, int64 (B,), in 0..P-1; None without conditions.

        Raises:
            ValueError: if shapes do not fit, or conditions are missing, not expected, or out of range.
        """
        given = [tuple(part.shape) for part in parts]
        if given != [(len(parts[0]), size) for size in self.sizes]:
            raise ValueError(f"features are {given}; equally many rows of widths {self.sizes} are needed")
        if any(part.is_complex() for part in parts):
            raise ValueError("features are complex; give real numbers, such as real and imaginary parts as features")
        rows = torch.cat([part.detach().double() for part in parts], 1)
        if self.num_conditions is not None:
            self._collect_conditions(rows, condition)
            return
        if condition is not None:
            raise ValueError("condition was given to a metric over samples; construct it with num_conditions")
        batch, here = Moments.of(rows, self.blocks), self._collected()
        pairs = [(getattr(here, name), getattr(batch, name)) for name in _STATES]
        both = Moments(batch.blocks, *(torch.stack(pair) for pair in pairs)).merged()
        for name in _STATES:
            setattr(self, name, getattr(both, name))

    def _collect_conditions(self, rows: Tensor, condition: Tensor | None) -> None:
        if condition is None or condition.shape != rows.shape[:1] or condition.is_floating_point():
            given = "missing" if condition is None else f"{condition.dtype} {tuple(condition.shape)}"
            raise ValueError(f"condition is {given}; give the number of the condition of each row, int64 (B,)")
        low, high = (int(condition.min()), int(condition.max())) if len(rows) and not condition.is_cuda else (0, 0)
        if not 0 <= low <= high < len(self.counts):
            raise ValueError(f"condition ranges from {low} to {high}; it must be in 0..{len(self.counts) - 1}")
        self.sums.index_add_(0, condition.long(), rows)
        self.counts.index_add_(0, condition.long(), self.counts.new_ones(len(rows)))

    def merge_state(self, incoming_state: "dict[str, Any] | Metric") -> None:
        """Take what another metric of the same kind has collected, or its states by name.

        Args:
            incoming_state: the other metric, of the same sizes, or its states.

        Raises:
            ValueError: if it is of another kind or other sizes.
        """
        names = _STATES if self.num_conditions is None else ("sums", "counts")
        theirs = incoming_state if isinstance(incoming_state, dict) else vars(incoming_state)
        if any(name not in theirs or theirs[name].shape != getattr(self, name).shape for name in names):
            raise ValueError(f"the states of {type(incoming_state).__name__} are not those of {type(self).__name__}")
        given = {name: theirs[name].to(getattr(self, name)) for name in names}
        if self.num_conditions is None:
            here = self._collected()
            pairs = [torch.stack([getattr(here, name), given[name]]) for name in names]
            both = Moments(here.blocks, *pairs).merged()
            given = {name: getattr(both, name) for name in names}
        else:
            given = {name: getattr(self, name) + each for name, each in given.items()}
        for name, each in given.items():
            setattr(self, name, each)
        if isinstance(incoming_state, Metric):
            self._update_count += incoming_state.update_count
        self._computed = None

    def _collected(self) -> Moments:
        return Moments(self.blocks.to(self.mean), *(getattr(self, name) for name in _STATES))

    def condition_means(self) -> Tensor:
        """Return the mean row of each condition, float64 (P, D).

        Raises:
            ValueError: if a condition has no row, or a mean is not finite.
        """
        if bool((self.counts == 0).any()):
            absent = (self.counts == 0).nonzero().flatten().tolist()
            raise ValueError(f"conditions {absent} have no row; every one of {len(self.counts)} needs at least one")
        return checked_rows(self.sums / self.counts[:, None], "the means of conditions")

    def moments(self, least: int = 2) -> Moments:
        """Return the moments of all rows, or of the means of conditions, merged over processes.

        Args:
            least: smallest number of rows or conditions.

        Raises:
            ValueError: if there are fewer, or they are not finite.
        """
        if self.num_conditions is not None:
            found = Moments.of(self.condition_means(), self.blocks)
        else:
            found = self._collected()
            found = found.merged() if found.count.dim() else found
        if float(found.count) < least:
            raise ValueError(f"{type(self).__name__} has seen {int(found.count)} rows; it needs at least {least}")
        if not math.isfinite(float(found.lengths.sum() + found.mean.sum())):
            raise ValueError(f"{type(self).__name__} was given NaN or infinite features")
        return found


_STATES = ("count", "mean", "scatter", "third", "fourth")
