"""Published series: counts, first values, graphs, refused files."""

import datetime
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from graphseq.core import DataError
from graphseq.data import (
    ChickenpoxDataModule,
    COVIDDataModule,
    ETTDataModule,
    ExchangeRateDataModule,
    USFluDataModule,
)

pytestmark = pytest.mark.skipif(
    not os.environ.get("GRAPHSEQ_MIRROR"), reason="GRAPHSEQ_MIRROR is not set: no real data"
)


def test_ett() -> None:
    whole = ETTDataModule("ETTh1", customary=False, window=96, horizon=24)
    assert whole.series().values.shape == (1, 17420, 7)
    data = ETTDataModule("ETTh1", window=96, horizon=24, cycles=["hour", "weekday"])
    assert data.span == 12 * 30 * 24
    assert data.split_sizes() == {"train": 8640 - 119, "val": 2880 - 23, "test": 2880 - 23, "predict": 1}
    assert data.variable_names[-1] == "OT"
    assert float(data.series().values[0, 0, -1]) == pytest.approx(30.5310001373291)
    assert data.num_known == 4


def test_exchange_rates() -> None:
    data = ExchangeRateDataModule(window=30, horizon=7)
    assert data.series().values.shape == (1, 7588, 8)
    assert float(data.series().values.max()) == pytest.approx(2.109)


def test_chickenpox_and_flu_have_graphs() -> None:
    data = ChickenpoxDataModule(window=8, horizon=4)
    batch = next(data.batches("test"))
    assert batch.x.shape[1:] == (20, 8, 1)
    assert batch.edge_index is not None
    assert batch.edge_index.shape == (2, 102)
    assert data.series_names[:2] == ["BACS", "BARANYA"]
    flu = USFluDataModule(window=20, horizon=5)
    batch = next(flu.batches("test"))
    assert batch.x.shape[1:] == (49, 20, 1)
    assert batch.edge_index is not None
    assert batch.edge_index.shape == (2, 255)
    assert float(flu.series().values.max()) == 9716


def test_covid() -> None:
    data = COVIDDataModule(days=561)
    table = data.series()
    assert data.variable_names == ["confirmed", "deaths", "recovered"]
    assert table.times is not None
    assert table.times[-1] == np.datetime64(datetime.date(2021, 8, 4))
    afghanistan = table.series.index("Afghanistan")
    assert table.values[afghanistan, 40, 0] == 5
    assert torch.equal(table.values, table.values.round())
    assert bool((table.values[:, -1].sum(0) > 1e6).all())
    short = COVIDDataModule()
    assert short.split_sizes() == {"train": 120 - 28 - 20, "val": 1, "test": 1, "predict": 1}


def test_a_changed_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = tmp_path / "mirror"
    shutil.copytree(Path(os.environ["GRAPHSEQ_MIRROR"]) / "Chickenpox", mirror / "Chickenpox")
    file = mirror / "Chickenpox" / "chickenpox.json"
    file.chmod(0o644)
    file.write_text('{"FX": [[1]], "edges": 3}')
    monkeypatch.setenv("GRAPHSEQ_MIRROR", str(mirror))
    monkeypatch.setenv("GRAPHSEQ_CACHE", str(tmp_path / "cache"))
    with pytest.raises(DataError, match="chickenpox.json"):
        ChickenpoxDataModule().load()
    with pytest.raises(DataError, match="chickenpox.json"):
        ChickenpoxDataModule(verify_checksums=False).load()


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="ETTx"):
        ETTDataModule("ETTx")  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(ValueError, match="customary"):
        ETTDataModule(val=0.1)
    with pytest.raises(ValueError, match="days"):
        COVIDDataModule(days=562)
    with pytest.raises(ValueError, match="tests"):
        COVIDDataModule(variables=["tests"])  # type: ignore[list-item]  # wrong on purpose
