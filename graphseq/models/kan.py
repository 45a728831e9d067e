"""Kolmogorov-Arnold networks over flattened inputs, with layers of activation functions or of ReLUs."""

import itertools
import math
from typing import Literal, Unpack

from torch import Tensor, nn

from graphseq.core.spec import Recorded
from graphseq.nn import AFKANLayer, AFKANOptions, ReLUKANLayer

__all__ = ["AFKAN", "ReLUKAN"]


def _widths(in_features: int, out_features: int, hidden_features: int, num_layers: int) -> list[tuple[int, int]]:
    """Return numbers of inputs and outputs of each layer."""
    for name, size in {"hidden_features": hidden_features, "num_layers": num_layers}.items():
        if size < 1:
            raise ValueError(f"{name} is {size}; give a whole number of at least 1")
    return list(itertools.pairwise([in_features, *[hidden_features] * (num_layers - 1), out_features]))


class _FlatNetwork(Recorded, nn.Module):
    """Layers one after the other, over all axes of a sample but the first."""

    def __init__(self, in_features: int, layers: list[nn.Module]) -> None:
        super().__init__()
        self.in_features = in_features
        self.layers = nn.Sequential(*layers)

    def reset_parameters(self) -> None:
        """Reinitialise all weights as in the constructor."""
        for layer in self.layers:
            layer.reset_parameters()  # type: ignore[operator]

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs, logits for a classification.

        Args:
            x: inputs (B, *).
        """
        if x.dim() < 2 or math.prod(x.shape[1:]) != self.in_features:
            raise ValueError(f"x has shape {tuple(x.shape)}; it must be (B, *) with {self.in_features} features in *")
        return self.layers(x.flatten(1))


class AFKAN(_FlatNetwork):
    r"""Kolmogorov-Arnold network of :class:`graphseq.nn.AFKANLayer`; all axes but the first are flattened.

    .. math:: y = \mathrm{layer}_L(\cdots \mathrm{layer}_1(\mathrm{flatten}(x)))

    Source: arXiv 2503.06112. Differs from the paper: see the layer.

    Args:
        in_features: number of features of one sample after flattening; C * Y * X for images.
        out_features: number of outputs of one sample.
        hidden_features: width between the layers.
        num_layers: number of layers L, at least 1.
        options: further arguments of :class:`graphseq.nn.AFKANLayer`, the same for all layers.

    Shape:
        x (B, *) real, with ``in_features`` features in ``*`` -> (B, out_features)

    Raises:
        ValueError: if an argument is outside its range; in ``forward`` if the features of ``x`` are not
            ``in_features``.
        TypeError: in ``forward``, if ``x`` has an integer type.

    Example:
        >>> sum(p.numel() for p in AFKAN(784, 10).parameters())
        52552
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        hidden_features: int = 64,
        num_layers: int = 2,
        **options: Unpack[AFKANOptions],
    ) -> None:
        widths = _widths(in_features, out_features, hidden_features, num_layers)
        super().__init__(in_features, [AFKANLayer(before, after, **options) for before, after in widths])


class ReLUKAN(_FlatNetwork):
    r"""Kolmogorov-Arnold network of :class:`graphseq.nn.ReLUKANLayer`; all axes but the first are flattened.

    .. math:: y = \mathrm{layer}_L(\cdots \mathrm{layer}_1(\mathrm{flatten}(x)))

    Source: arXiv 2406.02075. Differs from the paper: see the layer.

    Args:
        in_features: number of features of one sample after flattening; C * Y * X for images.
        out_features: number of outputs of one sample.
        hidden_features: width between the layers.
        num_layers: number of layers L, at least 1.
        grid: number of grid intervals in [0, 1], at least 1.
        order: order of the intervals, at least 0.
        norm: normalisation of the inputs of each layer, ``layer`` or ``none``.

    Shape:
        x (B, *) real, with ``in_features`` features in ``*`` -> (B, out_features)

    Raises:
        ValueError: if an argument is outside its range; in ``forward`` if the features of ``x`` are not
            ``in_features``.
        TypeError: in ``forward``, if ``x`` has an integer type.

    Example:
        >>> sum(p.numel() for p in ReLUKAN(784, 10).parameters())
        316842
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        hidden_features: int = 64,
        num_layers: int = 2,
        grid: int = 3,
        order: int = 3,
        norm: Literal["layer", "none"] = "layer",
    ) -> None:
        widths = _widths(in_features, out_features, hidden_features, num_layers)
        super().__init__(in_features, [ReLUKANLayer(before, after, grid, order, norm) for before, after in widths])
