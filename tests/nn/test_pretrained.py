"""Pre-trained parts by path: what is frozen stays, what is written, and what a file that does not fit is told."""

import copy
import functools
import pickle

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import graphseq
from graphseq.core import CheckpointError, Recorded, make
from graphseq.models import MLP
from graphseq.nn import Pretrained
from graphseq.tasks import Classification
from tests.reliability.runs import trainer


class Probe(Recorded, nn.Module):
    """A head on top of an encoder, with the batch norm of its own that makes order of steps matter."""

    def __init__(self, encoder: nn.Module, in_features: int, out_features: int):
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(in_features, out_features)

    def forward(self, x):
        return self.head(self.encoder(x).relu())


def loader(seed=0, count=48):
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.rand(count, 5, generator=generator), torch.randint(0, 3, (count,), generator=generator)
    return DataLoader(list(zip(x, y, strict=True)), batch_size=16)


def adam():
    return functools.partial(torch.optim.Adam, lr=0.05)


def encoder_network():
    return MLP(5, 4, hidden_features=6, norm="batch", dropout=0.5)


@pytest.fixture
def trained(tmp_path):
    """A checkpoint whose batch norm has statistics of its own."""
    torch.manual_seed(1)
    task = Classification(Probe(encoder_network(), 4, 3), 3, optimizer=adam())
    run = trainer(max_epochs=2)
    run.fit(task, loader())
    path = tmp_path / "pretrained.ckpt"
    run.save_checkpoint(path)
    return path, task.model.encoder.eval()


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def fit(task, path, epochs=2):
    run = trainer(max_epochs=epochs)
    run.fit(task, loader(seed=2))
    run.save_checkpoint(path)
    return task


def test_the_part_is_that_of_the_checkpoint(trained):
    path, encoder = trained
    part = Pretrained(path, part="model.encoder")
    x = torch.rand(7, 5)
    assert torch.equal(part(x), encoder(x))
    assert same(part.module.state_dict(), encoder.state_dict())
    assert part.encode(x).shape == (7, 6)  # attributes are those of the part


def test_frozen_is_bit_for_bit_frozen_in_training(trained, tmp_path):
    path, encoder = trained
    task = Classification(Probe(Pretrained(path, part="model.encoder"), 4, 3), 3, optimizer=adam())
    before = task.model.head.weight.clone()
    fit(task, tmp_path / "probe.ckpt")
    assert same(task.model.encoder.module.state_dict(), encoder.state_dict())
    assert not torch.equal(task.model.head.weight, before)
    task.train()
    assert not any(layer.training for layer in task.model.encoder.module.modules())
    x = torch.rand(2, 5, requires_grad=True)
    task.model(x).sum().backward()
    assert x.grad.abs().sum() > 0  # what comes before a frozen part can be trained


def test_trained_further_it_moves(trained, tmp_path):
    path, encoder = trained
    task = fit(Classification(Probe(Pretrained(path, "model.encoder", freeze=False), 4, 3), 3, optimizer=adam()),
               tmp_path / "tuned.ckpt")  # fmt: skip
    tuned = task.model.encoder.module.state_dict()
    encoder_state = encoder.state_dict()
    moved = [name for name in tuned if not torch.equal(tuned[name], encoder_state[name])]
    assert len(moved) == len(tuned)
    path.unlink()
    again = graphseq.load(tmp_path / "tuned.ckpt")
    assert same(again.model.encoder.module.state_dict(), tuned)


def test_checkpoints_leave_frozen_weights_out(trained, tmp_path):
    path, _ = trained
    task = Classification(Probe(Pretrained(path, part="model.encoder"), 4, 3), 3, optimizer=adam())
    fit(task, tmp_path / "probe.ckpt")
    saved = torch.load(tmp_path / "probe.ckpt", weights_only=True)["state_dict"]
    assert sorted(saved) == ["model.encoder._extra_state", "model.head.bias", "model.head.weight"]
    again = graphseq.load(tmp_path / "probe.ckpt").eval()
    x = torch.rand(3, 5)
    assert torch.equal(again.model(x), task.eval().model(x))


