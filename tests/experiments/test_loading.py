"""The speed experiments on loading, on tiny data: what they compare, skip, measure and claim."""

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Data
from torch_geometric.datasets import TUDataset

import graphseq.bench.speeds.speed as harness
from experiments.loading import graph_epoch, graph_loader, image_loader
from experiments.loading.graph_sets import graph_set, tu_graphs
from graphseq.bench import generated_graphs, load_experiment
from graphseq.bench.records.files import write_figure
from graphseq.bench.runner import run_experiment
from graphseq.bench.speeds.speed import OutputsDiffer, SkipCell
from graphseq.data import BatchLoader, GraphStore, TensorStore, TUDataModule
from tests.reference import image_transforms as reference


def tiny(name="tiny"):
    return generated_graphs(60, 9.0, 4.0, 20.0, labels=3, attributes=1)


def never(*args, **kwargs):
    raise AssertionError("timed although the outputs differ")


def median_row(case, median, pair="ours/PyG"):
    ratio = {pair: {"median": median, "low": median, "high": median}}
    ms = {"ours": 1.0, "PyG": median, "DataLoader": median}
    return {**case, "rounds": 3, "ms": ms, "ratio": ratio, "versions": {}}


def measured(experiment, tmp_path):
    record = run_experiment(experiment, scale="quick", state_dir=tmp_path)
    json.dumps(record, allow_nan=False)
    assert write_figure(tmp_path / "figure.png", experiment, record)
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
        dataset = generated_graphs(count, nodes, spread * nodes, degree * nodes, 4, attributes, seed)
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


def subject(store=None, dataset=None, shuffle=True):
    loader = BatchLoader(GraphStore.from_dataset(tiny()) if store is None else store, 16, shuffle=shuffle)
    return graph_loader.Subject(tiny() if dataset is None else dataset, loader, "cpu")


class TestGraphLoader:
    def test_a_row(self, monkeypatch):
        monkeypatch.setattr(graph_loader, "graph_set", tiny)
        row = graph_loader.speed.run({"data": "PROTEINS", "batch_size": 32}, "quick")
        ratio = row["ratio"]["ours/PyG"]
        assert 0 < ratio["low"] <= ratio["median"] <= ratio["high"]
        assert row["graphs"] == 60
        assert row["versions"]["PyG"].startswith("torch-geometric")
        assert row["limit"]["bytes"] >= 2 * sum(value.nbytes for value in tiny()._data.to_dict().values())

    def test_known_by_name_with_data_and_generated_arms(self):
        cells = load_experiment("speed.graph_loader").cells("default", 5)
        assert len(cells) == 12
        assert {cell["data"] for cell in cells} >= {"PROTEINS", "generated like NCI1"}

    @pytest.mark.parametrize(
        ("median", "holds"), [(11.99, [False, False]), (12.0, [True, False]), (20.0, [True, True])]
    )
    def test_smallest_ratio_decides(self, median, holds):
        rows = [median_row({"data": "a", "batch_size": size}, value) for size, value in ((32, 30.0), (128, median))]
        checks = graph_loader.speed.conclude(rows).checks
        assert [check.holds for check in checks] == holds
        assert all(check.value == median and "batch_size 128" in check.claim for check in checks)

    def test_without_data_the_rows_are_visible_skips(self, own_cache, no_network, monkeypatch):
        monkeypatch.delenv("GRAPHSEQ_MIRROR", raising=False)
        graph_set.cache_clear()
        with pytest.raises(SkipCell, match="NCI1"):
            graph_loader.speed.run({"data": "NCI1", "batch_size": 32}, "quick")

    @pytest.mark.parametrize("field", ["x", "edge_index", "y"])
    def test_a_changed_value_is_never_timed(self, field, monkeypatch):
        dataset = tiny()
        dataset._data[field] = dataset._data[field].clone()
        dataset._data[field].view(-1)[7] += 1
        monkeypatch.setattr(harness, "alternate", never)
        with pytest.raises(OutputsDiffer, match=field):
            graph_loader.same_epoch(subject(dataset=dataset))

    def test_a_missing_field_or_other_type_is_a_difference(self):
        store = GraphStore.from_dataset([Data(x=g.x, edge_index=g.edge_index, y=g.y, energy=g.y) for g in tiny()])
        with pytest.raises(OutputsDiffer, match="energy"):
            graph_loader.same_epoch(subject(store, shuffle=False))
        store = GraphStore.from_dataset([Data(x=g.x, edge_index=g.edge_index, y=g.y.int()) for g in tiny()])
        with pytest.raises(OutputsDiffer, match="y"):
            graph_loader.same_epoch(subject(store, shuffle=False))

    def test_wrong_bookkeeping_is_a_difference(self, monkeypatch):
        made = subject()
        batches = list(made.loader)
        batches[1]._inc_dict["y"] = batches[1]._inc_dict["y"] + 1
        monkeypatch.setattr(BatchLoader, "__iter__", lambda self: iter(batches))
        monkeypatch.setattr(BatchLoader, "order", lambda self: torch.cat([batch.idx for batch in batches]))
        with pytest.raises(OutputsDiffer, match="batch 1 .*_inc_dict y"):
            graph_loader.same_epoch(made)


