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
