"""Segment reductions: torch's own operations beside torch-scatter and PyG, forward and with gradients.

Rows are float32, 20 to a segment on average and without ties in any column, sorted and given by ``ptr`` or in any order
and given by ``index``. Ours is the native backend, torch-scatter the same functions by that library, PyG what
``torch_geometric.utils`` offers (``segment``, ``scatter``, ``softmax``). Outputs and gradients are compared before
anything is timed.

Rule: the native backend, which is used everywhere, is worth it if the geometric mean of all ratios to torch-scatter is
at least 1. Cases where torch-scatter is faster stay in the table.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch_geometric import utils

from graphseq.bench import AtLeast, Bytes, Call, Row, Scale, Setting, Speed, combinations, differentiated, same_outputs
from graphseq.bench.speeds.groups import group_figure, group_table
from graphseq.ops import (
    segment_argmax,
    segment_backend,
    segment_max,
    segment_mean,
    segment_min,
    segment_softmax,
    segment_sum,
)

__all__ = ["cases", "speed"]

_OURS: dict[str, Callable[..., Tensor]] = {
    function.__name__.removeprefix("segment_"): function
    for function in (segment_sum, segment_mean, segment_max, segment_min, segment_softmax, segment_argmax)
}
_ROWS_PER_SEGMENT = 20
_EDGES = {"quick": [1_000, 10_000], "default": [1_000, 10_000, 100_000], "full": [1_000, 10_000, 100_000, 1_000_000]}


@dataclass
class _Problem:
    operation: str
    values: Tensor  # (E, D)
    segments: dict[str, Any]
    backward: bool

    def call(self, function: Callable[[Tensor], Tensor]) -> Call:
        """Return a call that gives the output and, if asked, the gradient."""
        return differentiated(function, self.values, self.backward)


def cases(scale: Scale) -> list[Row]:
    """Return every size, operation, layout and direction; ``argmax`` has no gradient."""
    ways = {"layout": ["ptr", "index"], "direction": ["forward", "forward+backward"]}
    every = combinations(edges=_EDGES[scale], width=[1, 16, 64], operation=list(_OURS), **ways)
    return [case for case in every if not (case["operation"] == "argmax" and "backward" in case["direction"])]


def _prepare(case: Row, setting: Setting) -> _Problem:
    """Make rows without ties in any column, so that all have one gradient, and their segments."""
    edges, width, generator = case["edges"], case["width"], torch.Generator().manual_seed(0)
    num_segments = max(1, edges // _ROWS_PER_SEGMENT)
    permutation = torch.randperm(edges, generator=generator) / edges - 0.5
    values = permutation[(torch.arange(edges).view(-1, 1) + 17 * torch.arange(width)) % edges].to(setting.device)
    index = torch.randint(num_segments, (edges,), generator=generator)
    count = torch.bincount(index, minlength=num_segments)
    segments: dict[str, Any] = {"index": index.to(setting.device), "num_segments": num_segments}
    if case["layout"] == "ptr":
        segments = {"ptr": torch.cat([count.new_zeros(1), count.cumsum(0)]).to(setting.device)}
    return _Problem(case["operation"], values, segments, "backward" in case["direction"])


def _ours(problem: _Problem) -> Call:
    return problem.call(lambda values: _OURS[problem.operation](values, **problem.segments))


def _by_torch_scatter(problem: _Problem) -> Call:
    def function(values: Tensor) -> Tensor:
        with segment_backend("torch_scatter"):
            return _OURS[problem.operation](values, **problem.segments)

    return problem.call(function)


def _by_pyg(problem: _Problem) -> Call | None:
    ptr, index, size = (problem.segments.get(key) for key in ("ptr", "index", "num_segments"))
    if problem.operation == "argmax":
        return None  # PyG's has a sentinel of its own for empty segments
    if problem.operation == "softmax":
        return problem.call(lambda values: utils.softmax(values, index, ptr, size))
    if ptr is not None:
        return problem.call(lambda values: utils.segment(values, ptr, problem.operation))
    return problem.call(lambda values: utils.scatter(values, index, 0, size, problem.operation))


speed = Speed(
    name="speed.segment",
    protocol=__doc__,
    cases=cases,
    prepare=_prepare,
    contenders={"ours": _ours, "torch-scatter": _by_torch_scatter, "PyG": _by_pyg},
    equal=same_outputs(rtol=1e-4, atol=1e-5),
    limit=lambda problem: Bytes(problem.values.nbytes * (2 if problem.backward else 1)),
    packages={"torch-scatter": "torch-scatter", "PyG": "torch-geometric"},
    rounds={"quick": 3, "default": 7, "full": 15},
    seconds={"quick": 0.001, "default": 0.01, "full": 0.02},
    claims=[AtLeast("ours/torch-scatter", 1, over="geometric mean", text="native takes no longer than torch-scatter,")],
    table=group_table("operation", ["layout", "direction"]),
    draw=group_figure("operation"),
)
