import pickle
from datetime import date

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import TemporalData

from graphseq.core import DataError
from graphseq.data import TemporalEvents, read_event_table
from graphseq.data.events import table

ZERO = torch.zeros(3, dtype=torch.int64)
UNIX = 1_600_000_000


def events(t=(0, 1, 2), src=(0, 1, 2), dst=(3, 3, 4), **options):
    return TemporalEvents(torch.tensor(src), torch.tensor(dst), torch.as_tensor(t), **options)


class Frame(dict):
    """What the constructor needs of a pandas frame."""

    def __or__(self, columns):
        return Frame({**self, **columns})

    @property
    def columns(self):
        return list(self)


def test_time_starts_at_zero_and_keeps_its_offset():
    stream = events((UNIX, UNIX + 1, UNIX + 5))
    assert stream.t.tolist() == [0, 1, 5]
    assert stream.t.dtype == torch.int64
    assert stream.time_offset == UNIX
    fractional = events(torch.tensor([UNIX + 0.25, UNIX + 0.5, UNIX + 1.75], dtype=torch.float64))
    assert fractional.t.tolist() == [0.0, 0.25, 1.5]
    assert fractional.time_offset == UNIX + 0.25
    kept = events((7, 8, 9), time_offset=100)
    assert kept.t.tolist() == [7, 8, 9]
    assert kept.time_offset == 100


def test_narrow_kinds_are_widened():
    stream = events(torch.tensor([0.0, 0.5, 1.0]), event_type=torch.tensor([0, 1, 1], dtype=torch.int8))
    assert stream.t.dtype == torch.float64
    assert stream.event_type.dtype == torch.int64
    assert stream.num_event_types == 2
    assert TemporalEvents(ZERO.int(), ZERO.short(), ZERO.int()).src.dtype == torch.int64


def test_sizes():
    stream = events(msg=torch.rand(3, 4), num_nodes=9, num_sources=3)
    assert (len(stream), stream.num_nodes, stream.num_edge_features, stream.bipartite) == (3, 9, 4, True)
    plain = events()
    assert (plain.num_nodes, plain.num_edge_features, plain.num_event_types, plain.bipartite) == (5, 0, 1, False)
    assert plain.nbytes == 3 * 3 * 8
    assert "3 events, 5 nodes" in repr(plain)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=40), st.booleans())
@settings(deadline=None, max_examples=60)
def test_sorting_keeps_the_order_of_equal_times(times, floating):
    count = len(times)
    t = torch.tensor(times, dtype=torch.float64 if floating else torch.int64)
    order = sorted(range(count), key=lambda position: times[position])  # stable
    stream = TemporalEvents(
        torch.arange(count),
        torch.arange(count),
        t,
        torch.arange(count).float()[:, None],
        torch.arange(count),
        sort=True,
    )
    assert stream.src.tolist() == stream.dst.tolist() == stream.y.tolist() == stream.msg[:, 0].tolist() == order
    assert stream.t.tolist() == [times[position] - min(times) for position in order]
    if times == sorted(times):
        assert TemporalEvents(t.long(), t.long(), t).t.tolist() == stream.t.tolist()
    else:
        with pytest.raises(DataError, match="sort=True"):
            TemporalEvents(t.long(), t.long(), t)


def test_slices_are_views_that_keep_ids_and_times():
    stream = events((5, 6, 9), msg=torch.rand(3, 2), y=torch.tensor([0, 1, 0]), node_labels=torch.tensor([0] * 5))
    part = stream[1:]
    assert part.t.tolist() == [1, 4]
    assert (part.num_nodes, part.time_offset, part.y.tolist()) == (5, 5, [1, 0])
    assert part.msg.untyped_storage().data_ptr() == stream.msg.untyped_storage().data_ptr()
    assert len(stream[3:]) == 0
    assert "0 events" in repr(stream[3:])
    for wrong in (1, slice(0, 3, 2), torch.tensor([0])):
        with pytest.raises(TypeError, match="slices of step 1"):
            stream[wrong]


def test_round_trips():
    stream = events(msg=torch.rand(3, 2), event_type=torch.tensor([0, 1, 0]), node_ids=torch.tensor([4, 5, 6, 7, 8]))
    for again in (TemporalEvents.from_dict(stream.to_dict()), pickle.loads(pickle.dumps(stream)), stream.to("cpu")):
        assert again.y is None
        assert (again.num_nodes, again.node_ids.tolist()) == (5, [4, 5, 6, 7, 8])
        for name, value in stream.columns().items():
            assert torch.equal(getattr(again, name), value)
    assert stream.to("cpu").msg is stream.msg


