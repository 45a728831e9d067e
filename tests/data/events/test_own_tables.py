"""Tables of events as users have them: names, dates, any headers, gzip, Parquet; and what is wrong with others."""

import gzip
import importlib.util

import numpy as np
import pytest
import torch
from torch_geometric.data import TemporalData

from graphseq.core import DataError
from graphseq.core.errors import OptionalDependencyError
from graphseq.data import (
    EventCSVDataModule,
    MoleculeDataModule,
    SequenceCSVDataModule,
    StringDataModule,
    TabularDataModule,
    TemporalDataModule,
    TemporalEvents,
    TSDataModule,
    read_contacts,
    read_edge_list,
    read_event_table,
    read_jodie_csv,
    read_node_labels,
    read_signed_edges,
)

WHO = "who,whom,when\nann,bob,2024-01-05T10:00+02:00\nbob,eve,2024-01-05T08:01:00.5Z\neve,ann,2024-01-05T09:00Z\n"


@pytest.fixture(autouse=True)
def _isolated(own_cache, no_network):
    pass


@pytest.fixture
def write(tmp_path):
    def _write(text, name="file.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return _write


def triples(events):
    ids = [events.ids_of(column).tolist() for column in (events.src, events.dst)]
    return list(zip(*ids, (events.t + events.time_offset).tolist(), strict=True))


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("src,dst,t\n7,9,3\n9,7,5\n", [(7, 9, 3), (9, 7, 5)]),
        ("7,9,3\n9,7,5\n", [(7, 9, 3), (9, 7, 5)]),
        ("# from to when\n7 9 3\n9 7 5\n", [(7, 9, 3), (9, 7, 5)]),
        ("# t src dst\n3 7 9\n5 9 7\n", [(7, 9, 3), (9, 7, 5)]),
        ("a;b;c;d\n7;9;3;x\n9;7;5;y\n", [(7, 9, 3), (9, 7, 5)]),
        ("time\tuser\titem\n3\t7\t9\n5\t9\t7\n", [(7, 9, 3), (9, 7, 5)]),
        (",x,y,z\n0,7,9,3\n1,9,7,5\n", [(7, 9, 3), (9, 7, 5)]),  # with an index, as pandas writes it
        ("ann,bob,3\nbob,#7,5\n", [("ann", "bob", 3), ("bob", "#7", 5)]),
        ("007,bob,3\n7,bob,5\n", [("007", "bob", 3), ("7", "bob", 5)]),
        ('u,v,t\n"a, b",é,3\né,"a, b",5\n', [("a, b", "é", 3), ("é", "a, b", 5)]),
        ("ann,bob,1970-01-01\nann,bob,1970-01-02 00:00:01\n", [("ann", "bob", 0), ("ann", "bob", 86401)]),
        (WHO, [("ann", "bob", 1704441600.0), ("bob", "eve", 1704441660.5), ("eve", "ann", 1704445200.0)]),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_what_a_table_means_is_found_out(write, text, rows, packed):
    path = write(gzip.compress(text.encode()) if packed else text)
    assert triples(read_event_table(path)) == rows
    module = EventCSVDataModule(path, val_fraction=0, test_fraction=0)
    assert triples(module.events) == rows
    assert triples(EventCSVDataModule(path).read_events()) == rows  # from the cache


def test_columns_by_name_and_position(write):
    path = write("n,when,a,b,w\nx,3,7,9,0.5\ny,5,9,7,0.25\n")
    for columns in ({"src": "a", "dst": "b", "t": "when"}, {"src": 2, "dst": 3, "t": 1}, {"src": "a", "dst": 3}):
        events = read_event_table(path, **columns, msg=["w"])
        assert triples(events) == [(7, 9, 3), (9, 7, 5)]
        assert events.msg.tolist() == [[0.5], [0.25]]
    assert read_event_table(write("3,7,9,1\n5,9,7,2\n", "bare.csv"), 1, 2, 0, msg=[3]).msg.tolist() == [[1.0], [2.0]]
    for columns, message in (
        ({"src": "c"}, "line 1 .* c; .*n, when, a, b, w"),
        ({"src": 9}, "column 9 "),
        ({"src": "a", "dst": "a"}, "src 'a', dst 'a'"),
    ):
        with pytest.raises(DataError, match=message):
            read_event_table(path, **columns)
    with pytest.raises(DataError, match="line 2, column 'a': 'x'|column 'b'"):
        read_event_table(write("a,b,when,c\n7,x,3,1\n9,7,5,1\n8,7,y,2\n"), t="c", dst="b", src="a", ids="integer")


def test_sources_and_destinations_apart(write):
    events = read_event_table(write("ann,bob,1\nbob,bob,2\n"), bipartite=True)
    assert (events.node_ids, events.src.tolist(), events.dst.tolist()) == (["ann", "bob", "bob"], [0, 1], [2, 2])
    mixed = read_event_table(write("7,tea,1\n9,milk,2\n"), bipartite=True)
    assert (mixed.node_ids, mixed.num_sources) == (["7", "9", "milk", "tea"], 2)


def test_ids_read_as_text(write):
    path = write("src,dst,t\n12,ab,1\n1e5,12,2\n")
    assert read_event_table(path).node_ids == ["12", "1e5", "ab"]
    hashes = write("src,dst,t\n12,34,1\nff,12,2\n")
    with pytest.raises(DataError, match="line 3, column 'src': 'ff' .*ids='text'"):
        read_event_table(hashes)
    assert read_event_table(hashes, ids="text").node_ids == ["12", "34", "ff"]
    beyond = write("src,dst,t\n99999999999999999999,34,1\n")
    with pytest.raises(DataError, match="line 2, column 'src': '99999999999999999999' .*int64.*ids='text'"):
        read_event_table(beyond)
    assert read_event_table(beyond, ids="text").node_ids == ["34", "99999999999999999999"]
    with pytest.raises(ValueError, match="ids is 'word'"):
        EventCSVDataModule(path, ids="word")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ann,bob,05.01.2024\nann,bob,06.01.2024\n", r"file\.csv: the first line, 'ann', 'bob', '05.01.2024'"),
        ("src,dst,t\nann,bob,05.01.2024\n", r"file\.csv, line 2: .*'05.01.2024' is not a date in ISO 8601"),
        ("src,dst,t\nann,bob,2024-13-05\n", r"file\.csv, line 2, column 't': '2024-13-05' is no date of the calendar"),
        ("src,dst,t\nann,bob,2024-01-05\n\nann,bob,1/6/2024\n", r"file\.csv, line 4, column 't': '1/6/2024'"),
        ("src,dst,t\nann,bob,2024-01-05\nann,bob,5\n", r"file\.csv, line 3, column 't': '5'"),
        ("src,dst,t\nann,bob,5\nann,bob,2024-01-05\n", r"file\.csv, line 3, column 't': '2024-01-05'.* all as dates"),
        ("src,dst,t\na,b,2024-01-05T10:00Z\na,b,2024-01-05T11:00\n", r"line 3, column 't': .*T11:00' has no time zone"),
        ("src,dst,t\na,b,2024-01-05T10:00\na,b,2024-01-05T11:00Z\n", r"line 3, column 't': .*T11:00Z' has a time zone"),
        ("src,dst,t\na,b,2024-01-05T10:00:00.123456789\n", "column 't', row 0.*microsecond"),
        ("src,dst,t\nann,bob,1\n ,bob,2\n", r"file\.csv, line 3, column 'src': the cell is empty"),
        ("src,dst,t\nann,bob,1\nann,,2\n", r"file\.csv, line 3, column 'dst': the cell is empty"),
        ("7,9,soon\n7,9,4\n", r"file\.csv: the first line, '7', '9', 'soon'"),
        ("a,b\n7,9\n", r"file\.csv: the first line, 'a', 'b'"),
        ("src,dst,t\nann,bob,2\nbob,ann,1\n", "sort=True"),
    ],
)
def test_tables_that_do_not_fit(write, text, message):
    with pytest.raises(DataError, match=message):
        read_event_table(write(text))


