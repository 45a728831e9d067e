"""Tree of dilated convolutions against the moving averages of MEGA by Fourier transforms, over the length.

One sequence of 64 channels, float32. *forward*; *training*: outputs, and the gradients of inputs and weights.

* *tree*: ``TreeConvolution`` of 3 layers with 17 steps each, which reaches over 4913 steps.
* *FFT EMA*: ``ema_kernel`` of 16 averages a channel, and ``ema_convolution``: the operator that the tree replaces.
* *FFT alone*: ``ema_convolution`` with a kernel that is given, as long as the sequence.

The three are different filters. Before anything is timed, the tree is compared with the transform of its composed
kernel, and the averages with their recurrence over the first 256 steps.

Rule, on one thread, medians: (1) the time of the tree grows at most with the power 1.1 of the steps, from 1024 to
131072, forward and training; the tree is at least as fast as FFT EMA at every length, (2) forward and (3) in training.
The paper states up to 7.07 and 2.86 times for forward and backward, on a GPU. Other ratios are reported.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from graphseq.bench import AtLeast, Call, Check, Row, Scale, Setting, Speed, combinations, same_outputs
from graphseq.nn import MovingAverage, TreeConvolution
from graphseq.ops import ema_convolution, ema_kernel, ema_recurrence

__all__ = ["Subject", "cases", "speed"]

_CHANNELS = 64
_LENGTHS = {
    "quick": (64, 96),
    "default": (1024, 4096, 16384, 65536, 131072),
    "full": (1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072),
}
_COMPARED = 256


@dataclass
class Subject:
    """Layers and inputs of one length."""

    case: Row
    x: Tensor  # (1, T, C)
    tree: TreeConvolution
    averages: MovingAverage

    def call(self, function: Callable[[Tensor], Tensor], weights: Sequence[Tensor]) -> Call:
        """Return a call that gives the output and, in training, the gradients of input and weights."""
        backward = self.case["part"] == "training"
        x = self.x.clone().requires_grad_(backward)
        incoming = torch.linspace(-1, 1, x.numel(), device=x.device).view(x.shape)

        def call() -> list[Tensor]:
            with torch.set_grad_enabled(backward):
                y = function(x)
            return [y.detach(), *torch.autograd.grad(y, [x, *weights], incoming)] if backward else [y]

        return call


def cases(scale: Scale) -> list[Row]:
    """Return the parts and lengths of a scale."""
    return combinations(part=["training", "forward"], steps=list(_LENGTHS[scale]))


def prepare(case: Row, setting: Setting) -> Subject:
    """Draw inputs and weights."""
    torch.manual_seed(0)
    x = torch.randn(1, case["steps"], _CHANNELS)
    tree, averages = TreeConvolution(_CHANNELS), MovingAverage(_CHANNELS)
    return Subject(case, x.to(setting.device), tree.to(setting.device), averages.to(setting.device))


def tree(subject: Subject) -> Call:
    """Return the tree."""
    return subject.call(lambda x: subject.tree(x)[0], list(subject.tree.parameters()))


def averages(subject: Subject) -> Call:
    """Return the moving averages: their kernel, then the transforms."""

    def function(x: Tensor) -> Tensor:
        return ema_convolution(x, ema_kernel(*subject.averages.weights(), x.shape[1]))

    return subject.call(function, list(subject.averages.parameters()))


def transform(subject: Subject) -> Call:
    """Return the transforms with a kernel that is given."""
    kernel = torch.randn(_CHANNELS, subject.case["steps"], device=subject.x.device).requires_grad_()
    return subject.call(lambda x: ema_convolution(x, kernel), [kernel])


@torch.no_grad()
def same(subject: Subject, calls: Mapping[str, Call]) -> Row:
    """Compare the tree with the transform of its kernel, and the averages with their recurrence."""
    steps = subject.case["steps"]
    kernel = subject.tree.composed_kernel()
    kernel = functional.pad(kernel, (0, max(0, steps - kernel.shape[1])))[:, :steps]
    compare = same_outputs(rtol=1e-3, atol=1e-3)
    one = compare(
        subject, {"tree": lambda: subject.tree(subject.x)[0], "FFT": lambda: ema_convolution(subject.x, kernel)}
    )
    x, weights = subject.x[:, :_COMPARED], subject.averages.weights()
    start = x.new_zeros(1, _CHANNELS, subject.averages.num_averages)
    both = {
        "FFT EMA": lambda: ema_convolution(subject.x, ema_kernel(*weights, steps))[:, :_COMPARED],
        "recurrence": lambda: ema_recurrence(x, *weights, start)[0],
    }
    return {"difference": max(one["difference"], compare(subject, both)["difference"])}


def growth(rows: Sequence[Row]) -> list[Check]:
    """Return the powers of the steps with which the time of the tree grows."""
    checks = []
    for part in ("forward", "training"):
        times = {row["steps"]: row["ms"]["tree"] for row in rows if row["part"] == part}
        if len(times) > 1:
            x = torch.tensor([math.log(steps) for steps in times], dtype=torch.float64)
            y = torch.tensor([math.log(time) for time in times.values()], dtype=torch.float64)
            power = float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())
            text = f"(1) power of the steps with which the time of the tree grows, {part}"
            checks.append(Check(text, power, 1.1, power <= 1.1))
    return checks


speed = Speed(
    name="speed.tcnca",
    protocol=__doc__,
    cases=cases,
    prepare=prepare,
    contenders={"tree": tree, "FFT EMA": averages, "FFT alone": transform},
    equal=same,
    memory=True,
    rounds={"quick": 2, "default": 7, "full": 15},
    seconds={"quick": 0.001, "default": 0.1, "full": 0.4},
    claims=[
        growth,
        AtLeast("tree/FFT EMA", 1, {"part": "forward"}, "(2) forward: at least as fast as FFT EMA"),
        AtLeast("tree/FFT EMA", 1, {"part": "training"}, "(3) training: at least as fast as FFT EMA"),
    ],
)
