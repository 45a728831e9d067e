"""A speed comparison as it is declared: what is refused, compared, timed, skipped, claimed, listed and drawn."""

import json
import math

import pytest
import torch
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure

import graphseq.bench.speeds.speed as module
from graphseq.bench.experiment import Check
from graphseq.bench.records.files import write_figure
from graphseq.bench.runner import run_experiment
from graphseq.bench.speeds.limits import Bytes, Operations
from graphseq.bench.speeds.ratio_claims import AtLeast, TakesAtMost
from graphseq.bench.speeds.speed import OutputsDiffer, Setting, Speed, combinations, same_outputs
from graphseq.core import DataError


def summing(calls=None, **changes):
    """Sums of a range by two contenders, each call of which is noted in ``calls``."""

    def contender(name):
        def make(size):
            def call():
                if calls is not None:
                    calls.append(name)
                return float(sum(range(size)))

            return call

        return make

    options = {
        "name": "speed.sums",
        "protocol": "Sums by two.\n\nRule: ours is not slower than a hundredth.",
        "cases": combinations(size=[10, 20]),
        "prepare": lambda case, setting: case["size"],
        "contenders": {"ours": contender("ours"), "peer": contender("peer")},
        "equal": same_outputs(),
        "claims": [AtLeast("ours/peer", 0.01)],
    }
    return Speed(**{**options, **changes})


def never(*args, **kwargs):
    raise AssertionError("timed although it must not be")


def row(size, median, low=None, high=None, **more):
    ratio = {"ours/peer": {"median": median, "low": low or median, "high": high or median}}
    return {"size": size, "rounds": 3, "ms": {"ours": 1.0, "peer": median}, "ratio": ratio, "versions": {}, **more}


class TestDeclaration:
    @pytest.mark.parametrize(
        ("change", "named"),
        [
            ({"name": "sums"}, "name is 'sums'"),
            ({"cases": []}, "cases.*quick"),
            ({"cases": lambda scale: [] if scale == "full" else [{"size": 1}]}, "cases.*full"),
            ({"cases": [{"size": 1}, {"width": 1}]}, "cases.*keys"),
            ({"cases": [{"ratio": 1}]}, "key 'ratio'"),
            ({"cases": [{"device": 1}]}, "key 'device'"),
            ({"contenders": {"ours": lambda size: None}}, "contenders is \\['ours'\\]"),
            ({"contenders": {}}, "contenders is \\[\\]"),
            ({"equal": None}, "equal is missing"),
            ({"claims": [AtLeast("ours/PyG", 10)]}, "contender 'PyG'.*ours"),
            ({"claims": [TakesAtMost("others/peer", 10)]}, "contender 'others'"),
            ({"claims": [AtLeast("ours/peer", 10, where={"size": 30})]}, "size.*30"),
            ({"claims": [AtLeast("ours/peer", 10, where={"data": 10})]}, "data.*10"),
        ],
    )
    def test_wrong_declarations_are_refused(self, change, named):
        with pytest.raises(ValueError, match=named):
            summing(**change)

    @pytest.mark.parametrize("ratio", ["ours", "ours/", "a/b/c"])
    def test_a_ratio_names_two(self, ratio):
        with pytest.raises(ValueError, match=f"ratio is '{ratio}'"):
            AtLeast(ratio, 1)

    def test_a_bound_is_positive(self):
        with pytest.raises(ValueError, match="bound is 0"):
            AtLeast("ours/peer", 0)

    def test_cases_may_follow_the_scale(self):
        speed = summing(cases=lambda scale: combinations(size=[1] if scale == "quick" else [1, 2]))
        assert len(speed.cells("quick", 1)) == 1
        assert len(speed.cells("default", 1)) == 2


