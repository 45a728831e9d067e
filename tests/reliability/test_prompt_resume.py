"""Policies, critic and head, trained in turns, stopped and resumed."""

import functools

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from graphseq.data import GraphDataModule
from graphseq.models import GraphEncoder
from graphseq.tasks import ReinforcedPromptTuning
from tests.reliability.runs import graphs, trainer, weights
from tests.reliability.test_resume import Interrupted, assert_same


class SaveAfterBatch(lightning.Callback):
    """Saves after the given number of batches, and stops; optimiser steps are many a batch here."""

    def __init__(self, batches, path):
        self.left, self.path = batches, path

    def on_train_batch_end(self, run, task, *args):
        self.left -= 1
        if not self.left:
            run.save_checkpoint(self.path)
            raise Interrupted


def build():
    lightning.seed_everything(3, verbose=False)
    encoder = GraphEncoder(3, 8, num_layers=2, dropout=0.3)
    task = ReinforcedPromptTuning(
        encoder,
        3,
        target="multiclass",
        num_members=2,
        rollout_batch_size=4,
        minibatch_size=16,
        num_passes=2,
        optimizer=functools.partial(torch.optim.Adam, lr=0.01),
        scheduler=functools.partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5),
    )
    split = {"train": list(range(20)), "val": list(range(20, 26)), "test": list(range(26, 32))}
    return task, GraphDataModule(graphs(32), split=split, batch_size=10)


@pytest.fixture(scope="module")
def expected():
    task, data = build()
    run = trainer()
    run.fit(task, data)
    return weights(task), [optimizer.param_groups[0]["lr"] for optimizer in run.optimizers]


# 2 batches an epoch: within the first epoch, at its end, within the last
@pytest.mark.parametrize("batches", [1, 2, 5])
def test_resume_equals_the_uninterrupted_run(batches, expected, tmp_path):
    task, data = build()
    with pytest.raises(Interrupted):
        trainer(callbacks=[SaveAfterBatch(batches, tmp_path / "k.ckpt")]).fit(task, data)
    task, data = build()
    torch.rand(100)
    run = trainer()
    run.fit(task, data, ckpt_path=tmp_path / "k.ckpt", weights_only=True)
    assert_same(weights(task), expected[0])
    assert [optimizer.param_groups[0]["lr"] for optimizer in run.optimizers] == expected[1] == [5e-4 / 8, 0.01 / 8]


def test_resume_from_the_checkpoint_of_an_epoch(expected, tmp_path):
    task, data = build()
    keep = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    trainer(callbacks=[keep], enable_checkpointing=True).fit(task, data)
    assert len(list(tmp_path.glob("*.ckpt"))) == 3
    task, data = build()
    torch.rand(100)
    trainer().fit(task, data, ckpt_path=tmp_path / "epoch=0.ckpt")
    assert_same(weights(task), expected[0])
