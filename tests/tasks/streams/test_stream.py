import copy
import functools
import json
import subprocess
import sys
import warnings
from types import SimpleNamespace

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import Callback, GradientAccumulationScheduler, ModelCheckpoint
from sklearn.metrics import average_precision_score
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SubsetRandomSampler, WeightedRandomSampler

import graphseq
from graphseq.core import CheckpointError, DataError, UnsupportedStrategyError
from graphseq.data import BatchLoader, RandomChunkBatches, TBatches
from graphseq.metrics import link_average_precision, link_ranks
from graphseq.models import EdgeBank
from graphseq.tasks import StreamTask, TemporalLinkPrediction
from tests.tasks.small import Fit, rows
from tests.tasks.small import fit as fit_rows
from tests.tasks.streams.streams import build, events, same, state, trainer


class Watch(Callback):
    """Notes the state of the network at hooks, by name."""

    def __init__(self, *hooks):
        self.seen = {}
        for hook in hooks:
            setattr(self, hook, functools.partial(self._note, hook))

    def _note(self, hook, run, task, *args):
        self.seen.setdefault(hook, []).append(state(task))


def fitted(kind="tgn", epochs=1, **options):
    task, data = build(kind)
    run = trainer(max_epochs=epochs, **options)
    run.fit(task, data)
    return task, data, run


def replayed(task, data, *splits):
    """The state after some splits, committed by hand from nothing, and the logits on the way."""
    task.network.reset_state()
    task.eval()
    logits = {}
    with torch.no_grad():
        for split in splits:
            logits[split] = []
            for batch in data.batches(split):
                output, update = task.network.forward_with_update(batch)
                task.network.commit(update)
                logits[split].append(output)
    return state(task), {split: torch.cat(outputs) for split, outputs in logits.items()}


def test_every_epoch_starts_from_nothing():
    watch = Watch("on_before_zero_grad")  # after the step of a batch, which commits
    steps = []

    class Starts(Callback):
        def on_train_batch_start(self, run, task, batch, batch_idx):
            steps.append(batch_idx)

        def on_train_batch_end(self, run, task, outputs, batch, batch_idx):
            if batch_idx == 0:
                memory = task.network.memory
                touched = torch.cat([batch.src, batch.dst]).unique()
                assert memory.pending.nonzero().squeeze(1).equal(touched)  # of this batch, and nothing else
                assert not memory.memory.any()  # no mail has been applied yet

    task, data = build()
    trainer(max_epochs=2, callbacks=[watch, Starts()]).fit(task, data)
    assert steps == 2 * list(range(7))


def test_the_state_is_that_of_a_replay_with_frozen_weights():
    task, data = build(lr=0.0)
    run = trainer(max_epochs=2)
    run.fit(task, data)
    after_training = {name: value.clone() for name, value in task._after_training.buffers.items()}
    after_validation = state(task)
    run.test(task, data, verbose=False)
    assert same(state(task), after_validation)
    assert same(replayed(task, data, "train")[0], after_training)
    assert same(replayed(task, data, "train", "val")[0], after_validation)


@pytest.mark.parametrize("kind", ["tgn", "pres"])
def test_commit_comes_before_the_step(kind):
    """What is stored was computed with the weights of the loss, not with those after the step."""

    class Check(Callback):
        checked = 0

        def on_train_batch_start(self, run, task, batch, batch_idx):
            if batch_idx:
                random = torch.get_rng_state()
                _, update = task.network.forward_with_update(batch)
                torch.set_rng_state(random)
                self.batch, self.expected = batch, update.memory.detach().clone()
                self.nodes, self.endpoint = update.plan.nodes, update.plan.endpoint

        def on_before_optimizer_step(self, run, task, optimizer):
            if run.fit_loop.epoch_loop.batch_idx:
                stored = task.network.memory.memory[self.nodes[self.endpoint]]
                assert torch.equal(stored, self.expected[self.endpoint])
                assert stored.any()
                Check.checked += 1

    task, data = build(kind)
    trainer(max_epochs=1, callbacks=[Check()]).fit(task, data)
    assert Check.checked == 6


