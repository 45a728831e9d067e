"""Whether ours and PyG's example give the same wherever their rules are the same."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, cast

import torch
from torch import Tensor, nn

from experiments.peers.pyg_streams import PyGMemory, PyGTGN, pyg_batch, pyg_events
from graphseq.bench import OutputsDiffer
from graphseq.core import EventBatch, EventHistory
from graphseq.data import TemporalAdjacency, TemporalDataModule
from graphseq.models import MemoryNetwork

__all__ = ["ComparableNodes", "require_equal"]

_TOLERANCE = 1e-7
# Nodes without messages have a gradient in PyG's; and one bias of ours is the sum of two there.
_OTHER_GRADIENTS = ("memory.cell.bias_ih", "memory.cell.bias_hh", "decoder.source.bias")


def require_equal(peer: PyGMemory, ours: MemoryNetwork, data: TemporalDataModule, num_batches: int = 10) -> int:
    """Stop unless both give the same outputs and gradients where they must; return how many outputs were compared.

    Both, of the same kind and sizes, score the first batches of an epoch of a bipartite stream with one negative an
    event: from the same weights, in float64 and training mode with dropout 0, without a step between. Of a
    :class:`PyGMemory` itself memories are compared, of the others logits. Neighbours are exact on both sides. A node
    without messages keeps its zero memory on both: PyG's ``LastAggregator``, which without torch-scatter gives it the
    message of another node, is replaced, and biases that act on it are zero.
    """
    peer, ours = peer.double(), ours.double()
    peer.memory.aggr_module = _LastMessage()
    with torch.no_grad():  # with these at zero PyG too leaves the zero memory of a node without messages alone
        for bias in (peer.memory.gru.bias_ih, peer.memory.gru.bias_hh):
            bias[2 * peer.memory.memory_dim :] = 0
    peer.copy_to(ours)
    stream, msg = data.events, data.events.msg.double()
    history = TemporalAdjacency(stream.src, stream.dst, stream.t, msg, stream.num_nodes)
    events = pyg_events(stream, len(stream))
    events.msg = msg
    neighbors = peer.neighbors.size if isinstance(peer, PyGTGN) else 0
    if neighbors:
        peer.neighbors = _ExactNeighbors(history, neighbors)
        cast(Any, ours.embedding).layers[0].dropout = 0.0
    peer.reset_state()
    ours.reset_state()
    shadows = copy.deepcopy(peer), copy.deepcopy(ours)
    nodes, compared, worst = ComparableNodes(), 0, 0.0
    for batch in islice(data.loader("train"), num_batches):
        batch = replace(batch, msg=batch.msg.double(), history=history)
        logits, update = ours.forward_with_update(batch)
        if type(peer) is PyGMemory:
            asked, order = update.plan.nodes.sort()
            found, expected = update.memory.index_select(0, order), peer.memory(asked)[0]
            same = torch.tensor([nodes.same(node) for node in asked.tolist()])
        else:
            found, expected = logits.t().flatten(), peer.logits(pyg_batch(batch), events)[:, 0]
            same = _same_pairs(batch, history, neighbors, nodes)
        if bool(same.any()):
            found, expected = found[same], expected[same]
            compared += len(found)
            worst = max(worst, float((found - expected).detach().abs().max()))
            for network, output in ((ours, found), (peer, expected)):
                network.zero_grad()
                output.square().mean().backward(retain_graph=True)
            worst = max(worst, _gradient_difference(peer, ours, *shadows))
        ours.commit(update)
        peer.observe(pyg_batch(batch))
        peer.memory.detach()
        nodes.observe(batch.src.tolist(), batch.dst.tolist(), batch.t.tolist())
    if not compared or not worst <= _TOLERANCE:
        raise OutputsDiffer(f"{compared} outputs were compared, they or their gradients differ from PyG's by {worst}")
    return compared


def _same_pairs(batch: EventBatch, history: EventHistory, num_neighbors: int, nodes: "ComparableNodes") -> Tensor:
    """Return which logits must be the same, those of the events first: (2 B,)."""
    ends = torch.stack([batch.src, batch.dst, cast(Tensor, batch.neg_dst)[:, 0]])
    same = torch.tensor([nodes.same(node) for node in ends.flatten().tolist()])
    if num_neighbors:
        near = history.recent(ends.flatten(), batch.start, num_neighbors).node.tolist()
        same &= torch.tensor([all(nodes.same(node) for node in row) for row in near])
    source, destination, drawn = same.view_as(ends)
    return torch.cat([source & destination, source & drawn])


@torch.no_grad()
def _gradient_difference(peer: PyGMemory, ours: MemoryNetwork, peer_shadow: Any, our_shadow: Any) -> float:
    """Return by how much gradients differ: the peer's take the way of its weights into a copy of ours."""
    for shadow, weight in zip(peer_shadow.parameters(), peer.parameters(), strict=True):
        shadow.copy_(torch.zeros_like(weight) if weight.grad is None else weight.grad)
    peer_shadow.copy_to(our_shadow)
    expected = dict(our_shadow.named_parameters())
    return max(
        float((weight.grad - expected[name]).abs().max())
        for name, weight in ours.named_parameters()
        if weight.grad is not None and weight.numel() and name not in _OTHER_GRADIENTS
    )


