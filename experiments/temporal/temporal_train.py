"""Training epochs of networks that remember: ours beside PyG's example and TGM."""

import collections
import functools
import logging
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

import torch
import torch_geometric
from torch.nn import functional

from experiments.peers.pyg_streams import PyGJODIE, PyGMemory, PyGTGN, pyg_events, pyg_loader
from experiments.peers.tgm_streams import TGMNetwork
from experiments.temporal.agreement import require_equal
from graphseq.bench.experiment import Check, Conclusion, Experiment, Row, Scale, SkipCell
from graphseq.bench.timing import Epoch, Ratio, interleave, ratios
from graphseq.core import DataError
from graphseq.data import JODIEDataModule, TemporalDataModule, TemporalEvents
from graphseq.models import JODIE, TGN, MemoryNetwork
from graphseq.nn import IdentityEmbedding, NodeMemory, TimeEncoder, TransformerEmbedding
from graphseq.tasks import TemporalLinkPrediction

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["TemporalTrainingSpeed"]

_DIM, _NEIGHBORS, _RATE = 100, 10, 1e-4
_BATCH_SIZES = (200, 1000)
_ROUNDS = {"quick": 1, "default": 3, "full": 9}
_EVENTS = {"quick": 6_000, "default": None, "full": None}
_EVENTS_A_TURN = 4_000
_TRAINER_STEPS = 100


class _Bounds(NamedTuple):
    claim: float
    aim: float


_BOUNDS = {
    ("TGN", 200): _Bounds(2.4, 4.0),
    ("TGN", 1000): _Bounds(2.5, 4.0),
    ("memory path", 200): _Bounds(5.0, 10.0),
    ("memory path", 1000): _Bounds(7.0, 10.0),
    ("JODIE", 200): _Bounds(2.7, 4.0),
    ("JODIE", 1000): _Bounds(3.0, 4.0),
}


