"""Decoder of node classification: logits of a node from its embedding."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from graphseq.core.spec import Recorded

__all__ = ["NodeDecoder"]


class NodeDecoder(Recorded, nn.Module):
    r"""Logits of a node from its embedding, by a small perceptron with dropout.

    .. math:: f(h) = W_3\, d(\mathrm{ReLU}(W_2\, d(\mathrm{ReLU}(W_1 h + b_1)) + b_2)) + b_3

    Source: the code of arXiv 2006.10637 (its decoder of node labels, widths 80 and 10). Differs from it: none.

    Args:
        in_channels: width of an embedding.
        out_channels: number of logits of a node; 1 for a binary state change.
        hidden_channels: widths of the hidden layers; None for 80 and 10.
        dropout: dropout probability after each hidden layer, in [0, 1).

    Shape:
        h (R, D) -> (R, K)

    Raises:
        ValueError: if a width is below 1 or ``dropout`` out of range.

    Example:
        >>> import torch
        >>> NodeDecoder(100)(torch.randn(5, 100)).shape
        torch.Size([5, 1])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 1,
        *,
        hidden_channels: Sequence[int] | None = None,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        hidden = [80, 10] if hidden_channels is None else list(hidden_channels)
        if min(in_channels, out_channels, *hidden) < 1:
            raise ValueError(
                f"in_channels is {in_channels}, out_channels {out_channels}, hidden_channels {hidden}; all must be >= 1"
            )
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout is {dropout}; it must be in [0, 1)")
        widths = [in_channels, *hidden]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], out_channels))

    def reset_parameters(self) -> None:
        """Reinitialise weights and biases as ``nn.Linear`` does."""
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                layer.reset_parameters()

    def forward(self, h: Tensor) -> Tensor:
        """Return the logits of nodes.

        Args:
            h: embedding of each node (R, D).
        """
        return self.layers(h)
