"""Stacks of torch's recurrent layers over padded sequences."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, Protocol, runtime_checkable

from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from graphseq.core import Recorded
from graphseq.core.batches import check_lengths, step_mask
from graphseq.nn.recurrent.initializations import RecurrentInitialization, check_initialization
from graphseq.nn.recurrent.padded import check_inputs, check_state, state_parts

__all__ = ["RecurrentStack"]

Cell = Literal["lstm", "gru", "rnn", "rnn_relu"]
State = Tensor | tuple[Tensor, Tensor]


@runtime_checkable
class SequenceLayer(Protocol):
    """Protocol of sequence layers, such as :class:`RecurrentStack`, that return outputs without the state.

    Example:
        >>> isinstance(RecurrentStack(3, 5), SequenceLayer)
        True
    """

    def outputs(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the outputs of all steps, 0 after the length of a sequence.

        Args:
            x: inputs (B, T, D).
            lengths: number of steps of each sequence, int64 (B,); None if all have T.
        """

    def reset_parameters(self) -> None:
        """Reinitialise all weights."""


class RecurrentStack(Recorded, nn.Module):
    r"""LSTM, GRU or Elman network of torch over padded sequences, with the signature of all sequence layers.

    .. math:: y, s = f(x, s_0, \text{lengths})

    Outputs after the length of a sequence are 0, and the state is that after its last step; both equal those of the
    sequence without padding. :meth:`outputs` returns the same outputs without the state and, in one direction, needs
    no device synchronisation.

    Args:
        input_size: number of features D of each step.
        hidden_size: size H of the hidden state of each layer.
        num_layers: number of layers, at least 1.
        cell: kind of recurrent layer: ``lstm``, ``gru``, or the Elman network with tanh (``rnn``) or ReLU
            (``rnn_relu``).
        dropout: probability in [0, 1) of setting an output of a layer to zero before the next layer.
        bidirectional: whether a second stack processes each sequence backwards; outputs are concatenated.
        initialization: initialisation of the weights, such as :class:`OrthogonalRecurrence`; None for torch's own.

    Shape:
        x (B, T, D), state as torch's layer takes it, lengths (B,) -> y (B, T, H), or (B, T, 2 H) in both directions

    Raises:
        ValueError: if a size, ``cell`` or ``dropout`` is outside its range; in ``forward`` if ``x``, ``state`` or
            ``lengths`` does not fit.
        TypeError: if ``initialization`` is a class or cannot be called.

    Example:
        >>> import torch
        >>> layer = RecurrentStack(3, 5, cell="gru")
        >>> y, state = layer(torch.randn(2, 4, 3), lengths=torch.tensor([4, 2]))
        >>> y.shape, state.shape, float(y[1, 2:].detach().abs().sum())
        (torch.Size([2, 4, 5]), torch.Size([1, 2, 5]), 0.0)
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        cell: Cell = "lstm",
        dropout: float = 0.0,
        bidirectional: bool = False,
        initialization: RecurrentInitialization | None = None,
    ) -> None:
        super().__init__()
        sizes = {"input_size": input_size, "hidden_size": hidden_size, "num_layers": num_layers}
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name} is {size}; give a whole number of at least 1")
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout is {dropout}; give a probability in [0, 1)")
        cells: dict[str, Callable[..., nn.LSTM | nn.GRU | nn.RNN]] = {
            "lstm": nn.LSTM,
            "gru": nn.GRU,
            "rnn": nn.RNN,
            "rnn_relu": partial(nn.RNN, nonlinearity="relu"),
        }
        if cell not in cells:
            raise ValueError(f"cell is {cell!r}; give 'lstm', 'gru', 'rnn' or 'rnn_relu'")
        check_initialization(initialization)
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.output_size = 2 * hidden_size if bidirectional else hidden_size
        self.bidirectional = bidirectional
        self.layers = cells[cell](
            input_size,
            hidden_size,
            num_layers,
            batch_first=True,
            dropout=dropout if num_layers > 1 else 0.0,
            bidirectional=bidirectional,
        )
        self.initialization = initialization
        if initialization is not None:
            initialization(self.layers)

    def reset_parameters(self) -> None:
        """Reinitialise all weights as in the constructor."""
        self.layers.reset_parameters()
        if self.initialization is not None:
            self.initialization(self.layers)

    def outputs(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the outputs without the state.

        Args:
            x: inputs (B, T, D).
            lengths: number of steps of each sequence, int64 (B,); None if all have T.
        """
        check_inputs(x, self.input_size)
        if lengths is None:
            return self.layers(x)[0]  # (B, T, D) -> (B, T, H)
        check_lengths(lengths, x.shape[0], x.shape[1], least=0)
        if self.bidirectional:  # the backward stack must begin at the last step of each sequence
            return self(x, None, lengths)[0]
        y = self.layers(x)[0]  # (B, T, H); causal, so padding at the end does not change earlier steps
        return y.masked_fill(~step_mask(lengths.to(y.device), x.shape[1])[..., None], 0)

    def forward(self, x: Tensor, state: State | None = None, lengths: Tensor | None = None) -> tuple[Tensor, Any]:
        """Return the outputs of all steps and the state after the last one.

        With ``lengths`` the sequences are packed, which needs one synchronisation on an accelerator.

        Args:
            x: inputs (B, T, D).
            state: state before the first step, as torch's layer returns it; None for zeros.
            lengths: number of steps of each sequence, int64 (B,), each in 1..T; None if all have T.
        """
        check_inputs(x, self.input_size)
        if state is not None:
            check_state(state_parts(state, isinstance(self.layers, nn.LSTM)), len(x), 1)
        if lengths is not None:
            check_lengths(lengths, x.shape[0], x.shape[1])
        if lengths is None or not len(x):  # an empty batch cannot be packed
            return self.layers(x, state)
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        y, state = self.layers(packed, state)
        return pad_packed_sequence(y, batch_first=True, total_length=x.shape[1])[0], state  # (B, T, H)


def layer_outputs(layer: nn.Module, x: Tensor, lengths: Tensor | None) -> Tensor:
    """Return the outputs of any sequence layer ``(x, state, lengths) -> (y, state)``.

    Args:
        layer: any sequence layer; of one that has ``outputs``, see :class:`SequenceLayer`, that method is called.
        x: inputs (B, T, D).
        lengths: number of steps of each sequence, int64 (B,); None if all have T.

    Example:
        >>> import torch
        >>> layer_outputs(RecurrentStack(3, 5), torch.randn(2, 4, 3), None).shape
        torch.Size([2, 4, 5])
    """
    if isinstance(layer, SequenceLayer):
        return layer.outputs(x, lengths)
    return layer(x, None, lengths)[0]
