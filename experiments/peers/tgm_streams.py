"""TGN put together from the modules and hooks of the library TGM (``pip install tgm-lib``), to be timed beside ours."""

import importlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from experiments.peers.pyg_streams import link_loss
from graphseq.bench import train_steps
from graphseq.data import TemporalEvents

__all__ = ["TGMNetwork"]


class TGMNetwork(nn.Module):
    """TGN of TGM: its memory, attention, decoder, loader, negatives and buffer of recent neighbours.

    It trains on the first ``stop`` events; ``dim`` is the size of a memory, of an encoded time and of an embedding,
    ``num_neighbors`` that of the buffer. ``ImportError`` says that the library is not there.
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
        ends = torch.stack([events.src[part], events.dst[part]], dim=1).int()
        columns = {"edge_time": events.t[part], "edge_index": ends, "edge_x": events.msg[part]}
        stream = library.data.DGData.from_raw(**columns, time_delta="s")
        self._hooks = library.hooks.HookManager(keys=["train"])
        low, high = int(events.dst[part].min()), int(events.dst[part].max())
        keys, times = ["edge_src", "edge_dst", "neg"], ["edge_time", "edge_time", "neg_time"]
        self.history = library.hooks.RecencyNeighborHook(
            num_nodes=nodes, num_nbrs=[num_neighbors], seed_nodes_keys=keys, seed_times_keys=times
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
        times, features = batch.nbr_edge_time[0].flatten()[there], batch.nbr_edge_x[0].flatten(0, 1)[there]
        h = self.attention(z, last_update, edges, times, features)
        source = h[place(batch.edge_src)]
        return self.decoder(source, h[place(batch.edge_dst)]), self.decoder(source, h[place(batch.neg)])

    def train_epoch(self, optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
        """Train on the stream once, one batch for each item that is taken."""

        def loss_of(batch: Any) -> Tensor:
            loss = link_loss(*self.logits(batch))
            self.memory.update_state(batch.edge_src, batch.edge_dst, batch.edge_time, batch.edge_x)
            return loss

        self.memory.reset_state()
        self.history.reset_state()
        with self._hooks.activate("train"):
            yield from train_steps(self._loader, loss_of, optimizer, after=self.memory.detach)
