"""Small networks that remember, streams with everything that can go wrong in them, and their twins in plain Python."""

from dataclasses import dataclass, field
from typing import Any

import torch

from graphseq.core import EventBatch
from graphseq.data import TemporalAdjacency
from graphseq.models import JODIE, TGAT, TGN, DyRep
from graphseq.nn import IdentityEmbedding, TemporalSumEmbedding, TransformerEmbedding
from tests.reference import tgn_memory as reference

NODES, WIDTH, MSG, TIME, NEAR = 14, 6, 3, 4, 3
STATISTICS = [3.0, 5.0, 2.0, 4.0]


@dataclass
class Stream:
    """Columns of a stream; batches come with two negatives each."""

    src: torch.Tensor
    dst: torch.Tensor
    t: torch.Tensor
    msg: torch.Tensor
    neg_dst: torch.Tensor | None
    neg_src: torch.Tensor | None = None
    event_type: torch.Tensor | None = None
    num_nodes: int = NODES
    history: TemporalAdjacency = field(init=False)

    def __post_init__(self):
        self.history = TemporalAdjacency(self.src, self.dst, self.t, self.msg, self.num_nodes)

    def batch(self, start, end, cut=None):
        part = slice(start, end)
        columns = {
            name: None if getattr(self, name) is None else getattr(self, name)[part]
            for name in ("src", "dst", "t", "msg", "neg_dst", "neg_src", "event_type")
        }
        position = torch.arange(start, min(end, len(self.src)))
        if cut == "time":
            cut = torch.searchsorted(self.t, self.t[part])
        return EventBatch(**columns, e_id=position, start=start, history=self.history, cut=cut)

    def batches(self, size):
        return [self.batch(start, start + size) for start in range(0, len(self.src), size)]

    def rows(self):
        columns = (self.src.tolist(), self.dst.tolist(), self.t.tolist(), self.msg.double())
        return list(zip(*columns, strict=True))


def stream(seed=0, num_events=100, own_sources=False, float_time=False):
    """Nodes in both roles; repeated events, equal times and self-loops among them; the last two nodes never act."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape, high=NODES - 2):
        return torch.randint(0, high, shape, generator=generator)

    src, dst = draw(num_events), draw(num_events)
    dst[::9] = src[::9]  # self-loops
    src[5::10], dst[5::10] = src[4::10], dst[4::10]  # the same event again
    src[6::10], dst[6::10] = dst[4::10], src[4::10]  # and with its ends exchanged
    t = draw(num_events, high=4).clamp(min=1).sub(1).cumsum(0)  # about half of them equal
    return Stream(
        src,
        dst,
        t.double() / 3 if float_time else t,
        torch.randn(num_events, MSG, generator=generator),
        draw(num_events, 2, high=NODES),
        draw(num_events, 2, high=NODES) if own_sources else None,
        draw(num_events, high=3),
    )


# what the twin of each network is
NETWORKS: dict[str, dict[str, Any]] = {
    "TGN": {"kind": "attention", "k": NEAR},
    "TGN mean": {"kind": "attention", "k": NEAR, "mean": True},
    "TGN 2 layers": {"kind": "attention", "k": NEAR, "layers": 2},
    "TGN transformer": {"kind": "transformer", "k": NEAR, "relative": "update"},
    "TGN sum": {"kind": "sum", "k": NEAR},
    "TGN sum 2 layers": {"kind": "sum", "k": NEAR, "layers": 2},
    "TGN identity": {"kind": "identity"},
    "JODIE": {"kind": "projection"},
    "DyRep": {"kind": "attention", "k": NEAR, "dyrep": True},
    "TGAT": {"kind": "attention", "k": NEAR, "layers": 2},
}
WITH_MEMORY = [name for name in NETWORKS if name != "TGAT"]


def make(name, *, nodes=NODES, width=WIDTH, msg=MSG, time=TIME, near=NEAR, statistics=STATISTICS, **more):
    """One of the networks as it starts out."""
    sizes = {"num_nodes": nodes, "edge_channels": msg, "time_dim": time, **more}
    if name == "TGAT":
        return TGAT(embedding_dim=width, num_neighbors=near, **sizes)
    sizes["memory_dim"] = width
    if name == "JODIE":
        return JODIE(time_statistics=statistics, **sizes)
    if name == "DyRep":
        return DyRep(num_neighbors=near, **sizes)
    embedding = {
        "TGN transformer": lambda: TransformerEmbedding(width, 8, msg, time, near),
        "TGN sum": lambda: TemporalSumEmbedding(width, 8, msg, time, near),
        "TGN sum 2 layers": lambda: TemporalSumEmbedding(width, width, msg, time, near, 2),
        "TGN identity": lambda: IdentityEmbedding(width),
    }
    if name in embedding:
        return TGN(embedding=embedding[name](), **sizes)
    layers = 2 if name == "TGN 2 layers" else 1
    return TGN(
        embedding_dim=8 if layers == 1 else width,
        num_layers=layers,
        num_neighbors=near,
        aggregation="mean" if name == "TGN mean" else "last",
        **sizes,
    )


def build(name, **more):
    """A network in float64 whose parameters, biases too, are all far from zero."""
    network = make(name, **more).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.4)
    return network


def twin(name):
    network = reference.Network(NODES, None if name == "TGAT" else WIDTH, **NETWORKS[name])
    network.width, network.statistics = WIDTH, STATISTICS
    return network


def weights(network):
    """Parameters by name, as leaves of their own; a shared one under each of its names."""
    own = {id(value): value.detach().clone().requires_grad_() for value in network.parameters()}
    return {name: own[id(value)] for name, value in network.named_parameters(remove_duplicate=False)}


def roll(network, batches):
    """Logits of the batches, committing each."""
    logits = []
    for batch in batches:
        score, update = network.forward_with_update(batch)
        network.commit(update)
        logits.append(score)
    return logits
