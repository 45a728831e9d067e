"""What all trained cells of ``effect.pres`` share: streams, arms, one loop over epochs, and evaluation."""

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from graphseq.bench.experiment import Row, SkipCell
from graphseq.core import DataError
from graphseq.data import (
    AdaptiveBatches,
    Batching,
    BitcoinDataModule,
    CollegeMsgDataModule,
    EnronDataModule,
    FixedBatches,
    JODIEDataModule,
    PrimarySchoolDataModule,
    RandomChunkBatches,
    TemporalDataModule,
    TemporalEvents,
)
from graphseq.metrics import link_average_precision
from graphseq.models import JODIE, TGN, MemoryNetwork
from graphseq.nn import PRESCorrector, memory_coherence_loss

__all__ = [
    "ARMS",
    "FORMS",
    "Arm",
    "build_network",
    "data_of",
    "drifting_stream",
    "read_stream",
    "train",
    "train_epochs",
]


@dataclass(frozen=True)
class Arm:
    """What one arm changes of the plain training.

    Args:
        correction: whether there is a corrector.
        coherence: weight of the coherence term.
        rate: step of the corrector.
        gamma: its initial weight of the measured memory.
        gate_speed: learning rate of its gate over that of the network; 0 leaves the gate where it is.
        persist: whether the corrected memory is stored.
        components: components of its mixture; 2 are the roles source and destination.
        decay: factor of its running sums at each update of a node.
        min_events: pending events from which on a node is corrected.
        min_updates: tracked updates from which on a node is corrected.
        batching: how training batches are cut.

    Example:
        >>> ARMS["mcs"].coherence, ARMS["mcs"].correction
        (0.1, False)
    """

    correction: bool = False
    coherence: float = 0.0
    rate: Literal["update", "time", "event"] = "update"
    gamma: float = 0.9
    gate_speed: float = 1.0
    persist: bool = True
    components: int = 1
    decay: float = 1.0
    min_events: int = 1
    min_updates: int = 1
    batching: Literal["fixed", "random_chunk", "adaptive"] = "fixed"


ARMS = {
    "none": Arm(),
    "pcs": Arm(correction=True),
    "mcs": Arm(coherence=0.1),
    "both": Arm(correction=True, coherence=0.1),
    "random_chunk": Arm(batching="random_chunk"),
    "adaptive": Arm(batching="adaptive"),
}
"""The plain network, the two parts of PRES, both, and two other ways to cut a stream."""

FORMS = {
    **{name: ARMS[name] for name in ("none", "pcs", "mcs", "both")},
    "gate fixed": Arm(correction=True, gate_speed=0.0),
    "gamma 0.7": Arm(correction=True, gamma=0.7),
    "gamma 0.5, gate 10x": Arm(correction=True, gamma=0.5, gate_speed=10.0),
    "not stored": Arm(correction=True, persist=False),
    "by time": Arm(correction=True, rate="time"),
    "by events": Arm(correction=True, rate="event"),
    "coherence 1": Arm(coherence=1.0),
    "gamma 0.7, coherence 1": Arm(correction=True, gamma=0.7, coherence=1.0),
    "by role": Arm(correction=True, components=2),
    "forgetting": Arm(correction=True, decay=0.7),
    "stale only": Arm(correction=True, min_events=2),
    "known only": Arm(correction=True, min_updates=5),
    "stale and known, gamma 0.7": Arm(correction=True, gamma=0.7, min_events=2, min_updates=5),
    "stale only, coherence 1": Arm(correction=True, min_events=2, coherence=1.0),
    "forgetting, stale only, coherence 1": Arm(correction=True, decay=0.7, min_events=2, coherence=1.0),
    "coherence 0.3": Arm(coherence=0.3),
    "coherence 3": Arm(coherence=3.0),
}
"""Forms of PRES to choose from on validation."""


