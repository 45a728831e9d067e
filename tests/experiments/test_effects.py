"""The effects of the repository: each is well formed, and what configs cannot say does what it is to do."""

import pytest
import torch

from graphseq.bench import Effect, experiments, load_experiment

EFFECTS = [name for name in experiments() if name.startswith("effect.")]


@pytest.mark.parametrize("name", EFFECTS)
def test_declaration(name):
    made = load_experiment(name)
    assert isinstance(made, Effect)
    assert made.summary
    assert made.protocol
    cells = made.cells("default", None)
    assert len({str(cell) for cell in cells}) == len(cells)
    assert {cell["arm"] for cell in cells} == set(made.arms)
    assert made.cells("quick", None)
    for cell in cells[:: max(1, len(cells) // 20)]:
        made.config_of(cell, "quick")


def test_bad_letters_of_l2r_decide_setting_by_setting():
    made = load_experiment("effect.l2r_size")
    rows = [
        {"data": data, "arm": arm, "seed": seed, "val": 0.5 + (arm == "L2R, unrolled") * 0.1, "ess": 1.0,
         "test": {"": {"acc": 0.5 + seed / 100 + (arm == "L2R, unrolled") * (0.2 if data == "NCI1" else 0.0)}}}
        for data in ("PROTEINS", "NCI1", "IMDB-BINARY") for arm in made.arms for seed in range(100, 103)
    ]  # fmt: skip
    conclusion = made.conclude(rows)
    assert conclusion.verdict == "partly"
    assert [check.holds for check in conclusion.checks] == [False, False, True, True, False, False]
    assert all("L2R, unrolled less" in check.claim for check in conclusion.checks)


def test_motif_cell_is_the_public_task_on_two_tests():
    made = load_experiment("effect.l2r_motif")
    row = made.run({"data": "bias 0.97", "arm": "L2R, first order", "seed": 100}, "quick")
    assert set(row["test"]) == {"reversed", "unbiased"}
    assert len(row["tried_val"]) == 3
    assert 0 < row["ess"] <= 1


def test_pooled_motif_graphs_are_trained_and_chosen_on():
    from experiments.l2r.shifts import MotifShift

    data = MotifShift(num_train=10, num_val=6, num_test=4, pool=True)
    assert len(data.splits["train"]) == len(data.splits["val"]) == 16


def test_weights_of_the_selected_sample_repeat_and_lower_the_error():
    made = load_experiment("effect.l2r_selection_bias")
    cell = {"samples": 1000, "arm": "clusters S | V", "seed": 100}
    torch.manual_seed(0)
    first = made.run(cell, "quick")
    torch.manual_seed(1)
    assert made.run(cell, "quick") == pytest.approx(first, rel=1e-4)  # the order of sums may differ in the last bit
    assert first["rmse"] < made.run({**cell, "arm": "uniform (OLS)"}, "quick")["rmse"]


def test_fifty_steps_go_on_over_passes():
    from experiments.graphs.gin_tu import Steps

    steps = Steps([1, 2, 3], 4)
    assert [list(steps), list(steps)] == [[1, 2, 3, 1], [2, 3, 1, 2]]


def test_epoch_of_the_published_protocol_is_one_for_all_folds():
    from experiments.graphs.gin_tu import FAIRLY, GIN

    made = load_experiment("effect.gin_tu")
    curves = {0: [0.5, 0.9, 0.6], 1: [0.5, 0.2, 0.7]}
    rows = [
        {"data": "NCI1", "arm": arm, "seed": fold, "curve": curve, "test": {"": {"acc": 0.25}}}
        for arm in (GIN, FAIRLY) for fold, curve in curves.items()
    ]  # fmt: skip
    results = made.results(rows)
    assert results.values(f"{GIN}@NCI1") == {0: 60.0, 1: 70.0}
    assert results.values(f"{FAIRLY}@NCI1") == {0: 25.0, 1: 25.0}


def test_models_beside_the_best_mode_of_edgebank():
    made = load_experiment("effect.tgn_wikipedia")
    ap = {"TGN": 0.9, "EdgeBank, window": 0.5, "EdgeBank, unlimited": 0.7}
    rows = [
        {"data": data, "arm": arm, "seed": seed, "test": {kind: {"ap": value} for kind in made.tests}}
        for data in ("Wikipedia", "Enron") for arm, value in ap.items() for seed in range(2)
        if data == "Wikipedia" or arm == "TGN"
    ]  # fmt: skip
    table = {(line["data"], line["arm"]): line for line in made.conclude(rows).table}
    assert table["Wikipedia", "TGN"]["over EdgeBank"] == pytest.approx(dict.fromkeys(made.tests, 0.2))
    assert table["Wikipedia", "EdgeBank, window"]["over EdgeBank"]["random"] == pytest.approx(-0.2)
    assert table["Enron", "TGN"]["over EdgeBank"] == {}


def test_share_of_exact_memories_needs_a_gain():
    made = load_experiment("effect.pres")

    def checks(exact):
        gains = {"none": 0.0, "pcs": 0.01, "mcs": 0.0, "exact": exact}
        rows = [
            {"setting": "JODIE 2000", "arm": arm, "seed": seed, "test": {"": {"ap": 0.5 + seed / 100 + gain}}}
            for arm, gain in gains.items() for seed in range(3)
        ]  # fmt: skip
        return {check.claim: check for check in made.conclude(rows).checks}

    share = "(X) share of the gain of exact that pcs reaches"
    assert checks(0.02)[share].value == pytest.approx(0.5)
    assert checks(0.0)[share].value is None
    assert not checks(0.0)[share].holds


def test_edgebank_stands_beside_pres_on_every_stream():
    made = load_experiment("effect.pres")
    cells = [cell for cell in made.cells("default", None) if cell["arm"] == "EdgeBank"]
    streams = ["JODIE 200", "TGN 200", "Enron 200", "Bitcoin OTC 200", "PrimarySchool 200"]
    assert sorted({cell["setting"] for cell in cells}) == sorted(streams)
    for cell in cells[:: len(cells) // 5]:
        config = made.config_of(cell, "default")
        assert config["model"]["init_args"]["model"]["class_path"] == "graphseq.models.EdgeBank"
        assert config["trainer"]["max_epochs"] == 1


def test_known_drift_is_corrected_at_large_batches():
    made = load_experiment("effect.pres")
    row = made.run({"setting": "drift known 2000", "arm": "none", "seed": 100}, "default")
    assert row["distance"]["corrected"] < row["distance"]["plain"]


def test_drifting_stream_trains_through_the_public_task():
    row = load_experiment("effect.pres").run({"setting": "controlled 2000", "arm": "by time", "seed": 100}, "quick")
    assert 0 < row["test"][""]["ap"] <= 1
