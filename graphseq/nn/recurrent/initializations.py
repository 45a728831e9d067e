"""Initialisations of recurrent layers: orthogonal and identity recurrences, and the bias of forget gates."""

from typing import Any

import torch
from torch import nn

from graphseq.core import Recorded

__all__ = ["ForgetBias", "IdentityRecurrence", "OrthogonalRecurrence", "RecurrentInitialization"]


class RecurrentInitialization(Recorded):
    """Base class of initialisations: called with a layer, they write its weights.

    Layers have their weights under torch's names, ``weight_ih``, ``weight_hh``, ``bias_ih`` and ``bias_hh`` with a
    number behind, and the gates of a cell one below the other.

    Example:
        >>> layer = nn.LSTM(3, 5)
        >>> OrthogonalRecurrence()(layer)
        >>> torch.allclose(layer.weight_hh_l0[:5] @ layer.weight_hh_l0[:5].T, torch.eye(5), atol=1e-5)
        True
    """

    def __call__(self, layer: nn.Module) -> None:
        """Write the weights of a layer.

        Args:
            layer: recurrent layer of torch or of this library.
        """
        raise NotImplementedError(f"{type(self).__name__} must define __call__")


def check_initialization(initialization: Any) -> None:
    """Raise if an initialisation is a class, which would write nothing, or cannot be called.

    Args:
        initialization: initialisation of a recurrent layer, or None.

    Raises:
        TypeError: if it is another object.

    Example:
        >>> check_initialization(ForgetBias())
    """
    if isinstance(initialization, type):
        raise TypeError(
            f"initialization is the class {initialization.__name__}; give an object, such as OrthogonalRecurrence()"
        )
    if initialization is not None and not callable(initialization):
        raise TypeError(f"initialization is {initialization!r}; give an object such as OrthogonalRecurrence(), or None")


def _weights(layer: nn.Module, kind: str) -> list[nn.Parameter]:
    return [parameter for name, parameter in layer.named_parameters() if name.rpartition(".")[2].startswith(kind)]


@torch.no_grad()
def _set_forget_bias(layer: nn.Module, value: float) -> bool:
    """Write the bias of the forget gate, the second of four, into one of the two bias vectors; else return False."""
    found = False
    for recurrent, bias_ih, bias_hh in zip(
        _weights(layer, "weight_hh"), _weights(layer, "bias_ih"), _weights(layer, "bias_hh"), strict=True
    ):
        size = recurrent.shape[1]
        if recurrent.shape[0] == 4 * size:
            bias_ih[size : 2 * size] = value
            bias_hh[size : 2 * size] = 0.0
            found = True
    return found


class ForgetBias(RecurrentInitialization):
    r"""Bias of the forget gate of an LSTM; all other weights stay as they are.

    The sum of both bias vectors is the value: with 1 the cell keeps 0.73 of its state from one step to the next where
    the other inputs of the gate are 0; with torch's initialisation it keeps about half.

    Args:
        value: bias of the forget gate.

    Raises:
        ValueError: when called, if the layer has no forget gate.

    Example:
        >>> layer = nn.LSTM(3, 5)
        >>> ForgetBias(1.0)(layer)
        >>> (layer.bias_ih_l0 + layer.bias_hh_l0)[5:10].tolist()
        [1.0, 1.0, 1.0, 1.0, 1.0]
    """

    def __init__(self, value: float = 1.0) -> None:
        self.value = value

    def __call__(self, layer: nn.Module) -> None:
        """Write the bias.

        Args:
            layer: LSTM of torch or of this library.
        """
        if not _set_forget_bias(layer, self.value):
            raise ValueError(f"{type(layer).__name__} has no forget gate; give an LSTM that has one")


class OrthogonalRecurrence(RecurrentInitialization):
    """Orthogonal recurrent weights for each gate, Glorot input weights, and biases 0 except those of forget gates.

    Args:
        gain: factor of the orthogonal matrices, above 0.
        forget_bias: bias of the forget gate where a cell has one.

    Raises:
        ValueError: if ``gain`` is not above 0.

    Example:
        >>> layer = nn.GRU(3, 5)
        >>> OrthogonalRecurrence()(layer)
        >>> layer.bias_hh_l0.abs().sum().item()
        0.0
    """

    def __init__(self, gain: float = 1.0, forget_bias: float = 1.0) -> None:
        if not gain > 0:
            raise ValueError(f"gain is {gain}; it must be above 0")
        self.gain, self.forget_bias = gain, forget_bias

    def __call__(self, layer: nn.Module) -> None:
        """Write all weights and biases.

        Args:
            layer: recurrent layer of torch or of this library.
        """
        for recurrent in _weights(layer, "weight_hh"):
            for gate in recurrent.split(recurrent.shape[1]):
                nn.init.orthogonal_(gate, self.gain)
        for given, recurrent in zip(_weights(layer, "weight_ih"), _weights(layer, "weight_hh"), strict=True):
            for gate in given.split(recurrent.shape[1]):
                nn.init.xavier_uniform_(gate)
        for bias in _weights(layer, "bias"):
            nn.init.zeros_(bias)
        _set_forget_bias(layer, self.forget_bias)


class IdentityRecurrence(RecurrentInitialization):
    """Recurrent weights that are a multiple of the identity, and biases 0, for Elman networks with ReLU.

    Args:
        scale: factor of the identity.
        input_deviation: standard deviation of the input weights, above 0.

    Raises:
        ValueError: if ``input_deviation`` is not above 0; when called, if the layer has gates.

    Example:
        >>> layer = nn.RNN(3, 2, nonlinearity="relu")
        >>> IdentityRecurrence()(layer)
        >>> layer.weight_hh_l0.tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """

    def __init__(self, scale: float = 1.0, input_deviation: float = 0.01) -> None:
        if not input_deviation > 0:
            raise ValueError(f"input_deviation is {input_deviation}; it must be above 0")
        self.scale, self.input_deviation = scale, input_deviation

    @torch.no_grad()
    def __call__(self, layer: nn.Module) -> None:
        """Write all weights and biases.

        Args:
            layer: recurrent layer without gates.
        """
        recurrent = _weights(layer, "weight_hh")
        if not recurrent or any(weight.shape[0] != weight.shape[1] for weight in recurrent):
            raise ValueError(f"{type(layer).__name__} has gates or no recurrence; give an Elman network")
        for weight in recurrent:
            weight.copy_(self.scale * torch.eye(len(weight)))
        for weight in _weights(layer, "weight_ih"):
            nn.init.normal_(weight, std=self.input_deviation)
        for bias in _weights(layer, "bias"):
            nn.init.zeros_(bias)
