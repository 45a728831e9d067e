"""The graph isomorphism network on TU data sets, by the published protocol and by one that keeps the test apart."""

import itertools
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch_geometric.data import Data

from graphseq.bench.experiment import Check, Conclusion, Experiment, Row, Scale, SkipCell, Verdict
from graphseq.bench.statistics import paired_interval
from graphseq.core import DataError
from graphseq.data import BatchLoader, GraphStore, TUDataModule, k_fold_split
from graphseq.models import GINClassifier

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["GINOnTU"]


@dataclass(frozen=True)
class _Published:
    mean: float
    deviation: float
    batch_size: int  # ours, of the two in the paper's grid


# GIN-0 with sum pooling, table 1 of arXiv 1810.00826, in percent
_PUBLISHED = {
    "MUTAG": _Published(89.4, 5.6, 32),
    "PROTEINS": _Published(76.2, 2.8, 32),
    "NCI1": _Published(82.7, 1.7, 128),
}
# the same network in arXiv 1912.09893, table 3, in percent
_FAIR_PUBLISHED = {"PROTEINS": "73.3 ± 4.0", "NCI1": "80.0 ± 1.4"}
_ARMS = (("GIN", "published"), ("GIN", "fair"), ("no edges", "published"))
_NUM_FOLDS = 10
_FOLDS = {"quick": 2, "default": 10, "full": 10}
_EPOCHS = {"quick": 2, "default": 28, "full": 350}
_LARGE_EPOCHS = {"NCI1": 70}  # of scale default
_STEPS = {"quick": 10, "default": 50, "full": 50}  # of one epoch
_HALVINGS = 7  # of the learning rate in a run: every 50 of the paper's 350 epochs
_HIDDEN, _LEARNING_RATE, _VAL_FRACTION = 32, 0.01, 0.1


