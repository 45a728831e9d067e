"""Whole training epochs over JODIE Wikipedia by ours, by the modules of PyG's TGN example, and by TGM.

``generated`` is a stream of 50,000 events between 8,000 sources and 1,000 destinations, for machines without the data.
Sizes of the example: memory, time and embedding 100, two heads, ten neighbours, dropout 0.1, one random negative an
event, Adam at 0.0001 (ours the fused kernel, as our users would choose, the peer's the default of its example; the
update is the same), message width 1 (a column of zeros, as PyG's memory needs a column). An epoch is all there is of
one: reset, loading, drawing negatives, neighbours, scores, loss, writing memories, gradients, step. Contenders take
turns of 4,000 events, and the time of an epoch is the sum of its turns: whatever else the machine does falls on all.

* ``TGN``: like for like. Ours has the example's embedding (``TransformerEmbedding``, time between an event and the
  neighbour's last update) and both sides the uniform start of the time encoder. ``paper's form`` is ours with the
  attention of the paper at the time of each event and geometric frequencies, beside the same peer: more work in fewer
  slow cosines, for information. ``Trainer ms`` is what a step of the like-for-like network takes more in a Lightning
  ``fit`` than in the plain loop, over the first 100 steps; the start of the fit is left out.
* ``memory path``: memories of all roots read, those of the events written, messages stored; no gradient.
* ``JODIE``: GRU memory and time projection on both sides, no neighbours.
* ``TGN of TGM``: ours with geometric frequencies, as that library's, against its TGN; skipped where it is not
  installed. Outputs are not compared: its neighbours are those of earlier times, not of earlier batches.

Before anything is timed, ten batches are scored by both on the processor from the same weights in float64, in training
mode without dropout and without a step. For this comparison, not for the timing, three things of PyG's are replaced,
which give others results by rule or by mistake: its loader of neighbours, which loses some in large batches, by our
exact index; its aggregator, which without torch-scatter hands nodes without messages the message of another node; and
the biases that move the memory of such a node. Logits are compared where neither a stale message nor a tie of times, on
which the rules differ, touched a root or a neighbour (``ComparableNodes`` in ``agreement.py``). There, logits (of
``memory path``: memories) and the gradients of all weights must agree to 1e-7. ``compared`` is how many were.

Rule: the claim is a median ratio of at least 2.4 (batches of 200) and 2.5 (1000) for ``TGN``, 5 and 7 for ``memory
path``, 2.7 and 3 for ``JODIE``; the aims are 4, 10 and 4. Claims count for whole epochs only: ``quick`` takes the first
6,000 events, which are served faster.
"""

import functools
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch_geometric.loader import TemporalDataLoader

from experiments.peers.pyg_streams import PyGJODIE, PyGMemory, PyGTGN, pyg_events
from experiments.peers.tgm_streams import TGMNetwork
from experiments.temporal.agreement import require_equal
from experiments.temporal.temporal_scale import link_loss, training_data
from graphseq.bench import AtLeast, Call, Row, Setting, SkipCell, Speed, combinations, train_steps, trainer_overhead
from graphseq.data import EventLoader, JODIEDataModule, SyntheticEventsDataModule, TemporalDataModule
from graphseq.models import JODIE, TGN, MemoryNetwork
from graphseq.nn import IdentityEmbedding, NodeMemory, TimeEncoder, TransformerEmbedding
from graphseq.tasks import TemporalLinkPrediction

__all__ = ["speed"]

_DIM, _NEIGHBORS, _RATE = 100, 10, 1e-4
_EVENTS = {"quick": 6_000, "default": None, "full": None}
_EVENTS_A_TURN, _TRAINER_STEPS = 4_000, 100
# claim with batches of 200 and of 1000, and the aim
_BOUNDS = {"TGN": (2.4, 2.5, 4), "memory path": (5, 7, 10), "JODIE": (2.7, 3, 4)}


@dataclass
class _Subject:
    data: TemporalDataModule
    network: str
    batch_size: int
    device: str

    def loader(self) -> EventLoader:
        """Return the training batches on the device."""
        store, negatives = training_data(self.data, self.device)
        return EventLoader(store, self.batch_size, index=self.data.splits["train"], negatives=negatives)


def _prepare(case: Row, setting: Setting) -> _Subject:
    size, count = case["batch_size"], _EVENTS[setting.scale]
    data: TemporalDataModule = (
        JODIEDataModule("wikipedia", edge_features="all", batch_size=size, max_events=count)
        if case["data"] == "wikipedia"
        else SyntheticEventsDataModule(count or 50_000, 8_000, 1_000, num_edge_features=1, batch_size=size)
    )
    data.load()
    return _Subject(data, case["network"], size, setting.device)


