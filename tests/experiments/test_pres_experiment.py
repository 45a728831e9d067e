"""The experiment on PRES, on streams so small that each cell takes a moment."""

import json
import math

import pytest
import torch

from experiments.pres import memory as pres_memory
from experiments.pres import pres
from experiments.pres import rule as pres_rule
from experiments.pres import training as pres_training
from experiments.pres.pres import PRESAtLargeBatch
from experiments.pres.rule import CHOSEN, Groups, checks_of, choice
from experiments.pres.training import ARMS, FORMS, Arm, build_network, data_of, drifting_stream, train
from graphseq.bench.records import write_figure
from graphseq.bench.runner import run_experiment

STREAMS = ("Wikipedia", "CollegeMsg", "Enron", "Bitcoin OTC")


def tiny(seed=0):
    return drifting_stream(600, 12, seed)


class Small(PRESAtLargeBatch):
    """Every part, with fewer arms."""

    def cells(self, scale, seeds):
        kept = {"none", "pcs", "mcs", "both", "adaptive"}
        return [
            cell
            for cell in super().cells(scale, seeds)
            if cell.get("arm", "none") in kept and not (cell.get("network") == "TGN" and cell["arm"] == "pcs")
        ]


def small(monkeypatch):
    """The quick scale on a few events."""
    size = pres._Size(600, 4, 600, 4, 1, 1, 1, 1, 600, (200, 400), 300, {10: 1, 2000: 1}, False)
    monkeypatch.setitem(pres._SIZES, "quick", size)
    shorter = {name: (min(batch, 200), arm) for name, (batch, arm) in pres_memory.ROLLOUTS.items()}
    monkeypatch.setattr(pres_memory, "ROLLOUTS", shorter)
    return Small({name: tiny() for name in STREAMS})


