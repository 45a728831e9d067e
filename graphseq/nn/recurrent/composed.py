"""Stacks and pairs of sequence layers: layers one after the other, and one in each direction."""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from graphseq.core import Recorded
from graphseq.core.batches import check_lengths
from graphseq.nn.recurrent.stack import layer_outputs

__all__ = ["Bidirectional", "LayerStack"]


def reversed_steps(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Return sequences backwards, each within its length; padding stays where it is.

    Args:
        x: sequences (B, T, D).
        lengths: number of steps of each sequence, int64 (B,); None if all have T.

    Example:
        >>> reversed_steps(torch.tensor([[[1.0], [2.0], [9.0]]]), torch.tensor([2])).flatten().tolist()
        [2.0, 1.0, 9.0]
    """
    if lengths is None:
        return x.flip(1)
    steps = torch.arange(x.shape[1], device=x.device)
    back = lengths.to(x.device)[:, None] - 1 - steps
    return x.gather(1, torch.where(back < 0, steps, back)[..., None].expand_as(x))


class Bidirectional(Recorded, nn.Module):
    r"""Two sequence layers, of which the second reads each sequence backwards; outputs are concatenated.

    .. math:: y_t = [\overrightarrow{h}_t, \overleftarrow{h}_t]

    Sequences are reversed within their length, so that padding is not read first. Each output depends on all steps, so
    that the layer must not be used for forecasts or language models.

    Source: arXiv 1506.00019, section 4.2. Differs from it: none.

    Args:
        ahead: sequence layer ``(x, state, lengths) -> (y, state)`` for the direction of time, with an ``output_size``.
        back: sequence layer of the same kind for the opposite direction.

    Shape:
        x (B, T, D), state a pair of states, lengths (B,) -> y (B, T, both output sizes), pair of states

    Raises:
        ValueError: if the layers have inputs of different sizes.
        TypeError: if a layer does not state its ``output_size``.

    Example:
        >>> from graphseq.nn import ClassicalLSTM
        >>> layer = Bidirectional(ClassicalLSTM(3, 5), ClassicalLSTM(3, 5))
        >>> layer(torch.randn(2, 4, 3), None, torch.tensor([4, 2]))[0].shape
        torch.Size([2, 4, 10])
    """

    bidirectional = True

    def __init__(self, ahead: nn.Module, back: nn.Module) -> None:
        super().__init__()
        size = width(ahead, "output_size") + width(back, "output_size")
        taken = [vars(layer).get("input_size") for layer in (ahead, back)]  # a layer of a user's own need not say it
        if None not in taken and taken[0] != taken[1]:
            raise ValueError(f"ahead has input_size {taken[0]} and back {taken[1]}; both read the same inputs")
        self.ahead, self.back = ahead, back
        self.output_size = size

    def reset_parameters(self) -> None:
        """Reinitialise both layers."""
        _reset([self.ahead, self.back])

    def outputs(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the outputs without the states.

        Args:
            x: inputs (B, T, D).
            lengths: number of steps of each sequence, int64 (B,); None if all have T.
        """
        y = layer_outputs(self.ahead, x, lengths)
        z = layer_outputs(self.back, reversed_steps(x, lengths), lengths)
        return torch.cat([y, reversed_steps(z, lengths)], 2)

    def forward(
        self, x: Tensor, state: tuple[Any, Any] | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, tuple[Any, Any]]:
        """Return the outputs of all steps and both states: after the last step, and after the first one.

        Args:
            x: inputs (B, T, D).
            state: states of both directions; None for zeros.
            lengths: number of steps of each sequence, int64 (B,); None if all have T.
        """
        if lengths is not None:
            check_lengths(lengths, x.shape[0], x.shape[1], least=0)
        if state is not None and (not isinstance(state, tuple | list) or len(state) != 2):
            raise ValueError("state is not a pair; give the states of both directions, as this layer returned them")
        first, second = (None, None) if state is None else state
        y, first = self.ahead(x, first, lengths)
        z, second = self.back(reversed_steps(x, lengths), second, lengths)
        return torch.cat([y, reversed_steps(z, lengths)], 2), (first, second)


class LayerStack(Recorded, nn.Module):
    r"""Sequence layers one after the other, with dropout between them.

    .. math:: y^{(l)} = f^{(l)}(\mathrm{dropout}(y^{(l-1)})), \qquad y^{(0)} = x

    Args:
        layers: sequence layers ``(x, state, lengths) -> (y, state)``, each with an ``output_size``, at least one.
        dropout: probability in [0, 1) of setting an output of a layer to zero before the next layer.

    Shape:
        x (B, T, D), state a list with the state of each layer, lengths (B,) -> y (B, T, output size of the last)

    Raises:
        ValueError: if there is no layer, ``dropout`` is outside its range, or a layer does not take the width of the
            one before.

    Example:
        >>> from graphseq.nn import ClassicalLSTM, RecurrentStack
        >>> layer = LayerStack([ClassicalLSTM(3, 5, peepholes=True), RecurrentStack(5, 4, cell="gru")])
        >>> layer(torch.randn(2, 4, 3))[0].shape
        torch.Size([2, 4, 4])
    """

    def __init__(self, layers: Sequence[nn.Module], dropout: float = 0.0) -> None:
        super().__init__()
        if not layers:
            raise ValueError("layers is empty; give at least one sequence layer")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout is {dropout}; give a probability in [0, 1)")
        for number, (below, above) in enumerate(itertools.pairwise(layers), 1):
            taken = vars(above).get("input_size")  # a layer of a user's own need not say it
            if isinstance(taken, int) and taken != width(below, "output_size"):
                raise ValueError(
                    f"layers[{number}] has input_size {taken}, the layer before it output_size {below.output_size}"
                )
        size = width(layers[-1], "output_size")
        self.layers = nn.ModuleList(layers)
        self.dropout = nn.Dropout(dropout)
        self.output_size = size
        self.bidirectional = any(getattr(layer, "bidirectional", False) for layer in layers)

    def reset_parameters(self) -> None:
        """Reinitialise all layers."""
        _reset(self.layers)

    def outputs(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the outputs of the last layer without the states.

        Args:
            x: inputs (B, T, D).
            lengths: number of steps of each sequence, int64 (B,); None if all have T.
        """
        for number, layer in enumerate(self.layers):
            x = layer_outputs(layer, self.dropout(x) if number else x, lengths)
        return x

    def forward(
        self, x: Tensor, state: Sequence[Any] | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, list[Any]]:
        """Return the outputs of the last layer at all steps, and the state of each layer after the last step.

        Args:
            x: inputs (B, T, D).
            state: state of each layer before the first step; None for zeros.
            lengths: number of steps of each sequence, int64 (B,); None if all have T.

        Raises:
            ValueError: if there is not one state for each layer.
        """
        if state is not None and len(state) != len(self.layers):
            raise ValueError(f"state has {len(state)} entries; give one for each of the {len(self.layers)} layers")
        after = []
        for number, layer in enumerate(self.layers):
            before = None if state is None else state[number]
            x, last = layer(self.dropout(x) if number else x, before, lengths)
            after.append(last)
        return x, after


def width(layer: nn.Module, name: str) -> int:
    """Return the width that a sequence layer states.

    Args:
        layer: sequence layer.
        name: name of the attribute.

    Raises:
        TypeError: if the layer does not state it.

    Example:
        >>> from graphseq.nn import RecurrentStack
        >>> width(RecurrentStack(3, 5), "output_size")
        5
    """
    if not isinstance(layer, nn.Module):
        given = f"the class {layer.__name__}" if isinstance(layer, type) else repr(layer)
        raise TypeError(f"{given} is given as a sequence layer; give one that is built, such as RecurrentStack(3, 5)")
    size = vars(layer).get(name)
    if not isinstance(size, int):
        raise TypeError(
            f"{type(layer).__name__} has no {name}; give sequence layers that state it, such as "
            "graphseq.nn.RecurrentStack"
        )
    return size


def _reset(layers: Sequence[nn.Module] | nn.ModuleList) -> None:
    for layer in layers:
        if callable(reset := getattr(layer, "reset_parameters", None)):  # a layer of a user's own may have none
            reset()
