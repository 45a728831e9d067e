"""Units that are lost in training: with ReLU, and with its correction by CRReLU."""

import statistics

import pytest
import torch
from torch import nn

from graphseq.core import make
from graphseq.models import MLP
from graphseq.nn import CRReLU


def trained(activation, seed, x, y, rows):
    """Accuracy on the other rows, share of units never active, and of units without a gradient, after 300 steps."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    network = MLP(64, 10, hidden_features=64, num_layers=3, activation=make(activation))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.03)  # high, so that units are lost
    for _ in range(300):
        index = rows[torch.randint(len(rows), (64,), generator=generator)]
        loss = nn.functional.cross_entropy(network(x[index]), y[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    seen = []
    layers = [layer for layer in network.modules() if isinstance(layer, activation)]
    for layer in layers:
        layer.register_forward_pre_hook(lambda layer, inputs: seen.append((layer, inputs[0].detach().requires_grad_())))
    network(x[rows])
    slopes = [torch.autograd.grad(layer(z).sum(), z)[0] for layer, z in list(seen)]
    never = torch.cat([(z <= 0).all(0) for _, z in seen[: len(layers)]])
    without = torch.cat([(slope == 0).all(0) for slope in slopes])
    others = torch.ones(len(x), dtype=torch.bool).index_fill(0, rows, value=False)
    with torch.no_grad():
        accuracy = (network(x[others]).argmax(1) == y[others]).float().mean()
    return float(accuracy), float(never.float().mean()), float(without.float().mean())


@pytest.mark.slow
def test_fewer_units_are_lost_with_the_correction():
    digits = pytest.importorskip("sklearn.datasets").load_digits()
    x, y = torch.tensor(digits.data, dtype=torch.float32) / 16, torch.tensor(digits.target)
    found = {nn.ReLU: [], CRReLU: []}
    for seed in range(5):
        rows = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:1200]
        for activation, results in found.items():
            results.append(trained(activation, seed, x, y, rows))
    (accuracy, never, without), (corrected, rarely, lost) = (
        map(statistics.fmean, zip(*rows, strict=True)) for rows in found.values()
    )
    assert corrected > accuracy - 0.003
    assert rarely < never
    assert lost == 0 < without
