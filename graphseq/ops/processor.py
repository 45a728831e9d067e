"""CPU-only techniques: reading values without synchronisation, and loops compiled by numba.

A compiled loop passes once over data that several operations of torch pass over one after the other. Each loop stands
beside torch operations with the same result (``plain.py`` or ``fused.py`` of the same folder), which accelerators use;
both are held to the same definition by the same tests. A loop runs on one thread. Its first call with a type of number
compiles it (seconds), and the result is kept on disk.
"""

import functools
import warnings
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor
from torch.nn import Parameter

__all__: list[str] = []

# Sums may be taken in any order and products fused with sums; nothing is assumed of infinity and NaN, which are passed
# on as torch does. The cache on disk does not notice a change of this set: delete the cache then.
_FREEDOM = {"reassoc", "contract", "nsz", "arcp"}

_INLINED: set[Callable[..., Any]] = set()


def reads_are_free(device: torch.device) -> bool:
    """Return true where reading a tensor needs no device synchronisation, so that a step may depend on values.

    Args:
        device: device of the tensor.
    """
    return device.type == "cpu"


def use_compiled(*tensors: Tensor) -> bool:
    """Return whether to use compiled loops: numba is installed and all tensors are on a CPU, of one supported type.

    Without numba, as on a release of Python that is too new for it, torch's operations do the same in more time.

    Args:
        tensors: tensors whose device and type are checked, at least one; supported types are float32, float64 and
            int64.
    """
    kind = tensors[0].dtype
    if kind not in (torch.float32, torch.float64, torch.int64) or torch.compiler.is_compiling():
        return False
    for tensor in tensors:
        # a stand-in for a tensor, as when torch traces a graph, has no memory to work on
        if tensor.device.type != "cpu" or tensor.dtype != kind or type(tensor) not in (Tensor, Parameter):
            return False
    return _numba_imports()


@functools.cache
def _numba_imports() -> bool:
    try:
        import numba  # noqa: F401
    except ImportError as error:
        warnings.warn(
            f"numba cannot be imported ({error}): networks over event streams and recurrent layers take longer on this "
            "processor. Install numba, or a release of it that knows this Python and this NumPy",
            stacklevel=4,
        )
        return False
    return True


def compile_loop(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function as a loop that numba compiles at its first call; nothing imports numba before.

    Args:
        function: function of arrays and numbers, in the subset of Python that numba supports.
    """

    @functools.wraps(function)
    def loop(*arguments: Any) -> Any:
        return _compiled(function)(*arguments)

    return loop


def inline_loop(function: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a function as part of the compiled loops that call it by its global name.

    Args:
        function: a function as for :func:`compile_loop`.
    """
    _INLINED.add(function)
    return function


@functools.cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a loop, and cache the result on disk if there is a cache folder."""
    from numba import njit

    options: dict[str, Any] = {"fastmath": _FREEDOM, "nogil": True, "error_model": "numpy"}
    whole = _with_inlined(function)
    try:
        loop = njit(cache=True, **options)(whole)
    except RuntimeError:  # neither beside the file of the function nor in the user's cache
        return njit(**options)(whole)
    # numba numbers the files of a loop's types: two processes that compile at once would write one file for both
    folder, name = Path(loop._cache.cache_path), loop._cache._impl.filename_base
    folder.mkdir(parents=True, exist_ok=True)
    lock, compile_types = FileLock(folder / f"{name}.lock"), loop.compile

    def compile_alone(types: Any) -> Any:
        with lock:
            return compile_types(types)

    loop.compile = compile_alone
    return loop


def _with_inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function with the inlined functions that it names, and those that they name, as numba takes them."""
    from numba import njit

    assert isinstance(function, FunctionType)  # loops are written with def
    inlined = {
        name: njit(fastmath=_FREEDOM, inline="always")(_with_inlined(value))
        for name in function.__code__.co_names
        if isinstance(value := function.__globals__.get(name), FunctionType) and value in _INLINED
    }
    whole = FunctionType(function.__code__, function.__globals__ | inlined, function.__name__)
    whole.__qualname__ = function.__qualname__
    return whole


def arrays(*tensors: Tensor) -> list[Any]:
    """Return the memory of tensors as compiled loops take it; copies of those that are not contiguous.

    A tensor that a loop writes to must be contiguous, then: made by ``torch.empty(shape)``, not by ``empty_like``.

    Args:
        tensors: tensors on the CPU.
    """
    return [tensor.detach().contiguous().numpy() for tensor in tensors]