def test_the_updater_learns():
    task, data = build()
    first = {name: value.clone() for name, value in task.model.named_parameters()}
    trainer(max_epochs=1).fit(task, data)
    still = [name for name, value in task.model.named_parameters() if torch.equal(value, first[name])]
    assert still == []


def test_the_sanity_check_leaves_no_trace():
    without = fitted(epochs=2, num_sanity_val_steps=0)[0]
    watch = Watch("on_sanity_check_end")
    task = fitted(epochs=2, num_sanity_val_steps=2, callbacks=[watch])[0]
    (after,) = watch.seen["on_sanity_check_end"]
    assert not any(value.any() for value in after.values())
    assert same(task.state_dict(), without.state_dict())
    assert task._next_event == without._next_event
    assert same(task._after_training.buffers, without._after_training.buffers)


@pytest.mark.parametrize("kind", ["tgn", "pres", "dyrep"])
def test_validation_leaves_training_alone(kind):
    often = fitted(kind, epochs=2, val_check_interval=3)[0]
    never = fitted(kind, epochs=2, limit_val_batches=0)[0]
    assert same(dict(often.named_parameters()), dict(never.named_parameters()))
    assert same(state(often), state(never))  # the last one is before the last batch, so its state is gone


def test_validation_on_its_own_equals_the_one_inside_fit():
    task, data, run = fitted(epochs=2)
    inside = {name: value for name, value in run.callback_metrics.items() if name.startswith("val/")}
    assert {"val/loss", "val/ap", "val/auc"} <= inside.keys()
    assert not any("mrr" in name for name in inside)  # of two candidates a rank says little
    tested = run.test(task, data, verbose=False)[0]
    for _ in range(2):
        alone = trainer().validate(task, data, verbose=False)[0]
        assert alone == {name: float(value) for name, value in inside.items()}
        assert trainer().test(task, data, verbose=False)[0] == tested


def test_validation_on_its_own_can_be_repeated_where_fit_had_none():
    task, data, _ = fitted(limit_val_batches=0)
    first = trainer().validate(task, data, verbose=False)[0]
    assert trainer().validate(task, data, verbose=False)[0] == first


def test_test_and_prediction_start_from_the_state_after_validation_and_can_be_repeated():
    task, data, run = fitted()
    before = state(task)
    first, second = (run.test(task, data, verbose=False)[0] for _ in range(2))
    assert first == second
    predicted = [torch.cat(run.predict(task, data)) for _ in range(2)]
    assert torch.equal(*predicted)
    assert same(state(task), before)
    task.eval()
    with torch.no_grad():
        task.observe([])
        expected = []
        for batch in data.batches("test"):
            logits, update = task.network.forward_with_update(batch)
            task.network.commit(update)
            expected.append(logits)
    assert torch.equal(predicted[0], torch.cat(expected))


class Stop(Exception):
    pass


class StopAt(Callback):
    def __init__(self, hook, save=None):
        def stop(run, task, *args):
            if not run.sanity_checking:
                if save:
                    run.save_checkpoint(save)
                raise Stop

        setattr(self, hook, stop)


@pytest.mark.parametrize("hook", ["on_test_batch_end", "on_predict_batch_end"])
def test_a_test_that_breaks_off_leaves_no_trace(hook):
    task, data, run = fitted()
    expected = run.test(task, data, verbose=False)[0]
    broken = trainer(callbacks=[StopAt(hook)])
    with pytest.raises(Stop):
        broken.test(task, data, verbose=False) if "test" in hook else broken.predict(task, data)
    assert trainer().test(task, data, verbose=False)[0] == expected


