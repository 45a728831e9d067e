"""A shuffled epoch of PROTEINS and NCI1 by ours and by PyG's DataLoader.

Ours: ``BatchLoader`` over ``GraphStore.from_dataset(dataset)``. Peer: ``torch_geometric.loader.DataLoader(dataset,
batch_size, shuffle=True)`` over the same PyG data set in memory, its list of graphs cached by epochs before those that
are timed. All fields the data carry: PROTEINS with its node attribute. ``generated like`` are random graphs with the
same numbers of graphs, nodes, edges and columns, for machines without the data. On a GPU ours lives there, and each
batch of the peer is moved there.

Before anything is timed, every batch of an epoch in the same order is compared: all fields, ``batch``, ``ptr``, the
numbers of graphs, what ``to_data_list`` works by, and the single graphs. An epoch includes drawing its order. The
limit is a plain copy of all packed fields; peak memory is that of one epoch beyond the data.

Rule: the claim is a median ratio of at least 12 on every row; the aim is 20.
"""

from dataclasses import dataclass
from typing import Any

from torch_geometric.data import Batch, InMemoryDataset
from torch_geometric.loader import DataLoader

from experiments.loading.graph_sets import GRAPH_SETS, graph_set
from graphseq.bench import AtLeast, Bytes, Call, Moved, Row, Setting, Speed, combinations, exhaust, same_batches
from graphseq.data import BatchLoader, GraphStore

__all__ = ["Subject", "prepare", "pyg", "same_epoch", "speed"]


@dataclass
class Subject:
    """A data set, our loader over it, and the device where batches are wanted."""

    dataset: InMemoryDataset
    loader: BatchLoader
    device: str


def prepare(case: Row, setting: Setting) -> Subject:
    """Pack the data set of a case."""
    dataset = graph_set(case["data"])
    store = GraphStore.from_dataset(dataset).to(setting.device)
    return Subject(dataset, BatchLoader(store, case.get("batch_size", 128), shuffle=True), setting.device)


def pyg(subject: Subject) -> Any:
    """Return PyG's loader, which moves batches to the device if that is no processor."""
    loader = DataLoader(subject.dataset, subject.loader.batch_size, shuffle=True)
    return loader if subject.device == "cpu" else Moved(loader, subject.device)


def same_epoch(subject: Subject, calls: dict[str, Call] | None = None) -> Row:
    """Compare every batch of an epoch with that of PyG's DataLoader in the same order."""
    peer = DataLoader(subject.dataset, subject.loader.batch_size, sampler=subject.loader.order().tolist())
    same_batches(subject.loader, peer, _fields)
    return {"graphs": len(subject.dataset)}


def _fields(batch: Batch) -> Row:
    """Return all that a batch holds, what ``to_data_list`` works by, and its single graphs, without ``idx``."""
    tables: dict[str, Row] = {"_slice_dict ": batch._slice_dict, "_inc_dict ": batch._inc_dict}
    tables[""] = {**batch.to_dict(), "num_graphs": batch.num_graphs}
    tables |= {f"graph {place} ": graph.to_dict() for place, graph in enumerate(batch.to_data_list())}
    return {f"{of}{name}": value for of, table in tables.items() for name, value in table.items() if name != "idx"}


speed = Speed(
    name="speed.graph_loader",
    protocol=__doc__,
    cases=combinations(data=GRAPH_SETS, batch_size=[32, 128, 512]),
    prepare=prepare,
    contenders={
        "ours": lambda subject: lambda: exhaust(subject.loader),
        "PyG": lambda subject: (lambda peer: lambda: exhaust(peer))(pyg(subject)),
    },
    equal=same_epoch,
    limit=lambda subject: Bytes(2 * subject.loader.store.nbytes),
    memory=True,
    packages={"PyG": "torch-geometric"},
    claims=[AtLeast("ours/PyG", 12, text="an epoch at least {bound} times as fast as PyG's on every row", aim=20)],
)
