"""Token and sequence stores against Python loops."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphseq.core import DataError, TokenBatch
from graphseq.data import BatchLoader, BucketLoader, SequenceStore, TokenStore
from graphseq.data.text.store import smallest_integers, windows
from tests.reference import sequences as reference

ragged = st.lists(st.lists(st.integers(0, 300), min_size=1, max_size=7), min_size=1, max_size=9)


def index_and_sizes(data, count):
    index = data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=12))
    return torch.tensor(index), data.draw(st.integers(1, len(index)))


def small_blocks(patch, block_bytes):
    patch.setattr("graphseq.data.sequences.padding.BLOCK_BYTES", block_bytes)


@settings(deadline=None, max_examples=60)
@given(ragged, st.data())
def test_sequence_store_equals_the_loop(rows, data):
    lengths = [len(row) for row in rows]
    labels = torch.arange(len(rows))
    features = [torch.tensor(row).float()[:, None] * torch.tensor([1.0, -0.5]) for row in rows]
    tokens = SequenceStore.from_sequences([torch.tensor(row) for row in rows], y=labels, step_y=rows)
    numbers = SequenceStore.from_sequences(features, step_y=[[value / 2 for value in row] for row in rows])
    index, size = index_and_sizes(data, len(rows))
    with pytest.MonkeyPatch.context() as patch:
        small_blocks(patch, data.draw(st.sampled_from([1, 100, 10**6])))
        pairs = list(zip(tokens.batches(index, size), numbers.batches(index, size), strict=True))
    assert len(pairs) == -(-len(index) // size)
    for position, (batch, real) in enumerate(pairs):
        chosen = index[position * size : (position + 1) * size].tolist()
        wanted = [rows[n] for n in chosen]
        assert batch.x.dtype == torch.int64
        assert batch.x.tolist() == reference.pad_rows(wanted, 0)
        assert batch.step_y.tolist() == reference.pad_rows(wanted, -100)
        assert batch.lengths.tolist() == [lengths[n] for n in chosen]
        assert batch.y.tolist() == chosen
        assert real.x[..., 0].tolist() == reference.pad_rows(wanted, 0)
        assert torch.equal(real.x[..., 1], real.x[..., 0] * -0.5)
        assert torch.equal(torch.isnan(real.step_y), ~real.mask)
        assert torch.equal(real.step_y.nan_to_num(0), real.x[..., 0] / 2)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 300), min_size=2, max_size=40), st.integers(1, 9), st.data())
def test_token_store_equals_the_loop(tokens, length, data):
    stride = data.draw(st.integers(1, length))
    expected = reference.windows(tokens, length, stride)
    starts, lengths = windows(3, 3 + len(tokens), length, stride)
    store = TokenStore(smallest_integers(torch.tensor([7, 7, 7, *tokens, 7])), starts, lengths, pad=5)
    assert len(store) == len(expected)
    index, size = index_and_sizes(data, len(expected))
    got = list(store.batches(index, size))
    for position, batch in enumerate(got):
        chosen = index[position * size : (position + 1) * size].tolist()
        assert batch.ids.tolist() == reference.pad_rows([expected[n] for n in chosen], 5)
        assert batch.lengths.tolist() == [len(expected[n]) for n in chosen]


def test_windows_predict_each_token_once():
    tokens = torch.arange(100)
    starts, lengths = windows(10, 77, 8)
    store = TokenStore(tokens, starts, lengths)
    targets = torch.cat([store.take(torch.tensor([n])).ids[0, 1:] for n in range(len(store))])
    assert targets.tolist() == list(range(11, 77))


def test_padded_rows():
    ids = torch.tensor([[1, 2, 3, 9], [4, 9, 9, 9], [5, 6, 9, 9]])
    store = TokenStore.from_rows(ids, torch.tensor([3, 1, 2]))
    batch = store.take(torch.tensor([2, 1]))
    assert isinstance(batch, TokenBatch)
    assert batch.ids.tolist() == [[5, 6], [4, 0]]
    assert batch.x is batch.ids
    with pytest.raises(DataError, match="lengths reach 5"):
        TokenStore.from_rows(ids, torch.tensor([3, 1, 5]))


def test_memory_is_what_is_said():
    tokens = smallest_integers(torch.arange(250).repeat(40))
    starts, lengths = windows(0, len(tokens), 100, 10)
    assert TokenStore(tokens, starts, lengths).nbytes == len(tokens) + 16 * len(starts)
    store = SequenceStore(torch.zeros(10, 3), torch.tensor([0, 4, 10]), y=torch.zeros(2))
    assert store.nbytes == 10 * 3 * 4 + 3 * 8 + 2 * 8 + 2 * 4
    assert smallest_integers(torch.tensor([255])).dtype == torch.uint8
    assert smallest_integers(torch.tensor([32767])).dtype == torch.int16
    assert smallest_integers(torch.tensor([32768])).dtype == torch.int32


def test_moving_shares_what_is_there(device):
    store = SequenceStore.from_sequences([[1.0], [2.0, 3.0]], y=[0, 1], step_y=[[0], [1, 1]])
    moved = store.to(device)
    assert moved.device.type == device.type
    whole = moved.take(torch.tensor([1, 0]))
    assert whole.x.device.type == device.type
    assert whole.x.squeeze(-1).tolist() == [[2, 3], [1, 0]]
    assert (moved.x is store.x) == (device.type == "cpu")
    host = list(store.batches(torch.tensor([1, 0]), 1, device))
    assert all(part.device.type == device.type for part in vars(host[0]).values())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SequenceStore.from_sequences([]), "sequences is empty"),
        (lambda: SequenceStore.from_sequences([[1.0], []]), r"sequences\[1\] has no step"),
        (lambda: SequenceStore.from_sequences([[[1.0, 2.0]], [[1.0]]]), r"sequences\[1\]"),
        (lambda: SequenceStore.from_sequences([[1.0], ["a"]]), r"sequences\[1\]"),
        (lambda: SequenceStore.from_sequences([[1.0, 2.0], [1.0, float("nan")]]), "sequence 1, step 1, feature 0"),
        (lambda: SequenceStore.from_sequences([[1.0], [float("inf")]]), "sequence 1, step 0"),
        (lambda: SequenceStore.from_sequences([[1.0], [2.0]], y=[1]), "y has 1 rows"),
        (lambda: SequenceStore.from_sequences([[1.0], [2.0]], step_y=[[0], [1, 2]]), r"step_y\[1\]"),
        (lambda: SequenceStore.from_sequences([[1.0], [2.0]], step_y=[[0]]), "step_y has 1"),
        (lambda: SequenceStore(torch.ones(3, 1), torch.tensor([0, 2])), "ptr"),
        (lambda: SequenceStore(torch.ones(3, 1), torch.tensor([0, 2, 2, 3])), r"lengths\[1\] is 0"),
        (lambda: SequenceStore(torch.tensor([1, -1]), torch.tensor([0, 2])), "x .*-1"),
        (lambda: SequenceStore(torch.ones(3), torch.tensor([0, 3])), "x is"),
        (lambda: TokenStore(torch.tensor([0.5]), torch.tensor([0]), torch.tensor([1])), "tokens are torch.float32"),
        (lambda: TokenStore(torch.tensor([3]), torch.tensor([0]), torch.tensor([0])), r"lengths\[0\] is 0"),
        (lambda: TokenStore(torch.tensor([3]), torch.tensor([0]), torch.tensor([2])), "row 0"),
        (lambda: TokenStore(torch.tensor([3]), torch.tensor([-1]), torch.tensor([1])), "row 0"),
        (lambda: TokenStore(torch.tensor([], dtype=torch.int64), torch.tensor([0]), torch.tensor([1])), "tokens"),
        (lambda: windows(0, 1, 4), "1 tokens"),
    ],
)
def test_refused(make, message):
    with pytest.raises(DataError, match=message):
        make()


def drawn(loader):
    return [batch.y.tolist() for batch in loader]


def bucketed(**options):
    rows = [[0.5] * (1 + (7 * n) % 31) for n in range(103)]
    store = SequenceStore.from_sequences(rows, y=torch.arange(103))
    return BucketLoader(store, 5, lengths=store.lengths, **{"pool_batches": 10, **options})


def test_buckets_hold_similar_lengths_and_every_sample_once():
    loader = bucketed()
    plain = BatchLoader(loader.store, 5, shuffle=True)
    cells = {kind: sum(batch.mask.numel() for batch in which) for kind, which in (("b", loader), ("p", plain))}
    assert cells["b"] < 0.75 * cells["p"]
    first, second = drawn(loader), drawn(loader)
    assert sorted(n for batch in first for n in batch) == list(range(103))
    assert first != second
    assert len(first[-1]) == 3
    widest = [max(batch) for batch in (b.lengths.tolist() for b in bucketed())]
    assert widest != sorted(widest), "batches come in random order, not by length"


@pytest.mark.parametrize("stop", [1, 7, 20])
def test_buckets_resume(stop):
    loader, again = bucketed(seed=3), bucketed(seed=3)
    loader.set_epoch(2)
    batches = iter(loader)
    head = [next(batches).y.tolist() for _ in range(stop)]
    state = loader.state_dict()
    rest = [batch.y.tolist() for batch in batches]
    again.load_state_dict(state)
    assert drawn(again) == rest
    whole = bucketed(seed=3)
    whole.set_epoch(2)
    assert drawn(whole) == head + rest


def test_buckets_of_two_ranks_are_those_of_one():
    one = drawn(bucketed())
    two = zip(*(drawn(bucketed(rank=rank, world_size=2)) for rank in range(2)), strict=True)
    assert [left + right for left, right in two] == one


def test_buckets_refuse():
    with pytest.raises(ValueError, match="pool_batches is 0"):
        bucketed(pool_batches=0)
    store = SequenceStore.from_sequences([[1.0]])
    with pytest.raises(DataError, match="lengths"):
        BucketLoader(store, 1, lengths=torch.ones(2))
