"""What a stream remembers beside the weights: memory, recent events, destinations, and how far it has come."""

import math
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from graphseq.core.errors import DataError
from graphseq.core.events import EventBatch
from graphseq.models.temporal.memory_network import MemoryNetwork
from graphseq.models.temporal.stream_columns import plain
from graphseq.nn.temporal.memory import NodeMemory
from graphseq.nn.temporal.neighbor_buffer import RecentNeighborBuffer
from graphseq.nn.temporal.neighbor_layers import SumLayer

__all__: list[str] = []

_MOST_NODES = 10**9
"""No stream grows beyond it: a larger id is a name, such as the number of an account, and no rank."""


class StreamState:
    """State of a network at work, which grows with the nodes and can be saved; see :class:`LinkStream`."""

    def __init__(
        self,
        network: MemoryNetwork,
        num_neighbors: int | None,
        growth: Literal["error", "grow"],
        max_nodes: int | None,
        time_offset: int | float,
    ) -> None:
        if not isinstance(network, MemoryNetwork):
            raise TypeError(f"the network is a {type(network).__name__}; a MemoryNetwork, such as TGN, is needed")
        # an embedding asks for neighbours, APAN's memory tells them
        needed = max(network.embedding.num_neighbors, getattr(network.memory, "num_neighbors", 0))
        if num_neighbors is not None and num_neighbors < max(needed, 1):
            raise ValueError(f"num_neighbors is {num_neighbors}; the network asks for {needed}, and 1 is the least")
        if growth not in ("error", "grow"):
            raise ValueError(f"growth is {growth!r}; it must be 'error' or 'grow'")
        if growth == "grow" and network.corrector is not None:
            raise ValueError("a network with a corrector cannot grow: its moments are kept by node; use growth='error'")
        if max_nodes is not None and max_nodes < network.num_nodes:
            raise ValueError(f"max_nodes is {max_nodes}; the network has {network.num_nodes} nodes already")
        if not math.isfinite(time_offset):
            raise ValueError(f"time_offset is {time_offset}; it must be finite")
        weight = next(network.parameters())
        self.network = network.eval()
        self.device, self.dtype = weight.device, weight.dtype
        self.growth: Literal["error", "grow"] = growth
        self.max_nodes = max_nodes
        self.time_offset = time_offset
        self.msg_channels = _msg_channels(network)
        self.num_nodes = network.num_nodes
        self._least_nodes = network.num_nodes
        self.history: RecentNeighborBuffer | None = None
        if needed:
            buffer = RecentNeighborBuffer(network.num_nodes, num_neighbors or needed, self.msg_channels, "float64")
            self.history = buffer.to(self.device, self.dtype)
        self._is_destination = torch.zeros(network.num_nodes, dtype=torch.bool, device=self.device)
        self._num_events = 0
        self._now = self._memory_time()

    def reset_state(self) -> None:
        """Forget all events: the state before the first."""
        self.network.reset_state()
        if self.history is not None:
            self.history.reset_state()
        self._is_destination.zero_()
        self._num_events, self._now, self.num_nodes = 0, 0.0, self._least_nodes

    def state_dict(self) -> dict[str, Tensor]:
        """Return copies of all that events have written, as tensors; weights stay in the checkpoint."""
        state = {f"network.{name}": value for name, value in self.network.state_buffers().items()}
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
        return state

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from where :meth:`state_dict` was taken, bit for bit, with the network of the same checkpoint.

        Args:
            state: what :meth:`state_dict` returned; ``torch.load(path, weights_only=True)`` reads it from a file.

        Raises:
            ValueError: if it does not fit the network and the options of this stream, which then stays as it is.
        """
        own = self.state_dict()
        if own.keys() != state.keys():
            raise ValueError(
                f"the state of a stream has {', '.join(sorted(own))}; {', '.join(sorted(own.keys() ^ state.keys()))} "
                "is missing or too much: build the stream with the network and options it was saved with"
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
        if len(t) and float(t.min()) < self._now:
            raise DataError(
                f"t is {plain(float(t.min()) + offset)}, before the state, which has reached "
                f"{plain(self._now + offset)}: what came later is in memory already and cannot be taken out. Drop "
                "late events, or load a state from before them"
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


def _msg_channels(network: MemoryNetwork) -> int:
    """Return the width of the event features that a network was built for."""
    if network.memory is not None:
        return network.memory.msg_channels
    layers = getattr(network.embedding, "layers", None)
    if not layers:
        return 0
    if isinstance(layers[0], SumLayer):
        linear = layers[0].neighbor
        return linear.in_features - linear.out_features - network.time_encoder.dim
    return layers[0].msg_channels


def _copy_rows(target: Tensor, rows: Tensor) -> None:
    target[: len(rows)].copy_(rows) if rows.dim() else target.copy_(rows)
