"""Memory networks put together from PyG's modules in the order of its TGN example, to be timed beside ours."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch_geometric.data import TemporalData
from torch_geometric.loader import TemporalDataLoader
from torch_geometric.nn import TransformerConv
from torch_geometric.nn.models.tgn import IdentityMessage, LastAggregator, LastNeighborLoader, TGNMemory

from graphseq.core import EventBatch
from graphseq.data import TemporalEvents
from graphseq.models import MemoryNetwork

__all__ = ["PyGJODIE", "PyGMemory", "PyGTGN", "pyg_batch", "pyg_events", "pyg_loader"]


class _LinkPredictor(nn.Module):
    """Score of a pair: a hidden layer on each end, their sum, a second layer."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.source, self.destination = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.out = nn.Linear(channels, 1)

    def forward(self, source: Tensor, destination: Tensor) -> Tensor:
        return cast(Tensor, self.out((self.source(source) + self.destination(destination)).relu()))


class PyGMemory(nn.Module):
    """PyG's ``TGNMemory`` with identity messages and the last of them, and what its example does around a batch.

    Args:
        num_nodes: number of nodes.
        msg_channels: width of the event features; PyG's memory needs at least 1.
        dim: size of a memory, of an encoded time and of an embedding.

    Example:
        >>> PyGMemory(num_nodes=5, msg_channels=1, dim=8).memory(torch.tensor([3]))[0].shape
        torch.Size([1, 8])
    """

    place: Tensor

    def __init__(self, num_nodes: int, msg_channels: int, dim: int) -> None:
        super().__init__()
        self.memory = TGNMemory(
            num_nodes, msg_channels, dim, dim, IdentityMessage(msg_channels, dim, dim), LastAggregator()
        )
        self.decoder = _LinkPredictor(dim)
        self.register_buffer("place", torch.empty(num_nodes, dtype=torch.int64), persistent=False)

    def reset_state(self) -> None:
        """Forget all events."""
        self.memory.reset_state()

    def logits(self, batch: TemporalData, events: TemporalData) -> Tensor:
        """Return the logits of events and of their negatives, (2 B, 1).

        Args:
            batch: of PyG's ``TemporalDataLoader``, with negatives.
            events: the whole stream, for times and features of neighbours' events.
        """
        raise NotImplementedError(f"{type(self).__name__} scores nothing; PyGTGN and PyGJODIE do")

    def observe(self, batch: TemporalData) -> None:
        """Write memories and messages of the events of a batch.

        Args:
            batch: see :meth:`logits`.
        """
        self.memory.update_state(batch.src, batch.dst, batch.t, batch.msg)

    @torch.no_grad()
    def pass_through(self, batches: Iterable[TemporalData]) -> Iterator[None]:
        """Read the memories of all roots and write those of the events: the memory path alone, without gradient.

        Args:
            batches: see :meth:`logits`; one is worked on for each item that is taken.
        """
        self.reset_state()
        for batch in batches:
            self.memory(batch.n_id)
            self.memory.update_state(batch.src, batch.dst, batch.t, batch.msg)
            yield

    def train_epoch(
        self, batches: Iterable[TemporalData], events: TemporalData, optimizer: torch.optim.Optimizer
    ) -> Iterator[None]:
        """Train on the batches as the example does: score, write, differentiate, step.

        Args:
            batches: see :meth:`logits`; one is worked on for each item that is taken.
            events: see :meth:`logits`.
            optimizer: of the parameters.
        """
        self.reset_state()
        for batch in batches:
            optimizer.zero_grad()
            happened, drawn = self.logits(batch, events).chunk(2)
            loss = functional.binary_cross_entropy_with_logits(happened, torch.ones_like(happened))
            loss = loss + functional.binary_cross_entropy_with_logits(drawn, torch.zeros_like(drawn))
            self.observe(batch)
            loss.backward()
            optimizer.step()
            self.memory.detach()
            yield

    def copy_to(self, ours: MemoryNetwork) -> None:
        """Give our network the weights of this one.

        Args:
            ours: with a GRU updater and embeddings of the same kind and sizes.
        """
        encoder, memory, decoder = ours.time_encoder, cast(Any, ours.memory), cast(Any, ours.decoder)
        with torch.no_grad():
            encoder.weight.copy_(self.memory.time_enc.lin.weight[:, 0])
            encoder.bias.copy_(self.memory.time_enc.lin.bias)
            memory.cell.load_state_dict(self.memory.gru.state_dict())
            decoder.source.load_state_dict(self.decoder.source.state_dict())
            decoder.source.bias.add_(self.decoder.destination.bias)  # ours has one bias for the sum
            decoder.destination.weight.copy_(self.decoder.destination.weight)
            decoder.out.load_state_dict(self.decoder.out.state_dict())


