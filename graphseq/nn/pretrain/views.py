"""Random views of packed graphs behind the input layer of an encoder, for contrastive training."""

from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from graphseq.core import DataError, PromptableEncoder, Recorded, batch_field
from graphseq.ops import growth_times, random_edges, segment_smallest
from graphseq.ops.graphs.graph_views import mask_positions

__all__ = ["DropEdges", "DropNodes", "GraphView", "GrowSubgraph", "MaskFeatures", "RandomChoice"]


@dataclass
class GraphView:
    """Packed graphs with embedded features.

    Args:
        h: embedded node features, (N, D).
        edge_index: edges from row 0 to row 1, int64 (2, E).
        edge: embedded edge features, (E, D'); None if the encoder takes none.
        batch: graph of each node, sorted, int64 (N,).
        ptr: first node of each graph and, last, the number of nodes, int64 (G+1,).

    Example:
        >>> from graphseq.models import GraphEncoder
        >>> graph = {"x": torch.ones(3, 2), "edge_index": torch.tensor([[0], [1]])}
        >>> view = GraphView.from_batch(GraphEncoder(2), graph)
        >>> view.h.shape, view.ptr.tolist()
        (torch.Size([3, 2]), [0, 3])
    """

    h: Tensor
    edge_index: Tensor
    edge: Tensor | None
    batch: Tensor
    ptr: Tensor

    @classmethod
    def from_batch(cls, encoder: PromptableEncoder, batch: Any) -> Self:
        """Embed the features of a batch, with a gradient.

        Args:
            encoder: encoder whose ``embed`` is called.
            batch: PyG graph or batch, or dictionary, with ``x``, ``edge_index`` and, for several graphs, ``ptr`` or
                ``batch``.

        Raises:
            DataError: if the batch has no nodes or edges, or nodes are not sorted by graph.
        """
        x, edge_index = batch_field(batch, "x"), batch_field(batch, "edge_index")
        if not isinstance(x, Tensor) or not isinstance(edge_index, Tensor):
            raise DataError(f"a {type(batch).__name__} without x or edge_index was given; graphs are needed")
        h, edge = encoder.embed(x, batch_field(batch, "edge_attr"))
        graph, ptr = batch_field(batch, "batch"), batch_field(batch, "ptr")
        if ptr is None and graph is None:
            graph, ptr = x.new_zeros(len(x), dtype=torch.int64), torch.tensor([0, len(x)], device=x.device)
        elif ptr is None:
            if bool((graph[1:] < graph[:-1]).any()):
                raise DataError("the nodes of a graph do not follow one another; sort the batch, or use a PyG Batch")
            ptr = functional.pad(torch.bincount(graph).cumsum(0), (1, 0))
        elif graph is None:
            graph = torch.arange(len(ptr) - 1, device=x.device).repeat_interleave(ptr.diff(), output_size=len(x))
        return cls(h, edge_index, edge, graph, ptr)

    @property
    def num_graphs(self) -> int:
        """Number of graphs."""
        return len(self.ptr) - 1

    def encode(self, encoder: PromptableEncoder) -> tuple[Tensor, Tensor]:
        """Return graph vectors (G, graph_channels) and node vectors (N, node_channels).

        Args:
            encoder: encoder that embedded the features.
        """
        return encoder.encode_embedded(self.h, self.edge_index, self.batch, self.edge, self.ptr)

    def with_nodes(self, kept: Tensor) -> Self:
        """Return the graphs with some of their nodes and the edges between these.

        Args:
            kept: whether a node is kept, bool (N,).
        """
        inside = kept[self.edge_index[0]] & kept[self.edge_index[1]]
        num_nodes, num_edges = torch.stack([kept.sum(), inside.sum()]).tolist()  # the only wait for an accelerator
        nodes, edges = mask_positions(kept, num_nodes), mask_positions(inside, num_edges)
        before = functional.pad(kept.cumsum(0), (1, 0))  # (N+1,): number of kept nodes before each
        return replace(
            self,
            h=self.h[nodes],
            edge_index=before[self.edge_index[:, edges]],
            edge=None if self.edge is None else self.edge[edges],
            batch=self.batch[nodes],
            ptr=before[self.ptr],
        )

    def with_edges(self, kept: Tensor) -> Self:
        """Return the graphs with all nodes and some of their edges.

        Args:
            kept: whether an edge is kept, bool (E,).
        """
        edges = mask_positions(kept, int(kept.sum()))  # the only wait for an accelerator
        edge = None if self.edge is None else self.edge[edges]
        return replace(self, edge_index=self.edge_index[:, edges], edge=edge)


def _floor(sizes: Tensor, share: float) -> Tensor:
    return (sizes * share + 1e-4).long()  # so that 0.2 of 5 is 1


class _View(Recorded, nn.Module):
    """Base of views with one share."""

    def __init__(self, share: float) -> None:
        super().__init__()
        if not 0 <= share <= 1:
            raise ValueError(f"{type(self).__name__}(share={share}): give a share in [0, 1]")
        self.share = share

    def extra_repr(self) -> str:
        """Return the arguments, for ``repr``."""
        return f"share={self.share}"


