import copy
import pickle
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphseq.core import DataError, EventBatch
from graphseq.data import HistoricalNegatives, InductiveNegatives, NegativeSampler, RandomNegatives, RankingNegatives
from tests.reference.negatives import (
    historical_candidates,
    inductive_candidates,
    pairs_of,
    ranking_candidates,
    true_destinations,
)

KINDS = [RandomNegatives, HistoricalNegatives, InductiveNegatives, RankingNegatives]


def stream(events=400, sources=12, destinations=30, times=150, bipartite=True, seed=0):
    """Events with repeated pairs, ties in time, and destinations that come and go."""
    generator = torch.Generator().manual_seed(seed)
    src = torch.randint(sources, (events,), generator=generator)
    drift = torch.arange(events) * destinations // (2 * events)  # the later, the higher: new ones in evaluation
    dst = drift + torch.randint((destinations + 1) // 2, (events,), generator=generator)
    if bipartite:
        dst = dst + sources
    t = torch.randint(times, (events,), generator=generator).sort().values
    return SimpleNamespace(src=src, dst=dst, t=t, num_nodes=sources + destinations)


def batch_of(events, start, stop):
    part = slice(start, stop)
    e_id = torch.arange(start, stop)
    return EventBatch(
        events.src[part], events.dst[part], events.t[part], torch.zeros(stop - start, 0), e_id=e_id, start=start
    )


def lists(events):
    return events.src.tolist(), events.dst.tolist(), events.t.tolist()


def drawn_pairs(batch, negatives, epoch=0):
    src, dst = negatives.sample(batch, epoch)
    src = batch.src[:, None].expand_as(dst) if src is None else src
    assert src.shape == dst.shape == (len(batch), negatives.num_negatives)
    assert src.dtype == dst.dtype == torch.int64
    return list(zip(src.flatten().tolist(), dst.flatten().tolist(), strict=True))


def in_epoch(negatives, events, first, stop, size, epoch=0):
    """Destinations of all batches of an epoch."""
    parts = [batch_of(events, at, min(at + size, stop)) for at in range(first, stop, size)]
    return torch.cat([negatives.sample(part, epoch)[1] for part in parts])


# --- random


@pytest.mark.parametrize("split", ["train", "val"])
def test_random_covers_the_destinations_of_its_split(split):
    events = stream()
    negatives = RandomNegatives(20, seed=3).prepare(events, torch.arange(200), split)
    first, stop = (0, 200) if split == "train" else (200, 400)
    found = in_epoch(negatives, events, first, stop, 50).unique().tolist()
    expected = set(events.dst[:200].tolist()) if split == "train" else set(events.dst.tolist())
    assert set(found) == expected
    assert set(events.dst[:200].tolist()) < set(events.dst.tolist())  # else the two could not be told apart


def test_random_is_uniform_over_distinct_destinations():
    """However often a destination occurs."""
    dst = torch.tensor([5] * 90 + [6] * 9 + [7])
    events = SimpleNamespace(src=torch.zeros_like(dst), dst=dst, t=torch.arange(100), num_nodes=8)
    negatives = RandomNegatives(300).prepare(events, torch.arange(100), "train")
    counts = Counter(in_epoch(negatives, events, 0, 100, 100).flatten().tolist())
    assert set(counts) == {5, 6, 7}
    for count in counts.values():
        assert abs(count - 10_000) < 5 * (30_000 * 2 / 9) ** 0.5


def test_random_leaves_removed_events_out_of_training():
    events = stream()
    kept = torch.arange(300)[events.dst[:300] % 2 == 0]
    negatives = RandomNegatives(50).prepare(events, kept, "train")
    batch = batch_of(events, int(kept[0]), int(kept[0]) + 20)
    assert set(negatives.sample(batch, 0)[1].flatten().tolist()) == set(events.dst[kept].tolist())


# --- what holds for all


@pytest.mark.parametrize("kind", KINDS)
def test_evaluation_is_the_same_in_every_epoch_training_is_not(kind):
    events = stream()
    negatives = kind(4, seed=1)
    evaluation = negatives.prepare(events, torch.arange(200), "val")
    batch = batch_of(events, 250, 300)
    first = drawn_pairs(batch, evaluation, 0)
    assert drawn_pairs(batch, evaluation, 1) == drawn_pairs(batch, evaluation, 7) == first
    if kind is InductiveNegatives:
        return
    training = negatives.prepare(events, torch.arange(200), "train")
    batch = batch_of(events, 100, 150)
    epochs = [drawn_pairs(batch, training, epoch) for epoch in range(3)]
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    # going back, as after an interruption, gives the same again
    assert [drawn_pairs(batch, training, epoch) for epoch in (1, 0, 2)] == [epochs[1], epochs[0], epochs[2]]
    fresh = kind(4, seed=1).prepare(events, torch.arange(200), "train")
    assert drawn_pairs(batch, fresh, 2) == epochs[2]


@pytest.mark.parametrize("kind", KINDS)
def test_seed_and_split_change_the_draw(kind):
    events = stream()
    batch = batch_of(events, 300, 340)
    draws = [
        drawn_pairs(batch, kind(5, seed=seed).prepare(events, torch.arange(200), split))
        for seed, split in [(0, "val"), (1, "val"), (0, "test")]
    ]
    assert draws[0] != draws[1]
    assert draws[0] != draws[2]


@pytest.mark.parametrize("kind", [RandomNegatives, RankingNegatives])
@pytest.mark.parametrize("split", ["train", "test"])
def test_tables_do_not_depend_on_the_batch_size(kind, split):
    events = stream()
    negatives = kind(6).prepare(events, torch.arange(200), split)
    first, stop = (0, 200) if split == "train" else (200, 400)
    whole = in_epoch(negatives, events, first, stop, 200)
    for size in (1, 7, 64):
        assert torch.equal(in_epoch(negatives, events, first, stop, size), whole)
    order = torch.randperm(stop - first) + first
    mixed = EventBatch(
        events.src[order], events.dst[order], events.t[order], torch.zeros(len(order), 0), order, start=first
    )
    assert torch.equal(negatives.sample(mixed, 0)[1], whole[order - first])


@pytest.mark.parametrize("kind", KINDS)
def test_the_global_generator_is_left_alone(kind):
    events = stream()
    before = torch.get_rng_state()
    negatives = kind(2).prepare(events, torch.arange(200), "val")
    first = drawn_pairs(batch_of(events, 250, 300), negatives)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    assert drawn_pairs(batch_of(events, 250, 300), negatives) == first


@pytest.mark.parametrize("kind", KINDS)
def test_preparing_copies_and_copies_agree(kind):
    events = stream()
    negatives = kind(2)
    assert isinstance(negatives, NegativeSampler)
    val, test = (negatives.prepare(events, torch.arange(200), split) for split in ("val", "test"))
    batch = batch_of(events, 300, 320)
    first = drawn_pairs(batch, val)
    assert drawn_pairs(batch, test) != first
    assert drawn_pairs(batch, val) == first
    for twin in (copy.deepcopy(val), pickle.loads(pickle.dumps(val)), val.to("cpu")):
        assert drawn_pairs(batch, twin) == first
    assert val.nbytes > 0
    assert negatives.nbytes == 0
    with pytest.raises(ValueError, match=f"{type(negatives).__name__}.*prepare"):
        negatives.sample(batch, 0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("kind", KINDS)
def test_on_a_gpu_nothing_is_waited_for(kind):
    events = stream()
    for split in ("val", "train") if kind is not InductiveNegatives else ("val",):
        host = kind(4).prepare(events, torch.arange(200), split)
        negatives = host.to("cuda")
        batch = batch_of(events, 100 if split == "train" else 300, 150 if split == "train" else 350)
        there = batch.to("cuda")
        negatives.sample(there, 0)
        torch.cuda.set_sync_debug_mode("error")
        try:
            src, dst = negatives.sample(there, 0)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert dst.is_cuda
        if src is None:
            assert torch.equal(dst.cpu(), host.sample(batch, 0)[1])
        else:
            assert not set(drawn_pairs(there, negatives)) & pairs_of(*lists(events)[:2], batch.e_id.tolist())


# --- historical and inductive


def check_pairs(drawn, candidates, batch_pairs):
    """Seen pairs first, without repeats and as many as there are; then others, none of the batch."""
    seen = min(len(candidates), len(drawn))
    assert set(drawn[:seen]) <= candidates
    assert len(set(drawn[:seen])) == seen
    assert not set(drawn) & batch_pairs


@pytest.mark.parametrize("bipartite", [True, False])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(("start", "size"), [(200, 50), (200, 1), (260, 7), (390, 10), (201, 150)])
def test_historical_against_sets(bipartite, count, start, size):
    events = stream(bipartite=bipartite)
    src, dst, _ = lists(events)
    negatives = HistoricalNegatives(count, seed=2).prepare(events, torch.arange(200), "val")
    batch = batch_of(events, start, start + size)
    candidates = historical_candidates(src, dst, start, range(start, start + size))
    check_pairs(drawn_pairs(batch, negatives), candidates, pairs_of(src, dst, range(start, start + size)))


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("index", [None, torch.arange(280, 400)])
@pytest.mark.parametrize(("start", "size"), [(280, 30), (340, 9), (390, 10)])
def test_inductive_against_sets(count, index, start, size):
    events = stream(destinations=60)
    src, dst, _ = lists(events)
    train = torch.arange(200)[events.src[:200] != 3]  # of removed events inside training none is known
    negatives = InductiveNegatives(count).prepare(events, train, "test", index)
    candidates = inductive_candidates(
        src, dst, train.tolist(), int(train.max()) + 1 if index is None else 280, start, range(start, start + size)
    )
    assert not candidates & pairs_of(src, dst, train.tolist())
    check_pairs(
        drawn_pairs(batch_of(events, start, start + size), negatives),
        candidates,
        pairs_of(src, dst, range(start, start + size)),
    )


@pytest.mark.parametrize("size", [40, 3])
def test_all_candidates_are_drawn_and_evenly(size):
    """Over many seeds the drawn pairs are the candidate set of the sets, each as often; `size` 3 of many, 40 of few."""
    events = stream(events=6000) if size == 3 else stream(events=140)
    start = len(events.src) - size
    src, dst, _ = lists(events)
    candidates = historical_candidates(src, dst, start, range(start, len(src)))
    batch, seeds = batch_of(events, start, len(src)), 600 if size == 40 else 4000
    prepared = HistoricalNegatives().prepare(events, torch.arange(start), "val")
    assert (len(prepared._seen_at) > 8 * size + 256) == (size == 3)  # both ways of drawing
    counts = Counter()
    for seed in range(seeds):
        prepared.seed = seed
        counts.update(drawn_pairs(batch, prepared))
    assert set(counts) == candidates
    share = min(size / len(candidates), 1.0)
    deviation = (seeds * share * (1 - share)) ** 0.5
    assert all(abs(count - seeds * share) <= 5.5 * deviation for count in counts.values())


def test_first_batch_of_training_has_no_history():
    events = stream()
    src, dst, _ = lists(events)
    negatives = HistoricalNegatives(2).prepare(events, torch.arange(200), "train")
    drawn = drawn_pairs(batch_of(events, 0, 40), negatives)
    assert not set(drawn) & pairs_of(src, dst, range(40))
    assert {u for u, _ in drawn} <= set(src[:200])
    assert {v for _, v in drawn} <= set(dst[:200])


def test_historical_training_knows_only_training_events():
    events = stream()
    src, dst, _ = lists(events)
    train = torch.arange(300)[events.src[:300] != 3]
    negatives = HistoricalNegatives(1).prepare(events, train, "train")
    rows = train[100:130]
    batch = EventBatch(events.src[rows], events.dst[rows], events.t[rows], torch.zeros(30, 0), rows, start=int(rows[0]))
    candidates = historical_candidates(src, dst, int(rows[0]), rows.tolist(), train.tolist())
    drawn = drawn_pairs(batch, negatives)
    check_pairs(drawn, candidates, pairs_of(src, dst, rows.tolist()))
    assert all(u != 3 for u, _ in drawn)


def test_inductive_refuses_training():
    with pytest.raises(ValueError, match="InductiveNegatives.*RandomNegatives"):
        InductiveNegatives().prepare(stream(), torch.arange(100), "train")


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=6, max_size=60),
    st.integers(1, 3),
    st.integers(0, 50),
    st.data(),
)
def test_any_small_stream(pairs, count, seed, data):
    src, dst = torch.tensor(pairs).T
    total = len(pairs)
    events = SimpleNamespace(src=src, dst=dst, t=torch.arange(total), num_nodes=9)
    train = data.draw(st.integers(1, total - 2))
    start = data.draw(st.integers(train, total - 1))
    batch, inside = batch_of(events, start, total), range(start, total)
    every = {(u, v) for u in src.tolist() for v in dst.tolist()}
    taken = pairs_of(src.tolist(), dst.tolist(), inside)
    for kind, candidates in (
        (HistoricalNegatives, historical_candidates(src.tolist(), dst.tolist(), start, inside)),
        (InductiveNegatives, inductive_candidates(src.tolist(), dst.tolist(), range(train), train, start, inside)),
    ):
        drawn = drawn_pairs(batch, kind(count, seed).prepare(events, torch.arange(train), "val"))
        seen = min(len(candidates), len(drawn))
        assert set(drawn[:seen]) <= candidates
        assert len(set(drawn[:seen])) == seen
        assert set(drawn) <= every
        if len(taken) <= len(every) / 2:  # else eight tries may all hit the batch
            assert sum(pair in taken for pair in drawn) <= 1 + len(drawn) // 10


