"""Graphs of one batch behind the input layer of a frozen encoder, where prompts are added."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from graphseq.core import DataError, PromptableEncoder, batch_field
from graphseq.ops import segment_rows

__all__ = ["EmbeddedGraphs"]


@dataclass
class EmbeddedGraphs:
    """Packed graphs whose features an encoder has embedded, with their sizes known to the host.

    Edges are sorted by graph, so that the first graphs of a batch are slices of all tensors, without a copy and without
    a synchronisation.

    Args:
        h: embedded node features, (N, D).
        edge_index: edges from row 0 to row 1, int64 (2, E).
        edge: embedded edge features, (E, D'); None if the encoder takes none.
        batch: graph of each node, int64 (N,).
        ptr: first node of each graph and, last, the number of nodes, int64 (G+1,).
        edge_ptr: first edge of each graph and, last, the number of edges, int64 (G+1,).
        num_nodes: number of nodes of each graph on the host, int64 (G,).
        num_edges: number of edges of each graph on the host, int64 (G,).

    Example:
        >>> from graphseq.models import GraphEncoder
        >>> batch = {"x": torch.ones(3, 2), "edge_index": torch.tensor([[0], [1]]), "ptr": torch.tensor([0, 2, 3])}
        >>> graphs = EmbeddedGraphs.from_batch(GraphEncoder(2), batch)
        >>> graphs.num_nodes.tolist(), graphs.select(torch.tensor([1])).h.shape
        ([2, 1], torch.Size([1, 2]))
    """

    h: Tensor
    edge_index: Tensor
    edge: Tensor | None
    batch: Tensor
    ptr: Tensor
    edge_ptr: Tensor
    num_nodes: np.ndarray
    num_edges: np.ndarray

    @classmethod
    def from_batch(cls, encoder: PromptableEncoder, batch: Any) -> Self:
        """Embed the features of a batch.

        Args:
            encoder: encoder whose ``embed`` is called, without a gradient.
            batch: PyG batch or dictionary with ``x``, ``edge_index`` and, for several graphs, ``ptr`` or ``batch``.

        Raises:
            DataError: if the batch has no nodes or edges, or its features do not fit the encoder.
        """
        x, edge_index, ptr = (batch_field(batch, name) for name in ("x", "edge_index", "ptr"))
        if not isinstance(x, Tensor) or not isinstance(edge_index, Tensor):
            raise DataError(f"a {type(batch).__name__} without x or edge_index was given; prompts need graphs")
        with torch.no_grad():
            h, edge = encoder.embed(x, batch_field(batch, "edge_attr"))
        graph = batch_field(batch, "batch")
        if ptr is None:
            if graph is None:
                graph = torch.zeros(len(x), dtype=torch.int64, device=x.device)
            if len(graph) and bool((graph[1:] < graph[:-1]).any()):
                raise DataError("the nodes of a graph do not follow one another; sort the batch, or use a PyG Batch")
            ptr = functional.pad(torch.bincount(graph).cumsum(0), (1, 0))
        elif graph is None:
            graph = torch.arange(len(ptr) - 1, device=x.device).repeat_interleave(ptr.diff(), output_size=len(x))
        of_edge = graph[edge_index[0]]
        order = of_edge.argsort(stable=True)
        counts = torch.zeros_like(ptr[1:]).scatter_add_(0, of_edge, torch.ones_like(of_edge))
        num_nodes, num_edges = torch.stack([ptr.diff(), counts]).cpu().numpy()  # the only wait for an accelerator
        return cls(
            h=h,
            edge_index=edge_index[:, order],
            edge=None if edge is None else edge[order],
            batch=graph,
            ptr=ptr,
            edge_ptr=functional.pad(counts.cumsum(0), (1, 0)),
            num_nodes=num_nodes,
            num_edges=num_edges,
        )

    def __len__(self) -> int:
        return len(self.num_nodes)

    def by_size(self) -> Tensor:
        """Return the numbers of the graphs from the largest to the smallest, on the host."""
        return torch.from_numpy(np.argsort(-self.num_nodes, kind="stable"))

    def select(self, chosen: Tensor) -> Self:
        """Return some graphs, packed in the order given.

        Args:
            chosen: numbers of graphs, int64 (K,), on the host.
        """
        nodes, edges = self.num_nodes[chosen.numpy()], self.num_edges[chosen.numpy()]
        index = chosen.to(self.h.device)
        rows, ptr = segment_rows(self.ptr, index, int(nodes.sum()))
        edge_rows, edge_ptr = segment_rows(self.edge_ptr, index, int(edges.sum()))
        shift = (self.ptr[index] - ptr[:-1]).repeat_interleave(edge_ptr.diff(), output_size=len(edge_rows))
        places = torch.arange(len(chosen), device=self.h.device)
        return type(self)(
            h=self.h[rows],
            edge_index=self.edge_index[:, edge_rows] - shift,
            edge=None if self.edge is None else self.edge[edge_rows],
            batch=places.repeat_interleave(ptr.diff(), output_size=len(rows)),
            ptr=ptr,
            edge_ptr=edge_ptr,
            num_nodes=nodes,
            num_edges=edges,
        )

    def first(self, count: int) -> Self:
        """Return the first graphs, as views.

        Args:
            count: number of graphs.
        """
        nodes, edges = int(self.num_nodes[:count].sum()), int(self.num_edges[:count].sum())
        return type(self)(
            h=self.h[:nodes],
            edge_index=self.edge_index[:, :edges],
            edge=None if self.edge is None else self.edge[:edges],
            batch=self.batch[:nodes],
            ptr=self.ptr[: count + 1],
            edge_ptr=self.edge_ptr[: count + 1],
            num_nodes=self.num_nodes[:count],
            num_edges=self.num_edges[:count],
        )

    def encode(self, encoder: PromptableEncoder, prompt: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return graph vectors (G, graph_channels) and node vectors (N, node_channels).

        Args:
            encoder: encoder that embedded the features.
            prompt: prompt of each node, (N, D); None for none.
        """
        h = self.h if prompt is None else self.h + prompt.to(self.h.dtype)
        return encoder.encode_embedded(h, self.edge_index, self.batch, self.edge, self.ptr)
