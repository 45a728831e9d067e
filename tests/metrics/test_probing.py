"""Linear probes and effective ranks against values that are known."""

import math

import pytest
import torch

from graphseq.metrics import effective_rank, linear_probe


def test_probe_does_not_depend_on_the_scale_of_a_coordinate():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 3
    features = torch.randn(60, 4, generator=generator) + torch.nn.functional.one_hot(labels, 4) * 2
    train, test = slice(0, 40), slice(40, 60)
    found = linear_probe(features[train], labels[train], features[test], labels[test])
    scaled = features * torch.tensor([1e-30, 1e3, 1.0, 5.0])
    assert found == linear_probe(scaled[train], labels[train], scaled[test], labels[test])
    assert 0.5 < found < 1.0
    shuffled = labels[torch.randperm(60, generator=generator)]
    assert linear_probe(features[train], shuffled[train], features[test], shuffled[test]) < found


def test_probe_is_a_penalised_regression_on_features_standardised_by_the_training_samples():
    generator = torch.Generator().manual_seed(0)
    count, classes = 460, 3
    labels = torch.randint(0, 6, (count,), generator=generator).div(2.5).long()  # classes of unequal size
    x = torch.randn(count, 2, dtype=torch.float64, generator=generator)
    x[:, 0] += labels
    x = x * torch.tensor([3.0, 0.1]) + 7
    train, test = slice(0, 60), slice(60, count)
    x[test, 0] += 2.0  # features of another mean than those of the training
    mean, deviation = x[train].mean(0), x[train].std(0, correction=0)
    found = []
    for inverse_penalty in (0.03, 10.0):
        weight, bias = (
            torch.zeros(shape, dtype=torch.float64, requires_grad=True) for shape in ((2, classes), classes)
        )
        optimizer = torch.optim.LBFGS([weight, bias], max_iter=100, line_search_fn="strong_wolfe")

        def logits(x, weight=weight, bias=bias):
            return (x - mean) / deviation @ weight + bias

        def loss(logits=logits, weight=weight, optimizer=optimizer, inverse_penalty=inverse_penalty):
            optimizer.zero_grad()
            error = torch.nn.functional.cross_entropy(logits(x[train]), labels[train], reduction="sum")
            value = error + weight.square().sum() / (2 * inverse_penalty)
            value.backward()
            return value

        optimizer.step(loss)
        expected = (logits(x[test]).argmax(1) == labels[test]).double().mean().item()
        found.append(linear_probe(x[train], labels[train], x[test], labels[test], inverse_penalty))
        assert found[-1] == pytest.approx(expected, abs=0.006)  # two samples on the border
    assert abs(found[0] - found[1]) > 0.02
    centred = x[test] - x[test].mean(0) + mean
    assert abs(linear_probe(x[train], labels[train], centred, labels[test], 10.0) - found[1]) > 0.02


def test_effective_rank():
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(50, 5, dtype=torch.float64, generator=generator))[0]
    basis = torch.linalg.qr(basis - basis.mean(0))[0]  # centred columns, of equal variance
    assert effective_rank(basis + 3).item() == pytest.approx(5)
    variances = torch.tensor([0.5, 0.25, 0.25, 0.0, 0.0], dtype=torch.float64)
    entropy = -sum(float(p) * math.log(p) for p in variances if p > 0)
    assert effective_rank(basis * variances.sqrt()).item() == pytest.approx(math.exp(entropy))
    assert effective_rank(torch.ones(4, 3)) == 1


def test_refusals():
    x, y = torch.randn(4, 2), torch.tensor([0, 1, 0, 1])
    with pytest.raises(ValueError, match=r"test features are \(4, 3\)"):
        linear_probe(x, y, torch.randn(4, 3), y)
    with pytest.raises(ValueError, match="inverse_penalty is 0"):
        linear_probe(x, y, x, y, 0)
    with pytest.raises(ValueError, match="4 training labels are of one class"):
        linear_probe(x, torch.ones(4), x, y)
    with pytest.raises(ValueError, match=r"features are \(4,\)"):
        effective_rank(torch.ones(4))
