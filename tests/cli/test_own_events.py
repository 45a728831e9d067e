"""From a CSV of one's own to ranked candidates: ten lines of Python, or fifteen of YAML and two commands."""

import csv
import datetime

import numpy as np
import pytest
import torch

import graphseq
from graphseq.cli import main
from graphseq.core import DataError
from graphseq.data import EventCSVDataModule, TemporalDataModule
from graphseq.models import LinkStream

CONFIG = """
trainer: {max_epochs: 1, accelerator: cpu}
model:
  class_path: graphseq.tasks.TemporalLinkPrediction
  init_args:
    model: {class_path: graphseq.models.TGN, init_args: {memory_dim: 8, time_dim: 8, embedding_dim: 8}}
data:
  class_path: graphseq.data.EventCSVDataModule
  init_args: {path: mine.csv, bipartite: true}
"""

SCRIPT = """
from lightning import Trainer
from graphseq.core import DataError
from graphseq.data import EventCSVDataModule, TemporalDataModule
from graphseq.models import TGN, LinkStream
from graphseq.tasks import TemporalLinkPrediction
data = EventCSVDataModule(path="mine.csv", bipartite=True)
network = TGN(data.num_nodes, memory_dim=8, time_dim=8, embedding_dim=8)
Trainer(max_epochs=1, accelerator="cpu", logger=False).fit(TemporalLinkPrediction(network), data)
stream = LinkStream.from_history(network, data, replay=True, splits=["train", "val", "test"])
items, scores = stream.rank("user3", None, "2024-03-01T10:00+02:00", k=3)
"""


def rows(users):
    start = datetime.datetime.fromisoformat("2024-01-05T10:00+02:00")
    lines = [f"user{n % users},item{n % 5},{(start + datetime.timedelta(minutes=n)).isoformat()}" for n in range(300)]
    return "\n".join(["who,whom,when", *lines]) + "\n"


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch, own_cache, no_network):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.csv").write_text(rows(8))
    (tmp_path / "my_events.yaml").write_text(CONFIG)


def test_ten_lines_of_python():
    assert len(SCRIPT.strip().splitlines()) <= 10
    names: dict = {}
    exec(SCRIPT, names)
    assert names["items"].shape == (1, 3)
    assert set(names["items"][0]) < {f"item{n}" for n in range(5)}
    assert names["scores"].shape == (1, 3)


def test_one_config_and_two_commands(tmp_path, capsys):
    assert len(CONFIG.strip().splitlines()) <= 15
    assert main(["fit", "--config", "my_events.yaml"]) == 0
    assert main(["predict", "--config", "my_events.yaml", "--ckpt_path", "best"]) == 0
    with next(tmp_path.glob("runs/**/predictions.csv")).open(newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == 45
    assert (table[-1]["src"], table[-1]["dst"]) == ("user3", "item4")
    start = datetime.datetime.fromisoformat("2024-01-05T10:00+02:00").timestamp()
    assert float(table[-1]["t"]) == start + 60 * 299
    path = next(tmp_path.glob("runs/*/version_0/checkpoints/last.ckpt"))
    saved = torch.load(path, weights_only=True)
    nodes = saved["EventCSVDataModule"]["nodes"]
    assert nodes["ids"] == [*(f"user{n}" for n in range(8)), *(f"item{n}" for n in range(5))]
    assert nodes["roles"].tolist() == [1] * 8 + [2] * 5
    made = LinkStream.from_history(graphseq.load(path).model, EventCSVDataModule("mine.csv", bipartite=True))
    found, _ = made.rank(["user1", "user7"], ["item0", "item4"], "2024-03-01", k=2)
    assert np.sort(found, axis=1).tolist() == [["item0", "item4"]] * 2


def test_another_table_is_tested_with_the_numbers_of_training(tmp_path, capsys):
    """Fewer users: their numbers would be others, and the memory would belong to somebody else."""
    assert main(["fit", "--config", "my_events.yaml"]) == 0
    (tmp_path / "later.csv").write_text(rows(8).replace("user0", "user1"))
    options = ["--config", "my_events.yaml", "--ckpt_path", "last", "--data.init_args.path", "later.csv"]
    with pytest.warns(UserWarning, match="splits"):
        assert main(["test", *options]) == 0
    (tmp_path / "later.csv").write_text(rows(9).replace("user0", "user1"))
    with pytest.warns(UserWarning, match="splits"):
        assert main(["test", *options]) != 0
    assert "1 sources are not among the 13 nodes of training, such as 'user8'" in " ".join(
        capsys.readouterr().err.split()
    )


def test_messages_of_tables_reach_the_command_line(tmp_path, capsys):
    with (tmp_path / "mine.csv").open("a", newline="") as file:
        csv.writer(file).writerow(["user1", "item2", "05.01.2024"])
    assert main(["fit", "--config", "my_events.yaml"]) != 0
    told = capsys.readouterr().err
    assert len(told.splitlines()) <= 6
    assert "mine.csv, line 302, column 'when': '05.01.2024' is not a date in ISO 8601" in " ".join(told.split())


BAD = [
    ("header only", "who,whom,when\n", "mine.csv holds no event"),
    ("one event", "who,whom,when\nann,bob,3\n", "1 events at 1 times leave the val split empty"),
    ("word among numbers", "who,whom,when\n1,2,3\n1,x,4\n", "mine.csv, line 3, column 'whom': 'x' is not an integer"),
    ("an id beyond int64", f"who,whom,when\n1,{2**63},3\n", f"line 2, column 'whom': '{2**63}' does not fit"),
    ("other dates", "who,whom,when\nann,bob,01/05/2024\n", "'01/05/2024' is not a date in ISO 8601"),
    ("a folder", None, "mine.csv is a folder"),
]


@pytest.mark.parametrize(("content", "expected"), [entry[1:] for entry in BAD], ids=[entry[0] for entry in BAD])
def test_bad_tables_are_refused_in_a_few_lines(tmp_path, capsys, content, expected):
    (tmp_path / "mine.csv").unlink()
    if content is None:
        (tmp_path / "mine.csv").mkdir()
    else:
        (tmp_path / "mine.csv").write_text(content)
    (tmp_path / "my_events.yaml").write_text(CONFIG.replace(", bipartite: true", ""))
    assert main(["show", "my_events.yaml"]) == 1
    told = capsys.readouterr().err
    assert expected in told
    assert len(told.splitlines()) <= 6


def test_sizes_that_no_argument_takes_are_not_read(tmp_path, capsys, monkeypatch):
    """The mean gap takes a pass over all events."""

    def fail(self):
        raise DataError("the gaps were read")

    monkeypatch.setattr(TemporalDataModule, "_measure_gaps", fail)
    assert main(["show", "my_events.yaml"]) == 1
    assert "the gaps were read" in capsys.readouterr().err
    network = "graphseq.models.TGN, init_args: {memory_dim: 8, time_dim: 8, embedding_dim: 8}"
    (tmp_path / "my_events.yaml").write_text(CONFIG.replace(network, "graphseq.models.EdgeBank"))
    assert main(["show", "my_events.yaml"]) == 0
