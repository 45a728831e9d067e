"""Rewiring keeps counts, changes nothing else, and goes on exactly after a checkpoint."""

import copy
import functools

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from graphseq.callbacks import DynamicSparse, draw_mask_evolution
from graphseq.core import CheckpointError, make
from graphseq.data import ImageDataModule
from graphseq.models import G2GNet
from graphseq.nn import GroupToGroupLinear, MaskedLinear
from graphseq.tasks import Classification
from tests.reliability.runs import trainer

ADAM = functools.partial(torch.optim.Adam, lr=1e-2)
FORMATS = [("column", "packed"), ("column", "masked"), ("edge", "masked"), ("edge", "blockdiag+csr")]


def loader(features=16):
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(64, features, generator=generator), torch.randint(0, 3, (64,), generator=generator)
    return DataLoader(TensorDataset(x, y), batch_size=8)


def network(granularity="column", backend="packed"):
    torch.manual_seed(0)
    first, second = (GroupToGroupLinear(16, 16, 4, 1.0, 0.5, kind, granularity, backend, seed=place)
                     for place, kind in enumerate(("index", "interleaved")))  # fmt: skip
    return make(nn.Sequential, first, make(nn.ReLU), second, make(nn.ReLU), make(nn.Linear, 16, 3))


def fit(callback, model=None, epochs=7, optimizer=ADAM, **options):
    task = Classification(network() if model is None else model, 3, optimizer=optimizer)
    torch.manual_seed(1)
    run = trainer(max_epochs=epochs, callbacks=[callback], **options)
    run.fit(task, loader())
    return task, run


class Checked(DynamicSparse):
    """Compares layer and moments before and after each update."""

    updates = 0

    def _rewire(self, name, layer, fraction, optimizers):
        def state():
            parts = {"weight": layer.dense_weight().detach().clone(), "mask": layer.connections().clone()}
            for key in ("exp_avg", "exp_avg_sq"):
                twin = copy.deepcopy(layer)
                for own, other in zip(layer.parameters(), twin.parameters(), strict=True):
                    other.data.copy_(optimizers[0].state[own][key])
                parts[key] = twin.dense_weight().detach()
            return parts, torch.bincount(layer.budgets(self.preserve)[layer.connections()])

        before, counts = state()
        changed = super()._rewire(name, layer, fraction, optimizers)
        after, its = state()
        assert torch.equal(counts, its)
        grown = after["mask"] & ~before["mask"]
        pruned = before["mask"] & ~after["mask"]
        assert int(grown.sum()) == int(pruned.sum()) == changed > 0  # none is both
        stay = (before["mask"] & after["mask"]) if layer.granularity == "edge" else (
            (before["mask"] & after["mask"])[layer.group_of_out])  # fmt: skip
        for key in ("weight", "exp_avg", "exp_avg_sq"):
            assert torch.equal(after[key], torch.where(stay, before[key], 0.0)), key
        self.updates += 1
        return changed


@pytest.mark.parametrize(("granularity", "backend"), FORMATS)
@pytest.mark.parametrize(("prune", "grow"), [("set", "gradient"), ("mix", "hebb")])
def test_invariants_over_many_updates(granularity, backend, prune, grow):
    callback = Checked(prune, grow, fraction=0.1, every=2, stop=1.0, window=2)
    task, _ = fit(callback, network(granularity, backend))
    assert callback.updates == 2 * 27  # 56 steps, the last of which is not followed by another
    assert callback.history[-1]["overlap"][0] < 1
    assert not any(layer._forward_hooks for layer in task.modules())


