"""The procedure: what it trains and what it leaves alone, its schedules, its evaluations, and what it refuses."""

import functools
import itertools
import types

import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from torch_geometric.data import Data

import graphseq
from graphseq.core import DataError, UnsupportedStrategyError
from graphseq.data import GraphDataModule
from graphseq.models import GraphClassifier, GraphEncoder
from graphseq.nn import FlattenCritic, Pretrained
from graphseq.tasks import Classification, ReinforcedPromptTuning
from graphseq.tasks.prompt.shares import overlapping_shares
from tests.reliability.runs import trainer, weights

COUNT = 24


def graphs(labels="binary", sizes=(1, 3, 4, 6)):
    generator = torch.Generator().manual_seed(5)
    out = []
    for position in range(COUNT):
        nodes = sizes[position % len(sizes)]
        x = torch.rand(nodes, 3, generator=generator) + 0.5 * (position % 2)
        edges = torch.randint(0, nodes, (2, 2 * nodes), generator=generator)
        y = {
            "binary": torch.tensor([[float(position % 2)]]),
            "classes": torch.tensor([position % 3]),
            "gaps": torch.tensor([[float(position % 2), float("nan") if position % 3 else 1.0]]),
        }[labels]
        out.append(Data(x=x, edge_index=edges, y=y))
    return out


def data(labels="binary", batch_size=COUNT, **options):
    split = {"train": list(range(16)), "val": [16, 17, 18, 19], "test": [20, 21, 22, 23]}
    return GraphDataModule(graphs(labels, **options), split=split, batch_size=batch_size)


def encoder(**options):
    torch.manual_seed(1)
    return GraphEncoder(3, 8, num_layers=2, **{"norm": "batch", "dropout": 0.5, **options})


def build(num_outputs=1, model=None, **options):
    options = {"num_members": 2, "rollout_batch_size": 4, "minibatch_size": 8, "num_passes": 2, **options}
    return ReinforcedPromptTuning(encoder() if model is None else model, num_outputs, **options)


def fit(task, module=None, epochs=2, **options):
    run = trainer(max_epochs=epochs, **options)
    run.fit(task, data() if module is None else module)
    return run


def saved_encoder(folder, **options):
    task = Classification(GraphClassifier(3, 3, 8, num_layers=2, norm="batch", dropout=0.5, **options), 3)
    run = trainer(max_epochs=1, limit_val_batches=0)
    run.fit(task, data("classes"))
    path = folder / "pretrained.ckpt"
    run.save_checkpoint(path)
    return path


# what is trained


@pytest.mark.parametrize("pretrained", [True, False])
def test_the_encoder_is_the_same_to_the_bit_and_the_rest_is_not(pretrained, tmp_path):
    """With batch norm and dropout that is on while the head is trained: no statistic moves."""
    model = Pretrained(saved_encoder(tmp_path), part="model.encoder") if pretrained else encoder()
    task = build(model=model)
    inner = model.module if pretrained else model
    before = {name: value.clone() for name, value in inner.state_dict().items()}
    rest = weights(task.ensemble), weights(task.critic), weights(task.head)
    fit(task)
    assert before.keys() == inner.state_dict().keys()
    assert all(torch.equal(value, before[name]) for name, value in inner.state_dict().items())
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in inner.parameters())
    assert not any(module.training for module in inner.modules())
    for part, old in zip((task.ensemble, task.critic, task.head), rest, strict=True):
        assert all(not torch.equal(value, old[name]) for name, value in part.state_dict().items()), "all of it trains"


def test_dropout_is_on_for_the_head_alone_and_norms_stay(monkeypatch):
    seen = []
    task = build(num_members=1)
    forward = task.model.encode_embedded

    def watched(*args):
        seen.append((task.model.training, task.model.norms[0].module.training))
        return forward(*args)

    monkeypatch.setattr(task.model, "encode_embedded", watched)
    fit(task, epochs=1, limit_val_batches=0)
    assert seen.count((True, False)) == 1  # one step of the head
    assert (True, True) not in seen
    assert seen.count((False, False)) == len(seen) - 1
    seen.clear()
    fit(build(num_members=1, model=task.model, head_dropout=False), epochs=1, limit_val_batches=0)
    assert set(seen) == {(False, False)}


