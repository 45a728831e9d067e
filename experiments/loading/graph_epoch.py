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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch_geometric.loader import DataLoader

from experiments.loading import graph_loader
from experiments.loading.graph_sets import GENERATED
from graphseq.bench import Call, Check, OutputsDiffer, Row, Setting, Speed, bare_trainer, combinations, exhaust
from graphseq.bench.speeds.loops import Moved, Waiting, train_steps
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

    def training(self) -> tuple[nn.Module, Callable[[Any], Tensor], torch.optim.Optimizer]:
        """Return a copy of the network, its loss on a batch and its optimiser."""
        twin = copy.deepcopy(self.network)

        def loss_of(batch: Any) -> Tensor:
            return functional.cross_entropy(twin(batch.x, batch.edge_index, batch.batch, ptr=batch.ptr), batch.y)

        return twin, loss_of, torch.optim.Adam(twin.parameters(), lr=1e-3)


def _prepare(case: Row, setting: Setting) -> _Subject:
    data = graph_loader.prepare(case, setting)
    network = GINClassifier(data.dataset.num_features, data.dataset.num_classes, 64, dropout=0.0)
    return _Subject(data, network.to(setting.device), case["loop"])


def _epoch(subject: _Subject, name: str, loader: Any) -> Call:
    """Return a call that trains a copy of the network for one epoch more."""
    network, loss_of, optimizer = subject.training()

    def plain() -> None:
        batches = Waiting(loader)
        exhaust(train_steps(batches, loss_of, optimizer))
        subject.shares.setdefault(name, []).append(batches.share)

    def fit() -> None:
        with bare_trainer(accelerator=subject.data.device, max_epochs=1) as trainer:
            trainer.fit(Classification(network, num_outputs=2), train_dataloaders=loader)

    return plain if subject.loop == "plain" else fit


def same_losses(subject: _Subject, calls: Any = None) -> Row:
    """Train one epoch by each loader in the same order, from the same weights."""
    data, ours, means = subject.data, subject.data.loader, []
    peer = DataLoader(data.dataset, ours.batch_size, sampler=ours.order().tolist())
    for batches in (ours, Moved(peer, data.device)):
        _, loss_of, optimizer = subject.training()
        means.append(float(torch.stack(list(train_steps(batches, loss_of, optimizer))).mean()))
    difference = abs(means[0] - means[1])
    if not (math.isfinite(difference) and difference <= _TOLERANCE[data.device]):
        raise OutputsDiffer(f"the losses of the first epoch differ by {difference}")
    return {"graphs": len(data.dataset), "loss_difference": difference}


def _losses_agree(rows: Sequence[Row]) -> list[Check]:
    largest, bound = max(row["loss_difference"] for row in rows), _TOLERANCE["cpu"]
    return [Check("the same order gives the same loss after the first epoch", largest, bound, largest <= bound)]


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
    notes=lambda subject, seconds: {f"{name} loading": median(shares) for name, shares in subject.shares.items()},
    packages={"PyG": "torch-geometric"},
    rounds={"quick": 2, "default": 9, "full": 25},
    seconds={"quick": 0.02, "default": 1.0, "full": 3.0},
    columns=["ours loading", "PyG loading"],
    claims=[_losses_agree],
)
