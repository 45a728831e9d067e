"""Replacing layers of a network, trained or not, so that a checkpoint can still rebuild it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from graphseq.core.spec import MISSING, public_path, to_spec

__all__ = ["Replaced", "replace"]


class Replaced(nn.Module):
    """Record of a network with replaced layers, as :func:`replace` writes it into a checkpoint or config.

    Calling it returns ``module`` itself with the layers exchanged, not an object of this class.

    Args:
        module: the network as its own class builds it.
        replacements: dotted name of a layer in ``module`` -> the layer that takes its place, or the dotted name of
            another entry whose layer is shared.

    Raises:
        ValueError: if ``module`` has no layer of such a name.

    Example:
        >>> Replaced(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), {"1": nn.SELU()})
        Sequential(
          (0): Linear(in_features=2, out_features=2, bias=True)
          (1): SELU()
        )
    """

    def __new__(cls, module: nn.Module, replacements: dict[str, nn.Module | str]) -> nn.Module:  # type: ignore[misc]
        """Exchange the layers and return the network."""
        for name, value in replacements.items():
            layer = replacements.get(value) if isinstance(value, str) else value
            if not isinstance(layer, nn.Module):
                raise ValueError(f"replacements[{name!r}] is {value!r}; give a module or the name of another entry")
            try:
                module.set_submodule(name, layer, strict=True)
            except AttributeError as error:
                raise ValueError(
                    f"{type(module).__name__} has no layer {name!r} to replace; its layers are "
                    f"{', '.join(found for found, _ in module.named_modules() if found) or 'none'}"
                ) from error
        _note(module, {name: to_spec(value) for name, value in replacements.items()})
        return module

    def __init__(self, module: nn.Module, replacements: dict[str, nn.Module | str]) -> None:
        super().__init__()  # only for the signature: what __new__ returns is of another class


def _note(module: nn.Module, replacements: dict[str, Any]) -> None:
    """Write the replacements into the network's record; a task that holds the network shares the same dictionary."""
    record = vars(module).get("_record")
    if record is None:
        return
    before = dict(record)
    record.clear()
    record.update(class_path=public_path(Replaced), init_args={"module": before, "replacements": replacements})


def replace(
    module: nn.Module, predicate: Callable[[str, nn.Module], bool], make: Callable[[nn.Module], nn.Module]
) -> list[str]:
    """Replace layers of a network in place and record it, so that a checkpoint of the network rebuilds it.

    The search goes from the outermost layer inwards and does not enter a layer that it replaces. A layer that is shared
    by several places is replaced by one shared layer. New layers go to the device of the old ones and take
    their training mode. Weights that the new layer should keep are copied by ``make``.

    Replace layers before ``Trainer.fit``: an optimiser that exists already keeps the old parameters.

    Args:
        module: the network, as it is handed to a task (``task.model``). Layers of a part that another network built
            are named from that network, so that the record of the whole is the one that changes.
        predicate: called with the dotted name of a layer and the layer; true where it is to be replaced.
        make: called with the old layer; returns the new one. It must be of a recorded class (layers of graphseq) or
            built by :func:`graphseq.core.make`, so that it can be written as plain data.

    Returns:
        Dotted names of the replaced layers.

    Raises:
        TypeError: if ``module`` is a task, or ``make`` returns no module or one that cannot be written.
        ValueError: if no layer matches, or ``predicate`` names the network itself.

    Example:
        >>> from graphseq.core import make
        >>> network = make(nn.Sequential, make(nn.Linear, 2, 2), make(nn.ReLU))
        >>> replace(network, lambda name, layer: isinstance(layer, nn.ReLU), lambda layer: make(nn.SELU))
        ['1']
        >>> network[1]
        SELU()
    """
    if hasattr(module, "save_hyperparameters"):
        raise TypeError(f"module is the task {type(module).__name__}; give its network, task.model")
    chosen: dict[str, nn.Module] = {}
    for name, layer in module.named_modules(remove_duplicate=False):
        if any(name.startswith(f"{outer}.") for outer in chosen) or not predicate(name, layer):
            continue
        if not name:
            raise ValueError(f"predicate chose the network itself, a {type(module).__name__}; build another one")
        chosen[name] = layer
    if not chosen:
        kinds = sorted({type(layer).__name__ for layer in module.modules()})
        raise ValueError(f"predicate chose no layer of {type(module).__name__}; it holds layers of {', '.join(kinds)}")
    made: dict[int, str] = {}  # old layer -> the first name under which it was replaced
    replacements: dict[str, nn.Module | str] = {}
    for name, layer in chosen.items():
        first = made.setdefault(id(layer), name)
        replacements[name] = first if first != name else _checked(make(layer), layer, name, module)
    Replaced(module, replacements)
    return list(chosen)


def _checked(new: Any, old: nn.Module, name: str, module: nn.Module) -> nn.Module:
    if not isinstance(new, nn.Module):
        raise TypeError(f"make returned a {type(new).__name__} for {name}; it must return a torch.nn.Module")
    if vars(module).get("_record") is not None and to_spec(new) is MISSING:
        raise TypeError(
            f"make returned a {type(new).__name__} for {name} that cannot be written into a checkpoint; "
            f"build it with graphseq.core.make({type(new).__name__}, ...)"
        )
    tensors = [*old.parameters(), *old.buffers(), *module.parameters()]
    device = tensors[0].device if tensors else torch.device("cpu")
    return new.to(device).train(old.training)
