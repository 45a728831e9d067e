"""Text tables against Python's csv module: the same rows, or an error that names the line."""

import csv
import gzip
import io
import re
import subprocess
import sys

import numpy as np
import pandas
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphseq.core import DataError
from graphseq.data import (
    MoleculeDataModule,
    TabularDataModule,
    read_contacts,
    read_edge_list,
    read_event_table,
    read_jodie_csv,
    read_node_labels,
    read_signed_edges,
)
from graphseq.data import records as record_module
from graphseq.data.tables import TextTable

EVENTS = "src,dst,t,note\n"


@pytest.fixture
def write(tmp_path):
    def _write(text, name="file.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return _write


def quoted(cell):
    return '"' + cell.replace('"', '""') + '"'


CELL = st.one_of(
    st.integers(-(2**63), 2**63 - 1).map(str),
    st.text(st.sampled_from('ab ,;"\n#%'), max_size=6),
)


@pytest.mark.parametrize("block", [5, 64, 2**22])
@given(
    rows=st.lists(st.tuples(st.integers(0, 9), CELL, CELL), min_size=1, max_size=12),
    always=st.booleans(),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    packed=st.booleans(),
    last=st.booleans(),
    blank=st.booleans(),
)
@settings(deadline=None, max_examples=25)
def test_equals_pythons_csv_module(tmp_path_factory, block, rows, always, end, packed, last, blank):
    def one(cell):
        return quoted(cell) if always or set(cell) & set(',"\n') else cell

    lines = ["id,first,second", *(",".join([str(a), one(b), one(c)]) for a, b, c in rows)]
    text = ("\n\n" if blank else "\n").join(lines) + "\n" * last
    expected = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True) if row]
    data = ("\ufeff" + text.replace("\n", end)).encode()
    path = tmp_path_factory.mktemp("table") / "table.csv"
    path.write_bytes(gzip.compress(data) if packed else data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record_module, "_BLOCK", block)
        try:
            table = TextTable(path, [","], header="columns", names=["id"])
            found = table.read([(0, "integer"), (1, "text"), (2, "text")])
        except DataError as error:
            assert "each of these lines is a row" in str(error)  # noqa: PT017 - ambiguous: perhaps a quote left open
            assert any("\n" in cell for row in rows for cell in row[1:])
            return
    assert table.header == expected[0]
    assert found[0, "integer"].tolist() == [int(row[0]) for row in expected[1:]]
    for place in (1, 2):
        # pandas drops no more than the blanks before a cell
        assert [cell.strip(" ") for cell in found[place, "text"]] == [row[place].strip(" ") for row in expected[1:]]
    starts = np.cumsum([1] + [(1 + blank) + ",".join(row).count("\n") for row in expected])[1:-1]
    assert table.lines.tolist() == starts.tolist()


@given(st.text(st.sampled_from('0a,"\n '), max_size=40))
@settings(deadline=None, max_examples=120)
def test_quotes_are_read_as_python_reads_them_or_refused(tmp_path_factory, text):
    """No text loses rows: what is read has the rows of a strict parse, and all else is an error with a line."""
    path = tmp_path_factory.mktemp("table") / "table.csv"
    path.write_text("x,y\n" + text)
    try:
        table = TextTable(path, [","], header="columns")
        found = table.read([(0, "text"), (1, "text")])
    except DataError as error:
        assert re.search(r"line \d|no rows", str(error))  # noqa: PT017 - reading it is right too
        return
    expected = [
        row
        for row in csv.reader(io.StringIO(text, newline=""), skipinitialspace=True)
        if len(row) > 1 or "".join(row).strip()
    ]
    assert [[cell.strip() for cell in row] for row in zip(found[0, "text"], found[1, "text"], strict=True)] == [
        [cell.strip() for cell in row] for row in expected
    ]


