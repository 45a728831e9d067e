import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphseq.core import DataError, EventBatch
from graphseq.data import EventStore, TemporalAdjacency, TemporalEvents
from tests.reference import t_batches as reference


def stream(count=12, ties=1, **options):
    position = torch.arange(count)
    return TemporalEvents(position % 3, 3 + position % 4, position // ties, torch.rand(count, 2), **options)


def history(events):
    return TemporalAdjacency(events.src, events.dst, events.t, events.msg, events.num_nodes)


def test_runs_are_views_of_the_stream():
    events = stream(y=torch.arange(12), event_type=torch.arange(12) % 2)
    store = EventStore(events, history(events), new_node=torch.arange(12) > 8)
    batches = list(store.batches(torch.arange(2, 12), [4, 1, 5]))
    assert [batch.start for batch in batches] == [2, 6, 7]
    for batch, (low, high) in zip(batches, [(2, 6), (6, 7), (7, 12)], strict=True):
        assert isinstance(batch, EventBatch)
        assert batch.e_id.tolist() == list(range(low, high))
        for name in ("src", "dst", "t", "msg", "y", "event_type"):
            column = getattr(events, name)
            assert torch.equal(getattr(batch, name), column[low:high])
            assert getattr(batch, name).data_ptr() == column[low:].data_ptr()
        assert batch.new_node.tolist() == [position > 8 for position in range(low, high)]
        assert batch.history is store.history
        assert batch.cut is None
        assert batch.neg_dst is None


@given(st.sets(st.integers(0, 29), min_size=1), st.integers(1, 6))
@settings(deadline=None, max_examples=60)
def test_splits_with_holes(positions, size):
    events = stream(30)
    index = torch.tensor(sorted(positions))
    batches = list(EventStore(events).batches(index, size))
    assert torch.cat([batch.e_id for batch in batches]).tolist() == sorted(positions)
    for batch in batches:
        assert batch.start == int(batch.e_id.min())
        assert torch.equal(batch.src, events.src[batch.e_id])
        assert torch.equal(batch.msg, events.msg[batch.e_id])
        consecutive = int(batch.e_id[-1]) - int(batch.e_id[0]) == len(batch) - 1
        assert (batch.t.data_ptr() == events.t[batch.start :].data_ptr()) == consecutive


def test_batches_may_be_out_of_order_but_not_their_events():
    store = EventStore(stream())
    first, second = store.batches(torch.tensor([3, 7, 0, 1]), [2, 2])
    assert (first.e_id.tolist(), first.start) == ([3, 7], 3)
    assert (second.e_id.tolist(), second.start) == ([0, 1], 0)
    with pytest.raises(DataError, match="positions .* 1 .* 7"):
        next(store.batches(torch.tensor([3, 7, 1, 2]), [3, 1]))
    with pytest.raises(DataError, match="positions .* 3 .* 3"):
        next(store.batches(torch.tensor([3, 3]), 2))


@given(st.lists(st.integers(0, 2), min_size=1, max_size=25), st.integers(1, 7))
@settings(deadline=None, max_examples=60)
def test_cut_by_time_counts_the_events_of_an_earlier_time(gaps, size):
    t = torch.tensor(gaps).cumsum(0)
    node = torch.zeros(len(t), dtype=torch.int64)
    events = TemporalEvents(node, node + 1, t)
    batches = list(EventStore(events, cut="time").batches(torch.arange(len(t)), size))
    assert torch.cat([batch.cut for batch in batches]).tolist() == reference.earlier(t.tolist())


def test_take():
    store = EventStore(stream())
    assert store.take(torch.tensor([1, 4])).e_id.tolist() == [1, 4]
    with pytest.raises(DataError, match="ascend"):
        store.take(torch.tensor([4, 1]))


def test_moving_takes_the_history_along():
    events = stream()
    store = EventStore(events, history(events), "time", torch.arange(12) > 8)
    moved = store.to("meta")
    assert moved.device.type == moved.history.device.type == "meta"
    assert moved.history._index.msg is moved.events.msg  # features are there once
    assert moved.cut == "time"
    batch = next(moved.batches(torch.arange(3), 3))
    assert {value.device.type for value in vars(batch).values() if isinstance(value, torch.Tensor)} == {"meta"}
    assert store.to("cpu").events.msg is events.msg
    assert store.nbytes == events.nbytes + 12 * 8 + 12 * 8 + 12 + store.history.nbytes


def test_batches_of_a_store_on_the_host_cross_with_the_history():
    events = stream()
    store = EventStore(events, history(events))
    meta = torch.device("meta")
    first = list(store.batches(torch.arange(12), 5, meta))
    second = list(store.batches(torch.tensor([1, 5]), 2, meta))
    assert store.device.type == "cpu"
    assert {batch.history.device.type for batch in first + second} == {"meta"}
    assert len({id(batch.history) for batch in first + second}) == 1  # moved once
    assert all(batch.msg.device.type == batch.e_id.device.type == "meta" for batch in first + second)


def test_training_store():
    events = stream()
    index = history(events)
    store = EventStore(events, index, "time", torch.arange(12) > 8)
    kept = TemporalAdjacency(events.src, events.dst, events.t, events.msg, events.num_nodes, torch.arange(4))
    training = store.for_training(kept)
    batch = training.take(torch.arange(3))
    assert batch.new_node is None
    assert batch.history is kept
    assert batch.cut is not None
    assert store.to("meta").for_training(kept).history.device.type == "meta"


def test_bad_options():
    with pytest.raises(ValueError, match="cut is 'event'"):
        EventStore(stream(), cut="event")
    with pytest.raises(DataError, match=r"new_node.*torch.bool \(3,\)"):
        EventStore(stream(), new_node=torch.ones(3, dtype=torch.bool))
    with pytest.raises(DataError, match="new_node is torch.int64"):
        EventStore(stream(), new_node=torch.ones(12, dtype=torch.int64))
    with pytest.raises(ValueError, match="batch sizes"):
        next(EventStore(stream()).batches(torch.arange(5), [3, 3]))
