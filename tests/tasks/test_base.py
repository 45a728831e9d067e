import copy
import functools
import pickle
import types

import lightning.pytorch.cli
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch_geometric.data import Batch, Data

from graphseq.models import GraphClassifier
from graphseq.tasks import Classification, Regression, Step, Task
from tests.reliability.runs import weights
from tests.tasks.small import Fit, Probe, fit, frozen_sgd, halving, loader, rows, sgd, sgd_with, validate

SGD = functools.partial(torch.optim.SGD, lr=0.1)


def loss_of(task, batch):
    with torch.no_grad():
        return float(task.step(batch).loss)


# optimisers and schedulers


def test_default_optimizer_is_adam_with_its_own_defaults():
    task = Fit(3)
    optimizer = task.configure_optimizers()
    assert type(optimizer) is torch.optim.Adam
    assert optimizer.param_groups[0]["lr"] == torch.optim.Adam([torch.zeros(1, requires_grad=True)]).defaults["lr"]
    assert [id(p) for p in optimizer.param_groups[0]["params"]] == [id(p) for p in task.parameters()]


@pytest.mark.parametrize(
    ("given_callable", "kind", "rate"),
    [
        (torch.optim.AdamW, torch.optim.AdamW, 1e-3),
        (functools.partial(torch.optim.AdamW, lr=0.25), torch.optim.AdamW, 0.25),
        (sgd, torch.optim.SGD, 0.5),
        (functools.partial(sgd_with, lr=0.125), torch.optim.SGD, 0.125),
    ],
)
def test_optimizer_callables(given_callable, kind, rate):
    optimizer = Fit(3, optimizer=given_callable).configure_optimizers()
    assert type(optimizer) is kind
    assert optimizer.param_groups[0]["lr"] == rate


@pytest.mark.parametrize("name", ["optimizer", "scheduler"])
def test_wrong_callables(name):
    with pytest.raises(TypeError, match=f"{name} is 'adam'"):
        regression(**{name: "adam"})
    with pytest.raises(TypeError, match=f"(?s){name} is SGD"), pytest.warns(UserWarning, match=name):
        regression(**{name: torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)})
    with pytest.raises(TypeError, match=rf"{name} .*list"):
        regression(**{name: list_of}).configure_optimizers()


def list_of(something):
    return []


def regression(**options):
    return Regression(Probe(3, 3), 3, **options)


def test_wrong_arguments():
    with pytest.raises(TypeError, match="model is a type"):
        Regression(nn.Linear)
    with pytest.raises(ValueError, match="scheduler_interval is 'batch'"):
        regression(scheduler_interval="batch")
    with pytest.raises(TypeError, match=r"Task .*step\(batch, stage\)"):
        Task(Probe(1, 1)).step(None)
    with pytest.raises(ValueError, match=r"loss is \(4,\)"):
        Step(torch.zeros(4), torch.zeros(4), torch.zeros(4), 4)


class Rates(Callback):
    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, task, batch, batch_idx):
        self.seen.append(trainer.optimizers[0].param_groups[0]["lr"])


@pytest.mark.parametrize(
    ("interval", "expected"),
    [("epoch", [0.5, 0.5, 0.5, 0.25, 0.25, 0.25]), ("step", [0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625])],
)
def test_scheduler_steps_once_an_interval(interval, expected):
    rates = Rates()
    task = Fit(3, optimizer=sgd, scheduler=halving, scheduler_interval=interval)
    fit(task, rows(2, 2, 2), max_epochs=2, callbacks=[rates])
    assert rates.seen == expected


class WatchesError(Regression):
    monitor = "val/mae"


def test_plateau_scheduler_watches_the_monitor_of_the_task():
    plateau = functools.partial(torch.optim.lr_scheduler.ReduceLROnPlateau, patience=0, factor=0.5)
    assert Fit(3, scheduler=plateau).configure_optimizers()["lr_scheduler"]["monitor"] == "val/loss"
    task = WatchesError(Probe(3, 3), scheduler=plateau)
    assert task.configure_optimizers()["lr_scheduler"]["monitor"] == "val/mae"
    # Lightning's own class names what it watches
    named = functools.partial(lightning.pytorch.cli.ReduceLROnPlateau, monitor="train/loss")
    assert Fit(3, scheduler=named).configure_optimizers()["lr_scheduler"]["monitor"] == "train/loss"


def test_plateau_scheduler_in_a_run():
    """The validation loss stands still at 0, so every epoch after the first bad one starts with half the rate."""
    plateau = functools.partial(torch.optim.lr_scheduler.ReduceLROnPlateau, patience=0, factor=0.5)
    rates = Rates()
    task = Fit(3, optimizer=sgd, scheduler=plateau)
    still = [(torch.zeros(2, 3), torch.zeros(2, 3))]
    task.model[0].bias.data.zero_()
    fit(task, still, still, max_epochs=4, callbacks=[rates])
    assert rates.seen == [0.5, 0.5, 0.25, 0.125]