@given(
    st.lists(
        st.one_of(
            st.integers(-(2**70), 2**70).map(str),
            st.floats().map(repr),
            st.text(st.sampled_from("0123456789+-.eE_, "), max_size=8),
            st.sampled_from(
                ["NA", "nan", "null", "inf", "-inf", "", "True", "0x10", "1_000", "1e39", "1e400", "\uff11"]
            ),
        ),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from(["integer", "time", "label", "float32", "real", "optional"]),
)
@settings(deadline=None, max_examples=150)
def test_numbers_are_exact_or_refused(tmp_path_factory, cells, kind):
    path = tmp_path_factory.mktemp("table") / "table.csv"
    path.write_text("x;y\n" + "".join(f"{cell};0\n" for cell in cells))
    whole = re.compile(r" *[+-]?[0-9]+ *")
    decimal = re.compile(r" *[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)? *")

    def fits(cell):
        if kind == "optional" and not cell.strip():
            return True
        if kind in ("integer", "time", "label") and whole.fullmatch(cell):
            return -(2**63) <= int(cell) < 2**63
        if kind == "integer" or not decimal.fullmatch(cell):
            return False
        limit = float(np.finfo(np.float32).max) if kind in ("float32", "optional", "label") else sys.float_info.max
        return abs(float(cell)) <= limit

    table = TextTable(path, [";"], header="columns")
    wrong = next((line for line, cell in enumerate(cells, 2) if not fits(cell)), None)
    if wrong is not None:
        # of times, an earlier one beyond 2**53 may be refused first, for the column is then not of integers
        named = r"\d+" if kind == "time" else wrong
        with pytest.raises(DataError, match=f"line {named}, column 'x'"):
            table.read([(0, kind)])
        return
    numbers = [int(cell) if whole.fullmatch(cell) else float(cell) if cell.strip() else np.nan for cell in cells]
    mixed = kind == "time" and not all(map(whole.fullmatch, cells))
    if mixed and any(abs(number) >= 2**53 for number in numbers):
        with pytest.raises(DataError, match=r"column 'x'.*2\*\*53"):
            table.read([(0, kind)])
        return
    found = table.read([(0, kind)])[0, kind]
    dtype = np.float32 if kind in ("float32", "optional") else None
    np.testing.assert_array_equal(found, np.array(numbers, dtype if dtype else found.dtype))
    if not mixed and kind in ("integer", "time"):
        assert found.tolist() == numbers  # exact, beyond 2**53 too


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (EVENTS + '0,0,0,"see you\n1,1,1,ok\n', 2),  # never closed
        (EVENTS + '0,0,0,a\n0,0,1,"see you\n1,1,2,"ok"\n', 3),  # closed by the quote of another cell
        (EVENTS + '0,0,0,a\n0,0,1,"see you\n1,1,2,b\n1,1,3,ok"\n', 3),  # closed at the end of another row
        (EVENTS + '0,0,0,say "hi" twice\n', 2),
        (EVENTS + '0,0,0,"a" b\n', 2),
        ('src,dst,t,"note\n0,0,0,a"\n1,1,1,b\n', 1),  # the header is open
        (EVENTS + "0,0,0,a\n\n1,1,1\n", 4),
        (EVENTS + "0,0,0,a\n1,1,1,b,\n", 3),
        (EVENTS + "0,0,0,a\n# later\n1,1,1,b\n", 3),
        (EVENTS + "0,0,0,a\n#1,1,1,b\n", 3),
        (EVENTS + "0,0,0,a\n9223372036854775808,1,1,b\n", 3),
        (EVENTS + "0,0,0,a\n1e17,1,1,b\n", 3),
        (EVENTS + "0,0,0,a\n7.0,1,1,b\n", 3),
        (EVENTS + "0,0,0,a\n,1,1,b\n", 3),
        (EVENTS + "0,0,0,a\nNA,1,1,b\n", 3),
        (EVENTS + '0,0,0,a\n"1,000",1,1,b\n', 3),
        (EVENTS + "0,0,0,a\n1,1,nan,b\n", 3),
        (EVENTS + "0,0,0,a\n1,1,inf,b\n", 3),
        (EVENTS + "0,0,01.02.2020,a\n", 2),
        (EVENTS + "0,0,5,a\n0,0,2020-01-01 00:00:00Z,a\n", 3),
        (EVENTS + "0,0,9223372036854775808,a\n", 2),
        (EVENTS + "0,0,0.5,a\n0,0,9007199254740993,a\n", 3),
        (EVENTS.encode() + b"0,0,0,a\n0,0,1,b\xff\n", 3),
        (EVENTS.encode() + b"0,0,0,a\n0,0,1\x002,b\n", 3),
        ("src,dst,t,src\n0,0,0,1\n", 1),
        ("src,dst,t,t\n0,0,0,1\n", 1),
        ("src,dst,when\n0,0,1/2/2020\n", 2),
    ],
)
def test_event_tables_name_the_line(write, text, line):
    with pytest.raises(DataError, match=rf"file\.csv, line {line}\b"):
        read_event_table(write(text))


