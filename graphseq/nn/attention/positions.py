"""Positions of steps: rotations of queries and keys, and embeddings that are added to the inputs."""

import torch
from torch import Tensor, nn

from graphseq.core import Recorded
from graphseq.nn.causal import CausalLayer, positive

__all__ = ["LearnedPositions", "NoPositions", "RotaryPositions"]


class NoPositions(Recorded, nn.Module):
    """Queries and keys as they are: attention without positions, or with those that the inputs hold already.

    Shape:
        x (B, H, T, K), position (B, T) -> (B, H, T, K)

    Example:
        >>> x = torch.randn(1, 2, 3, 4)
        >>> torch.equal(NoPositions()(x, torch.arange(3)[None]), x)
        True
    """

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        """Return ``x``.

        Args:
            x: queries or keys (B, H, T, K).
            position: position of each step (B, T).
        """
        return x


class RotaryPositions(Recorded, nn.Module):
    r"""Rotation of pairs of channels by angles proportional to the position.

    .. math:: R_t x = [\, x_1 \odot \cos t\theta - x_2 \odot \sin t\theta,\;
        x_1 \odot \sin t\theta + x_2 \odot \cos t\theta\,], \qquad \theta_i = \text{base}^{-2i/K}

    with the halves :math:`x_1, x_2` of the K channels, so that :math:`(R_t q) \cdot (R_s k)` depends on t - s alone.

    Source: arXiv 2104.09864, eq. 34. Differs from it: channel i is paired with channel i + K/2, as is usual.

    Args:
        base: base of the wavelengths, above 1.

    Shape:
        x (B, H, T, K) with even K, position (B, T) -> (B, H, T, K)

    Raises:
        ValueError: if ``base`` is not above 1, or in ``forward`` K is odd.

    Example:
        >>> x = torch.randn(1, 2, 3, 4)
        >>> y = RotaryPositions()(x, torch.arange(3)[None])
        >>> bool(torch.allclose(y.norm(dim=-1), x.norm(dim=-1)))
        True
    """

    def __init__(self, base: float = 10_000.0) -> None:
        super().__init__()
        if not base > 1:
            raise ValueError(f"base is {base}; it must be above 1")
        self.base = base

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        """Return the rotated queries or keys.

        Args:
            x: queries or keys (B, H, T, K).
            position: position of each step (B, T).
        """
        if x.shape[-1] % 2:
            raise ValueError(f"heads have {x.shape[-1]} channels; rotary positions need an even number")
        half = x.shape[-1] // 2
        speed = self.base ** (-torch.arange(half, device=x.device) / half)
        angle = (position[..., None] * speed)[:, None]  # (B, 1, T, K / 2)
        cosine, sine = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
        first, second = x.chunk(2, -1)
        return torch.cat([first * cosine - second * sine, first * sine + second * cosine], -1)

    def extra_repr(self) -> str:
        """Return the base."""
        return f"base={self.base:g}"


class LearnedPositions(Recorded, CausalLayer):
    r"""Sequence layer that adds a learned vector for each position.

    .. math:: y_t = x_t + P_t

    Its state is the number of steps so far, so that a sequence can be read in parts.

    Source: arXiv 1705.03122, section 3.1. Differs from it: none.

    Args:
        dim: number D of features.
        max_length: number of positions, at least 1.

    Shape:
        x (B, T, D), state (B,), lengths (B,) -> y (B, T, D)

    Raises:
        ValueError: if a size is below 1; in ``forward`` if ``x``, ``state`` or ``lengths`` does not fit, or there are
            more steps than positions.

    Example:
        >>> y, state = LearnedPositions(8, max_length=16)(torch.zeros(2, 5, 8))
        >>> y.shape, state.tolist()
        (torch.Size([2, 5, 8]), [5, 5])
    """

    def __init__(self, dim: int, max_length: int) -> None:
        super().__init__()
        positive(dim=dim, max_length=max_length)
        self.input_size = self.output_size = dim
        self.max_length = max_length
        self.weight = nn.Parameter(torch.empty(max_length, dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the vectors from N(0, 0.02²)."""
        nn.init.normal_(self.weight, std=0.02)

    def forward(self, x: Tensor, state: Tensor | None = None, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the sums and the number of steps up to the last one.

        Args:
            x: inputs (B, T, D).
            state: number of steps before, int64 (B,); None for 0.
            lengths: number of steps of each sequence, int64 (B,); None if all have T.
        """
        x, inside = self.checked(x, lengths)
        steps = x.shape[1]
        if state is not None:
            if not isinstance(state, Tensor) or state.is_floating_point() or state.dim() != 1:
                given = f"{state.dtype} {tuple(state.shape)}" if isinstance(state, Tensor) else type(state).__name__
                raise ValueError(f"state is {given}; numbers of steps, int64 ({len(x)},), are needed")
            if len(state) != len(x):
                raise ValueError(f"state is that of {len(state)} sequences; x has {len(x)}")
            if state.device.type == "cpu" and bool((state < 0).any()):
                raise ValueError(f"state holds {int(state.min())}; numbers of steps are at least 0")
        before = torch.zeros(len(x), dtype=torch.int64, device=x.device) if state is None else state
        # on a GPU values are not read, since that would synchronise; there the lookup itself fails
        known = before.device.type == "cpu" and len(before) > 0
        most = steps if state is None else steps + int(before.max()) if known else 0
        if most > self.max_length:
            raise ValueError(
                f"inputs reach position {most}; there are {self.max_length}: raise max_length, shorten the inputs, or "
                "use RotaryPositions in the attention"
            )
        y = x + self.weight[before[:, None] + torch.arange(steps, device=x.device)]
        after = before + (steps if lengths is None else lengths.to(x.device))
        return y if inside is None else y.masked_fill(~inside, 0), after

    def extra_repr(self) -> str:
        """Return the sizes."""
        return f"{self.input_size}, max_length={self.max_length}"