def test_plateau_scheduler_without_what_it_watches():
    plateau = functools.partial(torch.optim.lr_scheduler.ReduceLROnPlateau, patience=0)
    with pytest.raises(Exception, match="val/loss"):
        fit(Fit(3, scheduler=plateau), rows(2))


def test_frozen_parts_stay_and_frozen_networks_are_refused():
    task = Fit(3, depth=2, optimizer=SGD)
    task.model[0].requires_grad_(False)
    before = weights(task)
    run = fit(task, rows(4, 4))
    after = weights(task)
    assert torch.equal(after["model.0.weight"], before["model.0.weight"])
    assert not torch.equal(after["model.1.weight"], before["model.1.weight"])
    assert len(run.optimizers[0].param_groups[0]["params"]) == 2
    task.model.requires_grad_(False)
    with pytest.raises(ValueError, match="parameter of Sequential .*gradient"):
        fit(task, rows(4))
    assert validate(task, rows(4))["val/loss"] > 0


# losses, penalties, names


class Decay:
    """What a callback sets: bound methods."""

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, task):
        return self.factor * sum(p.square().sum() for p in task.model.parameters())

    def sum(self, task):
        return self.factor * task.model[0].weight.sum()


class Penalise(Callback):
    def __init__(self, **penalties):
        self.penalties = penalties

    def setup(self, trainer, task, stage):
        task.penalties.update(self.penalties)

    def teardown(self, trainer, task, stage):
        for name in self.penalties:
            del task.penalties[name]


def one_step(task, batch, penalties, rate=0.1):
    """Weights after one step of gradient descent, written out."""
    twin = copy.deepcopy(task)
    loss = (twin.model(batch[0]) - batch[1]).square().sum(1).mean()
    for penalty in penalties:
        loss = loss + penalty(twin)
    parameters = dict(twin.named_parameters())
    slopes = torch.autograd.grad(loss, list(parameters.values()))
    return {name: p.detach() - rate * g for (name, p), g in zip(parameters.items(), slopes, strict=True)}


@pytest.mark.parametrize("names", [[], ["decay"], ["decay", "sum"]])
def test_penalties_are_added_and_logged_and_removed(names):
    every = {"decay": Decay(0.3), "sum": Decay(0.2).sum}
    chosen = {name: every[name] for name in names}
    task = Fit(3, optimizer=SGD)
    (batch,) = rows(5)
    plain, expected = loss_of(task, batch), one_step(task, batch, chosen.values())
    values = {f"train/penalty/{name}": penalty(task).item() for name, penalty in chosen.items()}
    run = fit(task, [batch], callbacks=[Penalise(**chosen)])
    logged = {name: float(value) for name, value in run.callback_metrics.items()}
    assert logged == pytest.approx({"train/loss": plain, **values}, rel=1e-5)
    for name, value in weights(task).items():
        torch.testing.assert_close(value, expected[name])
    assert task.penalties == {}
    expected = one_step(task, batch, [])
    assert set(fit(task, [batch]).callback_metrics) == {"train/loss"}
    for name, value in weights(task).items():
        torch.testing.assert_close(value, expected[name])


def test_penalties_do_not_reach_validation():
    task = Fit(3)
    task.penalties["decay"] = Decay(100.0)
    (batch,) = rows(5)
    assert validate(task, [batch]) == {"val/loss": pytest.approx(loss_of(task, batch))}


def test_logged_names_exactly():
    task = regression()
    batches = rows(4, 2)
    run = fit(task, batches, batches)
    assert set(run.callback_metrics) == {"train/loss", "val/loss", "val/mae", "val/rmse"}
    assert set(run.test(task, loader(batches), verbose=False)[0]) == {"test/loss", "test/mae", "test/rmse"}
    assert set(run.validate(task, loader(batches), verbose=False)[0]) == {"val/loss", "val/mae", "val/rmse"}
    run = fit(Fit(3), batches, batches)
    assert set(run.callback_metrics) == {"train/loss", "val/loss"}