def test_from_temporal_data():
    data = TemporalData(
        src=torch.tensor([0, 1]), dst=torch.tensor([2, 2]), t=torch.tensor([3, 4]), msg=torch.rand(2, 5)
    )
    data.y = torch.tensor([0, 1])
    stream = TemporalEvents.from_temporal_data(data, num_nodes=7)
    assert (stream.num_nodes, stream.num_edge_features, stream.y.tolist(), stream.t.tolist()) == (7, 5, [0, 1], [0, 1])
    with pytest.raises(DataError, match="no src, dst, t"):
        TemporalEvents.from_temporal_data(TemporalData(msg=torch.rand(2, 5)))
    coarse = TemporalData(src=data.src, dst=data.dst, t=torch.tensor([UNIX, UNIX + 9]).float())
    with pytest.raises(DataError, match="128 apart"):
        TemporalEvents.from_temporal_data(coarse)


def test_from_frame():
    frame = Frame(
        a=np.array([4, 5]), b=np.array([6, 6], dtype=np.int32), when=np.array([1.5, 2.0]), x=np.array([1, 2]),
        z=np.array([0.5, 0.25]), kind=np.array([1, 0]), label=np.array([True, False]),
    )  # fmt: skip
    stream = TemporalEvents.from_frame(frame, "a", "b", "when", msg=["z", "x"], y="label", event_type="kind")
    assert stream.src.tolist() == [4, 5]
    assert stream.msg.tolist() == [[0.5, 1.0], [0.25, 2.0]]
    assert (stream.t.tolist(), stream.event_type.tolist(), stream.y.tolist()) == ([0.0, 0.5], [1, 0], [True, False])
    with pytest.raises(DataError, match="column src, t; .*a, b, when"):
        TemporalEvents.from_frame(frame, dst="b")
    frame["a"] = np.array(["ann", "bob"])
    named = TemporalEvents.from_frame(frame, "a", "b", "when")
    assert (named.node_ids, named.src.tolist(), named.dst.tolist()) == (["6", "ann", "bob"], [1, 2], [0, 0])
    for other in (np.array([6.0, 7.0]), np.array([6.0, NAN]), np.array([6, "ann"], dtype=object)):
        # 6.0 would not be the node "6" of the other column, and a gap would be the node "nan"
        with pytest.raises(DataError, match="column b"):
            TemporalEvents.from_frame(frame | {"b": other}, "a", "b", "when")
    frame["label"] = np.array(["yes", "no"])
    with pytest.raises(DataError, match="column label holds .*pandas.factorize"):
        TemporalEvents.from_frame(frame, "a", "b", "when", y="label")


def test_from_frame_numbers_nodes_as_the_readers_do(tmp_path):
    ids = {"src": [10**13, 7, 7], "dst": [7, 9, 10**13], "t": [1, 2, 4]}
    frame = Frame({name: np.array(column) for name, column in ids.items()})
    path = tmp_path / "table.csv"
    path.write_text("src,dst,t\n" + "".join(f"{u},{v},{t}\n" for u, v, t in zip(*ids.values(), strict=True)))
    for options in ({"renumber": True}, {"bipartite": True}, {"renumber": True, "bipartite": True}):
        ours, theirs = TemporalEvents.from_frame(frame, **options), read_event_table(path, bipartite=len(options) > 1)
        if options == {"bipartite": True}:
            theirs = read_event_table(path, bipartite=True)
        for name in ("src", "dst", "node_ids"):
            assert getattr(ours, name).tolist() == getattr(theirs, name).tolist()
        assert (ours.num_sources, ours.num_nodes) == (theirs.num_sources, theirs.num_nodes)
    assert TemporalEvents.from_frame(frame, bipartite=True).dst.tolist() == [2, 3, 4]
    with pytest.raises(DataError, match="ids .*10000000000000.* 3 .*renumber=True"):
        TemporalEvents.from_frame(frame)
    frame["src"] = np.array([0.5, 1.0, 2.0])
    with pytest.raises(DataError, match="column src is torch.float64"):
        TemporalEvents.from_frame(frame, renumber=True)


