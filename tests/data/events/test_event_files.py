import gzip

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphseq.core import DataError
from graphseq.data import (
    read_contacts,
    read_edge_list,
    read_event_table,
    read_jodie_csv,
    read_node_labels,
    read_signed_edges,
)

HEADER = "user_id,item_id,timestamp,state_label,comma_separated_list_of_features\n"


@pytest.fixture
def write(tmp_path):
    def _write(text, name="file.csv"):
        path = tmp_path / name
        if name.endswith(".gz"):
            path.write_bytes(gzip.compress(text.encode()))
        else:
            path.write_text(text)
        return path

    return _write


def test_jodie(write):
    path = write(HEADER + "0,0,0.0,0,0.5,1\n1,1,36.0,0,0.25,2\n0,1,77.0,1,-1e-3,3\n")
    events = read_jodie_csv(path)
    assert events.src.tolist() == [0, 1, 0]
    assert events.dst.tolist() == [2, 3, 3]
    assert (events.num_sources, events.num_nodes) == (2, 4)
    assert (events.t.tolist(), events.t.dtype) == ([0, 36, 77], torch.int64)
    assert (events.y.tolist(), events.y.dtype) == ([0, 0, 1], torch.int64)
    assert events.msg.tolist() == [[0.5, 1.0], [0.25, 2.0], [pytest.approx(-1e-3), 3.0]]
    assert read_jodie_csv(path, "none").num_edge_features == 0


def test_the_header_of_jodie_names_fewer_columns_than_there_are(write):
    # the published files name four columns and "comma_separated_list_of_features"
    path = write(HEADER + "0,0,0.0,0,1,2,3\n1,0,1.0,0,4,5,6\n")
    assert read_jodie_csv(path).msg.tolist() == [[1, 2, 3], [4, 5, 6]]


def test_jodie_features_that_tell_nothing(write):
    constant = write(HEADER + "0,0,0,0,0,7\n1,0,1,0,0,7\n")
    assert read_jodie_csv(constant).num_edge_features == 0
    assert read_jodie_csv(constant, "all").msg.tolist() == [[0, 7], [0, 7]]
    partly = write(HEADER + "0,0,0,0,0,7\n1,0,1,0,0,8\n")
    assert read_jodie_csv(partly).num_edge_features == 2  # widths stay those of the file
    assert read_jodie_csv(write("u,i,t,y\n0,0,0,0\n")).num_edge_features == 0
    with pytest.raises(ValueError, match="edge_features is 'some'"):
        read_jodie_csv(constant, "some")


def test_fractional_times_stay(write):
    assert read_jodie_csv(write(HEADER + "0,0,0.25,0,0\n0,0,1.75,0,0\n")).t.tolist() == [0.0, 1.5]
    events = read_edge_list(write("1 2 1289241911.25\n2 1 1289241912\n"))
    assert (events.t.tolist(), events.time_offset) == ([0.0, 0.75], 1289241911.25)


def test_whole_times_are_exact_beyond_float64(write):
    events = read_edge_list(write("1 2 9007199254740993\n2 1 9007199254740995\n"))
    assert (events.t.tolist(), events.time_offset) == ([0, 2], 9007199254740993)


def test_whole_times_of_nanoseconds_are_never_rounded(write):
    lines = "0,0,1600000000123456700,0\n0,0,1600000000123456789,0\n"
    assert read_jodie_csv(write(HEADER + lines)).t.tolist() == [0, 89]
    backwards = HEADER + "".join(reversed(lines.splitlines(keepends=True)))
    with pytest.raises(DataError, match="event 1 .* 1600000000123456700, .* 1600000000123456789"):
        read_jodie_csv(write(backwards))
    signed = "1,2,3,1600000000123456700\n1,2,-3,1600000000123456789\n"
    assert read_signed_edges(write(signed)).t.tolist() == [0, 89]
    for read, text in (
        (read_edge_list, "1 2 99223372036854775807\n"),  # beyond int64
        (read_edge_list, "1 2 1600000000123456700\n1 2 1600000000123456789.5\n"),
        (read_jodie_csv, HEADER + lines.replace("789", "789.5")),
        (read_event_table, "src,dst,t\n1,2,99223372036854775807\n"),
    ):
        with pytest.raises(DataError, match=r"line [12], column .*(99223372036854775807|beyond 2\*\*53)"):
            read(write(text))


def test_a_header_of_numbers_is_an_event(write):
    with pytest.raises(DataError, match=r"line 1 .*'0,0,5,0,0.5'"):
        read_jodie_csv(write("0,0,5,0,0.5\n0,0,6,0,0.5\n"))
    with pytest.raises(DataError, match="line 1 "):
        read_jodie_csv(write("0,0,5,0\n"))
    for text in ("# from to when\n7 9 100\n9 7 130\n", "# from to when\n7,9,1e2\n9,7,130\n"):
        with pytest.raises(DataError, match="line 2 .* header=False"):
            read_edge_list(write(text), header=True)


