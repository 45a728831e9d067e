import copy
import pickle
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import mean_absolute_error, root_mean_squared_error

from graphseq.metrics import (
    MaskedMeanAbsoluteError,
    MaskedRootMeanSquaredError,
    masked_mean_absolute_error,
    masked_root_mean_squared_error,
)
from tests.metrics.replicas import gathered
from tests.reference.losses import errors

NAN = float("nan")
KINDS = [
    (masked_mean_absolute_error, MaskedMeanAbsoluteError, mean_absolute_error),
    (masked_root_mean_squared_error, MaskedRootMeanSquaredError, root_mean_squared_error),
]
every_kind = pytest.mark.parametrize(("function", "metric", "reference"), KINDS, ids=["mae", "rmse"])


def samples(count=40, outputs=3, missing=0.3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    prediction, target = torch.randn(2, count, outputs, generator=generator) * 5
    target[torch.rand(count, outputs, generator=generator) < missing] = NAN
    return prediction, target


def expected(reference, prediction, target):
    there = ~target.isnan()
    return reference(target[there].double(), prediction[there].double())


@every_kind
@pytest.mark.parametrize("missing", [0.0, 0.3, 0.95])
def test_equals_sklearn(function, metric, reference, missing):
    prediction, target = samples(missing=missing)
    value = expected(reference, prediction, target)
    assert float(function(prediction, target)) == pytest.approx(value, rel=1e-6)
    assert float(function(prediction.flatten(), target.flatten())) == pytest.approx(value, rel=1e-6)


@every_kind
@pytest.mark.parametrize("sizes", [[40], [1] * 40, [3, 30, 7]])
def test_batches_equal_all_at_once_and_the_functional_twin(function, metric, reference, sizes):
    prediction, target = samples()
    target[:3] = NAN  # the first batch knows nothing
    counted = metric()
    for part, truth in zip(prediction.split(sizes), target.split(sizes), strict=True):
        counted.update(part, truth)
    torch.testing.assert_close(counted.compute(), function(prediction, target))
    counted.reset()
    counted.update(prediction[5:9], target[5:9])
    torch.testing.assert_close(counted.compute(), function(prediction[5:9], target[5:9]))


@every_kind
@pytest.mark.parametrize("cut", [20, 3, 40])
def test_two_processes_equal_one(function, metric, reference, cut):
    prediction, target = samples()
    mine, other = metric(), metric()
    mine.update(prediction[:cut], target[:cut])
    other.update(prediction[cut:], target[cut:])
    whole = function(prediction, target)
    torch.testing.assert_close(gathered(copy.deepcopy(mine), other), whole)
    mine.merge_state(other)
    torch.testing.assert_close(mine.compute(), whole)


@every_kind
def test_arguments_of_torchmetrics_and_copies(function, metric, reference):
    counted = metric(sync_on_compute=False)
    assert counted.sync_on_compute is False
    counted.update(*samples())
    for twin in (copy.deepcopy(counted), pickle.loads(pickle.dumps(counted))):
        assert torch.equal(twin.compute(), counted.compute())


@every_kind
@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric")
def test_nothing_known(function, metric, reference):
    prediction = torch.randn(4, 2)
    assert function(prediction, torch.full((4, 2), NAN)).isnan()
    counted = metric()
    assert counted.compute().isnan()
    counted.update(prediction, torch.full((4, 2), NAN))
    assert counted.compute().isnan()


@every_kind
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_does_not_overflow(function, metric, reference, kind):
    """A thousand errors of 300: neither their sum nor their squares fit into float16."""
    prediction, target = torch.full((1000,), 300, dtype=kind), torch.zeros(1000, dtype=kind)
    assert float(function(prediction, target)) == 300
    counted = metric()
    counted.update(prediction, target)
    assert float(counted.compute()) == 300


@every_kind
def test_prediction_that_is_no_number(function, metric, reference):
    prediction, target = samples()
    prediction[target.isnan()] = NAN  # nobody asks for these
    assert not function(prediction, target).isnan()
    prediction[~target.isnan()] = NAN
    assert function(prediction, target).isnan()


@every_kind
def test_shapes_are_not_broadcast(function, metric, reference):
    for prediction, target in [(torch.zeros(4, 1), torch.zeros(4)), (torch.zeros(4), torch.zeros(4, 1))]:
        shapes = re.escape(f"predictions are {tuple(prediction.shape)}, targets {tuple(target.shape)}")
        with pytest.raises(ValueError, match=shapes):
            function(prediction, target)
        with pytest.raises(ValueError, match=shapes):
            metric().update(prediction, target)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-100, 100), st.floats(-100, 100) | st.just(NAN)), min_size=1, max_size=20),
    st.floats(0.01, 10),
    st.floats(-10, 10),
)
def test_scale_and_shift(pairs, scale, shift):
    prediction, target = torch.tensor(pairs, dtype=torch.float64).T
    if target.isnan().all():
        return
    found = errors([[p] for p, _ in pairs], [[None if y != y else y] for _, y in pairs])
    mean, root = sum(map(abs, found)) / len(found), (sum(value**2 for value in found) / len(found)) ** 0.5
    for function, value in ((masked_mean_absolute_error, mean), (masked_root_mean_squared_error, root)):
        moved = function(prediction * scale + shift, target * scale + shift)
        assert float(moved) == pytest.approx(scale * value, rel=1e-9, abs=1e-9)
        assert float(function(-prediction, -target)) == pytest.approx(value, rel=1e-12)
    assert mean <= root + 1e-12


def test_what_is_no_real_number():
    with pytest.raises(TypeError, match="prediction is torch.complex64"):
        MaskedMeanAbsoluteError().update(torch.ones(2) * 1j, torch.ones(2))
    with pytest.raises(TypeError, match="target is a ndarray"):
        masked_mean_absolute_error(torch.ones(2), torch.ones(2).numpy())
