"""Parallelism, generalisation and decodability of squares, simplices and random conditions, against loops."""

import copy
import math

import pytest
import torch

from graphseq.metrics import (
    CrossConditionGeneralization,
    DichotomyDecodability,
    ParallelismScore,
    balanced_dichotomies,
    cross_condition_generalization,
    dichotomy_decodability,
    parallelism_score,
)
from tests.metrics.replicas import gathered
from tests.reference import geometry as reference

SQUARE = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
SIDE, OTHER, DIAGONAL = [1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 0, 1]


def drawn(conditions, features, seed=0):
    return torch.randn(conditions, features, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_square_and_simplex():
    square = 3 * SQUARE.double() @ torch.linalg.qr(drawn(5, 2)).Q.T + 1
    assert float(parallelism_score(square, SIDE)) == pytest.approx(1)
    assert float(parallelism_score(square, DIAGONAL)) == pytest.approx(-1)
    assert float(parallelism_score(torch.eye(4), SIDE)) == pytest.approx(0, abs=1e-12)
    assert float(cross_condition_generalization(square, SIDE, OTHER)) == 1
    assert float(cross_condition_generalization(square, SIDE)) == 0.75  # a diagonal pair says nothing of the other
    assert float(cross_condition_generalization(square, DIAGONAL)) == 0
    assert float(cross_condition_generalization(square, DIAGONAL, SIDE)) == 0
    assert float(cross_condition_generalization(torch.eye(4), SIDE)) == 0.5
    assert float(dichotomy_decodability(square, torch.arange(4))) == pytest.approx(2.5 / 3)
    assert float(dichotomy_decodability(torch.eye(4), torch.arange(4))) == 1


@pytest.mark.parametrize("conditions", [4, 6, 8])
def test_scores_equal_loops(conditions):
    z = drawn(conditions, 3, seed=conditions)
    sides = torch.tensor([1, 0] * (conditions // 2))
    assert float(parallelism_score(z, sides)) == pytest.approx(reference.parallelism(z.numpy(), sides.tolist()))
    for count in {1, conditions // 2 - 1}:
        expected = reference.generalization(z.numpy(), sides.tolist(), count, 1e-3)
        found = cross_condition_generalization(z, sides, num_train=count, most_splits=10_000)
        assert float(found) == pytest.approx(expected)
    expected = reference.decodability(z.numpy(), 1e-3)
    assert float(dichotomy_decodability(z, torch.arange(conditions))) == pytest.approx(expected)


def test_assignment_takes_the_place_of_too_many_pairings():
    cube = torch.tensor([[float(k >> bit & 1) for bit in range(5)] for k in range(32)])
    sides = cube[:, 0].long()
    assert float(parallelism_score(cube + 0.01 * drawn(32, 5).float(), sides)) > 0.99
    few = drawn(6, 3)
    best = parallelism_score(few, [*SIDE, 1, 0])
    assert parallelism_score(few, [*SIDE, 1, 0], most_pairings=1) <= best + 1e-12
    assert float(cross_condition_generalization(cube, sides, most_splits=20)) == 1


def test_random_conditions_generalise_by_chance():
    found = [
        float(cross_condition_generalization(drawn(4, 100, seed), SIDE, groups))
        for seed in range(60)
        for groups in (None, OTHER)
    ]
    assert sum(found) / len(found) == pytest.approx(0.5, abs=0.06)


def test_decodability_of_samples_that_were_not_fitted():
    generator = torch.Generator().manual_seed(0)
    condition = torch.arange(80) % 4 + 7
    x = 3 * torch.eye(4)[condition - 7] + torch.randn(80, 4, generator=generator)
    other = 3 * torch.eye(4)[condition - 7] + torch.randn(80, 4, generator=generator)
    assert 0.8 < dichotomy_decodability(x, condition, other, condition) < 1
    noise = torch.randn(80, 4, generator=generator)
    assert 0.35 < dichotomy_decodability(noise, condition, other, condition) < 0.65


def test_dichotomies_are_different_halves():
    found = balanced_dichotomies(6)
    assert found.shape == (10, 6)
    assert len({tuple(row) for row in found.tolist()}) == 10
    assert (found[:, 0] == 1).all()
    many = balanced_dichotomies(32, 50)
    assert many.shape == (50, 32)
    for sides in (found, many):
        assert (sides.sum(1) == 0).all()
        assert set(sides.unique().tolist()) == {-1.0, 1.0}


@pytest.mark.parametrize(
    ("metric", "function"),
    [
        (lambda: ParallelismScore(3, SIDE), lambda z: parallelism_score(z, SIDE)),
        (
            lambda: CrossConditionGeneralization(3, SIDE, OTHER),
            lambda z: cross_condition_generalization(z, SIDE, OTHER),
        ),
        (lambda: DichotomyDecodability(3, 4), lambda z: dichotomy_decodability(z, torch.arange(4))),
    ],
)
def test_metrics_take_means_over_batches_and_processes(metric, function):
    x, condition = drawn(31, 3, seed=4), torch.arange(31) % 4
    mine, other = metric(), metric()
    for number, rows in enumerate(torch.arange(31).split(5)):
        (mine if number % 2 else other).update(x[rows], condition[rows])
    expected = function(torch.stack([x[condition == c].mean(0) for c in range(4)]))
    torch.testing.assert_close(gathered(copy.deepcopy(mine), other), expected)
    constant = metric()
    constant.update(torch.full((4, 3), 0.1), torch.arange(4))
    assert math.isnan(constant.compute())


def test_bad_input():
    z = drawn(4, 3)
    for score in (parallelism_score, cross_condition_generalization):
        with pytest.raises(ValueError, match="3 rows; .* 4"):
            score(z[:3], [1, 0, 0])
        with pytest.raises(ValueError, match=r"labels \[1\]"):
            score(z, [1, 1, 1, 1])
        with pytest.raises(ValueError, match="1 conditions of the label 1 and 3 of 0"):
            score(z, [1, 0, 0, 0])
        with pytest.raises(ValueError, match=r"\(3,\) for 4 conditions"):
            score(z, [1, 0, 0])
        with pytest.raises(ValueError, match="means holds NaN"):
            score(torch.where(z == z[0, 0], math.nan, z), SIDE)
        assert math.isnan(score(torch.ones(4, 2), SIDE))
    with pytest.raises(ValueError, match=r"num_train is 2; .* 1\.\.1"):
        cross_condition_generalization(z, SIDE, num_train=2)
    with pytest.raises(ValueError, match=r"groups are \[0, 0, 1, 1\]"):
        cross_condition_generalization(z, SIDE, [0, 0, 1, 1])
    with pytest.raises(ValueError, match="penalty is -1"):
        cross_condition_generalization(z, SIDE, penalty=-1)
    with pytest.raises(ValueError, match="condition has 1 different"):
        dichotomy_decodability(z, torch.zeros(4, dtype=torch.int64))
    with pytest.raises(ValueError, match="test_condition has numbers"):
        dichotomy_decodability(z, torch.arange(4), z, torch.arange(1, 5))
    with pytest.raises(ValueError, match="num_conditions is 5"):
        DichotomyDecodability(3, 5)
    with pytest.raises(ValueError, match="ParallelismScore needs at least 4"):
        ParallelismScore(3, [0, 1])
    with pytest.raises(ValueError, match="num_conditions is 3"):
        balanced_dichotomies(3)


def test_without_a_penalty_it_is_the_limit_of_small_ones():
    means, side = torch.randn(6, 8), [0, 1, 0, 1, 0, 1]
    scores = [cross_condition_generalization(means, side, penalty=penalty) for penalty in (0.0, 1e-9)]
    torch.testing.assert_close(*scores)
    assert float(dichotomy_decodability(means, list(range(6)), penalty=0.0)) == 1


def test_conditions_that_coincide_up_to_rounding_have_no_direction():
    z = torch.tensor([[0.3, 1.0], [5.0, 1.0], [0.3, 1.0], [6.0, 1.0]], dtype=torch.float64)
    for place in (0.3, 0.1 + 0.2, 0.1 + 0.1 + 0.1):  # 0.3 and 0.30000000000000004
        z[2, 0] = place
        assert float(parallelism_score(z, [1, 1, 0, 0])) == 0


def test_nothing_is_generalised_from_conditions_that_coincide_up_to_rounding():
    """Of pairs (0 or 1, 2 or 3) the first tells nothing: fitted to it alone, both others lie on the boundary."""
    z = torch.tensor([[0.3, 0.0], [-1.0, 0.0], [0.3, 0.0], [2.0, 0.0]], dtype=torch.float64)
    exact = float(cross_condition_generalization(z, [1, 1, 0, 0]))
    for place in (0.1 + 0.2, 0.3 - 6e-17):
        z[2, 0] = place
        assert float(cross_condition_generalization(z, [1, 1, 0, 0])) == exact
