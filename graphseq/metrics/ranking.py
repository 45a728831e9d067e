"""Ranking metrics of link prediction: ranks among candidates, and pooled ranking curves.

All take scores (B, 1 + M) whose column 0 is the event and the rest its negatives, and targets of the same shape, 1 in
column 0 and 0 elsewhere, so that they share a ``MetricCollection``.
"""

import warnings
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from graphseq.core.errors import DataError
from graphseq.metrics.multilabel import MaskedAUROC, MaskedAveragePrecision, masked_auroc, masked_average_precision
from graphseq.metrics.regression import check_numbers

__all__ = [
    "HitsAtK",
    "LinkAUROC",
    "LinkAveragePrecision",
    "MeanReciprocalRank",
    "PerBatchAveragePrecision",
    "hits_at_k",
    "link_auroc",
    "link_average_precision",
    "link_ranks",
    "mean_reciprocal_rank",
]


def _check_shapes(preds: Tensor, target: Tensor) -> None:
    check_numbers(predictions=preds, targets=target)
    if preds.shape != target.shape or preds.dim() != 2 or preds.size(1) < 2:
        raise ValueError(
            f"predictions are {tuple(preds.shape)}, targets {tuple(target.shape)}; both must be (B, 1 + M) with the "
            "event in column 0 and at least one negative"
        )


def _misplaced(target: Tensor) -> Tensor:
    """Return how many targets differ from 1 in column 0 and 0 elsewhere."""
    return (target[:, 1:] != 0).sum() + (target[:, 0] != 1).sum()


def _check_misplaced(count: Tensor) -> None:
    if int(count):
        raise ValueError(
            f"{int(count)} targets are not 1 in column 0 and 0 elsewhere; put the event into column 0 and its "
            "negatives behind it"
        )


def _check_whole(k: int) -> None:
    if not isinstance(k, int) or k < 1:
        raise ValueError(f"k is {k!r}; it must be a whole number of at least 1")


def _check_k(k: int, columns: int) -> None:
    if k >= columns:
        raise ValueError(
            f"k is {k}, there are {columns - 1} negatives: every event would be a hit; use a smaller k or more of them"
        )


# Not torchmetrics' RetrievalMRR: it counts no score of 0 or below, puts ties in the order of sorting, and takes 80
# times as long (20,000 rows of 101, one core: 2.8 s, here 0.035 s). Not PyG's LinkPredMRR: it is given lists that are
# sorted already, so ties (constant scores: 0.036 in place of 0.0196) follow the sorting; 0.16 s with it.
def link_ranks(preds: Tensor) -> Tensor:
    r"""Return the rank of column 0 among its row: the mean of the best and the worst rank that its ties allow.

    .. math:: r = 1 + \#\{s^- > s^+\} + \tfrac{1}{2} \#\{s^- = s^+\}

    Constant scores of M negatives have rank 1 + M/2. A NaN score counts as the worst: a negative is ranked above the
    event, an event below all of its negatives.

    Source: arXiv 2307.01026, whose evaluator takes this mean.

    Args:
        preds: scores, with the event in column 0 (B, 1 + M).

    Raises:
        ValueError: if the scores have another shape.
        TypeError: if they are not a tensor of real numbers.

    Example:
        >>> link_ranks(torch.tensor([[0.5, 0.1, 0.9], [1.0, 1.0, 1.0]]))
        tensor([2., 2.], dtype=torch.float64)
    """
    check_numbers(predictions=preds)
    if preds.dim() != 2 or not preds.size(1):
        raise ValueError(f"predictions are {tuple(preds.shape)}; (B, 1 + M) with the event in column 0 is needed")
    event, negatives = preds[:, :1], preds[:, 1:]
    # counted from below, so that what compares as neither lower nor equal, which is NaN, is above
    lower, equal = (negatives < event).sum(1), (negatives == event).sum(1)
    return preds.size(1) - lower.double() - equal.double() / 2


def mean_reciprocal_rank(preds: Tensor, target: Tensor) -> Tensor:
    """Return the mean of one over the rank of the event, with ranks of :func:`link_ranks`; NaN for no event.

    Args:
        preds: scores, with the event in column 0 (B, 1 + M).
        target: labels, 1 in column 0 and 0 elsewhere (B, 1 + M).

    Raises:
        ValueError: if the shapes differ or the targets are not such labels.

    Example:
        >>> mean_reciprocal_rank(torch.tensor([[0.5, 0.1, 0.9]]), torch.tensor([[1, 0, 0]]))
        tensor(0.5000)
    """
    _check_shapes(preds, target)
    _check_misplaced(_misplaced(target))
    return link_ranks(preds).reciprocal().mean().float()


