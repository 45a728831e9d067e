"""Graph networks: a stack of message passing layers and a readout for whole graphs."""

import inspect
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import MLP, BatchNorm, JumpingKnowledge
from torch_geometric.nn.inits import reset

from graphseq.core import DataError, Recorded
from graphseq.nn import FeatureEncoder, GraphPool, VirtualNode, graph_index, make_convolution
from graphseq.nn.causal import positive

__all__ = ["GraphClassifier", "GraphEncoder"]

ConvolutionName = Literal["gin", "gine", "gcn", "sage", "gat", "pna"]


def _norm(norm: str, channels: int) -> nn.Module:
    if norm == "batch":
        # a batch of one node has no variance: that norm then uses its running statistics instead of failing
        return BatchNorm(channels, allow_single_element=True)
    if norm == "layer":
        return nn.LayerNorm(channels)
    if norm == "none":
        return nn.Identity()
    raise ValueError(f"norm is {norm!r}; give 'batch', 'layer' or 'none'")


def _check_virtual_node(node: bool | nn.Module, hidden_channels: int, num_layers: int) -> None:
    if isinstance(node, bool):
        return
    if not isinstance(node, nn.Module) or not all(
        callable(getattr(node, at, None)) for at in ("initial_state", "update")
    ):
        given = node.__name__ if isinstance(node, type) else node if isinstance(node, str) else type(node).__name__
        raise TypeError(
            f"virtual_node is {given}; give True, False, or a module with initial_state and update, as "
            "graphseq.nn.VirtualNode has them"
        )
    for name, needed in (("dim", hidden_channels), ("num_layers", num_layers)):
        if getattr(node, name, needed) != needed:
            raise ValueError(f"virtual_node was built with {name}={getattr(node, name)}; this network needs {needed}")


