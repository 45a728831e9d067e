"""Graph networks with one output for each node."""

from collections.abc import Callable
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn.inits import reset

from graphseq.core import Recorded
from graphseq.models.graph.classifier import ConvolutionName, GraphEncoder
from graphseq.nn import make_convolution
from graphseq.nn.causal import positive

__all__ = ["NodeClassifier"]


class NodeClassifier(Recorded, nn.Module):
    r"""Graph encoder with an output for each node: a last convolution, or a linear map of each node alone.

    With ``conv="gcn"``, ``num_layers=2``, ``hidden_channels=16``, ``norm="none"`` and both dropouts 0.5 this is the
    network of arXiv 1609.02907 for citation graphs:

    .. math:: y = \hat A\, \mathrm{ReLU}(\hat A\, x\, W_1)\, W_2

    Args:
        in_channels: width of the node features.
        out_channels: number K of classes or of predicted quantities.
        hidden_channels: width of the hidden layers.
        num_layers: number of convolutions, the last one included.
        conv: name of a convolution, or a callable that builds one from two widths, see :class:`GraphEncoder`.
        output: last layer: ``convolution`` if the last convolution gives the logits, with one head and neither norm nor
            ReLU, or ``linear`` for a linear map after all convolutions.
        input_dropout: probability that an entry of real node features is dropped, in [0, 1).
        dropout: probability that an entry is dropped after a hidden layer, in [0, 1).
        edge_channels: width of real edge features; None or 0 for none.
        degree_histogram: number of training nodes of in-degree 0, 1, 2, ...; required by pna.
        train_eps: whether gin and gine learn the weight of the node itself.
        options: further arguments of :class:`GraphEncoder`.

    Shape:
        x (N, in_channels), edge_index (2, E), batch (N,), edge_attr (E, edge_channels), ptr (G+1,) -> (N, K)

    Raises:
        ValueError: as for :class:`GraphEncoder`, if ``out_channels`` < 1, if ``input_dropout`` is outside [0, 1), or
            if ``output`` is "convolution" with fewer than two layers.

    Example:
        >>> import torch
        >>> network = NodeClassifier(3, 7, hidden_channels=16, num_layers=2, norm="none", dropout=0.5)
        >>> network(torch.randn(4, 3), torch.tensor([[0, 1, 2], [1, 2, 3]])).shape
        torch.Size([4, 7])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        hidden_channels: int = 64,
        num_layers: int = 2,
        conv: ConvolutionName | Callable[[int, int], nn.Module] = "gcn",
        *,
        output: Literal["convolution", "linear"] = "convolution",
        input_dropout: float = 0.0,
        dropout: float = 0.0,
        edge_channels: int | None = None,
        degree_histogram: list[int] | None = None,
        train_eps: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        positive(out_channels=out_channels)
        if output not in ("convolution", "linear"):
            raise ValueError(f"NodeClassifier(output={output!r}): accepted are 'convolution' and 'linear'")
        if output == "convolution" and num_layers < 2:
            raise ValueError(
                f"NodeClassifier(num_layers={num_layers}, output='convolution') has no hidden layer: give at least 2 "
                "layers, or output='linear'"
            )
        if not 0 <= input_dropout < 1:
            raise ValueError(f"NodeClassifier(input_dropout={input_dropout}): give a probability in [0, 1)")
        self.input_dropout = input_dropout
        shared: dict[str, Any] = {"degree_histogram": degree_histogram, "train_eps": train_eps}
        self.encoder = GraphEncoder(
            in_channels,
            hidden_channels,
            num_layers - 1 if output == "convolution" else num_layers,
            conv,
            edge_channels=edge_channels,
            dropout=dropout,
            degree_histogram=degree_histogram,
            train_eps=train_eps,
            **options,
        )
        self.graph_channels = self.encoder.graph_channels
        self.node_channels = self.encoder.node_channels
        self.convolves = output == "convolution"
        self.head = (
            make_convolution(conv, self.node_channels, out_channels, edge_channels=self.encoder.edge_channels, **shared)
            if self.convolves
            else nn.Linear(self.node_channels, out_channels)
        )

    def reset_parameters(self) -> None:
        """Reinitialise all parameters."""
        reset(self.encoder)
        reset(self.head)

    def _drop(self, x: Tensor) -> Tensor:
        drops = self.training and self.input_dropout > 0 and isinstance(x, Tensor) and x.is_floating_point()
        return F.dropout(x, self.input_dropout) if drops else x

    def encode(
        self,
        x: Tensor,
        edge_index: Tensor,
        batch: Tensor | None = None,
        edge_attr: Tensor | None = None,
        ptr: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return graph vectors (G, graph_channels) and node vectors (N, node_channels), the input of ``head``."""
        return self.encoder.encode(self._drop(x), edge_index, batch, edge_attr, ptr)

    def forward(
        self,
        x: Tensor,
        edge_index: Tensor,
        batch: Tensor | None = None,
        edge_attr: Tensor | None = None,
        ptr: Tensor | None = None,
    ) -> Tensor:
        """Return one row of logits for each node: (N, K)."""
        node = self.encoder.encode_nodes(self._drop(x), edge_index, batch, edge_attr, ptr)  # (N, node_channels)
        if self.convolves:
            return self.head(node, edge_index, **self.encoder.edge_arguments(edge_attr))
        return self.head(node)  # (N, K)