def hits_at_k(preds: Tensor, target: Tensor, k: int = 10) -> Tensor:
    """Return the share of events whose rank, as of :func:`link_ranks`, is at most k; NaN for no event.

    Args:
        preds: scores, with the event in column 0 (B, 1 + M).
        target: labels, 1 in column 0 and 0 elsewhere (B, 1 + M).
        k: largest rank that counts as a hit, from 1 to M.

    Raises:
        ValueError: if the shapes differ, the targets are others, or ``k`` is out of range.

    Example:
        >>> hits_at_k(torch.tensor([[0.5, 0.1, 0.9], [0.9, 0.1, 0.2]]), torch.tensor([[1, 0, 0], [1, 0, 0]]), k=1)
        tensor(0.5000)
    """
    _check_whole(k)
    _check_shapes(preds, target)
    _check_k(k, preds.size(1))
    _check_misplaced(_misplaced(target))
    return (link_ranks(preds) <= k).double().mean().float()


def link_average_precision(preds: Tensor, target: Tensor) -> Tensor:
    """Return the average precision over all scores of all events; NaN if a score is.

    Unlike torchmetrics' ``binary_average_precision`` nothing goes through a sigmoid, where large logits would tie, and
    targets may be floats.

    Args:
        preds: scores or logits (B, 1 + M).
        target: labels 1 or 0 (B, 1 + M).

    Raises:
        ValueError: if the shapes differ or a target is another number.
        DataError: if all targets are equal.

    Example:
        >>> link_average_precision(torch.tensor([[30.0, 20.0]]), torch.tensor([[1.0, 0.0]]))
        tensor(1.)
    """
    _check_shapes(preds, target)
    return masked_average_precision(preds.reshape(-1, 1), target.reshape(-1, 1))


def link_auroc(preds: Tensor, target: Tensor) -> Tensor:
    """Return the area under the ROC curve over all scores of all events; NaN if a score is.

    Args:
        preds: scores or logits (B, 1 + M).
        target: labels 1 or 0 (B, 1 + M).

    Raises:
        ValueError: if the shapes differ or a target is another number.
        DataError: if all targets are equal.

    Example:
        >>> link_auroc(torch.tensor([[30.0, 20.0]]), torch.tensor([[1.0, 0.0]]))
        tensor(1.)
    """
    _check_shapes(preds, target)
    return masked_auroc(preds.reshape(-1, 1), target.reshape(-1, 1))


class LinkAveragePrecision(MaskedAveragePrecision):
    """Average precision over all scores of a split at once; reduction over processes: all samples.

    The functional twin is :func:`link_average_precision`. The value does not depend on the batch size. Scores and
    targets stay on the device until the end of the split.

    Args:
        kwargs: further arguments of ``torchmetrics.Metric``.

    Example:
        >>> metric = LinkAveragePrecision()
        >>> metric.update(torch.tensor([[30.0, 20.0]]), torch.tensor([[1.0, 0.0]]))
        >>> metric.compute()
        tensor(1.)
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(1, **kwargs)

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add one batch.

        Args:
            preds: scores or logits (B, 1 + M).
            target: labels 1 or 0 (B, 1 + M).
        """
        _check_shapes(preds, target)
        super().update(preds.reshape(-1, 1), target.reshape(-1, 1))


class LinkAUROC(MaskedAUROC):
    """Area under the ROC curve over all scores of a split at once; reduction over processes: all samples.

    The functional twin is :func:`link_auroc`. The value does not depend on the batch size. Scores and targets stay
    on the device until the end of the split.

    Args:
        kwargs: further arguments of ``torchmetrics.Metric``.

    Example:
        >>> metric = LinkAUROC()
        >>> metric.update(torch.tensor([[30.0, 20.0]]), torch.tensor([[1.0, 0.0]]))
        >>> metric.compute()
        tensor(1.)
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(1, **kwargs)

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add one batch.

        Args:
            preds: scores or logits (B, 1 + M).
            target: labels 1 or 0 (B, 1 + M).
        """
        _check_shapes(preds, target)
        super().update(preds.reshape(-1, 1), target.reshape(-1, 1))


