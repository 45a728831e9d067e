"""A training epoch of GIN on NCI1, fed by our loader and by PyG's DataLoader.

The same ``GINClassifier`` (hidden 64, five depths, batches of 128 graphs, Adam at 0.001, cross-entropy: forward,
backward, step) is trained twice from the same weights: by ``BatchLoader`` over a ``GraphStore``, and by
``torch_geometric.loader.DataLoader`` over the same PyG data set in memory, its list of graphs cached beforehand.
``plain`` is a bare loop; ``Trainer`` is a Lightning ``fit`` of the same task without logger, checkpoints and progress
bar, its start included on both sides. ``generated like NCI1`` are random graphs of the same statistics, for machines
without the data.

Before anything is timed, both train one epoch in the same order: their mean losses must agree to 1e-5. ``loading`` is
the share of an epoch that passes while the plain loop waits for a batch, measured inside the timed epochs.

Rule: a report, no claim but the agreement of the losses.
"""

import copy
import math
import statistics
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch_geometric.loader import DataLoader

from experiments.loading import graph_loader
from experiments.loading.graph_sets import GENERATED
from graphseq.bench import Call, Check, OutputsDiffer, Row, Setting, Speed, bare_trainer, combinations
from graphseq.models import GINClassifier
from graphseq.tasks import Classification

__all__ = ["speed"]

# on a GPU sums are added in another order each time, and 33 steps of Adam carry that on
_TOLERANCE = {"cpu": 1e-5, "cuda": 1e-3}


@dataclass
class _Subject:
    data: graph_loader.Subject
    network: nn.Module
    loop: str
    shares: dict[str, list[float]] = field(default_factory=dict)


def _prepare(case: Row, setting: Setting) -> _Subject:
    data = graph_loader.prepare(case, setting)
    network = GINClassifier(data.dataset.num_features, data.dataset.num_classes, 64, dropout=0.0)
    return _Subject(data, network.to(setting.device), case["loop"])


def _epoch(subject: _Subject, name: str, loader: Any) -> Call:
    """Return a call that trains a copy of the network for one epoch more."""
    network = copy.deepcopy(subject.network)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    accelerator = "cpu" if subject.data.device == "cpu" else "gpu"

    def plain() -> None:
        batches, start = _Waiting(loader), time.perf_counter()
        _train(network, optimizer, batches)
        subject.shares.setdefault(name, []).append(batches.seconds / (time.perf_counter() - start))

    def fit() -> None:
        with bare_trainer(accelerator=accelerator, max_epochs=1) as trainer:
            trainer.fit(Classification(network, num_outputs=2), train_dataloaders=loader)

    return plain if subject.loop == "plain" else fit


class _Waiting:
    """Batches of a loader, and the time that passed until each was there."""

    def __init__(self, loader: Iterable[Any]) -> None:
        self.loader, self.seconds = loader, 0.0

    def __iter__(self) -> Iterator[Any]:
        start = time.perf_counter()
        for batch in self.loader:
            self.seconds += time.perf_counter() - start
            yield batch
            start = time.perf_counter()
        self.seconds += time.perf_counter() - start


def _train(network: nn.Module, optimizer: torch.optim.Optimizer, batches: Iterable[Any]) -> float:
    """Train one epoch and return the mean loss of its batches."""
    losses = []
    for batch in batches:
        loss = functional.cross_entropy(network(batch.x, batch.edge_index, batch.batch, ptr=batch.ptr), batch.y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return float(torch.stack(losses).mean())


def same_losses(subject: _Subject, calls: Any = None) -> Row:
    """Train one epoch by each loader in the same order, from the same weights."""
    ours = subject.data.loader
    peer = DataLoader(subject.data.dataset, ours.batch_size, sampler=ours.order().tolist())
    means = []
    for batches in (ours, (batch.to(subject.data.device) for batch in peer)):
        twin = copy.deepcopy(subject.network)
        means.append(_train(twin, torch.optim.Adam(twin.parameters(), lr=1e-3), batches))
    difference = abs(means[0] - means[1])
    if not (math.isfinite(difference) and difference <= _TOLERANCE[subject.data.device]):
        raise OutputsDiffer(f"the losses of the first epoch differ by {difference}")
    return {"graphs": len(subject.data.dataset), "loss_difference": difference}


def _losses_agree(rows: Sequence[Row]) -> list[Check]:
    largest = max(row["loss_difference"] for row in rows)
    claim = "the same order gives the same loss after the first epoch"
    return [Check(claim, largest, _TOLERANCE["cpu"], largest <= _TOLERANCE["cpu"])]


def _loading(subject: _Subject, seconds: Mapping[str, list[float]]) -> Row:
    return {f"{name} loading": statistics.median(shares) for name, shares in subject.shares.items()}


speed = Speed(
    name="speed.graph_epoch",
    protocol=__doc__,
    cases=combinations(data=["NCI1", f"{GENERATED}NCI1"], loop=["plain", "Trainer"]),
    prepare=_prepare,
    contenders={
        "ours": lambda subject: _epoch(subject, "ours", subject.data.loader),
        "PyG": lambda subject: _epoch(subject, "PyG", graph_loader.pyg(subject.data)),
    },
    equal=same_losses,
    notes=_loading,
    packages={"PyG": "torch-geometric"},
    rounds={"quick": 2, "default": 9, "full": 25},
    seconds={"quick": 0.02, "default": 1.0, "full": 3.0},
    columns=["ours loading", "PyG loading"],
    claims=[_losses_agree],
)
