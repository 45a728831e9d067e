"""Effects: cells and pairing, claims and verdict, what is refused, and training from a config."""

import json
import statistics
from pathlib import Path

import pytest
import yaml

from graphseq.bench import (
    Above,
    BestAbove,
    Check,
    Effect,
    MeanAbove,
    Quantity,
    Ratio,
    Results,
    Rule,
    Seeds,
    Within,
    all_of,
    any_of,
    new,
    over,
)  # fmt: skip
from graphseq.bench.command import main
from graphseq.bench.directions import lower_is_better
from graphseq.bench.effects.claims import matches
from graphseq.bench.effects.protocol import protocol_text
from graphseq.bench.effects.training import overridden
from graphseq.bench.records.closure import import_closure, source_state
from graphseq.bench.runner import run_experiment

ROOT = Path(__file__).parents[3]
MOTIF = "configs/graph/erm_motif.yaml"
CONFIG = {"model": new("graphseq.tasks.Classification", model=new("graphseq.models.MLP")), "trainer": {}}
SMALL = {"data.num_train": 20, "data.num_val": 12, "data.num_test": 10, "trainer.max_epochs": 2}


def run(cell, scale, effect):
    """A gain of one half that noise of the seed hides unless seeds are paired."""
    return {"worth": 10.0 * cell["seed"] + (cell["arm"] == "method") * cell["size"] * 0.5}


def effect(**options):
    given = {
        "name": "effect.made",
        "source": "none",
        "protocol": "Made up.",
        "arms": {"plain": {"x": 0}, "method": {"x": 1}},
        "grid": {"size": [0, 1]},
        "run": run,
        "score": lambda row: row["worth"],
        "claims": [Above("A", "method@1 - plain@1"), Above("B", "method@0 - plain@0")],
        "verdict": Rule(all_of("AB"), any_of("AB")),
    }
    return Effect(**{**given, **options})


def rows(made, seeds=3):
    return [{**cell, **made.run(cell, "default")} for cell in made.cells("default", seeds)]


class TestCells:
    def test_every_arm_at_every_point_seed_by_seed(self):
        cells = effect(seeds=Seeds(first=7, default=2)).cells("default", None)
        assert len(cells) == 8
        assert cells[0] == {"size": 0, "arm": "plain", "seed": 7}
        assert [cell["seed"] for cell in cells] == [7] * 4 + [8] * 4

    def test_numbers_of_seeds(self):
        seeds = Seeds(first=100, default=2, full=4, confirm={"size=1": 3}, ranges={"size=5": range(1000, 1003)})
        assert seeds.of({"size": 0}, "default", None) == [100, 101]
        assert seeds.of({"size": 1}, "default", None) == [100, 101, 102]
        assert seeds.of({"size": 1}, "full", None) == [100, 101, 102, 103]
        assert seeds.of({"size": 1}, "quick", None) == [100]
        assert seeds.of({"size": 1}, "default", 2) == [100, 101]
        assert seeds.of({"size": 5}, "default", None) == [1000, 1001]
        assert matches("size=1|5,arm=a", {"size": 5, "arm": "a"})
        assert not matches("size=1|5,arm=a", {"size": 5, "arm": "b"})

    def test_arms_of_a_point(self):
        grid = {"set": {"all": {"y": 0}, "one": {"y": 1, "arms": ("plain",)}}}
        cells = effect(grid=grid, claims=[], verdict=None).cells("default", 2)
        assert {(cell["set"], cell["arm"]) for cell in cells} == {("all", "plain"), ("all", "method"), ("one", "plain")}
        with pytest.raises(ValueError, match="'other'"):
            effect(grid={"set": {"one": {"arms": ("other",)}}}, claims=[], verdict=None)

    def test_where_leaves_cells_out(self):
        made = effect(where=lambda cell, scale: cell["arm"] == "plain" or cell["size"] == 1)
        assert len(made.cells("default", 2)) == 6


