"""The experiments on graphs, on sets so small that each runs in a second or two."""

import json
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Data
from torch_geometric.datasets import TUDataset

from experiments.graphs import gin_tu
from experiments.graphs.gin_tu import GINOnTU
from experiments.loading import graph_epoch
from experiments.loading.graph_epoch import GraphEpochSpeed
from experiments.loading.graph_loader import GraphLoaderSpeed, require_equal_epochs
from experiments.loading.graph_sets import GraphSetStatistics, generated_graphs, graph_set, tu_graphs
from graphseq.bench import load_experiment
from graphseq.bench.experiment import Experiment
from graphseq.bench.records import write_figure
from graphseq.bench.runner import run_experiment
from graphseq.data import BatchLoader, GraphStore, TUDataModule

TINY = GraphSetStatistics(60, 9.0, 4.0, 20.0, labels=3, attributes=1)


def tiny():
    return generated_graphs(TINY)


def record_of(experiment, tmp_path, **options):
    record = run_experiment(experiment, scale="quick", seeds=1, state_dir=tmp_path, **options)
    json.dumps(record, allow_nan=False)
    assert write_figure(tmp_path / "figure.png", experiment, record)
    assert (tmp_path / "figure.png").stat().st_size > 5_000
    return record


class TestGraphSets:
    @given(
        st.integers(1, 40),
        st.floats(3, 60),
        st.floats(0.1, 1.5),
        st.floats(0.2, 8),
        st.integers(0, 3),
        st.integers(0, 10_000),
    )
    @settings(deadline=None, max_examples=40)
    def test_generated_graphs_are_valid(self, count, nodes, spread, degree, attributes, seed):
        sizes = GraphSetStatistics(count, nodes, spread * nodes, degree * nodes, labels=4, attributes=attributes)
        dataset = generated_graphs(sizes, seed)
        assert len(dataset) == count
        for graph in dataset:
            graph.validate()
            assert graph.x.shape == (graph.num_nodes, attributes + 4)
            assert graph.x[:, attributes:].sum(1).eq(1).all()
            edges = graph.edge_index.t().tolist()
            assert sorted(edges) == sorted([b, a] for a, b in edges)

    @pytest.mark.parametrize("name", ["PROTEINS", "NCI1"])
    def test_generated_graphs_have_the_statistics_of_the_set(self, name):
        dataset = graph_set(f"generated like {name}")
        published = {"PROTEINS": (1113, 39.06, 2 * 72.82, 4), "NCI1": (4110, 29.87, 2 * 32.30, 37)}[name]
        graphs, nodes, edges, width = published
        assert len(dataset) == graphs
        assert dataset.x.size(0) / graphs == pytest.approx(nodes, rel=0.1)
        assert dataset.edge_index.size(1) / graphs == pytest.approx(edges, rel=0.1)
        assert dataset.x.size(1) == width

    def test_tu_graphs_are_pygs_and_leave_the_raw_files_alone(self, mirror, tmp_path):
        dataset = tu_graphs("MUTAG")
        assert isinstance(dataset, TUDataset)
        store = TUDataModule("MUTAG").graphs
        assert len(dataset) == len(store) == 188
        assert torch.equal(dataset[5].edge_index, store[5].edge_index)


