"""Transforms of graphs: checks of those applied to whole batches, and transforms of single graphs before packing."""

import hashlib
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import torch
import torch_geometric
import torch_geometric.transforms as T
from torch import Tensor
from torch_geometric.data import Batch, Data
from torch_geometric.transforms import BaseTransform

from graphseq.core.errors import DataError
from graphseq.core.random import seeded
from graphseq.data.cache import cached
from graphseq.data.graphs.store import GraphStore

__all__: list[str] = []

# the class is named, since in configs a class in the place of Callable[[Data], Data] would have to be one of Data
GraphTransform: TypeAlias = BaseTransform | Callable[[Data], Data]
"""A transform of PyG, or another callable from one graph to one graph."""

_FORMAT = "pre-transform-1"
_AT_ONCE = 256


def _always(transform: Any) -> bool:
    return True


def _without_norm(transform: Any) -> bool:
    return not transform.norm  # which divides by the largest value, that of all graphs of a batch


SAFE: dict[type[BaseTransform], Callable[[Any], bool]] = {
    T.AddRandomWalkPE: _always,
    T.AddRemainingSelfLoops: _always,
    T.AddSelfLoops: _always,
    T.Cartesian: _without_norm,
    T.Constant: _always,
    T.Distance: _without_norm,
    T.FaceToEdge: _always,
    T.GCNNorm: _always,
    T.GenerateMeshNormals: _always,
    T.LinearTransformation: _always,
    T.LocalCartesian: _always,
    T.LocalDegreeProfile: _always,
    T.OneHotDegree: _always,
    T.Polar: _without_norm,
    T.RandomJitter: _always,
    T.RemoveDuplicatedEdges: _always,
    T.RemoveSelfLoops: _always,
    T.SIGN: _always,
    T.Spherical: _without_norm,
    T.TargetIndegree: _without_norm,
    T.ToDevice: _always,
    T.ToUndirected: _always,
}
"""Transforms of PyG that do the same to a batch as to its graphs one by one, up to the order of edges, and when.

A test compares them. All others are refused, those that would do the same to some graphs only as well.
"""


def _steps(transform: Any) -> Iterator[Any]:
    """Yield the steps of a transform: the parts of PyG's ``Compose`` and ``ComposeFilters`` and of torch containers."""
    if isinstance(transform, T.Compose):
        for part in transform.transforms:
            yield from _steps(part)
    elif isinstance(transform, T.ComposeFilters):
        for part in transform.filters:
            yield from _steps(part)
    elif isinstance(transform, torch.nn.Module):
        yield from (module for module in transform.modules())
    else:
        yield transform


def check_batch_transform(argument: str, transform: Any) -> bool:
    """Refuse a transform of PyG that mixes the graphs of a batch; return whether every step is known to be safe.

    Args:
        argument: name of the argument that holds the transform, for the error message.
        transform: any callable.

    Raises:
        ValueError: if it is, contains, or derives from a transform of PyG that is not in ``SAFE``.

    Example:
        >>> check_batch_transform("train_transform", T.Compose([T.ToUndirected(), T.AddSelfLoops()]))
        True
    """
    known = True
    for step in _steps(transform):
        kind = next((one for one in type(step).__mro__ if one.__module__.startswith("torch_geometric.")), None)
        if kind is None or not issubclass(kind, BaseTransform) or kind is BaseTransform:
            known = False
        elif kind not in SAFE or not SAFE[kind](step):
            options = " with norm=True" if kind in SAFE else ""
            raise ValueError(
                f"{argument} is or holds {type(step).__name__}{options}, which is meant for one graph and would mix "
                "the graphs of a batch; give it as pre_transform, which is applied to each graph before packing"
            )
        else:
            known = known and type(step) is kind
    return known


