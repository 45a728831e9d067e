"""Transforms that are given whole batches do to them what they do to each graph; others are refused or run before."""

import copy

import pytest
import torch
import torch_geometric.transforms as T
from torch import nn
from torch_geometric.data import Batch, Data
from torch_geometric.transforms import BaseTransform

from graphseq.core import DataError
from graphseq.data import GraphDataModule, GraphStore
from graphseq.data.graphs.transforms import (
    SAFE,
    _description,
    check_batch_transform,
    pre_transformed,
    pre_transformed_graph,
)

ARGUMENTS = {
    T.AddRemainingSelfLoops: {"attr": "edge_attr"},
    T.AddSelfLoops: {"attr": "edge_attr"},
    T.RemoveSelfLoops: {"attr": "edge_attr"},
    T.AddRandomWalkPE: {"walk_length": 3},
    T.Cartesian: {"norm": False},
    T.Distance: {"norm": False},
    T.LinearTransformation: {"matrix": torch.tensor([[1.0, 2.0, 0.0], [0.0, 1.0, 3.0], [1.0, 0.0, 1.0]])},
    T.OneHotDegree: {"max_degree": 40},
    T.Polar: {"norm": False},
    T.RandomJitter: {"translate": 0.1},
    T.SIGN: {"K": 2},
    T.Spherical: {"norm": False},
    T.TargetIndegree: {"norm": False},
    T.ToDevice: {"device": "cpu"},
}
NORMED = [T.Cartesian(), T.Distance(), T.Polar(), T.Spherical(), T.TargetIndegree()]


def graphs(kind):
    draws = torch.Generator().manual_seed(0)
    made = []
    for position, n in enumerate((5, 7, 4, 6)):
        edges = torch.randint(0, n, (2, 3 * n), generator=draws)
        edges = torch.cat([edges, torch.tensor([[1, 2, 0], [1, 3, 2]])], 1)  # loops and repeated edges among them
        if kind is T.GCNNorm:
            edges = edges.unique(dim=1)
        pos = torch.rand(n, 2 if kind is T.Polar else 3, generator=draws) * (position + 1) + 10 * position
        fields = {"x": torch.rand(n, 3, generator=draws), "pos": pos, "y": torch.tensor([position % 2])}
        if kind in (T.FaceToEdge, T.GenerateMeshNormals):
            fields["face"] = torch.randint(0, n, (3, 4), generator=draws)
        if kind not in (T.GCNNorm, T.FaceToEdge):
            fields["edge_attr"] = torch.rand(edges.size(1), 2, generator=draws)
        made.append(Data(edge_index=edges, **fields))
    return made


def rows_of_edges(graph):
    """Edges with all that belongs to them, in an order of their own."""
    columns = [graph.edge_index.T.double()]
    columns += [
        graph[name].double().view(graph.num_edges, -1) for name in ("edge_attr", "edge_weight") if name in graph
    ]
    rows = torch.cat(columns, 1)
    return sorted(rows.mul(1e5).round().long().tolist())


def same(mine, theirs):
    if set(mine.keys()) != set(theirs.keys()):
        return False
    for key in theirs.keys():  # noqa: SIM118 - PyG data is no dict
        if key in ("edge_index", "edge_attr", "edge_weight"):
            continue
        if mine[key].shape != theirs[key].shape or not torch.allclose(
            mine[key].double(), theirs[key].double(), atol=1e-5
        ):
            return False
    return "edge_index" not in theirs or rows_of_edges(mine) == rows_of_edges(theirs)


def compared(transform):
    given = graphs(type(transform))
    one_by_one = Batch.from_data_list([transform(copy.deepcopy(graph)) for graph in given])
    return same(transform(Batch.from_data_list(given)), one_by_one)


