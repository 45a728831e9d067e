"""EdgeBank: baseline that predicts a link if the pair had one before."""

from collections.abc import Callable
from typing import Literal, NamedTuple, Self

import torch
from torch import Tensor, nn

from graphseq.core import Elastic, EventBatch, Recorded

__all__ = ["EdgeBank"]

_INFINITY = float("inf")


class _Seen(NamedTuple):
    """Statistics of each pair: first and last time, position of the last event, number of events."""

    first: Tensor
    last: Tensor
    position: Tensor
    times: Tensor


def _mean_gap(seen: _Seen) -> Tensor:
    """Return the mean time between events of each pair; 0 for pairs with fewer than two."""
    gap = (seen.last - seen.first) / (seen.times - 1).clamp(min=1)
    return torch.where(seen.times > 1, gap, 0.0)


class _Exact(nn.Module):
    """Module whose buffers of floats are times, which stay float64 whatever type the module is moved to."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        known = {name: buffer for name, buffer in self.named_buffers(recurse=False) if buffer.is_floating_point()}
        super()._apply(fn, recurse)
        for name, before in known.items():
            moved = getattr(self, name)
            if moved.dtype != before.dtype:
                setattr(self, name, before.to(moved.device))
        return self


class _PairTable(_Exact, Elastic):
    """Growing table of pairs sorted by code, with statistics of each pair."""

    elastic = ("code", "first", "last", "position", "times")
    code: Tensor
    first: Tensor
    last: Tensor
    position: Tensor
    times: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("code", "position", "times"):
            self.register_buffer(name, torch.zeros(0, dtype=torch.int64))
        for name in ("first", "last"):
            self.register_buffer(name, torch.zeros(0, dtype=torch.float64))

    def __len__(self) -> int:
        return len(self.code)

    def seen(self) -> _Seen:
        return _Seen(self.first, self.last, self.position, self.times)

    def set(self, code: Tensor, seen: _Seen) -> None:
        """Replace all pairs by the given ones, which are sorted by code."""
        self.code = code
        self.first, self.last, self.position, self.times = seen

    def clear(self) -> None:
        """Remove all pairs."""
        # not slices, which would keep, and save, all that lies behind them
        self.set(self.code.new_empty(0), _Seen(*(column.new_empty(0) for column in self.seen())))

    def find(self, query: Tensor) -> _Seen:
        """Return the statistics of each queried code; an unknown one has times inf to -inf, position -1 and count 0."""
        if len(self) == 0:
            never = torch.full_like(query, _INFINITY, dtype=torch.float64)
            return _Seen(never, -never, torch.full_like(query, -1), torch.zeros_like(query))
        place = torch.searchsorted(self.code, query).clamp_(max=len(self) - 1)
        hit = self.code[place] == query
        return _Seen(
            torch.where(hit, self.first[place], _INFINITY),
            torch.where(hit, self.last[place], -_INFINITY),
            torch.where(hit, self.position[place], -1),
            torch.where(hit, self.times[place], 0),
        )

    def merge(self, code: Tensor, seen: _Seen) -> None:
        """Merge the statistics of codes in any order, also repeated ones."""
        code, row = torch.cat([self.code, code]).unique(return_inverse=True)
        mine = _Seen(*(torch.cat(pair) for pair in zip(self.seen(), seen, strict=True)))
        size = len(code)
        self.set(
            code,
            _Seen(
                mine.first.new_full((size,), _INFINITY).scatter_reduce_(0, row, mine.first, "amin"),
                mine.last.new_full((size,), -_INFINITY).scatter_reduce_(0, row, mine.last, "amax"),
                mine.position.new_full((size,), -1).scatter_reduce_(0, row, mine.position, "amax"),
                mine.times.new_zeros(size).index_add_(0, row, mine.times),
            ),
        )


class EdgeBank(Recorded, _Exact):
    r"""Scores a link 1 if its pair is in the memory of past events and 0 if not; nothing is learned.

    .. math:: s(u, v) = \mathbb{1}[(u, v) \in \mathcal{M}]

    The memory :math:`\mathcal{M}` holds, of the directed pairs of committed events,

    * ``unlimited``: all;
    * ``window``: those that met lately, which is with ``window="share"`` in the last ``share`` of the events, and with
      ``"recurrence"`` no longer before the last event than the mean time between meetings. The mean is taken of each
      pair and then over all pairs, those that met once with 0;
    * ``threshold``: those that met at least as often as pairs do on average.

    Source: arXiv 2207.10128, section 4.2. Differs from the paper: of events at the very time where the last share
    begins only those at its positions count, instead of all of them.

    The state takes 40 bytes for each distinct pair, in buffers that grow, in two sorted tables, so that a commit costs
    the size of the small one; a commit synchronises with the device, scores do not.

    Args:
        mode: rule for the pairs that are remembered, as listed above.
        window: length of the window in mode ``window``.
        share: share of the events, in (0, 1], with ``window="share"``.

    Shape:
        batch of B events with M negatives -> scores (B, 1 + M), column 0 the events

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> bank, one = EdgeBank(), torch.tensor([1])
        >>> batch = EventBatch(one, one + 1, one, torch.zeros(1, 0), one, start=1, neg_dst=torch.tensor([[3]]))
        >>> bank(batch)
        tensor([[0., 0.]])
        >>> bank.commit(batch)
        >>> bank(batch)
        tensor([[1., 0.]])
    """

    num_events: Tensor
    num_pairs: Tensor
    gap_sum: Tensor
    last_time: Tensor

    def __init__(
        self,
        mode: Literal["unlimited", "window", "threshold"] = "unlimited",
        window: Literal["share", "recurrence"] = "share",
        share: float = 0.15,
    ) -> None:
        super().__init__()
        if mode not in ("unlimited", "window", "threshold"):
            raise ValueError(f"EdgeBank(mode={mode!r}): give unlimited, window or threshold")
        if window not in ("share", "recurrence"):
            raise ValueError(f"EdgeBank(window={window!r}): give share or recurrence")
        if not 0 < share <= 1:
            raise ValueError(f"EdgeBank(share={share}): give a share of the events in (0, 1]")
        self.mode = mode
        self.window = window
        self.share = share
        self.pairs = _PairTable()
        self.recent = _PairTable()
        self.register_buffer("num_events", torch.zeros((), dtype=torch.int64))
        self.register_buffer("num_pairs", torch.zeros((), dtype=torch.int64))
        self.register_buffer("gap_sum", torch.zeros((), dtype=torch.float64))
        self.register_buffer("last_time", torch.full((), -_INFINITY, dtype=torch.float64))

    def extra_repr(self) -> str:
        """Return the arguments."""
        if self.mode != "window":
            return self.mode
        return f"window, share={self.share}" if self.window == "share" else "window, recurrence"

    def reset_parameters(self) -> None:
        """Do nothing: there are no parameters."""

    def reset_state(self) -> None:
        """Remove all events from the memory."""
        self.pairs.clear()
        self.recent.clear()
        for total in (self.num_events, self.num_pairs, self.gap_sum):
            total.zero_()
        self.last_time.fill_(-_INFINITY)

    def state_buffers(self) -> dict[str, Tensor]:
        """Return copies of the memory."""
        return {name: buffer.clone() for name, buffer in self.named_buffers()}

    def load_state_buffers(self, buffers: dict[str, Tensor]) -> None:
        """Replace the memory by one that :meth:`state_buffers` returned.

        Args:
            buffers: state that :meth:`state_buffers` of an EdgeBank returned.

        Raises:
            RuntimeError: if a buffer is missing or unknown.
        """
        self.load_state_dict(buffers)

    def _find(self, code: Tensor) -> _Seen:
        """Return the statistics of each code from both tables."""
        old, new = self.pairs.find(code), self.recent.find(code)
        return _Seen(
            torch.minimum(old.first, new.first),
            torch.maximum(old.last, new.last),
            torch.maximum(old.position, new.position),
            old.times + new.times,
        )

    def _remembered(self, seen: _Seen) -> Tensor:
        if self.mode == "unlimited":
            return seen.times > 0
        if self.mode == "threshold":
            return (seen.times > 0) & (seen.times * self.num_pairs >= self.num_events)
        if self.window == "share":
            return (seen.times > 0) & (seen.position >= (1 - self.share) * (self.num_events - 1).double())
        return (seen.times > 0) & (seen.last >= self.last_time - self.gap_sum / self.num_pairs)

    def forward(self, data: EventBatch) -> Tensor:
        """Return scores (B, 1 + M) from the events committed so far; changes no state.

        Args:
            data: batch of events; without negatives, scores are (B, 1).
        """
        src, dst = data.src[:, None], data.dst[:, None]
        if data.neg_dst is not None:
            neg_src = src.expand_as(data.neg_dst) if data.neg_src is None else data.neg_src
            src, dst = torch.cat([src, neg_src], 1), torch.cat([dst, data.neg_dst], 1)
        return self._remembered(self._find(_code(src, dst))).float()

    def forward_with_update(self, data: EventBatch) -> tuple[Tensor, EventBatch]:
        """Return the scores and the update for :meth:`commit`, which is the batch itself.

        Args:
            data: batch of events with their negatives.
        """
        return self(data), data

    @torch.no_grad()
    def commit(self, update: EventBatch) -> None:
        """Add the events of a batch to the memory; its negatives are ignored.

        Args:
            update: batch whose pairs are added.
        """
        if len(update) == 0:
            return
        code, time = _code(update.src, update.dst), update.t.double()
        distinct = code.unique()
        before = self._find(distinct)
        position = self.num_events + torch.arange(len(code), device=code.device)
        self.recent.merge(code, _Seen(time, time, position, torch.ones_like(code)))
        # totals over all pairs change by what the pairs of the batch change: no step through all of them
        self.gap_sum += (_mean_gap(self._find(distinct)) - _mean_gap(before)).sum()
        self.num_pairs += (before.times == 0).sum()
        self.num_events += len(code)
        self.last_time.copy_(torch.maximum(self.last_time, time.max()))
        # joining the tables costs all pairs, a commit only the small one, which stays near the root of their number
        if len(self.recent) > max(4096, 16 * int(len(self.pairs) ** 0.5)):
            self.pairs.merge(self.recent.code, self.recent.seen())
            self.recent.clear()


def _code(src: Tensor, dst: Tensor) -> Tensor:
    """Number the pairs of nodes below 2^31, so that the number of nodes need not be known."""
    return src << 31 | dst