def check_transformed(argument: str, transform: Any, batch: Any, num_graphs: int) -> None:
    """Refuse a transformed batch whose graphs are mixed.

    Args:
        argument: name of the argument that holds the transform, for the error message.
        transform: transform that was applied.
        batch: batch that it returned.
        num_graphs: number of graphs of the batch before the transform.

    Raises:
        DataError: if ``batch`` and ``ptr`` disagree with each other or the number of nodes, or an edge joins graphs.

    Example:
        >>> batch = Batch.from_data_list([Data(x=torch.ones(2, 1)), Data(x=torch.ones(3, 1))])
        >>> check_transformed("train_transform", None, batch, 2)
    """
    if not isinstance(batch, Batch):
        return
    of_node, ptr = batch.get("batch"), batch.get("ptr")
    wrong = None
    if not isinstance(of_node, Tensor) or not isinstance(ptr, Tensor):
        wrong = "has no `batch` or `ptr`"
    elif len(ptr) != num_graphs + 1:
        wrong = f"has {len(ptr) - 1} graphs, where {num_graphs} were given"
    elif not torch.equal(of_node, torch.arange(num_graphs, device=ptr.device).repeat_interleave(ptr.diff())):
        wrong = "has a `batch` that disagrees with its `ptr`"
    elif rows := [f"{len(batch[name])} rows of {name}" for name in _node_fields(batch, len(of_node))]:
        wrong = f"has {', '.join(rows)} and the graph of {len(of_node)} nodes"
    elif batch.get("edge_index") is not None and batch.edge_index.numel():
        edges = batch.edge_index
        if int(edges.max()) >= len(of_node) or bool((of_node[edges[0]] != of_node[edges[1]]).any()):
            wrong = "has edges between graphs"
    if wrong:
        name = getattr(transform, "__name__", type(transform).__name__)
        raise DataError(
            f"{argument} {name} is given whole batches, and what it returned {wrong}; keep the graphs apart, or give "
            "it as pre_transform, which is applied to each graph before packing"
        )


def _node_fields(batch: Batch, number: int) -> list[str]:
    """Return the fields of nodes that do not have ``number`` rows."""
    known = [(name, batch.get(name)) for name in ("x", "pos")]
    return [name for name, value in known if isinstance(value, Tensor) and len(value) != number]


def check_pre_transform(transform: GraphTransform | None) -> GraphTransform | None:
    """Return the argument ``pre_transform`` after a check.

    Args:
        transform: callable from one graph to one graph; None for no transform.

    Raises:
        TypeError: if it cannot be called.

    Example:
        >>> check_pre_transform(T.Center())
        Center()
    """
    if transform is not None and not callable(transform):
        raise TypeError(f"pre_transform is {transform!r}; give a callable from one graph to one graph")
    return transform


def transformed_graph(transform: GraphTransform, graph: Data, position: int) -> Data:
    """Return a graph after ``pre_transform``.

    Args:
        transform: callable from one graph to one graph.
        graph: the graph.
        position: position of the graph in its data set, for the error message.

    Raises:
        DataError: if the transform does not return a graph.

    Example:
        >>> transformed_graph(T.Center(), Data(pos=torch.tensor([[1.0, 2.0]])), 0).pos
        tensor([[0., 0.]])
    """
    made = transform(graph)
    if not isinstance(made, Data):
        raise DataError(f"pre_transform made a {type(made).__name__} of graph {position}; it must return one Data")
    return made


