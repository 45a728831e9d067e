import itertools

import pytest
import torch

from graphseq.data import StateTrackingDataModule, group_products


def test_parity_and_sums():
    words = torch.randint(2, (5, 30))
    for row, states in zip(words.tolist(), group_products(words).tolist(), strict=True):
        assert states == [sum(row[: t + 1]) % 2 for t in range(30)]
    words = torch.randint(7, (5, 30))
    for row, states in zip(words.tolist(), group_products(words, degree=7).tolist(), strict=True):
        assert states == [sum(row[: t + 1]) % 7 for t in range(30)]


@pytest.mark.parametrize("degree", [2, 3, 5])
def test_permutations_act_on_things(degree):
    """Things that are permuted step by step stand where the product says."""
    elements = list(itertools.permutations(range(degree)))
    words = torch.randint(len(elements), (4, 25))
    for row, states in zip(words.tolist(), group_products(words, "symmetric", degree).tolist(), strict=True):
        where = list(range(degree))  # place of each thing
        for element, state in zip(row, states, strict=True):
            where = [elements[element][place] for place in where]
            assert tuple(where) == elements[state]


def test_splits_lengths_and_labels():
    data = StateTrackingDataModule(200, "symmetric", 3, min_length=2, max_length=9, test_length=21, batch_size=16)
    assert (data.vocab_size, data.num_outputs) == (6, 6)
    data.setup()
    assert [len(data.splits[name]) for name in ("train", "val", "test")] == [160, 20, 20]
    for loader, low, high in ((data.train_dataloader(), 2, 9), (data.test_dataloader(), 21, 21)):
        for batch in loader:
            assert low <= int(batch.lengths.min()) <= int(batch.lengths.max()) <= high
            for row, size in enumerate(batch.lengths.tolist()):
                states = group_products(batch.x[row : row + 1, :size], "symmetric", 3)[0]
                assert torch.equal(batch.step_y[row, :size], states)
                assert (batch.step_y[row, size:] == -100).all()
                assert int(batch.y[row]) == int(states[-1])


def test_words_come_from_the_seed():
    first, same, other = (next(StateTrackingDataModule(50, seed=seed).batches()) for seed in (3, 3, 4))
    assert torch.equal(first.x, same.x)
    assert first.x.shape != other.x.shape or not torch.equal(first.x, other.x)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_sequences": 9}, "num_sequences is 9"),
        ({"group": "dihedral"}, "group is 'dihedral'"),
        ({"degree": 1}, "degree is 1"),
        ({"group": "symmetric", "degree": 7}, "degree is 7"),
        ({"min_length": 0}, "min_length is 0"),
        ({"min_length": 5, "max_length": 4}, "max_length is 4.*at least 5"),
        ({"test_length": 0}, "test_length is 0"),
        ({"fractions": (0.5, 0.5)}, "fractions"),
    ],
)
def test_refused(options, message):
    with pytest.raises(ValueError, match=message):
        StateTrackingDataModule(**options)


def test_refused_words():
    for words, message in ((torch.tensor([[2]]), "from 2 to 2"), (torch.tensor([0]), r"\(1,\)")):
        with pytest.raises(ValueError, match=message):
            group_products(words)