def test_event_values_beyond_their_type(write):
    text = "src,dst,t,w,y,k\n0,0,0,1,1,0\n"
    for row, column in (("0,0,1,1e39,1,0", "w"), ("0,0,1,1,-1e39,0", "y"), ("0,0,1,1,1,-1", "k"), ("0,0,1,,1,0", "w")):
        with pytest.raises(DataError, match=rf"line 3, column '{column}'"):
            read_event_table(write(text + row + "\n"), msg=["w"], y="y", event_type="k")


@pytest.mark.parametrize(
    ("text", "notes"),
    [
        (EVENTS + '0,0,0,"a\nb, ""c"""\n1,1,1,\n', 2),
        ('src,dst,t,"note, or\nnone"\n0,0,0,a\n1,1,1,b\n', 2),
        ('"a,b;c"\t"src"\tdst\tt\nx,y\t0\t0\t0\n\t1\t1\t1\n', 2),
        ("# made by hand, twice\n\nsrc,dst,t\n0,0,0\n1,1,1\n", 2),
        ("#src,dst,t\n0,0,0\n1,1,1\n", 2),
        ("# src dst t\n0 0 0\n1 1 1\n", 2),
        ("#,src,dst,t\n1,0,0,0\n2,1,1,1\n", 2),
        ("\ufeffsrc,dst,t,\r\n0,0,0,\r\n\r\n1,1,1,\r\n", 2),
        ('src, dst, t, note\n0, 0, 0, a\n1, 1, 1, "b, c" \n', 2),
        ("src,dst,t,x,x\n0,0,0,1,2\n1,1,1,1,2\n", 2),
        ("src,dst,t,note\n0,0,0,NA\n1,1,1,null", 2),
        ("src;dst;t;note\n0;0;0;a, b\n1;1;1;\n", 2),
    ],
)
def test_event_tables_that_are_right(write, text, notes):
    events = read_event_table(write(text))
    assert len(events) == notes
    assert (events.src.tolist(), events.dst.tolist(), events.t.tolist()) == ([0, 1], [0, 1], [0, 1])


@pytest.mark.parametrize(
    ("read", "good", "bad"),
    [
        (read_edge_list, ["1 2 3"], "1 2 3 # note"),
        (read_edge_list, ["% 1 2 3", "1 2 3", '# say "hi'], '1 2 "3'),
        (read_edge_list, ["1,2,3"], "1 2 4"),
        (read_edge_list, ["1 2 3"], "18446744073709551616 2 4"),
        (read_signed_edges, ["1,2,3,4"], "1,2,,5"),
        (read_signed_edges, ["1,2,3,4"], "1,2,1e400,5"),
        (read_signed_edges, ["1,2,3,4"], "1,2,3,2020-01-01"),
        (read_contacts, ["20 1 2 a b"], '40 1 2 "a b'),
        (read_contacts, ["20,1,2,a,b"], "40,1,2,a,"),
        (read_contacts, ["20 1 2 a b"], "40 1 2 b b"),
        (read_contacts, ["20 1 2 a b"], "40 1 2 a"),
        (read_jodie_csv, ["u,i,t,y,f", "0,0,0,0,1"], "0,0,1,0,"),
        (read_jodie_csv, ["u,i,t,y,f", "0,0,0,0,1"], "0,0,1,0,1e39"),
        (read_jodie_csv, ["u,i,t,y,f", "0,0,0,0,1"], "0,-1,1,0,1"),
        (read_jodie_csv, ["u,i,t,y,f", "0,0,0,0,1"], "0,0,1,,1"),
    ],
)
def test_lines_that_do_not_fit_are_named(write, read, good, bad):
    text = "\n".join([*good, "", bad, *good[-1:]]) + "\n"
    with pytest.raises(DataError, match=rf"file\.csv, line {len(good) + 2}\b"):
        read(write(text))


def test_labels_of_nodes_that_do_not_fit(write):
    ids = torch.tensor([3, 7])
    for text, line in (
        ("7,1\n3,x\n", 2),
        ("7,1\n\n3\n", 3),
        ("7,1\n9,1\n", 2),
        ('7,1\n"3,1\n', 2),
        ("7,1\n3,\n", 2),
        ("7,1\n3,1\n7,2\n7,1\n", 3),
    ):
        with pytest.raises(DataError, match=rf"line {line}\b"):
            read_node_labels(write(text), ids)


