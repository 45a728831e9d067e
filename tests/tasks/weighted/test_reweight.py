"""The bi-level procedure: its limits, who moves when, resuming, and what it refuses."""

import functools
import gc
import time
import warnings
from types import SimpleNamespace

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch_geometric.data import Data

import graphseq
from graphseq.core import CheckpointError, DataError, UnsupportedStrategyError, make
from graphseq.data import GraphDataModule
from graphseq.models import GraphClassifier, GraphEncoder
from graphseq.nn import DecorrelationOuter, FeatureQueue, SampleWeights, UnrolledOuter
from graphseq.nn.reweighting.outer import OuterBatch
from graphseq.ops import effective_sample_size
from graphseq.tasks import Classification, Regression, Reweighted
from graphseq.tasks.weighted.virtual import VirtualLearners
from tests.reliability.runs import graphs, trainer

pytestmark = pytest.mark.filterwarnings(
    "ignore:validation samples seem", "ignore:You defined a", "ignore:Total length", "ignore:.*LeafSpec"
)

FROZEN = functools.partial(torch.optim.SGD, lr=0.0)
ADAM = functools.partial(torch.optim.Adam, lr=0.01)


def network(dropout=0.0):
    return GraphClassifier(3, 3, hidden_channels=8, num_layers=2, dropout=dropout)


def separate_network():
    """Without batch norm: what a graph gives does not depend on the others of its batch."""
    return GraphClassifier(3, 3, hidden_channels=8, num_layers=2, conv="sage", norm="layer")


def run(make_task, *, dropout=0.0, seed=0, count=60, checkpoint=None, data=None, **options):
    """Fit a task on small graphs; every run of one seed starts from the same network."""
    lightning.seed_everything(seed, verbose=False)
    data = data or GraphDataModule(graphs(count), split="stratified", batch_size=8)
    task = make_task(network(dropout))
    fit = trainer(**{"max_epochs": 2, **options})
    fit.fit(task, data, ckpt_path=checkpoint, weights_only=True if checkpoint else None)
    return task


def classification(model):
    return Classification(model, 3, optimizer=ADAM)


def reweighted(model, outer=None, **options):
    return Reweighted(model, 3, outer=outer, optimizer=ADAM, **{"start_epoch": 0, **options})


def same(left, right):
    left, right = left.model.state_dict(), right.model.state_dict()
    return all(torch.equal(value, right[name]) for name, value in left.items())


# limits


def test_a_single_cluster_gives_the_numbers_of_classification():
    expected = run(classification, dropout=0.3)
    task = run(lambda m: reweighted(m, DecorrelationOuter(num_clusters=1), held_out=0.0), dropout=0.3)
    assert same(task, expected)
    assert not task.weights.logit.any()
    assert len(task.outer.cluster) == 8
    assert len(task.queue) == 32


def test_without_outer_weights_nothing_is_learned():
    outer = UnrolledOuter(scale=0.0, decorrelation=DecorrelationOuter(scale=0.0))
    task = run(lambda m: reweighted(m, outer, held_out=0.0, beta=0.5))
    assert not task.weights.logit.any()
    assert same(task, run(classification))


@pytest.mark.parametrize("scope", ["head", "all"])
def test_virtual_steps_leave_the_network_alone(scope):
    """Weights that stay equal: parameters, running statistics and gradients are those of classification."""
    outer = UnrolledOuter(scope, steps=2, lr=0.5)
    task = run(lambda m: reweighted(m, outer, held_out=0.0, weight_optimizer=FROZEN, weight_steps=2))
    assert same(task, run(classification))


def test_weights_move_while_the_network_stands_still():
    task = run(lambda m: Reweighted(m, 3, start_epoch=0, optimizer=FROZEN))
    still = run(lambda m: Classification(m, 3, optimizer=FROZEN))
    assert all(torch.equal(value, still.model.state_dict()[name]) for name, value in task.model.named_parameters())
    moved = task.weights.logit.detach() != 0
    assert moved.any()
    training = torch.zeros(60, dtype=torch.bool)
    training[task.trainer.datamodule.splits["train"]] = True
    assert not moved[~training].any()  # no sample of validation or test has a weight


