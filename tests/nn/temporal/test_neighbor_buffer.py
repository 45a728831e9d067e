import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.nn.models.tgn import LastNeighborLoader

from graphseq.core import EventHistory
from graphseq.data import TemporalAdjacency
from graphseq.nn import RecentNeighborBuffer
from tests.reference import recent_neighbors as reference
from tests.reference.recent_neighbors import KINDS, NUM_NODES, columns, stream


def filled(events, size, batch_size, num_nodes=NUM_NODES, **options):
    src, dst, t, msg = events
    options.setdefault("time_dtype", str(t.dtype).removeprefix("torch."))
    buffer = RecentNeighborBuffer(num_nodes, size, msg.shape[1], **options)
    for start in range(0, len(src), batch_size):
        batch = slice(start, start + batch_size)
        buffer.insert(src[batch], dst[batch], t[batch], msg[batch])
    return buffer


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("time", [torch.int64, torch.float64])
@pytest.mark.parametrize("batch_size", [1, 7, 50, None])
def test_equals_the_index_and_loops_before_every_batch(kind, time, batch_size):
    events = stream(kind, seed=1, time=time)
    src, dst, t, msg = events
    lists = [column.tolist() for column in events]
    index = TemporalAdjacency(*events, NUM_NODES)
    size, batch_size = 5, batch_size or max(len(src), 1)
    buffer = RecentNeighborBuffer(NUM_NODES, size, 3, str(time).removeprefix("torch."))
    nodes = torch.arange(NUM_NODES)
    for start in range(0, len(src) + 1, batch_size):
        for k in (1, 3, size):
            found = columns(buffer.recent(nodes, start, k))
            assert found == columns(index.recent(nodes, start, k))
            if len(src):
                assert found == reference.padded(*lists, nodes.tolist(), [start] * NUM_NODES, k)
        batch = slice(start, start + batch_size)
        buffer.insert(src[batch], dst[batch], t[batch], msg[batch])
    assert columns(buffer.recent(nodes, 10**9, size)) == columns(index.recent(nodes, 10**9, size))
    assert buffer.recent(nodes, 0, 1).t.dtype == time


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_stream_in_any_batches_at_any_position_equals_loops(data):
    num_nodes, size = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 4))
    node = st.integers(0, num_nodes - 1)
    batches = data.draw(st.lists(st.lists(st.tuples(node, node), max_size=12), max_size=5))
    pairs = [pair for batch in batches for pair in batch]
    src, dst = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    buffer = RecentNeighborBuffer(num_nodes, size, msg_channels=1)
    for batch in batches:
        columns = torch.tensor(batch, dtype=torch.int64).view(-1, 2)
        t = torch.full((len(batch),), 3)
        buffer.insert(columns[:, 0], columns[:, 1], t, torch.full((len(batch), 1), float("inf")))
    k = data.draw(st.integers(1, size))
    cuts = data.draw(st.lists(st.integers(-1, len(pairs) + 2), min_size=num_nodes, max_size=num_nodes))
    found = buffer.recent(torch.arange(num_nodes), torch.tensor(cuts), k)
    for row, cut in enumerate(cuts):
        expected = reference.buffered(src, dst, row, len(pairs), cut, k, size)
        kept = found.mask[row].tolist()
        assert kept == [True] * len(expected) + [False] * (k - len(expected))
        assert list(zip(found.node[row].tolist(), found.e_id[row].tolist(), strict=True)) == (
            expected + [(row, -1)] * (k - len(expected))
        )
        assert found.t[row].tolist() == [3 * there for there in kept]
        assert found.msg[row, :, 0].tolist() == [float("inf") if there else 0.0 for there in kept]


def test_events_skipped_in_the_stream_keep_their_positions():
    src, dst, t, msg = events = stream("unipartite", seed=4)
    keep = torch.rand(90) < 0.6
    index = TemporalAdjacency(*events, NUM_NODES, keep=keep)
    buffer = RecentNeighborBuffer(NUM_NODES, 6, 3)
    for part in keep.nonzero().view(-1).split(20):
        buffer.insert(src[part], dst[part], t[part], msg[part], e_id=part)
    nodes = torch.arange(NUM_NODES)
    assert columns(buffer.recent(nodes, 90, 6)) == columns(index.recent(nodes, 90, 6))
    one = torch.tensor([1])
    buffer.insert(one, one, t[-1:], msg[-1:])
    assert buffer.recent(one, 10**6, 1).e_id.item() == keep.nonzero().max() + 1


def test_every_slot_is_written_once(monkeypatch):
    """Which of two values stays is not defined on every device."""
    written = []
    copy_rows = torch.Tensor.index_copy_
    monkeypatch.setattr(torch.Tensor, "index_copy_", lambda *args: (written.append(args[2]), copy_rows(*args))[1])
    filled(stream("repeated"), 2, 45)
    assert len(written) == 8
    assert all(slot.unique().numel() == slot.numel() == 8 for slot in written)


def test_it_is_a_history():
    history: EventHistory = RecentNeighborBuffer(3, 2)
    assert not history.recent(torch.tensor([0]), 5, 2).mask.any()


