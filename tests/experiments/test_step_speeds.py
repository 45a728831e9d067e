"""The speed experiments on learned weights and on segment reductions: what is compared, timed and claimed."""

import pytest
import torch

import graphseq.bench.speeds.speed as harness
from experiments.forecast import regenn_step
from experiments.graphs import segment
from experiments.l2r import l2r_step
from graphseq.bench.records.files import write_figure
from graphseq.bench.runner import run_experiment
from graphseq.bench.speeds.speed import OutputsDiffer, Setting, SkipCell
from graphseq.core import OptionalDependencyError
from graphseq.ops import segment_backend


def never(*args, **kwargs):
    raise AssertionError("timed although the outputs differ")


def ratio(pair, median):
    found = {pair: {"median": median, "low": median, "high": median}}
    return {"rounds": 3, "ms": dict.fromkeys(pair.split("/"), 1.0), "versions": {}, "ratio": found}


class TestL2RStep:
    @pytest.fixture
    def small(self, monkeypatch):
        monkeypatch.setattr(l2r_step, "_SMALL", 130)
        monkeypatch.setitem(l2r_step._LARGE, "quick", 260)
        monkeypatch.setitem(l2r_step._BLOCKS, "quick", (1, 2))
        monkeypatch.setattr(l2r_step, "_WIDTH", 16)
        monkeypatch.setattr(l2r_step, "_FORMS", {"released": (16, 1), "printed": (8, 2)})

    @pytest.mark.slow  # the whole of a quick scale: ten seconds
    def test_quick_scale_measures_four_parts(self, small, tmp_path):
        record = run_experiment(l2r_step.speed, scale="quick", state_dir=tmp_path)
        assert [row["part"] for row in record["rows"]] == [
            "training set", "queue", "queue", "epoch", "epoch", "published", "published",
        ]  # fmt: skip
        assert all(value > 0 for row in record["rows"] for value in row["ms"].values())
        assert [row["difference"] is None for row in record["rows"]] == [True] * 5 + [False] * 2
        assert write_figure(tmp_path / "figure.png", l2r_step.speed, record)

    def test_a_procedure_that_gives_other_weights_is_not_timed(self, small, monkeypatch):
        monkeypatch.setattr(l2r_step, "_our_loss", lambda features, weight: (weight * features[:, 0, 0]).sum())
        monkeypatch.setattr(harness, "alternate", never)
        with pytest.raises(OutputsDiffer, match="part published, what released"):
            l2r_step.speed.run({"part": "published", "what": "released", "base": "loop"}, "quick")

    def test_rule(self):
        cost = {"20000 graphs": 1.4, "2 blocks": 2.0, "4 blocks": 3.0, "decorrelation": 1.5, "unrolled head": 9.0}
        cells = l2r_step.speed.cells("default", 1)
        rows = [{**cell, **ratio("ours/base", 1 / cost[cell["what"]])} for cell in cells if cell["what"] in cost]
        rows += [
            {"part": "published", "what": what, "base": "loop", **ratio("ours/base", speed)}
            for what, speed in (("released", 2.0), ("printed", 0.9))
        ]
        checks = l2r_step.speed.conclude(rows).checks
        assert [check.holds for check in checks] == [False, True, True, True, False]
        assert checks[0].claim.endswith("20000 graphs over 1000 graphs")
        assert checks[0].value == pytest.approx(1.4)

    def test_a_queue_whose_cost_grows_otherwise_does_not_hold(self):
        rows = [
            {"part": "queue", "what": f"{blocks} blocks", "base": "0 blocks", **ratio("ours/base", 1 / blocks**2)}
            for blocks in (2, 4, 8, 16, 32)
        ]
        (check,) = l2r_step.speed.conclude(rows).checks
        assert not check.holds


def torch_scatter_usable():
    try:
        with segment_backend("torch_scatter") as name:
            return name == "torch_scatter"
    except OptionalDependencyError:
        return False


class TestSegment:
    def test_cases_are_distinct_and_argmax_has_no_gradient(self):
        cells = segment.speed.cells("default", 1)
        assert len(cells) == len({tuple(cell.values()) for cell in cells}) == 198
        assert not [cell for cell in cells if cell["operation"] == "argmax" and cell["direction"] != "forward"]

    @pytest.mark.parametrize("layout", ["ptr", "index"])
    @pytest.mark.parametrize("operation", ["sum", "mean", "max", "min", "softmax"])
    def test_outputs_and_gradients_agree(self, operation, layout):
        case = {"edges": 60, "width": 3, "operation": operation, "layout": layout, "direction": "forward+backward"}
        problem = segment._prepare(case, Setting("quick"))
        calls, absent = segment.speed._calls(problem)
        assert segment.speed.equal(problem, calls)["difference"] < 1e-5
        assert ("torch-scatter" in absent) == (not torch_scatter_usable())

    @pytest.mark.skipif(torch_scatter_usable(), reason="torch-scatter is installed: nothing is missing")
    def test_argmax_has_no_peer_without_torch_scatter(self):
        case = {"edges": 60, "width": 3, "operation": "argmax", "layout": "ptr", "direction": "forward"}
        with pytest.raises(SkipCell, match="torch-scatter"):
            segment.speed.run(case, "quick")

    def test_a_disagreement_is_never_timed(self, monkeypatch):
        monkeypatch.setattr(harness, "alternate", never)
        monkeypatch.setitem(segment._OURS, "sum", lambda values, ptr: torch.zeros(3, 2))
        case = {"edges": 60, "width": 2, "operation": "sum", "layout": "ptr", "direction": "forward"}
        with pytest.raises(OutputsDiffer, match="operation sum, layout ptr"):
            segment.speed.run(case, "quick")

    def test_table_has_a_line_an_operation_and_the_claim_is_a_mean(self, tmp_path):
        rows = [
            {**cell, **ratio("ours/torch-scatter", 2.0 if cell["width"] == 16 else 0.5)}
            for cell in segment.speed.cells("quick", 1)
        ]
        conclusion = segment.speed.conclude(rows)
        assert [line["operation"] for line in conclusion.table] == ["sum", "mean", "max", "min", "softmax", "argmax"]
        assert conclusion.table[0]["torch-scatter ptr forward"] == "0.79 (0.50-2.00)"
        (check,) = conclusion.checks
        assert check.claim.endswith("in the geometric mean of 132 cases")
        assert check.value == pytest.approx(0.5 ** (1 / 3))
        assert write_figure(
            tmp_path / "figure.png", segment.speed, {"kind": "speed", "verdict": None, "rows": rows, "checks": []}
        )


class TestReGENNStep:
    def test_every_sweep_takes_its_size(self):
        for case in regenn_step.speed.cells("quick", 1):
            subject = ({**case, "size": 4, "base": 2}, Setting("quick", "cpu"))
            for make in regenn_step.speed.contenders.values():
                make(subject)()

    def test_rule(self):
        power = {"windows": 0.9, "series": 1.05, "series, attended": 1.8, "steps": 1.2}
        cells = regenn_step.speed.cells("default", 1)
        rows = [{**cell, **ratio("ours/base", (cell["base"] / cell["size"]) ** power[cell["sweep"]])} for cell in cells]
        checks = regenn_step.speed.conclude(rows).checks
        assert [check.holds for check in checks] == [True, True, False]
        assert [check.value for check in checks] == pytest.approx([0.9, 1.05, 1.2])
        assert "1.80 in series, attended" in regenn_step.in_words(rows)
