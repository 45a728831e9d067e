"""Experiments on operators: equal parameters, the rule from rows, and what a comparison refuses."""

import pytest
import torch

from experiments.conv import mgno as step
from graphseq.bench import OutputsDiffer, load_experiment
from graphseq.bench.speeds.speed import Setting


def test_arms_of_mgno_have_equal_numbers_of_parameters():
    import graphseq.models

    made = load_experiment("effect.mgno")
    for arm in made.arms:
        config = made.config_of({"arm": arm, "seed": 0}, "default")
        entry = config["model"]["init_args"]["model"]["init_args"]["network"]
        network = getattr(graphseq.models, entry["class_path"].rpartition(".")[2])(1, 1, **entry["init_args"])
        assert sum(p.numel() for p in network.parameters()) == pytest.approx(70_686, rel=0.03), arm


def test_rule_of_mgno_follows_from_its_rows():
    made = load_experiment("effect.mgno")

    def conclusion(**errors):
        rows = [
            {"arm": arm.replace("_", " "), "seed": seed, "train": error / 2, "h1": 1.0, "parameters": 70_000,
             "seconds_per_epoch": 1.0, "test": {"": {"loss": error / 100 + seed / 1e7}, "63 x 63": {"loss": 0.1}}}
            for arm, error in errors.items() for seed in range(2200, 2205)
        ]  # fmt: skip
        found = made.conclude(rows)
        return found.verdict, [check.holds for check in found.checks]

    assert conclusion(FNO=5.0, one_level=8.0, MgNO=3.0, **{"U-Net": 4.0}) == ("reproduced", [True] * 4)
    assert conclusion(FNO=5.0, one_level=5.0, MgNO=3.0, **{"U-Net": 2.0}) == ("partly", [False, True, True, False])
    assert conclusion(FNO=2.0, one_level=5.0, MgNO=3.0, **{"U-Net": 2.0})[0] == "not reproduced"


@pytest.mark.slow  # equations of 63 x 63 points, and a fit
def test_a_cell_of_mgno_is_tested_on_two_grids():
    made = load_experiment("effect.mgno")
    row = made.run({"arm": "MgNO", "seed": 900}, "quick")
    assert set(row["test"]) == {"", "63 x 63"}
    assert 0 < row["train"] < 200


def test_step_of_mgno(monkeypatch):
    monkeypatch.setattr(step, "SIDES", (31, 63))
    subject = step.prepare({"side": 31}, Setting("quick"))
    calls = {name: step.speed.contenders[name](subject) for name in ("MgNO", "FNO")}
    assert step.compare(subject, calls) == {"parameters": {"MgNO": 70_686, "FNO": 70_685}}
    assert all(torch.isfinite(call()) for call in calls.values())
    small = step.limit(subject).count
    subject.networks["FNO"] = torch.nn.Conv2d(1, 1, 1)
    with pytest.raises(OutputsDiffer, match="70686 and 2"):
        step.compare(subject, calls)
    larger = step.limit(step.prepare({"side": 63}, Setting("quick"))).count
    assert 4 < larger / small < 4.6  # grids that lack their edge grow by a little more than four

    def checks(time):
        rows = [{"side": side, "ms": {"MgNO": ms}, "ratio": {"MgNO/FNO": {"median": 0.8}}}
                for side, ms in ((31, 1.0), (63, time))]  # fmt: skip
        return [check.holds for claim in step.speed.claims for check in claim(rows)]

    assert checks(4.5) == [True, True]
    assert checks(4.7) == [False, True]
