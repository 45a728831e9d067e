"""Time of an event and memory of TGN, from 10,000 to 1,000,000 nodes and from 100,000 to 10,000,000 events.

The paper's TGN at its sizes: memory, time and embedding 100, two heads, ten neighbours, batches of 1,000 events with
one feature and one random negative each. One sweep has 1,000,000 events at each number of nodes, the other 100,000
nodes at each number of events.

What a batch costs depends on how many distinct nodes it touches and how many neighbours they have: 10,000 nodes offer
fewer of both to a batch than 1,000,000 if all are alike, which is a difference of work, not of scaling. The swept
streams (``busy_stream``) therefore have a core that is the same at all sizes: 1,000 destinations and 2,000 busy
sources, of falling popularity, make 7 of 10 events; at the others the remaining sources take turns, as many as there
are. Ids of sources are in random order, so that memories lie scattered. ``distinct`` is the mean number of nodes of a
batch and ``fill`` the share of neighbours that exist, by which to see how far the work is the same. ``nodes, even`` is
for information only: all nodes alike (``even_stream``), where work does grow with their number.

* ``step µs``: loading, negatives, neighbours, scores, loss, writing memories, gradients, Adam, for the last 20,000
  training events. All nodes have the state that a stream leaves, mail included; an index that is asked at the end of
  the stream is as large as it gets. What is done once an epoch, clearing memories and drawing negatives, comes in
  proportion: ``epoch µs`` an event of the epoch.
* ``build µs``: from columns to the first batch: checks, split, index, store, negatives. ``write µs``, the limit: a
  plain write of as many bytes as are then held, the least that building could take. Small blocks are written again
  where they were before; those of long streams are new pages of the kernel each time, which takes several times as
  long.
* ``step MB``: peak memory during such steps beyond data, network and optimiser.
* ``state B/node``: buffers of the network; ``data B/event``: columns, index, split and negatives, all as held.

All sizes of a sweep are held in one process with one thread and measured alternately, so that drift of the machine
falls on all; each number is the median over rounds. There is no peer: each size is held against the others.

Rule: in each of the two sweeps, the largest over the smallest median time of an event is at most 1.5, for steps and,
separately, for building.
"""

import statistics
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Generator, Tensor
from torch.nn import functional

from graphseq.bench import Check, Row, Setting, Speed, alternate, combinations, peak_memory
from graphseq.data import EventLoader, EventStore, RandomNegatives, TemporalDataModule, TemporalEvents
from graphseq.models import TGN, MemoryNetwork

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["busy_stream", "even_stream", "speed"]

_BOUND, _EVEN = 1.5, "nodes, even"
_BATCH_SIZE, _NEIGHBORS, _DIM = 1000, 10, 100
_EVENTS_A_ROUND = {"quick": 2_000, "default": 20_000, "full": 20_000}
_ROUNDS = {"quick": 2, "default": 7, "full": 21}
_NODES = {"quick": (1_000, 10_000), "default": (10_000, 100_000, 1_000_000), "full": (10_000, 100_000, 1_000_000)}
_EVENTS = {"quick": (10_000, 40_000), "default": (10**5, 10**6, 10**7), "full": (10**5, 10**6, 10**7)}
_CORE = {"quick": (200, 100), "default": (2_000, 1_000), "full": (2_000, 1_000)}  # busy sources, destinations


def busy_stream(
    num_events: int, num_nodes: int, hot: int, destinations: int, generator: Generator, tail: float = 0.3
) -> TemporalEvents:
    """Draw a bipartite stream whose busy part is the same however many nodes there are beside it.

    The k-th busiest source and destination occur in proportion to 1 / sqrt(k). Events come every second on average.

    Args:
        num_events: number of events E, at least 1.
        num_nodes: number of nodes N, more than ``hot + destinations``.
        hot: number of sources that make all events but a share of ``tail``.
        destinations: number of nodes at the other end, the last ids.
        generator: generator of the random numbers.
        tail: share of events whose sources are the others in turn, in (0, 1).

    Raises:
        ValueError: if there is no other source.
    """
    sources = num_nodes - destinations
    if sources <= hot:
        raise ValueError(
            f"num_nodes is {num_nodes}; it must be more than {hot} sources and {destinations} destinations"
        )
    ids = torch.randperm(sources, generator=generator)
    src = ids[_popular(hot, num_events, generator)]
    others = (torch.rand(num_events, generator=generator) < tail).nonzero().squeeze(1)
    src[others] = ids[hot + torch.arange(len(others)) % (sources - hot)]
    return _events(src, sources + _popular(destinations, num_events, generator), num_nodes, sources, generator)


