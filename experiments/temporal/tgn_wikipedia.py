"""Test average precision (AP) of TGN beside PyG's own example of it, and of five memory networks beside EdgeBank."""

import copy
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from itertools import product
from statistics import fmean
from typing import Any, cast

import torch
from torch import Tensor
from torch_geometric.data import TemporalData
from torchmetrics import MetricCollection

from experiments.peers.pyg_streams import PyGTGN, pyg_batch, pyg_events
from experiments.temporal.figures import draw_networks, networks_in_words, read_networks
from graphseq.bench import Effect, MeanAbove, Row, Rule, Scale, Seeds, all_of, any_of, new
from graphseq.bench.effects.training import build, overridden, quiet
from graphseq.core import EventBatch
from graphseq.data import TemporalDataModule
from graphseq.metrics import LinkAveragePrecision, PerBatchAveragePrecision

PROTOCOL = """\
Common to both parts: a stream is cut into 70/15/15 by quantiles of its times; batches of 200 in training, validation
and test; memories, encoded times and embeddings 100 wide, 2 heads, dropout 0.1, attention over the 10 latest neighbours
from before the batch (APAN attends over 10 mails, which go to 20 neighbours), Adam at 1e-4, one random negative for
each training event. The random negatives of an epoch are drawn by the seed from the destinations of training, those of
evaluation are the same for every model and seed. The test follows at the epoch with the best pooled validation AP under
random negatives, from the state after that validation. AP is pooled over all test events; the mean over batches, which
the example prints, stands beside it.

Part A, against the peer: JODIE Wikipedia without edge features, 6 epochs, all with the same batches, negatives, loss
and choice of the epoch. The peer is made of PyG's modules as its example has them: its neighbour buffer, its message
stores, fast initial frequencies of time, and one column of zeros as message, for its memory cannot do without. Ours
twice: *PyG's form*, with attention, relative times and initial frequencies of the example; and TGN as it comes, the
paper's form. The example picks no epoch but prints all; here both sides pick as above.

Part B, the table: Wikipedia (without edge features), CollegeMsg, Bitcoin OTC (the rating is the edge feature) and
Enron; TGN, JODIE, DyRep, TGAT and APAN, each trained with random negatives, with the seeds of part A (the record of
2026-11-24 has one seed of what is not part A), and tested under random, historical and inductive ones from the same
state; EdgeBank in three modes, whose window is the last 15 % of the events. *over EdgeBank* is AP less the mean of the
best mode. At the default scale models are trained for 6, 16, 26 and 8 epochs, about 3,300 steps on each set, and TGAT
has one layer, because two cost ten times as much; it has two at scale ``full``. Part B has no condition: it is reported
as it comes out.
"""

PEER, LIKE_PEER, PAPER = "PyG's example", "TGN, PyG's form", "TGN"
WORDS = {PEER: "TGN, PyG's example", LIKE_PEER: "TGN, ours in PyG's form", PAPER: "TGN, ours in the paper's form"}
BANKS = {f"EdgeBank, {mode}": mode for mode in ("unlimited", "window", "threshold")}
DATA = "graphseq.data.{}DataModule".format
SETS: dict[str, dict] = {
    "Wikipedia": {"data.edge_features": "none", "trainer.max_epochs": 6},
    "CollegeMsg": {
        "data.class_path": DATA("CollegeMsg"),
        "data.name": None,
        "trainer.max_epochs": 16,
    },
    "Bitcoin OTC": {"data.class_path": DATA("Bitcoin"), "data.name": "otc", "trainer.max_epochs": 26},
    "Enron": {"data.class_path": DATA("Enron"), "data.name": None, "trainer.max_epochs": 8},
}
NEGATIVES = {
    "random": {},
    **{kind.lower(): {"data.eval_negatives": new(f"graphseq.data.{kind}Negatives", seed=0)}
       for kind in ("Historical", "Inductive")},
}  # fmt: skip


def network(name: str, **init_args: Any) -> dict[str, Any]:
    """Return the overrides that put another network in."""
    return {"model.model": new(f"graphseq.models.{name}", **init_args)}


def as_peer(batch: EventBatch) -> TemporalData:
    """Return a batch as PyG holds it, with one column of zeros as message, which its memory cannot do without."""
    return pyg_batch(replace(batch, msg=torch.zeros(len(batch), 1)))


@torch.no_grad()
def scores(peer: PyGTGN, events: TemporalData, batches: Iterable[EventBatch]) -> Row:
    """Return the AP of all logits at once, and the mean over batches of that of each; events are written."""
    peer.eval()
    metrics = MetricCollection({"ap": LinkAveragePrecision(), "batch_ap": PerBatchAveragePrecision()})
    for batch in batches:
        logits = peer.logits(as_peer(batch), events).view(2, -1)
        if batch.neg_src is not None:  # pairs with sources of their own are scored as if they were events
            drawn = replace(batch, src=batch.neg_src[:, 0], dst=cast(Tensor, batch.neg_dst)[:, 0])
            logits = torch.stack([logits[0], peer.logits(as_peer(drawn), events).view(2, -1)[0]])
        peer.observe(as_peer(batch))
        metrics.update(logits.t(), torch.tensor([1.0, 0.0]).expand(len(batch), 2))
    return {name: float(value) for name, value in metrics.compute().items()}


