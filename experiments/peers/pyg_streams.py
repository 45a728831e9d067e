"""Memory networks put together from PyG's modules in the order of its TGN example, to be timed beside ours."""

from collections.abc import Iterable, Iterator
from typing import Any, Self, cast

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


class PyGMemory(nn.Module):
    """PyG's ``TGNMemory`` with identity messages and the last of them, and what its example does around a batch.

    Args:
        num_nodes: number of nodes.
        msg_channels: width of the event features; PyG's memory needs at least 1.
        dim: size of a memory, of an encoded time and of an embedding.
    """

    place: Tensor

    def __init__(self, num_nodes: int, msg_channels: int, dim: int) -> None:
        super().__init__()
        message = IdentityMessage(msg_channels, dim, dim)
        self.memory = TGNMemory(num_nodes, msg_channels, dim, dim, message, LastAggregator())
        # score of a pair: a hidden layer on each end, their sum, a second layer
        self.source, self.destination, self.out = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, 1)
        self.register_buffer("place", torch.empty(num_nodes, dtype=torch.int64), persistent=False)

    def on(self, device: str) -> Self:
        """Move weights and state to a device."""
        return self.to(device)

    def reset_state(self) -> None:
        """Forget all events."""
        self.memory.reset_state()

    def score(self, source: Tensor, destination: Tensor) -> Tensor:
        """Return the logit of each pair, (B, 1)."""
        return cast(Tensor, self.out((self.source(source) + self.destination(destination)).relu()))

    def logits(self, batch: TemporalData, events: TemporalData) -> Tensor:
        """Return the logits of events and of their negatives, (2 B, 1); ``events`` are those of neighbours."""
        raise NotImplementedError(f"{type(self).__name__} scores nothing; PyGTGN and PyGJODIE do")

    def observe(self, batch: TemporalData) -> None:
        """Write memories and messages of the events of a batch."""
        self.memory.update_state(batch.src, batch.dst, batch.t, batch.msg)

    @torch.no_grad()
    def pass_through(self, batches: Iterable[TemporalData]) -> Iterator[None]:
        """Read the memories of all roots and write those of the events: the memory path alone, without gradient."""
        self.reset_state()
        for batch in batches:
            self.memory(batch.n_id)
            self.observe(batch)
            yield

    def train_epoch(
        self, batches: Iterable[TemporalData], events: TemporalData, optimizer: torch.optim.Optimizer
    ) -> Iterator[None]:
        """Train as the example does: score, write, differentiate, step; one batch for each item that is taken."""
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

    @torch.no_grad()
    def copy_to(self, ours: MemoryNetwork) -> None:
        """Give our network, with a GRU updater and embeddings of the same kind and sizes, the weights of this one."""
        encoder, memory, decoder = ours.time_encoder, cast(Any, ours.memory), cast(Any, ours.decoder)
        encoder.weight.copy_(self.memory.time_enc.lin.weight[:, 0])
        encoder.bias.copy_(self.memory.time_enc.lin.bias)
        memory.cell.load_state_dict(self.memory.gru.state_dict())
        decoder.source.load_state_dict(self.source.state_dict())
        decoder.source.bias.add_(self.destination.bias)  # ours has one bias for the sum
        decoder.destination.weight.copy_(self.destination.weight)
        decoder.out.load_state_dict(self.out.state_dict())