def test_comments_and_quotes_in_lists(write):
    text = '# it\'s 5" wide\n  % indented\n1 2 3\n\n# "\n\t4 5 6\n'
    assert read_edge_list(write(text)).node_ids.tolist() == [1, 2, 4, 5]
    events, names = read_contacts(write('20 1 2 "3 B" 1A\n40 1 2 "3 B" 1A\n'))
    assert (len(events), names) == (2, ["1A", "3 B"])
    jodie = '"user, id",item,t,y,f\n0,0,0,0,1\n0,0,1,0,2\n'
    assert read_jodie_csv(write(jodie)).msg.tolist() == [[1.0], [2.0]]


def test_blocks_do_not_change_what_is_read(write, monkeypatch):
    path = write(EVENTS + "".join(f'{n},{n % 3},{n}.5,"a\n, {n}"\n\n' for n in range(50)))
    whole = read_event_table(path)
    for block in (7, 50, 501):
        monkeypatch.setattr(record_module, "_BLOCK", block)
        parts = read_event_table(path)
        assert torch.equal(parts.src, whole.src)
        assert torch.equal(parts.t, whole.t)
    monkeypatch.setattr(record_module, "_BLOCK", 40)
    late = path.read_text() + '7,x,0,""\n'
    with pytest.raises(DataError, match=rf"line {late.count(chr(10))}, column 'dst': 'x'"):
        read_event_table(write(late))


def test_whole_times_in_one_block_and_fractions_in_another(write, monkeypatch):
    monkeypatch.setattr(record_module, "_BLOCK", 8)
    assert read_edge_list(write("1 2 3\n1 2 4\n1 2 4.5\n")).t.tolist() == [0.0, 1.0, 1.5]
    with pytest.raises(DataError, match=r"line 1, column 't'.*2\*\*53"):
        read_edge_list(write("1 2 9007199254740993\n1 2 9007199254740993.5\n"))


def test_a_row_that_pandas_loses_is_noticed(write, monkeypatch):
    path, read = write(EVENTS + "0,0,0,a\n1,1,1,b\n"), pandas.read_csv
    monkeypatch.setattr(pandas, "read_csv", lambda *args, **options: read(*args, **options)[1:])
    with pytest.raises(DataError, match="1 rows .* 2 records .*line 2"):
        read_event_table(path)


def test_pandas_is_imported_when_a_table_is_read_only():
    code = (
        "import sys, graphseq.data.tables, graphseq.data.records; "
        "before = 'pandas' in sys.modules; print('pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


class TestTabular:
    ROWS = "".join(f"{n},{n % 5},{'ab'[n % 2]}\n" for n in range(40))

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            ('1,2,"a\n1,2,b\n', r"line 42\b"),
            ("1,2,3,a\n", r"line 42\b"),
            ("1e999,2,a\n", "line 42, column 'x'"),
            ("'1',2,a\n", "line 42, column 'x'"),
            ('"1,234",2,a\n', "line 42, column 'x': '1,234'"),
            ("NA,2,a\n", "line 42, column 'x'"),
            ("1_0,2,a\n", "line 42, column 'x'"),
        ],
    )
    def test_rows(self, write, rows, message):
        with pytest.raises(DataError, match=message):
            TabularDataModule(write("x,z,y\n" + self.ROWS + rows), "y").load()

    def test_numbers_in_another_notation_are_not_taken_for_text(self, write):
        text = "x;z;y\n" + "".join(f"{n},5;{n % 5};{'ab'[n % 2]}\n" for n in range(40))
        with pytest.raises(DataError, match="line 2, column 'x': '0,5'"):
            TabularDataModule(write(text), "y", delimiter=";").load()
        data = TabularDataModule(write(text), "y", delimiter=";", features=["z"])
        assert data.feature_names == ["z"]

    def test_targets(self, write):
        numbers = "x,y\n" + "".join(f"{n},{n}.5\n" for n in range(40))
        with pytest.raises(DataError, match="line 42, column 'y': '1e39'"):
            TabularDataModule(write(numbers + "1,1e39\n"), "y").load()
        for word in ("NA", "nan", "null", "?"):
            with pytest.raises(DataError, match=rf"line 42, column 'y'.*{re.escape(repr(word))}"):
                TabularDataModule(write(numbers + f"1,{word}\n"), "y").load()
            whole = "x,y\n" + "".join(f"{n},{n % 2}\n" for n in range(40))
            with pytest.raises(DataError, match=rf"line 42, column 'y'.*{re.escape(repr(word))}"):
                TabularDataModule(write(whole + f"1,{word}\n"), "y").load()
        named = "x,y\n" + "".join(f"{n},{('NA', 'EU')[n % 2]}\n" for n in range(40))
        assert TabularDataModule(write(named), "y").class_names == ["EU", "NA"]

    def test_large_labels_stay_apart(self, write):
        labels = [2**63, 2**63 + 1, -1]
        text = "x,y\n" + "".join(f"{n},{labels[n % 3]}\n" for n in range(60))
        assert TabularDataModule(write(text), "y").class_names == ["-1", str(2**63), str(2**63 + 1)]

    def test_values_without_a_deviation(self, write):
        text = "x,y\n" + "".join(f"{n}e200,{'ab'[n % 2]}\n" for n in range(40))
        with pytest.raises(DataError, match="column 'x'.*float64"):
            TabularDataModule(write(text), "y").load()

    def test_an_outlier_beyond_float32(self, write):
        path = write("x,y\n" + "".join(f"{n % 2},{'ab'[n % 2]}\n" for n in range(60)))
        held = int(TabularDataModule(path, "y").splits["test"][0])
        lines = path.read_text().splitlines()
        lines[held + 1] = "1e200," + lines[held + 1].split(",")[1]
        with pytest.raises(DataError, match=rf"line {held + 2}, column 'x': 1e\+200"):
            TabularDataModule(write("\n".join(lines)), "y").load()

    @pytest.mark.parametrize("delimiter", ['"', "\n", "§", ""])
    def test_delimiters(self, delimiter):
        with pytest.raises(ValueError, match="delimiter is"):
            TabularDataModule("table.csv", "y", delimiter=delimiter)

    @pytest.mark.parametrize("delimiter", [" ", "\t", "|"])
    def test_other_delimiters(self, write, delimiter):
        path = write(("x,z,y\n" + self.ROWS).replace(",", delimiter))
        data = TabularDataModule(path, "y", delimiter=delimiter)
        assert (data.feature_names, len(data.store)) == (["x", "z"], 40)


