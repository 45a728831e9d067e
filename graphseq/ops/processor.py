"""What may be done otherwise on a processor than on an accelerator: values asked for, loops compiled by numba.

A compiled loop goes once over what the operations of torch go over several times. Each stands beside operations of
torch with the same result, which accelerators take, and is held to the same definition by the same tests. It runs on
one thread; its first call with a type of number compiles it (seconds), and the result is kept on disk.
"""

import functools
import importlib
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

__all__: list[str] = []

# Sums may be taken in any order and products fused with sums; nothing is assumed of infinity and NaN, which are passed
# on as torch does. What is kept on disk does not notice a change here: delete it then.
_FREEDOM = {"reassoc", "contract", "nsz", "arcp"}


def can_ask(device: torch.device) -> bool:
    """Return whether values can be asked for without a wait, so that rows with nothing to do may be left out."""
    return device.type == "cpu"


def compile_loop(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function when it is first called, and keep the result on disk where there is a place for it.

    Args:
        function: of arrays and numbers, in what numba knows of Python.

    Raises:
        ImportError: if numba cannot be imported.
    """
    from numba import njit

    options: dict[str, Any] = {"fastmath": _FREEDOM, "nogil": True, "error_model": "numpy"}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # neither beside the file of the function nor in the user's cache
        return njit(**options)(function)


def inline_loop(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function part of the compiled loops that call it.

    Args:
        function: as for :func:`compile_loop`.
    """
    from numba import njit

    return njit(fastmath=_FREEDOM, inline="always")(function)


def compiled_loops(module: str, *tensors: Tensor) -> ModuleType | None:
    """Return a module of compiled loops where they serve: for tensors on a processor, of one type that they know.

    Without numba, as on a release of Python that is too new for it, torch's operations do the same in more time.

    Args:
        module: full name.
        tensors: those whose device and type decide, at least one; float32, float64 or int64.
    """
    kind = tensors[0].dtype
    if kind not in (torch.float32, torch.float64, torch.int64) or torch.compiler.is_compiling():
        return None
    for tensor in tensors:
        # what only stands for a tensor, as when torch looks ahead, has no memory to work on
        if tensor.device.type != "cpu" or tensor.dtype != kind or type(tensor) not in (Tensor, Parameter):
            return None
    return _load(module)


@functools.cache
def _load(module: str) -> ModuleType | None:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        warnings.warn(
            f"numba cannot be imported ({error}): networks over event streams take half as much time again on this "
            "processor. Install numba, or a release of it that knows this Python and this NumPy",
            stacklevel=3,
        )
        return None


def arrays(*tensors: Tensor) -> list[Any]:
    """Return the memory of tensors as compiled loops take it; copies of those that are not contiguous.

    What a loop writes to must be contiguous, then: made by ``torch.empty(shape)``, not by ``empty_like``.

    Args:
        tensors: on a processor.
    """
    return [tensor.detach().contiguous().numpy() for tensor in tensors]
