"""Recurrent layers whose units do not mix in the recurrence: linear ones, GRU and LSTM cells for parallel training."""

import math
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphseq.core import Recorded
from graphseq.core.batches import step_mask
from graphseq.nn.recurrent.padded import PaddedRecurrence
from graphseq.ops import linear_scan, para_gru, para_lstm
from graphseq.ops.newton import NewtonReport
from graphseq.ops.para import ParaMode
from graphseq.ops.recurrent import RecurrentState

__all__ = ["LinearRNN", "ParaGRU", "ParaLSTM"]

_GATES = 3


class _DiagonalRecurrence(PaddedRecurrence):
    """Base class: stacked layers, each of an input projection to three gates and a recurrence by channel.

    Padding is not packed: steps after the end of a sequence cannot change earlier ones, so that the state is read at
    the last step of each.
    """

    batch_axis = 1  # a part of the state is (L, B, H), as that of torch's layers
    diagonals = 0  # number of recurrent weights of a channel

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        for name, size in {"input_size": input_size, "hidden_size": hidden_size, "num_layers": num_layers}.items():
            if size < 1:
                raise ValueError(f"{name} is {size}; give a whole number of at least 1")
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout is {dropout}; give a probability in [0, 1)")
        self.input_size, self.hidden_size, self.output_size = input_size, hidden_size, hidden_size
        self.num_layers, self.dropout = num_layers, dropout
        for layer in range(num_layers):
            width = input_size if layer == 0 else hidden_size
            self.register_parameter(f"weight_ih_l{layer}", nn.Parameter(torch.empty(_GATES * hidden_size, width)))
            self.register_parameter(f"bias_ih_l{layer}", nn.Parameter(torch.empty(_GATES * hidden_size)))
            if self.diagonals:
                weight = nn.Parameter(torch.empty(self.diagonals, hidden_size))
                self.register_parameter(f"weight_hh_l{layer}", weight)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Reinitialise all weights as in the constructor."""
        for layer in range(self.num_layers):
            nn.init.kaiming_uniform_(self.get_parameter(f"weight_ih_l{layer}"), nonlinearity="linear")
            nn.init.zeros_(self.get_parameter(f"bias_ih_l{layer}"))
            if self.diagonals:
                nn.init.normal_(self.get_parameter(f"weight_hh_l{layer}"), std=1 / math.sqrt(self.hidden_size))

    def states(self, gates: Tensor, layer: int, initial: tuple[Tensor, ...] | None) -> tuple[Tensor, ...]:
        """Return the parts of all states of a layer, each (B, T, H), the outputs first; defined by each subclass.

        Args:
            gates: inputs of the gates (B, T, 3 H).
            layer: number of the layer.
            initial: parts of the state before the first step, each (B, H); None for zeros.
        """
        raise NotImplementedError(f"{type(self).__name__} must define states")

    def _layers(self, x: Tensor, state: RecurrentState | None) -> tuple[Tensor, list[tuple[Tensor, ...]]]:
        """Outputs of the last layer, and the parts of all states of each layer."""
        found = []
        for layer in range(self.num_layers):
            if layer:
                x = functional.dropout(x, self.dropout, self.training)
            weight, bias = (self.get_parameter(f"{name}_ih_l{layer}") for name in ("weight", "bias"))
            gates = functional.linear(x, weight, bias).to(weight.dtype)  # (B, T, 3 H); autocast would lower it
            states = self.states(gates, layer, None if state is None else tuple(part[layer] for part in state))
            found.append(states)
            x = states[0]
        return x, found

    def outputs(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the outputs without the state; outputs after the length of a sequence are 0.

        Args:
            x: inputs (B, T, D).
            lengths: number of steps of each sequence, int64 (B,); None if all have T.
        """
        return self(x, None, lengths)[0]

    def run(self, x: Tensor, batch_sizes: Tensor | None, state: RecurrentState | None) -> tuple[Tensor, RecurrentState]:
        """Return outputs and state of sequences of equal length.

        Args:
            x: inputs (B, T, D).
            batch_sizes: None, since :meth:`run_padded` needs no packing.
            state: parts of the state before the first step, each (L, B, H), None for zeros.
        """
        if batch_sizes is not None:
            raise ValueError(f"{type(self).__name__} takes padded sequences and their lengths, not packed ones")
        y, found = self._layers(x, state)
        return y, tuple(torch.stack([part[:, -1] for part in parts]) for parts in zip(*found, strict=True))

    def run_padded(self, x: Tensor, lengths: Tensor, state: RecurrentState | None) -> tuple[Tensor, RecurrentState]:
        """Return the outputs, 0 after the length of a sequence, and the state after its last step; nothing is packed.

        Args:
            x: inputs (B, T, D).
            lengths: number of steps of each sequence, int64 (B,), each in 1..T.
            state: parts of the state before the first step, each (L, B, H), None for zeros.
        """
        inside = step_mask(lengths.to(x.device), x.shape[1])[..., None]  # (B, T, 1)
        # padding may hold anything; a missing number there would reach the gradient of earlier steps
        y, found = self._layers(x.masked_fill(~inside, 0), state)
        last = (lengths.to(x.device) - 1)[:, None, None].expand(-1, 1, self.hidden_size)
        after = tuple(
            torch.stack([part.gather(1, last).squeeze(1) for part in parts]) for parts in zip(*found, strict=True)
        )
        return y.masked_fill(~inside, 0), after

    def _parts(self, x: Tensor, state: Any) -> RecurrentState | None:
        parts = super()._parts(x, state)
        shape = (self.num_layers, len(x), self.hidden_size)
        number = 2 if self.cell == "lstm" else 1
        if parts is not None and [part.shape for part in parts] != [shape] * number:
            shapes = ", ".join(str(tuple(part.shape)) for part in parts)
            raise ValueError(f"state holds {shapes}; {'h and c, each' if number == 2 else 'h'} of {shape} is needed")
        return parts


