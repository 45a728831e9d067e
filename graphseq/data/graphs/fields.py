"""Fields of many graphs as packed tensors: rules for joining them, and checks that graphs can be joined."""

import contextlib
import functools
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from graphseq.core.errors import DataError

__all__: list[str] = []

Skeleton = int | dict[Any, "Skeleton"] | list["Skeleton"]
"""Shape of a nested field: dictionaries and lists as the graphs have them, the number of a leaf at each end."""

_NODE_FIELDS = ("x", "feat", "pos", "node_type", "n_id", "train_mask", "val_mask", "test_mask")
_EDGE_FIELDS = ("edge_attr", "edge_weight", "edge_type", "e_id")
_LEAST_GRAPHS = 10
_SHARE = 0.9
"""A field of any other name counts as one of nodes (edges) where nine graphs of ten, at least ten, say so."""


@dataclass
class Field:
    """One packed leaf of a field: a tensor, or an object array of values that are not tensors.

    Args:
        path: name of the field, and keys and positions that lead to the leaf.
        value: entries of all graphs, joined along ``dim``.
        dim: dimension in which graphs are joined.
        group: number of the group of fields with the same slices; 0 for one row per graph, 1 for one row per node.
        increment: increment of the entries of later graphs in a batch: None, ``"nodes"``, or values (G, *).
    """

    path: tuple[Any, ...]
    value: Any
    dim: int
    group: int
    increment: str | Tensor | None = None

    def __post_init__(self) -> None:
        self.by_numpy = False  # not on a GPU, and not for kinds that numpy lacks, such as bfloat16
        if self.is_tensor:
            with contextlib.suppress(TypeError, RuntimeError):
                self.value.numpy()
                self.by_numpy = True

    @property
    def is_tensor(self) -> bool:
        return isinstance(self.value, Tensor)

    @property
    def label(self) -> str:
        """Name of the field for error messages, such as ``info['a'][0]``."""
        return str(self.path[0]) + "".join(f"[{step!r}]" for step in self.path[1:])

    def gather(self, rows: Tensor) -> Tensor:
        """Return the entries ``rows`` along the dimension in which graphs are joined."""
        if not self.by_numpy:
            return self.value.index_select(self.dim, rows)
        # less than half of torch's time; "clip" leaves out the check of rows that are right by construction
        return torch.from_numpy(self.value.numpy().take(rows.numpy(), self.dim, mode="clip"))


def objects(values: Sequence[Any]) -> np.ndarray:
    """Return values of any kind as an array of objects, one for each graph.

    Args:
        values: value of each graph.

    Example:
        >>> objects([[1, 2], [3, 4]]).shape
        (2,)
    """
    array = np.empty(len(values), dtype=object)
    for position, value in enumerate(values):  # assigning a list of lists at once would make a matrix of it
        array[position] = value
    return array


def fill(skeleton: Skeleton, leaves: Sequence[Any]) -> Any:
    """Return a nested structure with leaves in place of their numbers.

    Args:
        skeleton: numbers of leaves, nested like the field.
        leaves: values of the leaves by number.

    Example:
        >>> fill({"x": 0, "paths": [1, 2]}, ["a", "b", "c"])
        {'x': 'a', 'paths': ['b', 'c']}
    """
    if isinstance(skeleton, dict):
        return {key: fill(part, leaves) for key, part in skeleton.items()}
    if isinstance(skeleton, list):
        return [fill(part, leaves) for part in skeleton]
    return leaves[skeleton]


def check_source(dataset: Any) -> None:
    """Refuse what is neither a list of graphs nor a data set nor a function.

    Args:
        dataset: what a user gave.

    Raises:
        TypeError: if it is something else, such as one graph.

    Example:
        >>> check_source([Data(num_nodes=1)])
    """
    listed_or_made = callable(dataset) or hasattr(dataset, "__getitem__") or hasattr(dataset, "__iter__")
    if isinstance(dataset, Data | str) or not listed_or_made:
        remedy = ". A Batch has to_data_list()" * isinstance(dataset, Batch)
        raise TypeError(
            f"dataset is a {type(dataset).__name__}; give a list of torch_geometric Data, a data set of PyG, or a "
            f"function without arguments that returns one{remedy}"
        )


def listed(dataset: Any) -> list[Any]:
    """Return the samples of a data set; one of torch without an iterator ends at its length.

    Args:
        dataset: sequence, iterable or data set of torch.

    Example:
        >>> listed(range(2))
        [0, 1]
    """
    if not hasattr(dataset, "__iter__") and hasattr(dataset, "__len__"):
        # list(...) would ask for samples until one is refused
        return [dataset[position] for position in range(len(dataset))]
    return list(dataset)