def test_uneven_batches_count_by_their_size():
    task = Fit(3, optimizer=frozen_sgd)
    batches = rows(4, 4, 1)
    run = fit(task, batches, batches)
    expected = sum(len(y) * loss_of(task, (x, y)) for x, y in batches) / 9
    assert abs(expected - sum(loss_of(task, batch) for batch in batches) / 3) > 1e-2  # a plain mean would be seen
    assert float(run.callback_metrics["train/loss"]) == pytest.approx(expected, rel=1e-5)
    assert float(run.callback_metrics["val/loss"]) == pytest.approx(expected, rel=1e-5)
    assert run.test(task, loader(batches), verbose=False)[0]["test/loss"] == pytest.approx(expected, rel=1e-5)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_how_samples_are_cut_into_batches_does_not_matter(sizes):
    torch.manual_seed(0)
    task = regression()
    (x, y), *_ = rows(sum(sizes))
    y[0, 0] = y[-1] = float("nan")
    assume(not y.isnan().all())
    whole = {"val/loss": loss_of(task, (x, y))}
    batches = list(zip(x.split(sizes), y.split(sizes), strict=True))
    assert validate(task, batches)["val/loss"] == pytest.approx(whole["val/loss"], rel=1e-5)


class Stages(Fit):
    seen: list

    def step(self, batch, stage):
        self.seen.append(stage)
        return super().step(batch, stage)


def test_stage_and_prediction():
    task = Stages(3)
    task.seen = []
    batches = rows(2)
    run = fit(task, batches, batches)
    run.test(task, loader(batches), verbose=False)
    assert task.seen == ["train", "val", "test"]
    assert torch.equal(run.predict(task, loader(batches))[0], task(batches[0]))


def test_metrics_are_built_once():
    task = regression()
    task.setup("fit")
    before = task._metrics["val"]
    task.setup("test")
    assert task._metrics["val"] is before
    assert not any("metric" in name for name in task.state_dict())


# bad losses


def bad(batch):
    return batch[0], torch.full_like(batch[1], float("nan"))


def test_bad_loss_stops_the_run_before_it_does_harm():
    first, second, third, fourth = rows(2, 2, 2, 2)
    task = Fit(3, optimizer=SGD)
    expected = one_step(task, first, [])
    for name, value in one_step(with_weights(task, expected), second, []).items():
        expected[name] = value
    with pytest.raises(FloatingPointError, match=r"epoch 0, batch 2, step 2; .*parameters .*data"):
        fit(task, [first, second, bad(third), fourth])
    for name, value in weights(task).items():
        torch.testing.assert_close(value, expected[name])
    fit(task, [first])  # and the flag is lowered


def with_weights(task, values):
    twin = copy.deepcopy(task)
    twin.load_state_dict(values)
    return twin


def test_bad_loss_in_a_later_epoch():
    class Worse(Fit):
        def step(self, batch, stage):
            return super().step(bad(batch) if self.current_epoch == 1 and stage == "train" else batch, stage)

    with pytest.raises(FloatingPointError, match="epoch 1, batch 0, step 2"):
        fit(Worse(3), rows(2, 2), max_epochs=3)


def test_bad_loss_names_the_first_bad_parameter():
    task = Fit(3, depth=2, optimizer=functools.partial(torch.optim.SGD, lr=float("inf")))
    with pytest.raises(FloatingPointError, match=r"batch 1, step 1; .*model\.0\.weight"):
        fit(task, rows(2, 2, 2))


def test_bad_loss_is_let_through_on_demand():
    task = Fit(3, stop_on_nonfinite=False)
    first, second = rows(2, 2)
    run = fit(task, [bad(first), second])
    assert run.global_step == 2
    assert torch.isnan(task.model[0].weight).any()


def test_bad_penalty_stops_the_run():
    task = Fit(3)
    task.penalties["root"] = lambda task: task.model[0].weight.sum() * float("inf")
    before = weights(task)
    with pytest.raises(FloatingPointError, match="batch 0"):
        fit(task, rows(2))
    assert all(torch.equal(value, before[name]) for name, value in weights(task).items())


@pytest.mark.gpu
@pytest.mark.parametrize(("every", "done"), [(2, 4), (0, 5)])
def test_bad_loss_on_a_device_is_noticed_where_losses_are_logged(every, done):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    task = Fit(3)
    first, second, third, fourth, fifth = rows(2, 2, 2, 2, 2)
    counted = Rates()
    with pytest.raises(FloatingPointError, match="batch 2,"):
        fit(
            task,
            [first, second, bad(third), fourth, fifth],
            accelerator="gpu",
            log_every_n_steps=every,
            callbacks=[counted],
        )
    assert len(counted.seen) == done


# several processes, without starting any: what one all-reduce would give


def share(task, monkeypatch, sizes, rank):
    total = sum(float(size) for size in sizes)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: tensor.fill_(total))
    task._trainer = types.SimpleNamespace(world_size=len(sizes))
    return task._share(sizes[rank], torch.float64)


