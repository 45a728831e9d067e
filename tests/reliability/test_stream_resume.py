"""A run over a stream that is stopped and resumed equals the one that was not: weights, memory, mail, metrics."""

import os
import signal
import subprocess
import sys

import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from tests.reliability.test_resume import Interrupted, SaveAndStop, assert_same
from tests.tasks.streams.streams import build, events, trainer, weights

KINDS = ["tgn", "pres", "dyrep"]


class Metrics(Callback):
    """What every epoch logged."""

    def __init__(self):
        self.seen = {}

    def on_train_epoch_end(self, run, task):
        self.seen[run.current_epoch] = {name: float(value) for name, value in run.callback_metrics.items()}


def outcome(kind="tgn", path=None, callbacks=(), data=None, **options):
    """Weights and state after a run, the state of training beside them, the test that follows, logged metrics."""
    task, data = build(kind, data=data, coherence_weight=0.1)
    if path:
        torch.rand(100)  # the new process is somewhere else in its random numbers
    metrics = Metrics()
    run = trainer(**{"max_epochs": 3, "callbacks": [metrics, *callbacks], **options})
    run.fit(task, data, ckpt_path=path, weights_only=True if path else None)
    left = weights(task)
    beside = task._after_training
    beside = {} if beside is None else {**beside.buffers, "next": torch.tensor(beside.next_event)}
    tested = trainer().test(task, data, verbose=False)[0]
    return left, beside, tested, task._next_event, metrics.seen


def assert_equal(resumed, expected, since):
    assert_same(resumed[0], expected[0])
    assert_same(resumed[1], expected[1])
    assert resumed[2:4] == expected[2:4]
    # of the epoch that was interrupted, the mean training loss lacks what came before, and so may validation
    for name, value in resumed[4].get(since, {}).items():
        assert not name.startswith("val/") or value == expected[4][since][name]
    assert all(resumed[4][epoch] == expected[4][epoch] for epoch in range(since + 1, 3))


@pytest.fixture(scope="module")
def uninterrupted():
    kept = {}
    return lambda kind: kept[kind] if kind in kept else kept.setdefault(kind, outcome(kind))


def stopped(kind, callback, **options):
    task, data = build(kind, data=options.pop("data", None), coherence_weight=0.1)
    with pytest.raises(Interrupted):
        trainer(**{"max_epochs": 3, "callbacks": [callback], **options}).fit(task, data)


# 7 batches an epoch: the first, in the middle, the last, the first of the next, in the middle of the last
@pytest.mark.parametrize(("kind", "step"), [("tgn", step) for step in (1, 4, 7, 8, 18)] + [("pres", 11), ("dyrep", 11)])
def test_resume_equals_the_uninterrupted_run(kind, step, uninterrupted, tmp_path):
    stopped(kind, SaveAndStop(step, tmp_path / "k.ckpt"))
    expected = uninterrupted(kind)
    assert expected[0]["model.memory.memory"].any()
    assert_equal(outcome(kind, tmp_path / "k.ckpt"), expected, since=(step - 1) // 7)


class SaveAfterValidation(Callback):
    """Saves where ModelCheckpoint does, at the end of the n-th validation, and stops."""

    def __init__(self, number, path):
        self.number, self.path = number, path

    def on_validation_end(self, run, task):
        if run.sanity_checking:
            return
        self.number -= 1
        if self.number == 0:
            run.save_checkpoint(self.path)
            raise Interrupted


# validation after batches 3 and 6 of each epoch
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", [1, 4])
def test_resume_after_validation_in_mid_epoch(kind, number, tmp_path):
    expected = outcome(kind, val_check_interval=3)
    stopped(kind, SaveAfterValidation(number, tmp_path / "k.ckpt"), val_check_interval=3)
    saved = torch.load(tmp_path / "k.ckpt", weights_only=True)
    memory, beside = saved["state_dict"]["model.memory.memory"], saved["graphseq"]["stream"]["after_training"]
    assert not torch.equal(memory, beside["buffers"]["memory.memory"])  # both states are in it
    resumed = outcome(kind, tmp_path / "k.ckpt", val_check_interval=3)
    assert_equal(resumed, expected, since=(number - 1) // 2)


@pytest.mark.parametrize("step", [3, 5, 10])
def test_resume_between_validations_in_mid_epoch(step, tmp_path):
    expected = outcome(val_check_interval=3)
    stopped("tgn", SaveAndStop(step, tmp_path / "k.ckpt"), val_check_interval=3)
    assert_equal(outcome(path=tmp_path / "k.ckpt", val_check_interval=3), expected, since=(step - 1) // 7)


@pytest.mark.parametrize(
    "when",
    [{"every_n_epochs": 1}, {"save_on_train_epoch_end": True}, {"every_n_train_steps": 7}, {"every_n_train_steps": 5}],
)
def test_resume_from_checkpoints_that_lightning_writes(when, uninterrupted, tmp_path):
    keep = ModelCheckpoint(tmp_path, filename="{epoch}-{step}", save_top_k=-1, **when)
    assert_equal(outcome(callbacks=[keep], enable_checkpointing=True), uninterrupted("tgn"), since=0)
    first = min(tmp_path.glob("*.ckpt"), key=lambda path: path.stat().st_mtime)
    assert_equal(outcome(path=first), uninterrupted("tgn"), since=1)


def test_resume_with_random_batches_and_nodes_kept_from_training(tmp_path):
    from graphseq.data import RandomChunkBatches

    def data():
        return events(batching=RandomChunkBatches(60, 3), inductive_ratio=0.1)

    expected = outcome(data=data())
    stopped("tgn", SaveAndStop(9, tmp_path / "k.ckpt"), data=data())
    assert_equal(outcome(path=tmp_path / "k.ckpt", data=data()), expected, since=1)
    assert "val/new_ap" in expected[4][0]


CHILD = """
import sys, torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from tests.reliability.test_stream_resume import outcome
folder, resume = sys.argv[1], sys.argv[2:] and sys.argv[2]
class Slow(ModelCheckpoint):
    def on_train_batch_end(self, run, task, *args):
        super().on_train_batch_end(run, task, *args)
        print("step", run.global_step, flush=True)
        if not resume and run.global_step >= 12:
            import time; time.sleep(60)
keep = Slow(folder, filename="{step}", every_n_train_steps=4, save_top_k=-1)
left = outcome(path=resume or None, callbacks=[keep], enable_checkpointing=True, val_check_interval=3)
torch.save(left, folder + "/final.pt")
"""


@pytest.mark.slow  # two processes that train; test_resume.py does the same with graphs in every run
def test_kill_in_mid_epoch_and_resume(tmp_path):
    """kill -9 while the second epoch runs; a new process goes on from the last checkpoint on disk."""
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    command = [sys.executable, "-c", CHILD, str(tmp_path)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.split() == ["step", "12"]:
            break
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "final.pt").exists()
    last = tmp_path / "step=12.ckpt"
    subprocess.run([*command, str(last)], env=environment, check=True, capture_output=True)
    resumed = torch.load(tmp_path / "final.pt", weights_only=True)
    assert_equal(resumed, outcome(val_check_interval=3), since=1)
