"""Time of an event and memory of TGN, from 10,000 to 1,000,000 nodes and from 100,000 to 10,000,000 events.

The paper's TGN at its sizes: memory, time and embedding 100, two heads, ten neighbours, batches of 1,000 events with
one feature and one random negative each. One sweep has 1,000,000 events at each number of nodes, the other 100,000
nodes at each number of events.

What a batch costs depends on how many distinct nodes it touches and how many neighbours they have: if all nodes are
alike, 10,000 offer fewer of both to a batch than 1,000,000, which is a difference of work, not of scaling. The swept
streams (``busy_stream``) therefore have a core that is the same at all sizes: 1,000 destinations and 2,000 busy
sources, of falling popularity, make 7 of 10 events; the remaining sources, as many as there are, take turns at the
others. Ids of sources are in random order, so that memories lie scattered. ``distinct``, the mean number of nodes of a
batch, and ``fill``, the share of neighbours that exist, show how far the work is the same. ``nodes, even`` is for
information only: all nodes alike (``even_stream``), where work does grow with their number.

* ``step µs``: loading, negatives, neighbours, scores, loss, writing memories, gradients, Adam, for the last 20,000
  training events. All nodes have the state that a stream leaves, mail included; an index that is asked at the end of
  the stream is as large as it gets. ``epoch µs``, in proportion: clearing memories and drawing negatives once an epoch.
* ``build µs``: from columns to the first batch: checks, split, index, store, negatives. ``write µs``, the limit: a
  plain write of as many bytes as are then held, the least that building could take. Small blocks are written again
  where they were before; those of long streams are new pages of the kernel each time, several times as slow.
* ``step MB``: peak memory during such steps beyond data, network and optimiser. ``state B/node``: buffers of the
  network; ``data B/event``: columns, index, split and negatives, all as held.

All sizes of a sweep are held in one process with one thread and measured alternately, so that drift of the machine
falls on all; each number is the median over rounds. There is no peer: each size is held against the others.

Rule: in each of the two sweeps, the largest over the smallest median time of an event is at most 1.5, for steps and,
separately, for building.
"""

import statistics
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Generator, Tensor
from torch.nn import functional

from graphseq.bench import ConstantTime, Row, Setting, Speed, alternately, combinations, microseconds, peak_memory
from graphseq.bench.speeds.generated import busy_stream, even_stream
from graphseq.bench.speeds.loops import train_steps
from graphseq.bench.speeds.timing import exhaust
from graphseq.core import EventBatch
from graphseq.data import EventLoader, EventStore, NegativeSampler, RandomNegatives, TemporalDataModule, TemporalEvents
from graphseq.models import TGN, MemoryNetwork

__all__ = ["link_loss", "speed", "training_data"]

_EVEN = "nodes, even"
_BATCH_SIZE, _NEIGHBORS, _DIM = 1000, 10, 100
_EVENTS_A_ROUND = {"quick": 2_000, "default": 20_000, "full": 20_000}
_ROUNDS = {"quick": 2, "default": 7, "full": 21}
_NODES = {"quick": (1_000, 10_000), "default": (10_000, 100_000, 1_000_000), "full": (10_000, 100_000, 1_000_000)}
_EVENTS = {"quick": (10_000, 40_000), "default": (10**5, 10**6, 10**7), "full": (10**5, 10**6, 10**7)}
_CORE = {"quick": (200, 100), "default": (2_000, 1_000), "full": (2_000, 1_000)}  # busy sources, destinations


def link_loss(network: MemoryNetwork) -> Callable[[EventBatch], Tensor]:
    """Return what a step does before its gradients: scores, loss of events and of negatives, writing of memories."""

    def loss_of(batch: EventBatch) -> Tensor:
        logits, update = network.forward_with_update(batch)
        network.commit(update)
        return functional.softplus(-logits[:, 0]).mean() + functional.softplus(logits[:, 1:]).mean()

    return loss_of


def training_data(data: TemporalDataModule, device: str) -> tuple[EventStore, NegativeSampler]:
    """Return the events to train on and one random negative each, on a device."""
    store, train = cast(EventStore, data.store), data.splits["train"]
    negatives = RandomNegatives().prepare(data.events, train, "train", train)
    return store.for_training(store.history).to(device), negatives.to(device)


