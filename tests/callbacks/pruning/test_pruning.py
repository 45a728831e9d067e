"""Pruning in rounds: counts, rewinding, resumption; activating while pruning against a sorted list; dead neurons."""

import copy
import functools
from collections import Counter

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

import graphseq
from graphseq.callbacks import ActivatingPruning, DeadNeuronMonitor, IterativePruning
from graphseq.core import make
from graphseq.data import BatchLoader, TensorStore
from graphseq.models import MLP, ConvNet
from graphseq.tasks import Classification
from tests.reliability.runs import trainer, weights
from tests.reliability.test_resume import Interrupted, SaveAndStop, assert_same

SGD = functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9, weight_decay=0.1)
ADAMW = functools.partial(torch.optim.AdamW, lr=0.01, weight_decay=0.1)
DECAY = functools.partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5)
SPARSITIES = [0.3, 0.6, 0.8]


def build(model=None, optimizer=SGD):
    lightning.seed_everything(0, verbose=False)
    x, y = torch.randn(40, 1, 8, 8), torch.arange(40) % 3
    model = ConvNet(1, 3, 2, 3, dropout=0.2) if model is None else model()
    task = Classification(model, 3, optimizer=optimizer, scheduler=DECAY)
    loaders = [BatchLoader(TensorStore(x, y), 20, shuffle=shuffle) for shuffle in (True, False)]
    return task, loaders


def fit(callbacks, model=None, optimizer=SGD, epochs=4, resume=None):
    task, loaders = build(model, optimizer)
    if resume is not None:
        torch.rand(100)
    run = trainer(callbacks=callbacks, max_epochs=epochs)
    run.fit(task, *loaders, ckpt_path=resume, weights_only=True)
    return task, run


