import pytest

import graphseq.models
from graphseq.bench import load_experiment
from graphseq.models import num_real_parameters


@pytest.fixture(scope="module")
def made():
    return load_experiment("effect.cmusenet")


def test_detector_beats_an_empty_mask_whose_accuracy_is_high(made):
    rows = {arm: made.run({"arm": arm, "seed": 4200}, "quick") for arm in ("energy detector", "empty mask")}
    scores = {arm: row["test"][""] for arm, row in rows.items()}
    assert scores["empty mask"]["iou"] == 0
    assert scores["empty mask"]["acc"] > 0.6
    assert scores["energy detector"]["iou"] > 0.4
    by_snr = rows["energy detector"]["iou_by_snr"]
    assert list(by_snr) == [f"{ratio}" for ratio in range(-10, 11, 2)]
    assert sum(by_snr.values()) / 11 == pytest.approx(scores["energy detector"]["iou"], abs=1e-6)


def test_epoch_at_which_the_score_of_the_twin_is_reached(made):
    curves = {"parts": [0.1, 0.5, 0.4], "complex": [0.2, 0.4, 0.6]}
    rows = [{"arm": arm, "seed": seed, "curve": curve} for arm, curve in curves.items() for seed in (0, 1)]
    rows[1] = {"arm": "parts", "seed": 1, "curve": [0.1, 0.9, 0.9]}
    claim = next(claim for claim in made.claims if claim.letter == "D")
    assert claim.check(made.results(rows))[0].value == (2 + 13) / 2


def test_networks_have_equal_parameters(made):
    numbers = {}
    for arm in ("parts", "magnitude", "complex"):
        network = made.config_of({"arm": arm, "seed": 4200}, "quick")["model"]["init_args"]["model"]
        kind = getattr(graphseq.models, network["class_path"].rpartition(".")[2])
        numbers[arm] = num_real_parameters(kind(256, **network["init_args"]))
    assert numbers == {"parts": 319217, "magnitude": 319112, "complex": 319096}