class TestRow:
    def test_a_row_has_times_ratio_and_versions(self):
        speed = summing(
            packages={"peer": "torch-geometric"},
            notes=lambda size, seconds: {"rounds of ours": len(seconds["ours"])},
            limit=lambda size: Bytes(1000),
            memory=True,
        )
        found = speed.run({"size": 10}, "quick")
        assert list(found["ms"]) == ["ours", "peer"]
        assert all(0 < value < math.inf for value in found["ms"].values())
        ratio = found["ratio"]["ours/peer"]
        assert 0 < ratio["low"] <= ratio["median"] <= ratio["high"]
        assert (found["rounds"], found["rounds of ours"], found["difference"]) == (3, 3, 0.0)
        assert found["versions"]["peer"].startswith("torch-geometric 2.")
        assert found["limit"]["bytes"] == 1000
        assert found["limit"]["times"] == pytest.approx(found["ms"]["ours"] / found["limit"]["ms"], rel=0.5)
        assert set(found["peak_mb"]) == {"ours", "peer"}
        assert "absent" not in found

    def test_calls_alternate_and_are_repeated_to_fill_a_measurement(self):
        calls = []
        found = summing(calls, seconds={"quick": 0.002}, rounds={"quick": 2}).run({"size": 10}, "quick")
        repeats = found["calls"]
        assert repeats["ours"] > 10
        timed = calls[-2 * sum(repeats.values()) :]
        turns = [name for place, name in enumerate(timed) if place == 0 or timed[place - 1] != name]
        assert turns == ["ours", "peer", "ours"]  # A B, B A: those of the second round join on
        assert timed.count("ours") == 2 * repeats["ours"]

    def test_ratio_is_seconds_of_the_peer_over_ours(self, monkeypatch):
        seconds = {"ours": [1.0, 2.0, 1.0], "peer": [2.0, 2.0, 4.0]}
        monkeypatch.setattr(module, "alternate", lambda calls, rounds, **_: {name: seconds.get(name) for name in calls})
        monkeypatch.setattr(module, "_repeats", lambda calls, seconds: dict.fromkeys(calls, 1))
        found = summing().run({"size": 10}, "quick")
        assert found["ratio"] == {"ours/peer": {"median": 2.0, "low": 1.0, "high": 4.0}}
        assert found["ms"] == {"ours": 1000.0, "peer": 2000.0}

    def test_steps_take_turns_where_a_turn_is_given(self):
        steps = []

        def contender(name):
            return lambda size: lambda: (steps.append(name) for _ in range(size))

        found = summing(
            contenders={name: contender(name) for name in ("ours", "peer")},
            equal=lambda size, calls: None,
            turn=lambda size: size // 2,
            rounds={"quick": 1},
        ).run({"size": 10}, "quick")
        assert "".join(name[0] for name in steps[6:]) == "ooooopppppooooo" + "ppppp"
        assert found["calls"] == {"ours": 1, "peer": 1}

    def test_claims_on_another_pair_are_measured_too(self):
        slow = {name: (lambda size: lambda: 1.0) for name in ("ours", "peer", "third")}
        speed = summing(contenders=slow, claims=[AtLeast("third/peer", 0.1)])
        assert list(speed.run({"size": 1}, "quick")["ratio"]) == ["ours/peer", "ours/third", "third/peer"]

    def test_the_subject_knows_case_scale_and_device(self):
        seen = []

        def prepare(case, setting):
            seen.append((case, setting))
            return case["size"]

        summing(prepare=prepare).run({"size": 10}, "quick")
        assert seen == [({"size": 10}, Setting("quick", "cpu"))]

    def test_columns_are_not_written_over(self):
        with pytest.raises(ValueError, match="column 'ms'"):
            summing(notes=lambda size, seconds: {"ms": 3}).run({"size": 1}, "quick")

    def test_a_run_of_its_own_takes_the_place_of_contenders(self):
        speed = Speed(
            name="speed.own",
            protocol="",
            cases=[{"size": 3}],
            run=lambda case, setting: {"twice": 2 * case["size"], "scale": setting.scale},
            table=lambda rows: [{"twice": line["twice"]} for line in rows],
        )
        found = speed.run({"size": 3}, "quick")
        assert found == {"twice": 6, "scale": "quick"}
        assert speed.conclude([found]).table == [{"twice": 6}]


