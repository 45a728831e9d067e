"""Attention within chunks, over the outputs of a layer whose receptive field exceeds a chunk."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphseq.core import Recorded
from graphseq.nn.causal import CausalLayer, positive
from graphseq.ops.sequences.chunks import chunked_attention

__all__ = ["ChunkedAttention", "GatedChunkedAttention"]


class ChunkedAttention(Recorded, CausalLayer):
    r"""Softmax attention within chunks, over the outputs of a layer whose receptive field exceeds a chunk.

    .. math:: X' = \operatorname{mixer}(X), \qquad
        Y = \operatorname{Attention}_C(X' W_q,\; X' W_k,\; X' W_v)\, W_o

    with one head. Attention stays within chunks of C steps, so that its cost is O(T C); information from other chunks
    comes through the mixer only. In :class:`SequenceBlock` it is the simplified block of TCNCA, without the gates of
    MEGA.

    Source: arXiv 2312.05605, abstract: the body of the paper could not be read, and there is no official code.

    Args:
        dim: number D of features of inputs and outputs.
        mixer: sequence layer of width D before the attention, such as :class:`TreeConvolution` or
            :class:`MovingAverage`; None for none.
        chunk_size: number C of steps of a chunk, at least 1.

    Shape:
        x (B, T, D), state (that of the mixer, and that of the chunk), lengths (B,) -> y (B, T, D)

    Raises:
        ValueError: if a size is below 1, or the mixer has another width; in ``forward`` if ``x``, ``state`` or
            ``lengths`` does not fit.
        TypeError: if ``mixer`` is not a module.

    Example:
        >>> from graphseq.nn import TreeConvolution
        >>> layer = ChunkedAttention(8, TreeConvolution(8, kernel_size=4, depth=2), chunk_size=4)
        >>> layer(torch.randn(2, 9, 8))[0].shape
        torch.Size([2, 9, 8])
    """

    def __init__(self, dim: int, mixer: nn.Module | None = None, chunk_size: int = 128) -> None:
        super().__init__()
        positive(dim=dim, chunk_size=chunk_size)
        _check_width(mixer, dim)
        self.input_size = self.output_size = dim
        self.mixer = mixer
        self.projection = nn.Linear(dim, 3 * dim, bias=False)
        self.output = nn.Linear(dim, dim, bias=False)
        self.bias = nn.Parameter(torch.zeros(chunk_size))

    def reset_parameters(self) -> None:
        """Reinitialise all weights as in the constructor."""
        _reset_children(self)
        nn.init.zeros_(self.bias)

    def forward(
        self, x: Tensor, state: tuple[Any, Any] | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, tuple[Any, Any]]:
        """Return the outputs of all steps and the state after the last one.

        Args:
            x: inputs (B, T, D).
            state: state before the first step, as this method returns it; None at the beginning of sequences.
            lengths: number of steps of each sequence, int64 (B,), each in 0..T; None if all have T.
        """
        x, inside = self.checked(x, lengths)
        before, chunk = _split(state)
        mixed, after = (x, None) if self.mixer is None else self.mixer(x, before, lengths)
        q, k, v = self.projection(mixed).chunk(3, -1)
        o, chunk = chunked_attention(q, k, v, self.bias, state=chunk, lengths=lengths)
        y = self.output(o)
        return y if inside is None else y.masked_fill(~inside, 0), (after, chunk)


class GatedChunkedAttention(Recorded, CausalLayer):
    r"""Gated attention within chunks, over the outputs of a layer that reaches further: the layer of MEGA.

    .. math::
        X' &= \operatorname{mixer}(\operatorname{norm}(X)), \quad Z = \phi(X' W_z), \quad
            Q = \kappa_q \odot Z + \mu_q, \quad K = \kappa_k \odot Z + \mu_k \\
        O &= \operatorname{Attention}_C\bigl(Q, K, \phi(\operatorname{norm}(X) W_v)\bigr), \qquad
            \gamma = \phi(X' W_\gamma), \quad u = \sigma(X' W_u) \\
        Y &= u \odot \phi\bigl(X' W_h + (\gamma \odot O)\, U_h\bigr) + (1 - u) \odot X

    with :math:`\phi` the swish, and biases left out above. With :class:`MovingAverage` as the mixer it is MEGA's layer
    with chunks, with :class:`TreeConvolution` that of TCNCA. It has its own residual path: put it into a stack as a
    block of its own, not as the mixer of a ``SequenceBlock``, and add a feed-forward part after it if needed.

    Source: arXiv 2209.10655, section 3.3, from memory, and arXiv 2312.05605, abstract: its body could not be read, and
    there is no official code. Differs from them: RMSNorm before it, softmax scores alone.

    Args:
        dim: number D of features of inputs and outputs.
        mixer: sequence layer of width D before the attention; None for none.
        chunk_size: number C of steps of a chunk, at least 1.
        key_size: width Z of queries and keys, at least 1.
        value_size: width V of the values; None for 2 D.

    Shape:
        x (B, T, D), state (that of the mixer, and that of the chunk), lengths (B,) -> y (B, T, D)

    Raises:
        ValueError: if a size is below 1, or the mixer has another width; in ``forward`` if ``x``, ``state`` or
            ``lengths`` does not fit.
        TypeError: if ``mixer`` is not a module.

    Example:
        >>> from graphseq.nn import MovingAverage
        >>> layer = GatedChunkedAttention(8, MovingAverage(8), chunk_size=4)
        >>> layer(torch.randn(2, 9, 8))[0].shape
        torch.Size([2, 9, 8])
    """

    def __init__(
        self,
        dim: int,
        mixer: nn.Module | None = None,
        chunk_size: int = 128,
        key_size: int = 64,
        value_size: int | None = None,
    ) -> None:
        super().__init__()
        values = 2 * dim if value_size is None else value_size
        positive(dim=dim, chunk_size=chunk_size, key_size=key_size, value_size=values)
        _check_width(mixer, dim)
        self.input_size = self.output_size = dim
        self.key_size, self.value_size = key_size, values
        self.mixer = mixer
        self.norm = nn.RMSNorm(dim, eps=1e-6)
        self.value = nn.Linear(dim, values)
        self.mixed = nn.Linear(dim, key_size + values + 2 * dim)  # Z, gamma, u and the first part of the candidate
        self.attended = nn.Linear(values, dim, bias=False)
        self.scales = nn.Parameter(torch.ones(2, key_size))  # of queries and keys
        self.offsets = nn.Parameter(torch.zeros(2, key_size))
        self.bias = nn.Parameter(torch.zeros(chunk_size))

    def reset_parameters(self) -> None:
        """Reinitialise all weights as in the constructor."""
        _reset_children(self)
        nn.init.ones_(self.scales)
        nn.init.zeros_(self.offsets)
        nn.init.zeros_(self.bias)

    def forward(
        self, x: Tensor, state: tuple[Any, Any] | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, tuple[Any, Any]]:
        """Return the outputs of all steps and the state after the last one.

        Args:
            x: inputs (B, T, D).
            state: state before the first step, as this method returns it; None at the beginning of sequences.
            lengths: number of steps of each sequence, int64 (B,), each in 0..T; None if all have T.
        """
        x, inside = self.checked(x, lengths)
        before, chunk = _split(state)
        normed = self.norm(x)
        mixed, after = (normed, None) if self.mixer is None else self.mixer(normed, before, lengths)
        sizes = [self.key_size, self.value_size, self.input_size, self.input_size]
        z, gamma, update, candidate = self.mixed(mixed).split(sizes, -1)
        q, k = (self.scales * functional.silu(z)[..., None, :] + self.offsets).unbind(-2)  # (B, T, Z) twice
        v = functional.silu(self.value(normed))
        o, chunk = chunked_attention(q, k, v, self.bias, state=chunk, lengths=lengths)
        new = functional.silu(candidate + self.attended(functional.silu(gamma) * o))
        y = torch.lerp(x, new.to(x.dtype), update.sigmoid().to(x.dtype))  # autocast lowers all but x
        return y if inside is None else y.masked_fill(~inside, 0), (after, chunk)


def _check_width(mixer: nn.Module | None, dim: int) -> None:
    """Check that a mixer takes and gives as many features as the attention."""
    if mixer is None:
        return
    if not isinstance(mixer, nn.Module):
        given = mixer.__name__ if isinstance(mixer, type) else repr(mixer)
        raise TypeError(f"mixer is {given}; give a sequence layer that is built, such as MovingAverage({dim}), or None")
    sizes = [getattr(mixer, size, None) for size in ("input_size", "output_size")]
    if sizes != [dim, dim]:
        raise ValueError(f"mixer has inputs and outputs of size {sizes[0]} and {sizes[1]}; both must be dim, {dim}")


def _split(state: tuple[Any, Any] | None) -> tuple[Any, Any]:
    """Return the state of the mixer and that of the chunk."""
    if state is None:
        return None, None
    if not isinstance(state, tuple | list) or len(state) != 2:
        raise ValueError(
            "state is not a pair; give the states of mixer and chunk, as this layer returned them, or None"
        )
    chunk = state[1]
    if chunk is not None and (not isinstance(chunk, tuple | list) or len(chunk) != 3):
        raise ValueError("state[1] is not the state of a chunk; give the state that this layer returned, or None")
    return state[0], chunk


def _reset_children(layer: nn.Module) -> None:
    """Reinitialise the parts of a layer that say how."""
    for module in layer.children():
        reset = getattr(module, "reset_parameters", None)
        if reset is not None:
            reset()
