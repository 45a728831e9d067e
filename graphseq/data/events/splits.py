"""Splits of a stream by time, nodes that are held out of training, and times between the events of a node."""

import math
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from graphseq.core.errors import DataError
from graphseq.data.events.table import TemporalEvents

__all__ = ["chronological_split", "hold_out_nodes", "node_gaps"]

SplitBy = Literal["time_quantile", "count", "time_span"]

FRACTION = 0.15
"""Share of validation and of test unless another is given."""


def chronological_split(t: Tensor, val_fraction: float, test_fraction: float, by: SplitBy) -> dict[str, Tensor]:
    """Split a stream into training, validation and test by time, without dividing events of equal time.

    Source: arXiv 2006.10637 for ``time_quantile``: training up to the quantile, inclusive.

    Args:
        t: time of each event, non-decreasing (E,).
        val_fraction: share of the events (or of the time) before the test split, in [0, 1).
        test_fraction: share of the events (or of the time) at the end, in [0, 1).
        by: rule for the boundaries, as ``split_by`` of :class:`TemporalDataModule`; ``count`` moves a boundary within
            events of equal time after them.

    Raises:
        ValueError: if an argument is out of range, or no training events are left.
        DataError: if a split with a fraction above 0 has no events.

    Example:
        >>> split = chronological_split(torch.tensor([0, 1, 2, 3, 3, 3, 4, 5, 6, 9]), 0.3, 0.2, "count")
        >>> [part.tolist() for part in split.values()]
        [[0, 1, 2, 3, 4, 5], [6, 7], [8, 9]]
    """
    check_split_options(val_fraction, test_fraction, by, inductive_ratio=0.0)
    # rounded, so that 1 - 0.15 - 0.15 equals 0.7
    shares = [round(1 - val_fraction - test_fraction, 12), round(1 - test_fraction, 12)]
    if by == "count":
        ends = [min(max(round(share * len(t)), 1), len(t)) for share in shares]
        last = t[torch.tensor(ends) - 1]
    elif by == "time_span":
        start, stop = float(t[0]), float(t[-1])
        last = torch.tensor([start + share * (stop - start) for share in shares], dtype=torch.float64)
    else:
        last = torch.from_numpy(np.quantile(t.cpu().numpy(), np.clip(shares, 0, 1)))
    places = torch.searchsorted(t.cpu().to(torch.float64), last.to(torch.float64), right=True)
    bounds = [0, *places.tolist(), len(t)]
    if not test_fraction:
        bounds[2] = len(t)
    if not val_fraction:
        bounds[1] = bounds[2]
    fractions = (shares[0], val_fraction, test_fraction)
    split = {}
    for name, fraction, low, high in zip(("train", "val", "test"), fractions, bounds[:-1], bounds[1:], strict=True):
        if fraction > 0 and low >= high:
            raise DataError(
                f"{len(t)} events at {len(t.unique())} times leave the {name} split empty at fractions train "
                f"{shares[0]:.3g}, val {val_fraction:.3g}, test {test_fraction:.3g} by {by}; events of equal time stay "
                "together. Give other fractions, another split_by, or more events"
            )
        split[name] = torch.arange(low, high)
    return split


def split_at(events: TemporalEvents, boundaries: Sequence[int | float]) -> dict[str, Tensor]:
    """Split a stream at given times; events at a boundary are in the later split.

    Args:
        events: stream of events.
        boundaries: times at which validation and test begin, before ``time_offset`` was subtracted.

    Raises:
        DataError: if a split is empty.
    """
    t, offset = events.t, events.time_offset
    whole = not t.is_floating_point()
    begins = []
    for boundary in boundaries:
        # integer times are compared as integers, without rounding
        start = math.ceil(boundary) - offset if whole and isinstance(offset, int) else boundary - offset
        inside = min(max(math.ceil(start) if whole else start, t[0].item()), t[-1].item() + 1)
        begins.append(int(torch.searchsorted(t, torch.tensor(inside, dtype=t.dtype))))
    bounds = [0, *begins, len(t)]
    split = {name: torch.arange(bounds[rank], bounds[rank + 1]) for rank, name in enumerate(("train", "val", "test"))}
    empty = [name for name, index in split.items() if not len(index)]
    if empty:
        raise DataError(
            f"boundaries {', '.join(map(str, boundaries))} leave the {' and '.join(empty)} split empty: the stream's "
            f"times are {t[0].item() + offset} to {t[-1].item() + offset} (time_offset {offset} included). Give the "
            "times at which validation and test begin, in the same unit"
        )
    return split


