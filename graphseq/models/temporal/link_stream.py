"""Inference on a live stream: a trained network that observes events and scores links at any time."""

import contextlib
import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal, Self, overload

import numpy as np
import torch
from torch import Tensor

from graphseq.core.errors import DataError
from graphseq.core.events import EventBatch
from graphseq.core.numbering import NodeNumbering, Role
from graphseq.models.temporal.memory_network import MemoryNetwork
from graphseq.models.temporal.observations import as_ids, as_integers, as_times, given_events, plain, usable_events
from graphseq.nn.temporal.memory import NodeMemory
from graphseq.nn.temporal.neighbor_buffer import RecentNeighborBuffer
from graphseq.nn.temporal.pres import moments_tracked

__all__ = ["LinkStream"]

Numbers = Tensor | np.ndarray | Sequence[int] | Sequence[float] | Sequence[str] | int | float | str
Output = Literal["probability", "logit"]

_MOST_NODES = 10**9
"""No stream grows beyond this: a larger id is a name, such as the number of an account, and no rank."""


class LinkStream:
    r"""Trained network on a live stream of events, whose scores equal those of an evaluation.

    .. math:: p(u, v, t) = \sigma(f(u, v, t \mid \text{all events observed}))

    The state is the memory in the network's own buffers, and the recent events of each node in a
    :class:`~graphseq.nn.RecentNeighborBuffer`, of which deeper layers take the neighbours of neighbours too. The
    stream works on the network it is given: do not train it, or hand it to a second stream, at the same time. Calls
    from several threads need a lock around them: one that observes while another scores would mix states.

    A call of :meth:`observe` is one batch: its events do not see each other, and each node takes up the last of its
    messages. So the chunks in which events arrive are part of the result, as the batch size is in evaluation: the same
    chunks give the same numbers, and smaller ones are closer to the stream. :meth:`score` and :meth:`rank` change
    nothing. Probabilities distinguish an event from a random pair, as in training.

    Where a chunk cannot be used, a ``DataError`` says why and the state is what it was before.

    Args:
        network: trained network, such as ``graphseq.load(path).model``; it is set to evaluation mode. The stream runs
            on its device.
        num_neighbors: number of events kept of each node, at least as many as the network looks up, which is the
            default.
        batch_size: largest number of events that :meth:`observe` treats as one batch; longer calls are split. None
            for one batch a call.
        growth: rule for ids beyond ``num_nodes``: ``error`` refuses them, ``grow`` allocates new nodes.
        max_nodes: number of nodes beyond which ``grow`` refuses ids; None for no limit but the machine's memory.
        time_offset: number subtracted from the times of :meth:`observe`, :meth:`score` and :meth:`rank`: the
            ``time_offset`` of the events that the network was trained on, which count from 0. Times in an
            ``EventBatch`` come from a data module and count from there already. Times may also be dates.
        node_ids: id of each node by its number, text or int64 (N,): the ``node_ids`` of the events that the network
            was trained on. :meth:`observe`, :meth:`score` and :meth:`rank` then take and return ids; nodes in an
            ``EventBatch`` are numbers always. None for numbers.
        num_sources: number of source nodes of a bipartite graph, which are no destinations; None for a graph that is
            not bipartite.

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
        node_ids: Tensor | Sequence[str] | None = None,
        num_sources: int | None = None,
    ) -> None:
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; it must be at least 1, or None for one batch a call")
        if not isinstance(network, MemoryNetwork):
            raise TypeError(f"the network is a {type(network).__name__}; a MemoryNetwork, such as TGN, is needed")
        # an embedding looks neighbours up, APAN's memory delivers mails to them
        needed = max(network.embedding.num_neighbors, getattr(network.memory, "num_neighbors", 0))
        if num_neighbors is not None and num_neighbors < max(needed, 1):
            raise ValueError(f"num_neighbors is {num_neighbors}; the network looks up {needed}, and 1 is the least")
        if growth not in ("error", "grow"):
            raise ValueError(f"growth is {growth!r}; it must be 'error' or 'grow'")
        if growth == "grow" and network.corrector is not None:
            raise ValueError("a network with a corrector cannot grow: its moments are kept by node; use growth='error'")
        if max_nodes is not None and max_nodes < network.num_nodes:
            raise ValueError(f"max_nodes is {max_nodes}; the network has {network.num_nodes} nodes already")
        if not math.isfinite(time_offset):
            raise ValueError(f"time_offset is {time_offset}; it must be finite")
        if node_ids is not None and len(node_ids) != network.num_nodes:
            raise ValueError(f"node_ids has {len(node_ids)} entries; the network has {network.num_nodes} nodes")
        weight = next(network.parameters())
        self.network = network.eval()
        self.device, self.dtype = weight.device, weight.dtype
        self.growth: Literal["error", "grow"] = growth
        self.max_nodes = max_nodes
        self.time_offset = time_offset
        self.nodes = None if node_ids is None else NodeNumbering(node_ids, num_sources)
        self.num_sources = num_sources
        self.msg_channels = network.msg_channels or 0
        self.num_nodes = network.num_nodes
        self._least_nodes = network.num_nodes
        self.history: RecentNeighborBuffer | None = None
        if needed:
            buffer = RecentNeighborBuffer(network.num_nodes, num_neighbors or needed, self.msg_channels, "float64")
            self.history = buffer.to(self.device, self.dtype)
        self._is_destination = torch.zeros(network.num_nodes, dtype=torch.bool, device=self.device)
        self._num_events = 0
        self._now = self._memory_time()
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
        """Return a stream that continues after a history of events.

        Args:
            network: trained network.
            history: event data module, whose events, ``time_offset`` and ids of nodes are taken; or batches of events
                in the order of time.
            replay: whether the memory is built anew, batch by batch, by the weights as they are now. If not, the state
                in the network's buffers stays, as a checkpoint written after validation brings it, and the history
                gives the neighbours only, which takes no forward pass.
            splits: splits of the data module that belong to the past.
            options: further arguments of :class:`LinkStream`.

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
            options.setdefault("num_sources", module.events.num_sources)
            ids = module.events.node_ids
            if isinstance(ids, list) or module.events.num_nodes == network.num_nodes:
                options.setdefault("node_ids", ids)
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
        """Add observed events in the order of time; return their logits before the update.

        Args:
            src: source of each event, by its id, or its number if nodes have no ids; or a batch with all columns, whose
                nodes are numbers and whose times count from 0 as a data module's do. The history of such a batch is not
                used, its negatives are scored beside its events.
            dst: destination of each event, in the same way.
            t: time of each event, integer or float64, or a date in ISO 8601, not decreasing, not before the times
                observed already.
            msg: features of each event, if the network was trained with features.
            event_type: type of each event, where a corrector counts types.

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
            if self.nodes is not None and len(src) and int(torch.stack([src.src, src.dst]).max()) >= len(self.nodes):
                raise DataError(
                    f"the batch names nodes beyond the {len(self.nodes)} that have an id; give new nodes by their ids"
                )
        else:
            if dst is None or t is None:
                raise TypeError("observe needs src, dst and t, or an EventBatch")
            sources, new = self._numbered("src", src)
            destinations, more = self._numbered("dst", dst, new)
            columns, offset = given_events(sources, destinations, t, msg, event_type), self.time_offset
        events = self._checked(columns, offset)
        if not isinstance(src, EventBatch) and self.nodes is not None:
            self.nodes.add(new, "source")
            self.nodes.add(more, "destination")
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
            src: sources, one for each pair or one for all, by their ids, or their numbers if nodes have no ids.
            dst: destinations, one for each pair or one for all, in the same way.
            t: times or dates, one for each pair or one for all, in any order, not before the times observed already.
            output: form of the scores, ``probability`` or ``logit``.

        Shape:
            (B,) each, or one number -> (B,)

        Raises:
            DataError: if ids are out of range or times are not usable.
        """
        sources, destinations = as_ids("src", self._asked("src", src)), as_ids("dst", self._asked("dst", dst))
        times = as_times(t, self.time_offset)
        count = max(len(sources), len(destinations), len(times))
        if {len(sources), len(destinations), len(times)} - {1, count}:
            raise DataError(
                f"src, dst and t have {len(sources)}, {len(destinations)} and {len(times)} entries; give one for each "
                "pair, or one for all"
            )
        logits = self._logits(sources.expand(count), destinations.expand(count)[:, None], times.expand(count))
        return _output_of(logits.squeeze(1), output)

    @torch.no_grad()
    def rank(
        self,
        src: Numbers,
        candidates: Tensor | np.ndarray | Sequence[int] | Sequence[str] | None,
        t: Numbers,
        k: int = 10,
        output: Output = "probability",
    ) -> tuple[Tensor | np.ndarray, Tensor]:
        """Return the most probable destinations of each source at a time, the best first, with their scores.

        All candidates of a call go through the network at once; equal scores stay in the order of the candidates.

        Args:
            src: sources, by their ids, or their numbers if nodes have no ids.
            candidates: destinations to choose from, in the same way, the same for all sources (C,) or for each source
                (Q, C); None for all destinations observed so far. Without ids, ``torch.arange(stream.num_nodes)`` are
                all nodes of a graph that is not bipartite.
            t: times or dates, one for each source or one for all, not before the times observed already.
            k: number of destinations, at least 1; all candidates are returned where there are fewer.
            output: form of the scores, ``probability`` or ``logit``.

        Shape:
            src (Q,) or one id -> ids (Q, k), int64 or an array of text, scores (Q, k)

        Raises:
            ValueError: if ``k`` is below 1.
            DataError: if there are no candidates, ids are unknown, a candidate is a source of a bipartite graph, or
                times are not usable.
        """
        if k < 1:
            raise ValueError(f"k is {k}; it must be at least 1")
        sources, times = as_ids("src", self._asked("src", src)), as_times(t, self.time_offset)
        if candidates is None:
            chosen = self._is_destination.nonzero().view(1, -1)
        else:
            chosen = as_integers("candidates", self._asked("candidates", candidates))
            chosen = chosen[None] if chosen.dim() == 1 else chosen
        if len(times) not in (1, len(sources)) or chosen.dim() != 2 or len(chosen) not in (1, len(sources)):
            raise DataError(
                f"src, candidates and t have {len(sources)}, {tuple(chosen.shape)} and {len(times)} entries; give "
                "candidates (C,) or (sources, C), and one time for each source or for all"
            )
        if not chosen.size(1):
            raise DataError("there are no candidates; observe events first, or give at least one candidate")
        chosen = chosen.to(self.device).expand(len(sources), -1)
        logits = self._logits(sources, chosen, times.expand(len(sources)))
        logits, order = logits.sort(dim=1, descending=True, stable=True)
        order, scores = order[:, :k], _output_of(logits[:, :k], output)
        if self.nodes is None:
            return chosen.gather(1, order), scores
        if candidates is None:
            return self.nodes.ids_of(chosen.gather(1, order)), scores
        named = np.broadcast_to(self.nodes.checked("candidates", candidates), chosen.shape)  # new ones have no number
        best = np.take_along_axis(named, order.cpu().numpy(), axis=1)
        return best if self.nodes.is_text else torch.from_numpy(best), scores

    def _numbered(self, name: str, given: Any, before: np.ndarray | None = None) -> tuple[Any, np.ndarray]:
        """Return the numbers of given ids, and the ids that are new, which take the next numbers after ``before``."""
        nothing = np.empty(0, object)
        if self.nodes is None:
            return given, nothing
        role: Role = "source" if name == "src" else "destination"
        ids = self.nodes.checked(name, given)
        numbers = self.nodes.find(ids, role)
        if not bool((numbers < 0).any()):
            return numbers, nothing.astype(ids.dtype)
        unknown = list(dict.fromkeys(ids[(numbers < 0).numpy()].tolist()))
        if self.growth == "error":
            raise DataError(
                f"{name} names {', '.join(map(repr, unknown[:3]))}, no {role} that the network was trained on. Leave "
                "such events out, or build the stream with growth='grow', which gives new nodes an empty memory"
            )
        known = [] if before is None or self.num_sources is not None else before.tolist()
        first = len(self.nodes) + (0 if before is None else len(before))
        place = {node: len(self.nodes) + rank for rank, node in enumerate(known)}
        fresh = [node for node in unknown if node not in place]
        place |= {node: first + rank for rank, node in enumerate(fresh)}
        rows = [place[node] if number < 0 else number for node, number in zip(ids.flat, numbers.flatten().tolist(),
                                                                             strict=True)]  # fmt: skip
        new = nothing.astype(ids.dtype) if not fresh else np.array(fresh, dtype=ids.dtype)
        return torch.tensor(rows).view(numbers.shape), new

    def _asked(self, name: str, given: Any) -> Any:
        """Return the numbers of ids that a question names; all nodes that were never observed have one number."""
        if self.nodes is None:
            return given
        numbers, _ = self._numbered(name, given)
        return numbers.clamp(max=self.num_nodes)

    def _check_roles(self, parts: dict[str, Tensor]) -> None:
        """Refuse a source of a bipartite graph where a destination belongs, and the other way round."""
        if self.num_sources is None:
            return
        known = self._least_nodes
        for name, value in parts.items():
            wrong = value >= self.num_sources if name in ("src", "neg_src") else value < self.num_sources
            wrong = wrong & (value < known)  # what role a new node has is not known
            if bool(wrong.any()):
                node = int(value[wrong][0])
                role = "source" if node < self.num_sources else "destination"
                raise DataError(
                    f"{name} names node {node}, a {role}: in this bipartite graph sources are nodes 0 to "
                    f"{self.num_sources - 1}, and destinations {self.num_sources} to {known - 1}; only destinations "
                    "are scored and ranked"
                )

    def reset_state(self) -> None:
        """Reset the state to that before the first event."""
        self.network.reset_state()
        if self.history is not None:
            self.history.reset_state()
        self._is_destination.zero_()
        if self.nodes is not None:
            self.nodes.keep(self._least_nodes)
        self._num_events, self._now, self.num_nodes = 0, 0.0, self._least_nodes

    def state_dict(self) -> dict[str, Any]:
        """Return copies of all that events have written, and the ids of nodes, as tensors and plain data.

        Weights stay in the checkpoint.
        """
        state: dict[str, Any] = {f"network.{name}": value for name, value in self.network.state_buffers().items()}
        if self.history is not None:
            state |= {f"history.{name}": value.clone() for name, value in self.history.named_buffers()}
        state["is_destination"] = self._is_destination.clone()
        room, used = self.network.num_nodes, self.num_nodes
        if used < room:  # what is kept in reserve for nodes to come is no state
            state = {
                name: value[:used].clone() if value.dim() and len(value) == room else value
                for name, value in state.items()
            }
        state["num_events"] = torch.tensor(self._num_events)
        state["now"] = torch.tensor(self._now, dtype=torch.float64)
        state["time_offset"] = torch.from_numpy(np.asarray(self.time_offset))
        if self.nodes is not None:
            state["nodes"] = self.nodes.state()
        if self.num_sources is not None:
            state["num_sources"] = torch.tensor(self.num_sources)
        return state

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state bit for bit, with the network of the same checkpoint.

        Args:
            state: state that :meth:`state_dict` returned; ``torch.load(path, weights_only=True)`` reads it from a file.

        Raises:
            ValueError: if it does not fit the network and the options of this stream, which then stays as it is.
        """
        state, own = dict(state), self.state_dict()
        nodes_state, num_sources = state.pop("nodes", None), state.pop("num_sources", None)
        own = {name: value for name, value in own.items() if name not in ("nodes", "num_sources")}
        if own.keys() != state.keys():
            raise ValueError(
                f"the state of a stream has {', '.join(sorted(own))}; {', '.join(sorted(own.keys() ^ state.keys()))} "
                "is missing or unexpected: build the stream with the network and options it was saved with"
            )
        nodes = len(state["is_destination"])
        if nodes != self.num_nodes and (self.growth == "error" or nodes < self._least_nodes):
            raise ValueError(
                f"the state is of {nodes} nodes, the network was built for {self._least_nodes}; a stream that grew is "
                "loaded with growth='grow', one of fewer nodes belongs to another network"
            )
        for name, value in own.items():
            shape = (nodes, *value.shape[1:]) if value.dim() and len(value) == self.num_nodes else tuple(value.shape)
            kinds = {value.dtype, torch.int64, torch.float64} if name == "time_offset" else {value.dtype}
            if tuple(state[name].shape) != shape or state[name].dtype not in kinds:
                raise ValueError(
                    f"the state does not fit: {name} is {state[name].dtype} {tuple(state[name].shape)} there and "
                    f"{value.dtype} {shape} here"
                )
        self._reserve(nodes)
        self.reset_state()
        room = self.network.state_buffers()
        for name, value in room.items():
            _copy_rows(value, state[f"network.{name}"])
        self.network.load_state_buffers(room)
        if self.history is not None:
            for name, value in self.history.named_buffers():
                _copy_rows(value, state[f"history.{name}"])
        _copy_rows(self._is_destination, state["is_destination"])
        self.num_nodes, self._num_events = nodes, int(state["num_events"])
        self._now, self.time_offset = float(state["now"]), state["time_offset"].item()
        self.nodes = None if nodes_state is None else NodeNumbering.from_state(nodes_state)
        self.num_sources = None if num_sources is None else int(num_sources)

    def __repr__(self) -> str:
        return (
            f"LinkStream({type(self.network).__name__}, {self.num_nodes} nodes, {self._num_events} events observed, "
            f"time {plain(self._now + self.time_offset)})"
        )

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
                "the network has seen events that the stream has not, so that no node has neighbours; use "
                "LinkStream.from_history or load_state_dict, or start again with reset_state()",
                stacklevel=4,
            )
        position = torch.arange(start, start + len(events), device=self.device)
        return replace(events, e_id=position, start=start, history=self.history)

    def _logits(self, src: Tensor, dst: Tensor, t: Tensor) -> Tensor:
        """Return the logits (Q, C) of sources (Q,) with destinations (Q, C), which change nothing."""
        if not dst.numel():
            return torch.zeros(dst.shape, device=self.device)
        self._check_past(t, self.time_offset)
        self._check_roles({"src": src, "dst": dst})
        src, dst = self._rows_of({"src": src, "dst": dst})
        src, dst, t = (value.to(self.device) for value in (src, dst, t))
        none = torch.zeros(len(src), self.msg_channels, dtype=self.dtype, device=self.device)
        batch = EventBatch(src, dst[:, 0], t, none, src, start=0, neg_dst=dst[:, 1:] if dst.size(1) > 1 else None)
        self.network.eval()
        return self.network(self._placed(batch))

    def _checked(self, events: EventBatch, offset: float = 0.0) -> EventBatch:
        """Return a batch of usable columns on the stream's device, with room made for its nodes.

        Nothing is written before all is known to be usable: a memory that took in half a batch could not be mended.
        """
        events = usable_events(events, self.msg_channels, offset)
        self._check_past(events.t, offset)
        parts = {name: getattr(events, name) for name in ("src", "dst", "neg_dst", "neg_src")}
        given = {name: value for name, value in parts.items() if value is not None}
        self._check_roles(given)
        self._check_ids(given)
        return replace(events, msg=events.msg.to(self.dtype)).to(self.device)

    def _note(self, events: EventBatch) -> None:
        """Add events to the past that neighbours and candidates are taken from."""
        if not len(events):
            return
        if self.history is not None:
            self.history.insert(events.src, events.dst, events.t, events.msg)
        self._is_destination[events.dst] = True
        self._num_events += len(events)
        self._now = float(events.t[-1])
        self.num_nodes = max(self.num_nodes, int(torch.stack([events.src, events.dst]).max()) + 1)

    def _check_past(self, t: Tensor, offset: float) -> None:
        if not len(t) or float(t.min()) >= self._now:
            return
        if not self._now:
            raise DataError(
                f"t is {plain(float(t.min()) + offset)}, before {plain(offset)}, from which times count: give a "
                "time_offset no later than the first event"
            )
        raise DataError(
            f"t is {plain(float(t.min()) + offset)}, before the state, which has reached {plain(self._now + offset)}: "
            "what came later is in memory and cannot be taken out. Drop late events, or load a state from before them"
        )

    def _check_ids(self, parts: dict[str, Tensor]) -> None:
        """Refuse ids out of range, and make room for new ones if that is wanted."""
        self._reserve(self._largest_id(parts) + 1)

    def _rows_of(self, parts: dict[str, Tensor]) -> list[Tensor]:
        """Return the rows of the state that answer a question about nodes, or refuse ids out of range.

        Nodes beyond all that were observed share one free row, for they are alike; so a question makes no room for
        the ids that it names.
        """
        largest = self._largest_id(parts)
        if largest >= self.num_nodes:
            self._refuse_beyond(largest)
            self._reserve(self.num_nodes + 1)
        return [ids.clamp(max=self.num_nodes) for ids in parts.values()]

    def _largest_id(self, parts: dict[str, Tensor]) -> int:
        """Return the largest id, -1 without any, or refuse ids that the stream cannot have."""
        largest = -1
        for name, value in parts.items():
            if not value.numel():
                continue
            low, high = value.aminmax()
            if int(low) < 0:
                raise DataError(f"{name} names node {int(low)}; nodes are numbered from 0")
            if self.growth == "error" and int(high) >= self.num_nodes:
                raise DataError(
                    f"{name} names node {int(high)}; the network knows nodes 0 to {self.num_nodes - 1}. Leave such "
                    "events out, or build the stream with growth='grow', which gives new nodes an empty memory"
                )
            largest = max(largest, int(high))
        return largest

    def _refuse_beyond(self, node: int) -> None:
        if self.max_nodes is not None and node >= self.max_nodes:
            raise DataError(f"node {node} is beyond max_nodes = {self.max_nodes}; number new nodes consecutively")
        if node >= _MOST_NODES:
            raise DataError(
                f"node {node} cannot be kept by a stream of {self.num_nodes} nodes: it keeps a state for every number "
                f"up to there, so ids must be below {_MOST_NODES}. Number new nodes consecutively"
            )

    def _reserve(self, nodes: int) -> None:
        """Make room for nodes: half as much again each time, so that a node more does not copy all the others."""
        room = self.network.num_nodes
        if nodes <= room:
            return
        self._refuse_beyond(nodes - 1)
        nodes = max(nodes, min(room + room // 2, self.max_nodes or room + room // 2))
        self.network.resize(nodes)
        if self.history is not None:
            self.history.resize(nodes)
        grown = self._is_destination.new_zeros(nodes)
        grown[:room] = self._is_destination
        self._is_destination = grown

    def _memory_time(self) -> float:
        """Return the time of the last event in the network's memory, 0 without any."""
        memory: Any = self.network.memory
        if memory is None:
            return 0.0
        return float((memory.mail_t if isinstance(memory, NodeMemory) else memory.mailbox.t).max())


def _piece(events: EventBatch, low: int, high: int) -> EventBatch:
    columns: dict[str, Any] = {name: value for name, value in vars(events).items() if isinstance(value, Tensor)}
    return replace(events, **{name: value[low:high] for name, value in columns.items()})


def _output_of(logits: Tensor, output: Output) -> Tensor:
    if output not in ("probability", "logit"):
        raise ValueError(f"output is {output!r}; it must be 'probability' or 'logit'")
    return logits.sigmoid() if output == "probability" else logits


def _copy_rows(target: Tensor, rows: Tensor) -> None:
    target[: len(rows)].copy_(rows) if rows.dim() else target.copy_(rows)
