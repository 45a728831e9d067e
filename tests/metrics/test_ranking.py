import copy
import math
import pickle
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score
from torchmetrics import MetricCollection
from torchmetrics.classification import BinaryAUROC

from graphseq.metrics import (
    HitsAtK,
    LinkAUROC,
    LinkAveragePrecision,
    MeanReciprocalRank,
    PerBatchAveragePrecision,
    hits_at_k,
    link_auroc,
    link_average_precision,
    link_ranks,
    mean_reciprocal_rank,
)
from tests.metrics.replicas import gathered
from tests.reference import ranking

NAN = float("nan")


def hits_at_3(preds, target):
    return hits_at_k(preds, target, 3)


def hits_metric(**kwargs):
    return HitsAtK(3, **kwargs)


def flat(reference):
    return lambda rows: reference(
        [score for row in rows for score in row], [int(i == 0) for row in rows for i in range(len(row))]
    )


KINDS = [
    (mean_reciprocal_rank, MeanReciprocalRank, ranking.mean_reciprocal_rank),
    (hits_at_3, hits_metric, lambda rows: ranking.hits_at_k(rows, 3)),
    (link_average_precision, LinkAveragePrecision, flat(ranking.average_precision)),
    (link_auroc, LinkAUROC, flat(ranking.auroc)),
]
every_kind = pytest.mark.parametrize(("function", "metric", "reference"), KINDS, ids=["mrr", "hits", "ap", "auroc"])


def samples(events=40, negatives=6, distinct=None, scale=1.0, seed=0):
    """Logits in which events are somewhat above their negatives; `distinct` scores make ties."""
    generator = torch.Generator().manual_seed(seed)
    preds = torch.randn(events, 1 + negatives, generator=generator)
    preds[:, 0] += 1
    if distinct:
        preds = (preds * distinct / 4).round()
    target = torch.zeros_like(preds)
    target[:, 0] = 1
    return preds * scale, target


@every_kind
@pytest.mark.parametrize("distinct", [None, 6, 2])
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_equals_counting(function, metric, reference, distinct, scale):
    preds, target = samples(distinct=distinct, scale=scale)
    assert float(function(preds, target)) == pytest.approx(reference(preds.double().tolist()), abs=1e-6)


def test_equals_sklearn():
    preds, target = samples(distinct=8, scale=50.0)
    truth, scores = target.flatten().numpy(), preds.flatten().numpy()
    assert float(link_average_precision(preds, target)) == pytest.approx(average_precision_score(truth, scores))
    assert float(link_auroc(preds, target)) == pytest.approx(roc_auc_score(truth, scores))


def test_why_torchmetrics_does_not_do():
    """Its sigmoid makes large logits tie, and is taken batch by batch: only where one lies outside [0, 1]."""
    preds, target = torch.tensor([[30.0, 20.0], [25.0, 40.0]]), torch.tensor([[1, 0], [1, 0]])
    theirs, ours = BinaryAUROC(), LinkAUROC()
    theirs.update(preds, target)
    ours.update(preds, target)
    assert float(theirs.compute()) == 0.5
    assert float(ours.compute()) == pytest.approx(0.5)  # 30 > 20, 25 > 20, and two below 40
    preds = torch.tensor([[30.0, 20.0], [40.0, 35.0]])
    theirs.reset(), ours.reset()
    theirs.update(preds, target)
    ours.update(preds, target)
    assert (float(theirs.compute()), float(ours.compute())) == (0.5, 0.75)
    theirs.reset(), ours.reset()
    for row in torch.tensor([[[0.6, 0.1]], [[2.0, 0.55]]]):  # sigmoid(0.55) = 0.63 passes 0.6
        theirs.update(row, target[:1])
        ours.update(row, target[:1])
    assert (float(theirs.compute()), float(ours.compute())) == (0.75, 1.0)


@pytest.mark.parametrize("negatives", [1, 2, 9, 100])
@pytest.mark.parametrize("value", [0.0, -3.0, float("inf")])
def test_constant_scores(negatives, value):
    preds = torch.full((5, 1 + negatives), value)
    assert link_ranks(preds).tolist() == [1 + negatives / 2] * 5


