"""Stages of proximal matching: their places, a resumed run, and what is refused."""

import functools
import math

import lightning
import pytest
import torch
from torch import nn

import graphseq
from graphseq.callbacks import ProximalAnnealing
from graphseq.core import make
from graphseq.data import LaplaceDenoisingDataModule
from graphseq.models import LearnedProximal
from graphseq.nn import InputConvexNetwork, ProximalMatchingLoss
from graphseq.tasks import Regression
from tests.reliability.runs import trainer, weights

STAGES = [(3, None, 0.05), (2, 2.0, 0.02), (4, 1.0, 0.01)]


def build(**options):
    lightning.seed_everything(0, verbose=False)
    data = LaplaceDenoisingDataModule(num_train=32, num_val=8, num_test=8, batch_size=8)
    network = LearnedProximal(InputConvexNetwork(1, 4, num_layers=2))
    adam = functools.partial(torch.optim.Adam, lr=1.0)
    return Regression(network, loss=ProximalMatchingLoss(0.5), optimizer=adam, **options), data


class Seen(lightning.Callback):
    def __init__(self):
        self.steps = []

    def on_train_batch_end(self, trainer, task, *rest):
        rates = {group["lr"] for group in trainer.optimizers[0].param_groups}
        self.steps.append((trainer.global_step, task.loss.training_gamma, *rates))
        assert all(bool((layer.weight >= 0).all()) for layer in task.model.potential.hidden)

    def on_validation_batch_end(self, trainer, task, *rest):
        prediction, target = torch.zeros(2, 1), torch.ones(2, 1)
        assert float(task.loss(prediction, target)) == pytest.approx(1 - math.exp(-4))  # gamma 0.5 in every stage


def test_each_step_has_its_stage():
    task, data = build()
    seen = Seen()
    trainer(max_epochs=3, callbacks=[ProximalAnnealing(STAGES), seen]).fit(task, data)
    expected = [(None, 0.05)] * 3 + [(2.0, 0.02)] * 2 + [(1.0, 0.01)] * 7  # the last stage goes on
    assert seen.steps == [(step, *stage) for step, stage in enumerate(expected, 1)]
    assert task.loss.training_gamma == 0.5


def test_a_run_in_two_parts_equals_one(tmp_path):
    whole, data = build()
    trainer(max_epochs=3, callbacks=[ProximalAnnealing(STAGES)]).fit(whole, data)
    task, data = build()
    first = trainer(max_epochs=1, callbacks=[ProximalAnnealing([*STAGES[:1], (9, 2.0, 0.02)])])
    first.fit(task, data)  # ends in the second stage
    first.save_checkpoint(tmp_path / "first.ckpt")
    loaded = graphseq.load(tmp_path / "first.ckpt")
    assert all(bool((layer.weight >= 0).all()) for layer in loaded.model.potential.hidden)
    task, data = build()
    second = trainer(max_epochs=3, callbacks=[ProximalAnnealing(STAGES)])
    second.fit(task, data, ckpt_path=tmp_path / "first.ckpt", weights_only=True)
    expected = weights(whole)
    assert all(torch.equal(value, expected[name]) for name, value in weights(task).items())


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        ([], "stages is empty"),
        ([(0, None, 0.1)], r"stages\[0\] has 0 steps"),
        ([(1, None, 0.0)], "learning rate 0"),
        ([(1, 0.0, 0.1)], "gamma 0"),
        ([(1, math.nan, 0.1)], "gamma nan"),
        ([(1, 0.5, 0.1), (1, 0.6, 0.1)], r"stages\[1\] has gamma 0\.6.* 0\.5"),
        ([(1, 0.5, 0.1), (1, None, 0.1)], r"stages\[1\].*None"),
    ],
)
def test_stages_that_are_none(stages, words):
    with pytest.raises(ValueError, match=words):
        ProximalAnnealing(stages)


def test_tasks_that_do_not_fit():
    task, data = build(scheduler=functools.partial(torch.optim.lr_scheduler.StepLR, step_size=1))
    with pytest.raises(TypeError, match="scheduler"):
        trainer(callbacks=[ProximalAnnealing(STAGES)]).fit(task, data)
    with pytest.raises(TypeError, match="MSELoss.*ProximalMatchingLoss"):
        trainer(callbacks=[ProximalAnnealing(STAGES)]).fit(Regression(make(nn.Linear, 1, 1)), data)
    task, data = build()
    with pytest.warns(UserWarning, match="4 steps and the last stage begins at 5"):
        trainer(max_epochs=1, callbacks=[ProximalAnnealing(STAGES)]).fit(task, data)