def test_resuming_equals_the_uninterrupted_run(trained, tmp_path):
    path, _ = trained

    def build():
        torch.manual_seed(3)
        return Classification(Probe(Pretrained(path, part="model.encoder"), 4, 3), 3, optimizer=adam())

    whole = fit(build(), tmp_path / "whole.ckpt", epochs=4)
    fit(build(), tmp_path / "half.ckpt", epochs=2)
    part = build()
    trainer(max_epochs=4).fit(part, loader(seed=2), ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    assert torch.equal(part.model.head.weight, whole.model.head.weight)


def test_asked_to_save_the_file_is_not_needed(trained, tmp_path):
    path, encoder = trained
    fit(Classification(Probe(Pretrained(path, "model.encoder", save=True), 4, 3), 3), tmp_path / "probe.ckpt")
    path.unlink()
    again = graphseq.load(tmp_path / "probe.ckpt")
    assert same(again.model.encoder.module.state_dict(), encoder.state_dict())
    assert not any(p.requires_grad for p in again.model.encoder.parameters())


def test_a_file_that_changed_or_went_is_refused(trained, tmp_path):
    path, _ = trained
    fit(Classification(Probe(Pretrained(path, part="model.encoder"), 4, 3), 3), tmp_path / "probe.ckpt")
    other = Classification(Probe(encoder_network(), 4, 3), 3)
    run = trainer(max_epochs=1)
    run.fit(other, loader())
    run.save_checkpoint(path)
    with pytest.raises(CheckpointError, match="other weights of model.encoder"):
        graphseq.load(tmp_path / "probe.ckpt")
    path.unlink()
    with pytest.raises(CheckpointError, match=rf"built again: there is no file .*{path.name}"):
        graphseq.load(tmp_path / "probe.ckpt")


def test_weights_that_never_came_are_not_used(tmp_path):
    part = Pretrained(tmp_path / "gone.ckpt", freeze=False, module=encoder_network())
    with pytest.raises(CheckpointError, match="gone.ckpt"):
        part(torch.rand(2, 5))
    part.load_state_dict(Pretrained(tmp_path / "gone.ckpt", save=True, module=encoder_network()).state_dict())
    assert part(torch.rand(2, 5)).shape == (2, 4)


@pytest.mark.parametrize("prefix", ["", "encoder."])
def test_a_plain_state_dict(prefix, tmp_path):
    source = make(nn.Linear, 5, 4)
    torch.save({f"{prefix}{name}": value for name, value in source.state_dict().items()}, tmp_path / "w.pt")
    part = Pretrained(tmp_path / "w.pt", part=prefix.rstrip("."), module=make(nn.Linear, 5, 4))
    assert torch.equal(part.module.weight, source.weight)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda state: state.pop("bias"), r"bias is absent .*\(4,\)"),
        (lambda state: state.update(extra=torch.ones(2)), r"extra is \(2,\) "),
        (lambda state: state.update(weight=torch.ones(3, 5)), r"weight is \(3, 5\) .*\(4, 5\)"),
    ],
)
def test_weights_that_do_not_fit_name_the_key(change, named, tmp_path):
    state = dict(nn.Linear(5, 4).state_dict())
    change(state)
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=named):
        Pretrained(tmp_path / "w.pt", part="", module=make(nn.Linear, 5, 4))


def test_files_that_are_none(trained, tmp_path):
    path, _ = trained
    with pytest.raises(CheckpointError, match=r"model\.encodr.*model\.encoder"):
        Pretrained(path, part="model.encodr")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        Pretrained(tmp_path / "nowhere.ckpt")
    with pytest.raises(FileNotFoundError, match="graphseq fit --config.* pretrain_some.yaml"):
        Pretrained("runs/pretrain_some/version_0/checkpoints/last.ckpt")
    (tmp_path / "damaged.ckpt").write_bytes(path.read_bytes()[:200])
    with pytest.raises(CheckpointError, match=r"damaged\.ckpt"):
        Pretrained(tmp_path / "damaged.ckpt")
    torch.save(nn.Linear(5, 4).state_dict(), tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="module"):
        Pretrained(tmp_path / "w.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match="list"):
        Pretrained(tmp_path / "list.pt")


def test_copies_types_and_pickles(trained):
    path, _ = trained
    part = Pretrained(path, part="model.encoder")
    x = torch.rand(3, 5)
    for other in (copy.deepcopy(part), pickle.loads(pickle.dumps(part))):
        assert torch.equal(other(x), part(x))
        assert list(other.state_dict()) == ["_extra_state"]
        assert not other.train().module.training
    assert copy.deepcopy(part).double()(x.double()).dtype == torch.float64