def test_rank_by_hand():
    rows = [[2.0, 1.0, 2.0, 3.0], [1.0, 2.0, 3.0, 4.0], [5.0, 1.0, 1.0, 1.0], [1.0, 1.0, 0.0, 0.0]]
    assert link_ranks(torch.tensor(rows)).tolist() == [2.5, 4.0, 1.0, 1.5]
    target = torch.tensor([[1, 0, 0, 0]] * 4)
    assert float(mean_reciprocal_rank(torch.tensor(rows), target)) == pytest.approx((0.4 + 0.25 + 1 + 2 / 3) / 4)
    assert float(hits_at_k(torch.tensor(rows), target, 1)) == 0.25
    assert float(hits_at_k(torch.tensor(rows), target, 2)) == 0.5


def test_a_score_that_is_no_number_is_the_worst():
    rows = [[NAN, 1.0, 2.0], [1.0, NAN, 0.0], [NAN, NAN, NAN], [1.0, 0.0, 0.0]]
    assert link_ranks(torch.tensor(rows)).tolist() == [3.0, 2.0, 3.0, 1.0]
    assert [ranking.rank(row) for row in rows] == [3.0, 2.0, 3.0, 1.0]
    preds, target = torch.tensor(rows), torch.tensor([[1.0, 0.0, 0.0]] * 4)
    assert link_average_precision(preds, target).isnan()
    assert link_auroc(preds, target).isnan()


@every_kind
@pytest.mark.parametrize("sizes", [[40], [1] * 40, [7, 30, 3]])
def test_batches_equal_all_at_once_and_the_functional_twin(function, metric, reference, sizes):
    preds, target = samples(distinct=16)
    counted = metric()
    for part, truth in zip(preds.split(sizes), target.split(sizes), strict=True):
        counted.update(part, truth)
    torch.testing.assert_close(counted.compute(), function(preds, target))
    counted.reset()
    counted.update(preds[3:9], target[3:9])
    torch.testing.assert_close(counted.compute(), function(preds[3:9], target[3:9]))


@every_kind
@pytest.mark.parametrize("cut", [20, 3])
def test_two_processes_equal_one(function, metric, reference, cut):
    preds, target = samples(distinct=8)
    mine, other = metric(), metric()
    mine.update(preds[:cut], target[:cut])
    other.update(preds[cut:], target[cut:])
    whole = function(preds, target)
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
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("labels", [torch.int64, torch.bool])
def test_kinds_of_scores_and_targets(function, metric, reference, kind, labels):
    preds, target = samples()
    preds = preds.to(kind)
    value = function(preds, target.to(labels))
    assert value.dtype == torch.float32
    assert float(value) == pytest.approx(reference(preds.double().tolist()), abs=1e-6)


def test_one_collection_for_all():
    preds, target = samples(negatives=12)
    collection = MetricCollection(
        {"mrr": MeanReciprocalRank(), "hits": HitsAtK(3), "ap": LinkAveragePrecision(), "auroc": BinaryAUROC()}
    )
    for part, truth in zip(preds.split(7), target.long().split(7), strict=True):
        collection.update(part, truth)
    values = collection.compute()
    torch.testing.assert_close(values["mrr"], mean_reciprocal_rank(preds, target))
    torch.testing.assert_close(values["hits"], hits_at_3(preds, target))
    torch.testing.assert_close(values["ap"], link_average_precision(preds, target))


def test_nothing_is_kept_of_the_graph():
    preds, target = samples()
    for metric in (MeanReciprocalRank(), LinkAveragePrecision(), PerBatchAveragePrecision()):
        metric.update(preds.clone().requires_grad_() * 2, target)
        for state in metric.metric_state.values():
            assert not any(tensor.requires_grad for tensor in (state if isinstance(state, list) else [state]))


def test_average_precision_batch_by_batch():
    preds, target = samples(events=23, negatives=1)
    metric = PerBatchAveragePrecision()
    values = []
    for part, truth in zip(preds.split(10), target.split(10), strict=True):
        metric.update(part, truth)
        values.append(flat(ranking.average_precision)(part.double().tolist()))
    assert float(metric.compute()) == pytest.approx(sum(values) / 3, abs=1e-6)
    assert abs(sum(values) / 3 - float(link_average_precision(preds, target))) > 1e-3
    metric.update(preds[:0], target[:0])
    assert float(metric.compute()) == pytest.approx(sum(values) / 3, abs=1e-6)


def test_pooled_and_per_batch_by_hand():
    """Each batch is in perfect order, but not across batches."""
    target = torch.tensor([[1, 0]])
    pooled, mean = LinkAveragePrecision(), PerBatchAveragePrecision()
    for row in ([[4.0, 3.0]], [[2.0, 1.0]]):
        pooled.update(torch.tensor(row), target)
        mean.update(torch.tensor(row), target)
    assert float(mean.compute()) == 1
    assert float(pooled.compute()) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)


