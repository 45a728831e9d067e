"""Configs and examples of the package: by name, copied without overwriting; classes of the working directory."""

import os
import sys
from pathlib import Path

import pytest

from graphseq.cli import main
from graphseq.cli.shipped import UnknownConfigError, find_config, shipped_files, shipped_folder, with_config_files

ROOT = Path(__file__).parents[2]
SHORT = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1"]
NETWORK = """
import torch

class Net(torch.nn.Module):
    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.linear = torch.nn.Linear(in_features, out_features)

    def forward(self, x):
        return self.linear(x.flatten(1))
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_all_files_of_a_clone_are_shipped():
    assert shipped_folder("configs") == ROOT / "configs"
    names = {path.relative_to(ROOT / "configs").with_suffix("").as_posix() for path in ROOT.glob("configs/*/*.yaml")}
    assert shipped_files("configs").keys() == names
    assert shipped_files("examples").keys() == {path.stem for path in ROOT.glob("examples/*.py")}


def test_a_file_of_the_working_directory_wins(folder):
    assert find_config("graph/gine_digits") == str(ROOT / "configs/graph/gine_digits.yaml")
    (folder / "graph").mkdir()
    assert find_config("graph/gine_digits") == str(ROOT / "configs/graph/gine_digits.yaml")
    (folder / "graph/gine_digits.yaml").write_text("{}")
    assert find_config("graph/gine_digits") == "graph/gine_digits.yaml"
    (folder / "graph/gine_digits").write_text("{}")
    assert find_config("graph/gine_digits") == "graph/gine_digits"
    assert find_config("absent.yaml") == "absent.yaml"  # the parser says what is wrong


@pytest.mark.parametrize("name", ["gine_digits", "graph/gine_digit", "vision/gine_digits"])
def test_a_near_name_is_offered(name, folder):
    with pytest.raises(UnknownConfigError, match=rf"{name}.*did you mean graph/gine_digits"):
        find_config(name)
    with pytest.raises(UnknownConfigError, match=r"xyzzy.*name; `graphseq list configs`"):
        find_config("xyzzy")


def test_every_form_of_the_option_is_understood(folder):
    file = str(ROOT / "configs/trainer/cpu.yaml")
    for words in (["--config", "trainer/cpu"], ["-c", "trainer/cpu"]):
        assert with_config_files(words) == [words[0], file]
    assert with_config_files(["--config=trainer/cpu", "--x", "trainer/cpu"]) == [
        f"--config={file}",
        "--x",
        "trainer/cpu",
    ]


def test_training_and_show_take_names(folder, capsys):
    assert main(["fit", "--config", "graph/gine_digits", "--config", "trainer/cpu", *SHORT]) == 0
    assert (folder / "runs/gine_digits/version_0/config.yaml").is_file()
    assert {path.name for path in folder.iterdir()} == {"runs"}
    test = ["test", "--config", "graph/gine_digits", "--ckpt_path", "last", "--trainer.limit_test_batches=1"]
    assert main(test) == 0
    capsys.readouterr()
    assert main(["show", "graph/gine_digits", "--trainer.max_epochs", "7"]) == 0
    out = capsys.readouterr().out
    assert "max_epochs: 7" in out
    assert "graphseq.models.GraphClassifier" in out


@pytest.mark.parametrize("command", [["fit", "--config"], ["test", "--config"], ["show"], ["generate", "--config"]])
def test_an_unknown_name_is_wrong_usage(command, folder, capsys):
    assert main([*command, "graph/gine_digit"]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert "graph/gine_digits" in error


def test_a_class_of_the_working_directory_is_found(folder, monkeypatch, capsys):
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place not in ("", os.getcwd())])
    monkeypatch.delitem(sys.modules, "mynet", raising=False)
    (folder / "mynet.py").write_text(NETWORK)
    (folder / "mine.yaml").write_text(
        "model:\n  class_path: graphseq.tasks.Classification\n  init_args:\n    model: {class_path: mynet.Net}\n"
        "data:\n  class_path: graphseq.data.ImageDataModule\n  init_args: {name: digits}\n"
    )
    assert main(["fit", "--config", "mine.yaml", "--trainer.accelerator=cpu", *SHORT]) == 0, capsys.readouterr().err
    assert sys.path[-1] == ""  # last, so that no file there hides a package
    assert main(["show", "mine.yaml"]) == 0
    assert "Linear" in capsys.readouterr().out
    del sys.modules["mynet"]


def test_init_copies_and_never_overwrites(folder, capsys):
    assert main(["init"]) == 0
    assert (folder / "gine_digits.yaml").read_text() == (ROOT / "configs/graph/gine_digits.yaml").read_text()
    assert (folder / "own_data_and_network.py").is_file()
    assert "graphseq fit --config gine_digits.yaml" in capsys.readouterr().out
    (folder / "gine_digits.yaml").write_text("mine")
    (folder / "own_data_and_network.py").unlink()
    assert main(["init"]) == 1
    assert "gine_digits.yaml" in capsys.readouterr().err
    assert (folder / "gine_digits.yaml").read_text() == "mine"
    assert not (folder / "own_data_and_network.py").exists()  # nothing is written where one file is in the way
    assert main(["init", "vision/snn_digits", "plain_pytorch", "--folder", "new/place"]) == 0
    assert {path.name for path in (folder / "new/place").iterdir()} == {"snn_digits.yaml", "plain_pytorch.py"}
    capsys.readouterr()


def test_init_refuses_unknown_names_and_bad_folders(folder, capsys):
    assert main(["init", "plain_torch"]) == 2
    assert "did you mean plain_pytorch" in capsys.readouterr().err
    assert main(["init", "--folder"]) == 2
    assert "--folder" in capsys.readouterr().err
    (folder / "file").write_text("")
    assert main(["init", "--folder", "file"]) == 1
    assert "file" in capsys.readouterr().err
    assert main(["init", "--help"]) == 0
    assert [path.name for path in folder.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "own.yaml is empty"),
        (b"# only a comment\n", "own.yaml is empty"),
        (b"- 1\n- 2\n", "own.yaml is no mapping"),
        (b"a: [1\n", "own.yaml is not YAML"),
        (b"\x00\xff", "own.yaml cannot be read as text"),
        (b"trainer: {max_epochs: 3}\nseed_everything: 1\ntrainer: {}\n", "trainer twice, in line 1 and in line 3"),
        (b"model:\n  init_args:\n    lr: 1\n    lr: 2\n", "model.init_args.lr twice, in line 3 and in line 4"),
    ],
)
def test_a_file_that_is_no_config_is_refused_by_its_name(content, message, folder, capsys):
    (folder / "own.yaml").write_bytes(content)
    for name in ("own.yaml", "own"):
        with pytest.raises(UnknownConfigError, match=message):
            find_config(name)
    assert main(["fit", "--config", "own.yaml"]) == 2
    assert message in capsys.readouterr().err
