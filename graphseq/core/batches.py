"""Batch types, and access to a batch by networks and tasks: fields by name, target, positions of the samples."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from graphseq.core.errors import DataError
from graphseq.core.events import shown
from graphseq.core.wrappers import named_arguments, unwrapped

__all__ = [
    "PrefixBatch",
    "SequenceBatch",
    "TokenBatch",
    "apply_model",
    "batch_field",
    "batch_size",
    "batch_target",
    "content_sums",
    "model_fields",
    "sample_positions",
]

STORE_POSITIONS = "_store_positions"
"""Where a store of graphs notes positions on a batch: beside its fields, so that no field of a graph can take it."""

IGNORED = -100
"""Target of a step that counts neither in the loss nor in metrics: padding, or a step without a label."""


class _OfTensors:
    """Mixin that moves a dataclass of tensors to a device, and prints their shapes."""

    def __repr__(self) -> str:
        return shown(self)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """Return the batch with its tensors on ``device``.

        Args:
            device: target device.
            non_blocking: whether a copy from pinned memory may run asynchronously, as in ``Tensor.to``.
        """
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        moved: dict[str, Any] = {name: value.to(device, non_blocking=non_blocking) for name, value in tensors.items()}
        return replace(self, **moved)  # type: ignore[type-var]  # only dataclasses derive from this


@dataclass(repr=False)
class TokenBatch(_OfTensors):
    """Rows of tokens, padded on the right to the longest row of the batch.

    Args:
        ids: token numbers, int64 (B, T); positions at or after the length of a row are padding.
        lengths: number of tokens of each row, int64 (B,), each in 1..T.

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
        """The tokens, under the name ``x`` by which sequence networks take their input."""
        return self.ids

    @property
    def mask(self) -> Tensor:
        """True where a position holds a token, False at padding, bool (B, T)."""
        return step_mask(self.lengths, self.ids.shape[1])


@dataclass(repr=False)
class PrefixBatch(TokenBatch):
    """Rows of tokens whose first ones are given, and of which the others are to be written.

    Args:
        ids: token numbers, int64 (B, T); positions at or after the length of a row are padding.
        lengths: number of tokens of each row, int64 (B,), each in 1..T.
        prefix: number of tokens that are given, which all steps may see and none has to predict, int64 (B,), each in
            1..length.

    Example:
        >>> batch = PrefixBatch(torch.tensor([[4, 2, 7]]), torch.tensor([3]), torch.tensor([2]))
        >>> batch.prefix.tolist()
        [2]
    """

    prefix: Tensor


@dataclass(repr=False)
class SequenceBatch(_OfTensors):
    """Sequences of different lengths, padded on the right to the longest of the batch, with their targets.

    Args:
        x: features (B, T, D), or token numbers, int64 (B, T); padding is 0.
        lengths: number of steps of each sequence, int64 (B,), each in 1..T.
        y: target of each sequence, (B, *); None for no targets.
        step_y: target of each step, (B, T, *); padding holds -100 (integers) or NaN (floating point). None for no
            targets of steps.

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
        """True where a position holds a step, False at padding, bool (B, T)."""
        return step_mask(self.lengths, self.x.shape[1])


def step_mask(lengths: Tensor, steps: int) -> Tensor:
    """Return whether each step lies within the length of its row, bool (B, T).

    Args:
        lengths: number of steps of each row, integers (B,).
        steps: padded number of steps T.

    Example:
        >>> step_mask(torch.tensor([1, 2]), 2).tolist()
        [[True, False], [True, True]]
    """
    return torch.arange(steps, device=lengths.device) < lengths[:, None]


def check_lengths(lengths: Tensor, rows: int, steps: int, least: int = 1) -> None:
    """Refuse lengths that do not fit; values are looked at only on the CPU, where no synchronisation is needed.

    Args:
        lengths: number of steps of each row, integers (B,).
        rows: number of rows B.
        steps: padded number of steps T.
        least: smallest length that is allowed.

    Raises:
        ValueError: if shape or type is another, or a length is outside ``least``..T.

    Example:
        >>> check_lengths(torch.tensor([3, 1]), 2, 3)
    """
    if not isinstance(lengths, Tensor):
        raise ValueError(f"lengths is a {type(lengths).__name__}; give a tensor of integers ({rows},), one a row")
    if lengths.shape != (rows,) or lengths.is_floating_point() or lengths.dtype == torch.bool:
        raise ValueError(f"lengths is {lengths.dtype} {tuple(lengths.shape)}; it must be integers ({rows},), one a row")
    if rows and lengths.device.type == "cpu" and not torch.compiler.is_compiling():
        low, high = int(lengths.min()), int(lengths.max())
        if low < least or high > steps:
            raise ValueError(
                f"lengths range from {low} to {high}; each must be in {least}..{steps}: leave rows without steps out, "
                "and cut lengths to the number of steps"
            )


def model_fields(model: nn.Module) -> dict[str, bool]:
    """Return the parameters of a network's ``forward`` that a batch may fill, and whether each is required.

    Wrappers are looked through (see :func:`unwrapped`), and so is ``torch_geometric.nn.Sequential``, which takes
    arbitrary arguments in ``forward`` and stores the names of its parameters in an attribute.

    Args:
        model: any module.

    Raises:
        ValueError: if ``forward`` names no parameters and no wrapped network does.

    Example:
        >>> from torch_geometric.nn import GIN
        >>> list(model_fields(GIN(3, 4, 1)))[:2]
        ['x', 'edge_index']
    """
    network = unwrapped(model)
    fields = dict(named_arguments(network))
    if not fields:
        declared = getattr(getattr(network, "signature", None), "param_dict", None)  # torch_geometric.nn.Sequential
        fields = dict.fromkeys(declared or [], True)
    if not fields:
        raise ValueError(
            f"{type(network).__name__}.forward names no parameter, so nothing says which fields of a batch it takes. "
            "Write them: def forward(self, x, edge_index); or decorate with functools.wraps. To compile a network, "
            "network.compile() leaves its signature alone"
        )
    return fields


def batch_field(batch: Any, name: str) -> Any:
    """Return a field of a batch; None if it does not exist.

    Args:
        batch: dictionary, PyG batch, dataclass, or another object with attributes.
        name: name of the field.

    Example:
        >>> batch_field({"x": 1}, "x"), batch_field({"x": 1}, "y")
        (1, None)
    """
    return batch.get(name) if isinstance(batch, dict) else getattr(batch, name, None)


def apply_model(model: nn.Module, batch: Any) -> Any:
    r"""Call a network with the fields of a batch whose names are parameters of its ``forward``.

    A tuple ``(x_1, ..., x_n, y)`` becomes ``model(x_1, ..., x_n)``; ``(x,)``, which has no target, becomes
    ``model(x)``. A PyG ``Batch``, a dictionary or a dataclass gives the fields by name, so a network with
    ``forward(x, edge_index, batch)`` and one with ``forward(x, edge_index, edge_attr=None, ptr=None)`` both fit; a
    required parameter that the batch does not carry is an error. A ``forward`` whose only required parameter is called
    ``data`` gets the batch itself.

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
        return model(*(batch[:-1] if len(batch) > 1 else batch))
    fields = model_fields(model)
    required = [name for name, needed in fields.items() if needed]
    if required == ["data"]:
        return model(batch)
    inputs = {name: value for name in fields if (value := batch_field(batch, name)) is not None}
    missing = [name for name in required if name not in inputs]
    if missing:
        carried = list(batch.keys()) if callable(getattr(batch, "keys", None)) else sorted(vars(batch))
        raise DataError(
            f"{_name(model)}.forward requires {', '.join(missing)}, which the batch does not carry; "
            f"it carries {', '.join(map(str, carried))}. Add the field to the data, or give the parameter a default"
        )
    return model(**inputs)


