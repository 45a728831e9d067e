import functools

import pytest
import torch
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import GCN, GCNConv
from torch_geometric.nn import Sequential as GraphSequential

from graphseq.core import apply_model, model_fields, unwrapped
from graphseq.models import GraphClassifier
from graphseq.nn import SampleWeights
from graphseq.tasks import (
    NodeClassification,
    Reweighted,
    SampleTask,
    TemporalLinkPrediction,
    TemporalNodeClassification,
)
from tests.tasks.streams.streams import events, network


class Wrapper(nn.Module):
    """As users write them: all arguments are passed on."""

    def __init__(self, net):
        super().__init__()
        self.net = net
        self.scale = nn.Identity()  # more than one module inside

    def forward(self, *args, **kwargs):
        return self.scale(self.net(*args, **kwargs))


class Opaque(nn.Module):
    """Nothing says what it takes."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, *args):
        return self.first(args[0])


def decorated(function):
    @functools.wraps(function)
    def inner(*args, **kwargs):
        return function(*args, **kwargs)

    return inner


class Decorated(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = GCN(3, 4, 2, 2)

    @decorated
    def forward(self, x, edge_index):
        return self.net(x, edge_index)


WRAPPERS = {
    "compile": lambda net: torch.compile(net, backend="eager"),
    "averaged": torch.optim.swa_utils.AveragedModel,
    "parallel": nn.DataParallel,
    "own": Wrapper,
    "twice": lambda net: Wrapper(torch.optim.swa_utils.AveragedModel(net)),
}


def graph():
    torch.manual_seed(0)
    edge_index = torch.tensor([[0, 1, 2], [1, 2, 3]])
    return Data(x=torch.rand(6, 3), edge_index=edge_index, y=torch.tensor([0, 1, 0, 1, 0, 1]))


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_wrapped_network_gets_its_fields(name):
    net = GCN(3, 4, 2, 2)
    expected = NodeClassification(net, 2).step(graph()).loss
    wrapped = WRAPPERS[name](net)
    assert model_fields(wrapped) == model_fields(net)
    with pytest.warns(UserWarning, match="model"):  # foreign networks are not recorded
        task = NodeClassification(wrapped, 2)
    torch.testing.assert_close(task.step(graph()).loss, expected)


def test_networks_are_compiled_in_place():
    net = GCN(3, 4, 2, 2)
    expected = apply_model(net, graph())
    net.compile(backend="eager")
    torch.testing.assert_close(apply_model(net, graph()), expected)


def test_decorated_networks_and_sequential_ones():
    assert model_fields(Decorated()) == {"x": True, "edge_index": True}
    assert apply_model(Decorated(), graph()).shape == (6, 2)
    net = GraphSequential("x, edge_index", [(GCNConv(3, 2), "x, edge_index -> x"), nn.ReLU()])
    assert apply_model(net, graph()).shape == (6, 2)


def test_opaque_networks_are_refused():
    with pytest.raises(ValueError, match=r"Opaque.forward.*functools.wraps"):
        apply_model(Opaque(), graph())
    assert unwrapped(nn.Linear(3, 2)).in_features == 3


def labelled():
    return {"x": torch.ones(4, 3), "edge_index": torch.tensor([[0], [1]]), "y": torch.tensor([1])}


@pytest.mark.filterwarnings("ignore:.*cannot be written")
@pytest.mark.parametrize("name", WRAPPERS)
def test_the_head_of_a_wrapped_network_is_found(name):
    torch.manual_seed(0)
    net = GraphClassifier(3, 2, norm="none")
    expected = SampleTask(net, 2).step(labelled()).loss
    task = SampleTask(WRAPPERS[name](net), 2)
    torch.testing.assert_close(task.step(labelled()).loss, expected)
    torch.testing.assert_close(task.step(labelled()).loss, expected)  # compiled code is there now
    assert type(Reweighted(WRAPPERS[name](net), 2, weights=SampleWeights(9)).head) is type(net.head)


@pytest.mark.filterwarnings("ignore:.*cannot be written")
@pytest.mark.parametrize("name", WRAPPERS)
def test_a_wrapped_network_with_memory_keeps_its_state(name):
    data = events()
    torch.manual_seed(0)
    plain = TemporalLinkPrediction(network("jodie", data), coherence_weight=0.1)
    torch.manual_seed(0)
    task = TemporalLinkPrediction(WRAPPERS[name](network("jodie", data)), coherence_weight=0.1)
    for batch, _ in zip(data.batches("train"), range(3), strict=False):
        torch.testing.assert_close(task.step(batch).loss, plain.step(batch).loss)
    found, expected = task.network.state_buffers(), plain.network.state_buffers()
    assert float(expected["memory.memory"].abs().sum()) > 0
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value)
    TemporalNodeClassification(WRAPPERS[name](network("jodie", data)))