# --- ranking


@pytest.mark.parametrize("bipartite", [True, False])
@pytest.mark.parametrize(("count", "share"), [(1, 0.5), (2, 0.5), (10, 0.5), (10, 0.0), (10, 1.0), (20, 0.3)])
@pytest.mark.parametrize("times", [150, 12])
def test_ranking_against_sets(bipartite, count, share, times):
    events = stream(times=times, bipartite=bipartite)
    src, dst, t = lists(events)
    negatives = RankingNegatives(count, historical_share=share).prepare(events, torch.arange(200), "val")
    table = in_epoch(negatives, events, 200, 400, 64).tolist()
    for event, row in zip(range(200, 400), table, strict=True):
        earlier, any_ = ranking_candidates(src, dst, t, event)
        assert len(row) == len(set(row)) == count
        assert set(row) <= any_
        historical = min(int(share * count), len(earlier))
        assert set(row[:historical]) <= earlier


def test_ranking_draws_every_candidate_evenly():
    events = stream(destinations=24)
    src, dst, t = lists(events)
    earlier, any_ = ranking_candidates(src, dst, t, 399)
    counts, first = Counter(), Counter()
    for seed in range(1500):
        negatives = RankingNegatives(6, seed).prepare(events, torch.arange(300), "test", torch.tensor([399]))
        row = negatives.sample(batch_of(events, 399, 400), 0)[1][0].tolist()
        first.update(row[:3])
        counts.update(row[3:])
    assert set(first) == earlier
    assert set(counts) == any_
    share = 3 / len(earlier)
    assert all(abs(n - 1500 * share) < 5 * (1500 * share * (1 - share)) ** 0.5 for n in first.values())
    # at random from what the first three left
    for node, n in counts.items():
        share = 3 / (len(any_) - 3) * (1 - 3 / len(earlier) if node in earlier else 1)
        assert abs(n - 1500 * share) < 5 * (1500 * share * (1 - share)) ** 0.5


