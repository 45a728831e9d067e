"""The sentence above a figure of ratios speaks of one pair of contenders."""

from graphseq.bench.speeds.figures import ratios_in_words


def test_cases_without_the_second_contender_are_left_out():
    rows = [
        {"ratio": {"ours/loop": {"median": 50.0}, "ours/mask": {"median": 12.0}}},
        {"ratio": {"ours/mask": {"median": 4.0}}},
        {"skipped": "no GPU"},
        {"ratio": {"ours/loop": {"median": 80.0}}},
    ]
    assert ratios_in_words(rows) == "ours is 50 to 80 times as fast as loop in 2 cases"
    assert ratios_in_words(rows[1:2]) == "ours is 4 times as fast as mask"
    assert ratios_in_words(rows[2:3]) == ""
