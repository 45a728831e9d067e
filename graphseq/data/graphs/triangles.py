"""Random graphs with one to ten triangles, to be counted also on graphs larger than those of training."""

from typing import Unpack

import torch
from torch import Generator, Tensor
from torch.nn import functional

from graphseq.data.cache import cached
from graphseq.data.graphs.environments import check_num_environments, size_environments
from graphseq.data.graphs.module import GraphOptions, GraphSetDataModule
from graphseq.data.graphs.store import GraphStore

__all__ = ["TrianglesDataModule", "triangle_graphs"]

_FORMAT = "triangles-1"
_MOST = 10
# smallest number of nodes of a graph with 0, 1, 2, ... triangles; further nodes may be isolated
_LEAST_NODES = torch.tensor([1, 3, 4, 5, 4, 5, 6, 5, 6, 6, 5])
_BLOCK_ELEMENTS = 2**22
"""Entries of the adjacency matrices tried at once: 16 MB in float32."""


def triangle_graphs(
    triangles: Tensor, min_nodes: int, max_nodes: int, *, max_degree: int = 14, generator: Generator | None = None
) -> dict[str, Tensor]:
    r"""Return random graphs with given numbers of triangles.

    A graph has n nodes, evenly drawn from the sizes at which t triangles are possible, and each edge with the
    probability :math:`(t / \binom{n}{3})^{1/3}` at which t triangles are expected; edges are drawn again until there
    are exactly t triangles. A graph may have isolated nodes.

    Source: arXiv 1905.02850 (the task). Differs from it: the generator of graphs.

    Args:
        triangles: triangles t of each graph, from 1 to 10, int64 (G,).
        min_nodes: smallest number of nodes, at least 3.
        max_nodes: largest number of nodes, at least ``min_nodes``, and 5 for more than 4 triangles, 6 for 6, 8 or 9.
        max_degree: largest degree of the one-hot node features, which have ``max_degree + 1`` columns; larger degrees
            share the last column.
        generator: random number generator; None for torch's own.

    Returns:
        ``x`` (N, max_degree + 1), ``edge_index`` (2, E) counted from the first node of each graph, both directions,
        and the offsets of the graphs in them, ``ptr`` and ``edge_ptr`` (G + 1,).

    Raises:
        ValueError: if an argument is out of range, or no graph of these sizes can have that many triangles.

    Example:
        >>> graphs = triangle_graphs(torch.tensor([1, 4]), 4, 4, generator=torch.Generator().manual_seed(0))
        >>> graphs["ptr"].tolist(), graphs["edge_ptr"].diff()[1]
        ([0, 4, 8], tensor(12))
    """
    if triangles.dim() != 1 or triangles.dtype != torch.int64 or bool(((triangles < 1) | (triangles > _MOST)).any()):
        raise ValueError(f"triangles is {triangles.dtype} {tuple(triangles.shape)}; it must be int64 from 1 to {_MOST}")
    if not 3 <= min_nodes <= max_nodes:
        raise ValueError(f"graphs have from {min_nodes} to {max_nodes} nodes; 3 <= min_nodes <= max_nodes is needed")
    if max_degree < 1:
        raise ValueError(f"max_degree is {max_degree}; it must be at least 1")
    refused = triangles[_LEAST_NODES[triangles] > max_nodes].unique().tolist()
    if refused:
        raise ValueError(f"no graph of at most {max_nodes} nodes has {refused} triangles; allow more nodes")
    count = len(triangles)
    generator = torch.default_generator if generator is None else generator
    least = _LEAST_NODES[triangles].clamp(min=min_nodes)
    nodes = least + (torch.rand(count, generator=generator) * (max_nodes + 1 - least)).long()
    owner, edges = [torch.zeros(0, dtype=torch.int64)], [torch.zeros(2, 0, dtype=torch.int64)]
    at_once = max(1, _BLOCK_ELEMENTS // max_nodes**2)
    waiting = torch.arange(count)
    while len(waiting):
        tried, rest = waiting[:at_once], waiting[at_once:]
        adjacency = _draw(nodes[tried], triangles[tried], max_nodes, generator)
        found = (torch.bmm(adjacency, adjacency) * adjacency).sum((1, 2)).round().long() // 6
        fits = found == triangles[tried]
        pairs = adjacency[fits].nonzero()
        owner.append(tried[fits][pairs[:, 0]])
        edges.append(pairs[:, 1:].T)
        waiting = torch.cat([rest, tried[~fits]])  # to the end: those left are drawn together with the next
    of = torch.cat(owner)
    order = of.argsort(stable=True)
    edge_index = torch.cat(edges, dim=1)[:, order].contiguous()
    ptr = functional.pad(nodes.cumsum(0), (1, 0))
    edge_ptr = functional.pad(torch.bincount(of, minlength=count).cumsum(0), (1, 0))
    source = edge_index[0] + ptr[:-1][of[order]]
    degree = torch.bincount(source, minlength=int(ptr[-1])).clamp(max=max_degree)
    x = functional.one_hot(degree, max_degree + 1).float()
    return {"x": x, "edge_index": edge_index, "ptr": ptr, "edge_ptr": edge_ptr}


def _draw(sizes: Tensor, triangles: Tensor, width: int, generator: Generator) -> Tensor:
    """Return symmetric adjacency matrices, (G, width, width), with the given expected numbers of triangles."""
    triples = (sizes * (sizes - 1) * (sizes - 2) // 6).double()
    chance = (triangles / triples).clamp(max=0.95).pow(1 / 3).float()
    drawn = torch.rand(len(sizes), width, width, generator=generator) < chance[:, None, None]
    inside = torch.arange(width) < sizes[:, None]
    upper = (drawn & inside[:, :, None] & inside[:, None, :]).float().triu(1)
    return upper + upper.transpose(1, 2)


class TrianglesDataModule(GraphSetDataModule):
    """TRIANGLES: count the triangles of a graph, from one to ten; half of the test graphs are larger.

    Training and validation graphs have up to ``max_nodes`` nodes. The first half of the test graphs has the same
    sizes, the second from ``max_nodes + 1`` to ``test_max_nodes`` nodes; the halves are the splits ``test_small`` and
    ``test_large``. All counts are equally frequent in each part. Graphs are generated once and cached.

    Source: arXiv 1905.02850, and arXiv 2112.03806 where it is a shift. Differs from them: the generator and the
    largest degree, so that results are only roughly comparable.

    Args:
        num_train: number of training graphs.
        num_val: number of validation graphs; 0 for none.
        num_test: number of test graphs; 0 for none.
        min_nodes: smallest number of nodes, at least 4.
        max_nodes: largest number of nodes in training, at least 6.
        test_max_nodes: largest number of nodes in the test, above ``max_nodes``.
        max_degree: largest degree of the one-hot node features; larger degrees share the last column.
        num_environments: number of training environments, quantiles of size which graphs carry as ``env``, see
            :func:`size_environments`; None for no environments.
        batch_size: number of training graphs of one batch over all processes, at least 1.
        options: further arguments of :class:`GraphSetDataModule`.

    Yields:
        PyG ``Batch`` with ``x`` (N, max_degree + 1), ``edge_index``, ``y`` (number of triangles minus one),
        ``env`` if ``num_environments`` is given, and ``idx``.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> data = TrianglesDataModule(num_train=40, num_val=10, num_test=20, test_max_nodes=40)
        >>> data.num_features, data.num_outputs, len(data.splits["test_large"])
        (15, 10, 10)
    """

    def __init__(
        self,
        *,
        num_train: int = 30_000,
        num_val: int = 5_000,
        num_test: int = 10_000,
        min_nodes: int = 4,
        max_nodes: int = 25,
        test_max_nodes: int = 100,
        max_degree: int = 14,
        num_environments: int | None = None,
        batch_size: int = 128,
        **options: Unpack[GraphOptions],
    ) -> None:
        super().__init__(
            batch_size,
            **options,
        )
        if num_train < 1 or num_val < 0 or num_test < 0:
            raise ValueError(f"{num_train}, {num_val} and {num_test} graphs were asked for; training needs one or more")
        if not (4 <= min_nodes <= max_nodes and max_nodes >= 6):
            raise ValueError(
                f"training graphs have from {min_nodes} to {max_nodes} nodes; at least 4, and up to 6 or more for ten "
                "triangles"
            )
        if test_max_nodes <= max_nodes:
            raise ValueError(f"test_max_nodes is {test_max_nodes}; it must be above max_nodes, {max_nodes}")
        if max_degree < 1:
            raise ValueError(f"max_degree is {max_degree}; it must be at least 1")
        self.num_train = num_train
        self.num_val = num_val
        self.num_test = num_test
        self.min_nodes = min_nodes
        self.max_nodes = max_nodes
        self.test_max_nodes = test_max_nodes
        self.max_degree = max_degree
        self.num_environments = check_num_environments(num_environments)

    @property
    def num_outputs(self) -> int:
        """Number of classes: the counts from one to ten."""
        return _MOST

    def read(self) -> tuple[GraphStore, dict[str, Tensor]]:
        """Return the graphs, training first, and their split."""
        counts = (self.num_train, self.num_val, self.num_test, self.min_nodes, self.max_nodes, self.test_max_nodes)
        key = [_FORMAT, torch.__version__, *counts, self.max_degree, self.seed]
        store = GraphStore.from_dict(cached("triangles", key, self._make))
        small = self.num_test - self.num_test // 2
        train, val, first, second = torch.arange(len(store)).split(
            [self.num_train, self.num_val, small, self.num_test - small]
        )
        test = torch.cat([first, second])
        if self.num_environments is not None:
            store = store.with_field("env", size_environments(store.num_nodes, train, self.num_environments))
        return store, {"train": train, "val": val, "test": test, "test_small": first, "test_large": second}

    def _make(self) -> dict[str, object]:
        generator = torch.Generator().manual_seed(self.seed)
        large = self.num_test // 2
        parts = [
            (self.num_train, self.min_nodes, self.max_nodes),
            (self.num_val, self.min_nodes, self.max_nodes),
            (self.num_test - large, self.min_nodes, self.max_nodes),
            (large, self.max_nodes + 1, self.test_max_nodes),
        ]
        labels, made = [], []
        for size, least, most in parts:
            label = torch.randperm(size, generator=generator) % _MOST
            labels.append(label)
            made.append(triangle_graphs(label + 1, least, most, max_degree=self.max_degree, generator=generator))
        label = torch.cat(labels)
        nodes, edges = (torch.cat([part[name].diff() for part in made]) for name in ("ptr", "edge_ptr"))
        fields = [
            {"path": [name], "value": value, "dim": dim, "group": group, "increment": increment}
            for name, value, dim, group, increment in (
                ("x", torch.cat([part["x"] for part in made]), 0, 1, None),
                ("edge_index", torch.cat([part["edge_index"] for part in made], dim=1), 1, 2, "nodes"),
                ("y", label, 0, 0, None),
            )
        ]
        slices = [torch.arange(len(label) + 1), *(functional.pad(part.cumsum(0), (1, 0)) for part in (nodes, edges))]
        return {"fields": fields, "slices": slices, "listed_num_nodes": False}
