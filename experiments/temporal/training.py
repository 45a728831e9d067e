"""A plain loop over the epochs of a stream, the same for our networks and for peers, and their scores."""

import copy
import math
import statistics
from collections.abc import Iterable
from typing import Any, Protocol, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphseq.core import EventBatch
from graphseq.data import EventLoader, EventStore, NegativeSampler, TemporalDataModule
from graphseq.metrics import link_average_precision

__all__ = ["StreamNetwork", "fit_stream", "held_out_batches", "pooled_and_batch_ap", "score_stream", "train_epoch"]


class StreamNetwork(Protocol):
    """A module that scores a batch before it remembers it, as :class:`graphseq.models.MemoryNetwork` does.

    Example:
        >>> def remember(network: StreamNetwork, batch: EventBatch) -> None:
        ...     network.commit(network.forward_with_update(batch)[1])
    """

    def forward_with_update(self, data: EventBatch) -> tuple[Tensor, Any]:
        """Return logits (B, 1 + M), the event in column 0, and what ``commit`` takes.

        Args:
            data: events with negatives.
        """
        ...

    def commit(self, update: Any) -> None:
        """Remember the events of a batch.

        Args:
            update: what came with its logits.
        """
        ...

    def reset_state(self) -> None:
        """Forget all events."""
        ...


NetworkT = TypeVar("NetworkT", bound=StreamNetwork)


def train_epoch(network: StreamNetwork, optimizer: torch.optim.Optimizer, batches: Iterable[EventBatch]) -> float:
    """Pass once over the training events from an empty state, and return the mean loss of the steps.

    The loss is the sum of the mean cross-entropies of events and of negatives; the memories behind it are committed
    before the optimiser's step.

    Args:
        network: a module.
        optimizer: of its parameters.
        batches: events with negatives, in the order of the stream.

    Raises:
        FloatingPointError: if the loss is not finite.

    Example:
        >>> from graphseq.data import SyntheticEventsDataModule
        >>> from graphseq.models import JODIE
        >>> data = SyntheticEventsDataModule(num_events=300)
        >>> network = JODIE(data.num_nodes, memory_dim=8)
        >>> train_epoch(network, torch.optim.Adam(network.parameters()), data.batches("train")) > 0
        True
    """
    cast(nn.Module, network).train()
    network.reset_state()
    losses = []
    for batch in batches:
        logits, update = network.forward_with_update(batch)
        loss = functional.softplus(-logits[:, 0]).mean() + functional.softplus(logits[:, 1:]).mean()
        optimizer.zero_grad()
        loss.backward()
        network.commit(update)
        optimizer.step()
        losses.append(loss.detach())
    mean = float(torch.stack(losses).mean())
    if not math.isfinite(mean):
        raise FloatingPointError(f"the mean training loss of {type(network).__name__} is {mean}")
    return mean


@torch.no_grad()
def score_stream(network: StreamNetwork, batches: Iterable[EventBatch]) -> list[Tensor]:
    """Return the logits of each batch (B, 1 + M); each is remembered once it is scored.

    Args:
        network: a module.
        batches: events with negatives, those that follow what the network has seen.

    Example:
        >>> from graphseq.data import SyntheticEventsDataModule
        >>> from graphseq.models import EdgeBank
        >>> [len(logits) for logits in score_stream(EdgeBank(), SyntheticEventsDataModule(300).batches("val"))]
        [45]
    """
    cast(nn.Module, network).eval()
    scores = []
    for batch in batches:
        logits, update = network.forward_with_update(batch)
        network.commit(update)
        scores.append(logits)
    return scores


def pooled_and_batch_ap(scores: list[Tensor]) -> tuple[float, float]:
    """Return the average precision of all scores at once, and the mean over batches of that of each.

    Args:
        scores: of batches, (B, 1 + M), the event in column 0.

    Example:
        >>> pooled_and_batch_ap([torch.tensor([[3.0, 2.0]]), torch.tensor([[1.0, 0.0]])])
        (0.8333333730697632, 1.0)
    """

    def ap(logits: Tensor) -> float:
        target = torch.zeros_like(logits)
        target[:, 0] = 1
        return float(link_average_precision(logits, target))

    return ap(torch.cat(scores)), statistics.fmean(ap(batch) for batch in scores)


def fit_stream(
    network: NetworkT, data: TemporalDataModule, epochs: int, learning_rate: float
) -> tuple[NetworkT, list[float], list[float]]:
    """Train with Adam, and validate after every epoch from the state that the epoch left.

    Args:
        network: a module with fresh weights.
        data: batches of training and validation.
        epochs: passes over the training events, at least 1.
        learning_rate: of Adam, whose other settings are torch's.

    Returns:
        The network of the best validation epoch, the first among equals, in the state after that validation, so that
        the test can follow; pooled average precision of each validation; mean training loss of each epoch.

    Example:
        >>> from graphseq.data import SyntheticEventsDataModule
        >>> from graphseq.models import JODIE
        >>> data = SyntheticEventsDataModule(num_events=300)
        >>> best, precision, losses = fit_stream(JODIE(data.num_nodes, memory_dim=8), data, 2, 1e-3)
        >>> len(precision), len(losses)
        (2, 2)
    """
    optimizer = torch.optim.Adam(cast(nn.Module, network).parameters(), lr=learning_rate)
    best, precision, losses = network, [], []
    for epoch in range(epochs):
        losses.append(train_epoch(network, optimizer, data.batches("train", epoch)))
        precision.append(pooled_and_batch_ap(score_stream(network, data.batches("val")))[0])
        if precision[-1] > max(precision[:-1], default=-1.0):
            best = copy.deepcopy(network)
    return best, precision, losses


def held_out_batches(data: TemporalDataModule, negatives: NegativeSampler) -> EventLoader:
    """Return the test events of a data module with other negatives than its own.

    Args:
        data: the stream and its splits.
        negatives: draw them, not yet prepared.

    Example:
        >>> from graphseq.data import HistoricalNegatives, SyntheticEventsDataModule
        >>> data = SyntheticEventsDataModule(num_events=300)
        >>> [len(batch) for batch in held_out_batches(data, HistoricalNegatives())]
        [45]
    """
    test = data.splits["test"]
    prepared = negatives.prepare(data.events, data.splits["train"], "test", test)
    return EventLoader(cast(EventStore, data.store), data.eval_batching, index=test, negatives=prepared)
