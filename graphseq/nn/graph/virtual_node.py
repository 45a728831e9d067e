"""Virtual node: one extra node for each graph, connected to all others, so that any two nodes are two hops apart."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import BatchNorm
from torch_geometric.nn.inits import reset

from graphseq.core import Recorded
from graphseq.nn.causal import positive
from graphseq.nn.graph.pooling import GraphPool, PoolMode

__all__ = ["VirtualNode"]


class VirtualNode(Recorded, nn.Module):
    r"""Virtual node of each graph: its state is added to every node before a layer and updated from all nodes after it.

    .. math::
        \tilde h_i^{(l)} = h_i^{(l)} + v_{g(i)}^{(l)}, \qquad
        v_g^{(l+1)} = v_g^{(l)} + \mathrm{MLP}^{(l)}\Bigl(v_g^{(l)} + \bigoplus_{i \in g} \tilde h_i^{(l)}\Bigr)

    Every graph starts from the same learned vector :math:`v^{(0)}`, initialised to zero. The last layer has no update,
    since its result would not be used. A graph network calls, at each layer, :meth:`forward` before its
    convolution and :meth:`update` after it.

    Source: arXiv 1704.01212, section 5.2 (the idea of a latent node that all others are connected to); the update by
    a perceptron with batch norm and the residual are those of the Open Graph Benchmark's baselines,
    arXiv 2005.00687. Differs from them: none known.

    Args:
        dim: width of the node features and of the state.
        num_layers: number of layers of the network, at least 1; there are ``num_layers - 1`` updates.
        dropout: probability that an entry of an update is dropped, in [0, 1).
        residual: whether an update is added to the state instead of replacing it.
        pool: reduction of the nodes of a graph for an update.

    Shape:
        x (N, D), state (G, D) -> x (N, D), state (G, D)

    Raises:
        ValueError: if ``dim`` or ``num_layers`` < 1 or ``dropout`` is outside [0, 1); when called, if the shapes do
            not fit, or there is no such layer.

    Example:
        >>> node = VirtualNode(dim=8, num_layers=2)
        >>> x, batch = torch.randn(5, 8), torch.tensor([0, 0, 0, 1, 1])
        >>> state = node.initial_state(2)
        >>> x = node(x, state, batch)
        >>> node.update(0, x, state, batch).shape
        torch.Size([2, 8])
    """

    def __init__(
        self, dim: int, num_layers: int, dropout: float = 0.0, residual: bool = True, pool: PoolMode = "sum"
    ) -> None:
        super().__init__()
        positive(dim=dim)
        if num_layers < 1:
            raise ValueError(f"VirtualNode(num_layers={num_layers}): give the number of layers of the network, >= 1")
        if not 0 <= dropout < 1:
            raise ValueError(f"VirtualNode(dropout={dropout}): give a probability in [0, 1)")
        self.dim = dim
        self.num_layers = num_layers
        self.dropout = dropout
        self.residual = residual
        self.start = nn.Parameter(torch.empty(dim))
        self.pool = GraphPool(pool)
        # a batch of one graph has no variance: that norm then uses its running statistics instead of failing
        self.updates = nn.ModuleList(
            nn.Sequential(
                nn.Linear(dim, 2 * dim),
                BatchNorm(2 * dim, allow_single_element=True),
                nn.ReLU(),
                nn.Linear(2 * dim, dim),
                BatchNorm(dim, allow_single_element=True),
                nn.ReLU(),
            )
            for _ in range(num_layers - 1)
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the initial state to zero and reinitialise the updates."""
        nn.init.zeros_(self.start)
        reset(self.updates)

    def initial_state(self, num_graphs: int) -> Tensor:
        """Return the state before the first layer, the same for every graph: (G, D)."""
        return self.start.expand(num_graphs, -1)

    def forward(self, x: Tensor, state: Tensor, batch: Tensor) -> Tensor:
        """Add to each node the state of its graph: (N, D)."""
        if x.dim() != 2 or x.size(1) != self.dim or batch.shape != x.shape[:1] or state.shape[1:] != (self.dim,):
            raise ValueError(
                f"x has shape {tuple(x.shape)}, state {tuple(state.shape)} and batch {tuple(batch.shape)}; "
                f"(N, {self.dim}), (G, {self.dim}) and (N,) are needed"
            )
        return x + state.index_select(0, batch)  # (G, D) -> (N, D)

    def update(
        self, layer: int, x: Tensor, state: Tensor, batch: Tensor | None = None, ptr: Tensor | None = None
    ) -> Tensor:
        """Return the state for the layer after ``layer`` (counted from 0), from the input of ``layer``: (G, D)."""
        if not 0 <= layer < self.num_layers:
            raise ValueError(
                f"layer is {layer}; this virtual node was built for {self.num_layers} layers, numbered from 0: build "
                "it with the num_layers of the network"
            )
        if layer == len(self.updates):
            return state
        gathered = self.pool(x, batch, ptr, state.size(0))  # (N, D) -> (G, D)
        if gathered.shape != state.shape:
            raise ValueError(
                f"x and ptr give {gathered.size(0)} graphs of width {gathered.size(-1)}; the state has shape "
                f"{tuple(state.shape)}"
            )
        new = F.dropout(self.updates[layer](state + gathered), self.dropout, self.training)
        return state + new if self.residual else new