class GraphEncoder(Recorded, nn.Module):
    r"""Stack of message passing layers that turns graphs into node vectors and graph vectors.

    .. math::
        h^{(l)} = \mathrm{Dropout}(\mathrm{ReLU}(\mathrm{Norm}(\mathrm{Conv}^{(l)}(h^{(l-1)}))))
        \;[\,+\; h^{(l-1)}\,], \qquad
        z_i = \mathrm{JK}(h_i^{(1)}, \ldots, h_i^{(L)}), \qquad z_g = \bigoplus_{i \in g} z_i

    Data modules link their widths, categories and degrees to every network. The encoder accepts all of them and ignores
    those that its convolution does not use: ``edge_channels`` with gin, ``degree_histogram`` with all but pna. On a GPU
    messages are added up atomically, so that two runs may differ in the last bits.

    Source: jumping knowledge (JK) arXiv 1806.03536; the convolutions :func:`graphseq.nn.make_convolution`; the
    virtual node :class:`graphseq.nn.VirtualNode`.

    Args:
        in_channels: width of the node features; ignored if ``node_categories`` is given.
        hidden_channels: width of every layer.
        num_layers: number of convolutions, at least 1.
        conv: name of a convolution, or a callable that builds one from two widths (a class such as
            ``torch_geometric.nn.GraphConv``, or a partial of one). It is given edge features if its ``forward`` has a
            parameter ``edge_attr`` and ``edge_channels`` or ``edge_categories`` is given; a layer of your own then
            needs ``edge_dim``, ``edge_channels`` or, for categories, ``hidden_channels``.
        edge_channels: width of real edge features; None or 0 for none.
        node_categories: number of categories of each column of integer ``x``; their embeddings are summed.
        edge_categories: number of categories of each column of integer ``edge_attr``; their embeddings are summed.
        degree_histogram: number of training nodes of in-degree 0, 1, 2, ...; required by pna.
        norm: normalisation after each convolution: ``batch`` over the nodes of the batch, ``layer`` over the channels
            of a node, or ``none``.
        dropout: probability that an entry of a layer's output is dropped, in [0, 1).
        residual: whether a layer's input is added to its output, where the widths are equal.
        jumping_knowledge: representation of a node after the last layer: ``last`` for the output of that layer, or of
            the outputs of all layers the concatenation (``cat``), the maximum (``max``), or the mean weighted by a
            bidirectional LSTM (``lstm``).
        virtual_node: whether each graph has a state that its nodes share; a module in place of True must work as
            :class:`graphseq.nn.VirtualNode` does. Real node features are then mapped linearly to
            ``hidden_channels`` first, the width of that state.
        pool: reduction of the nodes of a graph: ``sum``, ``mean`` or ``max``.
        heads: number of attention heads of gat, a divisor of ``hidden_channels``.
        train_eps: whether gin and gine learn the weight of the node itself.

    Shape:
        x (N, in_channels), edge_index (2, E), batch (N,), edge_attr (E, edge_channels), ptr (G+1,)
        -> (G, graph_channels)

    Raises:
        ValueError: if an argument is out of range, or an argument that the convolution needs is missing.
        TypeError: if ``virtual_node`` is neither a boolean nor such a module.
        DataError: if the features of a batch do not fit.

    Example:
        >>> import torch
        >>> encoder = GraphEncoder(3, hidden_channels=8, jumping_knowledge="cat")
        >>> graph, node = encoder.encode(torch.randn(4, 3), torch.tensor([[0, 1, 2], [1, 2, 3]]))
        >>> graph.shape, node.shape
        (torch.Size([1, 24]), torch.Size([4, 24]))
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int = 64,
        num_layers: int = 3,
        conv: ConvolutionName | Callable[[int, int], nn.Module] = "gin",
        *,
        edge_channels: int | None = None,
        node_categories: list[int] | None = None,
        edge_categories: list[int] | None = None,
        degree_histogram: list[int] | None = None,
        norm: Literal["batch", "layer", "none"] = "batch",
        dropout: float = 0.0,
        residual: bool = False,
        jumping_knowledge: Literal["last", "cat", "max", "lstm"] = "last",
        virtual_node: bool | nn.Module = False,
        pool: Literal["sum", "mean", "max"] = "mean",
        heads: int = 4,
        train_eps: bool = False,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        positive(hidden_channels=hidden_channels, num_layers=num_layers)
        if not 0 <= dropout < 1:
            raise ValueError(f"{name}(dropout={dropout}): give a probability in [0, 1)")
        if jumping_knowledge not in ("last", "cat", "max", "lstm"):
            raise ValueError(f"{name}(jumping_knowledge={jumping_knowledge!r}): accepted are last, cat, max, lstm")
        _check_virtual_node(virtual_node, hidden_channels, num_layers)
        self.hidden_channels = hidden_channels
        self.dropout = dropout
        self.residual = residual

        embeds = bool(node_categories) or bool(virtual_node)
        self.input = FeatureEncoder(in_channels, hidden_channels if embeds else None, categories=node_categories)
        self.prompt_channels = self.input.out_channels
        # the width at which edge features reach the convolutions; None without them
        self.edge_channels = hidden_channels if edge_categories else edge_channels or None
        self.convs = nn.ModuleList(
            make_convolution(
                conv,
                hidden_channels if layer else self.input.out_channels,
                hidden_channels,
                edge_channels=self.edge_channels,
                degree_histogram=degree_histogram,
                heads=heads,
                train_eps=train_eps,
            )
            for layer in range(num_layers)
        )
        self.norms = nn.ModuleList(_norm(norm, hidden_channels) for _ in range(num_layers))
        takes_edges = "edge_attr" in inspect.signature(self.convs[0].forward).parameters
        self.edge_input: FeatureEncoder | None = None
        if takes_edges and self.edge_channels is not None:
            width = hidden_channels if edge_categories else None
            self.edge_input = FeatureEncoder(edge_channels or 0, width, categories=edge_categories, field="edge_attr")
        self.virtual_node: nn.Module | None = None
        if isinstance(virtual_node, nn.Module):
            self.virtual_node = virtual_node
        elif virtual_node:
            self.virtual_node = VirtualNode(hidden_channels, num_layers, dropout)
        self.jump: nn.Module | None = None
        if jumping_knowledge != "last":
            self.jump = JumpingKnowledge(jumping_knowledge, hidden_channels, num_layers)
        self.pool = GraphPool(pool)
        self.node_channels = hidden_channels * (num_layers if jumping_knowledge == "cat" else 1)
        self.graph_channels = self.node_channels

    def reset_parameters(self) -> None:
        """Reinitialise all parameters."""
        for module in self.children():
            reset(module)

    def edge_arguments(self, edge_attr: Tensor | None) -> dict[str, Tensor]:
        """Return the encoded edge features as a named argument of the convolutions; empty if they take none."""
        return {} if self.edge_input is None else {"edge_attr": self.edge_input(edge_attr)}

    def embed(self, x: Tensor, edge_attr: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Return the features that the first convolution takes: of nodes, (N, prompt_channels), and of edges or None.

        Args:
            x: node features.
            edge_attr: edge features.
        """
        return self.input(x), None if self.edge_input is None else self.edge_input(edge_attr)

    def encode_nodes(
        self,
        x: Tensor,
        edge_index: Tensor,
        batch: Tensor | None = None,
        edge_attr: Tensor | None = None,
        ptr: Tensor | None = None,
    ) -> Tensor:
        """Return the node vectors alone: (N, node_channels)."""
        h, edge = self.embed(x, edge_attr)
        return self._propagate(h, edge_index, batch, edge, ptr)

    def hidden_states(
        self,
        x: Tensor,
        edge_index: Tensor,
        batch: Tensor | None = None,
        edge_attr: Tensor | None = None,
        ptr: Tensor | None = None,
    ) -> list[Tensor]:
        """Return the input of the first convolution (N, prompt_channels), and each layer's output (N, hidden_channels).

        Args:
            x: node features.
            edge_index: edges from row 0 to row 1.
            batch: graph of each node; without it and ``ptr`` all nodes are one graph.
            edge_attr: edge features.
            ptr: first node of each graph and, last, the number of nodes.
        """
        h, edge = self.embed(x, edge_attr)
        return [h, *self._layers(h, edge_index, batch, edge, ptr)]

    def _propagate(
        self, h: Tensor, edge_index: Tensor, batch: Tensor | None, edge: Tensor | None, ptr: Tensor | None
    ) -> Tensor:
        layers = self._layers(h, edge_index, batch, edge, ptr)
        return layers[-1] if self.jump is None else self.jump(layers)  # (N, node_channels)

    def _layers(
        self, h: Tensor, edge_index: Tensor, batch: Tensor | None, edge: Tensor | None, ptr: Tensor | None
    ) -> list[Tensor]:
        edges = {} if edge is None else {"edge_attr": edge}
        # one row for all edges would be broadcast without a word; sparse adjacencies have their own layout
        listed = isinstance(edge_index, Tensor) and edge_index.layout == torch.strided and edge_index.dim() == 2
        if edge is not None and listed and edge.size(0) != edge_index.size(1):
            raise DataError(f"edge_attr has {edge.size(0)} rows for {edge_index.size(1)} edges; give one row for each")
        state = None
        if self.virtual_node is not None:
            batch, num_graphs = graph_index(h.size(0), batch, ptr, h.device)
            state = self.virtual_node.initial_state(num_graphs)  # type: ignore[operator]  # (G, D)
        layers = []
        for layer, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            if self.virtual_node is not None:
                h = self.virtual_node(h, state, batch)
            new = conv(h, edge_index, **edges)  # (N, hidden_channels)
            if new.size(-1) != self.hidden_channels:
                raise ValueError(
                    f"{type(conv).__name__} gives {new.size(-1)} channels where hidden_channels={self.hidden_channels}"
                    " are needed; a layer that concatenates heads must divide the channels among them"
                )
            new = F.dropout(norm(new).relu(), self.dropout, self.training)
            if self.virtual_node is not None:
                state = self.virtual_node.update(layer, h, state, batch, ptr)  # type: ignore[operator]
            h = h + new if self.residual and h.size(-1) == new.size(-1) else new
            layers.append(h)
        return layers

    def encode_embedded(
        self,
        h: Tensor,
        edge_index: Tensor,
        batch: Tensor | None = None,
        edge: Tensor | None = None,
        ptr: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return graph vectors and node vectors of features that :meth:`embed` returned, prompts added or not.

        Args:
            h: embedded node features, (N, prompt_channels).
            edge_index: edges from row 0 to row 1.
            batch: graph of each node; without it and ``ptr`` all nodes are one graph.
            edge: embedded edge features.
            ptr: first node of each graph and, last, the number of nodes.
        """
        node = self._propagate(h, edge_index, batch, edge, ptr)
        return self.pool(node, batch, ptr), node  # (G, graph_channels), (N, node_channels)

    def encode(
        self,
        x: Tensor,
        edge_index: Tensor,
        batch: Tensor | None = None,
        edge_attr: Tensor | None = None,
        ptr: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return graph vectors (G, graph_channels) and node vectors (N, node_channels).

        Args:
            x: node features.
            edge_index: edges from row 0 to row 1.
            batch: graph of each node; without it and ``ptr`` all nodes are one graph.
            edge_attr: edge features.
            ptr: first node of each graph and, last, the number of nodes; given, the step needs no device
                synchronisation.
        """
        h, edge = self.embed(x, edge_attr)
        return self.encode_embedded(h, edge_index, batch, edge, ptr)

    def forward(
        self,
        x: Tensor,
        edge_index: Tensor,
        batch: Tensor | None = None,
        edge_attr: Tensor | None = None,
        ptr: Tensor | None = None,
    ) -> Tensor:
        """Return the graph vectors: (G, graph_channels)."""
        return self.encode(x, edge_index, batch, edge_attr, ptr)[0]


class GraphClassifier(Recorded, nn.Module):
    r"""Graph encoder with a perceptron on the pooled nodes; also for graph regression.

    .. math:: y_g = \mathrm{MLP}\Bigl(\bigoplus_{i \in g} z_i\Bigr)

    Args:
        in_channels: width of the node features.
        out_channels: number K of classes or of predicted quantities.
        hidden_channels: width of every layer, and of the perceptron between its layers.
        num_layers: number of convolutions.
        conv: name of a convolution, or a callable that builds one from two widths, see :class:`GraphEncoder`.
        head_layers: number of linear maps of the perceptron, at least 1.
        dropout: probability that an entry is dropped after a convolution and inside the perceptron, in [0, 1).
        options: further arguments of :class:`GraphEncoder`.

    Shape:
        x (N, in_channels), edge_index (2, E), batch (N,), edge_attr (E, edge_channels), ptr (G+1,) -> (G, K)

    Raises:
        ValueError: as for :class:`GraphEncoder`, or if ``head_layers`` or ``out_channels`` < 1.

    Example:
        >>> import torch
        >>> network = GraphClassifier(3, 2, hidden_channels=8, conv="gcn", pool="sum")
        >>> network(torch.randn(4, 3), torch.tensor([[0, 2], [1, 3]]), batch=torch.tensor([0, 0, 1, 1])).shape
        torch.Size([2, 2])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        hidden_channels: int = 64,
        num_layers: int = 3,
        conv: ConvolutionName | Callable[[int, int], nn.Module] = "gin",
        *,
        head_layers: int = 2,
        dropout: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__()
        positive(out_channels=out_channels, head_layers=head_layers)
        self.encoder = GraphEncoder(in_channels, hidden_channels, num_layers, conv, dropout=dropout, **options)
        self.graph_channels = self.encoder.graph_channels
        self.node_channels = self.encoder.node_channels
        self.head = MLP(
            in_channels=self.graph_channels,
            hidden_channels=hidden_channels,
            out_channels=out_channels,
            num_layers=head_layers,
            dropout=float(dropout),
            norm=None,
        )

    def reset_parameters(self) -> None:
        """Reinitialise all parameters."""
        self.encoder.reset_parameters()
        self.head.reset_parameters()

    def encode(
        self,
        x: Tensor,
        edge_index: Tensor,
        batch: Tensor | None = None,
        edge_attr: Tensor | None = None,
        ptr: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return graph vectors (G, graph_channels), the input of ``head``, and node vectors (N, node_channels)."""
        return self.encoder.encode(x, edge_index, batch, edge_attr, ptr)

    def forward(
        self,
        x: Tensor,
        edge_index: Tensor,
        batch: Tensor | None = None,
        edge_attr: Tensor | None = None,
        ptr: Tensor | None = None,
    ) -> Tensor:
        """Return one row of logits for each graph: (G, K)."""
        return self.head(self.encode(x, edge_index, batch, edge_attr, ptr)[0])
