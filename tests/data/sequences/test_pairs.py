import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphseq.core import DataError
from graphseq.data import SequencePairStore
from tests.reference import sequences as reference

rows_of = st.lists(st.integers(0, 9), min_size=1, max_size=6)
pairs_of = st.lists(st.tuples(rows_of, rows_of), min_size=1, max_size=8)


def build(pairs, kind=torch.uint8):
    x = torch.tensor([value for row, _ in pairs for value in row]).float()[:, None]
    target = torch.tensor([value for _, row in pairs for value in row], dtype=kind)
    ptr, target_ptr = (torch.tensor([0, *(len(pair[k]) for pair in pairs)]).cumsum(0) for k in (0, 1))
    return SequencePairStore(x, ptr, target, target_ptr)


@settings(deadline=None, max_examples=25)
@given(pairs_of, st.data())
def test_batches_equal_the_loop(pairs, data):
    store = build(pairs)
    index = data.draw(st.lists(st.integers(0, len(pairs) - 1), min_size=1, max_size=12))
    size = data.draw(st.integers(1, len(index)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("graphseq.data.sequences.padding.BLOCK_BYTES", data.draw(st.sampled_from([1, 100, 10**6])))
        batches = list(store.batches(torch.tensor(index), size))
    for position, batch in enumerate(batches):
        chosen = [pairs[n] for n in index[position * size : (position + 1) * size]]
        assert batch.x[..., 0].tolist() == reference.pad_rows([row for row, _ in chosen], 0)
        assert batch.y.tolist() == reference.pad_rows([row for _, row in chosen], -100)
        assert batch.y.dtype == torch.int64
        assert batch.lengths.tolist() == [len(row) for row, _ in chosen]
    assert sum(map(len, batches)) == len(index)


def test_moves_and_counts_its_memory():
    store = build([([1, 2], [3]), ([4], [5, 6])])
    moved = store.to("cpu")
    assert torch.equal(moved.take(torch.tensor([1])).y, torch.tensor([[5, 6]]))
    assert store.nbytes == 3 * 4 + 3 + 2 * 3 * 8 + 2 * 2 * 8
    assert "2 pairs" in repr(store)


@pytest.mark.parametrize(
    ("target", "target_ptr", "message"),
    [
        (torch.tensor([1.0, 2.0]), torch.tensor([0, 1, 2]), "target is torch.float32"),
        (torch.tensor([1, 2]), torch.tensor([0, 2]), r"target_ptr is \(2,\)"),
        (torch.tensor([1, 2]), torch.tensor([0, 1, 3]), "from 0 to 2"),
        (torch.tensor([1, -2]), torch.tensor([0, 1, 2]), "reaches down to -2"),
        (torch.tensor([1, 2]), torch.tensor([0, 0, 2]), r"lengths\[0\] is 0"),
    ],
)
def test_refused(target, target_ptr, message):
    with pytest.raises(DataError, match=message):
        SequencePairStore(torch.zeros(3, 1), torch.tensor([0, 1, 3]), target, target_ptr)