class _Subject:
    """One stream with its network, ready to go on training near its end."""

    def __init__(self, stream: TemporalEvents, count: int, device: str) -> None:
        self.columns = {name: getattr(stream, name) for name in ("src", "dst", "t", "msg", "num_nodes", "num_sources")}
        self.data = TemporalDataModule(stream, _BATCH_SIZE)
        self.data.load()
        self.part = self.data.splits["train"][-count:]
        self.store, self.negatives = training_data(self.data, device)
        network = TGN(stream.num_nodes, 1, memory_dim=_DIM, time_dim=_DIM, num_neighbors=_NEIGHBORS)
        remember(network, stream, int(self.part[0]))
        self.network, self.epochs = network.to(device), 0
        self.loss_of = link_loss(self.network)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-4, fused=True)
        self.train()  # negatives and moments of Adam are made

    def loader(self) -> EventLoader:
        """Return a loader whose first pass it is, for which negatives are drawn already."""
        return EventLoader(self.store, _BATCH_SIZE, index=self.part, negatives=self.negatives)

    def train(self) -> None:
        exhaust(train_steps(self.loader(), self.loss_of, self.optimizer))

    def start_epoch(self) -> None:
        """Do what an epoch begins with: forget, and draw all negatives anew, as the first batch of it does."""
        self.epochs += 1
        self.network.reset_state()
        self.negatives.sample(self.store.take(self.part[:1]), self.epochs)

    def build(self) -> None:
        """Go from columns to the first batch."""
        data = TemporalDataModule(TemporalEvents(**self.columns), _BATCH_SIZE)
        next(iter(data.loader("train")))

    def write(self) -> None:
        """Write as many bytes as building leaves, in columns of eight an event."""
        events = len(self.data.events)
        _ = [torch.ones(events, dtype=torch.int64) for _ in range(round(self.nbytes()["data_bytes"] / 8 / events))]

    def work(self, device: str) -> Row:
        """Return distinct nodes of a batch, the share of their places that neighbours take, and the peak memory."""
        with torch.no_grad():
            plans = [self.network.encode(batch).plan for batch in self.loader()]
        fill = statistics.fmean(float(cast(Tensor, plan.layers[0].mask).float().mean()) for plan in plans)
        distinct = statistics.fmean(len(plan.nodes) for plan in plans)
        return {"distinct": distinct, "fill": fill, "step_peak_mb": peak_memory(self.train, device) / 1e6}

    def nbytes(self) -> Row:
        """Return the bytes of what is held for all nodes and for all events."""
        held = sum(buffer.nbytes for buffer in self.network.buffers())
        splits = sum(positions.nbytes for positions in self.data.splits.values())
        return {"state_bytes": held, "data_bytes": self.store.nbytes + splits + self.negatives.nbytes}


@torch.no_grad()
def remember(network: MemoryNetwork, events: TemporalEvents, stop: int) -> None:
    """Give all nodes that occurred before a position memories and mail of about the size that training leaves."""
    memory = cast(Any, network.memory)
    seen = torch.cat([events.src[:stop], events.dst[:stop]]).unique()
    last = torch.zeros(events.num_nodes, dtype=torch.float64)
    for ends in (events.src, events.dst):  # times ascend: the largest is the last
        last.scatter_reduce_(0, ends[:stop], events.t[:stop].double(), "amax")
    memory.memory[seen] = 0.1 * torch.randn(len(seen), memory.dim)
    memory.mail[seen, : memory.dim] = 0.1 * torch.randn(len(seen), memory.dim)
    memory.pending[seen] = True
    memory.num_events[seen] = 1
    memory.mail_t.copy_(last)
    memory.last_update.copy_(last / 2)


def _subjects(sweep: str, setting: Setting) -> list[_Subject]:
    """Return all sizes of a sweep; what is not swept has the size in the middle of its own."""
    nodes, events = _NODES[setting.scale], _EVENTS[setting.scale]
    sizes = [(nodes[len(nodes) // 2], count) for count in events]
    if sweep != "events":
        sizes = [(count, events[len(events) // 2]) for count in nodes]
    made = []
    for num_nodes, num_events in sizes:
        generator, core = Generator().manual_seed(0), () if sweep == _EVEN else _CORE[setting.scale]
        stream = (busy_stream if core else even_stream)(num_events, num_nodes, *core, generator)
        made.append(_Subject(stream, _EVENTS_A_ROUND[setting.scale], setting.device))
    return made


def _run(case: Row, setting: Setting) -> Row:
    """Measure all sizes of one sweep."""
    rounds, subjects = _ROUNDS[setting.scale], _subjects(case["sweep"], setting)
    steps = alternately([subject.train for subject in subjects], rounds)
    # an epoch that starts forgets: what is to be known of steps is asked before
    works = [subject.work(setting.device) for subject in subjects]
    starts = alternately([subject.start_epoch for subject in subjects], rounds)
    # turn about: building and writing alternate with each other too
    built = alternately([call for subject in subjects for call in (subject.build, subject.write)], rounds)
    lines = []
    for at, subject in enumerate(subjects):
        events = len(subject.data.events)
        line = {"nodes": subject.data.num_nodes, "events": events} | works[at] | subject.nbytes()
        line |= microseconds("step_us", steps[at], len(subject.part))
        line |= microseconds("epoch_us", starts[at], len(subject.data.splits["train"]))
        line |= microseconds("build_us", built[2 * at], events) | microseconds("write_us", built[2 * at + 1], events)
        lines.append(line)
    return {"rounds": rounds, "events_a_round": _EVENTS_A_ROUND[setting.scale], "sizes": lines}


_SHOWN = ("nodes", "events", "step_us", "distinct", "fill", "epoch_us", "build_us", "write_us", "step_peak_mb")


def _table(rows: Sequence[Row]) -> list[Row]:
    return [
        {"sweep": row["sweep"]}
        | {key.replace("_us", " µs").replace("_peak_mb", " MB"): line[key] for key in _SHOWN}
        | {"state B/node": line["state_bytes"] / line["nodes"], "data B/event": line["data_bytes"] / line["events"]}
        for row in rows
        for line in row["sizes"]
    ]


constant = ConstantTime(["nodes", "events"], {"step_us": "training steps", "build_us": "building"}, 1.5, "an event")
speed = Speed(
    name="speed.temporal_scale",
    protocol=__doc__,
    cases=combinations(sweep=["nodes", "events", _EVEN]),
    run=_run,
    claims=[constant],
    table=_table,
    draw=constant.draw,
    finding=constant.in_words,
)
