"""The example of two optimisers under manual optimisation, stopped within an epoch and resumed."""

import functools
import importlib.util
from pathlib import Path

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from graphseq.core import make
from graphseq.data import BatchLoader, TensorStore
from graphseq.models import MLP
from tests.reliability.runs import trainer, weights
from tests.reliability.test_resume import Interrupted, SaveAndStop, assert_same

PATH = Path(__file__).parents[2] / "examples" / "two_optimizers.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("two_optimizers", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build(example):
    lightning.seed_everything(3, verbose=False)
    task = example.AdversarialInvariance(
        MLP(64, 10, 8, dropout=0.2, norm="batch"),
        make(torch.nn.Linear, 8, 2),
        optimizer=functools.partial(torch.optim.Adam, lr=0.01),
        scheduler=functools.partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5),
    )
    return task, BatchLoader(TensorStore(*(part[:200] for part in example.digits()[0])), 32, shuffle=True)


# 7 batches an epoch, two optimiser steps each: within the first epoch, at its end, within the second
@pytest.mark.parametrize("step", [6, 14, 20])
def test_resume_equals_the_uninterrupted_run(example, step, tmp_path):
    task, loader = build(example)
    trainer().fit(task, loader)
    expected = weights(task)
    rates = [optimizer.param_groups[0]["lr"] for optimizer in task.trainer.optimizers]
    assert rates == [0.01 / 8] * 2
    task, loader = build(example)
    with pytest.raises(Interrupted):
        trainer(callbacks=[SaveAndStop(step, tmp_path / "k.ckpt")]).fit(task, loader)
    task, loader = build(example)
    torch.rand(100)
    trainer().fit(task, loader, ckpt_path=tmp_path / "k.ckpt", weights_only=True)
    assert_same(weights(task), expected)
    assert [optimizer.param_groups[0]["lr"] for optimizer in task.trainer.optimizers] == rates


def test_steps_are_counted_so_that_checkpoints_appear(example, tmp_path):
    task, loader = build(example)
    saved = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=4, save_top_k=-1)
    run = trainer(max_epochs=1, callbacks=[saved], enable_checkpointing=True)
    run.fit(task, loader)
    assert run.global_step == 14
    assert {path.stem for path in tmp_path.glob("*.ckpt")} == {"step=4", "step=8", "step=12"}