def test_cost_in_passes_of_the_encoder():
    """One a node for each member and one more, for the head one a node, and one to embed the prompted graph."""
    task = build(overlap=0.0, head_passes=2)
    passes = []
    forward = task.model.encode_embedded
    task.model.encode_embedded = lambda *args: (passes.append(len(args[4]) - 1), forward(*args))[1]
    fit(task, epochs=1, limit_val_batches=0)
    sizes = [len(graph.x) for graph in graphs()[:16]]
    rollouts = sum(sizes) + len(sizes)  # shares without overlap: each graph once
    heads = 2 * (sum(sizes) + len(sizes))
    assert sum(passes) == rollouts + heads


def test_steps_of_the_head_are_on_the_same_prompts():
    """No pass of the encoder more, and a head that comes closer to the labels of these prompts."""
    found = {}
    for steps in (1, 40):
        task = build(num_members=1, head_steps=steps, head_dropout=False)
        seen, losses = [], []
        forward, total = task.model.encode_embedded, task.total_loss
        task.model.encode_embedded = lambda *args, seen=seen, call=forward: (seen.append(1), call(*args))[1]
        task.total_loss = lambda *args, losses=losses, call=total: losses.append(call(*args)) or losses[-1]
        fit(task, epochs=1, limit_val_batches=0)
        found[steps] = len(seen), [float(loss) for loss in losses]
    assert found[1][0] == found[40][0]
    assert [len(losses) for _, losses in found.values()] == [1, 40]
    assert found[40][1][-1] < found[40][1][0]


def test_controls_have_nothing_of_a_policy_to_train():
    task = build(node_choice="random", prompt_choice="random")
    critic = weights(task.critic)
    run = fit(task)
    assert len(run.optimizers) == 1
    assert all(torch.equal(value, critic[name]) for name, value in task.critic.state_dict().items())
    uniform = build(node_choice="random")
    before = weights(uniform.ensemble)
    fit(uniform)
    assert not any("selector" in name for name in before)
    assert all(not torch.equal(value, before[name]) for name, value in uniform.ensemble.state_dict().items())
    with pytest.raises(ValueError, match="nothing to train"):
        fit(build(node_choice="random", prompt_choice="random", head_passes=0))


def test_a_head_that_is_not_trained_stays():
    task = build(head_passes=0)
    before = weights(task.head)
    run = fit(task)
    assert len(run.optimizers) == 1
    assert all(torch.equal(value, before[name]) for name, value in task.head.state_dict().items())


@pytest.mark.parametrize(
    "options",
    [
        {"num_members": 1},
        {"reward_scaling": "zscore", "reward_clip": 0.1, "clamp_prompts": True},
        {"max_steps": 1, "evaluation": "most_likely"},
        {"critic": FlattenCritic(8, 6), "num_passes": 1},
        {"rollout_batch_size": 100, "minibatch_size": 1000},
    ],
)
def test_other_forms_run_and_log(options):
    run = fit(build(**options))
    names = {
        "train/loss",
        "train/return",
        "train/value_loss",
        "train/entropy",
        "train/node_divergence",
        "train/log_std",
    }
    names |= {"val/loss", "val/return", "val/pcr", "val/apm", "val/auroc"}
    assert names <= run.callback_metrics.keys()
    assert all(bool(torch.isfinite(run.callback_metrics[name])) for name in names - {"val/auroc"})


@pytest.mark.parametrize("limit", [None, 1e-3])
def test_rewards_telescope_unless_they_are_limited(limit, monkeypatch):
    """As documented: what policies learn from sums to the decrease of the loss of a graph, with a limit it does not."""
    apart = []
    update = ReinforcedPromptTuning._update

    def watched(self, member, rollout, scale, *rest):
        def seen(reward):
            sums = torch.stack([reward[rollout.by_graph[a:b]].sum() for a, b in itertools.pairwise(rollout.steps)])
            apart.append(float((sums - (rollout.loss - rollout.final_loss)).abs().max()))
            return scale(reward)

        return update(self, member, rollout, seen, *rest)

    monkeypatch.setattr(ReinforcedPromptTuning, "_update", watched)
    fit(build(num_members=1, reward_clip=limit), epochs=1, limit_val_batches=0)
    assert apart
    if limit is None:
        assert max(apart) < 1e-5
    else:
        assert max(apart) > 0.01


