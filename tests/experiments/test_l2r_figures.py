"""The experiments on selected samples: what is compared and concluded."""

import pytest
import torch

from experiments.l2r import l2r_selection_bias
from experiments.l2r.l2r_selection_bias import SelectionBias
from graphseq.bench import load_experiment
from graphseq.bench.records import write_figure
from graphseq.bench.runner import run_experiment


def bias_rows(clusters, pairs, plain, clusters_ess=0.3, pairs_ess=0.1):
    """Three seeds of three arms; deviations over tests follow the errors."""
    given = {"clusters S | V": (clusters, clusters_ess), "all pairs": (pairs, pairs_ess), "uniform (OLS)": (plain, 1.0)}
    return [
        {
            "samples": 1000,
            "arm": arm,
            "seed": seed,
            "rmse": error + 0.001 * (seed * (1 + place) % 3),
            "deviation": error / 2 + 0.001 * (seed * (2 + place) % 3),
            "worst": 2 * error,
            "ess": ess,
            "slope_v1": 0.0,
        }
        for place, (arm, (error, ess)) in enumerate(given.items())
        for seed in range(3)
    ]


class TestSelectionBias:
    def test_quick_scale_runs_every_arm_and_the_cell_repeats(self, tmp_path):
        record = run_experiment(load_experiment("effect.l2r_selection_bias"), scale="quick", state_dir=tmp_path)
        seeds = {row["seed"] for row in record["rows"]}
        assert len({row["arm"] for row in record["rows"]}) == 8
        assert len(record["rows"]) == 8 * len(seeds)
        assert all(0 < row["ess"] <= 1 and row["worst"] >= row["rmse"] > 0.3 for row in record["rows"])
        cell = {"samples": 100, "arm": "clusters found", "seed": 5}
        first, second = (SelectionBias().run(cell, "quick") for _ in range(2))
        assert first["ess"] == second["ess"]
        assert first == pytest.approx(second, rel=1e-5)  # float32 least squares round by the alignment of memory
        assert write_figure(tmp_path / "figure.png", SelectionBias(), record)

    @pytest.mark.parametrize(
        ("rows", "verdict", "held"),
        [
            (bias_rows(0.6, 0.8, 1.0), "reproduced", [True, True, True, True]),
            (bias_rows(0.7, 0.6, 1.0), "partly", [True, True, True, False]),
            (bias_rows(0.6, 0.8, 1.0, clusters_ess=0.15), "partly", [True, True, False, True]),
            (bias_rows(1.1, 0.9, 1.0, clusters_ess=0.1), "not reproduced", [False, False, False, False]),
            (bias_rows(0.96, 0.97, 1.0), "partly", [False, False, True, True]),  # less than 5 % and 20 %
        ],
    )
    def test_rule(self, rows, verdict, held):
        conclusion = SelectionBias().conclude(rows)
        assert (conclusion.verdict, [check.holds for check in conclusion.checks]) == (verdict, held)

    def test_one_seed_gives_no_verdict(self):
        assert SelectionBias().conclude(bias_rows(0.6, 0.8, 1.0)[::3]).verdict is None

    def test_selection_ties_the_first_other_variable_to_the_outcome_in_the_sense_of_its_sign(self):
        generator = torch.Generator().manual_seed(0)
        for bias, sign in ((1.7, 1), (-3.0, -1)):
            x, y, log_kept = l2r_selection_bias._selected(500, bias, generator)
            assert x.shape == (500, 10)
            assert bool((log_kept <= 0).all())
            assert sign * float(torch.corrcoef(torch.stack([x[:, 5], y]))[0, 1]) > 0.5
