"""Graphs as users of PyG hold them, an ``InMemoryDataset``: TU data sets, and generated ones of the same statistics."""

import contextlib
import functools
import io
import tempfile
from pathlib import Path

from torch_geometric.data import InMemoryDataset
from torch_geometric.datasets import TUDataset

from graphseq.bench import generated_graphs
from graphseq.data import TUDataModule, cache_folder

__all__ = ["GENERATED", "GRAPH_SETS", "graph_set", "tu_graphs"]

GENERATED = "generated like "
"""Before the name of a data set: random graphs of its statistics, which need no data."""

_STATISTICS = {
    "PROTEINS": {"graphs": 1113, "nodes": 39.06, "spread": 45.78, "edges": 145.63, "labels": 3, "attributes": 1},
    "NCI1": {"graphs": 4110, "nodes": 29.87, "spread": 13.57, "edges": 64.60, "labels": 37},
}
GRAPH_SETS = [*_STATISTICS, *(GENERATED + name for name in _STATISTICS)]


def tu_graphs(name: str) -> TUDataset:
    """Return a TU data set as PyG processes it, with all attributes, from the mirror's raw files or a download.

    PyG works in a temporary folder: neither the mirror nor a folder of the user is written to.
    """
    TUDataModule(name).load()  # fetches the raw files into the cache, and compares their checksums
    raw = cache_folder() / "raw" / "TUDataset" / name / "raw"
    with tempfile.TemporaryDirectory() as root, contextlib.redirect_stderr(io.StringIO()):
        (Path(root) / name).mkdir()
        (Path(root) / name / "raw").symlink_to(raw, target_is_directory=True)
        return TUDataset(root, name, use_node_attr=True, use_edge_attr=True)


@functools.lru_cache(maxsize=1)  # the cases of one set follow each other
def graph_set(name: str) -> InMemoryDataset:
    """Return a data set by the name it has in a case: PROTEINS, NCI1, or one generated like them."""
    if name.startswith(GENERATED):
        return generated_graphs(**_STATISTICS[name.removeprefix(GENERATED)])
    return tu_graphs(name)