def test_ranking_where_almost_all_destinations_are_true():
    """Many destinations at one time: draws alone would hardly find the few others, nor any among thousands."""
    hub = torch.zeros(395, dtype=torch.int64)
    src = torch.cat([torch.ones(400, dtype=torch.int64), hub])
    dst = torch.cat([torch.arange(2, 402), torch.arange(2, 397)])
    events = SimpleNamespace(src=src, dst=dst, t=torch.cat([torch.arange(400), torch.full((395,), 500)]), num_nodes=402)
    negatives = RankingNegatives(5).prepare(events, torch.arange(400), "val")
    table = in_epoch(negatives, events, 400, 795, 100)
    assert torch.equal(table.sort(1).values, torch.arange(397, 402).expand(395, 5))
    with pytest.raises(DataError, match=r"395 events.* 6 destinations.*event 400"):
        RankingNegatives(6).prepare(events, torch.arange(400), "val")


def test_ranking_with_more_destinations_than_are_drawn():
    events = stream(events=500, sources=5, destinations=4000, times=500)
    src, dst, t = lists(events)
    negatives = RankingNegatives(100).prepare(events, torch.arange(450), "val")
    for event, row in zip(range(450, 500), in_epoch(negatives, events, 450, 500, 9).tolist(), strict=True):
        earlier, any_ = ranking_candidates(src, dst, t, event)
        assert len(set(row)) == 100
        assert set(row) <= any_
        assert set(row[: min(50, len(earlier))]) <= earlier