@pytest.mark.parametrize("kind", SAFE, ids=lambda kind: kind.__name__)
def test_safe_transforms_do_the_same_to_a_batch(kind):
    transform = kind(**ARGUMENTS.get(kind, {}))
    assert check_batch_transform("train_transform", transform)
    if kind is T.RandomJitter:  # the same in distribution: every node of every graph has its own draw
        batch = Batch.from_data_list(graphs(kind))
        moved = transform(batch).pos - batch.pos
        assert len(moved.mul(1e6).round().unique(dim=0)) == batch.num_nodes
        assert 0 < float(moved.abs().max()) <= 0.1 + 1e-5
    else:
        assert compared(transform)


@pytest.mark.parametrize("transform", NORMED, ids=lambda transform: type(transform).__name__)
def test_transforms_that_norm_by_the_largest_value_are_refused_with_reason(transform):
    assert not compared(transform)
    with pytest.raises(ValueError, match=rf"train_transform .*{type(transform).__name__} .*norm=True"):
        check_batch_transform("train_transform", transform)


class OwnCenter(T.Center):
    pass


class OwnTransform(BaseTransform):
    def forward(self, data):
        data.x = data.x * 2
        return data


@pytest.mark.parametrize(
    "transform",
    [
        T.VirtualNode(),
        T.Center(),
        T.NormalizeScale(),
        T.NormalizeFeatures(),
        T.AddLaplacianEigenvectorPE(k=2),
        T.RandomLinkSplit(),
        T.KNNGraph(k=2),
        T.RadiusGraph(r=1.0),
        T.RandomRotate(degrees=90),
        T.LargestConnectedComponents(),
        T.RemoveIsolatedNodes(),
        T.ToDense(),
        OwnCenter(),
        T.Compose([T.ToUndirected(), T.Compose([T.Center()])]),
        T.ComposeFilters([T.Center()]),
    ],
    ids=lambda transform: type(transform).__name__,
)
@pytest.mark.parametrize("argument", ["train_transform", "eval_transform"])
def test_transforms_of_one_graph_are_refused_by_name(transform, argument):
    with pytest.raises(ValueError, match=rf"{argument} .*pre_transform"):
        GraphDataModule(graphs(None), **{argument: transform})


def module(**options):
    return GraphDataModule(graphs(None) * 5, split="stratified", batch_size=4, **options)


@pytest.mark.parametrize("transform", [OwnTransform(), T.Compose([T.ToUndirected(), T.AddSelfLoops()]), nn.Identity()])
def test_transforms_that_keep_graphs_apart_are_taken(transform):
    data = module(train_transform=transform, eval_transform=transform)
    for stage in ("train", "val"):
        batch = next(data.batches(stage))
        assert batch.num_nodes == int(batch.ptr[-1])


def joins_all(batch):
    batch = copy.copy(batch)
    batch.edge_index = torch.cat([batch.edge_index, torch.tensor([[0], [batch.num_nodes - 1]])], 1)
    return batch


def adds_a_node(batch):
    batch = copy.copy(batch)
    batch.x = torch.cat([batch.x, batch.x[:1]])
    return batch


def drops_a_graph(batch):
    return Batch.from_data_list(batch.to_data_list()[1:])


def forgets_graphs(batch):
    batch = copy.copy(batch)
    batch.batch = batch.batch * 0
    return batch


@pytest.mark.parametrize("transform", [joins_all, adds_a_node, drops_a_graph, forgets_graphs])
def test_own_transforms_that_mix_graphs_are_found_at_the_first_batch(transform):
    with pytest.raises(DataError, match=rf"train_transform {transform.__name__}"):
        next(module(train_transform=transform).batches("train"))
    with pytest.raises(DataError, match=rf"eval_transform {transform.__name__}"):
        next(module(eval_transform=transform).batches("val"))


def test_pre_transform_is_applied_to_each_graph():
    data = module(pre_transform=T.Compose([T.VirtualNode(), T.Center()]))
    batch = next(data.batches("train"))
    assert batch.num_nodes == int(batch.ptr[-1])
    owner = batch.batch[batch.edge_index]
    assert torch.equal(owner[0], owner[1])
    assert [graph.num_nodes for graph in data.graphs] == [6, 8, 5, 7] * 5
    assert all(float(graph.pos.mean(0).abs().max()) < 1e-5 for graph in batch.to_data_list())
    assert data.num_features == 3
    with pytest.raises(DataError, match="pre_transform .*tuple.*graph 0"):
        module(pre_transform=lambda graph: (graph, graph)).load()
    with pytest.raises(TypeError, match="pre_transform"):
        module(pre_transform="Center")


