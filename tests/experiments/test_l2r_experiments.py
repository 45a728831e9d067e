"""The experiments on learned weights, on a few motif graphs: what is trained, chosen, concluded and drawn."""

import pytest
import torch
from matplotlib.figure import Figure

from experiments.l2r.graphs import L2RByScaffold, L2RBySize
from experiments.l2r.l2r_motif import L2ROnMotifs
from experiments.l2r.rule import Shifts, conclude_shifts
from experiments.l2r.training import ARMS, BALANCED, FORMS, POOLED, Recipe, ShiftedGraphs, train_arm, with_env
from graphseq.bench import load_experiment
from graphseq.bench.records import write_figure
from graphseq.bench.runner import run_experiment
from graphseq.data import MotifDataModule

SMALL = {"hidden_channels": 8, "num_layers": 2}


def motifs(seed=0):
    data = MotifDataModule(num_train=24, num_val=12, num_test=12, seed=seed)
    return ShiftedGraphs(data.graphs, data.splits, {"test": data.splits["test"]}, network={"conv": "gin"})


def made_up(ours, pooled, other, val=70.0):
    """Rows of five seeds on one set; the other form and baseline are worse on validation."""
    scores = {"ERM": other, POOLED: pooled, FORMS[0]: ours, FORMS[1]: 0.0}
    return [
        {
            "data": "set",
            "arm": arm,
            "seed": seed,
            "val": None if arm == POOLED else val - (10 if arm == FORMS[1] else 0),
            "test": {"test": score + 0.1 * (seed * (1 + place) % 3)},
            "ess": 1.0,
            "cpu_seconds": 1.0,
        }
        for place, (arm, score) in enumerate(scores.items())
        for seed in range(5)
    ]


class TestRule:
    def test_holds_only_above_pooled_training_and_the_best_baseline(self):
        assert conclude_shifts(made_up(80, 70, 75))[0] == "reproduced"
        assert conclude_shifts(made_up(80, 85, 75))[0] == "not reproduced"
        assert conclude_shifts(made_up(80, 70, 85))[0] == "not reproduced"
        assert conclude_shifts(made_up(80, 80, 80))[0] == "not reproduced"

    def test_partly_if_on_one_of_two_sets(self):
        lost = [{**row, "data": "lost"} for row in made_up(60, 70, 75)]
        verdict, checks, _ = conclude_shifts(made_up(80, 70, 75) + lost)
        assert verdict == "partly"
        assert [check.holds for check in checks] == [True, True, False, False]

    def test_no_verdict_without_the_control(self):
        rows = [row for row in made_up(80, 70, 75) if row["arm"] != POOLED]
        assert conclude_shifts(rows)[0] is None

    def test_the_form_is_chosen_on_validation_not_on_the_test(self):
        rows = made_up(60, 70, 75)
        for row in rows:
            if row["arm"] == FORMS[1]:
                row["test"] = {"test": 99.0}
        assert Shifts(rows).chosen("set", forms=True) == FORMS[0]
        assert conclude_shifts(rows)[0] == "not reproduced"

    def test_numbers_printed_elsewhere_stand_beside(self):
        reported = {("set", "test", "ERM"): "70.1", ("set", "test", "other"): "71"}
        table = conclude_shifts(made_up(80, 70, 75), reported)[2]
        assert {line["arm"]: line.get("reported elsewhere") for line in table} == {
            "ERM": "70.1",
            POOLED: None,
            FORMS[0]: None,
            FORMS[1]: None,
            "other": "71",
        }


class TestTraining:
    @pytest.mark.parametrize("arm", ARMS)
    def test_every_arm_trains_and_is_repeatable(self, arm):
        recipe = Recipe(epochs=2, start_epoch=0, batch_size=8, network=SMALL)
        first, second = (train_arm(arm, motifs(), recipe, seed=3) for _ in range(2))
        assert {**first, "cpu_seconds": 0} == {**second, "cpu_seconds": 0}
        assert 0 <= first["test"]["test"] <= 100
        assert (first["val"] is None) == (arm == POOLED)
        assert 0 < first["ess"] <= 1

    def test_the_test_part_has_no_say(self):
        recipe, data = Recipe(epochs=2, start_epoch=0, batch_size=8, network=SMALL), motifs()
        other = ShiftedGraphs(data.store, data.splits, {"test": data.splits["test"][:3]})
        rows = [train_arm(FORMS[0], given, recipe, seed=3) for given in (data, other)]
        assert all(rows[0][key] == rows[1][key] for key in ("val", "epoch", "strength", "ess"))

    def test_three_strengths_are_tried_and_the_best_on_validation_kept(self):
        row = train_arm("IRM", motifs(), Recipe(epochs=1, start_epoch=0, strengths=3, network=SMALL), seed=0)
        assert len(row["tried"]) == 3
        assert row["val"] == max(row["tried"].values())

    def test_environments_and_targets_are_put_into_the_store(self):
        store = motifs().store
        env = torch.arange(len(store))
        batch = with_env(store, env).take(torch.tensor([5, 2]))
        assert batch.env.tolist() == [5, 2]
        assert torch.equal(batch.x, store.take(torch.tensor([5, 2])).x)


class TestRecords:
    def test_motifs(self, tmp_path):
        record = run_experiment(L2ROnMotifs(), scale="quick", seeds=1, state_dir=tmp_path)
        assert {row["arm"] for row in record["rows"]} == set(ARMS) - {BALANCED}
        assert {test for row in record["rows"] for test in row["test"]} == {"unbiased", "reversed"}
        assert write_figure(tmp_path / "figure.png", L2ROnMotifs(), record)

    @pytest.mark.parametrize(("kind", "name"), [(L2RBySize, "PROTEINS"), (L2RByScaffold, "BBBP")])
    def test_graphs(self, kind, name, tmp_path):
        experiment = kind({name: motifs})
        record = run_experiment(experiment, scale="quick", seeds=1, state_dir=tmp_path)
        assert {row["arm"] for row in record["rows"]} >= {"ERM", POOLED, *FORMS}
        figure = Figure()
        experiment.draw(record, figure.subplots())
        assert figure.axes

    def test_registered(self):
        assert isinstance(load_experiment("effect.l2r_motif"), L2ROnMotifs)
