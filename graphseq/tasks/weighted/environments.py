"""Training on samples of several environments with a loss over their risks."""

from typing import Literal

from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from graphseq.core.errors import UnsupportedStrategyError
from graphseq.nn.losses.environments import EnvironmentBatch, VarianceRisk
from graphseq.tasks.supervised.samples import SampleTask, batch_field

__all__ = ["MultiEnvironment"]

_ENV = "environment of each sample, int64 (B,), such as batch.env of graphs"


class MultiEnvironment(SampleTask):
    r"""Minimise a loss over the risks of the environments that training samples come from.

    .. math:: R_e = \sum_{n \in e} s_n \Big/ \sum_{n \in e} c_n, \qquad L = F(R_1, \ldots, R_E)

    What F is, is an object: :class:`graphseq.nn.InvariantRisk`, :class:`graphseq.nn.VarianceRisk`,
    :class:`graphseq.nn.CORAL` or :class:`graphseq.nn.GroupDRO`. Risks are those of a batch; batches should hold
    several samples of several environments.

    Procedure:
        1. Outputs and representations of the batch; 2. the mean loss before ``start_epoch``, then F; 3. one step.

    Logs:
        ``<stage>/loss`` and the metrics of :class:`Classification` or :class:`Regression`;
        ``train/environment_penalty``, or ``train/worst_environment`` for GroupDRO. Validation and test take the mean.

    Args:
        model: see :class:`SampleTask`.
        num_outputs: see :class:`SampleTask`.
        target: see :class:`SampleTask`.
        loss: see :class:`SampleTask`.
        objective: F, from :class:`graphseq.nn.EnvironmentBatch` to a loss and what to log; default
            ``VarianceRisk()``.
        start_epoch: epochs of the mean loss before, at least 0.
        optimizer: see :class:`Task`.
        scheduler: see :class:`Task`.
        scheduler_interval: see :class:`Task`.
        stop_on_nonfinite: see :class:`Task`.

    Raises:
        ValueError: if an argument is out of range.
        DataError: in training, if samples have no ``env``.
        UnsupportedStrategyError: at the start of a run with several processes: F of parts is not F of the whole.

    Example:
        >>> import torch
        >>> from graphseq.models import GraphClassifier
        >>> task = MultiEnvironment(GraphClassifier(3, 2), num_outputs=2)
        >>> graph = {"x": torch.ones(4, 3), "edge_index": torch.tensor([[0], [1]]), "y": torch.tensor([1])}
        >>> task.step({**graph, "env": torch.tensor([0])}).prediction.shape
        torch.Size([1, 2])
    """

    def __init__(
        self,
        model: nn.Module,
        num_outputs: int,
        *,
        target: Literal["multiclass", "multilabel", "regression"] = "multiclass",
        loss: nn.Module | None = None,
        objective: nn.Module | None = None,
        start_epoch: int = 0,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
        scheduler_interval: Literal["epoch", "step"] = "epoch",
        stop_on_nonfinite: bool = True,
    ) -> None:
        super().__init__(
            model,
            num_outputs,
            target=target,
            loss=loss,
            optimizer=optimizer,
            scheduler=scheduler,
            scheduler_interval=scheduler_interval,
            stop_on_nonfinite=stop_on_nonfinite,
        )
        if start_epoch < 0:
            raise ValueError(f"start_epoch is {start_epoch}; it must be at least 0")
        self.objective = VarianceRisk() if objective is None else objective
        self.start_epoch = start_epoch

    def setup(self, stage: str) -> None:
        """Refuse several processes, and build the metrics."""
        super().setup(stage)
        if stage == "fit" and self.trainer.world_size > 1:
            raise UnsupportedStrategyError(
                f"{type(self).__name__} runs on one process, {self.trainer.world_size} were given: a loss over the "
                "risks of a part of the batch is not that of the batch. Use devices=1"
            )

    def training_loss(
        self, terms: Tensor, sizes: Tensor, batch: object, prediction: Tensor, representation: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the loss over the risks of the environments.

        Args:
            terms: sum of the losses of each sample, (B,).
            sizes: number of terms of each sum, (B,).
            batch: the batch, with ``env``.
            prediction: that the losses are of, (B, K).
            representation: what the head read, (B, D).
        """
        env = batch_field(batch, "env", _ENV)
        running = self._trainer is not None
        if running and self.current_epoch < self.start_epoch:
            return super().training_loss(terms, sizes, batch, prediction, representation)
        loss, logged = self.objective(EnvironmentBatch(terms, sizes, env, prediction, representation))
        if running:
            named = {f"train/{name}": value for name, value in logged.items()}
            self.log_dict(named, batch_size=len(terms), on_step=False, on_epoch=True)
        return loss, sizes.sum()