class TestGraphLoader:
    def test_record(self, tmp_path):
        record = record_of(GraphLoaderSpeed({"tiny": tiny()}), tmp_path)
        assert [(row["data"], row["batch_size"]) for row in record["rows"]] == [("tiny", b) for b in (32, 128, 512)]
        for row in record["rows"]:
            assert row["ratio_low"] <= row["ratio"] <= row["ratio_high"]
            assert row["batches"] == "equal"
            assert row["packed_mb"] == pytest.approx(sum(v.nbytes for v in tiny()._data.to_dict().values()) / 1e6)
        assert [check["bound"] for check in record["checks"]] == [12, 20]

    def test_known_by_name_with_data_and_generated_arms(self):
        cells = load_experiment("speed.graph_loader").cells("default", 5)
        assert {cell["data"] for cell in cells} == {
            "PROTEINS", "NCI1", "generated like PROTEINS", "generated like NCI1",
        }  # fmt: skip
        assert len(cells) == 12

    @pytest.mark.parametrize(("ratio", "holds"), [(11.99, [False, False]), (12.0, [True, False]), (20.0, [True, True])])
    def test_smallest_ratio_decides(self, ratio, holds):
        columns = ("ours_ms", "peer_ms", "ratio_low", "ratio_high", "copies", "ours_peak_mb", "peer_peak_mb")
        rows = [
            {"data": "a", "batch_size": size, "ratio": value, **dict.fromkeys(columns, 1.0)}
            for size, value in ((32, 30.0), (128, ratio), (512, 25.0))
        ]
        checks = GraphLoaderSpeed().conclude(rows).checks
        assert [check.holds for check in checks] == holds
        assert all(check.value == ratio and "batches of 128" in check.claim for check in checks)

    def test_without_data_the_rows_are_visible_skips(self, own_cache, no_network, monkeypatch, tmp_path):
        monkeypatch.delenv("GRAPHSEQ_MIRROR", raising=False)
        graph_set.cache_clear()

        class Real(GraphLoaderSpeed):
            def cells(self, scale, seeds):
                return [{"data": "NCI1", "batch_size": 32}]

        (row,) = run_experiment(Real(), scale="quick", state_dir=tmp_path)["rows"]
        assert row["skipped"].startswith("NCI1 is not here")

    @pytest.mark.parametrize("field", ["x", "edge_index", "y"])
    def test_a_changed_value_stops_the_experiment(self, field):
        dataset, store = tiny(), GraphStore.from_dataset(tiny())
        dataset._data[field] = dataset._data[field].clone()
        dataset._data[field].view(-1)[7] += 1
        with pytest.raises(RuntimeError, match=field):
            require_equal_epochs(BatchLoader(store, 16, shuffle=True), dataset)

    def test_a_missing_field_or_other_type_stops_the_experiment(self):
        store = GraphStore.from_dataset([Data(x=g.x, edge_index=g.edge_index, y=g.y, z=g.y) for g in tiny()])
        with pytest.raises(RuntimeError, match="z"):
            require_equal_epochs(BatchLoader(store, 16, shuffle=False), tiny())
        store = GraphStore.from_dataset([Data(x=g.x, edge_index=g.edge_index, y=g.y.int()) for g in tiny()])
        with pytest.raises(RuntimeError, match="y"):
            require_equal_epochs(BatchLoader(store, 16, shuffle=False), tiny())

    def test_wrong_bookkeeping_stops_the_experiment(self, monkeypatch):
        build, built = GraphStore._batch, []

        def wrong(self, mapping, num_graphs, slices, increments, hidden):
            built.append(num_graphs)
            shift = 1 if len(built) == 2 else 0  # in a batch whose single graphs are not compared
            shifted = {name: value + shift if name == "y" else value for name, value in increments.items()}
            return build(self, mapping, num_graphs, slices, shifted, hidden)

        monkeypatch.setattr(GraphStore, "_batch", wrong)
        loader = BatchLoader(GraphStore.from_dataset(tiny()), 16, shuffle=True)
        with pytest.raises(RuntimeError, match="to_data_list"):
            require_equal_epochs(loader, tiny())


class TestGraphEpoch:
    def test_record(self, tmp_path):
        record = record_of(GraphEpochSpeed({"tiny": tiny()}), tmp_path)
        plain, trainer = record["rows"]
        assert (plain["loop"], trainer["loop"]) == ("plain", "Trainer")
        assert 0 < plain["ours_loading"] < plain["peer_loading"] < 1
        assert trainer["ours_loading"] is None
        assert record["checks"][0]["holds"]

    def test_other_data_on_one_side_stop_the_experiment(self, monkeypatch):
        class Relabelled(GraphStore):
            @classmethod
            def from_dataset(cls, dataset):
                return super().from_dataset([Data(x=g.x, edge_index=g.edge_index, y=1 - g.y) for g in dataset])

        monkeypatch.setattr(graph_epoch, "GraphStore", Relabelled)
        with pytest.raises(RuntimeError, match="losses of the first epoch differ"):
            GraphEpochSpeed({"tiny": tiny()}).run({"data": "tiny", "loop": "plain"}, "quick")

    def test_waiting_is_counted_and_nothing_else(self):
        import time

        def slow():
            for item in range(3):
                time.sleep(0.02)
                yield item

        waiting = graph_epoch._Waiting(slow())
        for _ in waiting:
            time.sleep(0.05)
        assert 0.06 <= waiting.seconds < 0.15


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
