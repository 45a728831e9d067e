import itertools

import lightning
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphseq.core import DataError, UnsupportedStrategyError
from graphseq.data import (
    AdaptiveBatches,
    Batching,
    EventLoader,
    EventStore,
    FixedBatches,
    RandomChunkBatches,
    RandomNegatives,
    TBatches,
    TemporalDataModule,
    TemporalEvents,
    TimeWindowBatches,
)

RULES = [
    FixedBatches(5),
    TimeWindowBatches(4),
    RandomChunkBatches(6, 3),
    AdaptiveBatches(0.4, 9),
    TBatches(4),
]


def stream(count=37):
    position = torch.arange(count)
    return TemporalEvents(position * 7 % 5, 5 + position * 3 % 8, position + position // 4)


def loader(batching=5, count=37, negatives=None, **options):
    return EventLoader(EventStore(stream(count)), batching, negatives=negatives, **options)


def with_negatives(batching, count=37, index=None, **options):
    events = stream(count)
    index = torch.arange(count) if index is None else index
    prepared = RandomNegatives(2).prepare(events, index, "train")
    return EventLoader(EventStore(events), batching, index=index, negatives=prepared, **options)


def drawn(iterable):
    return [(batch.e_id.tolist(), batch.neg_dst.tolist()) for batch in iterable]


def test_events_come_in_order():
    assert [batch.e_id.tolist() for batch in loader(10)] == [
        list(range(low, min(low + 10, 37))) for low in range(0, 37, 10)
    ]


@pytest.mark.parametrize("batching", RULES, ids=repr)
def test_every_epoch_serves_every_event_in_as_many_batches(batching):
    data = loader(batching)
    for epoch in range(4):
        data.set_epoch(epoch)
        batches = list(data)
        assert len(batches) == len(data)
        assert sorted(torch.cat([batch.e_id for batch in batches]).tolist()) == list(range(37))
        if not isinstance(batching, TBatches):
            assert torch.cat([batch.e_id for batch in batches]).tolist() == list(range(37))
        assert torch.equal(torch.cat([batch.e_id for batch in batches]), data.order()) or batching.random


@pytest.mark.parametrize("batching", RULES, ids=repr)
@given(st.integers(0, 4), st.integers(0, 9), st.integers(0, 2), st.integers(0, 5))
@settings(deadline=None, max_examples=25)
def test_resumes_exactly(batching, epoch, taken, passes, holes):
    index = torch.arange(37)[torch.arange(37) % 6 != holes]
    data = with_negatives(batching, index=index, seed=3)
    data.set_epoch(epoch)
    for _ in range(passes):
        list(data)
    taken = min(taken, len(data) - 1)
    iterator = iter(data)
    list(itertools.islice(iterator, taken))
    state = data.state_dict()
    rest = drawn(iterator)
    again = with_negatives(batching, index=index, seed=3)
    again.load_state_dict(state)
    again.set_epoch(epoch)
    assert drawn(again) == rest


def test_negatives_and_boundaries_differ_between_epochs_and_passes():
    data = with_negatives(RandomChunkBatches(8, 8))
    epochs = []
    for epoch in range(6):
        data.set_epoch(epoch)
        epochs.append(drawn(data))
    assert len({str([e_id for e_id, _ in epoch]) for epoch in epochs}) > 1
    fixed = with_negatives(8)
    first, second = drawn(fixed), drawn(fixed)  # plain loops, nobody announces an epoch
    assert [e_id for e_id, _ in first] == [e_id for e_id, _ in second]
    assert [negatives for _, negatives in first] != [negatives for _, negatives in second]
    same = with_negatives(8)
    assert drawn(same) == first
    same.set_epoch(3)
    other = with_negatives(8)
    other.set_epoch(3)
    assert drawn(same) == drawn(other)


def test_iter_alone_changes_nothing():
    data, fresh = with_negatives(RandomChunkBatches(6, 3)), with_negatives(RandomChunkBatches(6, 3))
    iter(data), iter(data)
    assert data.state_dict() == fresh.state_dict()
    assert drawn(data) == drawn(fresh)


def test_abandoned_pass_starts_anew():
    data = with_negatives(6)
    expected = drawn(with_negatives(6))
    list(itertools.islice(data, 2))
    assert drawn(data) == expected


def test_finished_pass_starts_anew():
    data = with_negatives(5)
    iterator = iter(data)
    list(itertools.islice(iterator, len(data)))
    state = data.state_dict()
    again = with_negatives(5)
    again.load_state_dict(state)
    assert drawn(again) == drawn(with_negatives(5))


def test_state_of_another_loader_is_refused():
    with pytest.raises(DataError, match="8 batches.* 13"):
        loader(3).load_state_dict(loader(5).state_dict())


def test_several_processes_are_refused():
    with pytest.raises(UnsupportedStrategyError, match=r"2 processes.*devices=1"):
        loader(world_size=2)


def test_bad_input():
    with pytest.raises(ValueError, match="batch_size is 0"):
        loader(0)
    with pytest.raises(ValueError, match="batch_size is True"):
        loader(True)
    with pytest.raises(DataError, match="0 samples .* 37 "):
        loader(index=torch.zeros(0, dtype=torch.int64))
    with pytest.raises(DataError, match="index .* 37;"):
        loader(index=torch.tensor([37]))


def test_an_index_that_does_not_ascend_is_refused():
    store = EventStore(stream(200))
    with pytest.raises(DataError, match=r"index .* 5 .* 9 .* 2;"):
        EventLoader(store, 1, index=torch.tensor([3, 9, 5, 7]))
    with pytest.raises(DataError, match="index .* 64 .* 157 "):
        EventLoader(store, 1, index=torch.randperm(200, generator=torch.Generator().manual_seed(0)))
    with pytest.raises(DataError, match="index .* 3 .* 3 .* 1;"):
        EventLoader(store, 1, index=torch.tensor([3, 3]))
    assert len(EventLoader(store, TBatches(), index=torch.tensor([3, 9, 50]))) >= 1  # what a rule does is its own


@pytest.mark.parametrize("sizes", [[], [0, 37], [36], [38], [20, -1, 18]])
def test_a_rule_that_loses_events_or_makes_empty_batches_is_refused(sizes):
    class Rule(Batching):
        def plan(self, events, index, generator):
            return index, sizes

    with pytest.raises(DataError, match=r"Rule\(\) .* of 37 events"):
        loader(Rule())


@pytest.mark.parametrize("given", ["adaptive", 2.5, None])
def test_a_rule_is_an_object(given):
    with pytest.raises(TypeError, match="batching.*Batching.*AdaptiveBatches"):
        loader(given)


class Recorder(lightning.LightningModule):
    """Writes down what it is given; learns one number so that there is something to save."""

    def __init__(self, stop_at=None, path=None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen, self.validated, self.stop_at, self.path = [], [], stop_at, path

    def training_step(self, batch, batch_idx):
        self.seen.append((self.current_epoch, batch.e_id.tolist(), batch.neg_dst.tolist()))
        return (self.weight - 1) ** 2

    def on_train_batch_end(self, *args):
        if self.global_step == self.stop_at:
            self.trainer.save_checkpoint(self.path)
            raise InterruptedError("stopped by the test")

    def validation_step(self, batch, batch_idx):
        self.validated.append((batch.e_id.tolist(), batch.neg_dst.tolist(), batch.new_node.tolist()))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(task, batching, resume=None, **options):
    data = TemporalDataModule(stream(120), batch_size=11, batching=batching, eval_batch_size=6)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = lightning.Trainer(
        max_epochs=3, accelerator="cpu", devices=1, enable_model_summary=False, **quiet, **options
    )
    trainer.fit(task, data, ckpt_path=resume)
    return task, data


@pytest.mark.parametrize("batching", [None, RandomChunkBatches(12, 4)], ids=repr)
@pytest.mark.parametrize("options", [{}, {"val_check_interval": 3}, {"limit_train_batches": 5}], ids=str)
@pytest.mark.parametrize("step", [1, 4, 7, 12])
def test_a_run_that_was_stopped_sees_the_same_batches(batching, options, step, tmp_path):
    whole, _ = fit(Recorder(), batching, **options)
    stopped = Recorder(step, tmp_path / "k.ckpt")
    with pytest.raises(InterruptedError):
        fit(stopped, batching, **options)
    resumed, _ = fit(Recorder(), batching, resume=tmp_path / "k.ckpt", **options)
    assert stopped.seen + resumed.seen == whole.seen
    assert len(whole.seen) == 3 * min(8 if batching is None else 7, options.get("limit_train_batches", 99))


def test_validation_sees_the_same_negatives_every_time():
    task, data = fit(Recorder(), None, num_sanity_val_steps=0)
    each = len(data.loader("val"))
    assert task.validated[:each] == task.validated[each : 2 * each] == task.validated[-each:]
