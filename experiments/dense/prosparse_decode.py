"""Gated feed-forward parts computed by their active units alone, against the dense layer, over their sparsity.

*sparse* is ``SparseGatedFeedForward``, which computes the gate, then gathers the weights of the active units, and takes
the dense way with more of them than a fifth; *dense* is ``GatedFeedForward`` with the same weights and activation; *no
fallback* gathers at any sparsity, to show what the fallback saves. One token, float32, no gradients, random weights.
The activation is ``FATReLU`` with the threshold that makes the gate of this token as sparse as the case says; so the
gate itself is computed in full by all contenders. Outputs are compared first. A sparsity of 1 is a gate that is all
zero, with which the second map has nothing to read.

Three matrices of equal size are read by the dense layer and one by the sparse layer, besides the active rows: 3 is the
largest possible ratio.

Rule, on one thread, medians of paired ratios: (1) at least 1.5 times as fast as dense with d = 512, 2048 units, 95 %
sparsity; (2) at any size and sparsity at least 1/1.1 as fast as dense.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from graphseq.bench import AtLeast, Call, Row, Scale, Setting, Speed, combinations, same_outputs
from graphseq.nn import FATReLU, GatedFeedForward, SparseGatedFeedForward

__all__ = ["Subject", "cases", "speed"]

_SIZES = {"quick": [512], "default": [512, 1024], "full": [512, 1024, 2048]}


@dataclass
class Subject:
    """Layers of equal weights, and a token."""

    layers: dict[str, nn.Module]
    x: Tensor  # (1, D)
    sparsity: float


def cases(scale: Scale) -> list[Row]:
    """Return the sizes and sparsities of a scale."""
    sparsities = [0.5, 0.95] if scale == "quick" else [0.0, 0.5, 0.67, 0.79, 0.81, 0.9, 0.95, 0.99, 1.0]
    return combinations(dim=_SIZES[scale], sparsity=sparsities)


def prepare(case: Row, setting: Setting) -> Subject:
    """Build the layers, with gates as sparse as asked for on one token."""
    torch.manual_seed(0)
    dim, units = case["dim"], 4 * case["dim"]
    dense = GatedFeedForward(dim, units)
    x = torch.randn(1, dim)
    with torch.no_grad():
        gate_weight = dense.gate_and_value.weight[:units]
        # rows whose gate is negative are turned round, so that the threshold alone decides
        gate_weight.mul_((x @ gate_weight.t()).sign().t())
        gate = (x @ gate_weight.t())[0].sort().values
    count = round(case["sparsity"] * units)
    dense.activation = FATReLU(float(gate[count - 1 : count + 1].mean()) if 0 < count < units else 1e9 * count)
    layers: dict[str, nn.Module] = {"dense": dense}
    for name, most in (("sparse", 0.2), ("no fallback", 1.0)):
        layers[name] = SparseGatedFeedForward.from_dense(dense, most)
    layers = {name: layer.to(setting.device).eval() for name, layer in layers.items()}
    return Subject(layers, x.to(setting.device), count / units)


def contender(name: str) -> Callable[[Subject], Call]:
    """Return the call of a layer."""

    def make(subject: Subject) -> Call:
        layer = subject.layers[name]

        def call() -> Tensor:
            with torch.inference_mode():
                return layer(subject.x)

        return call

    return make


def same(subject: Subject, calls: Any) -> Row:
    """Compare the outputs, and check that the gate is as sparse as the case says."""
    layer = subject.layers["dense"]
    with torch.inference_mode():
        gate = layer.activation(layer.gate_and_value(subject.x).chunk(2, -1)[0])
    zeros = float((gate == 0).double().mean())
    if abs(zeros - subject.sparsity) > 1e-3:
        raise ValueError(f"the gate has a sparsity of {zeros:g}; the case asks for {subject.sparsity:g}")
    return same_outputs(rtol=1e-4, atol=1e-5)(subject, calls)


speed = Speed(
    name="speed.prosparse_decode",
    protocol=__doc__,
    cases=cases,
    prepare=prepare,
    contenders={name: contender(name) for name in ("sparse", "dense", "no fallback")},
    equal=same,
    packages={"dense": "torch"},
    rounds={"quick": 3, "default": 15, "full": 25},
    seconds={"quick": 0.02, "default": 0.1, "full": 0.3},
    claims=[
        AtLeast("sparse/dense", 1.5, {"dim": 512, "sparsity": 0.95}, "(1) d = 512, 95 %: at least {bound} times dense"),
        AtLeast("sparse/dense", 1 / 1.1, text="(2) at any size and sparsity at least 1/1.1 times dense"),
    ],
)