class LinearRNN(Recorded, _DiagonalRecurrence):
    r"""Gated linear recurrence by channel: gates depend on the input alone, so that all steps are one scan.

    .. math:: h_t = a_t \odot h_{t-1} + i_t \odot v_t, \qquad
        a_t = \sigma(x^a_t), \quad i_t = \sigma(x^i_t), \quad v_t = x^v_t

    with the inputs of the gates :math:`[x^a, x^i, x^v] = W x + b`. Factors :math:`a_t` between 0 and 1 can forget but
    not change the sign of a state, so that no number of such layers can compute the parity of a long sequence (arXiv
    2411.12537); with ``negative`` they are :math:`\tanh(x^a_t)`, between -1 and 1.

    Source: the linear recurrences that arXiv 2510.21450 compares with. Differs from them: one state for each channel.

    Args:
        input_size: number of features D of each step.
        hidden_size: number H of channels of each layer.
        num_layers: number of layers, at least 1.
        dropout: probability in [0, 1) of setting an output of a layer to zero before the next layer.
        negative: whether factors may be negative.

    Shape:
        x (B, T, D), state (L, B, H), lengths (B,) -> y (B, T, H)

    Raises:
        ValueError: if an argument is outside its range; in ``forward`` if ``x``, ``state`` or ``lengths`` does not fit.

    Example:
        >>> y, state = LinearRNN(3, 5)(torch.randn(2, 4, 3))
        >>> y.shape, state.shape
        (torch.Size([2, 4, 5]), torch.Size([1, 2, 5]))
    """

    cell = "gru"  # its state is one tensor

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, dropout: float = 0.0, negative: bool = False
    ) -> None:
        super().__init__(input_size, hidden_size, num_layers, dropout)
        self.negative = negative

    def states(self, gates: Tensor, layer: int, initial: tuple[Tensor, ...] | None) -> tuple[Tensor, ...]:
        """Return all states of a layer."""
        a, opened, value = gates.chunk(3, -1)
        a = torch.tanh(a) if self.negative else torch.sigmoid(a)
        b = torch.sigmoid(opened) * value
        return (linear_scan(a, b, None if initial is None else initial[0].to(b.dtype)),)

    def extra_repr(self) -> str:
        """Return sizes and kind."""
        return f"{self.input_size}, {self.hidden_size}, num_layers={self.num_layers}, negative={self.negative}"


