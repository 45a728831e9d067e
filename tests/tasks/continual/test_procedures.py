"""Procedures over several tasks: penalties against loops, what is noted and when, heads, growth, and refusals."""

import functools

import lightning
import pytest
import torch
from torch import nn
from torch.nn import functional

from graphseq.core import DataError, TaskBatch, make
from graphseq.data import SplitTasksDataModule
from graphseq.models import MLP
from graphseq.nn import ChunkedHyperNetwork, OutputRegularizer, RNNHyperNetwork
from graphseq.tasks import (
    ContinualHypernet,
    ElasticWeightConsolidation,
    ExperienceReplay,
    GrowthRule,
    SequentialFinetuning,
    extend_optimizer,
)
from graphseq.tasks.continual.fisher import diagonal_fisher
from tests.reliability.runs import trainer

ADAM = functools.partial(torch.optim.Adam, lr=0.01)


def digits(**options):
    groups = [[0, 1], [2, 3], [4, 5]]
    return SplitTasksDataModule("digits", groups, epochs_per_task=1, batch_size=64, **options)


def hypernet(growth=None, weighted=False, beta=0.1):
    model = RNNHyperNetwork(MLP(64, 2, 4), 3, task_size=3, layer_size=3, hidden_size=4, chunk_size=50)
    regularizer = OutputRegularizer(beta, weighted=weighted)
    return ContinualHypernet(model, 2, 3, regularizer=regularizer, growth=growth, optimizer=ADAM)


class Watch(lightning.Callback):
    """What a task held at its first step of each task, and its loss."""

    def __init__(self):
        self.kept, self.noted, self.weights, self.embeddings, self.moments = {}, {}, {}, {}, {}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        task = batch.task
        if task not in self.weights:  # before the task changes
            with torch.no_grad():
                self.weights[task] = [pl_module.model.weights(t) for t in range(3)]
            self.embeddings[task] = [each.detach().clone() for each in pl_module.model.task_embeddings]

    def on_before_zero_grad(self, trainer, pl_module, optimizer):
        task = int(pl_module.current_task)
        if task not in self.kept:
            batch = TaskBatch(torch.zeros(1, 1, 8, 8), torch.zeros(1, dtype=torch.int64), task)
            self.kept[task] = pl_module.keep(batch)
            self.noted[task] = pl_module.noted.clone()
            self.moments[task] = len(optimizer.state)


@pytest.fixture(scope="module")
def run():
    lightning.seed_everything(0, verbose=False)
    task, data, watch = hypernet(weighted=True), digits(), Watch()
    started = trainer(callbacks=[watch])  # 3 epochs
    started.fit(task, data)
    return task, data, watch, started


def test_hypernet_notes_weights_before_the_task_and_leaves_embeddings(run):
    task, _, watch, _ = run
    assert watch.kept[0] is None
    for now in (1, 2):
        for earlier in range(now):
            flat = torch.cat([w.flatten() for w in watch.weights[now][earlier].values()])
            assert torch.equal(watch.noted[now][earlier], flat)
        assert not watch.noted[now][now:].any()
        assert not watch.noted[now].requires_grad
    for earlier in range(2):  # an embedding is not trained after its task
        assert torch.equal(task.model.task_embeddings[earlier], watch.embeddings[earlier + 1][earlier])
    assert not torch.equal(task.model.task_embeddings[2], watch.embeddings[2][2])
    assert not torch.equal(task.noted, torch.zeros_like(task.noted))
    assert watch.moments == {0: 0, 1: 0, 2: 0}  # the optimiser starts anew with each task


def test_hypernet_penalty_is_the_loop(run):
    task, _, _, _ = run
    batch = TaskBatch(torch.zeros(1, 1, 8, 8), torch.zeros(1, dtype=torch.int64), 2)
    total = 0.0
    for earlier in range(2):
        flat = torch.cat([w.flatten() for w in task.model.weights(earlier).values()])
        total = total + (task.importance[earlier] * (flat - task.noted[earlier]) ** 2).sum()
    kept = task.keep(batch)
    torch.testing.assert_close(kept, 0.1 * total / 2)
    assert kept > 0
    gradients = torch.autograd.grad(kept, list(task.model.task_embeddings), allow_unused=True)
    assert gradients == (None, None, None)
    task.begin_task(2)  # right after the note nothing has changed
    assert task.keep(batch) == 0
    torch.testing.assert_close(task.importance[:2].mean(1), torch.ones(2))