def test_no_further_pass_when_the_policy_has_moved(monkeypatch):
    steps = []
    for limit in (1e-9, 1e9):
        task = build(num_members=1, num_passes=5, max_node_divergence=limit, head_passes=0)
        steps.append(fit(task, epochs=1, limit_val_batches=0).global_step)
    assert steps[0] * 5 > steps[1] > 2 * steps[0]


def test_deviation_is_annealed_over_the_epochs(monkeypatch):
    seen = []
    run = trainer(max_epochs=4, limit_val_batches=0)
    task = build(num_members=1, initial_log_std=-1.0, final_log_std=-3.0)
    act = task.ensemble[0].act
    monkeypatch.setattr(task.ensemble[0], "act", lambda h, ptr, std, generator: (seen.append(std), act(h, ptr, std))[1])
    run.fit(task, data())
    assert sorted(set(seen), reverse=True) == [-1.0, -1.5, -2.0, -2.5]
    seen.clear()
    trainer(max_epochs=2, limit_val_batches=0).fit(task, data(batch_size=8))  # two batches an epoch
    assert sorted(set(seen), reverse=True) == [-1.0, -1.5, -2.0, -2.5]
    with pytest.raises(ValueError, match="max_epochs of the trainer is -1"):
        trainer(max_epochs=-1, max_steps=3).fit(build(), data())


# labels


def test_missing_labels_change_no_reward():
    task = build(num_outputs=2)
    vector = torch.randn(3, 8)
    gaps = torch.tensor([[1.0, float("nan")], [float("nan"), float("nan")], [0.0, 1.0]])
    found = task.graph_losses(vector, gaps)
    logits = task.head(vector)
    each = torch.nn.functional.binary_cross_entropy_with_logits
    torch.testing.assert_close(found[0], each(logits[0, 0], torch.tensor(1.0)))
    torch.testing.assert_close(found[2], each(logits[2], gaps[2]))
    assert float(found[1].detach()) == 0


def test_graphs_without_a_label_have_no_episode():
    blank = graphs("gaps")[:4]
    for graph in blank[1:]:
        graph.y = torch.full((1, 2), torch.nan)
    task = build(2)
    module = GraphDataModule(blank, split={"train": [0, 1, 2, 3], "val": [], "test": []}, batch_size=4)
    labelled, target, positions = task._labelled(next(iter(module.train_dataloader())))
    assert (len(labelled), target.shape, positions.tolist()) == (1, (1, 2), [0])
    module = GraphDataModule(blank, split={"train": [0, 1, 2, 3], "val": [], "test": []}, batch_size=2)
    run = fit(task, module, limit_val_batches=0)  # a batch without any label is passed over
    assert bool(torch.isfinite(run.callback_metrics["train/return"]))


def test_training_graphs_without_any_label_are_refused():
    blank = graphs("gaps")
    for graph in blank:
        graph.y = torch.full((1, 2), torch.nan)
    module = GraphDataModule(blank, split={"train": [0, 1, 2], "val": [], "test": []}, batch_size=3)
    with pytest.raises(DataError, match="none of the 3 training graphs has a label"):
        fit(build(2), module, limit_val_batches=0)


def test_a_class_without_a_shot_is_refused():
    split = {"train": [0, 1, 3, 4], "val": [2], "test": [5]}
    module = GraphDataModule(graphs("classes"), split=split, batch_size=4)
    with pytest.raises(DataError, match="class 2 has no training graph"):
        fit(build(3, target="multiclass"), module)
    fit(build(3, target="multiclass"), data("classes"))


def test_prompts_do_not_depend_on_labels():
    task = build()
    batch = next(iter(data().train_dataloader()))
    expected = task(batch)
    batch.y = torch.full_like(batch.y, torch.nan)
    assert torch.equal(task(batch), expected)
    del batch.y
    assert torch.equal(task(batch), expected)


# evaluation


