"""Training over environments: limits, state in the checkpoint, every kind of target, and what is refused."""

import functools
from types import SimpleNamespace

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch_geometric.data import Data

from graphseq.core import DataError, UnsupportedStrategyError
from graphseq.data import GraphDataModule, TrianglesDataModule
from graphseq.models import GraphClassifier
from graphseq.nn import CORAL, EnvironmentBatch, GroupDRO, InvariantRisk, VarianceRisk
from graphseq.tasks import Classification, MultiEnvironment
from tests.reference import reweight as reference
from tests.reliability.runs import graphs, trainer

pytestmark = pytest.mark.filterwarnings("ignore:You defined a", "ignore:Total length", "ignore:.*LeafSpec")
ADAM = functools.partial(torch.optim.Adam, lr=0.01)
OBJECTIVES = {
    "irm": functools.partial(InvariantRisk, scale=3.0),
    "vrex": functools.partial(VarianceRisk, scale=3.0),
    "coral": functools.partial(CORAL, scale=3.0),
    "dro": functools.partial(GroupDRO, 3, step_size=0.5),
}


def network():
    return GraphClassifier(3, 3, hidden_channels=8, num_layers=2, dropout=0.2)


def module(environments=3, batch_size=8):
    data = [
        Data(x=g.x, edge_index=g.edge_index, y=g.y, env=torch.tensor([n % environments]))
        for n, g in enumerate(graphs())
    ]
    return GraphDataModule(data, split="stratified", batch_size=batch_size)


def run(make_task, seed=0, data=None, checkpoint=None, **options):
    lightning.seed_everything(seed, verbose=False)
    task = make_task(network())
    fit = trainer(**{"max_epochs": 2, **options})
    fit.fit(task, data or module(), ckpt_path=checkpoint, weights_only=True if checkpoint else None)
    return task


def same(left, right):
    left, right = left.model.state_dict(), right.model.state_dict()
    return all(torch.equal(value, right[name]) for name, value in left.items())


@pytest.mark.parametrize("name", OBJECTIVES)
def test_one_batch_equals_the_loops(name):
    batch = module().store.take(torch.arange(14))
    task = MultiEnvironment(network().eval().double(), 3, objective=OBJECTIVES[name]().double())
    batch.x = batch.x.double()
    output, z = (value.tolist() for value in task.represent(batch))
    labels, env = batch.y.tolist(), batch.env.tolist()
    expected = {
        "irm": lambda: reference.invariant_risk(output, labels, env, 3.0),
        "vrex": lambda: reference.variance_risk(output, labels, env, 3.0),
        "coral": lambda: reference.mean_risk(output, labels, env) + 3 * reference.coral(z, env),
        "dro": lambda: reference.group_dro(output, labels, env, [1 / 3] * 3, 0.5)[0],
    }[name]()
    assert float(task.step(batch).loss.detach()) == pytest.approx(expected, rel=1e-10)
    plain = reference.risk(output, labels, list(range(14)))
    assert float(task.step(batch, "val").loss.detach()) == pytest.approx(plain, rel=1e-10)


