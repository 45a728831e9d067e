from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphseq.core import DataError
from graphseq.data import (
    check_fractions,
    chronological_split,
    group_split,
    k_fold_split,
    ordered_split,
    pooled_split,
    random_split,
    size_split,
)
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


@st.composite
def fractions_of_hundred(draw):
    """Three fractions in hundredths, zeros among them, the first above zero."""
    train = draw(st.integers(1, 100))
    val = draw(st.one_of(st.just(0), st.just(100 - train), st.integers(0, 100 - train)))
    return [train / 100, val / 100, (100 - train - val) / 100]


def assert_sizes(split, total, fractions, strict=True):
    """Sizes sum to the total, differ by less than one from the exact ones, and are 0 only where the fraction is."""
    assert_partition(split, total)
    for part, fraction in zip(split.values(), fractions, strict=True):
        exact = Fraction(round(100 * fraction), 100) * total
        assert abs(len(part) - exact) < 1 or (not strict and abs(len(part) - exact) == 1)
        assert (len(part) == 0) == (fraction == 0)


RULES = {
    "ordered": lambda n, fractions, seed: ordered_split(torch.arange(n), fractions),
    "random": lambda n, fractions, seed: random_split(n, fractions, seed),
    "stratified": lambda n, fractions, seed: random_split(n, fractions, seed, torch.arange(n) % 2),
    "size": lambda n, fractions, seed: size_split(torch.arange(n) % 7, fractions, seed),
    "size_middle": lambda n, fractions, seed: size_split(torch.arange(n) % 7, fractions, seed, shifted_val=True),
    "count": lambda n, fractions, seed: chronological_split(torch.arange(n), fractions[1], fractions[2], "count"),
}


@pytest.mark.parametrize("rule", RULES)
@given(st.integers(3, 400), fractions_of_hundred(), st.integers(0, 3))
@settings(deadline=None, max_examples=40)
def test_sizes_follow_the_fractions(rule, total, fractions, seed):
    try:
        split = RULES[rule](total, fractions, seed)
    except DataError as error:
        empty = any(0 < fraction * total < 1 for fraction in fractions)
        few = rule == "stratified" and any(0 < fraction * total < 3 for fraction in fractions)
        assert empty or few, error  # noqa: PT017 - a split is refused only where a part would be empty, or below its classes
        return
    if rule == "count" and fractions[0] * total <= 0.5:
        return  # one event trains in any case
    assert_sizes(split, total, fractions, strict=rule != "count")  # there boundaries are rounded, not sizes


@given(st.integers(3, 400), fractions_of_hundred())
@settings(deadline=None, max_examples=60)
def test_groups_of_one_fill_whole_fractions(total, fractions):
    """Groups of one sample fill train and validation up to their fractions; no sample is lost to the last bit."""
    total = total // 100 * 100 or 100
    split = group_split(range(total), fractions)
    assert_partition(split, total)
    assert [len(part) for part in split.values()] == [round(fraction * total) for fraction in fractions]


@given(st.lists(st.integers(0, 9), min_size=20, max_size=60), st.sampled_from([[0.7, 0.3, 0.0], [0.7, 0.0, 0.3]]))
@settings(deadline=None, max_examples=80)
def test_groups_leave_a_fraction_of_zero_empty(groups, fractions):
    try:
        split = group_split(groups, fractions)
    except DataError:
        return
    assert_partition(split, len(groups))
    assert all((len(part) == 0) == (fraction == 0) for part, fraction in zip(split.values(), fractions, strict=True))


@given(st.integers(2, 12), st.integers(1, 12), st.integers(0, 40), st.integers(0, 3))
@settings(deadline=None, max_examples=50)
def test_k_fold_works_for_every_size(num_folds, num_classes, extra, seed):
    """Whatever the number of samples and classes is, as long as each class has a member for each fold."""
    total = num_folds * num_classes + extra
    labels = torch.arange(total) % num_classes
    tested = []
    for fold in range(num_folds):
        if total - len(range(fold, total, num_folds)) < 2:
            return  # two samples in two folds
        split = k_fold_split(labels, num_folds, fold, seed)
        assert_partition(split, total)
        rest = total - len(split["test"])
        assert len(split["val"]) == max(1, rest - round(Fraction(9, 10) * rest))
        assert len(split["train"]) > 0
        tested.append(split["test"])
        none = k_fold_split(labels, num_folds, fold, seed, val_fraction=0)
        assert (len(none["val"]), len(none["train"])) == (0, rest)
    assert sorted(torch.cat(tested).tolist()) == list(range(total))


@given(st.integers(2, 200), st.sampled_from([0.0, 0.1, 0.25, 0.5]), st.integers(0, 3))
@settings(deadline=None, max_examples=60)
def test_pooled_split_loses_nothing(total, fraction, seed):
    parts = {
        "train": torch.arange(total - 1),
        "val": torch.arange(total - 1, total),
        "test": torch.arange(total, total + 5),
    }
    split = pooled_split(parts, seed, fraction)
    assert_partition(split, total + 5)
    assert len(split["val"]) == (max(1, round(fraction * total)) if fraction else 0)


def test_small_folds_validate_in_proportion():
    labels = torch.tensor([0] * 12 + [1] * 4 + [2] * 4)
    split = k_fold_split(labels, 4, 0, seed=0, val_fraction=0.13)  # two samples for three classes
    assert len(split["val"]) == 2
    assert 0 in labels[split["val"]].tolist()
    again = k_fold_split(labels, 4, 0, seed=0, val_fraction=0.13)
    assert torch.equal(split["val"], again["val"])


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
        (lambda: ordered_split(torch.arange(3), [0.9, 0.05, 0.05]), DataError, "3 samples .* val "),
        (lambda: k_fold_split(torch.tensor([0, 1] * 9), 10, 0, 0), DataError, "9 samples, .* 10 folds"),
        (lambda: k_fold_split(torch.tensor([0, 1] * 9), 5, 5, 0), ValueError, "fold is 5 of 5"),
        (lambda: k_fold_split(torch.tensor([0, 1] * 9), 5, 0, 0, val_fraction=1.0), ValueError, "val_fraction is 1.0"),
        (
            lambda: k_fold_split(torch.tensor([0, 1] * 9), 5, 0, 0, val_fraction=-0.1),
            ValueError,
            "val_fraction is -0.1",
        ),
        (lambda: k_fold_split(torch.tensor([0, 0]), 2, 0, 0), DataError, "fold 0 of 2 .* val_fraction"),
        (lambda: random_split(9, [0.6, 0.2, 0.2], 0, torch.zeros(8)), ValueError, "labels .* 8 .* 9"),
        (lambda: chronological_split(torch.arange(9), 0.6, 0.5, "count"), ValueError, "val_fraction 0.6"),
        (lambda: random_split(5, [0.6, 0.2, 0.2], 0, torch.tensor([0, 0, 0, 0, 1])), DataError, "stratified"),
        (lambda: listed_split({"train": [0, 1], "val": [1], "test": []}, 2), DataError, "disjoint"),
    ],
)
def test_bad_input(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("fractions", [0.8, {"train": 0.8, "val": 0.1, "test": 0.1}, None])
def test_fractions_that_are_no_three_numbers(fractions):
    with pytest.raises(ValueError, match="give three numbers"):
        check_fractions(fractions)