def test_weights_wait_for_the_first_epochs():
    task = run(lambda m: reweighted(m, start_epoch=2))
    assert not task.weights.logit.any()
    assert len(task.queue) == 32
    assert same(task, run(classification))


class Watch(Callback):
    """What has a gradient, and what moved, at each step of the weights and of the network."""

    def __init__(self):
        self.weights, self.network = [], []

    def on_train_batch_start(self, trainer, task, batch, batch_idx):
        task.model.zero_grad(set_to_none=True)
        self.before = [p.detach().clone() for p in task.model.parameters()]

    def on_before_optimizer_step(self, trainer, task, optimizer):
        if isinstance(optimizer, torch.optim.SparseAdam):
            self.weights.append([p.grad is None for p in task.model.parameters()])
        else:
            still = all(torch.equal(a, b) for a, b in zip(self.before, task.model.parameters(), strict=True))
            self.network.append(still)
            self.logit = task.weights.logit.detach().clone()

    def on_train_batch_end(self, trainer, task, outputs, batch, batch_idx):
        assert torch.equal(self.logit, task.weights.logit)  # the step of the network leaves the weights alone
        assert not task.queue.z.requires_grad
        assert not task.queue.logit.requires_grad


@pytest.mark.parametrize("outer", [DecorrelationOuter("all"), UnrolledOuter("head"), UnrolledOuter("all", lr=0.1)])
def test_no_gradient_crosses_from_one_step_to_the_other(outer):
    watch = Watch()
    task = run(lambda m: reweighted(m, outer, weight_steps=2), callbacks=[watch])
    assert len(watch.weights) == 24
    assert len(watch.network) == 12
    assert all(all(empty) for empty in watch.weights)  # a step of the weights leaves no gradient in the network
    assert all(watch.network)  # nor moves it
    assert task.weights.logit.any()


@pytest.mark.slow
def test_memory_does_not_grow():
    class Count(Callback):
        def __init__(self):
            self.found = []

        def on_train_batch_end(self, trainer, task, outputs, batch, batch_idx):
            if trainer.current_epoch % 10 == 9 and batch_idx == 3:
                gc.collect()
                self.found.append(sum(issubclass(type(each), torch.Tensor) for each in gc.get_objects()))

    count = Count()
    outer = UnrolledOuter(decorrelation=DecorrelationOuter(num_clusters=3))
    run(lambda m: reweighted(m, outer), callbacks=[count], max_epochs=40, limit_val_batches=0)  # 240 steps
    assert len(count.found) == 4
    assert count.found[-1] <= count.found[0] + 2, count.found


# losses


def labels_with_gaps(kind):
    draws = torch.Generator().manual_seed(3)
    out = []
    for number, graph in enumerate(graphs(12)):
        y = torch.randint(0, 2, (1, 3), generator=draws).float()
        y = y + 0.3 * number if kind == "regression" else y
        y[0, number % 4 :] = float("nan") if number % 2 else y[0, number % 4 :]
        out.append(Data(x=graph.x, edge_index=graph.edge_index, y=y))
    return out


@pytest.mark.parametrize("kind", ["multiclass", "multilabel", "regression"])
def test_equal_weights_give_the_usual_loss(kind):
    data = graphs(12) if kind == "multiclass" else labels_with_gaps(kind)
    batch = GraphDataModule(data, split={"train": list(range(12)), "val": [], "test": []}).store.take(torch.arange(12))
    model = separate_network()
    task = Reweighted(model, 3, target=kind, weights=SampleWeights(12))
    usual = Regression(model, 3) if kind == "regression" else Classification(model, 3, target=kind)
    for stage in ("train", "val"):
        mine, theirs = task.step(batch, stage), usual.step(batch, stage)
        torch.testing.assert_close(mine.loss, theirs.loss)
        assert int(mine.size) == int(theirs.size)
        torch.testing.assert_close(mine.prediction, theirs.prediction)
        for left, right in zip(
            torch.autograd.grad(mine.loss, list(model.parameters())),
            torch.autograd.grad(theirs.loss, list(model.parameters())),
            strict=True,
        ):
            torch.testing.assert_close(left, right)