def test_validation_that_breaks_off_leaves_no_trace(tmp_path):
    expected = fitted(epochs=2)[0]
    task, data = build()
    with pytest.raises(Stop):
        trainer(max_epochs=2, callbacks=[StopAt("on_validation_batch_end", tmp_path / "k.ckpt")]).fit(task, data)
    task, data = build()
    trainer(max_epochs=2).fit(task, data, ckpt_path=tmp_path / "k.ckpt")
    assert same(task.state_dict(), expected.state_dict())
    assert same(task._after_training.buffers, expected._after_training.buffers)


CHILD = """
import sys, json, torch, graphseq
from tests.tasks.streams.streams import build, trainer
path = sys.argv[1]
task, data = build(seed=5)
built = trainer().test(task, data, ckpt_path=path, verbose=False)[0]
loaded = graphseq.load(path)
print(json.dumps([built, trainer().test(loaded, data, verbose=False)[0],
                  trainer().validate(loaded, data, verbose=False)[0]]))
"""


def test_the_best_checkpoint_carries_its_state(tmp_path):
    """Testing it later, elsewhere, is testing right after the epoch that it is of."""
    tested = []

    class Keep(Callback):
        def on_train_epoch_end(self, run, task):
            tested.append((run.current_epoch, {name: value.clone() for name, value in task.state_dict().items()}))

    keep = ModelCheckpoint(tmp_path, filename="{epoch}", monitor="val/ap", mode="min", save_top_k=1)
    task, data = build()
    trainer(max_epochs=4, callbacks=[keep, Keep()], enable_checkpointing=True).fit(task, data)
    best = int(keep.best_model_path.split("epoch=")[1].split(".")[0])
    assert best < 3  # monitored upside down, so that the best is not the last
    saved = torch.load(keep.best_model_path, weights_only=True)
    assert same(saved["state_dict"], dict(tested)[best])

    fresh, data = build()
    fresh.load_state_dict(dict(tested)[best])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = trainer().test(fresh, data, verbose=False)[0]
    by_fit = trainer().test(task, data, ckpt_path=keep.best_model_path, verbose=False)[0]
    child = subprocess.run(
        [sys.executable, "-c", CHILD, keep.best_model_path], check=True, capture_output=True, text=True
    )
    built, loaded, validated = json.loads(child.stdout.splitlines()[-1])
    assert expected == by_fit == built == loaded
    assert validated["val/ap"] == pytest.approx(float(keep.best_model_score), abs=1e-7)


def test_load_gives_the_whole_task(tmp_path):
    task, data, run = fitted("pres")
    run.save_checkpoint(tmp_path / "a.ckpt")
    torch.load(tmp_path / "a.ckpt", weights_only=True)
    again = graphseq.load(tmp_path / "a.ckpt")
    assert same(again.state_dict(), task.state_dict())
    assert same(again._after_training.buffers, task._after_training.buffers)
    assert again._next_event == task._next_event
    assert trainer().test(again, data, verbose=False) == run.test(task, data, verbose=False)


# observing


def test_observing_is_what_evaluation_does():
    task, data, run = fitted()
    expected = run.test(task, data, verbose=False)[0]
    training = task._after_training.buffers
    after = state(task)
    task.network.load_state_buffers(training)
    task._next_event = 0
    task.train()
    task.model.decoder.eval()  # someone froze a part
    task.observe(data.batches("val"))
    assert task.model.training
    assert not task.model.decoder.training
    assert same(state(task), after)
    assert run.test(task, data, verbose=False)[0] == expected


