"""Candidates among which each event is ranked: earlier destinations of its source, and random ones."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphseq.core.errors import DataError
from graphseq.data.events.negatives import Stream, TableNegatives, contains, first_distinct, first_seen

__all__ = ["RankingNegatives"]

Candidates = Tensor | np.ndarray | Sequence[Sequence[int]]
"""A table of nodes (E, M)."""

_CELLS = 1 << 20  # candidates in flight while a table is drawn


def _draw_places(sizes: Tensor, width: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw ``width`` positions of each pool: all of a small pool, shuffled; with replacement from a large one.

    Returns:
        Positions (R, width), and whether each is valid.
    """
    keys = torch.rand(len(sizes), width, generator=generator, dtype=torch.float64)
    sizes = sizes[:, None]
    places = (keys * sizes).long().minimum((sizes - 1).clamp(min=0))
    inside = torch.arange(width) < sizes
    small = sizes <= width
    if bool(small.any()):
        places = torch.where(small, keys.masked_fill_(~inside, 2.0).argsort(dim=1), places)
    return places, inside | ~small


class _Ranked:
    """Earlier destinations of the same source, and random ones; none of them is true for the source at that time."""

    def __init__(self, events: Stream, pool: Tensor, seen: Tensor, historical_share: float) -> None:
        self.share = historical_share
        self.src, self.num_nodes, self.total = events.src.cpu(), events.num_nodes, len(events.src)
        dst = events.dst.cpu()
        self.destinations = dst[pool].unique()
        # one number for each source and time, then one for each of those with a destination
        times, when = events.t.cpu().unique(return_inverse=True)
        self.queried = (self.src * len(times) + when).unique(return_inverse=True)[1]
        self.truth = (self.queried * self.num_nodes + dst).sort().values
        # the destinations of a source in order of first sight: those known at a position are a prefix of its run
        first = seen[first_seen((self.src * self.num_nodes + dst)[seen])]
        self.seen, order = (self.src[first] * self.total + first).sort()
        self.seen_dst = dst[first][order]

    def is_true(self, positions: Tensor, dst: Tensor) -> Tensor:
        """Return whether the source of each position has an event with a node (R, K) at the time of the event."""
        return contains(self.truth, self.queried[positions][:, None] * self.num_nodes + dst)

    def _rows(self, positions: Tensor, count: int, width: int, generator: torch.Generator) -> Tensor:
        num_seen = int(self.share * count)
        run = self.src[positions] * self.total
        start = torch.searchsorted(self.seen, run)
        sizes = torch.searchsorted(self.seen, run + positions) - start
        places, allowed = _draw_places(sizes, 2 * num_seen + 64, generator)
        seen = self.seen_dst[(start[:, None] + places).clamp_(max=len(self.seen_dst) - 1)]
        seen = first_distinct(seen, allowed & ~self.is_true(positions, seen), num_seen)
        sizes = torch.full_like(positions, len(self.destinations))
        places, allowed = _draw_places(sizes, width, generator)
        other = self.destinations[places.clamp_(max=len(self.destinations) - 1)]
        allowed &= ~self.is_true(positions, other)
        return first_distinct(torch.cat([seen, other], 1), torch.cat([seen >= 0, allowed], 1), count)

    def draw(self, positions: Tensor, count: int, generator: torch.Generator) -> Tensor:
        width = min(2 * count + 64, len(self.destinations))
        parts = positions.split(max(1, _CELLS // (3 * count + 128)))
        table = torch.cat([self._rows(part, count, width, generator) for part in parts])
        short = (table[:, -1] < 0).nonzero()[:, 0]  # too many repeats or true ones: these get all there are
        if len(short) and width < len(self.destinations):
            parts = short.split(max(1, _CELLS // len(self.destinations)))
            every = len(self.destinations)
            table[short] = torch.cat([self._rows(positions[part], count, every, generator) for part in parts])
            short = short[table[short, -1] < 0]
        if len(short):
            raise DataError(
                f"{len(short)} events have fewer than {count} destinations that are not true, event "
                f"{int(positions[short[0]])} first, of {len(self.destinations)} in all; lower num_negatives"
            )
        return table


class RankingNegatives(TableNegatives):
    """Distinct candidates among which each event is ranked: earlier destinations of its source, the others random.

    Of M candidates, ``int(historical_share * M)`` are destinations of the source before the event (fewer if there are
    not enough), the rest are drawn from all destinations of the stream, in training from those of training events. None
    is a destination of the source at the time of the event, and all are distinct. The table is fixed in evaluation,
    the same for every batch size and device, and takes 4 M bytes for each event of the split (8 M beyond 2^31 nodes).

    Source: arXiv 2307.01026, section 3.3. Differs from the paper: historical candidates are those before the event
    instead of those of training, and candidates are distinct throughout.

    Args:
        num_negatives: number of candidates M of each event besides the true one, at least 1; ignored if
            ``candidates`` are given.
        seed: seed of the random candidates, together with split and position; at least 0.
        historical_share: share of earlier destinations among the candidates, in [0, 1].
        candidates: given table of candidates, integers (events of the split, M), distinct within each row, as a tensor,
            an array or lists; or a dictionary with a table for each split. Give ``prepare`` the positions of its rows
            as ``index``.

    Raises:
        ValueError: if an argument is out of range, or ``candidates`` are not integers or not distinct.
        DataError: in ``prepare``, if an event has fewer than M destinations that are not true, or ``candidates``
            do not match the split, name a node that does not exist, or hold a true destination.

    Example:
        >>> from types import SimpleNamespace
        >>> from graphseq.core import EventBatch
        >>> src, dst = torch.tensor([0, 1, 0]), torch.tensor([2, 3, 4])
        >>> events = SimpleNamespace(src=src, dst=dst, t=torch.arange(3), num_nodes=5)
        >>> negatives = RankingNegatives(num_negatives=2).prepare(events, torch.arange(2), "test")
        >>> last = torch.tensor([2])
        >>> negatives.sample(EventBatch(src[2:], dst[2:], last, torch.zeros(1, 0), last, start=2), epoch=0)[1]
        tensor([[2, 3]])
    """

    def __init__(
        self,
        num_negatives: int = 100,
        seed: int = 0,
        historical_share: float = 0.5,
        candidates: Candidates | Mapping[str, Candidates] | None = None,
    ) -> None:
        super().__init__(num_negatives, seed)
        if not 0 <= historical_share <= 1:
            raise ValueError(f"RankingNegatives(historical_share={historical_share}): give a share in [0, 1]")
        self.historical_share = historical_share
        self._candidates = None if candidates is None else _Tables(candidates)

    def _prepare(self, events: Stream, train_index: Tensor, index: Tensor) -> None:
        pool = train_index.sort().values if self._split == "train" else torch.arange(len(events.src))
        source = _Ranked(events, pool, pool, self.historical_share)
        if self._candidates is None:
            self._keep(events, index, source, events.src[:0])
            return
        table = self._candidates.of(self._split or "", events, index, source)
        self.num_negatives = table.size(1)
        first = int(index.min())
        rows = torch.zeros(int(index.max()) + 1 - first, table.size(1), dtype=torch.int64)
        rows[index - first] = table
        self._keep(events, index, None, rows)


class _Tables:
    """Given candidates by split."""

    def __init__(self, given: Candidates | Mapping[str, Candidates]) -> None:
        self.given: Tensor | dict[str, Tensor]
        if isinstance(given, Mapping):
            self.given = {split: _table(split, table) for split, table in given.items()}
        else:
            self.given = _table("candidates", given)

    def of(self, split: str, events: Stream, index: Tensor, source: _Ranked) -> Tensor:
        if not isinstance(self.given, Tensor) and split not in self.given:
            raise DataError(f"candidates are for the splits {', '.join(self.given)}, not for {split}; add its table")
        table = self.given if isinstance(self.given, Tensor) else self.given[split]
        if len(table) != len(index):
            raise DataError(
                f"candidates have {len(table)} rows, split {split} has {len(index)} events; give one row for each "
                "event, and the positions of the split as index"
            )
        if int(table.min()) < 0 or int(table.max()) >= events.num_nodes:
            raise DataError(
                f"candidates range from {int(table.min())} to {int(table.max())}; nodes are 0 to {events.num_nodes - 1}"
            )
        wrong = []
        for rows in torch.arange(len(table)).split(max(1, _CELLS // table.size(1))):
            wrong.append(rows[source.is_true(index[rows], table[rows]).any(1)])
        bad = torch.cat(wrong)
        if len(bad):
            raise DataError(
                f"candidates hold the true destination, or one that its source met at the same time, in {len(bad)} "
                f"rows, first {bad[:5].tolist()}; leave those out, else the true one is ranked against itself"
            )
        return table


def _table(name: str, given: Any) -> Tensor:
    """Return candidates as int64 (E, M) on the CPU after a check."""
    try:
        table = given if isinstance(given, Tensor) else torch.from_numpy(np.array(given))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"RankingNegatives(candidates): {name} is a {type(given).__name__} that makes no table ({error}); give "
            "integers of shape (E, M), as a tensor, an array or lists of equal length"
        ) from error
    kind = table.dtype
    if table.dim() != 2 or kind.is_floating_point or kind.is_complex or kind == torch.bool or not table.size(1):
        raise ValueError(
            f"RankingNegatives(candidates): {name} is {kind} {tuple(table.shape)}; give integers of shape (E, M)"
        )
    table = table.cpu().long()
    for rows in torch.arange(len(table)).split(max(1, _CELLS // table.size(1))):
        ordered = table[rows].sort(dim=1).values
        twice = (ordered[:, 1:] == ordered[:, :-1]).nonzero()
        if len(twice):
            row, column = twice[0].tolist()
            raise DataError(
                f"RankingNegatives(candidates): {name} holds node {int(ordered[row, column])} more than once in row "
                f"{int(rows[row])}, where it would count as several; candidates of an event must be distinct"
            )
    return table
