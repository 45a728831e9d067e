"""Residual blocks around any sequence layer, and stacks of them."""

import copy
from typing import Any

from torch import Tensor, nn

from graphseq.core import Recorded
from graphseq.nn.blocks.feed_forward import SwiGLU
from graphseq.nn.causal import CausalLayer, positive

__all__ = ["BlockStack", "SequenceBlock"]


class SequenceBlock(Recorded, CausalLayer):
    r"""Pre-norm residual block: a layer that mixes steps, then a feed-forward part.

    .. math:: h = x + \operatorname{mixer}(\operatorname{RMSNorm}(x)), \qquad
        y = h + \operatorname{FFN}(\operatorname{RMSNorm}(h))

    Its state is that of the mixer.

    Source: arXiv 2312.06635, section 4.4. Differs from it: any layer can be the mixer.

    Args:
        mixer: sequence layer ``(x, state, lengths) -> (y, state)`` with equal ``input_size`` and ``output_size``, such
            as :class:`GatedLinearAttention`.
        feed_forward: module from (B, T, D) to (B, T, D), each step by itself; None for :class:`SwiGLU`.
        dropout: probability in [0, 1) of setting an output of mixer or feed-forward part to zero.
        eps: added to the mean square in the norms.

    Shape:
        x (B, T, D), state of the mixer, lengths (B,) -> y (B, T, D)

    Raises:
        ValueError: if ``dropout`` is outside its range, or the sizes of the mixer differ; in ``forward`` if ``x`` or
            ``lengths`` does not fit.
        TypeError: if the mixer has no sizes.

    Example:
        >>> import torch
        >>> from graphseq.nn import GatedLinearAttention
        >>> y, state = SequenceBlock(GatedLinearAttention(8))(torch.randn(2, 5, 8))
        >>> y.shape
        torch.Size([2, 5, 8])
    """

    def __init__(
        self, mixer: nn.Module, feed_forward: nn.Module | None = None, dropout: float = 0.0, eps: float = 1e-6
    ) -> None:
        super().__init__()
        width = _width(mixer, "mixer")
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout is {dropout}; give a probability in [0, 1)")
        self.input_size = self.output_size = width
        self.mixer = mixer
        self.feed_forward = SwiGLU(width) if feed_forward is None else feed_forward
        self.mixer_norm = nn.RMSNorm(width, eps=eps)
        self.feed_forward_norm = nn.RMSNorm(width, eps=eps)
        self.dropout = nn.Dropout(dropout)

    def reset_parameters(self) -> None:
        """Reinitialise all weights as in the constructor."""
        _reset(self)

    def forward(self, x: Tensor, state: Any = None, lengths: Tensor | None = None) -> tuple[Tensor, Any]:
        """Return the outputs of all steps and the state of the mixer after the last one.

        Args:
            x: inputs (B, T, D).
            state: state before the first step, as this method returns it; None at the beginning of sequences.
            lengths: number of steps of each sequence, int64 (B,); None if all have T.
        """
        x, inside = self.checked(x, lengths)
        mixed, after = self.mixer(self.mixer_norm(x), state, lengths)
        h = x + self.dropout(mixed)
        y = h + self.dropout(self.feed_forward(self.feed_forward_norm(h)))
        return y if inside is None else y.masked_fill(~inside, 0), after


class BlockStack(Recorded, CausalLayer):
    r"""Sequence layers of equal width one after the other, with a norm after the last one.

    .. math:: y = \operatorname{RMSNorm}\bigl(f_L(\cdots f_1(x))\bigr)

    Its state is the list of the states of its blocks, in their order.

    Args:
        blocks: sequence layers ``(x, state, lengths) -> (y, state)``, such as :class:`SequenceBlock`, of equal width.
        repeats: number of times that the blocks stand one after the other, at least 1; each copy has weights of its
            own.
        eps: added to the mean square in the norm.

    Shape:
        x (B, T, D), list of states, lengths (B,) -> y (B, T, D)

    Raises:
        ValueError: if there are no blocks, widths differ, or ``repeats`` is below 1; in ``forward`` if ``x``, ``state``
            or ``lengths`` does not fit.
        TypeError: if a block has no sizes.

    Example:
        >>> import torch
        >>> from graphseq.nn import GatedLinearAttention
        >>> stack = BlockStack([SequenceBlock(GatedLinearAttention(8))], repeats=3)
        >>> y, states = stack(torch.randn(2, 5, 8))
        >>> y.shape, len(states)
        (torch.Size([2, 5, 8]), 3)
    """

    def __init__(self, blocks: list[nn.Module], repeats: int = 1, eps: float = 1e-6) -> None:
        super().__init__()
        positive(repeats=repeats)
        if not blocks:
            raise ValueError("blocks is empty; give at least one sequence layer")
        widths = [_width(block, f"blocks[{place}]") for place, block in enumerate(blocks)]
        if len(set(widths)) > 1:
            raise ValueError(f"blocks have the widths {', '.join(map(str, widths))}; they must be equal")
        self.input_size = self.output_size = widths[0]
        copies = [copy.deepcopy(block) for _ in range(repeats - 1) for block in blocks]
        for block in copies:
            _reset(block)
        self.blocks = nn.ModuleList([*blocks, *copies])
        self.norm = nn.RMSNorm(widths[0], eps=eps)

    def reset_parameters(self) -> None:
        """Reinitialise all weights as in the constructor."""
        for block in self.blocks:
            _reset(block)
        self.norm.reset_parameters()

    def forward(
        self, x: Tensor, state: list[Any] | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, list[Any]]:
        """Return the outputs of all steps and the states of the blocks after the last one.

        Args:
            x: inputs (B, T, D).
            state: states before the first step, as this method returns them; None at the beginning of sequences.
            lengths: number of steps of each sequence, int64 (B,); None if all have T.
        """
        x, inside = self.checked(x, lengths)
        if state is not None and len(state) != len(self.blocks):
            raise ValueError(f"state has {len(state)} entries; give one for each of the {len(self.blocks)} blocks")
        before = [None] * len(self.blocks) if state is None else state
        after = []
        for block, own in zip(self.blocks, before, strict=True):
            x, own = block(x, own, lengths)
            after.append(own)
        y = self.norm(x)
        return y if inside is None else y.masked_fill(~inside, 0), after


def _width(layer: nn.Module, name: str) -> int:
    """Return the equal sizes of inputs and outputs of a sequence layer."""
    sizes = [getattr(layer, size, None) for size in ("input_size", "output_size")]
    if not all(isinstance(size, int) for size in sizes):
        raise TypeError(
            f"{name} is a {type(layer).__name__} without input_size and output_size; give a layer "
            "(x, state, lengths) -> (y, state) with the numbers of its features, such as GatedLinearAttention"
        )
    if sizes[0] != sizes[1]:
        raise ValueError(f"{name} has inputs of size {sizes[0]} and outputs of size {sizes[1]}; they must be equal")
    return int(sizes[0])  # type: ignore[arg-type]


def _reset(layer: nn.Module) -> None:
    """Reinitialise each module that says how, from the outside in, and no part of it twice."""
    for module in layer.children() if isinstance(layer, SequenceBlock) else [layer]:
        reset = getattr(module, "reset_parameters", None)
        if reset is not None:
            reset()