def test_random_pre_transforms_follow_the_seed_and_leave_the_generators_alone():
    first, again, other = (module(pre_transform=T.RandomRotate(180), seed=seed) for seed in (1, 1, 2))
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(first.graphs.field("pos"), again.graphs.field("pos"))
    assert not torch.equal(first.graphs.field("pos"), other.graphs.field("pos"))
    assert torch.equal(torch.rand(1), expected)


def test_pre_transformed_graphs_are_kept_in_the_cache(own_cache):
    store = GraphStore.from_dataset(graphs(None))
    calls = []

    class Counted(T.Center):
        def forward(self, data):
            calls.append(1)
            return super().forward(data)

    Counted.__module__ = T.Center.__module__
    for _ in range(2):
        made = pre_transformed(store, Counted(), 0, "own")
        assert float(made[2].pos.mean(0).abs().max()) < 1e-5
    assert len(calls) == 4
    pre_transformed(store, Counted(), 1, "own")
    assert len(calls) == 8
    pre_transformed(GraphStore.from_dataset(graphs(None)[:3]), Counted(), 0, "own")
    assert len(calls) == 11
    assert len(list(own_cache.rglob("own-transformed-*.pt"))) == 3
    pre_transformed(store, lambda graph: graph, 0, "own")
    assert len(list(own_cache.rglob("own-transformed-*.pt"))) == 3


def test_transforms_are_described_by_their_arguments():
    assert _description(T.Constant(1.0)) == _description(T.Constant(1.0)) != _description(T.Constant(2.0))
    assert _description(T.Compose([T.Center(), T.Constant()])) != _description(T.Compose([T.Constant(), T.Center()]))
    assert _description(T.LinearTransformation(torch.eye(3))) is None
    assert _description(T.Compose([T.Center(), lambda graph: graph])) is None
    assert _description(OwnTransform()) is None


def test_one_transformed_graph_is_kept(tmp_path, monkeypatch):
    """By graph, transform and seed; not without a name, nor where more than tensors is held."""
    monkeypatch.setenv("GRAPHSEQ_CACHE", str(tmp_path))
    calls, forward = [], T.SVDFeatureReduction.forward
    monkeypatch.setattr(T.SVDFeatureReduction, "forward", lambda self, data: (calls.append(1), forward(self, data))[1])
    graph = Data(x=torch.rand(6, 4, generator=torch.Generator().manual_seed(0)), edge_index=torch.tensor([[0], [1]]))
    reduce = T.SVDFeatureReduction(2)
    made = pre_transformed_graph(graph, reduce, 0, "own")
    assert graph.x.shape == (6, 4)
    assert torch.equal(made.x, forward(reduce, graph.clone()).x)
    calls.clear()
    again = pre_transformed_graph(graph, reduce, 0, "own")
    assert not calls
    assert again.keys() == made.keys()
    assert all(torch.equal(again[name], made[name]) for name in made.keys())  # noqa: SIM118 (Data is no mapping)
    pre_transformed_graph(graph, T.SVDFeatureReduction(3), 0, "own")
    pre_transformed_graph(graph, reduce, 1, "own")
    pre_transformed_graph(Data(x=graph.x + 1, edge_index=graph.edge_index), reduce, 0, "own")
    pre_transformed_graph(graph, reduce, 0, None)
    assert len(calls) == 4
    named = Data(x=graph.x, edge_index=graph.edge_index, words=["a"])
    for _ in range(2):
        assert pre_transformed_graph(named, reduce, 0, "own").words == ["a"]
    assert len(calls) == 6
    added = T.Compose([reduce, T.Constant()])
    assert pre_transformed_graph(graph, added, 0, "own").x.shape == (6, 3)