def test_ranking_in_training_uses_training_events():
    events = stream()
    negatives = RankingNegatives(4).prepare(events, torch.arange(200), "train")
    table = in_epoch(negatives, events, 0, 200, 200)
    assert set(table.flatten().tolist()) <= set(events.dst[:200].tolist())
    assert not torch.equal(in_epoch(negatives, events, 0, 200, 200, epoch=1), table)


def test_memory_of_the_table():
    """Four bytes an entry, of the split alone where it is known."""
    events = stream()
    train = torch.arange(100)
    assert RankingNegatives(5).prepare(events, train, "val").nbytes == 4 * 300 * 5
    assert RankingNegatives(5).prepare(events, train, "val", torch.arange(100, 150)).nbytes == 4 * 50 * 5
    assert RandomNegatives(3).prepare(events, train, "test", torch.arange(350, 400)).nbytes == 4 * 50 * 3


def candidates_for(events, index, count=4):
    src, dst, t = lists(events)
    return torch.tensor([sorted(set(dst) - true_destinations(src, dst, t, int(i)))[:count] for i in index])


@pytest.mark.parametrize("by_split", [False, True])
@pytest.mark.parametrize("index", [None, torch.arange(250, 300), torch.arange(250, 400, 3)])
def test_candidates_of_the_user(by_split, index):
    events = stream()
    rows = torch.arange(200, 400) if index is None else index
    table = candidates_for(events, rows)
    negatives = RankingNegatives(candidates={"val": table} if by_split else table)
    ready = negatives.prepare(events, torch.arange(200), "val", index)
    assert ready.num_negatives == 4
    batch = EventBatch(
        events.src[rows], events.dst[rows], events.t[rows], torch.zeros(len(rows), 0), rows, start=int(rows[0])
    )
    assert torch.equal(ready.sample(batch, 5)[1], table)
    if by_split:
        with pytest.raises(DataError, match="candidates.* val, .*test"):
            negatives.prepare(events, torch.arange(200), "test", index)


