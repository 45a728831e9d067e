"""Any network with quadratic neurons in place of its linear and convolutional layers."""

from collections.abc import Sequence
from typing import Any, Literal

from torch import nn

from graphseq.core.spec import Recorded
from graphseq.nn import QuadraticConv2d, QuadraticLinear
from graphseq.nn.dense.quadratic import make_quadratic_layers

__all__ = ["QuadraticNetwork"]


class QuadraticNetwork(Recorded, nn.Module):
    r"""A network whose linear and convolutional layers are replaced by quadratic ones.

    With ``relinear`` its output is at first that of the given network. Train it with
    :class:`graphseq.callbacks.ReLinear`, or with the groups of :func:`graphseq.nn.relinear_param_groups`.

    Source: arXiv 2110.06081. Differs from the paper: the network is given; the paper's residual networks leave their
    first and last layer as they are (``skip``).

    Args:
        network: network to replace layers of, changed in place.
        skip: dotted names of layers, or of parts whose layers all stay as they are.
        kind: ``full``, or ``compact`` without the product, see :class:`graphseq.nn.QuadraticLinear`.
        initialization: ``relinear``, or ``random`` for the quadratic terms; the linear terms are those of the network.

    Shape:
        those of the network

    Raises:
        TypeError: if ``skip`` is a string.
        ValueError: if ``skip`` names a layer that does not exist, no layer is left to replace, the network is itself
            such a layer, or ``kind`` or ``initialization`` is unknown.

    Example:
        >>> import torch
        >>> from graphseq.models import MLP
        >>> model = QuadraticNetwork(MLP(4, 2, hidden_features=8), skip=["head"])
        >>> model(torch.randn(3, 4)).shape, model.replaced
        (torch.Size([3, 2]), ['hidden.0.0'])
    """

    def __init__(
        self,
        network: nn.Module,
        skip: Sequence[str] = (),
        kind: Literal["full", "compact"] = "full",
        initialization: Literal["relinear", "random"] = "relinear",
    ) -> None:
        super().__init__()
        layers = make_quadratic_layers(network, skip, kind, initialization)
        for name, layer in layers.items():
            network.set_submodule(name, layer, strict=True)
        self.network = network
        self.replaced = list(layers)

    def reset_parameters(self) -> None:
        """Reinitialise all layers of the network, each by its own rule."""
        _reset(self.network)

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """Return the output of the network.

        Args:
            inputs: inputs of the network.
            named: inputs of the network by name.
        """
        return self.network(*inputs, **named)


def _reset(module: nn.Module) -> None:
    """Reinitialise a part of a network; parts that hold quadratic layers, layer by layer: theirs is another rule."""
    quadratic = QuadraticLinear | QuadraticConv2d
    reset = getattr(module, "reset_parameters", None)  # layers of any library
    outer = not isinstance(module, quadratic) and any(isinstance(part, quadratic) for part in module.modules())
    if callable(reset) and not outer:
        reset()
        return
    for child in module.children():
        _reset(child)
