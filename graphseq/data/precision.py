"""Casting of batches to the precision of the trainer: features and targets, but not indices, ids or times."""

import copy
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

__all__: list[str] = []

TRUE_PRECISIONS = {"64-true": torch.float64, "bf16-true": torch.bfloat16, "16-true": torch.float16}
"""Precisions of the trainer in which parameters, and so inputs, have another type than float32."""

TIMES = ("t", "time", "timestamp", "edge_time", "node_time", "edge_t")
"""Fields of graphs and dictionaries that are never cast: half precision has three digits for a time."""


def cast_floats(batch: Any, dtype: torch.dtype) -> Any:
    """Return a batch with its floating-point tensors in another type; the given batch is not changed.

    Integers, booleans and complex numbers keep their type, so that indices, ids and labels are never cast, and so do
    times: fields named ``t``, ``time``, ``timestamp``, ``edge_time``, ``node_time`` or ``edge_t``. Batches of events
    and other objects are returned unchanged.

    Args:
        batch: tensor, tuple, list, dictionary or PyG ``Data``, or any nesting of them.
        dtype: floating-point type of the result.

    Example:
        >>> x, t = cast_floats({"x": torch.ones(1), "t": torch.ones(1)}, torch.float64).values()
        >>> x.dtype, t.dtype
        (torch.float64, torch.float32)
    """
    if isinstance(batch, Tensor):
        return batch.to(dtype) if batch.is_floating_point() else batch
    if isinstance(batch, Mapping):
        return {key: value if key in TIMES else cast_floats(value, dtype) for key, value in batch.items()}
    if isinstance(batch, tuple | list):
        parts = [cast_floats(value, dtype) for value in batch]
        if isinstance(batch, list):
            return parts
        return type(batch)(*parts) if hasattr(batch, "_fields") else tuple(parts)
    if not hasattr(batch, "stores"):
        return batch
    graph = copy.copy(batch)  # a PyG graph or batch; its tensors may be those of the store
    for store in cast(Any, graph).stores:
        for key, value in list(store.items()):
            if key not in TIMES:
                store[key] = cast_floats(value, dtype)
    return graph
