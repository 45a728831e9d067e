import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from lightning.pytorch.utilities.exceptions import SIGTERMException

from graphseq.cli import main
from graphseq.cli.refusals import UsageError, refusal, reported

CONFIGS = Path(__file__).parents[2] / "configs"
DIGITS = str(CONFIGS / "graph" / "gine_digits.yaml")
MODEL, DATA = "model.init_args", "data.init_args"
TABLE = {"class_path": "graphseq.data.TabularDataModule", "init_args": {"target": "kind"}}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def changed(folder, changes):
    tree = yaml.safe_load(Path(DIGITS).read_text())
    for key, value in changes.items():
        *path, last = key.split(".")
        node = tree
        for part in path:
            node = node[part]
        node[last] = value
    (folder / "own.yaml").write_text(yaml.safe_dump(tree))
    return "own.yaml"


ENTRIES = [
    ("key of the top", {"modle": 3}, ["modle", "did you mean model?", "trainer"]),
    ("key of the trainer", {"trainer.max_epoc_hs": 3}, ["trainer.max_epoc_hs", "did you mean trainer.max_epochs"]),
    (
        "key of the task",
        {f"{MODEL}.optimiser": 3},
        ["Classification", "optimiser", "did you mean optimizer?", "target"],
    ),
    (
        "key of the network",
        {f"{MODEL}.model.init_args.hiden_channels": 3},
        ["model.model", "GraphClassifier", "did you mean hidden_channels", "num_layers"],
    ),
    (
        "key of the optimiser",
        {f"{MODEL}.optimizer.init_args.weigth_decay": 3},
        ["Adam", "did you mean weight_decay or "],
    ),
    ("key of the data", {f"{DATA}.batchsize": 3}, ["DigitGraphsDataModule", "did you mean batch_size", "seed"]),
    ("class path", {"model.class_path": "graphseq.tasks.Clasification"}, ["Clasification", "did you mean Classif"]),
    ("short class name", {"model.class_path": "Clasification"}, ["Clasification", "did you mean Classification"]),
    ("network's class", {f"{MODEL}.model.class_path": "graphseq.models.GNI"}, ["model.model", "GNI", "GINClassifier"]),
    (
        "foreign class",
        {f"{MODEL}.optimizer.class_path": "torch.optim.Adamm"},
        ["model.optimizer", "torch.optim", "did you mean Adam"],
    ),
    ("class in no package", {"data.class_path": "mydata.Own"}, ["mydata"]),
    (
        "class in a list",
        {"trainer.callbacks": [{"class_path": "lightning.pytorch.callbacks.EarlyStoping"}]},
        ["EarlyStoping", "did you mean EarlyStopping?"],
    ),
    (
        "key in a list",
        {"trainer.callbacks": [{"class_path": "graphseq.callbacks.MomentMonitor", "init_args": {"evry": 1}}]},
        ["MomentMonitor", "evry"],
    ),
    ("type", {f"{MODEL}.model.init_args.num_layers": "many"}, ["model.model.num_layers", "many", "int"]),
    ("type of an option", {"trainer.max_epochs": "three"}, ["trainer.max_epochs", "three", "int, null"]),
    ("choice", {f"{MODEL}.model.init_args.conv": "gim"}, ["model.model.conv", "gim", "did you mean gin", "sage"]),
    ("number for a class", {"model": 3}, ["model", "3", "Task"]),
    ("value", {f"{DATA}.batch_size": 0}, ["batch_size is 0"]),
    ("missing argument", {f"{MODEL}.model": {"class_path": "graphseq.models.EdgeBank", "init_args": {"x": 1}}}, ["x"]),
    (
        "absent package",
        {"trainer.logger": {"class_path": "lightning.pytorch.loggers.CometLogger"}},
        ["comet", "pip install"],
    ),
    ("missing file", {"data": {**TABLE, "init_args": {"path": "no.csv", "target": "y"}}}, ["no.csv"]),
]


@pytest.mark.parametrize(("changes", "expected"), [entry[1:] for entry in ENTRIES], ids=[entry[0] for entry in ENTRIES])
def test_refusals_are_short_and_name_what_is_accepted(folder, capsys, changes, expected):
    assert main(["fit", "--config", changed(folder, changes)]) in (1, 2)
    message = capsys.readouterr().err
    assert len(message.splitlines()) <= 6, message
    assert "graphseq fit: " in message
    for part in expected:
        assert part in message, message
    assert not (folder / "runs").exists()


