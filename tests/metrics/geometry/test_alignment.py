"""Alignment from kernels, from features, batch by batch and over processes: one number, by definition."""

import copy
import math

import numpy as np
import pytest
import torch

from graphseq.metrics import (
    FeatureAlignment,
    PartialFeatureAlignment,
    ParticipationRatio,
    centered_kernel,
    feature_alignment,
    kernel_alignment,
    kernel_participation_ratio,
    partial_feature_alignment,
    partial_kernel_alignment,
    participation_ratio,
)
from tests.metrics.replicas import gathered
from tests.reference import geometry as reference


def drawn(n, *widths, seed=0):
    """Features that depend on each other, with means far from 0."""
    generator = torch.Generator().manual_seed(seed)
    common = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    return [
        common @ torch.randn(2, width, generator=generator, dtype=torch.float64)
        + torch.randn(n, width, generator=generator, dtype=torch.float64) + 1
        for width in widths
    ]  # fmt: skip


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize(("n", "widths"), [(9, (3, 2)), (5, (4, 30))])  # more samples than features, and fewer
def test_kernels_features_and_batches_equal_the_definition(n, widths, unbiased):
    x, y = drawn(n, *widths)
    k, m = (x @ x.T).numpy(), (y @ y.T).numpy()
    expected = (reference.unbiased_alignment if unbiased else reference.alignment)(k, m)
    assert float(kernel_alignment(x @ x.T, y @ y.T, unbiased=unbiased)) == pytest.approx(expected, abs=1e-12)
    assert float(feature_alignment(x, y, unbiased=unbiased)) == pytest.approx(expected, abs=1e-12)
    metric = FeatureAlignment(*widths, unbiased=unbiased)
    for rows in torch.arange(n).split(2):
        metric.update(x[rows], y[rows])
    assert float(metric.compute()) == pytest.approx(expected, abs=1e-12)
    np.testing.assert_allclose(centered_kernel(x @ x.T).numpy(), reference.centred(k), atol=1e-12)


def test_gradients_are_those_of_the_definition():
    x, y = drawn(6, 3, 2)
    x.requires_grad_()
    assert torch.autograd.gradcheck(feature_alignment, (x, y))
    (one,) = torch.autograd.grad(feature_alignment(x, y), x)
    (other,) = torch.autograd.grad(kernel_alignment(x @ x.T, y @ y.T), x)
    torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-9)


def test_invariances():
    x, y = drawn(12, 4, 3)
    rotation = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64)).Q
    value = feature_alignment(x, y)
    torch.testing.assert_close(feature_alignment(x, 7 * x @ rotation - 5), torch.tensor(1.0).double())
    torch.testing.assert_close(feature_alignment(0.1 * x @ rotation + 2, y), value)
    stretched = x * torch.tensor([10.0, 1.0, 1.0, 0.1]).double()
    assert abs(float(feature_alignment(stretched, y) - value)) > 0.01


def test_features_far_from_zero_lose_no_digits():
    x, y = drawn(40, 3, 2)
    metric = FeatureAlignment(3, 2, unbiased=True)
    for rows in torch.arange(40).split(7):
        metric.update(x[rows] + 1e6, y[rows] - 1e6)
    torch.testing.assert_close(metric.compute(), feature_alignment(x, y, unbiased=True), atol=1e-9, rtol=0)


def test_partial_alignment_and_participation_ratio_equal_the_definition():
    x, y, w = drawn(8, 3, 2, 4)
    kernels = [part @ part.T for part in (x, y, w)]
    r = [reference.alignment(kernels[a].numpy(), kernels[b].numpy()) for a, b in ((0, 1), (0, 2), (1, 2))]
    expected = reference.partial(*r)
    assert float(partial_kernel_alignment(*kernels)) == pytest.approx(expected, abs=1e-12)
    assert float(partial_feature_alignment(x, y, w)) == pytest.approx(expected, abs=1e-12)
    metric, ratio = PartialFeatureAlignment(3, 2, 4), ParticipationRatio(3)
    for rows in torch.arange(8).split(3):
        metric.update(x[rows], y[rows], w[rows])
        ratio.update(x[rows])
    assert float(metric.compute()) == pytest.approx(expected, abs=1e-12)
    expected = reference.participation(x.numpy())
    for value in (ratio.compute(), participation_ratio(x), participation_ratio(x @ torch.eye(3, 20).double())):
        assert float(value) == pytest.approx(expected, rel=1e-10)
    assert float(kernel_participation_ratio(kernels[0])) == pytest.approx(expected, rel=1e-10)


def test_participation_ratio_of_a_simplex_and_of_a_line():
    assert float(participation_ratio(torch.eye(5))) == pytest.approx(4)
    line = torch.tensor([[1.0, 2.0], [2.0, 4.0], [5.0, 10.0]])
    assert float(participation_ratio(line)) == pytest.approx(1)


