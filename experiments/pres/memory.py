"""What correction does to the memory itself: roll-outs with frozen weights, and a memory whose drift is known."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from experiments.pres.streams import drifting_stream
from graphseq.bench import Row
from graphseq.data import FixedBatches, TemporalDataModule, TemporalEvents
from graphseq.models import JODIE, MemoryNetwork
from graphseq.nn import PRESCorrector

ROLLOUTS: dict[str, tuple[int, dict[str, Any] | None]] = {
    **{f"b = {size}": (size, None) for size in (10, 100, 1000)},
    "update": (1000, {}),
    "update, not stored": (1000, {"persist": False}),
    "update, gamma 0.5": (1000, {"gamma_init": 0.5}),
    "event": (1000, {"rate": "event"}),
    "time": (1000, {"rate": "time"}),
}
"""Batch size and corrector of each roll-out; those with a corrector are named by its step."""


def staleness(task: LightningModule, data: TemporalDataModule, marks: Sequence[int]) -> Row:
    r"""Compare memories of larger batches with those of single events, at the weights of a trained task.

    .. math:: \frac{1}{|V|} \sum_{i \in V} \lVert s_i^{(b)} - s_i^{(1)} \rVert \,/\, \lVert s_i^{(1)} \rVert

    over the nodes V of the 1000 events before a mark, memories with their mail applied.
    """
    fresh = _roll_out(task.model, data.events, 1, marks)
    errors: Row = {}
    for name, (batch_size, form) in ROLLOUTS.items():
        rolled = _roll_out(_corrected(task.model, data, form), data.events, batch_size, marks)
        errors[name] = [
            float(((stale - exact).norm(dim=1) / exact.norm(dim=1).clamp(min=1e-12)).mean())
            for stale, exact in zip(rolled, fresh, strict=True)
        ]
    return {"errors": errors}


def _corrected(network: MemoryNetwork, data: TemporalDataModule, form: dict[str, Any] | None) -> MemoryNetwork:
    """The same weights with a corrector, whose running sums move although nothing is trained."""
    if form is None:
        return network
    corrector = PRESCorrector(**{"gamma_init": 0.9, "gamma_learnable": False, **form})
    corrector.update_in_eval = True
    known = (data.num_nodes, data.num_edge_features, data.time_statistics)
    sizes = {"memory_dim": network.dim, "time_dim": network.time_encoder.dim, "mean_gap": data.mean_gap}
    other = JODIE(*known, corrector=corrector, **sizes)
    other.load_state_dict(dict(network.named_parameters()), strict=False)  # weights only, no memories
    return other


@torch.no_grad()
def _roll_out(network: MemoryNetwork, events: TemporalEvents, batch_size: int, marks: Sequence[int]) -> list[Tensor]:
    """Memories of the nodes of the 1000 events before each mark."""
    network = copy.deepcopy(network).eval()
    network.reset_state()
    rolled = TemporalDataModule(
        events[: marks[-1]], batching=FixedBatches(batch_size), val_fraction=0.0, test_fraction=0.0, negatives=False
    )
    seen, found = 0, []
    for batch in rolled.batches("train"):
        network.commit(network.encode(batch))
        seen += len(batch)
        if seen in marks:
            last = slice(max(seen - 1000, 0), seen)
            found.append(_memory(network, torch.cat([events.src[last], events.dst[last]]).unique()))
    return found


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

    Returns the mean distance between memory and place of the source at the events of the later half of the stream, in
    widths between items: of the plain memory, of the corrected one, and of the plain one moved on, from its last event
    to the time it is asked, by the velocity.
    """
    events = drifting_stream(num_events, seed=seed)
    sources = events.num_sources or 0
    place = ((events.dst - sources) / (sources - 1)).float()
    velocity = _velocity(events, place)
    fixed: dict[str, Any] = {"gamma_init": gamma, "gamma_learnable": False, "rate": "time", "time_scale": 1.0}
    corrector = PRESCorrector(sources, 1, step_max=1e9, **fixed)
    corrector.count.fill_(1)
    corrector.weight_sum.fill_(1)
    corrector.rate_sum[:, 0] = velocity[:, None]
    memory = {name: torch.full((sources, 1), 0.5) for name in ("plain", "corrected")}
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
                measured = corrector(nodes, previous, measured, torch.ones_like(nodes).bool(), elapsed=elapsed)
            state[nodes] = measured.detach()
        known_at[nodes] = t[last[nodes]]
    return {name: float(torch.cat(parts).mean()) * (sources - 1) for name, parts in errors.items()}


def _velocity(events: TemporalEvents, place: Tensor) -> Tensor:
    """Slope of place over time of each source, by least squares; items are as near to it as rounding lets them."""
    none = torch.zeros(events.num_sources or 0, dtype=torch.float64)
    count = none.index_add(0, events.src, torch.ones(len(events), dtype=torch.float64)).clamp(min=1)

    def centred(value: Tensor) -> Tensor:
        return value - (none.index_add(0, events.src, value) / count)[events.src]

    t, x = centred(events.t.double()), centred(place.double())
    spread = none.index_add(0, events.src, t * t)  # 0 where a source has one event, hence no slope
    return (none.index_add(0, events.src, t * x) / spread.masked_fill(spread <= 0, torch.inf)).float()
