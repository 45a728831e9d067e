"""A data set of many graphs as packed tensors, giving real PyG batches at the price of a copy."""

import contextlib
import dataclasses
import functools
import operator
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data
from torch_geometric.data.collate import collate

from graphseq.core.errors import DataError
from graphseq.data.graphs.layout import BlockLayout, add_in_place, add_to_entries, spread
from graphseq.data.store import BLOCK_BYTES, DEVICE_BLOCK_BYTES, batch_sizes, blocks, retain_freed_memory

__all__ = ["GraphStore"]


@dataclass
class _Field:
    """One packed leaf of the data: a tensor, or an object array of what is not a tensor.

    ``path`` leads to it (dictionaries and lists of tensors nest); ``group`` names the slices it shares with other
    fields; ``increment`` is added per graph when graphs are joined: None, "nodes", or (G, *) values.
    """

    path: tuple[str | int, ...]
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

    def gather(self, rows: Tensor) -> Tensor:
        """Return the entries ``rows`` along the dimension in which graphs are joined."""
        if not self.by_numpy:
            return self.value.index_select(self.dim, rows)
        # less than half of torch's time; "clip" leaves out the check of rows that are right by construction
        return torch.from_numpy(self.value.numpy().take(rows.numpy(), self.dim, mode="clip"))


def _leaves(
    path: tuple[str | int, ...], value: Any, slices: Any
) -> Iterator[tuple[tuple[str | int, ...], Any, Tensor]]:
    if isinstance(value, Mapping):
        for key in value:
            yield from _leaves((*path, key), value[key], slices[key])
    elif isinstance(slices, list):
        for position, item in enumerate(value):
            yield from _leaves((*path, position), item, slices[position])
    else:
        yield path, value, slices


