"""Errors of predicted quantiles."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from graphseq.metrics.regression import check_numbers
from graphseq.ops.losses.quantiles import pinball_loss

__all__ = ["MeanPinballLoss"]


class MeanPinballLoss(Metric):
    """Mean pinball loss over the known targets; reduction over processes: sum of losses over sum of counts.

    The functional twin is :func:`graphseq.ops.pinball_loss`.

    Args:
        levels: quantile levels in (0, 1), at least one.
        kwargs: arguments of ``torchmetrics.Metric``.

    Raises:
        ValueError: if a level is outside (0, 1), or there is none; in an update if the shapes do not fit.

    Example:
        >>> metric = MeanPinballLoss([0.25, 0.75])
        >>> metric.update(torch.tensor([[1.0, 3.0], [0.0, 0.0]]), torch.tensor([2.0, float("nan")]))
        >>> metric.compute()
        tensor(0.2500)
    """

    is_differentiable = True
    higher_is_better = False
    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, levels: Sequence[float], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.levels = [] if isinstance(levels, str) else [float(level) for level in levels]
        if not self.levels or not all(0 < level < 1 for level in self.levels):
            raise ValueError(f"levels is {levels!r}; give a list of quantile levels in (0, 1), such as [0.1, 0.5, 0.9]")
        self.add_state("total", default=torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", default=torch.tensor(0), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add one batch.

        Args:
            preds: predicted quantiles (..., Q).
            target: numbers (...), NaN where unknown.
        """
        check_numbers(preds=preds, target=target)
        known = ~torch.isnan(target)
        preds = preds.to(torch.promote_types(preds.dtype, torch.float32))  # half precision overflows
        each = pinball_loss(preds, torch.where(known, target, 0), self.levels)
        self.total += torch.where(known, each, 0).sum(dtype=torch.float64)
        self.count += known.sum()

    def compute(self) -> Tensor:
        """Return the mean; NaN without a known target."""
        return (self.total / self.count).float()
