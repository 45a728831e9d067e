"""A graph between series, with fixed weights or weights for each step."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from graphseq.core.errors import DataError

__all__ = ["SeriesGraph"]


@dataclass(frozen=True)
class SeriesGraph:
    """Weighted edges between S series; the weights may change from step to step.

    Args:
        edge_index: source and destination of each edge, int64 (2, E).
        edge_weight: finite weight of each edge, float (E,), or of each edge at each step, float (steps, E).

    Raises:
        DataError: if the shapes or types do not fit, or a weight is not finite.

    Example:
        >>> SeriesGraph.from_adjacency(torch.tensor([[0.0, 2.0], [0.0, 0.0]])).edge_index.tolist()
        [[0], [1]]
    """

    edge_index: Tensor
    edge_weight: Tensor

    def __post_init__(self) -> None:
        """Check shapes and weights."""
        index, weight = self.edge_index, self.edge_weight
        if index.dim() != 2 or len(index) != 2 or index.dtype != torch.int64:
            raise DataError(f"edge_index is {index.dtype} {tuple(index.shape)}; it must be int64 of shape (2, E)")
        if weight.dim() not in (1, 2) or weight.shape[-1] != index.shape[1] or not weight.is_floating_point():
            raise DataError(
                f"edge_weight is {weight.dtype} {tuple(weight.shape)} for {index.shape[1]} edges; it must be "
                "floating-point, (E,) or (steps, E)"
            )
        if not bool(weight.isfinite().all()):
            raise DataError("edge_weight holds NaN or infinite weights; leave out edges that do not exist")

    @classmethod
    def from_adjacency(cls, adjacency: Tensor) -> Self:
        """Return the graph of an adjacency matrix; zeros are no edges.

        Args:
            adjacency: weight of the edge from row to column, (S, S).

        Raises:
            DataError: if the matrix is not square.
        """
        if adjacency.dim() != 2 or adjacency.shape[0] != adjacency.shape[1]:
            raise DataError(f"adjacency is {tuple(adjacency.shape)}; it must be square, one row for each series")
        edge_index = adjacency.nonzero().T.contiguous()
        return cls(edge_index, adjacency[edge_index[0], edge_index[1]].float())

    @property
    def changes(self) -> bool:
        """True if the weights differ between steps."""
        return self.edge_weight.dim() == 2

    @property
    def nbytes(self) -> int:
        """Memory of edges and weights in bytes."""
        return self.edge_index.nbytes + self.edge_weight.nbytes

    def check(self, num_series: int, steps: int) -> None:
        """Raise ``DataError`` if an edge leads outside the series, or weights are given for another number of steps.

        Args:
            num_series: number of series S.
            steps: number of steps of the series.
        """
        index = self.edge_index
        if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < num_series:
            raise DataError(
                f"the graph has edges between nodes {int(index.min())} and {int(index.max())}; there are {num_series} "
                f"series, so nodes must be in 0..{num_series - 1}"
            )
        if self.changes and len(self.edge_weight) != steps:
            raise DataError(f"edge_weight has {len(self.edge_weight)} steps, the series have {steps}; they must agree")

    def to(self, device: torch.device | str) -> Self:
        """Return the graph with its tensors on ``device``.

        Args:
            device: target device.
        """
        moved = object.__new__(type(self))  # checked already
        for name, value in vars(self).items():
            object.__setattr__(moved, name, value.to(device))
        return moved
