"""Link prediction in event streams."""

from typing import Literal, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import Metric, MetricCollection

from graphseq.core.errors import DataError
from graphseq.core.events import EventBatch
from graphseq.core.protocols import EventSource
from graphseq.core.wrappers import unwrapped
from graphseq.metrics.ranking import (
    HitsAtK,
    LinkAUROC,
    LinkAveragePrecision,
    MeanReciprocalRank,
    PerBatchAveragePrecision,
    link_ranks,
)
from graphseq.nn.losses.coherence import memory_coherence_loss
from graphseq.tasks.base import Stage, Step, TaskOptions
from graphseq.tasks.predictions import Column
from graphseq.tasks.streams.stream import StreamTask

__all__ = ["TemporalLinkPrediction"]

_RECIPROCAL_RANK = "mrr_of_"
_FEWEST_CANDIDATES = 10
"""Below this number of candidates of an event its reciprocal rank is not logged."""


class TemporalLinkPrediction(StreamTask):
    r"""Train a network to distinguish events from negatives, in the order of the stream.

    .. math::
        L = -\frac{1}{B} \sum_e \log \sigma(f(u_e, v_e, t_e))
            - \frac{1}{BM} \sum_{e,m} \log \sigma(-f(u_e, v_{em}, t_e)) + \beta\, L_{\mathrm{coherence}}

    Procedure:
        see :class:`StreamTask`. With ``coherence_weight`` above 0 the loss has the smoothing term of PRES
        (arXiv 2402.04284), which penalises a change of direction of the memory over a batch; the prediction-correction
        of PRES is the ``corrector`` of the network.

    Logs:
        ``<stage>/loss``, ``train/coherence`` if it has a weight; for validation and test ``ap``, ``auc`` and, with C of
        at least 10 candidates for each event (itself and its negatives), the mean reciprocal rank ``mrr_of_<C>``,
        pooled over all events of the split, and ``new_ap``, ``new_auc`` over the events with an endpoint that
        is not in the training split, if the data module marks them. Pooling does not depend on the batch size, but the
        memory is updated once for each batch: state ``eval_batch_size`` with every figure.

    Args:
        model: network with a memory of events, such as :class:`graphseq.models.TGN`.
        coherence_weight: weight :math:`\beta` of the coherence term, at least 0.
        coherence: ``global`` for one cosine over all updated memories, ``node`` for the mean of the cosines of single
            nodes.
        hits_at: ranks k for ``hits@k``, each at least 1; evaluation needs at least k negatives for each event.
        per_batch_ap: whether to log ``batch_ap`` too, the mean of AP over batches that some published tables report.
        options: arguments of :class:`Task`.

    Raises:
        ValueError: if ``coherence_weight`` is negative or given to a network without memory, ``coherence`` is unknown,
            or a rank is below 1.
        DataError: before the run, if the data module draws fewer negatives than a rank of ``hits_at``; in a step, if
            the batch has none.

    Example:
        >>> from graphseq.models import JODIE
        >>> task = TemporalLinkPrediction(JODIE(num_nodes=9))
        >>> one = torch.tensor([1])
        >>> batch = EventBatch(one, one + 1, one, torch.zeros(1, 0), one, start=1, neg_dst=one[None] + 2)
        >>> task.step(batch).prediction.shape
        torch.Size([1, 2])
    """

    monitor = "val/ap"
    mode = "max"

    def __init__(
        self,
        model: nn.Module,
        *,
        coherence_weight: float = 0.0,
        coherence: Literal["global", "node"] = "global",
        hits_at: list[int] | None = None,
        per_batch_ap: bool = False,
        **options: Unpack[TaskOptions],
    ) -> None:
        super().__init__(model, **options)
        if not coherence_weight >= 0:
            raise ValueError(f"coherence_weight is {coherence_weight}; it must be at least 0")
        if coherence not in ("global", "node"):
            raise ValueError(f"coherence is {coherence!r}; it must be 'global' or 'node'")
        network = unwrapped(model)
        if coherence_weight > 0 and getattr(network, "memory", network) is None:
            raise ValueError(
                f"coherence_weight is {coherence_weight}, and {type(network).__name__} has no memory whose changes "
                "could be penalised; leave it at 0, or give a network with memory"
            )
        if any(isinstance(k, bool) or not isinstance(k, int) or k < 1 for k in hits_at or []):
            raise ValueError(f"hits_at is {hits_at}; give a list of integers of at least 1")
        self.coherence_weight = coherence_weight
        self.coherence: Literal["global", "node"] = coherence
        self.hits_at = hits_at or []
        self.per_batch_ap = per_batch_ap
        self._new_nodes = nn.ModuleDict()

    def configure_metrics(self) -> MetricCollection:
        """Return pooled AP and AUC, and the optional metrics; MRR comes with the data of a run."""
        metrics: dict[str, Metric | MetricCollection] = {
            "ap": LinkAveragePrecision(),
            "auc": LinkAUROC(),
            **{f"hits@{k}": HitsAtK(k) for k in self.hits_at},
        }
        if self.per_batch_ap:
            metrics["batch_ap"] = PerBatchAveragePrecision()
        return MetricCollection(metrics)

    def _name_reciprocal_rank(self, split: str) -> None:
        """Give a split the mean reciprocal rank by its number of candidates in this run; among few it says little."""
        metrics, data = dict(self._metrics.items()).get(split), self.datamodule
        if not isinstance(metrics, MetricCollection):
            return
        drawn = None
        if isinstance(data, EventSource) and len(data.splits[split]):
            drawn = getattr(data.loader(split), "negatives", None)  # a loader of a user's own may have none
        candidates = 1 + (getattr(drawn, "num_negatives", None) or 0)
        # a collection takes metrics, but gives none back
        given = metrics.items(keep_base=True)
        named: dict[str, Metric | MetricCollection] = {k: v for k, v in given if not k.startswith(_RECIPROCAL_RANK)}
        if candidates >= _FEWEST_CANDIDATES:
            named[f"{_RECIPROCAL_RANK}{candidates}"] = MeanReciprocalRank().to(self.device)
        self._metrics[split] = MetricCollection(named, prefix=f"{split}/")

    def setup(self, stage: str) -> None:
        """Build the metrics, including those of events with new nodes, and check that there are enough negatives."""
        super().setup(stage)
        split = {"fit": "val", "validate": "val", "test": "test"}.get(stage, "none")
        self._name_reciprocal_rank(split)
        self._check_ranks(split)
        if not self._new_nodes:
            pooled: dict[str, Metric | MetricCollection] = {"new_ap": LinkAveragePrecision(), "new_auc": LinkAUROC()}
            for split in ("val", "test"):
                self._new_nodes[split] = MetricCollection(pooled).clone(prefix=f"{split}/")
        for metrics in self._new_nodes.values():
            if isinstance(metrics, MetricCollection):
                metrics.reset()

    def _check_ranks(self, split: str) -> None:
        data = self.datamodule
        if not self.hits_at or not isinstance(data, EventSource) or not len(data.splits.get(split, ())):
            return
        sampler = getattr(data.loader(split), "negatives", None)  # a loader of a user's own may have none
        drawn = getattr(sampler, "num_negatives", None)
        if drawn is not None and max(self.hits_at) > drawn:
            raise DataError(
                f"hits_at is {self.hits_at}, and the {split} negatives {sampler!r} are {drawn} for each event: all "
                f"would be among the first {max(self.hits_at)}. Use smaller ranks, or eval_negatives with more, such "
                "as graphseq.data.RankingNegatives"
            )

    def step(self, batch: EventBatch, stage: Stage = "train") -> Step:
        """Return the loss and logits of a batch, and commit its events to the network's state.

        Args:
            batch: events with negatives.
            stage: stage of the run; only ``train`` has the coherence term.
        """
        logits, update = self.network.forward_with_update(batch)
        if logits.dim() != 2 or logits.size(1) < 2:
            raise DataError(
                "the batch has no negatives; let the data module draw them (train_negatives, eval_negatives)"
            )
        target = torch.zeros_like(logits)
        target[:, 0] = 1
        happened = functional.softplus(-logits[:, 0]).mean()
        others = functional.softplus(logits[:, 1:]).mean()
        loss = happened + others
        logged: dict[str, Tensor] = {}
        if stage == "train" and self.coherence_weight > 0:
            if not all(hasattr(update, name) for name in ("previous", "memory", "pending")):
                raise DataError(
                    f"coherence_weight is {self.coherence_weight}, and the updates of {type(self.network).__name__} "
                    "have no previous, memory and pending, which the coherence term compares; leave the weight at 0"
                )
            logged["coherence"] = memory_coherence_loss(update.previous, update.memory, update.pending, self.coherence)
            loss = loss + self.coherence_weight * logged["coherence"]
        self.network.commit(update)
        return Step(loss, logits, target, len(batch), logged)

    def record(self, stage: Literal["val", "test"], batch: EventBatch, step: Step) -> None:
        """Log the loss of a batch and update the metrics with it, including those of events with new nodes.

        Args:
            stage: stage of the evaluation: ``val`` or ``test``.
            batch: batch that the step was computed from.
            step: result of :meth:`step` for the batch.
        """
        super().record(stage, batch, step)
        metrics = self._metrics_of_new_nodes(stage)
        if metrics is not None and batch.new_node is not None:
            prediction = step.prediction.detach()[batch.new_node]
            if len(prediction):
                metrics.update(prediction, step.target[batch.new_node])

    def _metrics_of_new_nodes(self, stage: Literal["val", "test"]) -> MetricCollection | None:
        metrics = dict(self._new_nodes.items()).get(stage)
        return metrics if isinstance(metrics, MetricCollection) else None

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of events with new nodes, if there were any."""
        self._log_new_nodes("val")

    def on_test_epoch_end(self) -> None:
        """Log the metrics of events with new nodes, if there were any."""
        self._log_new_nodes("test")

    def _log_new_nodes(self, stage: Literal["val", "test"]) -> None:
        new = self._metrics_of_new_nodes(stage)
        if new is None:
            return
        if any(metric.update_called for metric in new.values()):
            self.log_dict({name: value for name, value in new.compute().items() if bool(torch.isfinite(value))})
        new.reset()

    def forward(self, batch: EventBatch) -> Tensor:
        """Return the logits of a batch; the state is left unchanged.

        Args:
            batch: events with negatives.
        """
        logits: Tensor = self.model(batch)
        return logits

    def event_outputs(self, batch: EventBatch, output: Tensor) -> dict[str, Column]:
        """Return the probability of each event, its rank among its candidates, and their number.

        Args:
            batch: events with negatives.
            output: logits (B, 1 + M), column 0 the events.
        """
        outputs: dict[str, Column] = {"p": output[:, 0].float().sigmoid()}
        if output.size(1) > 1:
            outputs["rank"] = link_ranks(output).float()
            outputs["candidates"] = torch.full_like(batch.src, output.size(1))
        return outputs