HEADER = "user,item,timestamp,state_label\n"
TEN = "".join(f"{'C' * (n + 1)}O,{n}\n" for n in range(10))
READERS = {
    # reader, good text, the same with one row, and a bad line: a word among numbers, an id beyond int64, another date
    "jodie": (read_jodie_csv, HEADER, "0,0,0,0\n", ["x,0,1,0", f"{10**20},0,1,0", "0,0,1/2/2024,0"]),
    "snap": (read_edge_list, "", "1 2 3\n", ["x 2 4", f"{10**20} 2 4", "1 2 1/2/2024"]),
    "konect": (
        lambda p: read_edge_list(p, "konect"),
        "",
        "1 2 1 3\n",
        ["x 2 1 4", f"{10**20} 2 1 4", "1 2 1 1/2/2024"],
    ),
    "signed": (read_signed_edges, "", "1,2,3,4\n", ["x,2,3,5", f"{10**20},2,3,5", "1,2,3,1/2/2024"]),
    "contacts": (read_contacts, "", "20 1 2 a b\n", ["30 x 2 a b", f"30 {10**20} 2 a b", "1/2/2024 1 2 a b"]),
    "table": (read_event_table, "src,dst,t\n", "1,2,3\n", ["x,2,4", f"{10**20},2,4", "1,2,1/2/2024"]),
    "module": (lambda p: EventCSVDataModule(p).load(), "src,dst,t\n", None, ["x,2,4", f"{10**20},2,4", "1,2,1/2/2024"]),
    "labels": (lambda p: read_node_labels(p, torch.tensor([7])), "", "7,4\n", ["x,1", f"{10**20},1", "7,1/2/2024"]),
    "tabular": (lambda p: TabularDataModule(p, "y").load(), "x,y\n", None, ["z,1", None, "1/2/2024,1"]),
    "molecules": (lambda p: MoleculeDataModule(path=p).load(), "smiles,y\n", None, ["CCO,z", None, "CCO,1/2/2024"]),
    "sequences": (
        lambda p: SequenceCSVDataModule(p, "id", "y").load(),
        "id,x,y\n",
        None,
        ["0,z,a", None, "0,1/2/24,a"],
    ),
    "strings": (lambda p: StringDataModule(p, "x", "y").load(), "x,y\n", None, [None, None, None]),
    "ts": (lambda p: TSDataModule(p).load(), "@classLabel true a b\n@data\n", None, [None, None, None]),
}
GOOD = {
    "module": "".join(f"1,2,{n}\n" for n in range(40)),
    "tabular": "".join(f"{n},{n % 2}\n" for n in range(40)),
    "molecules": TEN,
    "sequences": "".join(f"{n // 2},{n},{'ab'[n // 2 % 2]}\n" for n in range(80)),
    "strings": "".join(f"{'ab'[n % 2] * (n + 1)},{n % 2}\n" for n in range(40)),
    "ts": "1,2,3:a\n4,5:b\n" * 20,
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("fault", ["folder", "missing", "empty", "header only", "one row", "word", "int64", "date"])
def test_bad_files_are_named_by_every_reader(write, tmp_path, name, fault):
    read, header, one, bad = READERS[name]
    good = header + str(GOOD.get(name, one))
    if name == "molecules":
        pytest.importorskip("rdkit")
    where = r"file\.csv"
    if fault == "folder":
        path, where = tmp_path, "folder|directory"
    elif fault == "missing":
        path, where = tmp_path / "nowhere.csv", r"nowhere\.csv"
    elif fault in ("empty", "header only"):
        path = write("" if fault == "empty" else header)
    elif fault == "one row":
        if one is not None:
            read(write(header + one))
            return
        path, where = write(header + GOOD[name].splitlines(keepends=True)[0]), "."
    else:
        line = bad[["word", "int64", "date"].index(fault)]
        if line is None:
            pytest.skip("such a cell is text or a number like others here")
        path, where = write(good + line + "\n"), rf"file\.csv, line {len(good.splitlines()) + 1}\b"
    with pytest.raises(DataError, match=where):
        read(path)


def test_temporal_data_is_a_stream():
    one = torch.arange(20)
    data = TemporalDataModule(TemporalData(src=one % 3, dst=3 + one % 4, t=one, msg=torch.rand(20, 2)), batch_size=5)
    assert (data.num_nodes, data.num_edge_features, data.split_sizes()["train"]) == (7, 2, 14)
    assert TemporalDataModule(lambda: TemporalData(src=one % 3, dst=3 + one % 4, t=one)).num_nodes == 7
    with pytest.raises(DataError, match="stream is a list"):
        TemporalDataModule(lambda: [1]).load()


class TestCheckpoint:
    """The numbers of nodes are those of training, whatever other table is evaluated."""

    def modules(self, write, text=None, **options):
        rows = [f"n{n % 5},n{5 + n % 3},{n}" for n in range(40)]
        first = EventCSVDataModule(write("\n".join(rows), "train.csv"), **options)
        fewer = text or "\n".join(row for row in rows if "n0" not in row)
        return first, EventCSVDataModule(write(fewer, "later.csv"), **options)

    @pytest.mark.parametrize("bipartite", [False, True])
    def test_another_table_is_numbered_as_in_training(self, write, bipartite):
        trained, later = self.modules(write, bipartite=bipartite)
        state = trained.state_dict()
        before = triples(later.events)
        assert later.num_nodes == 7
        with pytest.warns(UserWarning, match="splits"):
            later.load_state_dict(state)
        assert (later.num_nodes, later.num_sources) == (8, trained.num_sources)
        assert later.events.node_ids == trained.events.node_ids
        assert triples(later.events) == before
        at = trained.events.node_ids.index("n3")
        assert later.events.src[[n for n, row in enumerate(before) if row[0] == "n3"]].unique().tolist() == [at]
        assert len(later.state_dict()["nodes"]["ids"]) == 8

    def test_integer_ids_too(self, write):
        trained, later = self.modules(write, "\n".join(f"{n % 3},{n % 2},{n}" for n in range(40)))
        trained = EventCSVDataModule(write("\n".join(f"{n % 4 - 1},{n % 3},{n}" for n in range(40)), "train.csv"))
        before = triples(later.events)
        with pytest.warns(UserWarning, match="splits"):
            later.load_state_dict(trained.state_dict())
        assert later.events.node_ids.tolist() == [-1, 0, 1, 2]
        assert triples(later.events) == before

    def test_nodes_that_training_did_not_know(self, write):
        trained, later = self.modules(write, "\n".join(f"n{n % 5},m{n % 3},{n}" for n in range(40)))
        with (
            pytest.warns(UserWarning, match="splits"),
            pytest.raises(DataError, match="3 destinations .* 8 nodes .*'m0', 'm1', 'm2'"),
        ):
            later.load_state_dict(trained.state_dict())

    def test_checkpoints_are_plain(self, write, tmp_path):
        trained, again = self.modules(write)[0], self.modules(write)[0]
        torch.save(trained.state_dict(), tmp_path / "state.pt")
        again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        assert torch.equal(again.events.src, trained.events.src)


class TestParquet:
    @pytest.fixture
    def save(self, tmp_path):
        pandas = pytest.importorskip("pandas")
        pytest.importorskip("pyarrow")

        def _save(**columns):
            path = tmp_path / "file.parquet"
            pandas.DataFrame(columns).to_parquet(path)
            return path

        return _save

    def test_ids_and_dates(self, save):
        pandas = pytest.importorskip("pandas")
        when = pandas.to_datetime(["2024-01-05T10:00+02:00", "2024-01-05T10:01+02:00"])
        events = EventCSVDataModule(save(who=["ann", "bob"], whom=["bob", "ann"], when=when)).read_events()
        assert triples(events) == [("ann", "bob", 1704441600), ("bob", "ann", 1704441660)]
        texts = save(time=["2024-01-05T10:00+02:00", "2024-01-05T08:01Z"], a=[7, 9], b=[9, 8], w=[0.5, 1.0])
        events = read_event_table(texts, msg=["w"])
        assert triples(events) == [(7, 9, 1704441600), (9, 8, 1704441660)]
        assert read_event_table(texts, ids="text").node_ids == ["7", "8", "9"]

    def test_what_does_not_fit(self, save):
        for columns, message in (
            ({"src": ["ann", None], "dst": ["b", "c"], "t": [1, 2]}, r"file\.parquet: column src, row 1"),
            ({"src": [0.5, 1.0], "dst": [1, 2], "t": [1, 2]}, r"file\.parquet: column src"),
            ({"src": [1, 2], "dst": [1, 2], "t": ["soon", "late"]}, r"file\.parquet: column t\[0\]: 'soon'"),
            ({"src": [1, 2], "dst": [1, 2]}, "2 columns .*src, dst"),
            ({"src": [], "dst": [], "t": []}, "no event"),
        ):
            with pytest.raises(DataError, match=message):
                read_event_table(save(**columns))
        with pytest.raises(DataError, match=r"file\.parquet: column dst, row 1: the id is empty"):
            read_event_table(save(src=["ann", "bob"], dst=["eve", None], t=[1, 2]), ids="text")


def test_parquet_says_what_it_needs(write):
    path = write(b"PAR1 damaged")
    if importlib.util.find_spec("pyarrow") is None and importlib.util.find_spec("fastparquet") is None:
        with pytest.raises(OptionalDependencyError, match=r"pyarrow.*graphseq\[parquet\]"):
            read_event_table(path)
    else:
        with pytest.raises(DataError, match=r"file\.csv cannot be read as Parquet"):
            read_event_table(path)


def test_labels_of_ids_need_integers():
    one = torch.tensor([0, 1])
    assert TemporalEvents(one, one, one).ids_of(one).tolist() == [0, 1]
    numbers = TemporalEvents(one, one, one, node_ids=torch.tensor([5, 9])).ids_of(one[None])
    assert np.asarray(numbers).tolist() == [[5, 9]]
