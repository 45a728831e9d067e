"""Paired intervals against scipy's own test and against simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from graphseq.bench.effects.statistics import paired_interval

values = st.floats(-1e3, 1e3).map(lambda value: round(value, 3))


@given(st.lists(st.tuples(values, values), min_size=2, max_size=10), st.sampled_from([0.8, 0.95, 0.99]))
def test_interval_is_that_of_the_paired_t_test(pairs, confidence):
    a, b = map(list, zip(*pairs, strict=True))
    result = paired_interval(a, b, confidence)
    count = len(a)
    mean = sum(x - y for x, y in pairs) / count
    spread = math.sqrt(sum((x - y - mean) ** 2 for x, y in pairs) / (count - 1))
    half = stats.t.ppf((1 + confidence) / 2, count - 1) * spread / math.sqrt(count)
    assert result.count == count
    assert result.mean == pytest.approx(mean, abs=1e-9)
    assert result.low == pytest.approx(mean - half, abs=1e-6)
    assert result.high == pytest.approx(mean + half, abs=1e-6)


def test_interval_agrees_with_scipy():
    a, b = [0.91, 0.88, 0.93, 0.90], [0.85, 0.86, 0.84, 0.89]
    expected = stats.ttest_rel(a, b).confidence_interval(0.95)
    result = paired_interval(a, b)
    assert (result.low, result.high) == pytest.approx((expected.low, expected.high))
    assert result.above(0.0) == (stats.ttest_rel(a, b).pvalue < 0.05)


def test_order_of_the_pair_only_changes_the_sign():
    a, b = [3.0, 1.0, 2.0], [1.0, 1.5, 0.5]
    forward, backward = paired_interval(a, b), paired_interval(b, a)
    assert (forward.mean, forward.low, forward.high) == pytest.approx((-backward.mean, -backward.high, -backward.low))


def test_one_pair_knows_nothing_of_the_spread():
    result = paired_interval([1.0], [0.0])
    assert (result.mean, result.low, result.high) == (1.0, -math.inf, math.inf)
    assert not result.above(0.0)


def test_equal_differences_have_no_width():
    result = paired_interval([2.0, 3.0, 4.0], [1.0, 2.0, 3.0])
    assert (result.mean, result.low, result.high) == (1.0, 1.0, 1.0)


def test_coverage_is_what_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        a, b = rng.normal(0.5, 1, 5), rng.normal(0, 1, 5)
        result = paired_interval(a, b)
        covered += result.low <= 0.5 <= result.high
    assert 0.92 < covered / 400 < 0.98


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="2 and 1 values"):
        paired_interval([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="0 and 0 values"):
        paired_interval([], [])
    with pytest.raises(ValueError, match=r"pairs \[1\]"):
        paired_interval([1.0, math.nan], [1.0, 2.0])
    with pytest.raises(ValueError, match="confidence is 95"):
        paired_interval([1.0], [1.0], confidence=95)