class TestRecord:
    def test_every_part_runs_and_is_drawn(self, monkeypatch, tmp_path):
        experiment = small(monkeypatch)
        record = run_experiment(experiment, scale="quick", seeds=1, state_dir=tmp_path)
        json.dumps(record, allow_nan=False)
        assert not [row for row in record["rows"] if "skipped" in row]
        assert record["verdict"] in ("reproduced", "partly", "not reproduced")
        assert {row["part"] for row in record["rows"]} == {
            "train", "choose", "unseen", "memory", "controlled", "known drift",
        }  # fmt: skip
        for row in record["rows"]:
            if row["part"] == "train":
                assert row["steps"] == row["epochs"] * -(-420 // row["batch"]) or row["arm"] == "adaptive"
                assert ("gamma" in row) == (row["arm"] in ("pcs", "both"))
                assert ("own_test_ap" in row) == (row["batch"] != 200)
            if row["part"] == "choose":
                assert "test_ap" not in row
                assert 0 < row["val_ap"] <= 100
        assert write_figure(tmp_path / "figure.png", experiment, record)
        assert (tmp_path / "figure.png").stat().st_size > 5_000

    def test_cells_of_the_default_scale(self):
        cells = PRESAtLargeBatch().cells("default", 5)
        confirmatory = [
            cell
            for cell in cells
            if (cell["part"], cell.get("network"), cell.get("batch"), cell.get("epochs"))
            == ("train", "JODIE", 2000, 20)
        ]
        assert {cell["arm"] for cell in confirmatory} == set(ARMS)
        assert all(sum(cell["arm"] == arm for cell in confirmatory) == 10 for arm in ARMS)
        steps = {(cell["batch"], cell["epochs"]) for cell in cells if cell.get("network") == "JODIE"}
        assert steps == {(200, 20), (800, 20), (2000, 20), (200, 5), (2000, 50)}
        tried = {cell["seed"] for cell in cells if cell["part"] == "choose"}
        assert not tried & {cell["seed"] for cell in cells if cell["part"] != "choose"}
        assert not {cell["data"] for cell in cells if cell["part"] == "choose"} & set(pres_rule.UNSEEN)

    def test_without_data_cells_are_skipped(self, own_cache, no_network, monkeypatch):
        monkeypatch.delenv("GRAPHSEQ_MIRROR", raising=False)
        pres_training.read_stream.cache_clear()
        experiment = PRESAtLargeBatch()
        with pytest.raises(pres_training.SkipCell, match="Wikipedia is not here"):
            experiment.run(experiment.cells("quick", 1)[0], "quick")


class TestTraining:
    def test_arms_of_a_seed_start_from_the_same_weights(self):
        networks = []
        for arm in ("none", "both"):
            data = data_of(tiny(), ARMS[arm], 50, 3)
            torch.manual_seed(3)
            networks.append(build_network("JODIE", data, ARMS[arm], 8))
        plain, corrected = (dict(network.named_parameters()) for network in networks)
        assert set(corrected) - set(plain) == {"corrector.gate"}
        assert all(torch.equal(plain[name], corrected[name]) for name in plain)

    def test_an_open_gate_is_the_plain_network(self):
        options = {"batch_size": 50, "epochs": 2, "seed": 0, "learning_rate": 0.01, "dim": 8}
        plain = train(tiny(), "JODIE", ARMS["none"], **options)
        open_gate = train(tiny(), "JODIE", Arm(correction=True, gamma=1.0, gate_speed=0.0), **options)
        half_open = train(tiny(), "JODIE", Arm(correction=True, gamma=0.5, gate_speed=0.0), **options)
        assert (open_gate["val_ap"], open_gate["test_ap"]) == (plain["val_ap"], plain["test_ap"])
        assert half_open["val_ap"] != plain["val_ap"]

    def test_equal_seeds_give_equal_rows(self):
        options = {"batch_size": 50, "epochs": 2, "seed": 1, "learning_rate": 0.01, "dim": 8, "own_batch": True}
        first, second = (train(tiny(), "TGN", ARMS["both"], **options) for _ in range(2))
        assert {**first, "seconds_per_epoch": 0} == {**second, "seconds_per_epoch": 0}

    def test_looking_at_the_test_changes_no_training(self):
        options = {"batch_size": 50, "epochs": 3, "seed": 1, "learning_rate": 0.01, "dim": 8}
        tested, untested = (train(tiny(), "JODIE", ARMS["both"], **options, tested=flag) for flag in (True, False))
        assert tested["val_ap"] == untested["val_ap"]
        assert tested["gamma"] == untested["gamma"]
        assert "test_ap" not in untested

    def test_adaptive_needs_no_more_batches_than_fixed(self):
        data = data_of(tiny(), ARMS["adaptive"], 30, 0)
        sizes = [len(batch) for batch in data.batches("train")]
        assert len(sizes) <= 14
        assert max(sizes) <= 120
        assert sum(sizes) == 420
        tighter = type(data.batching)(data.batching.max_pending_ratio - 0.001, 120)
        count = len(tighter.plan(data.events, data.splits["train"], torch.Generator())[1])
        assert count > 14


class TestMemory:
    def test_single_events_have_no_error(self, monkeypatch):
        monkeypatch.setattr(pres_memory, "ROLLOUTS", {"b = 1": (1, ARMS["none"]), "b = 50": (50, ARMS["none"])})
        errors = pres_memory.staleness(tiny(), 0.0, 0, epochs=1, marks=[100, 200], dim=8)
        assert errors["b = 1"] == [0.0, 0.0]
        assert min(errors["b = 50"]) > 0

    def test_known_drift_moved_on_is_nearest_and_grows_with_the_batch(self):
        small, large = pres_memory.known_drift(0, 10), pres_memory.known_drift(0, 2000)
        assert all(large[name] > small[name] for name in small)
        assert large["moved on"] < large["plain"]
        jumps = pres_memory.known_drift(0, 200, gain=1.0, gamma=1.0)
        assert jumps["corrected"] == pytest.approx(jumps["plain"])
        assert jumps["moved on"] < 0.5  # rounding to the nearest of the items is all that is left


def row(part, arm, seed, **values):
    return {"part": part, "arm": arm, "seed": seed, **values}


def rows_of(pcs=1.0, mcs=1.0, four=0.0, control=1.0, memory=0.03, time=0.4):
    """Rows of the parts that decide, with these differences."""
    rows = []
    for seed in range(6):
        noise = 0.01 * seed
        for batch, gains in ((200, {"none": 90.0}), (800, {"none": 90 + four - control, "both": 90 + four}),
                             (2000, {"none": 85.0, "pcs": 85 + pcs, "mcs": 85 + mcs})):  # fmt: skip
            for arm, value in gains.items():
                wiggle = noise if arm != "none" else -noise
                seconds = 1.0 if batch == 200 else time
                cell = {"data": "Wikipedia", "network": "JODIE", "batch": batch, "epochs": 20}
                rows.append(row("train", arm, seed, **cell, test_ap=value + wiggle, seconds_per_epoch=seconds))
        errors = {"b = 10": 0.1, "b = 100": 0.2, "b = 1000": 0.4, "update": 0.4 * (1 - memory - noise / 100)}
        errors = {**dict.fromkeys(pres_memory.ROLLOUTS, 0.5), **errors}
        rows.append(
            row("memory", None, seed, coherence=0.0, errors={key: [value] * 2 for key, value in errors.items()})
        )
    return rows


class TestRule:
    @pytest.mark.parametrize(
        ("differences", "verdict"),
        [
            ({}, "reproduced"),
            ({"pcs": -1.0}, "partly"),
            ({"four": -2.0}, "partly"),
            ({"time": 0.6}, "partly"),
            ({"memory": -0.1}, "partly"),
            ({"pcs": -1.0, "mcs": -1.0, "control": -1.0}, "partly"),
            ({"pcs": -1.0, "mcs": -1.0, "control": -1.0, "memory": -0.1}, "not reproduced"),
        ],
    )
    def test_verdict(self, differences, verdict):
        assert checks_of(Groups(rows_of(**differences)))[1] == verdict

    def test_no_verdict_as_long_as_a_part_is_missing(self):
        assert checks_of(Groups([line for line in rows_of() if line["part"] != "memory"]))[1] is None

    def test_choice_is_the_best_mean_over_both_sets(self):
        gains = {"none": 0.0, "pcs": 0.5, CHOSEN: 2.0}
        rows = [
            row("choose", form, seed, data=data, val_ap=80 + gain + seed)
            for form, gain in gains.items()
            for data in ("Wikipedia", "CollegeMsg")
            for seed in (1000, 1001)
        ]
        found = choice(Groups(rows))
        assert set(found) == {"pcs", CHOSEN}
        assert math.isclose(found[CHOSEN], 2.0)
        held = {check.claim: check.holds for check in checks_of(Groups(rows))[0]}
        assert held["the chosen form is the best on validation"]

    def test_chosen_form_is_known(self):
        assert CHOSEN in FORMS
        assert f'"{CHOSEN}"' in PRESAtLargeBatch.__doc__
