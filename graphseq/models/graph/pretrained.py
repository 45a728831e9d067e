"""Classifier on a given graph encoder, such as a pre-trained one."""

from torch import Tensor, nn

from graphseq.core import PromptableEncoder, Recorded, missing_members
from graphseq.nn.causal import positive

__all__ = ["EncoderClassifier"]


class EncoderClassifier(Recorded, nn.Module):
    r"""Perceptron on the graph vectors of a given encoder; also for graph regression.

    .. math:: y_g = \mathrm{MLP}(z_g)

    With ``Pretrained(path)`` as encoder and one linear map it is the linear probe of a pre-trained encoder, with
    ``Pretrained(path, freeze=False)`` its fine-tuning.

    Args:
        encoder: module with ``encode_embedded`` and ``embed``, such as :class:`graphseq.models.GraphEncoder` or
            :class:`graphseq.nn.Pretrained`.
        out_channels: number K of classes or of predicted quantities.
        head_layers: number of linear maps of the perceptron, at least 1; hidden ones are as wide as a graph vector.

    Shape:
        x (N, in_channels), edge_index (2, E), batch (N,), edge_attr (E, edge_channels), ptr (G+1,) -> (G, K)

    Raises:
        TypeError: if the encoder lacks a method.
        ValueError: if ``out_channels`` or ``head_layers`` is below 1.

    Example:
        >>> import torch
        >>> from graphseq.models import GraphEncoder
        >>> network = EncoderClassifier(GraphEncoder(3, 8), out_channels=2)
        >>> network(torch.randn(4, 3), torch.tensor([[0, 1], [1, 2]])).shape
        torch.Size([1, 2])
    """

    def __init__(self, encoder: nn.Module, out_channels: int, head_layers: int = 1) -> None:
        super().__init__()
        if isinstance(encoder, type):
            raise TypeError(f"encoder is the class {encoder.__name__}; give an encoder that is built")
        lacking = missing_members(encoder, PromptableEncoder)
        if lacking:
            raise TypeError(f"encoder is a {type(encoder).__name__} without {', '.join(lacking)}; give a graph encoder")
        positive(out_channels=out_channels, head_layers=head_layers)
        self.encoder = encoder
        self.graph_channels, self.node_channels = self._encoder.graph_channels, self._encoder.node_channels
        layers: list[nn.Module] = []
        for _ in range(head_layers - 1):
            layers += [nn.Linear(self.graph_channels, self.graph_channels), nn.ReLU()]
        self.head = nn.Sequential(*layers, nn.Linear(self.graph_channels, out_channels))

    def reset_parameters(self) -> None:
        """Reinitialise the head; the encoder, whose weights may be pre-trained, stays as it is."""
        for layer in self.head:
            if isinstance(layer, nn.Linear):
                layer.reset_parameters()

    @property
    def _encoder(self) -> PromptableEncoder:
        return self.encoder  # type: ignore[return-value]  # checked by the constructor

    def encode(
        self,
        x: Tensor,
        edge_index: Tensor,
        batch: Tensor | None = None,
        edge_attr: Tensor | None = None,
        ptr: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return graph vectors (G, graph_channels), the input of ``head``, and node vectors (N, node_channels)."""
        h, edge = self._encoder.embed(x, edge_attr)
        return self._encoder.encode_embedded(h, edge_index, batch, edge, ptr)

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
