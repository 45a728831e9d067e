"""Pooling of nodes: the graph of each node, and one vector for each graph."""

from typing import Literal, cast

import torch
from torch import Tensor, nn

from graphseq.core import Recorded
from graphseq.ops import segment_max, segment_mean, segment_sum

__all__ = ["GraphPool", "graph_index"]

PoolMode = Literal["sum", "mean", "max"]

_REDUCTIONS = {"sum": segment_sum, "mean": segment_mean, "max": segment_max}


def graph_index(num_nodes: int, batch: Tensor | None, ptr: Tensor | None, device: torch.device) -> tuple[Tensor, int]:
    """Return the graph of each node and the number of graphs, from ``batch`` or ``ptr``, whichever is given.

    With ``ptr`` no synchronisation is needed. With ``batch`` alone the number of graphs is read from it: one device
    synchronisation, and empty graphs at the end are not counted. With neither there is one graph.

    Args:
        num_nodes: number of nodes N.
        batch: graph of each node.
        ptr: first node of each graph and, last, the number of nodes.
        device: device of the result if neither ``batch`` nor ``ptr`` is given.

    Returns:
        ``batch`` and the number of graphs G.

    Shape:
        batch (N,), ptr (G+1,) -> batch (N,)

    Example:
        >>> graph_index(3, None, torch.tensor([0, 2, 3]), torch.device("cpu"))
        (tensor([0, 0, 1]), 2)
    """
    if ptr is not None:
        num_graphs = ptr.numel() - 1
        if batch is None:
            graphs = torch.arange(num_graphs, device=ptr.device)
            batch = torch.repeat_interleave(graphs, ptr.diff(), output_size=num_nodes)  # (G,) -> (N,)
        return batch, num_graphs
    if batch is None:
        return torch.zeros(num_nodes, dtype=torch.long, device=device), 1
    if num_nodes == 0:
        return batch, 0
    if torch.compiler.is_exporting():
        num_graphs = cast(int, batch.max().item()) + 1  # a symbol of the exported graph: int() would need its value
        torch._check(num_graphs >= 1)
        return batch, num_graphs
    return batch, int(batch.max()) + 1


class GraphPool(Recorded, nn.Module):
    r"""Sum, mean or maximum of the nodes of each graph.

    .. math:: g_k = \bigoplus_{i:\, \mathrm{batch}_i = k} x_i

    A graph without nodes gets zeros; nodes that tie for a maximum share its gradient. On a GPU the sums are the same
    bits in every run if ``ptr`` is given, since segments are then reduced in order; by ``batch`` alone they are
    atomic additions.

    Args:
        mode: reduction over the nodes of a graph: ``sum``, ``mean`` or ``max``.

    Shape:
        x (N, D), batch (N,), ptr (G+1,) -> (G, D)

    Raises:
        ValueError: if ``mode`` is unknown.

    Example:
        >>> GraphPool("mean")(torch.tensor([[1.0], [3.0], [5.0]]), ptr=torch.tensor([0, 2, 3]))
        tensor([[2.],
                [5.]])
    """

    def __init__(self, mode: PoolMode = "mean") -> None:
        super().__init__()
        if mode not in _REDUCTIONS:
            raise ValueError(f"GraphPool(mode={mode!r}): accepted are 'sum', 'mean' and 'max'")
        self.mode = mode

    def forward(
        self, x: Tensor, batch: Tensor | None = None, ptr: Tensor | None = None, num_graphs: int | None = None
    ) -> Tensor:
        """Reduce the nodes of each graph to one vector; without ``batch`` and ``ptr`` all nodes are one graph.

        Args:
            x: node features.
            batch: graph of each node, in any order if ``ptr`` is not given.
            ptr: first node of each graph and, last, the number of nodes.
            num_graphs: number of graphs; None to read it from ``batch``.
        """
        if ptr is not None:
            return _REDUCTIONS[self.mode](x, ptr=ptr)  # (N, D) -> (G, D)
        if batch is None or num_graphs is None:
            batch, num_graphs = graph_index(x.size(0), batch, ptr, x.device)
        return _REDUCTIONS[self.mode](x, batch, num_segments=num_graphs)  # (N, D) -> (G, D)

    def extra_repr(self) -> str:
        """Return the arguments that ``repr`` shows."""
        return repr(self.mode)
