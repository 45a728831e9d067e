"""Accuracy of GIN on MUTAG, PROTEINS and NCI1 beside the published one, and beside the same network without edges."""

import itertools
import statistics
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from torch_geometric.data import Batch

from graphseq.bench import Effect, Quantity, Results, Row, Rule, Seeds, all_of, any_of, interval_text, new
from graphseq.bench.effects.statistics import PairedInterval, paired_interval
from graphseq.data import GraphStore, TUDataModule, k_fold_split

PROTOCOL = """\
GIN-0 with sum pooling: five depths counting the input, perceptrons of two layers, batch norm, Adam at 0.01, stratified
10-fold cross-validation. Nodes carry their label, one-hot, and nothing else. One point of the paper's grid is fixed in
advance, where the paper takes the best: width 32, no dropout, batches of 32 (MUTAG, PROTEINS) or 128 (NCI1). An epoch
is 50 steps, as in the paper. Scale ``full`` is the paper's length, 350 epochs, the learning rate halved every 50;
``default`` is 28 epochs, the rate halved every 4, on NCI1 70 epochs, halved every 10; ``quick`` is one fold of 2
epochs. Dropout is off because at the default length half of it leaves the network undertrained: that was seen on
training loss and inner validation of a fold of another partition (seed 1000), before this rule. NCI1 had 28 epochs in a
first run and reached 79.4 with a training loss that was still falling; 70 were chosen after runs of 56 and 100 epochs
on that other partition, on none of seed 0.

Protocols:
    - *published*: nine folds train, the tenth is evaluated after every epoch, and the one epoch with the best
      mean over the ten folds is reported. The epoch is chosen on the test folds, so the number is optimistic.
    - *fair*: a tenth of the nine folds, stratified, validates; each fold's epoch is the one with the most
      validation graphs right (the first among equals), and the tested fold is used once. As in
      arXiv 1912.09893, but without its search over hyperparameters and its three repetitions.

Controls: the same network and training with all edges removed, so that it sees the node labels alone; and the
majority class of the training folds. Folds are those of seed 0; scale ``full`` repeats everything with the
partitions of seeds 0 to ``seeds`` - 1. Standard deviations are over folds.

Rule, written before the run. Four conditions: by the published protocol, the mean accuracy on (1) MUTAG,
(2) PROTEINS, (3) NCI1 is at least the published mean less one published standard deviation, that is 83.8, 73.4
and 81.0 percent; (4) on NCI1, by the same protocol, GIN is better than without edges: the 95 % interval of the
difference, paired by fold, lies above 0. *Reproduced* if all four hold, *partly* if some, else *not reproduced*.
"""

# GIN-0 with sum pooling, table 1 of arXiv 1810.00826, in percent: mean, deviation; graphs of a step; epochs
SETS = {"MUTAG": (89.4, 5.6, 32, 28), "PROTEINS": (76.2, 2.8, 32, 28), "NCI1": (82.7, 1.7, 128, 70)}
FAIR = {"PROTEINS": "73.3 ± 4.0", "NCI1": "80.0 ± 1.4"}  # arXiv 1912.09893, table 3
GIN, NO_EDGES, FAIRLY = "GIN, published", "no edges, published", "GIN, fair"


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


def accuracies(results: Results, data: str, arm: str) -> dict[int, float]:
    """Return the accuracy of each fold: at the epoch with the best mean over folds, or the fold's own if fair."""
    rows = results.select(arm, data=data)
    if arm == FAIRLY:
        return {number: 100 * row["test"][""]["acc"] for number, row in rows.items()}
    found = {}
    for partition in {number // 10 for number in rows}:
        folds = {number: row["curve"] for number, row in rows.items() if number // 10 == partition}
        means = [statistics.fmean(values) for values in zip(*folds.values(), strict=True)]
        found.update({number: 100 * curve[means.index(max(means))] for number, curve in folds.items()})
    return found


def mean_of(data: str) -> Any:
    """Return the function that gives the mean accuracy on a set by the published protocol."""

    def mean(results: Results) -> float | None:
        folds = accuracies(results, data, GIN)
        return statistics.fmean(folds.values()) if folds else None

    return mean


def gain(results: Results) -> PairedInterval | None:
    """Return how much edges give on NCI1, paired by fold."""
    ours, control = (accuracies(results, "NCI1", arm) for arm in (GIN, NO_EDGES))
    paired = sorted(ours.keys() & control.keys())
    if len(paired) < 2:
        return None
    return paired_interval([ours[number] for number in paired], [control[number] for number in paired])


def lower_end(results: Results) -> float | None:
    """Return the lower end of the interval of :func:`gain`."""
    return found.low if (found := gain(results)) else None


def table(results: Results) -> list[Row]:
    """Return one line for each set and arm, and the majority class."""
    lines: list[Row] = []
    for point in results.places():
        data = point["data"]
        elsewhere = {GIN: "{} ± {}".format(*SETS[data][:2]), FAIRLY: FAIR.get(data)}
        arms = {arm: list(accuracies(results, data, arm).values()) for arm in results.arms(**point)}
        arms["majority class"] = [row["majority"] for row in results.select(GIN, **point).values()]
        lines += [
            {"data": data, "arm": arm, "accuracy": statistics.fmean(values),
             "deviation": statistics.stdev(values) if len(values) > 1 else None, "folds": len(values),
             "gain of edges": interval_text(gain(results)) if (data, arm) == ("NCI1", GIN) else None,
             "reported elsewhere": elsewhere.get(arm)}
            for arm, values in arms.items() if values
        ]  # fmt: skip
    return lines


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
        NO_EDGES: {"data.train_transform": new("experiments.graphs.gin_tu.WithoutEdges"),
                   "data.eval_transform": new("experiments.graphs.gin_tu.WithoutEdges")},
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
    score=lambda row: 100 * row["test"][""]["acc"],
    choose="val/acc",
    unit="percentage points",
    measure=measure,
    table=table,
    claims=[
        *(
            Quantity(str(place + 1), f"{name}: at least the published {mean} less one deviation of {deviation}",
                    mean_of(name), mean - deviation)
            for place, (name, (mean, deviation, _, _)) in enumerate(SETS.items())
        ),
        Quantity("4", "NCI1: better than without edges, lower end of the interval", lower_end, 0.0),
    ],
    verdict=Rule(all_of("1234"), any_of("1234")),
)  # fmt: skip
