"""Backends of segment reductions: torch itself or torch-scatter, by measured rule or by choice."""

import functools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType
from typing import Literal

import torch
from torch import Tensor

from graphseq.core.errors import OptionalDependencyError
from graphseq.ops.segment.native import native_argmax, native_extremum, native_sum

__all__ = ["segment_backend"]

Backend = Literal["native", "torch_scatter"]
_Operation = Literal["sum", "max", "min", "argmax"]

# What "auto" stands for on the CPU, by operation and by whether the rows are given by ptr. Beside it the time of
# torch-scatter 2.1.2 over ours (torch 2.13, one thread, float32, 1e3 to 1e6 rows of 1 to 128 columns, 20 rows a
# segment): forward; forward and backward. Where torch-scatter is ahead, with one column or 1e3 rows, it gains about a
# third, because its extrema reward one of several tied entries and pass over NaN. Results must not depend on what is
# installed, so that wins it no row.
_FASTEST: dict[tuple[_Operation, bool], Backend] = {
    ("sum", True): "native",  # 1.1 to 4.4; 1.0 to 1.9
    ("sum", False): "native",  # 1; 1: both call the same function of torch
    ("max", True): "native",  # 0.7 to 6.3; 0.5 to 1.7, below 1 for one column or 1e3 rows
    ("max", False): "native",  # 1.1 to 9; 0.6 to 3.3, below 1 for one column
    ("min", True): "native",  # as max
    ("min", False): "native",
    ("argmax", True): "native",  # 0.4 to 1.2, below 0.8 for one column or 1e3 rows
    ("argmax", False): "native",  # 0.4 to 2.9, below 1 for one column
}

_chosen: ContextVar[str] = ContextVar("graphseq_segment_backend", default="auto")


@functools.cache
def _torch_scatter() -> ModuleType | Exception:
    """Import torch_scatter on first use; a failure is remembered, since a second attempt would fail too."""
    try:
        import torch_scatter
    except Exception as error:  # a build for another torch fails with OSError, RuntimeError, ...
        return error
    return torch_scatter


def _missing(found: ModuleType | Exception) -> bool:
    return isinstance(found, ModuleNotFoundError) and found.name == "torch_scatter"


def _usable(found: ModuleType | Exception) -> bool:
    if isinstance(found, Exception) and not _missing(found):
        warnings.warn(
            f"torch-scatter is installed but cannot be imported, so torch's own operations are used ({found}); "
            "build it again for this torch: pip install --no-build-isolation --force-reinstall torch-scatter",
            UserWarning,
            stacklevel=4,
        )
    return isinstance(found, ModuleType)


def backend(operation: _Operation, by_ptr: bool, device: torch.device) -> Backend:
    """Return the backend of an operation: the override of :func:`segment_backend`, else by the measured rule.

    Args:
        operation: name of the reduction; a mean counts as a sum, a softmax as a max and a sum.
        by_ptr: whether the rows are sorted and given by ``ptr``.
        device: device of the rows; the rule was measured on CPUs; other devices use torch.

    Example:
        >>> backend("sum", True, torch.device("cpu"))
        'native'
    """
    if torch.compiler.is_compiling():
        return "native"  # torch-scatter cannot be traced, nor can a context variable
    chosen = _chosen.get()
    if chosen == "auto":
        rule = _FASTEST[operation, by_ptr] if device.type == "cpu" else "native"
        return "torch_scatter" if rule == "torch_scatter" and _usable(_torch_scatter()) else "native"
    return "torch_scatter" if chosen == "torch_scatter" else "native"


@contextmanager
def segment_backend(name: Literal["auto", "native", "torch_scatter"]) -> Iterator[str]:
    """Choose the backend of segment functions inside a ``with`` block; yields its name.

    ``auto``, the default everywhere, is what was measured to be fastest, not what is installed. With
    ``torch_scatter`` extrema differ: of entries that tie one gets the whole gradient, NaN is passed over, and
    infinite entries are not supported.

    Args:
        name: name of the backend. An installed but broken torch-scatter warns and leaves torch's own operations in
            place.

    Raises:
        ValueError: if there is no backend of that name.
        OptionalDependencyError: if torch-scatter is chosen and not installed.

    Example:
        >>> from graphseq.ops import segment_sum
        >>> with segment_backend("native") as name:
        ...     segment_sum(torch.ones(3), torch.tensor([0, 1, 1])), name
        (tensor([1., 2.]), 'native')
    """
    if name not in ("auto", "native", "torch_scatter"):
        raise ValueError(f"there is no segment backend {name!r}; choose auto, native or torch_scatter")
    if name == "torch_scatter":
        found = _torch_scatter()
        if _missing(found):
            purpose = "segment_backend('torch_scatter')"
            raise OptionalDependencyError("torch-scatter --no-build-isolation", purpose)
        if not _usable(found):
            name = "native"
    token = _chosen.set(name)
    try:
        yield name
    finally:
        _chosen.reset(token)


def reduce_segments(
    operation: _Operation, values: Tensor, index: Tensor | None, ptr: Tensor | None, num_segments: int
) -> Tensor:
    """Reduce checked arguments by the backend in force; used by the public functions."""
    library = _torch_scatter() if backend(operation, ptr is not None, values.device) == "torch_scatter" else None
    if operation == "sum":
        # sums by index are torch's in both; of sums by ptr torch-scatter's second derivative is silently zero, and
        # half precision is added up as such, so only its kernel is taken
        if isinstance(library, ModuleType) and ptr is not None and values.numel() > 0 and values.element_size() > 2:
            return native_sum(values, index, ptr, num_segments, library.segment_sum_csr)
        return native_sum(values, index, ptr, num_segments)
    if isinstance(library, ModuleType) and values.numel() > 0:
        name, part = ("max", 1) if operation == "argmax" else (operation, 0)
        if ptr is not None:
            return getattr(library, f"segment_{name}_csr")(values, ptr)[part]
        return getattr(library, f"scatter_{name}")(values, index, 0, dim_size=num_segments)[part]
    if operation == "argmax":
        return native_argmax(values, index, ptr, num_segments)
    return native_extremum(values, index, ptr, num_segments, operation == "max")
