"""Accuracy of GIN on MUTAG, PROTEINS and NCI1 beside the published one, and beside the same network without edges."""

import itertools
import statistics
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from torch_geometric.data import Batch

from experiments.graphs import figures
from graphseq.bench import Above, Effect, MeanAbove, Row, Rule, Seeds, all_of, any_of, new
from graphseq.data import GraphStore, TUDataModule, k_fold_split

PROTOCOL = """\
GIN-0 with sum pooling: five depths counting the input, perceptrons of two layers, batch norm, Adam at 0.01, stratified
10-fold cross-validation. Nodes carry their label, one-hot, and nothing else. One point of the paper's grid is fixed in
advance, where the paper takes the best: width 32, no dropout, batches of 32 (MUTAG, PROTEINS) or 128 (NCI1). An epoch
is 50 steps, as in the paper, whose length is that of scale ``full``; ``default`` is 28 epochs, the rate halved every 4,
on NCI1 70 epochs, halved every 10. Dropout is off because at the default length half of it leaves the network
undertrained: that was seen on training loss and inner validation of a fold of another partition (seed 1000), before
this rule. NCI1 had 28 epochs in a first run and reached 79.4 with a training loss that was still falling; 70 were
chosen after runs of 56 and 100 epochs on that other partition, on none of seed 0.

Protocols:
    - *published*: nine folds train, the tenth is evaluated after every epoch, and the one epoch with the best mean over
      the ten folds, the first among equals, is reported. The epoch is chosen on the test folds, so the number is
      optimistic.
    - *fair*: a tenth of the nine folds, stratified, validates; each fold's epoch is the one with the most validation
      graphs right, and the tested fold is used once. Validation folds are small (17 graphs of MUTAG), so that epochs
      often tie: the first of the tied epochs is taken, which may favour short training. As in arXiv 1912.09893, but
      without its search over hyperparameters and its three repetitions.

Controls: the same network and training with all edges removed, so that it sees the node labels alone; and the majority
class of the training folds. A number of the seed names partition and fold: 0 to 9 are the folds of partition 0, so that
deviations and pairs are over folds; scale ``full`` repeats everything with five partitions. Claimed is the published
mean less one published standard deviation, and on NCI1 that edges are of use.
"""

GIN, NO_EDGES, FAIRLY = "GIN, published", "no edges, published", "GIN, fair"
# GIN-0 with sum pooling, table 1 of arXiv 1810.00826, in percent: mean, deviation; graphs of a step; epochs
SETS = {"MUTAG": (89.4, 5.6, 32, 28), "PROTEINS": (76.2, 2.8, 32, 28), "NCI1": (82.7, 1.7, 128, 70)}
FAIR = {f"{FAIRLY}@PROTEINS": "73.3 ± 4.0", f"{FAIRLY}@NCI1": "80.0 ± 1.4"}  # arXiv 1912.09893, table 3


class Folds(TUDataModule):
    """A TU set whose number names partition and fold, and whose epochs have a fixed number of steps."""

    def __init__(self, name: str, *, number: int = 0, steps: int = 50, **options: Any) -> None:
        super().__init__(name, split="k_fold", fold=number % 10, drop_last=True, **options)
        self.partition, self.steps = number // 10, steps

    def read(self) -> tuple[GraphStore, dict[str, Tensor]]:
        """Return the graphs and the splits of the fold."""
        store = super().read()[0]
        labels = store.field("y").flatten()
        return store, k_fold_split(labels, 10, self.fold, self.partition, 0.1, val_is_test=self.val_is_test)

    def train_dataloader(self) -> Any:
        """Return batches that go on where the epoch before stopped, in a new order in every pass."""
        return Steps(super().train_dataloader(), self.steps)


class Steps:
    """A number of batches at a time out of endless passes over a loader."""

    def __init__(self, loader: Any, steps: int) -> None:
        self.batches: Iterator[Any] = itertools.chain.from_iterable(itertools.repeat(loader))
        self.steps = steps

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Any]:
        return itertools.islice(self.batches, self.steps)


class WithoutEdges(nn.Module):
    """Take all edges away."""

    def forward(self, batch: Batch) -> Batch:
        """Return the batch without edges."""
        batch.edge_index = batch.edge_index[:, :0]
        return batch


def measure(task: Any, data: Any) -> Row:
    """Return the accuracy of the majority class of training."""
    labels = data.graphs.field("y").flatten()
    majority = labels[data.splits["train"]].bincount().argmax()
    return {"majority": 100 * float((labels[data.splits["test"]] == majority).double().mean())}


def with_accuracy(rows: list[Row]) -> list[Row]:
    """Return rows with their accuracy: at the epoch with the best mean over the folds, or the fold's own if fair."""

    def common(row: Row) -> int:
        key = (row["data"], row["arm"], row["seed"] // 10)
        folds = [other["curve"] for other in rows if (other["data"], other["arm"], other["seed"] // 10) == key]
        means = [statistics.fmean(values) for values in zip(*folds, strict=True)]
        return means.index(max(means))

    found = [row["test"][""]["acc"] if row["arm"] == FAIRLY else row["curve"][common(row)] for row in rows]
    return [{**row, "accuracy": 100 * value} for row, value in zip(rows, found, strict=True)]


effect = Effect(
    name="effect.gin_tu",
    source="arXiv 1810.00826",
    protocol=PROTOCOL,
    config="configs/graph/gin_nci1.yaml",
    base={
        "data": {"class_path": "experiments.graphs.gin_tu.Folds", "init_args": {"name": "NCI1", "val_is_test": True}},
        "model.model": new("graphseq.models.GINClassifier", hidden_channels=32, dropout=0.0),
        "model.optimizer.lr": 0.01,
        "model.scheduler": new("torch.optim.lr_scheduler.StepLR", step_size=4, gamma=0.5),
    },
    arms={
        NO_EDGES: {f"data.{on}_transform": new("experiments.graphs.gin_tu.WithoutEdges") for on in ("train", "eval")},
        GIN: {},
        FAIRLY: {"data.val_is_test": False},
    },
    grid={"data": {
        name: {"data.name": name, "data.batch_size": size, "trainer.max_epochs": epochs,
               "model.scheduler.step_size": epochs // 7}
        for name, (_, _, size, epochs) in SETS.items()
    }},
    scales={
        "quick": {"trainer.max_epochs": 2, "model.scheduler.step_size": 1, "data.steps": 10},
        "full": {"trainer.max_epochs": 350, "model.scheduler.step_size": 50},
    },
    seeds=Seeds(default=10, full=50, into=("data.number", "data.seed")),
    score="accuracy",
    derive=with_accuracy,
    choose="val/acc",
    unit="percentage points",
    measure=measure,
    finding=lambda results, checks: figures.finding(figures.by_arm(results, GIN), SETS),
    figure=lambda results, figure, finding, reruns: figures.draw(figure, finding, figures.by_arm(results, GIN), SETS),
    read=figures.read,
    columns={"majority class": "majority"},
    reported=FAIR | {f"{GIN}@{name}": f"{mean} ± {deviation}" for name, (mean, deviation, _, _) in SETS.items()},
    claims=[
        *(MeanAbove(str(number), f"{GIN}@{name}", mean - deviation, f"{name}: published {mean} less {deviation}")
          for number, (name, (mean, deviation, _, _)) in enumerate(SETS.items(), 1)),
        Above("4", f"{GIN}@NCI1 - {NO_EDGES}@NCI1", text="NCI1: GIN less the same without edges"),
    ],
    verdict=Rule(all_of("1234"), any_of("1234")),
)  # fmt: skip
