"""Recurrent cells that torch lacks: Jordan networks, and LSTMs without forget gate and with peepholes."""

import itertools
import math

import torch
from torch import Tensor, nn

from graphseq.core import Recorded
from graphseq.nn.recurrent.initializations import RecurrentInitialization, check_initialization
from graphseq.nn.recurrent.steps import StepRecurrence
from graphseq.ops.recurrent import RecurrentState

__all__ = ["ClassicalLSTM", "JordanRNN"]


def _check_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} is {size}; give a whole number of at least 1")


class ClassicalLSTM(Recorded, StepRecurrence):
    r"""LSTM with or without forget gate and peepholes: its forms of 1997, 2000 and 2002.

    .. math::
        \begin{aligned}
        i_t &= \sigma(W_i x_t + U_i h_{t-1} + p_i \odot c_{t-1} + b_i) \\
        f_t &= \sigma(W_f x_t + U_f h_{t-1} + p_f \odot c_{t-1} + b_f) \\
        c_t &= f_t \odot c_{t-1} + i_t \odot \tanh(W_g x_t + U_g h_{t-1} + b_g) \\
        o_t &= \sigma(W_o x_t + U_o h_{t-1} + p_o \odot c_t + b_o), \qquad h_t = o_t \odot \tanh(c_t)
        \end{aligned}

    Without forget gate f = 1, so that the state is a sum that is never reduced; without peepholes p = 0. With forget
    gate and without peepholes it is ``torch.nn.LSTM``, whose weights it takes under the same names; the loop over the
    steps runs in Python, so that :class:`RecurrentStack` is faster in that case. Peepholes are vectors, not matrices,
    and the output gate sees the new state.

    Source: arXiv 1506.00019, section 4.1. Differs from it: two bias vectors, as torch has them.

    Args:
        input_size: number of features D of each step, at least 1.
        hidden_size: size H of the state, at least 1.
        forget_gate: whether the cell has a forget gate.
        peepholes: whether the gates see the state of the cell; peepholes begin at 0.
        initialization: initialisation of the weights, such as :class:`OrthogonalRecurrence`; None for uniform ones
            between :math:`\pm 1 / \sqrt H`, as torch has them.

    Shape:
        x (B, T, D), state (h, c), each (1, B, H), lengths (B,) -> y (B, T, H), (h, c)

    Raises:
        ValueError: if a size is below 1; in ``forward`` if ``x``, state or lengths do not fit.
        TypeError: if ``initialization`` is a class or cannot be called.

    Example:
        >>> layer = ClassicalLSTM(3, 5, forget_gate=False, peepholes=True)
        >>> y, (h, c) = layer(torch.randn(2, 4, 3), None, torch.tensor([4, 2]))
        >>> y.shape, h.shape, bool(torch.equal(y[1, 1], h[0, 1]))
        (torch.Size([2, 4, 5]), torch.Size([1, 2, 5]), True)
    """

    cell = "lstm"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        forget_gate: bool = True,
        peepholes: bool = False,
        initialization: RecurrentInitialization | None = None,
    ) -> None:
        super().__init__()
        _check_sizes(input_size=input_size, hidden_size=hidden_size)
        check_initialization(initialization)
        self.input_size, self.hidden_size, self.output_size = input_size, hidden_size, hidden_size
        self.forget_gate, self.peepholes, self.initialization = forget_gate, peepholes, initialization
        rows = (4 if forget_gate else 3) * hidden_size  # gates i, f, g, o
        self.weight_ih_l0 = nn.Parameter(torch.empty(rows, input_size))
        self.weight_hh_l0 = nn.Parameter(torch.empty(rows, hidden_size))
        self.bias_ih_l0 = nn.Parameter(torch.empty(rows))
        self.bias_hh_l0 = nn.Parameter(torch.empty(rows))
        self.peephole: nn.Parameter | None = None  # of i, f and o
        if peepholes:
            self.peephole = nn.Parameter(torch.empty(3 if forget_gate else 2, hidden_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Reinitialise all weights as in the constructor."""
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -1 / math.sqrt(self.hidden_size), 1 / math.sqrt(self.hidden_size))
        if self.initialization is not None:
            self.initialization(self)
        if self.peephole is not None:
            nn.init.zeros_(self.peephole)

    def initial_state(self, size: int, like: Tensor) -> RecurrentState:
        """Return h and c before the first step, zeros (B, H).

        Args:
            size: number of sequences B.
            like: tensor whose type and device the state has.
        """
        zeros = like.new_zeros(size, self.hidden_size)
        return zeros, zeros

    def project(self, x: Tensor) -> Tensor:
        """Return the inputs of all gates without those from the state.

        Args:
            x: inputs (..., D).
        """
        return nn.functional.linear(x, self.weight_ih_l0, self.bias_ih_l0 + self.bias_hh_l0)

    def step(self, z: Tensor, state: RecurrentState) -> tuple[Tensor, RecurrentState]:
        """Return h and the state (h, c) after one step.

        Args:
            z: projected inputs of the step, (B, 4 H), or (B, 3 H) without forget gate.
            state: h and c before the step, each (B, H).
        """
        h, c = state
        gates = torch.addmm(z, h, self.weight_hh_l0.T).chunk(4 if self.forget_gate else 3, 1)
        i, g, o = gates[0], gates[-2], gates[-1]
        if self.peephole is not None:
            i = i + self.peephole[0] * c
        kept = c
        if self.forget_gate:
            f = gates[1] if self.peephole is None else gates[1] + self.peephole[1] * c
            kept = torch.sigmoid(f) * c
        c = kept + torch.sigmoid(i) * torch.tanh(g)
        if self.peephole is not None:
            o = o + self.peephole[-1] * c
        h = torch.sigmoid(o) * torch.tanh(c)
        return h, (h, c)

    def extra_repr(self) -> str:
        """Return the sizes and the choices."""
        choices = f"forget_gate={self.forget_gate}, peepholes={self.peepholes}"
        return f"{self.input_size}, {self.hidden_size}, {choices}"


class JordanRNN(Recorded, StepRecurrence):
    r"""Recurrent network whose state is made of its outputs.

    .. math::
        h_t = \phi(W x_t + U s_t + b), \qquad y_t = \psi(V h_t + d), \qquad s_{t+1} = \alpha s_t + y_t

    The state has the size of the output, not that of the hidden layer. In training the true outputs can take the place
    of its own, by :meth:`forward_with_target`; then the states are known beforehand, and so nothing is propagated back
    through time.

    Source: arXiv 1506.00019, section 3.2. Differs from it: the mean :math:`\alpha` of earlier outputs, as in Jordan's
    report of 1986.

    Args:
        input_size: number of features D of each step, at least 1.
        hidden_size: size H of the hidden layer, at least 1.
        output_size: size K of the output, at least 1.
        decay: factor :math:`\alpha` of the earlier state, in [0, 1); 0 feeds the last output back.
        activation: activation :math:`\phi` of the hidden layer; None for tanh.
        output_activation: activation :math:`\psi` of the output; None for none.

    Shape:
        x (B, T, D), state (1, B, K), lengths (B,) -> y (B, T, K), state

    Raises:
        ValueError: if a size or ``decay`` is outside its range; in ``forward`` if ``x``, state or lengths do not fit.
        TypeError: if an activation is not a module.

    Example:
        >>> y, state = JordanRNN(3, 8, 2)(torch.randn(4, 5, 3))
        >>> y.shape, bool(torch.equal(state[0], y[:, -1]))
        (torch.Size([4, 5, 2]), True)
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        output_size: int,
        decay: float = 0.0,
        activation: nn.Module | None = None,
        output_activation: nn.Module | None = None,
    ) -> None:
        super().__init__()
        _check_sizes(input_size=input_size, hidden_size=hidden_size, output_size=output_size)
        if not 0 <= decay < 1:
            raise ValueError(f"decay is {decay}; it must be in [0, 1)")
        self.input_size, self.hidden_size, self.output_size = input_size, hidden_size, output_size
        self.decay = decay
        for name, given in (("activation", activation), ("output_activation", output_activation)):
            if given is not None and not isinstance(given, nn.Module):
                said = given.__name__ if isinstance(given, type) else repr(given)
                raise TypeError(f"{name} is {said}; give a module that is built, such as torch.nn.ReLU(), or None")
        self.activation = nn.Tanh() if activation is None else activation
        self.output_activation = nn.Identity() if output_activation is None else output_activation
        self.input = nn.Linear(input_size, hidden_size)
        self.recurrent = nn.Linear(output_size, hidden_size, bias=False)
        self.output = nn.Linear(hidden_size, output_size)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Reinitialise all weights uniformly between the inverse roots of the hidden size; activations keep theirs."""
        for parameter in itertools.chain.from_iterable(
            layer.parameters() for layer in (self.input, self.recurrent, self.output)
        ):
            nn.init.uniform_(parameter, -1 / math.sqrt(self.hidden_size), 1 / math.sqrt(self.hidden_size))

    @property
    def state_is_pair(self) -> bool:
        """False: the state is one tensor."""
        return False

    def initial_state(self, size: int, like: Tensor) -> RecurrentState:
        """Return the state before the first step, zeros (B, K).

        Args:
            size: number of sequences B.
            like: tensor whose type and device the state has.
        """
        return (like.new_zeros(size, self.output_size),)

    def project(self, x: Tensor) -> Tensor:
        """Return the inputs of the hidden layer without those from the state.

        Args:
            x: inputs (..., D).
        """
        return self.input(x)

    def _output(self, z: Tensor, state: Tensor) -> Tensor:
        return self.output_activation(self.output(self.activation(z + self.recurrent(state))))

    def step(self, z: Tensor, state: RecurrentState) -> tuple[Tensor, RecurrentState]:
        """Return the output and the state after one step.

        Args:
            z: projected inputs of the step, (B, H).
            state: state before the step, (B, K).
        """
        y = self._output(z, state[0])
        return y, (self.decay * state[0] + y,)

    def forward_with_target(self, x: Tensor, target: Tensor, state: Tensor | None = None) -> Tensor:
        """Return the outputs (B, T, K) where the true outputs take the place of the network's own in the state.

        Args:
            x: inputs (B, T, D).
            target: true outputs (B, T, K).
            state: state before the first step, (1, B, K); None for zeros.

        Raises:
            ValueError: if the shapes do not fit.
        """
        self._check(x)
        if target.shape != (*x.shape[:2], self.output_size):
            raise ValueError(f"target is {tuple(target.shape)}; it must be {(*x.shape[:2], self.output_size)}")
        current = self.initial_state(len(x), x)[0]
        if state is not None:
            if state.shape != (1, *current.shape):
                raise ValueError(f"state is {tuple(state.shape)}; it must be {(1, *current.shape)}")
            current = state[0]
        states = []
        for y in target.unbind(1):
            states.append(current)
            current = self.decay * current + y
        return self._output(self.project(x), torch.stack(states, 1))
