"""Directed acyclic graphs in layers, made from random or given graphs, that networks take their connections from."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from graphseq.core import Recorded
from graphseq.core.spec import record
from graphseq.sparsity.structures.random_graphs import GraphKind, random_graph

if TYPE_CHECKING:
    import networkx

__all__ = ["LayeredDAG", "RandomDAG"]

Order = Literal["index", "random", "degree"]


class LayeredDAG(Recorded):
    r"""Connected directed acyclic graph whose vertices are arranged in layers by their longest path from a source.

    .. math:: \mathrm{layer}(v) = \begin{cases} 0 & v \text{ has no incoming edge} \\
        1 + \max_{u \to v} \mathrm{layer}(u) & \text{else} \end{cases}

    Every vertex of a layer above 0 has an incoming edge from the layer before it, and no edge joins two vertices of a
    layer. A checkpoint holds the edges, so that a network does not depend on the generator that drew them.

    Source: arXiv 2407.20601, section on sparse structures.

    Args:
        num_vertices: number of vertices V, at least 2.
        edges: pairs (u, v) of an edge from u to v, with vertices in 0 to V - 1; each at most once.

    Raises:
        ValueError: if an edge names no vertex, joins a vertex to itself or stands twice, or the graph is not connected
            or has a cycle.

    Example:
        >>> dag = LayeredDAG(4, [(0, 1), (1, 2), (0, 2), (2, 3), (0, 3)])
        >>> dag.layers, dag.skip_pairs
        ([[0], [1], [2], [3]], [(0, 2), (0, 3)])
    """

    def __init__(self, num_vertices: int, edges: Sequence[Sequence[int]]) -> None:
        import networkx

        if num_vertices < 2:
            raise ValueError(f"num_vertices is {num_vertices}; a layered graph needs at least 2")
        pairs = [tuple(int(vertex) for vertex in edge) for edge in edges]
        for position, pair in enumerate(pairs):
            if len(pair) != 2 or not all(0 <= vertex < num_vertices for vertex in pair) or pair[0] == pair[1]:
                raise ValueError(
                    f"edges[{position}] is {pair}; give pairs of two different vertices in 0..{num_vertices - 1}"
                )
        if len(set(pairs)) < len(pairs):
            twice = next(pair for position, pair in enumerate(pairs) if pair in pairs[:position])
            raise ValueError(f"edges has {twice} twice; give each edge once")
        graph = networkx.DiGraph()
        graph.add_nodes_from(range(num_vertices))
        graph.add_edges_from(pairs)
        if not networkx.is_weakly_connected(graph):
            parts = sorted(networkx.weakly_connected_components(graph), key=len, reverse=True)
            raise ValueError(
                f"edges leave the graph disconnected: {len(parts)} parts, the smallest is {sorted(parts[-1])[:10]}; "
                "give a connected graph, such as the largest part"
            )
        if not networkx.is_directed_acyclic_graph(graph):
            cycle = [edge[0] for edge in networkx.find_cycle(graph)]
            raise ValueError(f"edges have the cycle {cycle}; give an acyclic graph, or an undirected one to from_graph")
        self.num_vertices = num_vertices
        self.layers: list[list[int]] = [sorted(layer) for layer in networkx.topological_generations(graph)]
        self.edge_index = torch.tensor(sorted(pairs)).T.contiguous()  # (2, E)

    @classmethod
    def from_graph(cls, graph: "networkx.Graph", order: Order = "index", seed: int = 0) -> "LayeredDAG":
        """Orient a graph: every edge of an undirected graph leads from the earlier vertex to the later one.

        Vertices are numbered anew by their place in the order. The edges of a directed graph are kept as they are, and
        its vertices numbered in their own order.

        Args:
            graph: connected networkx graph without loops; a directed one has to be acyclic.
            order: order of the vertices: ``index``, that of the graph; ``random``; or ``degree``, the largest degree
                first, ties in the order of the graph.
            seed: seed of the random order.

        Raises:
            ValueError: if ``order`` is unknown, or the graph does not fit, see :class:`LayeredDAG`.

        Example:
            >>> import networkx
            >>> LayeredDAG.from_graph(networkx.cycle_graph(4)).layers
            [[0], [1], [2], [3]]
        """
        names = list(graph.nodes)
        if graph.is_directed() and order != "index":
            raise ValueError(f"order is {order!r} and the graph is directed; its edges have a direction already")
        if order == "random":
            names = [names[n] for n in torch.randperm(len(names), generator=torch.Generator().manual_seed(seed))]
        elif order == "degree":
            names.sort(key=lambda name: -graph.degree[name])
        elif order != "index":
            raise ValueError(f"order is {order!r}; it must be 'index', 'random' or 'degree'")
        place = {name: position for position, name in enumerate(names)}
        edges = [(place[u], place[v]) for u, v in graph.edges]
        if not graph.is_directed():
            edges = [(min(edge), max(edge)) for edge in edges]
        return LayeredDAG(len(names), edges)

    @property
    def layer(self) -> Tensor:
        """Number of the layer of each vertex, int64 (V,)."""
        found = torch.empty(self.num_vertices, dtype=torch.int64)
        for number, vertices in enumerate(self.layers):
            found[vertices] = number
        return found

    @property
    def adjacency(self) -> Tensor:
        """Whether there is an edge from the vertex of the row to that of the column, bool (V, V)."""
        found = torch.zeros(self.num_vertices, self.num_vertices, dtype=torch.bool)
        found[self.edge_index[0], self.edge_index[1]] = True
        return found

    @property
    def skip_pairs(self) -> list[tuple[int, int]]:
        """Pairs of layers (s, l) with s < l - 1 that at least one edge joins, sorted."""
        ends = self.layer[self.edge_index]  # (2, E)
        far = ends[:, ends[1] - ends[0] > 1]
        return [(int(s), int(t)) for s, t in far.unique(dim=1).T.tolist()]

    @property
    def sinks(self) -> list[int]:
        """Vertices without an outgoing edge; every vertex has a path to one of them."""
        return (~self.adjacency.any(1)).nonzero().squeeze(1).tolist()

    def mask(self, sources: Sequence[int], targets: Sequence[int]) -> Tensor:
        """Return the mask of a linear map from some vertices to others: true where there is an edge.

        Args:
            sources: vertices that the columns stand for.
            targets: vertices that the rows stand for.

        Example:
            >>> LayeredDAG(3, [(0, 2), (1, 2)]).mask([0, 1], [2])
            tensor([[True, True]])
        """
        return self.adjacency[torch.tensor(sources)][:, torch.tensor(targets)].T.contiguous()

    def masks(self) -> list[Tensor]:
        """Return the mask of each layer above 0 over the vertices of all layers before it, bool (N_l, sum of N_s).

        Example:
            >>> [tuple(mask.shape) for mask in LayeredDAG(3, [(0, 1), (0, 2), (1, 2)]).masks()]
            [(1, 1), (1, 2)]
        """
        before: list[int] = list(self.layers[0])
        found = []
        for vertices in self.layers[1:]:
            found.append(self.mask(before, vertices))
            before += vertices
        return found

    def common_neighbors(self) -> Tensor:
        """Return whether two vertices have a neighbour in common, or are the same, bool (V, V).

        Example:
            >>> LayeredDAG(3, [(0, 2), (1, 2)]).common_neighbors()[0].tolist()
            [True, True, False]
        """
        both = (self.adjacency | self.adjacency.T).float()
        return (both @ both > 0) | torch.eye(self.num_vertices, dtype=torch.bool)

    def to_networkx(self) -> "networkx.DiGraph":
        """Return the graph as a networkx ``DiGraph``.

        Example:
            >>> LayeredDAG(2, [(0, 1)]).to_networkx().number_of_edges()
            1
        """
        import networkx

        graph = networkx.DiGraph()
        graph.add_nodes_from(range(self.num_vertices))
        graph.add_edges_from(self.edge_index.T.tolist())
        return graph

    def __repr__(self) -> str:
        edges = self.edge_index.shape[1]
        return f"{type(self).__name__}({self.num_vertices} vertices, {edges} edges, {len(self.layers)} layers)"


class RandomDAG(LayeredDAG):
    """Layered graph of a random graph, for configs: :func:`random_graph`, oriented by :meth:`LayeredDAG.from_graph`.

    Source: arXiv 2407.20601.

    Args:
        kind: family of the graph, see :func:`random_graph`.
        num_vertices: number of vertices, at least 2.
        options: options of the kind, by name.
        order: order of the vertices by which edges are oriented: ``index``, ``random`` or ``degree``.
        seed: seed of the graph, and of the random order.

    Raises:
        ValueError: if an argument is outside its range, see :func:`random_graph`.

    Example:
        >>> RandomDAG("barabasi_albert", 20, {"edges": 3}, seed=1).layers[0]
        [0, 1, 2]
    """

    def __init__(
        self,
        kind: GraphKind,
        num_vertices: int,
        options: Mapping[str, Any],
        order: Order = "index",
        seed: int = 0,
    ) -> None:
        drawn = LayeredDAG.from_graph(random_graph(kind, num_vertices, seed=seed, **options), order, seed)
        edges = drawn.edge_index.T.tolist()
        super().__init__(num_vertices, edges)
        # what is drawn belongs to the checkpoint, not what drew it: other versions of networkx draw other graphs
        self.__dict__["_record"] = record(LayeredDAG, (num_vertices, edges), {})