class _LastMessage(nn.Module):
    """The latest message of each node, zeros for a node without any."""

    def forward(self, msg: Tensor, index: Tensor, t: Tensor, dim_size: int) -> Tensor:
        latest = t.new_full((dim_size,), -1).scatter_reduce_(0, index, t, "amax")
        chosen = (t == latest[index]).nonzero().squeeze(1)
        return msg.new_zeros(dim_size, msg.size(1)).index_copy(0, index[chosen], msg[chosen])


class _ExactNeighbors:
    """Our exact history behind the interface of PyG's ``LastNeighborLoader``, which loses events in large batches."""

    def __init__(self, history: EventHistory, size: int) -> None:
        self.history, self.size, self.start = history, size, 0

    def __call__(self, n_id: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return nodes, edges from neighbours to the asked nodes, and positions of their events."""
        found = self.history.recent(n_id, self.start, self.size)
        neighbors, asked = found.node[found.mask], n_id.unsqueeze(1).expand_as(found.node)[found.mask]
        nodes = torch.cat([n_id, neighbors]).unique()
        edges = torch.stack([torch.searchsorted(nodes, neighbors), torch.searchsorted(nodes, asked)])
        return nodes, edges, found.e_id[found.mask]

    def insert(self, src: Tensor, dst: Tensor) -> None:
        self.start += len(src)

    def reset_state(self) -> None:
        self.start = 0


class ComparableNodes:
    """Nodes of a bipartite stream whose memories must be the same in PyG's example and in ours.

    The two differ by rule where a waiting message is read after its sender's memory was written again (PyG takes the
    sender's memory of then, ours that of the time of the event) and where two last events of a node have equal times
    (PyG takes any, ours the later one). This keeps track of who is touched by either, directly or by a message.
    """

    def __init__(self) -> None:
        self._number = 0
        self._touched: set[int] = set()
        self._mail: dict[int, tuple[int, int, bool]] = {}  # node -> sender, batch, touched
        self._written: dict[int, int] = {}

    def same(self, node: int) -> bool:
        """Return whether the memory of a node, its messages applied, must be the same now."""
        sender, batch, touched = self._mail.get(node, (node, self._number, False))
        return node not in self._touched and not touched and self._written.get(sender, -1) <= batch

    def observe(self, src: Sequence[int], dst: Sequence[int], t: Sequence[float]) -> None:
        """Write the sources, destinations and times of a batch."""
        now = {node: self.same(node) for node in (*src, *dst)}
        last: dict[int, tuple[int, float, bool]] = {}  # node -> sender, time, whether the time occurred before
        for source, destination, time in zip(src, dst, t, strict=True):
            for node, other in ((source, destination), (destination, source)):
                last[node] = (other, time, node in last and last[node][1] == time)
        for node, same in now.items():
            if not same:
                self._touched.add(node)
            sender, _, tied = last[node]
            self._mail[node] = (sender, self._number, tied or not now[sender])
            self._written[node] = self._number
        self._number += 1
