"""Synthetic streams: sources that visit the same destinations in turn, some of which drop out."""

from typing import Unpack

import torch
from torch import Generator, Tensor

from graphseq.data.events.module import TemporalDataModule
from graphseq.data.events.options import EventOptions
from graphseq.data.events.table import TemporalEvents

__all__ = ["SyntheticEventsDataModule", "periodic_events"]


def periodic_events(
    num_events: int,
    num_sources: int,
    num_destinations: int | None,
    *,
    period: int = 3,
    repeat: float = 0.9,
    num_edge_features: int = 0,
    dropout_ratio: float = 0.0,
    num_abnormal: int = 3,
    generator: Generator | None = None,
) -> TemporalEvents:
    """Generate a stream in which the next destination of a source is determined by its last ones.

    Each source has ``period`` destinations of its own and visits them in turn; with probability ``1 - repeat`` it
    visits a random one instead, with fixed unequal probabilities. Sources have different rates of events. Gaps between
    events are exponential with a mean of 60 seconds, in whole seconds.

    Sources that drop out turn abnormal at some time: from then on they visit destinations at random and the first
    feature of their events is raised by 2, and after ``num_abnormal`` such events they are gone. ``y`` is 1 at the
    last of them, so that the state change follows from the events before it.

    Args:
        num_events: number of generated events, at least 1; those after a dropout are removed.
        num_sources: number of sources, at least 1; at least 2 if ``num_destinations`` is None.
        num_destinations: number of destinations, numbered after the sources; None for a graph that is not
            bipartite.
        period: number of destinations that a source visits in turn, at least 1.
        repeat: probability that the next destination in turn is visited, in [0, 1].
        num_edge_features: number of features D of each event, normally distributed with deviation 0.5.
        dropout_ratio: share of sources that drop out, in [0, 1]; at 0 there is no ``y``.
        num_abnormal: number of abnormal events before a dropout, at least 1.
        generator: random number generator; None for torch's own.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> events = periodic_events(100, 5, 8, repeat=1.0, generator=torch.Generator().manual_seed(0))
        >>> visits = events.dst[events.src == 0]
        >>> torch.equal(visits[3:], visits[:-3])
        True
    """
    least = {"num_events": 1, "num_sources": 1 if num_destinations else 2, "period": 1, "num_abnormal": 1}
    least |= {"num_edge_features": 0, "num_destinations": 1}
    given = {"num_events": num_events, "num_sources": num_sources, "period": period, "num_abnormal": num_abnormal}
    given |= {"num_edge_features": num_edge_features, "num_destinations": 1}
    if num_destinations is not None:
        given["num_destinations"] = num_destinations
    for name, value in given.items():
        if value < least[name]:
            raise ValueError(f"{name} is {value}; it must be at least {least[name]}")
    for name, share in (("repeat", repeat), ("dropout_ratio", dropout_ratio)):
        if not 0 <= share <= 1:
            raise ValueError(f"{name} is {share}; it must be in [0, 1]")
    src = _weighted(num_sources, num_events, generator)
    gaps = torch.empty(num_events, dtype=torch.float64).exponential_(1 / 60, generator=generator)
    t = gaps.cumsum(0).long()
    rank, count = _rank(src, num_sources)

    # in a graph with one kind of nodes an entry is the distance to the other one, which is never the node itself
    reachable = num_sources - 1 if num_destinations is None else num_destinations
    turns = torch.randint(reachable, (num_sources, period), generator=generator)
    there = turns[src, rank % period]
    strays = torch.rand(num_events, generator=generator) >= repeat
    there = torch.where(strays, _weighted(reachable, num_events, generator), there)
    msg = 0.5 * torch.randn(num_events, num_edge_features, generator=generator)
    y, keep = None, torch.ones(num_events, dtype=torch.bool)
    anywhere = torch.randint(reachable, (num_events,), generator=generator)
    leaves = torch.rand(num_sources, generator=generator) < dropout_ratio
    onset = (torch.rand(num_sources, generator=generator) * count).long()
    if dropout_ratio:
        since = torch.where(leaves[src], rank - onset[src], -1)  # abnormal events before this one, -1 while normal
        there = torch.where(since >= 0, anywhere, there)
        msg[:, :1] += 2.0 * (since >= 0)[:, None]
        keep = since < num_abnormal
        y = (since == num_abnormal - 1).long()[keep]
    bipartite = num_destinations is not None
    dst = there + num_sources if bipartite else (src + 1 + there) % num_sources
    return TemporalEvents(
        src[keep],
        dst[keep],
        t[keep],
        msg[keep],
        y,
        num_nodes=num_sources + (num_destinations or 0),
        num_sources=num_sources if bipartite else None,
    )


def _weighted(number: int, count: int, generator: Generator | None) -> Tensor:
    """Draw ``count`` of ``number`` things; the k-th most frequent in proportion to 1 / sqrt(k)."""
    edges = torch.arange(1, number + 1).double().rsqrt().cumsum(0)
    order = torch.randperm(number, generator=generator)
    drawn = torch.rand(count, dtype=torch.float64, generator=generator) * edges[-1]
    return order[torch.searchsorted(edges, drawn, right=True).clamp(max=number - 1)]


def _rank(src: Tensor, num_sources: int) -> tuple[Tensor, Tensor]:
    """Number the events of each source from 0; return the numbers and the number of events of each source."""
    count = src.bincount(minlength=num_sources)
    order = src.argsort(stable=True)
    begin = (count.cumsum(0) - count)[src[order]]
    rank = torch.zeros_like(src)
    rank[order] = torch.arange(len(src)) - begin
    return rank, count


class SyntheticEventsDataModule(TemporalDataModule):
    """Stream of :func:`periodic_events`, small enough for tests and without any file.

    Args:
        num_events: number of generated events, at least 1; those after a dropout are removed.
        num_sources: number of sources, at least 1; at least 2 if ``num_destinations`` is None.
        num_destinations: number of destinations; None for a graph that is not bipartite.
        period: number of destinations that a source visits in turn, at least 1.
        repeat: probability that the next destination in turn is visited, in [0, 1].
        num_edge_features: number of features of each event.
        dropout_ratio: share of sources that drop out, in [0, 1]; above 0 for the prediction of state changes.
        num_abnormal: number of abnormal events before a dropout, at least 1.
        options: further arguments of :class:`TemporalDataModule`.

    Yields:
        ``EventBatch``, see :class:`TemporalDataModule`.

    Example:
        >>> data = SyntheticEventsDataModule(num_events=300, dropout_ratio=0.5, batch_size=50)
        >>> data.num_nodes, int(data.events.y.sum()) > 0
        (150, True)
    """

    def __init__(
        self,
        num_events: int = 2000,
        num_sources: int = 100,
        num_destinations: int | None = 50,
        *,
        period: int = 3,
        repeat: float = 0.9,
        num_edge_features: int = 0,
        dropout_ratio: float = 0.0,
        num_abnormal: int = 3,
        **options: Unpack[EventOptions],
    ) -> None:
        super().__init__(self.read_events, **options)
        self._rule = {
            "num_events": num_events,
            "num_sources": num_sources,
            "num_destinations": num_destinations,
            "period": period,
            "repeat": repeat,
            "num_edge_features": num_edge_features,
            "dropout_ratio": dropout_ratio,
            "num_abnormal": num_abnormal,
        }

    def read_events(self) -> TemporalEvents:
        """Return the stream generated with the seed."""
        return periodic_events(**self._rule, generator=torch.Generator().manual_seed(self.seed))  # type: ignore[arg-type]
