"""Stacked recurrent layers of torch, called with weights that are given, such as masked ones."""

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import torch
from torch import _VF, Tensor
from torch.nn import functional

from graphseq.ops.processor import use_compiled
from graphseq.ops.recurrent import elman, gru

__all__ = ["recurrent_gates", "recurrent_layers"]

RecurrentMode = Literal["rnn_tanh", "rnn_relu", "gru", "lstm"]
RecurrentState: TypeAlias = tuple[Tensor, ...]
_GATES: dict[RecurrentMode, int] = {"rnn_tanh": 1, "rnn_relu": 1, "gru": 3, "lstm": 4}
_COMPILED: dict[RecurrentMode, Callable[..., tuple[Tensor, Tensor]]] = {
    "rnn_tanh": functools.partial(elman.elman_layer, False),
    "rnn_relu": functools.partial(elman.elman_layer, True),
    "gru": gru.gru_layer,
}


def recurrent_gates(mode: RecurrentMode) -> int:
    """Return the number of gates of a recurrent cell: its weights have so many blocks of rows, one below the other.

    Args:
        mode: kind of cell: ``rnn_tanh``, ``rnn_relu``, ``gru`` (gates r, z, n) or ``lstm`` (gates i, f, g, o).

    Raises:
        ValueError: if ``mode`` is unknown.

    Example:
        >>> recurrent_gates("gru")
        3
    """
    if mode not in _GATES:
        raise ValueError(f"cell is {mode!r}; it must be one of {', '.join(_GATES)}")
    return _GATES[mode]


def recurrent_layers(
    mode: RecurrentMode,
    x: Tensor,
    weights: Sequence[Tensor],
    state: RecurrentState | None = None,
    batch_sizes: Tensor | None = None,
    dropout: float = 0.0,
    training: bool = False,
) -> tuple[Tensor, RecurrentState]:
    r"""Return the outputs of stacked recurrent layers and their state after the last step.

    It calls the kernels of ``torch.nn.RNN``, ``GRU`` and ``LSTM``: one matrix product for the inputs of all steps, and
    a compiled loop over the steps. Unlike those modules it takes the weights as an argument, so that a mask is applied
    once a call and not once a step. On a processor a layer of few units, but for an LSTM, is one compiled loop, faster
    than torch's; it cannot be differentiated twice.

    Args:
        mode: kind of cell, see :func:`recurrent_gates`.
        x: inputs (B, T, D), or the data of packed sequences (M, D).
        weights: ``weight_ih``, ``weight_hh``, ``bias_ih``, ``bias_hh`` of each layer, as torch orders them.
        state: state before the first step, h, and c of an LSTM, each (L, B, H) for L layers; None for zeros.
        batch_sizes: number of sequences at each step of packed sequences, int64 (T,), on the CPU; None for ``x`` that
            is not packed.
        dropout: probability in [0, 1) of setting an output of a layer to zero before the next layer.
        training: whether dropout is active.

    Raises:
        ValueError: if ``mode`` is unknown, the number of weights is not a multiple of four, or the inputs or the state
            do not fit the weights.

    Example:
        >>> import torch
        >>> layer = torch.nn.GRU(3, 5, batch_first=True)
        >>> x = torch.randn(2, 7, 3)
        >>> y, state = recurrent_layers("gru", x, list(layer.parameters()))
        >>> torch.allclose(y, layer(x)[0], atol=1e-6), state[0].shape
        (True, torch.Size([1, 2, 5]))
    """
    recurrent_gates(mode)
    layers, rest = divmod(len(weights), 4)
    if rest or not layers:
        raise ValueError(f"weights has {len(weights)} entries; give weight_ih, weight_hh, bias_ih, bias_hh a layer")
    if state is None:
        size = len(x) if batch_sizes is None else int(batch_sizes[0])
        zeros = x.new_zeros(layers, size, weights[1].shape[1])
        state = (zeros, zeros) if mode == "lstm" else (zeros,)
    else:  # torch's kernels read beyond a state of another size
        size = len(x) if batch_sizes is None else int(batch_sizes[0])
        needed = [(layers, size, weights[1].shape[1])] * (2 if mode == "lstm" else 1)
        if [part.shape for part in state] != needed:
            given = ", ".join(str(tuple(part.shape)) for part in state)
            raise ValueError(f"state holds {given}; {len(needed)} of {needed[0]} are needed, as the layers return it")
    if x.shape[-1] != weights[0].shape[1]:
        raise ValueError(f"x has {x.shape[-1]} features and the first layer takes {weights[0].shape[1]}")
    narrow = mode != "lstm" and weights[1].shape[1] <= gru.WIDEST and not torch.is_autocast_enabled("cpu")
    if narrow and use_compiled(x, *state, *weights):
        return _compiled_layers(_COMPILED[mode], x, state[0], weights, batch_sizes, dropout if training else 0.0)
    initial: object = state if mode == "lstm" else state[0]
    options = (list(weights), True, layers, dropout, training, False)
    kernel = getattr(_VF, mode)  # torch.nn.RNN and its subclasses call these by name, too
    with warnings.catch_warnings():
        if x.is_cuda:  # cuDNN copies weights that are not one chunk of memory, and says so once a call
            warnings.filterwarnings("ignore", message="RNN module weights are not part of single contiguous chunk")
        y, *after = kernel(x, initial, *options, True) if batch_sizes is None else (
            kernel(x, batch_sizes, initial, *options)
        )  # fmt: skip
    return y, tuple(after)


def _compiled_layers(
    layer: Callable[..., tuple[Tensor, Tensor]],
    x: Tensor,
    state: Tensor,
    weights: Sequence[Tensor],
    batch_sizes: Tensor | None,
    dropout: float,
) -> tuple[Tensor, RecurrentState]:
    if batch_sizes is None:
        step = x.permute(1, 2, 0)  # (T, D, B)
        sizes = torch.full((len(step),), len(x))
    else:
        sizes = batch_sizes
        known = gru.known_steps(sizes)
        step = x.new_zeros(*known.shape, x.shape[1]).masked_scatter(known[..., None], x).transpose(1, 2)
    last = []
    for number, before in enumerate(state.unbind(0)):
        step = functional.dropout(step, dropout) if number else step
        step, after = layer(sizes, step, before, *weights[4 * number : 4 * number + 4])
        last.append(after)
    return step.permute(2, 0, 1) if batch_sizes is None else step.transpose(1, 2)[known], (torch.stack(last),)
