"""Graph isomorphism network as in its paper."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import BatchNorm, GINConv
from torch_geometric.nn.inits import reset

from graphseq.core import Recorded
from graphseq.nn import FeatureEncoder, GraphPool, gin_mlp
from graphseq.nn.causal import positive

__all__ = ["GINClassifier"]


class GINClassifier(Recorded, nn.Module):
    r"""Graph isomorphism network: sum aggregation, and a linear readout of the graph at every depth.

    .. math::
        h_i^{(0)} = x_i, \quad
        h_i^{(l)} = \mathrm{ReLU}\Bigl(\mathrm{BN}\Bigl(\mathrm{MLP}^{(l)}\bigl((1+\epsilon)\, h_i^{(l-1)}
        + \sum_{j \in N(i)} h_j^{(l-1)}\bigr)\Bigr)\Bigr), \quad
        y_g = \sum_{l=0}^{L-1} \mathrm{Dropout}\Bigl(W_l \bigoplus_{i \in g} h_i^{(l)} + b_l\Bigr)

    Source: arXiv 1810.00826, sections 4.2 and 7 (GIN-0, and GIN-:math:`\epsilon` with ``train_eps``). Differs from
    the paper: none.

    Args:
        in_channels: width of the node features; the paper's are one-hot node labels or degrees.
        out_channels: number of classes K.
        hidden_channels: width of every layer; the paper's grid is 16 and 32.
        num_layers: number of depths that are read out, the input included, so there are ``num_layers - 1``
            convolutions.
        mlp_layers: number of linear maps in the perceptron of each convolution.
        pool: reduction of the nodes of a graph, ``sum``, ``mean`` or ``max``; the paper sums on molecules and takes
            means on social networks.
        dropout: probability that a logit of one depth is dropped, in [0, 1); the paper's grid is 0 and 0.5.
        train_eps: whether :math:`\epsilon` is learned instead of 0.

    Shape:
        x (N, in_channels), edge_index (2, E), batch (N,), ptr (G+1,) -> (G, K)

    Raises:
        ValueError: if ``num_layers`` < 2 or another argument is out of range.
        DataError: if the features of a batch do not fit.

    Example:
        >>> network = GINClassifier(3, 2, hidden_channels=16)
        >>> network(torch.randn(4, 3), torch.tensor([[0, 2], [1, 3]]), batch=torch.tensor([0, 0, 1, 1])).shape
        torch.Size([2, 2])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        hidden_channels: int = 32,
        num_layers: int = 5,
        *,
        mlp_layers: int = 2,
        pool: Literal["sum", "mean", "max"] = "sum",
        dropout: float = 0.5,
        train_eps: bool = False,
    ) -> None:
        super().__init__()
        if num_layers < 2:
            raise ValueError(f"GINClassifier(num_layers={num_layers}): the input counts as one layer, so give >= 2")
        positive(out_channels=out_channels, hidden_channels=hidden_channels)
        if not 0 <= dropout < 1:
            raise ValueError(f"GINClassifier(dropout={dropout}): give a probability in [0, 1)")
        self.dropout = dropout
        self.input = FeatureEncoder(in_channels)
        widths = [in_channels] + [hidden_channels] * (num_layers - 1)
        self.convs = nn.ModuleList(
            GINConv(gin_mlp(width, hidden_channels, mlp_layers), train_eps=train_eps) for width in widths[:-1]
        )
        self.norms = nn.ModuleList(BatchNorm(hidden_channels, allow_single_element=True) for _ in self.convs)
        self.pool = GraphPool(pool)
        self.heads = nn.ModuleList(nn.Linear(width, out_channels) for width in widths)
        self.node_channels = self.graph_channels = sum(widths)

    def reset_parameters(self) -> None:
        """Reinitialise all parameters."""
        for module in self.children():
            reset(module)

    def _depths(self, x: Tensor, edge_index: Tensor) -> list[Tensor]:
        layers = [self.input(x)]  # (N, D)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            layers.append(norm(conv(layers[-1], edge_index)).relu())  # (N, hidden_channels)
        return layers

    def encode(
        self,
        x: Tensor,
        edge_index: Tensor,
        batch: Tensor | None = None,
        edge_attr: Tensor | None = None,
        ptr: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return graph vectors (G, graph_channels) and node vectors (N, node_channels): all depths side by side.

        Args:
            x: node features.
            edge_index: edges from row 0 to row 1.
            batch: graph of each node; without it and ``ptr`` all nodes are one graph.
            edge_attr: edge features, accepted for a common signature and not used.
            ptr: first node of each graph and, last, the number of nodes; given, the step needs no device
                synchronisation.
        """
        node = torch.cat(self._depths(x, edge_index), dim=1)  # (N, node_channels)
        return self.pool(node, batch, ptr), node  # (G, graph_channels), (N, node_channels)

    def forward(
        self,
        x: Tensor,
        edge_index: Tensor,
        batch: Tensor | None = None,
        edge_attr: Tensor | None = None,
        ptr: Tensor | None = None,
    ) -> Tensor:
        """Return one row of logits for each graph: (G, K)."""
        # each depth is pooled alone: joining them for all nodes first would cost a sixth of a training step
        logits = [
            head(self.pool(depth, batch, ptr))  # (N, D) -> (G, D) -> (G, K)
            for head, depth in zip(self.heads, self._depths(x, edge_index), strict=True)
        ]
        return torch.stack([F.dropout(depth, self.dropout, self.training) for depth in logits]).sum(0)
