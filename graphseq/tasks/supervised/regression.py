"""Regression of numbers from whole samples."""

from typing import Unpack

from torch import nn
from torchmetrics import MetricCollection

from graphseq.core.batches import batch_target
from graphseq.tasks.base import Stage, Step, Task, TaskOptions
from graphseq.tasks.objectives.quantities import Numbers

__all__ = ["Regression"]


class Regression(Task[object]):
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
        options: arguments of :class:`Task`.

    Raises:
        TypeError: if ``loss`` is not a module.
        ValueError: if ``num_outputs`` is below 1.
        DataError: in a step, if target and output differ in shape.

    Example:
        >>> import torch
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
        **options: Unpack[TaskOptions],
    ) -> None:
        super().__init__(model, **options)
        if loss is not None and not isinstance(loss, nn.Module):
            raise TypeError(f"loss is a {type(loss).__name__}; give a torch.nn.Module such as torch.nn.L1Loss()")
        self.num_outputs = num_outputs
        self.loss = nn.MSELoss() if loss is None else loss
        self.target_kind = Numbers(num_outputs, self.loss)

    def configure_metrics(self) -> MetricCollection:
        """Return mean absolute and root mean squared error."""
        return self.target_kind.metrics()

    def step(self, batch: object, stage: Stage = "train") -> Step:
        """Return the loss of a batch over its known targets.

        Args:
            batch: tuple, PyG batch or dictionary with a target.
            stage: stage of the run; the loss does not depend on it.
        """
        return self.target_kind.step(self(batch), batch_target(batch), self.model)
