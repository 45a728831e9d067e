"""Softmax attention in several heads: causal, over all steps of a sequence, and over another sequence."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphseq.core import Recorded
from graphseq.core.batches import step_mask
from graphseq.nn.attention.positions import RotaryPositions
from graphseq.nn.causal import CausalLayer, checked_lengths, positive

__all__ = ["CausalAttention", "CrossAttention", "SelfAttention"]

AttentionState = tuple[Tensor, Tensor, Tensor, Tensor]


class _SelfAttention(CausalLayer):
    """Base class: projections of one sequence to queries, keys and values of several heads."""

    def __init__(
        self,
        dim: int,
        num_heads: int = 4,
        positions: nn.Module | None = None,
        bias: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        _check_heads(dim, num_heads, dropout)
        if positions is not None and not isinstance(positions, nn.Module):
            given = positions.__name__ if isinstance(positions, type) else repr(positions)
            raise TypeError(f"positions is {given}; give a module that is built, such as RotaryPositions(), or None")
        self.positions = RotaryPositions() if positions is None else positions
        if isinstance(self.positions, CausalLayer):
            raise TypeError(
                f"positions is a {type(positions).__name__}, which changes the inputs of a stack; give it to "
                "BlockStack, and NoPositions() or RotaryPositions() here"
            )
        if isinstance(self.positions, RotaryPositions) and dim // num_heads % 2:
            raise ValueError(
                f"dim is {dim}; with rotary positions it must be a multiple of twice num_heads, {2 * num_heads}"
            )
        self.input_size = self.output_size = dim
        self.num_heads, self.dropout = num_heads, dropout
        self.projection = nn.Linear(dim, 3 * dim, bias)
        self.output = nn.Linear(dim, dim, bias)

    def reset_parameters(self) -> None:
        """Reinitialise all weights as in the constructor."""
        self.projection.reset_parameters()
        self.output.reset_parameters()

    def extra_repr(self) -> str:
        """Return the sizes."""
        return f"{self.input_size}, num_heads={self.num_heads}"

    def _projected(self, x: Tensor, position: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values (B, H, T, K) of steps at positions (B, T)."""
        parts = self.projection(x).unflatten(-1, (3 * self.num_heads, -1)).transpose(1, 2)  # (B, 3 H, T, K)
        q, k, v = parts.chunk(3, 1)
        return self.positions(q, position), self.positions(k, position), v

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool = False) -> Tensor:
        """Return the projected outputs (B, T, D)."""
        return self.output(_attention(q, k, v, mask, causal, self.dropout if self.training else 0.0))