def test_evaluations_are_the_same_each_time_and_draw_nothing_from_the_training():
    task = build()
    batch = next(iter(data().train_dataloader()))
    state = torch.get_rng_state()
    first = task.step(batch, "val")
    assert torch.equal(torch.get_rng_state(), state)
    second = task.step(batch, "val")
    assert torch.equal(first.prediction, second.prediction)
    other = build(evaluation_seed=1)
    other.load_state_dict(task.state_dict())
    assert not torch.equal(other.step(batch, "val").prediction, first.prediction)


def test_rows_come_back_in_the_order_of_the_batch():
    """With equal weights of everything random: the most likely node does not depend on other graphs."""
    task = build(evaluation="most_likely")
    given = graphs()[:8]
    module = GraphDataModule(given, split={"train": list(range(8)), "val": [], "test": []}, batch_size=8)
    batch = module.graphs.take(torch.arange(8))
    alone = torch.cat([task(module.graphs.take(torch.tensor([number]))) for number in range(8)])
    torch.testing.assert_close(task(batch), alone)


def test_return_is_the_decrease_of_the_loss():
    task = build()
    batch = next(iter(data().train_dataloader()))
    step = task.step(batch)
    plain = task.head(task.model(batch.x, batch.edge_index, batch.batch, None, batch.ptr))
    before = torch.nn.functional.binary_cross_entropy_with_logits(plain, batch.y)
    torch.testing.assert_close(step.decrease.mean(), before - step.loss)


def test_random_choice_covers_the_share_that_its_formula_gives():
    task = build(node_choice="random", prompt_choice="random")
    module = GraphDataModule(
        graphs(sizes=(6,)) * 20, split={"train": [0], "val": [], "test": list(range(1, COUNT * 20))}
    )
    tested = trainer().test(task, module, verbose=False)[0]
    assert tested["test/pcr"] == pytest.approx(1 - (1 - 1 / 6) ** 6, abs=0.02)


# checkpoints and shares


def test_checkpoints_hold_everything_but_the_encoder(tmp_path):
    path = saved_encoder(tmp_path)
    task = build(model=Pretrained(path, part="model.encoder"), target="multilabel")
    run = fit(task)
    run.save_checkpoint(tmp_path / "k.ckpt")
    state = torch.load(tmp_path / "k.ckpt", weights_only=True)["state_dict"]
    assert {name.split(".")[0] for name in state} == {"model", "ensemble", "critic", "head"}
    assert [name for name in state if name.startswith("model.")] == ["model._extra_state"]
    batch = next(iter(data().test_dataloader()))
    assert torch.equal(graphseq.load(tmp_path / "k.ckpt").eval()(batch), task.eval()(batch))


def test_optimisers_and_schedulers_of_policies_and_head():
    options = {
        "policy_optimizer": functools.partial(torch.optim.SGD, lr=0.5),
        "optimizer": functools.partial(torch.optim.Adam, lr=0.25),
        "scheduler": functools.partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5),
    }
    run = fit(build(**options), data(batch_size=4), epochs=2, limit_val_batches=0)
    assert [(type(each).__name__, each.param_groups[0]["lr"]) for each in run.optimizers] == [
        ("SGD", 0.125),
        ("Adam", 0.0625),
    ]
    rates = [group["lr"] for each in build().configure_optimizers()[0] for group in each.param_groups]
    assert rates == [5e-4, 1e-3]


SHORT = {"num_passes": 1, "max_steps": 1, "rollout_batch_size": 16}


def test_schedulers_step_with_batches_or_watch_the_validation():
    halve = functools.partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5)
    task = build(scheduler=halve, scheduler_interval="step", **SHORT)
    run = fit(task, data(batch_size=8), epochs=1, limit_val_batches=0)
    assert [each.param_groups[0]["lr"] for each in run.optimizers] == [5e-4 / 4, 1e-3 / 4]
    watch = functools.partial(torch.optim.lr_scheduler.ReduceLROnPlateau, factor=0.5, patience=0, threshold=1e9)
    run = fit(build(scheduler=watch, **SHORT), epochs=1)
    assert [each.param_groups[0]["lr"] for each in run.optimizers] == [5e-4 / 2, 1e-3 / 2]


