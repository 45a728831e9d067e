"""Connected random graphs of six families, drawn by networkx."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    import networkx

__all__ = ["random_graph"]

GraphKind = Literal[
    "barabasi_albert",
    "configuration_model",
    "erdos_renyi",
    "random_regular",
    "stochastic_block",
    "watts_strogatz",
]
_ATTEMPTS = 100


def random_graph(kind: GraphKind, num_vertices: int, *, seed: int = 0, **options: Any) -> "networkx.Graph":
    r"""Draw a connected simple random graph with vertices 0 to ``num_vertices`` - 1.

    A draw that is not connected is repeated with the next number of the same generator, at most a hundred times.
    Options by kind:

    * ``erdos_renyi``: ``p``, probability of each edge, in [0, 1];
    * ``watts_strogatz``: ``neighbors``, number of nearest vertices on the ring that each vertex is joined to, an even
      number in [2, N - 1], and ``p``, probability with which an edge is rewired, in [0, 1];
    * ``barabasi_albert``: ``edges``, number of edges m of each new vertex, in [1, N - 1]. Vertex m is joined to the
      vertices 0 to m - 1, which begin without edges, whatever the version of networkx (newer ones begin with a star
      around vertex 0, so that an oriented graph has a single source);
    * ``random_regular``: ``degree``, number of neighbours of every vertex, in [1, N - 1], with N times ``degree`` even;
    * ``configuration_model``: ``degrees``, degree of each vertex, with an even sum; loops and parallel edges of the
      draw are dropped, so that degrees may be smaller;
    * ``stochastic_block``: ``sizes``, number of vertices of each block, with the sum N; ``p_within`` and ``p_between``,
      probabilities of an edge within a block and between two, in [0, 1].

    Args:
        kind: family of the graph.
        num_vertices: number N of vertices, at least 2.
        seed: seed of the draw.
        options: options of the kind, see above; all of them are needed.

    Raises:
        ValueError: if ``kind`` or an option is unknown, an option is missing or outside its range, or no draw is
            connected.

    Example:
        >>> graph = random_graph("watts_strogatz", 20, neighbors=4, p=1.0, seed=0)
        >>> graph.number_of_nodes(), graph.number_of_edges()
        (20, 40)
    """
    import networkx
    import numpy as np

    if kind not in get_args(GraphKind):
        raise ValueError(f"kind is {kind!r}; it must be one of {', '.join(get_args(GraphKind))}")
    if num_vertices < 2:
        raise ValueError(f"num_vertices is {num_vertices}; a graph needs at least 2")
    needed, draw = _KINDS[kind]
    given = _checked(kind, num_vertices, needed, options)
    generator = np.random.default_rng(seed)
    for _ in range(_ATTEMPTS):
        graph = draw(num_vertices, given, generator)
        if networkx.is_connected(graph):
            return graph
    said = ", ".join(f"{name} {value}" for name, value in given.items())
    raise ValueError(
        f"none of {_ATTEMPTS} draws of {kind} with {num_vertices} vertices and {said} is connected; give options with "
        "more edges"
    )


def _checked(kind: str, size: int, needed: Sequence[str], options: Mapping[str, Any]) -> dict[str, Any]:
    if wrong := sorted(set(options) ^ set(needed)):
        what = "is unknown" if wrong[0] in options else "is missing"
        raise ValueError(f"the option {wrong[0]!r} of {kind} {what}; give {' and '.join(needed)}")
    for name in ("p", "p_within", "p_between"):
        if name in options and not 0 <= options[name] <= 1:
            raise ValueError(f"{name} is {options[name]}; give a probability in [0, 1]")
    for name, least in (("neighbors", 2), ("edges", 1), ("degree", 1)):
        if name in options and not least <= options[name] <= size - 1:
            raise ValueError(f"{name} is {options[name]}; with {size} vertices it must be in [{least}, {size - 1}]")
    if options.get("neighbors", 0) % 2:
        raise ValueError(f"neighbors is {options['neighbors']}; it must be even, half on each side of the ring")
    if (options.get("degree", 0) * size) % 2:
        raise ValueError(f"degree is {options['degree']}; {size} vertices times the degree must be even")
    if "degrees" in options:
        degrees = list(options["degrees"])
        if len(degrees) != size or min(degrees) < 1 or max(degrees) > size - 1 or sum(degrees) % 2:
            raise ValueError(
                f"degrees has {len(degrees)} entries from {min(degrees, default=0)} to {max(degrees, default=0)} with "
                f"the sum {sum(degrees)}; give {size} entries in [1, {size - 1}] with an even sum"
            )
    if "sizes" in options and (sum(options["sizes"]) != size or min(options["sizes"]) < 1):
        raise ValueError(f"sizes is {list(options['sizes'])}; give sizes of at least 1 with the sum {size}")
    return {name: options[name] for name in needed}


def _erdos_renyi(size: int, options: Mapping[str, Any], generator: Any) -> "networkx.Graph":
    import networkx

    return networkx.gnp_random_graph(size, options["p"], seed=generator)


def _watts_strogatz(size: int, options: Mapping[str, Any], generator: Any) -> "networkx.Graph":
    import networkx

    return networkx.watts_strogatz_graph(size, options["neighbors"], options["p"], seed=generator)


def _barabasi_albert(size: int, options: Mapping[str, Any], generator: Any) -> "networkx.Graph":
    import networkx

    edges = options["edges"]
    start = networkx.empty_graph(edges + 1)
    start.add_edges_from((vertex, edges) for vertex in range(edges))
    return networkx.barabasi_albert_graph(size, edges, seed=generator, initial_graph=start)


def _random_regular(size: int, options: Mapping[str, Any], generator: Any) -> "networkx.Graph":
    import networkx

    return networkx.random_regular_graph(options["degree"], size, seed=generator)


def _configuration_model(size: int, options: Mapping[str, Any], generator: Any) -> "networkx.Graph":
    import networkx

    graph = networkx.Graph(networkx.configuration_model(list(options["degrees"]), seed=generator))
    graph.remove_edges_from(list(networkx.selfloop_edges(graph)))
    return graph


def _stochastic_block(size: int, options: Mapping[str, Any], generator: Any) -> "networkx.Graph":
    import networkx

    sizes = list(options["sizes"])
    within, between = options["p_within"], options["p_between"]
    p = [[within if row == column else between for column in range(len(sizes))] for row in range(len(sizes))]
    graph = networkx.empty_graph(size)
    graph.add_edges_from(networkx.stochastic_block_model(sizes, p, seed=generator).edges)
    return graph


_KINDS: dict[str, tuple[tuple[str, ...], Callable[[int, Mapping[str, Any], Any], "networkx.Graph"]]] = {
    "barabasi_albert": (("edges",), _barabasi_albert),
    "configuration_model": (("degrees",), _configuration_model),
    "erdos_renyi": (("p",), _erdos_renyi),
    "random_regular": (("degree",), _random_regular),
    "stochastic_block": (("sizes", "p_within", "p_between"), _stochastic_block),
    "watts_strogatz": (("neighbors", "p"), _watts_strogatz),
}
