import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphseq.core import DataError
from graphseq.data import BatchLoader, TensorStore


def loader(count=23, batch_size=5, **options):
    return BatchLoader(TensorStore(torch.arange(count)), batch_size, **{"shuffle": True, **options})


def flat(batches):
    return [sample for batch in batches for sample in batch]


def drawn(iterable):
    return [batch[0].tolist() for batch in iterable]


def test_an_epoch_is_a_permutation_and_epochs_differ():
    data = loader()
    first, second = drawn(data), drawn(data)
    assert sorted(flat(first)) == list(range(23))
    assert first != second
    assert drawn(loader(shuffle=False)) == [list(range(i, min(i + 5, 23))) for i in range(0, 23, 5)]


def test_order_is_a_function_of_seed_epoch_and_pass():
    a, b = loader(seed=3), loader(seed=3)
    drawn(a)  # a pass more must not change what an announced epoch gives
    a.set_epoch(4)
    b.set_epoch(4)
    assert drawn(a) == drawn(b)
    assert drawn(a) == drawn(b)
    c = loader(seed=4)
    c.set_epoch(4)
    assert drawn(loader(seed=3)) != drawn(loader(seed=4))


def test_iter_alone_changes_nothing():
    data = loader()
    expected = drawn(loader())
    iter(data), iter(data)
    before = data.state_dict()
    assert drawn(data) == expected
    assert before == loader().state_dict()


def test_abandoned_pass_starts_anew():
    data = loader(shuffle=False)
    list(itertools.islice(data, 2))
    assert drawn(data)[0] == [0, 1, 2, 3, 4]


@given(st.integers(1, 30), st.integers(1, 7), st.integers(0, 6), st.integers(0, 3))
@settings(deadline=None, max_examples=50)
def test_resumes_exactly(count, batch_size, epoch, taken):
    data = loader(count, batch_size)
    data.set_epoch(epoch)
    taken = min(taken, len(data))
    iterator = iter(data)
    head = drawn(itertools.islice(iterator, taken))
    state = data.state_dict()
    rest = drawn(iterator)
    again = loader(count, batch_size)
    again.load_state_dict(state)
    again.set_epoch(epoch)
    if taken == len(data):  # a finished pass starts anew, and nothing was left
        assert rest == []
        assert drawn(again) == head
    else:
        assert drawn(again) == rest


def test_state_of_another_loader_is_refused():
    state = loader(23, 5).state_dict()
    with pytest.raises(DataError, match="5 batches, .* 8"):
        loader(23, 3).load_state_dict(state)


def test_state_of_another_batch_size_is_refused_where_epochs_have_as_many_batches():
    state = loader(20, 5).state_dict()
    assert len(loader(20, 6)) == len(loader(20, 5)) == 4
    with pytest.raises(DataError, match="batches of 5 samples, .* 6"):
        loader(20, 6).load_state_dict(state)


def test_a_position_of_another_layout_names_what_it_lacks():
    with pytest.raises(DataError, match="no pass, position, only batch, epoch"):
        loader().load_state_dict({"epoch": 1, "batch": 2})


def test_drop_last_and_lengths():
    assert len(loader()) == len(drawn(loader())) == 5
    assert len(loader(drop_last=True)) == len(drawn(loader(drop_last=True))) == 4
    assert all(len(batch) == 5 for batch in drawn(loader(drop_last=True)))


def test_index_selects_a_split():
    index = torch.tensor([7, 3, 11])
    assert sorted(flat(drawn(loader(index=index)))) == [3, 7, 11]


@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 4), st.booleans())
@settings(deadline=None, max_examples=80)
def test_shards_make_up_the_batches_of_one_process(count, batch_size, world_size, shuffle):
    if batch_size < world_size or count < world_size:
        with pytest.raises((ValueError, DataError)):
            [loader(count, batch_size, rank=0, world_size=world_size)]
        return
    ranks = [
        drawn(loader(count, batch_size, shuffle=shuffle, rank=r, world_size=world_size)) for r in range(world_size)
    ]
    assert len({len(batches) for batches in ranks}) == 1  # nobody waits for a batch that never comes
    assert all(len(batch) >= 1 for batches in ranks for batch in batches)
    order = loader(count, batch_size, shuffle=shuffle).order().tolist()
    joined = [flat(parts) for parts in zip(*ranks, strict=True)]
    assert flat(joined) == order
    sizes = [len(batch) for batch in joined]
    assert all(size == batch_size for size in sizes[:-1])
    for parts in zip(*ranks, strict=True):  # cut as torch.tensor_split does
        whole = torch.tensor(flat(parts))
        assert [part.tolist() for part in whole.tensor_split(world_size)] == list(parts)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"batch_size": 0}, ValueError, "batch_size is 0"),
        ({"batch_size": 2.5}, ValueError, "batch_size is 2.5"),
        ({"rank": 2, "world_size": 2}, ValueError, "rank is 2 of world_size 2"),
        ({"batch_size": 1, "world_size": 2}, ValueError, "batch_size 1 .*world_size 2"),
        ({"index": torch.tensor([23])}, DataError, "index .* 23; .* 23"),
        ({"index": torch.tensor([-1])}, DataError, "index"),
        ({"index": torch.tensor([1.0])}, DataError, "int64"),
        ({"index": torch.empty(0, dtype=torch.int64)}, DataError, "0 samples .* 5 "),
        ({"batch_size": 50, "drop_last": True}, DataError, "23 samples .* 50 .*drop_last"),
    ],
)
def test_bad_input(options, error, message):
    with pytest.raises(error, match=message):
        loader(**options)
