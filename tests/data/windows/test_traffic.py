"""Traffic speeds from small tables in the layout of the published ones."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import sparse

from graphseq.core import DataError
from graphseq.data import TrafficDataModule

h5py = pytest.importorskip("h5py", reason="h5py is not installed (extra traffic)")

STEPS, SENSORS = 60, 3
VALUES = np.random.default_rng(0).integers(0, 70, (STEPS, SENSORS)).astype(np.float64)
WEIGHTS = np.array([[0, 0.5, 0], [0.25, 0, 0], [0, 1, 0]])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRAPHSEQ_MIRROR", str(tmp_path / "mirror"))
    monkeypatch.setenv("GRAPHSEQ_CACHE", str(tmp_path / "cache"))
    made = tmp_path / "mirror" / "METR-LA"
    made.mkdir(parents=True)
    write(made / "metr-la.h5")
    return made


def write(path: Path, **change: object) -> None:
    times = np.datetime64("2012-03-01", "ns") + np.arange(STEPS) * np.timedelta64(5, "m")
    names = np.array([b"773869", b"767541", b"767542"])
    parts = {"axis0": names, "axis1": times.astype(np.int64), "block0_items": names, "block0_values": VALUES, **change}
    with h5py.File(path, "w") as file:
        for name, value in parts.items():
            file[f"df/{name}"] = value


def test_speeds_and_times(folder: Path) -> None:
    data = TrafficDataModule("METR-LA", cycles=["hour"], val=15, test=15, window=6, horizon=3)
    table = data.series()
    assert (table.series, table.variables) == (["773869", "767541", "767542"], ["speed"])
    expected = torch.from_numpy(np.where(VALUES == 0, np.nan, VALUES).T[..., None])
    torch.testing.assert_close(table.values, expected, equal_nan=True)
    assert table.times is not None
    assert str(table.times[1]) == "2012-03-01T00:05:00.000000000"
    batch = next(data.batches("test"))
    assert (batch.x.shape[1:], data.num_known, batch.edge_index) == ((3, 6, 1), 2, None)
    kept = TrafficDataModule("METR-LA", zero_is_missing=False).series().values
    torch.testing.assert_close(kept, torch.from_numpy(VALUES.T.copy())[..., None])


@pytest.mark.parametrize("kind", ["npz", "csv"])
def test_graph(folder: Path, kind: str) -> None:
    if kind == "npz":
        sparse.save_npz(folder / "adj.npz", sparse.csc_matrix(WEIGHTS))
    else:
        np.savetxt(folder / "adj.csv", WEIGHTS, delimiter=",")
    batch = next(TrafficDataModule("METR-LA", val=15, test=15, window=6, horizon=3).batches("train"))
    assert batch.edge_index is not None
    assert batch.edge_weight is not None
    assert batch.edge_index.tolist() == [[0, 1, 2], [1, 0, 1]]
    assert batch.edge_weight.tolist() == [0.5, 0.25, 1.0]


class Explosive:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('a pickle was opened')",)


def test_pickles_are_refused_unopened(folder: Path) -> None:
    (folder / "adj_mx.pkl").write_bytes(pickle.dumps(Explosive()))
    with pytest.raises(DataError, match=r"adj_mx.pkl"):
        TrafficDataModule("METR-LA", val=15, test=15).load()
    # nor does an npz with objects run them
    np.savez(folder / "adj.npz", format=np.array([Explosive()], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"adj.npz"):
        TrafficDataModule("METR-LA", val=15, test=15).load()


def test_a_graph_of_another_size_is_refused(folder: Path) -> None:
    sparse.save_npz(folder / "adj.npz", sparse.csr_matrix(np.eye(4)))
    with pytest.raises(DataError, match=r"\(4, 4\)"):
        TrafficDataModule("METR-LA", val=15, test=15).load()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"block0_values": VALUES[1:]}, r"\(59, 3\)"),
        ({"axis1": np.zeros(STEPS, dtype=np.int64)}, "row 1"),
        ({"axis0": np.array([b"a", b"b", b"c", b"d"])}, "3 sensors"),
        ({"block0_values": np.array([b"x"])}, "to_hdf"),
    ],
)
def test_malformed_tables(folder: Path, change: dict[str, object], named: str) -> None:
    write(folder / "metr-la.h5", **change)
    with pytest.raises(DataError, match=named):
        TrafficDataModule("METR-LA").series()


def test_missing_table_and_wrong_name(folder: Path) -> None:
    with pytest.raises(DataError, match="pems-bay.h5"):
        TrafficDataModule("PEMS-BAY").series()
    (folder / "metr-la.h5").write_text("no table")
    with pytest.raises(DataError, match="metr-la.h5"):
        TrafficDataModule().series()
    with pytest.raises(ValueError, match="PEMS"):
        TrafficDataModule("PEMS")  # type: ignore[arg-type]  # wrong on purpose
