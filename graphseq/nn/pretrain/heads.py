"""Projection heads: layers between an encoder and a loss that are removed after pre-training."""

import itertools
from typing import Any

import torch
from torch import Tensor, nn

from graphseq.core import Recorded

__all__ = ["FixedReweightingHead", "ProjectionHead"]


class ProjectionHead(Recorded, nn.Module):
    r"""Projection by linear layers with ReLU between them; a single layer is a linear head.

    .. math:: h(z) = W_L\, \mathrm{ReLU}(\dots \mathrm{ReLU}(W_1 z + b_1) \dots) + b_L

    Source: arXiv 2403.11391; arXiv 2002.05709, section 2.1. Differs from the paper: none.

    Args:
        in_features: width of the representation.
        hidden_features: width between two maps; None for ``in_features``.
        out_features: width of the projection; None for ``in_features``.
        num_layers: number of linear maps L, at least 1; 1 for a linear head.
        bias: whether the maps have biases.

    Shape:
        z (*, in_features) -> (*, out_features)

    Raises:
        ValueError: if an argument is below 1; in ``forward``, if the last axis of ``z`` does not have ``in_features``
            coordinates.
        TypeError: in ``forward``, if ``z`` has an integer type.

    Example:
        >>> ProjectionHead(64, out_features=32)(torch.randn(5, 64)).shape
        torch.Size([5, 32])
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int | None = None,
        out_features: int | None = None,
        num_layers: int = 2,
        bias: bool = True,
    ) -> None:
        super().__init__()
        hidden_features = in_features if hidden_features is None else hidden_features
        out_features = in_features if out_features is None else out_features
        sizes = {
            "in_features": in_features,
            "hidden_features": hidden_features,
            "out_features": out_features,
            "num_layers": num_layers,
        }
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name} is {size}; it must be at least 1")
        self.in_features, self.out_features = in_features, out_features
        widths = [in_features, *[hidden_features] * (num_layers - 1), out_features]
        self.layers = nn.ModuleList(nn.Linear(*pair, bias=bias) for pair in itertools.pairwise(widths))

    def reset_parameters(self) -> None:
        """Reinitialise all maps."""
        for layer in self.layers:
            layer.reset_parameters()  # type: ignore[operator]  # a linear map

    def forward(self, z: Tensor) -> Tensor:
        """Return the projection.

        Args:
            z: representation (*, in_features).
        """
        _check_representation(z, self.in_features)
        for layer in self.layers[:-1]:
            z = layer(z).relu()
        projected: Tensor = self.layers[-1](z)
        return projected


class FixedReweightingHead(Recorded, nn.Module):
    r"""Projection without parameters that divides each coordinate by a power of a constant.

    .. math:: h(z)_i = \kappa^{-i} z_i, \qquad i = 0, \dots, D - 1

    The gradient of coordinate i is smaller by the same factor, so that the representation before the head is weighted
    more evenly than the projection that the loss sees. With :math:`\kappa = 1` there is no head.

    The factors are a float32 buffer in checkpoints. Those below the least normal number of float32, about 1e-38, are
    raised to it: for :math:`\kappa = 1.5` from coordinate 215 on. In float16 factors below 6e-8 are 0.

    Source: arXiv 2403.11391. Differs from the paper: the floor of the factors.

    Args:
        in_features: number of coordinates D.
        ratio: ratio :math:`\kappa` of the factors of neighbouring coordinates, at least 1; 1.05 to 1.5 in the paper.

    Shape:
        z (*, in_features) -> (*, in_features)

    Raises:
        ValueError: if ``in_features`` or ``ratio`` is below 1, or ``ratio`` is not finite; in ``forward``, if the last
            axis of ``z`` does not have ``in_features`` coordinates.
        TypeError: in ``forward``, if ``z`` has an integer type.
        RuntimeError: in ``load_state_dict``, if the state has the factors of another ratio.

    Example:
        >>> FixedReweightingHead(3, ratio=2.0)(torch.ones(1, 3))
        tensor([[1.0000, 0.5000, 0.2500]])
    """

    factor: Tensor

    def __init__(self, in_features: int, ratio: float = 1.05) -> None:
        super().__init__()
        if in_features < 1:
            raise ValueError(f"in_features is {in_features}; it must be at least 1")
        if not 1 <= ratio < float("inf"):
            raise ValueError(f"ratio is {ratio}; it must be at least 1 and finite, 1 for no reweighting")
        self.in_features = self.out_features = in_features
        self.ratio = ratio
        self.register_buffer("factor", _factors(in_features, ratio))

    def forward(self, z: Tensor) -> Tensor:
        """Return the projection.

        Args:
            z: representation (*, in_features).
        """
        _check_representation(z, self.in_features)
        return z * self.factor

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *arguments: Any) -> None:
        given, messages = state_dict.get(f"{prefix}factor"), arguments[-1]
        if isinstance(given, Tensor) and given.shape == self.factor.shape and not given.is_meta:
            expected = _factors(self.in_features, self.ratio).to(given)
            if not torch.allclose(given, expected, rtol=1e-5, atol=0.0):
                messages.append(
                    f"{prefix}factor is of another ratio than {self.ratio}: its second entry is {float(given[1]):.4g}, "
                    f"that of this head {float(expected[1]):.4g}; build the head with the ratio of the state"
                )
                return
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    def extra_repr(self) -> str:
        """Return the arguments, for ``repr``."""
        return f"in_features={self.in_features}, ratio={self.ratio}"


def _check_representation(z: Tensor, in_features: int) -> None:
    if z.dim() < 1 or z.size(-1) != in_features:
        raise ValueError(f"z has shape {tuple(z.shape)}; its last axis must have {in_features} coordinates")
    if not z.is_floating_point():
        raise TypeError(f"z is {z.dtype}; give real numbers")


def _factors(in_features: int, ratio: float) -> Tensor:
    exact = torch.tensor(ratio, dtype=torch.float64) ** -torch.arange(in_features, dtype=torch.float64)
    return exact.clamp(min=torch.finfo(torch.float32).tiny).float()
