"""Whole training epochs of a graph network, fed by our loader and by PyG's."""

import copy
import logging
import math
import statistics
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch
import torch_geometric
from torch import nn
from torch.nn import functional
from torch_geometric.data import InMemoryDataset
from torch_geometric.loader import DataLoader

from experiments.loading.graph_sets import GENERATED, graph_set
from graphseq.bench.experiment import Check, Conclusion, Experiment, Row, Scale
from graphseq.bench.timing import alternate, ratios
from graphseq.data import BatchLoader, GraphStore
from graphseq.models import GINClassifier
from graphseq.tasks import Classification

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["GraphEpochSpeed"]

_BATCH_SIZE = 128
_HIDDEN = 64
_TOLERANCE = 1e-5
_ROUNDS = {"quick": 2, "default": 9, "full": 25}
_EPOCHS = {"quick": 1, "default": 2, "full": 5}  # of one measurement


class GraphEpochSpeed(Experiment):
    """A training epoch of GIN on NCI1, fed by our loader and by PyG's DataLoader.

    The same ``GINClassifier`` (hidden 64, five depths, batches of 128 graphs, Adam at 0.001, cross-entropy: forward,
    backward, step) is trained twice from the same weights: by ``BatchLoader`` over a ``GraphStore``, and by
    ``torch_geometric.loader.DataLoader`` over the same PyG data set in memory, its list of graphs cached beforehand.
    ``plain`` is a bare loop; ``Trainer`` is a Lightning ``fit`` of the same task without logger, checkpoints and
    progress bar, its start included on both sides. ``generated like NCI1`` are random graphs of the same statistics,
    for machines without the data.

    Before anything is timed, both train one epoch in the same order: their mean losses must agree to 1e-5, else the
    experiment stops. Then both alternate in one process with one thread. The ratio is the median over rounds of the
    peer's time to ours, beside the smallest and the largest; ``loading`` is the share of an epoch that passes while
    the loop waits for a batch, measured inside the timed epochs (not under the Trainer).

    Rule: a report, no claim but the agreement of the losses.

    Args:
        datasets: PyG data sets in memory by name, to be measured in place of the named ones; None for these.

    Example:
        >>> GraphEpochSpeed().cells("quick", 1)[0]
        {'data': 'NCI1', 'loop': 'plain'}
    """

    name, kind = "speed.graph_epoch", "speed"

    def __init__(self, datasets: dict[str, InMemoryDataset] | None = None) -> None:
        self.datasets = datasets

    def cells(self, scale: Scale, seeds: int) -> list[Row]:
        """Return every combination of data set and training loop.

        Args:
            scale: does not change the list.
            seeds: does not change the list; the rounds are the repetitions.
        """
        names = tuple(self.datasets) if self.datasets else ("NCI1", f"{GENERATED}NCI1")
        return [{"data": name, "loop": loop} for name in names for loop in ("plain", "Trainer")]

    def run(self, cell: Row, scale: Scale) -> Row:
        """Compare, then time, one combination.

        Args:
            cell: one of :meth:`cells`.
            scale: how many rounds, and how many epochs each has.

        Raises:
            SkipCell: if the data are neither in the mirror nor in the cache and cannot be downloaded.
            RuntimeError: if the losses differ.
        """
        dataset = self.datasets[cell["data"]] if self.datasets else graph_set(cell["data"])
        network = GINClassifier(dataset.num_features, dataset.num_classes, _HIDDEN, dropout=0.0)
        ours = BatchLoader(GraphStore.from_dataset(dataset), _BATCH_SIZE, shuffle=True)
        difference = _first_epoch_difference(network, ours, dataset)
        if not difference <= _TOLERANCE:
            raise RuntimeError(f"the losses of the first epoch differ by {difference}: nothing is timed")
        loaders = {"ours": ours, "peer": DataLoader(dataset, _BATCH_SIZE, shuffle=True)}
        epochs = _EPOCHS[scale]
        runs: dict[str, _Run] = {
            name: _Run(copy.deepcopy(network), loader, epochs, cell["loop"]) for name, loader in loaders.items()
        }
        calls: dict[str, Callable[[], object]] = dict(runs)
        times = alternate(calls, _ROUNDS[scale])
        ratio = ratios(times, "ours", "peer")
        return {
            "graphs": len(dataset),
            "peer": f"torch_geometric.loader.DataLoader {torch_geometric.__version__}",
            "rounds": _ROUNDS[scale],
            "epochs_a_round": epochs,
            "loss_difference": difference,
            **{f"{name}_ms": 1e3 * statistics.median(seconds) / epochs for name, seconds in times.items()},
            **{f"{name}_loading": run.loading for name, run in runs.items()},
            "ratio": ratio.median,
            "ratio_low": ratio.low,
            "ratio_high": ratio.high,
        }

    def conclude(self, rows: list[Row]) -> Conclusion:
        """List what was measured; the only claim is that both train the same network.

        Args:
            rows: the combinations that ran.
        """
        largest = max(row["loss_difference"] for row in rows)
        claim = "the same order gives the same loss after the first epoch"
        table = [
            {
                "data": row["data"],
                "loop": row["loop"],
                "ours ms": row["ours_ms"],
                "peer ms": row["peer_ms"],
                "ratio": row["ratio"],
                "lowest": row["ratio_low"],
                "highest": row["ratio_high"],
                "ours loading": row["ours_loading"],
                "peer loading": row["peer_loading"],
            }
            for row in rows
        ]
        return Conclusion(None, [Check(claim, largest, _TOLERANCE, largest <= _TOLERANCE)], table)

    def draw(self, record: Row, axes: "Axes") -> None:
        """Draw the time of an epoch on both sides, the part that is spent on loading set apart.

        Args:
            record: the record.
            axes: empty Axes.
        """
        rows = [row for row in record["rows"] if "skipped" not in row][::-1]
        for place, row in enumerate(rows):
            for side, offset in (("ours", 0.2), ("peer", -0.2)):
                total = row[f"{side}_ms"]
                loading = total * (row[f"{side}_loading"] or 0.0)
                color = "tab:blue" if side == "ours" else "tab:orange"
                label = {"ours": "our loader", "peer": "PyG's DataLoader"}[side] if place == 0 else None
                axes.barh(place + offset, total, height=0.36, color=color, label=label)
                axes.barh(place + offset, loading, height=0.36, color="none", edgecolor="black", hatch="///")
            axes.text(1.01 * max(row["ours_ms"], row["peer_ms"]), place, f"{row['ratio']:.2f} times", va="center")
        axes.barh(0, 0, color="none", edgecolor="black", hatch="///", label="waiting for a batch")
        axes.set_yticks(range(len(rows)), [f"{row['data']},\n{row['loop']}" for row in rows])
        axes.set_xlabel("milliseconds a training epoch (median over rounds)")
        axes.set_xlim(right=1.22 * max(max(row["ours_ms"], row["peer_ms"]) for row in rows))  # room for the ratios
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.14), ncols=3, frameon=False)