def drifting_stream(num_events: int = 20_000, nodes: int = 200, seed: int = 0) -> TemporalEvents:
    """Return sources that each move along a line at a speed of their own and meet the item they are next to.

    Items stand evenly on [0, 1]; a source goes from a uniform place to another in the time of the stream. Times and
    sources of events are uniform. An event's features are its item's place, as sine and cosine of 4 frequencies.

    Args:
        num_events: events.
        nodes: sources, and as many items.
        seed: of the draw.

    Example:
        >>> drifting_stream(100, 10).num_edge_features
        8
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


_SETS: dict[str, Callable[[], TemporalDataModule]] = {
    "Wikipedia": lambda: JODIEDataModule("wikipedia", edge_features="none"),
    "CollegeMsg": CollegeMsgDataModule,
    "Enron": EnronDataModule,
    "Bitcoin OTC": lambda: BitcoinDataModule("otc"),
    "PrimarySchool": PrimarySchoolDataModule,
}


@functools.lru_cache(maxsize=2)
def read_stream(name: str) -> TemporalEvents:
    """Return all events of a set, kept for the next cell.

    Args:
        name: ``Wikipedia`` (without edge features), ``CollegeMsg``, ``Enron``, ``Bitcoin OTC`` or ``PrimarySchool``.

    Raises:
        SkipCell: if the data are neither in the mirror nor in the cache and cannot be downloaded.

    Example:
        >>> len(read_stream("CollegeMsg"))  # doctest: +SKIP
        59835
    """
    try:
        return _SETS[name]().events
    except DataError as error:
        raise SkipCell(f"{name} is not here: {error}") from error


def data_of(
    events: TemporalEvents, arm: Arm, batch_size: int, seed: int, *, eval_batch_size: int = 200
) -> TemporalDataModule:
    """Return the data module of a cell: 70 % train, 15 % validate, 15 % test, random negatives of the cell's seed.

    Args:
        events: the stream.
        arm: gives the batching.
        batch_size: of training; the adaptive arm takes as many batches, or fewer, of at most four times the size.
        seed: draws negatives and boundaries.
        eval_batch_size: of evaluation.

    Example:
        >>> len(list(data_of(drifting_stream(1000), ARMS["none"], 100, 0).batches("train")))
        7
    """

    def module(batching: Batching) -> TemporalDataModule:
        return TemporalDataModule(events, batching=batching, eval_batch_size=eval_batch_size, seed=seed)

    data = module(FixedBatches(batch_size))
    if arm.batching == "random_chunk":
        return module(RandomChunkBatches(batch_size, min(10, batch_size)))
    if arm.batching == "adaptive":
        return module(_adaptive(events, data.splits["train"], batch_size))
    return data


def _adaptive(events: TemporalEvents, index: Tensor, batch_size: int) -> AdaptiveBatches:
    """The smallest pending share, to 0.1 %, that needs no more batches than the fixed size does."""
    allowed, generator = -(-len(index) // batch_size), torch.Generator()
    low, high = 0, 1000
    while high - low > 1:
        middle = (low + high) // 2
        count = len(AdaptiveBatches(middle / 1000, 4 * batch_size).plan(events, index, generator)[1])
        low, high = (low, middle) if count <= allowed else (middle, high)
    return AdaptiveBatches(high / 1000, 4 * batch_size)


def build_network(backbone: str, data: TemporalDataModule, arm: Arm, dim: int) -> MemoryNetwork:
    """Return a network; the arms of a seed start from the same weights, because a corrector draws nothing.

    Args:
        backbone: ``JODIE`` or ``TGN``.
        data: gives sizes and the statistics of times.
        arm: gives the corrector.
        dim: size of a memory, of encoded times and of embeddings.

    Example:
        >>> data = data_of(drifting_stream(1000), ARMS["pcs"], 100, 0)
        >>> build_network("JODIE", data, ARMS["pcs"], 8).corrector.gamma_init
        0.9
    """
    corrector = None
    if arm.correction:
        corrector = PRESCorrector(
            num_components=arm.components,
            gamma_init=arm.gamma,
            gamma_learnable=arm.gate_speed > 0,
            rate=arm.rate,
            persist=arm.persist,
            decay=arm.decay,
            min_events=arm.min_events,
            min_updates=arm.min_updates,
        )
    sizes: dict[str, Any] = {"memory_dim": dim, "time_dim": dim}
    features = data.num_edge_features
    if backbone == "JODIE":
        return JODIE(
            data.num_nodes, features, data.time_statistics, corrector=corrector, mean_gap=data.mean_gap, **sizes
        )
    return TGN(data.num_nodes, features, embedding_dim=dim, corrector=corrector, mean_gap=data.mean_gap, **sizes)


def _optimizer(network: MemoryNetwork, arm: Arm, learning_rate: float) -> torch.optim.Adam:
    gate = [weight for name, weight in network.named_parameters() if name == "corrector.gate"]
    others = [weight for name, weight in network.named_parameters() if name != "corrector.gate"]
    groups: list[dict[str, Any]] = [{"params": others}, {"params": gate, "lr": learning_rate * arm.gate_speed}]
    return torch.optim.Adam([group for group in groups if group["params"]], lr=learning_rate)


def train_epochs(
    network: MemoryNetwork, data: TemporalDataModule, arm: Arm, *, epochs: int, learning_rate: float
) -> None:
    """Train without looking at validation.

    Args:
        network: what is trained.
        data: its events.
        arm: gives the coherence term and the speed of the gate.
        epochs: passes over the training events.
        learning_rate: of Adam.

    Example:
        >>> data = data_of(drifting_stream(1000), ARMS["none"], 100, 0)
        >>> train_epochs(build_network("JODIE", data, ARMS["none"], 8), data, ARMS["none"], epochs=1, learning_rate=0.1)
    """
    optimizer = _optimizer(network, arm, learning_rate)
    for epoch in range(epochs):
        _train_epoch(network, optimizer, data, arm, epoch)


def _train_epoch(
    network: MemoryNetwork, optimizer: torch.optim.Optimizer, data: TemporalDataModule, arm: Arm, epoch: int
) -> int:
    """Pass once over the training events from an empty memory; return the number of steps."""
    network.train()
    network.reset_state()
    steps = 0
    for batch in data.batches("train", epoch):
        logits, update = network.forward_with_update(batch)
        loss = functional.softplus(-logits[:, 0]).mean() + functional.softplus(logits[:, 1:]).mean()
        if arm.coherence:
            loss = loss + arm.coherence * memory_coherence_loss(update.previous, update.memory, update.pending)
        optimizer.zero_grad()
        loss.backward()
        network.commit(update)
        optimizer.step()
        steps += 1
    return steps


@torch.no_grad()
def _average_precision(network: MemoryNetwork, data: TemporalDataModule, stage: Literal["val", "test"]) -> float:
    """Pooled average precision in percent; the events are committed, so that the test can follow the validation."""
    network.eval()
    scores = []
    for batch in data.batches(stage):
        logits, update = network.forward_with_update(batch)
        network.commit(update)
        scores.append(logits)
    logits = torch.cat(scores)
    target = torch.zeros_like(logits)
    target[:, 0] = 1
    return 100 * float(link_average_precision(logits, target))


def train(
    events: TemporalEvents,
    backbone: str,
    arm: Arm,
    *,
    batch_size: int,
    epochs: int,
    seed: int,
    learning_rate: float,
    dim: int = 32,
    eval_batch_size: int = 200,
    evaluations: int = 20,
    own_batch: bool = False,
    tested: bool = True,
) -> Row:
    """Train, and return the test score at the epoch of the best validation score.

    Validation follows the last training event, test the last of validation. The epochs that are evaluated are evenly
    spaced and hold the last one. The time of an epoch is the processor's, of training alone, the median over epochs
    after the first: it hardly depends on what else the machine does.

    Args:
        events: the stream.
        backbone: ``JODIE`` or ``TGN``.
        arm: what is changed.
        batch_size: of training.
        epochs: passes over the training events.
        seed: of weights, negatives and boundaries.
        learning_rate: of Adam.
        dim: size of a memory.
        eval_batch_size: of validation and test.
        evaluations: at most so many epochs are evaluated.
        own_batch: also evaluate the best epoch with the training batch size.
        tested: whether the test split is looked at.

    Example:
        >>> row = train(drifting_stream(1000), "JODIE", ARMS["none"], batch_size=100, epochs=1, seed=0,
        ...             learning_rate=1e-3, dim=8)
        >>> row["steps"], row["epoch"], 30 < row["test_ap"] < 100
        (7, 1, True)
    """
    data = data_of(events, arm, batch_size, seed, eval_batch_size=eval_batch_size)
    own = data_of(events, ARMS["none"], batch_size, seed, eval_batch_size=batch_size) if own_batch else None
    torch.manual_seed(seed)
    network = build_network(backbone, data, arm, dim)
    optimizer = _optimizer(network, arm, learning_rate)
    evaluated = {round(epochs * (place + 1) / evaluations) for place in range(evaluations)}
    best: Row = {"val_ap": -1.0}
    seconds, steps = [], 0
    for epoch in range(epochs):
        begin = time.process_time()
        steps += _train_epoch(network, optimizer, data, arm, epoch)
        seconds.append(time.process_time() - begin)
        if epoch + 1 not in evaluated:
            continue
        trained = network.state_buffers()
        val_ap = _average_precision(network, data, "val")
        if val_ap > best["val_ap"]:
            best = {"val_ap": val_ap, "epoch": epoch + 1}
            if tested:
                best["test_ap"] = _average_precision(network, data, "test")
            if network.corrector is not None:
                best["gamma"] = float(network.corrector.gamma.detach())
            if own is not None:
                network.load_state_buffers(trained)
                _average_precision(network, own, "val")
                best["own_test_ap"] = _average_precision(network, own, "test")
    return {**best, "steps": steps, "seconds_per_epoch": float(np.median(seconds[1:] or seconds))}
