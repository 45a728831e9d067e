"""Sequences and text on an accelerator: batches are made there, and no step waits for it."""

import pytest
import torch

from graphseq.data import ConvexHullDataModule, SyntheticSequencesDataModule, SyntheticTextDataModule
from graphseq.models import PointerNet, RecurrentLanguageModel, SequenceClassifier, SequenceTagger
from graphseq.tasks import LanguageModeling, Pointing, SequenceClassification, SequenceTagging
from tests.reliability.runs import trainer

KINDS = {
    "language": (SyntheticTextDataModule, lambda k, d: LanguageModeling(RecurrentLanguageModel(k, 8, 16), k)),
    "tagging": (SyntheticSequencesDataModule, lambda k, d: SequenceTagging(SequenceTagger(k, d, None, 16), k)),
    "classes": (
        SyntheticSequencesDataModule,
        lambda k, d: SequenceClassification(SequenceClassifier(k, d, None, 16), k),
    ),
}


def test_a_pointing_step_is_that_of_the_host(device):
    task = Pointing(PointerNet(2, 16), "hull")
    store = ConvexHullDataModule(8, 0, 0, min_points=5, max_points=7).store
    host = task.step(store.take(torch.arange(8)), "val")
    there = task.to(device).step(store.to(device).take(torch.arange(8)), "val")
    assert float(there.loss.detach()) == pytest.approx(float(host.loss.detach()), rel=1e-4)
    assert there.prediction.cpu().tolist() == host.prediction.tolist()


def build(kind):
    torch.manual_seed(0)
    module, make = KINDS[kind]
    data = module(batch_size=16)
    return make(data.num_outputs, 1), data


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_is_that_of_the_host(kind, device):
    task, data = build(kind)
    index = torch.arange(8)
    host = task.step(data.store.take(index), "train")
    there = task.to(device).step(data.store.to(device).take(index), "train")
    assert there.loss.device.type == device.type
    assert float(there.size) == float(host.size)
    assert float(there.loss.detach()) == pytest.approx(float(host.loss.detach()), rel=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("kind", KINDS)
def test_no_step_waits(kind):
    task, data = build(kind)
    task = task.cuda()
    optimizer = torch.optim.Adam(task.parameters())
    batches = list(data.store.to("cuda").batches(torch.arange(64), 16))

    def step(batch):
        loss = task.step(batch, "train").loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    step(batches[0])  # the first call sets cuDNN up
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in batches:
            step(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("kind", KINDS)
def test_the_store_lives_there(kind):
    task, data = build(kind)
    run = trainer(max_epochs=1, accelerator="gpu", limit_train_batches=1)
    seen = []
    data.on_after_batch_transfer = lambda batch, index: seen.append(batch.lengths.device.type) or batch
    run.fit(task, data)
    assert set(seen) == {"cuda"}
