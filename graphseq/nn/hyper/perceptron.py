"""Hypernetworks of fully connected layers, with magnitude-invariant parametrisation."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from graphseq.nn.hyper.generated import GeneratedNetwork

__all__ = ["HyperNetwork"]


class HyperNetwork(GeneratedNetwork):
    r"""Network whose weights are a function of a condition, such as a level of noise or a strength of regularisation.

    .. math::
        y = f(x; \theta(\gamma)), \qquad \theta(\gamma) = \theta^0 + W_L \phi(W_{L-1} \dots \phi(W_1 E(\gamma)))

    :math:`\phi` is a leaky ReLU. Without an encoding and with zero biases, as at initialisation,
    :math:`\theta(c \gamma) = c \theta(\gamma)` for c > 0: weights, and gradients with them, are proportional to the
    magnitude of the condition. An encoding of constant norm and the free parameters :math:`\theta^0` remove this
    dependence: the magnitude-invariant parametrisation (MIP) has both.

    Initialisation: hidden layers by Kaiming's method with fan-out, biases 0; the rows of :math:`W_L` that generate a
    tensor of n weights are drawn with variance 1 / n, where n is their fan-out; :math:`\theta^0` starts at the weights
    of the given network, random or trained.

    Source: arXiv 2304.07645, and the authors' code for the initialisation, where :math:`\theta^0` is the bias of the
    last layer, as here. Differs from it: :math:`\theta^0` begins with the network's own initial weights, whatever their
    distribution; without residual form the last layer keeps a bias, which begins at 0; each sample of a batch may have
    a condition of its own.

    Args:
        network: network f whose trainable weights are generated, with one input x whose first axis is the batch.
        condition_size: number D of entries of a condition, at least 1.
        hidden_sizes: widths of the hidden layers; empty for a linear hypernetwork.
        encoding: module E from conditions (*, D) to (*, M), such as :class:`CosineEncoding`; None for the conditions
            themselves.
        residual: whether :math:`\theta^0` begins with the weights of the network, or at 0.
        exact_start: whether :math:`W_L` begins at 0, so that at first every condition gives exactly the weights of the
            given network, for instance a trained one; needs ``residual``.

    Shape:
        x (B, \*), condition (D,) for the whole batch or (B, D) -> the output of the network, (B, \*)

    Raises:
        ValueError: if a size is below 1, no parameter of the network requires a gradient, or ``exact_start`` is given
            without ``residual``; in ``forward`` if the condition has another shape, is refused by the encoding, or
            differs within a batch while the network has a batch norm in training mode.
        TypeError: if ``network`` is not a module, or a condition is not a tensor.

    Example:
        >>> from graphseq.nn import CosineEncoding
        >>> hyper = HyperNetwork(nn.Linear(3, 2), encoding=CosineEncoding())
        >>> hyper(torch.randn(4, 3), torch.rand(4, 1)).shape, hyper(torch.randn(4, 3), torch.tensor([0.5])).shape
        (torch.Size([4, 2]), torch.Size([4, 2]))
        >>> hyper.weights(torch.tensor([0.5]))["weight"].shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        network: nn.Module,
        condition_size: int = 1,
        hidden_sizes: Sequence[int] = (16, 128),
        encoding: nn.Module | None = None,
        residual: bool = True,
        exact_start: bool = False,
    ) -> None:
        super().__init__(network)
        if isinstance(hidden_sizes, int):
            raise ValueError(f"hidden_sizes is {hidden_sizes}; give a list, such as [16, 128]")
        for name, size in (("condition_size", condition_size), *(("hidden_sizes", size) for size in hidden_sizes)):
            if size < 1:
                raise ValueError(f"{name} holds {size}; sizes must be at least 1")
        if exact_start and not residual:
            raise ValueError(
                "exact_start is true and residual false: without the residual form all weights would begin at 0; "
                "give residual=True"
            )
        if encoding is not None and not callable(encoding):
            raise TypeError(f"encoding is {encoding!r}; give a module, such as graphseq.nn.CosineEncoding(), or None")
        self.condition_size = condition_size
        self.encoding = nn.Identity() if encoding is None else encoding
        self.residual, self.exact_start = residual, exact_start
        width = self.encoding(torch.zeros(1, condition_size)).shape[-1]
        layers: list[nn.Module] = []
        for size in hidden_sizes:
            layers += [nn.Linear(width, size), nn.LeakyReLU()]
            width = size
        self.hidden = nn.Sequential(*layers)
        self.output = nn.Linear(width, self.num_weights)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Reinitialise the hypernetwork as in the constructor; the shared weights are those of the given network."""
        for layer in self.hidden:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight, a=0.01, mode="fan_out", nonlinearity="leaky_relu")
                nn.init.zeros_(layer.bias)
        for rows in self.output.weight.split(self._sizes):
            nn.init.zeros_(rows) if self.exact_start else nn.init.normal_(rows, std=len(rows) ** -0.5)
        if self.residual:
            self.output.bias.copy_(self.initial_weights())
        else:
            nn.init.zeros_(self.output.bias)

    def weights(self, condition: Tensor) -> dict[str, Tensor]:
        """Return the weights of the network by name, each (*, *shape).

        Args:
            condition: conditions (*, D).

        Raises:
            ValueError: if the condition does not have D entries, or the encoding refuses it.
        """
        if not isinstance(condition, Tensor):
            raise TypeError(
                f"condition is a {type(condition).__name__}; give a tensor, torch.tensor([0.5]) for a whole batch"
            )
        if not condition.dim() or condition.shape[-1] != self.condition_size:
            raise ValueError(
                f"condition has shape {tuple(condition.shape)}; (*, {self.condition_size}) is needed, for "
                f"condition_size={self.condition_size}"
            )
        return self.unflatten(self.output(self.hidden(self.encoding(condition))))

    def forward(self, x: Tensor, condition: Tensor) -> Any:
        """Return the output of the network under a condition.

        Args:
            x: inputs of the network, (B, *).
            condition: one condition (D,), or one for each sample, (B, D).
        """
        if isinstance(condition, Tensor) and condition.dim() > 2:
            raise ValueError(
                f"condition has shape {tuple(condition.shape)}; give one condition (D,), or one for each sample (B, D)"
            )
        return self.call(self.weights(condition), x)
