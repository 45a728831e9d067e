"""Tree of dilated causal convolutions: each input of the receptive field reaches an output along one path."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from graphseq.core import Recorded
from graphseq.nn.causal import CausalLayer, positive
from graphseq.nn.conv.causal import CausalConvolution

__all__ = ["TreeConvolution"]

Initialization = Literal["decay", "normal"]


class TreeConvolution(Recorded, CausalLayer):
    r"""Causal depthwise convolutions in sequence, each with f times the dilation of the one before, f = K by default.

    .. math:: y = c_{L-1} \circ \cdots \circ c_0\,(x), \qquad c_i(x)_t = \sum_{j=0}^{K-1} w_{ij}\, x_{t - j f^i}

    With the dilations 1, K, K^2 and so on (f = K) every step within the receptive field :math:`K^L` reaches an output
    along exactly one path, as the leaves of a tree reach its root. A few layers cover many steps: 3 layers with K = 17
    cover 4913. The cost is linear in the number of steps, and the layer can replace the moving average of MEGA. With a
    smaller f there are several paths; a larger one would leave gaps and is an error.

    The state holds the last :math:`(K - 1) f^i` inputs of each layer, so a step costs the same at every position.

    Source: arXiv 2312.05605, abstract: the body of the paper could not be read, and there is no official code, so the
    depthwise kernels, the initialisation and the optional activation between layers are choices of this library.

    Args:
        channels: number C of channels.
        kernel_size: number K of steps that a layer reads, at least 2.
        depth: number L of layers, at least 1.
        dilation_base: ratio f of the dilations of consecutive layers, in 1..K; None for K.
        activation: module between two layers; None for no activation, which makes the tree one linear filter.
        initialization: ``decay`` for weights that make the tree an exponential moving average in each channel, with
            time constants from 1 to the receptive field, evenly spaced in their logarithm; ``normal`` for independent
            weights of variance 1 / K.

    Shape:
        x (B, T, C), states (B, (K - 1) f^i, C), lengths (B,) -> y (B, T, C)

    Raises:
        ValueError: if an argument is out of range; in ``forward`` if ``x``, ``state`` or ``lengths`` does not fit.

    Example:
        >>> tree = TreeConvolution(3, kernel_size=4, depth=3)
        >>> tree.receptive_field, tree(torch.randn(2, 7, 3))[0].shape
        (64, torch.Size([2, 7, 3]))
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int = 17,
        depth: int = 3,
        dilation_base: int | None = None,
        activation: nn.Module | None = None,
        initialization: Initialization = "decay",
    ) -> None:
        super().__init__()
        positive(channels=channels, depth=depth)
        if kernel_size < 2:
            raise ValueError(f"kernel_size is {kernel_size}; give at least 2")
        base = kernel_size if dilation_base is None else dilation_base
        if not 1 <= base <= kernel_size:
            raise ValueError(
                f"dilation_base is {base}; give 1..{kernel_size}: above the kernel size some steps would not be read"
            )
        if initialization not in ("decay", "normal"):
            raise ValueError(f"initialization is {initialization!r}; give 'decay' or 'normal'")
        self.input_size = self.output_size = channels
        self.kernel_size, self.dilation_base, self.initialization = kernel_size, base, initialization
        self.layers = nn.ModuleList(CausalConvolution(channels, kernel_size, base**place) for place in range(depth))
        self.activation = activation
        self.reset_parameters()

    @property
    def receptive_field(self) -> int:
        """Number of steps, the present one included, that an output depends on."""
        return 1 + sum(layer.reach for layer in self._convolutions())

    def _convolutions(self) -> list[CausalConvolution]:
        return [layer for layer in self.layers if isinstance(layer, CausalConvolution)]

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Reinitialise the kernels as in the constructor."""
        if self.initialization == "normal":
            for layer in self._convolutions():
                nn.init.normal_(layer.weight, std=self.kernel_size**-0.5)
            return
        channels = self.input_size
        constants = torch.linspace(0, math.log(self.receptive_field), channels).exp()  # (C,) time constants in steps
        for layer in self._convolutions():
            lag = torch.arange(self.kernel_size) * layer.dilation
            kernel = (-lag / constants[:, None]).exp()  # (C, K); a product of exponentials is one of the sum of lags
            layer.weight.copy_(kernel / kernel.sum(1, keepdim=True))

    def composed_kernel(self) -> Tensor:
        """Return the kernel of the single convolution that equals all layers, (C, receptive field), lag 0 first.

        Raises:
            ValueError: if there is an activation between the layers.
        """
        if self.activation is not None:
            raise ValueError(
                f"activation is {self.activation}, so the layers are not one convolution; build the tree without it"
            )
        impulse = self._convolutions()[0].weight.new_zeros(1, self.receptive_field, self.input_size)
        impulse[:, 0] = 1
        return self(impulse)[0][0].mT

    def forward(
        self, x: Tensor, state: Sequence[Tensor] | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the outputs of all steps and the states of the layers after the last one.

        Args:
            x: inputs (B, T, C).
            state: states before the first step, as this method returns them; None for zeros.
            lengths: number of steps of each sequence, int64 (B,), each in 0..T; None if all have T.
        """
        x, _ = self.checked(x, lengths)
        if state is not None and len(state) != len(self.layers):
            raise ValueError(f"state has {len(state)} entries; give one for each of the {len(self.layers)} layers")
        after = []
        for place, layer in enumerate(self.layers):
            if place and self.activation is not None:
                x = self.activation(x)
            x, own = layer(x, None if state is None else state[place], lengths)
            after.append(own)
        return x, after