def test_candidates_that_hold_the_true_destination():
    events = stream(times=40)
    src, _, t = lists(events)
    table = candidates_for(events, range(200, 400))
    wrong = table.clone()
    for row in (3, 17, 180):
        wrong[row, row % 4] = events.dst[200 + row]
    with pytest.raises(DataError, match=r"candidates.* 3 rows.*\[3, 17, 180\]"):
        RankingNegatives(candidates=wrong).prepare(events, torch.arange(200), "val")
    twins = [(i, j) for i in range(200, 400) for j in range(200, 400) if src[i] == src[j] and t[i] == t[j]]
    at, other = next((i, j) for i, j in twins if events.dst[i] != events.dst[j])
    wrong = table.clone()
    wrong[at - 200, 2] = events.dst[other]
    with pytest.raises(DataError, match=rf"in 1 rows, first \[{at - 200}\]"):
        RankingNegatives(candidates=wrong).prepare(events, torch.arange(200), "val")


def test_candidates_that_do_not_fit():
    events = stream()
    table = candidates_for(events, range(200, 400))
    with pytest.raises(DataError, match="candidates.*150 rows.*val.*200 events"):
        RankingNegatives(candidates=table[:150]).prepare(events, torch.arange(200), "val")
    for node, found in ((events.num_nodes, "12 to 42"), (-1, "-1 to")):
        wrong = table.clone()
        wrong[5, 1] = node
        with pytest.raises(DataError, match=f"candidates.* {found}.* 0 to 41"):
            RankingNegatives(candidates=wrong).prepare(events, torch.arange(200), "val")
    for wrong in (table.float(), table[0], table[:, :0], table > 3, [[1], [2, 3]], "none", [["a"]], 3, {1, 2}):
        with pytest.raises(ValueError, match=r"val is .*\(E, M\)"):
            RankingNegatives(candidates={"val": wrong})


