"""Inputs of a decoder that are computed from the symbol of its previous step."""

import torch
from torch import Tensor, nn

from graphseq.core import Recorded

__all__ = ["PointFeedback", "SymbolFeedback"]


class PointFeedback(Recorded, nn.Module):
    r"""Features of the input step that the last output points at; a learned vector at the first step.

    .. math:: z_i = x_{C_{i-1}}, \qquad z_0 = s

    Source: arXiv 1506.03134, section 2.3. Differs from it: none.

    Args:
        in_channels: number of features D of an input step, at least 1.

    Shape:
        x (B, T, D), previous int64 (B, M), -1 at the first step -> (B, M, D)

    Raises:
        ValueError: if ``in_channels`` is below 1; in ``forward`` if a shape or type does not fit.

    Example:
        >>> layer = PointFeedback(2)
        >>> layer(torch.arange(6.0).view(1, 3, 2), torch.tensor([[2, 0]])).tolist()
        [[[4.0, 5.0], [0.0, 1.0]]]
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        if in_channels < 1:
            raise ValueError(f"in_channels is {in_channels}; give a whole number of at least 1")
        self.output_size = in_channels
        self.start = nn.Parameter(torch.empty(in_channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Reinitialise the vector of the first step."""
        nn.init.uniform_(self.start, -0.08, 0.08)

    def forward(self, x: Tensor, previous: Tensor) -> Tensor:
        """Return the features of the steps that were pointed at.

        Args:
            x: inputs (B, T, D).
            previous: position of an input step, int64 (B, M); -1 for the learned vector.
        """
        if x.dim() != 3 or x.shape[2] != self.output_size or previous.dim() != 2 or len(previous) != len(x):
            raise ValueError(
                f"x has shape {tuple(x.shape)} and previous {tuple(previous.shape)}; (B, T, {self.output_size}) and "
                "(B, M) are needed"
            )
        _check_whole(previous)
        place = previous.clamp(min=0)[..., None].expand(-1, -1, x.shape[2])
        return torch.where(previous[..., None] < 0, self.start, x.gather(1, place))


class SymbolFeedback(Recorded, nn.Module):
    """Embedding of the symbol of the previous step; a separate learned vector at the first step.

    Args:
        num_symbols: number of symbols S, at least 1.
        channels: width D of an embedding, at least 1.

    Shape:
        x (B, T, *), previous int64 (B, M), -1 at the first step -> (B, M, D)

    Raises:
        ValueError: if a number is below 1; in ``forward`` if ``previous`` has another type.

    Example:
        >>> SymbolFeedback(4, 3)(torch.zeros(2, 5, 1), torch.tensor([[-1, 0], [-1, 3]])).shape
        torch.Size([2, 2, 3])
    """

    def __init__(self, num_symbols: int, channels: int) -> None:
        super().__init__()
        for name, size in (("num_symbols", num_symbols), ("channels", channels)):
            if size < 1:
                raise ValueError(f"{name} is {size}; give a whole number of at least 1")
        self.output_size = channels
        self.embedding = nn.Embedding(num_symbols + 1, channels)

    def reset_parameters(self) -> None:
        """Reinitialise the embeddings."""
        self.embedding.reset_parameters()

    def forward(self, x: Tensor, previous: Tensor) -> Tensor:
        """Return the embeddings.

        Args:
            x: inputs, which are not read.
            previous: symbols, int64 (B, M); -1 for the first step.
        """
        _check_whole(previous)
        return self.embedding(previous + 1)


def _check_whole(previous: Tensor) -> None:
    if previous.is_floating_point() or previous.is_complex() or previous.dtype == torch.bool:
        raise ValueError(f"previous is {previous.dtype}; whole numbers are needed")