class TestConclusion:
    def test_differences_are_paired_by_seed(self):
        conclusion = effect().conclude(rows(effect()))
        assert [(check.value, check.holds) for check in conclusion.checks] == [
            ("+0.5 [+0.5, +0.5]", True),
            ("+0 [+0, +0]", False),
        ]
        assert conclusion.verdict == "partly"
        line = next(line for line in conclusion.table if line["arm"] == "method" and line["size"] == 1)
        assert line["less plain"] == "+0.5 [+0.5, +0.5]"
        assert line["seeds"] == 3

    def test_seeds_that_one_arm_lacks_are_left_out(self):
        found = [row for row in rows(effect(), 4) if row["arm"] == "plain" or row["seed"] != 0]
        assert effect().results(found).difference("method@1", "plain@1").count == 3

    def test_rule_decides_by_its_letters(self):
        assert effect(verdict=Rule(all_of("A"), any_of("A"))).conclude(rows(effect())).verdict == "reproduced"
        assert effect(verdict=Rule(all_of("B"), any_of("B"))).conclude(rows(effect())).verdict == "not reproduced"

    def test_no_verdict_without_what_decides(self):
        found = [row for row in rows(effect()) if row["size"] == 1]
        assert effect().conclude(found).verdict is None
        assert effect(verdict=Rule(all_of("A"), any_of("A"))).conclude(found).verdict == "reproduced"

    def test_one_place_stands_for_its_own_score(self):
        results = Results([{"arm": "a", "seed": seed, "x": 1.0 + seed} for seed in range(3)], {}, "x")
        check = Above("A", "a").check(results)[0]
        assert check.value == "+2 [-0.484, +4.48]"
        assert not check.holds
        assert Above("A", "a", -1.0).check(results)[0].holds

    def test_interval_within_a_bound_on_both_sides(self):
        def check(shift, bound):
            rows = [{"arm": arm, "seed": s, "x": s + (shift if arm == "b" else 0)} for arm in "ab" for s in range(3)]
            return Within("A", "b - a", bound).check(Results(rows, {}, "x"))[0].holds

        assert [check(shift, 0.5) for shift in (-0.6, -0.4, 0.4, 0.6)] == [False, True, True, False]

    def test_mean_decides_alone(self):
        rows = [{"arm": arm, "seed": s, "x": s * (arm == "b")} for arm in "ab" for s in range(3)]
        results = Results(rows, {}, "x")
        assert MeanAbove("A", "b - a", 1.0).check(results)[0] == Check("(A) b - a", 1.0, 1.0, True)
        assert not MeanAbove("A", "b - a", 1.1).check(results)[0].holds
        assert not Above("A", "b - a", 0.0).check(results)[0].holds

    def test_ratio_of_averages(self):
        rows = [{"arm": arm, "seed": s, "x": (1.0 + s) * (1 + (arm == "b"))} for arm in "ab" for s in (0, 1, 5)]
        results = Results(rows, {}, "x")
        assert Ratio("A", "b / a", 2.0).check(results)[0].value == 2.0
        assert not Ratio("A", "b / a", 1.9, most=True).check(results)[0].holds
        assert Ratio("A", "b / a", 1.0, score=lambda row: row["x"] - row["seed"] * (row["arm"] == "a"),
                     average=statistics.median).check(results)[0].value == 4.0  # fmt: skip
        assert Ratio("A", "b / c", 1.0).check(results)[0] == Check("(A) b / c", None, 1.0, False)
        with pytest.raises(ValueError, match="'b - a'"):
            Ratio("A", "b - a", 1.0)

    def test_best_of_some_forms_by_validation(self):
        validated = {"control": 9.0, "good": 1.0, "bad": 0.0, "first": 2.0, "second": 3.0}  # nobody selects a control
        rows = [
            {"arm": arm, "seed": seed, "val": value, "x": {"good": 5.0, "second": 5.5, "first": 9.0}.get(arm, 0.0)}
            for arm, value in validated.items() for seed in range(2)
        ]  # fmt: skip
        claim = BestAbove("A", ("first", "second"), "control")
        found = claim.check(Results(rows, {}, "x"))
        assert [check.claim.partition(" (best")[0] for check in found] == [
            "(A) second less control (control)", "(A) second less good",
        ]  # fmt: skip
        assert [check.value for check in found] == ["+5.5 [+5.5, +5.5]", "+0.5 [+0.5, +0.5]"]
        assert all(check.holds for check in found)
        lower = BestAbove("A", ("first", "second"), "control", validation=lambda row: -row["val"])
        assert "first less bad" in lower.check(Results(rows, {}, "x"))[1].claim
        without = [row for row in rows if row["arm"] != "second"]
        assert [check.value for check in claim.check(Results(without, {}, "x"))] == [None]

    def test_quantity_at_least_or_at_most(self):
        results = Results([], {}, float)
        assert Quantity("A", "ratio", lambda _: 2.0, 1.5).check(results)[0].holds
        assert not Quantity("A", "ratio", lambda _: 2.0, 1.5, most=True).check(results)[0].holds
        assert not Quantity("A", "ratio", lambda _: None, 1.5).check(results)[0].holds