def _networks(subject: _Subject, dropout: float = 0.1, geometric: bool = False) -> tuple[MemoryNetwork, PyGMemory]:
    """Return ours and PyG's; ours has geometric frequencies if asked for."""
    nodes, channels, statistics = subject.data.num_nodes, subject.data.num_edge_features, subject.data.time_statistics
    init: Literal["geometric", "uniform"] = "geometric" if geometric else "uniform"
    if subject.network == "JODIE":
        ours: MemoryNetwork = JODIE(nodes, channels, statistics, updater="gru", time_init=init)
        return ours, PyGJODIE(nodes, channels, _DIM, statistics)
    if subject.network == "memory path":
        encoder = TimeEncoder(_DIM, init=init)
        ours = MemoryNetwork(NodeMemory(nodes, _DIM, channels, encoder), IdentityEmbedding(_DIM), encoder)
        return ours, PyGMemory(nodes, channels, _DIM)
    embedding = TransformerEmbedding(_DIM, _DIM, channels, _DIM, _NEIGHBORS, relative_time="update")
    ours = TGN(nodes, channels, embedding=embedding, time_init=init)
    return ours, PyGTGN(nodes, channels, _DIM, _NEIGHBORS, dropout, subject.device)


def _training(subject: _Subject, network: MemoryNetwork) -> Call:
    """Return an epoch of ours; without gradients for the memory path."""
    network, loader = network.to(subject.device), subject.loader()
    optimizer = torch.optim.Adam(network.parameters(), lr=_RATE, fused=True)

    def train() -> Iterator[object]:
        network.reset_state()
        yield from train_steps(loader, link_loss(network), optimizer)

    @torch.no_grad()
    def pass_through() -> Iterator[None]:
        network.reset_state()
        for batch in loader:
            network.commit(network.encode(batch))
            yield

    return pass_through if subject.network == "memory path" else train


def _ours(subject: _Subject) -> Call:
    return _training(subject, _networks(subject, geometric=subject.network == "TGN of TGM")[0])


def _papers_form(subject: _Subject) -> Call | None:
    nodes, channels = subject.data.num_nodes, subject.data.num_edge_features
    return _training(subject, TGN(nodes, channels, num_neighbors=_NEIGHBORS)) if subject.network == "TGN" else None


def _pyg(subject: _Subject) -> Call | None:
    if subject.network == "TGN of TGM":
        return None
    network = _networks(subject)[1].to(subject.device)
    events = pyg_events(subject.data.events, len(subject.data.splits["train"])).to(subject.device)
    batches = TemporalDataLoader(events, batch_size=subject.batch_size, neg_sampling_ratio=1.0)
    if subject.network == "memory path":
        return lambda: network.pass_through(batches)
    optimizer = torch.optim.Adam(network.parameters(), lr=_RATE)
    return lambda: network.train_epoch(batches, events, optimizer)


def _tgm(subject: _Subject) -> Call | None:
    if subject.network != "TGN of TGM":
        return None
    if subject.device != "cpu":
        raise SkipCell("its loader and hooks are put together here for a processor only")
    events, stop = subject.data.events, len(subject.data.splits["train"])
    network = TGMNetwork(events, stop, subject.batch_size, _DIM, _NEIGHBORS)
    optimizer = torch.optim.Adam(network.parameters(), lr=_RATE)
    return lambda: network.train_epoch(optimizer)


def _equal(subject: _Subject, calls: Mapping[str, Call]) -> Row:
    if subject.network == "TGN of TGM":
        return {"compared": None}
    ours, peer = _networks(subject, dropout=0.0)
    return {"compared": require_equal(peer, ours, subject.data)}


def _notes(subject: _Subject, seconds: Mapping[str, list[float]]) -> Row:
    events = len(subject.data.splits["train"])
    rates = {name: events / statistics.median(epochs) for name, epochs in seconds.items()}
    found: Row = {"events": events, "events_per_second": rates, "ours events/s": rates["ours"]}
    if subject.network == "TGN" and subject.device == "cpu":
        adam: Any = functools.partial(torch.optim.Adam, lr=_RATE, fused=True)
        task = TemporalLinkPrediction(_networks(subject)[0], optimizer=adam)
        loader, plain = subject.loader(), _ours(subject)
        steps, rounds = min(len(loader), _TRAINER_STEPS), 2 * len(seconds["ours"])
        found["Trainer ms"] = 1e3 * trainer_overhead(task, loader, plain, steps, rounds)
    return found


def _claim(network: str, size: int, bound: float, aim: float) -> AtLeast:
    where = {"data": "wikipedia", "network": network, "batch_size": size}
    text = f"{network}, batches of {size}: at least {{bound}} times as fast as PyG's modules"
    return AtLeast("ours/PyG", bound, where, text, aim=aim)


speed = Speed(
    name="speed.temporal_train",
    protocol=__doc__,
    cases=[
        *combinations(data=["wikipedia"], network=[*_BOUNDS, "TGN of TGM"], batch_size=[200, 1000]),
        *combinations(data=["generated"], network=list(_BOUNDS), batch_size=[1000]),
    ],
    prepare=_prepare,
    contenders={"ours": _ours, "PyG": _pyg, "TGM": _tgm, "paper's form": _papers_form},
    equal=_equal,
    turn=lambda subject: max(1, _EVENTS_A_TURN // subject.batch_size),
    notes=_notes,
    pairs=["paper's form/PyG"],
    packages={"PyG": "torch-geometric", "TGM": "tgm-lib"},
    rounds={"quick": 1, "default": 3, "full": 9},
    columns=["ours events/s", "Trainer ms", "compared"],
    claims=[
        _claim(network, size, bound, aim)
        for network, (at_200, at_1000, aim) in _BOUNDS.items()
        for size, bound in ((200, at_200), (1000, at_1000))
    ],
)
