import copy

import pytest
import torch
from jsonargparse import ArgumentParser
from torch import nn
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import GAT, GIN, GCNConv, Sequential, global_mean_pool

from graphseq.core import apply_model, make, record_foreign_modules
from graphseq.models import FromPyG
from graphseq.nn import GraphPool


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    data = [
        Data(
            x=torch.randn(size, 3, generator=generator),
            edge_index=torch.randint(size, (2, 6), generator=generator),
            edge_attr=torch.randn(6, 2, generator=generator),
        )
        for size in (4, 1, 5)
    ]
    return next(iter(DataLoader(data, batch_size=3)))


@pytest.mark.parametrize("pool", ["sum", "mean", "max"])
def test_pools_the_network_s_nodes(batch, pool):
    inner = make(GIN, 3, 8, 2).eval()
    network = FromPyG(inner, pool=pool).eval()
    expected = GraphPool(pool)(inner(batch.x, batch.edge_index), batch.batch)
    torch.testing.assert_close(apply_model(network, batch), expected)
    graph, node = network.encode(batch.x, batch.edge_index, batch.batch)
    assert (graph.shape, node.shape) == ((3, network.graph_channels), (10, network.node_channels))
    headed = FromPyG(inner, pool=pool, out_channels=2)
    torch.testing.assert_close(apply_model(headed, batch), headed.head(expected))


def test_takes_nodes_as_they_are_without_pool(batch):
    inner = make(GIN, 3, 8, 2).eval()
    torch.testing.assert_close(apply_model(FromPyG(inner, None), batch), inner(batch.x, batch.edge_index))
    assert apply_model(FromPyG(inner, None, 2), batch).shape == (10, 2)
    with pytest.raises(ValueError, match=r"FromPyG\(pool=None\)"):
        FromPyG(inner, None).encode(batch.x, batch.edge_index)


def test_edge_features_reach_a_network_that_names_them(batch):
    network = FromPyG(make(GAT, 3, 8, 2, edge_dim=2)).eval()
    first = apply_model(network, batch)
    batch.edge_attr = -batch.edge_attr
    assert not apply_model(network, batch).allclose(first)


class PoolsByItself(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = GCNConv(3, 8)

    def forward(self, x, edge_index, batch):
        return global_mean_pool(self.conv(x, edge_index), batch)


def test_a_network_that_pools_by_itself(batch):
    inner = PoolsByItself()
    with pytest.warns(UserWarning, match="graphseq.core.make"):  # a checkpoint cannot hold it
        network = FromPyG(inner, pool=None, out_channels=2, channels=8)
    expected = inner(batch.x, batch.edge_index, batch.batch)
    torch.testing.assert_close(apply_model(network, batch), network.head(expected))
    with pytest.raises(ValueError, match=r"PoolsByItself .* 3 rows .* 10 nodes.*pool=None"):
        apply_model(FromPyG(make(PoolsByItself)), batch)


@pytest.mark.filterwarnings("ignore:FromPyG")
def test_a_sequential_of_pyg(batch):
    inner = Sequential("x, edge_index", [(GCNConv(3, 8), "x, edge_index -> x"), nn.ReLU()])
    network = FromPyG(inner, "sum", out_channels=2, channels=8)
    expected = GraphPool("sum")(inner(batch.x, batch.edge_index), batch.batch)
    torch.testing.assert_close(network.encode(batch.x, batch.edge_index, batch.batch)[0], expected)


def test_copies_states_resets_and_records(batch):
    network = FromPyG(make(GIN, 3, 8, 2), "sum", 2).eval()
    output = apply_model(network, batch)
    twin = copy.deepcopy(network)
    twin.reset_parameters()
    assert not apply_model(twin, batch).equal(output)
    twin.load_state_dict(network.state_dict())
    assert apply_model(twin, batch).equal(output)
    record_foreign_modules()
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(nn.Module, "model")
    built = parser.instantiate(parser.parse_object({"model": network._record})).model.eval()
    assert built._record["init_args"]["network"]["class_path"] == "torch_geometric.nn.GIN"
    built.load_state_dict(network.state_dict())
    assert apply_model(built, batch).equal(output)


class WantsTime(nn.Module):
    def forward(self, x, edge_index, time):
        return x


class WantsNothing(nn.Module):
    def forward(self, *inputs):
        return inputs


@pytest.mark.filterwarnings("ignore:FromPyG")
def test_networks_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"WantsTime\.forward .* x, edge_index, time;"):
        FromPyG(WantsTime())
    with pytest.raises(ValueError, match="WantsNothing.forward"):
        FromPyG(WantsNothing())
    with pytest.raises(ValueError, match="out_channels=2.*PoolsByItself"):
        FromPyG(PoolsByItself(), out_channels=2)
    with pytest.raises(ValueError, match="mode='median'"):
        FromPyG(make(GIN, 3, 8, 2), pool="median")


def test_what_is_no_network_and_no_tensor():
    for network, said in (("GIN", "a str"), (GIN, "class GIN"), (None, "NoneType")):
        with pytest.raises(TypeError, match=said):
            FromPyG(network)
    with pytest.raises(ValueError, match="out_channels is 0"):
        FromPyG(make(GIN, 3, 4, 1), out_channels=0)
    with pytest.raises(TypeError, match="to_homogeneous"):
        FromPyG(make(GIN, 3, 4, 1))({"a": torch.randn(2, 3)}, torch.tensor([[0], [1]]))
