"""Adapter for networks of PyTorch Geometric."""

from typing import Literal

from torch import Tensor, nn
from torch_geometric.nn.inits import reset

from graphseq.core import Recorded, model_fields, unwrapped
from graphseq.nn import GraphPool
from graphseq.nn.causal import positive

__all__ = ["FromPyG"]

_FIELDS = ("x", "edge_index", "batch", "edge_attr", "ptr")


class FromPyG(Recorded, nn.Module):
    r"""Adapter that gives a network of PyTorch Geometric the signature and ``encode`` of graphseq's graph networks.

    .. math:: y_g = W \bigoplus_{i \in g} \mathrm{network}(x, \ldots)_i + b

    The network is given those of ``x``, ``edge_index``, ``batch``, ``edge_attr`` and ``ptr`` that its ``forward`` has
    as parameters. Build it with :func:`graphseq.core.make`, or in a config, so that checkpoints can record it. Sizes
    that a command line links from the data reach this adapter and not the network inside, which needs its own
    ``in_channels`` in the config.

    Args:
        network: network that maps nodes to nodes (N, D), or to graphs (G, D) if it pools by itself.
        pool: reduction of the nodes of a graph, ``sum``, ``mean`` or ``max``; None for no pooling of the network's
            output.
        out_channels: width K of a linear map after network and pooling; None for no map.
        channels: width D of the network's output; None reads its attribute ``out_channels``, which every
            ``BasicGNN`` has. Only needed for the linear map.

    Shape:
        x (N, F), edge_index (2, E), batch (N,), edge_attr (E, _), ptr (G+1,) -> (G, K), or (N, K) without pool

    Raises:
        ValueError: if the network's ``forward`` requires any other argument, its width is not known, or
            ``out_channels`` < 1.
        TypeError: if ``network`` is not a module; in ``forward`` if ``x`` is not a tensor.

    Example:
        >>> import torch
        >>> from torch_geometric.nn import GIN
        >>> from graphseq.core import make
        >>> network = FromPyG(make(GIN, 3, 16, 2), pool="sum", out_channels=2)
        >>> network(torch.randn(4, 3), torch.tensor([[0, 2], [1, 3]]), batch=torch.tensor([0, 0, 1, 1])).shape
        torch.Size([2, 2])
    """

    def __init__(
        self,
        network: nn.Module,
        pool: Literal["sum", "mean", "max"] | None = "mean",
        out_channels: int | None = None,
        channels: int | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(network, nn.Module):
            given = f"the class {network.__name__}" if isinstance(network, type) else f"a {type(network).__name__}"
            raise TypeError(f"network is {given}; give a network that is built, by graphseq.core.make or in a config")
        if out_channels is not None:
            positive(out_channels=out_channels)
        name = type(unwrapped(network)).__name__
        fields = model_fields(network)
        foreign = [field for field, required in fields.items() if required and field not in _FIELDS]
        if foreign or "x" not in fields:
            raise ValueError(
                f"{name}.forward takes {', '.join(fields)}; a network must take x, and require "
                f"nothing but {', '.join(_FIELDS)}. Wrap it in a module whose forward does"
            )
        width = channels if channels is not None else getattr(unwrapped(network), "out_channels", None)
        if not isinstance(width, int) and out_channels is not None:
            raise ValueError(
                f"FromPyG(out_channels={out_channels}) needs the output width of {name}, which has no "
                "out_channels: give channels"
            )
        self.network = network
        self.fields = [field for field in _FIELDS if field in fields]
        self.pool = None if pool is None else GraphPool(pool)
        self.node_channels = self.graph_channels = width
        self.head = None if out_channels is None else nn.Linear(width, out_channels)  # type: ignore[arg-type]

    def reset_parameters(self) -> None:
        """Reinitialise all parameters, those of the network if it has ``reset_parameters``."""
        reset(self.network)
        if self.head is not None:
            self.head.reset_parameters()

    def _outputs(self, values: dict[str, Tensor | None]) -> Tensor:
        if not isinstance(values["x"], Tensor):
            raise TypeError(
                f"x is a {type(values['x']).__name__} where one tensor is needed: call the network with data.x and "
                "data.edge_index; of a HeteroData, with those of data.to_homogeneous()"
            )
        output = self.network(**{field: values[field] for field in self.fields if values[field] is not None})
        nodes = values["x"]
        if self.pool is not None and nodes is not None and output.size(0) != nodes.size(0):
            raise ValueError(
                f"{type(self.network).__name__} returned {output.size(0)} rows for {nodes.size(0)} nodes, so it pools "
                "by itself: give pool=None"
            )
        return output

    def encode(
        self,
        x: Tensor,
        edge_index: Tensor,
        batch: Tensor | None = None,
        edge_attr: Tensor | None = None,
        ptr: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return graph vectors (G, graph_channels) and node vectors (N, node_channels), before the linear map.

        Args:
            x: node features.
            edge_index: edges from row 0 to row 1.
            batch: graph of each node; without it and ``ptr`` all nodes are one graph.
            edge_attr: edge features.
            ptr: first node of each graph and, last, the number of nodes.

        Raises:
            ValueError: if ``pool`` is None, since the network then has only one kind of output.
        """
        if self.pool is None:
            raise ValueError("FromPyG(pool=None) has no graph vectors beside the network's output; give a pool")
        node = self._outputs({"x": x, "edge_index": edge_index, "batch": batch, "edge_attr": edge_attr, "ptr": ptr})
        return self.pool(node, batch, ptr), node  # (N, D) -> (G, D), (N, D)

    def forward(
        self,
        x: Tensor,
        edge_index: Tensor,
        batch: Tensor | None = None,
        edge_attr: Tensor | None = None,
        ptr: Tensor | None = None,
    ) -> Tensor:
        """Return one row for each graph (G, K); without a pool the rows of the network."""
        if self.pool is not None:
            output = self.encode(x, edge_index, batch, edge_attr, ptr)[0]
        else:
            output = self._outputs(
                {"x": x, "edge_index": edge_index, "batch": batch, "edge_attr": edge_attr, "ptr": ptr}
            )
        return output if self.head is None else self.head(output)
