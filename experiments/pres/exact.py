"""The control that needs no method: memories that are exact within a training batch."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from graphseq.core import EventBatch
from graphseq.tasks import TemporalLinkPrediction


def rounds(batch: EventBatch) -> Iterator[EventBatch]:
    """Cut a batch into rounds that, each committed before the next is read, are what single events in order would be.

    An event reads its endpoints and those of its negatives and writes its endpoints. It comes after every earlier event
    that writes what it reads, and not before an earlier one that reads what it writes; so no node is written twice in a
    round. Neighbours are still looked up before the batch.
    """
    drawn = [part for part in (batch.neg_dst, batch.neg_src) if part is not None]
    reads = torch.cat([batch.src[:, None], batch.dst[:, None], *drawn], dim=1).tolist()
    after_write: dict[int, int] = defaultdict(int)  # first round that may read a node
    last_read: dict[int, int] = defaultdict(int)  # first round that may write it
    levels = []
    for nodes in reads:
        level = max(max(after_write[node] for node in nodes), max(last_read[node] for node in nodes[:2]))
        for node in nodes:
            last_read[node] = max(last_read[node], level)
        for node in nodes[:2]:
            after_write[node] = level + 1
        levels.append(level)
    order, sizes = torch.tensor(levels).argsort(stable=True), torch.tensor(levels).bincount()
    columns = {name: value for name, value in vars(batch).items() if isinstance(value, Tensor)}
    for index in order.split(sizes.tolist()):
        yield replace(batch, **{name: value[index] for name, value in columns.items()}, stop=None)


class ExactWithinBatch(TemporalLinkPrediction):
    """Link prediction whose training batches are read round by round, with one optimiser step for the whole batch.

    Loss, negatives and number of steps are those of the plain task; what is given up is the parallelism.
    """

    def step(self, batch: EventBatch, stage: Any = "train") -> Any:
        """Return the loss of a batch as the mean over its events, each read after all earlier ones are written."""
        if stage != "train":
            return super().step(batch, stage)
        steps = [super(ExactWithinBatch, self).step(part, stage) for part in rounds(batch)]
        loss = sum(step.loss * step.size for step in steps) / len(batch)
        prediction, target = (torch.cat([getattr(step, name) for step in steps]) for name in ("prediction", "target"))
        return replace(steps[0], loss=loss, prediction=prediction, target=target, size=len(batch))
