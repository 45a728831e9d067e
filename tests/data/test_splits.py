import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphseq.core import DataError
from graphseq.data import group_split, k_fold_split, ordered_split, random_split, size_split
from graphseq.data.graphs.module import listed_split


def assert_partition(split, total):
    together = torch.cat([split["train"], split["val"], split["test"]])
    assert sorted(together.tolist()) == list(range(total))


@given(st.integers(10, 200), st.integers(0, 5))
@settings(deadline=None, max_examples=30)
def test_random_split_partitions_and_repeats(total, seed):
    split = random_split(total, [0.6, 0.2, 0.2], seed)
    assert_partition(split, total)
    assert torch.equal(split["test"], random_split(total, [0.6, 0.2, 0.2], seed)["test"])
    assert abs(len(split["train"]) - 0.6 * total) <= 1


def test_stratified_split_keeps_the_share_of_classes():
    labels = torch.tensor([0] * 80 + [1] * 20)
    split = random_split(100, [0.8, 0.1, 0.1], 0, labels)
    assert_partition(split, 100)
    assert {name: int(labels[part].sum()) for name, part in split.items()} == {"train": 16, "val": 2, "test": 2}


def test_k_fold_tests_every_sample_once():
    labels = torch.randint(0, 3, (97,))
    folds = [k_fold_split(labels, 5, fold, seed=1) for fold in range(5)]
    for fold in folds:
        assert_partition(fold, 97)
    assert sorted(torch.cat([fold["test"] for fold in folds]).tolist()) == list(range(97))
    published = k_fold_split(labels, 5, 2, seed=1, val_is_test=True)
    assert torch.equal(published["val"], published["test"])
    assert torch.equal(published["test"], folds[2]["test"])
    assert len(published["train"]) + len(published["test"]) == 97


def test_size_split_tests_the_largest():
    sizes = torch.randint(1, 50, (60,))
    split = size_split(sizes, [0.5, 0.2, 0.3], seed=0)
    assert_partition(split, 60)
    assert sizes[torch.cat([split["train"], split["val"]])].max() <= sizes[split["test"]].min()


@given(st.lists(st.integers(0, 8), min_size=10, max_size=60))
@settings(deadline=None, max_examples=40)
def test_group_split_keeps_groups_whole(groups):
    try:
        split = group_split(groups, [0.6, 0.2, 0.2])
    except DataError as error:
        assert "empty" in str(error)  # noqa: PT017 - few groups may leave a split empty, and the message says so
        return
    assert_partition(split, len(groups))
    parts = [{groups[i] for i in part.tolist()} for part in split.values()]
    assert sum(len(part) for part in parts) == len(set(groups))
    assert len(split["train"]) <= 0.6 * len(groups) + 1e-9


@given(st.lists(st.integers(0, 12), min_size=12, max_size=60))
@settings(deadline=None, max_examples=40)
def test_group_split_is_the_scaffold_split_of_the_field(groups):
    """The loop that DeepChem, OGB and Hu et al. share: sets sorted by (size, first member), from the top."""
    sets = [[i for i, group in enumerate(groups) if group == chosen] for chosen in set(groups)]
    expected = {"train": [], "val": [], "test": []}
    for members in sorted(sets, key=lambda members: (len(members), members[0]), reverse=True):
        if len(expected["train"]) + len(members) <= 0.5 * len(groups):
            part = "train"
        elif len(expected["train"]) + len(expected["val"]) + len(members) <= 0.75 * len(groups):
            part = "val"
        else:
            part = "test"
        expected[part] += members
    if not all(expected.values()):
        return
    split = group_split(groups, [0.5, 0.25, 0.25])
    assert {name: part.tolist() for name, part in split.items()} == {k: sorted(v) for k, v in expected.items()}


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: random_split(10, [0.5, 0.2, 0.2], 0), ValueError, "sum to 1"),
        (lambda: random_split(10, [0.5, 0.5], 0), ValueError, "three numbers"),
        (lambda: random_split(10, [1.2, -0.1, -0.1], 0), ValueError, "three numbers in"),
        (lambda: random_split(10, [0.0, 0.5, 0.5], 0), ValueError, "training fraction"),
        (lambda: ordered_split(torch.arange(3), [0.9, 0.05, 0.05]), DataError, "leave the val split empty"),
        (lambda: k_fold_split(torch.tensor([0, 1] * 9), 10, 0, 0), DataError, "too few for 10 folds"),
        (lambda: k_fold_split(torch.tensor([0, 1] * 9), 5, 5, 0), ValueError, "fold is 5 of 5"),
        (lambda: random_split(5, [0.6, 0.2, 0.2], 0, torch.tensor([0, 0, 0, 0, 1])), DataError, "stratified"),
        (lambda: listed_split({"train": [0, 1], "val": [1], "test": []}), DataError, "disjoint"),
    ],
)
def test_bad_input(make, error, message):
    with pytest.raises(error, match=message):
        make()
