"""ParaGRU and ParaLSTM beside a recorded loop over steps, and beside torch's dense layers.

Forward and backward with gradients of inputs and all weights, one thread, as many inputs as channels.

* *ours*: the layer as users get it, ``mode="auto"``: on a processor with numba the compiled loop over steps, on a GPU
  Newton's method with scans.
* *loop*: the same cell and weights, one product for the inputs of all steps, then a loop over steps that autograd
  records. The steps are taken by ``unbind``: with ``gates[:, t]`` the gradient of each step would fill the whole
  sequence, and the loop would look many times slower.
* *nn.GRU*, *nn.LSTM*: torch's layers of the same width, whose recurrent weights are dense: other cells, so that only
  their shapes are compared.
* *Newton*: the layer with ``mode="parallel"``.

Outputs and gradients of all but torch's layers are compared before anything is timed.

Rule: with one sequence of 64 channels and at least 1024 steps, ours is at least 5 times as fast as the loop (1) and as
nn.GRU (2); with 512 channels of all rows together it is never slower than the loop (3); four times the steps take at
most 5 times as long (4). nn.LSTM, which torch hands to a fused kernel on a processor, is reported. Seen before this
rule was written: the numbers of the specification; times of the operation alone, without the projection of the inputs,
at three sizes; the quick scale; and the layers with 48 channels, where ours took 2 ms for 1000 steps, nn.GRU hundreds
and nn.LSTM 16.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from graphseq.bench import AtLeast, Call, Check, OutputsDiffer, Row, Scale, Setting, Speed, same_outputs
from graphseq.nn import ParaGRU, ParaLSTM

__all__ = ["Subject", "cases", "speed"]

_DENSE = {"gru": ("nn.GRU", nn.GRU), "lstm": ("nn.LSTM", nn.LSTM)}


@dataclass
class Subject:
    """A layer, the same layer by Newton's method, torch's layer of its width, and an input."""

    layer: ParaGRU | ParaLSTM
    newton: ParaGRU | ParaLSTM
    dense: nn.GRU | nn.LSTM
    x: Tensor  # (B, T, D)
    incoming: Tensor  # gradient of the outputs

    def call(self, function: Callable[[Tensor], Tensor], module: nn.Module) -> Call:
        """Return a call that gives the outputs, and the gradients of inputs and weights."""
        leaf = self.x.clone().requires_grad_()

        def run() -> list[Tensor]:
            y = function(leaf)
            return [y.detach(), *torch.autograd.grad(y, [leaf, *module.parameters()], self.incoming)]

        return run


def cases(scale: Scale) -> list[Row]:
    """Return the cases: few and many channels of all rows together, and several lengths."""
    if scale == "quick":
        sizes = [(1, 8, 32), (2, 8, 32)]
        cells = ["gru", "lstm"]
    else:
        sizes = [(1, 64, 1024), (1, 64, 4096), (8, 64, 256), (8, 64, 1024), (8, 256, 1024)]
        cells = ["gru", "lstm"]
    return [
        {"cell": cell, "rows": rows, "channels": channels, "steps": steps}
        for cell in cells
        for rows, channels, steps in sizes
    ]


def prepare(case: Row, setting: Setting) -> Subject:
    """Draw weights and an input."""
    torch.manual_seed(0)
    dim = case["channels"]
    kind = ParaGRU if case["cell"] == "gru" else ParaLSTM
    layer = kind(dim, dim).to(setting.device)
    newton = kind(dim, dim, mode="parallel").to(setting.device)
    newton.load_state_dict(layer.state_dict())
    dense = _DENSE[case["cell"]][1](dim, dim, batch_first=True).to(setting.device)
    x = torch.randn(case["rows"], case["steps"], dim).to(setting.device)
    return Subject(layer, newton, dense, x, torch.randn(case["rows"], case["steps"], dim).to(setting.device))


def gru_loop(layer: ParaGRU | ParaLSTM, x: Tensor) -> Tensor:
    """Return the outputs of a ParaGRU, step by step."""
    gates = torch.nn.functional.linear(x, layer.weight_ih_l0, layer.bias_ih_l0)
    a = layer.recurrent_weight(0)
    h, found = x.new_zeros(len(x), layer.hidden_size), []
    for step in gates.unbind(1):
        zx, rx, nx = step.chunk(3, 1)
        z, r = torch.sigmoid(a[0] * h + zx), torch.sigmoid(a[1] * h + rx)
        h = torch.lerp(h, torch.tanh(a[2] * h * r + nx), z)
        found.append(h)
    return torch.stack(found, 1)


def lstm_loop(layer: ParaGRU | ParaLSTM, x: Tensor) -> Tensor:
    """Return the outputs of a ParaLSTM, step by step."""
    gates = torch.nn.functional.linear(x, layer.weight_ih_l0, layer.bias_ih_l0)
    a = layer.recurrent_weight(0)
    c = h = x.new_zeros(len(x), layer.hidden_size)
    found = []
    for step in gates.unbind(1):
        fx, zx, ox = step.chunk(3, 1)
        f, z = torch.sigmoid(a[0] * h + a[3] * c + fx), torch.tanh(a[1] * h + zx)
        c = torch.lerp(z, c, f)
        h = torch.sigmoid(a[2] * h + a[4] * c + ox) * torch.tanh(c)
        found.append(h)
    return torch.stack(found, 1)


def recorded_loop(subject: Subject) -> Call:
    """Return the loop over steps."""
    layer = subject.layer
    loop = gru_loop if isinstance(layer, ParaGRU) else lstm_loop
    return subject.call(lambda x: loop(layer, x), layer)


def of_torch(kind: type[nn.Module]) -> Callable[[Subject], Call | None]:
    """Return the function that gives the call of torch's layer of a kind, for cases of that cell."""

    def make(subject: Subject) -> Call | None:
        dense = subject.dense
        return subject.call(lambda x: dense(x)[0], dense) if isinstance(dense, kind) else None

    return make


