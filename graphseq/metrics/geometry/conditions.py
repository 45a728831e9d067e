"""Conditions and their dichotomies: what scores of mean representations share."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from graphseq.metrics.geometry.moments import FeatureMoments

__all__: list[str] = []

_ROUNDING = 64 * torch.finfo(torch.float64).eps


def balanced_sides(dichotomy: Tensor | Sequence[int], rows: int) -> tuple[Tensor, Tensor]:
    """Return the positions of the conditions of both sides of a balanced dichotomy, (P / 2,) each.

    Args:
        dichotomy: side of each condition, two different numbers (P,).
        rows: number P of conditions.

    Raises:
        ValueError: if there are not two labels of equally many conditions, at least 2.

    Example:
        >>> balanced_sides([1, 0, 0, 1], 4)
        (tensor([0, 3]), tensor([1, 2]))
    """
    labels = torch.as_tensor(dichotomy)
    if labels.shape != (rows,):
        raise ValueError(f"dichotomy is {tuple(labels.shape)} for {rows} conditions; give one label each, ({rows},)")
    values = labels.unique().tolist()
    if len(values) != 2:
        raise ValueError(f"dichotomy has the labels {values[:5]}; it must have two, such as 0 and 1")
    first, second = (labels == values[1]).nonzero().flatten(), (labels == values[0]).nonzero().flatten()
    if len(first) != len(second) or len(first) < 2:
        raise ValueError(
            f"dichotomy has {len(first)} conditions of the label {values[1]} and {len(second)} of {values[0]}; this "
            "score needs equally many, at least 2 each"
        )
    return first, second


def varies(means: Tensor) -> bool:
    """Return whether rows, float64 (P, N), differ by more than rounding.

    Args:
        means: rows.

    Example:
        >>> varies(torch.ones(3, 2).double())
        False
    """
    return bool((means - means.mean(0)).abs().amax() > _ROUNDING * means.abs().amax())


class ConditionScore(FeatureMoments):
    """Base of scores of the mean representation of each condition; a subclass defines ``compute``.

    Args:
        num_features: number D of features, at least 1.
        num_conditions: number P of conditions, at least 4.
        undefined: value for a representation without variance.
        kwargs: further arguments of ``torchmetrics.Metric``.

    Raises:
        ValueError: if there are fewer than 4 conditions.
    """

    def __init__(self, num_features: int, num_conditions: int, undefined: float, **kwargs: Any) -> None:
        if num_conditions < 4:
            raise ValueError(f"there are {num_conditions} conditions; {type(self).__name__} needs at least 4")
        super().__init__([num_features], num_conditions, **kwargs)
        self.undefined = undefined

    def update(self, features: Tensor, condition: Tensor) -> None:
        """Take one batch.

        Args:
            features: representation (B, D).
            condition: condition of each row, int64 (B,).
        """
        self.collect([features], condition)
