"""Which tokens belong to one sample: steps of padded sequences, or nodes of a batch of graphs."""

import functools
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from graphseq.core.batches import step_mask
from graphseq.nn.causal import checked_lengths
from graphseq.nn.graph.pooling import graph_index
from graphseq.ops import segment_mean

__all__ = ["GraphTokens", "SequenceTokens"]


class Tokens(Protocol):
    """Tokens of a batch of samples, whose features are in the layout of a backbone."""

    def mean(self, x: Tensor) -> Tensor:
        """Return the mean over the tokens of each sample, (B, D)."""

    def spread(self, values: Tensor) -> Tensor:
        """Return one value for each sample, (B,), in a shape that multiplies the features of its tokens."""

    def padded(self, x: Tensor) -> Tensor:
        """Return the features as (B, T, D), 0 where there is no token."""

    def unpadded(self, x: Tensor) -> Tensor:
        """Return features (B, T, D) in the layout of the backbone."""


@dataclass(frozen=True)
class SequenceTokens:
    """Steps of sequences that are padded to equal length, features (B, T, D).

    Args:
        lengths: number of steps of each sequence, int64 (B,); None if all have T.

    Raises:
        ValueError: in the methods, if features are not (B, T, D), or a length is not in 0..T.

    Example:
        >>> SequenceTokens(torch.tensor([1])).mean(torch.tensor([[[2.0], [9.0]]]))
        tensor([[2.]])
    """

    lengths: Tensor | None = None

    def _inside(self, x: Tensor) -> Tensor:
        assert self.lengths is not None  # of the callers
        checked_lengths(self.lengths, len(x), x.shape[1], "lengths")
        return step_mask(self.lengths.to(x.device), x.shape[1])[..., None]  # (B, T, 1)

    def mean(self, x: Tensor) -> Tensor:
        """Return the mean over the steps of each sequence, (B, D); 0 for one without steps.

        Args:
            x: features (B, T, D).
        """
        if x.dim() != 3:
            raise ValueError(
                f"features are {tuple(x.shape)}; those of sequences are (B, T, D): give GraphTokens for nodes (N, D)"
            )
        if self.lengths is None:
            return x.mean(1)
        return self.padded(x).sum(1) / self.lengths.to(x.device).clamp(min=1)[:, None]

    def spread(self, values: Tensor) -> Tensor:
        """Return one value for each sequence as (B, 1, 1).

        Args:
            values: values (B,).
        """
        return values[:, None, None]

    def padded(self, x: Tensor) -> Tensor:
        """Return the features with 0 at padding.

        Args:
            x: features (B, T, D).
        """
        return x if self.lengths is None else x.masked_fill(~self._inside(x), 0)

    def unpadded(self, x: Tensor) -> Tensor:
        """Return the features unchanged.

        Args:
            x: features (B, T, D).
        """
        return x


@dataclass(frozen=True)
class GraphTokens:
    """Nodes of a batch of graphs, features (N, D).

    Args:
        edge_index: edges from row 0 to row 1, int64 (2, E).
        batch: graph of each node, int64 (N,).
        num_graphs: number G of graphs.
        ptr: first node of each graph and, last, the number of nodes, int64 (G+1,); None for nodes in any order.

    Example:
        >>> tokens = GraphTokens.of(3, torch.tensor([[0], [1]]), torch.tensor([0, 0, 1]))
        >>> tokens.mean(torch.tensor([[1.0], [3.0], [5.0]]))
        tensor([[2.],
                [5.]])
    """

    edge_index: Tensor
    batch: Tensor
    num_graphs: int
    ptr: Tensor | None = None

    @classmethod
    def of(
        cls, num_nodes: int, edge_index: Tensor, batch: Tensor | None = None, ptr: Tensor | None = None
    ) -> "GraphTokens":
        """Return the tokens of the graphs that ``batch`` or ``ptr`` describes; without both all nodes are one graph.

        Args:
            num_nodes: number N of nodes.
            edge_index: edges from row 0 to row 1, int64 (2, E).
            batch: graph of each node, int64 (N,); alone, it is read for the number of graphs, which synchronises on an
                accelerator.
            ptr: first node of each graph and, last, the number of nodes, int64 (G+1,).
        """
        return cls(edge_index, *graph_index(num_nodes, batch, ptr, edge_index.device), ptr)

    def mean(self, x: Tensor) -> Tensor:
        """Return the mean over the nodes of each graph, (G, D); 0 for one without nodes.

        Args:
            x: features (N, D).
        """
        if self.ptr is not None:
            return segment_mean(x, ptr=self.ptr)
        return segment_mean(x, self.batch, num_segments=self.num_graphs)

    def spread(self, values: Tensor) -> Tensor:
        """Return the value of each node's graph, (N, 1).

        Args:
            values: values (G,).
        """
        return values[self.batch, None]

    @functools.cached_property
    def _places(self) -> tuple[int, Tensor]:
        """Number of nodes of the largest graph, and row of each node in the padded layout."""
        counts = self.batch.bincount(minlength=self.num_graphs)
        order = self.batch.argsort(stable=True)  # nodes may come in any order
        place = torch.empty_like(self.batch)
        ranks = torch.arange(len(order), device=order.device)
        place[order] = ranks - (counts.cumsum(0) - counts)[self.batch[order]]
        largest = int(counts.max()) if self.num_graphs else 0
        return largest, self.batch * largest + place

    def padded(self, x: Tensor) -> Tensor:
        """Return the features as (G, T, D), with T nodes in the largest graph and 0 where a graph has fewer.

        The size of the largest graph is read, which synchronises on an accelerator.

        Args:
            x: features (N, D).
        """
        largest, rows = self._places
        padded = x.new_zeros(self.num_graphs * largest, x.shape[1]).index_copy(0, rows, x)
        return padded.view(self.num_graphs, largest, x.shape[1])

    def unpadded(self, x: Tensor) -> Tensor:
        """Return the features of all nodes, (N, D).

        Args:
            x: features (G, T, D).
        """
        return x.flatten(0, 1)[self._places[1]]
