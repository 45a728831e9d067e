"""Segment reductions: torch's own operations beside torch-scatter and PyG, forward and with gradients.

Rows are float32, 20 to a segment on average and without ties in any column, sorted and given by ``ptr`` or in any order
and given by ``index``. Ours is the native backend, torch-scatter the same functions by that library, PyG what
``torch_geometric.utils`` offers (``segment``, ``scatter``, ``softmax``). Outputs and gradients are compared before
anything is timed.

Rule: the native backend, which is used everywhere, is worth it if the geometric mean of all ratios to torch-scatter is
at least 1. Cases where torch-scatter is faster stay in the table.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch_geometric import utils

from graphseq.bench import AtLeast, Bytes, Call, Row, Scale, Setting, Speed, combinations, same_outputs
from graphseq.ops import (
    segment_argmax,
    segment_backend,
    segment_max,
    segment_mean,
    segment_min,
    segment_softmax,
    segment_sum,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["cases", "speed"]

_OURS: dict[str, Callable[..., Tensor]] = {
    "sum": segment_sum,
    "mean": segment_mean,
    "max": segment_max,
    "min": segment_min,
    "softmax": segment_softmax,
    "argmax": segment_argmax,
}
_ROWS_PER_SEGMENT = 20
_EDGES = {"quick": [1_000, 10_000], "default": [1_000, 10_000, 100_000], "full": [1_000, 10_000, 100_000, 1_000_000]}


@dataclass
class _Problem:
    operation: str
    values: Tensor  # (E, D)
    segments: dict[str, Any]
    backward: bool


def cases(scale: Scale) -> list[Row]:
    """Return every size, operation, layout and direction; ``argmax`` has no gradient."""
    every = combinations(
        edges=_EDGES[scale],
        width=[1, 16, 64],
        operation=list(_OURS),
        layout=["ptr", "index"],
        direction=["forward", "forward+backward"],
    )
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


def _call(problem: _Problem, function: Callable[[Tensor], Tensor]) -> Call:
    """Return a call that gives the output and, if asked, the gradient."""
    leaf = problem.values.clone().requires_grad_(problem.backward)
    with torch.no_grad():
        output = function(leaf)
        weights = torch.linspace(-1, 1, output.numel(), device=output.device).view(output.shape)

    def call() -> list[Tensor]:
        output = function(leaf)
        if not problem.backward:
            return [output]
        return [output.detach(), *torch.autograd.grad(output, leaf, weights)]

    return call


def _ours(problem: _Problem) -> Call:
    return _call(problem, lambda values: _OURS[problem.operation](values, **problem.segments))


def _by_torch_scatter(problem: _Problem) -> Call:
    def function(values: Tensor) -> Tensor:
        with segment_backend("torch_scatter"):
            return _OURS[problem.operation](values, **problem.segments)

    return _call(problem, function)


def _by_pyg(problem: _Problem) -> Call | None:
    ptr, index, size = (problem.segments.get(key) for key in ("ptr", "index", "num_segments"))
    if problem.operation == "argmax":
        return None  # PyG's has a sentinel of its own for empty segments
    if problem.operation == "softmax":
        return _call(problem, lambda values: utils.softmax(values, index, ptr, size))
    if ptr is not None:
        return _call(problem, lambda values: utils.segment(values, ptr, problem.operation))
    return _call(problem, lambda values: utils.scatter(values, index, 0, size, problem.operation))


def _ratios(rows: Sequence[Row], operation: str, column: tuple[str, str, str]) -> list[float]:
    peer, layout, direction = column
    return [
        row["ratio"][f"ours/{peer}"]["median"]
        for row in rows
        if (row["operation"], row["layout"], row["direction"]) == (operation, layout, direction)
        and f"ours/{peer}" in row["ratio"]
    ]


def _table(rows: Sequence[Row]) -> list[Row]:
    """One line an operation: geometric mean and range over sizes, for each peer, layout and direction."""
    columns = [
        (peer, layout, direction)
        for peer in ("torch-scatter", "PyG")
        for layout in ("ptr", "index")
        for direction in ("forward", "forward+backward")
    ]
    return [
        {"operation": operation}
        | {
            " ".join(column): f"{statistics.geometric_mean(found):.2f} ({min(found):.2f}-{max(found):.2f})"
            for column in columns
            if (found := _ratios(rows, operation, column))
        }
        for operation in _OURS
    ]


def _draw(record: Row, axes: "Axes") -> None:
    """Draw all ratios of each operation."""
    rows = [row for row in record["rows"] if "skipped" not in row]
    for place, peer in enumerate(("torch-scatter", "PyG")):
        for at, operation in enumerate(_OURS):
            found = [
                row["ratio"][f"ours/{peer}"]["median"]
                for row in rows
                if row["operation"] == operation and f"ours/{peer}" in row["ratio"]
            ]
            where = [at + 0.3 * place - 0.15] * len(found)
            label = peer if found and at == 0 else None
            axes.scatter(where, found, s=12, alpha=0.5, color=("tab:blue", "tab:orange")[place], label=label)
    axes.axhline(1.0, color="black", linewidth=0.8)
    axes.set(yscale="log", ylabel="times as fast as the peer (log)")
    axes.set_xticks(range(len(_OURS)), list(_OURS))
    axes.legend(frameon=False)


speed = Speed(
    name="speed.segment",
    protocol=__doc__,
    cases=cases,
    prepare=_prepare,
    contenders={
        "ours": _ours,
        "torch-scatter": _by_torch_scatter,
        "PyG": _by_pyg,
    },
    equal=same_outputs(rtol=1e-4, atol=1e-5),
    limit=lambda problem: Bytes(problem.values.nbytes * (2 if problem.backward else 1)),
    packages={"torch-scatter": "torch-scatter", "PyG": "torch-geometric"},
    rounds={"quick": 3, "default": 7, "full": 15},
    seconds={"quick": 0.001, "default": 0.01, "full": 0.02},
    claims=[
        AtLeast(
            "ours/torch-scatter",
            1,
            over="geometric mean",
            text="native takes no longer than torch-scatter,",
        )
    ],
    table=_table,
    draw=_draw,
)
