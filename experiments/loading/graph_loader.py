"""Shuffled epochs over many small graphs: our loader beside PyG's."""

import collections
import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
import torch_geometric
from torch import Tensor
from torch_geometric.data import Batch, InMemoryDataset
from torch_geometric.loader import DataLoader

from experiments.loading.graph_sets import GENERATED, graph_set
from graphseq.bench.experiment import Check, Conclusion, Experiment, Row, Scale
from graphseq.bench.timing import Ratio, alternate, peak_memory, ratios
from graphseq.data import BatchLoader, GraphStore

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["GraphLoaderSpeed", "require_equal_epochs"]

_SETS = ("PROTEINS", "NCI1")
_BATCH_SIZES = (32, 128, 512)
_BOUND, _AIM = 12.0, 20.0
_ROUNDS = {"quick": 3, "default": 9, "full": 25}
_SECONDS = {"quick": 0.02, "default": 0.35, "full": 0.5}


class GraphLoaderSpeed(Experiment):
    """A shuffled epoch of PROTEINS and NCI1 by ours and by PyG's DataLoader.

    Ours: ``BatchLoader`` over ``GraphStore.from_dataset(dataset)``. Peer: ``torch_geometric.loader.DataLoader(dataset,
    batch_size, shuffle=True)`` over the same PyG data set in memory, its list of graphs cached by epochs before those
    that are timed. All fields the data carry: PROTEINS with its node attribute. ``generated like`` are random graphs
    with the same numbers of graphs, nodes, edges and columns, for machines without the data.

    Before anything is timed, every batch of an epoch in the same order is compared: all fields, ``batch``, ``ptr``,
    the numbers of graphs, what ``to_data_list`` works by, and for the first and last batch the single graphs. A
    difference stops the experiment. An epoch includes drawing its order. Ours, peer and a plain copy (``clone`` of
    all packed fields) alternate in one process with one thread; each is repeated so often that one measurement
    takes at least a third of a second. The ratio is the median over rounds of the peer's time to ours, beside the
    smallest and the largest. Peak memory is that of one epoch beyond the data.

    Columns: ``copies`` is our time in plain copies of the same bytes, ``lowest`` and ``highest`` the range of the
    ratio, ``MB`` the peak memory.

    Rule: the claim is a median ratio of at least 12 on every row; the aim is 20.

    Args:
        datasets: PyG data sets in memory by name, to be measured in place of the named ones; None for these.

    Example:
        >>> GraphLoaderSpeed().cells("quick", 1)[0]
        {'data': 'PROTEINS', 'batch_size': 32}
    """

    name, kind = "speed.graph_loader", "speed"

    def __init__(self, datasets: dict[str, InMemoryDataset] | None = None) -> None:
        self.datasets = datasets

    def cells(self, scale: Scale, seeds: int) -> list[Row]:
        """Return every combination of data set and batch size.

        Args:
            scale: does not change the list.
            seeds: does not change the list; the rounds are the repetitions.
        """
        names = tuple(self.datasets) if self.datasets else (*_SETS, *(GENERATED + name for name in _SETS))
        return [{"data": name, "batch_size": size} for name, size in itertools.product(names, _BATCH_SIZES)]

    def run(self, cell: Row, scale: Scale) -> Row:
        """Compare, then time, one combination.

        Args:
            cell: one of :meth:`cells`.
            scale: how many rounds, and how long each is.

        Raises:
            SkipCell: if the data are neither in the mirror nor in the cache and cannot be downloaded.
            RuntimeError: if batches differ.
        """
        dataset = self.datasets[cell["data"]] if self.datasets else graph_set(cell["data"])
        store = GraphStore.from_dataset(dataset)
        ours = BatchLoader(store, cell["batch_size"], shuffle=True)
        require_equal_epochs(ours, dataset)
        peer = DataLoader(dataset, cell["batch_size"], shuffle=True)
        packed = [store.field(name) for name in dataset[0].keys()]  # noqa: SIM118 (a Data is no dictionary)
        calls: dict[str, Callable[[], object]] = {
            "ours": lambda: _exhaust(ours),
            "peer": lambda: _exhaust(peer),
            "copy": lambda: [field.clone() for field in packed],
        }
        repeats = {name: _repeats(call, _SECONDS[scale]) for name, call in calls.items()}
        rounds = alternate({name: _repeated(call, repeats[name]) for name, call in calls.items()}, _ROUNDS[scale])
        times = {name: [total / repeats[name] for total in seconds] for name, seconds in rounds.items()}
        peaks = {name: peak_memory(calls[name]) / 1e6 for name in ("ours", "peer")}
        ratio = ratios(times, "ours", "peer")
        return {
            "graphs": len(store),
            "packed_mb": sum(field.nbytes for field in packed) / 1e6,
            "batches": "equal",
            "peer": f"torch_geometric.loader.DataLoader {torch_geometric.__version__}",
            "rounds": _ROUNDS[scale],
            "epochs_a_round": repeats,
            **{f"{name}_ms": 1e3 * statistics.median(seconds) for name, seconds in times.items()},
            **_columns(ratio),
            "copies": ratios(times, "copy", "ours").median,
            "ours_peak_mb": peaks["ours"],
            "peer_peak_mb": peaks["peer"],
        }

    def conclude(self, rows: list[Row]) -> Conclusion:
        """Hold the smallest ratio against the claim and the aim.

        Args:
            rows: the combinations that ran.
        """
        worst = min(rows, key=lambda row: row["ratio"])
        where = f"smallest: {worst['data']}, batches of {worst['batch_size']}"
        checks = [
            Check(f"{word}: an epoch at least {bound:.0f} times as fast as PyG's on every row ({where})",
                  worst["ratio"], bound, worst["ratio"] >= bound)
            for word, bound in (("claim", _BOUND), ("aim", _AIM))
        ]  # fmt: skip
        table = [
            {
                "data": row["data"],
                "batch": row["batch_size"],
                "ours ms": row["ours_ms"],
                "peer ms": row["peer_ms"],
                "ratio": row["ratio"],
                "lowest": row["ratio_low"],
                "highest": row["ratio_high"],
                "copies": row["copies"],
                "ours MB": row["ours_peak_mb"],
                "peer MB": row["peer_peak_mb"],
            }
            for row in rows
        ]
        return Conclusion(None, checks, table)

    def draw(self, record: Row, axes: "Axes") -> None:
        """Draw the ratio of each row with its range, and claim and aim as lines.

        Args:
            record: the record.
            axes: empty Axes.
        """
        rows = [row for row in record["rows"] if "skipped" not in row][::-1]
        names = [f"{row['data']}, {row['batch_size']}" for row in rows]
        below = [row["ratio"] - row["ratio_low"] for row in rows]
        above = [row["ratio_high"] - row["ratio"] for row in rows]
        axes.barh(names, [row["ratio"] for row in rows], xerr=[below, above], color="tab:blue", capsize=3)
        axes.axvline(_BOUND, color="black", linestyle="--", label=f"claim: {_BOUND:.0f} times")
        axes.axvline(_AIM, color="tab:gray", linestyle=":", label=f"aim: {_AIM:.0f} times")
        axes.set_xlabel("times as fast as PyG's DataLoader (median, range over rounds)")
        axes.set_ylabel("data, graphs a batch")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.12), ncols=2, frameon=False)