def train_peer(data: TemporalDataModule, others: dict[str, TemporalDataModule], epochs: int) -> Row:
    """Train PyG's example with the data, negatives and choice of the epoch that ours have."""
    peer = PyGTGN(data.num_nodes, 1, 100)
    events = pyg_events(data.events, len(data.events))
    events.msg = torch.zeros(len(data.events), 1)
    optimizer = torch.optim.Adam(peer.parameters(), lr=1e-4)
    best, curve = peer, []
    for epoch in range(epochs):
        peer.train()
        for _ in peer.train_epoch(map(as_peer, data.batches("train", epoch)), events, optimizer):
            pass
        curve.append(scores(peer, events, data.batches("val"))["ap"])
        if curve[-1] > max(curve[:-1], default=-1.0):
            best = copy.deepcopy(peer)  # in the state after that validation, so that the test can follow
    test = {kind: scores(copy.deepcopy(best), events, other.batches("test")) for kind, other in others.items()}
    return {"val": max(curve), "epoch": curve.index(max(curve)) + 1, "curve": curve, "test": test}


def run(cell: Row, scale: Scale, effect: Effect) -> Row | None:
    """Run what no config says: the peer, which is no task, and EdgeBank, which has nothing to train."""
    arm = cell["arm"]
    if arm == "TGAT" and scale == "full":
        return effect.train(cell, scale, {"model.model.num_layers": 2})
    if arm != PEER and arm not in BANKS:
        return None
    config = effect.config_of({**cell, "arm": PAPER} if arm == PEER else cell, scale)
    with quiet():
        task, data, trainer = build(config)
        others = {kind: build(overridden(config, change))[1] for kind, change in NEGATIVES.items()}
        if arm == PEER:
            torch.manual_seed(cell["seed"])
            return train_peer(cast(Any, data), cast(Any, others), config["trainer"]["max_epochs"])
        for split in ("train", "val"):
            cast(Any, task).observe(cast(Any, data).batches(split))
        test = {kind: trainer.test(task, other, verbose=False)[0] for kind, other in others.items()}
    return {"test": {kind: {key.removeprefix("test/"): value for key, value in found.items()}
                     for kind, found in test.items()}}  # fmt: skip


def over_banks(rows: list[Row]) -> list[Row]:
    """Return rows with AP under each kind of negatives, less the mean of the best mode of EdgeBank on the same data."""
    found: dict[tuple, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row["arm"] in BANKS:
            for kind, scored in row["test"].items():
                found[row["data"], kind][row["arm"]].append(scored["ap"])
    floor = {place: max(map(fmean, values.values())) for place, values in found.items()}
    return [{**row, "over_banks": {kind: scored["ap"] - floor[row["data"], kind] for kind, scored in row["test"].items()
                                   if (row["data"], kind) in floor}} for row in rows]  # fmt: skip


effect = Effect(
    name="effect.tgn_wikipedia",
    source="arXiv 2006.10637 (TGN); ``examples/tgn.py`` of PyTorch Geometric; arXiv 2207.10128 (EdgeBank, negatives)",
    protocol=PROTOCOL,
    config="configs/temporal/tgn_wikipedia.yaml",
    base={
        "data.inductive_ratio": None,
        "data.eval_negatives": new("graphseq.data.RandomNegatives", seed=0),
        "data.train_negatives": new("graphseq.data.RandomNegatives", seed=0),
        "model.optimizer.lr": 1e-4,
        "model.per_batch_ap": True,
        **network("TGN"),
    },
    arms={
        PEER: {"peer": "examples/tgn.py"},
        PAPER: {},
        LIKE_PEER: network("TGN", time_init="uniform", embedding=new(
            "graphseq.nn.TransformerEmbedding", dim=100, out_channels=100, msg_channels=0, time_dim=100)),
        **{name: network(name) for name in ("JODIE", "DyRep")},
        "TGAT": network("TGAT", num_layers=1),
        "APAN": network("APAN"),
        **{name: network("EdgeBank", mode=mode) for name, mode in BANKS.items()},
    },
    grid={"data": SETS},
    where=lambda cell, scale: cell["data"] == "Wikipedia" or cell["arm"] not in (PEER, LIKE_PEER),
    scales={"quick": {"trainer.max_epochs": 1, "data.max_events": 3000}, "full": {"trainer.max_epochs": 50}},
    seeds=Seeds(default=3, into=("data.train_negatives.seed",)),
    tests=NEGATIVES,
    run=run,
    words=WORDS,
    finding=lambda results, checks: networks_in_words(results, checks, PAPER, PEER),
    figure=lambda results, figure, finding, reruns: draw_networks(results, figure, finding, WORDS, [PAPER, LIKE_PEER]),
    read=read_networks,
    derive=over_banks,
    columns={
        "other negatives": lambda row: {kind: row["test"][kind]["ap"] for kind in NEGATIVES if kind != "random"},
        "mean over batches": "test/batch_ap",
        "over EdgeBank": "over_banks",
    },
    claims=[
        MeanAbove(letter, f"{arm}@Wikipedia - {PEER}@Wikipedia", -0.01, f"{metric}: {arm} less PyG's", f"test/{metric}")
        for letter, (metric, arm) in zip("1234", product(("ap", "batch_ap"), (LIKE_PEER, PAPER)), strict=True)
    ],
    verdict=Rule(all_of("1234"), any_of("1234")),
)  # fmt: skip
