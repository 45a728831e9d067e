"""Gated feed-forward parts with rectified gates: conversion of trained networks, and inference on active units."""

from collections.abc import Callable, Mapping
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphseq.core import make, replace
from graphseq.nn.activations.rectified import FATReLU
from graphseq.nn.blocks.feed_forward import GatedFeedForward

__all__ = [
    "SparseGatedFeedForward",
    "calibrate_threshold",
    "gate_activations",
    "rectify_gates",
    "shift_gates",
    "sparse_decoding",
]

_SMOOTH = (nn.SiLU, nn.GELU)
_RECTIFIED = (nn.ReLU, FATReLU)


class SparseGatedFeedForward(GatedFeedForward):
    r"""Gated feed-forward part that reads only the weights of the active units, where few are active.

    .. math:: s = \phi(x W), \qquad A = \{j : s_j \ne 0\}, \qquad y = \bigl(s_A \odot x V_A\bigr)\, W_{2,A}

    The gate is computed in full, then the rows of V and of :math:`W_2` that belong to active units are gathered. A unit
    counts as active if it is active for any token of the input, so that the layer is faster for one token at a time, as
    in decoding: a batch of tokens soon activates all units together. If the share of active units exceeds
    ``max_density``, or gradients are recorded, all units are computed: zeros of the gate do not make training faster.

    The speed-up over the dense layer is at most 3, since a third of the weights belongs to the gate. State dicts are
    those of :class:`GatedFeedForward`; the weight of the output layer is stored column by column in memory. On a GPU
    each call synchronises once to read the number of active units.

    Source: arXiv 2402.13516, section 4.3 (its two operators). Differs from it: rows are gathered by torch operations
    instead of custom kernels, and the dense layer is computed where many units are active.

    Args:
        dim: number D of features of inputs and outputs.
        hidden_channels: number of units; None as in :class:`GatedFeedForward`.
        activation: activation of the gate, ``torch.nn.ReLU`` or :class:`FATReLU`; None for ``torch.nn.ReLU()``.
        max_density: largest share of active units with which rows are gathered, in [0, 1]; at about a quarter, copying
            the gathered rows takes as long as the rest of the layer.

    Shape:
        x (*, D) -> y (*, D)

    Raises:
        ValueError: if a size is below 1, or ``max_density`` is outside its range.
        TypeError: if the activation is not rectified: no unit would ever be inactive.

    Example:
        >>> layer, x = SparseGatedFeedForward(6, 64, max_density=1.0), torch.randn(1, 6)
        >>> dense = layer(x)
        >>> with torch.inference_mode():
        ...     torch.allclose(layer(x), dense, atol=1e-6)
        True
    """

    def __init__(
        self,
        dim: int,
        hidden_channels: int | None = None,
        activation: nn.Module | None = None,
        max_density: float = 0.2,
    ) -> None:
        super().__init__(dim, hidden_channels, make(nn.ReLU) if activation is None else activation)
        if not 0.0 <= max_density <= 1.0:
            raise ValueError(f"max_density is {max_density}; give a share of the units in [0, 1]")
        if not isinstance(self.activation, _RECTIFIED):
            raise TypeError(
                f"the activation of the gate is {type(self.activation).__name__}, which is never 0; give torch.nn.ReLU "
                "or FATReLU, or call rectify_gates on a trained network and fine-tune it"
            )
        self.max_density = max_density
        # the column of a unit in one piece of memory; state dicts and copies keep the layout
        self.output.weight = nn.Parameter(self.output.weight.detach().t().contiguous().t())

    @classmethod
    def from_dense(cls, layer: GatedFeedForward, max_density: float = 0.2) -> Self:
        """Return a layer with copies of the weights of another one, and its activation.

        Args:
            layer: gated feed-forward part with a rectified activation.
            max_density: largest share of active units with which rows are gathered, in [0, 1].

        Example:
            >>> layer = GatedFeedForward(6, activation=make(nn.ReLU))
            >>> SparseGatedFeedForward.from_dense(layer).output.weight.stride()
            (1, 6)
        """
        hidden, dim = layer.output.in_features, layer.output.out_features
        made = cls(dim, hidden, layer.activation, max_density)
        made.to(layer.output.weight.device, layer.output.weight.dtype)
        made.load_state_dict(layer.state_dict())
        return made

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs of all steps.

        Args:
            x: inputs (*, D).
        """
        if torch.is_grad_enabled():
            return super().forward(x)
        weight = self.gate_and_value.weight  # (2 H, D)
        hidden = len(weight) // 2
        gate, value_weight = self.activation(functional.linear(x, weight[:hidden])), weight[hidden:]  # (*, H), (H, D)
        used = gate if gate.numel() == hidden else gate.view(-1, hidden).any(0)  # H entries
        if int(used.count_nonzero()) > self.max_density * hidden:  # counting is cheaper than listing
            return self.output(gate * functional.linear(x, value_weight))
        active = used.flatten().nonzero().squeeze(1)  # (A,)
        value = functional.linear(x, value_weight.index_select(0, active))  # (*, A)
        rows = self.output.weight.t().index_select(0, active)  # (A, D)
        return (gate.index_select(-1, active) * value) @ rows


def _gated(network: nn.Module) -> dict[str, GatedFeedForward]:
    """Return the gated feed-forward parts of a network by name, a shared one under each of its names."""
    parts = network.named_modules(remove_duplicate=False)
    found = {name: layer for name, layer in parts if isinstance(layer, GatedFeedForward)}
    if not found:
        raise TypeError(
            f"{type(network).__name__} has no gated feed-forward part, whose gate could be sparse; build it with "
            "GatedFeedForward or SwiGLU"
        )
    return found


def _within(name: str, child: str) -> str:
    return f"{name}.{child}" if name else child


def _exchange(network: nn.Module, names: list[str], build: Callable[[nn.Module], nn.Module]) -> list[str]:
    """Replace the layers of these names; without names nothing is done."""
    return replace(network, lambda name, layer: name in names, build) if names else []


def rectifiable_gates(network: nn.Module) -> dict[str, GatedFeedForward]:
    """Return the gated feed-forward parts of a network by name, a shared one under each of its names.

    Args:
        network: network with gated feed-forward parts whose activations are rectified, or can be.

    Raises:
        TypeError: if there is no such part, or a gate has another activation.

    Example:
        >>> list(rectifiable_gates(nn.Sequential(GatedFeedForward(6))))
        ['0']
    """
    layers = _gated(network)
    for name, layer in layers.items():
        if not isinstance(layer.activation, _SMOOTH + _RECTIFIED):
            raise TypeError(
                f"the gate of {name or 'the network'} has the activation {type(layer.activation).__name__}; only SiLU "
                "and GELU are replaced by ReLU"
            )
    return layers


def rectify_gates(network: nn.Module) -> list[str]:
    r"""Replace the smooth activations of all gates of a network by ReLU, in place, and return their names.

    Activations are SiLU or GELU; gates that are rectified already, activations outside gates and all parameters are
    left as they are. The network has to be fine-tuned afterwards.

    Source: arXiv 2402.13516, section 3.2, step 1.

    Args:
        network: network with gated feed-forward parts, such as the ``model`` of a task; the change is recorded, so that
            checkpoints rebuild it.

    Raises:
        TypeError: if there is no gated feed-forward part, or a gate has another activation.

    Example:
        >>> network = nn.Sequential(GatedFeedForward(6))
        >>> rectify_gates(network), rectify_gates(network)
        (['0.activation'], [])
    """
    layers = rectifiable_gates(network)
    smooth = [_within(name, "activation") for name, layer in layers.items() if isinstance(layer.activation, _SMOOTH)]
    return _exchange(network, smooth, lambda old: make(nn.ReLU))


def shift_gates(network: nn.Module, threshold: float) -> list[str]:
    r"""Replace the rectified activations of all gates by :class:`FATReLU`, in place, and return their names.

    Source: arXiv 2402.13516, section 3.2, step 3.

    Args:
        network: network whose gates are all rectified; the change is recorded, so that checkpoints rebuild it.
        threshold: entries of the gates below it become 0; at least 0, and 0 for ``torch.nn.ReLU``. Its scale is that of
            the activations, see :func:`calibrate_threshold`.

    Raises:
        TypeError: if there is no gated feed-forward part, or a gate is not rectified.
        ValueError: if ``threshold`` is negative or not finite.

    Example:
        >>> network = nn.Sequential(GatedFeedForward(6, activation=make(nn.ReLU)))
        >>> shift_gates(network, 0.1), network[0].activation
        (['0.activation'], FATReLU(threshold=0.1))
    """
    new = FATReLU(threshold)
    names = []
    for name, layer in _rectified(network).items():
        old = layer.activation
        if (old.threshold if isinstance(old, FATReLU) else 0.0) != new.threshold:
            names.append(_within(name, "activation"))
    return _exchange(network, names, lambda old: FATReLU(threshold) if threshold else make(nn.ReLU))


def sparse_decoding(network: nn.Module, max_density: float = 0.2) -> list[str]:
    """Replace all gated feed-forward parts by :class:`SparseGatedFeedForward` of the same weights, in place.

    Args:
        network: trained network whose gates are all rectified; the change is recorded, so that checkpoints rebuild it.
        max_density: largest share of active units with which rows are gathered, in [0, 1].

    Returns:
        Dotted names of the parts that were replaced.

    Raises:
        TypeError: if there is no gated feed-forward part, or a gate is not rectified.
        ValueError: if ``max_density`` is outside its range, or ``network`` is itself such a part.

    Example:
        >>> network = nn.Sequential(GatedFeedForward(6, activation=make(nn.ReLU)))
        >>> sparse_decoding(network)
        ['0']
    """
    names = [name for name, layer in _rectified(network).items() if not isinstance(layer, SparseGatedFeedForward)]
    if "" in names:
        raise ValueError(
            f"network is itself a {type(network).__name__}, which cannot be replaced in place; call "
            "SparseGatedFeedForward.from_dense"
        )
    return _exchange(network, names, lambda old: SparseGatedFeedForward.from_dense(old, max_density))  # type: ignore[arg-type]


def _rectified(network: nn.Module) -> dict[str, GatedFeedForward]:
    layers = _gated(network)
    for name, layer in layers.items():
        if not isinstance(layer.activation, _RECTIFIED):
            raise TypeError(
                f"the gate of {name or 'the network'} has the activation {type(layer.activation).__name__}, which is "
                "never 0; call rectify_gates and fine-tune the network first"
            )
    return layers


@torch.no_grad()
def gate_activations(network: nn.Module, run: Callable[[], object]) -> dict[str, Tensor]:
    """Run a network and return the activations of its gates, by the name of the gated feed-forward part.

    Args:
        network: network with gated feed-forward parts; its training or evaluation mode is left as it is.
        run: function without arguments that runs the network on one or more batches; the activations of all of them
            must fit into memory.

    Returns:
        Activations (tokens, H) of each gate, padded steps included.

    Raises:
        TypeError: if there is no gated feed-forward part.

    Example:
        >>> network = nn.Sequential(GatedFeedForward(6, 16, make(nn.ReLU)))
        >>> gates = gate_activations(network, lambda: network(torch.randn(2, 5, 6)))
        >>> gates["0"].shape
        torch.Size([10, 16])
    """
    seen: dict[str, list[Tensor]] = {}
    handles = []
    for name, layer in {id(layer): (name, layer) for name, layer in _gated(network).items()}.values():
        kept = seen.setdefault(name, [])
        handles.append(
            layer.activation.register_forward_hook(
                lambda _, inputs, gate, kept=kept: kept.append(gate.detach().flatten(0, -2))
            )
        )
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return {name: torch.cat(kept) for name, kept in seen.items() if kept}


def calibrate_threshold(gates: Mapping[str, Tensor], share: float = 0.05) -> float:
    r"""Return the threshold that sets a share of the active entries of the gates to zero.

    .. math:: T = \max\{t : \#\{s : 0 < s < t\} \le q\, \#\{s : s > 0\}\}

    over the entries s of all gates, one threshold for the network.

    Source: of this library; arXiv 2402.13516 gives 0.01 for its models, whose activations have their own scale.

    Args:
        gates: activations of each gate, as :func:`gate_activations` returns them.
        share: share q of the active entries, in [0, 1).

    Raises:
        ValueError: if ``share`` is outside its range, or no entry is active.

    Example:
        >>> calibrate_threshold({"0": torch.tensor([[0.0, 1.0, 2.0, 3.0, 4.0]])}, 0.5)
        3.0
    """
    if not 0.0 <= share < 1.0:
        raise ValueError(f"share is {share}; give a share of the active entries in [0, 1)")
    values = torch.cat([gate[gate > 0].flatten() for gate in gates.values()] or [torch.zeros(0)])
    if not len(values):
        raise ValueError("gates have no entry above 0; run the network on a batch, after its gates are rectified")
    return float(values.sort().values[int(share * len(values))])
