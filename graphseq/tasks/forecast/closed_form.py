"""Forecasts that need no gradient: computed from the training span, or not trained at all."""

from lightning.pytorch.utilities.types import OptimizerLRScheduler

from graphseq.core.windows import WindowBatch
from graphseq.tasks.forecast.forecasting import Forecasting

__all__ = ["ClosedFormForecasting"]


class ClosedFormForecasting(Forecasting):
    """Evaluate forecasts that are computed from the training span in closed form, or that are not trained.

    Training takes no step: a network with ``fit_to`` is fitted to the training span when the run starts, and training
    batches are skipped. Use ``max_epochs: 1``. Loss, metrics and checkpoints are those of :class:`Forecasting`.

    Procedure:
        1. the network is fitted to the training span, if it has ``fit_to``; 2. validation and test as in
        :class:`Forecasting`.

    Logs:
        those of :class:`Forecasting`, except ``train/loss``.

    Args:
        model: network from scaled windows to scaled forecasts (B, S, Z, K).
        options: arguments of :class:`Forecasting`.

    Example:
        >>> import torch
        >>> from graphseq.models import Persistence
        >>> task = ClosedFormForecasting(Persistence(horizon=4))
        >>> one = torch.ones(1, 1, 3)
        >>> batch = WindowBatch(torch.ones(2, 5, 8, 3), torch.ones(2, 5, 4, 3), loc=0 * one, scale=one)
        >>> float(task.step(batch).loss)
        0.0
    """

    def training_step(self, batch: WindowBatch, batch_idx: int) -> None:  # type: ignore[override]  # no loss, no step
        """Skip a training batch."""

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return no optimiser."""
        return None
