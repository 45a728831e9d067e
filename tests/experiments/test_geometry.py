"""Effect and speed of the geometry of representations: what is measured, and what the rule reads."""

import pytest
import torch

from graphseq.bench import Setting, load_experiment
from graphseq.data import AlignedTaskDataModule
from graphseq.models import MLP
from graphseq.tasks import Classification


def test_geometry_of_a_cell_is_measured_over_the_floor():
    from experiments.analysis import geometry

    torch.manual_seed(0)
    data = AlignedTaskDataModule(alignment=0.3, dim=8, num_train=8, num_val=8, num_test=40)
    row = geometry.measure(Classification(MLP(8, 1), 1, target="multilabel"), data)
    assert row["excess"] == pytest.approx(row["input_alignment"] - 0.3, abs=1e-6)
    assert 0.2 < row["accuracy"] < 0.8


def test_rule_of_the_effect():
    made = load_experiment("effect.geometry")
    better = {"relu": 0.0, "tanh": 0.3, "hardtanh": 0.3, "softplus": 0.0}
    rows = [
        {
            "arm": cell["arm"], "task": cell["task"], "seed": cell["seed"], "accuracy": 1.0,
            "excess": 0.3 - better[cell["arm"]] + cell["seed"] / 1e6, "parallelism": better[cell["arm"]],
            "target_alignment": (-1 if cell["task"] == "XOR" else 1) * better[cell["arm"]] + cell["seed"] / 1e6,
            "input_beyond_target": 0.0, "participation_ratio": 1.0, "generalization": 1.0, "test": {"": {"loss": 0.0}},
        }
        for cell in made.cells("default", 3)
    ]  # fmt: skip
    conclusion = made.conclude(rows)
    assert conclusion.verdict == "reproduced"
    assert all(check.holds for check in conclusion.checks)
    rows[0]["accuracy"] = 0.9
    assert made.conclude(rows).verdict == "partly"


def test_both_ways_to_the_alignment_are_equal():
    made = load_experiment("speed.cka")
    for value in ("biased", "unbiased"):
        subject = made.prepare({"value": value, "samples": 300}, Setting("quick"))
        calls = {name: make(subject) for name, make in made.contenders.items()}
        assert made.equal(subject, calls)["difference"] < 1e-10
    rows = [
        {"value": "biased", "samples": n, "ms": {"streaming": n / 10, "n x n": n}, "ratio": {},
         "peak_mb": {"streaming": 1.0 + (n > 100), "n x n": n}}
        for n in (100, 200)
    ]  # fmt: skip
    memory, growth = (claim(rows)[0] for claim in made.claims[:2])
    assert (memory.value, memory.holds) == (1.0, True)
    assert growth.value == pytest.approx(1)
