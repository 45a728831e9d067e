"""Views of packed graphs: their sizes, that graphs stay apart, and what they leave as it is."""

import types

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch_geometric.data import Batch, Data
from torch_geometric.utils import subgraph

from graphseq.core import DataError
from graphseq.models import GraphEncoder
from graphseq.nn import DropEdges, DropNodes, GraphView, GrowSubgraph, MaskFeatures, RandomChoice

SIZES = [1, 5, 10, 7]


def batch():
    generator = torch.Generator().manual_seed(0)
    graphs = []
    for nodes in SIZES:
        half = torch.randint(0, nodes, (2, 2 * nodes), generator=generator)
        edges = torch.cat([half, half.flip(0)], 1)
        edge_attr = torch.rand(edges.shape[1], 2, generator=generator)
        graphs.append(Data(x=torch.rand(nodes, 3, generator=generator), edge_index=edges, edge_attr=edge_attr))
    return Batch.from_data_list(graphs)


def view():
    return GraphView.from_batch(GraphEncoder(3, 4, conv="gine", edge_channels=2), batch())


def check(made):
    assert int(made.ptr[-1]) == len(made.h) == len(made.batch)
    assert torch.equal(made.batch, torch.arange(len(SIZES)).repeat_interleave(made.ptr.diff()))
    assert torch.equal(made.batch[made.edge_index[0]], made.batch[made.edge_index[1]])
    assert made.edge.shape[0] == made.edge_index.shape[1]


@pytest.mark.parametrize(
    ("module", "sizes"),
    [(DropNodes(0.2), [1, 4, 8, 6]), (DropNodes(1.0), [1, 1, 1, 1]), (GrowSubgraph(0.8), [1, 4, 8, 6])],
)
def test_views_with_fewer_nodes(module, sizes):
    made = module(view(), torch.Generator().manual_seed(1))
    check(made)
    assert made.ptr.diff().tolist() == sizes


def test_nodes_keep_their_edges_and_features():
    whole = view()
    kept = torch.rand(len(whole.h), generator=torch.Generator().manual_seed(2)) < 0.6
    made = whole.with_nodes(kept)
    edges, edge = subgraph(kept, whole.edge_index, whole.edge, relabel_nodes=True)
    assert torch.equal(made.edge_index, edges)
    assert torch.equal(made.edge, edge)
    assert torch.equal(made.h, whole.h[kept])
    check(made)


def test_dropped_edges_and_masked_features():
    whole = view()
    made = DropEdges(0.5)(whole, torch.Generator().manual_seed(1))
    check(made)
    assert 0 < made.edge_index.shape[1] < whole.edge_index.shape[1]
    assert torch.equal(made.h, whole.h)
    made = MaskFeatures(0.2)(whole, torch.Generator().manual_seed(1))
    changed = (made.h != whole.h).any(1)
    assert [int(part.sum()) for part in changed.split(SIZES)] == [0, 1, 2, 1]
    assert not bool(made.h[changed].any())
    assert torch.equal(made.edge_index, whole.edge_index)


class Same(nn.Module):
    def forward(self, view, generator=None):
        return view


def test_a_choice_is_drawn_from_the_generator_that_is_given(monkeypatch):
    """On a GPU as well: evaluations draw from one with a fixed seed, and nothing from that of the training."""
    drawn, given = [], view()
    monkeypatch.setattr(torch, "randint", lambda *_, **options: drawn.append(options) or torch.tensor(0))
    there = types.SimpleNamespace(device=torch.device("cuda"))
    RandomChoice([Same(), Same()])(given, there)
    assert drawn == [{"device": there.device, "generator": there}]


def test_one_of_several_views_and_the_same_seed_twice():
    module = RandomChoice([DropNodes(0.2), DropEdges(0.2)])
    sizes = {len(module(view(), torch.Generator().manual_seed(seed)).h) for seed in range(10)}
    assert sizes == {sum(SIZES), 19}
    first, second = (DropNodes(0.5)(view(), torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first.h, second.h)


def test_layouts_of_batches():
    encoder, whole = GraphEncoder(3, 4), batch()
    expected = GraphView.from_batch(encoder, whole)
    for names in (("batch",), ("ptr",)):
        found = GraphView.from_batch(encoder, {name: whole[name] for name in ("x", "edge_index", *names)})
        assert torch.equal(found.batch, expected.batch)
        assert torch.equal(found.ptr, expected.ptr)
    with pytest.raises(DataError, match="sort the batch"):
        GraphView.from_batch(encoder, {"x": whole.x, "edge_index": whole.edge_index, "batch": whole.batch.flip(0)})
    with pytest.raises(DataError, match="edge_index"):
        GraphView.from_batch(encoder, {"x": whole.x})


def test_refusals():
    with pytest.raises(ValueError, match="share=1.2"):
        DropNodes(1.2)
    with pytest.raises(ValueError, match="num_hops=-1"):
        GrowSubgraph(0.5, num_hops=-1)
    with pytest.raises(ValueError, match="views is empty"):
        RandomChoice([])


READS = {torch.ops.aten.nonzero.default, torch.ops.aten._local_scalar_dense.default, torch.ops.aten.bincount.default}


class _Waits(TorchDispatchMode):
    """Counts what an accelerator would make the host wait for: sizes and values that are read, masks as indices."""

    def __init__(self, monkeypatch):
        super().__init__()
        self.count = 0
        tolist = torch.Tensor.tolist
        monkeypatch.setattr(torch.Tensor, "tolist", lambda tensor: (self.add(), tolist(tensor))[1])

    def add(self):
        self.count += 1

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        masks = func is torch.ops.aten.index.Tensor and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        if func in READS or masks:
            self.add()
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("module", "waits"), [(DropNodes(0.2), 1), (DropEdges(0.5), 1), (MaskFeatures(0.3), 0)])
def test_a_view_waits_once_for_an_accelerator(module, waits, monkeypatch):
    whole = view()
    with _Waits(monkeypatch) as seen:
        module(whole)
    assert seen.count == waits
    with seen:
        whole.h[whole.batch == 0]
    assert seen.count == waits + 1
