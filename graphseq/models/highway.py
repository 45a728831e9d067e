"""Highway network: layers with a learned gate between their input and their transform."""

import math

import torch
from torch import Tensor, nn

from graphseq.core import Recorded

__all__ = ["HighwayMLP"]


class HighwayMLP(Recorded, nn.Module):
    r"""Multilayer perceptron whose hidden layers mix their input with their output by a learned gate.

    .. math::
        h_0 = \mathrm{ReLU}(W_0 x + b_0), \qquad
        h_i = g_i \odot \mathrm{ReLU}(W_i h_{i-1} + b_i) + (1 - g_i) \odot h_{i-1}, \qquad
        g_i = \sigma(V_i h_{i-1} + c_i), \qquad y = W_L h_{L-2} + b_L

    Source: arXiv 1505.00387, eq. 3. Differs from the paper: none.

    Args:
        in_features: number of features of one sample after flattening.
        out_features: number of outputs of one sample.
        hidden_features: width of the hidden layers.
        num_layers: number of layers, at least 2: one that sets the width, ``num_layers - 2`` highway layers, the head.
        gate_bias: initial bias of the gates; if negative, a layer initially passes its input on. The paper uses -1 to
            -3.

    Shape:
        x (B, *) real, with ``in_features`` features in ``*`` -> (B, out_features)

    Raises:
        ValueError: if a size is outside its range; in ``forward`` if the features of ``x`` are not ``in_features``.

    Example:
        >>> HighwayMLP(64, 10, num_layers=16)(torch.randn(4, 64)).shape
        torch.Size([4, 10])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        hidden_features: int = 128,
        num_layers: int = 8,
        gate_bias: float = -2.0,
    ) -> None:
        super().__init__()
        sizes = {"in_features": in_features, "out_features": out_features, "hidden_features": hidden_features}
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name} is {size}; it must be at least 1")
        if num_layers < 2:
            raise ValueError(f"num_layers is {num_layers}; it must be at least 2")
        self.in_features, self.gate_bias = in_features, gate_bias
        self.input = nn.Linear(in_features, hidden_features)
        self.hidden = nn.ModuleList(nn.Linear(hidden_features, hidden_features) for _ in range(num_layers - 2))
        self.gates = nn.ModuleList(nn.Linear(hidden_features, hidden_features) for _ in range(num_layers - 2))
        self.head = nn.Linear(hidden_features, out_features)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise weights by He's rule and biases to 0; those of gates to ``gate_bias``."""
        for layer in (self.input, *self.hidden, *self.gates, self.head):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        for gate in self.gates:
            nn.init.constant_(gate.bias, self.gate_bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs, logits for a classification.

        Args:
            x: inputs (B, *).
        """
        if x.dim() < 2 or math.prod(x.shape[1:]) != self.in_features:
            raise ValueError(f"x has shape {tuple(x.shape)}; it must be (B, *) with {self.in_features} features in *")
        h = self.input(x.flatten(1)).relu()  # (B, hidden_features)
        for layer, gate in zip(self.hidden, self.gates, strict=True):
            h = torch.lerp(h, layer(h).relu(), gate(h).sigmoid())
        return self.head(h)