class PyGTGN(PyGMemory):
    """TGN of PyG's example: memory, ``TransformerConv`` over the last neighbours, link predictor.

    Args:
        num_nodes: number of nodes.
        msg_channels: width of the event features, at least 1.
        dim: size of a memory, of an encoded time and of an embedding; even.
        num_neighbors: size of PyG's ``LastNeighborLoader``.
        dropout: dropout probability of attention weights, in [0, 1).
    """

    def __init__(
        self, num_nodes: int, msg_channels: int, dim: int, num_neighbors: int = 10, dropout: float = 0.1
    ) -> None:
        super().__init__(num_nodes, msg_channels, dim)
        self.conv = TransformerConv(dim, dim // 2, heads=2, dropout=dropout, edge_dim=msg_channels + dim)
        self.neighbors: Any = LastNeighborLoader(num_nodes, num_neighbors)

    def on(self, device: str) -> Self:
        """Move weights, state and neighbours, which are no buffers, to a device."""
        self.neighbors = LastNeighborLoader(len(self.place), self.neighbors.size, device=device)
        return super().on(device)

    def reset_state(self) -> None:
        """Forget all events, neighbours too."""
        super().reset_state()
        self.neighbors.reset_state()

    def logits(self, batch: TemporalData, events: TemporalData) -> Tensor:
        """Return the logits of events and of their negatives; see the base."""
        nodes, edges, e_id = self.neighbors(batch.n_id)
        self.place[nodes] = torch.arange(len(nodes), device=nodes.device)
        z, last_update = self.memory(nodes)
        gaps = (last_update[edges[0]] - events.t[e_id]).to(z.dtype)
        features = torch.cat([self.memory.time_enc(gaps), events.msg[e_id]], dim=-1)
        h = self.conv(z, edges, features)
        source = h[self.place[batch.src]]
        happened = self.score(source, h[self.place[batch.dst]])
        return torch.cat([happened, self.score(source, h[self.place[batch.neg_dst]])])

    def observe(self, batch: TemporalData) -> None:
        """Write memories, messages and neighbours; see the base."""
        super().observe(batch)
        self.neighbors.insert(batch.src, batch.dst)

    @torch.no_grad()
    def copy_to(self, ours: MemoryNetwork) -> None:
        """Give our network, whose embedding is ``TransformerEmbedding``, the weights of this one; see the base."""
        super().copy_to(ours)
        layer, dim = cast(Any, ours.embedding).layers[0], self.memory.time_dim
        for name, peer in (
            ("query", self.conv.lin_query),
            ("value", self.conv.lin_value),
            ("skip", self.conv.lin_skip),
        ):
            getattr(layer, name).load_state_dict(peer.state_dict())
        layer.key.weight.copy_(self.conv.lin_key.weight)
        columns = self.conv.lin_edge.weight  # here times come before features
        layer.edge.weight.copy_(torch.cat([columns[:, dim:], columns[:, :dim]], dim=1))


class PyGJODIE(PyGMemory):
    """PyG's memory with the time projection of JODIE in place of neighbours.

    Args:
        num_nodes: number of nodes.
        msg_channels: width of the event features, at least 1.
        dim: size of a memory, of an encoded time and of an embedding.
        statistics: mean and standard deviation of the gaps of sources, then of destinations.
    """

    def __init__(self, num_nodes: int, msg_channels: int, dim: int, statistics: list[float]) -> None:
        super().__init__(num_nodes, msg_channels, dim)
        self.drift, self.statistics = nn.Linear(1, dim), statistics

    def logits(self, batch: TemporalData, events: TemporalData) -> Tensor:
        """Return the logits of events and of their negatives; see the base."""
        self.place[batch.n_id] = torch.arange(len(batch.n_id), device=batch.n_id.device)
        z, last_update = self.memory(batch.n_id)

        def projected(nodes: Tensor, mean: float, deviation: float) -> Tensor:
            rows = self.place[nodes]
            gap = ((batch.t - last_update[rows]).to(z.dtype) - mean) / deviation
            return cast(Tensor, z[rows] * (1 + self.drift(gap.unsqueeze(1))))

        source = projected(batch.src, *self.statistics[:2])
        return torch.cat([self.score(source, projected(to, *self.statistics[2:])) for to in (batch.dst, batch.neg_dst)])

    @torch.no_grad()
    def copy_to(self, ours: MemoryNetwork) -> None:
        """Give our network, whose embedding is ``TimeProjectionEmbedding``, the weights; see the base."""
        super().copy_to(ours)
        embedding = cast(Any, ours.embedding)
        embedding.weight.copy_(self.drift.weight[:, 0])
        embedding.bias.copy_(self.drift.bias)


def pyg_events(events: TemporalEvents, stop: int) -> TemporalData:
    """Return the first events of a stream as PyG holds them."""
    columns = {"src": events.src, "dst": events.dst, "t": events.t, "msg": events.msg}
    return TemporalData(**{name: column[:stop] for name, column in columns.items()})


def pyg_batch(batch: EventBatch) -> TemporalData:
    """Return a batch of ours, one negative an event, as PyG's ``TemporalDataLoader`` would have made it."""
    negative = cast(Tensor, batch.neg_dst)[:, 0]
    nodes = torch.cat([batch.src, batch.dst, negative]).unique()
    return TemporalData(src=batch.src, dst=batch.dst, t=batch.t, msg=batch.msg, neg_dst=negative, n_id=nodes)


def pyg_loader(events: TemporalData, batch_size: int) -> TemporalDataLoader:
    """Return PyG's loader with one random negative an event."""
    return TemporalDataLoader(events, batch_size=batch_size, neg_sampling_ratio=1.0)
