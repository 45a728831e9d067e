"""Test average precision (AP) of TGN beside PyG's own example of it, and of five memory networks beside EdgeBank."""

import copy
import statistics
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch_geometric.data import TemporalData

from experiments.peers.pyg_streams import PyGTGN, pyg_batch, pyg_events
from graphseq.bench import Effect, Quantity, Results, Row, Rule, Scale, Seeds, all_of, any_of, interval_text, new
from graphseq.bench.effects.training import build, overridden, quiet
from graphseq.core import EventBatch
from graphseq.data import TemporalDataModule, TemporalEvents
from graphseq.metrics import link_average_precision

PROTOCOL = """\
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
"""

PEER, LIKE_PEER, PAPER = "PyG's example", "TGN, PyG's form", "TGN"
BANKS = {f"EdgeBank, {mode}": mode for mode in ("unlimited", "window", "threshold")}
EPOCHS = {"Wikipedia": 6, "CollegeMsg": 16, "Bitcoin OTC": 26, "Enron": 8}  # about 3,300 steps each
SETS = {
    "Wikipedia": {"data.name": "wikipedia", "data.edge_features": "none"},
    "CollegeMsg": {"data.class_path": "graphseq.data.CollegeMsgDataModule", "data.name": None},
    "Bitcoin OTC": {"data.class_path": "graphseq.data.BitcoinDataModule", "data.name": "otc"},
    "Enron": {"data.class_path": "graphseq.data.EnronDataModule", "data.name": None},
}
NEGATIVES = {
    "random": {},
    **{kind.lower(): {"data.eval_negatives": new(f"graphseq.data.{kind}Negatives", seed=0)}
       for kind in ("Historical", "Inductive")},
}  # fmt: skip


def network(name: str, **init_args: Any) -> dict[str, Any]:
    """Return the overrides that put another network in."""
    return {"model.model": new(f"graphseq.models.{name}", **init_args)}


class PyGExample(nn.Module):
    """PyG's TGN example, with one column of zeros as message, behind what the loop below asks for.

    The example writes its memory before the backward pass and detaches it after the step; the loop writes between the
    two, before the step. The weights are the same, hence the values.
    """

    def __init__(self, events: TemporalEvents) -> None:
        super().__init__()
        self.peer = PyGTGN(events.num_nodes, 1, 100)
        self.events = pyg_events(events, len(events))
        self.events.msg = torch.zeros(len(events), 1)

    def forward_with_update(self, data: EventBatch) -> tuple[Tensor, TemporalData]:
        """Return the logits of events and negatives (B, 2), and the batch as PyG has it."""
        batch = pyg_batch(replace(data, msg=torch.zeros(len(data), 1)))
        logits = self.peer.logits(batch, self.events).view(2, -1)
        if data.neg_src is not None:  # pairs with sources of their own are scored as if they were events
            drawn = replace(data, src=data.neg_src[:, 0], dst=cast(Tensor, data.neg_dst)[:, 0], msg=batch.msg)
            logits = torch.stack([logits[0], self.peer.logits(pyg_batch(drawn), self.events).view(2, -1)[0]])
        return logits.t(), batch

    @torch.no_grad()
    def commit(self, update: TemporalData) -> None:
        """Write memories, messages and neighbours."""
        self.peer.observe(update)


@torch.no_grad()
def scores(peer: PyGExample, batches: Iterable[EventBatch]) -> Row:
    """Return the AP of all logits at once, and the mean over batches of that of each; events are committed."""
    peer.eval()
    found = []
    for batch in batches:
        logits, update = peer.forward_with_update(batch)
        peer.commit(update)
        found.append(logits)

    def ap(logits: Tensor) -> float:
        target = torch.zeros_like(logits)
        target[:, 0] = 1
        return float(link_average_precision(logits, target))

    return {"ap": ap(torch.cat(found)), "batch_ap": statistics.fmean(ap(logits) for logits in found)}


