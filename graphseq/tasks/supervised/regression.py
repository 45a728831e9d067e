"""Regression of numbers from whole samples."""

from typing import Any, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torchmetrics import MetricCollection

from graphseq.core.batches import batch_target
from graphseq.core.errors import DataError
from graphseq.metrics.regression import MaskedMeanAbsoluteError, MaskedRootMeanSquaredError
from graphseq.tasks.base import Step, Task

__all__ = ["Regression"]


class Regression(Task):
    r"""Minimise a loss between numbers and the network's outputs; unknown targets (NaN) are left out.

    .. math:: L = \frac{1}{|K|} \sum_{(b,k) \in K} \ell(f(x_b)_k, y_{bk}),
        \quad K = \{(b,k) : y_{bk} \text{ is a number}\}

    Procedure:
        1. outputs (B, K) of the batch; 2. loss over known targets; 3. one step of the optimiser.

    Logs:
        ``<stage>/loss``; ``val/mae``, ``val/rmse`` and the same for test, over all known targets.

    Args:
        model: network whose output has the shape of the target.
        num_outputs: number of targets of a sample; None skips the check of the network's width.
        loss: module from (known outputs, known targets) to a mean; default ``nn.MSELoss()``. Both are (B, K) where
            all targets of a batch are known, else flat; a batch without a known target has loss 0.
        optimizer: see :class:`Task`.
        scheduler: see :class:`Task`.
        scheduler_interval: see :class:`Task`.
        stop_on_nonfinite: see :class:`Task`.

    Raises:
        TypeError: if ``loss`` is no module.
        DataError: in a step, if target and output differ in shape.

    Example:
        >>> task = Regression(nn.Linear(4, 1))
        >>> task.step((torch.ones(5, 4), torch.zeros(5))).prediction.shape
        torch.Size([5, 1])
    """

    def __init__(
        self,
        model: nn.Module,
        num_outputs: int | None = None,
        *,
        loss: nn.Module | None = None,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
        scheduler_interval: Literal["epoch", "step"] = "epoch",
        stop_on_nonfinite: bool = True,
    ) -> None:
        super().__init__(
            model,
            optimizer=optimizer,
            scheduler=scheduler,
            scheduler_interval=scheduler_interval,
            stop_on_nonfinite=stop_on_nonfinite,
        )
        if loss is not None and not isinstance(loss, nn.Module):
            raise TypeError(f"loss is a {type(loss).__name__}; give a torch.nn.Module such as torch.nn.L1Loss()")
        self.num_outputs = num_outputs
        self.loss = nn.MSELoss() if loss is None else loss

    def configure_metrics(self) -> MetricCollection:
        """Return mean absolute and root mean squared error."""
        return MetricCollection({"mae": MaskedMeanAbsoluteError(), "rmse": MaskedRootMeanSquaredError()})

    def step(self, batch: Any) -> Step:
        """Return the loss of a batch over its known targets.

        Args:
            batch: tuple, PyG batch or dictionary with a target.
        """
        prediction: Tensor = self(batch)
        # in half precision the targets would be rounded, and a sum of squares overflows
        prediction = prediction.to(torch.promote_types(prediction.dtype, torch.float32))
        target = batch_target(batch).to(prediction.dtype)
        if prediction.dim() == 1:
            prediction = prediction.unsqueeze(1)
        if target.dim() == 1 and target.numel() == prediction.numel():
            target = target.view(prediction.shape)  # PyG joins targets (K,) of graphs to (B K,)
        if target.shape != prediction.shape or self.num_outputs not in (None, prediction.size(1)):
            expected = f" with num_outputs={self.num_outputs}" if self.num_outputs is not None else ""
            raise DataError(
                f"targets are {tuple(target.shape)}, predictions {tuple(prediction.shape)}{expected}; they must agree"
            )
        known = ~torch.isnan(target)
        size = int(known.sum())  # the selection of known targets would wait for the device as well
        if size == 0:
            loss = torch.where(known, prediction, 0).sum()
        elif size == target.numel():
            loss = self.loss(prediction, target)
        else:
            loss = self.loss(prediction[known], target[known])
        return Step(loss, prediction, target, size)
