"""Effect of learned proximal networks: what is measured, and what the rule reads."""

import math

import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

from graphseq.bench import Results, load_experiment
from graphseq.data import DenoisingImagesDataModule, LaplaceDenoisingDataModule
from graphseq.models import LearnedProximal
from graphseq.nn import InputConvexNetwork
from graphseq.tasks import Regression


class Threshold(nn.Module):
    """Potential of the soft threshold at 1."""

    def forward(self, y):
        return 0.5 * (y.abs() - 1).clamp(min=0).square().sum(1)


def test_numbers_of_the_soft_threshold_are_perfect():
    from experiments.dense import lpn

    row = lpn.measure(Regression(LearnedProximal(Threshold())), LaplaceDenoisingDataModule())
    assert row["error"] < 1e-12
    assert row["slope"] == pytest.approx(1, abs=1e-9)
    assert row["smallest"] == pytest.approx(0, abs=1e-9)
    shrunk = lpn.measure(Regression(LearnedProximal(Threshold(), alpha=0.1)), LaplaceDenoisingDataModule())
    assert shrunk["error"] > 0.1
    assert abs(shrunk["slope"] - 1) > 0.1


def test_numbers_of_images():
    from experiments.dense import lpn

    class Identity(nn.Module):
        def forward(self, y):
            return 0.5 * y.flatten(1).square().sum(1)

    data = DenoisingImagesDataModule("digits", noise=0.2)
    row = lpn.measure(Regression(LearnedProximal(Identity())), data)
    assert row["psnr"] == pytest.approx(row["psnr_noisy"])
    assert row["psnr"] == pytest.approx(-20 * math.log10(0.2), abs=0.1)
    assert row["smallest"] == pytest.approx(1)
    assert row["psnr_deblurred"] > row["psnr_blurred"]
    free = LearnedProximal(InputConvexNetwork(2)).double()
    with torch.no_grad():
        free.potential.hidden[-1].parametrizations.weight.original.fill_(-1)
        free.potential.hidden[-1].parametrizations.weight[0].forward = lambda weight: weight
    assert lpn.smallest_eigenvalue(free, torch.zeros(1, 2).double()) < 0


def rows(made, error):
    found = []
    for cell in made.cells("default", 3):
        free, spread = cell["arm"] == "free", cell["seed"] / 1e6
        numbers = {
            "error": error[cell["arm"]] + spread, "slope": 1.05, "x": [-1, 0, 1], "prior": [1, 0, 1],
            "smallest": -0.5 if free else 0.0, "psnr": 20 + free + spread, "psnr_deblurred": 21 - free + spread,
            "psnr_noisy": 14.0, "psnr_blurred": 16.0, "settled": True, "test": {"": {}},
        }  # fmt: skip
        found.append({**cell, **numbers})
    return found


def test_rule_of_the_effect():
    made = load_experiment("effect.lpn")
    found = rows(made, {"L2": 0.22, "L1": 0.18, "matching": 0.09, "free": 0.07})
    conclusion = made.conclude(found)
    assert conclusion.verdict == "reproduced"
    assert all(check.holds for check in conclusion.checks)
    found[-1]["smallest"] = found[0]["smallest"] = -0.5
    assert made.conclude(found).verdict == "partly"
    assert made.conclude(rows(made, dict.fromkeys(("L2", "L1", "matching", "free"), 0.2))).verdict == "not reproduced"
    drawn = Figure()
    made.figure(Results(found, made.axes, "error"), drawn, "finding")
    assert len(drawn.axes[0].lines) == 1 + 4 * 3
