"""Ranking metrics over several binary labels of which some are missing."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import binary_auroc, binary_average_precision
from torchmetrics.utilities import dim_zero_cat

from graphseq.core.errors import DataError
from graphseq.metrics.regression import check_numbers

__all__ = ["MaskedAUROC", "MaskedAveragePrecision", "masked_auroc", "masked_average_precision"]


def _mean_over_labels(score: Callable[..., Tensor], prediction: Tensor, target: Tensor) -> Tensor:
    check_numbers(prediction=prediction, target=target)
    if prediction.shape != target.shape or prediction.dim() != 2:
        raise ValueError(
            f"predictions are {tuple(prediction.shape)}, targets {tuple(target.shape)}; both must be (B, K)"
        )
    if bool(((target != 0) & (target != 1) & ~torch.isnan(target)).any()):
        raise ValueError("targets must be 0, 1 or NaN (missing); other values were given")
    values = []
    for scores, labels in zip(prediction.T, target.T, strict=True):  # K labels, tens of them, once an epoch
        known = ~torch.isnan(labels)
        truth = labels[known].long()
        if len(truth) and 0 < int(truth.sum()) < len(truth):
            values.append(_score_ranks(score, scores[known], truth))
    if not values:
        raise DataError(
            f"none of the {target.size(1)} labels has both classes among {len(target)} samples; "
            "a ranking metric is not defined. Use a larger or stratified split"
        )
    return torch.stack(values).mean()


def _score_ranks(score: Callable[..., Tensor], scores: Tensor, truth: Tensor) -> Tensor:
    if bool(torch.isnan(scores).any()):
        return torch.full((), float("nan"), device=scores.device)  # sorting would count NaN as the highest score
    # only order and ties count; torchmetrics would put scores beyond [0, 1] through a sigmoid, where large ones tie
    ranks = torch.unique(scores, return_inverse=True)[1]
    return score(ranks.double() / len(scores), truth).float()


def masked_auroc(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the area under the ROC curve, averaged over the labels that have both classes.

    Args:
        prediction: scores or logits (B, K); the result is NaN if the score of a known label is.
        target: labels 0 or 1, NaN for missing (B, K).

    Raises:
        ValueError: if the shapes differ, or a target is another number.
        DataError: if no label has both classes.

    Example:
        >>> masked_auroc(torch.tensor([[0.1], [0.9]]), torch.tensor([[0.0], [1.0]]))
        tensor(1.)
    """
    return _mean_over_labels(binary_auroc, prediction, target)


def masked_average_precision(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the average precision, averaged over the labels that have both classes.

    Args:
        prediction: scores or logits (B, K); the result is NaN if the score of a known label is.
        target: labels 0 or 1, NaN for missing (B, K).

    Raises:
        ValueError: if the shapes differ, or a target is another number.
        DataError: if no label has both classes.

    Example:
        >>> masked_average_precision(torch.tensor([[0.1], [0.9]]), torch.tensor([[0.0], [1.0]]))
        tensor(1.)
    """
    return _mean_over_labels(binary_average_precision, prediction, target)


class _MaskedRanking(Metric):
    """Base class that stores all predictions of an epoch and ranks them at its end; NaN with a warning if undefined."""

    full_state_update = False
    higher_is_better = True
    is_differentiable = False
    predictions: list[Tensor]
    targets: list[Tensor]

    def __init__(self, num_labels: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(num_labels, int) or num_labels < 1:
            raise ValueError(f"num_labels is {num_labels!r}; it must be a whole number of at least 1")
        self.num_labels = num_labels
        self.add_state("predictions", default=[], dist_reduce_fx="cat")
        self.add_state("targets", default=[], dist_reduce_fx="cat")

    def _score(self, prediction: Tensor, target: Tensor) -> Tensor:
        raise TypeError("use MaskedAUROC or MaskedAveragePrecision")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add one batch.

        Args:
            prediction: scores or logits (B, K).
            target: labels 0 or 1, NaN for missing (B, K).
        """
        check_numbers(prediction=prediction, target=target)
        if prediction.dim() != 2 or prediction.size(1) != self.num_labels or prediction.shape != target.shape:
            raise ValueError(
                f"predictions are {tuple(prediction.shape)}, targets {tuple(target.shape)}; "
                f"both must be (B, {self.num_labels})"
            )
        self.predictions.append(prediction.detach())
        self.targets.append(target)

    def compute(self) -> Tensor:
        """Return the mean over labels, or NaN with a warning if no label has both classes."""
        try:
            if len(self.predictions) == 0:
                raise DataError("it has seen no sample")
            return self._score(dim_zero_cat(self.predictions), dim_zero_cat(self.targets))
        except DataError as error:
            warnings.warn(f"{type(self).__name__} is NaN: {error}", stacklevel=2)
            return torch.tensor(float("nan"), device=self.device)


class MaskedAUROC(_MaskedRanking):
    """Area under the ROC curve of several binary labels with missing entries; reduction over processes: all samples.

    The functional twin is :func:`masked_auroc`. Where no label has both classes the value is NaN with a warning.

    Args:
        num_labels: number of labels K, at least 1.
        kwargs: further arguments of ``torchmetrics.Metric``.

    Example:
        >>> metric = MaskedAUROC(1)
        >>> metric.update(torch.tensor([[0.2], [0.8]]), torch.tensor([[0.0], [1.0]]))
        >>> metric.compute()
        tensor(1.)
    """

    def _score(self, prediction: Tensor, target: Tensor) -> Tensor:
        return masked_auroc(prediction, target)


class MaskedAveragePrecision(_MaskedRanking):
    """Average precision of several binary labels with missing entries; reduction over processes: all samples.

    The functional twin is :func:`masked_average_precision`. Where no label has both classes the value is NaN with
    a warning.

    Args:
        num_labels: number of labels K, at least 1.
        kwargs: further arguments of ``torchmetrics.Metric``.

    Example:
        >>> metric = MaskedAveragePrecision(1)
        >>> metric.update(torch.tensor([[0.2], [0.8]]), torch.tensor([[0.0], [1.0]]))
        >>> metric.compute()
        tensor(1.)
    """

    def _score(self, prediction: Tensor, target: Tensor) -> Tensor:
        return masked_average_precision(prediction, target)
