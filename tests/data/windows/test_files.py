"""Tables of series: dates, order, gaps, long format."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from graphseq.core import DataError
from graphseq.data import SeriesTableDataModule, calendar_covariates, read_series


def written(folder: Path, *lines: str) -> Path:
    path = folder / "table.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_wide_table(tmp_path: Path) -> None:
    path = written(
        tmp_path, "date,a,note,b", "2024-01-01 00:00,1,x,5", "2024-01-01 01:00,2,y,", "2024-01-01 02:00,3,z,7"
    )
    table = read_series(path, time="date")
    assert table.variables == ["a", "b"]
    torch.testing.assert_close(
        table.values, torch.tensor([[[1.0, 5.0], [2.0, float("nan")], [3.0, 7.0]]]).double(), equal_nan=True
    )
    assert table.times is not None
    assert table.times[1] == np.datetime64("2024-01-01T01:00")
    assert read_series(path, time="date", variables=["b"]).variables == ["b"]


def test_long_table_and_time_zones(tmp_path: Path) -> None:
    rows = ["day,shop,sold", "2024-03-30T00:00+01:00,x,1", "2024-03-30T00:00+01:00,y,10",
            "2024-03-31T00:00+01:00,x,2", "2024-03-31T00:00+01:00,y,20"]  # fmt: skip
    table = read_series(written(tmp_path, *rows), time="day", series="shop")
    assert table.series == ["x", "y"]
    assert table.values[:, :, 0].tolist() == [[1.0, 2.0], [10.0, 20.0]]


def test_without_times_and_compressed(tmp_path: Path) -> None:
    path = tmp_path / "table.csv.gz"
    path.write_bytes(gzip.compress(b"a;b\n1;2\n3;4\n"))
    table = read_series(path, delimiter=";")
    assert table.times is None
    assert table.values[0].tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_months_are_steps_of_equal_length(tmp_path: Path) -> None:
    dates = ["2024-01-01", "2024-02-01", "2024-03-01", "2024-05-01"]
    table = read_series(written(tmp_path, "m,a", *(f"{d},1" for d in dates)), time="m", fill_gaps=True)
    assert table.values.shape == (1, 5, 1)
    assert bool(table.values[0, 3].isnan())
    assert table.times is not None
    assert table.times[3] == np.datetime64("2024-04-01")


def test_gaps_are_refused_or_missing_values(tmp_path: Path) -> None:
    path = written(tmp_path, "t,a", "0,1", "1,2", "3,4")
    with pytest.raises(DataError, match="fill_gaps"):
        read_series(path, time="t")
    filled = read_series(path, time="t", fill_gaps=True).values
    torch.testing.assert_close(filled.flatten(), torch.tensor([1.0, 2.0, float("nan"), 4.0]).double(), equal_nan=True)


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        (["2024-01-02,1", "2024-01-01,2"], "line 3"),
        (["2024-01-01,1", "2024-01-01,2"], "line 3.*twice"),
        (["2024-01-01,1", "soon,2"], "line 3.*'soon'"),
        (["2024-01-01,1", "2024-01-02,x"], "line 3|no column"),
        (["0,1", "2,2", "5,3"], "line 4"),
        ([], "no rows"),
    ],
)
def test_bad_tables_name_the_line(tmp_path: Path, rows: list[str], named: str) -> None:
    with pytest.raises(DataError, match=named):
        read_series(written(tmp_path, "day,a", *rows), time="day")


def test_bad_arguments(tmp_path: Path) -> None:
    path = written(tmp_path, "day,a", "0,1")
    with pytest.raises(ValueError, match="series"):
        read_series(path, series="a")
    with pytest.raises(DataError, match="missing"):
        read_series(path, time="missing")
    with pytest.raises(DataError, match="nowhere"):
        read_series(tmp_path / "nowhere.csv")
    with pytest.raises(DataError):
        read_series(tmp_path)
    with pytest.raises(ValueError, match="year"):
        calendar_covariates(np.array([], dtype="datetime64[s]"), ["year"])  # type: ignore[list-item]  # wrong on purpose


def test_calendar() -> None:
    times = np.array(["2024-01-01T00:00", "2024-07-07T12:00"], dtype="datetime64[s]")  # a Monday, a Sunday
    found = calendar_covariates(times, ["hour", "weekday", "day", "month"])
    angles = torch.tensor([[0, 0, 0, 0], [1 / 2, 6 / 7, 6 / 31, 6 / 12]]).double() * 2 * torch.pi
    torch.testing.assert_close(
        found, torch.stack([angles.sin(), angles.cos()], 2).flatten(1).float(), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([f"{day:02}/02/2024,1" for day in range(1, 10)], "line 2, .*2024-01-02 or 2024-02-01"),
        (["20240131,1", "20240201,1"], "'20240131' .* dates without separators"),
        (["1700000000000,1", "1700000001000,1"], "line 2, .*'1700000000000' seconds"),
        (["1,1", "inf,1"], "line 3, .*'inf' seconds"),
        (["1,1", "nan,1"], "line 3, .*'nan' is not a number"),
        (["1,1", ",1"], "line 3, .*time is empty"),
        (["1500-01-01,1", "1500-01-02,1"], "'1500-01-01' is outside"),
        (["1,1", "2,1", "999999999,1"], "999999999 steps"),
        (["1,1", "2,NA"], "line 3, column 'a': 'NA' .* leave the cell empty"),
        (["1,1", '2,"1,5"'], "'1,5' .* decimal point"),
    ],
)
def test_times_and_values_that_would_be_read_wrongly(rows: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read_series(written(tmp_path, "when,a", *rows), time="when", fill_gaps=True)


def test_a_column_in_another_notation_is_not_left_out(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="column 'b': '1,5'"):
        read_series(written(tmp_path, "a,b", '1,"1,5"', '2,"2,5"'))


def test_names_of_series_are_needed_and_have_no_blanks(tmp_path: Path) -> None:
    table = read_series(written(tmp_path, "s,t,a", "x,1,1", "x ,2,2"), time="t", series="s")
    assert table.series == ["x"]
    with pytest.raises(DataError, match="line 3, column 's'"):
        read_series(written(tmp_path, "s,t,a", "x,1,1", ",2,2"), time="t", series="s")


@pytest.mark.parametrize(
    ("options", "message"),
    [({"variables": "a"}, "variables is 'a'"), ({"time": "t", "series": "t"}, "'t' is named twice")],
)
def test_names_that_do_not_fit(options: dict[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        read_series(written(tmp_path, "t,a", "1,1"), **options)  # type: ignore[arg-type]  # wrong on purpose


def test_large_values_keep_their_digits(tmp_path: Path) -> None:
    """In float32 numbers near 1e9 are multiples of 64."""
    table = read_series(written(tmp_path, "a", *(str(10**9 + n % 7) for n in range(20)), ""))
    assert table.values.flatten()[:7].tolist() == [10**9 + n for n in range(7)]


@pytest.mark.parametrize("delimiter", ["", ";;", "é", '"', "\n"])
def test_a_delimiter_is_one_character(delimiter: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="delimiter"):
        read_series(written(tmp_path, "a;b", "1;2"), delimiter=delimiter)
    with pytest.raises(ValueError, match="delimiter"):
        SeriesTableDataModule("table.csv", delimiter=delimiter)


def test_a_row_in_place_of_the_header_is_not_lost(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"first line .*'1.5, 2'"):
        read_series(written(tmp_path, "1.5,2", "3,4"))
    assert read_series(written(tmp_path, "0,1", "3,4")).variables == ["0", "1"]  # names that pandas gives
    assert read_series(written(tmp_path, "2020,2021", "3,4"), variables=["2021"]).values.tolist() == [[[4.0]]]
    with pytest.raises(DataError, match=r"separated by ',' its columns are a;b"):
        read_series(written(tmp_path, "a;b", "1;2"))


def test_seconds_with_a_fraction_are_at_equal_distances(tmp_path: Path) -> None:
    """In float64 times near 1.7e18 ns are multiples of 256 ns, which 50 ms is not."""
    rows = [f"17000000{n // 20:02}.{n % 20 * 5:02},1" for n in range(25)]
    times = read_series(written(tmp_path, "t,a", *rows), time="t").times
    assert times is not None
    assert (np.diff(times) == np.timedelta64(50, "ms")).all()
