"""Classification of the nodes of a graph."""

from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection

from graphseq.core.batches import batch_field, batch_target
from graphseq.core.errors import DataError
from graphseq.tasks.base import Stage, Step, Task, TaskOptions
from graphseq.tasks.objectives.classes import Classes
from graphseq.tasks.objectives.objective import class_logits
from graphseq.tasks.predictions import PredictionRows, known_target

__all__ = ["NodeClassification"]


class NodeClassification(Task[object]):
    r"""Minimise the cross-entropy over the labelled nodes of a graph.

    .. math:: L = -\frac{1}{|M|} \sum_{v \in M} \log \operatorname{softmax}(f(G)_v)_{y_v}

    with M the nodes of the running stage: ``train_mask``, ``val_mask`` or ``test_mask`` where the batch has them, else
    all nodes (inductive data sets); of a batch of PyG's ``NeighborLoader`` only its seeds, the first ``batch_size``.

    Procedure:
        1. logits (N, K) of the whole graph; 2. cross-entropy over M; 3. one step of the optimiser.

    Logs:
        ``<stage>/loss``, ``val/acc``, ``val/f1`` (macro) and the same for test.

    Args:
        model: network whose output is one row of logits for each node, such as any PyG network.
        num_outputs: number of classes, at least 2.
        options: arguments of :class:`Task`.

    Raises:
        ValueError: if ``num_outputs`` is below 2; in a step, if the network's width is another.
        DataError: in a step, if labels are not integers in range, a mask is not (N,) and boolean, or no node belongs
            to the stage.

    Example:
        >>> from torch_geometric.data import Data
        >>> from torch_geometric.nn import GCN
        >>> graph = Data(x=torch.ones(3, 2), edge_index=torch.tensor([[0, 1], [1, 2]]), y=torch.tensor([0, 1, 0]))
        >>> graph.train_mask = torch.tensor([True, True, False])
        >>> NodeClassification(GCN(2, 4, 2, 2), num_outputs=2).step(graph, "train").size
        2
    """

    def __init__(self, model: nn.Module, num_outputs: int, **options: Unpack[TaskOptions]) -> None:
        super().__init__(model, **options)
        self.num_outputs = num_outputs
        self.target_kind = Classes(num_outputs)

    def configure_metrics(self) -> MetricCollection:
        """Return accuracy and macro F1."""
        return self.target_kind.metrics()

    def step(self, batch: object, stage: Stage = "train") -> Step:
        """Return the cross-entropy over the nodes of a stage.

        Args:
            batch: a PyG graph or batch, or a dictionary, with ``y``.
            stage: stage of the run, whose mask selects the nodes.
        """
        logits, target = class_logits(self(batch), self.model, self.num_outputs), batch_target(batch)
        if len(target) != len(logits):
            raise DataError(f"labels are {tuple(target.shape)} for {len(logits)} nodes; give one label for each node")
        mask, seeds = batch_field(batch, f"{stage}_mask"), batch_field(batch, "batch_size")
        if mask is not None and (
            not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape != (len(logits),)
        ):
            given = f"{mask.dtype} {tuple(mask.shape)}" if isinstance(mask, Tensor) else f"a {type(mask).__name__}"
            raise DataError(f"{stage}_mask is {given}; choose one split: a boolean mask of shape ({len(logits)},)")
        if isinstance(seeds, int) and batch_field(batch, "input_id") is not None:
            # the neighbourhoods of the other nodes are incomplete, and other batches count them again
            logits, target = logits[:seeds], target[:seeds]
            mask = None if mask is None else mask[:seeds]
        if mask is not None:
            logits, target = logits[mask], target[mask]
        if len(target) == 0:
            raise DataError(
                f"no node belongs to the {stage} split; check {stage}_mask, and of a NeighborLoader that "
                f"input_nodes is that mask"
            )
        return self.target_kind.step(logits, target, self.model)

    def prediction_rows(self, batch: Any, output: Tensor, split: str, data: object = None) -> PredictionRows:
        """Return one row for each node of a split; of a set of graphs, with the number of the node in its graph.

        Args:
            batch: a PyG graph or batch, or a dictionary, with or without ``y``.
            output: logits of all nodes (N, K).
            split: name of the split, whose mask selects the nodes; all nodes if there is no mask.
            data: data module, which may know the names of the classes.
        """
        number, y = torch.arange(len(output), device=output.device), known_target(batch)
        mask, seeds = batch_field(batch, f"{split}_mask"), batch_field(batch, "batch_size")
        nodes = number if mask is None else mask.nonzero().flatten()
        of_loader = isinstance(seeds, int) and batch_field(batch, "input_id") is not None
        if of_loader:
            nodes = nodes[nodes < seeds]
        target = None if y is None or len(y) != len(output) else y[nodes]
        columns = self.target_kind.columns(output[nodes], target, self.model, data)
        graph, ptr = batch_field(batch, "batch"), batch_field(batch, "ptr")
        if not of_loader and isinstance(graph, Tensor) and isinstance(ptr, Tensor):
            return PredictionRows({"node": (number - ptr[graph])[nodes], **columns}, sample=graph[nodes])
        names = batch_field(batch, "n_id")
        return PredictionRows(columns, ids=nodes if names is None else names[nodes], count=1)
