"""Recurrent cells with diagonal state-to-state weights, over all steps of a sequence.

``plain`` holds the cells and their Jacobians in torch operations, from which Newton's method and the loop over steps
take them; ``compiled`` is the loop over steps for a processor, gradient included.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple, TypedDict, Unpack, get_args

import torch
from torch import Tensor

from graphseq.ops.newton import NewtonReport, newton_solve, sequential_solve
from graphseq.ops.para import compiled, plain
from graphseq.ops.processor import use_compiled

__all__ = ["para_gru", "para_lstm"]

ParaMode = Literal["auto", "parallel", "sequential"]

_WIDEST = 512  # channels of all rows up to which Newton's method is faster than a loop of torch operations on a CPU
_SHORTEST = 128  # steps from which it is


class NewtonOptions(TypedDict, total=False):
    """Arguments that are passed on to :func:`graphseq.ops.newton_solve`."""

    max_iterations: int
    tolerance: float | None
    fallback: bool


class _Cell(NamedTuple):
    """Next state, next state with its Jacobian, and all states by compiled loops; functions of weights, too."""

    step: Callable[..., Tensor]
    linearize: Callable[..., tuple[Tensor, Tensor]]
    compiled: Callable[[Tensor, Tensor, Tensor], Tensor]
    diagonals: int
    parts: tuple[int, ...]


_GRU = _Cell(plain.gru, plain.gru_jacobian, compiled.gru, 3, ())
_LSTM = _Cell(plain.lstm, plain.lstm_jacobian, compiled.lstm, 5, (2,))


def para_gru(
    gates: Tensor,
    weight: Tensor,
    initial: Tensor,
    *,
    mode: ParaMode = "auto",
    **options: Unpack[NewtonOptions],
) -> tuple[Tensor, NewtonReport | None]:
    r"""Return all states of a gated recurrent unit with diagonal recurrent weights.

    .. math::
        z_t &= \sigma(a_z \odot h_{t-1} + x^z_t), \qquad r_t = \sigma(a_r \odot h_{t-1} + x^r_t) \\
        n_t &= \tanh(a_n \odot h_{t-1} \odot r_t + x^n_t), \qquad h_t = (1 - z_t) \odot h_{t-1} + z_t \odot n_t

    The gate z multiplies the new candidate, not the old state as in ``torch.nn.GRU``. The modes differ in how the
    states are found, and give the same numbers up to rounding: ``parallel`` by :func:`newton_solve`, ``sequential`` by
    a loop over steps, which on the CPU with numba is compiled. The gradient of both is one recurrence backwards; it
    can be taken once.

    ``auto`` is the faster one. On a processor that is the compiled loop at all sizes; without numba it is ``parallel``
    for at least 128 steps and at most 512 channels in all rows together, else ``sequential``. On an accelerator it is
    ``parallel`` but for single steps.

    Source: arXiv 2510.21450, eq. 3.1a and 3.2a.

    Args:
        gates: inputs of the gates z, r and n.
        weight: diagonals a of the gates z, r and n.
        initial: state before the first step.
        mode: how the states are found: ``auto``, ``parallel`` or ``sequential``.
        options: ``max_iterations``, ``tolerance`` and ``fallback`` of :func:`newton_solve`.

    Shape:
        gates (B, T, 3 D), weight (3, D), initial (B, D) -> (B, T, D), and the report of Newton's method or None

    Raises:
        ValueError: if a shape or type does not fit, or an argument is out of range.

    Example:
        >>> states, _ = para_gru(torch.zeros(1, 2, 3), torch.zeros(3, 1), torch.ones(1, 1))
        >>> states.flatten()
        tensor([0.5000, 0.2500])
    """
    return _states(_GRU, gates, weight, initial, mode, options)


def para_lstm(
    gates: Tensor,
    weight: Tensor,
    initial: Tensor,
    *,
    mode: ParaMode = "auto",
    **options: Unpack[NewtonOptions],
) -> tuple[Tensor, NewtonReport | None]:
    r"""Return all states of an LSTM with diagonal recurrent weights, peepholes and coupled input and forget gates.

    .. math::
        f_t &= \sigma(a_f \odot h_{t-1} + p_f \odot c_{t-1} + x^f_t), \qquad
        z_t = \tanh(a_z \odot h_{t-1} + x^z_t) \\
        c_t &= f_t \odot c_{t-1} + (1 - f_t) \odot z_t \\
        o_t &= \sigma(a_o \odot h_{t-1} + p_o \odot c_t + x^o_t), \qquad h_t = o_t \odot \tanh(c_t)

    Modes, gradient and the choice of ``auto`` are those of :func:`para_gru`.

    Source: arXiv 2510.21450, eq. 3.1b and 3.2b.

    Args:
        gates: inputs of the gates f, z and o.
        weight: diagonals a of f, z and o, then the diagonals p of f and o.
        initial: c and h before the first step.
        mode: how the states are found: ``auto``, ``parallel`` or ``sequential``.
        options: ``max_iterations``, ``tolerance`` and ``fallback`` of :func:`newton_solve`.

    Shape:
        gates (B, T, 3 D), weight (5, D), initial (B, 2, D) -> (B, T, 2, D), and the report of Newton's method or None

    Raises:
        ValueError: if a shape or type does not fit, or an argument is out of range.

    Example:
        >>> states, _ = para_lstm(torch.zeros(1, 2, 3), torch.zeros(5, 1), torch.ones(1, 2, 1))
        >>> states[:, :, 0].flatten()
        tensor([0.5000, 0.2500])
    """
    return _states(_LSTM, gates, weight, initial, mode, options)


def _states(
    cell: _Cell, gates: Tensor, weight: Tensor, initial: Tensor, mode: ParaMode, options: NewtonOptions
) -> tuple[Tensor, NewtonReport | None]:
    """All states of a cell, and the report of Newton's method if it was used."""
    _check(cell, gates, weight, initial, mode)
    kind = torch.promote_types(torch.promote_types(gates.dtype, weight.dtype), initial.dtype)
    # states in half precision would add up rounding errors over the steps
    working = torch.promote_types(kind, torch.float32)
    gates, weight, initial = gates.to(working), weight.to(working), initial.to(working)
    with torch.autocast(gates.device.type, enabled=False):
        fast = use_compiled(gates, weight, initial)
        step, linearize = partial(cell.step, weight=weight), partial(cell.linearize, weight=weight)
        if mode == "parallel" or (mode == "auto" and _is_parallel(gates, initial, fast)):
            states, report = newton_solve(step, gates, initial, linearize=linearize, **options)
            return states.to(kind), report
        if fast:
            return cell.compiled(gates, weight, initial).to(kind), None
        return sequential_solve(step, gates, initial, linearize=linearize).to(kind), None


def _is_parallel(gates: Tensor, initial: Tensor, fast: bool) -> bool:
    """Whether Newton's method is the faster way, by what was measured."""
    if gates.device.type != "cpu":
        return gates.shape[1] > 1
    channels = gates.shape[0] * initial.shape[-1]
    return not fast and gates.shape[1] >= _SHORTEST and channels <= _WIDEST


def _check(cell: _Cell, gates: Tensor, weight: Tensor, initial: Tensor, mode: str) -> None:
    if mode not in get_args(ParaMode):
        raise ValueError(f"mode is {mode!r}; it must be one of {', '.join(get_args(ParaMode))}")
    if gates.dim() != 3 or not gates.is_floating_point():
        raise ValueError(f"gates is {gates.dtype} {tuple(gates.shape)}; give floating-point inputs (B, T, 3 D)")
    dim, rest = divmod(gates.shape[2], 3)
    needed = {
        "weight": (weight, (cell.diagonals, dim)),
        "initial": (initial, (gates.shape[0], *cell.parts, dim)),
    }
    for name, (tensor, shape) in needed.items():
        if rest or tensor.shape != shape:
            raise ValueError(f"{name} is {tuple(tensor.shape)}; gates of shape {tuple(gates.shape)} need {shape}")