def test_packed_and_masked_layers_are_rewired_alike():
    found = []
    for backend in ("packed", "masked"):
        callback = DynamicSparse("set", "gradient", fraction=0.2, every=3, stop=1.0)
        task, _ = fit(callback, network("column", backend).double(), epochs=3, precision="64-true")
        found.append([value for layer in task.model if hasattr(layer, "to_dense") for value in layer.to_dense()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
    assert found[0][1].dtype == torch.bool


@pytest.mark.parametrize("optimizer", [functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9),
                                       functools.partial(torch.optim.AdamW, lr=1e-2, amsgrad=True),
                                       functools.partial(torch.optim.SGD, lr=0.1)])  # fmt: skip
def test_other_optimizers(optimizer):
    callback = DynamicSparse(fraction=0.2, every=5, stop=1.0, preserve="total")
    task, run = fit(callback, epochs=1, optimizer=optimizer)
    layer = task.model[0]
    assert len(callback.history) == 1
    born = ~(layer.connections() & callback._initial["model.0"])
    assert born.any()
    assert len(run.optimizers[0].state[layer.weight]) == {0: 0, 1: 1, 4: 4}[len(run.optimizers[0].state[layer.weight])]


def test_an_optimizer_without_moments_of_single_weights_is_refused():
    with pytest.raises(TypeError, match="Adafactor"):
        fit(DynamicSparse(), epochs=1, optimizer=functools.partial(torch.optim.Adafactor, lr=1e-2))


def test_when_updates_happen_and_how_much():
    callback = DynamicSparse(fraction=0.4, every=4, stop=0.75, decay="linear", preserve="total")
    fit(callback, epochs=5)  # 40 steps
    assert [entry["step"] for entry in callback.history] == [4, 8, 12, 16, 20, 24, 28]
    rewired = [entry["rewired"][0] for entry in callback.history]
    assert rewired == sorted(rewired, reverse=True)
    assert rewired[0] == pytest.approx(0.4 * (1 - 4 / 30), abs=0.03)
    steps = DynamicSparse(every=4, stop=1.0)
    fit(steps, epochs=2, accumulate_grad_batches=2)
    assert [entry["step"] for entry in steps.history] == [4]


def test_a_planted_correlation_is_grown_first():
    class Planted(nn.Module):
        """The output unit 1 repeats the input unit 7, which it is not connected to."""

        def __init__(self):
            super().__init__()
            self.layer = MaskedLinear(16, 3)
            mask = torch.ones(3, 16, dtype=torch.bool)
            mask[:, 5:9] = False
            self.layer.set_mask(mask)
            self.after = Repeat()
            self.both = nn.Sequential(self.layer, self.after)

        def forward(self, x):
            self.after.x = x
            return self.both(x)

    class Repeat(nn.Module):
        def forward(self, y):
            y = y.clone()
            y[:, 1] = 2 * self.x[:, 7] + 0.01 * y[:, 1] - 30
            return y

    callback = DynamicSparse("set", "hebb", fraction=0.03, every=5, stop=1.0)  # one update in 8 steps
    task, _ = fit(callback, make(Planted), epochs=1)
    first = callback._initial["model.layer"]
    assert (task.model.layer.mask & ~first)[1, 7]
    assert callback.history[0]["rewired"][0] == pytest.approx(1 / 36)


def digits(folder, prune, grow, granularity, backend, resume=None, seed=0):
    torch.manual_seed(0)
    model = G2GNet((1, 8, 8), 10, 4, 32, 2, p_inter=0.25, granularity=granularity, backend=backend, channels=4)
    task = Classification(model, 10, optimizer=ADAM)
    callback = DynamicSparse(prune, grow, fraction=0.1, every=5, window=4, stop=0.9, decay="cosine", seed=seed)
    saving = ModelCheckpoint(folder, every_n_train_steps=13, save_top_k=-1, filename="{step}")
    torch.manual_seed(1)
    run = trainer(max_epochs=2, callbacks=[callback, saving], enable_checkpointing=True, logger=CSVLogger(folder))
    run.fit(task, ImageDataModule("digits", batch_size=128), ckpt_path=resume, weights_only=True)
    return task, callback


@pytest.mark.parametrize(
    ("prune", "grow", "granularity", "backend"),
    [("mix", "hebb", "column", "packed"), ("hebb", "random", "edge", "blockdiag+csr"),
     ("set", "gradient", "edge", "masked")],
)  # fmt: skip
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path, prune, grow, granularity, backend):
    whole, callback = digits(tmp_path / "a", prune, grow, granularity, backend)
    resumed, other = digits(tmp_path / "b", prune, grow, granularity, backend, tmp_path / "a" / "step=13.ckpt", seed=9)
    assert [entry["step"] for entry in callback.history] == [5, 10, 15]  # the checkpoint stands between two
    assert callback.history == other.history
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert next((tmp_path / "a").rglob("mask_evolution.png")).stat().st_size > 1000


def test_another_mask_than_that_of_the_checkpoint_is_refused():
    callback = DynamicSparse(every=3)
    fit(callback, epochs=1)
    state = copy.deepcopy(callback.state_dict())
    state["connections"]["model.2"] += 1
    other = DynamicSparse(every=3)
    other.load_state_dict(state)
    with pytest.raises(CheckpointError, match="model.2"):
        fit(other, epochs=1)
    state["connections"].pop("model.2")
    other.load_state_dict(state)
    with pytest.raises(CheckpointError, match="model.0"):
        fit(other, epochs=1)


@pytest.mark.parametrize(
    "options",
    [{"prune": "smallest"}, {"grow": "set"}, {"fraction": 1.5}, {"every": 0}, {"stop": 0.0}, {"decay": "step"},
     {"preserve": "layer"}, {"window": 0}, {"stat_ema": 1.0}],
)  # fmt: skip
def test_bad_arguments(options):
    name = next(iter(options)).replace("stat_ema", "decay")
    with pytest.raises(ValueError, match=name):
        DynamicSparse(**options)


def test_bad_use():
    with pytest.raises(ValueError, match="Sequential|sparse layer"):
        fit(DynamicSparse(), make(nn.Sequential, make(nn.Linear, 16, 3)))
    with pytest.raises(ValueError, match="stop is 0.75"):
        fit(DynamicSparse(), epochs=-1, max_steps=-1)
    with pytest.raises(ValueError, match="preserve='total'"):
        fit(DynamicSparse(), network("block"))
    with pytest.raises(ValueError, match="history"):
        draw_mask_evolution([])