class TestMolecules:
    GOOD = "".join(f"{'C' * (n + 1)}O,{n}\n" for n in range(8))

    @pytest.fixture(autouse=True)
    def _isolated(self, own_cache, no_network):
        pytest.importorskip("rdkit")

    def read(self, path, **options):
        return MoleculeDataModule(
            path=path, target_columns=["y"], split="random", fractions=(0.5, 0.25, 0.25), **options
        )

    @pytest.mark.parametrize("smiles", ["CC O", '"CCO\nCCC"', "CC\tO", "CC\u00a0O", "CCO |$a$|"])
    def test_blanks_inside_are_unreadable(self, write, smiles):
        data = self.read(write(f"smiles,y\n{self.GOOD}{smiles},1\nCCN,5\n"))
        with pytest.warns(UserWarning, match="1 of 10"):
            data.load()
        assert [(line, text) for line, text, _ in data.unreadable_rows] == [(10, smiles.strip('"'))]
        assert len(data.graphs) == 9
        with pytest.raises(DataError, match="line 10"):
            self.read(write(f"smiles,y\n{self.GOOD}{smiles},1\n"), unreadable="error").load()

    def test_scaffolds_of_blanks(self):
        from graphseq.data import scaffold

        with pytest.raises(DataError, match="'CCO CCC'"):
            scaffold("CCO CCC")

    @pytest.mark.parametrize(
        ("row", "message"),
        [
            ('"CCO,1\nCCC,2\nCCN",3\n', r"line 10\b"),
            ('"CCO,1\n', r"line 10\b"),
            ("CCO,1,\n", r"line 10\b"),
            ("CCO,1e39\n", "line 10, column 'y': '1e39'"),
            ("CCO,nan\n", "line 10, column 'y': 'nan'"),
            ('CCO,"1,5"\n', "line 10, column 'y': '1,5'"),
        ],
    )
    def test_rows(self, write, row, message):
        with pytest.raises(DataError, match=message):
            self.read(write(f"smiles,y\n{self.GOOD}{row}")).load()

    def test_large_and_missing_targets(self, write):
        data = self.read(write(f"smiles,y\n{self.GOOD}CCO,\nCCN,  \nCCC,99999999999999999999\n"))
        y = data.graphs.field("y").flatten()
        assert y[-3:-1].isnan().all()
        assert y[-1].item() == pytest.approx(1e20)