class TestComparison:
    @pytest.mark.parametrize("wrong", [7.0, math.nan, [1.0, 2.0], torch.ones(2)])
    def test_outputs_that_differ_are_never_timed(self, monkeypatch, wrong):
        monkeypatch.setattr(module, "alternate", never)
        contenders = {"ours": lambda size: lambda: 45.0, "peer": lambda size: lambda: wrong}
        with pytest.raises(OutputsDiffer, match="speed.sums, size 10: .*peer"):
            summing(contenders=contenders).run({"size": 10}, "quick")

    def test_what_differs_is_named_by_the_comparison(self, monkeypatch):
        def equal(size, calls):
            raise OutputsDiffer(f"batch {size} in edge_index")

        monkeypatch.setattr(module, "alternate", never)
        with pytest.raises(OutputsDiffer, match="size 20.*batch 20.*edge_index"):
            summing(equal=equal).run({"size": 20}, "quick")

    def test_outputs_within_the_tolerance_are_equal(self):
        calls = {"ours": lambda: [torch.ones(2), 1.0], "peer": lambda: (torch.ones(2) + 1e-3, 1.0)}
        assert same_outputs(rtol=1e-2)(None, calls)["difference"] == pytest.approx(1e-3, rel=1e-3)
        with pytest.raises(OutputsDiffer, match="output 0 of peer"):
            same_outputs(rtol=1e-4)(None, calls)

    def test_three_are_compared_with_the_first(self):
        calls = {"ours": lambda: 1.0, "peer": lambda: 1.0, "third": lambda: 2.0}
        with pytest.raises(OutputsDiffer, match="third"):
            same_outputs()(None, calls)


class TestSkips:
    def test_a_missing_peer_is_a_visible_skip(self, tmp_path):
        def missing(size):
            raise ImportError("No module named 'peer'")

        speed = summing(contenders={"ours": lambda size: lambda: 1.0, "peer": missing})
        record = run_experiment(speed, scale="quick", state_dir=tmp_path)
        assert [line["skipped"] for line in record["rows"]] == ["peer: No module named 'peer'"] * 2
        assert record["checks"] == []

    def test_others_are_measured_without_a_missing_one(self):
        def missing(size):
            raise ImportError("No module named 'third'")

        contenders = {"ours": lambda size: lambda: 1.0, "third": missing, "peer": lambda size: lambda: 1.0}
        found = summing(contenders=contenders).run({"size": 1}, "quick")
        assert list(found["ratio"]) == ["ours/peer"]
        assert found["absent"] == {"third": "No module named 'third'"}

    def test_ours_that_cannot_be_imported_is_a_fault(self):
        def broken(size):
            raise ImportError("cannot import name 'BatchLoder'")

        with pytest.raises(ImportError, match="BatchLoder"):
            summing(contenders={"ours": broken, "peer": lambda size: lambda: 1.0}).run({"size": 1}, "quick")

    def test_missing_data_are_a_visible_skip(self):
        def prepare(case, setting):
            raise DataError("NCI1 is nowhere")

        with pytest.raises(module.SkipCell, match="NCI1 is nowhere"):
            summing(prepare=prepare).run({"size": 1}, "quick")

    def test_a_contender_without_part_in_a_case_is_left_out(self):
        contenders = {
            "ours": lambda size: lambda: 1.0,
            "small": lambda size: (lambda: 1.0) if size < 15 else None,
            "peer": lambda size: lambda: 1.0,
        }
        speed = summing(contenders=contenders)
        assert list(speed.run({"size": 10}, "quick")["ms"]) == ["ours", "small", "peer"]
        found = speed.run({"size": 20}, "quick")
        assert list(found["ms"]) == ["ours", "peer"]
        assert "absent" not in found


