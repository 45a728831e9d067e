"""Surroundings of nodes as graphs: the nodes within some hops of a node and all edges between them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Unpack, cast

import torch
from torch import Tensor
from torch.nn import functional
from torch_geometric.data import Data

from graphseq.core.errors import DataError
from graphseq.data.graphs.fields import Field
from graphseq.data.graphs.module import GraphOptions, GraphSetDataModule
from graphseq.data.graphs.store import GraphStore
from graphseq.data.nodes.module import STAGES, NodeDataModule
from graphseq.ops import segment_smallest

__all__ = ["InducedSubgraphs", "NodeSubgraphDataModule", "induced_subgraphs"]

_PAIRS = 20_000_000  # pairs of center and neighbour that are looked at together: below a gigabyte


@dataclass
class InducedSubgraphs:
    """Subgraphs of one graph, one after the other.

    Args:
        node: node of the graph that each node of a subgraph is, ascending in each subgraph, int64 (M,).
        ptr: first node of each subgraph and, last, their number, int64 (C+1,).
        edge_index: edges, each subgraph numbered from 0, int64 (2, F).
        edge_ptr: first edge of each subgraph and, last, their number, int64 (C+1,).
        edge: edge of the graph that each edge is, int64 (F,).
        center: place of the center in its subgraph, int64 (C,).

    Example:
        >>> subgraphs = induced_subgraphs(torch.tensor([[0, 1], [1, 2]]), 3, torch.tensor([2, 0]), num_hops=1)
        >>> subgraphs.node.tolist(), subgraphs.ptr.tolist()
        ([1, 2, 0], [0, 2, 3])
    """

    node: Tensor
    ptr: Tensor
    edge_index: Tensor
    edge_ptr: Tensor
    edge: Tensor
    center: Tensor


def induced_subgraphs(
    edge_index: Tensor,
    num_nodes: int,
    centers: Tensor,
    num_hops: int,
    *,
    max_nodes: int | None = None,
    seed: int = 0,
) -> InducedSubgraphs:
    """Return the subgraphs of the nodes from which messages reach given nodes within some hops.

    All centers are extended together, hop by hop. Where a hop would bring more nodes than ``max_nodes``, those that
    fit are drawn at random, so that nearer nodes come first.

    Args:
        edge_index: edges from row 0 to row 1.
        num_nodes: number of nodes of the graph.
        centers: nodes whose surroundings are taken.
        num_hops: number of hops, at least 0.
        max_nodes: largest number of nodes of a subgraph, at least 1; None for no limit.
        seed: seed of the random choice of nodes where there are too many.

    Shape:
        edge_index (2, E), centers (C,)

    Raises:
        ValueError: if ``num_hops`` or ``max_nodes`` is out of range, or a center or an end of an edge is no node.

    Example:
        >>> edges = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
        >>> induced_subgraphs(edges, 3, torch.tensor([0]), num_hops=1).edge_index
        tensor([[1, 0],
                [0, 1]])
    """
    if num_hops < 0:
        raise ValueError(f"num_hops is {num_hops}; it must be at least 0")
    if max_nodes is not None and max_nodes < 1:
        raise ValueError(f"max_nodes is {max_nodes}; it must be at least 1")
    for name, index in (("centers", centers), ("edge_index", edge_index)):
        if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < num_nodes:
            raise ValueError(f"{name} ranges from {int(index.min())} to {int(index.max())}; the graph has {num_nodes}"
                             " nodes")  # fmt: skip
    order = edge_index[1].argsort(stable=True)
    sources = edge_index[0, order]
    begin = functional.pad(torch.bincount(edge_index[1], minlength=num_nodes).cumsum(0), (1, 0))
    generator = torch.Generator().manual_seed(seed)
    largest = min(num_nodes, max_nodes or num_nodes) * max(1, int(begin.diff().max()) if num_nodes else 1)
    parts = [
        _subgraphs(sources, order, begin, num_nodes, some, num_hops, max_nodes, generator)
        for some in centers.split(max(1, _PAIRS // largest))
    ]
    return InducedSubgraphs(
        node=torch.cat([part.node for part in parts]),
        ptr=functional.pad(torch.cat([part.ptr.diff() for part in parts]).cumsum(0), (1, 0)),
        edge_index=torch.cat([part.edge_index for part in parts], 1),
        edge_ptr=functional.pad(torch.cat([part.edge_ptr.diff() for part in parts]).cumsum(0), (1, 0)),
        edge=torch.cat([part.edge for part in parts]),
        center=torch.cat([part.center for part in parts]),
    )


def _subgraphs(
    sources: Tensor,
    edges: Tensor,
    begin: Tensor,
    num_nodes: int,
    centers: Tensor,
    num_hops: int,
    max_nodes: int | None,
    generator: torch.Generator,
) -> InducedSubgraphs:
    """Return the subgraphs of some centers; a node of a subgraph is the key (number of the center, node)."""
    count = len(centers)
    own = torch.arange(count) * num_nodes + centers
    reached = frontier = own  # sorted
    for _ in range(num_hops):
        _, found = _incoming(begin, frontier, num_nodes)
        wanted = ((frontier // num_nodes)[found[0]] * num_nodes + sources[found[1]]).unique()
        new = wanted[~_among(wanted, reached)]
        if max_nodes is not None:
            graph = new // num_nodes
            room = max_nodes - torch.bincount(reached // num_nodes, minlength=count)
            bounds = functional.pad(torch.bincount(graph, minlength=count).cumsum(0), (1, 0))
            new = new[segment_smallest(torch.rand(len(new), generator=generator), room, bounds)]
        reached, frontier = torch.cat([reached, new]).sort().values, new
        if not len(new):
            break
    graph = reached // num_nodes
    ptr = functional.pad(torch.bincount(graph, minlength=count).cumsum(0), (1, 0))
    _, found = _incoming(begin, reached, num_nodes)
    from_keys = graph[found[0]] * num_nodes + sources[found[1]]
    inside = _among(from_keys, reached)
    target, from_keys, place = found[0, inside], from_keys[inside], found[1, inside]
    of_edge = graph[target]
    source = torch.searchsorted(reached, from_keys)
    return InducedSubgraphs(
        node=reached % num_nodes,
        ptr=ptr,
        edge_index=torch.stack([source, target]) - ptr[of_edge],
        edge_ptr=functional.pad(torch.bincount(of_edge, minlength=count).cumsum(0), (1, 0)),
        edge=edges[place],
        center=torch.searchsorted(reached, own) - ptr[:-1],
    )


def _incoming(begin: Tensor, keys: Tensor, num_nodes: int) -> tuple[Tensor, Tensor]:
    """Return the number of incoming edges of each key, and pairs (place among the keys, place among the edges)."""
    node = keys % num_nodes
    counts = begin[node + 1] - begin[node]
    row = torch.arange(len(keys)).repeat_interleave(counts)
    first = counts.cumsum(0) - counts
    return counts, torch.stack([row, begin[node][row] + torch.arange(len(row)) - first[row]])


def _among(keys: Tensor, known: Tensor) -> Tensor:
    """Whether keys are among sorted known ones."""
    if not len(known):
        return torch.zeros_like(keys, dtype=torch.bool)
    return known[torch.searchsorted(known, keys).clamp(max=len(known) - 1)] == keys


class NodeSubgraphDataModule(GraphSetDataModule):
    """Nodes of a graph as graphs: each is classified by the subgraph of its surroundings.

    A label of a node is that of its subgraph, so that methods for whole graphs, such as prompts, apply to nodes. The
    surroundings may hold nodes of other splits, whose labels are not used (transductive learning).

    Args:
        source: data module of one graph with masks, such as ``PlanetoidDataModule``; its options choose the split and,
            by ``pre_transform``, the features, such as ``torch_geometric.transforms.SVDFeatureReduction``.
        num_hops: number of hops around a node, at least 0.
        max_nodes: largest number of nodes of a subgraph, at least 1; where there are more, nearer ones come first and
            of the last hop some are drawn with ``seed``. None for no limit.
        min_nodes: number of nodes below which a subgraph is left out of all splits, at least 1.
        batch_size: number of training subgraphs of one batch over all processes, at least 1.
        options: further arguments of :class:`GraphSetDataModule`, such as ``shots_per_class``.

    Yields:
        PyG ``Batch`` with ``x``, ``edge_index``, ``y``, ``n_id`` (node of the graph), ``center_index`` (row of the
        node that is classified), and ``edge_attr`` and ``edge_weight`` if the graph has them.

    Raises:
        ValueError: if an argument is out of range.
        DataError: when the data are read, if no training subgraph is large enough.

    Example:
        >>> graph = Data(x=torch.eye(20), edge_index=torch.arange(20).repeat(2, 1).sub(torch.tensor([[0], [1]])) % 20,
        ...              y=torch.tensor([0, 1] * 10))
        >>> data = NodeSubgraphDataModule(NodeDataModule(graph, split="stratified"), num_hops=2)
        >>> data.graphs[0].num_nodes, data.num_features, data.num_outputs
        (3, 20, 2)
    """

    def __init__(
        self,
        source: NodeDataModule,
        *,
        num_hops: int = 2,
        max_nodes: int | None = None,
        min_nodes: int = 1,
        batch_size: int = 128,
        **options: Unpack[GraphOptions],
    ) -> None:
        super().__init__(batch_size, **options)
        least: Sequence[tuple[str, int | None, int]] = (
            ("num_hops", num_hops, 0), ("max_nodes", max_nodes, 1), ("min_nodes", min_nodes, 1),
        )  # fmt: skip
        for name, value, bound in least:
            if value is not None and value < bound:
                raise ValueError(f"{name} is {value}; it must be at least {bound}")
        if max_nodes is not None and max_nodes < min_nodes:
            raise ValueError(f"max_nodes is {max_nodes}, below min_nodes={min_nodes}; no subgraph has both")
        self.source = source
        self.num_hops, self.max_nodes, self.min_nodes = num_hops, max_nodes, min_nodes

    def read(self) -> tuple[GraphStore, dict[str, Tensor]]:
        """Return the packed subgraphs of the nodes of all splits."""
        graph = self.source.graph
        labels, edge_index = cast(Tensor, graph.y), cast(Tensor, graph.edge_index)
        if labels.dim() == 1 and not labels.is_floating_point():
            usable = labels >= 0
        else:
            usable = torch.ones(len(labels), dtype=torch.bool)
        masks: dict[str, Tensor] = {stage: graph[f"{stage}_mask"] & usable for stage in STAGES}
        centers = torch.cat([mask.nonzero().flatten() for mask in masks.values()])
        found = induced_subgraphs(
            edge_index, self.source.num_nodes, centers, self.num_hops, max_nodes=self.max_nodes, seed=self.seed
        )
        store = GraphStore(
            [
                Field(("x",), cast(Tensor, graph.x)[found.node], 0, 1),
                Field(("edge_index",), found.edge_index, 1, 2, "nodes"),
                Field(("y",), labels[centers], 0, 0),
                Field(("n_id",), found.node, 0, 1),
                Field(("center_index",), found.center, 0, 0, "nodes"),
                *(
                    Field((name,), graph[name][found.edge], 0, 2)
                    for name in ("edge_attr", "edge_weight")
                    if isinstance(graph.get(name), Tensor)
                ),
            ],
            [torch.arange(len(centers) + 1), found.ptr, found.edge_ptr],
            Data,
            listed_num_nodes=False,
        )
        large = store.num_nodes >= self.min_nodes
        bounds = [int(mask.sum()) for mask in masks.values()]
        parts = torch.arange(len(centers)).split(bounds)
        splits: dict[str, Tensor] = {stage: part[large[part]] for stage, part in zip(STAGES, parts, strict=True)}
        if not len(splits["train"]):
            raise DataError(f"no training subgraph has min_nodes={self.min_nodes} nodes; the largest has "
                            f"{int(store.num_nodes.max())}")  # fmt: skip
        return store, splits