WORDS = [
    (["fit", "--config", DIGITS, "--model.init_args.optimiser.lr", "1"], ["optimiser", "did you mean optimizer?"]),
    (["fit", "--config", DIGITS, "--modle=3"], ["modle", "did you mean model?"]),
    (["fit", DIGITS], [f"--config {DIGITS}"]),
    (["fit", "--config"], ["--config", "expected one argument"]),
    (["fit"], ["--data", "--model", "--config FILE"]),
    (["fit", "--config", "near.yml"], ["there is no file near.yml"]),
    (["fit", "--config", "own.yml"], ["there is no file own.yml", "did you mean own1.yml?"]),
    (["fit", "--config", "broken.yaml"], ["line 2"]),
    (["fit", "--model=Classification"], ["Classification needs model"]),
    (["test", "--config", DIGITS, "--ckpt_path", "no.ckpt"], ["there is no checkpoint no.ckpt"]),
    (["test", "--config", DIGITS, "--ckpt_path", "last"], ["no run of gine_digits"]),
    (["test", "--config", DIGITS, "--ckpt_path", "broken.yaml"], ["broken.yaml is not a checkpoint"]),
    (["show", DIGITS, "--model.init_args.optimiser=1"], ["graphseq show", "did you mean optimizer?"]),
    (["fitt"], ["did you mean fit?", "validate, test"]),
]


@pytest.mark.parametrize(("words", "expected"), WORDS, ids=[" ".join(words)[-30:] for words, _ in WORDS])
def test_wrong_words_of_a_command(folder, capsys, words, expected):
    Path("broken.yaml").write_text("model: [1,\n  - : 2\n")
    Path("own1.yml").write_text("{}")
    assert main(words) in (1, 2)
    message = capsys.readouterr().err
    assert len(message.splitlines()) <= 6, message
    for part in expected:
        assert part in message, message


def test_a_word_for_an_id_names_file_and_line_as_in_python(folder, capsys):
    Path("strings.csv").write_text("length,width,kind\n1,2,a\n1,x102,b\n")
    table = {"class_path": "graphseq.data.TabularDataModule", "init_args": {"path": "strings.csv", "target": "kind"}}
    table["init_args"]["features"] = ["length", "width"]
    assert main(["fit", "--config", changed(folder, {"data": table})]) == 1
    message = capsys.readouterr().err
    assert message.startswith("graphseq fit: strings.csv, line 3")
    assert "x102" in message
    assert len(message.splitlines()) == 1


def test_verbose_prints_the_whole(folder, capsys):
    assert main(["fit", "--config", changed(folder, {f"{MODEL}.optimiser": 3}), "--verbose"]) == 2
    message = capsys.readouterr().err
    assert "Does not validate against" in message
    assert "Given value type" in message
    assert main(["fit", "--verbose", "--config", changed(folder, {f"{DATA}.batch_size": 0})]) == 1
    message = capsys.readouterr().err
    assert "Traceback" in message
    assert "batch_size is 0" in message


def test_status_and_length_of_exceptions(capsys):
    def fail(error):
        def action(words):
            raise error

        return reported("fit", [], action), capsys.readouterr().err.splitlines()

    assert fail(ValueError("\n".join(map(str, range(20)))))[1][1:] == ["1", "2", "3", "4", fail(OSError())[1][-1]]
    status, lines = fail(PermissionError(13, "Permission denied", "runs"))
    assert (status, lines[0]) == (1, "graphseq fit: Permission denied: runs")
    assert fail(UsageError("unrecognized arguments: --a=1", ["ab"]))[0] == 2
    assert fail(SystemExit(3))[0] == 3
    with pytest.raises(RuntimeError):  # a fault of ours, or of the user's own network: the traceback is needed
        fail(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_lines_that_are_no_tree_are_kept():
    assert refusal("Problems parsing config: while parsing\n  did not find\n  line 2")[-1] == "line 2"
    assert refusal("argument -c: expected one argument") == ["argument -c: expected one argument"]


def test_the_process_says_it_in_six_lines(folder):
    words = ["fit", "--config", str(CONFIGS / "graph/gin_nci1.yaml"), "--model.init_args.optimiser.lr", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "graphseq", *words],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 2
    assert len(done.stdout.splitlines()) <= 6, done.stdout
    assert "did you mean optimizer?" in done.stdout


def test_a_process_that_is_told_to_end_says_so(capsys):
    def ended(words):
        raise SIGTERMException

    assert reported("fit", [], ended) == 143
    assert capsys.readouterr().err == "graphseq fit: ended by SIGTERM; --ckpt_path last continues\n"
