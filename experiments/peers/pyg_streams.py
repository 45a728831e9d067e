"""Memory networks put together from PyG's modules in the order of its TGN example, to be timed beside ours."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer
from torch_geometric.data import TemporalData
from torch_geometric.nn import TransformerConv
from torch_geometric.nn.models.tgn import IdentityMessage, LastAggregator, LastNeighborLoader, TGNMemory

from graphseq.bench import train_steps
from graphseq.core import EventBatch
from graphseq.data import TemporalEvents
from graphseq.models import MemoryNetwork

__all__ = ["PyGJODIE", "PyGMemory", "PyGTGN", "link_loss", "pyg_batch", "pyg_events"]


class PyGMemory(nn.Module):
    """PyG's ``TGNMemory`` with identity messages and the last of them, and what its example does around a batch.

    ``dim`` is the size of a memory, of an encoded time and of an embedding; features have at least one channel.
    """

    def __init__(self, num_nodes: int, msg_channels: int, dim: int) -> None:
        super().__init__()
        message = IdentityMessage(msg_channels, dim, dim)
        self.memory = TGNMemory(num_nodes, msg_channels, dim, dim, message, LastAggregator())
        # score of a pair: a hidden layer on each end, their sum, a second layer
        self.source, self.destination, self.out = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, 1)
        self.register_buffer("place", torch.empty(num_nodes, dtype=torch.int64), persistent=False)

    def reset_state(self) -> None:
        """Forget all events."""
        self.memory.reset_state()

    def embed(self, batch: TemporalData, events: TemporalData) -> Sequence[Tensor]:
        """Return source, destination and negative of each event, (B, D); ``events`` are those of neighbours."""
        raise NotImplementedError(f"{type(self).__name__} scores nothing; PyGTGN and PyGJODIE do")

    def logits(self, batch: TemporalData, events: TemporalData) -> Tensor:
        """Return the logits of events and of their negatives, (2 B, 1)."""
        source, *others = self.embed(batch, events)
        hidden = [(self.source(source) + self.destination(other)).relu() for other in others]
        return torch.cat([self.out(pair) for pair in hidden])

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

    def train_epoch(self, batches: Iterable[TemporalData], events: TemporalData, optimizer: Optimizer) -> Iterator[Any]:
        """Train as the example does: score, write, differentiate, step; one batch for each item that is taken."""

        def loss_of(batch: TemporalData) -> Tensor:
            loss = link_loss(*self.logits(batch, events).chunk(2))
            self.observe(batch)
            return loss

        self.reset_state()
        yield from train_steps(batches, loss_of, optimizer, after=self.memory.detach)

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

    ``num_neighbors`` is the size of PyG's ``LastNeighborLoader``, which stays on ``device``; ``dropout`` is that of
    attention weights, in [0, 1); ``dim`` is even.
    """

    def __init__(
        self, num_nodes: int, msg_channels: int, dim: int, num_neighbors: int, dropout: float, device: str = "cpu"
    ) -> None:
        super().__init__(num_nodes, msg_channels, dim)
        self.conv = TransformerConv(dim, dim // 2, heads=2, dropout=dropout, edge_dim=msg_channels + dim)
        self.neighbors: Any = LastNeighborLoader(num_nodes, num_neighbors, device=device)

    def reset_state(self) -> None:
        """Forget all events, neighbours too."""
        super().reset_state()
        self.neighbors.reset_state()

    def embed(self, batch: TemporalData, events: TemporalData) -> Sequence[Tensor]:
        """Return source, destination and negative of each event; see the base."""
        nodes, edges, e_id = self.neighbors(batch.n_id)
        self.place[nodes] = torch.arange(len(nodes), device=nodes.device)
        z, last_update = self.memory(nodes)
        gaps = (last_update[edges[0]] - events.t[e_id]).to(z.dtype)
        features = torch.cat([self.memory.time_enc(gaps), events.msg[e_id]], dim=-1)
        h = self.conv(z, edges, features)
        return [h[self.place[nodes]] for nodes in (batch.src, batch.dst, batch.neg_dst)]

    def observe(self, batch: TemporalData) -> None:
        """Write memories, messages and neighbours; see the base."""
        super().observe(batch)
        self.neighbors.insert(batch.src, batch.dst)

    @torch.no_grad()
    def copy_to(self, ours: MemoryNetwork) -> None:
        """Give our network, whose embedding is ``TransformerEmbedding``, the weights of this one; see the base."""
        super().copy_to(ours)
        layer, dim = cast(Any, ours.embedding).layers[0], self.memory.time_dim
        for name in ("query", "value", "skip"):
            getattr(layer, name).load_state_dict(getattr(self.conv, f"lin_{name}").state_dict())
        layer.key.weight.copy_(self.conv.lin_key.weight)
        columns = self.conv.lin_edge.weight  # here times come before features
        layer.edge.weight.copy_(torch.cat([columns[:, dim:], columns[:, :dim]], dim=1))


class PyGJODIE(PyGMemory):
    """PyG's memory with the time projection of JODIE in place of neighbours.

    ``statistics`` are the mean and standard deviation of the gaps of sources, then of destinations.
    """

    def __init__(self, num_nodes: int, msg_channels: int, dim: int, statistics: list[float]) -> None:
        super().__init__(num_nodes, msg_channels, dim)
        self.drift, self.statistics = nn.Linear(1, dim), statistics

    def embed(self, batch: TemporalData, events: TemporalData) -> Sequence[Tensor]:
        """Return source, destination and negative of each event; see the base."""
        self.place[batch.n_id] = torch.arange(len(batch.n_id), device=batch.n_id.device)
        z, last_update = self.memory(batch.n_id)

        def projected(nodes: Tensor, mean: float, deviation: float) -> Tensor:
            rows = self.place[nodes]
            gap = ((batch.t - last_update[rows]).to(z.dtype) - mean) / deviation
            return cast(Tensor, z[rows] * (1 + self.drift(gap.unsqueeze(1))))

        sources, destinations = self.statistics[:2], self.statistics[2:]
        return [projected(batch.src, *sources), *(projected(to, *destinations) for to in (batch.dst, batch.neg_dst))]

    @torch.no_grad()
    def copy_to(self, ours: MemoryNetwork) -> None:
        """Give our network, whose embedding is ``TimeProjectionEmbedding``, the weights; see the base."""
        super().copy_to(ours)
        embedding = cast(Any, ours.embedding)
        embedding.weight.copy_(self.drift.weight[:, 0])
        embedding.bias.copy_(self.drift.bias)


def link_loss(happened: Tensor, drawn: Tensor) -> Tensor:
    """Return the loss of PyG's and TGM's examples: of the logits of events, and of negatives."""
    loss = functional.binary_cross_entropy_with_logits(happened, torch.ones_like(happened))
    return loss + functional.binary_cross_entropy_with_logits(drawn, torch.zeros_like(drawn))


def pyg_events(events: TemporalEvents, stop: int) -> TemporalData:
    """Return the first events of a stream as PyG holds them."""
    return TemporalData(**{name: getattr(events, name)[:stop] for name in ("src", "dst", "t", "msg")})


def pyg_batch(batch: EventBatch) -> TemporalData:
    """Return a batch of ours, one negative an event, as PyG's ``TemporalDataLoader`` would have made it."""
    negative = cast(Tensor, batch.neg_dst)[:, 0]
    nodes = torch.cat([batch.src, batch.dst, negative]).unique()
    return TemporalData(src=batch.src, dst=batch.dst, t=batch.t, msg=batch.msg, neg_dst=negative, n_id=nodes)
