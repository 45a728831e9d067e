"""Recent neighbours: an exact index over a whole stream, queried at any position."""

import copy
from typing import Self

import torch
from torch import Tensor

from graphseq.core import DataError, Neighbors
from graphseq.ops.lookup import EventIndex, recent
from graphseq.ops.processor import reads_are_free

__all__ = ["TemporalAdjacency"]


class TemporalAdjacency:
    r"""Exact index of the events of each node, for lookups of the most recent ones before any position.

    Event e of nodes u and v is stored in one sorted column under the keys

    .. math:: u E + e \quad\text{and}\quad v E + e

    with E the number of events, a self-loop once. The events of node v before position c therefore end where
    :math:`v E + c` would be inserted. A query is one binary search and a few gathers: it changes no state, its result
    does not depend on the order of batches, it needs no synchronisation, and neither time nor memory depend on the
    number of nodes.

    Events are ordered by their position in the stream, also where their times are equal.

    Source: the sorted adjacency of TGL, arXiv 2203.14883. Differs from the paper: a binary search instead of one
    advancing pointer for each node, hence no state; only the most recent neighbours, no random ones.

    Args:
        src: source node of each event, int64.
        dst: destination node of each event, int64.
        t: time of each event, non-decreasing, int64 or float64.
        msg: features of the events, which the index shares without a copy; D may be 0.
        num_nodes: number of nodes N; all ids are below it.
        keep: events that count as neighbours, all by default: a mask, or positions in any order. Positions, and so
            ``cut`` and ``e_id``, stay those of the whole stream; all other events are
            ignored, as training with unseen nodes requires.

    Shape:
        src, dst, t (E,), msg (E, D), keep (E,) bool or (M,) int64

    Raises:
        DataError: if the columns do not match, an id or a kept position is out of range, times decrease or are
            neither int64 nor float64, or N * (E + 1) does not fit into int64.

    Example:
        >>> src, dst, t = torch.tensor([0, 1, 0]), torch.tensor([2, 2, 3]), torch.tensor([0, 5, 9])
        >>> index = TemporalAdjacency(src, dst, t, torch.zeros(3, 0), num_nodes=4)
        >>> found = index.recent(torch.tensor([2, 0]), cut=2, k=2)
        >>> found.node
        tensor([[1, 0],
                [2, 0]])
        >>> found.e_id
        tensor([[ 1,  0],
                [ 0, -1]])
    """

    def __init__(
        self, src: Tensor, dst: Tensor, t: Tensor, msg: Tensor, num_nodes: int, keep: Tensor | None = None
    ) -> None:
        _check_events(src, dst, t, msg, num_nodes)
        self._num_events = len(src)
        self._num_nodes = num_nodes
        # Row 0 stands for "no such event": time 0, and x ^ 0 = x makes the queried node its own other endpoint.
        times = torch.cat([t.new_zeros(1), t])
        endpoints = torch.cat([src.new_zeros(1), src ^ dst])
        position: Tensor | None = None  # all of them
        if keep is not None:
            position = _as_mask(keep, len(src), src.device).nonzero().squeeze(1)
            src, dst = src[position], dst[position]
        loop = src == dst
        once = (~loop).nonzero().squeeze(1) if bool(loop.any()) else None  # a self-loop is one event of its node
        # The key in front is below those of every node, so that looking back past the first event finds a foreign one.
        # All are written into one tensor: over millions of events, new memory costs more than the arithmetic.
        keys = src.new_empty(1 + len(src) + (len(dst) if once is None else len(once)))
        keys[0] = -1
        of_src, of_dst = keys[1 : len(src) + 1], keys[len(src) + 1 :]
        torch.arange(len(src), out=of_src) if position is None else of_src.copy_(position)
        of_dst.copy_(of_src if once is None else of_src[once])
        of_src.add_(src, alpha=self._num_events)
        of_dst.add_(dst if once is None else dst[once], alpha=self._num_events)
        if reads_are_free(keys.device):
            keys.numpy().sort()  # in place; a fifth of the time of torch's over ten million events
        else:
            keys = keys.sort().values
        self._index = EventIndex(keys, endpoints, times, msg)

    def __repr__(self) -> str:
        return (
            f"TemporalAdjacency({self._num_events} events, {self._num_nodes} nodes, "
            f"{self.nbytes / 2**20:.1f} MB, {self.device})"
        )

    @property
    def num_nodes(self) -> int:
        """Number of nodes."""
        return self._num_nodes

    @property
    def device(self) -> torch.device:
        """Device of the tensors."""
        return self._index.keys.device

    @property
    def nbytes(self) -> int:
        """Memory of the index and its columns in bytes, without the features, which it shares with the events."""
        return self._index.keys.nbytes + self._index.t.nbytes + self._index.endpoints.nbytes

    def to(self, device: torch.device | str, msg: Tensor | None = None) -> Self:
        """Return the index with its tensors on ``device``.

        Args:
            device: device of the returned index.
            msg: features that are on ``device`` already, to be shared instead of copied again; None for a copy.

        Raises:
            ValueError: if ``msg`` has another shape than the features of the index.
        """
        index = self._index
        if msg is not None and msg.shape != index.msg.shape:
            raise ValueError(f"msg has shape {tuple(msg.shape)}; the events have {tuple(index.msg.shape)}")
        moved = copy.copy(self)
        features = index.msg if msg is None else msg
        columns = (part.to(device) for part in (index.keys, index.endpoints, index.t, features))
        moved._index = EventIndex._make(columns)
        return moved

    def cut_before(self, t_query: Tensor) -> Tensor:
        """Return the position below which all events are strictly older than the given time.

        Events at the queried time itself are excluded, since one of them may be the event to predict.

        Args:
            t_query: queried times, on the device of the index.

        Shape:
            t_query (Q,) -> int64 (Q,)
        """
        times = self._index.t[1:]
        if t_query.is_floating_point() and not times.is_floating_point():
            # whole numbers below 2.5 are those below 3; infinity has no integer of its own
            t_query = t_query.ceil().clamp(-(2.0**62), 2.0**62)
        return torch.searchsorted(times, t_query.to(times.dtype))

    def recent(self, nodes: Tensor, cut: int | Tensor, k: int) -> Neighbors:
        """Return the ``k`` latest events of each node among those at positions below ``cut``, newest first.

        Args:
            nodes: queried nodes, int64, not negative; a node that is not in the stream has no neighbours.
            cut: position in the stream below which events count; one for all nodes, or one for each. A position beyond
                the last event means all events.
            k: number of neighbours, at least 1.

        Shape:
            nodes (Q,), cut (Q,) -> each field (Q, k)

        Raises:
            ValueError: if ``k`` is below 1, or there is neither one cut nor one for each node.
        """
        if k < 1:
            raise ValueError(f"k is {k}; it must be at least 1")
        if nodes.dim() != 1 or (isinstance(cut, Tensor) and cut.shape != nodes.shape):
            shape = tuple(cut.shape) if isinstance(cut, Tensor) else "a number"
            raise ValueError(f"nodes has shape {tuple(nodes.shape)}, cut {shape}; give (Q,) and a number or (Q,)")
        cut = cut.clamp(max=self._num_events) if isinstance(cut, Tensor) else min(cut, self._num_events)
        return recent(self._index, nodes, cut, k)