class _MeanMetric(Metric):
    """A mean over events or batches: a sum and a count, both summed over processes."""

    full_state_update = False
    higher_is_better = True
    is_differentiable = False
    total: Tensor
    count: Tensor
    misplaced: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("total", default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", default=torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        # wrong targets are counted on the device and refused when the value is read: no step waits
        self.add_state("misplaced", default=torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def _add(self, values: Tensor) -> None:
        self.total += values.double().sum()
        self.count += len(values)

    def compute(self) -> Tensor:
        """Return the mean; NaN with a warning if there was no batch.

        Raises:
            ValueError: if a target was not 1 in column 0 and 0 elsewhere.
        """
        _check_misplaced(self.misplaced)
        if int(self.count) == 0:
            warnings.warn(f"{type(self).__name__} is NaN: it has seen no event", stacklevel=2)
        return (self.total / self.count).float()


class MeanReciprocalRank(_MeanMetric):
    """Mean of one over the rank of the event among its negatives; reduction over processes: sums.

    The functional twin is :func:`mean_reciprocal_rank`; ties share their mean rank and NaN counts as worst, as
    :func:`link_ranks` says.

    Args:
        kwargs: further arguments of ``torchmetrics.Metric``.

    Example:
        >>> metric = MeanReciprocalRank()
        >>> metric.update(torch.tensor([[0.5, 0.1, 0.9]]), torch.tensor([[1, 0, 0]]))
        >>> metric.compute()
        tensor(0.5000)
    """

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add one batch.

        Args:
            preds: scores, with the event in column 0 (B, 1 + M).
            target: labels, 1 in column 0 and 0 elsewhere (B, 1 + M).
        """
        _check_shapes(preds, target)
        self.misplaced += _misplaced(target)
        self._add(link_ranks(preds).reciprocal())


class HitsAtK(_MeanMetric):
    """Share of events among the k best of their row; reduction over processes: sums.

    The functional twin is :func:`hits_at_k`.

    Args:
        k: largest rank that counts as a hit, from 1 to M.
        kwargs: further arguments of ``torchmetrics.Metric``.

    Raises:
        ValueError: if ``k`` < 1; by ``update`` if it is above M, where every event would be a hit.

    Example:
        >>> metric = HitsAtK(1)
        >>> metric.update(torch.tensor([[0.5, 0.1, 0.9], [0.9, 0.1, 0.2]]), torch.tensor([[1, 0, 0], [1, 0, 0]]))
        >>> metric.compute()
        tensor(0.5000)
    """

    def __init__(self, k: int = 10, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        _check_whole(k)
        self.k = k

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add one batch.

        Args:
            preds: scores, with the event in column 0 (B, 1 + M).
            target: labels, 1 in column 0 and 0 elsewhere (B, 1 + M).
        """
        _check_shapes(preds, target)
        _check_k(self.k, preds.size(1))
        self.misplaced += _misplaced(target)
        self._add(link_ranks(preds) <= self.k)


class PerBatchAveragePrecision(_MeanMetric):
    """Mean over batches of the average precision within each; reduction over processes: sums over batches.

    Only for comparing with published tables, which average so. The value is biased: average precision is not linear,
    so its mean over small batches differs from that of the split (scores are never compared across batches, and few
    samples make chance order count), it changes with the batch size, and a short last batch weighs as much as a
    full one. Report :class:`LinkAveragePrecision`. NaN if a score is.

    Args:
        kwargs: further arguments of ``torchmetrics.Metric``.

    Example:
        >>> metric = PerBatchAveragePrecision()
        >>> metric.update(torch.tensor([[3.0, 2.0]]), torch.tensor([[1.0, 0.0]]))
        >>> metric.update(torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.0]]))
        >>> metric.compute()
        tensor(0.7500)
    """

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add one batch; an empty one is ignored. This synchronises with the device.

        Args:
            preds: scores or logits (B, 1 + M).
            target: labels, 1 in column 0 and 0 elsewhere (B, 1 + M).
        """
        _check_shapes(preds, target)
        if len(preds) == 0:
            return
        self.misplaced += _misplaced(target)
        try:
            self._add(link_average_precision(preds.detach(), target)[None])
        except DataError:
            self.count += 1  # one class only, so some target is misplaced and the value is refused
