from pathlib import Path

import pandas
import pytest
import yaml

import graphseq
from graphseq.cli import main
from graphseq.data import DigitGraphsDataModule

CONFIGS = Path(__file__).parents[2] / "configs"
DIGITS = CONFIGS / "graph" / "gine_digits.yaml"
SMALL = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1"]
HIDDEN = "--model.init_args.model.init_args.hidden_channels=8"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_predictions_lie_in_the_folder_of_the_run(folder, capsys):
    Path("config.yaml").write_text(DIGITS.read_text())
    assert main(["fit", "--config", "config.yaml", *SMALL, HIDDEN]) == 0
    capsys.readouterr()
    assert main(["predict", "--config", "config.yaml", HIDDEN, "--ckpt_path", "best"]) == 0
    path = Path("runs/config/version_0/predictions.csv")
    data = DigitGraphsDataModule(shift="noise", strength=0.1, batch_size=64)
    count = len(data.splits["test"])
    assert capsys.readouterr().out == f"predictions {path}  {count} rows, split test\n"
    table = pandas.read_csv(path)
    assert list(table.columns) == ["id", "split", "target", "prediction", *(f"p_{digit}" for digit in range(10))]
    assert table["id"].tolist() == data.splits["test"].tolist()
    task = graphseq.load(next(path.parent.glob("checkpoints/epoch*.ckpt")))
    expected = task.predictions(data)
    pandas.testing.assert_frame_equal(table, expected, check_dtype=False, atol=1e-4, rtol=1e-4)
    assert main(["predict", "--config", "config.yaml", HIDDEN, "--ckpt_path", "last", "--format=parquet"]) in (0, 1)
    refused = "pip install pyarrow" in capsys.readouterr().err
    assert refused != path.with_suffix(".parquet").is_file()


@pytest.mark.filterwarnings("ignore:.*untrained weights")
def test_without_a_checkpoint_the_predictions_have_a_folder_of_their_own(folder, capsys):
    assert main(["predict", "--config", str(DIGITS), HIDDEN, "--trainer.limit_predict_batches=1"]) == 0
    assert "runs/gine_digits/version_0/predictions.csv" in capsys.readouterr().out
    assert len(pandas.read_csv("runs/gine_digits/version_0/predictions.csv")) == 64
    assert main(["predict", "--config", str(DIGITS), HIDDEN, "--format=xls"]) == 2
    assert "csv, parquet" in capsys.readouterr().err


def test_a_stream_of_ones_own(folder, capsys):
    model = {"class_path": "graphseq.models.JODIE", "init_args": {"memory_dim": 4}}
    task = {"class_path": "graphseq.tasks.TemporalLinkPrediction", "init_args": {"model": model}}
    data = {"class_path": "graphseq.data.SyntheticEventsDataModule", "init_args": {"num_events": 300}}
    trainer = {"max_epochs": 1, "accelerator": "cpu"}
    Path("stream.yaml").write_text(yaml.safe_dump({"trainer": trainer, "model": task, "data": data}))
    assert main(["fit", "--config", "stream.yaml"]) == 0
    assert main(["predict", "--config", "stream.yaml", "--ckpt_path", "last"]) == 0
    table = pandas.read_csv("runs/stream/version_0/predictions.csv")
    assert list(table.columns) == ["id", "split", "src", "dst", "t", "p", "rank", "candidates"]
    assert table["p"].between(0, 1).all()
