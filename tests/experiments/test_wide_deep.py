"""effect.wide_deep: its points, the classifier that knows their densities, and a cell of each kind."""

import numpy as np
import pytest
from scipy.stats import dirichlet

from experiments.analysis.wide_deep import (
    ARMS,
    PARAMETERS,
    PRIOR,
    Bayes,
    classifier,
    effect,
    flatter_activation,
    points,
)
from graphseq.analysis import infinite_depth_regime


@pytest.mark.parametrize("dimension", PARAMETERS)
def test_bayes_takes_the_larger_density(dimension):
    x, _ = points(dimension, 40, np.random.default_rng(0))
    assert np.linalg.norm(x, axis=1) == pytest.approx(np.ones(40))
    simplex = x / x.sum(1, keepdims=True)
    first, second = (np.array([dirichlet.pdf(row, alpha) for row in simplex]) for alpha in PARAMETERS[dimension])
    expected = (1 - PRIOR) * second > PRIOR * first
    assert Bayes(*PARAMETERS[dimension]).predict(x).tolist() == expected.astype(int).tolist()


def test_exponents_of_the_controls():
    assert [infinite_depth_regime(flatter_activation(d)).exponent for d in PARAMETERS] == pytest.approx([0.5, 1, 2])


def test_cells():
    assert len(effect.cells("default", 5)) == 5 * 5 * (len(ARMS) + 2)
    rows = {
        arm: effect.run({"arm": arm, "points": "d4 few", "seed": 0}, "quick") for arm in ("Bayes", "optimal", "ReLU")
    }
    assert rows["Bayes"]["as_bayes"] == 1.0
    for arm in rows:
        assert rows[arm]["accuracy"] == pytest.approx(rows["Bayes"]["accuracy"] - rows[arm]["short_of_bayes"])


def test_every_arm_is_a_classifier():
    x, y = points(2, 60, np.random.default_rng(1))
    for arm in (*ARMS, "majority"):
        assert classifier(arm, 2).fit(x, y).predict(x).shape == (60,)