@pytest.mark.parametrize("kind", ["multiclass", "multilabel"])
def test_weights_weigh_the_terms_of_their_samples(kind):
    data = graphs(6) if kind == "multiclass" else labels_with_gaps(kind)[:6]
    store = GraphDataModule(data, split={"train": [0, 1, 2, 3, 4, 5], "val": [], "test": []}).store
    task = Reweighted(separate_network(), 3, target=kind, weights=SampleWeights(6, ess_min=0.0))
    task.weights.logit.data = torch.tensor([0.0, 1.0, -1.0, 2.0, 0.5, 0.0])
    order = torch.tensor([3, 0, 5, 2, 1, 4])
    found = float(task.step(store.take(order)).loss.detach())
    weight = 6 * task.weights.logit.detach().softmax(0)
    total = known = 0.0
    for number in range(6):
        batch = store.take(torch.tensor([number]))
        step = task.step(batch, "val")
        total += float(weight[number]) * float(step.loss.detach()) * float(step.size)
        known += float(step.size)
    assert found == pytest.approx(total / known, rel=1e-5)


# what the outer objective sees


class Spy(nn.Module):
    def __init__(self, needs_validation=False):
        super().__init__()
        self.decorrelation = DecorrelationOuter("all")
        self.needs_validation = needs_validation
        self.seen = []

    def forward(self, batch):
        self.seen.append(batch)
        return batch.weight.sum() * 0, {}


@pytest.mark.filterwarnings("ignore:.*cannot be written")
def test_held_out_samples_are_disjoint_from_those_trained_on():
    spy = Spy()
    run(lambda m: reweighted(m, spy, held_out=0.25), max_epochs=1)
    assert [(len(b.representation), len(b.weight), len(b.train_weight)) for b in spy.seen] == [
        (2 + 8 * min(number, 4), 2 + 8 * min(number, 4), 6) for number in range(6)
    ]
    assert not any(b.representation.requires_grad for b in spy.seen)
    assert all(b.weight.requires_grad and b.learner is None for b in spy.seen)


@pytest.mark.filterwarnings("ignore:.*cannot be written")
def test_held_out_samples_have_no_part_in_the_loss():
    class Watch(Callback):
        def __init__(self):
            self.parts = []

        def on_before_optimizer_step(self, trainer, task, optimizer):
            if isinstance(optimizer, torch.optim.SGD):
                self.parts.append([p.grad.clone() for p in task.model.parameters()])

    watch, spy = Watch(), Spy()
    sgd = functools.partial(torch.optim.SGD, lr=0.0)
    data = GraphDataModule(graphs(20), split={"train": list(range(16)), "val": [], "test": []}, batch_size=16)
    task = run(
        lambda m: Reweighted(separate_network(), 3, outer=spy, held_out=0.25, start_epoch=0, optimizer=sgd),
        data=data,
        callbacks=[watch],
        max_epochs=1,
    )
    with torch.no_grad():
        everything = task.represent(data.store.take(torch.arange(16)))[1]
    held = {
        int((everything - row).abs().sum(1).argmin()) for row in spy.seen[0].representation
    }  # found by what the head read
    assert len(held) == 4
    rest = torch.tensor([n for n in range(16) if n not in held])
    expected = torch.autograd.grad(task.step(data.store.take(rest), "val").loss, list(task.model.parameters()))
    for found, gradient in zip(watch.parts[0], expected, strict=True):
        torch.testing.assert_close(found, gradient, rtol=1e-4, atol=1e-6)


class Learners(nn.Module):
    """Keeps what it is given, and the weights where they are."""

    needs_validation = True

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, batch):
        for scope in ("head", "all"):
            learner = batch.learner(scope)
            terms, sizes = learner.train(learner.parameters)
            value = learner.validation(learner.parameters)
            self.seen.append((scope, learner.lr, terms.detach(), sizes, value.detach()))
        return batch.weight.sum() * 0, {}


