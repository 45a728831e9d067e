"""Layers for images against the same formula in plain PyTorch, and poset pooling against max pooling.

*ours* is the layer as users build it; *plain* its formula as it is printed, by functions of ``torch`` and
``torch.nn.functional``, with the same weights; *max pool*, for poset pooling alone, is ``max_pool2d`` over the same
windows, which is another function. Float32, training mode; *forward*, and *forward+backward* with the gradients of the
input and of all weights. Outputs of ours and plain, and in float64 their gradients, are compared before anything is
timed.

* *af-kan*: ``AFKANLayer`` of grid and order 3, 784 to 64 features, 64 images; the plain expression divides by the L2
  norm before it scales to [0, 1], and has the intervals on the last axis, as in the paper.
* *quadratic linear*: 512 to 512 features, 128 samples; *quadratic convolution*: 32 to 32 channels, 3 x 3, 16 images of
  16 x 16.
* *P3D A*, *P3D B*, *P3D C*: bottlenecks of width 16, 64 to 64 channels, 2 clips of 8 frames of 14 x 14.
* *poset pooling*: ``PosetPool2d`` of the total order, windows of 2 x 2, 16 images of 32 channels and 32 x 32; *poset
  convolution* of the order N, of 16 x 16. Plain: the largest of the sums over all upper sets.

Rule, on one thread, medians: (1) ours takes at most 1.3 times as long as plain in every case; (2) pooling by the total
order takes at most twice as long as max pooling, forward, and forward and backward.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphseq.bench import Call, OutputsDiffer, Row, Scale, Setting, Speed, TakesAtMost, combinations
from graphseq.nn import AFKANLayer, P3DBlock, PosetConv2d, PosetPool2d, QuadraticConv2d, QuadraticLinear

__all__ = ["LAYERS", "Subject", "cases", "speed"]


def plain_af_kan(layer: AFKANLayer, x: Tensor) -> Tensor:
    """Return the output of an AF-KAN layer of SiLU, ``quad1`` and global attention."""
    x = x[..., None]  # (B, D, 1)
    basis = (functional.silu(x - layer.low) * functional.silu(layer.high - x)).square()  # (B, D, G)
    basis = basis / basis.flatten(1).norm(dim=1).clamp(min=1e-12)[:, None, None]
    low, high = basis.amin((1, 2), keepdim=True), basis.amax((1, 2), keepdim=True)
    basis = (basis - low) / (high - low).clamp(min=1e-8)
    score: Any = layer.reduction.score
    temperature: Any = layer.reduction.temperature
    attention = (functional.linear(basis, score.weight, score.bias) / temperature.clamp(min=1)).softmax(1)
    h = (basis * attention).sum(-1)
    norm: Any = layer.norm
    h = functional.layer_norm(h, (layer.in_features,), norm.weight, norm.bias)
    return functional.linear(functional.silu(h), layer.linear.weight)


def plain_quadratic_linear(layer: QuadraticLinear, x: Tensor) -> Tensor:
    """Return the output of a layer of quadratic neurons."""
    r, g, b = ((part.weight, part.bias) for part in _maps(layer))
    return functional.linear(x, *r) * functional.linear(x, *g) + functional.linear(x**2, *b)


def plain_quadratic_convolution(layer: QuadraticConv2d, x: Tensor) -> Tensor:
    """Return the output of a convolution of quadratic neurons."""
    r, g, b = ((part.weight, part.bias, part.stride, part.padding) for part in _maps(layer))
    return functional.conv2d(x, *r) * functional.conv2d(x, *g) + functional.conv2d(x**2, *b)


def _maps(layer: Any) -> list[Any]:
    return [layer.linear, layer.gate, layer.power]


def plain_p3d(layer: P3DBlock, x: Tensor) -> Tensor:
    """Return the output of a block of kind A, B or C whose shortcut is the identity."""

    def normed(v: Tensor, convolution: Any, norm: Any) -> Tensor:
        v = functional.conv3d(v, convolution.weight, padding=convolution.padding)
        return functional.batch_norm(v, norm.running_mean, norm.running_var, norm.weight, norm.bias, training=True)

    first = functional.relu(normed(x, layer.conv1, layer.bn1))
    spatial = functional.relu(normed(first, layer.conv2, layer.bn2))
    temporal = normed(first if layer.kind == "B" else spatial, layer.temporal, layer.temporal_norm)
    middle = functional.relu(temporal if layer.kind == "A" else spatial + temporal)
    return functional.relu(x + normed(middle, layer.conv3, layer.bn3))


def plain_pooling(layer: PosetPool2d, x: Tensor) -> Tensor:
    """Return the largest sum over an upper set of each window of 2 x 2."""
    return _largest_sum(layer, [x[..., row::2, column::2] for row in range(2) for column in range(2)])


def plain_filter(layer: PosetConv2d, x: Tensor) -> Tensor:
    """Return the largest sum over an upper set of the window of 2 x 2 at each pixel."""
    padded = functional.pad(x, (0, 1, 0, 1))
    height, width = x.shape[-2:]
    return _largest_sum(
        layer, [padded[..., row : row + height, column : column + width] for row in range(2) for column in range(2)]
    )


def _largest_sum(layer: PosetPool2d, pixels: list[Tensor]) -> Tensor:
    sums = []
    for chosen in layer.poset.filters():
        members = [pixel for pixel, inside in zip(pixels, chosen, strict=True) if inside]
        sums.append(sum(members[1:], members[0]) if members else torch.zeros_like(pixels[0]))
    return torch.stack(sums).amax(0)


# name -> the layer, its plain expression, and the shape of the input at the quick and the other scales
LAYERS: dict[str, tuple[Callable[[], nn.Module], Callable[..., Tensor], tuple[int, ...], tuple[int, ...]]] = {
    "af-kan": (lambda: AFKANLayer(784, 64), plain_af_kan, (2, 784), (64, 784)),
    "quadratic linear": (
        lambda: QuadraticLinear(512, 512, initialization="random"), plain_quadratic_linear, (2, 512), (128, 512)
    ),
    "quadratic convolution": (
        lambda: QuadraticConv2d(32, 32, 3, padding=1, initialization="random"),
        plain_quadratic_convolution, (1, 32, 6, 6), (16, 32, 16, 16),
    ),
    "P3D A": (lambda: P3DBlock(64, 16, "A"), plain_p3d, (1, 64, 3, 5, 5), (2, 64, 8, 14, 14)),
    "P3D B": (lambda: P3DBlock(64, 16, "B"), plain_p3d, (1, 64, 3, 5, 5), (2, 64, 8, 14, 14)),
    "P3D C": (lambda: P3DBlock(64, 16, "C"), plain_p3d, (1, 64, 3, 5, 5), (2, 64, 8, 14, 14)),
    "poset pooling": (lambda: PosetPool2d("chain"), plain_pooling, (1, 2, 6, 6), (16, 32, 32, 32)),
    "poset convolution": (lambda: PosetConv2d("N"), plain_filter, (1, 2, 6, 6), (16, 32, 16, 16)),
}  # fmt: skip


@dataclass
class Subject:
    """A layer with its input."""

    case: Row
    layer: nn.Module
    x: Tensor

    def call(self, function: Callable[[Tensor], Tensor]) -> Call:
        """Return a call that gives the output and, if asked, the gradients of the input and of all weights."""
        backward = "backward" in self.case["direction"]
        x = self.x.clone().requires_grad_(backward)
        leaves = [x, *self.layer.parameters()]
        with torch.no_grad():
            shape = function(x).shape
        incoming = torch.linspace(-1, 1, shape.numel(), device=x.device).view(shape)

        def call() -> list[Tensor]:
            with torch.set_grad_enabled(backward):
                y = function(x)
            used = leaves if y.requires_grad else []
            return [y.detach(), *torch.autograd.grad(y, used, incoming)] if backward else [y]

        return call


def cases(scale: Scale) -> list[Row]:
    """Return each layer, forward, and forward and backward."""
    return combinations(layer=list(LAYERS), direction=["forward", "forward+backward"])


def prepare(case: Row, setting: Setting) -> Subject:
    """Draw the weights and the input."""
    make, _, small, large = LAYERS[case["layer"]]
    torch.manual_seed(0)
    x = torch.randn(small if setting.scale == "quick" else large)
    return Subject(case, make().to(setting.device), x.to(setting.device))


def ours(subject: Subject) -> Call:
    """Return the layer."""
    return subject.call(subject.layer)


def plain(subject: Subject) -> Call:
    """Return its formula."""
    expression = LAYERS[subject.case["layer"]][1]
    return subject.call(lambda x: expression(subject.layer, x))


def max_pool(subject: Subject) -> Call | None:
    """Return max pooling, for poset pooling alone."""
    if subject.case["layer"] != "poset pooling":
        return None
    return subject.call(lambda x: functional.max_pool2d(x, 2))


def same(subject: Subject, calls: Mapping[str, Call]) -> Row:
    """Compare outputs of the layer and its formula, and in float64 gradients, too, relative to the largest entry."""
    # in float64: the largest basis functions of AF-KAN tie in float32, and which one gets the gradient is chance
    double = Subject(subject.case, copy.deepcopy(subject.layer).double(), subject.x.double())
    exact = {"ours": ours(double)(), "plain": plain(double)()}
    found = {name: calls[name]()[:1] for name in exact}
    difference = _difference(**found)
    for values, bound in ((found, 1e-4), (exact, 1e-8)):
        if not _difference(**values) < bound:
            raise OutputsDiffer(f"ours differs from plain by {_difference(**values):g} of the largest entry")
    return {"difference": difference, "weights": sum(parameter.numel() for parameter in subject.layer.parameters())}


def _difference(ours: list[Tensor], plain: list[Tensor]) -> float:
    """Largest difference over the largest entry, or over 0.001 where that is less."""
    return max(
        float((one - other).abs().max() / other.abs().max().clamp(min=1e-3))
        for one, other in zip(ours, plain, strict=True)
    )


speed = Speed(
    name="speed.vision_layers",
    protocol=__doc__,
    cases=cases,
    prepare=prepare,
    contenders={"ours": ours, "plain": plain, "max pool": max_pool},
    equal=same,
    packages={"plain": "torch", "max pool": "torch"},
    rounds={"quick": 2, "default": 15, "full": 25},
    seconds={"quick": 0.001, "default": 0.2, "full": 0.5},
    columns=["weights"],
    claims=[
        TakesAtMost("ours/plain", 1.3, text="(1) ours takes at most 1.3 times as long as the plain expression"),
        TakesAtMost(
            "ours/max pool", 2, {"layer": "poset pooling"},
            "(2) pooling by the total order takes at most 2 times as long as max pooling",
        ),
    ],
)  # fmt: skip