def test_gradients_are_limited_as_they_are_without_the_scale_of_half_precision():
    """In float16 gradients carry a factor until the optimiser's step; their limit must carry it too."""
    found = []
    for factor in (1.0, 1024.0):
        half = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=factor))
        task = build(policy_optimizer=functools.partial(torch.optim.SGD, lr=1.0), max_grad_norm=1e-3, **SHORT)
        torch.manual_seed(0)
        fit(task, epochs=1, limit_val_batches=0, plugins=[half])
        found.append(weights(task.critic))
    before = weights(build().critic)
    moved = [torch.cat([(each[name] - before[name]).flatten() for name in before]) for each in found]
    assert float(moved[0].norm()) > 5e-4
    torch.testing.assert_close(moved[1], moved[0], rtol=0.05, atol=1e-5)


def test_policies_that_meet_what_is_no_number_stop_the_run():
    """Also where no head is trained, whose loss would tell: policies and critic are still as they were."""
    module = data()
    task = build(head_passes=0, **SHORT)
    before = weights(task)
    run = trainer(max_epochs=1, limit_val_batches=0)
    module.on_after_batch_transfer = lambda batch, _: (batch.x.mul_(torch.nan), batch)[1]
    with pytest.raises(FloatingPointError, match="look at the data"):
        run.fit(task, module)
    assert all(torch.equal(value, before[name]) for name, value in weights(task).items())


def test_shares_are_equal_overlap_and_do_not_depend_on_the_order():
    positions = torch.arange(30) * 7
    shares = overlapping_shares(positions, 3, 0.2)
    assert [len(share) for share in shares] == [14, 14, 14]
    assert {*torch.cat(shares).tolist()} == {*range(30)}
    own = [{*share[:10].tolist()} for share in shares]
    assert sum(map(len, own)) == len(set.union(*own))
    order = torch.randperm(30)
    again = overlapping_shares(positions[order], 3, 0.2)
    assert all({*order[two].tolist()} == {*one.tolist()} for one, two in zip(shares, again, strict=True))
    assert [len(share) for share in overlapping_shares(positions[:6], 3, 0.2)] == [2, 2, 2]  # no share of 2 is whole
    assert [len(share) for share in overlapping_shares(positions[:6], 3, 1.0)] == [6, 6, 6]
    assert sorted(overlapping_shares(positions, 1, 0.2)[0].tolist()) == [*range(30)]


# bad input


def test_a_checkpoint_for_features_of_another_width_is_refused(tmp_path):
    path = saved_encoder(tmp_path)
    wide = [Data(x=torch.rand(3, 5), edge_index=torch.zeros(2, 1).long(), y=graph.y) for graph in graphs()]
    module = GraphDataModule(wide, split={"train": [0, 1], "val": [2], "test": [3]}, batch_size=2)
    with pytest.raises(DataError, match=r"\(6, 5\).*3 features"):
        fit(build(model=Pretrained(path, part="model.encoder")), module)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_steps": 0}, "max_steps is 0"),
        ({"num_members": 0}, "num_members is 0"),
        ({"overlap": 1.5}, r"overlap is 1\.5"),
        ({"discount": -0.1}, r"discount is -0\.1"),
        ({"head_passes": -1}, "head_passes is -1"),
        ({"head_layers": 0}, "head_layers is 0"),
        ({"reward_clip": 0.0}, r"reward_clip 0\.0"),
        ({"reward_scaling": "max"}, "reward_scaling is 'max'"),
        ({"evaluation": "best"}, "evaluation is 'best'"),
        ({"target": "regression"}, "target is 'regression'"),
        ({"max_prompt": 0.0}, r"max_prompt 0\.0"),
        ({"node_choice": "uniform"}, "node_choice is 'uniform'"),
    ],
)
def test_refuses_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_refuses_a_network_that_is_no_encoder():
    with pytest.raises(TypeError, match=r"GraphClassifier without embed.*model\.encoder"):
        build(model=GraphClassifier(3, 2))


def test_refuses_several_processes():
    task = build()
    task._trainer = types.SimpleNamespace(world_size=2, callbacks=[])
    with pytest.raises(UnsupportedStrategyError, match="devices=1"):
        task.setup("fit")
