import gzip
import hashlib
import io
import shutil
import urllib.request
import warnings
from pathlib import Path

import jsonargparse
import lightning
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.datasets import JODIEDataset

from graphseq.core import DataError, EventBatch, UnsupportedStrategyError
from graphseq.data import (
    BitcoinDataModule,
    CollegeMsgDataModule,
    EnronDataModule,
    EventCSVDataModule,
    HistoricalNegatives,
    JODIEDataModule,
    PrimarySchoolDataModule,
    RandomNegatives,
    StoreDataModule,
    SyntheticEventsDataModule,
    TBatches,
    TemporalDataModule,
    TemporalEvents,
    TimeWindowBatches,
    chronological_split,
    hold_out_nodes,
    node_gaps,
    periodic_events,
)
from graphseq.data.events import sets
from tests.reference import t_batches as reference

STAGES = ("train", "val", "test")


@pytest.fixture
def raw(own_cache, no_network, tmp_path, monkeypatch):
    """An empty mirror to write files into."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    monkeypatch.setenv("GRAPHSEQ_MIRROR", str(folder))

    def _write(name, text):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
        return path

    return _write


def stream(count=60, num_nodes=12, seed=0, ties=1, **options):
    generator = torch.Generator().manual_seed(seed)
    src, dst = torch.randint(num_nodes, (2, count), generator=generator)
    return TemporalEvents(src, dst, torch.arange(count) // ties, num_nodes=num_nodes, **options)


# splits


@given(
    st.lists(st.integers(0, 3), min_size=8, max_size=60),
    st.sampled_from([0.0, 0.1, 0.15, 0.3]),
    st.sampled_from([0.0, 0.15, 0.4]),
    st.sampled_from(["time_quantile", "count", "time_span"]),
)
@settings(deadline=None, max_examples=200)
def test_chronological_split(gaps, val, test, by):
    t = torch.tensor(gaps).cumsum(0)
    times = t.tolist()
    try:
        split = chronological_split(t, val, test, by)
    except DataError as error:
        assert "split empty at fractions train" in str(error)  # noqa: PT017 - an outcome, not the only one
        return
    assert torch.cat([split[name] for name in STAGES]).tolist() == list(range(len(times)))
    for first, second in (("train", "val"), ("val", "test"), ("train", "test")):
        assert not {times[k] for k in split[first]} & {times[k] for k in split[second]}
    assert (len(split["val"]) > 0, len(split["test"]) > 0) == (val > 0, test > 0)
    for share, upto in ((1 - val - test, ["train"]), (1 - test, ["train", "val"])):
        if share == 1 or (not val and not test):
            continue
        share = round(share, 12)
        held = sum(len(split[name]) for name in upto)
        if by == "time_quantile":
            boundary = reference.quantile(times, share)
            assert held == sum(time <= boundary + 1e-9 for time in times)
        elif by == "time_span":
            assert held == sum(time <= times[0] + share * (times[-1] - times[0]) + 1e-9 for time in times)
        else:
            wanted = max(round(share * len(times)), 1)
            assert held == max(k for k in range(len(times)) if times[k] == times[wanted - 1]) + 1


def test_counts_and_time_give_different_splits():
    t = torch.cat([torch.arange(90), torch.arange(900, 1000, 10)])
    sizes = {
        by: [len(part) for part in chronological_split(t, 0.2, 0.2, by).values()] for by in ("count", "time_quantile")
    }
    assert sizes == {"count": [60, 20, 20], "time_quantile": [60, 20, 20]}
    assert [len(part) for part in chronological_split(t, 0.95, 0.04, "time_span").values()] == [10, 86, 4]


def test_empty_splits_are_named():
    with pytest.raises(DataError, match=r"60 events.* 1 times.* val .*train 0.7, val"):
        TemporalDataModule(stream(ties=100)).load()


def test_fractions_of_zero_leave_a_stage_out():
    data = TemporalDataModule(stream(), val_fraction=0.0, test_fraction=0.25)
    assert data.split_sizes() == {"train": 45, "val": 0, "test": 15}
    assert data.val_dataloader() == []
    assert TemporalDataModule(stream(), val_fraction=0.25, test_fraction=0.0).split_sizes()["test"] == 0


UNIX = 1_600_000_000


@pytest.mark.parametrize(
    ("times", "boundaries", "sizes"),
    [
        (torch.tensor([UNIX, UNIX + 5, UNIX + 5, UNIX + 9]), [UNIX + 5, UNIX + 9], [1, 2, 1]),
        (torch.tensor([UNIX, UNIX + 5, UNIX + 5, UNIX + 9]), [UNIX + 0.5, UNIX + 5.5], [1, 2, 1]),
        (torch.tensor([0.25, 0.5, 0.5, 0.75]).double() + UNIX, [UNIX + 0.5, UNIX + 0.75], [1, 2, 1]),
        (torch.tensor([0.1, 0.2, 0.3]).double() + 7.7, [0.2 + 7.7, 0.3 + 7.7], [1, 1, 1]),
        (10**9 * UNIX + torch.tensor([0, 1, 2]), [10**9 * UNIX + 1, 10**9 * UNIX + 2], [1, 1, 1]),  # beyond float64
    ],
)
def test_boundaries_are_times_of_the_source(times, boundaries, sizes):
    ids = torch.zeros(len(times), dtype=torch.int64)
    data = TemporalDataModule(TemporalEvents(ids, ids + 1, times), boundaries=boundaries)
    assert list(data.split_sizes().values()) == sizes
    assert torch.cat([data.splits[name] for name in STAGES]).tolist() == list(range(len(times)))


def test_boundaries_count_from_the_offset_that_was_given():
    ids = torch.zeros(3, dtype=torch.int64)
    for offset in (100, 100.0, 99.5):
        events = TemporalEvents(ids, ids + 1, torch.tensor([0, 5, 9]), time_offset=offset)
        assert list(TemporalDataModule(events, boundaries=(104, 108)).split_sizes().values()) == [1, 1, 1]


@pytest.mark.parametrize(
    ("boundaries", "empty"),
    [((0, 5), "train and val"), ((50, 61), "train and val"), ((101, 10**30), "test"), ((170, 180), "val and test")],
)
def test_boundaries_that_leave_a_split_empty(boundaries, empty):
    events = stream(time_offset=100)
    with pytest.raises(DataError, match=rf"the {empty} split.*100 to 159 .*time_offset 100"):
        TemporalDataModule(events, boundaries=boundaries).load()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"boundaries": [1, 2], "val_fraction": 0.1}, "boundaries.*val_fraction 0.1"),
        ({"boundaries": [1, 2], "split_by": "count"}, "boundaries.*split_by 'count'"),
        ({"boundaries": [1]}, r"boundaries.*\[1\]"),
        ({"boundaries": [2, 1]}, "ascending"),
        ({"boundaries": [2, 2]}, "ascending"),
        ({"boundaries": [1, float("nan")]}, "two finite times"),
        ({"boundaries": ["2020", "2021"]}, "two finite times"),
        ({"boundaries": "12"}, "two finite times"),
    ],
)
def test_bad_boundaries(options, message):
    with pytest.raises(ValueError, match=message):
        TemporalDataModule(stream(), **options)


# unseen nodes


@given(st.integers(0, 10_000), st.sampled_from([0.1, 0.2, 0.4]))
@settings(deadline=None, max_examples=40)
def test_held_out_nodes(seed, ratio):
    events = stream(seed=seed, num_nodes=25)
    data = TemporalDataModule(events, inductive_ratio=ratio, seed=seed, negatives=False, eval_batch_size=4)
    plain = TemporalDataModule(events, negatives=False)
    try:
        data.load()
    except DataError as error:
        assert "inductive_ratio" in str(error)  # noqa: PT017 - an outcome, not the only one
        return
    pairs = list(zip(events.src.tolist(), events.dst.tolist(), strict=True))
    train = data.splits["train"].tolist()
    dropped = set(plain.splits["train"].tolist()) - set(train)
    later = {node for k in range(plain.splits["val"][0], 60) for node in pairs[k]}
    seen = {node for k in train for node in pairs[k]}
    # every dropped event has a node that never trains and occurs later, and there are at most as many as asked for
    assert all(set(pairs[k]) & (later - seen) for k in dropped)
    assert len({node for k in dropped for node in pairs[k]} - seen) >= min(1, len(dropped))
    for stage in ("val", "test"):
        assert torch.equal(data.splits[stage], plain.splits[stage])
        for batch in data.batches(stage):
            assert batch.new_node.tolist() == [not set(pairs[k]) <= seen for k in batch.e_id.tolist()]


def test_the_number_of_held_out_nodes():
    events = stream(400, num_nodes=40)
    train = chronological_split(events.t, 0.15, 0.15, "count")["train"]
    kept = hold_out_nodes(events, train, 0.1, seed=5)
    missing = set(range(40)) - {*events.src[kept].tolist(), *events.dst[kept].tolist()}
    assert len(missing) == 4
    assert kept.tolist() == [
        k for k in train.tolist() if not {int(events.src[k]), int(events.dst[k])} & missing
    ]  # nothing else went
    assert torch.equal(kept, hold_out_nodes(events, train, 0.1, seed=5))
    assert not torch.equal(kept, hold_out_nodes(events, train, 0.1, seed=6))


def test_training_history_knows_nothing_of_held_out_nodes():
    data = TemporalDataModule(stream(300, 20), inductive_ratio=0.2, batch_size=30, negatives=False)
    events, kept = data.events, set(data.splits["train"].tolist())
    batch = list(data.batches("train"))[-1]
    assert batch.new_node is None
    found = batch.history.recent(torch.arange(20), batch.start, 300)
    assert set(found.e_id[found.mask].tolist()) == {k for k in kept if k < batch.start}
    evaluated = list(data.batches("val"))[-1]
    found = evaluated.history.recent(torch.arange(20), evaluated.start, 300)
    assert set(found.e_id[found.mask].tolist()) == set(range(evaluated.start))
    assert events is data.events


def test_too_many_held_out_nodes():
    pair = TemporalEvents(torch.zeros(40).long(), torch.ones(40).long(), torch.arange(40))
    with pytest.raises(DataError, match="inductive_ratio 0.99.* 2 of 2 "):
        TemporalDataModule(pair, inductive_ratio=0.99).load()
    with pytest.raises(DataError, match="inductive_ratio 0.01 of 12 nodes"):
        TemporalDataModule(stream(), inductive_ratio=0.01).load()


# batches


def test_batches_carry_negatives_history_and_columns():
    events = stream(y=torch.arange(60) % 2, event_type=torch.arange(60) % 3, msg=torch.rand(60, 2))
    data = TemporalDataModule(events, batch_size=16, eval_batch_size=4, eval_negatives=RandomNegatives(3), cut="time")
    for stage, width in (("train", 1), ("val", 3), ("test", 3)):
        batches = list(data.batches(stage))
        assert torch.equal(torch.cat([batch.e_id for batch in batches]), data.splits[stage])
        for batch in batches:
            assert isinstance(batch, EventBatch)
            assert batch.neg_dst.shape == (len(batch), width)
            assert torch.equal(batch.y, events.y[batch.e_id])
            assert torch.equal(batch.event_type, events.event_type[batch.e_id])
            assert batch.cut is not None
            assert batch.history.num_nodes == 12
            assert (batch.new_node is None) == (stage == "train")
    assert len(next(data.batches("train"))) == 16
    assert torch.equal(next(data.batches("predict")).e_id, next(data.batches("test")).e_id)


def test_negatives_follow_split_and_epoch():
    data = TemporalDataModule(stream(), batch_size=16)
    draws = {(s, e): torch.cat([b.neg_dst for b in data.batches(s, e)]).tolist() for s in STAGES for e in (0, 1)}
    assert draws["train", 0] != draws["train", 1]
    assert draws["val", 0] == draws["val", 1]
    assert draws["test", 0] == draws["test", 1]
    other = TemporalDataModule(stream(), batch_size=5, eval_batch_size=3)
    assert torch.cat([b.neg_dst for b in other.batches("val")]).tolist() == draws["val", 0]


def test_pairs_as_negatives():
    data = TemporalDataModule(stream(200), eval_negatives=HistoricalNegatives(2), eval_batch_size=10)
    batch = next(data.batches("val"))
    assert batch.neg_src.shape == batch.neg_dst.shape == (10, 2)


def test_batches_without_negatives():
    assert next(TemporalDataModule(stream(), negatives=False).batches("train")).neg_dst is None


def test_rules_of_batching():
    data = TemporalDataModule(stream(), batching=TBatches(), eval_batching=TimeWindowBatches(4), negatives=False)
    for batch in data.batches("train"):
        ends = torch.cat([batch.src, batch.dst])
        assert len(ends.unique()) == len(ends) - int((batch.src == batch.dst).sum())
    windows = [set((batch.t // 4).tolist()) for batch in data.batches("val")]
    assert all(len(window) == 1 for window in windows)


def test_max_events_cuts_before_the_split():
    data = TemporalDataModule(stream(node_labels=torch.arange(12)), max_events=20)
    assert sum(data.split_sizes().values()) == len(data.events) == 20
    assert data.num_nodes == 12
    assert data.num_node_classes == 12


def test_a_function_can_give_the_stream():
    calls = []

    def make():
        calls.append(1)
        return stream()

    data = TemporalDataModule(make)
    assert not calls
    assert data.num_nodes == data.num_nodes == 12
    assert len(calls) == 1
    with pytest.raises(DataError, match="stream is a int"):
        TemporalDataModule(lambda: 3).load()


@given(st.integers(0, 10_000), st.integers(1, 3), st.integers(0, 7))
@settings(deadline=None, max_examples=40)
def test_gaps(seed, ties, holes):
    events = stream(40, num_nodes=6, seed=seed, ties=ties)
    index = torch.arange(40)[torch.arange(40) % 8 != holes]
    gaps, first = node_gaps(events, index)
    expected = reference.node_gaps(*(column[index].tolist() for column in (events.src, events.dst, events.t)))
    for gap, new, pairs in zip(gaps, first, expected, strict=True):
        assert list(zip(gap.tolist(), new.tolist(), strict=True)) == pairs


def test_statistics_are_of_training_events():
    events = stream(80)
    data = TemporalDataModule(events)
    index = data.splits["train"]
    pairs = reference.node_gaps(*(column[index].tolist() for column in (events.src, events.dst, events.t)))
    sources, destinations = (np.array([gap for gap, _ in part]) for part in pairs)
    expected = [sources.mean(), sources.std(), destinations.mean(), destinations.std()]
    assert data.time_statistics == pytest.approx(expected)
    again = [gap for part in pairs for gap, first in part if not first]
    assert data.mean_gap == pytest.approx(np.mean(again))
    # the future does not enter
    changed = TemporalEvents(events.src, events.dst, torch.cat([events.t[:60], events.t[60:] * 50]), num_nodes=12)
    assert torch.equal(TemporalDataModule(changed, split_by="count").splits["train"], index)
    assert TemporalDataModule(changed, split_by="count").time_statistics == data.time_statistics


def test_statistics_of_a_stream_without_repeats_may_divide():
    events = TemporalEvents(torch.arange(20), torch.arange(20, 40), torch.arange(20))
    assert TemporalDataModule(events).mean_gap == 1.0
    same = TemporalEvents(torch.zeros(20).long(), torch.ones(20).long(), torch.arange(20) // 17)
    data = TemporalDataModule(same, val_fraction=0.0, test_fraction=0.15, split_by="count")
    assert data.time_statistics == [0.0, 1.0, 0.0, 1.0]
    assert data.mean_gap == 1.0


def test_sizes_before_setup():
    data = TemporalDataModule(stream(event_type=torch.arange(60) % 2, msg=torch.rand(60, 3)))
    assert (data.num_nodes, data.num_edge_features, data.num_event_types, data.num_sources) == (12, 3, 2, None)
    with pytest.raises(DataError, match="TemporalDataModule.*classes"):
        data.node_labels  # noqa: B018 - the access is what is tested


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"eval_batch_size": 0}, "eval_batch_size is 0"),
        ({"val_fraction": 1.0}, "val_fraction is 1.0"),
        ({"test_fraction": -0.1}, "test_fraction is -0.1"),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "val_fraction 0.5.*test_fraction 0.5"),
        ({"split_by": "random"}, "split_by is 'random'"),
        ({"inductive_ratio": 1.0}, "inductive_ratio is 1.0"),
        ({"cut": "event"}, "cut is 'event'"),
        ({"max_events": 0}, "max_events is 0"),
        ({"eval_batching": TBatches()}, "eval_batching is TBatches"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        TemporalDataModule(stream(), **options)


@pytest.mark.parametrize("name", ["batching", "eval_batching", "train_negatives", "eval_negatives"])
@pytest.mark.parametrize("given", ["adaptive", "historical", 200, RandomNegatives, TBatches])
def test_rules_and_samplers_are_objects(name, given):
    classes = "Batching .*AdaptiveBatches" if "batching" in name else "NegativeSampler .*HistoricalNegatives"
    with pytest.raises(TypeError, match=f"{name} is .*{classes}"):
        TemporalDataModule(stream(), **{name: given})


# with a trainer


class Net(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch, batch_idx):
        return (self.weight - batch.t.float().mean()) ** 2

    validation_step = test_step = training_step

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def quiet(**options):
    off = dict.fromkeys(["logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"], False)
    return lightning.Trainer(**{"accelerator": "cpu", "devices": 1, "max_epochs": 1, **off, **options})


def test_resuming_on_another_stream_is_refused(tmp_path):
    trainer = quiet()
    trainer.fit(Net(), TemporalDataModule(stream(seed=0)))
    trainer.save_checkpoint(tmp_path / "k.ckpt")
    quiet(max_epochs=2).fit(Net(), TemporalDataModule(stream(seed=0)), ckpt_path=tmp_path / "k.ckpt")
    with pytest.raises(DataError, match="'train': 42.*; resume"):  # as many events, other ones
        quiet(max_epochs=2).fit(Net(), TemporalDataModule(stream(seed=1)), ckpt_path=tmp_path / "k.ckpt")


def test_all_stages_run():
    data = TemporalDataModule(stream(), batch_size=7, inductive_ratio=0.1)
    trainer = quiet()
    trainer.fit(Net(), data)
    trainer.test(Net(), data)
    assert trainer.num_test_batches == [1]


def test_labels_of_one_class_in_the_test_split_are_said_when_training_begins():
    y = torch.arange(60) % 2
    y[50:] = 0
    with pytest.warns(UserWarning, match="9 events.*test .*label 0"):
        TemporalDataModule(stream(y=y), negatives=False).setup("fit")
    y[55] = 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TemporalDataModule(stream(y=y)).setup("fit")
        TemporalDataModule(stream(y=torch.zeros(60))).setup("fit")  # no labels to learn: refused by the task
        TemporalDataModule(stream(y=torch.arange(60) % 2), test_fraction=0).setup("fit")
        TemporalDataModule(stream()).setup("fit")


def test_several_processes_are_refused(monkeypatch):
    trainer, data = quiet(), TemporalDataModule(stream())
    data.trainer = trainer
    monkeypatch.setattr(type(trainer), "world_size", 2)
    with pytest.raises(UnsupportedStrategyError, match="devices=1"):
        data.train_dataloader()


def test_batches_of_the_device_are_left_alone():
    data = TemporalDataModule(stream())
    batch = next(data.batches("train"))
    assert data.transfer_batch_to_device(batch, torch.device("cpu"), 0) is batch
    moved = data.transfer_batch_to_device(batch, torch.device("meta"), 0)
    assert {moved.src.device.type, moved.neg_dst.device.type} == {"meta"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("resident", [True, False])
def test_batches_arrive_on_the_device(resident):
    class Check(Net):
        def training_step(self, batch, batch_idx):
            tensors = [value for value in vars(batch).values() if isinstance(value, torch.Tensor)]
            assert {
                value.device.type for value in [*tensors, batch.history.recent(batch.src, batch.start, 2).node]
            } == {"cuda"}
            return super().training_step(batch, batch_idx)

        validation_step = training_step

    data = TemporalDataModule(stream(), inductive_ratio=0.1, device_resident=resident)
    quiet(accelerator="cuda").fit(Check(), data)


def test_configs_reach_the_options_of_the_base():
    parser = jsonargparse.ArgumentParser()
    parser.add_subclass_arguments(StoreDataModule, "data")
    config = {
        "class_path": "graphseq.data.JODIEDataModule",
        "init_args": {
            "name": "mooc",
            "batch_size": 50,
            "inductive_ratio": 0.1,
            "split_by": "count",
            "batching": {"class_path": "RandomChunkBatches", "init_args": {"batch_size": 8, "num_chunks": 2}},
            "eval_negatives": {"class_path": "graphseq.data.RandomNegatives", "init_args": {"num_negatives": 5}},
        },
    }  # fmt: skip
    data = parser.instantiate(parser.parse_object({"data": config})).data
    assert (data.name, data.batch_size, data.split_by, data.batching.num_chunks) == ("mooc", 50, "count", 2)
    assert data.eval_negatives.num_negatives == 5
    for name in ("drop_last", "train_transform"):  # of no meaning here
        with pytest.raises(jsonargparse.ArgumentError):
            jsonargparse.ArgumentParser(exit_on_error=False).parse_object({name: 1})
    synthetic = {
        "class_path": "graphseq.data.SyntheticEventsDataModule",
        "init_args": {"num_events": 80, "cut": "time"},
    }
    assert parser.instantiate(parser.parse_object({"data": synthetic})).data.cut == "time"


# generated streams


def test_sources_come_back_in_turn():
    events = periodic_events(600, 7, 20, period=4, repeat=1.0, generator=torch.Generator().manual_seed(3))
    assert (len(events), events.num_nodes, events.num_sources) == (600, 27, 7)
    for source in range(7):
        visits = events.dst[events.src == source].tolist()
        assert visits[4:] == visits[:-4]
    assert events.y is None
    assert float(events.t[-1]) / 600 == pytest.approx(60, rel=0.15)
    counts = sorted(events.src.bincount().tolist())
    assert counts[-1] > 1.5 * counts[0]  # some are busier


@given(st.integers(0, 10_000), st.integers(1, 4), st.booleans())
@settings(deadline=None, max_examples=30)
def test_dropouts(seed, num_abnormal, bipartite):
    events = periodic_events(
        500, 20, 9 if bipartite else None, num_edge_features=2, dropout_ratio=0.7, num_abnormal=num_abnormal,
        generator=torch.Generator().manual_seed(seed),
    )  # fmt: skip
    assert set(events.y.tolist()) <= {0, 1}
    for source in range(20):
        mine = (events.src == source).nonzero().flatten()
        labels = events.y[mine].tolist()
        assert sum(labels) <= 1
        if 1 in labels:  # the last event, and the ones before it are abnormal
            assert labels.index(1) == len(labels) - 1
            assert len(mine) >= num_abnormal
    if not bipartite:
        assert events.num_sources is None
        assert not bool((events.src == events.dst).any())


def test_abnormal_events_show_in_the_features():
    events = periodic_events(
        4000,
        100,
        30,
        num_edge_features=1,
        dropout_ratio=1.0,
        num_abnormal=3,
        generator=torch.Generator().manual_seed(1),
    )
    gone = events.src[events.y == 1]
    assert len(gone) > 50
    lasting = torch.stack([events.msg[events.src == source, 0][-3:] for source in gone])
    assert float(lasting.mean()) == pytest.approx(2.0, abs=0.15)
    assert float(events.msg[:, 0].median()) < 0.6


def test_generated_streams_depend_on_the_seed_alone():
    torch.manual_seed(0)
    first = SyntheticEventsDataModule(num_events=200, seed=4, dropout_ratio=0.2).events
    torch.manual_seed(1)
    same = SyntheticEventsDataModule(num_events=200, seed=4, dropout_ratio=0.2).events
    other = SyntheticEventsDataModule(num_events=200, seed=5, dropout_ratio=0.2).events
    assert all(torch.equal(value, getattr(same, name)) for name, value in first.columns().items())
    assert not torch.equal(first.src[:100], other.src[:100])
    assert len(list(SyntheticEventsDataModule(num_events=200, batch_size=70).batches("train"))) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_events": 0}, "num_events is 0"),
        ({"num_sources": 0}, "num_sources is 0"),
        ({"num_sources": 1, "num_destinations": None}, "num_sources is 1; .*2"),
        ({"num_destinations": 0}, "num_destinations is 0"),
        ({"period": 0}, "period is 0"),
        ({"repeat": 1.1}, "repeat is 1.1"),
        ({"dropout_ratio": -1}, "dropout_ratio is -1"),
        ({"num_abnormal": 0}, "num_abnormal is 0"),
        ({"num_edge_features": -1}, "num_edge_features is -1"),
    ],
)
def test_bad_rules_of_generation(options, message):
    with pytest.raises(ValueError, match=message):
        periodic_events(**{"num_events": 5, "num_sources": 3, "num_destinations": 3, **options})


# files

JODIE = "user_id,item_id,timestamp,state_label,comma_separated_list_of_features\n" + "".join(
    f"{k % 4},{k % 3},{10 * k}.0,{int(k == 9)},0\n" for k in range(20)
)


def test_jodie_from_the_mirror(raw):
    raw("JODIE/wikipedia/raw/wikipedia.csv", JODIE)
    data = JODIEDataModule("wikipedia", verify_checksums=False)
    assert (data.num_nodes, data.num_sources, data.num_edge_features) == (7, 4, 0)
    assert int(data.events.y.sum()) == 1
    assert JODIEDataModule("wikipedia", verify_checksums=False, edge_features="all").num_edge_features == 1
    with pytest.raises(DataError, match=r"wikipedia\.csv.*SHA-256 .*verify_checksums=False"):
        JODIEDataModule("wikipedia").load()
    raw("JODIE/mooc/raw/mooc.csv", JODIE)
    with pytest.raises(DataError, match=r"mooc\.csv.* 20 events.*411749 events"):
        JODIEDataModule("mooc").load()
    with pytest.raises(ValueError, match="name is 'taobao'"):
        JODIEDataModule("taobao")
    with pytest.raises(ValueError, match="edge_features is 'most'"):
        JODIEDataModule(edge_features="most")


@pytest.mark.parametrize(
    ("module", "folder", "address"),
    [
        (JODIEDataModule("reddit"), "JODIE/reddit/raw", "http://snap.stanford.edu/jodie/reddit.csv"),
        (CollegeMsgDataModule(), "CollegeMsg", "https://snap.stanford.edu/data/CollegeMsg.txt.gz"),
        (BitcoinDataModule(), "BitcoinOTC/raw", "https://snap.stanford.edu/data/soc-sign-bitcoinotc.csv.gz"),
        (BitcoinDataModule("alpha"), "BitcoinAlpha/raw", "https://snap.stanford.edu/data/soc-sign-bitcoinalpha.csv.gz"),
        (EnronDataModule(), "Enron", "TemporalMotif-CTDG"),
        (PrimarySchoolDataModule(), "PrimarySchool", "sociopatterns.org"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, TemporalDataModule) else "",
)
def test_a_missing_file_names_mirror_and_address(raw, tmp_path, module, folder, address):
    with pytest.raises(DataError) as caught:
        module.load()
    assert str(tmp_path / "mirror" / folder) in str(caught.value)
    assert address in str(caught.value)


MESSAGES = "".join(f"{3 + k % 5} {4 + k % 7} {100 + 20 * k}\n" for k in range(30))


def test_a_download_is_checked_and_kept(raw, own_cache, monkeypatch):
    asked = []

    def serve(address, timeout):
        asked.append(address)
        return io.BytesIO(gzip.compress(MESSAGES.encode()))

    monkeypatch.setattr(urllib.request, "urlopen", serve)
    with pytest.raises(DataError, match=r"CollegeMsg\.txt\.gz.*SHA-256"):
        CollegeMsgDataModule().load()
    digest = hashlib.sha256(MESSAGES.encode()).hexdigest()
    monkeypatch.setitem(sets._CHECKSUMS, "CollegeMsg.txt.gz", digest)
    data = CollegeMsgDataModule()
    assert data.events.node_ids.tolist() == list(range(3, 11))
    assert asked == ["https://snap.stanford.edu/data/CollegeMsg.txt.gz"]
    path = own_cache / "raw/CollegeMsg/CollegeMsg.txt.gz"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataError, match=r"CollegeMsg\.txt\.gz cannot"):
        CollegeMsgDataModule().load()


def test_parsed_streams_are_kept(raw, monkeypatch):
    raw("CollegeMsg/CollegeMsg.txt.gz", MESSAGES)
    first = CollegeMsgDataModule(verify_checksums=False).events
    monkeypatch.setattr("graphseq.data.events.sets.read_edge_list", None)
    again = CollegeMsgDataModule(verify_checksums=False).events
    assert all(torch.equal(value, getattr(again, name)) for name, value in first.columns().items())
    assert (again.num_nodes, again.time_offset, again.node_ids.tolist()) == (8, 100, list(range(3, 11)))


RATINGS = "".join(f"{2 + k % 3},{9 - k % 4},{k % 7 - 3},{50 + k}.5\n" for k in range(30))


def test_bitcoin_with_and_without_labels(raw):
    raw("BitcoinAlpha/raw/soc-sign-bitcoinalpha.csv", RATINGS)
    data = BitcoinDataModule("alpha")
    with pytest.warns(UserWarning, match="labels.*alpha_gt.csv"):
        data.load()
    assert (data.num_event_types, data.num_edge_features) == (2, 1)
    with pytest.raises(DataError, match="no classes"):
        data.node_labels  # noqa: B018 - the access is what is tested
    raw("BitcoinAlpha/alpha_gt.csv", "9,-1\n2,+1\n")
    data = BitcoinDataModule("alpha")
    assert data.node_labels.tolist() == [1, -1, -1, -1, -1, -1, 0]
    assert data.num_node_classes == 2
    raw("BitcoinOTC/raw/soc-sign-bitcoinotc.csv.gz", RATINGS)
    raw("BitcoinOTC/otc_gt.csv", "9,-1\n")
    assert BitcoinDataModule(verify_checksums=False).node_labels.tolist() == [-1] * 6 + [0]
    with pytest.raises(DataError, match="unpacks to SHA-256"):
        BitcoinDataModule().load()
    with pytest.raises(ValueError, match="name is 'eth'"):
        BitcoinDataModule("eth")


@pytest.mark.parametrize(
    ("kind", "text", "options", "nodes"),
    [
        ("jodie", JODIE, {"edge_features": "none"}, 7),
        ("snap", MESSAGES, {}, 8),
        ("snap", MESSAGES, {"bipartite": True}, 12),
        ("snap", "from to when\n" + MESSAGES, {"header": True}, 8),
        ("konect", MESSAGES.replace(" 1", " 0.5 1"), {"sort": True}, 8),
        ("signed", RATINGS, {}, 7),
        ("contacts", "".join(f"{k} 1 2 a b\n" for k in range(20)), {}, 2),
        ("table", "who,whom,at\n" + "".join(f"{k % 2},2,{k}\n" for k in range(20)),
         {"src": "who", "dst": "whom", "t": "at"}, 3),
    ],
)  # fmt: skip
def test_files_of_ones_own(own_cache, tmp_path, kind, text, options, nodes):
    if kind == "konect":
        text = "".join(f"{a} {b} 0.5 {t}\n" for a, b, t in (line.split() for line in MESSAGES.splitlines()))
    path = tmp_path / "own.txt"
    path.write_text(text)
    data = EventCSVDataModule(str(path), kind, negatives=False, **options)
    assert data.num_nodes == nodes
    named = kind in ("jodie", "table") or data.header
    assert sum(data.split_sizes().values()) == len(text.splitlines()) - named
    assert EventCSVDataModule(str(path), kind, negatives=False, **options).num_nodes == nodes  # from the cache


def test_ratings_of_ones_own_have_a_scale(own_cache, tmp_path):
    path = tmp_path / "own.csv"
    path.write_text(RATINGS)
    usual, own = (EventCSVDataModule(str(path), "signed", negatives=False, **o).events for o in ({}, {"scale": 5}))
    torch.testing.assert_close(own.msg, 2 * usual.msg)
    with pytest.raises(ValueError, match="scale is 0"):
        EventCSVDataModule(str(path), "signed", scale=0)


def test_bad_files_of_ones_own(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.csv"):
        EventCSVDataModule(str(tmp_path / "nowhere.csv"), "snap").load()
    with pytest.raises(ValueError, match="kind is 'xml'"):
        EventCSVDataModule("a.xml", "xml")


# the real sets

JODIE_FACTS = [8_227, 217, 2_678_373]


@pytest.mark.parametrize(
    ("module", "events", "nodes", "facts"),
    [
        (JODIEDataModule, 157_474, 9_227, lambda e: [e.num_sources, int(e.y.sum()), int(e.t[-1])] == JODIE_FACTS),
        (CollegeMsgDataModule, 59_835, 1_899, lambda e: len((e.src * 1_899 + e.dst).unique()) == 20_296),
        (BitcoinDataModule, 35_592, 5_881, lambda e: e.event_type.bincount().tolist() == [3_563, 32_029]),
        (EnronDataModule, 125_235, 184, lambda e: (int((e.src == e.dst).sum()), len(e.t.unique())) == (16_410, 22_632)),
        (PrimarySchoolDataModule, 125_773, 242, lambda e: (len(e.t.unique()), int(e.node_labels.max())) == (3_100, 10)),
    ],
)  # fmt: skip
def test_real_sets_have_the_published_counts(mirror, module, events, nodes, facts):
    data = module()
    assert (len(data.events), data.num_nodes) == (events, nodes)
    assert facts(data.events)


def test_labels_of_the_real_sets(mirror):
    assert (BitcoinDataModule().node_labels + 1).bincount().tolist() == [5_881 - 316, 180, 136]
    classes = PrimarySchoolDataModule()
    assert (classes.num_node_classes, int(classes.node_labels.min())) == (11, 0)


def test_wikipedia_equals_the_reader_of_pyg(mirror, tmp_path):
    pytest.importorskip("pandas")
    (tmp_path / "wikipedia/raw").mkdir(parents=True)
    shutil.copy(Path(mirror) / "JODIE/wikipedia/raw/wikipedia.csv", tmp_path / "wikipedia/raw/wikipedia.csv")
    peer = JODIEDataset(str(tmp_path), "wikipedia")[0]
    data = JODIEDataModule(edge_features="all")
    for name in ("src", "dst", "t", "msg", "y"):
        assert torch.equal(getattr(data.events, name).to(peer[name].dtype), peer[name])
    train, val, test = peer.train_val_test_split(0.15, 0.15)
    # PyG's boundary is not inclusive, and it divides equal times
    assert [len(part) for part in (train, val, test)] == pytest.approx(list(data.split_sizes().values()), abs=3)


@pytest.mark.parametrize("source", ["events.csv", [1], {"src": 1}, None])
def test_a_source_of_another_kind(source):
    with pytest.raises(TypeError, match=f"events is a {type(source).__name__}; .*from_frame"):
        TemporalDataModule(source)


def test_one_column_of_features_is_still_a_list():
    with pytest.raises(ValueError, match="msg is 'weight'"):
        EventCSVDataModule("events.csv", msg="weight")
