"""What a batch is to a network and to a task: fields taken by name, inputs and target told apart."""

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from graphseq.core.errors import DataError

__all__ = ["apply_model", "batch_size", "batch_target", "model_fields"]


def model_fields(model: nn.Module) -> dict[str, bool]:
    """Return the parameters of a network's ``forward`` that a batch may fill, and whether each is required.

    Args:
        model: any module.

    Example:
        >>> from torch_geometric.nn import GIN
        >>> list(model_fields(GIN(3, 4, 1)))[:2]
        ['x', 'edge_index']
    """
    fields = {}
    for name, parameter in inspect.signature(model.forward).parameters.items():
        if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
            continue
        fields[name] = parameter.default is inspect.Parameter.empty
    return fields


def _lookup(batch: Any, name: str) -> Any:
    return batch.get(name) if isinstance(batch, dict) else getattr(batch, name, None)


def apply_model(model: nn.Module, batch: Any) -> Any:
    r"""Call a network with what it asks for: the batch's fields whose names are parameters of its ``forward``.

    A tuple ``(x_1, ..., x_n, y)`` becomes ``model(x_1, ..., x_n)``. A PyG ``Batch``, a dictionary or a dataclass
    gives the fields by name, so a network with ``forward(x, edge_index, batch)`` and one with
    ``forward(x, edge_index, edge_attr=None, ptr=None)`` both fit; a required parameter that the batch does not
    carry is an error. A ``forward`` whose only required parameter is called ``data`` gets the batch itself.

    Args:
        model: the network.
        batch: one batch.

    Raises:
        DataError: if the network requires a field that the batch lacks.

    Example:
        >>> apply_model(nn.Linear(3, 2), (torch.ones(5, 3), torch.zeros(5))).shape
        torch.Size([5, 2])
    """
    if isinstance(batch, Tensor):
        return model(batch)
    if isinstance(batch, tuple | list):
        return model(*batch[:-1])
    fields = model_fields(model)
    required = [name for name, needed in fields.items() if needed]
    if required == ["data"]:
        return model(batch)
    inputs = {name: value for name in fields if (value := _lookup(batch, name)) is not None}
    missing = [name for name in required if name not in inputs]
    if missing:
        carried = list(batch.keys()) if callable(getattr(batch, "keys", None)) else sorted(vars(batch))
        raise DataError(
            f"{type(model).__name__}.forward requires {', '.join(missing)}, which the batch does not carry; "
            f"it carries {', '.join(map(str, carried))}. Add the field to the data, or give the parameter a default"
        )
    return model(**inputs)


def batch_target(batch: Any) -> Tensor:
    """Return the target of a batch: the last entry of a tuple, else its field ``y``.

    Args:
        batch: one batch.

    Raises:
        DataError: if there is none.

    Example:
        >>> batch_target((torch.ones(2, 3), torch.tensor([0, 1])))
        tensor([0, 1])
    """
    target = batch[-1] if isinstance(batch, tuple | list) else _lookup(batch, "y")
    if not isinstance(target, Tensor):
        raise DataError(f"a {type(batch).__name__} without a target `y` was given where one is needed for the loss")
    return target


def batch_size(batch: Any) -> int:
    """Return how many samples a batch holds, without a device sync: graphs of a PyG batch, else rows.

    Args:
        batch: one batch.

    Example:
        >>> batch_size((torch.ones(2, 3), torch.tensor([0, 1])))
        2
    """
    graphs = getattr(batch, "num_graphs", None)
    if isinstance(graphs, int):
        return graphs
    first = batch if isinstance(batch, Tensor) else next(iter(batch.values() if isinstance(batch, dict) else batch))
    return int(torch.as_tensor(first).shape[0])
