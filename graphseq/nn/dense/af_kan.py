"""Kolmogorov-Arnold layers on activation functions: AF-KAN, and ReLU-KAN, which it generalises."""

import copy
import math
from collections.abc import Callable
from typing import Literal, TypedDict, get_args

import torch
from torch import Tensor, nn

from graphseq.core.spec import Recorded

__all__ = ["AFKANLayer", "AFKANOptions", "ReLUKANLayer"]

Combination = Literal["sum", "prod", "sum_prod", "quad1", "quad2", "cubic1", "cubic2"]
Reduction = Literal["global_attn", "spatial_attn", "multistep"]
FeatureNorm = Literal["sample", "feature", "batch", "none"]


def _sum(a: Tensor, b: Tensor) -> Tensor:
    return a + b


def _product(a: Tensor, b: Tensor) -> Tensor:
    return a * b


def _sum_product(a: Tensor, b: Tensor) -> Tensor:
    return a + b + a * b


def _squared_product(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).square()


def _quadratic(a: Tensor, b: Tensor) -> Tensor:
    return a * b + a.square() + b.square()


def _cubic(a: Tensor, b: Tensor) -> Tensor:
    return (a + b) * (a.square() + b.square())


def _cubed_product(a: Tensor, b: Tensor) -> Tensor:
    product = a * b
    return product * product * product  # several times as fast as pow


_COMBINATIONS: dict[Combination, Callable[[Tensor, Tensor], Tensor]] = {
    "sum": _sum,
    "prod": _product,
    "sum_prod": _sum_product,
    "quad1": _squared_product,
    "quad2": _quadratic,
    "cubic1": _cubic,
    "cubic2": _cubed_product,
}


def _interval_ends(grid: int, order: int) -> tuple[Tensor, Tensor]:
    """Lower and upper ends of the ``grid + order`` intervals, each (G,)."""
    low = (torch.arange(grid + order) - order) / grid
    return low, low + (order + 1) / grid


def _weighted_sum(features: Tensor, weight: Tensor) -> Tensor:
    """Sum of features (*, G, D) over the intervals, with weights (1, G)."""
    # one small product a sample: the product of all at once would copy the features into another order
    return (weight.expand(*features.shape[:-2], *weight.shape) @ features).squeeze(-2)


def _check_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        least = 0 if name == "order" else 1
        if size < least:
            raise ValueError(f"{name} is {size}; give a whole number of at least {least}")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(choices)}")


def _check_input(x: Tensor, in_features: int) -> None:
    if x.dim() < 1 or x.size(-1) != in_features:
        raise ValueError(f"x has shape {tuple(x.shape)}; its last axis must have {in_features} features")
    if not x.is_floating_point():
        raise TypeError(f"x is {x.dtype}; give floating-point numbers; convert images by ToFloat or Normalize")


class _GlobalAttention(nn.Module):
    r"""Sum over the intervals, weighted by attention over the input features; 2 + G parameters."""

    def __init__(self, in_features: int, intervals: int) -> None:
        super().__init__()
        self.in_features = in_features
        self.score = nn.Linear(intervals, 1)
        self.temperature = nn.Parameter(torch.empty(()))

    def reset_parameters(self) -> None:
        self.score.reset_parameters()
        nn.init.constant_(self.temperature, math.sqrt(self.in_features))

    def weights(self, features: Tensor) -> Tensor:
        """Return the attention (*, D), which sums to 1 over the features."""
        score = _weighted_sum(features, self.score.weight) + self.score.bias  # (*, D)
        return (score / self.temperature.clamp(min=1.0)).softmax(-1)

    def forward(self, features: Tensor) -> Tensor:
        # the attention of a feature is that of all its intervals
        return self.weights(features) * features.sum(-2)


class _SpatialAttention(nn.Module):
    r"""Sum over the intervals, weighted by attention over them that sees neighbouring features; 4 G parameters."""

    def __init__(self, in_features: int, intervals: int) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(intervals, intervals, kernel_size=3, padding=1, groups=intervals)

    def reset_parameters(self) -> None:
        self.convolution.reset_parameters()

    def weights(self, features: Tensor) -> Tensor:
        """Return the attention (*, G, D), which sums to 1 over the intervals."""
        score = self.convolution(features.reshape(-1, *features.shape[-2:]))
        return score.softmax(-2).view(features.shape)

    def forward(self, features: Tensor) -> Tensor:
        return (self.weights(features) * features).sum(-2)