@pytest.mark.parametrize("conditions", [None, 5])
@pytest.mark.parametrize("unbiased", [False, True])
def test_processes_equal_one(conditions, unbiased):
    x, y = drawn(23, 3, 2)
    condition = None if conditions is None else torch.arange(23) % 5
    mine, other, idle = (FeatureAlignment(3, 2, conditions, unbiased=unbiased) for _ in range(3))
    for number, rows in enumerate(torch.arange(23).split(4)):
        (mine if number % 3 else other).update(x[rows], y[rows], None if condition is None else condition[rows])
    if condition is None:
        expected = feature_alignment(x, y, unbiased=unbiased)
    else:
        means = [torch.stack([part[condition == c].mean(0) for c in range(5)]) for part in (x, y)]
        expected = feature_alignment(*means, unbiased=unbiased)
    torch.testing.assert_close(gathered(copy.deepcopy(mine), other), expected)
    if condition is None:
        torch.testing.assert_close(gathered(copy.deepcopy(mine), idle), mine.compute())
    restored = FeatureAlignment(3, 2, conditions, unbiased=unbiased)
    restored.persistent(True)
    mine.persistent(True)
    restored.load_state_dict(mine.state_dict())
    restored._update_count = 1
    assert restored.compute() == mine.compute()


def test_without_variance_the_value_is_the_one_asked_for():
    x, constant = drawn(6, 3)[0], torch.full((6, 2), 1e3)
    metric = FeatureAlignment(2, 3, undefined=0.0)
    for rows in torch.arange(6).split(2):
        metric.update(constant[rows], x[rows])
    assert metric.compute() == 0
    for unbiased in (False, True):
        assert math.isnan(feature_alignment(constant, x, unbiased=unbiased))
        assert feature_alignment(x, constant, unbiased=unbiased, undefined=0.0) == 0
        assert math.isnan(kernel_alignment(constant @ constant.T, x @ x.T, unbiased=unbiased))
    assert math.isnan(partial_feature_alignment(x, drawn(6, 2, seed=1)[0], x))  # nothing is left
    assert math.isnan(participation_ratio(constant))
    assert kernel_participation_ratio(constant @ constant.T, undefined=0.0) == 0
    one = torch.tensor([[1.0, 5.0], [2.0, 5.0], [4.0, 5.0]])  # one constant column of two
    assert float(feature_alignment(one, one[:, :1])) == pytest.approx(1)


def test_bad_input():
    x, broken = torch.randn(6, 3), torch.randn(6, 3)
    broken[4, 1] = math.nan
    with pytest.raises(ValueError, match=r"other holds NaN .* 1 of 6 rows.* row 4"):
        feature_alignment(x, broken)
    with pytest.raises(ValueError, match=r"kernel is \(6, 3\)"):
        kernel_alignment(x, x)
    with pytest.raises(ValueError, match="not symmetric"):
        kernel_alignment(torch.randn(4, 4), torch.eye(4))
    with pytest.raises(ValueError, match="3 rows; .* 4"):
        kernel_alignment(torch.eye(3), torch.eye(3), unbiased=True)
    with pytest.raises(ValueError, match="'features': 6, 'other': 5"):
        feature_alignment(x, x[:5])
    metric = FeatureAlignment(3, 3)
    with pytest.raises(ValueError, match=r"\(6, 2\)"):
        metric.update(x[:, :2], x)
    with pytest.raises(ValueError, match="num_conditions"):
        metric.update(x, x, torch.zeros(6, dtype=torch.int64))
    metric.update(broken, x)
    with pytest.raises(ValueError, match="FeatureAlignment was given NaN"):
        metric.compute()
    metric = FeatureAlignment(3, 3, 4)
    with pytest.raises(ValueError, match=r"condition is missing"):
        metric.update(x, x)
    with pytest.raises(ValueError, match=r"from 0 to 5; it must be in 0\.\.3"):
        metric.update(x, x, torch.arange(6))
    metric.update(x[:3], x[:3], torch.arange(3))
    with pytest.raises(ValueError, match=r"conditions \[3\] have no row"):
        metric.compute()
    with pytest.raises(ValueError, match="num_conditions is 1"):
        ParticipationRatio(3, 1)
    with pytest.raises(ValueError, match=r"\[0\]"):
        ParticipationRatio(0)


@pytest.mark.parametrize("conditions", [None, 4])
def test_collected_parts_are_merged(conditions):
    x, y, numbers = torch.randn(12, 3), torch.randn(12, 2), torch.arange(12) % 4
    one, other, whole = (FeatureAlignment(3, 2, conditions, unbiased=True) for _ in range(3))
    for metric, rows in ((one, slice(5)), (other, slice(5, 12)), (whole, slice(12))):
        metric.update(x[rows], y[rows], None if conditions is None else numbers[rows])
    one.merge_state(other)
    torch.testing.assert_close(one.compute(), whole.compute())
    one.reset()
    one.merge_state({name: getattr(whole, name) for name in whole._defaults})
    torch.testing.assert_close(one.compute(), whole.compute())
    with pytest.raises(ValueError, match="are not those of"):
        one.merge_state(FeatureAlignment(4, 2, conditions))
    with pytest.raises(ValueError, match="complex"):
        FeatureAlignment(3, 2).update(x + 1j, y)


def test_kernels_of_integers():
    adjacency = torch.tensor([[0, 1, 1], [1, 0, 0], [1, 0, 0]])
    assert torch.equal(centered_kernel(adjacency), centered_kernel(adjacency.double()))
