"""Quadratic neurons: linear and convolutional layers, replacement in a network, and groups for an optimiser."""

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from graphseq.core.spec import Recorded
from graphseq.core.surgery import replace

__all__ = [
    "QuadraticConv2d",
    "QuadraticLinear",
    "quadratize",
    "relinear_param_groups",
]

Kind = Literal["full", "compact"]
Initialization = Literal["relinear", "random"]


class _Quadratic(Recorded, nn.Module):
    """A quadratic layer around three linear maps of the same shape."""

    def __init__(self, maps: tuple[nn.Module, nn.Module, nn.Module], kind: Kind, initialization: Initialization):
        super().__init__()
        if kind not in get_args(Kind):
            raise ValueError(f"kind is {kind!r}; it must be 'full' or 'compact'")
        if initialization not in get_args(Initialization):
            raise ValueError(f"initialization is {initialization!r}; it must be 'relinear' or 'random'")
        self.kind, self.initialization = kind, initialization
        self.linear, gate, self.power = maps
        self.gate = gate if kind == "full" else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the linear map by Kaiming's normal distribution with biases 0, and the others by their rule."""
        _draw_normal(self.linear)
        for layer, constant in ((self.gate, 1.0), (self.power, 0.0)):
            if layer is None:
                continue
            if self.initialization == "random":
                _draw_normal(layer)
            else:
                nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
                if layer.bias is not None:
                    nn.init.constant_(layer.bias, constant)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs, without an activation.

        Args:
            x: inputs.
        """
        if not x.is_floating_point():
            raise TypeError(f"x is {x.dtype}; give floating-point numbers; convert images by ToFloat or Normalize")
        linear, power = self.linear(x), self._power(x)
        if self.gate is None:
            return linear + power
        gate = self.gate(x)
        # products of two half-precision maps overflow; the meta device has no autocast
        if not x.is_meta and torch.is_autocast_enabled(x.device.type):
            linear, gate, power = linear.float(), gate.float(), power.float()
        return torch.addcmul(power, linear, gate)

    def _power(self, x: Tensor) -> Tensor:
        """Return the map of the squares."""
        device = x.device.type
        half = not x.is_meta and torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.float16
        if half:  # squares of numbers above 256 are infinite in float16, and 0 times them is NaN
            weight: Any = self.power.weight
            x = x.to(weight.dtype)
        with torch.autocast(device, enabled=False) if half else nullcontext():
            y: Tensor = self.power(x.square())
        return y

    def extra_repr(self) -> str:
        """Return the kind and the initialisation."""
        return f"kind={self.kind}, initialization={self.initialization}"


class QuadraticLinear(_Quadratic):
    r"""Linear layer of quadratic neurons.

    .. math:: y = (W_r x + b_r) \odot (W_g x + b_g) + W_b (x \odot x) + c

    The ``compact`` kind has no product: :math:`y = W_r x + b_r + W_b (x \odot x) + c`. ReLinear starts from
    :math:`W_g = 0, b_g = 1, W_b = 0, c = 0`, where the layer is exactly the linear map r, and lets the others grow
    slowly: see :func:`relinear_param_groups` and :class:`graphseq.callbacks.ReLinear`. Weights r are drawn by Kaiming's
    normal distribution, :math:`N(0, 2 / \mathrm{fan\_in})`, and their biases are 0. With ``random`` the gates and power
    terms are drawn in the same way, and deep networks do not train: their output is a polynomial of degree :math:`2^L`
    in the input after L layers, which soon overflows.

    Source: arXiv 2110.06081. Differs from the paper: none known.

    Args:
        in_features: number of features of a sample.
        out_features: number of neurons.
        bias: whether the maps r and b have biases; the gate g always has one.
        kind: ``full``, or ``compact`` without the product.
        initialization: ``relinear``, or ``random`` for all weights.

    Shape:
        x (*, in_features) -> (*, out_features), under autocast in float32, but ``compact`` in bfloat16

    Raises:
        ValueError: if a size is below 1, or ``kind`` or ``initialization`` is unknown; in ``forward``, if the last axis
            of ``x`` does not have ``in_features`` features.
        TypeError: in ``forward``, if ``x`` has an integer type.

    Example:
        >>> layer = QuadraticLinear(3, 2)
        >>> x = torch.randn(4, 3)
        >>> torch.equal(layer(x), layer.linear(x))
        True
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        kind: Kind = "full",
        initialization: Initialization = "relinear",
    ) -> None:
        _check_sizes(in_features=in_features, out_features=out_features)
        maps = tuple(nn.Linear(in_features, out_features, has) for has in (bias, True, bias))
        super().__init__(maps, kind, initialization)  # type: ignore[arg-type]
        self.in_features, self.out_features = in_features, out_features

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs, without an activation.

        Args:
            x: inputs (*, in_features).
        """
        if x.dim() < 1 or x.size(-1) != self.in_features:
            raise ValueError(f"x has shape {tuple(x.shape)}; its last axis must have {self.in_features} features")
        return super().forward(x)


class QuadraticConv2d(_Quadratic):
    r"""Convolution of quadratic neurons over images.

    .. math:: y = (w_r * x + b_r) \odot (w_g * x + b_g) + w_b * (x \odot x) + c

    Kinds and initialisations are those of :class:`QuadraticLinear`.

    Source: arXiv 2110.06081. Differs from the paper: none known.

    Args:
        in_channels: number of channels of the images.
        out_channels: number of neurons at each position.
        kernel_size: rows and columns of the kernel; one number for both.
        stride: step between positions.
        padding: rows and columns that are added on each side, or ``same`` or ``valid``.
        dilation: distance between the pixels that a kernel reads.
        groups: number of groups of channels that are convolved separately, as in ``torch.nn.Conv2d``.
        bias: whether the maps r and b have biases; the gate g always has one.
        padding_mode: values of the added rows and columns, as in ``torch.nn.Conv2d``.
        kind: ``full``, or ``compact`` without the product.
        initialization: ``relinear``, or ``random`` for all weights.

    Shape:
        x (B, in_channels, Y, X) -> (B, out_channels, Y', X'), as of ``torch.nn.Conv2d``

    Raises:
        ValueError: if a size is below 1, or ``kind`` or ``initialization`` is unknown; in ``forward``, if ``x`` is
            not (B, in_channels, Y, X).
        TypeError: in ``forward``, if ``x`` has an integer type.

    Example:
        >>> QuadraticConv2d(3, 8, 3, padding=1)(torch.randn(2, 3, 5, 5)).shape
        torch.Size([2, 8, 5, 5])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | Literal["same", "valid"] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros",
        kind: Kind = "full",
        initialization: Initialization = "relinear",
    ) -> None:
        _check_sizes(in_channels=in_channels, out_channels=out_channels)
        maps = tuple(
            nn.Conv2d(
                in_channels, out_channels, kernel_size, stride, padding, dilation, groups, has, padding_mode
            )
            for has in (bias, True, bias)
        )  # fmt: skip
        super().__init__(maps, kind, initialization)  # type: ignore[arg-type]
        self.in_channels, self.out_channels = in_channels, out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs, without an activation.

        Args:
            x: images (B, in_channels, Y, X).
        """
        if x.dim() not in (3, 4) or x.size(-3) != self.in_channels:
            raise ValueError(
                f"x has shape {tuple(x.shape)}, where images (B, {self.in_channels}, Y, X) are needed; set in_channels "
                "to the channels of the images, or add a missing axis with unsqueeze"
            )
        return super().forward(x)


def _draw_normal(layer: nn.Module) -> None:
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")  # type: ignore[arg-type]
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]


def _check_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} is {size}; give a whole number of at least 1")


def _from_layer(layer: nn.Module, kind: Kind, initialization: Initialization) -> nn.Module:
    """Return a quadratic layer with the weights of a linear one as its map r."""
    made: QuadraticLinear | QuadraticConv2d
    if isinstance(layer, nn.Linear):
        sizes = {"in_features": layer.in_features, "out_features": layer.out_features}
        made = QuadraticLinear(**sizes, bias=layer.bias is not None, kind=kind, initialization=initialization)
    else:
        assert isinstance(layer, nn.Conv2d)  # for type checkers
        options: dict[str, Any] = {
            name: getattr(layer, name)
            for name in ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
        }
        options["padding_mode"] = layer.padding_mode
        made = QuadraticConv2d(**options, bias=layer.bias is not None, kind=kind, initialization=initialization)
    made = made.to(layer.weight)
    made.linear.load_state_dict(layer.state_dict())
    for parameter, old in zip(made.linear.parameters(), layer.parameters(), strict=True):
        parameter.requires_grad_(old.requires_grad)
    return made


def make_quadratic_layers(
    network: nn.Module,
    skip: Sequence[str] = (),
    kind: Kind = "full",
    initialization: Initialization = "relinear",
) -> dict[str, nn.Module]:
    """Return a quadratic layer for each linear and convolutional layer of a network, which is not changed.

    Args:
        network: any network; its ``nn.Linear`` and ``nn.Conv2d`` layers count, but no subclasses of them.
        skip: dotted names of layers, or of parts whose layers all stay as they are.
        kind: kind of the new layers, ``full`` or ``compact``, see :class:`QuadraticLinear`.
        initialization: initialisation of the new terms, ``relinear`` or ``random``; the linear map r has the weights of
            the old layer.

    Returns:
        Dotted name of a layer -> its quadratic layer.

    Raises:
        TypeError: if ``skip`` is a string.
        ValueError: if ``skip`` names a layer that does not exist, no layer is left to replace, or the network is itself
            such a layer.

    Example:
        >>> list(make_quadratic_layers(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1)), skip=["2"]))
        ['0']
    """
    if isinstance(skip, str):
        raise TypeError(f"skip is {skip!r}; give a list of names, [{skip!r}]")
    if type(network) in (nn.Linear, nn.Conv2d):
        raise ValueError(
            f"network is itself a {type(network).__name__}, with no place for another layer; build a QuadraticLinear "
            "or QuadraticConv2d, or put the layer into a torch.nn.Sequential"
        )
    named = dict(network.named_modules(remove_duplicate=False))
    unknown = [name for name in skip if name not in named]
    if unknown:
        raise ValueError(
            f"skip names {unknown[0]!r}, which {type(network).__name__} does not have; it has "
            f"{', '.join(name for name in named if name) or 'no parts'}"
        )
    kept = [*skip, *(name for name, module in named.items() if isinstance(module, _Quadratic))]
    made: dict[int, nn.Module] = {}  # by layer, since several places may share one
    found: dict[str, nn.Module] = {}
    for name, layer in named.items():
        if type(layer) not in (nn.Linear, nn.Conv2d) or any(f"{name}.".startswith(f"{part}.") for part in kept):
            continue
        if id(layer) not in made:
            made[id(layer)] = _from_layer(layer, kind, initialization)
        found[name] = made[id(layer)]
    if not found:
        raise ValueError(
            f"{type(network).__name__} has no linear or convolutional layer outside of {list(skip)}; skip fewer"
        )
    return found


def quadratize(
    network: nn.Module,
    skip: Sequence[str] = (),
    kind: Kind = "full",
    initialization: Initialization = "relinear",
) -> list[str]:
    """Replace linear and convolutional layers of a network, trained or not, by quadratic ones, and record it.

    With ``relinear`` the network computes the same as before. See :func:`graphseq.core.replace`; in a config,
    :class:`graphseq.models.QuadraticNetwork` does the same to the network within it.

    Args:
        network: the network, changed in place.
        skip: dotted names of layers, or of parts whose layers all stay as they are; the paper leaves the first and the
            last layer as they are.
        kind: kind of the new layers, ``full`` or ``compact``, see :class:`QuadraticLinear`.
        initialization: initialisation of the new terms, ``relinear`` or ``random``; the linear map r keeps the weights
            of the old layer.

    Returns:
        Dotted names of the replaced layers.

    Raises:
        TypeError: if ``skip`` is a string.
        ValueError: if ``skip`` names a layer that does not exist, no layer is left to replace, or the network is itself
            such a layer.

    Example:
        >>> from graphseq.models import MLP
        >>> network = MLP(4, 2, hidden_features=3, num_layers=3)
        >>> quadratize(network, skip=["head"])
        ['hidden.0.0', 'hidden.1.0']
    """
    layers = make_quadratic_layers(network, skip, kind, initialization)
    places = dict(network.named_modules(remove_duplicate=False))
    made = {id(places[name]): layer for name, layer in layers.items()}
    return replace(network, lambda name, layer: name in layers, lambda layer: made[id(layer)])


def relinear_param_groups(
    module: nn.Module,
    lr: float,
    gamma_g: float = 1e-2,
    gamma_b: float = 1e-2,
    parameters: Iterable[nn.Parameter] | None = None,
) -> list[dict[str, Any]]:
    r"""Groups of parameters for an optimiser in which the quadratic terms of a network learn more slowly than the rest.

    .. math:: \eta_g = \gamma_g \eta, \qquad \eta_b = \gamma_b \eta

    The biases of the gates are a group without weight decay, which would take them from 1 to 0, away from the linear
    network; the weights of all quadratic terms decay to 0, which is the linear network. Terms with a factor of 0 are
    not trained.

    Source: arXiv 2110.06081 (ReLinear by a shrunk learning rate).

    Args:
        module: network with quadratic layers.
        lr: learning rate of all other parameters, at least 0.
        gamma_g: factor of the learning rate of the gates, at least 0.
        gamma_b: factor of the learning rate of the power terms, at least 0.
        parameters: parameters to group; None for all of the network that require a gradient.

    Returns:
        Groups with ``params``, ``lr`` and ``relinear``, the factor of ``lr``; each parameter is in one group. Empty
        groups are left out.

    Raises:
        ValueError: if a number is negative.
        TypeError: if ``parameters`` holds something else, such as pairs of names and parameters.

    Example:
        >>> layer = QuadraticLinear(3, 2)
        >>> groups = relinear_param_groups(layer, lr=0.1, gamma_b=1e-3)
        >>> [(len(group["params"]), group["lr"], group.get("weight_decay")) for group in groups]
        [(2, 0.1, None), (1, 0.001, None), (1, 0.001, 0.0), (2, 0.0001, None)]
        >>> optimizer = torch.optim.SGD(groups, lr=0.1, weight_decay=1e-4)
    """
    for name, value in {"lr": lr, "gamma_g": gamma_g, "gamma_b": gamma_b}.items():
        if not value >= 0:
            raise ValueError(f"{name} is {value}; it must be at least 0")
    gates, gate_biases, powers = (dict[int, nn.Parameter]() for _ in range(3))
    for layer in module.modules():
        if not isinstance(layer, _Quadratic):
            continue
        powers.update((id(parameter), parameter) for parameter in layer.power.parameters())
        for name, parameter in layer.gate.named_parameters() if layer.gate is not None else ():
            (gate_biases if name == "bias" else gates)[id(parameter)] = parameter
    every = [p for p in module.parameters() if p.requires_grad] if parameters is None else list(parameters)
    for parameter in every:
        if not isinstance(parameter, Tensor):
            raise TypeError(
                f"parameters holds a {type(parameter).__name__}; give parameters alone, such as module.parameters()"
            )
    quadratic = {**gates, **gate_biases, **powers}
    groups: list[dict[str, Any]] = [
        {"params": [p for p in every if id(p) not in quadratic], "relinear": 1.0},
        {"params": [p for p in every if id(p) in gates], "relinear": gamma_g},
        {"params": [p for p in every if id(p) in gate_biases], "relinear": gamma_g, "weight_decay": 0.0},
        {"params": [p for p in every if id(p) in powers], "relinear": gamma_b},
    ]
    return [{**group, "lr": lr * group["relinear"]} for group in groups if group["params"]]
