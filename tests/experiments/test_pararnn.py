"""The experiments on ParaRNN: equal contenders, what is claimed by size, and the rule of the effect."""

import pytest
import torch

from experiments.recurrent import pararnn
from experiments.sequence import pararnn as pararnn_speed
from graphseq.bench.speeds.speed import OutputsDiffer, Setting


def subject_and_calls(case):
    subject = pararnn_speed.prepare(case, Setting("quick"))
    made = {name: make(subject) for name, make in pararnn_speed.speed.contenders.items()}
    return subject, {name: call for name, call in made.items() if call is not None}


def test_loop_and_newton_equal_the_layer():
    for case in pararnn_speed.cases("quick"):
        subject, calls = subject_and_calls(case)
        dense = "nn.GRU" if case["cell"] == "gru" else "nn.LSTM"
        assert list(calls) == ["ours", "loop", dense, "Newton"]
        assert pararnn_speed.compare(subject, calls)["difference"] < 1e-4
        assert [report is None for report in subject.newton.reports] == [False]


def test_another_result_is_not_timed():
    subject, calls = subject_and_calls(pararnn_speed.cases("quick")[0])
    with pytest.raises(OutputsDiffer, match="loop"):
        pararnn_speed.compare(subject, {**calls, "loop": lambda: [part + 1 for part in calls["loop"]()]})
    with pytest.raises(OutputsDiffer, match=r"nn\.GRU"):
        pararnn_speed.compare(subject, {**calls, "nn.GRU": lambda: [torch.zeros(1)]})


def test_four_times_the_steps_are_claimed_by_cell():
    rows = [{"cell": "gru", "rows": 1, "steps": steps, "ms": {"ours": ms}} for steps, ms in ((1024, 1.0), (4096, 6.0))]
    (check,) = pararnn_speed.four_times_the_steps(rows)
    assert (check.value, check.holds) == (6.0, False)


def rows(loss=0.0, **accuracies):
    found = {"Newton": 0.99, "sequential": 0.99, "ParaLSTM": 0.98, "linear": 0.5, "signed linear": 0.5}
    found |= {"GLA": 0.5, **accuracies}
    for arm, accuracy in found.items():
        for seed in range(5):
            test = {"acc": accuracy - 0.001 * seed, "loss": 0.1 + loss * (arm == "Newton")}
            yield {"task": "parity", "arm": arm, "seed": seed, "test": {"": test}, "iterations": 5, "fell_back": False}


def test_rule():
    def verdict(**changes):
        return pararnn.effect.conclude(list(rows(**changes))).verdict

    assert verdict() == "reproduced"
    assert verdict(loss=0.1) == "partly"
    assert verdict(linear=0.9) == "not reproduced"
    assert verdict(sequential=0.9) == "not reproduced"


@pytest.mark.slow
def test_a_cell_of_each_arm_runs():
    for cell in pararnn.effect.cells("quick", None):
        row = pararnn.effect.run(cell, "quick")
        assert 0 <= row["test"][""]["acc"] <= 1
        assert row["test"][""]["loss"] > 0
        assert (row["iterations"] is not None) == (cell["arm"] == "Newton")
