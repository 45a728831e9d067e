"""Outputs of layers as rows, with the inputs, targets and conditions that belong to them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphseq.callbacks.probes import _evaluating
from graphseq.core import DataError, batch_field, batch_target, capture_generators, restore_generators
from graphseq.tasks.base import Task

__all__: list[str] = []

OF_INPUTS = ("input_alignment", "input_beyond_target")
"""Measures that need the inputs."""

OF_TARGETS = ("target_alignment", "input_beyond_target", "parallelism", "generalization")
"""Measures that need the targets."""


def present(value: Tensor | None) -> Tensor:
    if value is None:
        raise DataError("the inputs or targets that a measure needs were not collected")
    return value


@dataclass
class LayerRows:
    """Rows of one layer with what belongs to them: z (n, N), inputs x (n, D), targets y (n, K), conditions (n,)."""

    z: Tensor
    x: Tensor | None
    y: Tensor | None
    condition: Tensor | None

    @classmethod
    def of(cls, name: str, output: Tensor, batch: Any, measures: Sequence[str]) -> "LayerRows":
        """Return the rows of one batch."""
        lengths = batch_field(batch, "lengths")
        if output.dim() > 2 and isinstance(lengths, Tensor) and bool((lengths != lengths[0]).any()):
            raise DataError(
                f"the layer {name} gives {tuple(output.shape)} for sequences of {int(lengths.min())} to "
                f"{int(lengths.max())} steps, whose padding would count; probe a layer with one vector a sample"
            )
        z = output.flatten(1).double()
        graph = batch_field(batch, "batch")
        x = y = None
        if any(measure in OF_INPUTS for measure in measures):
            x = batch[0] if isinstance(batch, tuple | list) else batch_field(batch, "x")
            if not isinstance(x, Tensor) or not x.is_floating_point():
                given = x.dtype if isinstance(x, Tensor) else type(x).__name__
                raise DataError(f"inputs `x` of a batch are {given}; an alignment with inputs needs real numbers")
            x = _matched(name, "inputs", x, len(z), graph).flatten(1).double()
        if any(measure in OF_TARGETS for measure in measures):
            y = batch_target(batch)
            graphs = getattr(batch, "num_graphs", len(z))
            if y.dim() == 1 and y.is_floating_point() and len(y) not in (len(z), graphs) and len(y) % graphs == 0:
                y = y.view(graphs, -1)  # as PyG joins the labels of graphs
            y = _matched(name, "targets", y, len(z), graph)
        condition = batch_field(batch, "condition")
        if isinstance(condition, Tensor):
            condition = _matched(name, "conditions", condition, len(z), graph).flatten()
        return cls(z, x, y, condition if isinstance(condition, Tensor) else None)

    @classmethod
    def joined(cls, name: str, parts: "list[LayerRows]") -> "LayerRows":
        """Return the rows of all batches; classes as one-hot rows."""
        widths = sorted({part.z.shape[1] for part in parts})
        if len(widths) > 1:
            raise DataError(
                f"the layer {name} gives rows of widths {widths}, as sequences of different lengths do; probe a layer "
                "with one vector for each sample"
            )

        def column(values: list[Tensor | None]) -> Tensor | None:
            there = [value for value in values if value is not None]
            return torch.cat(there) if len(there) == len(values) else None

        z, x, y, condition = (
            column([getattr(part, field) for part in parts]) for field in ("z", "x", "y", "condition")
        )
        if y is not None:
            if not y.is_floating_point() and y.dim() == 1 and y.dtype != torch.bool:
                names, place = y.unique(return_inverse=True)
                y = functional.one_hot(place, len(names))
            y = y.reshape(len(y), -1).double()
            if not bool(y.isfinite().all()):
                raise DataError("targets hold NaN or infinite numbers; probe samples whose targets are all known")
        return cls(present(z), x, y, condition)

    def averaged(self) -> "LayerRows":
        """Return the means over the samples of each condition; the rows themselves without conditions."""
        if self.condition is None:
            return self
        names, place, counts = self.condition.unique(return_inverse=True, return_counts=True)

        def mean(values: Tensor | None) -> Tensor | None:
            if values is None:
                return None
            return values.new_zeros(len(names), values.shape[1]).index_add_(0, place, values) / counts[:, None]

        return LayerRows(present(mean(self.z)), mean(self.x), mean(self.y), names)


def _matched(name: str, what: str, values: Tensor, rows: int, graph: object) -> Tensor:
    """Return values with one row for each row of a layer, from those of nodes or graphs."""
    if len(values) == rows:
        return values
    if isinstance(graph, Tensor) and len(graph) == rows and len(values) == int(graph.max()) + 1:
        return values[graph]
    of_nodes = isinstance(graph, Tensor) and len(graph) == len(values) and rows == int(graph.max()) + 1
    if isinstance(graph, Tensor) and of_nodes and values.is_floating_point():
        total = values.new_zeros(rows, *values.shape[1:]).index_add_(0, graph, values)
        return total / torch.bincount(graph, minlength=rows).view(-1, *[1] * (values.dim() - 1))
    raise DataError(
        f"the layer {name} gives {rows} rows, the batch has {len(values)} rows of {what}; probe a layer with one row a "
        "sample, node or graph"
    )


def layer_outputs(task: Task[Any], batch: Any, names: Sequence[str], required: Sequence[str]) -> dict[str, Tensor]:
    """Return the output of each layer that a forward pass runs; of several calls the last."""
    seen: dict[str, Tensor] = {}

    def remember(name: str) -> Any:
        def hook(layer: nn.Module, inputs: Any, output: Any) -> None:
            seen[name] = _first_tensor(name, output).clone()  # layers after it may write into the output

        return hook

    handles = [task.get_submodule(name).register_forward_hook(remember(name)) for name in names]
    try:
        # a compiled network does not call hooks that were registered after compilation
        with torch.compiler.set_stance("force_eager"):
            task(batch)
    finally:
        for handle in handles:
            handle.remove()
    missed = [name for name in required if name not in seen] or ([] if seen else list(names))
    if missed:
        raise DataError(f"the forward pass does not reach the layer {missed[0]}; name a layer that it runs")
    return seen


def _first_tensor(name: str, output: Any) -> Tensor:
    """Return the output of a layer, the first of several, such as the steps of an LSTM."""
    while isinstance(output, tuple | list) and output:
        output = output[0]
    if not isinstance(output, Tensor) or output.dim() < 1:
        given = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise DataError(f"the layer {name} gives {given}; a representation is a tensor with one row a sample")
    return output.unsqueeze(1) if output.dim() == 1 else output


@contextmanager
def untouched(task: nn.Module) -> Iterator[None]:
    """Context after which modes, buffers and random generators are as before."""
    states = capture_generators()
    buffers = [(buffer, buffer.clone()) for buffer in task.buffers()]
    try:
        with _evaluating(task):
            yield
    finally:
        restore_generators(states)
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
