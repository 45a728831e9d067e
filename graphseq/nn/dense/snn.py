"""Self-normalising networks: SELU, the initialisation that it needs, and its dropout, in one builder."""

import itertools
import math
from typing import Literal

from torch import Tensor, nn

from graphseq.core.spec import Recorded
from graphseq.nn.activations.self_normalizing import SELU, AlphaDropout

__all__ = ["SNN", "lecun_normal_"]


def lecun_normal_(module: nn.Module) -> nn.Module:
    r"""Draw the weights of all linear and convolutional layers from :math:`N(0, 1/\mathrm{fan\_in})`, biases 0.

    It is the initialisation that self-normalising networks need: the squared weights of a unit sum to 1 on average.
    ``kaiming_normal_(nonlinearity="selu")`` has a gain of 3/4 and differs from it, as does the default of
    ``nn.Linear``, under which they sum to 1/3. In a grouped convolution the fan-in is that of one group.

    Source: arXiv 1706.02515, section "Initialization".

    Args:
        module: any layer or network.

    Returns:
        The module.

    Example:
        >>> layer = lecun_normal_(nn.Linear(400, 300))
        >>> 0.97 < float(layer.weight.square().sum(1).mean()) < 1.03, bool(layer.bias.any())
        (True, False)
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return module


class SNN(Recorded, nn.Module):
    r"""Self-normalising network: a multilayer perceptron whose units keep mean 0 and variance 1 at any depth.

    .. math:: h_i = \mathrm{alpha\ dropout}(\mathrm{SELU}(W_i h_{i-1} + b_i)), \qquad y = W_L h_{L-1} + b_L, \qquad
        W \sim N(0, 1/\mathrm{fan\_in}), \; b = 0

    It needs inputs of mean 0 and variance 1, which the data modules of tables and images give. There is no
    normalisation layer, no ordinary dropout and no skip connection: each would move the activations away from their
    fixed point.

    Source: arXiv 1706.02515. Differs from the paper: none; the paper's search over depth, width and shape is left to
    the arguments.

    Args:
        in_features: number of features of one sample after flattening; C * Y * X for images.
        out_features: number of outputs of one sample.
        hidden_features: width of the hidden layers, or of the first one if the shape is conic.
        num_layers: number L of linear layers, at least 1; 1 is a linear model.
        shape: ``rectangular`` (all hidden layers of one width) or ``conic`` (widths fall geometrically to
            ``out_features``).
        dropout: probability of alpha dropout after each hidden layer, in [0, 1); the paper uses 0 or 0.05.

    Shape:
        x (B, *) real, with ``in_features`` features in ``*`` -> (B, out_features)

    Raises:
        ValueError: if a size, ``shape`` or ``dropout`` is outside its range; in ``forward`` if the features of ``x``
            are not ``in_features``.

    Example:
        >>> import torch
        >>> SNN(64, 10, num_layers=16)(torch.randn(4, 64)).shape
        torch.Size([4, 10])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        hidden_features: int = 256,
        num_layers: int = 8,
        shape: Literal["rectangular", "conic"] = "rectangular",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        sizes = {"in_features": in_features, "out_features": out_features, "hidden_features": hidden_features}
        for name, size in {**sizes, "num_layers": num_layers}.items():
            if size < 1:
                raise ValueError(f"{name} is {size}; it must be at least 1")
        if shape not in ("rectangular", "conic"):
            raise ValueError(f"shape is {shape!r}; it must be 'rectangular' or 'conic'")
        self.in_features = in_features
        ratio = 1.0 if shape == "rectangular" else (out_features / hidden_features) ** (1 / max(num_layers - 1, 1))
        widths = [in_features, *(max(1, round(hidden_features * ratio**i)) for i in range(num_layers - 1))]
        self.hidden = nn.ModuleList(
            nn.Sequential(nn.Linear(before, after), SELU(), AlphaDropout(dropout))
            for before, after in itertools.pairwise(widths)
        )
        self.head = nn.Linear(widths[-1], out_features)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights from the normal distribution of variance 1 / fan-in, and set the biases to 0."""
        lecun_normal_(self)

    def encode(self, x: Tensor) -> Tensor:
        """Return the last hidden layer; the flattened input where there is none.

        Args:
            x: inputs (B, *).
        """
        if x.dim() < 2 or math.prod(x.shape[1:]) != self.in_features:
            raise ValueError(f"x has shape {tuple(x.shape)}; it must be (B, *) with {self.in_features} features in *")
        x = x.flatten(1)  # (B, in_features)
        for layer in self.hidden:
            x = layer(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs, logits for a classification.

        Args:
            x: inputs (B, *).
        """
        return self.head(self.encode(x))
