"""Effects of pointer networks and recurrent cells: the rule that learns nothing, and the scores."""

import pytest
import torch

from graphseq.bench import load_experiment


def test_polygon_of_the_extremes_has_each_corner_once():
    from experiments.sequence.pointer_hull import extremes

    points = torch.tensor([
        [[0.0, 0.5], [0.5, 0.0], [1.0, 0.5], [0.5, 1.0], [0.5, 0.5]],
        [[0.0, 0.0], [0.5, 0.4], [1.0, 1.0], [0.6, 0.5], [0.5, 0.5]],
    ])  # fmt: skip
    assert extremes(points).tolist() == [[0, 1, 2, 3], [0, 2, -100, -100]]


def test_polygons_that_are_not_simple_cover_nothing():
    from experiments.sequence.pointer_hull import covered

    assert covered({"area": 0.9, "simple": 0.5}) == 0.45
    assert covered({"area": float("nan"), "simple": 0.0}) == 0.0


def test_larger_sets_are_for_pointer_networks_alone():
    made = load_experiment("effect.pointer_hull")
    point, rule = ({"acc": value, "area": value} for value in (4.0, 1.0))
    larger = {"larger": {size: {"network": point, "extremes": rule} for size in ("8", "12")}}
    rows = []
    for arm, acc in zip(made.arms, (0.5, 0.6, 0.6, 0.8, 0.7), strict=True):
        for seed in range(500, 503):
            test = {"acc": acc + seed / 1e4, "area": 0.9, "simple": 1.0}
            rows.append({"arm": arm, "seed": seed, "val": 0.5, "test": {"": test}, **(larger if acc > 0.6 else {})})
    checks = {check.claim[1]: check.holds for check in made.conclude(rows).checks}
    assert checks == {"A": True, "B": True, "C": True, "D": True, "E": True, "F": False}
    assert made.conclude(rows).verdict == "reproduced"


@pytest.mark.parametrize(("found", "score"), [({"rmse": 0.5, "mae": 0.4}, -0.5), ({"acc": 0.7}, 0.7)])
def test_scores_of_both_tasks(found, score):
    from experiments.sequence.lstm_gates import score as read

    assert read({"test": {"": found}}) == pytest.approx(score)
