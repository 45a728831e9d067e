"""Classification of the nodes of a graph."""

from typing import Any, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import nn
from torch.nn import functional
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from graphseq.core.batches import batch_target
from graphseq.core.errors import DataError
from graphseq.tasks.base import Step, Task
from graphseq.tasks.supervised.classification import class_logits, multiclass_target

__all__ = ["NodeClassification"]


class NodeClassification(Task):
    r"""Minimise the cross-entropy over the labelled nodes of a graph.

    .. math:: L = -\frac{1}{|M|} \sum_{v \in M} \log \operatorname{softmax}(f(G)_v)_{y_v}

    with M the nodes of the running stage: ``train_mask``, ``val_mask`` or ``test_mask`` where the batch has them, else
    all nodes (inductive data sets); of a batch of PyG's ``NeighborLoader`` only its seeds, the first ``batch_size``.

    Procedure:
        1. logits (N, K) of the whole graph; 2. cross-entropy over M; 3. one step of the optimiser.

    Logs:
        ``<stage>/loss``, ``val/acc``, ``val/f1`` (macro) and the same for test.

    Args:
        model: network whose output is one row of logits a node; any PyG network fits.
        num_outputs: number of classes, at least 2.
        optimizer: see :class:`Task`.
        scheduler: see :class:`Task`.
        scheduler_interval: see :class:`Task`.
        stop_on_nonfinite: see :class:`Task`.

    Raises:
        ValueError: if ``num_outputs`` is below 2; in a step, if the network's width is another.
        DataError: in a step, if labels are not integers in range, a mask is not (N,) and boolean, or no node belongs
            to the stage.

    Example:
        >>> from torch_geometric.data import Data
        >>> from torch_geometric.nn import GCN
        >>> graph = Data(x=torch.ones(3, 2), edge_index=torch.tensor([[0, 1], [1, 2]]), y=torch.tensor([0, 1, 0]))
        >>> graph.train_mask = torch.tensor([True, True, False])
        >>> NodeClassification(GCN(2, 4, 2, 2), num_outputs=2).step(graph).size
        2
    """

    def __init__(
        self,
        model: nn.Module,
        num_outputs: int,
        *,
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
        if num_outputs < 2:
            raise ValueError(f"num_outputs is {num_outputs}; node classification needs at least 2 classes")
        self.num_outputs = num_outputs

    def configure_metrics(self) -> MetricCollection:
        """Return accuracy and macro F1."""
        return MetricCollection(
            {
                "acc": MulticlassAccuracy(self.num_outputs, average="micro"),
                "f1": MulticlassF1Score(self.num_outputs, average="macro"),
            }
        )

    def step(self, batch: Any) -> Step:
        """Return the cross-entropy over the nodes of the running stage.

        Args:
            batch: a PyG graph or batch, or a dictionary, with ``y``.
        """
        logits = class_logits(self(batch), self.model, self.num_outputs)
        target = batch_target(batch)
        if len(target) != len(logits):
            raise DataError(f"labels are {tuple(target.shape)} for {len(logits)} nodes; give one label a node")
        mask, seeds = _field(batch, f"{self.stage}_mask"), _field(batch, "batch_size")
        if mask is not None and (mask.dtype != torch.bool or mask.shape != (len(logits),)):
            raise DataError(
                f"{self.stage}_mask is {mask.dtype} {tuple(mask.shape)}; "
                f"choose one split: a boolean mask of shape ({len(logits)},)"
            )
        if isinstance(seeds, int) and _field(batch, "input_id") is not None:
            # of the other nodes a part of the neighbours is missing, and other batches count them again
            logits, target = logits[:seeds], target[:seeds]
            mask = None if mask is None else mask[:seeds]
        if mask is not None:
            logits, target = logits[mask], target[mask]
        if len(target) == 0:
            raise DataError(
                f"no node belongs to the {self.stage} split; check {self.stage}_mask, and of a NeighborLoader that "
                f"input_nodes is that mask"
            )
        target = multiclass_target(target, len(logits), self.num_outputs)
        return Step(functional.cross_entropy(logits, target), logits, target, len(target))


def _field(batch: Any, name: str) -> Any:
    return batch.get(name) if isinstance(batch, dict) else getattr(batch, name, None)
