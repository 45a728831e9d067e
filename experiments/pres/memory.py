"""What correction does to the memory itself: roll-outs with frozen weights, and a memory whose drift is known."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from experiments.pres.training import ARMS, Arm, build_network, data_of, drifting_stream, train_epochs
from graphseq.bench.experiment import Row
from graphseq.data import FixedBatches, TemporalDataModule, TemporalEvents
from graphseq.models import MemoryNetwork
from graphseq.nn import PRESCorrector

__all__ = ["ROLLOUTS", "known_drift", "staleness"]

ROLLOUTS: dict[str, tuple[int, Arm]] = {
    "b = 10": (10, ARMS["none"]),
    "b = 100": (100, ARMS["none"]),
    "b = 1000": (1000, ARMS["none"]),
    "update": (1000, Arm(correction=True)),
    "update, not stored": (1000, Arm(correction=True, persist=False)),
    "update, gamma 0.5": (1000, Arm(correction=True, gamma=0.5)),
    "event": (1000, Arm(correction=True, rate="event")),
    "time": (1000, Arm(correction=True, rate="time")),
}
"""Batch size and corrector of each roll-out; those with a corrector are named by its step."""

_LAST = 1000  # events whose nodes are compared


def staleness(
    events: TemporalEvents, coherence: float, seed: int, *, epochs: int, marks: Sequence[int], dim: int = 32
) -> Row:
    r"""Train once, then compare memories of larger batches with those of single events, at the same weights.

    .. math:: \frac{1}{|V|} \sum_{i \in V} \lVert s_i^{(b)} - s_i^{(1)} \rVert \,/\, \lVert s_i^{(1)} \rVert

    over the nodes V of the 1000 events before a mark, memories with their mail applied. Training has batches of 200
    over all events but the last 30 %.

    Args:
        events: the stream.
        coherence: weight of the coherence term in training.
        seed: of weights and negatives.
        epochs: of training.
        marks: numbers of events at which memories are compared, ascending, multiples of the batch sizes.
        dim: size of a memory.

    Returns:
        the error at each mark for each of :data:`ROLLOUTS`.

    Example:
        >>> row = staleness(drifting_stream(1000), 0.0, 0, epochs=1, marks=[400], dim=8)
        >>> 0 < row["b = 10"][0] < 2
        True
    """
    arm = replace(ARMS["none"], coherence=coherence)
    data = data_of(events, arm, 200, seed)
    torch.manual_seed(seed)
    network = build_network("JODIE", data, arm, dim)
    train_epochs(network, data, arm, epochs=epochs, learning_rate=1e-3)
    fresh = _roll_out(network, events, 1, marks)
    errors: Row = {}
    for name, (batch_size, form) in ROLLOUTS.items():
        errors[name] = [
            float(((stale - exact).norm(dim=1) / exact.norm(dim=1).clamp(min=1e-12)).mean())
            for stale, exact in zip(
                _roll_out(_corrected(network, data, form, dim), events, batch_size, marks), fresh, strict=True
            )
        ]
    return errors


def _corrected(network: MemoryNetwork, data: TemporalDataModule, form: Arm, dim: int) -> MemoryNetwork:
    """The same weights with another corrector, whose running sums move although nothing is trained."""
    other = build_network("JODIE", data, replace(form, gate_speed=0.0), dim)
    weights = dict(network.named_parameters())
    with torch.no_grad():
        for name, weight in other.named_parameters():
            weight.copy_(weights[name])
    if other.corrector is not None:
        other.corrector.update_in_eval = True
    return other


@torch.no_grad()
def _roll_out(network: MemoryNetwork, events: TemporalEvents, batch_size: int, marks: Sequence[int]) -> list[Tensor]:
    """Memories of the nodes that took part last before each mark."""
    network.eval()
    network.reset_state()
    rolled = TemporalDataModule(
        events[: marks[-1]], batching=FixedBatches(batch_size), val_fraction=0.0, test_fraction=0.0, negatives=False
    )
    seen, found = 0, []
    for batch in rolled.batches("train"):
        network.commit(network.encode(batch))
        seen += len(batch)
        if seen in marks:
            found.append(_memory(network, _nodes_before(events, seen)))
    return found


def _nodes_before(events: TemporalEvents, mark: int) -> Tensor:
    last = slice(max(mark - _LAST, 0), mark)
    return torch.cat([events.src[last], events.dst[last]]).unique()


def _memory(network: MemoryNetwork, nodes: Tensor) -> Tensor:
    """Memories with their mail applied, and corrected where there is a corrector, as the next batch would read them."""
    assert network.memory is not None  # JODIE has one
    read = network.memory.read(nodes)
    if network.corrector is None:
        return read.measured
    return network.corrector(
        nodes, read.previous, read.measured, read.pending, elapsed=read.elapsed, num_events=read.num_events
    )


def known_drift(seed: int, batch_size: int, *, num_events: int = 20_000, gain: float = 0.5, gamma: float = 0.9) -> Row:
    """Follow the sources of :func:`drifting_stream` with a memory that holds their place, its drift known.

    The memory moves by ``gain`` of the way to the item of the source's last event in each batch. The corrector has
    the true velocity of every source in place of its running mean, with the step of time.

    Args:
        seed: of the stream.
        batch_size: events after which memory is updated.
        num_events: of the stream.
        gain: of the memory.
        gamma: weight of the measured memory.

    Returns:
        mean distance between memory and place of the source at the events of the later half of the stream, in widths
        between items: of the plain memory, of the corrected one, and of the plain one moved on, from its last event
        to the time it is asked, by the velocity.

    Example:
        >>> sorted(known_drift(0, 2000))
        ['corrected', 'moved on', 'plain']
    """
    events = drifting_stream(num_events, seed=seed)
    sources = events.num_sources or 0
    place = ((events.dst - sources) / (sources - 1)).float()
    velocity = _velocity(events, place)
    corrector = PRESCorrector(
        sources, 1, gamma_init=gamma, gamma_learnable=False, rate="time", time_scale=1.0, step_max=float("1e9")
    )
    corrector.count.fill_(1)
    corrector.weight_sum.fill_(1)
    corrector.rate_sum[:, 0] = velocity[:, None]
    memory = {"plain": torch.full((sources, 1), 0.5), "corrected": torch.full((sources, 1), 0.5)}
    known_at = torch.zeros(sources)
    errors: dict[str, list[Tensor]] = {"plain": [], "corrected": [], "moved on": []}
    for begin in range(0, len(events), batch_size):
        src, t, met = (column[begin : begin + batch_size] for column in (events.src, events.t.float(), place))
        if begin + batch_size > len(events) // 2:
            for name, state in memory.items():
                errors[name].append((state[src, 0] - met).abs())
            moved = memory["plain"][src, 0] + velocity[src] * (t - known_at[src])
            errors["moved on"].append((moved - met).abs())
        last = torch.full((sources,), -1).scatter_reduce(0, src, torch.arange(len(src)), "amax")
        nodes = (last >= 0).nonzero().squeeze(1)
        elapsed = t[last[nodes]] - known_at[nodes]
        for name, state in memory.items():
            previous = state[nodes]
            measured = previous + gain * (met[last[nodes], None] - previous)
            if name == "corrected":
                measured = corrector(
                    nodes, previous, measured, torch.ones_like(nodes, dtype=torch.bool), elapsed=elapsed
                )
            state[nodes] = measured.detach()
        known_at[nodes] = t[last[nodes]]
    return {name: float(torch.cat(parts).mean()) * (sources - 1) for name, parts in errors.items()}


def _velocity(events: TemporalEvents, place: Tensor) -> Tensor:
    """Slope of place over time of each source, by least squares; items are as near to it as rounding lets them."""
    t = events.t.double() / float(events.t[-1])
    sums = torch.zeros(events.num_sources or 0, 5, dtype=torch.float64)
    terms = torch.stack([torch.ones_like(t), t, place.double(), t * t, t * place.double()], dim=1)
    sums.index_add_(0, events.src, terms)
    count, first, other, square, product = sums.unbind(1)
    spread = count * square - first.square()
    slope = (count * product - first * other) / spread.masked_fill(spread <= 0, torch.inf)  # one event has no slope
    return (slope / float(events.t[-1])).float()