def require_equal_epochs(loader: BatchLoader, dataset: InMemoryDataset) -> None:
    """Stop unless every batch of an epoch equals that of PyG's DataLoader in the same order.

    Args:
        loader: ours; one pass is used up.
        dataset: what its store was packed from.

    Raises:
        RuntimeError: naming the first batch and field that differ.

    Example:
        >>> from experiments.loading.graph_sets import GraphSetStatistics, generated_graphs
        >>> dataset = generated_graphs(GraphSetStatistics(5, 9.0, 3.0, 20.0, labels=4))
        >>> require_equal_epochs(BatchLoader(GraphStore.from_dataset(dataset), 2, shuffle=True), dataset)
    """
    order = loader.order().tolist()
    peer = DataLoader(dataset, loader.batch_size, sampler=order)
    last = len(loader) - 1
    for position, (batch, expected) in enumerate(zip(loader, peer, strict=True)):
        pairs: list[tuple[Any, Any]] = [(batch, expected)]
        if position in (0, last):
            pairs += zip(batch.to_data_list(), expected.to_data_list(), strict=True)
        for one, other in pairs:
            different = [name for name, value in other.to_dict().items() if not _same(one[name], value)]
            unknown = set(one.keys()) - set(other.keys()) - {"idx"}
            if different or unknown:
                raise RuntimeError(f"batch {position} differs from PyG's in {different or sorted(unknown)}")
        if not _same_bookkeeping(batch, expected):
            raise RuntimeError(f"batch {position} differs from PyG's in what to_data_list works by")


def _same(one: Any, other: Any) -> bool:
    if isinstance(other, Tensor):
        return isinstance(one, Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    return bool(one == other)


def _same_bookkeeping(batch: Batch, expected: Batch) -> bool:
    return batch.num_graphs == expected.num_graphs and all(
        _same(mine[name], value)
        for mine, theirs in (
            (batch._slice_dict, expected._slice_dict),
            (batch._inc_dict, expected._inc_dict),
        )
        for name, value in theirs.items()
    )


def _columns(ratio: Ratio) -> Row:
    return {"ratio": ratio.median, "ratio_low": ratio.low, "ratio_high": ratio.high}


def _exhaust(batches: Iterable[Any]) -> None:
    collections.deque(batches, maxlen=0)


def _repeated(call: Callable[[], object], repeats: int) -> Callable[[], None]:
    def run() -> None:
        for _ in range(repeats):
            call()

    return run


def _repeats(call: Callable[[], object], seconds: float) -> int:
    """Return how often a call fits into a time; this also warms caches of the peer's."""
    call()
    start = time.perf_counter()
    call()
    return max(1, math.ceil(seconds / (time.perf_counter() - start)))


speed = GraphLoaderSpeed()
