"""``graphseq predict`` on data without targets: sizes, names of classes and scales are those of the checkpoint."""

import random
import sys
from pathlib import Path

import pandas
import pytest
import torch
import yaml

import graphseq
from graphseq.cli import main
from graphseq.data import MoleculeDataModule, TabularDataModule

LETTERS = ["ash", "birch", "cedar"]

MODULE = """
import torch
from torch_geometric.data import Data

NAMES = ["ash", "birch", "cedar"]

def graph(n, labelled):
    label = {"y": NAMES[n % 3]} if labelled else {}
    return Data(x=torch.full((3 + n % 3, 2), float(n % 3)), edge_index=torch.tensor([[0, 1], [1, 2]]), **label)

def graphs() -> list[Data]:
    return [graph(n, True) for n in range(30)]

def new_graphs() -> list[Data]:
    return [graph(n, False) for n in range(5)]

def nodes() -> Data:
    torch.manual_seed(0)
    y = [NAMES[n % 3] for n in range(30)]
    return Data(x=torch.eye(3).repeat(10, 1), edge_index=torch.randint(30, (2, 60)), y=y)

def new_nodes() -> Data:
    return Data(x=torch.eye(3)[[2, 0]], edge_index=torch.tensor([[0, 1], [1, 0]]))
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch, own_cache, no_network):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("mine", None)


def config(data, options, network, task="Classification", **arguments):
    tree = {
        "trainer": {"max_epochs": 1, "accelerator": "cpu"},
        "model": {"class_path": task, "init_args": {"model": network, **arguments}},
        "data": {"class_path": data, "init_args": options},
    }
    Path("own.yaml").write_text(yaml.safe_dump(tree))


def predicted(*options):
    """Predict with the newest run, and return the table."""
    assert main(["predict", "--config", "own.yaml", "--ckpt_path", "last", *options]) == 0
    return pandas.read_csv("runs/own/version_0/predictions.csv", keep_default_na=False)


def classes(table, names=LETTERS):
    assert list(table.columns[-1 - len(names) :]) == ["prediction", *(f"p_{name}" for name in names)]
    assert set(table["prediction"]) <= set(names)
    assert set(table["split"]) == {"all"}
    return table


GRAPHS = {"class_path": "GraphClassifier", "init_args": {"hidden_channels": 4, "num_layers": 1, "conv": "pna"}}
NODES = {"class_path": "NodeClassifier", "init_args": {"hidden_channels": 4}}
SMALL = {"class_path": "graphseq.models.MLP", "init_args": {"hidden_features": 4}}
LSTM = {"class_path": "SequenceClassifier", "init_args": {"hidden_channels": 4}}


def test_graphs(capsys):
    config("GraphDataModule", {"dataset": "mine.graphs", "split": "stratified"}, GRAPHS)
    assert main(["fit", "--config", "own.yaml"]) == 0
    capsys.readouterr()
    table = classes(predicted("--data.init_args.dataset", "mine.new_graphs"))
    assert capsys.readouterr().out == "predictions runs/own/version_0/predictions.csv  5 rows, split all\n"
    assert "target" not in table
    assert table["id"].tolist() == list(range(5))
    again = predicted("--split=train")
    assert (len(again), set(again["split"]), set(again["target"])) == (24, {"train"}, set(LETTERS))
    assert len(predicted("--split=all")) == 30


def test_nodes_of_another_graph():
    config("NodeDataModule", {"graph": "mine.nodes", "split": "stratified"}, NODES, "NodeClassification")
    assert main(["fit", "--config", "own.yaml"]) == 0
    assert classes(predicted("--data.init_args.graph", "mine.new_nodes"))["id"].tolist() == [0, 1]
    table = predicted("--split=all")
    assert table["target"].tolist() == LETTERS * 10


def rows(count, kinds=LETTERS):
    seed = random.Random(0)
    number = {name: place for place, name in enumerate(kinds)}
    return pandas.DataFrame(
        [{"length": number[k] + seed.random(), "width": -number[k] + seed.random(), "kind": k} for k in kinds * count]
    )


def test_table(tmp_path):
    rows(20).to_csv("mine.csv", index=False)
    config("TabularDataModule", {"path": "mine.csv", "target": "kind"}, SMALL)
    assert main(["fit", "--config", "own.yaml"]) == 0
    new = rows(4, ["cedar"]).drop(columns="kind")[["width", "length"]].assign(age=range(4), name="x")
    new.to_csv("new.csv", index=False)
    table = classes(predicted("--data.init_args.path", "new.csv"))
    # in the units of training, although the new table has another mean and its columns another order
    task = graphseq.load("runs/own/version_0/checkpoints/last.ckpt")
    data = TabularDataModule("mine.csv", "kind")
    x = (torch.tensor(new[["length", "width"]].to_numpy()) - torch.tensor(data.mean)) / torch.tensor(data.std)
    with torch.no_grad():
        expected = task.model(x.float()).softmax(1)
    torch.testing.assert_close(torch.tensor(table.iloc[:, -3:].to_numpy(float)), expected.double(), atol=1e-5, rtol=0)
    script = TabularDataModule("new.csv", "kind").for_prediction("runs/own/version_0/checkpoints/last.ckpt")
    assert task.predictions(script, "all")["prediction"].tolist() == table["prediction"].tolist()
    # a table in which some rows have no label yet, and one row
    rows(1, ["cedar", "", "yew"]).to_csv("new.csv", index=False)
    table = predicted("--data.init_args.path", "new.csv")
    assert (set(table["split"]), table["target"].tolist()) == ({"all"}, ["cedar", "", ""])
    rows(1, ["birch"]).to_csv("new.csv", index=False)
    assert predicted("--data.init_args.path", "new.csv", "--split=all")["target"].tolist() == ["birch"]


def test_numbers_of_a_table():
    rows(20)[["length", "width"]].to_csv("mine.csv", index=False)
    options = {"path": "mine.csv", "target": "width", "task": "regression"}
    config("TabularDataModule", options, SMALL, "Regression")
    assert main(["fit", "--config", "own.yaml"]) == 0
    rows(2)[["length"]].to_csv("new.csv", index=False)
    table = predicted("--data.init_args.path", "new.csv")
    assert list(table.columns) == ["id", "split", "prediction"]


def test_messages_about_new_tables(capsys):
    rows(20).to_csv("mine.csv", index=False)
    config("TabularDataModule", {"path": "mine.csv", "target": "kind"}, SMALL)
    assert main(["fit", "--config", "own.yaml"]) == 0
    rows(2)[["length"]].to_csv("new.csv", index=False)
    words = ["predict", "--config", "own.yaml", "--data.init_args.path", "new.csv"]
    assert main([*words, "--ckpt_path", "last"]) == 1
    assert "new.csv, line 1 names no column width; the columns are length" in capsys.readouterr().err
    rows(2)[["length", "width"]].to_csv("new.csv", index=False)
    assert main([*words, "--ckpt_path", "last", "--split", "test"]) == 1
    assert "--split all" in capsys.readouterr().err
    assert main([*words, "--ckpt_path", "last", "--split", "tset"]) == 2
    message = capsys.readouterr().err
    assert "tset" in message
    assert "all" in message
    with pytest.warns(UserWarning, match="untrained"):
        assert main(words) == 1
    assert "no column kind" in capsys.readouterr().err


@pytest.mark.parametrize("columns", [["smiles"], ["name", "smiles"]])
def test_molecules(columns):
    pytest.importorskip("rdkit", reason="SMILES need rdkit: pip install graphseq[molecules]")
    known = pandas.DataFrame({"smiles": ["C" * n + "O" for n in range(1, 21)], "logp": 1.0, "boiling": 2.0})
    known.to_csv("mine.csv", index=False)
    config("MoleculeDataModule", {"path": "mine.csv", "split": "random"}, GRAPHS, "Regression")
    assert main(["fit", "--config", "own.yaml"]) == 0
    pandas.DataFrame({"smiles": ["CCN", "CO"], "name": ["a", "b"]})[columns].to_csv("new.csv", index=False)
    table = predicted("--data.init_args.path", "new.csv")
    assert list(table.columns) == ["id", "split", "smiles", "prediction_logp", "prediction_boiling"]
    assert table["smiles"].tolist() == ["CCN", "CO"]
    data = MoleculeDataModule(path="new.csv").for_prediction("runs/own/version_0/checkpoints/last.ckpt")
    assert data.target_names == ["logp", "boiling"]


def steps(count, kinds=LETTERS):
    return pandas.DataFrame(
        [
            {"id": f"s{n}", "speed": step + n % len(kinds), "turn": n % len(kinds), "kind": kinds[n % len(kinds)]}
            for n in range(count)
            for step in range(2 + n % 2)
        ]
    )


def test_sequences():
    steps(30).to_csv("mine.csv", index=False)
    options = {"path": "mine.csv", "sequence": "id", "target": "kind"}
    config("SequenceCSVDataModule", options, LSTM, "SequenceClassification")
    assert main(["fit", "--config", "own.yaml"]) == 0
    steps(4).drop(columns="kind").to_csv("new.csv", index=False)
    assert len(classes(predicted("--data.init_args.path", "new.csv"))) == 4
    steps(2, ["birch", ""]).to_csv("new.csv", index=False)
    assert predicted("--data.init_args.path", "new.csv")["target"].tolist() == ["birch", ""]


def test_strings():
    pandas.DataFrame({"text": [f"{n:b}" for n in range(30)], "even": ["no", "yes"] * 15}).to_csv(
        "mine.csv", index=False
    )
    config("StringDataModule", {"path": "mine.csv", "text": "text", "target": "even"}, LSTM, "SequenceClassification")
    assert main(["fit", "--config", "own.yaml"]) == 0
    Path("new.csv").write_text("text\n1\n1\n")
    assert len(classes(predicted("--data.init_args.path", "new.csv"), ["no", "yes"])) == 2


def events(first, last, labelled):
    label = ",left" if labelled else ""
    lines = [f"u{n % 7},i{n % 4},{n}{f',{n % 2}' if labelled else ''}" for n in range(first, last)]
    return "\n".join([f"src,dst,t{label}", *lines]) + "\n"


EVENTS = {"class_path": "graphseq.models.JODIE", "init_args": {"memory_dim": 4}}


@pytest.mark.parametrize("task", ["TemporalLinkPrediction", "TemporalNodeClassification"])
def test_events(task):
    Path("mine.csv").write_text(events(0, 300, True))
    options = {"path": "mine.csv", "y": "left", "bipartite": True, "batch_size": 15, "eval_batch_size": 15}
    config("EventCSVDataModule", options, EVENTS, task)
    assert main(["fit", "--config", "own.yaml"]) == 0
    Path("new.csv").write_text(events(300, 303, False))
    table = predicted("--data.init_args.path", "new.csv", "--split=all")
    assert table["src"].tolist() == ["u6", "u0", "u1"]
    assert "target" not in table
    assert len(predicted("--split=val")) == 45
    everything, test = predicted("--split=all"), predicted()
    assert (len(everything), len(test)) == (300, 45)
    # the network has seen the same events before, whether they were predicted or not
    assert everything["p"].tolist()[255:] == pytest.approx(test["p"].tolist(), abs=1e-5)