class _ParaRecurrence(_DiagonalRecurrence):
    """Base class of the nonlinear cells: the mode of their solution, and the limit of their recurrent weights."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        dropout: float = 0.0,
        max_recurrent: float | None = 0.5,
        mode: ParaMode = "auto",
        max_iterations: int = 10,
        fallback: bool = True,
    ) -> None:
        super().__init__(input_size, hidden_size, num_layers, dropout)
        if max_recurrent is not None and not max_recurrent > 0:
            raise ValueError(f"max_recurrent is {max_recurrent}; give a number above 0, or None for no limit")
        if mode not in ("auto", "parallel", "sequential"):
            raise ValueError(f"mode is {mode!r}; it must be one of auto, parallel, sequential")
        if max_iterations < 1:
            raise ValueError(f"max_iterations is {max_iterations}; give a whole number of at least 1")
        self.max_recurrent, self.mode = max_recurrent, mode
        self.max_iterations, self.fallback = max_iterations, fallback
        self.reports: list[NewtonReport | None] = []

    mode: ParaMode

    def recurrent_weight(self, layer: int) -> Tensor:
        """Return the diagonals of a layer, within the limit.

        Args:
            layer: number of the layer.
        """
        weight = self.get_parameter(f"weight_hh_l{layer}")
        return weight if self.max_recurrent is None else weight.clamp(-self.max_recurrent, self.max_recurrent)

    def _layers(self, x: Tensor, state: RecurrentState | None) -> tuple[Tensor, list[tuple[Tensor, ...]]]:
        self.reports = []
        return super()._layers(x, state)

    def _note(self, report: NewtonReport | None) -> None:
        self.reports.append(report)
        if report is not None and report.fell_back:
            warnings.warn(
                f"Newton's method left a residual of {float(report.residual):.1e} after {report.iterations} "
                "iterations, so the states were computed step by step; raise max_iterations, limit the recurrent "
                "weights with max_recurrent, or choose mode='sequential'",
                UserWarning,
                stacklevel=2,
            )

    def extra_repr(self) -> str:
        """Return sizes, limit and mode."""
        sizes = f"{self.input_size}, {self.hidden_size}, num_layers={self.num_layers}"
        return f"{sizes}, max_recurrent={self.max_recurrent}, mode={self.mode!r}"


class ParaGRU(Recorded, _ParaRecurrence):
    r"""Stack of gated recurrent units with diagonal recurrent weights, solved for all steps at once or step by step.

    The cell is that of :func:`graphseq.ops.para_gru`, on the inputs :math:`[x^z, x^r, x^n] = W x + b`. Channels are
    mixed by W only. Both modes give the same numbers up to rounding, so that a network trained in one can decode in the
    other: with T = 1 and the state of the step before, each token costs the same.

    ``reports`` holds the result of Newton's method for each layer of the last call, or None where the layer was
    sequential. If it does not converge, the layer warns, and computes the states step by step.

    Source: arXiv 2510.21450, eq. 3.1a, and appendix C.1 for the limit. Differs from it: the mode is chosen by the
    device, and on the CPU by size; weights W are drawn with variance 1 / D.

    Args:
        input_size: number of features D of each step.
        hidden_size: number H of channels of each layer.
        num_layers: number of layers, at least 1.
        dropout: probability in [0, 1) of setting an output of a layer to zero before the next layer.
        max_recurrent: limit of the absolute recurrent weights, applied in the forward pass; None for no limit, which
            tasks such as parity need.
        mode: how states are found: ``parallel`` by Newton's method, ``sequential`` by a loop over steps, or ``auto``
            for the faster one.
        max_iterations: largest number of iterations of Newton's method, at least 1; on an accelerator all are made.
        fallback: whether a solution that has not converged is replaced by the loop over steps, which on an accelerator
            needs one synchronisation.

    Shape:
        x (B, T, D), state (L, B, H), lengths (B,) -> y (B, T, H)

    Raises:
        ValueError: if an argument is outside its range; in ``forward`` if ``x``, ``state`` or ``lengths`` does not fit.

    Example:
        >>> layer = ParaGRU(3, 5)
        >>> y, state = layer(torch.randn(2, 4, 3), lengths=torch.tensor([4, 2]))
        >>> y.shape, state.shape
        (torch.Size([2, 4, 5]), torch.Size([1, 2, 5]))
    """

    cell = "gru"
    diagonals = 3

    def states(self, gates: Tensor, layer: int, initial: tuple[Tensor, ...] | None) -> tuple[Tensor, ...]:
        """Return all states of a layer."""
        weight = self.recurrent_weight(layer)
        start = weight.new_zeros(len(gates), self.hidden_size) if initial is None else initial[0].to(weight.dtype)
        h, report = para_gru(
            gates, weight, start, mode=self.mode, max_iterations=self.max_iterations, fallback=self.fallback
        )
        self._note(report)
        return (h,)


class ParaLSTM(Recorded, _ParaRecurrence):
    r"""Stack of LSTM cells with diagonal recurrent weights, solved for all steps at once or step by step.

    The cell is that of :func:`graphseq.ops.para_lstm`, with coupled input and forget gates and peepholes, on the inputs
    :math:`[x^f, x^z, x^o] = W x + b`. All else is as in :class:`ParaGRU`; the state is the pair h, c.

    Source: arXiv 2510.21450, eq. 3.1b, and appendix C.1 for the limit. Differs from it: the mode is chosen by the
    device, and on the CPU by size; weights W are drawn with variance 1 / D.

    Args:
        input_size: number of features D of each step.
        hidden_size: number H of channels of each layer.
        num_layers: number of layers, at least 1.
        dropout: probability in [0, 1) of setting an output of a layer to zero before the next layer.
        max_recurrent: limit of the absolute recurrent weights, applied in the forward pass; None for no limit.
        mode: how states are found: ``parallel`` by Newton's method, ``sequential`` by a loop over steps, or ``auto``
            for the faster one.
        max_iterations: largest number of iterations of Newton's method, at least 1; on an accelerator all are made.
        fallback: whether a solution that has not converged is replaced by the loop over steps, which on an accelerator
            needs one synchronisation.

    Shape:
        x (B, T, D), state h and c, each (L, B, H), lengths (B,) -> y (B, T, H)

    Raises:
        ValueError: if an argument is outside its range; in ``forward`` if ``x``, ``state`` or ``lengths`` does not fit.

    Example:
        >>> y, (h, c) = ParaLSTM(3, 5, num_layers=2)(torch.randn(2, 4, 3))
        >>> y.shape, h.shape, c.shape
        (torch.Size([2, 4, 5]), torch.Size([2, 2, 5]), torch.Size([2, 2, 5]))
    """

    cell = "lstm"
    diagonals = 5

    def states(self, gates: Tensor, layer: int, initial: tuple[Tensor, ...] | None) -> tuple[Tensor, ...]:
        """Return all states h and c of a layer."""
        weight = self.recurrent_weight(layer)
        shape = (len(gates), 2, self.hidden_size)
        start = (
            weight.new_zeros(shape) if initial is None else torch.stack([initial[1], initial[0]], 1).to(weight.dtype)
        )
        states, report = para_lstm(
            gates, weight, start, mode=self.mode, max_iterations=self.max_iterations, fallback=self.fallback
        )
        self._note(report)
        c, h = states.unbind(2)
        return h, c