class TestTable:
    def test_columns_scores_and_numbers_printed_elsewhere(self):
        made = effect(
            score={"worth": "worth", "half": lambda row: row["worth"] / 2},
            columns={"size": "size", "marks": lambda row: {"at": [row["size"], 1.0]}, "none": "absent"},
            reported={"method@1": "0.6 ± 0.1"},
        )
        lines = made.conclude(rows(made)).table
        assert len(lines) == 8
        line = next(line for line in lines if line["arm"] == "method" and line["score of"] == "half" and line["size"])
        assert line["score"] == 5.25
        assert line["less plain"] == "+0.25 [+0.25, +0.25]"
        assert line["marks"] == {"at": [1.0, 1.0]}
        assert line["reported elsewhere"] == "0.6 ± 0.1"
        assert "none" not in line
        with pytest.raises(ValueError, match="reported.*'other'"):
            effect(reported={"other@1": "1"})

    def test_numbers_that_depend_on_several_rows(self):
        def less_least(found):
            least = min(row["worth"] for row in found)
            return [{**row, "over": row["worth"] - least} for row in found]

        made = effect(derive=less_least, score="over", claims=[MeanAbove("A", "method@1", 10.5)], verdict=None)
        assert made.conclude(rows(made)).checks[0].value == 10.5


class TestProtocol:
    def test_what_is_declared_is_said(self):
        made = effect(
            scales={"quick": {"trainer.max_epochs": 1}},
            seeds=Seeds(first=7, default=3, full=9, confirm={"size=1": 4}, ranges={"size=0": (1, 2)}),
            claims=[Above("A", "method@1 - plain@1", -1.0), Ratio("B", "method@1 / plain@1", 2.0, most=True)],
        )
        text = protocol_text(made)
        for said in (
            "Made up.", "Scale quick: ``trainer.max_epochs`` 1.", "3 of each arm, from 7 on", "4 where size=1",
            "1, 2 where size=0", "scale full: 9", "- (A) method@1 - plain@1 lies above -1",
            "- (B) method@1 / plain@1 is at most 2", "*reproduced* if (A), (B) all hold",
            "*partly* if one of (A), (B) holds",
        ):  # fmt: skip
            assert said in text
        assert "are reported" not in text
        assert "does not name are reported." in protocol_text(effect(verdict=Rule(all_of("A"), any_of("A"))))

    def test_record_holds_it(self, tmp_path):
        record = run_experiment(effect(summary="One line."), seeds=2, state_dir=tmp_path)
        assert record["rule"].endswith(protocol_text(effect(summary="One line.")))


