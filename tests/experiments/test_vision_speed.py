"""The speed of layers for images: outputs and gradients agree with the plain expressions, else nothing is timed."""

import pytest

from experiments.vision import vision_layers
from graphseq.bench.speeds.speed import OutputsDiffer, Setting


def prepared(layer):
    return vision_layers.prepare({"layer": layer, "direction": "forward+backward"}, Setting("quick"))


@pytest.mark.parametrize("layer", vision_layers.LAYERS)
def test_layers_equal_their_plain_expressions(layer):
    subject = prepared(layer)
    calls = {name: make(subject) for name, make in vision_layers.speed.contenders.items()}
    assert vision_layers.same(subject, calls)["difference"] < 1e-4
    assert (calls["max pool"] is None) == (layer != "poset pooling")


def test_a_difference_in_gradients_is_found(monkeypatch):
    make, plain, small, large = vision_layers.LAYERS["quadratic linear"]

    def without_a_path(layer, x):
        return plain(layer, x) - layer.power(x.square()) + layer.power(x.detach().square())

    monkeypatch.setitem(vision_layers.LAYERS, "quadratic linear", (make, without_a_path, small, large))
    subject = prepared("quadratic linear")
    calls = {"ours": vision_layers.ours(subject), "plain": vision_layers.plain(subject)}
    with pytest.raises(OutputsDiffer, match="ours differs from plain"):
        vision_layers.same(subject, calls)


def test_rule():
    cells = vision_layers.speed.cells("default", 1)

    def checks(**ratio):
        rows = [
            {**cell, "rounds": 1, "ms": dict.fromkeys(vision_layers.speed.contenders, 1.0), "versions": {},
             "ratio": {f"ours/{name.replace('_', ' ')}": {"median": value, "low": value, "high": value}
                       for name, value in ratio.items() if name == "plain" or cell["layer"] == "poset pooling"}}
            for cell in cells
        ]  # fmt: skip
        return [check.holds for check in vision_layers.speed.conclude(rows).checks]

    assert checks(plain=0.8, max_pool=0.6) == [True, True]
    assert checks(plain=0.7, max_pool=0.4) == [False, False]
