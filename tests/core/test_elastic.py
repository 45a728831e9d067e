import copy

import pytest
import torch
from torch import nn

from graphseq.core import Elastic, adopt_sizes
from graphseq.models import JODIE, EdgeBank
from graphseq.nn import DecorrelationOuter, FeatureQueue, RecentNeighborBuffer, SampleWeights


class Bag(Elastic):
    elastic = ("items", "weight")

    def __init__(self, size=0):
        super().__init__()
        self.register_buffer("items", torch.zeros(size))
        self.weight = nn.Parameter(torch.zeros(size, 2))
        self.register_buffer("fixed", torch.zeros(3))


def bags(size):
    return nn.ModuleDict({"inner": nn.Sequential(Bag(size)), "plain": nn.Linear(2, 1)})


def test_loading_takes_the_saved_sizes():
    saved, fresh = bags(4), bags(0)
    saved["inner"][0].items.fill_(7.0)
    fresh.load_state_dict(saved.state_dict())
    assert torch.equal(fresh["inner"][0].items, torch.full((4,), 7.0))
    assert isinstance(fresh["inner"][0].weight, nn.Parameter)
    assert fresh["inner"][0].weight.shape == (4, 2)


def test_making_room_loads_nothing_and_other_sizes_stay_a_difference():
    saved, fresh = bags(4), bags(0)
    saved["inner"][0].items.fill_(7.0)
    adopt_sizes(fresh, saved.state_dict())
    assert fresh["inner"][0].items.shape == (4,)
    assert not fresh["inner"][0].items.any()
    wrong = saved.state_dict()
    wrong["inner.0.fixed"] = torch.zeros(5)
    with pytest.raises(RuntimeError, match=r"inner\.0\.fixed"):
        fresh.load_state_dict(wrong)


def test_missing_names_are_reported_as_ever():
    with pytest.raises(RuntimeError, match="items"):
        Bag().load_state_dict({"fixed": torch.zeros(3), "weight": torch.zeros(1, 2)})


def pushed():
    queue = FeatureQueue(2)
    queue.push(torch.randn(3, 4), torch.zeros(3))
    return queue


def found():
    outer = DecorrelationOuter(2)
    outer.recluster(torch.randn(60, 4), None, torch.Generator())
    return outer


def seen():
    buffer = RecentNeighborBuffer(5, 2)
    buffer.resize(9)
    return buffer


def grown():
    network = JODIE(num_nodes=3, memory_dim=4)
    network.resize(8)
    return network


@pytest.mark.parametrize(
    ("trained", "fresh"),
    [
        (pushed, lambda: FeatureQueue(2)),
        (found, lambda: DecorrelationOuter(2)),
        (lambda: SampleWeights(6), SampleWeights),
        (seen, lambda: RecentNeighborBuffer(5, 2)),
        (grown, lambda: JODIE(num_nodes=3, memory_dim=4)),
        (lambda: EdgeBank(), lambda: EdgeBank()),
    ],
)
def test_every_module_whose_size_the_data_decide_is_restored(trained, fresh):
    saved, empty = trained(), fresh()
    state = copy.deepcopy(saved.state_dict())
    adopt_sizes(empty, state)
    assert {name: value.shape for name, value in empty.state_dict().items() if isinstance(value, torch.Tensor)} == {
        name: value.shape for name, value in state.items() if isinstance(value, torch.Tensor)
    }
    empty = fresh()
    empty.load_state_dict(state)
    for name, value in empty.state_dict().items():
        assert torch.equal(value, state[name]), name
    # modules with a single module of elastic size inside a wrapper are found by their full names
    wrapped = nn.Sequential(fresh())
    wrapped.load_state_dict({f"0.{name}": value for name, value in state.items()})
