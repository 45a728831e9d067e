"""Attention pooling: a set of vectors is summarised by a transformer at a learned extra position."""

import torch
from torch import Tensor, nn

from graphseq.core import Recorded

__all__ = ["AttentionPooling"]


class AttentionPooling(Recorded, nn.Module):
    r"""Summary of a set of vectors: the output of a transformer at a learned vector that is put before them.

    .. math:: u = \mathrm{Transformer}([u_0, h_1, \dots, h_N])_0

    The layers are those of ``torch.nn.TransformerEncoderLayer`` with GELU and norms after each part. There are no
    positions: the order of the vectors does not matter unless positions have been added to them.

    Source: arXiv 1906.02940. Differs from it: the width of the feed-forward parts can be chosen.

    Args:
        dim: width D of the vectors.
        num_layers: number of layers, at least 1; 3 as published.
        num_heads: number of attention heads, a divisor of ``dim``.
        hidden_features: width of the feed-forward parts; None for ``dim``.
        dropout: probability in [0, 1) of setting a value to zero in training, inside the layers.

    Shape:
        h (B, N, dim) -> (B, dim)

    Raises:
        ValueError: if an argument is out of range; in ``forward`` if ``h`` has another shape.
        TypeError: in ``forward``, if ``h`` has an integer type.

    Example:
        >>> AttentionPooling(16)(torch.randn(2, 5, 16)).shape
        torch.Size([2, 16])
    """

    def __init__(
        self,
        dim: int,
        num_layers: int = 3,
        num_heads: int = 4,
        hidden_features: int | None = None,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        hidden = dim if hidden_features is None else hidden_features
        for name, size in {"dim": dim, "num_layers": num_layers, "hidden_features": hidden}.items():
            if size < 1:
                raise ValueError(f"{name} is {size}; it must be at least 1")
        if num_heads < 1 or dim % num_heads:
            raise ValueError(f"num_heads is {num_heads}; it must be a divisor of dim={dim}")
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout is {dropout}; give a probability in [0, 1)")
        self.dim = dim
        self.start = nn.Parameter(torch.empty(dim))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(dim, num_heads, hidden, dropout, nn.functional.gelu, batch_first=True)
            for _ in range(num_layers)
        )
        nn.init.normal_(self.start, std=0.02)

    def reset_parameters(self) -> None:
        """Reinitialise the learned vector and all layers."""
        nn.init.normal_(self.start, std=0.02)
        for module in self.layers.modules():
            if isinstance(module, nn.MultiheadAttention):
                module._reset_parameters()
            elif isinstance(module, nn.Linear | nn.LayerNorm):
                module.reset_parameters()

    def forward(self, h: Tensor) -> Tensor:
        """Return the summaries.

        Args:
            h: vectors (B, N, dim).
        """
        if h.dim() != 3 or h.shape[2] != self.dim:
            raise ValueError(f"vectors have shape {tuple(h.shape)}; (B, N, {self.dim}) is needed")
        if not h.is_floating_point():
            raise TypeError(f"vectors are {h.dtype}; give real numbers")
        h = torch.cat([self.start.to(h.dtype).expand(len(h), 1, -1), h], 1)  # (B, 1 + N, dim)
        for layer in self.layers:
            h = layer(h)
        return h[:, 0]
