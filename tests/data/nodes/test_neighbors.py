"""PyG's samplers over our node data: seeds with all their neighbours get the outputs of the whole graph."""

import importlib.util

import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.loader import NeighborLoader
from torch_geometric.utils import k_hop_subgraph

from graphseq.data import NodeDataModule
from graphseq.models import NodeClassifier

NODES, LAYERS = 60, 2


@pytest.fixture(scope="module")
def data():
    generator = torch.Generator().manual_seed(0)
    edge_index = torch.randint(NODES, (2, 150), generator=generator)
    graph = Data(
        x=torch.rand(NODES, 5, generator=generator),
        edge_index=torch.cat([edge_index, edge_index.flip(0)], dim=1).unique(dim=1),
        y=torch.arange(NODES) % 3,
    )
    module = NodeDataModule(graph, split="random", num_train_per_class=5, num_val=9, num_test=9)
    module.setup("fit")
    return module


@pytest.fixture(scope="module")
def model(data):
    torch.manual_seed(0)
    return NodeClassifier(data.num_features, data.num_outputs, hidden_channels=8, num_layers=LAYERS, conv="sage").eval()


@torch.no_grad()
def test_neighbourhoods_give_the_outputs_of_the_whole_graph(data, model):
    graph = data.graph
    seeds = graph.train_mask.nonzero().flatten()
    nodes, edges, places, _ = k_hop_subgraph(seeds, LAYERS, graph.edge_index, relabel_nodes=True)
    assert len(nodes) < NODES
    torch.testing.assert_close(model(graph.x[nodes], edges)[places], model(graph.x, graph.edge_index)[seeds])


@torch.no_grad()
@pytest.mark.skipif(
    all(importlib.util.find_spec(name) is None for name in ("pyg_lib", "torch_sparse")),
    reason="NeighborLoader needs pyg-lib or torch-sparse: pip install graphseq[neighbors]",
)
def test_neighbor_loader_over_node_data(data, model):
    graph = data.graph
    whole = model(graph.x, graph.edge_index)
    loader = NeighborLoader(graph, num_neighbors=[-1] * LAYERS, input_nodes=graph.train_mask, batch_size=4)
    seen = []
    for batch in loader:
        seeds = batch.n_id[: batch.batch_size]
        torch.testing.assert_close(model(batch.x, batch.edge_index)[: batch.batch_size], whole[seeds])
        torch.testing.assert_close(batch.y[: batch.batch_size], graph.y[seeds])
        seen.append(seeds)
    assert torch.equal(torch.cat(seen).sort().values, graph.train_mask.nonzero().flatten())