def test_state_dict_reset_copy_and_growth():
    events = stream("loops", seed=5, time=torch.float64)
    nodes = torch.arange(NUM_NODES)
    buffer = filled(events, 4, 30)
    expected = columns(buffer.recent(nodes, 90, 4))
    assert set(buffer.state_dict()) == {"node", "e_id", "t", "msg", "count", "next_e_id"}
    fresh = RecentNeighborBuffer(NUM_NODES, 4, 3, "float64")
    fresh.load_state_dict(buffer.state_dict())
    assert columns(fresh.recent(nodes, 90, 4)) == expected
    assert columns(copy.deepcopy(buffer).recent(nodes, 90, 4)) == expected

    one = torch.tensor([1])
    buffer.resize(NUM_NODES + 3)
    assert columns(buffer.recent(nodes, 90, 4)) == expected
    later = [one * (NUM_NODES + 2), one, torch.tensor([999.5], dtype=torch.float64), torch.ones(1, 3)]
    buffer.insert(*later)
    longer = [torch.cat(pair) for pair in zip(events, later, strict=True)]
    index = TemporalAdjacency(*longer, NUM_NODES + 3)
    everyone = torch.arange(NUM_NODES + 3)
    assert columns(buffer.recent(everyone, 91, 4)) == columns(index.recent(everyone, 91, 4))
    fresh.load_state_dict(buffer.state_dict())
    assert fresh.num_nodes == NUM_NODES + 3
    assert columns(fresh.recent(everyone, 91, 4)) == columns(index.recent(everyone, 91, 4))

    buffer.reset_state()
    empty = RecentNeighborBuffer(NUM_NODES + 3, 4, 3, "float64").state_dict()
    for name, value in buffer.state_dict().items():
        assert torch.equal(value, empty[name]), name
    with pytest.raises(ValueError, match="num_nodes is 2; .* 17 "):
        buffer.resize(2)


def test_a_resumed_stream_continues_exactly():
    events = stream("unipartite", seed=6)
    first = filled([column[:50] for column in events], 3, 20)
    second = RecentNeighborBuffer(NUM_NODES, 3, 3)
    second.load_state_dict(first.state_dict())
    second.insert(*(column[50:] for column in events))
    nodes = torch.arange(NUM_NODES)
    assert columns(second.recent(nodes, 90, 3)) == columns(filled(events, 3, 90).recent(nodes, 90, 3))


def test_times_survive_a_conversion_to_half_precision():
    src, dst, _, _ = stream("unipartite")
    t = torch.arange(90, dtype=torch.float64) + 1.6e9 + 0.25
    buffer = filled((src, dst, t, torch.zeros(90, 0)), 4, 30).half()
    found = buffer.recent(torch.arange(NUM_NODES), 90, 4)
    assert torch.equal(found.t[found.mask], t[found.e_id[found.mask]])
    assert filled(stream("unipartite"), 4, 30).half().recent(src, 90, 2).msg.dtype == torch.float16


def test_features_are_left_out_where_none_are_kept():
    src, dst, t, msg = stream("unipartite")
    buffer = RecentNeighborBuffer(NUM_NODES, 4)
    buffer.insert(src[:40], dst[:40], t[:40], msg[:40])
    buffer.insert(src[40:], dst[40:], t[40:])
    assert buffer.recent(src, 90, 4).msg.shape == (90, 4, 0)
    assert "msg" in buffer.state_dict()


def test_features_carry_no_gradient_into_the_buffer():
    src, dst, t, msg = stream("unipartite")
    buffer = RecentNeighborBuffer(NUM_NODES, 4, 3)
    buffer.insert(src, dst, t, msg.requires_grad_())
    assert not buffer.msg.requires_grad


def test_on_a_device(device):
    events = stream("loops", seed=7)
    nodes = torch.arange(NUM_NODES)
    buffer = RecentNeighborBuffer(NUM_NODES, 4, 3).to(device)
    for start in range(0, 90, 40):
        buffer.insert(*(column[start : start + 40].to(device) for column in events))
    cut = torch.arange(NUM_NODES) * 8
    cut[-1] = 90
    expected = columns(filled(events, 4, 40).recent(nodes, cut, 4))
    assert columns(buffer.recent(nodes.to(device), cut.to(device), 4)) == expected


