"""TGN put together from the modules and hooks of the library TGM (``pip install tgm-lib``), to be timed beside ours."""

import importlib
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphseq.data import TemporalEvents

__all__ = ["TGMNetwork"]


class TGMNetwork(nn.Module):
    """TGN of TGM: its memory, attention, decoder, loader, negatives and buffer of recent neighbours.

    Args:
        events: the stream.
        stop: number of its events that are trained on.
        batch_size: events of a batch.
        dim: size of a memory, of an encoded time and of an embedding.
        num_neighbors: size of the buffer.

    Raises:
        ImportError: if the library cannot be imported.
    """

    def __init__(self, events: TemporalEvents, stop: int, batch_size: int, dim: int, num_neighbors: int) -> None:
        super().__init__()
        for room in ("constants", "core", "data", "hooks", "nn.encoder.tgn", "nn.decoder.linkproppred"):
            importlib.import_module(f"tgm.{room}")
        library: Any = importlib.import_module("tgm")
        tgn, channels, nodes = library.nn.encoder.tgn, events.num_edge_features, events.num_nodes
        message = tgn.IdentityMessage(channels, dim, dim)
        self.memory = tgn.TGNMemory(nodes, channels, dim, dim, message, tgn.LastAggregator())
        self.attention = tgn.GraphAttentionEmbedding(dim, dim, channels, self.memory.time_enc)
        self.decoder = library.nn.decoder.linkproppred.LinkPredictor(dim, hidden_dim=dim)
        part = slice(0, stop)
        stream = library.data.DGData.from_raw(
            edge_time=events.t[part],
            edge_index=torch.stack([events.src[part], events.dst[part]], dim=1).int(),
            edge_x=events.msg[part],
            time_delta="s",
        )
        self._hooks = library.hooks.HookManager(keys=["train"])
        low, high = int(events.dst[part].min()), int(events.dst[part].max())
        self.history = library.hooks.RecencyNeighborHook(
            num_nodes=nodes,
            num_nbrs=[num_neighbors],
            seed_nodes_keys=["edge_src", "edge_dst", "neg"],
            seed_times_keys=["edge_time", "edge_time", "neg_time"],
        )
        negatives = library.hooks.NegativeEdgeSamplerHook(low=low, high=max(high, low + 1))
        for hook in (negatives, self.history, library.hooks.DeduplicationHook()):
            self._hooks.register("train", hook)
        self._absent = library.constants.PADDED_NODE_ID
        graph = library.core.DGraph(stream)
        self._loader = library.data.DGDataLoader(graph, batch_size=batch_size, hook_manager=self._hooks)

    def logits(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Return the logits of events and of their negatives."""
        near = batch.nbr_nids[0]
        asked = torch.cat([batch.edge_src, batch.edge_dst, batch.neg]).unsqueeze(1).expand_as(near).flatten()
        there = near.flatten() != self._absent
        place = batch.global_to_local
        edges = torch.stack([place(near.flatten()[there]), place(asked[there])]).long()
        z, last_update = self.memory(batch.unique_nids)
        h = self.attention(
            z, last_update, edges, batch.nbr_edge_time[0].flatten()[there], batch.nbr_edge_x[0].flatten(0, 1)[there]
        )
        source = h[place(batch.edge_src)]
        happened = self.decoder(source, h[place(batch.edge_dst)])
        return cast(Tensor, happened), cast(Tensor, self.decoder(source, h[place(batch.neg)]))

    def train_epoch(self, optimizer: torch.optim.Optimizer) -> Iterator[None]:
        """Train on the stream once, one batch for each item that is taken."""
        self.memory.reset_state()
        self.history.reset_state()
        with self._hooks.activate("train"):
            for batch in self._loader:
                optimizer.zero_grad()
                happened, drawn = self.logits(batch)
                loss = functional.binary_cross_entropy_with_logits(happened, torch.ones_like(happened))
                loss = loss + functional.binary_cross_entropy_with_logits(drawn, torch.zeros_like(drawn))
                self.memory.update_state(batch.edge_src, batch.edge_dst, batch.edge_time, batch.edge_x)
                loss.backward()
                optimizer.step()
                self.memory.detach()
                yield