class Watched(ActivatingPruning):
    """Keeps what each pruning saw and made."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.seen = []

    def choose(self, count, trainer, task, batch):
        before = {name: copy.deepcopy(layer) for name, layer in self._layers.items()}
        start = copy.deepcopy(self._start)
        masks, noted = super().choose(count, trainer, task, batch)
        self.seen.append((count, before, start, masks, noted))
        return masks, noted


def sorted_prunings(count, before, start, share, eligible, sign="negative", criterion="movement"):
    """The two steps, one weight after the other; return the places that go, as pairs of layer and place."""
    weight = {name: layer.weight.detach().flatten().tolist() for name, layer in before.items()}
    begun = {name: value.flatten().tolist() for name, value in start.items()}
    size = {name: layer.weight[0].numel() for name, layer in before.items()}
    alive = [
        (name, place) for name, layer in before.items() for place, there in enumerate(layer.mask.flatten().tolist())
        if there
    ]  # fmt: skip
    own = round(share * count)
    alive.sort(key=lambda key: abs(weight[key[0]][key[1]]))
    gone, alive = set(alive[: count - own]), alive[count - own :]
    inputs = Counter((name, place // size[name]) for name, place in alive)
    if criterion == "movement":
        alive.sort(key=lambda key: abs(weight[key[0]][key[1]] - begun[key[0]][key[1]]))
    for name, place in alive:
        unit, value = (name, place // size[name]), weight[name][place]
        fits = {"negative": value < 0, "positive": value > 0, "any": True}[sign]
        if own and name in eligible and fits and inputs[unit] > 1:
            gone.add((name, place))
            inputs[unit] -= 1
            own -= 1
    return gone, own


def test_each_pruning_is_exact_and_takes_negative_weights_that_moved_least():
    callback = Watched(SPARSITIES, 1, share=0.2)
    task, _ = fit([callback])
    total = sum(layer.mask.numel() for layer in callback._layers.values())
    assert list(callback._layers) == ["blocks.0.0", "blocks.1.0", "blocks.2.0"]
    for sparsity, (count, before, start, masks, noted), entry in zip(
        SPARSITIES, callback.seen, callback.history[1:], strict=True
    ):
        expected, missing = sorted_prunings(count, before, start, 0.2, {"blocks.1.0", "blocks.2.0"})
        assert missing == 0
        assert noted == {"activating": round(0.2 * count), "shortfall": 0}
        assert pruned(before, masks) == expected
        assert sum(entry["remain"].values()) == round((1 - sparsity) * total)
    assert not any("mask" in name for name, _ in task.model.head.named_buffers())


def pruned(before, masks):
    return {
        (name, place) for (name, layer), mask in zip(before.items(), masks, strict=True)
        for place in (layer.mask & ~mask).flatten().nonzero().flatten().tolist()
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "eligible"),
    [
        ({"sign": "positive"}, {"blocks.1.0", "blocks.2.0"}),
        ({"sign": "any", "criterion": "magnitude", "layers": "all"}, {"blocks.0.0", "blocks.1.0", "blocks.2.0"}),
        ({"criterion": "random"}, {"blocks.1.0", "blocks.2.0"}),
    ],
)
def test_controls_choose_by_their_own_sign_and_criterion(options, eligible):
    callback = Watched([0.3], 1, share=0.2, **options)
    fit([callback], epochs=2)
    ((count, before, start, masks, noted),) = callback.seen
    found, own = pruned(before, masks), round(0.2 * count)
    assert noted == {"activating": own, "shortfall": 0}
    if options.get("criterion") != "random":
        assert found == sorted_prunings(count, before, start, 0.2, eligible, **{
            name: value for name, value in options.items() if name != "layers"
        })[0]  # fmt: skip
        return
    smallest, _ = sorted_prunings(count - own, before, start, 0.0, eligible)
    drawn = found - smallest
    assert smallest < found
    assert len(drawn) == own
    assert all(name in eligible and before[name].weight.detach().flatten()[place] < 0 for name, place in drawn)
    least_moved, _ = sorted_prunings(count, before, start, 0.2, eligible)
    assert found != least_moved


def test_the_rest_goes_by_score_where_too_few_are_eligible():
    callback = ActivatingPruning(SPARSITIES, 1, share=1.0)
    fit([callback])
    total = sum(layer.mask.numel() for layer in callback._layers.values())
    assert callback.history[3]["shortfall"] > 0
    assert sum(callback.history[3]["remain"].values()) == round(0.2 * total)


@pytest.fixture(scope="module")
def rewound():
    callback = IterativePruning(SPARSITIES, 1)
    return fit([callback], epochs=4), callback


def test_a_share_of_zero_is_the_pruning_alone(rewound):
    (task, _), base = rewound
    callback = ActivatingPruning(SPARSITIES, 1, share=0.0)
    other, _ = fit([callback])
    assert_same(weights(other), weights(task))
    assert [entry["remain"] for entry in callback.history] == [entry["remain"] for entry in base.history]
    assert [entry["val/acc"] for entry in callback.history] == [entry["val/acc"] for entry in base.history]


@pytest.mark.parametrize("epoch", [0, 1])
def test_rewinding_brings_back_weights_statistics_optimizer_and_rate(epoch):
    class Look(Callback):
        def __init__(self):
            self.seen = {}

        def on_train_batch_start(self, trainer, task, batch, batch_idx):
            if batch_idx == 0:  # after the pruning, whose callback stands before
                rate, state = trainer.optimizers[0].param_groups[0]["lr"], trainer.optimizers[0].state_dict()["state"]
                self.seen[trainer.current_epoch] = (weights(task), rate, copy.deepcopy(state))

    look = Look()
    fit([IterativePruning([0.5, 0.75], 2, rewind_epoch=epoch), look], epochs=6)
    start, rate, state = look.seen[epoch]
    assert rate == 0.05 * 0.5**epoch
    for begun in (2, 4):
        now, again, its = look.seen[begun]
        assert again == rate
        assert its.keys() == state.keys()
        for name, value in start.items():
            if not name.endswith("mask"):
                mask = now.get(f"{name.removesuffix('.weight')}.mask", True)
                assert torch.equal(now[name], value * mask), name
        assert any((mask == 0).any() for name, mask in now.items() if name.endswith("mask"))


@pytest.mark.parametrize("optimizer", [SGD, ADAMW])
def test_masked_weights_stay_zero_without_rewinding(optimizer):
    class Check(Callback):
        steps = 0

        def on_train_batch_end(self, trainer, task, *rest):
            for name, value in task.state_dict().items():
                if name.endswith("mask"):
                    self.steps += int((~value).any())
                    assert not task.state_dict()[name.replace("mask", "weight")][~value].any()

    check = Check()
    fit([IterativePruning(SPARSITIES, 1, scope="layer", rewind_epoch=None), check], optimizer=optimizer)
    assert check.steps == 3 * 3 * 2


# 2 batches an epoch, rounds of 2 epochs: within the second round, and before its first batch
@pytest.mark.parametrize(("step", "options"), [(7, {}), (4, {"rewind_epoch": None, "criterion": "random"})])
def test_resume_equals_the_uninterrupted_run(step, options, tmp_path):
    def callback():
        return ActivatingPruning([0.4, 0.7], 2, share=0.3, **options)

    whole = callback()
    expected = weights(fit([whole], epochs=6)[0])
    with pytest.raises(Interrupted):
        fit([callback(), SaveAndStop(step, tmp_path / "k.ckpt")], epochs=6)
    resumed = callback()
    task, run = fit([resumed], epochs=6, resume=tmp_path / "k.ckpt")
    assert_same(weights(task), expected)
    if step == 4:  # Lightning leaves out the validation after the batch that was the last one
        whole.history[0], resumed.history[0] = {}, {}
    assert resumed.history == whole.history
    run.save_checkpoint(tmp_path / "end.ckpt")
    assert_same(weights(graphseq.load(tmp_path / "end.ckpt")), expected)


def test_networks_that_have_nothing_to_activate_are_refused():
    def mlp(activation, layers=3):
        return lambda: MLP(64, 3, 8, layers, activation=make(activation))

    with pytest.raises(ValueError, match="MLP calls no ReLU"):
        fit([ActivatingPruning([0.5], 1)], mlp(nn.SELU))
    with pytest.raises(ValueError, match="no layer that stands between two ReLUs among hidden.0.0"):
        fit([ActivatingPruning([0.5], 1)], mlp(nn.ReLU, 2))
    with pytest.raises(ValueError, match="has no torch.nn.ReLU"):
        fit([DeadNeuronMonitor()], mlp(nn.GELU))
    with pytest.raises(ValueError, match=r"exclude=\['hidden', 'head'\]"):
        fit([IterativePruning([0.5], 1, exclude=["hidden", "head"])], mlp(nn.ReLU))
    with pytest.warns(UserWarning, match="max_epochs is 1"):
        fit([ActivatingPruning([0.5], 1, layers="all")], mlp(nn.ReLU, 2), epochs=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"sparsities": [0.5, 0.4]}, "sparsities is"), ({"sparsities": [1.0]}, "sparsities is"),
     ({"epochs_per_round": 0}, "epochs_per_round is 0"), ({"rewind_epoch": 1}, "rewind_epoch is 1"),
     ({"score": "gradient"}, "score is 'gradient'"), ({"scope": "row"}, "scope is 'row'"),
     ({"share": 1.5}, "share is 1.5"), ({"sign": "zero"}, "sign is 'zero'"),
     ({"criterion": "age"}, "criterion is 'age'"), ({"layers": "first"}, "layers is 'first'")],
)  # fmt: skip
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        ActivatingPruning(**{"sparsities": [0.5], "epochs_per_round": 1, **options})


def test_the_monitor_counts_what_a_loop_counts_and_changes_nothing(rewound):
    (task, _), _ = rewound
    monitor, pruning = DeadNeuronMonitor(), IterativePruning(SPARSITIES, 1)
    watched, run = fit([monitor, pruning])
    assert_same(weights(watched), weights(task))
    assert not any(layer._forward_hooks for layer in watched.modules())
    x, dead = build()[1][1].store.take(torch.arange(40))[0], []
    for block in watched.eval().model.blocks:
        x = block(x)
        dead.append((x.detach() == 0, block[0].mask.flatten(1).any(1)[:, None, None]))
    for number, (zero, linked) in enumerate(dead):
        assert monitor.values[f"dead/blocks.{number}.3/dynamic"] == pytest.approx(float((zero & linked).float().mean()))
    units = sum(zero[0].numel() for zero, _ in dead)
    static = sum(int((zero & ~linked).sum()) for zero, linked in dead) / units / 40
    always = sum(int(zero.all(0).sum()) for zero, _ in dead) / units
    logged = run.callback_metrics
    assert float(logged["val/dead_static"]) == pytest.approx(static)
    assert float(logged["val/dead_always"]) == pytest.approx(always)
    assert pruning.history[-1]["val/dead_dynamic"] == float(logged["val/dead_dynamic"]) > 0
    tested = run.test(watched, build()[1][1], verbose=False)[0]
    assert tested["test/dead_dynamic"] == pytest.approx(float(logged["val/dead_dynamic"]))


class Tokens(nn.Module):
    """One ReLU that is called twice: behind a layer on tokens, and behind a sum."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.relu = nn.ReLU()
        with torch.no_grad():
            self.first.weight[0] = 0.0  # without weights: dead by its bias, and alive by it
            self.first.weight[1] = 0.0
            self.first.bias[:2] = torch.tensor([-1.0, 1.0])

    def activations(self, x):
        h = (x @ self.first.weight.T + self.first.bias).clamp(min=0)
        return h, (h @ self.second.weight.T + self.second.bias + h).clamp(min=0)

    def forward(self, x):
        h = self.relu(self.first(x))
        h += self.second(h)  # in place: what the first call gave is there no more
        return self.head(self.relu(h).mean(1))


