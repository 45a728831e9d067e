"""Classification of nodes in event streams, with an encoder that was trained on link prediction."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self, Unpack, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import MetricCollection

from graphseq.core.checkpoint import Checkpoint
from graphseq.core.errors import CheckpointError, DataError
from graphseq.core.events import EventBatch
from graphseq.core.protocols import EmbeddingNetwork, EventSource, missing_members
from graphseq.core.wrappers import unwrapped
from graphseq.nn.temporal.node_decoder import NodeDecoder
from graphseq.nn.temporal.pres import moments_tracked
from graphseq.tasks.base import Stage, Step, TaskOptions
from graphseq.tasks.objectives.classes import Labels
from graphseq.tasks.predictions import Column
from graphseq.tasks.streams.stream import StreamTask

__all__ = ["TemporalNodeClassification", "static_node_embeddings"]


class TemporalNodeClassification(StreamTask):
    r"""Predict for each event whether the state of its source changes, such as an editor who is banned.

    .. math:: L = -\frac{1}{B} \sum_e w\, y_e \log \sigma(f(h_{u_e}(t_e))) + (1 - y_e) \log(1 - \sigma(f(h_{u_e}(t_e))))

    with the embedding :math:`h` of the source before the event is written into its memory.

    Source: arXiv 2006.10637, section 5.1, and its code: a decoder on a frozen encoder that replays the stream.

    Procedure:
        1. The network's weights come from a run of :class:`TemporalLinkPrediction`, and are fixed if ``freeze`` is set.
        2. Each epoch replays the stream from an empty state, see :class:`StreamTask`: embeddings, loss, commit, step.
        3. Only the decoder is trained if the encoder is frozen, which then has no dropout; the moments of PRES are
           updated as in the training of the encoder.

    Logs:
        ``<stage>/loss``; for validation and test ``auc`` and ``ap``, pooled over all events of the split. State changes
        are rare, about one event in a thousand: report both, over several seeds.

    Args:
        model: network with a memory of events and the methods ``encode`` and ``decoded``, such as
            :class:`graphseq.models.MemoryNetwork`.
        checkpoint: checkpoint file of a :class:`TemporalLinkPrediction`, from which the weights of the network are
            loaded; None to keep the weights of ``model``.
        freeze: whether the network's weights are fixed in training.
        decoder: module from embeddings (R, D) to logits (R, 1); default a :class:`~graphseq.nn.NodeDecoder`.
        dropout: dropout probability of the default decoder, in [0, 1).
        pos_weight: weight w of state changes, above 0; None for 1.
        options: arguments of :class:`Task`.

    Raises:
        TypeError: if the network lacks one of the required methods.
        ValueError: if ``pos_weight`` is not above 0.
        CheckpointError: if ``checkpoint`` does not hold a network like ``model``; at the first batch, if there is no
            such file.
        DataError: at the start of a run, if the events have no labels or a split has one class only.

    Example:
        >>> from graphseq.models import JODIE
        >>> task = TemporalNodeClassification(JODIE(num_nodes=9))
        >>> one = torch.tensor([1])
        >>> task.step(EventBatch(one, one + 1, one, torch.zeros(1, 0), one, start=1, y=one)).prediction.shape
        torch.Size([1, 1])
        >>> [name for name, weight in task.named_parameters() if weight.requires_grad][0]
        'decoder.layers.0.weight'
    """

    monitor = "val/auc"
    mode = "max"

    def __init__(
        self,
        model: nn.Module,
        *,
        checkpoint: str | None = None,
        freeze: bool = True,
        decoder: nn.Module | None = None,
        dropout: float = 0.1,
        pos_weight: float | None = None,
        **options: Unpack[TaskOptions],
    ) -> None:
        super().__init__(model, **options)
        missing = missing_members(self.network, EmbeddingNetwork)
        if missing:
            raise TypeError(
                f"{type(self.network).__name__} has no {missing[0]}, which computes embeddings; give a network such as "
                "graphseq.models.TGN"
            )
        if pos_weight is not None and not pos_weight > 0:
            raise ValueError(f"pos_weight is {pos_weight}; it must be above 0")
        self.frozen = freeze
        self.decoder = decoder if decoder is not None else NodeDecoder(_width(unwrapped(model)), dropout=dropout)
        self.pos_weight = pos_weight
        self.target_kind = Labels(1)
        self._awaited: str | None = None
        if checkpoint is not None:
            if Path(checkpoint).is_file():
                _take_weights(model, checkpoint)
            else:  # a task that is loaded has its weights from its own checkpoint, and needs the file no more
                self._awaited = checkpoint
        self.model.requires_grad_(not freeze)
        self.train()  # Lightning takes the modes that it finds

    @property
    def embedder(self) -> EmbeddingNetwork:
        """The network without wrappers, typed as one whose embeddings can be read."""
        return cast(EmbeddingNetwork, unwrapped(self.model))  # the constructor has checked it

    def train(self, mode: bool = True) -> Self:
        """Switch between training and evaluation; a frozen network has no dropout in either."""
        super().train(mode)
        if self.frozen:
            self.model.eval()
            corrector = getattr(unwrapped(self.model), "corrector", None)  # not every network has one
            if corrector is not None:
                corrector.train(mode)
        return self

    def setup(self, stage: str) -> None:
        """Check that there are labels of both classes, and build the metrics."""
        super().setup(stage)
        data = self.datamodule
        if not isinstance(data, EventSource) or stage == "predict":
            return
        events, splits = data.events, data.splits
        if events.y is None:
            raise DataError(
                "the events have no labels y, which say when the state of a source changes; for labels of nodes that "
                "do not change, fit a classifier to graphseq.tasks.static_node_embeddings"
            )
        for split in {"fit": ("train", "val"), "validate": ("val",)}.get(stage, ("test",)):
            y = events.y[splits[split]]
            if not bool(((y == 0) | (y == 1)).all()):
                raise DataError(
                    f"labels of the {split} split are not all 0 or 1; give 1 where the state of the source changes, "
                    "else 0"
                )
            if len(y) and bool((y == y[0]).all()):
                raise DataError(
                    f"all {len(y)} events of the {split} split have label {float(y[0]):g}, so that there is only one "
                    "class, and AUC and AP are not defined; use other fractions, another split_by, or more events"
                )

    def configure_metrics(self) -> MetricCollection:
        """Return pooled AUC and AP."""
        metrics = self.target_kind.metrics()
        return MetricCollection({"auc": metrics["auroc"], "ap": metrics["ap"]})

    def step(self, batch: EventBatch, stage: Stage = "train") -> Step:
        """Return the loss and logits of a batch, and commit its events to the network's state.

        Args:
            batch: events with labels; negatives are ignored.
            stage: stage of the run; the loss does not depend on it.
        """
        if batch.y is None:
            raise DataError("the batch has no labels y; give 1 where the state of the source changes, else 0")
        logits, update = self._score(batch)
        target = batch.y.to(logits.dtype)[:, None]
        weight = None if self.pos_weight is None else logits.new_tensor(self.pos_weight)
        loss = functional.binary_cross_entropy_with_logits(logits, target, pos_weight=weight)
        self.network.commit(update)
        return Step(loss, logits, target, len(batch))

    def _score(self, batch: EventBatch) -> tuple[Tensor, Any]:
        if self._awaited is not None:
            raise CheckpointError(f"there is no checkpoint {self._awaited} to take the network's weights from")
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            update = self.embedder.encode(replace(batch, neg_dst=None, neg_src=None))
            h = self.embedder.decoded(update).index_select(0, update.plan.row[: len(batch)])
        return self.decoder(h), update

    def record(self, stage: Literal["val", "test"], batch: EventBatch, step: Step) -> None:
        """Log the loss and update the metrics, except in the sanity check, whose few events rarely have both classes.

        Args:
            stage: stage of the evaluation: ``val`` or ``test``.
            batch: batch that the step was computed from.
            step: result of :meth:`step` for the batch.
        """
        if not self.trainer.sanity_checking:
            super().record(stage, batch, step)

    def forward(self, batch: EventBatch) -> Tensor:
        """Return the logits (B, 1) of the sources of a batch; the state is left unchanged.

        Args:
            batch: events, with or without labels.
        """
        return self._score(batch)[0]

    def predict_step(self, batch: EventBatch, batch_idx: int) -> Tensor:
        """Return the logits (B, 1) of the sources of a batch, and commit its events."""
        logits, update = self._score(batch)
        self.network.commit(update)
        return logits

    def event_outputs(self, batch: EventBatch, output: Tensor) -> dict[str, Column]:
        """Return the label of each event where known, and the probability that the state of its source changes.

        Args:
            batch: events, with or without labels.
            output: logits (B, 1).
        """
        known: dict[str, Column] = {} if batch.y is None else {"target": batch.y}
        return {**known, "p": output[:, 0].float().sigmoid()}

    def on_load_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Restore the state of training; the checkpoint also holds the network's weights."""
        super().on_load_checkpoint(checkpoint)
        self._awaited = None