class _Multistep(nn.Module):
    r"""Learned weighted sum of the intervals, the same for all features; G + 1 parameters."""

    def __init__(self, in_features: int, intervals: int) -> None:
        super().__init__()
        self.weight = nn.Linear(intervals, 1)

    def reset_parameters(self) -> None:
        self.weight.reset_parameters()

    def forward(self, features: Tensor) -> Tensor:
        return _weighted_sum(features, self.weight.weight) + self.weight.bias


_REDUCTIONS: dict[Reduction, Callable[[int, int], nn.Module]] = {
    "global_attn": _GlobalAttention,
    "spatial_attn": _SpatialAttention,
    "multistep": _Multistep,
}


class AFKANOptions(TypedDict, total=False):
    r"""Arguments of :class:`AFKANLayer` that networks pass on, for ``**options: Unpack[AFKANOptions]``.

    Args:
        grid: number g of grid intervals in [0, 1], at least 1.
        order: order k, at least 0; :math:`G = g + k` intervals of length :math:`(k + 1) / g`.
        activation: activation :math:`\sigma`, of which each layer gets its own copy; None for ``nn.SiLU()``.
        combination: function of the two activated distances, see :class:`AFKANLayer`.
        reduction: operation that reduces the G values of a feature to one, see :class:`AFKANLayer`.
        feature_norm: values that share one scaling to [0, 1]: ``sample``, ``feature``, ``batch`` or ``none``.
        norm: normalisation before the linear map: ``layer``, ``batch`` or ``none``.
        train_grid: whether the ends of the intervals are learned.
        bias: whether the linear map has a bias.
        eps: lower bound of the divisor max A - min A, above 0.

    Example:
        >>> options: AFKANOptions = {"grid": 5, "combination": "cubic1"}
    """

    grid: int
    order: int
    activation: nn.Module | None
    combination: Combination
    reduction: Reduction
    feature_norm: FeatureNorm
    norm: Literal["layer", "batch", "none"]
    train_grid: bool
    bias: bool
    eps: float