def test_the_monitor_counts_tokens_as_samples_and_each_call_of_a_relu():
    torch.manual_seed(0)
    monitor, network, x = DeadNeuronMonitor(), make(Tokens), torch.randn(5, 6, 3)
    loader = BatchLoader(TensorStore(x, torch.arange(5) % 3), 2, shuffle=False)
    logged = trainer(callbacks=[monitor]).validate(Classification(network, 3), loader, verbose=False)[0]
    first, second = ((h.detach() == 0) for h in network.activations(x))
    tokens, linked = first.flatten(0, 1), torch.tensor([False, False, True, True])
    expected = {
        "relu.0/dynamic": (tokens & linked).float().mean(), "relu.0/static": (tokens & ~linked).float().mean(),
        "relu.0/always": tokens.all(0).float().mean(), "relu.1/dynamic": second.float().mean(), "relu.1/static": 0.0,
        "relu.1/always": second.all(0).float().mean(),
    }  # fmt: skip
    assert monitor.values == {f"dead/{name}": pytest.approx(float(value)) for name, value in expected.items()}
    assert monitor.values["dead/relu.0/static"] == pytest.approx(0.25)
    for kind in ("dynamic", "static", "always"):  # weighted by 4 units and 6 x 4 units
        total = (4 * expected[f"relu.0/{kind}"] + 24 * expected[f"relu.1/{kind}"]) / 28
        assert logged[f"val/dead_{kind}"] == pytest.approx(float(total))


def test_a_callback_begins_anew_with_each_run():
    callback = ActivatingPruning([0.5], 1, layers="all")
    once = weights(fit([callback], epochs=2)[0])
    history = copy.deepcopy(callback.history)
    assert_same(weights(fit([callback], epochs=2)[0]), once)
    assert callback.history == history
