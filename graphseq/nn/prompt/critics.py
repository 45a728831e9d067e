"""Critics: the expected return of a graph with its prompts."""

import itertools

import torch
from torch import Tensor, nn

from graphseq.core import DataError, Recorded
from graphseq.ops import segment_max, segment_mean

__all__ = ["FlattenCritic", "PoolCritic"]

_LARGE = 50_000_000  # parameters


class PoolCritic(Recorded, nn.Module):
    r"""Value of a graph from the mean and the maximum of its nodes; it does not depend on their order or number.

    .. math:: V(g) = w^\top \mathrm{ReLU}\Bigl(A \bigl[\operatorname*{mean}_{i \in g} r_i \,\|\,
        \max_{i \in g} r_i\bigr] + a\Bigr) + b, \qquad r_i = \mathrm{ReLU}(B h_i + c)

    Args:
        in_channels: width of a node vector.
        hidden_channels: width of both hidden layers.

    Shape:
        h (N, in_channels), ptr (G+1,) -> (G,)

    Raises:
        ValueError: if a width is below 1.

    Example:
        >>> PoolCritic(8)(torch.randn(5, 8), torch.tensor([0, 2, 5])).shape
        torch.Size([2])
    """

    def __init__(self, in_channels: int, hidden_channels: int = 64) -> None:
        super().__init__()
        if in_channels < 1 or hidden_channels < 1:
            raise ValueError(
                f"PoolCritic(in_channels={in_channels}, hidden_channels={hidden_channels}): give both >= 1"
            )
        self.node = nn.Linear(in_channels, hidden_channels)
        self.graph = nn.Sequential(
            nn.Linear(2 * hidden_channels, hidden_channels), nn.ReLU(), nn.Linear(hidden_channels, 1)
        )

    def reset_parameters(self) -> None:
        """Reinitialise all parameters."""
        for layer in (self.node, self.graph[0], self.graph[2]):
            layer.reset_parameters()  # type: ignore[operator]

    def forward(self, h: Tensor, ptr: Tensor) -> Tensor:
        """Return the value of each graph.

        Args:
            h: node vectors.
            ptr: first node of each graph and, last, the number of nodes.
        """
        each = self.node(h).relu()  # (N, D)
        pooled = torch.cat([segment_mean(each, ptr=ptr), segment_max(each, ptr=ptr)], dim=1)
        return self.graph(pooled).squeeze(-1)  # (G,)


class FlattenCritic(Recorded, nn.Module):
    r"""Value of a graph from its node vectors side by side, padded with zeros to the largest graph; as published.

    It depends on the order of the nodes, and its first layer grows with the square of the largest graph.
    :class:`PoolCritic` does neither.

    Source: released code of arXiv 2408.03195: widths M, 0.05 M, 0.025 M, 1 for M = max_nodes times in_channels.

    Args:
        in_channels: width of a node vector.
        max_nodes: number of nodes of the largest graph that is ever given, in all splits.
        allow_large: whether more than 50 million parameters are accepted.

    Shape:
        h (N, in_channels), ptr (G+1,) -> (G,)

    Raises:
        ValueError: if a size is below 1, or there are more parameters than accepted.
        DataError: on a CPU, if a graph has more nodes than ``max_nodes``. On a GPU an assertion on the device fails.

    Example:
        >>> FlattenCritic(8, max_nodes=5)(torch.randn(5, 8), torch.tensor([0, 2, 5])).shape
        torch.Size([2])
    """

    def __init__(self, in_channels: int, max_nodes: int, allow_large: bool = False) -> None:
        super().__init__()
        if in_channels < 1 or max_nodes < 1:
            raise ValueError(f"FlattenCritic(in_channels={in_channels}, max_nodes={max_nodes}): give both >= 1")
        width = in_channels * max_nodes
        widths = [width, max(1, round(0.05 * width)), max(1, round(0.025 * width)), 1]
        size = sum(before * after + after for before, after in itertools.pairwise(widths))
        if size > _LARGE and not allow_large:
            raise ValueError(
                f"max_nodes={max_nodes} and in_channels={in_channels} make {size / 1e6:.0f} million parameters, above "
                "50 million; use PoolCritic, or allow_large=True"
            )
        self.max_nodes = max_nodes
        self.layers = nn.Sequential(
            nn.Linear(widths[0], widths[1]),
            nn.ReLU(),
            nn.Linear(widths[1], widths[2]),
            nn.ReLU(),
            nn.Linear(widths[2], 1),
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Reinitialise all parameters."""
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_normal_(layer.weight, nn.init.calculate_gain("relu"))
                nn.init.zeros_(layer.bias)

    def forward(self, h: Tensor, ptr: Tensor) -> Tensor:
        """Return the value of each graph.

        Args:
            h: node vectors.
            ptr: first node of each graph and, last, the number of nodes.
        """
        counts = ptr.diff()
        if h.device.type == "cpu" and len(counts) and int(counts.max()) > self.max_nodes:
            raise DataError(
                f"a graph has {int(counts.max())} nodes, the critic was built for max_nodes={self.max_nodes}; count "
                "the nodes of the largest graph of all splits"
            )
        graph = torch.arange(len(counts), device=h.device).repeat_interleave(counts, output_size=len(h))
        place = torch.arange(len(h), device=h.device) - ptr[graph]
        torch._assert_async((place < self.max_nodes).all(), "a graph has more nodes than max_nodes of the critic")
        padded = h.new_zeros(len(counts), self.max_nodes, h.size(1))
        return self.layers(padded.index_put((graph, place), h).flatten(1)).squeeze(-1)  # (G,)
