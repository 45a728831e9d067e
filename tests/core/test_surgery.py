"""Layers replaced in a trained network: the same network after loading, and what cannot be replaced."""

import functools

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import graphseq
from graphseq.core import Recorded, Replaced, make, replace
from graphseq.models import MLP
from graphseq.nn import MaskedLinear
from graphseq.tasks import Classification
from tests.reliability.runs import trainer


class Shared(Recorded, nn.Module):
    """One activation in two places."""

    def __init__(self):
        super().__init__()
        self.activation = nn.PReLU()
        self.layers = nn.ModuleList([nn.Linear(5, 5), self.activation, nn.Linear(5, 3), self.activation])

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


def loader():
    x, y = torch.rand(32, 5), torch.randint(0, 3, (32,))
    return DataLoader(list(zip(x, y, strict=True)), batch_size=8)


def is_relu(name, layer):
    return isinstance(layer, nn.ReLU)


def masked(old):
    new = MaskedLinear(old.in_features, old.out_features, old.bias is not None)
    new.load_state_dict({**old.state_dict(), "mask": torch.rand(old.weight.shape) < 0.5})
    return new


def fit(task, path):
    run = trainer(max_epochs=1)
    run.fit(task, loader())
    run.save_checkpoint(path)
    return task.eval()


@pytest.mark.parametrize("when", ["before the task", "after the task"])
def test_a_checkpoint_builds_the_replaced_network(when, tmp_path):
    network = MLP(5, 3, hidden_features=6, num_layers=3)
    if when == "before the task":
        assert len(replace(network, is_relu, lambda old: make(nn.SELU))) == 2
    task = Classification(network, 3, optimizer=functools.partial(torch.optim.Adam, lr=0.01))
    if when == "after the task":
        replace(task.model, is_relu, lambda old: make(nn.SELU))
    fit(task, tmp_path / "task.ckpt")
    again = graphseq.load(tmp_path / "task.ckpt").eval()
    assert type(again.model) is MLP
    assert [type(layer) for layer in again.model.modules()] == [type(layer) for layer in network.modules()]
    x = torch.rand(4, 5)
    assert torch.equal(again.model(x), network(x))
    # and a run resumes from it
    trainer(max_epochs=2).fit(again, loader(), ckpt_path=tmp_path / "task.ckpt", weights_only=True)


def test_a_trained_network_keeps_what_make_copies(tmp_path):
    task = fit(Classification(MLP(5, 3, hidden_features=6), 3), tmp_path / "dense.ckpt")
    names = replace(task.model, lambda name, layer: type(layer) is nn.Linear, masked)
    assert names == [name for name, layer in task.model.named_modules() if isinstance(layer, MaskedLinear)]
    run = trainer(max_epochs=1)
    run.fit(task, loader())
    run.save_checkpoint(tmp_path / "sparse.ckpt")
    again = graphseq.load(tmp_path / "sparse.ckpt")
    state, expected = again.state_dict(), task.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in state)


def test_twice(tmp_path):
    task = Classification(MLP(5, 3, hidden_features=6), 3)
    replace(task.model, is_relu, lambda old: make(nn.SELU))
    replace(task.model, lambda name, layer: isinstance(layer, nn.SELU), lambda old: make(nn.ELU, alpha=0.5))
    fit(task, tmp_path / "task.ckpt")
    again = graphseq.load(tmp_path / "task.ckpt")
    assert [layer.alpha for layer in again.model.modules() if isinstance(layer, nn.ELU)] == [0.5]


def test_a_shared_layer_stays_shared(tmp_path):
    task = Classification(Shared(), 3)
    names = replace(task.model, lambda name, layer: isinstance(layer, nn.PReLU), lambda old: make(nn.PReLU, 1, 0.1))
    assert names == ["activation", "layers.1", "layers.3"]
    assert task.model.activation is task.model.layers[1] is task.model.layers[3]
    fit(task, tmp_path / "task.ckpt")
    again = graphseq.load(tmp_path / "task.ckpt").model
    assert again.activation is again.layers[1] is again.layers[3]


def test_device_and_mode_follow_and_inner_layers_are_not_entered():
    network = make(nn.Sequential)
    network.append(nn.Sequential(nn.Linear(2, 2), nn.ReLU())).append(nn.ReLU())
    network.eval()
    chosen = replace(network, lambda name, layer: name == "0" or is_relu(name, layer), lambda old: make(nn.Tanh))
    assert chosen == ["0", "1"]
    assert not network[0].training


def test_what_cannot_be_replaced():
    network = MLP(5, 3)
    with pytest.raises(ValueError, match="Linear"):
        replace(network, lambda name, layer: isinstance(layer, nn.GRU), lambda old: old)
    with pytest.raises(ValueError, match="MLP"):
        replace(network, lambda name, layer: True, lambda old: old)
    with pytest.raises(TypeError, match=r"task\.model"):
        replace(Classification(network, 3), is_relu, lambda old: make(nn.SELU))
    with pytest.raises(TypeError, match=r"graphseq\.core\.make"):
        replace(network, is_relu, lambda old: nn.SELU())
    with pytest.raises(TypeError, match="int"):
        replace(network, is_relu, lambda old: 3)
    assert any(isinstance(layer, nn.ReLU) for layer in network.modules())  # nothing was half done
    with pytest.raises(ValueError, match="nowhere"):
        Replaced(network, {"nowhere.0": nn.SELU()})
    with pytest.raises(ValueError, match="other"):
        Replaced(network, {"layers.0": "other"})