class GraphStore:
    r"""Many graphs packed into one tensor a field; batches are PyG ``Batch`` objects that equal PyG's own.

    Joining graphs :math:`g_1, \dots, g_B` is, for each field, a gather of the ranges
    :math:`[s_{g}, s_{g+1})` and for index fields the addition of :math:`\sum_{j<i} n_{g_j}`. The store does this for
    a block of many batches at once and yields views of the block: no Python per graph, and no wait for a device.
    Besides PyG's fields a batch carries ``idx``, the position of each graph in the store, unless the data have a
    field of that name.

    Memory: the packed fields, plus at most two blocks of about 4 MB while iterating.

    Use :meth:`from_dataset`; the constructor is its last step.

    Args:
        fields: packed leaves.
        slices: one (G + 1,) tensor of offsets for each group of fields; group 0 is one row a graph, group 1 nodes.
        data_class: class of one graph.
        listed_num_nodes: whether graphs carry ``num_nodes`` as a field of their own.

    Example:
        >>> graphs = [Data(x=torch.ones(n, 2), edge_index=torch.tensor([[0], [1]])) for n in (2, 3)]
        >>> GraphStore.from_dataset(graphs).take(torch.tensor([1, 0])).edge_index
        tensor([[0, 3],
                [1, 4]])
    """

    def __init__(
        self, fields: list[_Field], slices: list[Tensor], data_class: type[Data], listed_num_nodes: bool
    ) -> None:
        retain_freed_memory()
        stacked = torch.stack(slices)
        self._fields = fields
        self._slices = list(stacked)
        self._counts = list(stacked.diff())
        self._offsets = stacked.cpu().numpy()
        self._data_class = data_class
        self._listed_num_nodes = listed_num_nodes
        self._template = Batch(_base_cls=data_class)
        self._ascending = torch.arange(0, device=self.device)
        self._paths = [field.path for field in fields]
        self._nested = any(len(path) > 1 for path in self._paths)
        self._names = list(dict.fromkeys(path[0] for path in self._paths))
        for field in fields:
            if field.is_tensor and field.dim not in (0, field.value.dim() - 1):
                raise DataError(
                    f"field {field.path} is joined along dimension {field.dim}; only the first or last can be"
                )

    @classmethod
    def from_dataset(cls, dataset: Iterable[Data]) -> Self:
        """Pack a PyG data set or any sequence of ``Data``.

        Every kind of field survives: node, edge and graph level, any rank and dtype, ``*_index`` fields and others
        with an ``__inc__`` of their own, dictionaries and lists of tensors, strings and other objects (kept on the
        host). ``EdgeIndex`` fields become plain tensors.

        Args:
            dataset: graphs of one class with the same fields.

        Raises:
            DataError: if there is no graph, fields differ between graphs, an edge index is out of range or of a
                wrong type, a feature is NaN or infinite, or a field is a sparse tensor.
        """
        graphs = list(dataset)
        if not graphs:
            raise DataError("the data set is empty; a GraphStore needs at least one graph")
        for position, graph in enumerate(graphs):
            if not isinstance(graph, Data):
                raise DataError(
                    f"graph {position} is a {type(graph).__name__}; a GraphStore takes torch_geometric Data"
                )
        keys = graphs[0].keys()
        for position, graph in enumerate(graphs):
            if set(graph.keys()) != set(keys):
                different = sorted(set(graph.keys()) ^ set(keys))
                raise DataError(f"graph {position} and graph 0 differ in fields {different}; all need the same fields")
        sparse = [key for key, value in graphs[0].to_dict().items() if _is_sparse(value)]
        if sparse:
            raise DataError(
                f"fields {sparse} are sparse tensors; keep edge_index in the store and convert after batching"
            )
        counts = torch.tensor([graph.num_nodes or 0 for graph in graphs])
        joined, slices, _ = collate(graphs[0].__class__, graphs, increment=False, add_batch=False)
        rows = torch.arange(len(graphs) + 1)
        groups = [rows, torch.cat([counts.new_zeros(1), counts.cumsum(0)])]
        fields = []
        for key in (name for name in keys if name in slices):
            for path, value, offsets in _leaves((key,), joined[key], slices[key]):
                fields.append(_pack(graphs, path, value, offsets, groups))
        store = cls(fields, groups, type(graphs[0]), "num_nodes" in keys)
        store._check()
        return store

    def to_dict(self) -> dict[str, Any]:
        """Return the store as tensors and plain data, to be saved and opened with ``weights_only=True``.

        Raises:
            DataError: if graphs are of a subclass of ``Data``, whose joining rules are code.
        """
        if self._data_class is not Data:
            raise DataError(
                f"graphs are {self._data_class.__name__}; only stores of plain torch_geometric Data can be saved"
            )
        fields = [
            {
                "path": list(field.path),
                "value": field.value if field.is_tensor else field.value.tolist(),
                "dim": field.dim,
                "group": field.group,
                "increment": field.increment,
            }
            for field in self._fields
        ]
        return {"fields": fields, "slices": self._slices, "listed_num_nodes": self._listed_num_nodes}

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Self:
        """Return the store that :meth:`to_dict` wrote.

        Args:
            state: what :meth:`to_dict` returned.
        """
        fields = []
        for entry in state["fields"]:
            value = entry["value"] if isinstance(entry["value"], Tensor) else _objects(entry["value"])
            steps = entry["increment"].cpu() if isinstance(entry["increment"], Tensor) else entry["increment"]
            fields.append(_Field(tuple(entry["path"]), value, entry["dim"], entry["group"], steps))
        return cls(fields, state["slices"], Data, state["listed_num_nodes"])

    def _check(self) -> None:
        nodes = self._counts[1]
        for field in self._fields:
            name, value = field.path[0], field.value
            if not field.is_tensor:
                continue
            if name in ("x", "edge_attr", "pos", "edge_weight") and value.is_floating_point():
                bad = ~torch.isfinite(value)
                if bad.any():
                    row = int(bad.flatten(1).any(1).nonzero()[0, 0]) if value.dim() > 1 else int(bad.nonzero()[0, 0])
                    graph = int(torch.searchsorted(self._slices[field.group], row, right=True)) - 1
                    raise DataError(
                        f"{name} holds {int(bad.sum())} NaN or infinite values, the first in graph {graph}; "
                        "fill or drop them before packing"
                    )
            if field.path == ("edge_index",):
                if value.dtype != torch.int64 or value.dim() != 2 or value.size(0) != 2:
                    raise DataError(
                        f"edge_index is {value.dtype} {tuple(value.shape)}; it must be int64 of shape (2, E)"
                    )
                limit = nodes.repeat_interleave(self._counts[field.group])
                wrong = ((value < 0) | (value >= limit)).any(0)
                if wrong.any():
                    edge = int(wrong.nonzero()[0, 0])
                    graph = int(torch.searchsorted(self._slices[field.group], edge, right=True)) - 1
                    raise DataError(
                        f"edge_index of graph {graph} holds edge {value[:, edge].tolist()} but the graph has "
                        f"{int(nodes[graph])} nodes; indices must be in 0..{int(nodes[graph]) - 1}"
                    )

    def __len__(self) -> int:
        return len(self._counts[0])

    def __getitem__(self, position: int) -> Data:
        """Return one graph as PyG ``Data``."""
        if not -len(self) <= position < len(self):
            raise IndexError(f"graph {position} of {len(self)}")
        return self.take(torch.tensor([position % len(self)]))[0]

    def __repr__(self) -> str:
        return f"GraphStore({len(self)} graphs, {sorted(self._names)}, {self.nbytes / 2**20:.1f} MB, {self.device})"

    @property
    def device(self) -> torch.device:
        """Device of the tensors."""
        return self._slices[0].device

    @property
    def nbytes(self) -> int:
        """Bytes that the tensors take, offsets included."""
        return sum(f.value.nbytes for f in self._fields if f.is_tensor) + sum(s.nbytes for s in self._slices)

    @property
    def num_nodes(self) -> Tensor:
        """Nodes of each graph, int64 (G,)."""
        return self._counts[1]

    def field(self, name: str) -> Any:
        """Return one packed field, such as ``x`` of all graphs (N, D), or None if graphs do not carry it.

        Args:
            name: top-level name of a field.
        """
        return next((field.value for field in self._fields if field.path == (name,)), None)

    def with_field(self, name: str, value: Tensor) -> Self:
        """Return the store with one more field of one row a graph, or with another one of that name.

        Args:
            name: of the field.
            value: (G, *).

        Raises:
            DataError: if there is not one row a graph.
        """
        if len(value) != len(self):
            raise DataError(f"{name} has {len(value)} rows for {len(self)} graphs; one for each is needed")
        kept = [field for field in self._fields if field.path[0] != name]
        fields = [*kept, _Field((name,), value.to(self.device), 0, 0)]
        return type(self)(fields, self._slices, self._data_class, self._listed_num_nodes)

    def offsets(self, name: str) -> Tensor:
        """Return where each graph starts in a packed field, int64 (G + 1,).

        Args:
            name: top-level name of a field.

        Raises:
            KeyError: if graphs do not carry it.
        """
        for field in self._fields:
            if field.path == (name,):
                return self._slices[field.group]
        raise KeyError(f"graphs have no field {name!r}; they have {', '.join(sorted(map(str, self._names)))}")

    def to(self, device: torch.device | str) -> Self:
        """Return the store with its tensors on ``device``; tensors already there are shared, not copied."""
        fields = [
            dataclasses.replace(field, value=field.value.to(device)) if field.is_tensor else field
            for field in self._fields
        ]
        return type(self)(fields, [s.to(device) for s in self._slices], self._data_class, self._listed_num_nodes)

    def take(self, index: Tensor) -> Batch:
        """Return the graphs ``index`` as one batch.

        Args:
            index: positions of graphs, int64 (B,).
        """
        return next(self.batches(index, [len(index)]))

    def batches(self, index: Tensor, sizes: int | Sequence[int], device: torch.device | None = None) -> Iterator[Batch]:
        """Yield the graphs ``index`` in batches.

        Args:
            index: positions of graphs, int64 (M,), on the store's device or the host.
            sizes: batch size, or the size of each batch.
            device: where blocks go; default where the store is.

        Raises:
            IndexError: if a position is not in 0..G-1.
        """
        order = index.cpu()
        if len(order) and not 0 <= int(order.min()) <= int(order.max()) < len(self):
            raise IndexError(f"graphs {int(order.min())} to {int(order.max())} were asked for, of {len(self)}")
        block_bytes = BLOCK_BYTES if self.device.type == "cpu" else DEVICE_BLOCK_BYTES
        listed = batch_sizes(len(order), sizes)
        for graphs, block_sizes in blocks(order, listed, self.nbytes / len(self), block_bytes):
            yield from self._block(graphs, block_sizes, device or self.device)

    def _block(self, graphs: Tensor, sizes: list[int], device: torch.device) -> Iterator[Batch]:
        """Gather the graphs of several batches at once and yield a batch for each of ``sizes``."""
        layout = BlockLayout(graphs.numpy(), sizes, self._offsets)
        values, increments = self._columns(layout, device)
        nodes = layout.parts[1]
        number = spread(layout.number, layout.counts[1], self.device).to(device, non_blocking=True)
        numbers = number.split_with_sizes(nodes)
        idx = graphs.clone().to(device, non_blocking=True).split_with_sizes(sizes)
        pointer_rows = torch.from_numpy(layout.pointers()).to(device, non_blocking=True)
        pointers = [row.split_with_sizes([size + 1 for size in sizes]) for row in pointer_rows]
        slices = [pointers[field.group] for field in self._fields]
        num_nodes = layout.split(layout.counts[1]) if self._listed_num_nodes else None
        for position, num_graphs in enumerate(sizes):
            mapping = self._nest([column[position] for column in values])
            hidden = {"_num_nodes": num_nodes[position].tolist()} if num_nodes is not None else {}
            if hidden:
                mapping["num_nodes"] = nodes[position]
            mapping["batch"] = numbers[position]
            mapping["ptr"] = pointers[1][position]
            mapping.setdefault("idx", idx[position])
            slice_dict = self._nest([column[position] for column in slices])
            inc_dict = self._nest([column[position] for column in increments])
            yield self._batch(mapping, num_graphs, slice_dict, inc_dict, hidden)

    def _columns(self, layout: BlockLayout, device: torch.device) -> tuple[list[Any], list[Any]]:
        """Return, for each field, its values in each batch of a block, and what was added to them graph by graph."""
        values: list[Any] = []
        increments: list[Any] = []
        rows: dict[int, Tensor] = {0: torch.from_numpy(layout.graphs).to(self.device)}
        zeros = torch.zeros(len(layout.graphs), dtype=torch.int64, device=device).split_with_sizes(layout.sizes)
        for field in self._fields:
            if not field.is_tensor:
                values.append([part.tolist() for part in layout.split(field.value[layout.graphs])])
                increments.append([None] * len(layout.sizes))
                continue
            counts = layout.counts[field.group]
            if field.group not in rows:
                rows[field.group] = self._rows(layout, field.group)
            gathered = field.gather(rows[field.group])
            if field.increment is None:
                increments.append(zeros)
            else:
                steps = field.increment  # "nodes", or values
                added = layout.before[1] if isinstance(steps, str) else layout.sum_before(steps.numpy()[layout.graphs])
                add_to_entries(gathered, field.dim, added, counts)
                increments.append(torch.from_numpy(added).to(device, non_blocking=True).split_with_sizes(layout.sizes))
            values.append(gathered.to(device, non_blocking=True).split_with_sizes(layout.parts[field.group], field.dim))
        return values, increments

    def _rows(self, layout: BlockLayout, group: int) -> Tensor:
        """Return which entries of a group of packed fields make the block, in their order."""
        shift = layout.begin[group] - layout.starts[group]
        rows = spread(shift, layout.counts[group], self.device)
        if len(self._ascending) < len(rows):  # kept, since filling it costs as much as a gather
            self._ascending = torch.arange(len(rows), device=self.device)
        add_in_place(rows, self._ascending[: len(rows)])
        return rows

    def _nest(self, leaves: list[Any]) -> dict[Any, Any]:
        """Return a value for each field as the dictionary that graphs have: nested where a field is."""
        if not self._nested:
            return dict(zip(self._names, leaves, strict=True))
        nested: dict[Any, Any] = {}
        for path, leaf in zip(self._paths, leaves, strict=True):
            _insert(nested, path, leaf)
        return _lists(nested)

    def _batch(
        self,
        mapping: dict[Any, Any],
        num_graphs: int,
        slice_dict: dict[Any, Any],
        inc_dict: dict[Any, Any],
        hidden: dict[str, Any],
    ) -> Batch:
        # What Batch.from_data_list ends with, without its constructor, which costs forty times as much.
        batch = object.__new__(type(self._template))
        storage = object.__new__(type(self._template._store))
        storage.__dict__.update(
            hidden,
            _mapping=mapping,
            _parent=weakref.ref(batch),
            _num_graphs=num_graphs,
            _slice_dict=slice_dict,
            _inc_dict=inc_dict,
        )
        batch.__dict__.update(self._template.__dict__, _store=storage)
        return batch


