"""Graphs as users of PyG hold them, an ``InMemoryDataset``: TU data sets, and generated ones of the same statistics."""

import contextlib
import functools
import io
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch_geometric.data import Data, InMemoryDataset
from torch_geometric.datasets import TUDataset

from graphseq.data import TUDataModule, cache_folder

__all__ = ["GENERATED", "generated_graphs", "graph_set", "tu_graphs"]

GENERATED = "generated like "
"""Before the name of a data set: random graphs of its statistics, which need no data."""

_STATISTICS = {
    "PROTEINS": {"graphs": 1113, "nodes": 39.06, "spread": 45.78, "edges": 145.63, "labels": 3, "attributes": 1},
    "NCI1": {"graphs": 4110, "nodes": 29.87, "spread": 13.57, "edges": 64.60, "labels": 37},
}


def generated_graphs(
    graphs: int, nodes: float, spread: float, edges: float, labels: int, attributes: int = 0, seed: int = 0
) -> InMemoryDataset:
    """Return random graphs of given sizes: gamma-distributed numbers of nodes, uniform edges in both directions.

    Args:
        graphs: number of graphs.
        nodes: mean number of nodes of a graph.
        spread: standard deviation of the number of nodes.
        edges: mean number of directed edges of a graph.
        labels: width of the one-hot node label.
        attributes: number of continuous node attributes, which stand before the label.
        seed: seed of everything random.

    Example:
        >>> generated_graphs(5, 9.0, 3.0, 20.0, labels=4)[0].x.size(1)
        4
    """
    random = np.random.default_rng(seed)
    shape = (nodes / spread) ** 2
    sizes = np.maximum(2, random.gamma(shape, nodes / shape, graphs).round()).astype(np.int64)
    pairs = (sizes * (edges / nodes / 2)).round().astype(np.int64)
    ends = random.integers(0, np.repeat(sizes, pairs), (2, pairs.sum()))
    both_ways = np.stack([ends, ends[::-1]], axis=-1).reshape(2, -1)  # an edge and its reverse side by side
    one_hot = np.eye(labels, dtype=np.float32)[random.integers(labels, size=sizes.sum())]
    x = np.concatenate([random.random((sizes.sum(), attributes), dtype=np.float32), one_hot], axis=1)
    dataset = InMemoryDataset()
    dataset.data = Data(
        x=torch.from_numpy(x),
        edge_index=torch.from_numpy(both_ways),
        y=torch.from_numpy(random.integers(2, size=graphs)),
    )
    dataset.slices = {
        name: torch.from_numpy(np.concatenate([[0], counts.cumsum()]))
        for name, counts in (("x", sizes), ("edge_index", 2 * pairs), ("y", np.ones_like(sizes)))
    }
    return dataset


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
    raw = cache_folder() / "raw" / "TUDataset" / name / "raw"
    with tempfile.TemporaryDirectory() as root, contextlib.redirect_stderr(io.StringIO()):
        (Path(root) / name).mkdir()
        (Path(root) / name / "raw").symlink_to(raw, target_is_directory=True)
        return TUDataset(root, name, use_node_attr=True, use_edge_attr=True)


@functools.lru_cache(maxsize=1)  # the cases of one set follow each other
def graph_set(name: str) -> InMemoryDataset:
    """Return a data set by the name it has in a case: PROTEINS, NCI1, or one generated like them.

    Args:
        name: name of the set, or that name after :data:`GENERATED`.

    Raises:
        DataError: if the raw files are nowhere.

    Example:
        >>> len(graph_set("generated like PROTEINS"))
        1113
    """
    if name.startswith(GENERATED):
        return generated_graphs(**_STATISTICS[name.removeprefix(GENERATED)])
    return tu_graphs(name)
