"""Gated linear attention by chunks, step by step, from all scores, and softmax attention, over the length.

Four heads with keys of 32 channels and values of 64, one sequence, float32, random inputs, gates as a new layer has
them (the logarithm of a sigmoid, divided by 16).

* *chunkwise*: ``gated_linear_chunkwise``, what layers call for more than one step.
* *recurrent*: ``gated_linear_recurrent``, a loop over steps.
* *quadratic*: ``gated_linear_quadratic``, the matrix of all scores; up to 2048 steps.
* *SDPA*: ``scaled_dot_product_attention`` of torch, causal, four heads of 64 channels: the attention of a layer of the
  same width, with other numbers.

*forward*; *training*: outputs, and the gradients of queries, keys, values and gates; *decoding*: one step after so many
steps, by the state, against softmax attention over as many keys and values. Outputs and gradients of the first three
are compared before anything is timed.

Rule, on one thread, medians: (1) training by chunks is at least 10 times as fast as step by step, at 2048 steps; (2)
time and (3) memory that training by chunks adds grow at most with the power 1.1 of the steps, over 512 to 8192; (4)
decoding by state takes the same within a factor of 1.5 after 512 to 8192 steps. Other ratios are reported.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from graphseq.bench import AtLeast, Call, Check, Row, Scale, Setting, Speed, combinations, same_outputs
from graphseq.ops import gated_linear_attention, gated_linear_chunkwise, gated_linear_quadratic, gated_linear_recurrent

__all__ = ["Subject", "cases", "speed"]

_HEADS, _KEYS, _VALUES = 4, 32, 64
_LENGTHS = {"quick": (64, 96), "default": (512, 1024, 2048, 4096, 8192), "full": (512, 1024, 2048, 4096, 8192, 16384)}
_LARGEST_SCORES = 2048
Form = Callable[..., tuple[Tensor, Tensor]]


@dataclass
class Subject:
    """Inputs of one length."""

    case: Row
    gated: list[Tensor]  # q, k, v, g (1, H, T, .)
    softmax: list[Tensor]  # q, k, v (1, H, T, V)


def cases(scale: Scale) -> list[Row]:
    """Return the parts and lengths of a scale."""
    return combinations(part=["training", "forward", "decoding"], steps=list(_LENGTHS[scale]))


def prepare(case: Row, setting: Setting) -> Subject:
    """Draw the inputs."""
    torch.manual_seed(0)
    shape = (1, _HEADS, case["steps"])
    q, k = torch.randn(2, *shape, _KEYS).unbind()
    gated = [q, k, torch.randn(*shape, _VALUES), functional.logsigmoid(torch.randn(*shape, _KEYS)) / 16]
    softmax = list(torch.randn(3, *shape, _VALUES).unbind())
    return Subject(case, *([part.to(setting.device) for part in parts] for parts in (gated, softmax)))


def _called(function: Callable[..., Tensor], inputs: Sequence[Tensor], backward: bool) -> Call:
    """Return a call that gives the output of a function and, if asked, the gradients of its inputs."""
    leaves = [part.clone().requires_grad_(backward) for part in inputs]
    incoming = torch.linspace(-1, 1, inputs[2].numel(), device=inputs[2].device).view(inputs[2].shape)

    def call() -> list[Tensor]:
        y = function(*leaves)
        return [y.detach(), *torch.autograd.grad(y, leaves, incoming)] if backward else [y]

    return call


def gated(form: Form, longest: float = math.inf) -> Callable[[Subject], Call | None]:
    """Return the contender of a form of gated linear attention, up to a number of steps."""

    def make(subject: Subject) -> Call | None:
        if subject.case["steps"] > longest or subject.case["part"] == "decoding":
            return None
        return _called(lambda *given: form(*given)[0], subject.gated, subject.case["part"] == "training")

    return make


def chunkwise(subject: Subject) -> Call | None:
    """Return the form by chunks; in decoding one step by the state, as a layer takes it."""
    if subject.case["part"] != "decoding":
        return gated(gated_linear_chunkwise)(subject)
    _, state = gated_linear_attention(*subject.gated)
    step = [part[:, :, -1:] for part in subject.gated]
    return lambda: gated_linear_attention(*step, state=state)[0]


def softmax(subject: Subject) -> Call:
    """Return softmax attention; in decoding that of one query over all keys."""
    attention = functional.scaled_dot_product_attention
    if subject.case["part"] == "decoding":
        q, k, v = subject.softmax
        return lambda: attention(q[:, :, -1:], k, v)
    backward = subject.case["part"] == "training"
    return _called(lambda q, k, v: attention(q, k, v, is_causal=True), subject.softmax, backward)


def same(subject: Subject, calls: Mapping[str, Call]) -> Row:
    """Compare the forms of gated linear attention; a step by state with the last of all steps."""
    forms = {name: call for name, call in calls.items() if name != "SDPA"}
    if subject.case["part"] == "decoding":
        form = gated_linear_recurrent if subject.case["steps"] <= _LARGEST_SCORES else gated_linear_chunkwise
        twice = [torch.cat([part, part[:, :, -1:]], 2) for part in subject.gated]
        forms["recurrent"] = lambda: form(*twice)[0][:, :, -1:]
    return same_outputs(rtol=1e-3, atol=1e-3)(subject, forms)


def power(rows: Sequence[Row], value: Callable[[Row], float]) -> float | None:
    """Return the slope of the logarithm of a value over that of the steps, in training; None for one length."""
    found = [(math.log(row["steps"]), math.log(value(row))) for row in rows if row["part"] == "training"]
    if len(found) < 2:
        return None
    x, y = (torch.tensor(part, dtype=torch.float64) for part in zip(*found, strict=True))
    x = x - x.mean()
    return float((x * (y - y.mean())).sum() / x.square().sum())


def growth(rows: Sequence[Row]) -> list[Check]:
    """Return the checks of the powers with which time and memory grow, and that of decoding."""
    values: dict[str, Callable[[Row], float]] = {
        "(2) power of the steps with which the time of training grows": lambda row: row["ms"]["chunkwise"],
        "(3) power of the steps with which the memory of training grows": lambda row: row["peak_mb"]["chunkwise"],
    }
    checks = []
    for text, value in values.items():
        found = power(rows, value)
        if found is not None:
            checks.append(Check(text, found, 1.1, found <= 1.1))
    times = [row["ms"]["chunkwise"] for row in rows if row["part"] == "decoding"]
    if len(times) > 1:
        spread = max(times) / min(times)
        checks.append(Check("(4) slowest over fastest position in decoding", spread, 1.5, spread <= 1.5))
    return checks


_AT = {"part": "training", "steps": 2048}
_CONTENDERS: dict[str, Callable[[Any], Call | None]] = {
    "chunkwise": chunkwise,
    "recurrent": gated(gated_linear_recurrent),
    "quadratic": gated(gated_linear_quadratic, _LARGEST_SCORES),
    "SDPA": softmax,
}
speed = Speed(
    name="speed.gla",
    protocol=__doc__,
    cases=cases,
    prepare=prepare,
    contenders=_CONTENDERS,
    equal=same,
    packages={"SDPA": "torch"},
    memory=True,
    rounds={"quick": 2, "default": 7, "full": 15},
    seconds={"quick": 0.001, "default": 0.1, "full": 0.4},
    claims=[
        AtLeast(
            "chunkwise/recurrent", 10, _AT, "(1) training at 2048 steps: at least {bound} times the recurrent form"
        ),
        growth,
    ],
)
