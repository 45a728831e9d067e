"""Decoder of link prediction: the logit of an event from the embeddings of its nodes."""

from torch import Tensor, nn
from torch.nn import functional

from graphseq.core.spec import Recorded
from graphseq.ops.processor import reads_are_free

__all__ = ["LinkDecoder"]


class LinkDecoder(Recorded, nn.Module):
    r"""Logit of an event between two nodes.

    .. math:: f(u, v) = w^\top \mathrm{ReLU}(W_s h_u + W_d h_v + b) + c

    Source: arXiv 2006.10637, section 3 (a two-layer perceptron on both embeddings). Differs from it: none; each half
    of the first layer is applied to the selected rows or to all rows, whichever are fewer.

    Args:
        in_channels: width of an embedding.
        hidden_channels: width of the hidden layer; None for ``in_channels``.

    Shape:
        h (R, D), source (*), destination (*), which may be broadcast -> (*)

    Raises:
        ValueError: if a width is below 1; in ``forward`` if rows have different numbers of axes.
        IndexError: in ``forward``, on the CPU, if there is no such row.

    Example:
        >>> import torch
        >>> pairs = torch.tensor([0, 0]), torch.tensor([1, 2])
        >>> LinkDecoder(8)(torch.randn(3, 8), *pairs).shape
        torch.Size([2])
    """

    def __init__(self, in_channels: int, hidden_channels: int | None = None) -> None:
        super().__init__()
        hidden_channels = in_channels if hidden_channels is None else hidden_channels
        if in_channels < 1 or hidden_channels < 1:
            raise ValueError(f"in_channels is {in_channels}, hidden_channels {hidden_channels}; both must be >= 1")
        self.source = nn.Linear(in_channels, hidden_channels)
        self.destination = nn.Linear(in_channels, hidden_channels, bias=False)
        self.out = nn.Linear(hidden_channels, 1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise weights by Xavier's rule, biases as ``nn.Linear`` does."""
        for linear in (self.source, self.destination, self.out):
            linear.reset_parameters()
            nn.init.xavier_normal_(linear.weight)

    def forward(self, h: Tensor, source: Tensor, destination: Tensor) -> Tensor:
        """Return the logits of pairs of rows.

        Args:
            h: embedding of each row (R, D).
            source: row of each pair's source (*); (B, 1) for one source with all its destinations (B, M).
            destination: row of each pair's destination (*).
        """
        if source.dim() != destination.dim():  # (B,) and (B, B) would be broadcast the wrong way
            raise ValueError(
                f"source is {tuple(source.shape)}, destination {tuple(destination.shape)}; give both as many axes, "
                "source[:, None] for one source with several destinations"
            )
        left, right = _half(self.source, h, source), _half(self.destination, h, destination)
        return self.out(functional.relu(left + right)).squeeze(-1)


def _half(linear: nn.Linear, h: Tensor, rows: Tensor) -> Tensor:
    """Return ``linear(h[rows])``; each distinct row is multiplied once if that is less work."""
    flat = rows.flatten()
    first, count = 0, len(h)
    if reads_are_free(h.device) and len(flat):  # sources and destinations of a bipartite stream each lie side by side
        low, high = (int(bound) for bound in flat.aminmax())
        if low < 0 or high >= len(h):
            raise IndexError(f"rows run from {low} to {high}; there are {len(h)} embeddings, counted from 0")
        first, count = low, high + 1 - low
    if len(flat) < count:
        result = linear(h.index_select(0, flat))
    else:
        result = linear(h.narrow(0, first, count)).index_select(0, flat - first)
    return result.view(*rows.shape, result.size(1))
