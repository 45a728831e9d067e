"""Surroundings of nodes against PyG's own, one by one; size limits; the data module."""

import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.utils import k_hop_subgraph

from graphseq.core import DataError
from graphseq.data import NodeDataModule, NodeSubgraphDataModule, induced_subgraphs
from graphseq.data.nodes import subgraphs as module

NODES = 40


def edges(directed=False, seed=0):
    half = torch.randint(0, NODES - 2, (2, 60), generator=torch.Generator().manual_seed(seed))  # two nodes are alone
    return half if directed else torch.cat([half, half.flip(0)], 1)


@pytest.mark.parametrize("hops", [0, 1, 2, 3])
@pytest.mark.parametrize("directed", [False, True])
@pytest.mark.parametrize("together", [1_000, 20_000_000])
def test_equal_to_pyg(hops, directed, together, monkeypatch):
    monkeypatch.setattr(module, "_PAIRS", together)
    edge_index = edges(directed)
    centers = torch.tensor([5, 0, NODES - 1, 17, 5])
    found = induced_subgraphs(edge_index, NODES, centers, hops)
    for place, center in enumerate(centers.tolist()):
        node, sub, own, mask = k_hop_subgraph(center, hops, edge_index, relabel_nodes=True, num_nodes=NODES)
        rows = slice(int(found.ptr[place]), int(found.ptr[place + 1]))
        columns = slice(int(found.edge_ptr[place]), int(found.edge_ptr[place + 1]))
        assert torch.equal(found.node[rows], node)
        assert int(found.center[place]) == int(own)
        order = found.edge[columns].argsort()
        assert torch.equal(found.edge[columns][order], mask.nonzero().flatten())
        assert torch.equal(found.edge_index[:, columns][:, order], sub)


def test_size_limit_keeps_the_center_and_the_nearest():
    edge_index, centers = edges(), torch.arange(NODES)
    whole = induced_subgraphs(edge_index, NODES, centers, 3)
    found = induced_subgraphs(edge_index, NODES, centers, 3, max_nodes=6, seed=1)
    assert torch.equal(found.ptr.diff(), whole.ptr.diff().clamp(max=6))
    for center in range(NODES):
        rows = set(found.node[found.ptr[center] : found.ptr[center + 1]].tolist())
        assert int(found.node[found.ptr[center] + found.center[center]]) == center
        for hop in range(3):
            near = set(k_hop_subgraph(center, hop, edge_index, num_nodes=NODES)[0].tolist())
            assert near <= rows if len(near) <= 6 else len(near & rows) == 6 or not rows <= near
    other = induced_subgraphs(edge_index, NODES, centers, 3, max_nodes=6, seed=2)
    assert not torch.equal(found.node, other.node)


def source(**options):
    generator = torch.Generator().manual_seed(0)
    graph = Data(x=torch.rand(NODES, 3, generator=generator), edge_index=edges(), y=torch.arange(NODES) % 2)
    graph.edge_weight = torch.rand(graph.edge_index.shape[1], generator=generator)
    return NodeDataModule(graph, split="stratified", **options)


def test_data_module():
    nodes = source()
    data = NodeSubgraphDataModule(nodes, num_hops=2, batch_size=8)
    for stage in ("train", "val", "test"):
        batch = data.graphs.take(data.splits[stage])
        centers = batch.n_id[batch.center_index]
        assert sorted(centers.tolist()) == nodes.graph[f"{stage}_mask"].nonzero().flatten().tolist()
        assert torch.equal(batch.y, nodes.graph.y[centers])
        assert torch.equal(batch.x, nodes.graph.x[batch.n_id])
        assert torch.equal(batch.batch[batch.center_index], torch.arange(batch.num_graphs))
        ends = {tuple(pair) for pair in nodes.graph.edge_index.T.tolist()}
        assert {tuple(pair) for pair in batch.n_id[batch.edge_index].T.tolist()} <= ends
    first = data.graphs[0]
    weight = {tuple(pair): [] for pair in nodes.graph.edge_index.T.tolist()}
    for pair, value in zip(nodes.graph.edge_index.T.tolist(), nodes.graph.edge_weight.tolist(), strict=True):
        weight[tuple(pair)].append(value)
    for pair, value in zip(first.n_id[first.edge_index].T.tolist(), first.edge_weight.tolist(), strict=True):
        assert value in weight[tuple(pair)]
    assert (data.num_features, data.num_outputs) == (3, 2)
    few = NodeSubgraphDataModule(source(), shots_per_class=3, min_nodes=2)
    assert few.graphs.take(few.splits["train"]).y.bincount().tolist() == [3, 3]
    assert all(int(few.graphs.num_nodes[part].min()) >= 2 for part in few.splits.values())


def test_refusals():
    with pytest.raises(ValueError, match="num_hops is -1"):
        NodeSubgraphDataModule(source(), num_hops=-1)
    with pytest.raises(ValueError, match="max_nodes is 2, below min_nodes=3"):
        NodeSubgraphDataModule(source(), max_nodes=2, min_nodes=3)
    with pytest.raises(DataError, match="min_nodes=1000"):
        NodeSubgraphDataModule(source(), min_nodes=1000).load()
    with pytest.raises(ValueError, match="centers ranges from 40"):
        induced_subgraphs(edges(), NODES, torch.tensor([40]), 1)
    with pytest.raises(ValueError, match="max_nodes is 0"):
        induced_subgraphs(edges(), NODES, torch.tensor([4]), 1, max_nodes=0)