def _check_events(src: Tensor, dst: Tensor, t: Tensor, msg: Tensor, num_nodes: int) -> None:
    num_events = len(src)
    if src.dim() != 1 or dst.shape != src.shape or t.shape != src.shape or msg.dim() != 2 or len(msg) != num_events:
        shapes = {name: tuple(value.shape) for name, value in {"src": src, "dst": dst, "t": t, "msg": msg}.items()}
        raise DataError(f"columns have shapes {shapes}; give src, dst and t as (E,) and msg as (E, D), D may be 0")
    if src.dtype != torch.int64 or dst.dtype != torch.int64:
        raise DataError(f"src and dst are {src.dtype} and {dst.dtype}; node ids are int64")
    if t.dtype not in (torch.int64, torch.float64):
        raise DataError(f"t is {t.dtype}; times are int64 or float64, since float32 tells no seconds apart")
    if num_nodes * (num_events + 1) > torch.iinfo(torch.int64).max:
        raise DataError(
            f"{num_nodes} nodes and {num_events} events make keys that do not fit into int64; number the nodes "
            "consecutively from 0"
        )
    if not num_events:
        return
    low, high = torch.stack([torch.stack(part.aminmax()) for part in (src, dst)]).aminmax()
    if low < 0 or high >= num_nodes:
        raise DataError(f"node ids run from {int(low)} to {int(high)}; with num_nodes={num_nodes} they are below it")
    # this form also refuses NaN
    if not (t[1:] >= t[:-1]).all() or not (t[:1] == t[:1]).all():
        raise DataError("times decrease or are NaN; sort the events by time, stably, before they are indexed")


def _as_mask(keep: Tensor, num_events: int, device: torch.device) -> Tensor:
    if keep.dtype == torch.bool:
        if keep.shape != (num_events,):
            raise DataError(f"keep has shape {tuple(keep.shape)}; a mask has one entry for each of {num_events} events")
        return keep.to(device)
    if keep.is_floating_point() or keep.dim() != 1:
        raise DataError(f"keep is {keep.dtype} of shape {tuple(keep.shape)}; give a mask or positions, one dimension")
    if keep.numel() and (keep.min() < 0 or keep.max() >= num_events):
        low, high = int(keep.min()), int(keep.max())
        raise DataError(f"keep has positions from {low} to {high}; they are 0 to {num_events - 1}")
    mask = torch.zeros(num_events, dtype=torch.bool, device=device)
    mask[keep.to(device=device, dtype=torch.int64)] = True
    return mask
