import os
import signal
import subprocess
import sys

import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, WeightAveraging

import graphseq
from tests.reliability.runs import build, trainer, weights


class Interrupted(Exception):
    pass


class SaveAndStop(Callback):
    """Saves after a training batch, draws some random numbers as an interrupted process would not, and stops."""

    def __init__(self, step, path):
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer, task, *args):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)
            raise Interrupted


def uninterrupted(**options):
    task, data = build()
    trainer(**options).fit(task, data)
    return weights(task)


@pytest.fixture(scope="module")
def expected():
    return uninterrupted()


def assert_same(left, right):
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


def contains(whole, part):
    """Loading adds the defaults to the record; what was given must still be there."""
    if isinstance(part, dict):
        return all(contains(whole.get(key), value) for key, value in part.items())
    return whole == part


def test_same_seed_twice_gives_the_same_numbers(expected):
    assert_same(uninterrupted(), expected)


def test_another_seed_gives_other_numbers(expected):
    task, data = build(seed=1)
    trainer().fit(task, data)
    assert any(not torch.equal(value, expected[name]) for name, value in task.state_dict().items())


# 6 batches an epoch: first batch, mid-epoch, last batch of an epoch, first of the next, mid of the last
@pytest.mark.parametrize("step", [1, 4, 6, 7, 12, 15])
def test_resume_equals_the_uninterrupted_run(step, expected, tmp_path):
    task, data = build()
    with pytest.raises(Interrupted):
        trainer(callbacks=[SaveAndStop(step, tmp_path / "k.ckpt")]).fit(task, data)
    task, data = build()
    torch.rand(100)  # the new process is somewhere else in its random numbers
    trainer().fit(task, data, ckpt_path=tmp_path / "k.ckpt", weights_only=True)
    assert_same(weights(task), expected)


@pytest.mark.parametrize(
    "options", [{"val_check_interval": 2}, {"accumulate_grad_batches": 2}, {"limit_train_batches": 4}]
)
def test_resume_under_trainer_options(options, tmp_path):
    expected = uninterrupted(**options)
    task, data = build()
    with pytest.raises(Interrupted):
        trainer(callbacks=[SaveAndStop(5, tmp_path / "k.ckpt")], **options).fit(task, data)
    task, data = build()
    torch.rand(100)
    trainer(**options).fit(task, data, ckpt_path=tmp_path / "k.ckpt")
    assert_same(weights(task), expected)


@pytest.mark.parametrize("when", [{"every_n_epochs": 1}, {"save_on_train_epoch_end": True}, {"every_n_train_steps": 6}])
def test_resume_from_checkpoints_that_lightning_writes(when, expected, tmp_path):
    task, data = build()
    keep = ModelCheckpoint(tmp_path, filename="{epoch}-{step}", save_top_k=-1, **when)
    trainer(callbacks=[keep], enable_checkpointing=True).fit(task, data)
    first = min(tmp_path.glob("*.ckpt"), key=lambda path: path.stat().st_mtime)
    task, data = build()
    torch.rand(100)
    trainer().fit(task, data, ckpt_path=first)
    assert_same(weights(task), expected)


def test_resume_with_averaged_weights(tmp_path):
    average = lambda: WeightAveraging(avg_fn=lambda old, new, n: 0.9 * old + 0.1 * new)  # noqa: E731

    def run(callbacks, ckpt_path=None):
        task, data = build()
        trainer(callbacks=callbacks).fit(task, data, ckpt_path=ckpt_path)
        return weights(task)

    expected = run([average()])
    with pytest.raises(Interrupted):
        run([average(), SaveAndStop(7, tmp_path / "k.ckpt")])
    assert_same(run([average()], tmp_path / "k.ckpt"), expected)


CHILD = """
import sys, torch
from lightning.pytorch.callbacks import ModelCheckpoint
from tests.reliability.runs import build, trainer, weights
folder, resume = sys.argv[1], sys.argv[2:] and sys.argv[2]
class Slow(ModelCheckpoint):
    def on_train_batch_end(self, trainer, task, *args):
        super().on_train_batch_end(trainer, task, *args)
        print("step", trainer.global_step, flush=True)
        if not resume and trainer.global_step >= 9:
            import time; time.sleep(60)
task, data = build()
keep = Slow(folder, filename="{step}", every_n_train_steps=4, save_top_k=-1)
trainer(callbacks=[keep], enable_checkpointing=True).fit(task, data, ckpt_path=resume or None)
torch.save(weights(task), folder + "/final.pt")
"""


def test_kill_in_mid_epoch_and_resume(expected, tmp_path):
    """kill -9 while the second epoch runs; a new process goes on from the last checkpoint on disk."""
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    command = [sys.executable, "-c", CHILD, str(tmp_path)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.split() == ["step", "9"]:
            break
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "final.pt").exists()
    last = tmp_path / "step=8.ckpt"
    assert last.exists()
    subprocess.run([*command, str(last)], env=environment, check=True, capture_output=True)
    assert_same(torch.load(tmp_path / "final.pt", weights_only=True), expected)


def test_checkpoint_opens_safely_and_loads_without_naming_the_class(tmp_path):
    task, data = build()
    fitted = trainer(max_epochs=1)
    fitted.fit(task, data)
    fitted.save_checkpoint(tmp_path / "a.ckpt")
    opened = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert opened["hyper_parameters"]["_class_path"] == "graphseq.tasks.Classification"
    assert opened["graphseq"]["version"] == graphseq.__version__
    again = graphseq.load(tmp_path / "a.ckpt")
    assert_same(weights(again), weights(task))
    assert contains(again._record, task._record)
    batch = next(data.batches("test"))
    task.eval(), again.eval()
    assert torch.equal(task(batch), again(batch))


def test_loaded_task_is_saved_again_with_its_whole_record(tmp_path):
    from torch_geometric.nn import GIN

    from graphseq.core import make
    from graphseq.models import FromPyG
    from graphseq.tasks import Classification

    _, data = build()
    task = Classification(FromPyG(make(GIN, 3, 8, 2), out_channels=3), 3)
    fitted = trainer(max_epochs=1)
    fitted.fit(task, data)
    fitted.save_checkpoint(tmp_path / "a.ckpt")
    again = graphseq.load(tmp_path / "a.ckpt")
    assert contains(again._record, task._record)  # the foreign network inside is recorded too
    second = trainer(max_epochs=1)
    second.fit(again, data)
    second.save_checkpoint(tmp_path / "b.ckpt")
    assert_same(weights(graphseq.load(tmp_path / "b.ckpt")), weights(again))
