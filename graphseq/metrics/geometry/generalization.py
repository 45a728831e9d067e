"""What linear classifiers of dichotomies tell: generalisation to unseen conditions, and decodability of all halves."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from graphseq.metrics.geometry.conditions import _ROUNDING, ConditionScore, balanced_sides, varies
from graphseq.metrics.geometry.moments import checked_rows

__all__ = [
    "CrossConditionGeneralization",
    "DichotomyDecodability",
    "balanced_dichotomies",
    "cross_condition_generalization",
    "dichotomy_decodability",
]


def _ridge_scores(train: Tensor, sides: Tensor, test: Tensor, penalty: float) -> Tensor:
    """Return the scores of linear classifiers fitted by least squares to sides -1 and 1; 0 where rounding decides.

    Args: train (*, n, N), sides (*, n, M), test (*, k, N). Returns: (*, k, M).
    """
    centre, level = train.mean(-2, keepdim=True), sides.mean(-2, keepdim=True)
    rounding = _ROUNDING * train.abs().amax((-2, -1), keepdim=True)
    train, test = train - centre, test - centre
    apart = train.abs().amax((-2, -1), keepdim=True) > rounding  # else the samples coincide, and tell nothing
    n, width = train.shape[-2:]
    gram = train @ train.mT if n <= width else train.mT @ train
    share = penalty * train.square().sum((-2, -1), keepdim=True) / gram.shape[-1]
    eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    ridge = gram + share.clamp(min=torch.finfo(gram.dtype).tiny) * eye
    if penalty == 0:
        weight = torch.linalg.pinv(train) @ (sides - level)  # the limit of small penalties
    elif n <= width:
        weight = train.mT @ torch.linalg.solve(ridge, sides - level)  # (*, N, M)
    else:
        weight = torch.linalg.solve(ridge, train.mT @ (sides - level))
    scores = test @ weight + level
    # each product is at most the product of the lengths
    scale = torch.linalg.vector_norm(test, dim=-1, keepdim=True) * torch.linalg.vector_norm(
        weight, dim=-2, keepdim=True
    )
    return torch.where(apart & (scores.abs() > 1e-9 * scale), scores, 0.0)


def _accuracy(scores: Tensor, sides: Tensor) -> Tensor:
    """Return the share of right signs, where a score of 0 is half right."""
    return (0.5 + 0.5 * scores.sign() * sides).mean()


def _held_together(groups: Tensor | Sequence[int], first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Return for each group the conditions of the other groups and its own, (S, *), those of the first side first."""
    labels = torch.as_tensor(groups, device=first.device)
    if labels.shape != (2 * len(first),):
        raise ValueError(f"groups is {tuple(labels.shape)} for {2 * len(first)} conditions; give one number each")
    values = labels.unique()
    inside = [labels[side] == values[:, None] for side in (first, second)]  # (S, m)
    sizes = torch.stack([side.sum(1) for side in inside]).flatten().unique().tolist()
    if len(values) < 2 or len(sizes) > 1:
        raise ValueError(
            f"groups are {labels.tolist()}; at least two are needed, with equally many conditions of both sides in each"
        )
    sides = list(zip((first, second), inside, strict=True))
    train = [side.expand(len(values), -1)[~there].view(len(values), -1) for side, there in sides]
    test = [side.expand(len(values), -1)[there].view(len(values), -1) for side, there in sides]
    return torch.cat(train, 1), torch.cat(test, 1)


def _choices(m: int, count: int, most: int, generator: Generator | None) -> tuple[Tensor, Tensor]:
    """Return orders of the conditions of both sides, the ``count`` to be fitted first: all, or drawn, (S, m) each."""
    if math.comb(m, count) ** 2 <= most:
        rest = range(m)
        orders = [[*part, *(k for k in rest if k not in part)] for part in itertools.combinations(rest, count)]
        one, other = zip(*itertools.product(orders, orders), strict=True)
        return torch.tensor(one), torch.tensor(other)
    source = Generator().manual_seed(0) if generator is None else generator
    one, other = torch.rand(2, most, m, generator=source).argsort(-1)
    return one, other


