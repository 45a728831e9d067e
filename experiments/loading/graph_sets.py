"""Graphs as users of PyG hold them, an ``InMemoryDataset``: TU data sets, and generated ones of the same statistics."""

import contextlib
import functools
import io
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data, InMemoryDataset
from torch_geometric.datasets import TUDataset

from graphseq.bench.experiment import SkipCell
from graphseq.core import DataError
from graphseq.data import TUDataModule, cache_folder

__all__ = ["GENERATED", "GraphSetStatistics", "generated_graphs", "graph_set", "tu_graphs"]

GENERATED = "generated like "
"""Before the name of a data set: random graphs of its statistics, which need no data."""


@dataclass(frozen=True)
class GraphSetStatistics:
    """What a set of graphs costs to move: how many graphs, how large, how wide.

    Args:
        num_graphs: number of graphs.
        nodes: mean nodes of a graph.
        nodes_spread: standard deviation of the nodes of a graph.
        edges: mean directed edges of a graph.
        labels: width of the one-hot node label.
        attributes: number of continuous node attributes, which stand before the label.

    Example:
        >>> GraphSetStatistics(10, 20.0, 5.0, 40.0, labels=3).attributes
        0
    """

    num_graphs: int
    nodes: float
    nodes_spread: float
    edges: float
    labels: int
    attributes: int = 0


_STATISTICS = {
    "PROTEINS": GraphSetStatistics(1113, 39.06, 45.78, 145.63, labels=3, attributes=1),
    "NCI1": GraphSetStatistics(4110, 29.87, 13.57, 64.60, labels=37),
}


class _Graphs(InMemoryDataset):
    """Graphs packed as PyG packs them."""

    def __init__(self, data: Data, slices: dict[str, Tensor]) -> None:
        super().__init__()
        self.data, self.slices = data, slices


def generated_graphs(statistics: GraphSetStatistics, seed: int = 0) -> InMemoryDataset:
    """Return random graphs of given sizes: gamma-distributed numbers of nodes, uniform edges in both directions.

    Args:
        statistics: sizes and widths.
        seed: of everything random.

    Example:
        >>> generated_graphs(GraphSetStatistics(5, 9.0, 3.0, 20.0, labels=4))[0].x.size(1)
        4
    """
    random = np.random.default_rng(seed)
    shape = (statistics.nodes / statistics.nodes_spread) ** 2
    nodes = np.maximum(2, random.gamma(shape, statistics.nodes / shape, statistics.num_graphs).round()).astype(np.int64)
    pairs = (nodes * (statistics.edges / statistics.nodes / 2)).round().astype(np.int64)
    ends = random.integers(0, np.repeat(nodes, pairs), (2, pairs.sum()))
    both_ways = np.stack([ends, ends[::-1]], axis=-1).reshape(2, -1)  # an edge and its reverse side by side
    one_hot = np.eye(statistics.labels, dtype=np.float32)[random.integers(statistics.labels, size=nodes.sum())]
    attributes = random.random((nodes.sum(), statistics.attributes), dtype=np.float32)
    x = torch.from_numpy(np.concatenate([attributes, one_hot], axis=1))
    y = torch.from_numpy(random.integers(2, size=statistics.num_graphs))
    slices = {
        name: torch.from_numpy(np.concatenate([[0], counts.cumsum()]))
        for name, counts in (("x", nodes), ("edge_index", 2 * pairs), ("y", np.ones_like(nodes)))
    }
    return _Graphs(Data(x=x, edge_index=torch.from_numpy(both_ways), y=y), slices)


def tu_graphs(name: str) -> TUDataset:
    """Return a TU data set as PyG processes it, with all attributes, from the mirror's raw files or a download.

    PyG works in a temporary folder: neither the mirror nor a folder of the user is written to.

    Args:
        name: name of the set.

    Raises:
        DataError: if the raw files are nowhere.

    Example:
        >>> tu_graphs("MUTAG")[0].x.size(1)  # doctest: +SKIP
        7
    """
    TUDataModule(name).load()  # fetches the raw files into the cache, and compares their checksums
    with tempfile.TemporaryDirectory() as root, contextlib.redirect_stderr(io.StringIO()):
        raw = Path(root) / name / "raw"
        raw.parent.mkdir()
        raw.symlink_to(cache_folder() / "raw" / "TUDataset" / name / "raw", target_is_directory=True)
        return TUDataset(root, name, use_node_attr=True, use_edge_attr=True)


@functools.lru_cache(maxsize=1)  # the cells of one set follow each other
def graph_set(name: str) -> InMemoryDataset:
    """Return a data set by the name it has in a cell: PROTEINS, NCI1, or one generated like them.

    Args:
        name: name of the set, or that name after :data:`GENERATED`.

    Raises:
        SkipCell: if the raw files are nowhere.

    Example:
        >>> len(graph_set("generated like PROTEINS"))
        1113
    """
    if name.startswith(GENERATED):
        return generated_graphs(_STATISTICS[name.removeprefix(GENERATED)])
    try:
        return tu_graphs(name)
    except DataError as error:
        raise SkipCell(f"{name} is not here: {error}") from error
