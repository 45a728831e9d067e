import pytest
import torch

from graphseq.data import AddingDataModule, CopyMemoryDataModule, adding_problem, copy_memory


def drawn(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("length", [2, 7, 20])
def test_sums_of_the_two_marked_numbers(length):
    x, y = adding_problem(400, length, drawn())
    firsts, seconds = set(), set()
    for row, total in zip(x.tolist(), y[:, 0].tolist(), strict=True):
        marked = [step for step, (_, mark) in enumerate(row) if mark == 1]
        assert [mark for _, mark in row].count(0) == length - 2
        first, second = marked
        assert first < length // 2 <= second
        assert row[first][0] + row[second][0] == pytest.approx(total)
        firsts.add(first)
        seconds.add(second)
    assert firsts == set(range(length // 2))
    assert seconds == set(range(length // 2, length))
    assert float((y - 1).square().mean()) == pytest.approx(1 / 6, abs=0.03)


@pytest.mark.parametrize(("delay", "symbols", "length"), [(0, 2, 1), (5, 4, 3), (12, 8, 10)])
def test_symbols_are_asked_for_after_the_delay(delay, symbols, length):
    x, y = copy_memory(50, delay, symbols, length, drawn())
    for tokens, targets in zip(x.tolist(), y.tolist(), strict=True):
        given = tokens[:length]
        assert all(1 <= token <= symbols for token in given)
        assert tokens[length:] == [0] * delay + [symbols + 1] + [0] * (length - 1)
        assert targets == [-100] * (length + delay) + [token - 1 for token in given]
    assert set(y.flatten().tolist()) == {-100, *range(symbols)}


def test_modules_split_what_the_seed_draws():
    adding = AddingDataModule(50, 9, fractions=(0.6, 0.2, 0.2), batch_size=10, seed=4)
    x, y = adding_problem(50, 9, drawn(4))
    assert adding.store.lengths.tolist() == [9] * 50
    test = next(adding.batches("test"))
    assert torch.equal(test.x, x[40:])
    assert torch.equal(test.y, y[40:])
    assert (adding.num_features, adding.num_outputs) == (2, 1)
    copy = CopyMemoryDataModule(50, 4, num_symbols=3, length=2, fractions=(0.6, 0.2, 0.2), batch_size=10, seed=4)
    tokens, targets = copy_memory(50, 4, 3, 2, drawn(4))
    test = next(copy.batches("test"))
    assert torch.equal(test.x, tokens[40:])
    assert torch.equal(test.step_y, targets[40:])
    assert (copy.vocab_size, copy.num_outputs) == (5, 3)
    assert not torch.equal(AddingDataModule(50, 9, seed=5).store.x, adding.store.x)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AddingDataModule(0), "num_sequences is 0"),
        (lambda: AddingDataModule(length=1), "length is 1"),
        (lambda: CopyMemoryDataModule(delay=-1), "delay is -1"),
        (lambda: CopyMemoryDataModule(num_symbols=1), "num_symbols is 1"),
        (lambda: CopyMemoryDataModule(length=0), "length is 0"),
        (lambda: adding_problem(1, 1), "length is 1"),
        (lambda: copy_memory(0, 1), "num_sequences is 0"),
    ],
)
def test_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
