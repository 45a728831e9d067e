"""TGN beside PyG's example on Wikipedia, and memory networks beside EdgeBank under three kinds of negatives."""

import copy
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch_geometric.data import TemporalData

from experiments.peers.pyg_streams import PyGTGN, pyg_batch, pyg_events
from experiments.temporal.training import (
    StreamNetwork,
    fit_stream,
    held_out_batches,
    pooled_and_batch_ap,
    score_stream,
)
from graphseq.bench.experiment import Check, Conclusion, Experiment, Row, Scale, SkipCell, Verdict
from graphseq.bench.statistics import paired_interval
from graphseq.core import DataError, EventBatch
from graphseq.data import (
    BitcoinDataModule,
    CollegeMsgDataModule,
    EnronDataModule,
    HistoricalNegatives,
    InductiveNegatives,
    JODIEDataModule,
    NegativeSampler,
    RandomNegatives,
    TemporalDataModule,
    TemporalEvents,
)
from graphseq.models import APAN, JODIE, TGAT, TGN, DyRep, EdgeBank
from graphseq.nn import TransformerEmbedding

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["PyGExample", "TGNOnWikipedia"]

_STREAMS: dict[str, Callable[[], TemporalDataModule]] = {
    "Wikipedia": lambda: JODIEDataModule("wikipedia", edge_features="none"),
    "CollegeMsg": CollegeMsgDataModule,
    "Bitcoin OTC": lambda: BitcoinDataModule("otc"),
    "Enron": EnronDataModule,
}
_PEER, _LIKE_PEER, _PAPER = "PyG's example", "TGN, PyG's form", "TGN"
_MEMORY_NETWORKS = (_PAPER, "JODIE", "DyRep", "TGAT", "APAN")
_EDGEBANKS = ("unlimited", "window", "threshold")
_NEGATIVES: dict[str, NegativeSampler] = {  # of the test: the same for every model and seed
    "random": RandomNegatives(seed=0),
    "historical": HistoricalNegatives(seed=0),
    "inductive": InductiveNegatives(seed=0),
}
_PEER_SEEDS, _PEER_EPOCHS, _TOLERANCE = 3, 6, 0.01
_EPOCHS = {"Wikipedia": 6, "CollegeMsg": 16, "Bitcoin OTC": 26, "Enron": 8}  # about 3,300 steps each
_FULL_EPOCHS, _QUICK_EVENTS = 50, 3_000
_BATCH, _LEARNING_RATE, _DIM = 200, 1e-4, 100


