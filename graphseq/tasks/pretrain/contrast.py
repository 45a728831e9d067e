"""Contrastive training: two random views of a graph have similar vectors, views of two graphs do not."""

from typing import Unpack

import torch
from torch import nn

from graphseq.nn import ContrastiveLoss, DropNodes, GrowSubgraph
from graphseq.ops import info_nce_loss, mutual_information_loss
from graphseq.tasks.base import Stage, Step, TaskOptions
from graphseq.tasks.pretrain.base import PretrainingTask

__all__ = ["GraphContrast", "Infomax"]


class GraphContrast(PretrainingTask):
    r"""Train an encoder so that two random views of a graph are closer to each other than to those of other graphs.

    .. math:: L = \mathrm{InfoNCE}\bigl(p(f(v_1(G))),\, p(f(v_2(G)))\bigr)

    with a projection head p, by default two linear layers, see :func:`graphseq.ops.info_nce_loss`.

    Procedure:
        1. two views of each graph of the batch, on the device; 2. encode, pool, project; 3. the loss above over the
        graphs of the batch; 4. one step of the optimiser.

    Logs:
        ``<stage>/loss``; ``<stage>/acc``, the share of graphs whose nearest second view is their own.

    Source: arXiv 2010.13902. Differs from it: see :func:`graphseq.ops.info_nce_loss` and the views.

    Args:
        model: encoder such as :class:`graphseq.models.GraphEncoder`.
        views: two modules that make the views; default ``DropNodes(0.2)`` and ``GrowSubgraph(0.8)``, which are
            recommended for molecules.
        temperature: temperature of the similarities of the default loss, above 0.
        projection: projection head, such as :class:`graphseq.nn.FixedReweightingHead`; None for two linear layers with
            a ReLU between them, as wide as a graph vector.
        loss: loss of the projections of two views, such as :class:`graphseq.nn.NTXentLoss`; None for InfoNCE.
        options: arguments of :class:`Task`.

    Raises:
        ValueError: if there are not two views, the loss reads labels or does not take two views, or the temperature is
            not above 0.

    Example:
        >>> from graphseq.models import GraphEncoder
        >>> edges, ptr = torch.tensor([[0, 2], [1, 3]]), torch.tensor([0, 2, 4])
        >>> graphs = {"x": torch.randn(4, 2), "edge_index": edges, "ptr": ptr}
        >>> GraphContrast(GraphEncoder(2, 8)).step(graphs).size
        2
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        views: list[nn.Module] | None = None,
        temperature: float = 0.1,
        projection: nn.Module | None = None,
        loss: ContrastiveLoss | None = None,
        **options: Unpack[TaskOptions],
    ) -> None:
        super().__init__(model, **options)
        chosen = [DropNodes(0.2), GrowSubgraph(0.8)] if views is None else views
        if len(chosen) != 2:
            raise ValueError(f"views has {len(chosen)} entries; give two modules, one for each view")
        if not temperature > 0:
            raise ValueError(f"temperature is {temperature}; it must be above 0")
        if loss is not None:
            loss.check_views(2)
            if loss.needs_labels:
                raise ValueError(
                    f"loss is {type(loss).__name__}, which reads labels; GraphContrast has none: give NTXentLoss or "
                    "None"
                )
        self.views = nn.ModuleList(chosen)
        self.temperature = temperature
        self.loss = loss
        width = self.encoder.graph_channels
        default = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
        self.projection = default if projection is None else projection

    def step(self, batch: object, stage: Stage = "train") -> Step:
        """Return the contrastive loss of the graphs of a batch.

        Args:
            batch: PyG graph or batch, or dictionary, with ``x`` and ``edge_index``.
            stage: stage of the run; views of validation and test are the same in each epoch.
        """
        view = self.embedded(batch)
        generator = self.generator(stage, view)
        first, second = (self.projection(make(view, generator).encode(self.encoder)[0]).float() for make in self.views)
        if self.loss is None:
            loss = info_nce_loss(first, second, self.temperature)
        else:
            loss = self.loss(torch.stack([first, second]))
        with torch.no_grad():
            similar = nn.functional.normalize(first, dim=1) @ nn.functional.normalize(second, dim=1).T
            own = similar.argmax(1) == torch.arange(len(first), device=first.device)
        return Step(loss, first, second, view.num_graphs, {"acc": own.float().mean()})


class Infomax(PretrainingTask):
    r"""Train an encoder so that the summary vector of a graph distinguishes its nodes from those of other graphs.

    .. math::
        L = -\frac{1}{N} \sum_i \bigl(\log \sigma(h_i^\top W s_{g(i)}) + \log \sigma(-h_i^\top W s_{g(i)+1})\bigr),
        \qquad s_g = \sigma\Bigl(\bigoplus_{i \in g} h_i\Bigr)

    The negative pair of a node is the summary of the next graph of the batch. A batch of one graph has none: its
    negative nodes are those of the graph with permuted features, as in arXiv 1809.10341.

    Procedure:
        1. encode; 2. the loss above; 3. one step of the optimiser.

    Logs:
        ``<stage>/loss``.

    Source: arXiv 1809.10341 (Deep Graph Infomax); for many graphs as arXiv 1905.12265 uses it as a baseline.

    Args:
        model: encoder such as :class:`graphseq.models.GraphEncoder`; its node and graph vectors are of one width.
        options: arguments of :class:`Task`.

    Raises:
        ValueError: if the widths of node and graph vectors differ.

    Example:
        >>> from graphseq.models import GraphEncoder
        >>> graph = {"x": torch.randn(3, 2), "edge_index": torch.tensor([[0, 1], [1, 0]])}
        >>> Infomax(GraphEncoder(2, 8)).step(graph).size
        3
    """

    def __init__(self, model: nn.Module, **options: Unpack[TaskOptions]) -> None:
        super().__init__(model, **options)
        node, graph = self.encoder.node_channels, self.encoder.graph_channels
        if node != graph:
            raise ValueError(f"model has node vectors of width {node} and graph vectors of width {graph}; equal ones "
                             "are needed")  # fmt: skip
        self.bilinear = nn.Linear(graph, node, bias=False)

    def step(self, batch: object, stage: Stage = "train") -> Step:
        """Return the loss of the nodes of a batch.

        Args:
            batch: PyG graph or batch, or dictionary, with ``x`` and ``edge_index``.
            stage: stage of the run; features of a single graph are permuted alike in each epoch of validation and test.
        """
        view = self.embedded(batch)
        graph, node = view.encode(self.encoder)
        summary = self.bilinear(graph.sigmoid())
        if view.num_graphs > 1:
            corrupted, other = node, summary.roll(1, 0)[view.batch]
        else:
            order = torch.rand(len(node), device=node.device, generator=self.generator(stage, view)).argsort()
            view.h = view.h[order]
            corrupted, other = view.encode(self.encoder)[1], summary[view.batch]
        loss = mutual_information_loss(node.float(), corrupted.float(), summary[view.batch].float(), other.float())
        return Step(loss, node, node, len(node))
