"""Weights that decorrelate, against a regression on samples that were selected by a spurious correlation."""

import statistics

import pytest
import torch

from graphseq.ops import decorrelation_loss, effective_sample_size, random_fourier_features

TEST_RATES = (-3.0, -2.0, -1.5, 1.5, 2.0, 3.0)
CAUSE = torch.tensor([1 / 3, -2 / 3, 1, -1 / 3, 2 / 3])
CLUSTERS = torch.tensor([0] * 5 + [1] * 5)


def equicorrelated(count, width, correlation, generator):
    common = torch.randn(count, 1, generator=generator)
    own = torch.randn(count, width, generator=generator)
    return correlation**0.5 * common + (1 - correlation) ** 0.5 * own


def selected(rate, count, generator):
    """Causes s and variables v that only go along with y, as strongly as the selection by ``rate`` makes them."""
    kept, total = [], 0
    while total < count:
        s, v = (equicorrelated(20_000, 5, correlation, generator) for correlation in (0.6, 0.3))
        f = s @ CAUSE + 1.5 * torch.tanh(s[:, 0] * s[:, 1])
        distance = (f - (1 if rate > 0 else -1) * v[:, 0]).abs()
        chance = torch.exp(-5 * torch.tensor(abs(rate)).log() * distance)
        chosen = torch.rand(len(f), generator=generator) < chance
        y = f + 0.3 * torch.randn(len(f), generator=generator)
        kept.append(torch.cat([s, v, y[:, None]], dim=1)[chosen])
        total += int(chosen.sum())
    rows = torch.cat(kept)[:count]
    return rows[:, :10], rows[:, 10]


def learned_weights(x, cluster, generator):
    logit = torch.zeros(len(x), requires_grad=True)
    optimizer = torch.optim.Adam([logit], lr=0.05)
    for _ in range(300):
        weight = len(x) * logit.softmax(0)
        loss = decorrelation_loss(random_fourier_features(x, 5, generator=generator), weight, cluster)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return (len(x) * logit.softmax(0)).detach()


def errors(x, y, weight, tests):
    """Root mean squared errors of weighted least squares in each test environment."""

    def design(rows):
        return torch.cat([rows, torch.ones(len(rows), 1)], dim=1)

    root = weight.sqrt()[:, None]
    solution = torch.linalg.lstsq(root * design(x), root * y[:, None]).solution
    return [float((design(a) @ solution - b[:, None]).square().mean().sqrt()) for a, b in tests]


@pytest.mark.slow
def test_clusters_beat_least_squares_and_keep_more_samples_than_all_pairs():
    """The gate of the prototype: 5 % in the mean, 20 % in the spread over environments, 1.8 times the sample size."""
    means, spreads, sizes = {}, {}, {}
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        x, y = selected(1.7, 1000, generator)
        tests = [selected(rate, 1000, generator) for rate in TEST_RATES]
        for name, weight in (
            ("equal", torch.ones(len(x))),
            ("all pairs", learned_weights(x, None, generator)),
            ("clusters", learned_weights(x, CLUSTERS, generator)),
        ):
            found = errors(x, y, weight, tests)
            means.setdefault(name, []).append(statistics.fmean(found))
            spreads.setdefault(name, []).append(statistics.pstdev(found))
            sizes.setdefault(name, []).append(float(effective_sample_size(weight)))
    mean, spread, size = ({name: statistics.fmean(v) for name, v in d.items()} for d in (means, spreads, sizes))
    shown = f"error {mean}, spread {spread}, effective sample size {size}"
    assert mean["clusters"] < 0.95 * mean["equal"], shown
    assert spread["clusters"] < 0.8 * spread["equal"], shown
    assert size["clusters"] > 1.8 * size["all pairs"], shown
