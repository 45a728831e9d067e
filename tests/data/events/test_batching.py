import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphseq.data import (
    AdaptiveBatches,
    FixedBatches,
    RandomChunkBatches,
    TBatches,
    TemporalEvents,
    TimeWindowBatches,
)
from tests.reference import t_batches as reference

STREAMS = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7), st.integers(0, 4)), min_size=1, max_size=40)


def stream(rows):
    src, dst, gaps = (torch.tensor(column) for column in zip(*rows, strict=True))
    return TemporalEvents(src, dst, gaps.cumsum(0), num_nodes=8)


def plan(rule, events, index=None, seed=0):
    index = torch.arange(len(events)) if index is None else index
    order, sizes = rule.plan(events, index, torch.Generator().manual_seed(seed))
    assert sum(sizes) == len(index)
    assert all(size >= 1 for size in sizes)
    return order, sizes


def test_fixed():
    assert plan(FixedBatches(3), stream([(0, 1, 1)] * 7))[1] == [3, 3, 1]


@given(STREAMS, st.integers(1, 9), st.one_of(st.none(), st.integers(1, 4)))
@settings(deadline=None, max_examples=60)
def test_time_windows(rows, width, limit):
    events = stream(rows)
    order, sizes = plan(TimeWindowBatches(width, limit), events)
    assert torch.equal(order, torch.arange(len(events)))
    expected = []
    for window in sorted({t // width for t in events.t.tolist()}):
        held = sum(t // width == window for t in events.t.tolist())
        while limit and held > limit:
            expected.append(limit)
            held -= limit
        expected.append(held)
    assert sizes == expected


@pytest.mark.parametrize("first", [0, 5])
@pytest.mark.parametrize("kind", [torch.int64, torch.float64])
def test_time_windows_are_exact_late_in_a_stream_and_begin_with_it(first, kind):
    t = first + torch.tensor([0, 10**8 - 1, 10**8, 10**8 + 9], dtype=kind)
    events = TemporalEvents(torch.zeros(4).long(), torch.ones(4).long(), t, time_offset=0)
    for width in (10, 10.0, 2.5):
        sizes = {10: [1, 1, 2], 2.5: [1, 1, 1, 1]}[width]
        assert plan(TimeWindowBatches(width), events)[1] == sizes
    assert plan(TimeWindowBatches(1e30), events)[1] == [4]


@given(st.integers(1, 90), st.integers(1, 12), st.data())
@settings(deadline=None, max_examples=80)
def test_random_chunks(count, batch_size, data):
    num_chunks = data.draw(st.integers(1, batch_size))
    events = stream([(0, 1, 1)] * count)
    rule = RandomChunkBatches(batch_size, num_chunks)
    lengths = set()
    for seed in range(8):
        _, sizes = plan(rule, events, seed=seed)
        lengths.add(len(sizes))
        assert all(size == batch_size for size in sizes[1:-1])
        assert sizes[-1] < 2 * batch_size
        if len(sizes) > 1:
            assert sizes[0] in {k * batch_size // num_chunks for k in range(1, num_chunks + 1)}
    assert lengths == {-(-count // batch_size)}


def test_random_chunks_move_and_every_shift_occurs():
    events = stream([(0, 1, 1)] * 100)
    firsts = {plan(RandomChunkBatches(8, 4), events, seed=seed)[1][0] for seed in range(60)}
    assert firsts == {2, 4, 6, 8}
    assert plan(RandomChunkBatches(8, 1), events)[1] == plan(FixedBatches(8), events)[1]


@given(STREAMS, st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0]), st.integers(1, 12))
@settings(deadline=None, max_examples=100)
def test_adaptive(rows, ratio, limit):
    events = stream(rows)
    order, sizes = plan(AdaptiveBatches(ratio, limit), events)
    assert torch.equal(order, torch.arange(len(events)))
    assert sizes == reference.adaptive_sizes(events.src.tolist(), events.dst.tolist(), ratio, limit)


def test_adaptive_on_a_split_with_holes():
    events = stream([(0, 1, 1), (0, 2, 1), (3, 4, 1), (0, 5, 1)])
    index = torch.tensor([0, 2, 3])
    order, sizes = plan(AdaptiveBatches(0.0, 9), events, index)
    assert torch.equal(order, index)
    assert sizes == [2, 1]


@given(STREAMS, st.one_of(st.none(), st.integers(1, 3)), st.integers(0, 3))
@settings(deadline=None, max_examples=100)
def test_t_batches(rows, limit, skipped):
    events = stream(rows)
    index = torch.arange(len(events))[min(skipped, len(rows) - 1) :]
    order, sizes = plan(TBatches(limit), events, index)
    src, dst = events.src[index].tolist(), events.dst[index].tolist()
    expected = [[int(index[event]) for event in batch] for batch in reference.t_batches(src, dst)]
    if limit:
        expected = [batch[at : at + limit] for batch in expected for at in range(0, len(batch), limit)]
    assert [part.tolist() for part in order.split(sizes)] == expected
    for batch in expected:  # no event waits for another of its batch
        assert reference.pending_share(events.src[batch].tolist(), events.dst[batch].tolist()) == 0


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: FixedBatches(0), "batch_size is 0"),
        (lambda: FixedBatches(2.0), "batch_size is 2.0"),
        (lambda: TimeWindowBatches(0), "seconds is 0"),
        (lambda: TimeWindowBatches(float("nan")), "seconds is nan"),
        (lambda: TimeWindowBatches(5, 0), "max_batch_size is 0"),
        (lambda: RandomChunkBatches(4, 5), "num_chunks.*5"),
        (lambda: RandomChunkBatches(4, 0), "num_chunks is 0"),
        (lambda: AdaptiveBatches(1.5, 5), "max_pending_ratio is 1.5"),
        (lambda: AdaptiveBatches(0.5, True), "max_batch_size is True"),
        (lambda: TBatches(-1), "max_batch_size is -1"),
    ],
)
def test_bad_options(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_rules_say_what_they_are():
    assert repr(RandomChunkBatches(8, 2)) == "RandomChunkBatches(batch_size=8, num_chunks=2)"
