"""Attribute masking: the categories of masked nodes and edges are predicted from their surroundings."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Unpack

import torch
from torch import Tensor, nn

from graphseq.core.batches import batch_field
from graphseq.core.errors import DataError
from graphseq.nn import GraphView
from graphseq.ops import masked_cross_entropy, segment_smallest
from graphseq.tasks.base import Stage, Step, TaskOptions
from graphseq.tasks.pretrain.base import PretrainingTask

__all__ = ["AttributeMasking"]


class AttributeMasking(PretrainingTask):
    r"""Train an encoder to predict the categories of masked atoms and bonds.

    .. math:: L = \sum_c \mathrm{CE}_{i \in M}\bigl(W_c h_i,\, x_{ic}\bigr)
        + \sum_c \mathrm{CE}_{(u, v) \in M'}\bigl(V_c (h_u + h_v),\, e_{uvc}\bigr)

    Procedure:
        1. choose a share of the nodes of each graph, at least one; 2. replace their embedded features by a learned
        vector, and those of all edges that touch them by another; 3. encode; 4. predict the categories of the masked
        nodes, and of the masked edges from the sum of their ends; 5. one step of the optimiser.

    Logs:
        ``<stage>/loss``, ``<stage>/node_acc`` and, with edges, ``<stage>/edge_acc``: accuracy of the first column.

    Source: arXiv 1905.12265, section 3.2.1. Differs from its released code: the mask is a learned vector behind the
    input layer, so that the encoder needs no category for it.

    Args:
        model: encoder with ``node_categories``, such as :class:`graphseq.models.GraphEncoder`.
        node_categories: number of categories of each column of ``x``; data modules of molecules link it.
        edge_categories: number of categories of each column of ``edge_attr``; None if edges have no categories.
        node_columns: columns of ``x`` that are predicted; as published the first one, the type of the atom.
        edge_columns: columns of ``edge_attr`` that are predicted; an empty list leaves edges unmasked.
        mask_share: share p of the nodes of each graph that are masked, in (0, 1]; of n nodes
            :math:`\lfloor p n \rfloor + 1` are masked, as published.
        options: arguments of :class:`Task`.

    Raises:
        ValueError: if an argument is out of range.
        DataError: in a step, if ``x`` or ``edge_attr`` does not hold integer categories, or, on the CPU, if a category
            is out of range.

    Example:
        >>> from graphseq.models import GraphEncoder
        >>> task = AttributeMasking(GraphEncoder(1, 8, node_categories=[5]), node_categories=[5])
        >>> graph = {"x": torch.tensor([[4], [0], [1]]), "edge_index": torch.tensor([[0, 1], [1, 0]])}
        >>> task.step(graph).loss.dim()
        0
    """

    def __init__(
        self,
        model: nn.Module,
        node_categories: list[int],
        edge_categories: list[int] | None = None,
        *,
        node_columns: Sequence[int] = (0,),
        edge_columns: Sequence[int] = (0,),
        mask_share: float = 0.15,
        **options: Unpack[TaskOptions],
    ) -> None:
        super().__init__(model, **options)
        if not 0 < mask_share <= 1:
            raise ValueError(f"mask_share is {mask_share}; it must be in (0, 1]")
        self.mask_share = mask_share
        self.node_columns = _columns("node_columns", node_columns, node_categories)
        self.edge_columns = _columns("edge_columns", edge_columns, edge_categories) if edge_categories else []
        if not self.node_columns:
            raise ValueError("node_columns is empty; give at least one column to predict")
        width = self.encoder.node_channels
        self.node_counts = [node_categories[column] for column in self.node_columns]
        self.edge_counts = [(edge_categories or [])[column] for column in self.edge_columns]
        self.node_heads = nn.ModuleList(nn.Linear(width, count) for count in self.node_counts)
        self.edge_heads = nn.ModuleList(nn.Linear(width, count) for count in self.edge_counts)
        self.node_mask = nn.Parameter(torch.empty(self.encoder.prompt_channels).normal_(std=0.1))
        self.edge_mask: nn.Parameter | None = None
        if self.edge_columns:
            self.edge_mask = nn.Parameter(torch.empty(_edge_width(model)).normal_(std=0.1))

    def masked(self, view: GraphView, chosen: Tensor) -> tuple[GraphView, Tensor]:
        """Return the graphs with masked features, and whether an edge is masked.

        Args:
            view: graphs with embedded features.
            chosen: whether a node is masked.
        """
        touched = chosen[view.edge_index[0]] | chosen[view.edge_index[1]]
        edge = view.edge
        if edge is not None and self.edge_mask is not None:
            edge = torch.where(touched[:, None], self.edge_mask.to(edge.dtype), edge)
        h = torch.where(chosen[:, None], self.node_mask.to(view.h.dtype), view.h)
        return replace(view, h=h, edge=edge), touched

    def step(self, batch: object, stage: Stage = "train") -> Step:
        """Return the loss of the masked nodes and edges of a batch.

        Args:
            batch: PyG graph or batch, or dictionary, with integer ``x``.
            stage: stage of the run; validation and test mask the same nodes in each epoch.
        """
        x = _categories(batch, "x")
        _check_range("x", x, self.node_columns, self.node_counts)
        view = self.embedded(batch)
        counts = (view.ptr.diff() * self.mask_share + 1e-4).long() + 1
        scores = torch.rand(view.batch.shape, device=x.device, generator=self.generator(stage, view))
        chosen = segment_smallest(scores, counts, view.ptr)
        view, touched = self.masked(view, chosen)
        node = view.encode(self.encoder)[1]
        logits = [head(node).float() for head in self.node_heads]
        losses = [
            masked_cross_entropy(row, x[:, column], chosen)
            for row, column in zip(logits, self.node_columns, strict=True)
        ]
        logged = {"node_acc": _accuracy(logits[0], x[:, self.node_columns[0]], chosen)}
        if self.edge_columns:
            edge_attr = _categories(batch, "edge_attr")
            _check_range("edge_attr", edge_attr, self.edge_columns, self.edge_counts)
            both = node[view.edge_index[0]] + node[view.edge_index[1]]
            of_edges = [head(both).float() for head in self.edge_heads]
            losses += [
                masked_cross_entropy(row, edge_attr[:, column], touched)
                for row, column in zip(of_edges, self.edge_columns, strict=True)
            ]
            logged["edge_acc"] = _accuracy(of_edges[0], edge_attr[:, self.edge_columns[0]], touched)
        loss = torch.stack(losses).sum()
        return Step(loss, logits[0], x[:, self.node_columns[0]], chosen.sum(), logged)


def _columns(name: str, columns: Sequence[int], categories: list[int] | None) -> list[int]:
    known = len(categories or [])
    for column in columns:
        if not 0 <= column < known:
            raise ValueError(f"{name} holds {column}; there are {known} columns of categories, from 0")
    return list(columns)


def _categories(batch: object, name: str) -> Tensor:
    value = batch_field(batch, name)
    if not isinstance(value, Tensor) or value.is_floating_point():
        given = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise DataError(
            f"{name} is {given}; attribute masking predicts integer categories. For real features use EdgePrediction, "
            "GraphContrast or Infomax"
        )
    return value[:, None] if value.dim() == 1 else value


def _check_range(name: str, value: Tensor, columns: list[int], counts: list[int]) -> None:
    if value.device.type != "cpu" or not len(value):  # elsewhere the check would synchronise
        return
    for column, count in zip(columns, counts, strict=True):
        low, high = (int(bound) for bound in value[:, column].aminmax())
        if not 0 <= low <= high < count:
            argument = "node_categories" if name == "x" else "edge_categories"
            raise DataError(
                f"column {column} of {name} ranges from {low} to {high}; with {argument}[{column}]={count} it must be "
                f"in 0..{count - 1}"
            )


def _accuracy(logits: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    return ((logits.argmax(1) == target) & mask).sum() / mask.sum().clamp(min=1)


def _edge_width(model: nn.Module) -> int:
    width = getattr(model, "edge_channels", None)  # of GraphEncoder; prompts do not ask for it
    if not isinstance(width, int):
        raise ValueError(
            f"edge_columns are given and the {type(model).__name__} takes no edge features; give it edge_categories, "
            "or no edge_columns"
        )
    return width
