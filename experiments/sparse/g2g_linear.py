"""Sparse layers between groups, packed, against a mask on a dense weight and against plain dense layers.

Source: arXiv 2508.14140, whose layers connect a group of units fully and other groups with density p'.

*layer*: forward and backward (gradients of inputs, weights and bias) of one layer of equal width in and out, G = 8
groups, whole columns. *packed* is ``GroupToGroupLinear(backend="packed")``, *masked* the same layer with a dense weight
times a mask, *dense* a plain linear layer with that weight, zeros included, so that all three give the same outputs and
gradients of inputs; they are compared first. The limit is the number of operations of the weights that exist, forward
and backward, at the rate of a large matrix product; ``density`` is their share, so that its inverse is the ideal ratio
to *dense*.

*epoch*: training steps of ``G2GNet`` of width 1024 with Adam on random images of 28 x 28 in batches of 256, with
p' = 0.15: *packed* and *masked* of equal weights; *dense* is a network with dense layers of the same width. Outputs of
the first two are compared.

Rule, on one thread, medians of paired ratios: (1) and (2) packed at least 4 times as fast as masked at p' = 0 and 2
times at 0.15, width 2048, batch 256; (3) 3 times at 0.15, width 1024, batch 128; (4) never slower than masked at
p' up to 0.25; (5) an epoch takes at most 0.6 of that of the masked network.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from graphseq.bench import (
    AtLeast,
    Call,
    Operations,
    OutputsDiffer,
    Row,
    Scale,
    Setting,
    Speed,
    TakesAtMost,
    exhaust,
    train_steps,
)
from graphseq.core import make
from graphseq.models import G2GNet, PatchMLP
from graphseq.nn import GroupToGroupLinear

__all__ = ["speed"]

_GROUPS = 8
_SIZES = [(1024, 128), (2048, 256)]
_STEPS = {"quick": 2, "default": 20, "full": 211}  # 211 batches are Fashion-MNIST's training split


@dataclass
class _Subject:
    case: Row
    networks: dict[str, nn.Module]
    batches: list[tuple[Tensor, Tensor]]


def _cases(scale: Scale) -> list[Row]:
    sizes = _SIZES if scale == "quick" else [*_SIZES, (4096, 256)]
    inter = (0.0, 0.15) if scale == "quick" else (0.0, 0.05, 0.15, 0.25)
    layers = [("layer", width, batch, p) for width, batch in sizes for p in inter]
    return [dict(zip(("part", "width", "batch", "p_inter"), case, strict=True))
            for case in [*layers, ("epoch", 1024, 256, 0.15)]]  # fmt: skip


def _prepare(case: Row, setting: Setting) -> _Subject:
    width, batch, p = case["width"], case["batch"], case["p_inter"]
    generator = torch.Generator().manual_seed(0)
    networks: dict[str, nn.Module] = {}
    for name in ("packed", "masked"):
        torch.manual_seed(0)
        if case["part"] == "layer":
            networks[name] = GroupToGroupLinear(width, width, _GROUPS, p_inter=p, backend=name, seed=0)
        else:
            networks[name] = G2GNet((1, 28, 28), 10, _GROUPS, width, p_inter=p, backend=name, seed=0)
    if case["part"] == "layer":
        networks["dense"] = nn.Linear(width, width)
        with torch.no_grad():
            networks["dense"].weight.copy_(networks["masked"].to_dense()[0])
            networks["dense"].bias.copy_(networks["masked"].bias)
        x = [torch.randn(batch, width, generator=generator)]
    else:
        widths = [512, width, width, width]
        layers = [make(nn.Linear, before, after) for before, after in itertools.pairwise(widths)]
        networks["dense"] = PatchMLP((1, 28, 28), 10, layers)
        x = [torch.randn(batch, 1, 28, 28, generator=generator) for _ in range(_STEPS[setting.scale])]
    y = torch.randint(10, (batch,), generator=generator)
    return _Subject(case, {name: network.to(setting.device) for name, network in networks.items()},
                    [(images.to(setting.device), y.to(setting.device)) for images in x])  # fmt: skip


def _contender(name: str) -> Callable[[_Subject], Call]:
    return lambda subject: (_layer if subject.case["part"] == "layer" else _epoch)(subject, subject.networks[name])


def _layer(subject: _Subject, layer: nn.Module) -> Call:
    x = subject.batches[0][0].clone().requires_grad_()
    incoming = torch.linspace(-1, 1, x.numel(), device=x.device).view(x.shape)
    leaves = [x, *layer.parameters()]

    def call() -> list[Tensor]:
        y = layer(x)
        grads = torch.autograd.grad(y, leaves, incoming)
        return [y.detach(), grads[0], grads[-1] if grads[-1].dim() == 1 else grads[1]]

    return call


def _epoch(subject: _Subject, network: nn.Module) -> Call:
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    loss = nn.functional.cross_entropy
    return lambda: exhaust(train_steps(subject.batches, lambda batch: loss(network(batch[0]), batch[1]), optimizer))


def same(subject: _Subject, calls: Any) -> Row:
    """Compare outputs and gradients of a layer, or outputs of the networks before they are trained."""
    names = ["packed", "masked", "dense"] if subject.case["part"] == "layer" else ["packed", "masked"]
    if subject.case["part"] == "layer":
        found = [[value.double() for value in calls[name]()] for name in names]
    else:
        found = [[subject.networks[name](subject.batches[0][0]).detach().double()] for name in names]
    largest = 0.0
    for name, values in zip(names[1:], found[1:], strict=True):
        for one, other in zip(found[0], values, strict=True):
            largest = max(largest, float((one - other).abs().max() / other.abs().max()))
        if not largest < 1e-4:
            raise OutputsDiffer(f"outputs of {name} differ from those of packed by {largest:g} of the largest")
    first = subject.networks["packed"]
    layers = [layer for layer in first.modules() if isinstance(layer, GroupToGroupLinear)]
    stored = {name: sum(p.numel() for p in subject.networks[name].parameters()) for name in ("packed", "masked")}
    return {
        "difference": largest,
        "density": sum(layer.density for layer in layers) / len(layers),
        "parameters": stored["packed"],
        "share": stored["packed"] / stored["masked"],
    }


def _limit(subject: _Subject) -> Operations | None:
    if subject.case["part"] == "epoch":
        return None
    layer = subject.networks["packed"]
    weights = layer.weight.numel()
    return Operations(3 * 2 * weights * subject.case["batch"])  # forward, by inputs, by weights


_BIG, _SMALL = {"width": 2048, "batch": 256}, {"width": 1024, "batch": 128}
speed = Speed(
    name="speed.g2g_linear",
    protocol=__doc__,
    cases=_cases,
    prepare=_prepare,
    contenders={name: _contender(name) for name in ("packed", "masked", "dense")},
    equal=same,
    limit=_limit,
    packages={"dense": "torch"},
    rounds={"quick": 3, "default": 9, "full": 15},
    seconds={"quick": 0.02, "default": 0.2, "full": 0.4},
    columns=["density", "share"],
    claims=[
        AtLeast("packed/masked", 4, {"p_inter": 0.0, **_BIG}, "(1) p' = 0, width 2048: at least {bound} times masked"),
        AtLeast("packed/masked", 2, {"p_inter": 0.15, **_BIG}, "(2) p' = 0.15, width 2048: {bound} times masked"),
        AtLeast("packed/masked", 3, {"p_inter": 0.15, **_SMALL}, "(3) p' = 0.15, width 1024: {bound} times masked"),
        AtLeast("packed/masked", 1, {"part": "layer"}, "(4) never slower than masked for p' up to 0.25"),
        TakesAtMost("packed/masked", 0.6, {"part": "epoch"}, "(5) epoch of G2GNet over that of the masked one"),
    ],
)
