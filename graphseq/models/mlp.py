"""Multilayer perceptron over flattened inputs: tables, descriptors, small images."""

import copy
import itertools
import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.parametrize import is_parametrized

from graphseq.core import Recorded

__all__ = ["MLP"]


class MLP(Recorded, nn.Module):
    r"""Multilayer perceptron; all axes but the first are flattened into features.

    .. math::
        h_0 = \mathrm{flatten}(x), \qquad
        h_i = \mathrm{dropout}(\sigma(\mathrm{norm}(W_i h_{i-1} + b_i))), \qquad
        y = W_L h_{L-1} + b_L

    Args:
        in_features: number of features of one sample after flattening; C * Y * X for images.
        out_features: number of outputs of one sample.
        hidden_features: width of the hidden layers.
        num_layers: number of linear layers L, at least 1; 1 is a linear model and has no hidden layer.
        dropout: probability in [0, 1) of setting a hidden unit to zero in training.
        norm: normalisation before the activation: ``none``, ``batch`` over the samples of a batch, ``layer`` over the
            units of a sample, or ``weight`` for weight normalisation.
        activation: activation :math:`\sigma`, of which each hidden layer gets its own copy; None for ``nn.ReLU()``.
        initialization: initial weights: ``torch`` (the default of ``nn.Linear``, uniform of variance 1 / (3 fan-in)) or
            ``he`` (normal of variance 2 / fan-in, biases 0, as deep networks of ReLU need it).

    Shape:
        x (B, *) real, with ``in_features`` features in ``*`` -> (B, out_features)

    Raises:
        ValueError: if a size, ``dropout`` or ``norm`` is outside its range; in ``forward`` if the features of ``x``
            are not ``in_features``.
        TypeError: in ``forward``, if ``x`` has an integer type.

    Example:
        >>> import torch
        >>> model = MLP(in_features=28 * 28, out_features=10, norm="batch")
        >>> images = torch.randn(4, 1, 28, 28)
        >>> model(images).shape, model.encode(images).shape
        (torch.Size([4, 10]), torch.Size([4, 128]))
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        hidden_features: int = 128,
        num_layers: int = 2,
        dropout: float = 0.0,
        norm: Literal["none", "batch", "layer", "weight"] = "none",
        activation: nn.Module | None = None,
        initialization: Literal["torch", "he"] = "torch",
    ) -> None:
        super().__init__()
        sizes = {
            "in_features": in_features,
            "out_features": out_features,
            "hidden_features": hidden_features,
            "num_layers": num_layers,
        }
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name} is {size}; give a whole number of at least 1")
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout is {dropout}; give a probability in [0, 1)")
        norms: dict[str, type[nn.Module]] = {
            "none": nn.Identity,
            "batch": nn.BatchNorm1d,
            "layer": nn.LayerNorm,
            "weight": nn.Identity,
        }
        if norm not in norms:
            raise ValueError(f"norm is {norm!r}; give 'none', 'batch', 'layer' or 'weight'")
        if initialization not in ("torch", "he"):
            raise ValueError(f"initialization is {initialization!r}; give 'torch' or 'he'")
        self.initialization = initialization
        self.in_features = in_features
        self.out_features = out_features
        self.encoded_features = hidden_features if num_layers > 1 else in_features
        widths = [in_features] + [hidden_features] * (num_layers - 1)
        wrap: Callable[[nn.Module], nn.Module] = weight_norm if norm == "weight" else lambda layer: layer
        self.hidden = nn.ModuleList(
            nn.Sequential(
                # batch norm subtracts the mean, and with it any bias
                wrap(nn.Linear(before, after, bias=norm != "batch")),
                norms[norm](after),
                nn.ReLU() if activation is None else copy.deepcopy(activation),
                nn.Dropout(dropout),
            )
            for before, after in itertools.pairwise(widths)
        )
        self.head = nn.Linear(widths[-1], out_features)
        if initialization != "torch":
            for layer in self.modules():
                if isinstance(layer, nn.Linear):
                    self._draw(layer)

    def reset_parameters(self) -> None:
        """Reinitialise all weights as in the constructor; activations without ``reset_parameters`` keep theirs."""
        for block in self.hidden:
            for layer in block:  # type: ignore[attr-defined]
                if isinstance(layer, nn.Linear):
                    self._draw(layer)
                elif hasattr(layer, "reset_parameters"):
                    layer.reset_parameters()
        self._draw(self.head)

    @torch.no_grad()
    def _draw(self, layer: nn.Linear) -> None:
        fresh = nn.Linear(layer.in_features, layer.out_features, layer.bias is not None)
        if self.initialization == "he":
            nn.init.kaiming_normal_(fresh.weight, nonlinearity="linear" if layer is self.head else "relu")
            if fresh.bias is not None:
                nn.init.zeros_(fresh.bias)
        fresh = fresh.to(layer.weight)
        if is_parametrized(layer):
            layer.weight = fresh.weight.detach()  # written back to its direction and length
        else:
            layer.weight.copy_(fresh.weight)
        if layer.bias is not None:
            layer.bias.copy_(fresh.bias)

    def encode(self, x: Tensor) -> Tensor:
        """Return the last hidden layer, the input of the linear head; the flattened input without hidden layers.

        Args:
            x: inputs (B, *).

        Returns:
            Features (B, encoded_features).
        """
        if x.dim() < 2 or math.prod(x.shape[1:]) != self.in_features:
            raise ValueError(
                f"inputs have shape {tuple(x.shape)}, where (B, *) with {self.in_features} features in * is needed; "
                "set in_features to the features of one sample, for images C * Y * X"
            )
        if not x.is_floating_point():
            raise TypeError(
                f"inputs are {x.dtype}; give floating-point numbers; convert images by ToFloat or Normalize"
            )
        x = x.flatten(1)
        for block in self.hidden:
            x = block(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs, logits for a classification.

        Args:
            x: inputs (B, *).
        """
        return self.head(self.encode(x))