class TGNOnWikipedia(Experiment):
    """Test average precision (AP) of TGN beside PyG's own example of it, and of five memory networks beside EdgeBank.

    Source: arXiv 2006.10637 (TGN); ``examples/tgn.py`` of PyTorch Geometric; arXiv 2207.10128 (EdgeBank, negatives).

    Common to both parts: a stream is cut into 70/15/15 by quantiles of its times; batches of 200 in training,
    validation and test; memories, encoded times and embeddings 100 wide, 2 heads, dropout 0.1, attention over the 10
    latest neighbours from before the batch (APAN attends over 10 mails, which go to 20 neighbours), Adam at 1e-4, one
    random negative for each training event. The random negatives of an epoch are drawn by the seed from the
    destinations of training, those of evaluation are the same for every model and seed. The test follows at the epoch
    with the best pooled validation AP under random negatives, from the state after that validation. AP is pooled over
    all test events; the mean over batches, which the example prints, stands beside it.

    Part A, against the peer: JODIE Wikipedia without edge features, 6 epochs, seeds 0, 1 and 2, all through the same
    loop with the same negatives. The peer is made of PyG's modules as its example has them: its neighbour buffer, its
    message stores, fast initial frequencies of time, and one column of zeros as message, for its memory cannot do
    without. Ours twice: *PyG's form*, with attention, relative times and initial frequencies of the example; and TGN
    as it comes, the paper's form. The example picks no epoch but prints all; here both sides pick as above.

    Part B, the table: Wikipedia (without edge features), CollegeMsg, Bitcoin OTC (the rating is the edge feature) and
    Enron; TGN, JODIE, DyRep, TGAT and APAN, each trained once with random negatives and tested under random,
    historical and inductive ones from the same state; EdgeBank in three modes, whose window is the last 15 % of the
    events. A model is *below EdgeBank* under a kind of negatives if its mean AP is less than that of the best mode.
    At the default scale models are trained for 6, 16, 26 and 8 epochs, about 3,300 steps on each set, with one seed
    (TGN on Wikipedia has the three of part A), and TGAT has one layer, because two cost ten times as much. Scale
    ``full`` is 50 epochs, two layers of TGAT and ``seeds`` seeds, at least 3; part A stays as it is. Scale ``quick``
    takes one epoch of the first 3,000 events.

    Rule, written before the run. Four conditions: on Wikipedia, over the three seeds, the mean test AP is not more than
    0.01 below that of the peer, (1) in PyG's form and (2) in the paper's form, pooled; (3) and (4) the same for the
    mean over batches. *Reproduced* if all four hold, *partly* if some, else *not reproduced*. Part B has no condition:
    it is reported as it comes out.

    Args:
        streams: your own streams by name, in place of the four sets; the first is the one of part A.

    Example:
        >>> TGNOnWikipedia().cells("quick", 1)[0]
        {'data': 'Wikipedia', 'model': "PyG's example", 'epochs': 1, 'seed': 0}
    """

    name, kind = "effect.tgn_wikipedia", "effect"

    def __init__(self, streams: dict[str, TemporalEvents] | None = None) -> None:
        self.streams = streams

    @property
    def _names(self) -> list[str]:
        return list(self.streams or _STREAMS)

    def cells(self, scale: Scale, seeds: int) -> list[Row]:
        """Return one cell for each network, set and seed; TGN on Wikipedia serves both parts.

        Args:
            scale: how long and how often networks are trained.
            seeds: of part B at scale ``full``, where at least 3 are taken.
        """
        cells = [
            {"data": self._names[0], "model": model, "epochs": 1 if scale == "quick" else _PEER_EPOCHS, "seed": seed}
            for model in (_PEER, _LIKE_PEER, _PAPER)
            for seed in range(1 if scale == "quick" else _PEER_SEEDS)
        ]
        for data in self._names:
            epochs = {"quick": 1, "default": _EPOCHS.get(data, _PEER_EPOCHS), "full": _FULL_EPOCHS}[scale]
            cells += [{"data": data, "model": f"EdgeBank, {mode}", "epochs": 0, "seed": 0} for mode in _EDGEBANKS]
            cells += [
                {"data": data, "model": model, "epochs": epochs, "seed": seed}
                for model in _MEMORY_NETWORKS
                for seed in range(max(seeds, 3) if scale == "full" else 1)
            ]
        return [cell for place, cell in enumerate(cells) if cell not in cells[:place]]

    def run(self, cell: Row, scale: Scale) -> Row:
        """Train, and test under each kind of negatives from the same state.

        Args:
            cell: one of :meth:`cells`.
            scale: how much.

        Raises:
            SkipCell: if the data are neither in the mirror nor in the cache and cannot be downloaded.
        """
        start = time.process_time()
        data = TemporalDataModule(
            self._events(cell["data"]),
            _BATCH,
            eval_batch_size=_BATCH,
            train_negatives=RandomNegatives(seed=cell["seed"]),
            eval_negatives=RandomNegatives(seed=0),
            max_events=_QUICK_EVENTS if scale == "quick" else None,
        )
        torch.manual_seed(cell["seed"])
        network: Any
        curves: Row = {}
        if cell["model"].startswith("EdgeBank"):
            network = EdgeBank(cell["model"].removeprefix("EdgeBank, "))
            for split in ("train", "val"):
                network.commit(data.store.take(data.splits[split]))
        else:
            network = _network(cell["model"], data, layers=2 if scale == "full" else 1)
            network, precision, losses = fit_stream(network, data, cell["epochs"], _LEARNING_RATE)
            curves = {
                "val_ap": [round(value, 5) for value in precision],
                "train_loss": [round(value, 5) for value in losses],
                "best_epoch": precision.index(max(precision)) + 1,
            }
        pooled, batches = {}, {}
        for kind, negatives in _NEGATIVES.items():
            # the state after validation is copied, so that every kind of negatives meets the same
            scores = score_stream(copy.deepcopy(network), held_out_batches(data, negatives))
            pooled[kind], batches[kind] = (round(value, 5) for value in pooled_and_batch_ap(scores))
        return {
            **curves,
            "test_ap": pooled,
            "batch_ap": batches,
            "test_events": len(data.splits["test"]),
            "cpu_seconds": round(time.process_time() - start, 1),
        }

    def _events(self, name: str) -> TemporalEvents:
        if self.streams:
            return self.streams[name]
        try:
            return _STREAMS[name]().events
        except DataError as error:
            raise SkipCell(f"{name} is not here: {error}") from error

    def conclude(self, rows: list[Row]) -> Conclusion:
        """Compare with the peer, apply the rule, and set every model beside EdgeBank.

        Args:
            rows: the cells that ran.
        """
        checks = list(self._checks(rows))
        verdict: Verdict | None = None
        peers = sum(row["model"] == _PEER for row in rows)
        if len(checks) == 4 and peers >= _PEER_SEEDS:
            held = sum(check.holds for check in checks)
            verdict = "reproduced" if held == 4 else "partly" if held else "not reproduced"
        return Conclusion(verdict, checks, _table(rows, self._names))

    def _checks(self, rows: list[Row]) -> Iterator[Check]:
        """The four conditions, as far as all of their seeds ran."""
        part = [row for row in rows if row["data"] == self._names[0]]
        peers = {row["seed"]: row for row in part if row["model"] == _PEER}
        for score, how in (("test_ap", "pooled"), ("batch_ap", "mean over batches")):
            for model, form in ((_LIKE_PEER, "PyG's form"), (_PAPER, "the paper's form")):
                ours = {
                    row["seed"]: row
                    for row in part
                    if row["model"] == model and row["epochs"] == peers.get(row["seed"], row)["epochs"]
                }
                paired = sorted(peers.keys() & ours.keys())
                if not paired or len(paired) < len(peers):
                    continue
                values, peer = ([side[seed][score]["random"] for seed in paired] for side in (ours, peers))
                interval = paired_interval(values, peer)
                text = f"{interval.mean:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]"
                claim = f"{how}: TGN in {form} less PyG's example, mean of {len(paired)} seeds and its 95 % interval"
                yield Check(claim, text, -_TOLERANCE, interval.mean >= -_TOLERANCE)

    def draw(self, record: Row, axes: "Axes") -> None:
        """Draw the seeds of part A, and for each set the AP of every model under each kind of negatives.

        Args:
            record: the record.
            axes: empty Axes.
        """
        figure: Any = axes.figure
        axes.remove()
        figure.set_size_inches(10.0, 6.0)
        names = list(dict.fromkeys(line["data"] for line in record["table"]))
        columns = -(-(len(names) + 2) // 2)
        panels = figure.subplots(2, columns).flatten()
        _draw_seeds(record, names[0], panels[0])
        handles: dict[str, Any] = {}
        for name, panel in zip(names, panels[1:], strict=False):
            handles.update(_draw_set([line for line in record["table"] if line["data"] == name], panel))
            panel.set_title(name, fontsize="medium")
        for panel in panels[len(names) + 1 :]:
            panel.axis("off")
        panels[-1].legend(handles.values(), handles.keys(), loc="center", frameon=False, fontsize="small")


def _network(model: str, data: TemporalDataModule, layers: int) -> StreamNetwork:
    """Build a network from the seed that torch has."""
    nodes, features = data.num_nodes, data.num_edge_features
    if model == _PEER:
        return PyGExample(data.events)
    if model == _LIKE_PEER:
        embedding = TransformerEmbedding(_DIM, _DIM, features, _DIM)
        return TGN(nodes, features, embedding=embedding, time_init="uniform")
    if model == "JODIE":
        return JODIE(nodes, features, data.time_statistics)
    if model == "TGAT":
        return TGAT(nodes, features, num_layers=layers)
    networks: dict[str, Callable[[int, int], StreamNetwork]] = {"TGN": TGN, "DyRep": DyRep, "APAN": APAN}
    return networks[model](nodes, features)


class PyGExample(nn.Module):
    """PyG's TGN example behind the methods that the loop asks for, with one column of zeros as message.

    The example writes its memory before the backward pass and detaches it after the step; the loop writes between the
    two, before the step. The weights are the same, hence the values.

    Args:
        events: the stream.

    Example:
        >>> one = torch.tensor([1])
        >>> batch = EventBatch(one, one + 1, one, torch.zeros(1, 0), one, start=1, neg_dst=one[None] + 2)
        >>> PyGExample(TemporalEvents(one, one + 1, one, num_nodes=4)).forward_with_update(batch)[0].shape
        torch.Size([1, 2])
    """

    def __init__(self, events: TemporalEvents) -> None:
        super().__init__()
        self.peer = PyGTGN(events.num_nodes, 1, _DIM)
        self.events = pyg_events(events, len(events))
        self.events.msg = torch.zeros(len(events), 1)

    def forward_with_update(self, data: EventBatch) -> tuple[Tensor, TemporalData]:
        """Return the logits of events and negatives (B, 2), and the batch as PyG has it.

        Args:
            data: events with one negative each.
        """
        batch = pyg_batch(replace(data, msg=torch.zeros(len(data), 1)))
        logits = self.peer.logits(batch, self.events).view(2, -1)
        if data.neg_src is not None:  # pairs with sources of their own are scored as if they were events
            drawn = replace(data, src=data.neg_src[:, 0], dst=cast(Tensor, data.neg_dst)[:, 0], msg=batch.msg)
            logits = torch.stack([logits[0], self.peer.logits(pyg_batch(drawn), self.events).view(2, -1)[0]])
        return logits.t(), batch

    @torch.no_grad()
    def commit(self, update: TemporalData) -> None:
        """Write memories, messages and neighbours.

        Args:
            update: what came with the logits.
        """
        self.peer.observe(update)

    def reset_state(self) -> None:
        """Forget all events."""
        self.peer.reset_state()


def _table(rows: list[Row], names: list[str]) -> list[Row]:
    """One line for each set and model, with the mean over seeds."""
    groups: dict[tuple[str, str, int], list[Row]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: names.index(row["data"])):
        groups[row["data"], row["model"], row["epochs"]].append(row)

    def mean(group: list[Row], score: str, kind: str) -> float:
        return statistics.fmean(row[score][kind] for row in group)

    floor: dict[tuple[str, str], float] = defaultdict(float)
    for (data, model, _), group in groups.items():
        if model.startswith("EdgeBank"):
            for kind in _NEGATIVES:
                floor[data, kind] = max(floor[data, kind], mean(group, "test_ap", kind))
    lines = []
    for (data, model, epochs), group in groups.items():
        precision = {kind: mean(group, "test_ap", kind) for kind in _NEGATIVES}
        below = [kind for kind, value in precision.items() if value < floor[data, kind]]
        scores = [row["test_ap"]["random"] for row in group]
        lines.append(
            {
                "data": data,
                "model": model,
                "epochs": epochs,
                "seeds": len(group),
                **precision,
                "deviation": statistics.stdev(scores) if len(scores) > 1 else None,
                "mean over batches": mean(group, "batch_ap", "random"),
                "below EdgeBank": None if model.startswith("EdgeBank") else below or "no",
            }
        )
    return lines


def _draw_seeds(record: Row, name: str, panel: "Axes") -> None:
    arms = (_PEER, _LIKE_PEER, _PAPER)
    for place, arm in enumerate(arms):
        rows = [row for row in record["rows"] if row["model"] == arm and row["data"] == name and "skipped" not in row]
        values = [row["test_ap"]["random"] for row in rows]
        if values:
            panel.plot([place] * len(values), values, "o", color=f"C{place}", alpha=0.7)
            panel.hlines(statistics.fmean(values), place - 0.25, place + 0.25, color=f"C{place}")
    panel.set_xticks(range(len(arms)), ["PyG's\nexample", "ours, its\nform", "ours, the\npaper's"], fontsize="small")
    panel.set_xlim(-0.5, len(arms) - 0.5)
    panel.set_ylabel("test AP, random negatives")
    panel.set_title(f"{name}: seeds and mean", fontsize="medium")


def _draw_set(lines: list[Row], panel: "Axes") -> dict[str, Any]:
    """Draw one set, and return what the legend shows."""
    kinds = list(_NEGATIVES)
    handles: dict[str, Any] = {}
    banks = [line for line in lines if line["model"].startswith("EdgeBank")]
    for place, kind in enumerate(kinds):
        if banks:
            best = max(line[kind] for line in banks)
            handles["EdgeBank, the best mode"] = panel.hlines(best, place - 0.4, place + 0.4, color="black")
    for index, model in enumerate(_MEMORY_NETWORKS):
        shown = [line for line in lines if line["model"] == model]
        if shown:
            longest = max(shown, key=lambda line: line["epochs"])
            places = [place + (index - (len(_MEMORY_NETWORKS) - 1) / 2) * 0.14 for place in range(len(kinds))]
            (handles[model],) = panel.plot(places, [longest[kind] for kind in kinds], "o", color=f"C{index + 2}")
    panel.axhline(0.5, color="grey", linestyle=":", linewidth=1)
    panel.set_xticks(range(len(kinds)), kinds, fontsize="small")
    panel.set_ylim(min([0.45, *(line[kind] - 0.03 for line in lines for kind in kinds)]), 1.02)
    panel.set_ylabel("test AP")
    return handles


effect = TGNOnWikipedia()