def test_shares_turn_the_mean_over_processes_into_the_mean_over_samples(monkeypatch):
    losses, sizes = torch.tensor([2.0, 5.0, 11.0], dtype=torch.float64), [3, 1, 4]
    each = [loss * share(Fit(1), monkeypatch, sizes, rank) for rank, loss in enumerate(losses)]
    assert float(sum(each) / 3) == pytest.approx((3 * 2 + 1 * 5 + 4 * 11) / 8, rel=1e-12)
    assert [float(share(Fit(1), monkeypatch, [0, 0], rank)) for rank in (0, 1)] == [0, 0]  # nothing known anywhere
    assert [float(share(Fit(1), monkeypatch, [torch.tensor(0), torch.tensor(6)], rank)) for rank in (0, 1)] == [0, 2]


def test_shares_of_weighted_classes(monkeypatch):
    """Two processes with other classes give the gradient of one: the mean is over weights, not samples."""
    torch.manual_seed(0)
    x, y = torch.randn(6, 3, dtype=torch.float64), torch.tensor([0, 0, 0, 1, 1, 2])
    task = Classification(Probe(3, 3), 3, class_weights=[1, 5, 0.5]).double()
    slopes = []
    shards = [(x[:4], y[:4]), (x[4:], y[4:])]
    sizes = [task.step(shard).size for shard in shards]
    for rank, shard in enumerate(shards):
        loss = task.step(shard).loss * share(task, monkeypatch, sizes, rank)
        slopes.append(torch.autograd.grad(loss, task.model.linear.weight)[0])
    whole = torch.autograd.grad(task.step((x, y)).loss, task.model.linear.weight)[0]
    torch.testing.assert_close(sum(slopes) / 2, whole, rtol=1e-12, atol=1e-15)


# copies


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda task: pickle.loads(pickle.dumps(task))])
def test_copies_are_whole_and_independent(when, duplicate):
    task = Fit(3, optimizer=SGD)
    (batch,) = rows(4)
    if when == "after":
        fit(task, [batch], [batch])
    task.penalties["sum"] = Decay(0.1).sum
    twin = duplicate(task)
    assert twin._record == task._record
    assert dict(twin.hparams) == dict(task.hparams)
    assert torch.equal(twin(batch), task(batch))
    before = weights(task)
    fit(twin, [batch])
    assert all(torch.equal(value, before[name]) for name, value in weights(task).items())
    expected = one_step(task, batch, [Decay(0.1).sum])
    for name, value in weights(twin).items():
        torch.testing.assert_close(value, expected[name])


# what networks take


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, left, right=None):
        return self.linear(left if right is None else left + right)


@pytest.mark.filterwarnings("ignore:.*cannot be written as plain data")
def test_batches_of_every_kind():
    (x, z), *_ = rows(4)
    y = torch.tensor([0, 1, 1, 0])
    task = Classification(Named(), 2)
    expected = task.model.linear(x + z)
    for batch in [(x, z, y), [x, z, y], {"left": x, "right": z, "y": y}, Data(left=x, right=z, y=y)]:
        step = task.step(batch)
        torch.testing.assert_close(step.prediction, expected)
        assert step.size == 4
    torch.testing.assert_close(task.step({"left": x, "y": y}).prediction, task.model.linear(x))
    # every kind trains, too
    for batch in [(x, z, y), {"left": x, "right": z, "y": y}]:
        assert fit(task, [batch], [batch]).global_step == 1


def test_batches_of_graphs():
    edge = torch.tensor([[0], [1]])
    graphs = [Data(x=torch.randn(n, 3), edge_index=edge, y=torch.tensor([n % 2])) for n in (2, 3, 4)]
    batch = Batch.from_data_list(graphs)
    task = Classification(GraphClassifier(3, 2, hidden_channels=4, num_layers=1, norm="none"), 2).eval()
    step = task.step(batch)
    assert step.size == 3
    alone = torch.cat([task.step(Batch.from_data_list([graph])).prediction for graph in graphs])
    torch.testing.assert_close(step.prediction, alone)


class WithoutStage(Task):
    def step(self, batch):
        return Step(batch.sum(), batch, batch, 1)


def test_a_step_without_stage_is_refused_at_construction():
    with pytest.raises(TypeError, match=r"WithoutStage.step.*stage"):
        WithoutStage(Probe(1, 1))


class Extra(Fit):
    def step(self, batch, stage="train"):
        step = super().step(batch, stage)
        return Step(step.loss, step.prediction, step.target, step.size, {"norm": step.prediction.norm()})


def test_further_values_of_a_step_are_logged_under_its_stage():
    run = fit(Extra(3), rows(4), rows(4))
    assert set(run.callback_metrics) == {"train/loss", "train/norm", "val/loss", "val/norm"}
