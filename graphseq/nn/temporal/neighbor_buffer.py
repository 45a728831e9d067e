"""Buffer of the most recent events of each node, for streams that arrive while a model runs."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from graphseq.core import Elastic, Neighbors, Recorded
from graphseq.ops.lookup import zero_absent

__all__ = ["RecentNeighborBuffer"]


class RecentNeighborBuffer(Recorded, Elastic):
    r"""The last ``size`` events of each node, exact for batches of any size.

    Row v is a ring buffer: the n-th event of node v (from 0) is in slot

    .. math:: n \bmod \text{size}

    Events of a call that later ones of the same call would overwrite are dropped before writing, so that every slot is
    written once and the order of writing does not matter. A self-loop is one event. If the whole stream is known, its
    index (``graphseq.data.TemporalAdjacency``) gives the same results and needs no state.

    PyG 2.8.1's ``LastNeighborLoader`` does not keep the most recent events if a node has more than
    ``size`` of them in one batch: it sorts unstably and writes slots more than once.

    Args:
        num_nodes: number of nodes N; :meth:`resize` adds more.
        size: number of events stored for each node.
        msg_channels: width D of the features kept of each event. With 0, the features given to :meth:`insert` are
            dropped.
        time_dtype: type of the times. They are kept as 64 bits whatever precision the module is converted to.

    Shape:
        buffers ``node``, ``e_id`` (position, -1 for none), ``t`` (N, size), ``msg`` (N, size, D), ``count`` (N,) and
        ``next_e_id`` ()

    Raises:
        ValueError: if ``num_nodes`` or ``msg_channels`` is negative, or ``size`` is below 1.

    Example:
        >>> buffer = RecentNeighborBuffer(num_nodes=4, size=2)
        >>> buffer.insert(torch.tensor([0, 1, 2]), torch.tensor([3, 3, 3]), torch.tensor([0, 5, 9]))
        >>> buffer.recent(torch.tensor([3, 0]), cut=3, k=2).node
        tensor([[2, 1],
                [3, 0]])
    """

    node: Tensor
    e_id: Tensor
    t: Tensor
    msg: Tensor
    count: Tensor
    next_e_id: Tensor

    def __init__(
        self,
        num_nodes: int,
        size: int,
        msg_channels: int = 0,
        time_dtype: Literal["int64", "float64"] = "int64",
    ) -> None:
        super().__init__()
        if num_nodes < 0 or size < 1 or msg_channels < 0:
            raise ValueError(
                f"num_nodes is {num_nodes}, size {size}, msg_channels {msg_channels}; they must be at least 0, 1 and 0"
            )
        if time_dtype not in ("int64", "float64"):
            raise ValueError(f"time_dtype is {time_dtype!r}; it is 'int64' or 'float64'")
        self.size = size
        self.msg_channels = msg_channels
        self.time_dtype = torch.int64 if time_dtype == "int64" else torch.float64
        self.register_buffer("node", torch.zeros(num_nodes, size, dtype=torch.int64))
        self.register_buffer("e_id", torch.full((num_nodes, size), -1))
        # the bits of the times: as float64 they would follow the module to half precision
        self.register_buffer("t", torch.zeros(num_nodes, size, dtype=torch.int64))
        self.register_buffer("msg", torch.zeros(num_nodes, size, msg_channels))
        self.register_buffer("count", torch.zeros(num_nodes, dtype=torch.int64))
        self.register_buffer("next_e_id", torch.zeros((), dtype=torch.int64))
        # time of the last event inserted, as far as it is known; the buffers tell it where they were loaded
        self._latest: Tensor | None = None

    @property
    def num_nodes(self) -> int:
        """Number of nodes."""
        return len(self.count)

    def extra_repr(self) -> str:
        """Return the sizes."""
        return f"num_nodes={self.num_nodes}, size={self.size}, msg_channels={self.msg_channels}"

    def reset_state(self) -> None:
        """Remove all events."""
        for name, buffer in self.named_buffers():
            buffer.fill_(-1 if name == "e_id" else 0)
        self._latest = None

    def resize(self, num_nodes: int) -> None:
        """Allocate more nodes and keep the events of the others.

        Args:
            num_nodes: new number of nodes, at least the current one.

        Raises:
            ValueError: if ``num_nodes`` is smaller.
        """
        more = num_nodes - self.num_nodes
        if more < 0:
            raise ValueError(f"num_nodes is {num_nodes}; there are {self.num_nodes} nodes already, and none is dropped")
        for name in ("node", "e_id", "t", "msg", "count"):
            old = getattr(self, name)
            fresh = old.new_full((more, *old.shape[1:]), -1 if name == "e_id" else 0)
            setattr(self, name, torch.cat([old, fresh]))

    @torch.no_grad()
    def insert(
        self, src: Tensor, dst: Tensor, t: Tensor, msg: Tensor | None = None, e_id: Tensor | None = None
    ) -> None:
        """Add events that follow those already inserted.

        Ids are checked before writing, which synchronises with the device once; selecting the events to write is a
        second synchronisation. Values of times are checked on a CPU only, elsewhere just their type.

        Args:
            src: source node of each event, int64.
            dst: destination node of each event, int64.
            t: time of each event, non-decreasing, not before the times inserted earlier; integers, or also float64 with
                ``time_dtype="float64"``.
            msg: features of each event; required if ``msg_channels`` is not 0.
            e_id: position of each event in the stream, increasing; None for those that follow the last one.

        Shape:
            src, dst, t, e_id (B,), msg (B, D)

        Raises:
            IndexError: if a node id is negative or not below ``num_nodes``.
            ValueError: if shapes or types do not fit, positions do not increase, or times are not finite or go back.
        """
        self._check_columns(src, dst, t, msg, e_id)
        num_events = len(src)
        if not num_events:
            return
        position = torch.arange(num_events, device=src.device)
        self._check_ids(src, dst, e_id)
        if t.device.type == "cpu":
            self._check_times(t)
        if e_id is None:
            e_id = position + self.next_e_id
        # The second copy of a self-loop goes to a node after the last one, and with it out of sight.
        owner = torch.cat([src, torch.where(src == dst, self.num_nodes, dst)])
        order = (owner * num_events + position.repeat(2)).argsort()
        owner = owner.index_select(0, order)
        begin = torch.searchsorted(owner, owner)
        end = torch.searchsorted(owner, owner, right=True)
        rank = torch.arange(2 * num_events, device=src.device)
        written = ((end - rank <= self.size) & (owner < self.num_nodes)).nonzero().view(-1)

        owner, order, begin, end = (column.index_select(0, written) for column in (owner, order, begin, end))
        before = self.count.index_select(0, owner)
        slot = owner * self.size + (before + written - begin) % self.size
        event = order % num_events
        self.node.view(-1).index_copy_(0, slot, torch.cat([dst, src]).index_select(0, order))
        self.e_id.view(-1).index_copy_(0, slot, e_id.index_select(0, event))
        self.t.view(-1).index_copy_(0, slot, self._to_bits(t).index_select(0, event))
        if self.msg_channels and msg is not None:
            self.msg.view(-1, self.msg_channels).index_copy_(0, slot, msg.index_select(0, event).to(self.msg.dtype))
        self.count[owner] = before + end - begin  # the same number from every event of a node
        self.next_e_id.copy_(e_id[-1] + 1)
        self._latest = t[-1:].to(self.time_dtype, copy=True) if t.device.type == "cpu" else None

    def recent(self, nodes: Tensor, cut: int | Tensor, k: int) -> Neighbors:
        """Return the ``k`` latest events of each node among those at positions below ``cut``, newest first.

        Overwritten events are lost: if ``cut`` excludes inserted events, fewer than ``k`` may be left of the ``size``
        stored ones. With a ``cut`` at or above all positions inserted the answer is exact.

        Args:
            nodes: queried nodes, int64.
            cut: position in the stream below which events count; one for all nodes, or one for each.
            k: number of neighbours, from 1 to ``size``.

        Shape:
            nodes (Q,), cut (Q,) -> each field (Q, k)

        Raises:
            IndexError: if a node id is out of range; on an accelerator the failure is the device's own.
            ValueError: if ``k`` is not from 1 to ``size``, or ``cut`` has another shape than ``nodes``.
        """
        if not 1 <= k <= self.size:
            raise ValueError(f"k is {k}; the buffer keeps {self.size} events of each node, so it is 1 to {self.size}")
        if nodes.device.type == "cpu":
            self._check_range(nodes)
        if isinstance(cut, Tensor) and cut.shape != nodes.shape:
            raise ValueError(
                f"cut has shape {tuple(cut.shape)}, nodes {tuple(nodes.shape)}; give one position, or one each"
            )
        bound = cut.unsqueeze(1) if isinstance(cut, Tensor) else cut
        # (Q, 1): events that were inserted, less those that are too new; the ring is read backwards from there
        newer = (self.e_id.index_select(0, nodes) >= bound).sum(1, keepdim=True)
        last = self.count.index_select(0, nodes).unsqueeze(1) - newer - 1
        nodes = nodes.unsqueeze(1)
        slot = (last - torch.arange(k, device=nodes.device)) % self.size + nodes * self.size
        flat = slot.view(-1)
        e_id = self.e_id.view(-1).index_select(0, flat).view(slot.shape)
        # unwritten slots hold -1; what is reached by going round the ring is too new
        mask = (e_id >= 0) & (e_id < bound)
        absent = ~mask
        return Neighbors(
            node=torch.where(mask, self.node.view(-1).index_select(0, flat).view(slot.shape), nodes),
            t=self.t.view(-1).index_select(0, flat).view(slot.shape).masked_fill_(absent, 0).view(self.time_dtype),
            msg=self._features(flat, mask),
            mask=mask,
            e_id=e_id.masked_fill_(absent, -1),
        )

    def _features(self, flat: Tensor, mask: Tensor) -> Tensor:
        if not self.msg_channels:
            return self.msg.new_zeros(*mask.shape, 0)
        msg = self.msg.view(-1, self.msg_channels).index_select(0, flat).view(*mask.shape, -1)
        return zero_absent(msg, mask)

    def _to_bits(self, t: Tensor) -> Tensor:
        return t.to(self.time_dtype).view(torch.int64)

    def _check_columns(self, src: Tensor, dst: Tensor, t: Tensor, msg: Tensor | None, e_id: Tensor | None) -> None:
        columns = {"src": src, "dst": dst, "t": t} | ({} if e_id is None else {"e_id": e_id})
        if src.dim() != 1 or any(column.shape != src.shape for column in columns.values()):
            shapes = {name: tuple(column.shape) for name, column in columns.items()}
            raise ValueError(f"columns have shapes {shapes}; give one number for each event in all of them")
        if src.dtype != torch.int64 or dst.dtype != torch.int64:
            raise ValueError(f"src and dst are {src.dtype} and {dst.dtype}; node ids are int64")
        if t.dtype == torch.bool or t.is_complex():
            raise ValueError(f"t is {t.dtype}; times are integers, or float64 with time_dtype='float64'")
        if t.is_floating_point() and self.time_dtype == torch.int64:
            raise ValueError(f"t is {t.dtype}, but the buffer keeps int64; build it with time_dtype='float64'")
        if t.is_floating_point() and t.dtype != torch.float64:
            raise ValueError(
                f"t is {t.dtype}, which cannot resolve Unix times within a minute; read times as integers or "
                "float64, do not convert them back"
            )
        wanted = (len(src), self.msg_channels)
        if self.msg_channels and (msg is None or msg.shape != wanted):
            given = "missing" if msg is None else f"of shape {tuple(msg.shape)}"
            raise ValueError(f"msg is {given}; with msg_channels={self.msg_channels} it has shape {wanted}")

    def _check_ids(self, src: Tensor, dst: Tensor, e_id: Tensor | None) -> None:
        low, high = torch.stack([src, dst]).aminmax()
        facts = [low, high]
        if e_id is not None:
            facts += [self.next_e_id, e_id[0], (e_id.diff() > 0).all().long()]
        read = torch.stack(facts).tolist()
        self._refuse_range(read[0], read[1])
        if e_id is not None and (read[3] < read[2] or not read[4]):
            raise ValueError(
                f"e_id starts at {read[3]} and {'increases' if read[4] else 'does not increase'}; positions must "
                f"increase from {read[2]} on: insert each event once, in the order of the stream, or reset_state()"
            )

    def _check_times(self, t: Tensor) -> None:
        if t.is_floating_point() and not bool(torch.isfinite(t).all()):
            at = int((~torch.isfinite(t)).nonzero()[0])
            raise ValueError(f"t of event {at} is {float(t[at])}; every event needs a time")
        if self._latest is None:
            written = self.t[self.e_id >= 0].view(self.time_dtype)
            self._latest = written.max().view(1) if len(written) else None
        steps = torch.cat([t[:1] if self._latest is None else self._latest, t]).diff()
        if bool((steps < 0).any()):
            at = int((steps < 0).nonzero()[0])
            before = self._latest if at == 0 and self._latest is not None else t[at - 1 : at]
            raise ValueError(
                f"t of event {at} is {t[at].item()}, that of the event before is {before.item()}; insert events in the "
                "order of time, or call reset_state() to start again"
            )

    def _check_range(self, nodes: Tensor) -> None:
        if nodes.numel():
            low, high = nodes.aminmax()
            self._refuse_range(int(low), int(high))

    def _refuse_range(self, low: int, high: int) -> None:
        if low < 0 or high >= self.num_nodes:
            raise IndexError(
                f"node ids run from {low} to {high}; the buffer has {self.num_nodes} nodes, ids from 0: "
                "resize(num_nodes) makes room for more"
            )

    def make_room(self, saved: Mapping[str, Tensor]) -> None:
        """Allocate the number of nodes of a saved state, which may be larger than that of the constructor.

        Args:
            saved: tensors of a saved state by name.
        """
        count = saved.get("count")
        if count is not None and count.dim() == 1 and len(count) > self.num_nodes:
            self.resize(len(count))
        self._latest = None