def test_accuracies_are_noted_after_each_task(run):
    task, data, _, started = run
    assert not task.accuracies.triu(1).any()
    assert (task.accuracies.diagonal() > 0.5).all()
    assert float(started.callback_metrics["val/final_acc"]) == pytest.approx(float(task.accuracies[2].mean()))
    lost = (task.accuracies.diagonal()[:2] - task.accuracies[2, :2]).mean()
    assert float(started.callback_metrics["val/forgetting"]) == pytest.approx(float(lost), abs=1e-6)
    (row,) = trainer().test(task, data, verbose=False)
    accuracies = []
    for number in range(3):
        batches = [batch for batch in data.batches("test") if batch.task == number]
        hits = torch.cat([task(batch).argmax(1) == batch.y for batch in batches])
        accuracies.append(float(hits.float().mean()))
    assert row["test/acc"] == pytest.approx(sum(accuracies) / 3, abs=1e-5)


def test_fisher_is_the_loop_over_samples():
    network = nn.Linear(3, 2).double()
    x, y = torch.randn(5, 3, dtype=torch.float64), torch.randint(2, (5,))
    batches = [TaskBatch(x[:3], y[:3], 0), TaskBatch(x[3:], y[3:], 0)]
    weights = dict(network.named_parameters())
    found = diagonal_fisher(lambda w, x: functional.linear(x, w["weight"], w["bias"]), weights, batches)
    expected = {name: torch.zeros_like(value) for name, value in weights.items()}
    for n in range(5):
        loss = functional.cross_entropy(network(x[n : n + 1]), y[n : n + 1])
        for name, gradient in zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True):
            expected[name] += gradient**2 / 5
    for name in expected:
        torch.testing.assert_close(found[name], expected[name])


class Given(SplitTasksDataModule):
    """One batch for each task."""

    def task_batches(self, task):
        yield TaskBatch(torch.eye(4)[task : task + 2] + 0.5, torch.tensor([0, 1]), task)


def test_consolidation_and_replay(monkeypatch):
    data = Given("digits", [[0, 1], [2, 3]])
    ewc = ElasticWeightConsolidation(MLP(4, 6, num_layers=1), 2, 3, num_heads=3, strength=3.0)
    replay = ExperienceReplay(MLP(4, 6, num_layers=1), 2, 3, num_heads=3, samples_per_task=1)
    batch = TaskBatch(torch.randn(6, 4), torch.tensor([0, 1, 1, 0, 1, 0]), 2)
    for task in (ewc, replay):
        monkeypatch.setattr(type(task), "datamodule", data)
        assert task.keep(TaskBatch(batch.x, batch.y, 0)) is None
        task.end_task(0)
    weight = ewc.model.head.weight
    assert ewc.penalty() == 0
    ewc.end_task(0)  # once more: importances add up
    anchor = weight.detach().clone()
    with torch.no_grad():
        weight += 0.1 * torch.randn_like(weight)
    (given,) = data.task_batches(0)
    importance = torch.zeros_like(weight)
    for x, y in zip(given.x, given.y, strict=True):
        p = torch.softmax((anchor @ x + ewc.model.head.bias.detach())[:2], 0)
        error = p - functional.one_hot(y, 2)
        importance[:2] += (error[:, None] * x).square() / 2  # heads of other tasks have no information
    torch.testing.assert_close(ewc.penalty(), 2 * 1.5 * (importance * (weight - anchor).square()).sum())
    assert ewc.keep(batch) == ewc.penalty()
    memory = replay.memory
    assert len(memory) == 1
    logits = replay.model(memory.x)[:, :2]  # the head of the task of the sample
    torch.testing.assert_close(replay.keep(batch), 2 * functional.cross_entropy(logits, memory.y))


def test_growth_after_a_bad_trial_and_only_then():
    for threshold, size in ((0.0, 7), (50.0, 4)):
        lightning.seed_everything(0, verbose=False)
        task = hypernet(GrowthRule(3, threshold, trial_steps=2))
        trainer(max_epochs=2, limit_train_batches=4, limit_val_batches=0).fit(task, digits())
        assert task.model.hidden_size == size
        (optimizer,) = [task.optimizers(use_pl_optimizer=False)]
        held = {id(each) for group in optimizer.param_groups for each in group["params"]}
        assert held == {id(each) for each in task.parameters()}


