"""Infinite networks as classifiers: the three regimes, and Hilbert's estimate."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from sklearn.base import clone
from sklearn.exceptions import DataConversionWarning, NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

from graphseq.analysis import HilbertEstimate, InfiniteNetworkClassifier
from graphseq.analysis.infinite import classifiers
from graphseq.nn import HermiteActivation, optimal_activation


def classes(count, width, seed, number=2):
    """Inputs in the first orthant of the sphere, of classes that overlap."""
    draw = np.random.default_rng(seed)
    y = draw.integers(number, size=count)
    x = np.abs(draw.normal(size=(count, width)) + np.eye(number, width)[y])
    return x / np.linalg.norm(x, axis=1, keepdims=True), y


TRAIN, TEST = classes(200, 5, 0), classes(300, 5, 1)


def agreement(first, second):
    return float(np.mean(first.fit(*TRAIN).predict(TEST[0]) == second.fit(*TRAIN).predict(TEST[0])))


def test_hilbert_estimate_by_loops():
    x, y = classes(30, 3, 2, number=3)
    estimate = HilbertEstimate(2.0).fit(x, y)
    for new in classes(10, 3, 3, number=3)[0]:
        score = [0.0] * 3
        for one, label in zip(x, y, strict=True):
            score[label] += np.linalg.norm(new - one) ** -2.0
        assert estimate.predict([new]) == [int(np.argmax(score))]
        assert estimate.decision_function([new])[0] / max(estimate.decision_function([new])[0]) == pytest.approx(
            np.array(score) / max(score)
        )
    assert (estimate.predict(x) == y).all()  # a training input has its class


def test_coefficients_solve_the_kernel():
    x, y = classes(12, 3, 0, number=3)
    found = InfiniteNetworkClassifier(nn.ReLU(), depth=2, kernel="ntk").fit(x, y)
    new = classes(4, 3, 5)[0]
    kernel = found._kernel(torch.from_numpy(x), None).values()
    between = found._kernel(torch.from_numpy(new), torch.from_numpy(x)).values()
    expected = between @ torch.linalg.solve(kernel, nn.functional.one_hot(torch.from_numpy(y)).double())
    scores = torch.from_numpy(found.decision_function(new))
    factor = scores[:, :1] / expected[:, :1]
    assert (factor > 0).all()
    assert torch.allclose(scores, factor * expected, rtol=1e-9)


def test_without_a_linear_part_it_is_the_nearest_neighbour():
    deep = InfiniteNetworkClassifier(HermiteActivation([0, 0, 1]), depth=12)
    assert agreement(deep, KNeighborsClassifier(1)) >= 0.99


def test_with_the_exponent_of_the_dimension_it_is_the_hilbert_estimate():
    assert agreement(InfiniteNetworkClassifier(optimal_activation(4), depth=100), HilbertEstimate(4.0)) >= 0.98


def test_rectifiers_take_the_majority():
    x, _ = classes(10, 4, 0)
    y = np.array([0] * 6 + [1] * 4)
    deep = InfiniteNetworkClassifier(nn.ReLU(), depth=600, kernel="ntk").fit(x, y)
    assert str(deep.regime_) == "majority vote"
    assert (deep.predict(classes(40, 4, 1)[0]) == 0).all()


def test_blocks_change_nothing(monkeypatch):
    deep = InfiniteNetworkClassifier(optimal_activation(4)).fit(*TRAIN)
    whole = deep.decision_function(TEST[0])
    monkeypatch.setattr(classifiers, "BLOCK_ENTRIES", 70 * len(TRAIN[0]))
    assert deep.decision_function(TEST[0]) == pytest.approx(whole)


def test_classes_have_names_and_it_is_cloned():
    x, y = classes(60, 4, 0, number=3)
    names = np.array(["cat", "dog", "owl"])[y]
    deep = clone(InfiniteNetworkClassifier(optimal_activation(3), depth=30)).fit(x, names)
    assert deep.predict(x).tolist() == names.tolist()
    assert deep.decision_function(x).shape == (60, 3)
    assert deep.score(x, names) == 1.0


def test_bad_input():
    x, y = classes(6, 3, 0)
    deep = InfiniteNetworkClassifier(optimal_activation(2))
    with pytest.raises(ValueError, match=r"rows 1 and 4 of X are the same input up to its norm, with 1 such pairs"):
        deep.fit(np.concatenate([x[:4], 2 * x[1:2]]), [0, 1, 0, 1, 1])
    with pytest.raises(ValueError, match="row 2 of X is 0"):
        deep.fit(np.concatenate([x[:2], np.zeros((1, 3))]), [0, 1, 0])
    with pytest.raises(ValueError, match="row 0 of X has a value that is not finite"):
        deep.fit([[np.nan, 1.0], [1.0, 0.0]], [0, 1])
    with pytest.raises(ValueError, match="all 6 inputs are of class 1"):
        deep.fit(x, [1] * 6)
    with pytest.raises(ValueError, match=r"y is of shape \(5,\) for 6 inputs"):
        deep.fit(x, y[:5])
    with pytest.raises(ValueError, match="X has 2 features, but InfiniteNetworkClassifier is expecting 3"):
        deep.fit(x, [0, 1, 0, 1, 0, 1]).predict(x[:, :2])
    with pytest.raises(ValueError, match="kernel is 'rbf'"):
        InfiniteNetworkClassifier(nn.ReLU(), kernel="rbf").fit(x, [0, 1, 0, 1, 0, 1])
    with pytest.raises(ValueError, match="exponent is 0"):
        HilbertEstimate(0.0).fit(x, [0, 1, 0, 1, 0, 1])
    with pytest.raises(ValueError, match="singular to double precision"):
        InfiniteNetworkClassifier(nn.Sigmoid(), depth=200).fit(x, [0, 1, 0, 1, 0, 1])


def test_used_as_scikit_learn_uses_estimators():
    x, y = classes(12, 3, 0)
    deep = InfiniteNetworkClassifier(optimal_activation(2), depth=3)
    with pytest.raises(NotFittedError):
        deep.predict(x)
    grid = GridSearchCV(deep, {"depth": [2, 5], "kernel": ["nngp", "ntk"]}, cv=2, error_score="raise").fit(x, y)
    assert set(grid.best_params_) == {"depth", "kernel"}
    fitted = deep.fit(torch.tensor(x, requires_grad=True), y).predict(x)
    with pytest.warns(DataConversionWarning):
        assert (deep.fit(x, y[:, None]).predict(x) == fitted).all()
    for given, target, error, said in [
        (csr_matrix(x), y, TypeError, "sparse"),
        (x + 1j, y, ValueError, "Complex data not supported"),
        (x[:, 0], y, ValueError, "Reshape your data"),
        (x, x[:, 0], ValueError, "Unknown label type"),
        (x, None, ValueError, "requires y"),
    ]:
        with pytest.raises(error, match=said):
            deep.fit(given, target)
    for activation, error, said in [
        ("relu", TypeError, "activation is 'relu'"),
        (nn.Softmax(0), ValueError, "each entry by itself"),
        (nn.Dropout(), ValueError, "random"),
    ]:
        with pytest.raises(error, match=said):
            InfiniteNetworkClassifier(activation).fit(x, y)