def test_many_nodes_are_taken_where_there_are_events_for_them(monkeypatch):
    monkeypatch.setattr(table, "_MOST_NODES", 50)
    assert events(src=(0, 1, 200)).num_nodes == 201  # below a hundred for each event
    with pytest.raises(DataError, match="ids .*300 .* 5 "):
        events(src=(0, 1, 300))
    with pytest.raises(DataError, match="ids run to 998"):
        events(num_nodes=999)


def test_dates_become_seconds():
    dates = np.array(["2020-01-01T00:00:00", "2020-01-01T00:01:00"], dtype="datetime64[ns]")
    frame = Frame(src=np.array([0, 1]), dst=np.array([1, 0]), t=dates)
    stream = TemporalEvents.from_frame(frame)
    assert stream.t.tolist() == [0, 60]
    assert stream.time_offset == 1_577_836_800
    frame["t"] = dates + np.array([0, 250], dtype="timedelta64[ms]")
    assert TemporalEvents.from_frame(frame).t.tolist() == [0.0, 60.25]
    frame["t"] = np.array(["2020-01-01", "NaT"], dtype="datetime64[ns]")
    with pytest.raises(DataError, match="column t .*date.*row 1"):
        TemporalEvents.from_frame(frame)


def dated(times):
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame({"src": range(len(times)), "dst": range(len(times)), "t": times})


def test_dates_with_time_zones_are_compared_in_utc():
    pandas = pytest.importorskip("pandas")
    aware = pandas.to_datetime(["2020-01-01T12:00+02:00", "2020-01-01T11:00+02:00"])
    events = TemporalEvents.from_frame(dated(aware), sort=True)
    assert (events.src.tolist(), events.t.tolist(), events.time_offset) == ([1, 0], [0, 3600], 1577869200)
    far = TemporalEvents.from_frame(dated(np.array(["1500-01-01", "3000-01-01"], "datetime64[s]")))
    assert far.t.tolist() == [0, (date(3000, 1, 1) - date(1500, 1, 1)).days * 86400]
    halves = TemporalEvents.from_frame(dated(pandas.to_datetime(["2020-01-01 00:00:00.0", "2020-01-01 00:00:00.5"])))
    assert halves.t.tolist() == [0.0, 0.5]


def test_dates_that_would_be_cut_or_mixed():
    pandas = pytest.importorskip("pandas")
    mixed = [pandas.Timestamp("2020-01-01T12:00+02:00"), pandas.Timestamp("2020-01-01T12:00+01:00")]
    with pytest.raises(DataError, match=r"column t .*row 0 .*utc=True"):
        TemporalEvents.from_frame(dated(pandas.Series(mixed, dtype=object)))
    fine = np.array(["2020-01-01", "2020-01-01T00:00:00.000000001"], "datetime64[ns]")
    with pytest.raises(DataError, match="column t, row 1"):
        TemporalEvents.from_frame(dated(fine))


def test_ids_beyond_int64():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"src": [1, 2**63], "dst": [1, 1], "t": [0, 1]})
    with pytest.raises(DataError, match=r"column src, row 1: 9223372036854775808"):
        TemporalEvents.from_frame(frame, renumber=True)
    one, large = torch.zeros(2, dtype=torch.int64), torch.tensor([0, 2**63], dtype=torch.uint64)
    with pytest.raises(DataError, match="t of event 1 is 9223372036854775808"):
        TemporalEvents(one, one, large)
    with pytest.raises(DataError, match="src of event 1 is 9223372036854775808"):
        TemporalEvents(large, one, one)
    with pytest.raises(DataError, match="column 'src'"):
        TemporalEvents.from_frame(pandas.DataFrame([[1, 2, 3, 4]], columns=["src", "dst", "t", "src"]))


def test_from_a_real_pandas_frame():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"u": [3, 1], "v": [0, 0], "t": pandas.to_datetime(["2020-01-01", "2020-01-02"])})
    assert TemporalEvents.from_frame(frame, "u", "v").t.tolist() == [0, 86400]
    apart = TemporalEvents.from_frame(frame, "u", "v", bipartite=True)
    assert (apart.src.tolist(), apart.dst.tolist(), apart.node_ids.tolist()) == ([1, 0], [2, 2], [1, 3, 0])


