"""Unwrapping networks: ``torch.compile``, averaged copies and parallel wrappers."""

import functools
import inspect
from collections.abc import Callable, Mapping

from torch import nn

__all__ = ["unwrapped"]

_INNER = ("_orig_mod", "module", "model", "network", "net")
"""Names under which wrappers hold what they wrap: torch.compile, AveragedModel and the parallel ones, users'."""


def unwrapped(network: nn.Module) -> nn.Module:
    """Return the innermost network of wrappers that pass all arguments on.

    A wrapper is a module whose ``forward`` names no argument, such as those of ``torch.compile``,
    ``torch.optim.swa_utils.AveragedModel`` and ``torch.nn.parallel.DistributedDataParallel``, and that holds one
    module, or one under a name that wrappers use.

    Args:
        network: any module; it is returned unchanged if it is not a wrapper.

    Example:
        >>> import torch
        >>> network = nn.Linear(3, 2)
        >>> unwrapped(torch.optim.swa_utils.AveragedModel(network))
        Linear(in_features=3, out_features=2, bias=True)
    """
    while not named_arguments(network):
        inner = _inner(network)
        if inner is None:
            return network
        network = inner
    return network


def named_arguments(network: nn.Module) -> Mapping[str, bool]:
    """Return the named arguments of a module's own ``forward``, and whether each is required.

    Args:
        network: any module.

    Example:
        >>> dict(named_arguments(nn.Linear(3, 2)))
        {'input': True}
    """
    function = getattr(network.forward, "__func__", None)
    if function is None:  # no method: torch.compile puts a function on the object
        return _names(network.forward, skip=0)
    return _names_of_method(function)


@functools.lru_cache(maxsize=1024)
def _names_of_method(function: Callable[..., object]) -> Mapping[str, bool]:
    return _names(function, skip=1)


def _names(function: Callable[..., object], skip: int) -> Mapping[str, bool]:
    parameters = list(inspect.signature(function).parameters.values())[skip:]
    unnamed = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {p.name: p.default is p.empty for p in parameters if p.kind not in unnamed}


def _inner(network: nn.Module) -> nn.Module | None:
    children = dict(network.named_children())
    if len(children) == 1:
        return next(iter(children.values()))
    return next((children[name] for name in _INNER if name in children), None)