def test_wrong_arguments_are_refused_and_change_nothing():
    src, dst, t, msg = events = stream("unipartite")
    buffer = filled(events, 4, 30)
    before = {name: value.clone() for name, value in buffer.state_dict().items()}

    def insert(src=src, dst=dst, t=t, msg=msg, e_id=None):
        buffer.insert(src, dst, t, msg, e_id)

    with pytest.raises(IndexError, match=r"ids .* 0 to 14; .* 14 nodes.*resize"):
        insert(dst=torch.where(dst == 3, NUM_NODES, dst))
    with pytest.raises(IndexError, match="run from -1"):
        insert(src=src - 1)
    with pytest.raises(IndexError, match="run from 14 to 14"):
        buffer.recent(torch.tensor([NUM_NODES]), 1, 1)
    with pytest.raises(ValueError, match="columns have shapes"):
        insert(t=t[1:])
    with pytest.raises(ValueError, match="src and dst .*torch.int32"):
        insert(src=src.int())
    with pytest.raises(ValueError, match="time_dtype='float64'"):
        insert(t=t.double())
    with pytest.raises(ValueError, match="msg is missing"):
        buffer.insert(src, dst, t)
    with pytest.raises(ValueError, match=r"msg is of shape \(90, 2\)"):
        insert(msg=msg[:, :2])
    with pytest.raises(ValueError, match="e_id .* 0 .* 90 "):
        insert(e_id=torch.arange(90))
    with pytest.raises(ValueError, match="e_id .* 200 "):
        insert(e_id=torch.full((90,), 200))
    for k in (0, 5):
        with pytest.raises(ValueError, match=f"k is {k}; .* 4 "):
            buffer.recent(src, 90, k)
    with pytest.raises(ValueError, match="size 0"):
        RecentNeighborBuffer(3, 0)
    with pytest.raises(ValueError, match="time_dtype is 'float32'"):
        RecentNeighborBuffer(3, 1, time_dtype="float32")
    for name, value in buffer.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_times_that_go_back_are_refused_and_change_nothing():
    pair, nan = torch.tensor([0, 1]), float("nan")
    for kind, dtype in (("int64", torch.int64), ("float64", torch.float64)):
        buffer = RecentNeighborBuffer(3, 2, time_dtype=kind)
        buffer.insert(pair, pair + 1, torch.tensor([5, 7], dtype=dtype))
        loaded = RecentNeighborBuffer(3, 2, time_dtype=kind)
        loaded.load_state_dict(buffer.state_dict())
        for one in (buffer, copy.deepcopy(buffer), loaded):
            before = {name: value.clone() for name, value in one.state_dict().items()}
            with pytest.raises(ValueError, match=r"t of event 1 is 8(.0)?, .* 9"):
                one.insert(pair, pair + 1, torch.tensor([9, 8], dtype=dtype))
            with pytest.raises(ValueError, match=r"t of event 0 is 6(.0)?, .* 7.*reset_state"):
                one.insert(pair, pair + 1, torch.tensor([6, 9], dtype=dtype))
            for name, value in one.state_dict().items():
                assert torch.equal(value, before[name]), name
            one.insert(pair, pair + 1, torch.tensor([7, 7], dtype=dtype))
            one.reset_state()
            one.insert(pair, pair + 1, torch.tensor([0, 1], dtype=dtype))
    for wrong in (nan, float("inf")):
        with pytest.raises(ValueError, match=f"t of event 1 is {wrong}"):
            buffer.insert(pair, pair + 1, torch.tensor([8.0, wrong], dtype=torch.float64))
    exact = RecentNeighborBuffer(3, 2)
    exact.insert(pair, pair, torch.tensor([2**60, 2**60 + 1]))
    with pytest.raises(ValueError, match="is 1152921504606846976, .* is 1152921504606846977"):
        exact.insert(pair, pair, torch.tensor([2**60, 2**60 + 1]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bool])
def test_times_too_coarse_are_refused(device, dtype):
    pair = torch.tensor([0, 1], device=device)
    buffer = RecentNeighborBuffer(3, 2, time_dtype="float64").to(device)
    with pytest.raises(ValueError, match=f"t is {dtype}"):
        buffer.insert(pair, pair + 1, torch.tensor([0, 1], device=device).to(dtype))
    buffer.insert(pair, pair + 1, torch.tensor([0, 1], device=device))  # integers are exact


@pytest.mark.parametrize("kind", ["bipartite", "unipartite"])
def test_the_loader_of_pyg_keeps_other_events_in_large_batches(kind):
    """Documents why there is a buffer of our own; ours is exact on the very stream."""
    events = stream(kind, seed=8, num_events=400)
    src, dst, _, _ = events
    size, batch_size = 5, 200
    theirs, ours = LastNeighborLoader(NUM_NODES, size), filled(events, size, batch_size)
    for start in range(0, 400, batch_size):
        theirs.insert(src[start : start + batch_size], dst[start : start + batch_size])
    wrong = 0
    for node in range(NUM_NODES):
        expected = {event for _, event in reference.recent(src.tolist(), dst.tolist(), node, 400, size)}
        found = ours.recent(torch.tensor([node]), 400, size)
        assert set(found.e_id[found.mask].tolist()) == expected
        wrong += set(theirs(torch.tensor([node]))[2].tolist()) != expected
    assert wrong, (
        "PyG's LastNeighborLoader now keeps the most recent events of batches much larger than its size: the note on "
        "it in the docstring of RecentNeighborBuffer should go, and so should this test"
    )


def test_a_cut_for_each_of_other_nodes():
    buffer = RecentNeighborBuffer(4, 2)
    with pytest.raises(ValueError, match=r"cut has shape \(3,\), nodes \(1,\)"):
        buffer.recent(torch.tensor([2]), torch.tensor([5, 1, 2]), 2)
