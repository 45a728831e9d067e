import copy
import math
import pickle
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from graphseq.core import DataError
from graphseq.metrics import MaskedAUROC, MaskedAveragePrecision, masked_auroc, masked_average_precision
from tests.metrics.replicas import gathered

NAN = float("nan")
KINDS = [
    (masked_auroc, MaskedAUROC, roc_auc_score),
    (masked_average_precision, MaskedAveragePrecision, average_precision_score),
]
every_kind = pytest.mark.parametrize(("function", "metric", "reference"), KINDS, ids=["auroc", "ap"])


def samples(count=60, labels=3, missing=0.3, distinct=None, seed=0):
    """Scores and labels; a label is the likelier the higher its score. ``distinct`` scores make ties."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(count, labels, generator=generator)
    if distinct:
        scores = (scores * distinct / 4).round()
    target = (scores + torch.randn(count, labels, generator=generator) > 0.5).float()
    target[torch.rand(count, labels, generator=generator) < missing] = NAN
    return scores, target


def expected(reference, scores, target):
    """The mean over labels that have both classes, label by label."""
    values = []
    for k in range(target.shape[1]):
        rows = [b for b in range(len(target)) if not math.isnan(target[b, k])]
        truth = [int(target[b, k]) for b in rows]
        if 0 < sum(truth) < len(truth):
            values.append(reference(truth, [float(scores[b, k]) for b in rows]))
    return sum(values) / len(values)


@every_kind
@pytest.mark.parametrize("missing", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("distinct", [None, 8, 2])
def test_equals_sklearn(function, metric, reference, missing, distinct):
    scores, target = samples(missing=missing, distinct=distinct)
    assert float(function(scores, target)) == pytest.approx(expected(reference, scores, target), abs=1e-6)


@every_kind
def test_all_scores_equal(function, metric, reference):
    target = torch.tensor([[0.0], [1.0], [1.0], [NAN], [0.0], [0.0]])
    value = float(function(torch.zeros(6, 1), target))
    assert value == pytest.approx(0.5 if reference is roc_auc_score else 2 / 5)


@every_kind
def test_labels_of_one_class_are_left_out(function, metric, reference):
    scores, target = samples(labels=4)
    target[:, 1] = 1
    target[:, 2] = NAN
    assert float(function(scores, target)) == pytest.approx(
        expected(reference, scores[:, [0, 3]], target[:, [0, 3]]), abs=1e-6
    )


@every_kind
@pytest.mark.parametrize("target", [torch.ones(4, 2), torch.zeros(4, 2), torch.full((4, 2), NAN), torch.zeros(0, 2)])
def test_not_defined(function, metric, reference, target):
    scores = torch.randn(len(target), 2)
    with pytest.raises(DataError, match="2 labels .*both classes"):
        function(scores, target)
    counted = metric(2)
    counted.update(scores, target)
    with pytest.warns(UserWarning, match=f"{metric.__name__} is NaN: .*2 labels"):
        assert counted.compute().isnan()


@every_kind
@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric")
def test_no_sample(function, metric, reference):
    counted = metric(2)
    with pytest.warns(UserWarning, match=f"{metric.__name__} is NaN: .*no sample"):
        assert counted.compute().isnan()


@every_kind
@pytest.mark.parametrize("sizes", [[60], [1] * 60, [7, 20, 33]])
def test_batches_equal_all_at_once_and_the_functional_twin(function, metric, reference, sizes):
    scores, target = samples(distinct=16)
    counted = metric(3)
    for part, labels in zip(scores.split(sizes), target.split(sizes), strict=True):
        counted.update(part, labels)
    assert torch.equal(counted.compute(), function(scores, target))


@every_kind
def test_reset(function, metric, reference):
    scores, target = samples()
    counted = metric(3)
    counted.update(-scores, target)
    first = counted.compute()
    counted.reset()
    counted.update(scores, target)
    assert torch.equal(counted.compute(), function(scores, target))
    assert not torch.equal(counted.compute(), first)


@every_kind
@pytest.mark.parametrize("cut", [30, 1, 60])
def test_two_processes_equal_one(function, metric, reference, cut):
    scores, target = samples(distinct=8)
    mine, other = metric(3), metric(3)
    for part in torch.arange(cut).split(8):
        mine.update(scores[part], target[part])
    if cut < 60:
        other.update(scores[cut:], target[cut:])
    whole = function(scores, target)
    assert torch.equal(gathered(copy.deepcopy(mine), other), whole)
    if cut < 60:
        merged = copy.deepcopy(mine)
        merged.merge_state(other)
        assert torch.equal(merged.compute(), whole)


@every_kind
def test_copies(function, metric, reference):
    scores, target = samples()
    counted = metric(3)
    counted.update(scores, target)
    for twin in (copy.deepcopy(counted), pickle.loads(pickle.dumps(counted))):
        assert torch.equal(twin.compute(), counted.compute())


@every_kind
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_kinds_of_scores(function, metric, reference, kind):
    scores, target = samples()
    scores = scores.to(kind)
    counted = metric(3)
    counted.update(scores, target)
    value = counted.compute()
    assert value.dtype == torch.float32
    assert float(value) == pytest.approx(expected(reference, scores.double(), target), abs=1e-6)


@every_kind
def test_scores_that_differ_little_do_not_tie(function, metric, reference):
    scores, target = samples()
    close = 1 + 1e-10 * scores.double()
    assert torch.equal(function(close, target), function(scores, target))


@every_kind
@pytest.mark.parametrize("kind", [torch.int64, torch.bool])
def test_kinds_of_labels(function, metric, reference, kind):
    scores, target = samples(missing=0.0)
    assert torch.equal(function(scores, target.to(kind)), function(scores, target))


@every_kind
def test_nothing_is_kept_of_the_graph(function, metric, reference):
    scores, target = samples()
    counted = metric(3)
    counted.update((scores.requires_grad_() * 2), target)
    assert not counted.predictions[0].requires_grad


@every_kind
def test_score_that_is_no_number(function, metric, reference):
    scores, target = samples()
    row = int((~target[:, 0].isnan()).nonzero()[0])
    missing = int(target[:, 0].isnan().nonzero()[0])
    scores[missing, 0] = NAN  # nobody asks for it
    assert not function(scores, target).isnan()
    scores[row, 0] = NAN
    assert function(scores, target).isnan()
    scores[row, 0] = float("inf")
    other = scores.clone()
    other[row, 0] = 1e9
    assert torch.equal(function(scores, target), function(other, target))


SCORES = st.lists(st.tuples(st.integers(-30, 30), st.sampled_from([0.0, 1.0, NAN])), min_size=2, max_size=30)


@settings(max_examples=60, deadline=None)
@given(SCORES, st.floats(1e-3, 1e3), st.floats(-1e3, 1e3))
def test_only_the_order_of_scores_counts(pairs, scale, shift):
    scores = torch.tensor([[float(score)] for score, _ in pairs], dtype=torch.float64)
    target = torch.tensor([[label] for _, label in pairs])
    known = target[~target.isnan()]
    if known.unique().numel() < 2:
        return
    for function in (masked_auroc, masked_average_precision):
        value = function(scores, target)
        assert 0 <= float(value) <= 1
        for moved in (scores * scale + shift, (scores / 10).exp(), scores**3, torch.sigmoid(scores / 4)):
            assert torch.equal(function(moved, target), value)
    # turned round, a pair in order is one out of order
    assert float(masked_auroc(-scores, target)) == pytest.approx(1 - float(masked_auroc(scores, target)), abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(20)))
def test_the_order_of_samples_does_not_count(order):
    scores, target = samples(20, distinct=6)
    for function in (masked_auroc, masked_average_precision):
        assert torch.equal(function(scores[list(order)], target[list(order)]), function(scores, target))


@every_kind
def test_wrong_input(function, metric, reference):
    scores, target = samples()
    with pytest.raises(ValueError, match=r"\(60, 3\), targets \(60, 2\); .*\(B, K\)"):
        function(scores, target[:, :2])
    with pytest.raises(ValueError, match=r"predictions are \(60,\)"):
        function(scores[:, 0], target[:, 0])
    with pytest.raises(ValueError, match="targets .*0, 1 or NaN"):
        function(scores, target * 2)
    with pytest.raises(ValueError, match=r"\(60, 2\), targets \(60, 2\); .*\(B, 3\)"):
        metric(3).update(scores[:, :2], target[:, :2])
    with pytest.raises(ValueError, match=r"\(60, 3\), targets \(60,\)"):
        metric(3).update(scores, target[:, 0])
    with pytest.raises(ValueError, match="num_labels is 0"):
        metric(0)


@every_kind
def test_no_warning_where_all_is_well(function, metric, reference):
    counted = metric(3)
    counted.update(*samples())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        counted.compute()