def cross_condition_generalization(
    means: Tensor,
    dichotomy: Tensor | Sequence[int],
    groups: Tensor | Sequence[int] | None = None,
    *,
    num_train: int | None = None,
    penalty: float = 1e-3,
    most_splits: int = 200,
    generator: Generator | None = None,
    undefined: float = math.nan,
) -> Tensor:
    r"""Return the accuracy of a dichotomy's linear classifier on conditions that it was not fitted to, in [0, 1].

    A classifier is fitted by ridge regression to equally many conditions of both sides and tested on the others; the
    mean over all choices is returned. With ``groups``, such as the values of another variable, each group in turn is
    held out whole. A score on the boundary counts one half. Chance is 0.5, and less is possible: the diagonals of a
    square have 0.

    Of a square whose side is labelled, opposite corners put the other two on the boundary: over all choices of one
    condition a side it has 0.75, and 1 with the other side as ``groups``. A simplex has 0.5, conditions that coincide
    with all of their side have 1.

    Source: arXiv 2401.13558. Differs from it: classifier and choices, which the paper does not state.

    Args:
        means: representation of each of P conditions, such as the mean over its samples.
        dichotomy: side of each condition, two different numbers, equally many of both, at least 2.
        groups: group of each condition, with equally many conditions of both sides in each; None for all choices.
        num_train: number of conditions of a side that a classifier is fitted to, from 1 to P / 2 - 1; None for all but
            one. Not with ``groups``.
        penalty: weight of the squared weights, as a share of the mean variance of a direction, at least 0.
        most_splits: largest number of choices; if there are more, that many are drawn.
        generator: source of the random numbers of drawn choices; None for a fixed seed.
        undefined: value for a representation without variance.

    Shape:
        means (P, N), dichotomy (P,), groups (P,) -> (), float64

    Raises:
        ValueError: if there are fewer than 4 conditions, the dichotomy or a group is not balanced, a mean is not
            finite, or a number is out of range.

    Example:
        >>> square = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
        >>> side, other, diagonal = [1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 0, 1]
        >>> float(cross_condition_generalization(square, side, other)), float(
        ...     cross_condition_generalization(square, diagonal)
        ... )
        (1.0, 0.0)
    """
    means = checked_rows(means, "means", 4)
    first, second = balanced_sides(dichotomy, len(means))
    m = len(first)
    if not penalty >= 0 or most_splits < 1:
        raise ValueError(f"penalty is {penalty} and most_splits {most_splits}; at least 0 and 1 are needed")
    if groups is not None:
        if num_train is not None:
            raise ValueError(f"num_train is {num_train} with groups, which say what is held out; leave one of them out")
        train, test = _held_together(groups, first, second)
    else:
        num_train = m - 1 if num_train is None else num_train
        if not 1 <= num_train < m:
            raise ValueError(f"num_train is {num_train}; with {m} conditions a side it must be in 1..{m - 1}")
        one, other = (order.to(means.device) for order in _choices(m, num_train, most_splits, generator))
        one, other = first[one], second[other]
        train = torch.cat([one[:, :num_train], other[:, :num_train]], 1)  # (S, 2 t)
        test = torch.cat([one[:, num_train:], other[:, num_train:]], 1)
    if not varies(means):
        return means.new_tensor(undefined)
    signs = means.new_tensor([1.0, -1.0])
    sides, there = (signs.repeat_interleave(part.shape[1] // 2)[:, None].expand(len(part), -1, 1)
                    for part in (train, test))  # fmt: skip
    return _accuracy(_ridge_scores(means[train], sides, means[test], penalty), there)


def balanced_dichotomies(num_conditions: int, most: int = 1000, generator: Generator | None = None) -> Tensor:
    """Return the ways to divide conditions into halves, each once; where there are more than ``most``, random ones.

    Args:
        num_conditions: number P of conditions, even, at least 2.
        most: largest number of dichotomies, at least 1.
        generator: source of the random numbers; None for a fixed seed.

    Returns:
        Side of each condition, -1 or 1, float64 (M, P); the first condition is on the side of 1.

    Raises:
        ValueError: if ``num_conditions`` is odd or below 2, or ``most`` below 1.

    Example:
        >>> balanced_dichotomies(4).int().tolist()
        [[1, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]]
    """
    if num_conditions < 2 or num_conditions % 2:
        raise ValueError(f"num_conditions is {num_conditions}; halves need an even number of at least 2")
    if most < 1:
        raise ValueError(f"most is {most}; it must be at least 1")
    half, others = num_conditions // 2 - 1, num_conditions - 1
    if math.comb(others, half) <= most:
        chosen = torch.tensor(list(itertools.combinations(range(1, num_conditions), half)), dtype=torch.int64)
    else:
        source = Generator().manual_seed(0) if generator is None else generator
        chosen = torch.rand(most, others, generator=source).topk(half, 1).indices + 1
    sides = torch.full((len(chosen), num_conditions), -1.0, dtype=torch.float64)
    sides[:, 0] = 1.0
    return sides.scatter_(1, chosen.reshape(len(chosen), half), 1.0)


def dichotomy_decodability(
    features: Tensor,
    condition: Tensor | Sequence[int],
    test_features: Tensor | None = None,
    test_condition: Tensor | Sequence[int] | None = None,
    *,
    penalty: float = 1e-3,
    most_dichotomies: int = 1000,
    generator: Generator | None = None,
    undefined: float = math.nan,
) -> Tensor:
    """Return the mean accuracy of linear classifiers over all balanced dichotomies of the conditions, in [0, 1].

    It is 1 if every division of the conditions into halves can be read out, as of a simplex, and (1 + 1 + 0.5) / 3 for
    a square, whose diagonals cannot. All classifiers are fitted at once, by ridge regression to the sides of the
    samples; without test samples the accuracy is that on the samples themselves.

    Source: arXiv 2401.13558. Differs from it: the classifier, which the paper does not state.

    Args:
        features: representation of n samples, or of each condition once.
        condition: condition of each of them, integers; P different ones, an even number.
        test_features: representation of the k samples that are classified; None for those of ``features``.
        test_condition: condition of each of these, among those of ``condition``.
        penalty: weight of the squared weights, as a share of the mean variance of a direction, at least 0.
        most_dichotomies: largest number of dichotomies; if there are more, that many are drawn.
        generator: source of the random numbers of drawn dichotomies; None for a fixed seed.
        undefined: value for a representation without variance.

    Shape:
        features (n, D), condition (n,), test_features (k, D), test_condition (k,) -> (), float64

    Raises:
        ValueError: if shapes do not fit, there are fewer than 4 conditions or an odd number of them, test conditions
            are unknown, features are not finite, or a number is out of range.

    Example:
        >>> square = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
        >>> round(float(dichotomy_decodability(square, torch.arange(4))), 4)
        0.8333
    """
    rows = checked_rows(features, "features", 4)
    if (test_features is None) != (test_condition is None):
        raise ValueError("test_features and test_condition come together; one of them is None")
    if not penalty >= 0:
        raise ValueError(f"penalty is {penalty}; it must be at least 0")
    there = rows if test_features is None else checked_rows(test_features, "test_features", 1)
    condition = torch.as_tensor(condition, device=rows.device)
    asked = condition if test_condition is None else torch.as_tensor(test_condition, device=rows.device)
    for name, part, numbers in (("condition", rows, condition), ("test_condition", there, asked)):
        if numbers.shape != part.shape[:1] or numbers.is_floating_point():
            raise ValueError(f"{name} is {numbers.dtype} {tuple(numbers.shape)} for {len(part)} rows; give integers")
    if there.shape[1] != rows.shape[1]:
        raise ValueError(f"test_features have {there.shape[1]} features, features {rows.shape[1]}")
    names, place = condition.unique(return_inverse=True)
    if len(names) < 4 or len(names) % 2:
        raise ValueError(f"condition has {len(names)} different numbers; this score needs an even number, at least 4")
    found = torch.searchsorted(names, asked).clamp(max=len(names) - 1)
    if not torch.equal(names[found], asked):
        raise ValueError("test_condition has numbers that condition has not")
    if not varies(rows):
        return rows.new_tensor(undefined)
    sides = balanced_dichotomies(len(names), most_dichotomies, generator).to(rows.device).T  # (P, M)
    return _accuracy(_ridge_scores(rows, sides[place], there, penalty), sides[found])


class CrossConditionGeneralization(ConditionScore):
    """Generalisation to unseen conditions, of their mean representations; reduction over processes: sums.

    The functional twin is :func:`cross_condition_generalization`.

    Source: arXiv 2401.13558. Differs from it: as the function.

    Args:
        num_features: number D of features, at least 1.
        dichotomy: side of each of P conditions, two different numbers, equally many of both, at least 2.
        groups: group of each condition, held out in turn; None for all choices of conditions.
        num_train: number of conditions of a side that a classifier is fitted to; None for all but one.
        penalty: weight of the squared weights, as a share of the mean variance of a direction, at least 0.
        most_splits: largest number of choices; if there are more, that many are drawn.
        undefined: value for a representation without variance.
        kwargs: further arguments of ``torchmetrics.Metric``.

    Raises:
        ValueError: as :class:`ParallelismScore`.

    Example:
        >>> metric = CrossConditionGeneralization(2, [1, 0, 0, 1])
        >>> metric.update(torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]), torch.arange(4))
        >>> float(metric.compute())
        0.0
    """

    def __init__(
        self,
        num_features: int,
        dichotomy: Sequence[int],
        groups: Sequence[int] | None = None,
        *,
        num_train: int | None = None,
        penalty: float = 1e-3,
        most_splits: int = 200,
        undefined: float = math.nan,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_features, len(dichotomy), undefined, **kwargs)
        balanced_sides(dichotomy, len(dichotomy))
        self.dichotomy, self.num_train = list(dichotomy), num_train
        self.groups = None if groups is None else list(groups)
        self.penalty, self.most_splits = penalty, most_splits

    def compute(self) -> Tensor:
        """Return the accuracy."""
        means = self.condition_means()
        return cross_condition_generalization(
            means, torch.tensor(self.dichotomy, device=means.device), self.groups, num_train=self.num_train,
            penalty=self.penalty, most_splits=self.most_splits, undefined=self.undefined,
        )  # fmt: skip


class DichotomyDecodability(ConditionScore):
    """Share of balanced dichotomies of conditions that their mean representations tell; reduction: sums.

    The functional twin is :func:`dichotomy_decodability` of the means.

    Source: arXiv 2401.13558. Differs from it: as the function.

    Args:
        num_features: number D of features, at least 1.
        num_conditions: number P of conditions, even, at least 4.
        penalty: weight of the squared weights, as a share of the mean variance of a direction, at least 0.
        most_dichotomies: largest number of dichotomies; if there are more, that many are drawn.
        undefined: value for a representation without variance.
        kwargs: further arguments of ``torchmetrics.Metric``.

    Raises:
        ValueError: if ``num_conditions`` is odd or below 4; in ``compute``, as :class:`ParallelismScore`.

    Example:
        >>> metric = DichotomyDecodability(4, 4)
        >>> metric.update(torch.eye(4), torch.arange(4))
        >>> float(metric.compute())
        1.0
    """

    def __init__(
        self,
        num_features: int,
        num_conditions: int,
        *,
        penalty: float = 1e-3,
        most_dichotomies: int = 1000,
        undefined: float = math.nan,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_features, num_conditions, undefined, **kwargs)
        if num_conditions % 2:
            raise ValueError(f"num_conditions is {num_conditions}; halves need an even number")
        self.penalty, self.most_dichotomies = penalty, most_dichotomies

    def compute(self) -> Tensor:
        """Return the mean accuracy."""
        means = self.condition_means()
        return dichotomy_decodability(
            means, torch.arange(len(means), device=means.device), penalty=self.penalty,
            most_dichotomies=self.most_dichotomies, undefined=self.undefined,
        )  # fmt: skip