class TestRefusals:
    def test_an_arm_that_overwrites_an_axis(self):
        grid = {"model.model.num_layers": [2, 3]}
        given = {"config": MOTIF, "grid": grid, "run": None, "claims": [], "verdict": None, "score": "test/acc"}
        whole = {"model.model": new("graphseq.models.GraphClassifier")}
        with pytest.raises(ValueError, match=r"axis 'model\.model\.num_layers'.*'whole'"):
            effect(**given, arms={"plain": {}, "whole": whole})
        effect(**given, arms={"plain": {}, "wide": {"model.model.hidden_channels": 99}})

    def test_one_letter_at_several_places_must_hold_at_all(self):
        made = effect(claims=[Above("A", "method@0 - plain@0"), Above("A", "method@1 - plain@1")],
                      verdict=Rule(all_of("A"), any_of("A")))  # fmt: skip
        assert made.conclude(rows(made)).verdict == "not reproduced"

    def test_an_arm_that_changes_nothing(self):
        with pytest.raises(ValueError, match="'twin'.*'method'"):
            effect(arms={"plain": {"x": 0}, "method": {"x": 1}, "twin": {"x": 1}})
        arms = {"plain": {}, "method": {"data.batch_size": 64}}  # what the config says already
        with pytest.raises(ValueError, match="'method'.*'plain'"):
            effect(config=MOTIF, run=None, arms=arms, claims=[], verdict=None)
        with pytest.raises(ValueError, match="another arm"):
            effect(arms={"plain": {}})

    @pytest.mark.parametrize(
        ("difference", "named"),
        [
            ("other@1 - plain@1", "'other'"),
            ("method@7 - plain@7", "'7'"),
            ("method - plain@1", "size"),
            ("method", "size"),
            ("method@1 - plain@1 - plain@0", "form"),
        ],
    )
    def test_a_claim_on_what_is_not_there(self, difference, named):
        with pytest.raises(ValueError, match=named):
            effect(claims=[Above("A", difference)], verdict=None)

    def test_fewer_than_two_seeds(self):
        with pytest.raises(ValueError, match="default is 1"):
            Seeds(default=1)
        with pytest.raises(ValueError, match="size=1 is 1"):
            Seeds(confirm={"size=1": 1})
        with pytest.raises(ValueError, match="seeds is 1"):
            effect().cells("default", 1)
        assert effect().cells("quick", 1)

    def test_unknown_scale_config_letter_and_name(self):
        with pytest.raises(ValueError, match="'tiny'"):
            effect(scales={"tiny": {}})
        with pytest.raises(ValueError, match="'configs/none.yaml'"):
            effect(config="configs/none.yaml")
        with pytest.raises(ValueError, match="'Z'"):
            effect(verdict=Rule(all_of("AZ"), any_of("A")))
        with pytest.raises(ValueError, match="'made'"):
            effect(name="made")
        with pytest.raises(ValueError, match="'size'"):
            Seeds(confirm={"size": 3})


class TestOverrides:
    def test_init_args_may_be_left_out(self):
        made = overridden(CONFIG, {"model.model.hidden": [8], "trainer.max_epochs": 2, "seed_everything": 3})
        assert made["model"]["init_args"]["model"]["init_args"] == {"hidden": [8]}
        assert made["trainer"] == {"max_epochs": 2}
        assert made["seed_everything"] == 3
        assert CONFIG["trainer"] == {}

    def test_none_takes_an_entry_away(self):
        assert "model" not in overridden(CONFIG, {"model.model": None})["model"]["init_args"]

    def test_direction_by_name(self):
        errors = ("val/loss", "val/bpc", "val/mase", "val/smape", "val/msle", "val/mae@3", "test/rmse",
                  "test/gap", "test/length", "val/pinball", "val/forgetting")  # fmt: skip
        assert all(lower_is_better(name) for name in errors)
        assert not any(lower_is_better(name) for name in ("val/acc", "val/ap", "loss/auroc"))


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    made = effect(
        config=MOTIF, run=None, grid={}, base=SMALL, score="test/acc", choose="val/acc", claims=[], verdict=None,
        arms={"plain": {}, "method": over({}, "model.optimizer.lr", [0.1, 0.01])},
        seeds=Seeds(default=2, into=("data.seed",)),
        tests={"": {}, "even": lambda cell: {"data.test_bias": 0.5, "data.seed": 50 + cell["seed"]}},
        measure=lambda task, data: {"graphs": len(data.graphs)},
    )  # fmt: skip
    return run_experiment(made, state_dir=tmp_path_factory.mktemp("state"))


class TestTraining:
    def test_public_task_is_trained_and_tested_at_the_chosen_epoch(self, record):
        assert len(record["rows"]) == 4
        for row in record["rows"]:
            assert len(row["curve"]) == 2
            assert row["val"] == max(row["curve"]) == row["curve"][row["epoch"] - 1]
            assert set(row["test"]) == {"", "even"}
            assert set(row["test"][""]) == {"loss", "acc", "f1"}
            assert row["graphs"] == 42
            assert row["steps"] == 2
        assert record["table"][0]["arm"] == "plain"

    def test_best_of_several_settings_by_validation(self, record):
        row = next(row for row in record["rows"] if row["arm"] == "method")
        assert row["val"] == max(row["tried_val"].values()) == row["tried_val"][str(row["tried"])]

    def test_metric_that_is_not_logged(self):
        made = effect(config=MOTIF, run=None, grid={}, base=SMALL, choose="val/ap", claims=[], verdict=None,
                      arms={"plain": {}, "method": {"model.optimizer.lr": 0.1}})  # fmt: skip
        with pytest.raises(Exception, match="val/ap"):
            made.run({"arm": "plain", "seed": 0}, "default")