def check_alike(graphs: Sequence[Data], keys: Sequence[str]) -> None:
    """Refuse graphs whose fields cannot be joined without errors, loss of values or types that depend on the batch.

    Args:
        graphs: graphs with the same fields.
        keys: names of the fields.

    Raises:
        DataError: if fields differ; the message names the field and the graph.

    Example:
        >>> check_alike([Data(x=torch.ones(2, 3)), Data(x=torch.ones(2, 4))], ["x"])
        Traceback (most recent call last):
        graphseq.core.errors.DataError: x of graph 1 is torch.float32 (2, 4), of graph 0 torch.float32 (2, 3)...
    """
    for key in keys:
        first = graphs[0][key]
        for position, graph in enumerate(graphs):
            _check_value(key, str(key), first, graph[key], graphs[0], position)


def _check_value(label: str, name: str, first: Any, value: Any, graph: Data, position: int) -> None:
    kind = _kind(value)
    if kind in ("sparse", "nested"):
        raise DataError(
            f"{label} of graph {position} is a {kind} tensor; keep edge_index in the store and convert after batching"
        )
    if kind != _kind(first):
        raise DataError(
            f"{label} of graph {position} is {describe(value)}, of graph 0 {describe(first)}; a field must be of one "
            "kind in all graphs"
        )
    if kind == "tensor":
        same = first.dtype == value.dtype and first.dim() == value.dim()
        if same and first.shape != value.shape:
            dim = graph.__cat_dim__(name, first, graph._store) if first.dim() else None
            free = None if dim is None else dim % first.dim()
            same = all(a == b for axis, (a, b) in enumerate(zip(first.shape, value.shape, strict=True)) if axis != free)
        if not same:
            raise DataError(
                f"{label} of graph {position} is {describe(value)}, of graph 0 {describe(first)}; a field must have "
                "one dtype and agree in all dimensions but the one in which graphs are joined"
            )
    elif kind == "mapping":
        if set(first) != set(value):
            raise DataError(
                f"{label} of graph {position} and of graph 0 differ in keys "
                f"{sorted(map(str, set(first) ^ set(value)))}; all graphs need the same keys"
            )
        if not first:
            raise DataError(f"{label} of graph {position} is an empty dictionary, which holds nothing; leave it out")
        for key in first:
            _check_value(f"{label}[{key!r}]", str(key), first[key], value[key], graph, position)
    elif kind == "list":
        if len(first) != len(value):
            raise DataError(
                f"{label} of graph {position} has {len(value)} tensors, of graph 0 {len(first)}; lists of tensors must "
                "be as long in all graphs. Join them to one tensor, with their lengths in another field"
            )
        for place, (one, other) in enumerate(zip(first, value, strict=True)):
            _check_value(f"{label}[{place}]", name, one, other, graph, position)


def _kind(value: Any) -> str:
    """Return the rule by which PyG joins a value: tensor, number of a type, mapping, list of tensors, or object."""
    if isinstance(value, Tensor):
        if value.is_nested:
            return "nested"
        return "tensor" if value.layout == torch.strided else "sparse"
    if type(value).__name__ == "SparseTensor":
        return "sparse"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "int" if isinstance(value, int) else "float"
    if isinstance(value, Mapping):
        return "mapping"
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value):
        if _kind(value[0]) == "sparse":
            return "sparse"
        return "list" if isinstance(value[0], Tensor) else "object"
    return "object"


def describe(value: Any) -> str:
    """Return dtype and shape of a tensor, or the type of anything else.

    Args:
        value: any value.

    Example:
        >>> describe(torch.ones(2, 3)), describe("a")
        ('torch.float32 (2, 3)', 'a str')
    """
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"


def pack(graphs: list[Data], key: str, joined: Any, slices: Any, groups: list[Tensor], fields: list[Field]) -> Skeleton:
    """Append the leaves of one field to ``fields`` and return their numbers, nested like the field.

    Args:
        graphs: graphs that :func:`check_alike` accepted.
        key: name of the field.
        joined: values of the field, joined by PyG without increments.
        slices: offsets of the graphs in ``joined``, as PyG gives them.
        groups: offsets (G + 1,) of each group of fields; new ones are appended.
        fields: list of leaves, to which new ones are appended.

    Example:
        >>> graphs, fields = [Data(x=torch.ones(2, 1))], []
        >>> pack(graphs, "x", graphs[0].x, torch.tensor([0, 2]), [torch.tensor([0, 1])], fields), fields[0].group
        (0, 1)
    """

    def walk(path: tuple[Any, ...], name: str, value: Any, offsets: Any) -> Skeleton:
        if isinstance(value, Mapping):
            return {inner: walk((*path, inner), str(inner), value[inner], offsets[inner]) for inner in value}
        if isinstance(offsets, list):  # a list of tensors keeps the name of the list
            return [walk((*path, place), name, one, offsets[place]) for place, one in enumerate(value)]
        fields.append(_leaf(graphs, path, name, value, offsets, groups))
        return len(fields) - 1

    return walk((key,), key, joined, slices)


