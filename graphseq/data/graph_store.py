"""A data set of many graphs as packed tensors, giving real PyG batches at the price of a copy."""

import copy
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
from graphseq.data.store import batch_sizes, blocks

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

    @property
    def is_tensor(self) -> bool:
        return isinstance(self.value, Tensor)


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


def _follow(value: Any, path: Sequence[str | int]) -> Any:
    for key in path:
        value = value[key]
    return value


class GraphStore:
    r"""Many graphs packed into one tensor a field; batches are PyG ``Batch`` objects that equal PyG's own.

    Joining graphs :math:`g_1, \dots, g_B` is, for each field, a gather of the ranges
    :math:`[s_{g}, s_{g+1})` and for index fields the addition of :math:`\sum_{j<i} n_{g_j}`. The store does this for
    a block of many batches at once and yields views of the block: no Python per graph, one device sync a block.
    Besides PyG's fields a batch carries ``idx``, the position of each graph in the store, unless the data have a
    field of that name.

    Memory: the packed fields, plus at most two blocks of about 8 MB while iterating.

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
        self._fields = fields
        self._slices = slices
        self._counts = [offsets[1:] - offsets[:-1] for offsets in slices]
        self._data_class = data_class
        self._listed_num_nodes = listed_num_nodes
        self._template = Batch(_base_cls=data_class)
        self._ascending = torch.arange(0, device=slices[0].device)
        self._simple = all(len(field.path) == 1 for field in fields)
        self._names = {field.path[0] for field in fields}
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
            fields.append(_Field(tuple(entry["path"]), value, entry["dim"], entry["group"], entry["increment"]))
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
        fields = []
        for field in self._fields:
            moved = copy.copy(field)
            moved.value = field.value.to(device) if field.is_tensor else field.value
            moved.increment = field.increment.to(device) if isinstance(field.increment, Tensor) else field.increment
            fields.append(moved)
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
        """
        index = index.to(self.device)
        for graphs, block_sizes in blocks(index, batch_sizes(len(index), sizes), self.nbytes / len(self)):
            yield from self._block(graphs, block_sizes, device)

    def _block(self, graphs: Tensor, sizes: list[int], device: torch.device | None) -> Iterator[Batch]:
        """Gather the graphs of several batches at once and yield a batch for each of ``sizes``."""
        size = torch.tensor(sizes, device=graphs.device)
        first = size.cumsum(0) - size  # position of each batch's first graph in the block
        ends = torch.cat([first, size.sum(0, keepdim=True)])
        number = torch.arange(len(sizes), device=graphs.device)
        of_batch = number.repeat_interleave(size, output_size=len(graphs))
        # offsets run over size + 1 entries a batch; entry e of the block is offset e - (batch number) of the ranges
        entries = len(graphs) + len(sizes)
        of_entry = number.repeat_interleave(size + 1, output_size=entries)
        entry = torch.arange(entries, device=graphs.device) - of_entry

        counts, starts, bounds, pointers = [], [], [], []
        for lengths in self._counts:
            count = lengths[graphs]
            start = torch.zeros(len(graphs) + 1, dtype=torch.int64, device=graphs.device)
            torch.cumsum(count, 0, out=start[1:])
            counts.append(count)
            starts.append(start)
            bounds.append(start[ends])
            pointers.append(start[entry] - start[first][of_entry])
        parts = (torch.stack(bounds)[:, 1:] - torch.stack(bounds)[:, :-1]).tolist()  # the one sync of a block
        totals = [sum(part) for part in parts]

        rows: list[Tensor | None] = [graphs] + [None] * (len(self._slices) - 1)
        columns: list[Any] = []
        increments: list[Any] = []
        for field in self._fields:
            if not field.is_tensor:
                host = field.value[graphs.cpu().numpy()]
                columns.append(np.split(host, np.cumsum(sizes)[:-1]))
                increments.append(None)
                continue
            row = rows[field.group]
            if row is None:
                shift = self._slices[field.group][graphs] - starts[field.group][:-1]
                row = shift.repeat_interleave(counts[field.group], output_size=totals[field.group])
                row += self._range(totals[field.group])
                rows[field.group] = row
            gathered = _gather(field, row)
            added = self._added(field, graphs, starts[1], first, of_batch)
            if added is not None:
                each = added.repeat_interleave(counts[field.group], 0, output_size=totals[field.group])
                gathered += _along(each, gathered.dim(), field.dim)
            if device is not None:
                gathered = gathered.to(device, non_blocking=True)
            columns.append(gathered.split(parts[field.group], field.dim))
            increments.append(None if added is None else added.split(sizes))

        local = torch.arange(len(graphs), device=graphs.device) - first[of_batch]
        batch = local.repeat_interleave(counts[1], output_size=totals[1])
        shared = [batch, graphs, *pointers]
        if device is not None:
            shared = [tensor.to(device, non_blocking=True) for tensor in shared]
        batch_views = shared[0].split(parts[1])
        idx_views = shared[1].split(sizes)
        pointer_views = [pointer.split([size + 1 for size in sizes]) for pointer in shared[2:]]
        zeros = torch.zeros(max(sizes), dtype=torch.int64, device=shared[0].device)
        num_nodes = np.split(counts[1].cpu().numpy(), np.cumsum(sizes)[:-1]) if self._listed_num_nodes else None
        for position, count_of_graphs in enumerate(sizes):
            mapping: dict[Any, Any] = {}
            slice_dict: dict[Any, Any] = {}
            inc_dict: dict[Any, Any] = {}
            for field, column, increment in zip(self._fields, columns, increments, strict=True):
                if field.is_tensor:
                    value = column[position]
                    inc = zeros[:count_of_graphs] if increment is None else increment[position]
                else:
                    value, inc = column[position].tolist(), None
                pointer = pointer_views[field.group][position]
                if self._simple:
                    name = field.path[0]
                    mapping[name], slice_dict[name], inc_dict[name] = value, pointer, inc
                else:
                    for target, leaf in ((mapping, value), (slice_dict, pointer), (inc_dict, inc)):
                        _insert(target, field.path, leaf)
            if not self._simple:
                mapping, slice_dict, inc_dict = _lists(mapping), _lists(slice_dict), _lists(inc_dict)
            hidden = {}
            if num_nodes is not None:
                hidden["_num_nodes"] = num_nodes[position].tolist()
                mapping["num_nodes"] = parts[1][position]
            mapping["batch"] = batch_views[position]
            mapping["ptr"] = pointer_views[1][position]
            mapping.setdefault("idx", idx_views[position])
            yield self._batch(mapping, count_of_graphs, slice_dict, inc_dict, hidden)

    def _range(self, length: int) -> Tensor:
        """Return 0, 1, ..., from a buffer that is kept, since filling it costs as much as a gather."""
        if len(self._ascending) < length:
            self._ascending = torch.arange(length, device=self.device)
        return self._ascending[:length]

    def _added(self, field: _Field, graphs: Tensor, nodes: Tensor, first: Tensor, of_batch: Tensor) -> Tensor | None:
        """Return what each graph of a block adds to an index field: the sum over the graphs before it in its batch."""
        if field.increment is None:
            return None
        if isinstance(field.increment, str):  # "nodes"
            return nodes[:-1] - nodes[first][of_batch]
        steps = field.increment[graphs]
        before = steps.cumsum(0) - steps
        return before - before[first][of_batch]

    def _batch(
        self,
        mapping: dict[Any, Any],
        num_graphs: int,
        slice_dict: dict[Any, Any],
        inc_dict: dict[Any, Any],
        hidden: dict[str, Any],
    ) -> Batch:
        # What Batch.from_data_list ends with, without its constructor, which costs forty times as much.
        template = self._template
        batch = object.__new__(type(template))
        batch.__dict__.update(template.__dict__)
        storage = object.__new__(type(template._store))
        storage.__dict__.update(
            hidden,
            _mapping=mapping,
            _parent=weakref.ref(batch),
            _num_graphs=num_graphs,
            _slice_dict=slice_dict,
            _inc_dict=inc_dict,
        )
        batch.__dict__["_store"] = storage
        return batch


def _is_sparse(value: Any) -> bool:
    return (isinstance(value, Tensor) and value.layout != torch.strided) or type(value).__name__ == "SparseTensor"


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
    elements = [_follow(graph[path[0]], path[1:]) for graph in graphs]
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


def _gather(field: _Field, position: Tensor) -> Tensor:
    value: Tensor = field.value
    if field.dim == 0:
        return value.index_select(0, position)
    if value.dim() == 2:  # half the time of index_select over the last dimension
        gathered = value.new_empty(len(value), len(position))
        for row, out in zip(value, gathered, strict=True):
            torch.gather(row, 0, position, out=out)
        return gathered
    return value.index_select(field.dim, position)


def _along(each: Tensor, rank: int, dim: int) -> Tensor:
    """Lay increments (M, *) out so that they broadcast over a gathered field with M entries along ``dim``."""
    if each.dim() == 1:
        return each.view([-1 if axis == dim else 1 for axis in range(rank)])
    padded = each.reshape(len(each), *[1] * (rank - each.dim() + 1), *each.shape[1:])
    return padded.squeeze(dim + 1).movedim(0, dim)


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
