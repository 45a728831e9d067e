"""Parallelism score of a dichotomy of conditions."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from graphseq.metrics.geometry.conditions import _ROUNDING, ConditionScore, balanced_sides, varies
from graphseq.metrics.geometry.moments import checked_rows

__all__ = ["ParallelismScore", "parallelism_score"]


def _directions(ends: Tensor, starts: Tensor) -> Tensor:
    """Return unit vectors from starts to ends; 0 where they coincide up to rounding."""
    vectors = ends - starts
    length = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    there = length > _ROUNDING * torch.maximum(ends.abs().amax(), starts.abs().amax())
    return torch.where(there, vectors / torch.where(there, length, 1.0), 0.0)


def _best_parallelism(positive: Tensor, negative: Tensor, most_pairings: int) -> Tensor:
    """Return the largest mean cosine of the differences over pairings of both sides."""
    m = len(positive)
    if math.factorial(m) <= most_pairings:
        units = _directions(positive[:, None], negative)  # (m, m, N)
        cosines = torch.einsum("ijn,kln->ijkl", units, units)
        pairings = torch.tensor(list(itertools.permutations(range(m))), device=positive.device)  # (m!, m)
        total = positive.new_zeros(len(pairings))
        for one, other in itertools.combinations(range(m), 2):  # at most 21 pairs: no index over all at once
            total += cosines[one, pairings[:, one], other, pairings[:, other]]
        return total.max() / (m * (m - 1) / 2)
    from scipy.optimize import linear_sum_assignment

    distances = torch.cdist(positive, negative).square()
    partner = torch.as_tensor(linear_sum_assignment(distances.detach().cpu().numpy())[1], device=positive.device)
    units = _directions(positive, negative[partner])
    # |sum of units|^2 holds each pair twice, and the squared lengths
    return (units.sum(0).square().sum() - units.square().sum()) / (m * (m - 1))


def parallelism_score(
    means: Tensor,
    dichotomy: Tensor | Sequence[int],
    *,
    most_pairings: int = 5040,
    undefined: float = math.nan,
) -> Tensor:
    r"""Return the parallelism score of a balanced dichotomy of conditions, in [-1, 1].

    .. math:: \max_\pi \operatorname{mean}_{p < q} \cos(z_p - z_{\pi(p)},\, z_q - z_{\pi(q)})

    over the pairings :math:`\pi` of the conditions of one side with those of the other. It is 1 if a single direction
    leads from one side to the other in every pair, 0 for a simplex, -1 for the diagonals of a square. A maximum over
    pairings is above 0 in the mean for random conditions of few dimensions.

    Where there are more than ``most_pairings``, the pairing is that of the smallest sum of squared distances.

    Source: arXiv 2401.13558. Differs from it: coinciding conditions have no direction, and count with a cosine of 0.

    Args:
        means: representation of each of P conditions, such as the mean over its samples.
        dichotomy: side of each condition, two different numbers, equally many of both, at least 2.
        most_pairings: largest number of pairings that are tried, (P / 2)!; 5040 is all of 14 conditions.
        undefined: value for a representation without variance.

    Shape:
        means (P, N), dichotomy (P,) -> (), float64

    Raises:
        ValueError: if there are fewer than 4 conditions, the dichotomy is not balanced, or a mean is not finite.

    Example:
        >>> square = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
        >>> [round(float(parallelism_score(square, side)), 4) for side in ([1, 1, 0, 0], [1, 0, 0, 1])]
        [1.0, -1.0]
    """
    means = checked_rows(means, "means", 4)
    first, second = balanced_sides(dichotomy, len(means))
    if not varies(means):
        return means.new_tensor(undefined)
    return _best_parallelism(means[first], means[second], most_pairings)


class ParallelismScore(ConditionScore):
    """Parallelism score of the mean representations of conditions; reduction over processes: sums.

    The functional twin is :func:`parallelism_score`.

    Source: arXiv 2401.13558. Differs from it: as the function.

    Args:
        num_features: number D of features, at least 1.
        dichotomy: side of each of P conditions, two different numbers, equally many of both, at least 2.
        most_pairings: largest number of pairings that are tried.
        undefined: value for a representation without variance.
        kwargs: further arguments of ``torchmetrics.Metric``.

    Raises:
        ValueError: if the dichotomy is not balanced or has fewer than 4 conditions; in ``compute``, if a condition has
            no row, or a mean is not finite.

    Example:
        >>> metric = ParallelismScore(2, [1, 1, 0, 0])
        >>> metric.update(torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]), torch.arange(4))
        >>> round(float(metric.compute()), 4)
        1.0
    """

    def __init__(
        self,
        num_features: int,
        dichotomy: Sequence[int],
        *,
        most_pairings: int = 5040,
        undefined: float = math.nan,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_features, len(dichotomy), undefined, **kwargs)
        balanced_sides(dichotomy, len(dichotomy))
        self.dichotomy, self.most_pairings = list(dichotomy), most_pairings

    def compute(self) -> Tensor:
        """Return the score."""
        means = self.condition_means()
        dichotomy = torch.tensor(self.dichotomy, device=means.device)
        return parallelism_score(means, dichotomy, most_pairings=self.most_pairings, undefined=self.undefined)