class GINOnTU(Experiment):
    """Accuracy of GIN on MUTAG, PROTEINS and NCI1 beside the published one, and beside the same network without edges.

    Source: arXiv 1810.00826, GIN-0 with sum pooling: five depths counting the input, perceptrons of two layers,
    batch norm, Adam at 0.01, stratified 10-fold cross-validation. Nodes carry their label, one-hot, and nothing else.
    One point of the paper's grid is fixed in advance, where the paper takes the best: width 32, no dropout, batches of
    32 (MUTAG, PROTEINS) or 128 (NCI1). An epoch is 50 steps, as in the paper. Scale ``full`` is the paper's length,
    350 epochs, the learning rate halved every 50; ``default`` is 28 epochs, the rate halved every 4, on NCI1 70 epochs,
    halved every 10; ``quick`` is 2 folds of 2 epochs. Dropout is off because at the default length half of it leaves
    the network undertrained: that was seen on training loss and inner validation of a fold of another partition
    (seed 1000), before this rule. NCI1 had 28 epochs in a first run and reached 79.4 with a training loss that was
    still falling; 70 were chosen after runs of 56 and 100 epochs on that other partition, on none of seed 0.

    Protocols:
        - *published*: nine folds train, the tenth is evaluated after every epoch, and the one epoch with the best
          mean over the ten folds is reported. The epoch is chosen on the test folds, so the number is optimistic.
        - *fair*: a tenth of the nine folds, stratified, validates; each fold's epoch is the one with the most
          validation graphs right (the lower loss decides among equals), and the tested fold is used once. As in
          arXiv 1912.09893, but without its search over hyperparameters and its three repetitions.

    Controls: the same network and training with all edges removed, so that it sees the node labels alone; and the
    majority class of the training folds. Folds are those of seed 0; scale ``full`` repeats everything with the
    partitions of seeds 0 to ``seeds`` - 1. Standard deviations are over folds.

    Rule, written before the run. Four conditions: by the published protocol, the mean accuracy on (1) MUTAG,
    (2) PROTEINS, (3) NCI1 is at least the published mean less one published standard deviation, that is 83.8, 73.4
    and 81.0 percent; (4) on NCI1, by the same protocol, GIN is better than without edges: the 95 % interval of the
    difference, paired by fold, lies above 0. *Reproduced* if all four hold, *partly* if some, else *not reproduced*.

    Args:
        graphs: your own graphs by name, in place of the three sets; without published numbers only condition (4)
            is left, on every set.

    Example:
        >>> GINOnTU().cells("quick", 1)[0]
        {'data': 'MUTAG', 'network': 'GIN', 'protocol': 'published', 'seed': 0, 'fold': 0}
    """

    name, kind = "effect.gin_tu", "effect"

    def __init__(self, graphs: dict[str, Sequence[Data]] | None = None) -> None:
        self.graphs = graphs

    def cells(self, scale: Scale, seeds: int) -> list[Row]:
        """Return one cell for each set, network, protocol and fold.

        Args:
            scale: how many folds are run.
            seeds: partitions at scale ``full``; at the others the ten folds of one are the repetitions.
        """
        return [
            {"data": data, "network": network, "protocol": protocol, "seed": seed, "fold": fold}
            for data in self.graphs or _PUBLISHED
            for network, protocol in _ARMS
            for seed in range(seeds if scale == "full" else 1)
            for fold in range(_FOLDS[scale])
        ]

    def run(self, cell: Row, scale: Scale) -> Row:
        """Train on one fold and evaluate after every epoch.

        Args:
            cell: one of :meth:`cells`.
            scale: how long.

        Raises:
            SkipCell: if the data are neither in the mirror nor in the cache and cannot be downloaded.
        """
        start = time.perf_counter()
        store = self._store(cell["data"])
        labels = store.field("y").flatten()
        fair = cell["protocol"] == "fair"
        split = k_fold_split(labels, _NUM_FOLDS, cell["fold"], cell["seed"], _VAL_FRACTION, val_is_test=not fair)
        batch_size = _PUBLISHED[cell["data"]].batch_size if cell["data"] in _PUBLISHED else 32
        torch.manual_seed(cell["fold"])  # the arms of a fold start from the same weights
        network = GINClassifier(store.field("x").size(1), int(labels.max()) + 1, _HIDDEN, dropout=0.0)
        loader = BatchLoader(store, batch_size, shuffle=True, index=split["train"], drop_last=True, seed=cell["fold"])
        parts = {name: store.take(split[name]) for name in (("test", "val") if fair else ("test",))}
        edges = cell["network"] == "GIN"
        curves = defaultdict(list)
        epochs = _LARGE_EPOCHS.get(cell["data"], _EPOCHS[scale]) if scale == "default" else _EPOCHS[scale]
        for loss in _epochs(network, loader, edges, epochs, _STEPS[scale]):
            curves["train_loss"].append(round(loss, 5))
            for name, part in parts.items():
                accuracy, part_loss = _evaluate(network, part, edges)
                curves[f"{name}_accuracy"].append(round(100 * accuracy, 3))
                curves[f"{name}_loss"].append(round(part_loss, 5))
        majority = labels[split["train"]].bincount().argmax()
        return {
            **curves,
            "majority_accuracy": round(100 * float((labels[split["test"]] == majority).float().mean()), 3),
            "test_graphs": len(split["test"]),
            "seconds": round(time.perf_counter() - start, 2),
        }

    def _store(self, data: str) -> GraphStore:
        if self.graphs:
            return GraphStore.from_dataset(self.graphs[data])
        try:
            return TUDataModule(data).graphs
        except DataError as error:
            raise SkipCell(f"{data} is not here: {error}") from error

    def conclude(self, rows: list[Row]) -> Conclusion:
        """Choose epochs by each protocol and apply the rule.

        Args:
            rows: the folds that ran.
        """
        folds = _chosen(rows)
        names = list(dict.fromkeys(row["data"] for row in rows))
        checks = []
        for name in names:
            gin, control = folds.get((name, "GIN", "published"), {}), folds.get((name, "no edges", "published"), {})
            if name in _PUBLISHED and gin:
                published = _PUBLISHED[name]
                bound, mean = published.mean - published.deviation, statistics.fmean(gin.values())
                claim = f"{name}: at least the published {published.mean} less one deviation of {published.deviation}"
                checks.append(Check(claim, mean, bound, mean >= bound))
            paired = sorted(gin.keys() & control.keys())
            if paired and (name == "NCI1" or name not in _PUBLISHED):
                interval = paired_interval([gin[key] for key in paired], [control[key] for key in paired])
                value = f"{interval.mean:.2f} [{interval.low:.2f}, {interval.high:.2f}]"
                checks.append(Check(f"{name}: better than without edges", value, 0.0, interval.above(0.0)))
        verdict = _verdict(checks, complete=set(names) >= set(self.graphs or _PUBLISHED))
        return Conclusion(verdict, checks, [line for name in names for line in _table(name, folds, rows)])

    def draw(self, record: Row, axes: "Axes") -> None:
        """Draw the accuracy of each arm beside the published one, with standard deviations over folds.

        Args:
            record: the record.
            axes: empty Axes.
        """
        lines = record["table"]
        names = list(dict.fromkeys(line["data"] for line in lines))
        arms = list(dict.fromkeys(line["arm"] for line in lines))
        for place, arm in enumerate(arms):
            shown = [line for line in lines if line["arm"] == arm]
            places = [names.index(line["data"]) + (place - (len(arms) - 1) / 2) * 0.19 for line in shown]
            heights, deviations = ([line[column] for line in shown] for column in ("accuracy", "deviation"))
            label = f"{arm} protocol" if "," in arm else arm
            axes.bar(places, heights, width=0.17, yerr=deviations, capsize=3, label=label)
        for index, name in enumerate(names):
            if name in _PUBLISHED:
                mean, deviation = _PUBLISHED[name].mean, _PUBLISHED[name].deviation
                span = (index - 0.4, index + 0.4)
                label = "published (mean, one deviation)" if index == 0 else None
                axes.fill_between(span, mean - deviation, mean + deviation, color="black", alpha=0.12, linewidth=0)
                axes.plot(span, (mean, mean), color="black", linestyle="--", linewidth=1, label=label)
        axes.set_xticks(range(len(names)), names)
        axes.set_ylim(40, 100)
        axes.set_ylabel("test accuracy in percent")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.18), ncols=3, frameon=False, fontsize="small")


