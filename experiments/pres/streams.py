"""Streams and forms that ``effect.pres`` compares on."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphseq.bench import new
from graphseq.data import AdaptiveBatches, TemporalDataModule, TemporalEvents


def pres(coherence: float = 0.0, **corrector: Any) -> dict[str, Any]:
    """Return what PRES changes of a config: a corrector with these arguments, and the weight of the coherence term."""
    changes: dict[str, Any] = {"model.coherence_weight": coherence} if coherence else {}
    if corrector:
        changes["model.model.corrector"] = new("graphseq.nn.PRESCorrector", **{"gamma_init": 0.9, **corrector})
    return changes


FORMS: dict[str, dict[str, Any]] = {
    "none": {},
    "pcs": pres(gamma_init=0.9),
    "mcs": pres(0.1),
    "both": pres(0.1, gamma_init=0.9),
    "gate fixed": pres(gamma_learnable=False),
    "gamma 0.7": pres(gamma_init=0.7),
    "not stored": pres(persist=False),
    "by time": pres(rate="time"),
    "by events": pres(rate="event"),
    "coherence 1": pres(1.0),
    "gamma 0.7, coherence 1": pres(1.0, gamma_init=0.7),
    "by role": pres(num_components=2),
    "forgetting": pres(decay=0.7),
    "stale only": pres(min_events=2),
    "known only": pres(min_updates=5),
    "stale and known, gamma 0.7": pres(gamma_init=0.7, min_events=2, min_updates=5),
    "stale only, coherence 1": pres(1.0, min_events=2),
    "forgetting, stale only, coherence 1": pres(1.0, decay=0.7, min_events=2),
    "coherence 0.3": pres(0.3),
    "coherence 3": pres(3.0),
}
"""The plain network, the parts of PRES, and forms to choose from on validation."""


def drifting_stream(num_events: int = 20_000, nodes: int = 200, seed: int = 0) -> TemporalEvents:
    """Return sources that each move along a line at a speed of their own and meet the item they are next to.

    Items stand evenly on [0, 1]; a source goes from a uniform place to another in the time of the stream. Times and
    sources of events are uniform. An event's features are its item's place, as sine and cosine of 4 frequencies.
    """
    draw = np.random.default_rng(seed)
    t = np.sort(draw.integers(0, 1_000_000, num_events))
    source = draw.integers(0, nodes, num_events)
    start, stop = draw.random(nodes), draw.random(nodes)
    place = start[source] + (stop - start)[source] * t / 1_000_000
    item = np.rint(place * (nodes - 1)).astype(np.int64)
    angle = np.pi * (item / (nodes - 1))[:, None] * 2.0 ** np.arange(4)
    features = torch.from_numpy(np.concatenate([np.sin(angle), np.cos(angle)], axis=1)).float()
    src, dst, when = (torch.from_numpy(column) for column in (source, item + nodes, t))
    return TemporalEvents(src, dst, when, features, num_nodes=2 * nodes, num_sources=nodes, time_offset=0)


class DriftingEventsDataModule(TemporalDataModule):
    """The drifting stream of a seed."""

    def __init__(self, max_events: int = 20_000, batch_size: int = 200, *, seed: int = 0, **options: Any) -> None:
        super().__init__(drifting_stream(max_events, seed=seed), batch_size, seed=seed, **options)


class PendingBatches(AdaptiveBatches):
    """Batches of up to four times a size with the least share of pending events that needs no more batches than it."""

    def __init__(self, batch_size: int) -> None:
        super().__init__(1.0, 4 * batch_size)
        self.batch_size = batch_size

    def plan(self, events: TemporalEvents, index: Tensor, generator: torch.Generator) -> tuple[Tensor, list[int]]:
        """Return the batches of the smallest share, to 0.1 %."""
        allowed, low, high = -(-len(index) // self.batch_size), 0, 1000
        while high - low > 1:
            middle = (low + high) // 2
            rule = AdaptiveBatches(middle / 1000, self.max_batch_size)
            low, high = (low, middle) if len(rule.plan(events, index, generator)[1]) <= allowed else (middle, high)
        return AdaptiveBatches(high / 1000, self.max_batch_size).plan(events, index, generator)
