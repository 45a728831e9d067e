import itertools
import re

import pytest
import torch

from graphseq.core import DataError
from graphseq.data import (
    LabelledStrings,
    ReberDataModule,
    SyntheticReberDataModule,
    is_reber_string,
    pair_rule_accuracy,
    reber_strings,
)

ARCS = {0: {"T": 1, "P": 2}, 1: {"S": 1, "X": 3}, 2: {"T": 2, "V": 4}, 3: {"X": 2, "S": 5}, 4: {"P": 3, "V": 5}, 5: {}}


def draw(number=600, seed=0, **options):
    return reber_strings(number, generator=torch.Generator().manual_seed(seed), **options)


def accepted(string):
    """The automaton of the grammar, written a second time."""
    state = 0
    for letter in string[1:-1]:
        state = ARCS.get(state, {}).get(letter)
        if state is None:
            return False
    return string[0] == "B" and string[-1] == "E" and state == 5


def test_automaton_on_all_short_strings():
    for size in range(7):
        for inner in itertools.product("PSTVX", repeat=size):
            string = f"B{''.join(inner)}E"
            assert is_reber_string(string) == accepted(string), string
    for string, expected in {"": False, "B": False, "BE": False, "TTXSE": False, "BTXSB": False}.items():
        assert is_reber_string(string) == expected
    for string, expected in {"BTBTXSETE": True, "BPBTXSETE": False, "BSBTXSESE": False, "BTXSE": False}.items():
        assert is_reber_string(string, embedded=True) == expected


@pytest.mark.parametrize("embedded", [False, True])
@pytest.mark.parametrize("hard_fraction", [0.0, 0.3, 1.0])
def test_strings_are_different_of_allowed_length_and_rightly_labelled(embedded, hard_fraction):
    strings, valid = draw(embedded=embedded, hard_fraction=hard_fraction, min_length=11, max_length=40)
    assert len(set(strings)) == len(strings) == 600
    assert sum(valid) == 300
    assert {len(string) for string in strings} <= set(range(11, 41))
    assert [is_reber_string(string, embedded) for string in strings] == [bool(label) for label in valid]
    invalid = [string for string, label in zip(strings, valid, strict=True) if not label]
    inside = [string for string in invalid if re.fullmatch("B[BEPSTVX]*E", string)]
    if hard_fraction == 1:
        assert inside == invalid
    elif hard_fraction == 0:
        assert 0.3 < len(inside) / len(invalid) < 0.6, "44 % exchange letters of the alphabet"
    assert (strings, valid) == draw(embedded=embedded, hard_fraction=hard_fraction, max_length=40)
    assert strings != draw(seed=1, embedded=embedded, hard_fraction=hard_fraction, max_length=40)[0]


def test_hard_strings_are_one_letter_away():
    strings, valid = draw(hard_fraction=1.0)
    for string in [string for string, label in zip(strings, valid, strict=True) if not label][:40]:
        near = [string[:k] + string[k + 1] + string[k] + string[k + 2 :] for k in range(1, len(string) - 2)]
        for k in range(1, len(string) - 1):
            near += [string[:k] + letter + string[k + 1 :] for letter in "PSTVX"]
        for k in range(1, len(string)):
            near += [string[:k] + letter + string[k:] for letter in "PSTVX"]
        assert any(map(accepted, near)), string
    strings, valid = draw(hard_fraction=1.0, embedded=True)
    for string, label in zip(strings, valid, strict=True):
        other = f"{string[:-2]}{string[1]}E"
        assert is_reber_string(other, embedded=True)
        assert (other == string) == bool(label)


def test_rule_of_pairs():
    assert pair_rule_accuracy(["ABA", "XY"], [1, 0], ["AB", "BA", "XY", "AA"], [1, 0, 0, 1]) == 0.5
    data = SyntheticReberDataModule(800, hard_fraction=1.0, embedded=True)
    assert data.pair_accuracy == 0.5
    easier = SyntheticReberDataModule(800, hard_fraction=0.0)
    assert easier.pair_accuracy > 0.9
    with pytest.raises(ValueError, match="test has 1 strings and 2"):
        pair_rule_accuracy([], [], ["A"], [1, 0])

    class Three(LabelledStrings):
        def read_strings(self):
            return [letter * n for letter in "abc" for n in range(1, 11)], [
                letter for letter in "abc" for _ in range(10)
            ]

    with pytest.raises(DataError, match="3 classes"):
        _ = Three().pair_accuracy


def test_module_draws_by_its_seed_and_checkpoints_hold_the_vocabulary():
    data = SyntheticReberDataModule(400, seed=3, batch_size=16)
    assert (data.num_outputs, data.class_names) == (2, ["0", "1"])
    assert data.split_sizes() == {"train": 280, "val": 20, "test": 100}
    batch = next(data.batches("test"))
    strings = [
        "".join(data.vocabulary.decode(row[:size].tolist())) for row, size in zip(batch.x, batch.lengths, strict=True)
    ]
    assert [int(is_reber_string(string)) for string in strings] == batch.y.tolist()
    again = SyntheticReberDataModule(400, seed=3)
    assert again.fingerprint() == data.fingerprint()
    other = SyntheticReberDataModule(400, seed=4)
    assert other.fingerprint() != data.fingerprint()
    with pytest.warns(UserWarning, match="'train': 280"):
        other.load_state_dict(data.state_dict())


def test_published_strings_obey_the_automaton(mirror):
    strings, labels = ReberDataModule().read_strings()
    assert [is_reber_string(string) for string in strings] == [label == "1" for label in labels]
    assert ReberDataModule().pair_accuracy == pytest.approx(0.937, abs=0.005)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_strings": 5}, "num_strings is 5"),
        ({"hard_fraction": 1.1}, "hard_fraction is 1.1"),
        ({"min_length": 4}, "min_length is 4"),
        ({"min_length": 8, "embedded": True}, "min_length is 8"),
        ({"max_length": 14}, "max_length is 14"),
    ],
)
def test_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SyntheticReberDataModule(**options)


def test_too_few_strings_of_a_length():
    with pytest.raises(ValueError, match="max_length leaves too few strings"):
        draw(3000, min_length=5, max_length=10)
