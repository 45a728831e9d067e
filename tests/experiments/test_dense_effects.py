"""Effects of AF-KAN and of quadratic neurons: controls have as many parameters, and the rule follows from the rows."""

import importlib

import pytest

from graphseq.bench import load_experiment
from graphseq.models import QuadraticNetwork


def count(entry, **sizes):
    room, _, name = entry["class_path"].rpartition(".")
    arguments = {key: value for key, value in entry["init_args"].items() if key != "activation"}
    network = getattr(importlib.import_module(room), name)(**sizes, **arguments)
    return sum(parameter.numel() for parameter in network.parameters()), network


def test_networks_of_afkan_have_equal_numbers_of_parameters():
    made = load_experiment("effect.afkan")
    found = {}
    for arm in made.arms:
        config = made.config_of({"data": "Fashion-MNIST", "arm": arm, "seed": 0}, "default")
        found[arm], _ = count(config["model"]["init_args"]["model"], in_features=784, out_features=10)
    assert found["af-kan"] == 52_552
    assert found["wide relu-kan"] == 316_842
    for arm in ("mlp", "normed mlp", "relu-kan"):
        assert found[arm] == pytest.approx(found["af-kan"], rel=0.03)


@pytest.mark.parametrize("name", ["MLP 8", "MLP 16", "ConvNet"])
def test_wide_networks_have_as_many_parameters_as_quadratic_ones(name):
    from experiments.dense.relinear import WIDE

    made = load_experiment("effect.relinear")
    entry = made.config_of({"network": name, "arm": "relinear", "seed": 0}, "default")["model"]["init_args"]["model"]
    sizes = {"in_channels": 1, "out_channels": 10} if name == "ConvNet" else {"in_features": 64, "out_features": 10}
    _, network = count(entry["init_args"]["network"], **sizes)
    quadratic = QuadraticNetwork(network, skip=entry["init_args"]["skip"])
    expected = sum(parameter.numel() for parameter in quadratic.parameters())
    assert count(WIDE[name], **sizes)[0] == pytest.approx(expected, rel=0.04)


def test_relinear_is_told_from_its_rows():
    made = load_experiment("effect.relinear")
    points = {"random": 0.1, "conventional": 0.95, "wide": 0.955, "slow": 0.95, "relinear": 0.97, "unshrunk": 0.98}
    rows = [
        {"network": name, "arm": arm, "seed": seed, "test": {"": {"acc": acc + seed / 1e5}}}
        for name in ("MLP 4", "MLP 8", "MLP 16", "ConvNet") for arm, acc in points.items() for seed in range(1600, 1603)
    ]  # fmt: skip
    conclusion = made.conclude(rows)
    assert conclusion.verdict == "reproduced"
    assert [check.holds for check in conclusion.checks] == [True] * 8 + [False]
    said = made.finding(made.results(rows), [])
    assert "+1.5, +1.5, +1.5 points" in said
