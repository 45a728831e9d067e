"""Training steps of MgNO on growing grids, beside Fourier operators of as many parameters.

Source: arXiv 2310.19809; a cycle visits each point a fixed number of times, and coarser grids add a third at most.

A step is forward, relative error in L2, backward and Adam, on one batch of two random samples of side 63, 127 and 255,
in float32. *MgNO* has 4 layers, width 10 and 5 grids (70,686 parameters); *FNO* is ours, of 4 layers, width 11 and 6
modes (70,685 parameters) with zero padding of an eighth; *neuraloperator* is that package's ``FNO`` of 4 layers with as
many modes, width 11 and its own lifting and projection, where it is installed. The networks are different functions, so
that no outputs can be equal: compared are the shapes of outputs, that gradients are finite, and the numbers of
parameters of ours, which are recorded. The limit is the arithmetic of the convolutions of MgNO, forward and backward.

Seen before this rule was written: 5.5 ms a sample for MgNO and 5.0 ms for FNO at side 31 in batches of 16, on a busy
machine.

Rule, on one thread: (1) four times the points take at most 4.6 times as long, twice; (2) a step of MgNO takes at most
1.5 times as long as one of FNO at each size.
"""

import importlib
import importlib.util
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from graphseq.bench import Call, Check, Operations, OutputsDiffer, Row, Setting, Speed, TakesAtMost
from graphseq.core import OptionalDependencyError
from graphseq.models import FNO2d, MgNO
from graphseq.nn import RelativeL2

__all__ = ["speed"]

SIDES = (63, 127, 255)


@dataclass
class Subject:
    """Networks and a batch on the device.

    Args:
        networks: networks by name.
        x: inputs (B, 1, Y, X).
        y: targets of the same shape.
    """

    networks: dict[str, nn.Module]
    x: Tensor
    y: Tensor


def peer() -> nn.Module:
    """Return neuraloperator's network, or refuse where it is not installed."""
    if importlib.util.find_spec("neuralop") is None:
        raise OptionalDependencyError("neuraloperator", "the step of its FNO")
    models: Any = importlib.import_module("neuralop.models")
    network: nn.Module = models.FNO(n_modes=(12, 12), in_channels=1, out_channels=1, hidden_channels=11, n_layers=4)
    return network


def prepare(case: Row, setting: Setting) -> Subject:
    """Return the networks and a random batch."""
    torch.manual_seed(0)
    networks: dict[str, nn.Module] = {
        "MgNO": MgNO(width=10, num_layers=4, levels=5, alignment="vertex"),
        "FNO": FNO2d(width=11, num_layers=4, modes=6, hidden_channels=32),
    }
    x, y = torch.randn(2, 2, 1, case["side"], case["side"], device=setting.device)
    return Subject({name: network.to(setting.device) for name, network in networks.items()}, x, y)


def _step(subject: Subject, network: nn.Module) -> Call:
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    loss = RelativeL2()

    def call() -> Tensor:
        optimizer.zero_grad()
        value: Tensor = loss(network(subject.x), subject.y)
        value.backward()
        optimizer.step()
        return value.detach()

    return call


def contender(name: str) -> Callable[[Subject], Call]:
    """Return the function of the subject that gives the step of a network."""

    def make(subject: Subject) -> Call:
        if name not in subject.networks:
            subject.networks[name] = peer().to(subject.x.device)
        return _step(subject, subject.networks[name])

    return make


def compare(subject: Subject, calls: Any) -> Row:
    """Check shapes, gradients and numbers of parameters; the networks are different functions."""
    counts = {name: sum(p.numel() for p in subject.networks[name].parameters()) for name in calls}
    for name in calls:
        network = subject.networks[name]
        u = network(subject.x)
        found = torch.autograd.grad(u.square().sum(), list(network.parameters()))
        if u.shape != subject.y.shape or not all(bool(part.isfinite().all()) for part in found):
            raise OutputsDiffer(f"outputs of {name} are not {tuple(subject.y.shape)}, or its gradients not finite")
    if abs(counts["MgNO"] / counts["FNO"] - 1) > 0.03:
        raise OutputsDiffer(f"MgNO and FNO have {counts['MgNO']} and {counts['FNO']} parameters, not as many")
    return {"parameters": counts}


def limit(subject: Subject) -> Operations:
    """Return the operations of MgNO's convolutions: forward, by inputs, by weights."""
    network = subject.networks["MgNO"]
    found = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal found
        # a transposed convolution spends its weights on every input, a convolution on every output
        spent = inputs[0] if isinstance(module, nn.ConvTranspose2d) else output
        found += 2 * sum(p.numel() for p in module.parameters()) * spent[:, 0].numel()

    hooks = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    with torch.no_grad():
        network(subject.x)
    for hook in hooks:
        hook.remove()
    return Operations(3 * found)


def linear(rows: Sequence[Row]) -> list[Check]:
    """Return whether four times the points take at most 4.6 times as long."""
    times = {row["side"]: row["ms"]["MgNO"] for row in rows}
    sides = [pair for pair in itertools.pairwise(SIDES) if set(pair) <= times.keys()]
    ratios = {f"(1) side {large} over side {small}": times[large] / times[small] for small, large in sides}
    return [Check(claim, ratio, 4.6, ratio <= 4.6) for claim, ratio in ratios.items()]


speed = Speed(
    name="speed.mgno",
    protocol=__doc__,
    cases=lambda scale: [{"side": side} for side in (SIDES[:1] if scale == "quick" else SIDES)],
    prepare=prepare,
    contenders={name: contender(name) for name in ("MgNO", "FNO", "neuraloperator")},
    equal=compare,
    limit=limit,
    packages={"neuraloperator": "neuraloperator"},
    claims=[linear, TakesAtMost("MgNO/FNO", 1.5, text="(2) step of MgNO over one of FNO of equal parameters")],
)