def _is_sparse(value: Any) -> bool:
    return type(value).__name__ == "SparseTensor" or getattr(value, "layout", torch.strided) != torch.strided


def _objects(values: Sequence[Any]) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    for position, value in enumerate(values):  # assigning a list of lists at once would make a matrix of it
        array[position] = value
    return array


def _pack(graphs: list[Data], path: tuple[str | int, ...], value: Any, offsets: Tensor, groups: list[Tensor]) -> _Field:
    group = next((number for number, known in enumerate(groups) if torch.equal(known, offsets)), len(groups))
    if group == len(groups):
        groups.append(offsets)
    if not isinstance(value, Tensor):
        return _Field(path, _objects(value), 0, group)
    value = value.as_subclass(Tensor)
    # the name that PyG asks for is the innermost key; a list of tensors keeps the name of the list
    key = next(str(part) for part in reversed(path) if isinstance(part, str))
    elements = [functools.reduce(operator.getitem, path, graph) for graph in graphs]
    first = elements[0]
    dim = graphs[0].__cat_dim__(key, first, graphs[0]._store) if isinstance(first, Tensor) else 0
    dim = 0 if dim is None or not isinstance(first, Tensor) or first.dim() == 0 else dim % value.dim()
    steps = [graph.__inc__(key, element, graph._store) for graph, element in zip(graphs, elements, strict=True)]
    increment: str | Tensor | None
    if isinstance(steps[0], Tensor):
        stacked = torch.stack(steps)  # (G, *), broadcast over the elements of the field
        increment = stacked if bool(stacked.any()) else None
    else:
        each = torch.tensor(steps)
        counts = groups[1][1:] - groups[1][:-1]
        increment = None if not each.any() else "nodes" if torch.equal(each, counts) else each
    return _Field(path, value.contiguous(), dim, group, increment)


def _insert(target: dict[Any, Any], path: tuple[str | int, ...], leaf: Any) -> None:
    for key in path[:-1]:
        target = target.setdefault(key, {})
    target[path[-1]] = leaf


def _lists(value: Any) -> Any:
    """Turn dictionaries with keys 0, 1, ... back into the lists they stand for."""
    if not isinstance(value, dict):
        return value
    entries = {key: _lists(item) for key, item in value.items()}
    return list(entries.values()) if entries and all(isinstance(key, int) for key in entries) else entries
