"""A shuffled epoch of PROTEINS and NCI1 by ours and by PyG's DataLoader.

Ours: ``BatchLoader`` over ``GraphStore.from_dataset(dataset)``. Peer: ``torch_geometric.loader.DataLoader(dataset,
batch_size, shuffle=True)`` over the same PyG data set in memory, its list of graphs cached by epochs before those that
are timed. All fields the data carry: PROTEINS with its node attribute. ``generated like`` are random graphs with the
same numbers of graphs, nodes, edges and columns, for machines without the data. On a GPU ours lives there, and each
batch of the peer is moved there.

Before anything is timed, every batch of an epoch in the same order is compared: all fields, ``batch``, ``ptr``, the
numbers of graphs, what ``to_data_list`` works by, and for the first and last batch the single graphs. An epoch includes
drawing its order. The limit is a plain copy of all packed fields; peak memory is that of one epoch beyond the data.

Rule: the claim is a median ratio of at least 12 on every row; the aim is 20.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Batch, InMemoryDataset
from torch_geometric.loader import DataLoader

from experiments.loading.graph_sets import GENERATED, graph_set
from graphseq.bench import AtLeast, Bytes, Call, OutputsDiffer, Row, Setting, Speed, combinations, exhaust
from graphseq.data import BatchLoader, GraphStore

__all__ = ["Subject", "pyg", "same_batches", "speed"]


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


class Moved:
    """Batches of a loader, moved to a device."""

    def __init__(self, loader: Any, device: str) -> None:
        self.loader, self.device = loader, device

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Any:
        return (batch.to(self.device) for batch in self.loader)


def same_batches(subject: Subject, calls: dict[str, Call] | None = None) -> Row:
    """Compare every batch of an epoch with that of PyG's DataLoader in the same order.

    Raises:
        OutputsDiffer: naming the first batch and field that differ.
    """
    loader = subject.loader
    peer = DataLoader(subject.dataset, loader.batch_size, sampler=loader.order().tolist())
    last = len(loader) - 1
    for position, (batch, expected) in enumerate(zip(loader, peer, strict=True)):
        expected = expected.to(subject.device)
        pairs: list[tuple[Any, Any]] = [(batch, expected)]
        if position in (0, last):
            pairs += zip(batch.to_data_list(), expected.to_data_list(), strict=True)
        for one, other in pairs:
            different = [name for name, value in other.to_dict().items() if not _same(one[name], value)]
            unknown = set(one.keys()) - set(other.keys()) - {"idx"}
            if different or unknown:
                raise OutputsDiffer(f"batch {position} in {different or sorted(unknown)}")
        if not _same_bookkeeping(batch, expected):
            raise OutputsDiffer(f"batch {position} in what to_data_list works by")
    return {"graphs": len(subject.dataset)}


def _same(one: Any, other: Any) -> bool:
    if isinstance(other, Tensor):
        return isinstance(one, Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    return bool(one == other)


def _same_bookkeeping(batch: Batch, expected: Batch) -> bool:
    return batch.num_graphs == expected.num_graphs and all(
        _same(mine[name].to(value.device), value)
        for mine, theirs in ((batch._slice_dict, expected._slice_dict), (batch._inc_dict, expected._inc_dict))
        for name, value in theirs.items()
    )


speed = Speed(
    name="speed.graph_loader",
    protocol=__doc__,
    cases=combinations(
        data=["PROTEINS", "NCI1", f"{GENERATED}PROTEINS", f"{GENERATED}NCI1"], batch_size=[32, 128, 512]
    ),
    prepare=prepare,
    contenders={
        "ours": lambda subject: lambda: exhaust(subject.loader),
        "PyG": lambda subject: (lambda peer: lambda: exhaust(peer))(pyg(subject)),
    },
    equal=same_batches,
    limit=lambda subject: Bytes(2 * subject.loader.store.nbytes),
    memory=True,
    packages={"PyG": "torch-geometric"},
    claims=[
        AtLeast("ours/PyG", bound, text=f"{word}: an epoch at least {bound} times as fast as PyG's on every row")
        for word, bound in (("claim", 12), ("aim", 20))
    ],
)
