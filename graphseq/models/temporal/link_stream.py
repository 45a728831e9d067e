"""A trained network at work: events come in one by one, scores and rankings are asked for at any moment."""

import contextlib
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal, Self, overload

import numpy as np
import torch
from torch import Tensor

from graphseq.core.errors import DataError
from graphseq.core.events import EventBatch
from graphseq.models.temporal.memory_network import MemoryNetwork
from graphseq.models.temporal.stream_columns import as_ids, as_integers, as_times, given_events, plain, usable_events
from graphseq.models.temporal.stream_state import StreamState
from graphseq.nn.temporal.pres import moments_tracked

__all__ = ["LinkStream"]

Numbers = Tensor | np.ndarray | Sequence[int] | Sequence[float] | int | float
Output = Literal["probability", "logit"]


class LinkStream(StreamState):
    r"""A trained network that goes on observing: scores at any moment are those that evaluation would compute.

    .. math:: p(u, v, t) = \sigma(f(u, v, t \mid \text{all events observed}))

    The state is the memory in the network's own buffers, and the recent events of each node in a
    :class:`~graphseq.nn.RecentNeighborBuffer`, of which deeper layers take the neighbours of neighbours too. The
    stream works on the network it is given: do not train it, or hand it to a second stream, at the same time. Calls
    from several threads need a lock around them: one that observes while another scores would mix states.

    A call of :meth:`observe` is one batch: its events do not see each other, and each node takes up the last of its
    messages. So the chunks in which events arrive are part of the result, as the batch size is in evaluation: the
    same chunks give the same numbers, and smaller ones are closer to the stream. :meth:`score` and :meth:`rank`
    change nothing. They were learned against drawn negatives: probabilities tell an event from a random pair.

    Where a chunk cannot be used, a ``DataError`` says why and the state is what it was before.

    Args:
        network: trained, such as ``graphseq.load(path).model``; it is set to evaluation. The stream runs on its device.
        num_neighbors: events kept of each node, at least those that the network asks for, which is the default.
        batch_size: longer calls of :meth:`observe` are worked off in batches of this many events; None for one batch.
        growth: what an id beyond ``num_nodes`` does: ``error``, or ``grow``, which makes room for nodes never seen.
        max_nodes: with ``grow``, ids are refused from here on; None for no limit but the machine's memory.
        time_offset: subtracted from the times of :meth:`observe`, :meth:`score` and :meth:`rank`; the
            ``time_offset`` of the events that the network was trained on, which count from 0. Times in an
            ``EventBatch`` are those of a data module and count from there already.

    Raises:
        TypeError: if the network is not a :class:`MemoryNetwork`.
        ValueError: if a size is out of range, or a network whose corrector keeps moments by node is to grow.

    Example:
        >>> from graphseq.models import TGN
        >>> stream = LinkStream(TGN(num_nodes=9, memory_dim=8, time_dim=8, embedding_dim=8))
        >>> _ = stream.observe([0, 1], [5, 6], [10, 12])
        >>> stream.score(src=0, dst=6, t=20).shape
        torch.Size([1])
        >>> ids, scores = stream.rank(0, None, t=20, k=3)
        >>> sorted(ids[0].tolist())
        [5, 6]
    """

    def __init__(
        self,
        network: MemoryNetwork,
        *,
        num_neighbors: int | None = None,
        batch_size: int | None = None,
        growth: Literal["error", "grow"] = "error",
        max_nodes: int | None = None,
        time_offset: int | float = 0,
    ) -> None:
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; it must be at least 1, or None for one batch a call")
        super().__init__(network, num_neighbors, growth, max_nodes, time_offset)
        self.batch_size = batch_size

    @classmethod
    def from_history(
        cls,
        network: MemoryNetwork,
        history: Any,
        *,
        replay: bool = False,
        splits: Sequence[str] = ("train", "val"),
        **options: Any,
    ) -> Self:
        """Return a stream that has the past behind it.

        Args:
            network: trained.
            history: a temporal data module, whose events and whose ``time_offset`` are taken; or batches of events in
                the order of time.
            replay: whether memory is built anew, batch by batch, by the weights as they are now. If not, the state in
                the network's buffers stays, as a checkpoint written after validation brings it, and the history gives
                the neighbours only, which takes no forward pass.
            splits: splits of the data module that are past.
            options: see :class:`LinkStream`.

        Raises:
            DataError: if the history does not fit the network, or ``replay`` is False and the state does not end
                where the history does. The network is then as it was.

        Example:
            >>> from graphseq.models import JODIE
            >>> one = torch.tensor([1])
            >>> past = [EventBatch(one, one + 1, one * t, torch.zeros(1, 0), one, start=0) for t in (5, 8)]
            >>> LinkStream.from_history(JODIE(num_nodes=4), past, replay=True)
            LinkStream(JODIE, 4 nodes, 2 events observed, time 8)
        """
        module = history if callable(getattr(history, "batches", None)) else None
        if module is not None:
            options.setdefault("time_offset", module.events.time_offset)
        stream = cls(network, **options)
        reached, stream._now = stream._now, 0.0
        before = network.state_buffers() if replay else {}
        try:
            if replay:
                network.reset_state()
            if module is None:
                stream._take_batches(history, replay)
            else:
                stream._take_module(module, splits, replay)
        except BaseException:
            if replay:
                network.load_state_buffers(before)
            raise
        if not replay and network.memory is not None and stream._now != reached:
            raise DataError(
                f"the state in the network ends at time {plain(reached)}, the history at {plain(stream._now)}; name "
                "the splits that the network has seen, or give replay=True"
            )
        return stream

    @torch.no_grad()
    def _take_module(self, module: Any, splits: Sequence[str], replay: bool) -> None:
        splits = [split for split in splits if len(module.splits[split])]
        if not splits:
            raise DataError("all splits that are past are empty; name splits with events")
        end = max(int(module.splits[split].max()) for split in splits) + 1
        past = module.events[:end]
        # nodes that were kept from training are in the history all the same, as they are in evaluation
        columns = EventBatch(past.src, past.dst, past.t, past.msg, torch.arange(end), start=0)
        events = self._checked(columns)
        if replay:
            for split in splits:
                history = None
                # a corrector's moments go on over the events of training, and stay over others, as they did
                with moments_tracked(self.network) if split == "train" else contextlib.nullcontext():
                    for batch in module.batches(split):
                        if history is None and batch.history is not None:  # one for all batches of a split
                            history = batch.history.to(self.device)
                        self._commit(replace(batch.to(self.device), history=history, neg_dst=None, neg_src=None))
        self._note(events)

    @torch.no_grad()
    def _take_batches(self, batches: Iterable[EventBatch], replay: bool) -> None:
        for batch in batches:
            events = self._checked(replace(batch, neg_dst=None, neg_src=None, history=None, cut=None))
            if len(events) and replay:
                own = self._placed(events)
                if batch.history is not None:  # it may know more than the batches tell, and has a numbering of its own
                    own = replace(own, start=batch.start, history=batch.history, cut=batch.cut)
                self._commit(own)
            self._note(events)

    @overload
    def observe(self, src: EventBatch) -> Tensor: ...

    @overload
    def observe(
        self, src: Numbers, dst: Numbers, t: Numbers, msg: Any = None, event_type: Numbers | None = None
    ) -> Tensor: ...

    @torch.no_grad()
    def observe(
        self,
        src: EventBatch | Numbers,
        dst: Numbers | None = None,
        t: Numbers | None = None,
        msg: Any = None,
        event_type: Numbers | None = None,
    ) -> Tensor:
        """Take in events that happened, in the order of time; return the logits they had just before.

        Args:
            src: source nodes; or a batch with everything, whose times count from 0 as a data module's do. Its history
                is not used, its negatives are scored beside its events.
            dst: destination nodes.
            t: times, integers or float64, not decreasing, not before those observed already.
            msg: features, if the network was trained with any.
            event_type: kinds of the events, where a corrector counts them.

        Shape:
            src, dst, t, event_type (B,), msg (B, D) -> logits (B, 1 + M), the events in column 0

        Raises:
            DataError: if ids are out of range, times are not sorted, not finite, too coarse or before the state, or
                features do not fit. The state is then what it was before.
        """
        if isinstance(src, EventBatch):
            if dst is not None or t is not None or msg is not None or event_type is not None:
                raise TypeError("give a batch alone, or src, dst and t, not both")
            if src.cut is not None:
                raise DataError(
                    "the batch has a cut for each event (cut='time'); a stream shows all its events the past before "
                    "the batch. Observe one event at a time, or clear it: dataclasses.replace(batch, cut=None)"
                )
            columns, offset = src, 0.0
        else:
            if dst is None or t is None:
                raise TypeError("observe needs src, dst and t, or an EventBatch")
            columns, offset = given_events(src, dst, t, msg, event_type), self.time_offset
        events = self._checked(columns, offset)
        if not len(events):
            return torch.zeros(0, 1 if events.neg_dst is None else 1 + events.neg_dst.size(1), device=self.device)
        size = self.batch_size or len(events)
        logits = []
        for low in range(0, len(events), size):
            piece = self._placed(_piece(events, low, low + size) if size < len(events) else events)
            logits.append(self._commit(piece))
            self._note(piece)
        return torch.cat(logits) if len(logits) > 1 else logits[0]

    @torch.no_grad()
    def score(self, src: Numbers, dst: Numbers, t: Numbers, output: Output = "probability") -> Tensor:
        """Return how probable events between pairs of nodes are at given times, all that was observed being past.

        Args:
            src: source nodes, one or for each pair.
            dst: destination nodes, one or for each pair.
            t: times, one or for each pair, in any order, not before those observed already.
            output: ``probability``, or ``logit``.

        Shape:
            (B,) each, or one number -> (B,)

        Raises:
            DataError: if ids are out of range or times are not usable.
        """
        sources, destinations, times = as_ids("src", src), as_ids("dst", dst), as_times(t, self.time_offset)
        count = max(len(sources), len(destinations), len(times))
        if {len(sources), len(destinations), len(times)} - {1, count}:
            raise DataError(
                f"src, dst and t have {len(sources)}, {len(destinations)} and {len(times)} entries; give one for each "
                "pair, or one for all"
            )
        logits = self._ask(sources.expand(count), destinations.expand(count)[:, None], times.expand(count))
        return _as(logits.squeeze(1), output)

    @torch.no_grad()
    def rank(
        self,
        src: Numbers,
        candidates: Tensor | np.ndarray | Sequence[int] | None,
        t: Numbers,
        k: int = 10,
        output: Output = "probability",
    ) -> tuple[Tensor, Tensor]:
        """Return the most probable destinations of each source at a time, the best first, with their scores.

        All candidates of a call go through the network at once; equal scores stay in the order of the candidates.

        Args:
            src: source nodes.
            candidates: nodes to choose from, the same for all sources (C,) or their own (Q, C); None for all
                destinations observed so far. ``torch.arange(stream.num_nodes)`` are all nodes.
            t: times, one or for each source, not before those observed already.
            k: number of destinations, at least 1; of fewer candidates all are returned.
            output: ``probability``, or ``logit``.

        Shape:
            src (Q,) or one number -> ids int64 (Q, k), scores (Q, k)

        Raises:
            ValueError: if ``k`` is below 1.
            DataError: if there are no candidates, ids are out of range or times are not usable.
        """
        if k < 1:
            raise ValueError(f"k is {k}; it must be at least 1")
        sources, times = as_ids("src", src), as_times(t, self.time_offset)
        if candidates is None:
            chosen = self._is_destination.nonzero().view(1, -1)
        else:
            chosen = as_integers("candidates", candidates)
            chosen = chosen[None] if chosen.dim() == 1 else chosen
        if len(times) not in (1, len(sources)) or chosen.dim() != 2 or len(chosen) not in (1, len(sources)):
            raise DataError(
                f"src, candidates and t have {len(sources)}, {tuple(chosen.shape)} and {len(times)} entries; give "
                "candidates (C,) or (sources, C), and one time for each source or for all"
            )
        if not chosen.size(1):
            raise DataError("there are no candidates: no destination was observed so far, or none was given")
        chosen = chosen.to(self.device).expand(len(sources), -1)
        logits = self._ask(sources, chosen, times.expand(len(sources)))
        logits, order = logits.sort(dim=1, descending=True, stable=True)
        return chosen.gather(1, order[:, :k]), _as(logits[:, :k], output)

    def __repr__(self) -> str:
        return (
            f"LinkStream({type(self.network).__name__}, {self.num_nodes} nodes, {self._num_events} events observed, "
            f"time {plain(self._now + self.time_offset)})"
        )

    # one batch

    def _commit(self, batch: EventBatch) -> Tensor:
        """Let the network see a batch, and return its logits of before."""
        self.network.eval()
        logits, update = self.network.forward_with_update(batch)
        self.network.commit(update)
        return logits

    def _placed(self, events: EventBatch) -> EventBatch:
        """Return events as the next of the stream, with all that was observed as their past."""
        start = self._num_events
        if not start and self._now and self.history is not None:
            warnings.warn(
                "the network remembers events that the stream knows nothing of, so no node has neighbours; use "
                "LinkStream.from_history or load_state_dict, or begin anew with reset_state()",
                stacklevel=4,
            )
        position = torch.arange(start, start + len(events), device=self.device)
        return replace(events, e_id=position, start=start, history=self.history)

    def _ask(self, src: Tensor, dst: Tensor, t: Tensor) -> Tensor:
        """Return the logits (Q, C) of sources (Q,) with destinations (Q, C), which change nothing."""
        if not dst.numel():
            return torch.zeros(dst.shape, device=self.device)
        self._check_past(t, self.time_offset)
        src, dst = self._rows_of({"src": src, "dst": dst})
        src, dst, t = (value.to(self.device) for value in (src, dst, t))
        none = torch.zeros(len(src), self.msg_channels, dtype=self.dtype, device=self.device)
        batch = EventBatch(src, dst[:, 0], t, none, src, start=0, neg_dst=dst[:, 1:] if dst.size(1) > 1 else None)
        self.network.eval()
        return self.network(self._placed(batch))

    # what comes in

    def _checked(self, events: EventBatch, offset: float = 0.0) -> EventBatch:
        """Return a batch of usable columns on the stream's device, with room made for its nodes.

        Nothing is written before all is known to be usable: a memory that took in half a batch could not be mended.
        """
        events = usable_events(events, self.msg_channels, offset)
        self._check_past(events.t, offset)
        parts = {name: getattr(events, name) for name in ("src", "dst", "neg_dst", "neg_src")}
        self._check_ids({name: value for name, value in parts.items() if value is not None})
        return replace(events, msg=events.msg.to(self.dtype)).to(self.device)


def _piece(events: EventBatch, low: int, high: int) -> EventBatch:
    columns: dict[str, Any] = {name: value for name, value in vars(events).items() if isinstance(value, Tensor)}
    return replace(events, **{name: value[low:high] for name, value in columns.items()})


def _as(logits: Tensor, output: Output) -> Tensor:
    if output not in ("probability", "logit"):
        raise ValueError(f"output is {output!r}; it must be 'probability' or 'logit'")
    return logits.sigmoid() if output == "probability" else logits