class TestClaims:
    @pytest.mark.parametrize(("median", "holds"), [(9.99, False), (10.0, True)])
    def test_the_smallest_ratio_decides(self, median, holds):
        speed = summing(claims=[AtLeast("ours/peer", 10)])
        (check,) = speed.conclude([row(10, 30.0), row(20, median)]).checks
        assert (check.value, check.bound, check.holds) == (median, 10, holds)
        assert check.claim == "ours at least 10 times as fast as peer in every case (smallest: size 20)"

    def test_where_chooses_the_cases(self):
        speed = summing(claims=[AtLeast("ours/peer", 10, {"size": 10}), AtLeast("ours/peer", 2, {"size": 20})])
        assert [check.holds for check in speed.conclude([row(10, 5.0), row(20, 5.0)]).checks] == [False, True]
        assert len(speed.conclude([row(20, 5.0)]).checks) == 1

    def test_geometric_mean(self):
        claim = AtLeast("ours/peer", 3.9, over="geometric mean", text="on the whole")
        (check,) = claim([row(10, 2.0), row(20, 8.0)])
        assert check.value == pytest.approx(4.0)
        assert check.claim == "on the whole in the geometric mean of 2 cases"

    @pytest.mark.parametrize(("median", "holds"), [(0.51, True), (0.49, False)])
    def test_takes_at_most_is_about_time(self, median, holds):
        (check,) = TakesAtMost("ours/peer", 2.0)([row(10, 3.0), row(20, median)])
        assert check.holds is holds
        assert check.value == pytest.approx(1 / median)

    def test_a_function_may_be_a_claim(self):
        speed = summing(claims=[lambda rows: [Check("rows", len(rows), 2, len(rows) == 2)]])
        assert [check.holds for check in speed.conclude([row(10, 1.0)]).checks] == [False]

    def test_rows_of_another_device_are_held_against_no_claim(self):
        speed = summing(claims=[AtLeast("ours/peer", 10)])
        assert speed.conclude([{"size": 10, "device": "cuda", **row(10, 3.0)}]).checks == []


class TestRecord:
    def test_record_table_and_figure(self, tmp_path):
        speed = summing(columns=["difference"], limit=lambda size: Operations(size))
        record = run_experiment(speed, scale="quick", state_dir=tmp_path)
        json.dumps(record, allow_nan=False)
        assert record["name"] == "speed.sums"
        assert "Rule: ours is not slower" in record["rule"]
        assert "cpu" in record["environment"]
        assert [line["size"] for line in record["table"]] == [10, 20]
        assert {"pair", "ms", "other ms", "ratio", "lowest", "highest", "times limit", "difference"} <= set(
            record["table"][0]
        )
        assert write_figure(tmp_path / "figure.png", speed, record)

    def test_figure_has_a_dot_with_its_range_for_each_ratio_and_marks_claims(self):
        figure = Figure()
        speed = summing(claims=[AtLeast("ours/peer", 10, {"size": 10})])
        record = {"kind": "speed", "verdict": None, "rows": [row(10, 12.0), row(20, 5.0)], "checks": []}
        speed.draw(record, figure.subplots())
        (axes,) = figure.axes
        assert [dots.lines[0].get_xdata()[0] for dots in axes.containers] == [12.0, 5.0]
        assert all(dots.has_xerr for dots in axes.containers)
        marks = [mark.get_offsets().tolist() for mark in axes.collections if isinstance(mark, PathCollection)]
        assert [place for offsets in marks for place in offsets] == [[10.0, 0.0]]
        assert figure.get_suptitle() == "Ours is 5 to 12 times as fast as peer in 2 cases; nothing was claimed."
        assert "higher is better" in axes.get_xlabel()

    def test_rows_of_another_device_say_so(self):
        here, there = summing(), summing().on("cuda")
        assert here.cells("quick", 1) == [{"size": 10}, {"size": 20}]
        assert there.cells("quick", 1) == [{"size": 10, "device": "cuda"}, {"size": 20, "device": "cuda"}]
        assert here.device == "cpu"
        assert there.conclude([{"size": 10, "device": "cuda", **row(10, 3.0)}]).table[0]["device"] == "cuda"