def test_optimizer_keeps_its_state_of_old_units():
    model = RNNHyperNetwork(MLP(3, 2, 2), 1, task_size=2, layer_size=2, hidden_size=3, chunk_size=5)
    adam = torch.optim.Adam(model.parameters(), lr=0.1)
    model.generate(torch.stack(list(model.task_embeddings))).square().sum().backward()
    adam.step()
    before = {name: adam.state[each]["exp_avg"].clone() for name, each in model.named_parameters()}
    extend_optimizer(adam, model.grow(2))
    parameters = dict(model.named_parameters())
    assert set(adam.state) == set(parameters.values())
    moment = adam.state[parameters["rnn.weight_hh_l0"]]["exp_avg"].view(4, 5, 5)
    assert torch.equal(moment[:, :3, :3].flatten(0, 1), before["rnn.weight_hh_l0"])
    assert not moment[:, 3:].any()
    assert not moment[:, :, 3:].any()
    assert torch.equal(adam.state[parameters["output.weight"]]["exp_avg"][:, :3], before["output.weight"])
    assert torch.equal(adam.state[parameters["output.bias"]]["exp_avg"], before["output.bias"])
    adam.step()


def test_heads_and_refusals():
    task = SequentialFinetuning(MLP(4, 6), 2, 3, num_heads=3)
    output = torch.arange(12.0).view(2, 6)
    assert task.head_of(output, 1).tolist() == [[2, 3], [8, 9]]
    assert task.head_of(output, torch.tensor([2, 0])).tolist() == [[4, 5], [6, 7]]
    with pytest.raises(ValueError, match=r"num_heads=3"):
        task.head_of(output[:, :4], 0)
    with pytest.raises(ValueError, match="more tasks than heads"):
        SequentialFinetuning(MLP(4, 4), 2, 3, num_heads=2)
    with pytest.raises(ValueError, match="strength"):
        ElasticWeightConsolidation(MLP(4, 2), 2, 3, strength=-1.0)
    with pytest.raises(ValueError, match="samples_per_task"):
        ExperienceReplay(MLP(4, 2), 2, 3, samples_per_task=0)
    with pytest.raises(TypeError, match="hypernetwork"):
        ContinualHypernet(MLP(4, 2), 2, 3)
    chunked = ChunkedHyperNetwork(MLP(64, 2, 4), 2, chunk_size=50)
    with pytest.raises(ValueError, match="num_tasks is 3"):
        ContinualHypernet(chunked, 2, 3)
    with pytest.raises(TypeError, match="cannot grow"):
        ContinualHypernet(chunked, 2, 2, growth=GrowthRule(1, 0.1))
    for options in ({"num_units": 0}, {"trial_steps": 1}):
        with pytest.raises(ValueError, match=next(iter(options))):
            GrowthRule(**{"num_units": 1, "threshold": 0.1, **options})
    with pytest.raises(DataError, match="num_tasks=3"):
        trainer().fit(SequentialFinetuning(MLP(64, 2), 2, 2), digits())
    with pytest.raises(TypeError, match="SplitTasksDataModule"):
        ElasticWeightConsolidation(MLP(64, 2), 2, 3).task_batches(0)


def test_a_loaded_task_is_tested_on_what_it_has_learned(tmp_path):
    lightning.seed_everything(0, verbose=False)
    task, data = hypernet(), digits()
    run = trainer(max_epochs=2, limit_val_batches=0)
    run.fit(task, data)
    run.save_checkpoint(tmp_path / "two.ckpt")
    fresh = hypernet()
    (row,) = trainer().test(fresh, data, ckpt_path=tmp_path / "two.ckpt", weights_only=True, verbose=False)
    accuracies = []
    for number in range(2):
        batches = [batch for batch in data.batches("test") if batch.task == number]
        accuracies.append(float(torch.cat([task(batch).argmax(1) == batch.y for batch in batches]).float().mean()))
    assert row["test/acc"] == pytest.approx(sum(accuracies) / 2, abs=1e-5)
    assert task.accuracies[0, 0] > 0.5  # noted when the second task began, although nothing was validated
    assert len(trainer().predict(fresh, data)) == len(data.predict_dataloader())


def test_batches_and_numbers_of_tasks_that_do_not_fit():
    task = SequentialFinetuning(make(nn.Linear, 4, 6), num_outputs=2, num_tasks=3, num_heads=3)
    x, y = torch.ones(2, 4), torch.tensor([0, 1])
    with pytest.raises(DataError, match="a batch is a tuple"):
        task.step((x, y))
    for number in (-1, 3):
        with pytest.raises(ValueError, match=f"a batch is of task {number}"):
            task.step(TaskBatch(x, y, number))
    hyper = ChunkedHyperNetwork(make(nn.Linear, 4, 2), 2)
    with pytest.raises(ValueError, match=r"a tensor \(2,\)"):
        hyper(x, y)
