"""Segment reductions by torch's own operations and by torch-scatter, timed side by side."""

import statistics
from collections.abc import Callable, Iterable, Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor

from graphseq.bench.experiment import Check, Conclusion, Experiment, Row, Scale, SkipCell
from graphseq.bench.timing import alternate, ratios
from graphseq.core import OptionalDependencyError
from graphseq.ops import (
    segment_argmax,
    segment_backend,
    segment_max,
    segment_mean,
    segment_min,
    segment_softmax,
    segment_sum,
)

__all__ = ["SegmentSpeed", "measure"]

_OPERATIONS: dict[str, Callable[..., Tensor]] = {
    "sum": segment_sum,
    "mean": segment_mean,
    "max": segment_max,
    "min": segment_min,
    "softmax": segment_softmax,
    "argmax": segment_argmax,
}
_DIRECTIONS = ("forward", "forward+backward")
_ROWS_PER_SEGMENT = 20
_ENTRIES_PER_ROUND = 200_000  # small problems are repeated within a round until they have handled as many


def _problem(edges: int, width: int, is_sorted: bool, generator: torch.Generator) -> tuple[Tensor, dict[str, Any]]:
    """Make rows without ties in any column, so that both backends have one gradient, and their segments."""
    num_segments = max(1, edges // _ROWS_PER_SEGMENT)
    permutation = torch.randperm(edges, generator=generator) / edges - 0.5
    shifted = torch.arange(edges).view(-1, 1) + 17 * torch.arange(width)
    values = permutation[shifted % edges]
    index = torch.randint(num_segments, (edges,), generator=generator)
    if not is_sorted:
        return values, {"index": index, "num_segments": num_segments}
    count = torch.bincount(index, minlength=num_segments)
    return values, {"ptr": torch.cat([count.new_zeros(1), count.cumsum(0)])}


def _contender(
    operation: str, values: Tensor, segments: dict[str, Any], backward: bool, backend: str
) -> Callable[[], list[Tensor]]:
    """Return a call that gives the output and, if asked, the gradient."""
    function = _OPERATIONS[operation]
    leaf = values.clone().requires_grad_(backward)
    with segment_backend(backend), torch.no_grad():  # type: ignore[arg-type]
        weights = torch.linspace(-1, 1, function(values, **segments).numel())

    def call() -> list[Tensor]:
        with segment_backend(backend):  # type: ignore[arg-type]
            output = function(leaf, **segments)
            if not backward:
                return [output]
            return [output.detach(), *torch.autograd.grad(output, leaf, weights.view(output.shape))]

    return call


def _repeated(call: Callable[[], list[Tensor]], repeats: int) -> Callable[[], None]:
    def run() -> None:
        for _ in range(repeats):
            call()

    return run


def _torch_scatter_usable() -> bool:
    try:
        with segment_backend("torch_scatter") as name:
            return name == "torch_scatter"
    except OptionalDependencyError:
        return False


def measure(
    sizes: Iterable[tuple[int, int]],
    *,
    operations: Sequence[str] = tuple(_OPERATIONS),
    directions: Sequence[str] = _DIRECTIONS,
    layouts: Sequence[bool] = (True, False),
    rounds: int = 9,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Time both backends of the segment functions alternately in this process, on the CPU and its present threads.

    Outputs and gradients are compared before anything is timed. The rows are float32, 20 to a segment on average.

    Args:
        sizes: pairs of rows (edges) and columns (width), each at least 1.
        operations: of sum, mean, max, min, softmax, argmax (forward only).
        directions: of ``forward`` and ``forward+backward``.
        layouts: True for rows sorted by segment and given by ``ptr``, False for any order given by ``index``.
        rounds: measurements of each backend.
        seed: of the data.

    Returns:
        One dictionary a case: ``op``, ``sorted``, ``edges``, ``width``, ``direction``, ``native_ms`` and
        ``torch_scatter_ms`` (medians), and ``ratio``, the median over rounds of torch-scatter's time to the
        native one: above 1 native is faster. The last two are None where torch-scatter cannot be used.

    Raises:
        ValueError: if an operation or a direction is unknown.
        RuntimeError: if the backends disagree.

    Example:
        >>> [row["op"] for row in measure([(100, 4)], operations=["sum"], directions=["forward"], rounds=1)]
        ['sum', 'sum']
    """
    for given, known in ((operations, tuple(_OPERATIONS)), (directions, _DIRECTIONS)):
        if unknown := [name for name in given if name not in known]:
            raise ValueError(f"{', '.join(unknown)} cannot be measured; choose from {', '.join(known)}")
    peers = ["native", "torch_scatter"] if _torch_scatter_usable() else ["native"]
    rows = []
    for (edges, width), is_sorted in product(sizes, layouts):
        values, segments = _problem(edges, width, is_sorted, torch.Generator().manual_seed(seed))
        for operation, direction in product(operations, directions):
            backward = direction == "forward+backward"
            if operation == "argmax" and backward:
                continue
            calls = {peer: _contender(operation, values, segments, backward, peer) for peer in peers}
            case = {"op": operation, "sorted": is_sorted, "edges": edges, "width": width, "direction": direction}
            for ours, theirs in zip(calls["native"](), calls[peers[-1]](), strict=True):
                if not torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5):
                    raise RuntimeError(f"native and torch_scatter disagree by {(ours - theirs).abs().max()}: {case}")
            repeats = max(1, min(50, _ENTRIES_PER_ROUND // (edges * width)))
            times = alternate({peer: _repeated(call, repeats) for peer, call in calls.items()}, rounds)
            median = {peer: 1e3 * statistics.median(seconds) / repeats for peer, seconds in times.items()}
            ratio = ratios(times, "native", "torch_scatter").median if "torch_scatter" in times else None
            rows.append(
                case | {"native_ms": median["native"], "torch_scatter_ms": median.get("torch_scatter"), "ratio": ratio}
            )
    return rows


class SegmentSpeed(Experiment):
    """Segment reductions: torch's own operations beside torch-scatter, forward and with gradients.

    Rows are float32, 20 to a segment on average, sorted and given by ``ptr`` or in any order and given by ``index``.
    Outputs and gradients of both are compared before anything is timed; both alternate in one process with one
    thread. The ratio is the median over rounds of torch-scatter's time to the native one: above 1 native is faster.

    Rule: the native backend, which is used everywhere, is worth it if the geometric mean of all ratios is at least 1.
    Cells where torch-scatter is faster stay in the table.

    Example:
        >>> SegmentSpeed().cells("quick", 1)[0]
        {'edges': 1000, 'width': 1, 'operation': 'sum'}
    """

    name, kind = "speed.segment", "speed"

    def cells(self, scale: Scale, seeds: int) -> list[Row]:
        """Return every size with every operation.

        Args:
            scale: ``quick`` leaves the large sizes out.
            seeds: does not change the list; the rounds are the repetitions.
        """
        edges = {
            "quick": (1_000, 10_000),
            "default": (1_000, 10_000, 100_000),
            "full": (1_000, 10_000, 100_000, 1_000_000),
        }
        cases = product(edges[scale], (1, 16, 64), _OPERATIONS)
        return [{"edges": edge, "width": width, "operation": operation} for edge, width, operation in cases]

    def run(self, cell: Row, scale: Scale) -> Row:
        """Measure one operation at one size, in both layouts and directions.

        Args:
            cell: size and operation.
            scale: sets the number of rounds.

        Raises:
            SkipCell: if torch-scatter is not installed.
        """
        if not _torch_scatter_usable():
            raise SkipCell("torch-scatter is not installed: make scatter")
        rounds = {"quick": 3, "default": 7, "full": 15}[scale]
        measured = measure([(cell["edges"], cell["width"])], operations=[cell["operation"]], rounds=rounds)
        return {
            f"{'ptr' if row['sorted'] else 'index'} {row['direction']}": row["ratio"]
            for row in measured
            if row["ratio"] is not None
        }

    def conclude(self, rows: list[Row]) -> Conclusion:
        """Hold the geometric mean of all ratios against 1.

        Args:
            rows: the cells that ran.
        """
        keys = [f"{layout} {direction}" for layout in ("ptr", "index") for direction in _DIRECTIONS]
        every = [row[key] for row in rows for key in keys if key in row]
        mean = statistics.geometric_mean(every)
        claim = f"native takes no longer than torch-scatter, in the geometric mean of {len(every)} measurements"
        table = []
        for operation in _OPERATIONS:
            line: Row = {"operation": operation}
            for key in keys:
                values = [row[key] for row in rows if row["operation"] == operation and key in row]
                if values:
                    line[key] = f"{statistics.geometric_mean(values):.2f} ({min(values):.2f}-{max(values):.2f})"
            table.append(line)
        return Conclusion(None, [Check(claim, mean, 1.0, mean >= 1.0)], table)


speed = SegmentSpeed()