def even_stream(num_events: int, num_nodes: int, generator: Generator) -> TemporalEvents:
    """Draw a bipartite stream in which half of the nodes meet the other half, all alike."""
    sources = num_nodes // 2
    src = torch.randint(sources, (num_events,), generator=generator)
    dst = torch.randint(sources, num_nodes, (num_events,), generator=generator)
    return _events(src, dst, num_nodes, sources, generator)


def _popular(number: int, count: int, generator: Generator) -> Tensor:
    edges = torch.arange(1, number + 1).double().rsqrt().cumsum(0)
    drawn = torch.rand(count, dtype=torch.float64, generator=generator) * edges[-1]
    return torch.searchsorted(edges, drawn, right=True).clamp_(max=number - 1)


def _events(src: Tensor, dst: Tensor, num_nodes: int, num_sources: int, generator: Generator) -> TemporalEvents:
    gaps = torch.empty(len(src), dtype=torch.float64).exponential_(1.0, generator=generator)
    msg = torch.randn(len(src), 1, generator=generator)
    return TemporalEvents(src, dst, gaps.cumsum(0).long(), msg, num_nodes=num_nodes, num_sources=num_sources)


class _Subject:
    """One stream with its network, ready to go on training near its end."""

    def __init__(self, stream: TemporalEvents, count: int, device: str) -> None:
        self.columns = (stream.src, stream.dst, stream.t, stream.msg)
        self.options = {"num_nodes": stream.num_nodes, "num_sources": stream.num_sources}
        self.data = TemporalDataModule(stream, _BATCH_SIZE)
        self.data.load()
        train = self.data.splits["train"]
        self.part = train[len(train) - min(count, len(train)) :]
        self.negatives = RandomNegatives().prepare(stream, train, "train", train).to(device)
        store = cast(EventStore, self.data.store)
        self.store = store.for_training(store.history).to(device)
        network = TGN(stream.num_nodes, 1, memory_dim=_DIM, time_dim=_DIM, num_neighbors=_NEIGHBORS)
        remember(network, stream, int(self.part[0]))
        self.network, self.epochs = network.to(device), 0
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-4, fused=True)
        self.train()  # negatives and moments of Adam are made

    def loader(self) -> EventLoader:
        """Return a loader whose first pass it is, for which negatives are drawn already."""
        return EventLoader(self.store, _BATCH_SIZE, index=self.part, negatives=self.negatives)

    def train(self) -> None:
        for batch in self.loader():
            logits, update = self.network.forward_with_update(batch)
            loss = functional.softplus(-logits[:, 0]).mean() + functional.softplus(logits[:, 1:]).mean()
            self.network.commit(update)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()

    def start_epoch(self) -> None:
        """Do what an epoch begins with: forget, and draw all negatives anew, as the first batch of it does."""
        self.epochs += 1
        self.network.reset_state()
        self.negatives.sample(self.store.take(self.part[:1]), self.epochs)

    def build(self) -> None:
        """Go from columns to the first batch."""
        data = TemporalDataModule(TemporalEvents(*self.columns, **cast(Any, self.options)), _BATCH_SIZE)
        next(iter(data.loader("train")))

    def write(self) -> None:
        """Write as many bytes as building leaves, in columns of eight an event."""
        events = len(self.data.events)
        held = [torch.ones(events, dtype=torch.int64) for _ in range(round(self.nbytes()["data_bytes"] / 8 / events))]
        held.clear()

    @torch.no_grad()
    def work(self) -> Row:
        """Return how many distinct nodes a batch has, and which share of their places neighbours take."""
        plans = [self.network.encode(batch).plan for batch in self.loader()]
        fill = statistics.fmean(float(cast(Tensor, plan.layers[0].mask).float().mean()) for plan in plans)
        return {"distinct": statistics.fmean(len(plan.nodes) for plan in plans), "fill": fill}

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
        generator = Generator().manual_seed(0)
        stream = (
            even_stream(num_events, num_nodes, generator)
            if sweep == _EVEN
            else busy_stream(num_events, num_nodes, *_CORE[setting.scale], generator)
        )
        made.append(_Subject(stream, _EVENTS_A_ROUND[setting.scale], setting.device))
    return made