class AFKANLayer(Recorded, nn.Module):
    r"""Kolmogorov-Arnold layer whose basis functions are combinations of two activations, followed by a linear map.

    For interval j of G = g + k with ends :math:`l_j = (j - k) / g` and :math:`u_j = l_j + (k + 1) / g`, both learned:

    .. math::
        A_{ij} = A\bigl(\sigma(x_i - l_j), \sigma(u_j - x_i)\bigr), \qquad
        F = \frac{A - \min A}{\max A - \min A}, \qquad
        h_i = \sum_j \alpha_{ij} F_{ij}, \qquad
        y = W \sigma(\mathrm{norm}(h))

    ================  ======================================  ==================================================
    combination       A(a, b)                                 reduction
    ================  ======================================  ==================================================
    ``sum``           a + b                                   ``global_attn``: :math:`\alpha_i` is the softmax
    ``prod``          a b                                     over the features of :math:`(F_i w + c) / \tau`,
    ``sum_prod``      a + b + a b                             where :math:`\tau`, first the root of the number
    ``quad1``         :math:`(a b)^2`                         of features, is taken as at least 1
    ``quad2``         :math:`a b + a^2 + b^2`                 ``spatial_attn``: softmax over the intervals of a
    ``cubic1``        :math:`(a + b)(a^2 + b^2)`              depthwise convolution of 3 neighbouring features
    ``cubic2``        :math:`(a b)^3`                         ``multistep``: :math:`h_i = F_i w + c`
    ================  ======================================  ==================================================

    With D inputs and K outputs there are :math:`D K + 2 D + 2 G` parameters (without bias, with layer norm), and
    :math:`G + 2`, :math:`4 G` or :math:`G + 1` of the reduction.

    Source: arXiv 2503.06112. Differs from the paper: the values are scaled to [0, 1] over each sample; the released
    code takes smallest and largest value of the whole batch, so that an output depends on the other samples
    (``feature_norm="batch"``). The division by the L2 norm before it cancels and is left out. Reductions by local,
    self and multi-head attention, and sums of several reductions, are left out.

    Args:
        in_features: number D of features of a sample.
        out_features: number K of outputs of a sample.
        grid: number g of grid intervals in [0, 1], at least 1.
        order: order k, at least 0.
        activation: activation :math:`\sigma`, copied; None for ``nn.SiLU()``.
        combination: function A of the two activated distances; its name is in the table above.
        reduction: operation that reduces the G values of a feature to one; its name is in the table above.
        feature_norm: values that share one scaling to [0, 1]: all values of a ``sample``, those of each ``feature`` of
            a sample, or the whole ``batch``; ``none`` for no scaling.
        norm: normalisation before the linear map: ``layer``, ``batch`` over all samples of a batch, or ``none``.
        train_grid: whether the ends of the intervals are learned; they are buffers if not.
        bias: whether the linear map has a bias.
        eps: lower bound of the divisor max A - min A, above 0; constant values become 0.

    Shape:
        x (*, in_features) -> (*, out_features)

    Raises:
        ValueError: if a size or a choice is outside its range; in ``forward`` if ``x`` has other features, or in
            training with ``norm="batch"`` if there is a single sample.
        TypeError: if ``activation`` cannot be called, or is a class; in ``forward``, if ``x`` has an integer type.

    Example:
        >>> layer = AFKANLayer(784, 64)
        >>> layer(torch.randn(2, 784)).shape, sum(p.numel() for p in layer.parameters())
        (torch.Size([2, 64]), 51764)
    """

    low: Tensor
    high: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        grid: int = 3,
        order: int = 3,
        activation: nn.Module | None = None,
        combination: Combination = "quad1",
        reduction: Reduction = "global_attn",
        feature_norm: FeatureNorm = "sample",
        norm: Literal["layer", "batch", "none"] = "layer",
        train_grid: bool = True,
        bias: bool = False,
        eps: float = 1e-8,
    ) -> None:
        super().__init__()
        _check_sizes(in_features=in_features, out_features=out_features, grid=grid, order=order)
        norms: dict[str, type[nn.Module]] = {"layer": nn.LayerNorm, "batch": nn.BatchNorm1d, "none": nn.Identity}
        _check_choice("combination", combination, get_args(Combination))
        _check_choice("reduction", reduction, get_args(Reduction))
        _check_choice("feature_norm", feature_norm, get_args(FeatureNorm))
        _check_choice("norm", norm, tuple(norms))
        if not eps > 0:
            raise ValueError(f"eps is {eps}; it must be above 0")
        if activation is not None and (isinstance(activation, type) or not callable(activation)):
            raise TypeError(f"activation is {activation!r}; give a module, such as torch.nn.SiLU()")
        self.in_features, self.out_features, self.grid, self.order = in_features, out_features, grid, order
        self.combination, self.feature_norm, self.eps = combination, feature_norm, eps
        for name in ("low", "high"):
            ends = torch.empty(grid + order)
            if train_grid:
                self.register_parameter(name, nn.Parameter(ends))
            else:
                self.register_buffer(name, ends)
        self.activation = nn.SiLU() if activation is None else copy.deepcopy(activation)
        self.reduction = _REDUCTIONS[reduction](in_features, grid + order)
        self.norm = norms[norm](in_features)
        self.linear = nn.Linear(in_features, out_features, bias)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Reinitialise all weights but those of the activation, and the ends of the intervals."""
        for ends, value in zip((self.low, self.high), _interval_ends(self.grid, self.order), strict=True):
            ends.copy_(value)
        for module in (self.reduction, self.norm, self.linear):
            if not isinstance(module, nn.Identity):
                module.reset_parameters()  # type: ignore[operator]

    def basis(self, x: Tensor) -> Tensor:
        """Return the values of the basis functions of each feature (*, G, in_features), before they are scaled.

        Args:
            x: inputs (*, in_features).
        """
        x = x.unsqueeze(-2)  # intervals before features: the long axis is the contiguous one
        left = self.activation(x - self.low[:, None])
        right = self.activation(self.high[:, None] - x)
        return _COMBINATIONS[self.combination](left, right)

    def scale_features(self, features: Tensor) -> Tensor:
        """Return values of basis functions scaled to [0, 1].

        Args:
            features: values (*, G, in_features).
        """
        if self.feature_norm == "none" or not features.numel():
            return features
        # min and max rather than amin and amax, whose gradients take twice the time
        if self.feature_norm == "batch":
            low, high = features.min(), features.max()
        elif self.feature_norm == "feature":
            low, high = features.min(-2, keepdim=True).values, features.max(-2, keepdim=True).values
        else:
            flat = features.flatten(-2)
            low, high = flat.min(-1).values[..., None, None], flat.max(-1).values[..., None, None]
        span = (high - low).clamp(min=max(self.eps, torch.finfo(features.dtype).tiny))
        return (features - low) / span

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs.

        Args:
            x: inputs (*, in_features).
        """
        _check_input(x, self.in_features)
        h = self.reduction(self.scale_features(self.basis(x)))  # (*, D)
        if isinstance(self.norm, nn.BatchNorm1d):
            rows = h.reshape(-1, self.in_features)
            if self.norm.training and len(rows) == 1:
                raise ValueError(
                    "norm='batch' takes mean and variance over the samples of a batch, and this one has one sample; "
                    "leave out a last batch of one sample (drop_last=True), or give norm='layer'"
                )
            h = self.norm(rows).view(h.shape)
        else:
            h = self.norm(h)
        return self.linear(self.activation(h))

    def extra_repr(self) -> str:
        """Return sizes and choices."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, grid={self.grid}, order={self.order}, "
            f"combination={self.combination}, feature_norm={self.feature_norm}"
        )


class ReLUKANLayer(Recorded, nn.Module):
    r"""Kolmogorov-Arnold layer whose basis functions are squared products of two ReLUs, one for each interval.

    .. math::
        R_{ij} = \bigl(r\, \mathrm{ReLU}(x_i - l_{ij})\, \mathrm{ReLU}(u_{ij} - x_i)\bigr)^2, \qquad
        r = \frac{4 g^2}{(k + 1)^2}, \qquad y = W \mathrm{vec}(R) + b

    A basis function vanishes outside its interval and is 1 in its middle. Each feature has ends of its own, at first
    :math:`l_{ij} = (j - k) / g`, :math:`u_{ij} = l_{ij} + (k + 1) / g`, for j = 0 … G - 1, G = g + k. With D inputs and
    K outputs there are :math:`D G K + K + 2 D G` parameters, and 2 D of the layer norm.

    Source: arXiv 2406.02075. Differs from the paper: the layer norm of the inputs, which brings them into the range of
    the grid, as the code of arXiv 2503.06112 has it (``norm="none"`` leaves it out).

    Args:
        in_features: number D of features of a sample.
        out_features: number K of outputs of a sample.
        grid: number g of grid intervals in [0, 1], at least 1.
        order: order k, at least 0.
        norm: normalisation of the inputs, ``layer`` or ``none``.
        train_grid: whether the ends of the intervals are learned; they are buffers if not.

    Shape:
        x (*, in_features) -> (*, out_features)

    Raises:
        ValueError: if a size or ``norm`` is outside its range; in ``forward`` if ``x`` has other features.
        TypeError: in ``forward``, if ``x`` has an integer type.

    Example:
        >>> ReLUKANLayer(784, 64)(torch.randn(2, 784)).shape
        torch.Size([2, 64])
    """

    low: Tensor
    high: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        grid: int = 3,
        order: int = 3,
        norm: Literal["layer", "none"] = "layer",
        train_grid: bool = True,
    ) -> None:
        super().__init__()
        _check_sizes(in_features=in_features, out_features=out_features, grid=grid, order=order)
        _check_choice("norm", norm, ("layer", "none"))
        self.in_features, self.out_features, self.grid, self.order = in_features, out_features, grid, order
        for name in ("low", "high"):
            ends = torch.empty(grid + order, in_features)
            if train_grid:
                self.register_parameter(name, nn.Parameter(ends))
            else:
                self.register_buffer(name, ends)
        self.norm = nn.LayerNorm(in_features) if norm == "layer" else nn.Identity()
        self.linear = nn.Linear((grid + order) * in_features, out_features)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Reinitialise all weights as in the constructor, and the ends of the intervals."""
        for ends, value in zip((self.low, self.high), _interval_ends(self.grid, self.order), strict=True):
            ends.copy_(value[:, None].expand_as(ends))
        if isinstance(self.norm, nn.LayerNorm):
            self.norm.reset_parameters()
        self.linear.reset_parameters()

    def basis(self, x: Tensor) -> Tensor:
        """Return the values of the basis functions of each feature (*, G, in_features).

        Args:
            x: inputs (*, in_features), after the layer norm.
        """
        x = x.unsqueeze(-2)
        peak = 4 * self.grid**2 / (self.order + 1) ** 2
        return ((x - self.low).relu() * (self.high - x).relu() * peak).square()

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs.

        Args:
            x: inputs (*, in_features).
        """
        _check_input(x, self.in_features)
        return self.linear(self.basis(self.norm(x)).flatten(-2))

    def extra_repr(self) -> str:
        """Return sizes."""
        return f"in_features={self.in_features}, out_features={self.out_features}, grid={self.grid}, order={self.order}"
