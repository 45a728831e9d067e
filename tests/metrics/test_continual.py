"""Accuracy by task and forgetting, against loops."""

import pytest
import torch

from graphseq.metrics import TaskAccuracy, forgetting


def test_forgetting_is_the_loop():
    accuracies = torch.rand(3, 4, dtype=torch.float64)
    expected = ((accuracies[0, 0] - accuracies[2, 0]) + (accuracies[1, 1] - accuracies[2, 1])) / 2
    torch.testing.assert_close(forgetting(accuracies), expected)
    assert forgetting(accuracies[:1]) == 0
    for bad in (torch.rand(3), torch.rand(3, 2), torch.rand(0, 2)):
        with pytest.raises(ValueError, match="accuracies are"):
            forgetting(bad)


def test_accuracy_is_the_mean_over_tasks_not_samples():
    metric = TaskAccuracy(3)
    batches = [(torch.randn(5, 2), torch.randint(2, (5,)), task) for task in (0, 2, 2)]
    for prediction, target, task in batches:
        metric.update(prediction, target, torch.tensor(task))
    rates = []
    for task in (0, 2):
        hits = [int(p.argmax()) == int(y) for ps, ys, t in batches if t == task for p, y in zip(ps, ys, strict=True)]
        rates.append(sum(hits) / len(hits))
    assert float(metric.compute()) == pytest.approx(sum(rates) / 2)
    assert metric.accuracies().isnan().tolist() == [False, True, False]


def test_bad_arguments():
    with pytest.raises(ValueError, match="num_tasks is 0"):
        TaskAccuracy(0)
    with pytest.raises(ValueError, match="task is 2"):
        TaskAccuracy(2).update(torch.zeros(1, 2), torch.tensor([0]), torch.tensor(2))
    with pytest.raises(ValueError, match=r"target \(2,\)"):
        TaskAccuracy(2).update(torch.zeros(1, 2), torch.tensor([0, 1]), torch.tensor(0))
