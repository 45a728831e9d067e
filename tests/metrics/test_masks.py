import pytest
import torch

from graphseq.core import DataError
from graphseq.metrics import ComplexIoU, MaskAccuracy, complex_iou, mask_accuracy
from graphseq.ops import best_threshold, decided_mask
from tests.reference import spectra as reference


@pytest.mark.parametrize("decision", ["or", "and", "real"])
def test_sets_of_places(decision):
    logits, mask = torch.randn(20, 9, dtype=torch.complex64), torch.rand(20, 9) < 0.4
    logits[0], mask[0] = -1 - 1j, False
    expected = [reference.iou(z, m, decision) for z, m in zip(logits.tolist(), mask.tolist(), strict=True)]
    torch.testing.assert_close(complex_iou(logits, mask, decision), torch.tensor(expected))
    right = (decided_mask(logits, decision) == mask).float().mean(1)
    torch.testing.assert_close(mask_accuracy(logits, mask.float(), decision), right)


def test_perfect_disjoint_and_empty_masks():
    mask = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 0], [0, 0, 0]])
    logits = torch.tensor([[1, 1, -1], [-1, 1, -1], [-1, -1, -1], [-1, 1, -1]]) * (1.0 + 1.0j)
    assert complex_iou(logits, mask).tolist() == [1, 0, 1, 0]
    assert complex_iou(logits.real, mask).tolist() == [1, 0, 1, 0]  # a real logit has one decision


def test_mean_over_samples_of_unequal_batches():
    logits, mask = torch.randn(11, 6, dtype=torch.complex64), torch.rand(11, 6) < 0.5
    metric, accuracy = ComplexIoU("and"), MaskAccuracy("and")
    for rows in (slice(0, 7), slice(7, 8), slice(8, 11)):
        metric.update(logits[rows], mask[rows])
        accuracy.update(logits[rows], mask[rows])
    torch.testing.assert_close(metric.compute(), complex_iou(logits, mask, "and").mean())
    torch.testing.assert_close(accuracy.compute(), mask_accuracy(logits, mask, "and").mean())
    other = ComplexIoU("and")
    other.update(logits[:1], ~mask[:1])
    states = [metric.metric_state, other.metric_state]  # as processes join them
    joined = sum(state["total"] for state in states) / sum(state["count"] for state in states)
    both = torch.cat([complex_iou(logits, mask, "and"), complex_iou(logits[:1], ~mask[:1], "and")])
    assert float(joined) == pytest.approx(float(both.mean()), rel=1e-6)


def test_best_threshold_is_that_of_all_tried():
    scores, mask = torch.randn(8, 12), torch.rand(8, 12) < 0.4
    tried = [-1.0, -0.5, 0.0, 0.5]
    means = [float(complex_iou(scores - threshold, mask).mean()) for threshold in tried]
    threshold, mean = best_threshold(scores, mask, tried)
    assert (threshold, mean) == (tried[means.index(max(means))], pytest.approx(max(means)))


def test_wrong_arguments():
    with pytest.raises(ValueError, match="'xor'"):
        ComplexIoU("xor")
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(2, 4\)"):
        ComplexIoU().update(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(ValueError, match="thresholds"):
        best_threshold(torch.zeros(1, 2), torch.zeros(1, 2).bool(), [])
    with pytest.raises(DataError, match="no sample"):
        best_threshold(torch.zeros(0, 2), torch.zeros(0, 2).bool(), [0.0])


@pytest.mark.parametrize("nan", [float("nan"), complex(1, float("nan"))])
def test_a_network_of_nan_is_not_right_by_chance(nan):
    logits, mask = torch.full((2, 3), -1, dtype=torch.tensor(nan).dtype), torch.zeros(2, 3)
    logits[1, 0] = nan
    for score, metric in ((complex_iou, ComplexIoU()), (mask_accuracy, MaskAccuracy())):
        torch.testing.assert_close(score(logits, mask), torch.tensor([1.0, torch.nan]), equal_nan=True)
        metric.update(logits, mask)
        assert metric.compute().isnan()
