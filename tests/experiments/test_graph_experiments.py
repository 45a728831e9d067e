"""The experiments on graphs, on sets so small that each runs in a second or two."""

import json
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Data

from experiments.graphs import gin_tu
from experiments.graphs.gin_tu import GINOnTU
from graphseq.bench.experiment import Experiment
from graphseq.bench.records import write_figure
from graphseq.bench.runner import run_experiment


def record_of(experiment, tmp_path, **options):
    record = run_experiment(experiment, scale="quick", seeds=1, state_dir=tmp_path, **options)
    json.dumps(record, allow_nan=False)
    assert write_figure(tmp_path / "figure.png", experiment, record)
    assert (tmp_path / "figure.png").stat().st_size > 5_000
    return record


def shapes(count=40, edges=True):
    """Cycles and stars of six nodes with equal labels: they differ in their edges alone."""
    ring = torch.tensor([[i, (i + 1) % 6] for i in range(6)])
    star = torch.tensor([[0, i] for i in range(1, 6)])
    graphs = []
    for position in range(count):
        pairs = (ring, star)[position % 2]
        edge_index = torch.cat([pairs, pairs.flip(1)]).t().contiguous() if edges else torch.zeros(2, 0).long()
        graphs.append(Data(x=torch.ones(6, 1), edge_index=edge_index, y=torch.tensor([position % 2])))
    return graphs


class TestGIN:
    def test_record(self, tmp_path, monkeypatch):
        monkeypatch.setitem(gin_tu._STEPS, "quick", 40)
        experiment = GINOnTU({"shapes": shapes()})
        record = record_of(experiment, tmp_path)
        assert len(record["rows"]) == 6
        accuracy = {line["arm"]: line["accuracy"] for line in record["table"]}
        assert accuracy["GIN, published"] == 100
        assert accuracy["no edges, published"] == accuracy["majority class"] == 50
        (check,) = record["checks"]
        assert check["claim"] == "shapes: better than without edges"
        assert check["holds"]
        assert record["verdict"] == "reproduced"

    def test_the_control_sees_no_edges(self):
        cell = {"data": "shapes", "network": "no edges", "protocol": "published", "seed": 0, "fold": 1}
        rows = [GINOnTU({"shapes": shapes(edges=edges)}).run(cell, "quick") for edges in (True, False)]
        assert rows[0]["train_loss"] == rows[1]["train_loss"]
        gin = GINOnTU({"shapes": shapes()}).run({**cell, "network": "GIN"}, "quick")
        assert gin["train_loss"] != rows[0]["train_loss"]

    def test_only_the_fair_protocol_has_an_inner_validation(self):
        cell = {"data": "shapes", "network": "GIN", "protocol": "fair", "seed": 0, "fold": 0}
        experiment = GINOnTU({"shapes": shapes()})
        assert len(experiment.run(cell, "quick")["val_accuracy"]) == 2
        assert "val_accuracy" not in experiment.run({**cell, "protocol": "published"}, "quick")

    def test_seeds_repeat_the_folds_at_full_scale_only(self):
        experiment = GINOnTU()
        assert len(experiment.cells("default", 5)) == 90
        assert len(experiment.cells("full", 2)) == 180
        assert isinstance(experiment, Experiment)

    def rows(self, curves, protocol="published", network="GIN", data="NCI1"):
        common = {"data": data, "network": network, "protocol": protocol, "seed": 0, "majority_accuracy": 50.0}
        return [{**common, "fold": fold, **curve} for fold, curve in enumerate(curves)]

    @given(st.lists(st.lists(st.integers(0, 100), min_size=4, max_size=4), min_size=2, max_size=6))
    @settings(deadline=None)
    def test_published_protocol_takes_the_epoch_with_the_best_mean(self, curves):
        rows = self.rows([{"test_accuracy": curve} for curve in curves])
        line = GINOnTU().conclude(rows).table[0]
        best = max(range(4), key=lambda epoch: sum(curve[epoch] for curve in curves))
        values = [curve[best] for curve in curves]
        assert line["accuracy"] == pytest.approx(statistics.fmean(values))
        assert line["deviation"] == pytest.approx(statistics.stdev(values))

    def test_fair_protocol_chooses_on_the_validation_cut_of_each_fold(self):
        curves = [
            {"val_accuracy": [60, 80, 80], "val_loss": [0.5, 0.4, 0.3], "test_accuracy": [99, 98, 70]},
            {"val_accuracy": [90, 80, 80], "val_loss": [0.9, 0.4, 0.3], "test_accuracy": [60, 98, 99]},
        ]
        line = GINOnTU().conclude(self.rows(curves, protocol="fair")).table[0]
        assert line["arm"] == "GIN, fair"
        assert line["accuracy"] == (70 + 60) / 2

    @pytest.mark.parametrize(
        ("accuracy", "control", "verdict"),
        [
            ({"MUTAG": 83.9, "PROTEINS": 73.5, "NCI1": 81.1}, 70.0, "reproduced"),
            ({"MUTAG": 99.0, "PROTEINS": 99.0, "NCI1": 99.0}, 70.0, "reproduced"),
            ({"MUTAG": 83.7, "PROTEINS": 73.5, "NCI1": 81.1}, 70.0, "partly"),
            ({"MUTAG": 83.9, "PROTEINS": 73.3, "NCI1": 81.1}, 70.0, "partly"),
            ({"MUTAG": 83.9, "PROTEINS": 73.5, "NCI1": 80.9}, 70.0, "partly"),
            ({"MUTAG": 83.9, "PROTEINS": 73.5, "NCI1": 81.1}, 81.1, "partly"),
            ({"MUTAG": 60.0, "PROTEINS": 60.0, "NCI1": 60.0}, 61.0, "not reproduced"),
        ],
    )
    def test_rule(self, accuracy, control, verdict):
        rows = []
        for data, value in accuracy.items():
            spread = [{"test_accuracy": [value + shift]} for shift in (-1.0, 0.0, 1.0)]
            rows += self.rows(spread, data=data)
        spread = [{"test_accuracy": [control + shift]} for shift in (-1.1, 0.0, 1.1)]
        rows += self.rows(spread, network="no edges")
        conclusion = GINOnTU().conclude(rows)
        assert len(conclusion.checks) == 4
        assert conclusion.verdict == verdict

    def test_no_verdict_while_a_set_is_missing(self):
        assert GINOnTU().conclude(self.rows([{"test_accuracy": [99.0]}] * 2)).verdict is None