def hold_out_nodes(events: TemporalEvents, train: Tensor, ratio: float, seed: int) -> Tensor:
    """Return the training events without those of randomly held-out nodes.

    The nodes are drawn among those that occur after the last training event.

    Source: arXiv 2006.10637 (its inductive setting).

    Args:
        events: stream of events.
        train: positions of the training events, the first of the stream, int64.
        ratio: share of all occurring nodes that is held out of training, in [0, 1).
        seed: seed of the random choice of nodes.

    Raises:
        DataError: if there are no nodes to draw, or no events are left.

    Example:
        >>> stream = TemporalEvents(torch.tensor([0, 1, 2, 0]), torch.tensor([3, 4, 3, 3]), torch.arange(4))
        >>> hold_out_nodes(stream, torch.arange(3), 0.2, seed=0).tolist() in ([1], [1, 2])
        True
    """
    after = int(train[-1]) + 1
    candidates = torch.cat([events.src[after:], events.dst[after:]]).unique()
    occurring = len(torch.cat([events.src, events.dst]).unique())
    count = min(round(ratio * occurring), len(candidates))
    if not count:
        raise DataError(
            f"inductive_ratio {ratio} of {occurring} nodes keeps none from training, {len(candidates)} occur after it; "
            "give a larger ratio, or 0"
        )
    chosen = candidates[torch.randperm(len(candidates), generator=torch.Generator().manual_seed(seed))[:count]]
    held = torch.zeros(events.num_nodes, dtype=torch.bool)
    held[chosen] = True
    kept = train[~(held[events.src[train]] | held[events.dst[train]])]
    if not len(kept):
        raise DataError(
            f"inductive_ratio {ratio} keeps {count} of {occurring} nodes from training, and every training event has "
            "one of them; give a smaller ratio"
        )
    return kept


def node_gaps(events: TemporalEvents, index: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return for each event the time since the previous event of its source and of its destination, in either role.

    Args:
        events: stream of events.
        index: positions of the events to use, ascending, int64 (M,).

    Returns:
        gaps of sources and of destinations, float64 (M,), and whether each is the first of its node, bool (M,);
        the gap is then counted from time 0.

    Example:
        >>> stream = TemporalEvents(torch.tensor([0, 0, 1]), torch.tensor([2, 2, 0]), torch.tensor([0, 5, 9]))
        >>> (source, destination), first = node_gaps(stream, torch.arange(3))
        >>> source.tolist(), destination.tolist(), first[0].tolist()
        ([0.0, 5.0, 9.0], [0.0, 5.0, 4.0], [True, False, True])
    """
    src, dst, t = events.src[index], events.dst[index], events.t[index]
    count = len(index)
    # entry k is the source of event k, entry count + k its destination; by node, then by event
    node, event = torch.cat([src, dst]), torch.arange(count).repeat(2)
    order = (node * count + event).argsort(stable=True)
    before = order.roll(1)
    fresh = node[order] != node[before]
    fresh[0] = True
    # the second entry of a self-loop stands behind the first and takes what that one found
    gap = (t[event[order]] - t[event[before]]).double()
    gap = torch.where(fresh, t[event[order]].double(), gap)
    twice = ~fresh & (event[order] == event[before])
    gap[twice], fresh[twice] = gap.roll(1)[twice], fresh.roll(1)[twice]
    gaps, first = torch.empty_like(gap), torch.empty_like(fresh)
    gaps[order], first[order] = gap, fresh
    return (gaps[:count], gaps[count:]), (first[:count], first[count:])


def check_split_options(val_fraction: float, test_fraction: float, split_by: str, inductive_ratio: float) -> None:
    """Refuse options of a split that are out of range.

    Args:
        val_fraction: share of validation.
        test_fraction: share of test.
        split_by: rule for the boundaries.
        inductive_ratio: share of nodes that are held out of training.

    Raises:
        ValueError: if an option is out of range or unknown.
    """
    for name, value in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
        if not 0 <= value < 1:
            raise ValueError(f"{name} is {value}; it must be in [0, 1)")
    if val_fraction + test_fraction >= 1:
        raise ValueError(
            f"val_fraction {val_fraction} and test_fraction {test_fraction} leave nothing to train on; "
            "their sum must be below 1"
        )
    if split_by not in get_args(SplitBy):
        raise ValueError(f"split_by is {split_by!r}; it must be one of {', '.join(get_args(SplitBy))}")
    if not 0 <= inductive_ratio < 1:
        raise ValueError(f"inductive_ratio is {inductive_ratio}; it must be in [0, 1)")


def check_boundaries(
    boundaries: Sequence[int | float], val_fraction: float, test_fraction: float, split_by: str
) -> None:
    """Refuse boundaries that are no two ascending times, or stand beside fractions.

    Args:
        boundaries: times at which validation and test begin.
        val_fraction: share of validation.
        test_fraction: share of test.
        split_by: rule for the boundaries in place of times.

    Raises:
        ValueError: if they are invalid.
    """
    if (val_fraction, test_fraction, split_by) != (FRACTION, FRACTION, "time_quantile"):
        raise ValueError(
            f"boundaries are given, and val_fraction {val_fraction}, test_fraction {test_fraction}, split_by "
            f"{split_by!r} besides; give times or fractions, not both"
        )
    numbers = not isinstance(boundaries, str) and all(isinstance(time, int | float) for time in boundaries)
    if not numbers or len(boundaries) != 2 or not all(map(math.isfinite, boundaries)) or boundaries[0] >= boundaries[1]:
        raise ValueError(
            f"boundaries are {boundaries!r}; they must be two finite times, the first of validation and the first of "
            "test, ascending"
        )
