"""The experiments on the speed of temporal training, on tiny streams: what is compared, timed and concluded."""

import math

import pytest
import torch
from matplotlib.figure import Figure

import graphseq.bench.speeds.speed as harness
from experiments.temporal import temporal_scale, temporal_train
from graphseq.bench import busy_stream, even_stream
from graphseq.bench.records.files import write_figure
from graphseq.bench.runner import run_experiment
from graphseq.bench.speeds.speed import OutputsDiffer, SkipCell
from graphseq.data import TemporalDataModule
from graphseq.data.events.synthetic import periodic_events


def small_stream(num_events=360):
    generator = torch.Generator().manual_seed(0)
    return periodic_events(num_events, 60, 30, num_edge_features=1, generator=generator)


@pytest.fixture
def small(monkeypatch):
    """A small stream in place of JODIE Wikipedia, and few steps under the Trainer."""

    def data(name, edge_features, batch_size, max_events):
        return TemporalDataModule(small_stream(), batch_size)

    monkeypatch.setattr(temporal_train, "JODIEDataModule", data)
    monkeypatch.setattr(temporal_train, "_TRAINER_STEPS", 3)


def never(*args, **kwargs):
    raise AssertionError("timed although the outputs differ")


def case(network):
    return {"data": "wikipedia", "network": network, "batch_size": 20}


class TestTraining:
    @pytest.mark.parametrize("network", ["TGN", "memory path", "JODIE"])
    def test_a_row(self, small, network):
        row = temporal_train.speed.run(case(network), "quick")
        assert row["events"] == 252  # 70 of 100
        assert row["compared"] > 0
        others = ["PyG", "paper's form"] if network == "TGN" else ["PyG"]
        assert list(row["ms"]) == ["ours", *others]
        found = row["ratio"]["ours/PyG"]
        assert 0 < found["low"] <= found["median"] <= found["high"] < math.inf
        assert found["median"] == pytest.approx(row["ms"]["PyG"] / row["ms"]["ours"])  # of one round
        assert ("paper's form/PyG" in row["ratio"]) == ("Trainer ms" in row) == (network == "TGN")
        assert row["ours events/s"] == pytest.approx(252e3 / row["ms"]["ours"])

    def test_a_peer_that_is_not_installed_is_a_visible_skip(self, small, monkeypatch):
        def missing(name):
            raise ImportError(f"No module named {name!r}")

        monkeypatch.setattr("experiments.peers.tgm_streams.importlib.import_module", missing)
        with pytest.raises(SkipCell, match=r"TGM: .*tgm\.constants"):
            temporal_train.speed.run(case("TGN of TGM"), "quick")

    @pytest.mark.parametrize(
        ("network", "weight"),
        [
            ("TGN", "embedding.layers.0.edge.weight"),
            ("JODIE", "embedding.weight"),
            ("memory path", "memory.cell.weight_ih"),
        ],
    )
    def test_a_weight_that_differs_stops_before_timing(self, small, monkeypatch, network, weight):
        honest = temporal_train.require_equal

        def perturbed(peer, ours, data):
            copy_to = peer.copy_to

            def copy_wrong(target):
                copy_to(target)
                with torch.no_grad():
                    target.get_parameter(weight).view(-1)[-1] += 1e-3

            peer.copy_to = copy_wrong
            return honest(peer, ours, data)

        monkeypatch.setattr(temporal_train, "require_equal", perturbed)
        monkeypatch.setattr(harness, "interleave", never)
        with pytest.raises(OutputsDiffer, match=f"network {network}.*PyG"):
            temporal_train.speed.run(case(network), "quick")

    @pytest.mark.parametrize(("median", "holds"), [(2.5, [True, False]), (2.3, [False, False]), (4.0, [True, True])])
    def test_claim_and_aim_are_checked_by_row(self, median, holds):
        ratio = {"ours/PyG": {"median": median, "low": median, "high": median}}
        row = {
            "data": "wikipedia",
            "network": "TGN",
            "batch_size": 200,
            "rounds": 3,
            "ms": {"ours": 1.0, "PyG": median},
            "ratio": ratio,
        }
        conclusion = temporal_train.speed.conclude([{**row, "versions": {}}])
        assert [check.holds for check in conclusion.checks] == holds
        assert [check.bound for check in conclusion.checks] == [2.4, 4]
        assert conclusion.checks[0].claim.startswith("claim: TGN, batches of 200: at least 2.4 times as fast as PyG")