class CausalAttention(Recorded, _SelfAttention):
    r"""Softmax attention of each step over the steps up to it.

    .. math:: o_t = \sum_{s \le t} \operatorname{softmax}_s\!\Bigl(\tfrac{1}{\sqrt K}\,
        (R_t q_t) \cdot (R_s k_s)\Bigr)\, v_s, \qquad y = \operatorname{concat}(o)\, W_o

    in each head, with positions R. With ``prefix`` the leading steps of a sequence also attend to later steps of the
    prefix, as in a prefix language model (arXiv 1910.10683, section 3.2.1); its mask takes T² bytes for each sequence.
    The state holds the keys and values of all steps, so it grows, and so does the cost of a step.

    Source: arXiv 1706.03762, section 3.2. Differs from it: rotary positions and no biases, by default.

    Args:
        dim: number D of features of inputs and outputs.
        num_heads: number H of heads, at least 1.
        positions: module ``(x, position) -> x`` for queries and keys (B, H, T, K); None for :class:`RotaryPositions`.
        bias: whether the projections have biases.
        dropout: probability in [0, 1) of setting a weight of the attention to zero.

    Shape:
        x (B, T, D), state (keys and values (B, H, S, K), which of them exist (B, S), numbers of steps (B,)), lengths
        (B,) -> y (B, T, D)

    Raises:
        ValueError: if a size is out of range, or the width of a head is odd with rotary positions; in ``forward`` if
            ``x``, ``state``, ``lengths`` or ``prefix`` does not fit.
        TypeError: if ``positions`` is not a module, or one for the inputs of a stack.

    Example:
        >>> y, state = CausalAttention(8, num_heads=2)(torch.randn(2, 5, 8))
        >>> y.shape, state[0].shape
        (torch.Size([2, 5, 8]), torch.Size([2, 2, 5, 4]))
    """

    def forward(
        self,
        x: Tensor,
        state: AttentionState | None = None,
        lengths: Tensor | None = None,
        prefix: Tensor | None = None,
    ) -> tuple[Tensor, AttentionState]:
        """Return the outputs of all steps, and the keys and values up to the last one.

        Args:
            x: inputs (B, T, D).
            state: state before the first step, as this method returns it; None at the beginning of sequences.
            lengths: number of steps of each sequence, int64 (B,), each in 0..T; None if all have T.
            prefix: number of leading steps of each sequence that all of its steps attend to, int64 (B,), each in
                0..length; None for none. Only at the beginning of sequences.
        """
        x, inside = self.checked(x, lengths)
        batch, steps = x.shape[:2]
        if state is not None:
            self._check_state(state, batch)
        if prefix is not None and state is not None:
            raise ValueError("prefix and state are given; a prefix is read in one call, without a state before it")
        start = torch.zeros(batch, dtype=torch.int64, device=x.device) if state is None else state[3]
        q, k, v = self._projected(x, start[:, None] + torch.arange(steps, device=x.device))
        exist = torch.ones(batch, steps, dtype=torch.bool, device=x.device) if inside is None else inside[..., 0]
        if state is not None:
            seen = torch.cat([state[2][:, None].expand(-1, steps, -1), _causal(x).expand(batch, -1, -1)], 2)
            k, v, exist = torch.cat([state[0], k], 2), torch.cat([state[1], v], 2), torch.cat([state[2], exist], 1)
            y = self._attend(q, k, v, seen[:, None])  # (B, 1, T, S + T)
        elif prefix is None:
            y = self._attend(q, k, v, None, causal=True)  # padding comes after all steps
        else:
            checked_lengths(prefix, batch, steps, "prefix")
            shown = prefix.to(x.device)
            if lengths is not None:  # padding is never seen
                shown = torch.minimum(shown, lengths.to(x.device))
            read = step_mask(shown, steps)[:, None]  # (B, 1, T)
            y = self._attend(q, k, v, (_causal(x) | read)[:, None])
        count = start + (steps if lengths is None else lengths.to(x.device))
        return y if inside is None else y.masked_fill(~inside, 0), (k, v, exist, count)

    def _check_state(self, state: AttentionState, batch: int) -> None:
        if not isinstance(state, tuple | list) or len(state) != 4:
            given = f"{len(state)} parts" if isinstance(state, tuple | list) else f"a {type(state).__name__}"
            raise ValueError(f"state is {given}; give the four parts that this layer returned, or None")
        if len(state[0]) != batch:
            raise ValueError(f"state is that of {len(state[0])} sequences; x has {batch}")
        steps = state[0].shape[2] if state[0].dim() == 4 else 0
        kept = (batch, self.num_heads, steps, self.input_size // self.num_heads)
        if [part.shape for part in state] != [kept, kept, (batch, steps), (batch,)]:
            shapes = ", ".join(str(tuple(part.shape)) for part in state)
            raise ValueError(
                f"state has shapes {shapes}; with {self.num_heads} heads of {kept[3]} channels "
                f"({batch}, {self.num_heads}, S, {kept[3]}) twice, ({batch}, S) and ({batch},) are needed"
            )


class SelfAttention(Recorded, _SelfAttention):
    r"""Softmax attention of each step over all steps of its sequence, as in an encoder.

    .. math:: o_t = \sum_{s < n} \operatorname{softmax}_s\!\Bigl(\tfrac{1}{\sqrt K}\,
        (R_t q_t) \cdot (R_s k_s)\Bigr)\, v_s, \qquad y = \operatorname{concat}(o)\, W_o

    in each head, with positions R and the length n of the sequence. It is not causal: it has no state, and needs the
    whole sequence.

    Source: arXiv 1706.03762, section 3.2. Differs from it: rotary positions and no biases, by default.

    Args:
        dim: number D of features of inputs and outputs.
        num_heads: number H of heads, at least 1.
        positions: module ``(x, position) -> x`` for queries and keys (B, H, T, K); None for :class:`RotaryPositions`.
        bias: whether the projections have biases.
        dropout: probability in [0, 1) of setting a weight of the attention to zero.

    Shape:
        x (B, T, D), lengths (B,) -> y (B, T, D)

    Raises:
        ValueError: if a size is out of range, or the width of a head is odd with rotary positions; in ``forward`` if
            ``x`` or ``lengths`` does not fit, or a state is given.
        TypeError: if ``positions`` is not a module, or one for the inputs of a stack.

    Example:
        >>> y, _ = SelfAttention(8, num_heads=2)(torch.randn(2, 5, 8), lengths=torch.tensor([5, 3]))
        >>> y.shape, float(y[1, 3:].detach().abs().sum())
        (torch.Size([2, 5, 8]), 0.0)
    """

    bidirectional = True

    def forward(self, x: Tensor, state: None = None, lengths: Tensor | None = None) -> tuple[Tensor, None]:
        """Return the outputs of all steps, and None.

        Args:
            x: inputs (B, T, D).
            state: None; sequences cannot be read in parts.
            lengths: number of steps of each sequence, int64 (B,), each in 0..T; None if all have T.
        """
        if state is not None:
            raise ValueError("state is given; SelfAttention takes sequences as a whole, so CausalAttention is needed")
        x, inside = self.checked(x, lengths)
        steps = torch.arange(x.shape[1], device=x.device)
        q, k, v = self._projected(x, steps[None])
        y = self._attend(q, k, v, None if inside is None else _readable(inside[..., 0]))
        return y if inside is None else y.masked_fill(~inside, 0), None


class CrossAttention(Recorded, nn.Module):
    r"""Softmax attention of each step over all steps of another sequence.

    .. math:: o_t = \sum_{s < m} \operatorname{softmax}_s\!\Bigl(\tfrac{1}{\sqrt K}\, q_t \cdot k_s\Bigr)\, v_s,
        \qquad y = \operatorname{concat}(o)\, W_o

    with q from the inputs, and k and v from the m steps of the memory. Keys and values are computed once, by
    :meth:`project`, and serve all steps of a decoder.

    Source: arXiv 1706.03762, section 3.2. Differs from it: no biases, by default.

    Args:
        dim: number D of features of inputs and outputs.
        num_heads: number H of heads, at least 1.
        memory_dim: number of features of the memory; None for ``dim``.
        bias: whether the projections have biases.
        dropout: probability in [0, 1) of setting a weight of the attention to zero.

    Shape:
        x (B, T, D), keys and values (B, H, M, K), inside (B, M) -> y (B, T, D)

    Raises:
        ValueError: if a size is out of range; in ``forward`` if shapes do not fit.

    Example:
        >>> layer = CrossAttention(8, num_heads=2, memory_dim=6)
        >>> layer(torch.randn(2, 5, 8), *layer.project(torch.randn(2, 7, 6))).shape
        torch.Size([2, 5, 8])
    """

    def __init__(
        self, dim: int, num_heads: int = 4, memory_dim: int | None = None, bias: bool = False, dropout: float = 0.0
    ) -> None:
        super().__init__()
        _check_heads(dim, num_heads, dropout)
        memory_dim = dim if memory_dim is None else memory_dim
        positive(memory_dim=memory_dim)
        self.dim, self.memory_dim, self.num_heads, self.dropout = dim, memory_dim, num_heads, dropout
        self.query = nn.Linear(dim, dim, bias)
        self.key_and_value = nn.Linear(memory_dim, 2 * dim, bias)
        self.output = nn.Linear(dim, dim, bias)

    def reset_parameters(self) -> None:
        """Reinitialise all weights as in the constructor."""
        for layer in (self.query, self.key_and_value, self.output):
            layer.reset_parameters()

    def project(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values (B, H, M, K) of the memory.

        Args:
            memory: features of each step (B, M, memory_dim).
        """
        if memory.dim() != 3 or memory.shape[2] != self.memory_dim:
            raise ValueError(f"memory has shape {tuple(memory.shape)}; (B, M, {self.memory_dim}) is needed")
        keys, values = self._heads(self.key_and_value(memory), 2 * self.num_heads).chunk(2, 1)
        return keys, values

    def _heads(self, x: Tensor, number: int) -> Tensor:
        return x.unflatten(-1, (number, -1)).transpose(1, 2)  # (B, H, T, K)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, inside: Tensor | None = None) -> Tensor:
        """Return the outputs of all steps.

        Args:
            x: inputs (B, T, D).
            keys: keys of the memory (B, H, M, K), of :meth:`project`.
            values: values of the memory (B, H, M, K), of :meth:`project`.
            inside: true where a step of the memory exists, bool (B, M); None if all do.
        """
        if x.dim() != 3 or x.shape[2] != self.dim or len(x) != len(keys):
            raise ValueError(
                f"inputs have shape {tuple(x.shape)}; ({len(keys)}, T, {self.dim}) is needed, one row for each memory"
            )
        if inside is not None and (inside.dtype != torch.bool or inside.shape != (len(keys), keys.shape[2])):
            raise ValueError(
                f"inside is {inside.dtype} {tuple(inside.shape)}; a bool tensor {(len(keys), keys.shape[2])}, true "
                "where a step of the memory exists, is needed"
            )
        mask = None if inside is None else _readable(inside)
        q = self._heads(self.query(x), self.num_heads)
        return self.output(_attention(q, keys, values, mask, False, self.dropout if self.training else 0.0))


def _attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, dropout: float) -> Tensor:
    """Return the outputs of all heads side by side, (B, T, H K)."""
    o = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=causal)
    return o.transpose(1, 2).flatten(2)


def _causal(x: Tensor) -> Tensor:
    """Return which steps each step may see, bool (1, T, T)."""
    return torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()[None]


def _readable(inside: Tensor) -> Tensor:
    """Return the mask (B, 1, 1, M) of steps that can be read; a row without any reads its padding, for finite sums."""
    first = torch.arange(inside.shape[1], device=inside.device) == 0
    return (inside | (~inside.any(1, keepdim=True) & first))[:, None, None]


def _check_heads(dim: int, num_heads: int, dropout: float) -> None:
    positive(dim=dim, num_heads=num_heads)
    if dim % num_heads:
        raise ValueError(f"dim is {dim}; it must be a multiple of num_heads, {num_heads}")
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"dropout is {dropout}; give a probability in [0, 1)")
