import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphseq.core import DataError, EventBatch
from graphseq.nn.temporal.plan import Distinct, plan_batch
from tests.models.temporal.memory_networks import NEAR, NODES, stream
from tests.reference.tgn_memory import recent

pytestmark = pytest.mark.usefixtures("way")


def in_order(ids):
    nodes = list(dict.fromkeys(ids))
    return nodes, [nodes.index(one) for one in ids]


@given(st.lists(st.lists(st.integers(0, 9), max_size=30), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_distinct_entries_in_order_of_first_occurrence(lists):
    distinct = Distinct(10)
    for ids in lists:  # what the calls before left in the buffer does not matter
        nodes, place = distinct(torch.tensor(ids, dtype=torch.int64))
        assert (nodes.tolist(), place.tolist()) == in_order(ids)


def test_distinct_entries_do_not_depend_on_threads():
    """Many enough to be divided among threads, which may write in any order."""
    ids = torch.randint(0, 20, (200_000,))
    expected = in_order(ids[:1000].tolist())[0]
    torch.set_num_threads(4)
    distinct = Distinct(20)
    for _ in range(20):
        nodes, place = distinct(ids)
        assert nodes.tolist() == expected
        assert torch.equal(nodes[place], ids)


def test_distinct_has_no_state_to_save():
    assert not Distinct(5).state_dict()
    assert copy.deepcopy(Distinct(5))(torch.tensor([3, 3]))[0].tolist() == [3]


def roots(batch):
    """Node, time and cut of each endpoint in the documented order."""
    columns = [(batch.src, 1), (batch.dst, 1), (batch.neg_dst, 2), (batch.neg_src, 2)]
    cut = batch.cut if batch.cut is not None else torch.full_like(batch.src, batch.start)
    rows = []
    for nodes, count in columns:
        if nodes is not None:
            for event in range(len(batch)):
                for node in nodes.view(len(batch), count)[event].tolist():
                    rows.append((node, int(batch.t[event]), int(cut[event])))
    return rows


@pytest.mark.parametrize("cut", [None, "time"])
@pytest.mark.parametrize("own_sources", [False, True])
@pytest.mark.parametrize("layers", [0, 1, 2])
def test_rows_and_their_neighbours_equal_a_search(layers, own_sources, cut):
    events = stream(own_sources=own_sources)
    batch, rows = events.batch(60, 72, cut), events.rows()
    plan = plan_batch(batch, Distinct(NODES), NEAR if layers else 0, layers)
    asked = roots(batch)
    assert plan.row.tolist() == list(range(len(asked)))
    assert plan.nodes.unique().numel() == len(plan.nodes)
    assert plan.nodes[plan.endpoint].tolist() == torch.cat([batch.src, batch.dst]).tolist()
    assert len(plan.layers) == max(layers, 1)
    used = []
    for layer in plan.layers:
        assert plan.nodes[layer.position].tolist() == [node for node, _, _ in asked]
        assert layer.t.tolist() == [t for _, t, _ in asked]
        used += [node for node, _, _ in asked]
        if not layers:
            assert layer.neighbor is None
            continue
        for place, (node, _, below) in enumerate(asked):
            expected = recent(rows, node, below, NEAR)
            present = layer.mask[place].tolist()
            assert present == [True] * len(expected) + [False] * (NEAR - len(expected))
            near = plan.nodes[layer.neighbor[place]].tolist()
            assert near == [other for other, _, _ in expected] + [node] * (NEAR - len(expected))
            for entry, (_, t, x) in enumerate(expected):
                assert int(layer.neighbor_t[place, entry]) == t
                assert torch.equal(layer.msg[place, entry].double(), x)
        near = plan.nodes[layer.neighbor]
        asked = [(int(near[place, entry]), *asked[place][1:]) for place in range(len(asked)) for entry in range(NEAR)]
    if layers:
        used += [node for node, _, _ in asked]
    assert set(plan.nodes.tolist()) == set(used)


@pytest.mark.parametrize("neighbors", [0, NEAR])
def test_shared_rows_are_one_for_each_node(neighbors):
    events = stream()
    batch = events.batch(60, 72)
    plan = plan_batch(batch, Distinct(NODES), neighbors, int(neighbors > 0), share_rows=True)
    asked = roots(batch)
    nodes, row = in_order([node for node, _, _ in asked])
    assert plan.row.tolist() == row
    assert plan.nodes[plan.layers[0].position].tolist() == nodes
    assert plan.layers[0].position.tolist() == list(range(len(nodes)))  # which embeddings rely on
    first = [row.index(place) for place in range(len(nodes))]
    assert plan.layers[0].t.tolist() == [asked[place][1] for place in first]
    assert plan.nodes[plan.endpoint].tolist() == torch.cat([batch.src, batch.dst]).tolist()
    if neighbors:
        near = plan.nodes[plan.layers[0].neighbor]
        assert near.shape == (len(nodes), NEAR)
        assert near[0].tolist()[:1] == [recent(events.rows(), nodes[0], 60, 1)[0][0]]


def test_batches_without_negatives_or_events():
    events = stream()
    batch = events.batch(60, 70)
    batch.neg_dst = None
    assert len(plan_batch(batch, Distinct(NODES), NEAR, 1).row) == 20
    none = torch.zeros(0, dtype=torch.int64)
    empty = EventBatch(none, none, none, torch.zeros(0, 0), none, start=0)
    assert len(plan_batch(empty, Distinct(3)).nodes) == 0


def test_what_is_missing_is_named():
    batch = stream().batch(60, 70, cut="time")
    with pytest.raises(DataError, match="cut='batch'"):
        plan_batch(batch, Distinct(NODES), NEAR, 1, share_rows=True)
    assert plan_batch(batch, Distinct(NODES), share_rows=True).layers[0].neighbor is None  # nobody asks: no matter
    batch.history = None
    with pytest.raises(DataError, match=r"set EventBatch\.history"):
        plan_batch(batch, Distinct(NODES), NEAR, 1)


@pytest.mark.parametrize("own_sources", [False, True])
def test_rows_of_a_node_share_lookups(own_sources):
    batch = stream(own_sources=own_sources).batch(30, 72)
    plan = plan_batch(batch, Distinct(NODES), NEAR, 1, share_lookups=True)
    alone = plan_batch(batch, Distinct(NODES), NEAR, 1)
    rows, shared, single = plan.layers[0], plan.layers[0].shared, alone.layers[0]
    assert torch.equal(plan.row, alone.row)
    assert torch.equal(plan.endpoint, plan.layers[0].position[: 2 * len(batch)])
    assert torch.equal(rows.t, single.t)
    assert torch.equal(plan.nodes[rows.position], alone.nodes[single.position])
    lookup, size = shared.lookup, shared.later.size(1)
    assert len(shared.slot.unique()) == len(shared.slot) == len(rows.t)
    assert torch.equal(plan.nodes[shared.position[lookup]], alone.nodes[single.position])
    assert torch.equal(shared.t[lookup] + shared.later.flatten()[shared.slot], single.t)
    assert torch.equal(plan.nodes[rows.neighbor[lookup]], alone.nodes[single.neighbor])
    for name in ("neighbor_t", "msg", "mask"):
        assert torch.equal(getattr(rows, name)[lookup], getattr(single, name))
    _, counts = plan.nodes[rows.position].unique(return_counts=True)
    assert counts.max() > size, "no node needs two lookups"
    assert len(shared.t) == int(((counts + size - 1) // size).sum())  # no more than are needed


@pytest.mark.parametrize(("layers", "cut"), [(2, None), (1, "time")])
def test_lookups_that_may_differ_are_not_shared(layers, cut):
    batch = stream().batch(60, 72, cut=cut)
    assert plan_batch(batch, Distinct(NODES), NEAR, layers, share_lookups=True).layers[0].shared is None