class TestGraphEpoch:
    @pytest.fixture(autouse=True)
    def _tiny(self, monkeypatch):
        monkeypatch.setattr(graph_loader, "graph_set", tiny)

    @pytest.mark.parametrize("loop", ["plain", "Trainer"])
    def test_a_row(self, loop):
        row = graph_epoch.speed.run({"data": "NCI1", "loop": loop}, "quick")
        assert row["loss_difference"] <= 1e-5
        assert ("ours loading" in row) == (loop == "plain")
        if loop == "plain":
            assert 0 < row["ours loading"] < 1
        (check,) = graph_epoch.speed.conclude([row]).checks
        assert check.holds

    def test_other_data_on_one_side_are_never_timed(self, monkeypatch):
        class Relabelled(GraphStore):
            @classmethod
            def from_dataset(cls, dataset):
                return super().from_dataset([Data(x=g.x, edge_index=g.edge_index, y=1 - g.y) for g in dataset])

        monkeypatch.setattr(graph_loader, "GraphStore", Relabelled)
        monkeypatch.setattr(harness, "alternate", never)
        with pytest.raises(OutputsDiffer, match="loop plain.*losses"):
            graph_epoch.speed.run({"data": "NCI1", "loop": "plain"}, "quick")


class TestImageLoader:
    @pytest.fixture
    def few(self, monkeypatch):
        monkeypatch.setitem(image_loader._IMAGES, "quick", 600)

    @pytest.mark.slow  # the whole of a quick scale: ten seconds
    def test_quick_scale_runs_without_data_and_says_so(self, few, tmp_path, own_cache, no_network, monkeypatch):
        monkeypatch.delenv("GRAPHSEQ_MIRROR", raising=False)
        record = measured(image_loader.speed, tmp_path)
        skipped = [row for row in record["rows"] if "skipped" in row]
        rows = [row for row in record["rows"] if "skipped" not in row]
        assert [row["data"] for row in skipped] == ["FashionMNIST"] * 4
        assert all("train-images" in row["skipped"] for row in skipped)
        assert [(row["augmentation"], row["workers"]) for row in rows] == [
            (augmentation, workers) for augmentation in ("none", "crop_flip") for workers in (0, 2)
        ]
        for row in rows:
            assert row["images"] == 600
            assert 0 < row["ratio"]["ours/DataLoader"]["median"] < math.inf
        assert len(record["table"]) == 4

    def test_real_images_are_used_where_they_are(self, mirror, no_network):
        pixels, labels = image_loader.images("FashionMNIST", 300)
        assert pixels.shape == (300, 1, 28, 28)
        assert labels[:5].tolist() == [9, 0, 0, 3, 0]  # the published order

    @pytest.mark.parametrize(("medians", "holds"), [((25, 20, 31), True), ((25, 19.9, 31), False)])
    def test_every_row_counts(self, medians, holds):
        cells = image_loader.speed.cells("full", 1)
        rows = [median_row(cell, value, "ours/DataLoader") for cell, value in zip(cells, medians, strict=False)]
        (check,) = image_loader.speed.conclude(rows).checks
        assert (check.value, check.bound, check.holds) == (medians[1], 20, holds)
        assert "data FashionMNIST, augmentation none, workers 2" in check.claim

    def test_samples_of_the_peer_equal_the_reference(self):
        pixels = torch.randint(0, 256, (20, 2, 7, 6), dtype=torch.uint8)
        for number, image in enumerate(pixels):
            top, left, mirror = number % 9, (5 * number) % 9, number % 2 == 1
            expected = reference.crop(image.tolist(), top, left, 4, "zeros")
            expected = reference.flip(expected) if mirror else expected
            assert image_loader.crop_flip(image, top, left, mirror).tolist() == expected

    def test_peer_draws_every_offset_and_mirrors_half(self):
        image = torch.zeros(1, 28, 28, dtype=torch.uint8)
        image[0, 10, 5] = 1
        dataset = image_loader.CropFlip(image.expand(3000, 1, 28, 28), torch.zeros(3000))
        places = torch.stack([dataset[n][0][0].nonzero()[0] for n in range(3000)])
        assert places[:, 0].unique().tolist() == list(range(6, 15))
        assert places[:, 1].unique().tolist() == [*range(1, 10), *range(18, 27)]
        assert abs((places[:, 1] > 14).float().mean() - 0.5) < 0.05

    @pytest.mark.parametrize("augmentation", ["none", "crop_flip"])
    def test_different_outputs_are_never_timed(self, few, monkeypatch, augmentation):
        monkeypatch.setattr(harness, "alternate", never)
        if augmentation == "none":
            monkeypatch.setattr(
                image_loader, "TensorStore", lambda pixels, labels: TensorStore(pixels.flip(-1), labels)
            )
        else:
            monkeypatch.setattr(image_loader, "crop_flip", lambda image, top, left, mirror: image)
        with pytest.raises(OutputsDiffer, match="data random.*batch 0"):
            image_loader.speed.run({"data": "random", "augmentation": augmentation, "workers": 0}, "quick")
