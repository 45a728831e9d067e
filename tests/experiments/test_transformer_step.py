"""Speed of a training step: both networks hold the same weights, and a wrong one is seen before it is timed."""

import pytest
import torch

from experiments.transformer import transformer_step
from graphseq.bench.speeds.speed import OutputsDiffer, Setting


def test_networks_are_equal_in_all_weights_and_a_wrong_one_is_seen():
    subject = transformer_step.prepare({"width": 16, "steps": 8, "batch": 4}, Setting("quick"))
    for name, model in subject.models.items():
        assert {id(weight) for weight in subject.weights[name]} == {id(weight) for weight in model.parameters()}
    calls = {name: make(subject) for name, make in transformer_step.speed.contenders.items()}
    assert transformer_step.speed.equal(subject, calls)["difference"] < 1e-5
    losses = [[float(call()) for _ in range(3)] for call in calls.values()]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert losses[0][2] < losses[0][0]
    with torch.no_grad():
        subject.models["torch.nn"].layers.layers[1].norm2.bias.add_(0.1)
    with pytest.raises(OutputsDiffer):
        transformer_step.speed.equal(subject, calls)