def test_a_single_event(write):
    table = write("src,dst,t,w\n1,2,3,.5\n")
    assert read_event_table(table, msg=["w"], y="w", event_type="dst").msg.tolist() == [[0.5]]
    assert read_jodie_csv(write("h\n0,0,0.5,0,1\n"), "all").msg.tolist() == [[1.0]]
    assert read_jodie_csv(write("h\n0,0,5,0,1,2\n"), "all").msg.tolist() == [[1.0, 2.0]]
    assert read_edge_list(write("1 2 0.5 3\n"), "konect").msg.tolist() == [[0.5]]
    assert read_signed_edges(write("1,2,-5,0.5\n")).msg.tolist() == [[-0.5]]
    assert read_contacts(write("20 1 2 a b\n"))[1] == ["a", "b"]
    assert read_node_labels(write("7,4\n"), torch.tensor([7])).tolist() == [0]


@pytest.mark.parametrize("user", [10**13, 2**63 - 1])
def test_jodie_ids_with_gaps_are_refused(write, user):
    with pytest.raises(DataError, match=rf"ids .*{user + 6}.* 3 .*read_event_table"):
        read_jodie_csv(write(HEADER + f"0,5,0,0\n{user},5,1,0\n"))


def test_paths_may_be_strings_and_files_may_begin_with_a_mark(write):
    for name in ("file.csv", "file.csv.gz"):
        marked = str(write("\ufeffsrc,dst,t\n1,2,3\n", name))
        assert read_event_table(marked).node_ids.tolist() == [1, 2]
        assert read_edge_list(marked, header=True).node_ids.tolist() == [1, 2]
        bare = str(write("\ufeff6,2,4,10\n", name))
        assert read_signed_edges(bare).node_ids.tolist() == [2, 6]
        assert read_contacts(str(write("20 1 2 é b\n", name)))[1] == ["b", "é"]
        assert len(read_jodie_csv(str(write(HEADER + "0,0,0,0\n", name)))) == 1
        assert read_node_labels(str(write("\ufeff7,4\n", name)), torch.tensor([7])).tolist() == [0]


@pytest.mark.parametrize("name", ["out.x", "out.gz"])
def test_edge_lists(write, name):
    path = write("% asym weighted\n\n7 9 2 100\n9\t7 -1 130\n3 9 0.5 130\n", name)
    events = read_edge_list(path, "konect")
    assert events.node_ids.tolist() == [3, 7, 9]
    assert events.src.tolist() == [1, 2, 0]
    assert events.dst.tolist() == [2, 1, 2]
    assert events.msg.tolist() == [[2.0], [-1.0], [0.5]]
    assert events.num_sources is None
    snap = read_edge_list(write("src,dst,t\n7,9,100\n", "x.csv"), header=True)
    assert (snap.src.tolist(), snap.num_edge_features) == ([0], 0)
    with pytest.raises(ValueError, match="kind is 'csv'"):
        read_edge_list(path, "csv")


@given(st.lists(st.tuples(st.integers(-5, 30), st.integers(-5, 30)), min_size=1, max_size=30), st.booleans())
@settings(deadline=None, max_examples=40)
def test_numbering(tmp_path_factory, pairs, bipartite):
    path = tmp_path_factory.mktemp("numbering") / "edges.txt"
    path.write_text("".join(f"{u} {v} {time}\n" for time, (u, v) in enumerate(pairs)))
    events = read_edge_list(path, bipartite=bipartite)
    sources, destinations = sorted({u for u, _ in pairs}), sorted({v for _, v in pairs})
    if bipartite:
        assert events.node_ids.tolist() == sources + destinations
        assert events.src.tolist() == [sources.index(u) for u, _ in pairs]
        assert events.dst.tolist() == [len(sources) + destinations.index(v) for _, v in pairs]
    else:
        ids = sorted({*sources, *destinations})
        assert events.node_ids.tolist() == ids
        assert list(zip(events.src.tolist(), events.dst.tolist(), strict=True)) == [
            (ids.index(u), ids.index(v)) for u, v in pairs
        ]


def test_tables(write):
    path = write(
        'when;"who";whom;note;weight;state;sort of\n5;10;20;"a; #b";0.5;1;2\n7;10;30;;0.25;0;0\n9;30;20;c;1;0;1\n'
    )
    events = read_event_table(path, "who", "whom", "when", msg=["weight"], y="state", event_type="sort of")
    assert events.node_ids.tolist() == [10, 20, 30]
    assert (events.src.tolist(), events.dst.tolist(), events.t.tolist()) == ([0, 0, 2], [1, 2, 1], [0, 2, 4])
    assert (events.msg.tolist(), events.y.tolist(), events.event_type.tolist()) == (
        [[0.5], [0.25], [1.0]],
        [1, 0, 0],
        [2, 0, 1],
    )
    apart = read_event_table(path, "who", "whom", "when", bipartite=True)
    assert (apart.num_sources, apart.dst.tolist()) == (2, [2, 3, 2])
    with pytest.raises(DataError, match="line 1 .* from; .*when, who"):
        read_event_table(path, src="from", dst="whom", t="when")
    broken = write("src,dst,t\n1,2,3\n1,2\n")
    with pytest.raises(DataError, match="line 3 .* 2 columns"):
        read_event_table(broken)


