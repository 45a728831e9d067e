"""The experiments on attention over sequences: equal forms, what the claims read, and a cell of each arm."""

import pytest
import torch

from experiments.attention import gla, gla_recall, tcnca, tcnca_recall
from graphseq.bench.speeds.speed import OutputsDiffer, Setting


def test_forms_equal_each_other_and_a_wrong_one_is_seen(monkeypatch):
    for case in gla.cases("quick"):
        subject = gla.prepare(case, Setting("quick"))
        calls = {name: call for name, make in gla.speed.contenders.items() if (call := make(subject)) is not None}
        expected = ["chunkwise", "SDPA"] if case["part"] == "decoding" else list(gla.speed.contenders)
        assert list(calls) == expected
        assert gla.speed.equal(subject, calls)["difference"] < 1e-4
        moved = {**calls, "chunkwise": lambda call=calls["chunkwise"]: [torch.as_tensor(y) + 1 for y in call()]}
        if case["part"] != "decoding":
            with pytest.raises(OutputsDiffer):
                gla.speed.equal(subject, moved)
    long = gla.prepare({"part": "forward", "steps": 4096}, Setting("quick"))
    assert gla.speed.contenders["quadratic"](long) is None


def test_growth_is_a_power_of_the_steps():
    def rows(power, decoding):
        for steps in (512, 1024, 8192):
            yield {"part": "training", "steps": steps, "ms": {"chunkwise": steps**power},
                   "peak_mb": {"chunkwise": 2.0 * steps}}  # fmt: skip
            yield {"part": "decoding", "steps": steps, "ms": {"chunkwise": decoding * steps + 1}, "peak_mb": {}}

    linear = gla.growth(list(rows(1.0, 0.0)))
    assert [check.value for check in linear] == pytest.approx([1.0, 1.0, 1.0])
    assert all(check.holds for check in linear)
    slower = gla.growth(list(rows(1.5, 0.01)))
    assert [check.holds for check in slower] == [False, True, False]
    assert slower[0].value == pytest.approx(1.5)


def test_rule_of_recall():
    def rows(**scores):
        for task in gla_recall.SEGMENTS:
            for arm in gla_recall.effect.arms:
                for seed in range(3):
                    score = scores.get(arm.replace(" ", "_"), 0.99) if task == "four segments" else 0.99
                    yield {"task": task, "arm": arm, "seed": seed, "weights": 1,
                           "test": {"": {"acc": score + seed / 1e4}}}  # fmt: skip

    assert gla_recall.effect.conclude(list(rows(no_gate=0.5))).verdict == "reproduced"
    assert gla_recall.effect.conclude(list(rows(no_gate=0.5, gla=0.8))).verdict == "partly"
    assert gla_recall.effect.conclude(list(rows())).verdict == "not reproduced"


def test_rule_of_recall_from_outside_the_chunk():
    def rows(**scores):
        for arm in tcnca_recall.effect.arms:
            for seed in range(3):
                score = scores.get(arm.replace(" ", "_"), 0.95) + seed / 1e4
                yield {"arm": arm, "seed": seed, "weights": 1, "test": {"": {"acc": score}}}

    assert tcnca_recall.effect.conclude(list(rows(no_mixer=0.3))).verdict == "reproduced"
    assert tcnca_recall.effect.conclude(list(rows(no_mixer=0.3, tree=0.8))).verdict == "partly"
    assert tcnca_recall.effect.conclude(list(rows())).verdict == "not reproduced"


@pytest.mark.slow
@pytest.mark.parametrize("effect", [gla_recall.effect, tcnca_recall.effect], ids=lambda effect: effect.name)
def test_a_cell_of_each_arm_runs(effect):
    for cell in effect.cells("quick", None):
        row = effect.run({**cell, "seed": 1100}, "quick")
        assert 0 <= row["test"][""]["acc"] <= 1


def test_filters_equal_their_other_forms_and_a_wrong_one_is_seen(monkeypatch):
    for case in tcnca.cases("quick"):
        subject = tcnca.prepare(case, Setting("quick"))
        calls = {name: make(subject) for name, make in tcnca.speed.contenders.items()}
        assert tcnca.speed.equal(subject, calls)["difference"] < 1e-3
        assert [len(call()) for call in calls.values()] == ([5, 6, 3] if case["part"] == "training" else [1, 1, 1])
    monkeypatch.setattr(tcnca, "ema_recurrence", lambda x, *given: (x, None))
    with pytest.raises(OutputsDiffer):
        tcnca.speed.equal(subject, calls)
    rows = [{"part": "forward", "steps": steps, "ms": {"tree": steps**1.2}} for steps in (1024, 4096, 65536)]
    (check,) = tcnca.growth(rows)
    assert (check.value, check.holds) == (pytest.approx(1.2), False)