def test_candidates_may_be_arrays_or_lists():
    events, train = stream(), torch.arange(200)
    table = candidates_for(events, range(200, 400))
    wanted = RankingNegatives(candidates=table).prepare(events, train, "val").sample(batch_of(events, 200, 400), 0)[1]
    for same in (table.numpy(), table.tolist(), table.int().numpy(), {"val": table.tolist()}):
        ready = RankingNegatives(candidates=same).prepare(events, train, "val")
        assert torch.equal(ready.sample(batch_of(events, 200, 400), 0)[1], wanted)


def test_candidates_that_occur_twice_in_a_row():
    table = torch.arange(24).view(6, 4)
    table[4, 0] = table[4, 3]
    for wrong in (table, table.numpy(), {"test": table}):
        with pytest.raises(DataError, match=r"candidates.*node 19 .*row 4"):
            RankingNegatives(candidates=wrong)


# --- bad input


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_arguments(kind):
    for wrong in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match=rf"num_negatives={wrong}"):
            kind(wrong)
    with pytest.raises(ValueError, match=r"seed=-1"):
        kind(seed=-1)
    events, train = stream(), torch.arange(200)
    with pytest.raises(ValueError, match="split.*'training'"):
        kind().prepare(events, train, "training")
    with pytest.raises(DataError, match="train_index is empty"):
        kind().prepare(events, train[:0], "val", train)
    with pytest.raises(DataError, match="^index of split val "):
        kind().prepare(events, torch.arange(400), "val")
    with pytest.raises(DataError, match="train_index is torch.bool"):
        kind().prepare(events, train > 3, "val")
    with pytest.raises(DataError, match="train_index.* 0 to 400.* 400 events"):
        kind().prepare(events, torch.arange(401), "train")
    with pytest.raises(ValueError, match=r"historical_share=1\.5"):
        RankingNegatives(historical_share=1.5)


@pytest.mark.parametrize("kind", [RandomNegatives, RankingNegatives])
def test_batches_of_another_split(kind):
    events = stream()
    negatives = kind(2).prepare(events, torch.arange(200), "val", torch.arange(200, 300))
    for start, stop in ((190, 210), (290, 310)):
        with pytest.raises(DataError, match=f"events {start} to {stop - 1} .* val, events 200 to 299"):
            negatives.sample(batch_of(events, start, stop), 0)


def test_one_destination_alone():
    dst = torch.full((10,), 3)
    events = SimpleNamespace(src=torch.zeros(10).long(), dst=dst, t=torch.arange(10), num_nodes=4)
    with pytest.raises(DataError, match="events .*node 3:"):
        RandomNegatives().prepare(events, torch.arange(5), "train")
    with pytest.raises(DataError, match="5 events.* 1 destinations"):
        RankingNegatives(1).prepare(events, torch.arange(5), "val")


def test_too_many_nodes_for_pairs():
    events = stream()
    events.num_nodes = 1 << 32
    with pytest.raises(DataError, match="4294967296 nodes.*int64"):
        HistoricalNegatives().prepare(events, torch.arange(200), "val")
