"""Input-convex networks: scalar functions that are convex in their input, whatever their weights."""

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from graphseq.core import Recorded

__all__ = ["InputConvexConvNet", "InputConvexNetwork", "NonNegative"]


class _Projection(torch.autograd.Function):
    """Projection onto numbers of at least 0, whose gradient is 0 where it would push a number further below 0."""

    generate_vmap_rule = True  # for torch.func, such as per-sample weights of a hypernetwork

    @staticmethod
    def forward(free: Tensor) -> Tensor:
        return free.clamp(min=0)

    @staticmethod
    def setup_context(context: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        context.save_for_backward(*inputs)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        (free,), (gradient,) = context.saved_tensors, gradients
        return torch.where((free > 0) | (gradient < 0), gradient, 0.0)


class NonNegative(nn.Module):
    r"""Parametrisation of weights that are at least 0 under any optimiser, for ``torch.nn.utils.parametrize``.

    .. math:: w = \max(v, 0), \qquad
        \frac{\partial L}{\partial v} = \begin{cases} 0 & v \le 0 \text{ and } \partial L / \partial w \ge 0 \\
        \partial L / \partial w & \text{otherwise} \end{cases}

    It is the projected gradient: a weight at 0 stays there while gradient descent would make it negative, and grows
    again as soon as descent would increase it, unlike behind a ReLU; weights can be exactly 0, unlike those of a
    softplus or an exponential.

    Differs from clamping weights after each step, as the authors do: no step, hook or callback is needed, so that it
    cannot be forgotten, and weights are at least 0 within a step, too; an optimiser's last step and its momentum can
    take v below 0, and then w stays at 0 until v is above 0 again. Weight decay acts on v.

    Source: arXiv 2310.14344, section 3 (the constraint).

    Shape:
        v (*) -> w (*)

    Example:
        >>> layer = nn.Linear(3, 2, bias=False)
        >>> _ = parametrize.register_parametrization(layer, "weight", NonNegative())
        >>> bool((layer.weight >= 0).all())
        True
    """

    def forward(self, free: Tensor) -> Tensor:
        """Return the weights.

        Args:
            free: free parameters v.
        """
        weight: Tensor = _Projection.apply(free)
        return weight

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the free parameters of given weights; negative weights become 0.

        Args:
            weight: weights to be set.
        """
        return weight.clamp(min=0)


class _InputConvex(Recorded, nn.Module):
    """Layers of an input-convex network; subclasses build ``inputs``, which are free, and ``hidden``, which are not."""

    def __init__(
        self, inputs: list[nn.Module], hidden: list[nn.Module], beta: float, constraint: nn.Module | None
    ) -> None:
        super().__init__()
        self.beta = beta
        self.inputs = nn.ModuleList(inputs)
        self.hidden = nn.ModuleList(hidden)
        # numbers of terms n of each sum
        self._terms = [layer.weight[0].numel() for layer in hidden]  # type: ignore[index]
        for layer in self.hidden:
            kept = NonNegative() if constraint is None else copy.deepcopy(constraint)
            parametrize.register_parametrization(layer, "weight", kept)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Reinitialise: free layers as torch does, non-negative weights by the rule of the class."""
        for layer in self.inputs:
            if isinstance(layer, nn.Linear | nn.Conv2d):
                layer.reset_parameters()
        for layer in self.hidden:
            weight: Tensor = layer.parametrizations.weight.original  # type: ignore[union-attr, assignment]
            weight.copy_(torch.randn_like(weight).abs() * math.sqrt(math.pi / 2))  # half normal of mean 1

    def convex(self, place: int, z: Tensor) -> Tensor:
        r"""Return :math:`W z / n`, a map with weights of at least 0.

        Args:
            place: number of the layer, from 0.
            z: hidden values.
        """
        mean: Tensor = self.hidden[place](z) / self._terms[place]
        return mean

    def activation(self, z: Tensor) -> Tensor:
        r"""Return the softplus :math:`\log(1 + e^{\beta z}) / \beta`, convex, increasing and smooth.

        Args:
            z: hidden values.
        """
        return functional.softplus(z, beta=self.beta)

    def extra_repr(self) -> str:
        """Return the sharpness of the activation."""
        return f"beta={self.beta:g}"


class InputConvexNetwork(_InputConvex):
    r"""Fully connected network with one output, convex and smooth in its input.

    .. math::
        z_1 = \sigma(H_1 y), \qquad z_k = \sigma(W_k z_{k-1} / n + H_k y + b_k), \qquad
        \psi(y) = w^\top z_K / n + h^\top y + b, \qquad W_k \ge 0, \; w \ge 0

    :math:`\sigma` is the softplus of sharpness :math:`\beta`: a sum of convex functions with weights of at least 0 is
    convex, and so is a convex increasing function of a convex one. The weights of the layers :math:`H_k`, which read
    the input, are unconstrained. The gradient is a proximal operator: see :class:`graphseq.models.LearnedProximal`.
    Sums of non-negative terms are divided by their number n: such terms do not cancel, and a step of an optimiser moves
    all weights of a sum the same way, which would change sums by n times as much as single weights. torch does not
    pickle modules with parametrised weights: save the ``state_dict``.

    Source: arXiv 2310.14344, section 3. Differs from the authors' code: weights are non-negative by
    :class:`NonNegative`, not by clamping after each step; the division by n; weights begin positive, with a mean of 1.

    Args:
        in_features: number of values n of a sample after flattening.
        hidden_features: width of the hidden layers.
        num_layers: number K of hidden layers, at least 1.
        beta: sharpness of the softplus, above 0; 10 in the paper for numbers and small images, 100 for large ones.
        constraint: parametrisation of the weights :math:`W_k, w`, of which each layer gets its own copy; None for
            :class:`NonNegative`. With ``torch.nn.Identity()`` the network is as large, but not convex: a control.

    Shape:
        y (B, *) real, with ``in_features`` values in ``*`` -> (B,)

    Raises:
        ValueError: if an argument is out of range; in ``forward`` if the values of a sample are not ``in_features``.
        TypeError: in ``forward``, if ``y`` is not a tensor of real numbers.

    Example:
        >>> potential = InputConvexNetwork(64, 32)
        >>> first, second = torch.randn(2, 10, 1, 8, 8)
        >>> middle = potential((first + second) / 2)
        >>> bool((middle <= (potential(first) + potential(second)) / 2 + 1e-6).all())
        True
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int = 50,
        num_layers: int = 4,
        beta: float = 10.0,
        constraint: nn.Module | None = None,
    ) -> None:
        _check(beta, in_features=in_features, hidden_features=hidden_features, num_layers=num_layers)
        inputs = [
            *(nn.Linear(in_features, hidden_features, bias=place > 0) for place in range(num_layers)),
            nn.Linear(in_features, 1),
        ]
        hidden = [
            *(nn.Linear(hidden_features, hidden_features, bias=False) for _ in range(num_layers - 1)),
            nn.Linear(hidden_features, 1, bias=False),
        ]
        super().__init__([*inputs], [*hidden], beta, constraint)
        self.in_features, self.hidden_features, self.num_layers = in_features, hidden_features, num_layers

    def forward(self, y: Tensor) -> Tensor:
        """Return the value of each sample, (B,).

        Args:
            y: points (B, *), with ``in_features`` values each.
        """
        _check_real(y)
        if y.dim() < 2 or math.prod(y.shape[1:]) != self.in_features:
            raise ValueError(
                f"y has shape {tuple(y.shape)}, where (B, *) with {self.in_features} values in * is needed; set "
                "in_features to the values of one sample, for images C * Y * X"
            )
        y = y.flatten(1)
        z = self.activation(self.inputs[0](y))  # (B, hidden_features)
        for place, free in enumerate(self.inputs[1:-1]):
            z = self.activation(self.convex(place, z) + free(y))
        return (self.convex(-1, z) + self.inputs[-1](y)).squeeze(1)


class InputConvexConvNet(_InputConvex):
    r"""Convolutional network with one output, convex and smooth in the image.

    .. math::
        z_1 = \sigma(H_1 * y), \qquad z_k = \sigma(W_k * z_{k-1} / n + H_k * y_k + b_k), \qquad
        \psi(y) = w^\top \sigma(W z_K / n + H y_K + b) / n + h^\top y_K + c

    :math:`W_k, W, w \ge 0`; :math:`y_k` is the image, resized bilinearly to the rows and columns of :math:`z_k`, which
    is linear, so that :math:`\psi` stays convex. Otherwise as :class:`InputConvexNetwork`.

    Source: arXiv 2310.14344, section 3, with the sizes of the authors' code for 28 x 28 images as defaults. Differs
    from it: as :class:`InputConvexNetwork`.

    Args:
        channels: number of channels of the images.
        image_size: rows and columns of the images.
        hidden_channels: channels of the hidden layers.
        strides: stride of each 3 x 3 convolution, one for each hidden layer.
        features: width of the fully connected layer before the output.
        beta: sharpness of the softplus, above 0.
        constraint: parametrisation of the weights :math:`W_k, W, w`, of which each layer gets its own copy; None for
            :class:`NonNegative`. With ``torch.nn.Identity()`` the network is as large, but not convex: a control.

    Shape:
        y (B, channels, Y, X) real -> (B,)

    Raises:
        ValueError: if an argument is out of range; in ``forward`` if images have other channels or another size.
        TypeError: in ``forward``, if ``y`` is not a tensor of real numbers.

    Example:
        >>> InputConvexConvNet(1, (8, 8), hidden_channels=4, strides=(1, 2))(torch.randn(5, 1, 8, 8)).shape
        torch.Size([5])
    """

    def __init__(
        self,
        channels: int,
        image_size: tuple[int, int],
        hidden_channels: int = 64,
        strides: tuple[int, ...] = (1, 2, 1, 2),
        features: int = 64,
        beta: float = 10.0,
        constraint: nn.Module | None = None,
    ) -> None:
        if isinstance(image_size, int) or isinstance(strides, int):
            raise ValueError(
                f"image_size is {image_size} and strides {strides}; give rows and columns, such as (28, 28), and the "
                "step of each layer, such as (1, 2, 1, 2)"
            )
        sizes = {f"image_size[{axis}]": size for axis, size in enumerate(image_size)}
        sizes.update({f"strides[{place}]": stride for place, stride in enumerate(strides)})
        _check(beta, channels=channels, hidden_channels=hidden_channels, features=features, **sizes)
        if len(image_size) != 2 or not strides:
            raise ValueError(
                f"image_size is {image_size} and strides {strides}; give rows and columns, and at least one stride"
            )
        places = [tuple(image_size)]
        for stride in strides:
            places.append((-(-places[-1][0] // stride), -(-places[-1][1] // stride)))  # of 3 x 3 kernels with padding 1
        make: Callable[..., nn.Module] = nn.Conv2d
        rows, columns = places[-1]
        inputs = [
            make(channels, hidden_channels, 3, stride=strides[0], padding=1, bias=False),
            *(make(channels, hidden_channels, 3, padding=1) for _ in strides[1:]),
            nn.Linear(channels * rows * columns, features),
            nn.Linear(channels * rows * columns, 1),
        ]
        hidden = [
            *(make(hidden_channels, hidden_channels, 3, stride=step, padding=1, bias=False) for step in strides[1:]),
            nn.Linear(hidden_channels * rows * columns, features, bias=False),
            nn.Linear(features, 1, bias=False),
        ]
        super().__init__(inputs, hidden, beta, constraint)
        self.channels, self.image_size, self.strides = channels, places[0], tuple(strides)
        self._places = places[2:]  # rows and columns of the outputs of all convolutions but the first

    def forward(self, y: Tensor) -> Tensor:
        """Return the value of each image, (B,).

        Args:
            y: images (B, channels, Y, X).
        """
        _check_real(y)
        if y.dim() != 4 or tuple(y.shape[1:]) != (self.channels, *self.image_size):
            needed = ", ".join(map(str, ("B", self.channels, *self.image_size)))
            raise ValueError(f"y has shape {tuple(y.shape)}; images ({needed}) are needed")
        z = self.activation(self.inputs[0](y))  # (B, hidden_channels, Y', X')
        for place, size in enumerate(self._places):
            z = self.activation(self.convex(place, z) + self.inputs[place + 1](_resized(y, size)))
        below = _resized(y, z.shape[2:]).flatten(1)
        z = self.activation(self.convex(-2, z.flatten(1)) + self.inputs[-2](below))  # (B, features)
        return (self.convex(-1, z) + self.inputs[-1](below)).squeeze(1)


def _resized(y: Tensor, size: tuple[int, ...]) -> Tensor:
    return functional.interpolate(y, size=list(size), mode="bilinear", align_corners=False)


def _check(beta: float, **sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} is {size}; give a whole number of at least 1")
    if not 0 < beta < math.inf:
        raise ValueError(f"beta is {beta}; it must be above 0 and finite")


def _check_real(y: Tensor) -> None:
    if not isinstance(y, Tensor) or not y.is_floating_point():
        given = y.dtype if isinstance(y, Tensor) else type(y).__name__
        raise TypeError(f"y is {given}; give a tensor of real floating-point numbers")
