"""Residual blocks around any sequence layer, and stacks of them."""

import copy
import inspect
from typing import Any

from torch import Tensor, nn

from graphseq.core import Recorded
from graphseq.nn.attention.softmax import CrossAttention
from graphseq.nn.blocks.feed_forward import SwiGLU
from graphseq.nn.blocks.residual import PostNorm, PreNorm, Residual
from graphseq.nn.causal import CausalLayer, positive

__all__ = ["BlockStack", "CrossBlock", "MixLNStack", "SequenceBlock"]


class SequenceBlock(Recorded, CausalLayer):
    r"""Residual block: a layer that mixes steps, then a feed-forward part.

    .. math:: h = x + \operatorname{mixer}(\operatorname{RMSNorm}(x)), \qquad
        y = h + \operatorname{FFN}(\operatorname{RMSNorm}(h))

    for the default residual path, :class:`PreNorm`. Its state is that of the mixer. With :class:`CausalAttention` it
    is a block of a decoder, with :class:`SelfAttention` one of an encoder.

    Source: arXiv 2312.06635, section 4.4. Differs from it: any layer can be the mixer, and norms can stand elsewhere.

    Args:
        mixer: sequence layer ``(x, state, lengths) -> (y, state)`` with equal ``input_size`` and ``output_size``, such
            as :class:`GatedLinearAttention`.
        feed_forward: module from (B, T, D) to (B, T, D), each step by itself; None for :class:`SwiGLU`.
        residual: residual path of the mixer and, as a copy, of the feed-forward part, such as :class:`PostNorm`; None
            for :class:`PreNorm` with RMSNorm.

    Shape:
        x (B, T, D), state of the mixer, lengths (B,) -> y (B, T, D)

    Raises:
        ValueError: if the sizes of the mixer differ, or ``feed_forward`` or ``residual`` has another width; in
            ``forward`` if ``x`` or ``lengths`` does not fit.
        TypeError: if the mixer has no sizes, or ``residual`` is not a residual path; in ``forward`` if ``prefix`` is
            given to a mixer that does not take one.

    Example:
        >>> import torch
        >>> from graphseq.nn import GatedLinearAttention
        >>> y, state = SequenceBlock(GatedLinearAttention(8))(torch.randn(2, 5, 8))
        >>> y.shape
        torch.Size([2, 5, 8])
    """

    def __init__(
        self, mixer: nn.Module, feed_forward: nn.Module | None = None, residual: nn.Module | None = None
    ) -> None:
        super().__init__()
        width = _width(mixer, "mixer")
        path = PreNorm(width) if residual is None else residual
        if not isinstance(path, Residual):
            raise TypeError(f"residual is a {type(path).__name__}; give a residual path such as PreNorm or PostNorm")
        if path.dim != width:
            raise ValueError(f"residual has width {path.dim} and the mixer {width}; they must be equal")
        fed = getattr(feed_forward, "dim", width)
        if fed != width:
            raise ValueError(f"feed_forward has width {fed} and the mixer {width}; they must be equal")
        self.input_size = self.output_size = width
        self.mixer = mixer
        self.feed_forward = SwiGLU(width) if feed_forward is None else feed_forward
        self.mixer_residual = path
        self.feed_forward_residual = copy.deepcopy(path)

    @property
    def bidirectional(self) -> bool:
        """Whether outputs depend on later steps, which the mixer decides."""
        return bool(getattr(self.mixer, "bidirectional", False))

    def reset_parameters(self) -> None:
        """Reinitialise all weights as in the constructor."""
        _reset_children(self)

    def forward(
        self, x: Tensor, state: Any = None, lengths: Tensor | None = None, prefix: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """Return the outputs of all steps and the state of the mixer after the last one.

        Args:
            x: inputs (B, T, D).
            state: state before the first step, as this method returns it; None at the beginning of sequences.
            lengths: number of steps of each sequence, int64 (B,); None if all have T.
            prefix: number of leading steps that every step attends to, int64 (B,), for a mixer that takes it, such as
                :class:`CausalAttention`; None for none.
        """
        x, inside = self.checked(x, lengths)
        h, after = self._mixed(x, state, lengths, prefix)
        y = self._fed(h)
        return y if inside is None else y.masked_fill(~inside, 0), after

    def _mixed(self, x: Tensor, state: Any, lengths: Tensor | None, prefix: Tensor | None) -> tuple[Tensor, Any]:
        if prefix is not None and not _takes_prefix(self.mixer):
            raise TypeError(
                f"prefix is given to a block whose mixer {type(self.mixer).__name__} takes none; leave it out, or use "
                "CausalAttention as the mixer"
            )
        options = {} if prefix is None else {"prefix": prefix}
        mixed, after = self.mixer(self.mixer_residual.enter(x), state, lengths, **options)
        return self.mixer_residual.leave(x, mixed), after

    def _fed(self, h: Tensor) -> Tensor:
        return self.feed_forward_residual.leave(h, self.feed_forward(self.feed_forward_residual.enter(h)))


class CrossBlock(SequenceBlock):
    r"""Residual block of a decoder that reads another sequence: mixer, attention over the memory, feed-forward part.

    .. math:: h = x + \operatorname{mixer}(\operatorname{norm}(x)), \quad
        c = h + \operatorname{cross}(\operatorname{norm}(h), M), \quad
        y = c + \operatorname{FFN}(\operatorname{norm}(c))

    for the default residual path. The memory M is given as keys and values, which ``cross.project`` computes once.

    Source: arXiv 1706.03762, section 3.1. Differs from it: any layer can be the mixer, and norms stand before layers by
    default.

    Args:
        mixer: causal sequence layer, such as :class:`CausalAttention`.
        cross: attention over the memory, of the width of the mixer.
        feed_forward: module from (B, T, D) to (B, T, D), each step by itself; None for :class:`SwiGLU`.
        residual: residual path of the mixer and, as copies, of the other two parts; None for :class:`PreNorm`.

    Shape:
        x (B, T, D), state of the mixer, lengths (B,), memory of ``cross.project``, inside (B, M) -> y (B, T, D)

    Raises:
        ValueError: if widths differ.
        TypeError: if the mixer has no sizes, or ``residual`` is not a residual path.

    Example:
        >>> import torch
        >>> from graphseq.nn import CausalAttention
        >>> block = CrossBlock(CausalAttention(8), CrossAttention(8))
        >>> y, state = block(torch.randn(2, 5, 8), memory=block.cross.project(torch.randn(2, 7, 8)))
        >>> y.shape
        torch.Size([2, 5, 8])
    """

    def __init__(
        self,
        mixer: nn.Module,
        cross: CrossAttention,
        feed_forward: nn.Module | None = None,
        residual: nn.Module | None = None,
    ) -> None:
        super().__init__(mixer, feed_forward, residual)
        if cross.dim != self.input_size:
            raise ValueError(f"cross has width {cross.dim} and the mixer {self.input_size}; they must be equal")
        self.cross = cross
        self.cross_residual = copy.deepcopy(self.mixer_residual)

    def forward(
        self,
        x: Tensor,
        state: Any = None,
        lengths: Tensor | None = None,
        prefix: Tensor | None = None,
        memory: tuple[Tensor, Tensor] | None = None,
        inside: Tensor | None = None,
    ) -> tuple[Tensor, Any]:
        """Return the outputs of all steps and the state of the mixer after the last one.

        Args:
            x: inputs (B, T, D).
            state: state before the first step, as this method returns it; None at the beginning of sequences.
            lengths: number of steps of each sequence, int64 (B,); None if all have T.
            prefix: number of leading steps that every step attends to, int64 (B,); None for none.
            memory: keys and values (B, H, M, K) of the memory, as ``cross.project`` returns them.
            inside: true where a step of the memory exists, bool (B, M); None if all do.
        """
        if memory is None:
            raise ValueError("memory is missing; give the keys and values that cross.project returns")
        x, known = self.checked(x, lengths)
        h, after = self._mixed(x, state, lengths, prefix)
        read = self.cross(self.cross_residual.enter(h), *memory, inside)
        y = self._fed(self.cross_residual.leave(h, read))
        return y if known is None else y.masked_fill(~known, 0), after


class BlockStack(Recorded, CausalLayer):
    r"""Sequence layers of equal width one after the other, with a norm after the last one.

    .. math:: y = \operatorname{norm}\bigl(f_L(\cdots f_1(p(x)))\bigr)

    Its state is the list of the states of its parts, in their order.

    Args:
        blocks: sequence layers ``(x, state, lengths) -> (y, state)``, such as :class:`SequenceBlock`, of equal width.
        repeats: number of times that the list of blocks is repeated, at least 1; each copy has weights of its own.
        norm: norm of the outputs; None for ``torch.nn.RMSNorm(dim, eps=1e-6)``, ``torch.nn.Identity()`` for none.
        positions: sequence layer p before the first block, such as :class:`LearnedPositions`; None for none.

    Shape:
        x (B, T, D), list of states, lengths (B,) -> y (B, T, D)

    Raises:
        ValueError: if there are no blocks, widths differ, or ``repeats`` is below 1; in ``forward`` if ``x``, ``state``
            or ``lengths`` does not fit.
        TypeError: if ``blocks`` is not a list, or a block has no sizes.

    Example:
        >>> import torch
        >>> from graphseq.nn import GatedLinearAttention
        >>> stack = BlockStack([SequenceBlock(GatedLinearAttention(8))], repeats=3)
        >>> y, states = stack(torch.randn(2, 5, 8))
        >>> y.shape, len(states)
        (torch.Size([2, 5, 8]), 3)
    """

    def __init__(
        self,
        blocks: list[nn.Module],
        repeats: int = 1,
        norm: nn.Module | None = None,
        positions: nn.Module | None = None,
    ) -> None:
        super().__init__()
        positive(repeats=repeats)
        if isinstance(blocks, nn.Module) and not isinstance(blocks, nn.ModuleList):
            raise TypeError(f"blocks is a {type(blocks).__name__}; give a list of sequence layers")
        if not len(blocks):
            raise ValueError("blocks is empty; give at least one sequence layer")
        named = {f"blocks[{place}]": block for place, block in enumerate(blocks)}
        named |= {} if positions is None else {"positions": positions}
        widths = [_width(block, name) for name, block in named.items()]
        if len(set(widths)) > 1:
            raise ValueError(f"{', '.join(named)} have the widths {', '.join(map(str, widths))}; they must be equal")
        self.input_size = self.output_size = widths[0]
        self.positions = positions
        self.blocks = nn.ModuleList([*blocks, *(fresh_copy(block) for _ in range(repeats - 1) for block in blocks)])
        self.norm = nn.RMSNorm(widths[0], eps=1e-6) if norm is None else norm

    @property
    def bidirectional(self) -> bool:
        """Whether outputs depend on later steps, which the blocks decide."""
        return any(getattr(block, "bidirectional", False) for block in self.blocks)

    def reset_parameters(self) -> None:
        """Reinitialise all weights as in the constructor."""
        _reset_children(self)

    def forward(
        self,
        x: Tensor,
        state: list[Any] | None = None,
        lengths: Tensor | None = None,
        prefix: Tensor | None = None,
        **context: Any,
    ) -> tuple[Tensor, list[Any]]:
        """Return the outputs of all steps and the states of the parts after the last one.

        Args:
            x: inputs (B, T, D).
            state: states before the first step, as this method returns them; None at the beginning of sequences.
            lengths: number of steps of each sequence, int64 (B,); None if all have T.
            prefix: number of leading steps that every step attends to, int64 (B,), for blocks that take it; None for
                none.
            **context: further arguments of the blocks, each a list with one entry for each block.
        """
        hidden, after, inside = self._run(x, state, lengths, prefix, context)
        y = self.norm(hidden[-1])
        return y if inside is None else y.masked_fill(~inside, 0), after

    def hidden_states(
        self, x: Tensor, lengths: Tensor | None = None, prefix: Tensor | None = None, **context: Any
    ) -> list[Tensor]:
        """Return the input of the first block and the output of each block, without the last norm, each (B, T, D).

        Args:
            x: inputs (B, T, D).
            lengths: number of steps of each sequence, int64 (B,); None if all have T.
            prefix: number of leading steps that every step attends to, int64 (B,), for blocks that take it; None for
                none.
            **context: further arguments of the blocks, each a list with one entry for each block.
        """
        return self._run(x, None, lengths, prefix, context)[0]

    def _run(
        self,
        x: Tensor,
        state: list[Any] | None,
        lengths: Tensor | None,
        prefix: Tensor | None,
        context: dict[str, Any],
    ) -> tuple[list[Tensor], list[Any], Tensor | None]:
        """Return the hidden states, the states of the parts, and which steps are no padding."""
        x, inside = self.checked(x, lengths)
        number = len(self.blocks) + (self.positions is not None)
        if state is not None and len(state) != number:
            raise ValueError(f"state has {len(state)} entries; give one for each of the {number} blocks")
        before = iter([None] * number if state is None else state)
        after = []
        if self.positions is not None:
            x, own = self.positions(x, next(before), lengths)
            after.append(own)
        hidden = [x]
        options = {} if prefix is None else {"prefix": prefix}
        for place, block in enumerate(self.blocks):
            given = {name: values[place] for name, values in context.items()}
            x, own = block(x, next(before), lengths, **options, **given)
            hidden.append(x)
            after.append(own)
        return hidden, after, inside


class MixLNStack(BlockStack):
    r"""Stack whose first blocks have their norms after the sum (Post-LN), and the others before the layer (Pre-LN).

    .. math:: L_{post} = \lfloor \alpha L \rfloor

    of the L blocks, the first ones, are Post-LN. Both kinds of block have two norms, and one norm follows the last
    block, so that the number of parameters does not depend on :math:`\alpha`; 0 is the Pre-LN network, and 1 the
    Post-LN network.

    Source: arXiv 2412.13795, section 3. Differs from it: none.

    Args:
        mixer: sequence layer of the first block, such as :class:`CausalAttention`; the other blocks have copies with
            weights of their own.
        num_layers: number L of blocks, at least 1.
        post_share: share :math:`\alpha` of Post-LN blocks, in [0, 1].
        feed_forward: feed-forward part of the first block; None for :class:`SwiGLU`.
        norm: norm layer, copied to each place of a norm; None for ``torch.nn.RMSNorm(dim, eps=1e-6)``.
        dropout: probability in [0, 1) of setting an output of a mixer or feed-forward part to zero.
        positions: sequence layer before the first block, such as :class:`LearnedPositions`; None for none.

    Shape:
        x (B, T, D), list of states, lengths (B,) -> y (B, T, D)

    Raises:
        ValueError: if an argument is outside its range.
        TypeError: if the mixer has no sizes.

    Example:
        >>> from graphseq.nn import CausalAttention
        >>> stack = MixLNStack(CausalAttention(8), num_layers=12)
        >>> stack.num_post, type(stack.blocks[2].mixer_residual).__name__, type(stack.blocks[3].mixer_residual).__name__
        (3, 'PostNorm', 'PreNorm')
    """

    def __init__(
        self,
        mixer: nn.Module,
        num_layers: int,
        post_share: float = 0.25,
        feed_forward: nn.Module | None = None,
        norm: nn.Module | None = None,
        dropout: float = 0.0,
        positions: nn.Module | None = None,
    ) -> None:
        positive(num_layers=num_layers)
        if not 0.0 <= post_share <= 1.0:
            raise ValueError(f"post_share is {post_share}; give a share of the blocks in [0, 1]")
        width = _width(mixer, "mixer")
        feed_forward = SwiGLU(width) if feed_forward is None else feed_forward
        # a share such as 0.29 of 100 blocks is a little less than 29 in floating point
        number = int(post_share * num_layers + 1e-9)
        blocks: list[nn.Module] = []
        for place in range(num_layers):
            kind = PostNorm if place < number else PreNorm
            parts = (mixer, feed_forward) if place == 0 else (fresh_copy(mixer), fresh_copy(feed_forward))
            blocks.append(SequenceBlock(*parts, kind(width, copy.deepcopy(norm), dropout)))
        super().__init__(blocks, norm=copy.deepcopy(norm), positions=positions)
        self.num_post = number


def _takes_prefix(layer: nn.Module) -> bool:
    taken = inspect.signature(layer.forward).parameters
    return "prefix" in taken or any(each.kind is each.VAR_KEYWORD for each in taken.values())


def _width(layer: nn.Module, name: str) -> int:
    """Return the equal sizes of inputs and outputs of a sequence layer."""
    sizes = [getattr(layer, size, None) for size in ("input_size", "output_size")]
    if not all(isinstance(size, int) for size in sizes):
        raise TypeError(
            f"{name} is a {type(layer).__name__} without input_size and output_size; give a sequence layer "
            "(x, state, lengths) -> (y, state) that has them, such as "
            + (
                "LearnedPositions; RotaryPositions belongs to the attention"
                if name == "positions"
                else "CausalAttention"
            )
        )
    if sizes[0] != sizes[1]:
        raise ValueError(f"{name} has inputs of size {sizes[0]} and outputs of size {sizes[1]}; they must be equal")
    return int(sizes[0])  # type: ignore[arg-type]


def fresh_copy(layer: nn.Module) -> nn.Module:
    """Return a copy of a layer with new weights, reinitialised where it or its parts have ``reset_parameters``.

    Args:
        layer: layer to copy.

    Example:
        >>> import torch
        >>> layer = nn.Linear(2, 3)
        >>> torch.equal(fresh_copy(layer).weight, layer.weight)
        False
    """
    twin = copy.deepcopy(layer)
    _reset(twin)
    return twin


def _reset(layer: nn.Module) -> None:
    """Reinitialise a layer that says how; otherwise the parts of it that do."""
    reset = getattr(layer, "reset_parameters", None)
    if callable(reset):
        reset()
    else:
        _reset_children(layer)


def _reset_children(layer: nn.Module) -> None:
    for part in layer.children():
        _reset(part)