@pytest.mark.filterwarnings("ignore:.*cannot be written")
def test_virtual_learners_start_as_the_network():
    data = GraphDataModule(graphs(), split="stratified", batch_size=48)
    task = run(lambda m: Reweighted(m, 3, outer=Learners(), start_epoch=0, optimizer=FROZEN), data=data, max_epochs=1)
    (head, slow, *first), (_, rate, *second) = task.outer.seen
    assert head == "head"
    assert rate == 0.0  # that of the network's optimiser
    for left, right in zip(first, second, strict=True):
        torch.testing.assert_close(left, right)
    task.train()
    # frozen parameters and the whole training set in one batch: the same pass again, but for its order
    z = task.represent(data.store.take(data.splits["train"]))[1].detach()
    assert float(slow) == pytest.approx(1 / (1 + float(z.square().sum(1).mean())), rel=1e-4)
    losses = task.sample_losses(task.head(z), data.store.take(data.splits["train"]).y)[0]
    torch.testing.assert_close(first[0].sort().values, losses.detach().sort().values, rtol=1e-4, atol=1e-5)


def test_logged_values_and_the_bound():
    class Read(Callback):
        def on_train_epoch_end(self, trainer, task):
            self.values = dict(trainer.callback_metrics)

    read = Read()
    strong = functools.partial(torch.optim.SparseAdam, lr=3.0)
    outer = UnrolledOuter(decorrelation=DecorrelationOuter(num_clusters=4))
    task = run(
        lambda m: reweighted(m, outer, weight_optimizer=strong, weight_steps=5, beta=0.0),
        callbacks=[read],
        max_epochs=3,
    )
    assert {"train/loss", "train/ess", "train/weight_min", "train/weight_max"} < read.values.keys()
    assert {"train/decorrelation", "train/validation", "val/acc", "val/f1"} < read.values.keys()
    assert 0.2 - 1e-5 <= float(read.values["train/ess"]) < 0.9
    assert float(read.values["train/weight_min"]) < 1 < float(read.values["train/weight_max"])
    raw = task.weights.normalize(task.weights.logit.detach()[task.trainer.datamodule.splits["train"]])
    assert float(effective_sample_size(raw)) < 0.2  # the bound was needed


@pytest.mark.parametrize("scope", ["head", "all"])
def test_the_gradient_through_virtual_steps_of_a_network_equals_finite_differences(scope):
    store = GraphDataModule(graphs(20), split={"train": list(range(20)), "val": [], "test": []}).store
    train, val = store.take(torch.arange(12)), store.take(torch.arange(12, 20))
    train.x, val.x = train.x.double(), val.x.double()
    task = Reweighted(separate_network().double(), 3, weights=SampleWeights(20))
    output, z = task.represent(train)
    kept = torch.arange(0, 12, 2)
    target = task.aligned_target(train, output.detach())[1][kept]
    learners = VirtualLearners(task, train, z.detach()[kept], kept, target, val, 0.2)
    weight = (torch.rand(6, dtype=torch.float64) + 0.5).requires_grad_()
    draws = torch.Generator()

    def loss(w):
        return UnrolledOuter(scope, steps=2, lr=0.2)(OuterBatch(z.detach(), w, w, learners, draws))[0]

    assert torch.autograd.gradcheck(loss, weight, eps=1e-6, atol=1e-5)
    assert float(torch.autograd.grad(loss(weight), weight)[0].abs().max()) > 1e-4


def biased(count, share, seed):
    """One-node graphs: a weak cause in column 0, and a strong sign in column 1 that agrees with y in a share."""
    draws = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 2, (count,), generator=draws)
    agree = torch.rand(count, generator=draws) < share
    sign = torch.where(agree, y, 1 - y) * 2.0 - 1
    cause = (2.0 * y - 1) + torch.randn(count, generator=draws)
    edges = torch.zeros(2, 0, dtype=torch.int64)
    rows = torch.stack([cause, 2 * sign], dim=1)
    return [Data(x=row[None], edge_index=edges, y=label[None]) for row, label in zip(rows, y, strict=True)], agree