class TemporalTrainingSpeed(Experiment):
    """Whole training epochs over JODIE Wikipedia by ours and by the modules of PyG's TGN example.

    Sizes of the example: memory, time and embedding 100, two heads, ten neighbours, dropout 0.1, one random negative
    an event, learning rate 0.0001, message width 1 (a column of zeros, as PyG's memory needs a column). An epoch is all
    there is of one: reset, loading, drawing negatives, neighbours, scores, loss, writing memories, gradients, step.

    * ``TGN``: like for like. Ours has the example's embedding (``TransformerEmbedding``, time between an event and the
      neighbour's last update) and both sides the uniform start of the time encoder. ``TGN, paper's form`` is ours with
      the attention of the paper at the time of each event and geometric frequencies, against the same peer: more work
      in fewer slow cosines, for information. ``Trainer ms`` is what a step of the like-for-like network takes more in
      a Lightning ``fit`` than in the plain loop, measured over the first 100 steps.
    * ``memory path``: memories of all roots read, those of the events written, messages stored; no gradient.
    * ``JODIE``: GRU memory and time projection on both sides, no neighbours.
    * ``TGN of TGM``: ours with geometric frequencies, as that library's, against its TGN; skipped where it is not
      installed. Outputs are not compared: its neighbours are those of earlier times, not of earlier batches.

    The optimiser is Adam: ours the fused kernel, as our users would choose, the peer's the default of its example; the
    update is the same.

    Before anything is timed, ten batches are scored by both from the same weights in float64, in training mode without
    dropout and without a step. For this comparison, not for the timing, three things of the peer are replaced, which
    give others results by rule or by mistake: its loader of neighbours, which loses some in large batches, by our exact
    index; its aggregator, which without torch-scatter hands nodes without messages the message of another node; and the
    biases that move the memory of such a node. Logits are compared where neither a stale message nor a tie of times, on
    which the rules differ, touched a root or a neighbour (``ComparableNodes`` in ``temporal_agreement.py``). There,
    logits (of ``memory path``: memories) and the gradients of all weights must agree to 1e-7, else the experiment
    stops. ``compared`` is how many were.

    Ours and peer run in one process with one thread. They advance through their epochs in turns of 4,000 events, and
    the time of an epoch is the sum of its turns, so that whatever else the machine does falls on both. The ratio is
    the median over rounds, that is pairs of epochs, of the peer's time to ours, beside the smallest and the largest.

    Rule: the claim is a median ratio of at least 2.4 (batches of 200) and 2.5 (1000) for ``TGN``, 5 and 7 for ``memory
    path``, 2.7 and 3 for ``JODIE``; the aims are 4, 10 and 4. Claims count for whole epochs only: ``quick`` takes the
    first 6,000 events, which are served faster.

    Args:
        events: a bipartite stream with a column of features, to be measured in place of JODIE Wikipedia.

    Example:
        >>> TemporalTrainingSpeed().cells("quick", 1)[0]
        {'network': 'TGN', 'batch_size': 200}
    """

    name, kind = "speed.temporal_train", "speed"

    def __init__(self, events: TemporalEvents | None = None) -> None:
        self.events = events

    def cells(self, scale: Scale, seeds: int) -> list[Row]:
        """Return every combination of network and batch size.

        Args:
            scale: does not change the list.
            seeds: does not change the list; the rounds are the repetitions.
        """
        networks = ("TGN", "memory path", "JODIE", "TGN of TGM")
        return [{"network": network, "batch_size": size} for network in networks for size in _BATCH_SIZES]

    def run(self, cell: Row, scale: Scale) -> Row:
        """Compare, then time, one combination.

        Args:
            cell: one of :meth:`cells`.
            scale: how many rounds, and whether the stream is cut off.

        Raises:
            SkipCell: if the data are neither in the mirror nor in the cache and cannot be downloaded, or TGM is not
                installed.
            RuntimeError: if outputs differ.
        """
        network, batch_size = cell["network"], cell["batch_size"]
        data = self._data(batch_size, _EVENTS[scale])
        epochs, row = _CONTENDERS[network](data, batch_size)
        times = interleave(epochs, _ROUNDS[scale], max(1, _EVENTS_A_TURN // batch_size))
        count = len(data.splits["train"])
        variants = {
            name: {"events_per_second": _rate(count, seconds), **_columns(ratios(times, name, "peer"))}
            for name, seconds in times.items()
            if name not in ("ours", "peer")
        }
        if network == "TGN":
            row["trainer_overhead_ms"] = 1e3 * _trainer_overhead(data, 2 * _ROUNDS[scale])
        return {
            **row,
            "events": count,
            "rounds": _ROUNDS[scale],
            **{f"{name}_per_second": _rate(count, times[name]) for name in ("ours", "peer")},
            **_columns(ratios(times, "ours", "peer")),
            "variants": variants,
        }

    def _data(self, batch_size: int, max_events: int | None) -> TemporalDataModule:
        if self.events is not None:
            return TemporalDataModule(self.events, batch_size, max_events=max_events)
        data = JODIEDataModule("wikipedia", edge_features="all", batch_size=batch_size, max_events=max_events)
        try:
            data.load()
        except (DataError, OSError) as error:
            raise SkipCell(f"JODIE Wikipedia cannot be had: {error}") from error
        return data

    def conclude(self, rows: list[Row]) -> Conclusion:
        """Hold each ratio against its claim and aim.

        Args:
            rows: the combinations that ran.
        """
        checks, table = [], []
        for row in rows:
            key = (row["network"], row["batch_size"])
            for word, bound in _BOUNDS[key]._asdict().items() if key in _BOUNDS else ():
                claim = f"{word}: {key[0]}, batches of {key[1]}: at least {bound:g} times as fast as {row['peer']}"
                checks.append(Check(claim, row["ratio"], bound, row["ratio"] >= bound))
            lines = {row["network"]: {**row, "events_per_second": row["ours_per_second"]}, **row["variants"]}
            table += [
                {
                    "network": name,
                    "batch": row["batch_size"],
                    "ours events/s": line["events_per_second"],
                    "peer events/s": row["peer_per_second"],
                    "ratio": line["ratio"],
                    "lowest": line["ratio_low"],
                    "highest": line["ratio_high"],
                    "Trainer ms": line.get("trainer_overhead_ms"),
                    "compared": line.get("compared"),
                }
                for name, line in lines.items()
            ]
        return Conclusion(None, checks, table)

    def draw(self, record: Row, axes: "Axes") -> None:
        """Draw the ratio of each row with its range, and its claim as a mark.

        Args:
            record: the record.
            axes: empty Axes.
        """
        rows = [row for row in record["rows"] if "skipped" not in row][::-1]
        names = [f"{row['network']}, {row['batch_size']}" for row in rows]
        below = [row["ratio"] - row["ratio_low"] for row in rows]
        above = [row["ratio_high"] - row["ratio"] for row in rows]
        axes.barh(names, [row["ratio"] for row in rows], xerr=[below, above], color="tab:blue", capsize=3)
        for word, color in (("claim", "black"), ("aim", "tab:gray")):
            places = [place for place, row in enumerate(rows) if (row["network"], row["batch_size"]) in _BOUNDS]
            bounds = [getattr(_BOUNDS[rows[place]["network"], rows[place]["batch_size"]], word) for place in places]
            axes.scatter(bounds, places, s=300, marker="|", linewidths=2.5, color=color, label=word)
        axes.set_xlabel("times as fast as the peer (median, range over rounds)")
        axes.set_ylabel("network, events a batch")
        axes.legend(loc="lower right", frameon=False)


def _tgn(data: TemporalDataModule, batch_size: int) -> tuple[dict[str, Epoch], Row]:
    def peer(dropout: float = 0.1) -> PyGTGN:
        return PyGTGN(data.num_nodes, data.num_edge_features, _DIM, _NEIGHBORS, dropout)

    row = _compare(peer(dropout=0.0), _our_tgn(data), data)
    paper = TGN(data.num_nodes, data.num_edge_features, num_neighbors=_NEIGHBORS)
    epochs = {
        "ours": _our_training(_our_tgn(data), data),
        "peer": _pyg_training(peer(), data, batch_size),
        "TGN, paper's form": _our_training(paper, data),
    }
    return epochs, row


def _jodie(data: TemporalDataModule, batch_size: int) -> tuple[dict[str, Epoch], Row]:
    def ours() -> MemoryNetwork:
        return JODIE(data.num_nodes, data.num_edge_features, data.time_statistics, updater="gru", time_init="uniform")

    def peer() -> PyGJODIE:
        return PyGJODIE(data.num_nodes, data.num_edge_features, _DIM, data.time_statistics)

    row = _compare(peer(), ours(), data)
    return {"ours": _our_training(ours(), data), "peer": _pyg_training(peer(), data, batch_size)}, row


def _memory_path(data: TemporalDataModule, batch_size: int) -> tuple[dict[str, Epoch], Row]:
    def ours() -> MemoryNetwork:
        encoder = TimeEncoder(_DIM, init="uniform")
        memory = NodeMemory(data.num_nodes, _DIM, data.num_edge_features, encoder)
        return MemoryNetwork(memory, IdentityEmbedding(_DIM), encoder)

    def peer() -> PyGMemory:
        return PyGMemory(data.num_nodes, data.num_edge_features, _DIM)

    row = _compare(peer(), ours(), data)
    network, loader, theirs = ours(), data.loader("train"), peer()
    batches = pyg_loader(pyg_events(data.events, len(data.splits["train"])), batch_size)

    @torch.no_grad()
    def epoch() -> Iterator[None]:
        network.reset_state()
        for batch in loader:
            network.commit(network.encode(batch))
            yield

    return {"ours": epoch, "peer": lambda: theirs.pass_through(batches)}, row


def _tgm(data: TemporalDataModule, batch_size: int) -> tuple[dict[str, Epoch], Row]:
    peer = TGMNetwork(data.events, len(data.splits["train"]), batch_size, _DIM, _NEIGHBORS)
    optimizer = torch.optim.Adam(peer.parameters(), lr=_RATE)
    ours = _our_training(_our_tgn(data, "geometric"), data)
    return {"ours": ours, "peer": lambda: peer.train_epoch(optimizer)}, {"peer": "TGM's TGN", "compared": None}


_CONTENDERS: dict[str, Callable[[TemporalDataModule, int], tuple[dict[str, Epoch], Row]]] = {
    "TGN": _tgn,
    "memory path": _memory_path,
    "JODIE": _jodie,
    "TGN of TGM": _tgm,
}


def _compare(peer: PyGMemory, ours: MemoryNetwork, data: TemporalDataModule) -> Row:
    return {"peer": f"PyG's modules {torch_geometric.__version__}", "compared": require_equal(peer, ours, data)}


def _our_tgn(data: TemporalDataModule, time_init: Literal["geometric", "uniform"] = "uniform") -> MemoryNetwork:
    channels = data.num_edge_features
    embedding = TransformerEmbedding(_DIM, _DIM, channels, _DIM, _NEIGHBORS, relative_time="update")
    return TGN(data.num_nodes, channels, embedding=embedding, time_init=time_init)


def _our_training(network: MemoryNetwork, data: TemporalDataModule) -> Epoch:
    loader, optimizer = data.loader("train"), torch.optim.Adam(network.parameters(), lr=_RATE, fused=True)
    target = torch.tensor([1.0, 0.0])

    def epoch() -> Iterator[None]:
        network.reset_state()
        for batch in loader:
            logits, update = network.forward_with_update(batch)
            loss = 2 * functional.binary_cross_entropy_with_logits(logits, target.expand_as(logits))
            network.commit(update)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            yield

    return epoch


def _pyg_training(network: PyGMemory, data: TemporalDataModule, batch_size: int) -> Epoch:
    events = pyg_events(data.events, len(data.splits["train"]))
    batches, optimizer = pyg_loader(events, batch_size), torch.optim.Adam(network.parameters(), lr=_RATE)
    return lambda: network.train_epoch(batches, events, optimizer)


def _trainer_overhead(data: TemporalDataModule, rounds: int) -> float:
    """Return how many seconds a step under Lightning's Trainer takes more than one of the plain loop.

    The same first steps of the stream by both in turn, the start of the fit left out; the median over rounds.
    """
    from lightning.pytorch import Callback, Trainer

    class _Clock(Callback):
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            self.seconds = -time.perf_counter()

        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            self.seconds += time.perf_counter()

    adam = functools.partial(torch.optim.Adam, lr=_RATE, fused=True)
    task = TemporalLinkPrediction(_our_tgn(data), optimizer=cast(Any, adam))
    plain, loader = _our_training(_our_tgn(data), data), data.loader("train")
    steps = min(len(loader), _TRAINER_STEPS)
    quiet = logging.getLogger("lightning.pytorch")
    level, more = quiet.level, []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on the number of workers, which nobody asked for
        quiet.setLevel(logging.ERROR)
        try:
            for _ in range(rounds):
                clock = _Clock()
                Trainer(
                    max_epochs=1,
                    limit_train_batches=steps,
                    accelerator="cpu",
                    logger=False,
                    enable_checkpointing=False,
                    enable_progress_bar=False,
                    enable_model_summary=False,
                    callbacks=[clock],
                ).fit(task, train_dataloaders=loader)
                start = time.perf_counter()
                collections.deque(islice(plain(), steps), maxlen=0)
                more.append((clock.seconds - (time.perf_counter() - start)) / steps)
        finally:
            quiet.setLevel(level)
    return statistics.median(more)


def _rate(events: int, seconds: list[float]) -> float:
    return events / statistics.median(seconds)


def _columns(ratio: Ratio) -> Row:
    return {"ratio": ratio.median, "ratio_low": ratio.low, "ratio_high": ratio.high}


speed = TemporalTrainingSpeed()