def test_observing_moves_the_start_of_validation():
    task, data, _ = fitted()
    inside = trainer().validate(task, data, verbose=False)[0]
    task.reset_state()
    with pytest.warns(UserWarning, match=r"validation .*event 490, .* 0 "):
        assert trainer().validate(task, data, verbose=False)[0] != inside
    task.reset_state()
    task.observe(data.batches("train"))
    expected, logits = replayed(task, data, "train", "val")
    task.reset_state()
    task.observe(data.batches("train"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*(LeafSpec|num_workers|logger)")
        for _ in range(2):
            alone = trainer().validate(task, data, verbose=False)[0]
            assert same(state(task), expected)
    target = torch.zeros_like(logits["val"])
    target[:, 0] = 1
    assert alone["val/ap"] == pytest.approx(float(link_average_precision(logits["val"], target)), abs=1e-6)


def test_a_network_that_brings_a_state_is_predicted_from_an_empty_one():
    """Of what the weights came with a new task knows nothing; PRES tracks in the replay what it tracked in training."""
    task, data = build("pres", data=events(num_events=200))

    def predictions(task, split):
        return torch.cat([task.predict_step(batch, 0) for batch in task.prediction_batches(data, split, 60)])

    task.eval()
    with torch.no_grad():
        expected = {"train": predictions(task, "train")}
        task.reset_state()
        task.observe(data.batches("train"), track_moments=True)
        task.observe(data.batches("val"))
        expected["test"] = predictions(task, "test")
        task.observe(data.batches("test"))
        assert task.network.corrector.count.any()
        other = TemporalLinkPrediction(copy.deepcopy(task.network)).eval()
        before = state(other)
        for split in ("train", "test"):
            assert torch.equal(predictions(other, split), expected[split])
            assert same(state(other), before)
    with pytest.warns(UserWarning, match=r"validation .*event \d+, .*remembers events .*reset_state"):
        trainer().validate(other, data, verbose=False)
    other.reset_state()
    with pytest.warns(UserWarning, match=r"validation .*event \d+, .* 0 only"):
        trainer().validate(other, data, verbose=False)


def test_ranks_in_tables_are_those_of_the_metrics():
    task, data = build("jodie")
    batch = next(data.batches("val"))
    nan = float("nan")
    logits = torch.tensor([[nan, 0.0, 1.0], [0.0, nan, -1.0], [1.0, 1 + 1e-12, 1.0]], dtype=torch.float64)
    assert task.event_outputs(batch, logits)["rank"].tolist() == link_ranks(logits).tolist() == [3, 2, 2.5]


def test_observing_what_is_past():
    task, data, _ = fitted()
    with pytest.raises(DataError, match=r"event 0, .* 59\d; .*reset_state"):
        task.observe(data.batches("train"))
    task.reset_state()
    task.observe(data.batches("train"))


def test_a_gap_before_the_test_is_told():
    task, data, _ = fitted(limit_val_batches=0)
    with pytest.warns(UserWarning, match=r"test .*event \d+, .* 490 .*observe"):
        trainer().test(task, data, verbose=False)
    with pytest.warns(UserWarning, match=r"prediction .*event 595"):
        trainer().predict(task, data)


def test_a_network_that_learns_nothing():
    """EdgeBank under the task: it sees training and validation, then its test equals a loop of one's own."""
    data = events(repeat=0.9)
    task = TemporalLinkPrediction(EdgeBank())
    task.observe(data.batches("train"))
    val = trainer().validate(task, data, verbose=False)[0]
    first, second = (trainer().test(task, data, verbose=False)[0] for _ in range(2))
    assert first == second
    assert trainer().validate(task, data, verbose=False)[0] == val
    assert trainer().test(task, data, verbose=False)[0] == first
    seen, pairs = [], set()
    for split in ("train", "val", "test"):
        for batch in data.batches(split):
            if split == "test":
                negatives = zip(batch.src.tolist(), batch.neg_dst[:, 0].tolist(), strict=True)
                true = zip(batch.src.tolist(), batch.dst.tolist(), strict=True)
                seen += [(float(a in pairs), float(b in pairs)) for a, b in zip(true, negatives, strict=True)]
            pairs |= set(zip(batch.src.tolist(), batch.dst.tolist(), strict=True))
    ap = average_precision_score([1, 0] * len(seen), [score for pair in seen for score in pair])
    assert first["test/ap"] == pytest.approx(ap, abs=1e-6)
    assert first["test/ap"] > 0.6
    task.observe(data.batches("test"))  # outside of inference mode again


def test_state_that_grew_is_saved_and_loaded(tmp_path):
    data = events()
    task = TemporalLinkPrediction(EdgeBank())
    task.observe(data.batches("train"))
    run = trainer()
    run.validate(task, data, verbose=False)
    run.save_checkpoint(tmp_path / "a.ckpt")
    again = graphseq.load(tmp_path / "a.ckpt")
    assert same(state(again), state(task))
    assert trainer().test(again, data, verbose=False) == trainer().test(task, data, verbose=False)


# refusals


def test_networks_without_memory_are_refused():
    with pytest.raises(TypeError, match=r"Linear.*forward_with_update"):
        StreamTask(nn.Linear(2, 1))


def test_several_processes_are_refused():
    task, _ = build()
    task._trainer = SimpleNamespace(world_size=2, accumulate_grad_batches=1)
    with pytest.raises(UnsupportedStrategyError, match=r"TemporalLinkPrediction .*process, 2 "):
        task.setup("fit")


def test_accumulated_gradients_are_refused():
    task, data = build()
    with pytest.raises(UnsupportedStrategyError, match="accumulate_grad_batches is 2"):
        trainer(accumulate_grad_batches=2).fit(task, data)
    task, data = build()
    with pytest.raises(UnsupportedStrategyError, match="accumulate_grad_batches is 3"):
        trainer(callbacks=[GradientAccumulationScheduler({1: 3})]).fit(task, data)
    trainer(accumulate_grad_batches=2).validate(task, data, verbose=False)  # of no effect there


def first(batch):
    (event,) = batch
    return event


def single_events(data, split):
    return functools.partial(DataLoader, list(data.batches(split)), batch_size=1, collate_fn=first)


def test_shuffled_and_several_loaders_are_refused():
    task, data = build()
    train, val = single_events(data, "train"), single_events(data, "val")
    with pytest.raises(UnsupportedStrategyError, match="the DataLoader shuffles"):
        trainer().fit(task, train(shuffle=True), val())
    with pytest.raises(UnsupportedStrategyError, match="the DataLoader shuffles"):
        trainer().validate(task, val(shuffle=True))
    for sampler in (SubsetRandomSampler(range(490)), WeightedRandomSampler([1.0] * 490, 490)):
        with pytest.raises(UnsupportedStrategyError, match="the DataLoader shuffles"):
            trainer().fit(task, train(sampler=sampler), val())
    listed = list(data.batches("train"))
    by_batch = DataLoader(listed, batch_sampler=BatchSampler(RandomSampler(listed), 1, False), collate_fn=first)
    with pytest.raises(UnsupportedStrategyError, match="the DataLoader shuffles"):
        trainer().fit(task, by_batch, val())
    with pytest.raises(UnsupportedStrategyError, match="the BatchLoader shuffles"):
        trainer().fit(task, BatchLoader(data.store, 1, shuffle=True), val())
    with pytest.raises(UnsupportedStrategyError, match="2 loaders by name"):
        trainer().fit(task, {"a": train(), "b": train()}, val())
    with pytest.raises(RuntimeError, match="multiple `val_dataloader`"):  # Lightning's word for it
        trainer().validate(task, [val(), val()])
    task, _ = build()
    own = trainer(max_epochs=1)
    own.fit(task, train(), val())
    assert own.callback_metrics["val/ap"] > 0


def test_batches_out_of_order_are_refused():
    task, data = build()
    backwards = list(data.batches("train"))[::-1]
    with pytest.raises(DataError, match=r"event 350 .*event 420"):
        trainer().fit(task, DataLoader(backwards, batch_size=1, collate_fn=first))
    task.reset_state()
    with pytest.raises(DataError, match=r"event 350 .*event 420"):
        task.observe(backwards)
    for batching in (TBatches(), RandomChunkBatches(70, 5)):  # batches that interleave begin in order all the same
        lightning.seed_everything(0, verbose=False)
        task, data = build(data=events(batching=batching))
        trainer(max_epochs=2).fit(task, data)


def test_t_batches_that_are_divided_may_begin_before_others():
    task, data = build("jodie", data=events(num_events=100, batching=TBatches(2)))
    starts = [batch.start for batch in data.batches("train")]
    assert starts != sorted(starts)
    task.observe(data.batches("train"))
    trainer(max_epochs=1).fit(task, data)


def test_events_that_are_past_are_refused():
    task, data, run = fitted()
    expected = run.test(task, data, verbose=False)
    for method, what in ((run.test, "the test"), (run.predict, "the prediction"), (run.validate, "validation")):
        with pytest.raises(DataError, match=rf"{what} .*event 0, .*reset_state"):
            method(task, data.loader("train"))
        if method != run.validate:
            assert run.test(task, data, verbose=False) == expected
    run.validate(task, data, verbose=False)  # starts from the state of training, as ever
    assert run.test(task, data, verbose=False) == expected
    task.observe(data.batches("test"))
    with pytest.raises(DataError, match=r"test .*event 595, .* 700"):
        run.test(task, data, verbose=False)


@pytest.mark.parametrize("options", [{"batching": TBatches()}, {"inductive_ratio": 0.1}])
def test_no_gap_is_told_where_there_is_none(options):
    task, data = build(data=events(val_fraction=0, **options))
    run = trainer(max_epochs=1)
    run.fit(task, data)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*the network has seen.*")
        run.test(task, data, verbose=False)


def test_checkpoints_of_other_tasks(tmp_path):
    task, data, run = fitted()
    run.save_checkpoint(tmp_path / "a.ckpt")
    checkpoint = torch.load(tmp_path / "a.ckpt", weights_only=True)
    del checkpoint["graphseq"]["stream"]
    torch.save(checkpoint, tmp_path / "b.ckpt")
    with pytest.raises(CheckpointError, match="checkpoint .*event stream"):
        trainer(max_epochs=2).fit(task, data, ckpt_path=tmp_path / "b.ckpt")
    fit_rows(Fit(3), rows(4)).save_checkpoint(tmp_path / "c.ckpt")
    with pytest.raises(CheckpointError, match=r"run is a graphseq\.tasks\.TemporalLinkPrediction"):
        trainer(max_epochs=2).fit(task, data, ckpt_path=tmp_path / "c.ckpt")
    larger, data = build(data=events(num_sources=30))
    with pytest.raises(CheckpointError, match=r"memory.* \(37.* \(42.*num_nodes = 37 .*42"):
        trainer(max_epochs=2).fit(larger, data, ckpt_path=tmp_path / "a.ckpt")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda stream: stream.update(position=stream.pop("next_event")), r"stream\.next_event"),
        (lambda stream: stream.pop("after_training"), r"stream\.after_training"),
        (lambda stream: stream["after_training"].pop("buffers"), r"stream\.after_training\.buffers"),
        (
            lambda stream: stream["after_training"]["buffers"].update(
                store=stream["after_training"]["buffers"].pop("memory.memory")
            ),
            r"memory\.memory \(here only\), store \(there only\)",
        ),
    ],
)
def test_states_of_another_layout_name_the_keys(change, named, tmp_path):
    task, data = build()
    keep = ModelCheckpoint(tmp_path, filename="a")
    trainer(max_epochs=1, callbacks=[keep], enable_checkpointing=True).fit(task, data)
    checkpoint = torch.load(tmp_path / "a.ckpt", weights_only=True)
    change(checkpoint["graphseq"]["stream"])
    torch.save(checkpoint, tmp_path / "b.ckpt")
    with pytest.raises(CheckpointError, match=named):
        trainer(max_epochs=2).fit(task, data, ckpt_path=tmp_path / "b.ckpt")
    with pytest.raises(CheckpointError, match=named):
        graphseq.load(tmp_path / "b.ckpt")
