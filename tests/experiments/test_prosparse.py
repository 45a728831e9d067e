"""ProSparse: equal layers in the speed comparison, interpolation at equal sparsity, and the rule of the effect."""

import pytest
import torch

from experiments.dense import prosparse, prosparse_decode
from graphseq.bench.speeds.speed import OutputsDiffer, Setting


def test_layers_equal_each_other_and_a_wrong_one_is_seen():
    subject = prosparse_decode.prepare({"dim": 32, "sparsity": 0.9}, Setting("quick"))
    calls = {name: make(subject) for name, make in prosparse_decode.speed.contenders.items()}
    assert prosparse_decode.speed.equal(subject, calls)["difference"] < 1e-5
    with torch.no_grad():
        subject.layers["sparse"].output.weight.add_(1.0)
    with pytest.raises(OutputsDiffer):
        prosparse_decode.speed.equal(subject, calls)


def test_interpolation_at_equal_sparsity():
    points = [(80.0, 70.0), (40.0, 76.0), (60.0, 74.0)]
    assert prosparse.at_sparsity(points, 70.0) == pytest.approx(72.0)
    assert prosparse.at_sparsity(points, 40.0) == 76.0
    assert prosparse.at_sparsity(points, 81.0) is None


def rows(lead, cut=0.0):
    """Frontiers that fall by 0.1 points a point of sparsity, the progressive one by a lead above the fixed one."""
    reached = {"fixed": [60, 70, 80, 90], "progressive": [55, 65, 78, 88]}
    for arm, weights in prosparse.WEIGHTS.items():
        for weight, zeros in zip(weights, reached.get(arm, [40]), strict=True):
            for seed in range(3):
                accuracy = 80 - zeros / 10 + lead * (arm == "progressive") + seed / 100
                test = {"acc": accuracy / 100, "gate_sparsity": zeros / 100}
                shifted = {"shifted_acc": (accuracy - cut) / 100, "shifted_sparsity": (zeros + 2) / 100}
                yield {"arm": arm, "weight": str(weight), "seed": seed, "test": {"": test}, **shifted}


@pytest.mark.parametrize(
    ("lead", "cut", "verdict"), [(1.0, 0.1, "reproduced"), (0.0, 0.1, "partly"), (1.0, 2.0, "not reproduced")]
)
def test_rule(lead, cut, verdict):
    found = prosparse.effect.conclude(list(rows(lead, cut)))
    assert found.verdict == verdict
    # at equal weights the progressive schedule is less sparse and more accurate, whatever the frontier
    assert found.checks[-1].holds


@pytest.mark.slow
@pytest.mark.parametrize(("arm", "weight"), [("SiLU", "0.0"), ("progressive", "0.08")])
def test_a_cell_runs(arm, weight):
    row = prosparse.effect.run({"arm": arm, "weight": weight, "seed": 901}, "quick")
    assert 0 <= row["test"][""]["acc"] <= 1
    assert ("shifted_acc" in row) is (arm != "SiLU")