def pre_transformed(store: GraphStore, transform: GraphTransform, seed: int, name: str | None) -> GraphStore:
    """Return a store of graphs transformed one by one.

    Args:
        store: store of the graphs.
        transform: callable from one graph to one graph.
        seed: seed of torch, numpy and random while the transform runs; their states are restored.
        name: readable name of the entry in the cache; None for no caching. The result is not cached either if the
            transform holds more than numbers, strings and transforms of PyG, or the graphs are of a subclass.

    Raises:
        DataError: if the transform does not return a graph.

    Example:
        >>> store = GraphStore.from_dataset([Data(pos=torch.ones(2, 3)), Data(pos=torch.ones(4, 3))])
        >>> pre_transformed(store, T.Center(), 0, None)[1].pos.sum()
        tensor(0.)
    """

    def graphs() -> Iterator[Data]:
        everything = torch.arange(len(store))
        position = 0
        for batch in store.batches(everything, _AT_ONCE):
            for graph in batch.to_data_list():
                yield transformed_graph(transform, graph, position)
                position += 1

    def make() -> GraphStore:
        with seeded(seed):
            return GraphStore.from_dataset(graphs())

    text = _description(transform)
    if name is None or text is None:
        return make()
    try:
        state = store.to_dict()
    except DataError:
        return make()
    versions = (torch.__version__, torch_geometric.__version__)
    key = [_FORMAT, *versions, _digest(state), text, seed]
    return GraphStore.from_dict(cached(f"{name}-transformed", key, lambda: make().to_dict()))


def pre_transformed_graph(graph: Data, transform: GraphTransform, seed: int, name: str | None) -> Data:
    """Return one graph transformed; kept in the cache, since a reduction of features may take longer than training.

    Args:
        graph: graph, which is not changed.
        transform: callable from one graph to one graph.
        seed: seed of torch, numpy and random while the transform runs; their states are restored.
        name: readable name of the entry in the cache; None for no caching. The result is not cached either if the
            transform holds more than numbers, strings and transforms of PyG, or a graph holds more than tensors.

    Raises:
        DataError: if the transform does not return a graph.

    Example:
        >>> pre_transformed_graph(Data(pos=torch.tensor([[1.0], [3.0]])), T.Center(), 0, None).pos.T
        tensor([[-1.,  1.]])
    """

    def make() -> Data:
        with seeded(seed):
            return transformed_graph(transform, graph.clone(), 0)

    text = _description(transform)
    if name is None or text is None or not _holds_tensors(graph):
        return make()
    versions = (torch.__version__, torch_geometric.__version__)
    key = [_FORMAT, *versions, _digest(graph.to_dict()), text, seed]
    unkept: list[Data] = []

    def build() -> dict[str, Any]:
        made = make()
        if not _holds_tensors(made):
            unkept.append(made)
            return {}
        return made.to_dict()

    found = cached(f"{name}-transformed", key, build)
    if unkept or not found:
        return unkept[0] if unkept else make()
    return Data.from_dict(found)


def _holds_tensors(graph: Data) -> bool:
    return type(graph) is Data and all(isinstance(value, Tensor) for value in graph.to_dict().values())


def _description(value: Any) -> str | None:
    """Return a text that identifies what a transform does; None if that is not possible."""
    if value is None or isinstance(value, bool | int | float | str | torch.dtype):
        return repr(value)
    if isinstance(value, list | tuple):
        parts = [_description(part) for part in value]
        return None if None in parts else f"[{', '.join(map(str, parts))}]"
    if isinstance(value, dict):
        return _description([[str(key), part] for key, part in sorted(value.items(), key=lambda item: str(item[0]))])
    if isinstance(value, BaseTransform) and type(value).__module__.startswith("torch_geometric."):
        inner = _description(vars(value))
        return None if inner is None else f"{type(value).__name__}({inner})"
    return None


def _digest(value: Any) -> str:
    digest = hashlib.sha256()

    def add(part: Any) -> None:
        if isinstance(part, Tensor):
            digest.update(f"{part.dtype}{tuple(part.shape)}".encode())
            digest.update(part.contiguous().view(-1).view(torch.uint8).numpy().tobytes() if part.numel() else b"")
        elif isinstance(part, dict):
            for key, inner in part.items():
                digest.update(repr(key).encode())
                add(inner)
        elif isinstance(part, list | tuple):
            digest.update(str(len(part)).encode())
            for inner in part:
                add(inner)
        else:
            digest.update(repr(part).encode())

    add(value)
    return digest.hexdigest()