def test_per_batch_over_processes():
    preds, target = samples()
    mine, other, whole = PerBatchAveragePrecision(), PerBatchAveragePrecision(), PerBatchAveragePrecision()
    for number, rows in enumerate(torch.arange(40).split(9)):
        (mine if number % 2 else other).update(preds[rows], target[rows])
        whole.update(preds[rows], target[rows])
    torch.testing.assert_close(gathered(mine, other), whole.compute())


@pytest.mark.parametrize("kind", [MeanReciprocalRank, hits_metric, PerBatchAveragePrecision])
@pytest.mark.parametrize("wrong", [torch.ones(40, 7), torch.zeros(40, 7), torch.eye(40, 7)])
def test_targets_in_another_column_are_refused_at_the_end(kind, wrong):
    metric = kind()
    metric.update(samples()[0], wrong)
    with pytest.raises(ValueError, match="targets .* 1 in column 0"):
        metric.compute()


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric")
@pytest.mark.parametrize("kind", [MeanReciprocalRank, hits_metric, PerBatchAveragePrecision, LinkAUROC])
def test_nothing_seen(kind):
    metric = kind()
    with pytest.warns(UserWarning, match="is NaN"):
        assert metric.compute().isnan()
    assert mean_reciprocal_rank(torch.zeros(0, 3), torch.zeros(0, 3)).isnan()
    assert hits_at_3(torch.zeros(0, 5), torch.zeros(0, 5)).isnan()


@every_kind
def test_wrong_input(function, metric, reference):
    preds, target = samples()
    for bad, truth in [(preds, target[:, :3]), (preds[:, 0], target[:, 0]), (preds[:, :1], target[:, :1])]:
        with pytest.raises(ValueError, match=r"\(B, 1 \+ M\)"):
            function(bad, truth)
        with pytest.raises(ValueError, match=r"\(B, 1 \+ M\)"):
            metric().update(bad, truth)


def test_wrong_k():
    preds, target = samples(negatives=4)
    for call in (lambda: HitsAtK(0), lambda: hits_at_k(preds, target, 0)):
        with pytest.raises(ValueError, match="k is 0"):
            call()
    for call in (lambda: HitsAtK(5).update(preds, target), lambda: hits_at_k(preds, target, 5)):
        with pytest.raises(ValueError, match="k is 5, .* 4 negatives"):
            call()
    assert math.isfinite(hits_at_k(preds, target, 4))


def test_no_warning_where_all_is_well():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for metric in (MeanReciprocalRank(), HitsAtK(3), LinkAveragePrecision(), LinkAUROC()):
            metric.update(*samples())
            metric.compute()


ROWS = st.integers(1, 5).flatmap(
    lambda width: st.lists(st.lists(st.integers(-5, 5), min_size=width + 1, max_size=width + 1), min_size=1, max_size=8)
)


@settings(max_examples=60, deadline=None)
@given(ROWS, st.floats(0.1, 10), st.floats(-5, 5), st.randoms())
def test_rows_and_negatives_in_any_order_and_on_any_scale(rows, scale, shift, random):
    preds = torch.tensor(rows, dtype=torch.float64)
    assert link_ranks(preds).tolist() == [ranking.rank([float(score) for score in row]) for row in rows]
    shuffled = list(range(1, preds.size(1)))
    random.shuffle(shuffled)
    assert torch.equal(link_ranks(preds[:, [0, *shuffled]] * scale + shift), link_ranks(preds))
    # turned round, what was above is below
    assert torch.equal(link_ranks(-preds) + link_ranks(preds), torch.full((len(rows),), preds.size(1) + 1.0).double())


@pytest.mark.parametrize("metric", [MeanReciprocalRank, LinkAUROC, LinkAveragePrecision, PerBatchAveragePrecision])
def test_scores_that_are_no_real_tensors(metric):
    scores, labels = torch.tensor([[0.5, 0.1]]), torch.tensor([[1, 0]])
    for wrong, said in (
        (scores.tolist(), "is a list"),
        (scores.numpy(), "is a ndarray"),
        (scores * 1j, "is torch.complex64"),
    ):
        with pytest.raises(TypeError, match=f"predictions {said}"):
            metric().update(wrong, labels)


def test_ranks_that_are_no_whole_numbers():
    for k in (1.5, math.nan, "1"):
        with pytest.raises(ValueError, match=f"k is {k!r}"):
            HitsAtK(k)
    with pytest.raises(ValueError, match=r"\(3,\)"):
        link_ranks(torch.zeros(3))