class DropNodes(_View):
    """Leave out a share of the nodes of each graph, rounded down, and their edges; one node of each graph stays.

    Source: arXiv 2010.13902, table 1. Sizes are read from the device, one synchronisation.

    Args:
        share: share of the nodes to leave out, in [0, 1].

    Shape:
        GraphView of N nodes -> GraphView of fewer

    Raises:
        ValueError: if ``share`` is out of range.

    Example:
        >>> batch, ptr = torch.zeros(4, dtype=torch.int64), torch.tensor([0, 4])
        >>> view = GraphView(torch.ones(4, 2), torch.tensor([[0], [1]]), None, batch, ptr)
        >>> DropNodes(0.5)(view).h.shape
        torch.Size([2, 2])
    """

    def forward(self, view: GraphView, generator: Generator | None = None) -> GraphView:
        """Return another view.

        Args:
            view: packed graphs.
            generator: random number generator of their device; None for torch's own.
        """
        sizes = view.ptr.diff()
        kept = (sizes - _floor(sizes, self.share)).clamp(min=1)
        scores = torch.rand(view.batch.shape, device=view.batch.device, generator=generator)
        return view.with_nodes(segment_smallest(scores, kept, view.ptr))


class DropEdges(_View):
    """Leave out edges at random, both directions of a pair together.

    Source: arXiv 2010.13902, table 1. Differs from it: no edges are added. The number of edges is read from the
    device, one synchronisation.

    Args:
        share: probability that the edges of a pair of nodes are left out, in [0, 1].

    Shape:
        GraphView of E edges -> GraphView of fewer

    Raises:
        ValueError: if ``share`` is out of range.

    Example:
        >>> batch, ptr = torch.zeros(2, dtype=torch.int64), torch.tensor([0, 2])
        >>> view = GraphView(torch.ones(2, 2), torch.tensor([[0], [1]]), None, batch, ptr)
        >>> DropEdges(1.0)(view).edge_index.shape
        torch.Size([2, 0])
    """

    def forward(self, view: GraphView, generator: Generator | None = None) -> GraphView:
        """Return another view.

        Args:
            view: packed graphs.
            generator: random number generator of their device; None for torch's own.
        """
        return view.with_edges(~random_edges(view.edge_index, self.share, generator))


class MaskFeatures(_View):
    """Set the embedded features of a share of the nodes of each graph, rounded down, to zero.

    Source: arXiv 2010.13902, table 1. Differs from it: the embedding is masked and not the input, so that categories
    need no value of their own for it.

    Args:
        share: share of the nodes to mask, in [0, 1].

    Shape:
        GraphView -> GraphView of the same size

    Raises:
        ValueError: if ``share`` is out of range.

    Example:
        >>> batch, ptr = torch.zeros(4, dtype=torch.int64), torch.tensor([0, 4])
        >>> view = GraphView(torch.ones(4, 1), torch.tensor([[0], [1]]), None, batch, ptr)
        >>> MaskFeatures(0.5)(view).h.sum()
        tensor(2.)
    """

    def forward(self, view: GraphView, generator: Generator | None = None) -> GraphView:
        """Return another view.

        Args:
            view: packed graphs.
            generator: random number generator of their device; None for torch's own.
        """
        scores = torch.rand(view.batch.shape, device=view.batch.device, generator=generator)
        masked = segment_smallest(scores, _floor(view.ptr.diff(), self.share), view.ptr)
        return replace(view, h=torch.where(masked[:, None], 0, view.h))


class GrowSubgraph(_View):
    """Keep a subgraph of each graph that grows from a random node, each time by a random neighbour.

    Source: arXiv 2010.13902, table 1. Nodes that cannot be reached are taken last, so that the size is always that
    share. Sizes are read from the device, one synchronisation.

    Args:
        share: share of the nodes to keep, in [0, 1], rounded up to at least one node of each graph.
        num_hops: longest path from the start that is followed, at least 0.

    Shape:
        GraphView of N nodes -> GraphView of fewer

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> batch, ptr = torch.zeros(4, dtype=torch.int64), torch.tensor([0, 4])
        >>> view = GraphView(torch.ones(4, 2), torch.tensor([[0], [1]]), None, batch, ptr)
        >>> GrowSubgraph(0.5)(view).h.shape
        torch.Size([2, 2])
    """

    def __init__(self, share: float = 0.8, num_hops: int = 16) -> None:
        super().__init__(share)
        if num_hops < 0:
            raise ValueError(f"GrowSubgraph(num_hops={num_hops}): give at least 0")
        self.num_hops = num_hops

    def forward(self, view: GraphView, generator: Generator | None = None) -> GraphView:
        """Return another view.

        Args:
            view: packed graphs.
            generator: random number generator of their device; None for torch's own.
        """
        times = growth_times(view.edge_index, view.batch, view.ptr, self.num_hops, generator)
        sizes = view.ptr.diff()
        kept = (sizes - _floor(sizes, 1 - self.share)).clamp(min=1)
        return view.with_nodes(segment_smallest(times, kept, view.ptr))


class RandomChoice(Recorded, nn.Module):
    """Apply one of several views, chosen anew for each batch; with a generator of an accelerator, one synchronisation.

    Args:
        views: modules to choose from, at least one, such as :class:`DropNodes`; ``torch.nn.Identity`` is not a view.

    Shape:
        GraphView -> GraphView

    Raises:
        ValueError: if there is no view.

    Example:
        >>> RandomChoice([DropNodes(0.2), DropEdges(0.2)]).views[0]
        DropNodes(share=0.2)
    """

    def __init__(self, views: list[nn.Module]) -> None:
        super().__init__()
        if not views:
            raise ValueError("views is empty; give at least one")
        self.views = nn.ModuleList(views)

    def forward(self, view: GraphView, generator: Generator | None = None) -> GraphView:
        """Return another view.

        Args:
            view: packed graphs.
            generator: random number generator of their device; None for torch's own.
        """
        device = "cpu" if generator is None else generator.device
        number = int(torch.randint(len(self.views), (), device=device, generator=generator))
        chosen: GraphView = self.views[number](view, generator)
        return chosen
