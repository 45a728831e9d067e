"""Rates of dead neurons against a loop over samples and units."""

import pytest
import torch

from graphseq.metrics import ActivationSparsity, DeadNeuronRate, activation_sparsity, dead_neuron_rate
from tests.metrics.replicas import gathered


def one_by_one(activation, connected):
    dynamic = static = units = 0
    ever = {}
    for sample in activation:
        for unit, (value, linked) in enumerate(zip(sample.flatten(), connected.flatten(), strict=True)):
            dynamic += bool(value == 0 and linked)
            static += bool(value == 0 and not linked)
            units += 1
            ever[unit] = ever.get(unit, False) or bool(value > 0)
    return {"dynamic": dynamic / units, "static": static / units,
            "always": sum(not alive for alive in ever.values()) / len(ever)}  # fmt: skip


@pytest.mark.parametrize(("units", "linked"), [((7,), (7,)), ((3, 2, 2), (3, 1, 1))])
def test_equals_a_loop_over_uneven_batches(units, linked):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(11, *units, generator=generator).sub(1).relu()
    connected = (torch.arange(linked[0]) % 2 == 0).view(linked)
    expected = one_by_one(x, connected.expand(units))
    assert 0 < expected["static"] < 1
    found = dead_neuron_rate(x, connected)
    metric = DeadNeuronRate()
    for part in x.split(4):
        metric.update(part, connected)
    mine, theirs = DeadNeuronRate(), DeadNeuronRate()
    for number, part in enumerate(x.split(3)):
        (theirs if number % 2 else mine).update(part, connected)
    for rates in (found, metric.compute(), gathered(mine, theirs)):
        assert {name: pytest.approx(float(rate)) for name, rate in rates.items()} == expected
    alive = 1 - expected["dynamic"] - expected["static"]
    assert float((x > 0).float().mean()) == pytest.approx(alive)


def test_a_unit_without_weights_whose_bias_is_positive_is_alive():
    found = dead_neuron_rate(torch.tensor([[0.5, 0.0], [0.5, 0.0]]), torch.tensor([False, False]))
    assert (found["static"], found["dynamic"], found["always"]) == (0.5, 0, 0.5)


def test_bad_use():
    with pytest.raises(ValueError, match=r"activation is \(3,\)"):
        dead_neuron_rate(torch.ones(3))
    with pytest.raises(ValueError, match=r"connected is \(2,\)"):
        dead_neuron_rate(torch.ones(3, 5), torch.tensor([True, False]))
    metric = DeadNeuronRate()
    metric.update(torch.ones(2, 5))
    with pytest.raises(ValueError, match="4 units"):
        metric.update(torch.ones(2, 4))


def test_sparsity_is_the_share_of_zeros_of_tokens_that_count():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(5, 3, 7, generator=generator).relu()
    inside = torch.arange(3) < torch.tensor([1, 3, 2, 3, 1])[:, None]
    counted = [
        value == 0 for row, known in zip(x.tolist(), inside.tolist(), strict=True)
        for token, counts in zip(row, known, strict=True) if counts for value in token
    ]  # fmt: skip
    expected = sum(counted) / len(counted)
    assert float(activation_sparsity(x, inside)) == pytest.approx(expected)
    metric = ActivationSparsity()
    for rows in ([0, 1], [2, 3, 4]):
        metric.update(x[rows], inside[rows])
    assert float(metric.compute()) == pytest.approx(expected)
    metric.update(torch.ones(1, 7))
    assert float(metric.compute()) == pytest.approx(sum(counted) / (len(counted) + 7))
    with pytest.raises(ValueError, match=r"inside is \(5,\)"):
        activation_sparsity(x, inside[:, 0])
