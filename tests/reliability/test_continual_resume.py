"""Runs over several tasks that are killed, within a task and between two, go on bit for bit in the same order."""

import functools

import lightning
import pytest
import torch

from graphseq.data import SplitTasksDataModule
from graphseq.models import MLP
from graphseq.nn import OutputRegularizer, RNNHyperNetwork
from graphseq.tasks import ContinualHypernet, ElasticWeightConsolidation, ExperienceReplay, GrowthRule
from tests.reliability.runs import trainer, weights
from tests.reliability.test_resume import Interrupted, SaveAndStop, assert_same

ADAM = functools.partial(torch.optim.Adam, lr=0.01)


def hypernet():
    model = RNNHyperNetwork(MLP(64, 2, 4, dropout=0.3), 3, task_size=3, layer_size=3, hidden_size=4, chunk_size=50)
    regularizer = OutputRegularizer(0.1, weighted=True, num_sampled=1)
    return ContinualHypernet(model, 2, 3, regularizer=regularizer, growth=GrowthRule(2, 0.0, 2), optimizer=ADAM)


def consolidation():
    return ElasticWeightConsolidation(MLP(64, 6, 4, dropout=0.3), 2, 3, num_heads=3, optimizer=ADAM)


def replay():
    return ExperienceReplay(MLP(64, 2, 4, dropout=0.3), 2, 3, samples_per_task=5, optimizer=ADAM)


def build(kind, order):
    lightning.seed_everything(0, verbose=False)
    groups = [[0, 1], [2, 3], [4, 5]]
    return kind(), SplitTasksDataModule("digits", groups, epochs_per_task=1, batch_size=90, order=order)


@pytest.mark.parametrize(
    ("kind", "steps"),
    [
        (hypernet, [6]),
        *(
            pytest.param(kind, steps, marks=pytest.mark.slow)
            for kind, steps in ((hypernet, [2, 5]), (consolidation, [4]), (replay, [5]))
        ),
    ],
)
def test_resume(kind, steps, tmp_path):
    order = [1, 2, 0]
    task, data = build(kind, order)
    trainer().fit(task, data)
    expected = weights(task)
    assert len(data.train_dataloader()) == 3
    for step in steps:  # in the first task, in the second, and before the third
        task, data = build(kind, order)
        with pytest.raises(Interrupted):
            trainer(callbacks=[SaveAndStop(step, tmp_path / "k.ckpt")]).fit(task, data)
        task, data = build(kind, None)  # the order is that of the checkpoint
        assert data.order != order
        torch.rand(100)
        trainer().fit(task, data, ckpt_path=tmp_path / "k.ckpt", weights_only=True)
        assert data.order == order
        assert_same(weights(task), expected)
