"""Store of many graphs as packed tensors, which yields PyG batches at the cost of a copy."""

import dataclasses
import operator
import weakref
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self, cast

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data
from torch_geometric.data.collate import collate
from torch_geometric.data.storage import recursive_apply

from graphseq.core.batches import STORE_POSITIONS
from graphseq.core.errors import DataError
from graphseq.data.graphs.fields import Field, Skeleton, check_alike, check_rows, fill, objects, pack
from graphseq.data.graphs.layout import BlockLayout, add_in_place, add_to_entries, spread
from graphseq.data.store import (
    BLOCK_BYTES,
    DEVICE_BLOCK_BYTES,
    Index,
    batch_sizes,
    blocks,
    positions,
    retain_freed_memory,
)

__all__ = ["GraphStore"]


class GraphStore:
    r"""Many graphs packed into one tensor for each field; batches are PyG ``Batch`` objects equal to PyG's own.

    Joining graphs :math:`g_1, \dots, g_B` is, for each field, a gather of the ranges
    :math:`[s_{g}, s_{g+1})` and for index fields the addition of :math:`\sum_{j<i} n_{g_j}`. The store does this for
    a block of many batches at once and yields views of the block: no Python code per graph, and no synchronisation.
    A batch knows the position of each graph in the store, see :func:`graphseq.core.sample_positions`. It carries them
    as ``idx`` as well, unless the graphs have a field ``idx`` of their own, which is not changed.

    Memory: the packed fields, plus at most two blocks of about 4 MB while iterating.

    Use :meth:`from_dataset` to build a store; the constructor takes packed fields.

    Args:
        fields: packed leaves of all fields.
        slices: offsets (G + 1,) for each group of fields; group 0 has one row per graph, group 1 one row per node.
        data_class: class of one graph.
        listed_num_nodes: whether graphs have ``num_nodes`` as a field.
        skeletons: numbers of the leaves of each field, nested like the field; default one leaf for each name.

    Example:
        >>> graphs = [Data(x=torch.ones(n, 2), edge_index=torch.tensor([[0], [1]])) for n in (2, 3)]
        >>> GraphStore.from_dataset(graphs).take(torch.tensor([1, 0])).edge_index
        tensor([[0, 3],
                [1, 4]])
    """

    def __init__(
        self,
        fields: list[Field],
        slices: list[Tensor],
        data_class: type[Data],
        listed_num_nodes: bool,
        skeletons: dict[str, Skeleton] | None = None,
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
        flat: dict[str, Skeleton] = {field.path[0]: number for number, field in enumerate(fields)}
        self._skeletons = flat if skeletons is None else skeletons
        self._nested = any(len(field.path) > 1 for field in fields)
        self._names = list(self._skeletons)
        for field in fields:
            if field.is_tensor and field.dim not in (0, field.value.dim() - 1):
                raise DataError(
                    f"field {field.label} is joined along dimension {field.dim}; only the first or last can be"
                )

    @classmethod
    def from_dataset(cls, dataset: Iterable[Data]) -> Self:
        """Pack a PyG data set or any sequence of ``Data``.

        Every kind of field is kept: node, edge and graph level, any rank and dtype, ``*_index`` fields and others
        with an ``__inc__`` or ``__cat_dim__`` of their own, dictionaries and lists of tensors, strings and other
        objects (kept on the CPU). ``EdgeIndex`` fields become plain tensors.

        Args:
            dataset: graphs of one class with the same fields.

        Raises:
            DataError: if there are no graphs; the fields of graphs differ in name, kind,
                dtype, keys, length or shape; a field of nodes or edges has another number of rows, see
                :func:`graphseq.data.graphs.fields.check_rows`; an edge index is out of range or of a wrong type; a
                feature is NaN or infinite; a field is a sparse tensor; or the number of nodes is not known. The message
                names the field and the graph.
        """
        graphs = list(dataset)
        if not graphs:
            raise DataError("the data set is empty; a GraphStore needs at least one graph")
        # the order of Data.keys() is that of a set, which differs between runs
        keys = list(graphs[0].to_dict()) if isinstance(graphs[0], Data) else []
        for position, graph in enumerate(graphs):
            if not isinstance(graph, Data):
                raise DataError(
                    f"graph {position} is a {type(graph).__name__}; a GraphStore takes torch_geometric Data"
                )
            if type(graph) is not type(graphs[0]):
                raise DataError(
                    f"graph {position} is a {type(graph).__name__}, graph 0 a {type(graphs[0]).__name__}; all must be "
                    "of one class"
                )
            if set(graph.keys()) != set(keys):
                different = sorted(set(graph.keys()) ^ set(keys))
                raise DataError(f"graph {position} and graph 0 differ in fields {different}; all need the same fields")
            _check_reserved(graph, position)
        check_alike(graphs, [key for key in keys if key not in ("num_nodes", "ptr")])
        counts = torch.tensor([_num_nodes(graph, position) for position, graph in enumerate(graphs)])
        joined, slices, _ = collate(graphs[0].__class__, graphs, increment=False, add_batch=False)
        groups = [torch.arange(len(graphs) + 1), torch.cat([counts.new_zeros(1), counts.cumsum(0)])]
        fields: list[Field] = []
        packed = [name for name in keys if name in slices]
        skeletons = {name: pack(graphs, name, joined[name], slices[name], groups, fields) for name in packed}
        store = cls(fields, groups, type(graphs[0]), "num_nodes" in keys, skeletons)
        check_rows(fields, store._counts, graphs[0])
        store._check()
        return store

    def to_dict(self) -> dict[str, Any]:
        """Return the store as tensors and plain data, to be saved and opened with ``weights_only=True``.

        Raises:
            DataError: if graphs are of a subclass of ``Data``, whose rules for joining fields cannot be saved.
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
        return {
            "fields": fields,
            "slices": self._slices,
            "listed_num_nodes": self._listed_num_nodes,
            "skeletons": self._skeletons,
        }

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Self:
        """Return the store from the dictionary of :meth:`to_dict`.

        Args:
            state: dictionary that :meth:`to_dict` returned.
        """
        fields = []
        for entry in state["fields"]:
            value = entry["value"] if isinstance(entry["value"], Tensor) else objects(entry["value"])
            steps = entry["increment"].cpu() if isinstance(entry["increment"], Tensor) else entry["increment"]
            fields.append(Field(tuple(entry["path"]), value, entry["dim"], entry["group"], steps))
        return cls(fields, state["slices"], Data, state["listed_num_nodes"], state.get("skeletons"))

    def _check(self) -> None:
        nodes = self._counts[1]
        for field in self._fields:
            name, value = field.path[0], field.value
            if not field.is_tensor:
                if name in ("x", "edge_index", "edge_attr", "edge_weight", "pos"):
                    given = type(value[0]).__name__
                    raise DataError(f"{name} of graph 0 is a {given}; give a tensor, such as torch.as_tensor({name})")
                continue
            if name in ("x", "edge_attr", "pos", "edge_weight", "y") and value.is_floating_point():
                bad = torch.isinf(value) if name == "y" else ~torch.isfinite(value)  # NaN is an unknown target
                if bad.any():
                    row = int(bad.flatten(1).any(1).nonzero()[0, 0]) if value.dim() > 1 else int(bad.nonzero()[0, 0])
                    graph = int(torch.searchsorted(self._slices[field.group], row, right=True)) - 1
                    raise DataError(
                        f"{name} holds {int(bad.sum())} {'' if name == 'y' else 'NaN or '}infinite values, the first "
                        f"in graph {graph}; fill or drop them before packing"
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
        """Return one graph as PyG ``Data``; negative positions count from the end.

        Raises:
            TypeError: if ``position`` is not an integer; :meth:`take` returns several graphs as a batch.
            IndexError: if ``position`` is out of range.
        """
        try:
            place = operator.index(position)
        except TypeError:
            place = None
        if place is None or isinstance(position, bool) or (isinstance(position, Tensor) and position.dim()):
            raise TypeError(
                f"position is a {type(position).__name__}; give one integer, or use take(index) for a batch of several "
                "graphs, where index may be a list, a slice, an array or a mask"
            )
        if not -len(self) <= place < len(self):
            raise IndexError(f"graph {place} of {len(self)}")
        return self.take(torch.tensor([place % len(self)]))[0]

    def __repr__(self) -> str:
        return f"GraphStore({len(self)} graphs, {sorted(self._names)}, {self.nbytes / 2**20:.1f} MB, {self.device})"

    @property
    def device(self) -> torch.device:
        """Device of the tensors."""
        return self._slices[0].device

    @property
    def nbytes(self) -> int:
        """Memory of the tensors in bytes, including offsets."""
        return sum(f.value.nbytes for f in self._fields if f.is_tensor) + sum(s.nbytes for s in self._slices)

    @property
    def names(self) -> list[str]:
        """Names of the fields of a graph, without ``num_nodes``."""
        return list(self._names)

    @property
    def num_nodes(self) -> Tensor:
        """Number of nodes of each graph, int64 (G,)."""
        return self._counts[1]

    def field(self, name: str) -> Any:
        """Return one packed field, such as ``x`` of all graphs (N, D), or None if graphs do not have it.

        Args:
            name: top-level name of a field.
        """
        return next((field.value for field in self._fields if field.path == (name,)), None)

    def with_field(self, name: str, value: Tensor) -> Self:
        """Return the store with an added or replaced field that has one row for each graph.

        Args:
            name: name of the field.
            value: one row for each graph, (G, *).

        Raises:
            DataError: if ``value`` does not have one row for each graph.
        """
        if not value.dim() or len(value) != len(self):
            rows = f"{len(value)} rows" if value.dim() else "no dimension"
            raise DataError(f"{name} has {rows} for {len(self)} graphs; one row for each is needed")
        if name in ("batch", "ptr", "num_nodes"):
            raise DataError(f"name is {name!r}, which a batch uses itself; choose another")
        kept = [number for number, field in enumerate(self._fields) if field.path[0] != name]
        fields = [*(self._fields[number] for number in kept), Field((name,), value.to(self.device), 0, 0)]
        place = {number: new for new, number in enumerate(kept)}
        others = {key: part for key, part in self._skeletons.items() if key != name}
        skeletons = cast(dict[str, Skeleton], fill(others, [place.get(n) for n in range(len(self._fields))]))
        return type(self)(
            fields, self._slices, self._data_class, self._listed_num_nodes, {**skeletons, name: len(kept)}
        )

    def offsets(self, name: str) -> Tensor:
        """Return the offsets of the graphs in a packed field, int64 (G + 1,).

        Args:
            name: top-level name of a field.

        Raises:
            KeyError: if graphs do not have the field.
        """
        for field in self._fields:
            if field.path == (name,):
                return self._slices[field.group]
        raise KeyError(f"graphs have no field {name!r}; they have {', '.join(sorted(map(str, self._names)))}")

    def to(self, device: torch.device | str) -> Self:
        """Return the store with its tensors on ``device``; tensors that are on it already are shared."""
        fields = [
            dataclasses.replace(field, value=field.value.to(device) if field.is_tensor else _moved(field.value, device))
            for field in self._fields
        ]
        slices = [offsets.to(device) for offsets in self._slices]
        return type(self)(fields, slices, self._data_class, self._listed_num_nodes, self._skeletons)

    def take(self, index: Index) -> Batch:
        """Return the graphs ``index`` as one batch.

        Args:
            index: positions of graphs from 0: a tensor, array or list of integers (B,), a slice, or a mask (G,).

        Raises:
            DataError: if ``index`` is none of these, or empty.
            IndexError: if a position is not in 0..G-1.
        """
        order = positions(index, len(self))
        if not len(order):
            raise DataError("index is empty; a batch needs at least one graph")
        return next(self.batches(order, [len(order)]))

    def batches(self, index: Index, sizes: int | Sequence[int], device: torch.device | None = None) -> Iterator[Batch]:
        """Yield the graphs ``index`` in batches.

        Args:
            index: positions of graphs from 0: a tensor, array or list of integers (M,), a slice, or a mask (G,).
            sizes: size of all batches, or a list with the size of each batch.
            device: device of the batches; default that of the store.

        Raises:
            DataError: if ``index`` is none of these.
            IndexError: if a position is not in 0..G-1.
        """
        order = positions(index, len(self)).cpu()
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
            yield self._batch(mapping, num_graphs, slice_dict, inc_dict, hidden, idx[position])

    def _columns(self, layout: BlockLayout, device: torch.device) -> tuple[list[Any], list[Any]]:
        """Return for each field its values in each batch of a block, and the increments of each graph."""
        values: list[Any] = []
        increments: list[Any] = []
        rows: dict[int, Tensor] = {0: torch.from_numpy(layout.graphs).to(self.device)}
        zeros = torch.zeros(len(layout.graphs), dtype=torch.int64, device=device).split_with_sizes(layout.sizes)
        for field in self._fields:
            if not field.is_tensor:
                chosen = field.value[layout.graphs]
                chosen = chosen if device == self.device else _moved(chosen, device)
                values.append([part.tolist() for part in layout.split(chosen)])
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
        """Return the positions of the entries of a block in a group of packed fields."""
        shift = layout.begin[group] - layout.starts[group]
        rows = spread(shift, layout.counts[group], self.device)
        if len(self._ascending) < len(rows):  # kept, since filling it costs as much as a gather
            self._ascending = torch.arange(len(rows), device=self.device)
        add_in_place(rows, self._ascending[: len(rows)])
        return rows

    def _nest(self, leaves: list[Any]) -> dict[Any, Any]:
        """Return values of leaves as a dictionary of fields, nested like the fields of a graph."""
        if not self._nested:
            return dict(zip(self._names, leaves, strict=True))
        return fill(self._skeletons, leaves)

    def _batch(
        self,
        mapping: dict[Any, Any],
        num_graphs: int,
        slice_dict: dict[Any, Any],
        inc_dict: dict[Any, Any],
        hidden: dict[str, Any],
        place: Tensor,
    ) -> Batch:
        # The last steps of Batch.from_data_list, without its constructor, which takes forty times as long.
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
        # beside the fields, where no attribute of a user's graph can overwrite it
        batch.__dict__.update(self._template.__dict__, _store=storage, **{STORE_POSITIONS: place})
        return batch


def _moved(values: np.ndarray, device: torch.device | str) -> np.ndarray:
    """Return objects with the tensors inside them on another device, as PyG moves those of a batch."""
    return objects([recursive_apply(value, lambda tensor: tensor.to(device)) for value in values])


def _num_nodes(graph: Data, position: int) -> int:
    try:
        number = graph.num_nodes
    except (IndexError, RuntimeError) as error:  # PyG reads it off any field with "node" in its name
        names = [key for key in graph.keys() if "node" in key]  # noqa: SIM118 - a Data is not a dictionary
        raise DataError(
            f"the number of nodes of graph {position} cannot be read off fields {names}: {error}; set num_nodes"
        ) from error
    if number is None:
        raise DataError(
            f"the number of nodes of graph {position} is not known: it has no x, edge_index or num_nodes; set num_nodes"
        )
    return int(number)


def _check_reserved(graph: Data, position: int) -> None:
    own = graph.get("batch")
    if own is None or (isinstance(own, Tensor) and not own.is_floating_point() and not bool(own.any())):
        return  # zeros, as they are given to a single graph, are what a batch of it has
    raise DataError(f"graph {position} has a field batch, where a batch keeps the graph of each node; rename it")