NAN = float("nan")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"t": (0, 2, 1)}, "event 2 .* 1, .* 2,"),
        ({"t": torch.tensor([0.0, NAN, 2.0], dtype=torch.float64)}, "t holds 1 NaN.*event 1"),
        ({"t": torch.tensor([0.0, 1.0, float("inf")])}, "t holds 1 .*infinite.*event 2"),
        ({"t": torch.tensor([0.0, 1.0, 2.0**24])}, "t is torch.float32 .*16777216"),
        ({"t": torch.tensor([0.0, 1.0, 4000.0], dtype=torch.float16)}, "t is torch.float16 .*4000"),
        ({"t": torch.tensor([UNIX] * 3).float()}, "128 apart"),
        ({"t": torch.tensor([[0, 1, 2]])}, r"t is torch.int64 \(1, 3\)"),
        ({"t": torch.tensor([False, True, True])}, "t is torch.bool"),
        ({"src": (0, -2, 1)}, "src of event 1 is -2"),
        ({"event_type": torch.tensor([0, 0, -1])}, "event_type of event 2 is -1"),
        ({"src": (0.0, 1.0, 2.0)}, "src is torch.float32"),
        ({"src": (0, 1)}, "columns.*'src': 2, 'dst': 3"),
        ({"t": torch.tensor([0.0, 1.0, 2.0**53], dtype=torch.float64)}, "t is torch.float64 .*9007"),
        ({"t": torch.tensor([-(2.0**60), 1.0, 2.0], dtype=torch.float64)}, "256 apart"),
        ({"y": torch.zeros(4)}, "'y': 4"),
        ({"y": [0, 1, 0]}, r"y is a list"),
        ({"y": torch.zeros(3, 1)}, r"y is torch.float32 \(3, 1\)"),
        ({"y": torch.tensor([0.0, NAN, NAN])}, "y holds 2 NaN.*event 1"),
        ({"time_offset": NAN}, "time_offset is nan"),
        ({"time_offset": float("inf")}, "time_offset is inf"),
        ({"src": (0, 10**13, 2)}, "ids .*10000000000000.* 5 .*renumber=True"),
        ({"dst": (3, 2**63 - 1, 4)}, "ids .*9223372036854775807.* 6 "),
        ({"msg": torch.zeros(2, 1)}, "'msg': 2"),
        ({"msg": torch.zeros(3)}, r"msg is torch.float32 \(3,\)"),
        ({"msg": torch.tensor([[0.0], [NAN], [1.0]])}, "msg holds 1 NaN .* event 1, feature 0"),
        ({"num_nodes": 4}, "node 4, num_nodes is 4"),
        ({"num_sources": 2}, "num_sources is 2, .*sources.* 2 .*destinations.* 3"),
        ({"num_sources": 4}, "num_sources is 4"),
        ({"node_ids": torch.arange(4)}, "node_ids.* 4 .* 5 nodes"),
        ({"node_labels": torch.full((5,), -2)}, "node_labels.*-2"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(DataError, match=message):
        events(**options)


def test_no_events():
    none = torch.zeros(0, dtype=torch.int64)
    with pytest.raises(DataError, match="no events"):
        TemporalEvents(none, none, none)


def test_large_sums_of_features_are_no_error():
    stream = events(msg=torch.full((3, 1), 3e38))
    assert torch.isfinite(stream.msg).all()


def test_arrays_are_columns():
    made = TemporalEvents(np.array([0, 1], ">i4"), np.array([2, 2]), np.array([5.5, 7]), np.ones((2, 3)))
    assert (made.src.tolist(), made.t.tolist(), made.num_edge_features) == ([0, 1], [0, 1.5], 3)
    with pytest.raises(DataError, match="src is a list, .*array of numpy"):
        TemporalEvents([0], np.array([1]), np.array([1]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"src": [1.0, float("nan")]}, "column src .*entry 1 is missing"),
        ({"t": np.array([1, 2], "timedelta64[s]")}, "column t .*total_seconds"),
        ({"src": np.array([1, 2], object)}, "column src .*astype"),
    ],
)
def test_columns_of_a_frame_that_need_another_type(change, message):
    import pandas

    frame = pandas.DataFrame({"src": [1, 2], "dst": [2, 3], "t": [1, 2], **change})
    with pytest.raises(DataError, match=message):
        TemporalEvents.from_frame(frame, renumber=True)
    with pytest.raises(ValueError, match="msg is 'dst'"):
        TemporalEvents.from_frame(frame, msg="dst")
