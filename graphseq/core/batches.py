"""What a batch is to a network and to a task: fields taken by name, inputs and target told apart."""

import inspect
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from graphseq.core.errors import DataError

__all__ = ["SequenceBatch", "TokenBatch", "apply_model", "batch_size", "batch_target", "model_fields"]

IGNORED = -100
"""Target of a step that counts neither in the loss nor in metrics: padding, or a step without a label."""


class _OfTensors:
    """Moves a dataclass of tensors to a device."""

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """Return the batch with its tensors on ``device``.

        Args:
            device: device to move to.
            non_blocking: as in ``Tensor.to``.
        """
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        moved: dict[str, Any] = {name: value.to(device, non_blocking=non_blocking) for name, value in tensors.items()}
        return replace(self, **moved)  # type: ignore[type-var]  # only dataclasses derive from this


@dataclass
class TokenBatch(_OfTensors):
    """Rows of tokens, padded on the right to the longest row of the batch.

    Args:
        ids: token numbers, int64 (B, T); what stands behind a row's length is padding.
        lengths: tokens of each row, int64 (B,), each in 1..T.

    Example:
        >>> batch = TokenBatch(torch.tensor([[4, 2, 7], [5, 0, 0]]), torch.tensor([3, 1]))
        >>> batch.mask.tolist()
        [[True, True, True], [True, False, False]]
    """

    ids: Tensor
    lengths: Tensor

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def x(self) -> Tensor:
        """The tokens, under the name by which networks of any kind of sequence take their input."""
        return self.ids

    @property
    def mask(self) -> Tensor:
        """Whether a step belongs to its row, bool (B, T)."""
        return step_mask(self.lengths, self.ids.shape[1])


@dataclass
class SequenceBatch(_OfTensors):
    """Sequences of different lengths, padded on the right to the longest of the batch, with their targets.

    Args:
        x: features (B, T, D), or token numbers, int64 (B, T); 0 behind a sequence's length.
        lengths: steps of each sequence, int64 (B,), each in 1..T.
        y: target of each sequence, (B, *); None without.
        step_y: target of each step, (B, T, *); padding holds -100 (integers) or NaN (numbers). None without.

    Example:
        >>> batch = SequenceBatch(torch.ones(2, 3, 1), torch.tensor([3, 1]), y=torch.tensor([0, 1]))
        >>> len(batch), batch.mask.sum(1).tolist()
        (2, [3, 1])
    """

    x: Tensor
    lengths: Tensor
    y: Tensor | None = None
    step_y: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    @property
    def mask(self) -> Tensor:
        """Whether a step belongs to its sequence, bool (B, T)."""
        return step_mask(self.lengths, self.x.shape[1])


def step_mask(lengths: Tensor, steps: int) -> Tensor:
    """Return whether each step lies within the length of its row, bool (B, T).

    Args:
        lengths: steps of each row, integers (B,).
        steps: T.

    Example:
        >>> step_mask(torch.tensor([1, 2]), 2).tolist()
        [[True, False], [True, True]]
    """
    return torch.arange(steps, device=lengths.device) < lengths[:, None]


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
    if isinstance(batch, TokenBatch | SequenceBatch):
        return len(batch)
    graphs = getattr(batch, "num_graphs", None)
    if isinstance(graphs, int):
        return graphs
    first = batch if isinstance(batch, Tensor) else next(iter(batch.values() if isinstance(batch, dict) else batch))
    return int(torch.as_tensor(first).shape[0])