@pytest.mark.parametrize("scope", ["head", "all"])
def test_unrolled_steps_weigh_up_what_the_validation_data_ask_for(scope):
    train, agree = biased(200, 0.9, 0)
    val, _ = biased(100, 0.5, 1)
    split = {"train": list(range(200)), "val": list(range(200, 300)), "test": []}
    data = GraphDataModule(train + val, split=split, batch_size=50)
    lightning.seed_everything(0, verbose=False)
    model = GraphClassifier(2, 2, hidden_channels=8, num_layers=1, norm="none", head_layers=1)
    outer = UnrolledOuter(scope, steps=2, lr=0.5)
    task = Reweighted(model, 2, outer=outer, start_epoch=0, optimizer=ADAM, weight_steps=2)
    trainer(max_epochs=15, limit_val_batches=0).fit(task, data)
    weight = task.weights.normalize(task.weights.logit.detach()[:200])
    assert float(weight[~agree].mean() / weight[agree].mean()) > 1.5


# resuming


class Interrupted(Exception):
    pass


class SaveAndStop(Callback):
    def __init__(self, batch, path):
        self.batch, self.path = batch, path

    def on_train_batch_end(self, trainer, task, outputs, batch, batch_idx):
        if trainer.current_epoch * 6 + batch_idx + 1 == self.batch:
            trainer.save_checkpoint(self.path)
            raise Interrupted


def full(model, interval="step"):
    outer = UnrolledOuter(steps=2, decorrelation=DecorrelationOuter(num_clusters=3))
    step = functools.partial(torch.optim.lr_scheduler.StepLR, step_size=3 if interval == "step" else 1, gamma=0.5)
    return reweighted(model, outer, weight_steps=2, scheduler=step, scheduler_interval=interval, start_epoch=1)


def test_resume_from_the_last_batch_keeps_a_scheduler_of_epochs(tmp_path):
    build = functools.partial(full, interval="epoch")
    expected = run(build, max_epochs=3)
    with pytest.raises(Interrupted):
        run(build, max_epochs=3, callbacks=[SaveAndStop(6, tmp_path / "k.ckpt")])
    found = run(build, max_epochs=3, checkpoint=tmp_path / "k.ckpt").state_dict()
    assert all(torch.equal(value, found[name]) for name, value in expected.state_dict().items())


# in the warm-up with the queue half full, at its end, before and after clusters are known, and at an epoch's end
@pytest.mark.parametrize("batch", [2, 6, 7, 9, 12, 14])
def test_resume_equals_the_uninterrupted_run(batch, tmp_path):
    expected = run(full, dropout=0.3, max_epochs=3)
    path = tmp_path / "k.ckpt"
    with pytest.raises(Interrupted):
        run(full, dropout=0.3, max_epochs=3, callbacks=[SaveAndStop(batch, path)])
    task = run(full, dropout=0.3, max_epochs=3, seed=5, checkpoint=path)
    found, state = task.state_dict(), expected.state_dict()
    assert found.keys() == state.keys()
    assert all(torch.equal(value, found[name]) for name, value in state.items())
    assert task.weights.logit.any()
    loaded = graphseq.load(path)
    saved = torch.load(path, weights_only=True)["state_dict"]
    assert all(torch.equal(value, saved[name]) for name, value in loaded.state_dict().items())


def test_a_checkpoint_of_other_data_does_not_fit(tmp_path):
    path = tmp_path / "k.ckpt"
    with pytest.raises(Interrupted):
        run(full, callbacks=[SaveAndStop(2, path)])
    with pytest.raises((CheckpointError, DataError), match=r"weights.logit is \(60,\)|60"):
        run(full, count=66, checkpoint=path)


@pytest.mark.parametrize(("interval", "expected"), [("epoch", 0.5**2), ("step", 0.5**12)])
def test_scheduler_steps(interval, expected):
    halve = functools.partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5)
    task = run(lambda m: reweighted(m, scheduler=halve, scheduler_interval=interval))
    assert task.trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.01 * expected)
    assert task.trainer.optimizers[1].param_groups[0]["lr"] == 0.05


def test_scheduler_that_watches_the_validation_loss():
    plateau = functools.partial(torch.optim.lr_scheduler.ReduceLROnPlateau, factor=0.1, patience=0, threshold=1e9)
    task = run(lambda m: reweighted(m, scheduler=plateau), max_epochs=3)
    assert task.trainer.optimizers[0].param_groups[0]["lr"] < 0.01


# clusters