class TestStreams:
    def test_busy_part_does_not_depend_on_the_number_of_nodes(self):
        streams = [busy_stream(20_000, nodes, 40, 20, torch.Generator().manual_seed(0)) for nodes in (100, 1000)]
        for stream in streams:
            assert (len(stream), stream.num_sources) == (20_000, stream.num_nodes - 20)
            TemporalDataModule(stream).load()  # which checks it
            count = stream.src.bincount().sort(descending=True).values
            busy = count[:40].double()
            # the k-th busiest of 40 makes 0.7 / sqrt(k) / sum of events, the first 7 of them are well apart
            expected = 14_000 * torch.arange(1.0, 41).double().rsqrt() / torch.arange(1.0, 41).rsqrt().sum()
            if stream.num_nodes == 1000:
                assert torch.allclose(busy, expected, rtol=0.15)
                assert count[40:].max() - count[40:].min() <= 1  # the others in turn
            popular = stream.dst.bincount()[stream.num_sources :]
            assert popular[0] / popular[3] == pytest.approx(2, rel=0.15)

    def test_even_stream_has_no_favourites(self):
        stream = even_stream(20_000, 20, torch.Generator().manual_seed(0))
        count = torch.cat([stream.src, stream.dst]).bincount()
        assert len(count) == 20
        assert torch.allclose(count.double(), torch.full((20,), 2000.0).double(), rtol=0.1)

    def test_no_room_for_others_is_refused(self):
        with pytest.raises(ValueError, match="num_nodes.*60"):
            busy_stream(10, 60, 40, 20, torch.Generator())


def sweep(name, steps, builds):
    sizes = [
        {"nodes": 10 ** (at + 2), "events": 10 ** (at + 3), "distinct": 9.6, "fill": 1.0, "step_peak_mb": 1.0}
        | {"step_us": step, "step_us_low": step / 2, "step_us_high": 2 * step, "epoch_us": 0.1}
        | {"write_us": 0.1, "build_us": build, "build_us_low": build / 2, "build_us_high": 2 * build}
        | {"state_bytes": 833 * 10 ** (at + 2), "data_bytes": 80 * 10 ** (at + 3)}
        for at, (step, build) in enumerate(zip(steps, builds, strict=True))
    ]
    return {"sweep": name, "rounds": 3, "events_a_round": 10, "sizes": sizes}


