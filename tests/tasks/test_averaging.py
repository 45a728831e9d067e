import functools

import pytest
import torch
from lightning.pytorch.callbacks import (
    EMAWeightAveraging,
    GradientAccumulationScheduler,
    ModelCheckpoint,
    StochasticWeightAveraging,
    WeightAveraging,
)
from torch import nn

import graphseq
from graphseq.core import UnsupportedStrategyError
from graphseq.data import GraphDataModule
from graphseq.nn import SampleWeights
from graphseq.tasks import Reweighted
from tests.reliability.runs import graphs, trainer
from tests.tasks.small import Fit, fit, rows
from tests.tasks.streams.streams import build, same, state, weights
from tests.tasks.weighted.test_reweight import network

EMA = functools.partial(EMAWeightAveraging, decay=0.5)
SWA = functools.partial(StochasticWeightAveraging, swa_lrs=0.01, swa_epoch_start=1, annealing_epochs=1)
CALLBACKS = {"ema": EMA, "mean": WeightAveraging, "parameters": functools.partial(EMA, use_buffers=False), "swa": SWA}
# memories depend on the weights; times, lists of neighbours and counts of events do not
OF_EVENTS = ("last_update", "mail_t")


class Stateful(Fit):
    """A mask, a counter and a float that is no statistic, beside a norm with running statistics."""

    def __init__(self, width, **options):
        super().__init__(width, **options)
        self.model.append(nn.BatchNorm1d(width))
        self.register_buffer("mask", torch.zeros(width, dtype=torch.bool))
        self.register_buffer("count", torch.tensor(0))
        self.register_buffer("level", torch.tensor(0.0))

    def step(self, batch, stage="train"):
        if stage == "train":
            self.count += 1
            self.level.fill_(float(self.count))
            self.mask[int(self.count) % 3] ^= True
        return super().step(batch, stage)


def stateful(callbacks, **options):
    torch.manual_seed(0)
    task = Stateful(3, optimizer=functools.partial(torch.optim.SGD, lr=0.05))
    return task, fit(task, rows(4, 4, 4), rows(5), callbacks=callbacks, max_epochs=2, **options)


@pytest.mark.parametrize("name", CALLBACKS)
def test_masks_counters_and_levels_are_left_alone(name):
    task, _ = stateful([CALLBACKS[name]()])
    plain, _ = stateful([])
    steps = 6 + (3 if name == "swa" else 0)  # one more pass for the statistics of the norm
    if name == "swa":
        assert int(task.count) == float(task.level) == steps
    else:
        for field in ("mask", "count", "level"):
            assert torch.equal(getattr(task, field), getattr(plain, field)), field
    assert not torch.equal(task.model[0].weight, plain.model[0].weight)
    assert len(list(task.buffers())) == len(dict(task.named_buffers()))  # after the run all again


def test_statistics_of_norms_are_averaged():
    """With decay 1 the average stays what the first step left."""
    task, _ = stateful([EMAWeightAveraging(decay=1.0)])
    first = Stateful(3)
    torch.manual_seed(0)
    first = Stateful(3, optimizer=functools.partial(torch.optim.SGD, lr=0.05))
    fit(first, rows(4))
    torch.testing.assert_close(task.model[1].running_mean, first.model[1].running_mean)
    assert int(task.model[1].num_batches_tracked) == 6


@pytest.mark.parametrize("name", CALLBACKS)
def test_the_state_of_a_stream_is_not_averaged(name):
    task, data = build()
    trainer(max_epochs=2, callbacks=[CALLBACKS[name]()]).fit(task, data)
    plain, data = build()
    trainer(max_epochs=2).fit(plain, data)
    found, expected = state(task), state(plain)
    compared = [key for key in expected if key.endswith(OF_EVENTS)]
    assert compared
    for key in compared:
        assert torch.equal(found[key], expected[key]), key
    assert not same(dict(task.model.named_parameters()), dict(plain.model.named_parameters()))


class NormedDecoder(nn.Module):
    """A decoder of pairs with a norm in front, whose running statistics depend on the embeddings."""

    def __init__(self, decoder, width):
        super().__init__()
        self.norm, self.decoder = nn.BatchNorm1d(width), decoder

    def forward(self, h, source, destination):
        return self.decoder(self.norm(h), source, destination)


def normed_stream():
    task, data = build("jodie")
    task.network.decoder = NormedDecoder(task.network.decoder, task.network.embedding.out_channels)
    return task, data