def _epochs(network: nn.Module, loader: BatchLoader, edges: bool, epochs: int, steps: int) -> Iterator[float]:
    """Train, and yield the mean loss of the steps of each epoch."""
    optimizer = torch.optim.Adam(network.parameters(), lr=_LEARNING_RATE)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, max(1, epochs // _HALVINGS), gamma=0.5)
    batches = itertools.chain.from_iterable(itertools.repeat(loader))  # a new order in every pass
    for _ in range(epochs):
        network.train()
        losses = []
        for batch in itertools.islice(batches, steps):
            loss = functional.cross_entropy(_logits(network, batch, edges), batch.y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        scheduler.step()
        yield float(torch.stack(losses).mean())


def _logits(network: nn.Module, batch: Any, edges: bool) -> Tensor:
    edge_index = batch.edge_index if edges else batch.edge_index[:, :0]
    return network(batch.x, edge_index, batch.batch, ptr=batch.ptr)


@torch.no_grad()
def _evaluate(network: nn.Module, part: Any, edges: bool) -> tuple[float, float]:
    """Return accuracy and mean cross-entropy."""
    network.eval()
    logits = _logits(network, part, edges)
    return float((logits.argmax(1) == part.y).float().mean()), float(functional.cross_entropy(logits, part.y))


_Key = tuple[str, str, str]


def _chosen(rows: list[Row]) -> dict[_Key, dict[tuple[int, int], float]]:
    """Return the test accuracy of each (seed, fold) of each arm, at the epoch that its protocol chooses."""
    partitions: dict[tuple[str, str, Literal["published", "fair"], int], list[Row]] = defaultdict(list)
    for row in rows:
        partitions[row["data"], row["network"], row["protocol"], row["seed"]].append(row)
    chosen: dict[_Key, dict[tuple[int, int], float]] = defaultdict(dict)
    for (data, network, protocol, seed), folds in partitions.items():
        means = [statistics.fmean(values) for values in zip(*(fold["test_accuracy"] for fold in folds), strict=True)]
        for fold in folds:
            if protocol == "fair":
                quality = list(zip(fold["val_accuracy"], (-loss for loss in fold["val_loss"]), strict=True))
                epoch = quality.index(max(quality))
            else:
                epoch = means.index(max(means))
            chosen[data, network, protocol][seed, fold["fold"]] = fold["test_accuracy"][epoch]
    return chosen


def _verdict(checks: list[Check], *, complete: bool) -> Verdict | None:
    if not complete or not checks:
        return None
    held = sum(check.holds for check in checks)
    return "reproduced" if held == len(checks) else "partly" if held else "not reproduced"


def _table(name: str, folds: dict[_Key, dict[tuple[int, int], float]], rows: list[Row]) -> list[Row]:
    published, fair = _PUBLISHED.get(name), _FAIR_PUBLISHED.get(name)
    beside = {
        ("GIN", "published"): f"{published.mean} ± {published.deviation}" if published else None,
        ("GIN", "fair"): f"{fair} (arXiv 1912.09893)" if fair else None,
    }
    arms = {
        f"{network}, {protocol}": (list(folds[name, network, protocol].values()), (network, protocol))
        for network, protocol in _ARMS
        if (name, network, protocol) in folds
    }
    first = [row for row in rows if row["data"] == name and (row["network"], row["protocol"]) == _ARMS[0]]
    arms["majority class"] = ([row["majority_accuracy"] for row in first], ("majority", ""))
    return [
        {
            "data": name,
            "arm": arm,
            "accuracy": statistics.fmean(values),
            "deviation": statistics.stdev(values) if len(values) > 1 else 0.0,
            "folds": len(values),
            "reported elsewhere": beside.get(key),
        }
        for arm, (values, key) in arms.items()
        if values
    ]


effect = GINOnTU()