@pytest.mark.parametrize("name", ["vrex", "coral", "dro"])
def test_one_environment_is_classification(name):
    objective = GroupDRO(1) if name == "dro" else OBJECTIVES[name]()
    task = run(lambda m: MultiEnvironment(m, 3, objective=objective, optimizer=ADAM), data=module(1))
    plain = run(lambda m: Classification(m, 3, optimizer=ADAM), data=module(1))
    for (name, left), right in zip(task.model.named_parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_before_the_start_it_is_classification(name):
    task = run(lambda m: MultiEnvironment(m, 3, objective=OBJECTIVES[name](), start_epoch=2, optimizer=ADAM))
    plain = run(lambda m: Classification(m, 3, optimizer=ADAM))
    assert same(task, plain)
    assert not same(run(lambda m: MultiEnvironment(m, 3, objective=OBJECTIVES[name](), optimizer=ADAM)), plain)


class Interrupted(Exception):
    pass


class SaveAndStop(Callback):
    def __init__(self, path):
        self.path = path

    def on_train_batch_end(self, trainer, task, outputs, batch, batch_idx):
        if trainer.global_step == 8:
            trainer.save_checkpoint(self.path)
            raise Interrupted


@pytest.mark.parametrize("name", OBJECTIVES)
def test_resume_equals_the_uninterrupted_run(name, tmp_path):
    def build(model):
        return MultiEnvironment(model, 3, objective=OBJECTIVES[name](), optimizer=ADAM)

    expected = run(build)
    with pytest.raises(Interrupted):
        run(build, callbacks=[SaveAndStop(tmp_path / "k.ckpt")])
    task = run(build, seed=4, checkpoint=tmp_path / "k.ckpt")
    found = task.state_dict()
    assert all(torch.equal(value, found[key]) for key, value in expected.state_dict().items())
    if name == "dro":
        assert float(found["objective.share"].std()) > 0


def test_what_is_logged():
    class Read(Callback):
        def on_train_epoch_end(self, trainer, task):
            self.values = dict(trainer.callback_metrics)

    for name, logged in (("vrex", "train/environment_penalty"), ("dro", "train/worst_environment")):
        read = Read()
        run(lambda m, objective=name: MultiEnvironment(m, 3, objective=OBJECTIVES[objective]()), callbacks=[read])
        assert {"train/loss", logged, "val/loss", "val/acc", "val/f1"} <= read.values.keys()


@pytest.mark.parametrize("target", ["multilabel", "regression"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_missing_targets(name, target):
    batch = module().store.take(torch.arange(12))
    batch.y = torch.randint(0, 2, (12, 3)).float()
    batch.y[::2, 1] = float("nan")
    batch.y[batch.env == 2] = float("nan")  # an environment of which nothing is known
    task = MultiEnvironment(network(), 3, target=target, objective=OBJECTIVES[name]())
    step = task.step(batch)
    step.loss.backward()
    assert int(step.size) == int((~torch.isnan(batch.y)).sum())
    assert all(torch.isfinite(p.grad).all() for p in task.model.parameters())


def test_the_shared_feature_is_preferred():
    """V-REx drops the feature whose meaning differs between environments; the plain mean uses it."""
    draws = torch.Generator().manual_seed(0)
    data = []
    for number in range(400):
        env, y = number % 2, int(torch.randint(0, 2, (1,), generator=draws))
        agree = torch.rand(1, generator=draws) < (0.95 if env else 0.7)
        sign = (2 * y - 1) * (1 if agree else -1)
        cause = (2 * y - 1) * (1 if torch.rand(1, generator=draws) < 0.75 else -1)
        x = torch.tensor([[float(cause), float(sign)]])
        data.append(
            Data(x=x, edge_index=torch.zeros(2, 0, dtype=torch.int64), y=torch.tensor([y]), env=torch.tensor([env]))
        )
    split = {"train": list(range(400)), "val": [], "test": []}
    shares = {}
    for scale in (0.0, 30.0):
        lightning.seed_everything(0, verbose=False)
        model = GraphClassifier(2, 2, hidden_channels=8, num_layers=1, conv="sage", norm="none")
        task = MultiEnvironment(model, 2, objective=VarianceRisk(scale), optimizer=ADAM)
        trainer(max_epochs=40).fit(task, GraphDataModule(data, split=split, batch_size=200))
        with torch.no_grad():
            ends = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0]])
            logit = model(ends, torch.zeros(2, 0, dtype=torch.int64), batch=torch.arange(3)).diff(dim=1).flatten()
        shares[scale] = float((logit[0] - logit[1]) / (logit[0] - logit[2]).clamp(min=1e-3))  # of sign against cause
    assert shares[30.0] < 0.7 * shares[0.0]


def test_refuses():
    batch = next(iter(GraphDataModule(graphs(), batch_size=8).train_dataloader()))
    with pytest.raises(DataError, match="`env`"):
        MultiEnvironment(network(), 3).step(batch)
    with pytest.raises(ValueError, match="start_epoch"):
        MultiEnvironment(network(), 3, start_epoch=-1)
    task = MultiEnvironment(network(), 3)
    task._trainer = SimpleNamespace(world_size=2)
    with pytest.raises(UnsupportedStrategyError, match="one process"):
        task.setup("fit")


@pytest.mark.parametrize("name", OBJECTIVES)
def test_environments_that_data_modules_number(name):
    """Size bins of training graphs are the numbers that the objectives ask for; larger graphs are not trained on."""
    data = TrianglesDataModule(num_train=60, num_val=10, num_test=20, num_environments=3, batch_size=20)
    lightning.seed_everything(0, verbose=False)
    model = GraphClassifier(data.num_features, data.num_outputs, hidden_channels=8, num_layers=2)
    task = MultiEnvironment(model, data.num_outputs, objective=OBJECTIVES[name](), optimizer=ADAM)
    fit = trainer(max_epochs=2)
    fit.fit(task, data)
    assert all(torch.isfinite(p).all() for p in task.parameters())
    assert {"test/loss", "test/acc"} <= fit.test(task, data, verbose=False)[0].keys()


def test_columns_of_a_batch_that_would_be_broadcast():
    terms, sizes, env = torch.rand(4), torch.ones(4), torch.tensor([0, 1, 0, 1])
    output = torch.randn(4, 2, requires_grad=True)
    for wrong, said in [
        ((terms, sizes[:, None], env, output, output), r"sizes \(4, 1\)"),
        ((terms, sizes, env, output[:3], output), r"prediction is \(3, 2\)"),
        ((terms[:0], sizes[:0], env[:0], output[:0], output[:0]), r"terms is \(0,\)"),
    ]:
        with pytest.raises(DataError, match=said):
            EnvironmentBatch(*wrong)
    with pytest.raises(DataError, match="InvariantRisk needs one"):
        InvariantRisk()(EnvironmentBatch(terms, sizes, env, output, output))
    with pytest.raises(DataError, match=r"representation is \(4, 2, 1\)"):
        CORAL()(EnvironmentBatch(terms, sizes, env, output, output[..., None]))
    flat, column = output[:, 0], output[:, :1]
    one = InvariantRisk()(EnvironmentBatch(flat**2, sizes, env, flat, flat))[0]
    torch.testing.assert_close(one, InvariantRisk()(EnvironmentBatch((column**2)[:, 0], sizes, env, column, column))[0])