def test_unsorted_files(write):
    path = write("1 2 9\n2 3 4\n")
    with pytest.raises(DataError, match="event 1 .* 4, .* 9, .*sort=True"):
        read_edge_list(path)
    assert read_edge_list(path, sort=True).src.tolist() == [1, 0]


def test_contacts(write):
    events, names = read_contacts(write("20\t15\t17\t3B\t1A\r\n20\t17\t19\t1A\tTeachers\r\n"))
    assert names == ["1A", "3B", "Teachers"]
    assert events.node_labels.tolist() == [1, 0, 2]
    assert events.t.tolist() == [0, 0]
    with pytest.raises(DataError, match="line 2: node 17 .* 1A .* 2A"):
        read_contacts(write("20 15 17 3B 1A\n40 17 19 2A 1A\n"))


def test_long_names_of_classes_stay_apart(write):
    long = "a" * 40
    events, names = read_contacts(write(f"20 15 17 {long}1 {long}2\n"))
    assert names == [f"{long}1", f"{long}2"]
    assert events.node_labels.tolist() == [0, 1]


def test_node_labels(write):
    ids = torch.tensor([3, 5, 7])
    assert read_node_labels(write("7,+1\n5,-1\n"), ids).tolist() == [-1, 0, 1]
    with pytest.raises(DataError, match="line 1 .*node 8"):
        read_node_labels(write("8,1\n"), ids)
    assert read_node_labels(write("7,+1\n3,-1\n7,1\n"), ids).tolist() == [0, -1, 1]
    with pytest.raises(DataError, match="line 3: node 7 .* 1 .* -1"):
        read_node_labels(write("7,+1\n3,+1\n7,-1\n"), ids)


def jodie(text):
    return HEADER + text


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (read_jodie_csv, jodie("0,0,0,0,1\n0,0,1,0\n"), "line 3 .* 4 columns, 5"),
        (read_jodie_csv, jodie("0,0,0,0,1\n\n0,x,1,0,1\n"), "line 4, column 'item': 'x'"),
        (read_jodie_csv, jodie("0,0,0,0,1\n0,0,soon,0,1\n"), "line 3, column 'timestamp': 'soon'"),
        (read_jodie_csv, jodie("0,0,0,0,1\n0.5,0,1,0,1\n"), "line 3, column 'user': '0.5'"),
        (read_jodie_csv, jodie("0,0,0\n"), "3 columns; user, item"),
        (read_jodie_csv, jodie("-1,0,0,0\n"), "line 2, column 'user': -1"),
        (read_jodie_csv, jodie("0,0,0,0\n0,0,nan,0\n"), "line 3, column 'timestamp': 'nan'"),
        (read_jodie_csv, jodie("0,0,0,0,0\n0,0,1,0,nan\n"), "line 3, .*: 'nan'"),
        (read_jodie_csv, HEADER, "no event"),
        (read_jodie_csv, "", "no event"),
        (read_edge_list, "# only a comment\n", "no event"),
        (read_edge_list, "1 2 3\n1 2 3 4\n", "line 2 .* 4 columns, 3"),
        (read_edge_list, "1 2 3\n# note\n1 two 4\n", "line 3, column 'dst': 'two'"),
        (read_edge_list, "1 2 3.5\n1 2 late\n", "line 2, column 't': 'late'"),
        (read_signed_edges, "1,2,3,4\n1,2,good,5\n", "line 2, column 'rating': 'good'"),
        (read_contacts, "20 1 2 a\n", "line 1 .* 4 columns, 5"),
    ],
)
def test_corrupt_lines_are_named(write, read, text, message):
    with pytest.raises(DataError, match=message):
        read(write(text))


def test_damaged_archives(write, tmp_path):
    path = write("1 2 3\n" * 500, "a.gz")
    path.write_bytes(path.read_bytes()[:30])
    with pytest.raises(DataError, match=r"a\.gz"):
        read_edge_list(path)
    binary = tmp_path / "b.csv"
    binary.write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(DataError, match="line 1 .*UTF-8"):
        read_edge_list(binary)


def test_signed_edges(write):
    events = read_signed_edges(write("6,2,4,1289241911.72836\n6,5,-10,1289241941.53378\n5,6,0,1289241941.6\n"))
    assert events.event_type.tolist() == [1, 0, 0]
    torch.testing.assert_close(events.msg[:, 0], torch.tensor([0.4, -1.0, 0.0]))
    assert events.t[1].item() == pytest.approx(29.80542)
    with pytest.raises(ValueError, match="scale is 0"):
        read_signed_edges(write("1,2,3,4\n"), scale=0)
