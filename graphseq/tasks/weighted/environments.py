"""Training on samples of several environments with a loss over their risks."""

from dataclasses import replace
from typing import Unpack

from torch import nn

from graphseq.core.errors import UnsupportedStrategyError
from graphseq.nn.losses.environments import EnvironmentBatch, VarianceRisk
from graphseq.tasks.base import Step
from graphseq.tasks.supervised.samples import SampleLosses, SampleOptions, SampleTask, required_field

__all__ = ["MultiEnvironment"]

_ENV = "environment of each sample, int64 (B,), such as batch.env of graphs"


class MultiEnvironment(SampleTask):
    r"""Minimise a loss over the risks of the environments that training samples come from.

    .. math:: R_e = \sum_{n \in e} s_n \Big/ \sum_{n \in e} c_n, \qquad L = F(R_1, \ldots, R_E)

    F is the argument ``objective``: :class:`graphseq.nn.InvariantRisk`, :class:`graphseq.nn.VarianceRisk`,
    :class:`graphseq.nn.CORAL` or :class:`graphseq.nn.GroupDRO`. Risks are computed on each batch, which should hold
    several samples of several environments.

    Procedure:
        1. Outputs and representations of the batch; 2. the mean loss before ``start_epoch``, then F; 3. one step.

    Logs:
        ``<stage>/loss`` and the metrics of :class:`Classification` or :class:`Regression`;
        ``train/environment_penalty``, or ``train/worst_environment`` for GroupDRO. Validation and test take the mean.

    Args:
        model: network with a module ``head`` that maps one vector for each sample to outputs.
        num_outputs: number K of classes, labels or quantities, at least 1; at least 2 for multiclass.
        objective: loss F of the risks, a module from :class:`graphseq.nn.EnvironmentBatch` to the loss and a
            dictionary of values to log; default ``VarianceRisk()``.
        start_epoch: number of epochs with the mean loss before F is used, at least 0.
        options: arguments of :class:`SampleTask` and :class:`Task`.

    Raises:
        ValueError: if an argument is out of range.
        DataError: in training, if samples have no ``env``.
        UnsupportedStrategyError: at the start of a run with several processes: F of parts of a batch does not give F of
            the batch.

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
        objective: nn.Module | None = None,
        start_epoch: int = 0,
        **options: Unpack[SampleOptions],
    ) -> None:
        super().__init__(model, num_outputs, **options)
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

    def training_loss(self, losses: SampleLosses) -> Step:
        """Return the step with the loss over the risks of the environments.

        Args:
            losses: losses of the samples of a batch with ``env``.
        """
        env = required_field(losses.batch, "env", _ENV)
        mean = losses.mean()
        if self._trainer is not None and self.current_epoch < self.start_epoch:
            return mean
        given = EnvironmentBatch(losses.terms, losses.sizes, env, losses.prediction, losses.representation)
        loss, logged = self.objective(given)
        return replace(mean, loss=loss, logged=logged)