def _width(model: nn.Module) -> int:
    width = getattr(getattr(model, "embedding", None), "out_channels", None)
    if not isinstance(width, int):
        raise TypeError(
            f"{type(model).__name__} does not say how wide its embeddings are (model.embedding.out_channels); give a "
            "decoder"
        )
    return width


def _take_weights(model: nn.Module, path: str) -> None:
    """Copy the weights and the state of a task's network into another network with the same structure."""
    model = unwrapped(model)
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        given = {name.removeprefix("model."): v for name, v in saved["state_dict"].items() if name.startswith("model.")}
    except Exception as error:  # torch raises many kinds for a damaged file
        raise CheckpointError(f"{path} cannot be read as a checkpoint of a task: {error}") from error
    try:
        model.load_state_dict(given)
    except RuntimeError as error:
        raise CheckpointError(
            f"{path} does not hold a network like this {type(model).__name__}; build it with the arguments it was "
            f"trained with. {error}"
        ) from error


@torch.no_grad()
def static_node_embeddings(network: Any, batches: Iterable[EventBatch], nodes: Tensor, chunk: int = 1024) -> Tensor:
    """Return the embeddings of nodes after a whole stream, to predict labels that do not change over time.

    The stream is replayed from an empty state, and the state of the network is restored afterwards. Embeddings are
    computed at the time of the last event from the history in its batch, including all events. The moments of a
    corrector are updated, as in training.

    Args:
        network: network with a memory of events and the methods ``encode`` and ``decoded``, such as
            :class:`graphseq.models.MemoryNetwork`.
        batches: event batches in the order of the stream, such as those of training.
        nodes: nodes whose embeddings are returned, int64 (U,).
        chunk: number of nodes that are embedded at once.

    Returns:
        the embeddings (U, D).

    Raises:
        DataError: if there is no batch.

    Example:
        >>> from graphseq.data import SyntheticEventsDataModule
        >>> from graphseq.models import JODIE
        >>> data = SyntheticEventsDataModule(num_events=300)
        >>> network = JODIE(data.num_nodes, memory_dim=8)
        >>> static_node_embeddings(network, data.batches("train"), torch.arange(5)).shape
        torch.Size([5, 8])
    """
    before = network.state_buffers()
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        network.reset_state()
        last = None
        with moments_tracked(network):
            for batch in batches:
                network.commit(network.encode(replace(batch, neg_dst=None, neg_src=None)))
                if last is None or not batch.reordered or batch.end > last.end:
                    last = batch
        if last is None:
            raise DataError(
                "batches is empty, so that there are no events to compute embeddings from; give at least one batch"
            )
        end = int(last.e_id[-1]) + 1
        embeddings = []
        for some in nodes.to(last.src.device).split(chunk):
            count = len(some)
            position = torch.full_like(some, end)
            msg = last.msg.new_zeros(count, last.msg.size(1))
            asked = EventBatch(some, some, last.t[-1:].expand(count), msg, position, start=end, history=last.history)
            update = network.encode(asked)
            embeddings.append(network.decoded(update).index_select(0, update.plan.row[:count]))
        return torch.cat(embeddings)
    finally:
        network.load_state_buffers(before)
        for module, mode in modes:
            module.training = mode
