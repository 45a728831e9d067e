"""Decorrelation against plain loops, known optima and limits."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphseq.ops import (
    cluster_variables,
    correlation_dissimilarity,
    decorrelation_loss,
    effective_sample_size,
    random_fourier_features,
    weighted_cross_covariance,
)
from tests.reference import decorrelation as reference

ESTIMATORS = ("weighted", "product")


def _draw(seed, samples=7, variables=4, each=3):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(samples, variables, each, dtype=torch.float64, generator=generator)
    weight = torch.rand(samples, dtype=torch.float64, generator=generator) + 0.1
    return features, weight


@pytest.mark.parametrize("estimator", ESTIMATORS)
@given(seed=st.integers(0, 10**6), samples=st.integers(2, 8), variables=st.integers(1, 4), each=st.integers(1, 3))
@settings(max_examples=15, deadline=None)
def test_covariance_equals_the_loops(estimator, seed, samples, variables, each):
    features, weight = _draw(seed, samples, variables, each)
    loops = reference.cross_covariance(features.tolist(), weight.tolist(), estimator)
    expected = torch.tensor(loops, dtype=torch.float64)
    torch.testing.assert_close(weighted_cross_covariance(features, weight, estimator), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("cluster", [[0, 0, 1, 2], [0, 1, 2, 3], [0, 0, 0, 0], [1, 0, 1, 0]])
def test_loss_equals_the_loops(estimator, cluster, monkeypatch):
    features, weight = _draw(3)
    total, mean = reference.loss(features.tolist(), weight.tolist(), cluster, estimator)
    for chunk in (1, 40, 2**24):  # blocks of one variable, of one or two, and all at once
        monkeypatch.setattr("graphseq.ops.losses.decorrelation._CHUNK_ELEMENTS", chunk)
        for reduction, expected in (("sum", total), ("mean", mean)):
            loss = decorrelation_loss(features, weight, torch.tensor(cluster), estimator=estimator, reduction=reduction)
            assert float(loss) == pytest.approx(expected, rel=1e-10, abs=1e-14)


def test_loss_has_the_right_gradient():
    features, weight = _draw(4, samples=5, variables=3, each=2)
    cluster = torch.tensor([0, 1, 1])
    for estimator in ESTIMATORS:
        assert torch.autograd.gradcheck(
            lambda u, w, kind=estimator: decorrelation_loss(u, w, cluster, estimator=kind),
            (features.requires_grad_(), weight.requires_grad_()),
        )


def test_equal_weights_give_the_covariance_of_numpy():
    features, _ = _draw(5, samples=50, variables=2, each=2)
    covariance = weighted_cross_covariance(features, torch.full((50,), 3.0, dtype=torch.float64))
    expected = np.cov(features.flatten(1).numpy().T, bias=True).reshape(2, 2, 2, 2).transpose(0, 2, 1, 3)
    np.testing.assert_allclose(covariance.numpy(), expected, rtol=1e-12)


def test_scale_of_the_weights():
    features, weight = _draw(6)
    for estimator, factor in (("weighted", 1.0), ("product", 9.0)):
        one, three = (weighted_cross_covariance(features, scale * weight, estimator) for scale in (1, 3))
        torch.testing.assert_close(three, factor * one)


def test_one_cluster_is_exactly_nothing_and_all_clusters_are_all_pairs():
    features, weight = _draw(7)
    weight.requires_grad_()
    loss = decorrelation_loss(features, weight, torch.zeros(4, dtype=torch.int64))
    loss.backward()
    assert float(loss.detach()) == 0
    assert not weight.grad.any()
    everything = decorrelation_loss(features, weight)
    assert torch.equal(everything, decorrelation_loss(features, weight, torch.tensor([3, 1, 0, 2])))
    assert float(everything) > 0


def _selection(samples=4000, same=0.85):
    """Two binary variables that agree more often than not, and the weights that make them independent."""
    agree = torch.arange(samples) < same * samples
    a = torch.arange(samples) % 2
    b = torch.where(agree, a, 1 - a)
    ideal = torch.where(agree, 0.25 / (same / 2), 0.25 / ((1 - same) / 2)).double()
    return torch.stack([a, b], dim=1)[:, :, None].double(), ideal


def test_ideal_weights_are_a_zero_of_the_weighted_estimator_alone():
    features, ideal = _selection()
    assert weighted_cross_covariance(features, ideal)[0, 1].abs() < 1e-6
    # the printed form does not vanish at independence: why it is not the default
    assert weighted_cross_covariance(features, ideal, "product")[0, 1].abs() > 0.05


def test_learning_the_weights_finds_the_ideal_ones():
    features, ideal = _selection()
    logits = torch.zeros(len(features), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.05)
    for _ in range(300):
        weight = len(logits) * logits.softmax(0)
        loss = decorrelation_loss(features, weight)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    weight = (len(logits) * logits.softmax(0)).detach()
    agree = features[:, 0, 0] == features[:, 1, 0]
    assert float(effective_sample_size(ideal)) == pytest.approx(0.518, abs=0.01)
    assert float(effective_sample_size(weight)) == pytest.approx(float(effective_sample_size(ideal)), abs=0.02)
    assert float(weight[~agree].mean() / weight[agree].mean()) == pytest.approx(0.85 / 0.15, rel=0.03)


def test_features_see_dependence_without_correlation():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2000, generator=generator)
    y = x.square() + 0.1 * torch.randn(2000, generator=generator)
    other = y[torch.randperm(2000, generator=generator)]
    weight = torch.ones(2000)
    losses = {}
    for name, second in (("dependent", y), ("independent", other)):
        z = torch.stack([x, second], dim=1)
        draws = (random_fourier_features(z, 5, generator=generator) for _ in range(10))
        losses[name] = sum(float(decorrelation_loss(features, weight)) for features in draws)
        assert abs(float(torch.corrcoef(z.T)[0, 1])) < 0.1
    assert losses["dependent"] > 5 * losses["independent"]


def test_products_of_features_average_to_a_gaussian_kernel():
    points = torch.tensor([-1.5, -0.3, 0.0, 0.8, 2.0])[:, None]
    features = random_fourier_features(
        points, 4000, standardize=False, generator=torch.Generator().manual_seed(1)
    ).squeeze(1)
    kernel = features @ features.T / 4000
    expected = torch.exp(-(points - points.T).square() / 2)
    assert float((kernel - expected).abs().max()) < 0.05


def test_what_is_no_number_is_no_constant_and_reaches_the_result():
    z = torch.randn(30, 3, generator=torch.Generator().manual_seed(2))
    z[4, 1] = torch.nan
    features = random_fourier_features(z)
    assert features.isnan().flatten(0, 0).any(0).any(1).tolist() == [False, True, False]
    assert decorrelation_loss(features, torch.ones(30)).isnan()
    dissimilarity = correlation_dissimilarity(z, torch.arange(30) % 3)
    assert dissimilarity[1, [0, 2]].isnan().all()
    assert dissimilarity[0, 2].isfinite()
    with pytest.raises(ValueError, match="finite"):
        cluster_variables(dissimilarity, 2)


def test_constant_columns_count_for_nothing():
    z = torch.cat([torch.randn(30, 2), torch.full((30, 1), 7.0)], dim=1)
    covariance = weighted_cross_covariance(random_fourier_features(z), torch.rand(30) + 0.1)
    assert torch.isfinite(covariance).all()
    assert covariance[2, :2].abs().max() < 1e-6


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_constant_columns_are_left_out_under_both_estimators(estimator):
    """Weights times a constant vary: the product form would take that for dependence."""
    z = torch.cat([torch.randn(30, 1), torch.full((30, 2), 7.0)], dim=1)
    features = random_fourier_features(z, generator=torch.Generator().manual_seed(0))
    covariance = weighted_cross_covariance(features, torch.rand(30) + 0.1, estimator)
    assert not covariance[1:].any()
    assert not covariance[:, 1:].any()
    assert covariance[0, 0].any()


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_blocks_that_are_computed_again_have_the_same_gradient(estimator, monkeypatch):
    features, weight = _draw(8, samples=9, variables=5, each=2)
    cluster, gradients = torch.tensor([0, 1, 1, 2, 0]), []
    for chunk in (1, 50, 2**24):
        monkeypatch.setattr("graphseq.ops.losses.decorrelation._CHUNK_ELEMENTS", chunk)
        inputs = features.clone().requires_grad_(), weight.clone().requires_grad_()
        gradients.append(
            torch.autograd.grad(decorrelation_loss(inputs[0], inputs[1], cluster, estimator=estimator), inputs)
        )
    for other in gradients[:2]:
        for found, expected in zip(other, gradients[2], strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


def test_effective_sample_size():
    assert float(effective_sample_size(torch.ones(7))) == pytest.approx(1.0)
    assert float(effective_sample_size(torch.tensor([0.0, 0.0, 3.0, 0.0]))) == pytest.approx(0.25)


@given(seed=st.integers(0, 10**6), variables=st.integers(1, 4), groups=st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_dissimilarity_equals_the_loops(seed, variables, groups):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(20, variables, dtype=torch.float64, generator=generator)
    group = torch.randint(0, groups, (20,), generator=generator)
    z[:, 0] = torch.where(group == 0, 2.0, z[:, 0])  # constant in one group
    found = correlation_dissimilarity(z, group, min_count=4)
    expected = reference.dissimilarity(z.tolist(), group.tolist(), 4)
    known = [value for i, row in enumerate(expected) for j, value in enumerate(row) if i != j and value is not None]
    typical = sum(known) / len(known) if known else 0.0
    for i in range(variables):
        for j in range(variables):
            value = typical if expected[i][j] is None else expected[i][j]
            assert float(found[i, j]) == pytest.approx(0.0 if i == j else value, abs=1e-9)
    assert torch.equal(found, found.T)


def test_graphs_of_one_node_and_constant_columns_leave_no_gap():
    """Nodes as rows and graphs as groups: a third of the graphs have one node, one column never varies."""
    sizes = torch.tensor([1, 8, 6] * 5)
    z = torch.randn(int(sizes.sum()), 4, generator=torch.Generator().manual_seed(0))
    z[:, 2] = 5.0
    graph = torch.arange(15).repeat_interleave(sizes)
    found = correlation_dissimilarity(z, graph)
    several = (sizes > 1).repeat_interleave(sizes)
    assert torch.isfinite(found).all()
    assert torch.equal(found, correlation_dissimilarity(z[several], graph[several]))
    assert len(cluster_variables(found, 3).unique()) == 3
    alone = correlation_dissimilarity(z[~several], graph[~several])
    assert not alone.any()  # nothing is known of any pair


@pytest.mark.parametrize("seed", range(20))
def test_blocks_with_stable_correlation_are_found(seed):
    generator = torch.Generator().manual_seed(seed)
    blocks = []
    for label in range(10):  # the sign between the two blocks flips from group to group
        common = torch.randn(60, 1, generator=generator)
        sign = 1 if label % 2 else -1
        left = common + 0.5 * torch.randn(60, 5, generator=generator)
        right = sign * common + 0.5 * torch.randn(60, 5, generator=generator)
        blocks.append(torch.cat([left, right], dim=1))
    order = torch.randperm(10, generator=generator)
    z = torch.cat(blocks)[:, order]
    clusters = cluster_variables(correlation_dissimilarity(z, torch.arange(600) // 60), 2)
    first = (order < 5).long()
    assert torch.equal(clusters, (first != first[0]).long())


@pytest.mark.parametrize("seed", range(5))
def test_clusters_are_close_to_the_best(seed):
    generator = torch.Generator().manual_seed(seed)
    place = torch.cat([torch.randn(3, 2, generator=generator), 4 + torch.randn(4, 2, generator=generator)])
    dissimilarities = torch.cdist(place, place)
    clusters = cluster_variables(dissimilarities, 2).tolist()
    table = dissimilarities.tolist()
    assert reference.within(table, clusters) <= 1.05 * reference.best_clusters(table, 2)


def test_numbers_of_clusters():
    dissimilarities = torch.cdist(torch.randn(6, 2), torch.randn(6, 2))
    dissimilarities = (dissimilarities + dissimilarities.T).fill_diagonal_(0)
    assert cluster_variables(dissimilarities, 6).tolist() == list(range(6))
    assert cluster_variables(dissimilarities, 1).tolist() == [0] * 6
    assert len(cluster_variables(dissimilarities, 3).unique()) == 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: random_fourier_features(torch.zeros(3)), "samples, variables"),
        (lambda: random_fourier_features(torch.zeros(0, 3)), r"z is \(0, 3\)"),
        (lambda: random_fourier_features(torch.zeros(3, 3), 0), "num_features is 0"),
        (lambda: weighted_cross_covariance(torch.zeros(3, 3), torch.ones(3)), "samples, variables, features"),
        (lambda: decorrelation_loss(torch.zeros(3, 2, 1), torch.ones(4)), r"weight is \(4,\)"),
        (lambda: decorrelation_loss(torch.zeros(3, 2, 1), torch.ones(3), torch.zeros(3)), "2 variables"),
        (lambda: weighted_cross_covariance(torch.zeros(3, 2, 1), torch.ones(3), "other"), "estimator is 'other'"),
        (lambda: correlation_dissimilarity(torch.zeros(3, 2), torch.zeros(2)), r"\(M, D\)"),
        (lambda: correlation_dissimilarity(torch.zeros(3, 2), torch.zeros(3), 2), "min_count is 2"),
        (lambda: correlation_dissimilarity(torch.zeros(3, 2), torch.tensor([0, -1, 0])), "group holds -1"),
        (lambda: cluster_variables(torch.zeros(3, 3), 4), "num_clusters is 4"),
        (lambda: cluster_variables(torch.full((2, 2), math.nan), 1), "finite"),
    ],
)
def test_wrong_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
