"""Gated linear attention as a sequence layer."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphseq.core import Recorded
from graphseq.nn.attention.gates import LowRankGate
from graphseq.nn.causal import CausalLayer, positive
from graphseq.nn.conv.causal import CausalConvolution
from graphseq.ops.gated_linear import gated_linear_attention

__all__ = ["GatedLinearAttention"]


class GatedLinearAttention(Recorded, CausalLayer):
    r"""Linear attention whose state is decayed by gates that depend on the input, with a swish-gated output.

    .. math::
        S_t &= \operatorname{Diag}(\alpha_t)\, S_{t-1} + k_t^\top v_t, \qquad o_t = \tfrac{1}{\sqrt{K}}\, q_t S_t \\
        y_t &= \bigl(\operatorname{RMSNorm}(o_t) \odot \operatorname{swish}(x_t W_r)\bigr)\, W_o

    in each head, with q, k, v projections of x. ::

        x ─┬─ W_q, W_k, W_v ── [causal convolution, swish] ── q, k, v ─┐
           ├─ gate ── log alpha ───────────────────────────────────────┴─ attention ── norm ── * ── W_o ── y
           └─ W_r ── swish ──────────────────────────────────────────────────────────────────┘

    There is no positional encoding: the decay takes its place. All steps at once, parts of a sequence with the state
    passed on, and single steps give the same numbers; the state has the same size after any number of steps, so that a
    step costs the same at every position. See :func:`graphseq.ops.gated_linear_attention` for the forms of the
    computation. Padded steps do not change the state.

    Source: arXiv 2312.06635, section 4.4. Differs from it: RMSNorm without mean and no bias of the output gate, as in
    the authors' later code; an optional short convolution, as there; keys and values of all heads are separate.

    Args:
        dim: number D of features of inputs and outputs.
        num_heads: number H of heads, at least 1.
        key_ratio: width of all queries and keys together over ``dim``, above 0.
        value_ratio: width of all values together over ``dim``, above 0.
        gate: module from x (B, T, D) to logarithms of gates (B, T, key width), at most 0; None for
            :class:`LowRankGate`. Its attribute ``channels``, if there is one, is checked.
        kernel_size: number of steps of a causal convolution of queries, keys and values, followed by a swish; 0 for no
            convolution.
        eps: added to the mean square in the norm of each head.

    Shape:
        x (B, T, D), state (S (B, H, K, V), and the last inputs of the convolution), lengths (B,) -> y (B, T, D)

    Raises:
        ValueError: if a size is out of range, a width is not a multiple of ``num_heads``, or the gate has another
            number of channels; in ``forward`` if ``x``, ``state`` or ``lengths`` does not fit.
        TypeError: if ``gate`` is not a module.

    Example:
        >>> layer = GatedLinearAttention(16, num_heads=2)
        >>> x = torch.randn(2, 9, 16)
        >>> y, _ = layer(x)
        >>> first, state = layer(x[:, :5])
        >>> second, _ = layer(x[:, 5:], state)
        >>> bool(torch.allclose(torch.cat([first, second], 1), y, atol=1e-5))
        True
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 4,
        key_ratio: float = 0.5,
        value_ratio: float = 1.0,
        gate: nn.Module | None = None,
        kernel_size: int = 0,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        positive(dim=dim, num_heads=num_heads)
        if kernel_size < 0:
            raise ValueError(f"kernel_size is {kernel_size}; give 0 for no convolution, or at least 1")
        self.key_size, self.value_size = round(dim * key_ratio), round(dim * value_ratio)
        for name, width in (("key_ratio", self.key_size), ("value_ratio", self.value_size)):
            if width < 1 or width % num_heads:
                raise ValueError(
                    f"{name} gives a width of {width} for dim {dim}; it must be a multiple of num_heads, {num_heads}"
                )
        self.input_size = self.output_size = dim
        self.num_heads = num_heads
        self.query = nn.Linear(dim, self.key_size, bias=False)
        self.key = nn.Linear(dim, self.key_size, bias=False)
        self.value = nn.Linear(dim, self.value_size, bias=False)
        if gate is not None and not isinstance(gate, nn.Module):
            given = gate.__name__ if isinstance(gate, type) else repr(gate)
            raise TypeError(f"gate is {given}; give a module that is built, such as ConstantGate(channels), or None")
        self.gate = LowRankGate(dim, self.key_size) if gate is None else gate
        channels = getattr(self.gate, "channels", self.key_size)
        if channels != self.key_size:
            raise ValueError(f"gate has {channels} channels; the keys have {self.key_size}, dim times key_ratio")
        width = 2 * self.key_size + self.value_size
        self.convolution = CausalConvolution(width, kernel_size) if kernel_size else None
        self.norm = nn.RMSNorm(self.value_size // num_heads, eps=eps)
        self.output_gate = nn.Linear(dim, self.value_size, bias=False)
        self.output = nn.Linear(self.value_size, dim, bias=False)

    def reset_parameters(self) -> None:
        """Reinitialise all weights as in the constructor."""
        for module in self.children():
            reset = getattr(module, "reset_parameters", None)
            if reset is not None:
                reset()

    def forward(
        self, x: Tensor, state: tuple[Tensor, ...] | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the outputs of all steps and the state after the last one.

        Args:
            x: inputs (B, T, D).
            state: state before the first step, as this method returns it; None at the beginning of sequences.
            lengths: number of steps of each sequence, int64 (B,), each in 0..T; None if all have T.
        """
        x, inside = self.checked(x, lengths)
        parts = 1 if self.convolution is None else 2
        if state is not None and (not isinstance(state, tuple | list) or len(state) != parts):
            given = f"has {len(state)} parts" if isinstance(state, tuple | list) else f"is a {type(state).__name__}"
            raise ValueError(f"state {given}; this layer returns {parts}, in a tuple")
        matrix, tail = (None, None) if state is None else (state[0], state[-1])
        q, k, v = self.query(x), self.key(x), self.value(x)
        tails: tuple[Tensor, ...] = ()
        if self.convolution is not None:
            mixed, after = self.convolution(torch.cat([q, k, v], -1), tail, lengths)
            q, k, v = functional.silu(mixed).split([self.key_size, self.key_size, self.value_size], -1)
            tails = (after,)
        g = self.gate(x)  # (B, T, key width)
        if inside is not None:
            k, g = k.masked_fill(~inside, 0), g.masked_fill(~inside, 0)
        q, k, v, g = (part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in (q, k, v, g))
        o, matrix = gated_linear_attention(q, k, v, g, state=matrix)  # (B, H, T, V)
        o = self.norm(o.transpose(1, 2)).flatten(2)  # (B, T, value width)
        y = self.output(o * functional.silu(self.output_gate(x)))
        return y if inside is None else y.masked_fill(~inside, 0), (matrix, *tails)