class _Run:
    """Epochs of one network over one loader; each call trains on."""

    def __init__(self, network: nn.Module, loader: Iterable[Any], epochs: int, loop: str) -> None:
        self.network, self.loader, self.epochs, self.loop = network, loader, epochs, loop
        self.optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
        self._waited: list[float] = []
        self._total: list[float] = []

    @property
    def loading(self) -> float | None:
        """Median share of the time that the loop waited for a batch; None if that was not measured."""
        shares = [waited / total for waited, total in zip(self._waited, self._total, strict=True)]
        return statistics.median(shares) if shares else None

    def __call__(self) -> None:
        if self.loop == "Trainer":
            _fit(self.network, self.loader, self.epochs)
            return
        start, waited = time.perf_counter(), 0.0
        for _ in range(self.epochs):
            batches = _Waiting(self.loader)
            _train(self.network, self.optimizer, batches)
            waited += batches.seconds
        self._waited.append(waited)
        self._total.append(time.perf_counter() - start)


class _Waiting:
    """Batches of a loader, and the time that passed until each was there."""

    def __init__(self, loader: Iterable[Any]) -> None:
        self.loader = loader
        self.seconds = 0.0

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


def _fit(network: nn.Module, loader: Iterable[Any], epochs: int) -> None:
    from lightning.pytorch import Trainer

    task = Classification(network, num_outputs=2)
    quiet = logging.getLogger("lightning.pytorch")
    level = quiet.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on the number of workers, which nobody asked for
        quiet.setLevel(logging.ERROR)
        try:
            Trainer(
                max_epochs=epochs,
                accelerator="cpu",
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            ).fit(task, train_dataloaders=loader)
        finally:
            quiet.setLevel(level)


def _first_epoch_difference(network: nn.Module, loader: BatchLoader, dataset: InMemoryDataset) -> float:
    """Return by how much the mean losses of one epoch in the same order differ, from the same weights."""
    order = loader.order().tolist()
    means = []
    for batches in (loader, DataLoader(dataset, loader.batch_size, sampler=order)):
        twin = copy.deepcopy(network)
        means.append(_train(twin, torch.optim.Adam(twin.parameters(), lr=1e-3), batches))
    return abs(means[0] - means[1]) if all(map(math.isfinite, means)) else math.inf


speed = GraphEpochSpeed()