class TestScale:
    @pytest.fixture
    def tiny(self, monkeypatch):
        monkeypatch.setitem(temporal_scale._NODES, "quick", (100, 400))
        monkeypatch.setitem(temporal_scale._EVENTS, "quick", (600, 1500))
        monkeypatch.setitem(temporal_scale._CORE, "quick", (30, 20))
        monkeypatch.setitem(temporal_scale._EVENTS_A_ROUND, "quick", 300)
        monkeypatch.setattr(temporal_scale, "_BATCH_SIZE", 100)
        monkeypatch.setattr(temporal_scale, "_DIM", 8)

    @pytest.mark.slow  # the whole of a quick scale: ten seconds
    def test_quick_scale_measures_every_size(self, tiny, tmp_path):
        experiment = temporal_scale.speed
        record = run_experiment(experiment, scale="quick", state_dir=tmp_path)
        assert [row["sweep"] for row in record["rows"]] == ["nodes", "events", "nodes, even"]
        sizes = [[(line["nodes"], line["events"]) for line in row["sizes"]] for row in record["rows"]]
        assert sizes == [[(100, 1500), (400, 1500)], [(400, 600), (400, 1500)], [(100, 1500), (400, 1500)]]
        for row in record["rows"]:
            assert (row["rounds"], row["events_a_round"]) == (2, 300)
            for line in row["sizes"]:
                for key in ("step_us", "build_us"):
                    assert 0 < line[f"{key}_low"] <= line[key] <= line[f"{key}_high"] < math.inf
                # the least of the one, since a busy machine may interrupt any of so few rounds
                assert 0 < line["epoch_us_low"] < line["step_us"]
                assert 0 < line["write_us_low"] < line["build_us"]
                assert 0 < line["distinct"] <= line["nodes"]
                assert 0 < line["fill"] <= 1
                assert line["step_peak_mb"] >= 0
                # 8 D + 4 D_e + 21 and the place in the list of distinct nodes
                assert line["state_bytes"] == line["nodes"] * (8 * 8 + 4 + 21 + 8)
                # 28 a column of an event, 8 its number, 32 the index, 8 the split, 4 the negative of 7 in 10
                assert line["data_bytes"] / line["events"] == pytest.approx(78.8, abs=1.0)
        alike = record["rows"][2]["sizes"]
        assert alike[0]["distinct"] < alike[1]["distinct"]
        assert len(record["checks"]) == 4
        assert len(record["table"]) == 6
        assert write_figure(tmp_path / "figure.png", experiment, record)

    @pytest.mark.parametrize("spread", [1.49, 1.51])
    @pytest.mark.parametrize("wrong", ["step", "build"])
    @pytest.mark.parametrize("name", ["nodes", "events"])
    def test_largest_over_smallest_decides(self, name, wrong, spread):
        flat, bent = [10.0, 10.0, 10.0], [10.0 * spread, 10.0, 12.0]  # small sizes may not be slower either
        other = "events" if name == "nodes" else "nodes"
        rows = [
            sweep(name, bent if wrong == "step" else flat, bent if wrong == "build" else flat),
            sweep(other, flat, flat),
            sweep("nodes, even", [1.0, 9.0, 99.0], [1.0, 9.0, 99.0]),  # decides nothing
        ]
        conclusion = temporal_scale.speed.conclude(rows)
        assert len(conclusion.checks) == 4
        failing = [check for check in conclusion.checks if not check.holds]
        assert len(failing) == (spread > 1.5)
        worst = max(conclusion.checks, key=lambda check: check.value)
        what = "training steps" if wrong == "step" else "building"
        span = "100 to 10,000 nodes" if name == "nodes" else "1,000 to 100,000 events"
        assert worst.claim == f"{what}: time of an event is constant within 1.5 from {span}"
        assert worst.value == pytest.approx(spread)
        assert conclusion.verdict is None
        assert [line["state B/node"] for line in conclusion.table] == [833.0] * 9
        assert [line["data B/event"] for line in conclusion.table] == [80.0] * 9

    def test_figure_has_a_band_for_each_line(self):
        rows = [sweep(name, [10.0, 11.0, 12.0], [1.0, 1.0, 1.0]) for name in ("nodes", "events", "nodes, even")]
        figure = Figure()
        record = {"kind": "speed", "verdict": None, "rows": rows, "checks": []}
        temporal_scale.speed.draw(record, figure.subplots())
        assert [panel.get_xlabel() for panel in figure.axes] == ["", "", "nodes", "events"]
        bands = [
            (patch.get_y(), patch.get_y() + patch.get_height()) for panel in figure.axes for patch in panel.patches
        ]
        assert bands == [(10.0, 15.0), (10.0, 15.0), (1.0, 1.5), (1.0, 1.5)]
        assert all(panel.get_ylim()[0] == 0 for panel in figure.axes)
        assert "1.20 times in training steps and 1.00 times in building" in " ".join(figure.get_suptitle().split())
        figure.canvas.draw()

    def test_state_before_the_measured_events_is_that_of_a_stream(self):
        stream = busy_stream(3000, 200, 40, 20, torch.Generator().manual_seed(0))
        subject = temporal_scale._Subject.__new__(temporal_scale._Subject)
        subject.network = temporal_scale.TGN(200, 1, memory_dim=8, time_dim=8)
        temporal_scale.remember(subject.network, stream, 100)
        memory, last = subject.network.memory, {}
        for source, destination, time in zip(stream.src[:100], stream.dst[:100], stream.t[:100], strict=True):
            last[int(source)] = last[int(destination)] = float(time)
        assert memory.pending.nonzero().squeeze(1).tolist() == sorted(last)
        assert memory.mail_t.nonzero().squeeze(1).tolist() == sorted(node for node, time in last.items() if time)
        assert all(float(memory.mail_t[node]) == time for node, time in last.items())
