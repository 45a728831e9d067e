"""Alternating measurements, their ratios, and the limits of the machine."""

import gc
import statistics
import time
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphseq.bench.speeds.timing import Ratio, alternate, copy_bandwidth, interleave, peak_memory, ratios


@settings(max_examples=10)
@given(count=st.integers(1, 4), rounds=st.integers(1, 5), warmup=st.integers(0, 2))
def test_order_rotates_and_every_round_has_each_once(count, rounds, warmup):
    calls = []
    names = [chr(ord("A") + index) for index in range(count)]
    times = alternate({name: lambda name=name: calls.append(name) for name in names}, rounds, warmup)
    assert calls[: warmup * count] == names * warmup
    timed = calls[warmup * count :]
    for turn in range(rounds):
        expected = [names[(turn + place) % count] for place in range(count)]
        assert timed[turn * count : (turn + 1) * count] == expected
    assert all(len(times[name]) == rounds and min(times[name]) >= 0 for name in names)


def test_two_contenders_take_turns_in_going_first():
    calls = []
    alternate({"ours": lambda: calls.append("A"), "peer": lambda: calls.append("B")}, rounds=3, warmup=0)
    assert "".join(calls) == "ABBAAB"


def test_seconds_are_those_of_the_call():
    times = alternate({"nap": lambda: time.sleep(0.02), "nothing": lambda: None}, rounds=3)
    assert 0.02 <= statistics.median(times["nap"]) < 0.2
    assert statistics.median(times["nothing"]) < 0.01


def test_collector_is_off_inside_and_as_before_afterwards():
    seen = []
    assert gc.isenabled()
    alternate({"call": lambda: seen.append(gc.isenabled())}, rounds=2, warmup=0)
    assert seen == [False, False]
    assert gc.isenabled()

    def fail():
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        alternate({"call": fail}, rounds=1, warmup=0)
    assert gc.isenabled()


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="no contenders"):
        alternate({}, 3)
    with pytest.raises(ValueError, match="rounds is 0"):
        alternate({"a": lambda: None}, 0)
    with pytest.raises(ValueError, match="warmup -1"):
        alternate({"a": lambda: None}, 1, warmup=-1)
    with pytest.raises(ValueError, match="other .*; a "):
        ratios({"a": [1.0]}, "a", "other")
    with pytest.raises(ValueError, match="come in pairs"):
        ratios({"a": [1.0], "b": [1.0, 2.0]}, "a", "b")
    with pytest.raises(ValueError, match="nbytes is 0"):
        copy_bandwidth(0)


seconds = st.floats(1e-6, 1e3)


@given(st.lists(st.tuples(seconds, seconds), min_size=1, max_size=9))
def test_ratios_are_pairwise(pairs):
    times = {"ours": [ours for ours, _ in pairs], "peer": [peer for _, peer in pairs]}
    quotients = sorted(peer / ours for ours, peer in pairs)
    middle = len(quotients) // 2
    median = quotients[middle] if len(quotients) % 2 else (quotients[middle - 1] + quotients[middle]) / 2
    assert ratios(times, "ours", "peer") == Ratio(pytest.approx(median), quotients[0], quotients[-1])


def test_bandwidth_is_that_of_a_copy():
    size = 1 << 26
    source, target = torch.ones(size, dtype=torch.uint8), torch.zeros(size, dtype=torch.uint8)
    best = float("inf")
    for _ in range(9):
        start = time.perf_counter()
        target.copy_(source)
        best = min(best, time.perf_counter() - start)
    # read and written; the machine is shared, so only the order of magnitude is sure
    assert 0.1 < copy_bandwidth(size) / (2 * size / best / 1e9) < 2


def test_bandwidth_of_small_copies_is_not_lost_in_the_clock():
    assert copy_bandwidth(1 << 14, rounds=3) > 1.0


@pytest.mark.parametrize("megabytes", [32, 128])
def test_peak_memory_sees_what_was_freed_again(megabytes):
    def call():
        block = torch.ones(megabytes << 18)  # four bytes each
        del block

    call()
    assert peak_memory(call) == pytest.approx(megabytes << 20, rel=0.1)


def test_peak_memory_of_one_call_forgets_the_one_before():
    peak_memory(lambda: torch.ones(64 << 18))
    assert peak_memory(lambda: None) < 1 << 20


class TestInterleave:
    def test_epochs_are_whole_and_take_turns_in_a_rotating_order(self):
        steps, starts = [], Counter()

        def epoch(name, length):
            def start():
                starts[name] += 1
                for step in range(length):
                    steps.append((name, step))
                    yield

            return start

        times = interleave({"A": epoch("A", 5), "B": epoch("B", 4), "C": epoch("C", 2)}, rounds=3, steps_a_turn=2)
        assert starts == {"A": 4, "B": 4, "C": 4}  # one of them to warm up
        assert "".join(name for name, _ in steps[:8]) == "AAABBBCC"
        timed, length = steps[8:], 5 + 4 + 2
        for turn, order in enumerate(["AABBCCAABBA", "BBCCAABBAAA", "CCAABBAABBA"]):
            round_steps = timed[turn * length : (turn + 1) * length]
            assert "".join(name for name, _ in round_steps) == order
            for name, count in (("A", 5), ("B", 4), ("C", 2)):
                assert [step for who, step in round_steps if who == name] == list(range(count))
        assert all(len(seconds) == 3 and min(seconds) > 0 for seconds in times.values())

    def test_seconds_of_others_are_left_out(self):
        def slow():
            for _ in range(4):
                time.sleep(0.01)
                yield

        times = interleave({"slow": slow, "fast": lambda: iter([None] * 4)}, 1, 1)
        assert times["slow"][0] >= 0.04
        assert times["fast"][0] < 0.01