def _leaf(
    graphs: list[Data], path: tuple[Any, ...], name: str, value: Any, offsets: Tensor, groups: list[Tensor]
) -> Field:
    group = next((number for number, known in enumerate(groups) if torch.equal(known, offsets)), len(groups))
    if group == len(groups):
        groups.append(offsets)
    if not isinstance(value, Tensor):
        return Field(path, objects(value), 0, group)
    value = value.as_subclass(Tensor)
    elements = [functools.reduce(operator.getitem, path, graph) for graph in graphs]
    first = elements[0]
    dim = graphs[0].__cat_dim__(name, first, graphs[0]._store) if isinstance(first, Tensor) else 0
    dim = 0 if dim is None or not isinstance(first, Tensor) or first.dim() == 0 else dim % value.dim()
    field = Field(path, value.contiguous(), dim, group)
    steps = []
    for position, (graph, element) in enumerate(zip(graphs, elements, strict=True)):
        try:
            steps.append(graph.__inc__(name, element, graph._store))
        except (RuntimeError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"the increment of {field.label} of graph {position} failed: {error}") from error
    if isinstance(steps[0], Tensor):
        stacked = torch.stack(steps)  # (G, *), broadcast over the elements of the field
        field.increment = stacked if bool(stacked.any()) else None
    else:
        each = torch.tensor(steps)
        counts = groups[1][1:] - groups[1][:-1]
        field.increment = None if not each.any() else "nodes" if torch.equal(each, counts) else each
    if field.increment is not None and value.dtype == torch.bool:
        raise DataError(
            f"{field.label} is bool, and its name makes PyG add an offset in every batch, as to indices; rename it"
        )
    return field


def check_rows(fields: Sequence[Field], counts: Sequence[Tensor], graph: Data) -> None:
    """Refuse fields of nodes or edges whose number of rows is not that of the nodes or edges of their graph.

    Fields known by name are ``x``, ``feat``, ``pos``, ``node_type``, ``n_id``, the three masks, ``z`` if it holds
    integers, ``edge_attr``, ``edge_weight``, ``edge_type`` and ``e_id``. Any other field counts as one of nodes (edges)
    if its rows are those in at least nine graphs of ten, of at least ten graphs and two different numbers of nodes
    (edges).

    Args:
        fields: packed leaves of all fields.
        counts: number of rows of each graph, (G,), for each group of fields.
        graph: any of the graphs, whose class may define its own rules for joining fields.

    Raises:
        DataError: if the numbers differ; the message names the field and the first such graph.

    Example:
        >>> x = Field(("x",), torch.ones(3, 1), 0, 2)
        >>> check_rows([x], [torch.ones(1), torch.tensor([2]), torch.tensor([3])], Data())
        Traceback (most recent call last):
        graphseq.core.errors.DataError: x of graph 0 has 3 rows for 2 nodes...
    """
    edges = next((counts[field.group] for field in fields if field.path == ("edge_index",)), None)
    for field in fields:
        name, value = field.path[0], field.value
        if not field.is_tensor or not value.dim() or name in ("y", "edge_index", "batch", "ptr"):
            continue
        known = len(field.path) == 1 and field.dim == Data.__cat_dim__(graph, name, value) % value.dim()
        of_nodes = known and (name in _NODE_FIELDS or (name == "z" and not value.is_floating_point()))
        of_edges = known and name in _EDGE_FIELDS
        rows = counts[field.group]
        for what, number, by_name in (("nodes", counts[1], of_nodes), ("edges", edges, of_edges)):
            if number is None or ((of_nodes or of_edges) and not by_name):
                continue
            agree = rows == number
            if bool(agree.all()) or not (by_name or _is_likely(agree, number)):
                continue
            position = int((~agree).nonzero()[0, 0])
            raise DataError(
                f"{field.label} of graph {position} has {int(rows[position])} rows for {int(number[position])} {what}; "
                f"one for each is needed{'' if by_name else f', as in {int(agree.sum())} of {len(agree)} graphs'}"
            )


def _is_likely(agree: Tensor, number: Tensor) -> bool:
    enough = len(agree) >= _LEAST_GRAPHS and int(agree.sum()) >= _SHARE * len(agree)
    return enough and len(number[agree].unique()) > 1