class TestRecord:
    def test_states_the_commit_and_the_protocol(self, tmp_path):
        record = run_experiment(effect(summary="One line."), seeds=2, state_dir=tmp_path)
        assert record["source"] == source_state()
        assert record["rule"].startswith("One line.\n\nSource: none.\n\nMade up.")
        assert "only" not in record

    def test_run_that_broke_off_continues_with_its_rows(self, tmp_path):
        ran = []

        def counted(cell, scale, made):
            if len(ran) == 5:
                raise KeyboardInterrupt
            ran.append((cell["size"], cell["arm"], cell["seed"]))
            return run(cell, scale, made)

        with pytest.raises(KeyboardInterrupt):
            run_experiment(effect(run=counted), seeds=3, state_dir=tmp_path)
        ran[:] = [*ran, None]  # the run that continues does not stop
        record = run_experiment(effect(run=counted), seeds=3, state_dir=tmp_path)
        assert len(ran) == 1 + len(set(ran) - {None}) == 13
        assert record["rows"] == run_experiment(effect(), seeds=3, state_dir=tmp_path / "whole")["rows"]

    def test_only_some_cells(self, tmp_path):
        record = run_experiment(effect(), seeds=2, only="size=1", state_dir=tmp_path)
        assert {row["size"] for row in record["rows"]} == {1}
        assert len(record["checks"]) == 1
        assert record["only"] == "size=1"
        with pytest.raises(ValueError, match="size=9"):
            run_experiment(effect(), seeds=2, only="size=9", state_dir=tmp_path)


class TestFingerprint:
    def test_closure_holds_config_classes_and_what_they_import(self):
        names = {path.relative_to(ROOT).as_posix() for path in import_closure([ROOT / MOTIF])}
        assert {MOTIF, "graphseq/data/graphs/motifs.py", "graphseq/models/graph/classifier.py"} <= names
        assert "graphseq/data/events/module.py" not in names

    def test_closure_of_the_experiment_holds_the_code_it_shares(self):
        files = import_closure([ROOT / "experiments/l2r/l2r_size.py"], [ROOT])
        names = {path.relative_to(ROOT).as_posix() for path in files}
        assert {"experiments/l2r/shifts.py", "graphseq/nn/reweighting/outer.py"} <= names
        harness = {name.removeprefix("graphseq/bench/") for name in names if name.startswith("graphseq/bench/")}
        assert {"experiment.py", "effects/effect.py", "effects/training.py"} <= harness
        assert not {"command.py", "effects/claims.py", "effects/figures.py", "records/report.py"} & harness


OWN = '''"""A claim of my own."""

from graphseq.bench import Above, Effect, Rule, all_of, any_of

effect = Effect(
    name="effect.my_claim", source="none", protocol="Two learning rates.", config={config!r}, base={base!r},
    arms={{"slow": {{"model.optimizer.lr": 0.001}}, "fast": {{"model.optimizer.lr": 0.01}}}},
    score="test/acc", choose="val/acc",
    claims=[Above("A", "fast - slow")], verdict=Rule(all_of("A"), any_of("A")),
)
'''


@pytest.mark.slow
def test_a_users_own_effect_by_path(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    config = tmp_path / "own.yaml"
    config.write_text(yaml.safe_dump(yaml.safe_load((ROOT / MOTIF).read_text())))
    (tmp_path / "my_claim.py").write_text(OWN.format(config="own.yaml", base=SMALL))
    assert main(["my_claim.py", "--scale", "quick", "--json", "out.json", "--state-dir", "state"]) == 0
    record = json.loads(Path("out.json").read_text())
    assert record["name"] == "effect.my_claim"
    assert record["rule"].startswith("A claim of my own.")
    assert len(record["rows"]) == 2