def test_clusters_are_kept_for_as_long_as_asked():
    found = []

    class Watch(Callback):
        def on_train_epoch_end(self, trainer, task):
            found.append(task.outer.epoch)

    run(lambda m: reweighted(m, recluster_every=2, start_epoch=1), callbacks=[Watch()], max_epochs=5)
    assert found == [-1, 1, 1, 3, 3]


def test_clusters_by_environment():
    data = [Data(x=g.x, edge_index=g.edge_index, y=g.y, env=torch.tensor([n % 3])) for n, g in enumerate(graphs())]
    outer = DecorrelationOuter(3, source="environments", min_count=3)
    task = run(lambda m: reweighted(m, outer), data=GraphDataModule(data, split="stratified", batch_size=16))
    assert len(task.outer.cluster) == 8
    assert set(task.queue.env.tolist()) == {0, 1, 2}
    with pytest.raises(DataError, match="`env`"):
        run(lambda m: reweighted(m, DecorrelationOuter(3, source="environments")))
    with pytest.raises(ValueError, match="fifo"):
        reweighted(network(), outer, queue=FeatureQueue(mode="ema"))


def test_averaged_queue():
    task = run(lambda m: reweighted(m, queue=FeatureQueue(2, "ema")))
    assert len(task.queue) == 16
    assert task.weights.logit.any()
    assert torch.isfinite(task.weights.logit).all()


def test_no_queue():
    data = GraphDataModule(graphs(), split="stratified", batch_size=24)
    task = run(lambda m: reweighted(m, queue=FeatureQueue(0)), data=data)
    assert len(task.queue) == 0
    assert task.weights.logit.any()


# cost


def step_time(num_samples, rounds=30):
    weights = SampleWeights(num_samples)
    optimizer = torch.optim.SparseAdam([weights.logit], lr=0.05)
    outer, draws, z = DecorrelationOuter("all"), torch.Generator().manual_seed(0), torch.randn(64, 16)
    times = []
    for _ in range(rounds):
        idx = torch.randint(num_samples, (64,))
        start = time.perf_counter()
        weight = weights(idx)
        loss, _ = outer(OuterBatch(z, weight, weight, None, draws))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        times.append(time.perf_counter() - start)
    return sorted(times[5:])[3]


def test_a_step_of_the_weights_costs_the_same_for_any_number_of_samples():
    ratios = [step_time(3_000_000) / step_time(1000) for _ in range(3)]
    assert min(ratios) < 1.3, ratios  # a dense step of 3 million numbers takes ten times as long


def test_a_step_of_the_weights_costs_in_proportion_to_the_queue():
    """Rows of K batches: four times as many must not cost sixteen times as much."""

    def seconds(rows, rounds=9):
        outer, draws, z = DecorrelationOuter("all"), torch.Generator().manual_seed(0), torch.randn(rows, 32)
        times = []
        for _ in range(rounds):
            weight = torch.ones(rows, requires_grad=True)
            start = time.perf_counter()
            outer(OuterBatch(z, weight, weight, None, draws))[0].backward()
            times.append(time.perf_counter() - start)
        return min(times)

    ratios = [seconds(64 * 64) / seconds(16 * 64) for _ in range(3)]
    assert min(ratios) < 8, ratios


# bad input


def test_samples_without_their_place():
    batch = next(iter(GraphDataModule(graphs(), batch_size=8).train_dataloader()))
    task = Reweighted(network(), 3, weights=SampleWeights(60))
    fields = {"x": batch.x, "edge_index": batch.edge_index, "batch": batch.batch, "y": batch.y}
    with pytest.raises(DataError, match="dict .*`idx`"):
        task.step(fields)
    with pytest.raises(DataError, match="weights of 60 samples"):
        task.step({**fields, "idx": batch.idx + 60})
    with pytest.raises(DataError, match=r"idx is \(7,\)"):
        task.step({**fields, "idx": batch.idx[:-1]})
    task.step(fields, "val")  # weights are used in training alone