def _microseconds(calls: Sequence[Callable[[], object]], rounds: int) -> list[list[float]]:
    timed = alternate({str(place): call for place, call in enumerate(calls)}, rounds)
    return [[1e6 * second for second in seconds] for seconds in timed.values()]


def _run(case: Row, setting: Setting) -> Row:
    """Measure all sizes of one sweep."""
    rounds, subjects = _ROUNDS[setting.scale], _subjects(case["sweep"], setting)
    steps = _microseconds([subject.train for subject in subjects], rounds)
    # an epoch that starts forgets: what is to be known of steps is asked before
    works = [{**s.work(), "step_peak_mb": peak_memory(s.train, setting.device) / 1e6} for s in subjects]
    starts = _microseconds([subject.start_epoch for subject in subjects], rounds)
    # turn about: building and writing alternate with each other too
    built = _microseconds([call for subject in subjects for call in (subject.build, subject.write)], rounds)
    lines = []
    for at, subject in enumerate(subjects):
        events, count = len(subject.data.events), len(subject.part)
        line: Row = {"nodes": subject.data.num_nodes, "events": events}
        for key, times, of in (("step_us", steps[at], count), ("build_us", built[2 * at], events)):
            line |= {key: statistics.median(times) / of, f"{key}_low": min(times) / of, f"{key}_high": max(times) / of}
        line["epoch_us"] = statistics.median(starts[at]) / len(subject.data.splits["train"])
        line["write_us"] = statistics.median(built[2 * at + 1]) / events
        lines.append({**line, **works[at], **subject.nbytes()})
    return {"rounds": rounds, "events_a_round": _EVENTS_A_ROUND[setting.scale], "sizes": lines}


def constant(rows: Sequence[Row]) -> list[Check]:
    """Hold the spread of each sweep against the bound."""
    checks = []
    for row in rows:
        low, high = (row["sizes"][at].get(row["sweep"]) for at in (0, -1))
        for key, what in (("step_us", "training steps"), ("build_us", "building")) if row["sweep"] != _EVEN else ():
            medians = [line[key] for line in row["sizes"]]
            spread = max(medians) / min(medians)
            claim = f"{what}: time of an event is constant within {_BOUND} from {low:,} to {high:,} {row['sweep']}"
            checks.append(Check(claim, spread, _BOUND, spread <= _BOUND))
    return checks


_SHOWN = {
    "nodes": "nodes",
    "events": "events",
    "step µs": "step_us",
    "distinct": "distinct",
    "fill": "fill",
    "epoch µs": "epoch_us",
    "build µs": "build_us",
    "write µs": "write_us",
    "step MB": "step_peak_mb",
}


def _table(rows: Sequence[Row]) -> list[Row]:
    return [
        {"sweep": row["sweep"]}
        | {column: line[key] for column, key in _SHOWN.items()}
        | {"state B/node": line["state_bytes"] / line["nodes"], "data B/event": line["data_bytes"] / line["events"]}
        for row in rows
        for line in row["sizes"]
    ]


def _draw(record: Row, axes: "Axes") -> None:
    """Draw the time of an event over the size, for steps and building, and the band each is to stay in."""
    figure: Any = axes.figure
    axes.remove()
    rows = [row for row in record["rows"] if "skipped" not in row and row["sweep"] != _EVEN]
    panels = figure.subplots(1, max(1, len(rows)), squeeze=False, sharey=True)[0]
    for row, panel in zip(rows, panels, strict=False):
        places = [line[row["sweep"]] for line in row["sizes"]]
        for key, label, color in (("step_us", "training step", "tab:blue"), ("build_us", "building", "tab:orange")):
            medians, low, high = ([line[key + end] for line in row["sizes"]] for end in ("", "_low", "_high"))
            ranges = [[abs(median - end) for median, end in zip(medians, ends, strict=True)] for ends in (low, high)]
            panel.axhspan(min(medians), _BOUND * min(medians), color=color, alpha=0.2, linewidth=0)
            panel.errorbar(places, medians, ranges, marker="o", capsize=3, color=color, label=label)
        panel.set(xscale="log", yscale="log", xlabel=row["sweep"])
    panels[0].set_ylabel(f"µs an event (band: least, and {_BOUND} times it)")
    panels[0].legend(loc="center left", frameon=False)


speed = Speed(
    name="speed.temporal_scale",
    protocol=__doc__,
    cases=combinations(sweep=["nodes", "events", _EVEN]),
    run=_run,
    claims=[constant],
    table=_table,
    draw=_draw,
)
