"""Runs over text and sequences that are stopped in mid-epoch go on bit for bit."""

import functools

import lightning
import pytest
import torch

from graphseq.data import ConvexHullDataModule, SyntheticSequencesDataModule, SyntheticTextDataModule
from graphseq.models import PointerNet, RecurrentLanguageModel, SequenceTagger
from graphseq.tasks import CarriedLanguageModeling, LanguageModeling, Pointing, SequenceTagging
from tests.reliability.runs import trainer, weights
from tests.reliability.test_resume import Interrupted, SaveAndStop, assert_same


def text():
    data = SyntheticTextDataModule(100, length=32, stride=20, batch_size=16)
    model = RecurrentLanguageModel(data.vocab_size, 6, 8, num_layers=2, dropout=0.3)
    return LanguageModeling(model, data.vocab_size, optimizer=functools.partial(torch.optim.Adam, lr=0.01)), data


def streams():
    data = SyntheticTextDataModule(100, length=16, order="streams", batch_size=12, eval_batch_size=5)
    model = RecurrentLanguageModel(data.vocab_size, 6, 8, num_layers=2, dropout=0.3)
    adam = functools.partial(torch.optim.Adam, lr=0.01)
    return CarriedLanguageModeling(model, data.vocab_size, optimizer=adam), data


def waves():
    data = SyntheticSequencesDataModule(100, batch_size=8, pool_batches=3)
    model = SequenceTagger(data.num_outputs, data.num_features, hidden_channels=6, dropout=0.3)
    return SequenceTagging(model, data.num_outputs, optimizer=functools.partial(torch.optim.Adam, lr=0.01)), data


def hulls():
    data = ConvexHullDataModule(80, 8, 8, min_points=4, max_points=6, batch_size=8, pool_batches=3)
    return Pointing(PointerNet(2, 6), "hull", optimizer=functools.partial(torch.optim.Adam, lr=0.01)), data


def build(kind):
    lightning.seed_everything(0, verbose=False)
    return kind()


@pytest.fixture(scope="module", params=[text, streams, waves, hulls])
def case(request):
    task, data = build(request.param)
    trainer().fit(task, data)
    return request.param, weights(task), len(data.train_dataloader())


@pytest.mark.parametrize("epochs", [0.3, 1.0, 2.5])
def test_resume(case, epochs, tmp_path):
    kind, expected, batches = case
    assert batches > 5
    step = round(epochs * batches)
    task, data = build(kind)
    with pytest.raises(Interrupted):
        trainer(callbacks=[SaveAndStop(step, tmp_path / "k.ckpt")]).fit(task, data)
    task, data = build(kind)
    torch.rand(100)  # the new process is somewhere else in its random numbers
    trainer().fit(task, data, ckpt_path=tmp_path / "k.ckpt", weights_only=True)
    assert_same(weights(task), expected)
