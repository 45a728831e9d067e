"""Base class of procedures that adapt a frozen graph encoder by prompts and a head."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal, Self, Unpack

import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection

from graphseq.core.batches import batch_target
from graphseq.core.protocols import PromptableEncoder, missing_members
from graphseq.metrics.prompts import PromptCoverage, PromptMagnitude
from graphseq.nn import EmbeddedGraphs
from graphseq.tasks.base import Stage, Step, Task, TaskOptions
from graphseq.tasks.objectives.named import objective_of

__all__ = ["PromptOptions", "PromptTask"]


class PromptOptions(TaskOptions, total=False):
    """Arguments that procedures pass on to :class:`PromptTask`, for ``**options: Unpack[PromptOptions]``.

    Args:
        target: kind of target: 0, 1 or NaN (B, K), ``multilabel``; or integer labels (B,), ``multiclass``. Default
            ``multilabel``.
        head: module from graph vectors (G, graph_channels) to logits (G, num_outputs); default a perceptron.
        head_layers: number of linear maps of the default head, at least 1; default 2.
        optimizer: callable from parameters to an optimiser; default ``torch.optim.Adam`` with its own defaults.
        scheduler: callable from the optimiser to a learning-rate scheduler; default no scheduler.
        scheduler_interval: whether the scheduler steps once per ``epoch`` or once per ``step``; default ``epoch``.
        stop_on_nonfinite: whether a NaN or infinite training loss stops the run; default true. On a GPU the loss is
            read where losses are logged, so that no step waits for it.

    Example:
        >>> options: PromptOptions = {"target": "multiclass", "head_layers": 1}
    """

    target: Literal["multilabel", "multiclass"]
    head: nn.Module | None
    head_layers: int


@dataclass
class PromptStep(Step):
    """Step of an evaluation, with the prompts it was made with.

    Args:
        prompt: prompt of each node, from the largest graph to the smallest, (N, D).
        ptr: first node of each graph in that order and, last, the number of nodes, (G+1,).
        decrease: decrease of the loss of each graph by its prompts, 0 without a label, (G,).
        labelled: whether a graph has a label, (G,).
    """

    prompt: Tensor = None  # type: ignore[assignment]  # the fields before have defaults
    ptr: Tensor = None  # type: ignore[assignment]
    decrease: Tensor = None  # type: ignore[assignment]
    labelled: Tensor = None  # type: ignore[assignment]


class PromptTask(Task):
    r"""Base of procedures that add prompts to the features of a frozen encoder, and train a head on graph vectors.

    .. math:: y_g = \mathrm{head}\Bigl(\bigoplus_{i \in g} f(A, X + P)_i\Bigr)

    Parameters and buffers of the encoder, those of norms included, never change. Prompts are added to what
    ``encoder.embed`` returns: embedded categories, or real features. A subclass defines :meth:`prompts`.

    Logs:
        ``<stage>/loss``; metrics of the target; ``<stage>/return``, the mean over graphs of the decrease of their loss
        by the prompts; ``<stage>/pcr`` and ``<stage>/apm``, see :func:`graphseq.metrics.prompt_coverage` and
        :func:`graphseq.metrics.prompt_magnitude`.

    Args:
        model: pre-trained encoder such as ``Pretrained(path, part="model.encoder")``; it is frozen here in any case.
        num_outputs: number of classes or labels, at least 2 for multiclass.
        target: kind of target: 0, 1 or NaN (B, K), ``multilabel``; or integer labels (B,), ``multiclass``.
        head: module from graph vectors (G, graph_channels) to logits (G, num_outputs); default a perceptron.
        head_layers: number of linear maps of the default head, at least 1.
        options: arguments of :class:`Task`.

    Raises:
        TypeError: if the encoder lacks ``embed`` or ``encode_embedded``.
        ValueError: if an argument is out of range.

    Example:
        >>> from graphseq.models import GraphEncoder
        >>> class Linear(PromptTask):
        ...     def prompts(self, batch):
        ...         graphs = EmbeddedGraphs.from_batch(self.encoder, batch)
        ...         return graphs, torch.zeros_like(graphs.h), torch.arange(len(graphs))
        >>> graph = {"x": torch.ones(4, 3), "edge_index": torch.tensor([[0], [1]])}
        >>> Linear(GraphEncoder(3, 8), num_outputs=2, head_layers=1)(graph).shape
        torch.Size([1, 2])
    """

    def __init__(
        self,
        model: nn.Module,
        num_outputs: int,
        *,
        target: Literal["multilabel", "multiclass"] = "multilabel",
        head: nn.Module | None = None,
        head_layers: int = 2,
        **options: Unpack[TaskOptions],
    ) -> None:
        super().__init__(model, **options)
        lacking = missing_members(model, PromptableEncoder)
        if lacking:
            raise TypeError(
                f"model is a {type(model).__name__} without {', '.join(lacking)}; give a graph encoder such as "
                "graphseq.models.GraphEncoder, or of a checkpoint its part 'model.encoder'"
            )
        if target not in ("multilabel", "multiclass"):
            raise ValueError(f"target is {target!r}; it must be 'multilabel' or 'multiclass'")
        if head_layers < 1:
            raise ValueError(f"head_layers is {head_layers}; it must be at least 1")
        model.requires_grad_(False)
        model.eval()
        self.num_outputs, self.target = num_outputs, target
        self.target_kind = objective_of(target, num_outputs)
        width = self.encoder.graph_channels
        self.head = _perceptron(width, num_outputs, head_layers) if head is None else head
        self._prompt_metrics = nn.ModuleDict()

    @abstractmethod
    def prompts(self, batch: object) -> tuple[EmbeddedGraphs, Tensor, Tensor]:
        """Return the graphs of a batch in any order, their prompts, and their order.

        Args:
            batch: PyG batch or dictionary with ``x`` and ``edge_index``; labels are not used.

        Returns:
            Packed graphs, prompts (N, D) of their nodes, and the number in the batch of each graph, int64 (G,).
        """

    @property
    def encoder(self) -> PromptableEncoder:
        """The frozen encoder."""
        return self.model  # type: ignore[return-value]  # checked by the constructor; Pretrained forwards attributes

    def train(self, mode: bool = True) -> Self:
        """Change the mode of all parts but the encoder, which stays in evaluation mode.

        Args:
            mode: whether to train.
        """
        super().train(mode)
        self.model.eval()
        return self

    def setup(self, stage: str) -> None:
        """Build the metrics."""
        super().setup(stage)
        if not self._prompt_metrics:
            for name in ("val", "test"):
                metrics = MetricCollection({"pcr": PromptCoverage(), "apm": PromptMagnitude()}, prefix=f"{name}/")
                self._prompt_metrics[name] = metrics

    def configure_metrics(self) -> MetricCollection:
        """Return AUROC and average precision, or accuracy and macro F1 for multiclass targets."""
        return self.target_kind.metrics()

    def targets(self, batch: object, count: int) -> tuple[Tensor, Tensor]:
        """Return the targets of a batch, one row for each graph, and whether a graph has any label.

        Args:
            batch: batch with ``y``.
            count: number of its graphs.
        """
        blank = torch.zeros(count, self.num_outputs, device=batch_target(batch).device)
        _, target = self.target_kind.align(blank, batch_target(batch), self.head)
        return target, self.target_kind.sample_losses(blank, target)[1] > 0

    def graph_losses(self, vector: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each graph, the mean over its known labels; 0 if it has none.

        Args:
            vector: graph vectors (G, graph_channels).
            target: aligned targets, one row for each graph.
        """
        prediction, target = self.target_kind.align(self.head(vector), target, self.head)
        terms, sizes = self.target_kind.sample_losses(prediction, target)
        return terms / sizes.clamp(min=1)

    def forward(self, batch: object) -> Tensor:
        """Return the logits of the prompted graphs of a batch, (G, num_outputs).

        Args:
            batch: PyG batch or dictionary with ``x`` and ``edge_index``; labels are not used.
        """
        graphs, prompt, order = self.prompts(batch)
        logits = self.head(graphs.encode(self.encoder, prompt)[0])
        return torch.empty_like(logits).index_copy(0, order, logits)

    def step(self, batch: object, stage: Stage = "train") -> PromptStep:
        """Return loss and predictions of the prompted graphs of a batch, and the prompts.

        Args:
            batch: PyG batch or dictionary with ``x``, ``edge_index`` and ``y``.
            stage: stage of the run; the result does not depend on it.
        """
        graphs, prompt, order = self.prompts(batch)
        target, known = self.targets(batch, len(graphs))
        target, known = target[order], known[order]
        vector, _ = graphs.encode(self.encoder, prompt)
        prediction, target = self.target_kind.align(self.head(vector), target, self.head)
        loss, size = self.target_kind.loss(prediction, target)
        before = self.graph_losses(graphs.encode(self.encoder)[0], target)
        decrease = torch.where(known, before - self.graph_losses(vector, target), 0)
        return PromptStep(
            loss, prediction, target, size, prompt=prompt, ptr=graphs.ptr, decrease=decrease, labelled=known
        )

    def record(self, stage: Literal["val", "test"], batch: object, step: Step) -> None:
        """Log loss, metrics, return and prompts of an evaluation batch.

        Args:
            stage: stage of the evaluation: ``val`` or ``test``.
            batch: batch that the step was computed from.
            step: result of :meth:`step` for the batch.
        """
        super().record(stage, batch, step)
        if not isinstance(step, PromptStep):
            return
        metrics = self._prompt_metrics[stage]
        if isinstance(metrics, MetricCollection):
            metrics.update(step.prompt, step.ptr)
            self.log_dict(metrics, on_step=False, on_epoch=True)
        count = step.labelled.sum()
        mean = step.decrease.sum() / count.clamp(min=1)
        self.log(f"{stage}/return", mean, batch_size=count, on_step=False, on_epoch=True)  # type: ignore[arg-type]

    def on_validation_epoch_start(self) -> None:
        """Reset the metrics."""
        super().on_validation_epoch_start()
        self._prompt_metrics["val"].reset()  # type: ignore[operator]

    def on_test_epoch_start(self) -> None:
        """Reset the metrics."""
        super().on_test_epoch_start()
        self._prompt_metrics["test"].reset()  # type: ignore[operator]


def _perceptron(in_channels: int, out_channels: int, num_layers: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(num_layers - 1):
        layers += [nn.Linear(in_channels, in_channels), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(in_channels, out_channels))