def compare(subject: Subject, calls: dict[str, Call]) -> Row:
    """Compare outputs and gradients of the same cell, and the shapes of torch's."""
    names = [name for name, _ in _DENSE.values()]
    shape = subject.x.shape
    for name in names:
        if name in calls and calls[name]()[0].shape != shape:
            raise OutputsDiffer(f"outputs of {name} are not {tuple(shape)}")
    same = same_outputs(rtol=1e-3, atol=1e-3)  # gradients of weights are sums over all steps
    return same(subject, {name: call for name, call in calls.items() if name not in names})


def four_times_the_steps(rows: Sequence[Row]) -> list[Check]:
    """Return whether 4096 steps take at most 5 times as long as 1024, by cell."""
    found = []
    for cell in _DENSE:
        times = {row["steps"]: row["ms"]["ours"] for row in rows if row["cell"] == cell and row["rows"] == 1}
        if {1024, 4096} <= times.keys():
            ratio = times[4096] / times[1024]
            found.append(Check(f"4096 steps over 1024 steps, {cell}", ratio, 5.0, ratio <= 5.0))
    return found


def _contenders() -> dict[str, Callable[[Any], Call | None]]:
    found: dict[str, Callable[[Any], Call | None]] = {
        "ours": lambda subject: subject.call(subject.layer.outputs, subject.layer),
        "loop": recorded_loop,
    }
    found |= {name: of_torch(kind) for name, kind in _DENSE.values()}
    return found | {"Newton": lambda subject: subject.call(subject.newton.outputs, subject.newton)}


speed = Speed(
    name="speed.pararnn",
    protocol=__doc__,
    cases=cases,
    prepare=prepare,
    contenders=_contenders(),
    equal=compare,
    rounds={"quick": 2, "default": 5, "full": 9},
    seconds={"quick": 0.001, "default": 0.1, "full": 0.4},
    claims=[
        AtLeast("ours/loop", 5, {"rows": 1, "channels": 64}),
        AtLeast("ours/nn.GRU", 5, {"rows": 1, "channels": 64}),
        AtLeast("ours/loop", 1, {"rows": 8, "channels": 64}),
        four_times_the_steps,
    ],
)