def train_peer(data: TemporalDataModule, others: dict[str, TemporalDataModule], epochs: int) -> Row:
    """Train PyG's example with the data, negatives and choice of the epoch that ours have."""
    peer = PyGExample(data.events)
    optimizer = torch.optim.Adam(peer.parameters(), lr=1e-4)
    best, curve = peer, []
    for epoch in range(epochs):
        peer.train()
        peer.peer.reset_state()
        for batch in data.batches("train", epoch):
            logits, update = peer.forward_with_update(batch)
            loss = softplus(-logits[:, 0]).mean() + softplus(logits[:, 1:]).mean()
            optimizer.zero_grad()
            loss.backward()
            peer.commit(update)
            optimizer.step()
        curve.append(scores(peer, data.batches("val"))["ap"])
        if curve[-1] > max(curve[:-1], default=-1.0):
            best = copy.deepcopy(peer)  # in the state after that validation, so that the test can follow
    test = {kind: scores(copy.deepcopy(best), other.batches("test")) for kind, other in others.items()}
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


def less_peer(arm: str, metric: str) -> Any:
    """Return the function that gives the mean difference of an arm to PyG's example."""

    def difference(results: Results) -> float | None:
        found = results.difference(f"{arm}@Wikipedia", f"{PEER}@Wikipedia", lambda row: row["test"]["random"][metric])
        return found.mean if found else None

    return difference


def table(results: Results) -> list[Row]:
    """Return one line for each set and model: means over seeds, and the negatives under which EdgeBank is better."""
    lines: list[Row] = []
    for point in results.places():
        for arm in results.arms(**point):
            kinds = {kind: lambda row, kind=kind: row["test"][kind]["ap"] for kind in NEGATIVES}
            means = {kind: results.mean(arm, score, **point) for kind, score in kinds.items()}
            floor = {
                kind: max(results.mean(bank, score, **point) or 0.0 for bank in BANKS) for kind, score in kinds.items()
            }
            less = results.difference(arm, PEER, **point) if arm in (PAPER, LIKE_PEER) else None
            below = [kind for kind, mean in means.items() if mean is not None and mean < floor[kind]]
            batches = results.mean(arm, lambda row: row["test"]["random"].get("batch_ap"), **point)
            lines.append({**point, "model": arm, "seeds": len(results.select(arm, **point)), **means,
                          "mean over batches": batches, "less PyG's": interval_text(less),
                          "below EdgeBank": None if arm in BANKS else below or "no"})  # fmt: skip
    return lines


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
        "JODIE": network("JODIE"),
        "DyRep": network("DyRep"),
        "TGAT": network("TGAT", num_layers=1),
        "APAN": network("APAN"),
        **{name: network("EdgeBank", mode=mode) for name, mode in BANKS.items()},
    },
    grid={"data": {name: {**change, "trainer.max_epochs": EPOCHS[name]} for name, change in SETS.items()}},
    where=lambda cell, scale: cell["data"] == "Wikipedia" or cell["arm"] not in (PEER, LIKE_PEER),
    scales={"quick": {"trainer.max_epochs": 1, "data.max_events": 3000}, "full": {"trainer.max_epochs": 50}},
    seeds=Seeds(default=3, into=("data.train_negatives.seed",)),
    tests=NEGATIVES,
    run=run,
    table=table,
    claims=[
        Quantity(str(number), f"{how}: TGN in {form} less PyG's example", less_peer(arm, metric), -0.01)
        for number, (metric, how, arm, form) in enumerate(
            [(metric, how, arm, form) for metric, how in (("ap", "pooled"), ("batch_ap", "mean over batches"))
             for arm, form in ((LIKE_PEER, "PyG's form"), (PAPER, "the paper's form"))], 1)
    ],
    verdict=Rule(all_of("1234"), any_of("1234")),
)  # fmt: skip