def _name(model: nn.Module) -> str:
    inner = unwrapped(model)
    return type(model).__name__ if inner is model else f"{type(inner).__name__} (inside {type(model).__name__})"


def batch_target(batch: Any) -> Tensor:
    """Return the target of a batch: the last entry of a tuple, else its field ``y``.

    Args:
        batch: one batch.

    Raises:
        DataError: if the batch has no target.

    Example:
        >>> batch_target((torch.ones(2, 3), torch.tensor([0, 1])))
        tensor([0, 1])
    """
    target = (batch[-1] if len(batch) > 1 else None) if isinstance(batch, tuple | list) else batch_field(batch, "y")
    if not isinstance(target, Tensor):
        raise DataError(f"a {type(batch).__name__} without a target `y` was given where one is needed for the loss")
    return target


def batch_size(batch: Any) -> int:
    """Return the number of samples of a batch, without device synchronisation: graphs of a PyG batch, else rows.

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


def sample_positions(batch: Any) -> Tensor:
    """Return the position of each sample in the store that the batch came from.

    A batch of :class:`graphseq.data.GraphStore` carries them beside the fields of its graphs; in a batch of your own
    they are the field ``idx``.

    Args:
        batch: batch of a store of graphs, or a dictionary or object with ``idx``, int64 (B,).

    Raises:
        DataError: if the batch carries no positions.

    Example:
        >>> sample_positions({"idx": torch.tensor([3])})
        tensor([3])
    """
    noted = getattr(batch, "__dict__", {}).get(STORE_POSITIONS)
    found = batch_field(batch, "idx") if noted is None and not isinstance(batch, tuple | list) else noted
    if not isinstance(found, Tensor):
        raise DataError(
            f"a {type(batch).__name__} without `idx` was given, the position of each sample in its data set, int64 "
            "(B,); batches of graphseq.data.GraphStore know it, add it to samples of your own"
        )
    return found


def content_sums(batch: Any) -> list[list[float]]:
    r"""Return two sums for each tensor of a batch, by which a checkpoint recognises the values of its data.

    .. math:: \Big(\sum_i |x_i|,\ \sum_i x_i \cos i\Big)

    The second depends on the order of the entries. Values that are not finite are taken as 0.

    Args:
        batch: tensor, tuple, list, dictionary, batch of this library, PyG ``Data``, or any nesting of them.

    Example:
        >>> content_sums({"x": torch.tensor([-2.0, 0.0]), "y": torch.tensor([True])})
        [[2.0, -2.0], [1.0, 1.0]]
    """
    if isinstance(batch, Tensor):
        values = torch.view_as_real(batch.detach().resolve_conj()) if batch.is_complex() else batch.detach()
        values = values.cpu().flatten().double().nan_to_num(0.0, 0.0, 0.0)
        signs = torch.arange(len(values), dtype=torch.float64).cos()
        return [[float(values.abs().sum()), float(values @ signs)]]
    if isinstance(batch, Mapping):
        parts = list(batch.values())
    elif isinstance(batch, tuple | list):
        parts = list(batch)
    elif hasattr(batch, "stores"):  # a PyG graph or batch
        parts = [dict(store) for store in batch.stores]
    else:
        parts = list(vars(batch).values()) if hasattr(batch, "__dict__") else []
    return [sums for part in parts for sums in content_sums(part)]