def test_statistics_and_state_after_swa_are_those_of_a_replay_with_the_averaged_weights():
    task, data = normed_stream()
    averaging = SWA()
    run = trainer(max_epochs=2, callbacks=[averaging])
    run.fit(task, data)
    average = averaging.state_dict()["average_model_state"]
    for name, value in task.named_parameters():
        assert torch.equal(value, average[name]), name
    found, reached = weights(task), task._next_event
    norm = task.network.decoder.norm
    norm.reset_running_stats()
    norm.momentum = None  # the plain mean over batches
    task.reset_state()
    task.train()
    with torch.no_grad():
        for batch in data.batches("train", epoch=2):
            task.step(batch, "train")
    after_training = state(task)
    for batch in data.batches("val"):
        task.eval().step(batch, "val")
    expected = weights(task)
    assert float(norm.running_var.std()) > 0
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, msg=name)
    assert not same(after_training, state(task))
    assert reached == int(data.splits["val"].max()) + 1
    run.test(task, data, verbose=False)


def test_accumulation_on_a_stream_stays_refused_beside_swa():
    task, data = normed_stream()
    schedule = GradientAccumulationScheduler({1: 2})
    with pytest.raises(UnsupportedStrategyError, match="accumulate_grad_batches is 2"):
        trainer(max_epochs=3, callbacks=[SWA(), schedule]).fit(task, data)


@pytest.mark.parametrize("name", ["ema", "mean"])
def test_a_norm_in_a_stream_network_is_averaged_and_its_memory_is_not(name):
    task, data = normed_stream()
    trainer(max_epochs=2, callbacks=[CALLBACKS[name]()]).fit(task, data)
    plain, data = normed_stream()
    trainer(max_epochs=2).fit(plain, data)
    found, expected = weights(task), weights(plain)
    assert not torch.equal(found["model.decoder.norm.running_mean"], expected["model.decoder.norm.running_mean"])
    compared = [key for key in expected if key.endswith((*OF_EVENTS, "num_batches_tracked"))]
    assert len(compared) > 1
    for key in compared:
        assert torch.equal(found[key], expected[key]), key


def test_a_validation_sees_averaged_weights_and_the_state_of_training():
    class Look(EMAWeightAveraging):
        seen = None

        def on_validation_batch_start(self, trainer, task, batch, batch_idx, dataloader_idx=0):
            if batch_idx == 0:
                self.seen = weights(task)

    look = Look(decay=0.5)
    task, data = build()
    trainer(max_epochs=1, callbacks=[look], num_sanity_val_steps=0).fit(task, data)
    plain, data = build()
    trainer(max_epochs=1, limit_val_batches=0).fit(plain, data)
    expected, parameters = weights(plain), {name for name, _ in plain.named_parameters(remove_duplicate=False)}
    for name, value in look.seen.items():
        assert torch.equal(value, expected[name]) != (name in parameters and bool(value.any())), name


@pytest.mark.parametrize("name", ["ema", "swa"])
def test_a_resumed_run_is_the_run_that_never_stopped(name, tmp_path):
    def run(epochs, path=None):
        task, data = build()
        keep = ModelCheckpoint(tmp_path, filename=f"{epochs}-{path is None}-{{epoch}}", save_top_k=-1)
        done = trainer(max_epochs=epochs, callbacks=[CALLBACKS[name](), keep], enable_checkpointing=True)
        done.fit(task, data, ckpt_path=path)
        return task

    whole = run(3)
    if name == "swa":  # it plans the whole run, so a shorter one is not its beginning
        path = tmp_path / "3-True-epoch=0.ckpt"
    else:
        run(1)
        path = tmp_path / "1-True-epoch=0.ckpt"
    again = run(3, path)
    assert same(weights(whole), weights(again))
    if name == "ema":
        loaded = graphseq.load(tmp_path / "3-False-epoch=2.ckpt")
        assert same(weights(loaded), weights(again))


def test_weights_of_samples_need_their_number_beforehand():
    def run(weights):
        task = Reweighted(network(), 3, weights=weights, start_epoch=0)
        data = GraphDataModule(graphs(40), split="stratified", batch_size=8)
        trainer(max_epochs=2, callbacks=[EMA()]).fit(task, data)
        return task

    with pytest.raises(UnsupportedStrategyError, match="num_samples"):
        run(None)
    task = run(SampleWeights(40))
    assert len(task.queue) > 0


class Forgets(Fit):
    def configure_callbacks(self):
        return []


def test_a_task_that_hides_the_callback_is_refused():
    with pytest.raises(UnsupportedStrategyError, match="configure_callbacks"):
        fit(Forgets(3), rows(2), callbacks=[EMA()])
