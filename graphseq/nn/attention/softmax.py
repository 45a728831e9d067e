"""Causal softmax attention with rotary positions, as a sequence layer."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphseq.core import Recorded
from graphseq.nn.causal import CausalLayer, positive

__all__ = ["CausalAttention"]

AttentionState = tuple[Tensor, Tensor, Tensor, Tensor]


class CausalAttention(Recorded, CausalLayer):
    r"""Softmax attention of each step over the steps up to it, with rotary positions.

    .. math:: o_t = \sum_{s \le t} \operatorname{softmax}_s\!\Bigl(\tfrac{1}{\sqrt K}\,
        (R_t q_t) \cdot (R_s k_s)\Bigr)\, v_s, \qquad y = \operatorname{concat}(o)\, W_o

    in each head, with rotations R of pairs of channels by angles proportional to the position. The state holds the
    keys and values of all steps, so it grows, and so does the cost of a step: this is the layer with which those of
    constant cost are compared.

    Source: arXiv 1706.03762, section 3.2, and arXiv 2104.09864, eq. 34 (rotary positions). Differs from it: no biases.

    Args:
        dim: number D of features of inputs and outputs.
        num_heads: number H of heads, at least 1.
        base: base of the wavelengths of the rotary positions, above 1.

    Shape:
        x (B, T, D), state (keys and values (B, H, S, K), which of them exist (B, S), numbers of steps (B,)), lengths
        (B,) -> y (B, T, D)

    Raises:
        ValueError: if a size is out of range, or the width of a head is odd; in ``forward`` if ``x``, ``state`` or
            ``lengths`` does not fit.

    Example:
        >>> y, state = CausalAttention(8, num_heads=2)(torch.randn(2, 5, 8))
        >>> y.shape, state[0].shape
        (torch.Size([2, 5, 8]), torch.Size([2, 2, 5, 4]))
    """

    def __init__(self, dim: int, num_heads: int = 4, base: float = 10_000.0) -> None:
        super().__init__()
        positive(dim=dim, num_heads=num_heads)
        if dim % (2 * num_heads):
            raise ValueError(f"dim is {dim}; it must be a multiple of twice num_heads, {2 * num_heads}")
        if not base > 1:
            raise ValueError(f"base is {base}; it must be above 1")
        self.input_size = self.output_size = dim
        self.num_heads, self.base = num_heads, base
        self.projection = nn.Linear(dim, 3 * dim, bias=False)
        self.output = nn.Linear(dim, dim, bias=False)

    def reset_parameters(self) -> None:
        """Reinitialise all weights as in the constructor."""
        self.projection.reset_parameters()
        self.output.reset_parameters()

    def forward(
        self, x: Tensor, state: AttentionState | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, AttentionState]:
        """Return the outputs of all steps, and the keys and values up to the last one.

        Args:
            x: inputs (B, T, D).
            state: state before the first step, as this method returns it; None at the beginning of sequences.
            lengths: number of steps of each sequence, int64 (B,), each in 0..T; None if all have T.
        """
        x, inside = self.checked(x, lengths)
        batch, steps = x.shape[:2]
        if state is not None and len(state[0]) != batch:
            raise ValueError(f"state is that of {len(state[0])} sequences; x has {batch}")
        start = torch.zeros(batch, dtype=torch.int64, device=x.device) if state is None else state[3]
        parts = self.projection(x).unflatten(-1, (3 * self.num_heads, -1)).transpose(1, 2)  # (B, 3 H, T, K)
        q, k, v = parts.chunk(3, 1)
        position = start[:, None] + torch.arange(steps, device=x.device)  # (B, T)
        q, k = _rotated(q, position, self.base), _rotated(k, position, self.base)
        exist = torch.ones(batch, steps, dtype=torch.bool, device=x.device) if inside is None else inside[..., 0]
        if state is None:
            o = functional.scaled_dot_product_attention(q, k, v, is_causal=True)  # padding comes after all steps
        else:
            causal = torch.ones(steps, steps, dtype=torch.bool, device=x.device).tril().expand(batch, -1, -1)
            seen = torch.cat([state[2][:, None].expand(-1, steps, -1), causal], 2)  # (B, T, S + T)
            k, v, exist = torch.cat([state[0], k], 2), torch.cat([state[1], v], 2), torch.cat([state[2], exist], 1)
            o = functional.scaled_dot_product_attention(q, k, v, attn_mask=seen[:, None])
        y = self.output(o.transpose(1, 2).flatten(2))  # (B, T, D)
        count = start + (steps if lengths is None else lengths.to(x.device))
        return y if inside is None else y.masked_fill(~inside, 0), (k, v, exist, count)


def _rotated(x: Tensor, position: Tensor, base: float) -> Tensor:
    """Rotate pairs of channels of queries or keys (B, H, T, K) by angles proportional to positions (B, T)."""
    half = x.shape[-1] // 2
    speed = base ** (-torch.arange(half, device=x.device) / half)
    angle = (position[..., None] * speed)[:, None]  # (B, 1, T, K / 2)
    cosine, sine = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    first, second = x.chunk(2, -1)
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine], -1)
