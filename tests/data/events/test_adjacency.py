import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from graphseq.core import DataError
from graphseq.data import TemporalAdjacency
from tests.reference import recent_neighbors as reference
from tests.reference.recent_neighbors import KINDS, NUM_NODES, columns, stream

pytestmark = pytest.mark.usefixtures("way")


def assert_equals_oracle(index, events, nodes, cut, k, keep=None):
    found = index.recent(nodes, cut, k)
    cuts = cut.tolist() if isinstance(cut, torch.Tensor) else [cut] * len(nodes)
    lists = [column.tolist() for column in events]
    expected = reference.padded(*lists, nodes.tolist(), cuts, k, None if keep is None else keep.tolist())
    if not len(lists[0]):
        expected[2] = torch.zeros(len(nodes), k, events[3].shape[1]).tolist()
    assert columns(found) == expected
    assert found.node.dtype == found.e_id.dtype == torch.int64
    assert found.t.dtype == events[2].dtype
    assert found.msg.dtype == torch.float32
    assert found.mask.dtype == torch.bool


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [1, 4, 200])
def test_equals_loops_at_one_position_for_all(kind, k):
    events = stream(kind)
    index = TemporalAdjacency(*events, NUM_NODES)
    size = len(events[0])
    for cut in {0, 1, size // 2, max(size - 1, 0), size, size + 5, 10**9}:
        assert_equals_oracle(index, events, torch.arange(NUM_NODES), cut, k)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("time", [torch.int64, torch.float64])
@pytest.mark.parametrize("batch_size", [1, 7, 50, None])
def test_batches_equal_loops_in_both_cut_modes(kind, time, batch_size):
    events = stream(kind, seed=1, time=time)
    src, dst, t, _ = events
    index = TemporalAdjacency(*events, NUM_NODES)
    batch_size = batch_size or max(len(src), 1)
    for start in range(0, len(src), batch_size):
        batch = slice(start, start + batch_size)
        nodes = torch.cat([src[batch], dst[batch]])
        assert_equals_oracle(index, events, nodes, start, 5)
        cut = index.cut_before(t[batch])
        assert cut.tolist() == [reference.cut_before(t.tolist(), query) for query in t[batch].tolist()]
        assert_equals_oracle(index, events, nodes, cut.repeat(2), 5)


def test_an_event_is_not_its_own_neighbour_where_times_are_equal():
    src, dst, t, msg = stream("tied")
    index = TemporalAdjacency(src, dst, t, msg, NUM_NODES)
    assert not index.recent(src, index.cut_before(t), 3).mask.any()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_stream_and_any_positions_equal_loops(data):
    num_nodes = data.draw(st.integers(1, 6))
    node = st.integers(0, num_nodes - 1)
    pairs = data.draw(st.lists(st.tuples(node, node, st.integers(0, 2), st.booleans()), max_size=30))
    gaps = torch.tensor([pair[2] for pair in pairs], dtype=torch.int64)
    src, dst = (torch.tensor([pair[i] for pair in pairs], dtype=torch.int64) for i in (0, 1))
    keep = torch.tensor([pair[3] for pair in pairs], dtype=torch.bool) if data.draw(st.booleans()) else None
    events = (src, dst, gaps.cumsum(0), torch.arange(2.0 * len(pairs)).view(-1, 2))
    index = TemporalAdjacency(*events, num_nodes, keep=keep)
    queries = data.draw(st.lists(st.tuples(node, st.integers(-3, len(pairs) + 3)), min_size=1, max_size=12))
    nodes, cut = torch.tensor(queries).unbind(1)
    assert_equals_oracle(index, events, nodes, cut, data.draw(st.integers(1, 8)), keep)


@pytest.mark.parametrize("kind", ["unipartite", "loops", "repeated"])
def test_events_left_out_are_not_neighbours_but_count_as_positions(kind):
    events = stream(kind, seed=2)
    keep = torch.rand(len(events[0])) < 0.5
    nodes = torch.arange(NUM_NODES)
    by_mask = TemporalAdjacency(*events, NUM_NODES, keep=keep)
    backwards = keep.nonzero().view(-1).flip(0).repeat(2)
    by_index = TemporalAdjacency(*events, NUM_NODES, keep=backwards)
    for cut in (0, 20, 55, 90):
        assert_equals_oracle(by_mask, events, nodes, cut, 6, keep)
        assert columns(by_index.recent(nodes, cut, 6)) == columns(by_mask.recent(nodes, cut, 6))
    none = TemporalAdjacency(*events, NUM_NODES, keep=torch.zeros(90, dtype=torch.bool))
    assert not none.recent(nodes, 90, 3).mask.any()


def test_what_comes_later_does_not_change_the_answer():
    src, dst, t, msg = stream("unipartite", seed=3)
    index = TemporalAdjacency(src, dst, t, msg, NUM_NODES)
    other = [column.clone() for column in (src, dst, t, msg)]
    other[0][40:], other[1][40:], other[2][40:], other[3][40:] = 3, 4, 10**6, 9.0
    changed = TemporalAdjacency(*other, NUM_NODES)
    nodes = torch.arange(NUM_NODES)
    assert columns(index.recent(nodes, 40, 10)) == columns(changed.recent(nodes, 40, 10))
    assert columns(index.recent(nodes, 41, 10)) != columns(changed.recent(nodes, 41, 10))


def test_absent_entries_do_not_show_features_even_if_these_are_not_finite():
    one = torch.tensor([0])
    index = TemporalAdjacency(one, one + 1, one + 5, torch.full((1, 2), float("nan")), 4)
    found = index.recent(torch.tensor([2]), 1, 3)
    assert columns(found) == [[[2, 2, 2]], [[0, 0, 0]], [[[0.0, 0.0]] * 3], [[False] * 3], [[-1] * 3]]


def test_nodes_that_the_stream_does_not_know_have_no_neighbours():
    index = TemporalAdjacency(*stream("unipartite"), NUM_NODES)
    assert not index.recent(torch.tensor([NUM_NODES, 10**6]), 90, 3).mask.any()


def test_no_features_cost_nothing_and_keep_their_shape():
    events = stream("unipartite", width=0)
    found = TemporalAdjacency(*events, NUM_NODES).recent(torch.arange(NUM_NODES), 90, 4)
    assert found.msg.shape == (NUM_NODES, 4, 0)


class Calls(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.name().removeprefix("aten::").split(".")[0])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("cut", [30, torch.full((NUM_NODES,), 30)])
def test_a_query_never_waits_for_the_device(cut, as_an_accelerator):
    index = TemporalAdjacency(*stream("unipartite"), NUM_NODES)
    nodes = torch.arange(NUM_NODES)
    with Calls() as calls:
        index.recent(nodes, cut, 4)
    assert "searchsorted" in calls.names
    assert not {"_local_scalar_dense", "nonzero", "item", "_unique2", "masked_select", "index"} & set(calls.names)


def test_memory_does_not_depend_on_the_number_of_nodes_nor_count_shared_features():
    events = stream("unipartite")
    small, large = TemporalAdjacency(*events, NUM_NODES), TemporalAdjacency(*events, 10**12)
    assert small.nbytes == large.nbytes
    assert small.nbytes == TemporalAdjacency(*events[:3], torch.zeros(90, 500), NUM_NODES).nbytes
    assert columns(large.recent(events[0], 60, 3)) == columns(small.recent(events[0], 60, 3))
    assert large.num_nodes == 10**12


def test_times_between_and_beyond_those_of_the_stream():
    src = torch.zeros(4, dtype=torch.int64)
    index = TemporalAdjacency(src, src + 1, torch.tensor([1, 2, 2, 5]), torch.zeros(4, 0), 2)
    queries = torch.tensor([-float("inf"), 0.5, 1.0, 1.5, 2.0, 2.5, 5.0, 6.0, float("inf")], dtype=torch.float64)
    assert index.cut_before(queries).tolist() == [0, 0, 0, 1, 1, 3, 3, 4, 4]
    halves = TemporalAdjacency(src, src + 1, torch.tensor([1.0, 2, 2, 5]).double() / 2, torch.zeros(4, 0), 2)
    assert halves.cut_before(torch.tensor([0, 1, 2, 3])).tolist() == [0, 1, 3, 4]


def test_copies_pickles_and_moves_answer_the_same(device):
    events = stream("unipartite")
    index = TemporalAdjacency(*events, NUM_NODES)
    nodes = torch.arange(NUM_NODES)
    expected = columns(index.recent(nodes, 50, 4))
    there = events[3].to(device)
    moved = index.to(device, msg=there)
    assert moved.device.type == device.type
    assert moved._index.msg is there
    assert columns(moved.recent(nodes.to(device), 50, 4)) == expected
    for twin in (copy.deepcopy(index), pickle.loads(pickle.dumps(index)), index.to(device).to("cpu")):
        assert columns(twin.recent(nodes, 50, 4)) == expected
    with pytest.raises(ValueError, match=r"msg has shape \(2, 2\)"):
        index.to(device, msg=torch.zeros(2, 2))


def test_wrong_events_are_refused():
    src, dst, t, msg = stream("unipartite")

    def build(src=src, dst=dst, t=t, msg=msg, num_nodes=NUM_NODES, **options):
        return TemporalAdjacency(src, dst, t, msg, num_nodes, **options)

    with pytest.raises(DataError, match=r"ids.* 13; .*num_nodes=13"):
        build(num_nodes=13)
    with pytest.raises(DataError, match="run from -1"):
        build(dst=dst - 1)
    with pytest.raises(DataError, match="columns have shapes"):
        build(dst=dst[1:])
    with pytest.raises(DataError, match="columns have shapes"):
        build(msg=msg[:, 0])
    with pytest.raises(DataError, match="int64"):
        build(src=src.int())
    with pytest.raises(DataError, match="t is torch.float32"):
        build(t=t.float())
    with pytest.raises(DataError, match="times decrease"):
        build(t=t.flip(0))
    with pytest.raises(DataError, match="NaN"):
        build(t=torch.where(t == t[5], float("nan"), t.double()))
    with pytest.raises(DataError, match="4611686018427387904 nodes.*int64"):
        build(num_nodes=2**62)
    with pytest.raises(DataError, match=r"keep.*\(3,\).*mask.*90"):
        build(keep=torch.ones(3, dtype=torch.bool))
    with pytest.raises(DataError, match="positions from 0 to 90"):
        build(keep=torch.tensor([0, 90]))
    with pytest.raises(DataError, match="positions from -1"):
        build(keep=torch.tensor([-1]))
    with pytest.raises(DataError, match="keep is torch.float32"):
        build(keep=torch.tensor([0.0]))
    with pytest.raises(ValueError, match="k is 0"):
        build().recent(src, 3, 0)


def test_keys_up_to_the_largest_number_are_exact():
    num_nodes = (2**63 - 1) // 4  # 3 events
    src = torch.tensor([num_nodes - 1, 0, num_nodes - 1])
    index = TemporalAdjacency(src, torch.tensor([1, 1, 0]), torch.arange(3), torch.zeros(3, 0), num_nodes)
    found = index.recent(torch.tensor([num_nodes - 1, 0]), 3, 2)
    assert found.e_id.tolist() == [[2, 0], [2, 1]]
    assert found.node.tolist() == [[0, 1], [num_nodes - 1, 1]]


@pytest.mark.parametrize(
    ("nodes", "cut"),
    [(torch.arange(3), torch.tensor([3, 3])), (torch.zeros(2, 2).long(), 3), (torch.arange(3), torch.tensor(3))],
)
def test_a_cut_for_each_node_or_one_for_all(nodes, cut):
    index = TemporalAdjacency(*stream("unipartite"), NUM_NODES)
    with pytest.raises(ValueError, match="a number or"):
        index.recent(nodes, cut, 2)