def test_data_of_ones_own_needs_the_number_of_samples():
    batches = list(GraphDataModule(graphs(), batch_size=8).train_dataloader())
    loader = torch.utils.data.DataLoader(batches, batch_size=None)
    with pytest.raises(DataError, match="num_samples"):
        trainer(max_epochs=1).fit(reweighted(network()), loader)
    task = reweighted(network(), weights=SampleWeights(60))
    trainer(max_epochs=1).fit(task, loader)
    assert task.weights.logit.any()
    with pytest.raises(DataError, match="needs validation samples"):
        trainer(max_epochs=1).fit(reweighted(network(), UnrolledOuter(), weights=SampleWeights(60)), loader)


def test_fewer_graphs_than_clusters_need():
    data = GraphDataModule(graphs(9), split={"train": list(range(9)), "val": [], "test": []}, batch_size=3)
    with pytest.raises(DataError, match="9 samples are known.*at least 10"):
        run(reweighted, data=data)
    with pytest.raises(ValueError, match="reads 8 variables"):
        run(lambda m: reweighted(m, DecorrelationOuter(num_clusters=9)))


def test_dead_representations_and_one_node_graphs():
    """All graphs alike: no variable varies, nothing is learned, nothing breaks."""
    edges = torch.zeros(2, 0, dtype=torch.int64)
    data = [Data(x=torch.ones(1, 3), edge_index=edges, y=torch.tensor([n % 3])) for n in range(60)]
    task = run(reweighted, data=GraphDataModule(data, split="stratified", batch_size=8))
    assert torch.isfinite(task.weights.logit).all()
    assert all(torch.isfinite(p).all() for p in task.parameters())


def test_several_processes_are_refused():
    task = reweighted(network(), weights=SampleWeights(60))
    task._trainer = SimpleNamespace(world_size=2, datamodule=None)
    with pytest.raises(UnsupportedStrategyError, match=r"process, 2 "):
        task.setup("fit")


@pytest.mark.filterwarnings("default:validation samples seem")
def test_validation_data_like_the_training_data_are_warned_of():
    with pytest.warns(UserWarning, match="split is 'stratified'"):
        run(lambda m: reweighted(m, UnrolledOuter()), max_epochs=1, limit_train_batches=1)
    # the first validates on the sizes of training, the last on graphs that are drawn from both
    for rule, pools, expected in (("size", False, 1), ("size_middle", False, 0), ("size_middle", True, 1)):
        fractions = [0.6, 0.2, 0.2]
        module = GraphDataModule(graphs(), split=rule, fractions=fractions, pool_validation=pools, batch_size=8)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run(lambda m: reweighted(m, UnrolledOuter()), data=module, max_epochs=1, limit_train_batches=1)
        assert sum("validation samples seem" in str(warning.message) for warning in caught) == expected
    data = [Data(x=g.x, edge_index=g.edge_index, y=g.y, env=torch.tensor([n // 30])) for n, g in enumerate(graphs())]
    for val, expected in (([29], 1), ([30, 31], 0)):  # another graph of environment 0; graphs of environment 1
        module = GraphDataModule(data, split={"train": list(range(29)), "val": val, "test": []}, batch_size=8)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run(lambda m: reweighted(m, UnrolledOuter()), data=module, max_epochs=1, limit_train_batches=1)
        assert sum("are among those of training" in str(warning.message) for warning in caught) == expected


@pytest.mark.parametrize(
    ("options", "error", "named"),
    [
        ({"held_out": 1.0}, ValueError, "held_out"),
        ({"beta": -1.0}, ValueError, "beta"),
        ({"weight_steps": 0}, ValueError, "weight_steps"),
        ({"start_epoch": -1}, ValueError, "start_epoch"),
        ({"recluster_every": 0}, ValueError, "recluster_every"),
        ({"target": "ranking"}, ValueError, "target"),
        ({"loss": nn.L1Loss(reduction="none")}, ValueError, "regression"),
        ({"loss": nn.L1Loss(), "target": "regression"}, ValueError, "reduction='none'"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*cannot be written")
def test_refuses(options, error, named):
    with pytest.raises(error, match=named):
        Reweighted(network(), 3, **options)


def test_a_network_without_a_head():
    with pytest.raises(TypeError, match="no module `head`"):
        Reweighted(make(GraphEncoder, 3), 3)
