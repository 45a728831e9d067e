"""The weight of a penalty that grows in stages."""

import itertools
import math

import pytest

from graphseq.sparsity import progressive_weight

STAGES = [(0.0, 100), (0.05, 150), (0.5, 450), (0.5, 600), (2.0, 1000), (2.0, 1100)]


def closed_form(step):
    if step < 100:
        return 0.0
    if step < 150:
        return 0.05
    for before, begin, after, end in ((0.05, 150, 0.5, 450), (0.5, 450, 0.5, 600), (0.5, 600, 2.0, 1000)):
        if step < end:
            return before + (after - before) * math.sin(math.pi / 2 * (step - begin) / (end - begin)) ** 2
    return 2.0


def test_equals_the_closed_form_and_never_falls():
    weights = [progressive_weight(step, STAGES) for step in range(1300)]
    assert weights == pytest.approx([closed_form(step) for step in range(1300)], abs=1e-12)
    assert all(after >= before for before, after in itertools.pairwise(weights))
    assert set(weights[450:600]) == {0.5}
    assert set(weights[1000:]) == {2.0}
    # flat at both ends of a ramp: a step there is far below the mean one of 1.5 / 400
    assert weights[601] - weights[600] < 1e-4
    assert weights[1000] - weights[999] < 1e-4
    assert weights[801] - weights[800] > 1.5 / 400


def test_few_stages_and_a_falling_weight():
    assert [progressive_weight(step, [(0.3, 10)]) for step in (0, 9, 10, 99)] == [0.3] * 4
    assert [progressive_weight(step, [(0.0, 0), (0.3, 10)]) for step in (0, 10)] == [0.3, 0.3]
    assert progressive_weight(15, [(0.0, 5), (1.0, 10), (0.5, 20)]) == pytest.approx(0.75)


def test_negative_step():
    with pytest.raises(ValueError, match="step is -1"):
        progressive_weight(-1, STAGES)