class PyGTGN(PyGMemory):
    """TGN of PyG's example: memory, ``TransformerConv`` over the last neighbours, link predictor.

    Args:
        num_nodes: number of nodes.
        msg_channels: width of the event features, at least 1.
        dim: size of a memory, of an encoded time and of an embedding; even.
        num_neighbors: size of PyG's ``LastNeighborLoader``.
        dropout: of attention weights, in [0, 1).

    Example:
        >>> PyGTGN(num_nodes=5, msg_channels=1, dim=8).conv.heads
        2
    """

    def __init__(
        self, num_nodes: int, msg_channels: int, dim: int, num_neighbors: int = 10, dropout: float = 0.1
    ) -> None:
        super().__init__(num_nodes, msg_channels, dim)
        self.conv = TransformerConv(dim, dim // 2, heads=2, dropout=dropout, edge_dim=msg_channels + dim)
        self.neighbors: Any = LastNeighborLoader(num_nodes, num_neighbors)

    def reset_state(self) -> None:
        """Forget all events, neighbours too."""
        super().reset_state()
        self.neighbors.reset_state()

    def logits(self, batch: TemporalData, events: TemporalData) -> Tensor:
        """Return the logits of events and of their negatives; see the base."""
        nodes, edges, e_id = self.neighbors(batch.n_id)
        self.place[nodes] = torch.arange(len(nodes))
        z, last_update = self.memory(nodes)
        gaps = (last_update[edges[0]] - events.t[e_id]).to(z.dtype)
        features = torch.cat([self.memory.time_enc(gaps), events.msg[e_id]], dim=-1)
        h = self.conv(z, edges, features)
        source = h[self.place[batch.src]]
        happened = self.decoder(source, h[self.place[batch.dst]])
        return torch.cat([happened, self.decoder(source, h[self.place[batch.neg_dst]])])

    def observe(self, batch: TemporalData) -> None:
        """Write memories, messages and neighbours; see the base."""
        super().observe(batch)
        self.neighbors.insert(batch.src, batch.dst)

    def copy_to(self, ours: MemoryNetwork) -> None:
        """Give our network, whose embedding is ``TransformerEmbedding``, the weights of this one; see the base."""
        super().copy_to(ours)
        layer, dim = cast(Any, ours.embedding).layers[0], self.memory.time_dim
        with torch.no_grad():
            for name, peer in (("query", "lin_query"), ("value", "lin_value"), ("skip", "lin_skip")):
                getattr(layer, name).load_state_dict(getattr(self.conv, peer).state_dict())
            layer.key.weight.copy_(self.conv.lin_key.weight)
            columns = self.conv.lin_edge.weight  # here times come before features
            layer.edge.weight.copy_(torch.cat([columns[:, dim:], columns[:, :dim]], dim=1))


class PyGJODIE(PyGMemory):
    """PyG's memory with the time projection of JODIE in place of neighbours.

    Args:
        num_nodes: number of nodes.
        msg_channels: width of the event features, at least 1.
        dim: size of a memory, of an encoded time and of an embedding.
        time_statistics: mean and deviation of the gaps of sources, then of destinations.

    Example:
        >>> PyGJODIE(5, 1, 8, [0.0, 1.0, 0.0, 1.0]).drift.weight.shape
        torch.Size([8, 1])
    """

    def __init__(self, num_nodes: int, msg_channels: int, dim: int, time_statistics: Sequence[float]) -> None:
        super().__init__(num_nodes, msg_channels, dim)
        self.drift = nn.Linear(1, dim)
        self.statistics = [float(value) for value in time_statistics]

    def logits(self, batch: TemporalData, events: TemporalData) -> Tensor:
        """Return the logits of events and of their negatives; see the base."""
        self.place[batch.n_id] = torch.arange(len(batch.n_id))
        z, last_update = self.memory(batch.n_id)
        mean_source, source_deviation, mean_destination, deviation = self.statistics
        source = self._project(z, last_update, batch.src, batch.t, mean_source, source_deviation)
        there = self._project(z, last_update, batch.dst, batch.t, mean_destination, deviation)
        elsewhere = self._project(z, last_update, batch.neg_dst, batch.t, mean_destination, deviation)
        return torch.cat([self.decoder(source, there), self.decoder(source, elsewhere)])

    def _project(
        self, z: Tensor, last_update: Tensor, nodes: Tensor, t: Tensor, mean: float, deviation: float
    ) -> Tensor:
        rows = self.place[nodes]
        gap = ((t - last_update[rows]).to(z.dtype) - mean) / deviation
        return cast(Tensor, z[rows] * (1 + self.drift(gap.unsqueeze(1))))

    def copy_to(self, ours: MemoryNetwork) -> None:
        """Give our network, whose embedding is ``TimeProjectionEmbedding``, the weights; see the base."""
        super().copy_to(ours)
        embedding = cast(Any, ours.embedding)
        with torch.no_grad():
            embedding.weight.copy_(self.drift.weight[:, 0])
            embedding.bias.copy_(self.drift.bias)


def pyg_events(events: TemporalEvents, stop: int) -> TemporalData:
    """Return the first events of a stream as PyG holds them.

    Args:
        events: the stream.
        stop: how many.

    Example:
        >>> one = torch.ones(3, dtype=torch.int64)
        >>> pyg_events(TemporalEvents(one, one, one), 2).num_events
        2
    """
    part = slice(0, stop)
    return TemporalData(src=events.src[part], dst=events.dst[part], t=events.t[part], msg=events.msg[part])


def pyg_batch(batch: EventBatch) -> TemporalData:
    """Return a batch of ours, one negative an event, as PyG's ``TemporalDataLoader`` would have made it.

    Args:
        batch: the events.

    Example:
        >>> one = torch.tensor([1])
        >>> batch = EventBatch(one, one + 1, one, torch.zeros(1, 1), one, start=1, neg_dst=one[None] + 2)
        >>> pyg_batch(batch).n_id
        tensor([1, 2, 3])
    """
    negative = cast(Tensor, batch.neg_dst)[:, 0]
    nodes = torch.cat([batch.src, batch.dst, negative]).unique()
    return TemporalData(src=batch.src, dst=batch.dst, t=batch.t, msg=batch.msg, neg_dst=negative, n_id=nodes)


def pyg_loader(events: TemporalData, batch_size: int) -> TemporalDataLoader:
    """Return PyG's loader with one random negative an event.

    Args:
        events: of the training split.
        batch_size: events of a batch.

    Example:
        >>> one = torch.ones(3, dtype=torch.int64)
        >>> len(pyg_loader(pyg_events(TemporalEvents(one, one, one), 3), 2))
        2
    """
    return TemporalDataLoader(events, batch_size=batch_size, neg_sampling_ratio=1.0)
