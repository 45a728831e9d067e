"""Options that classes pass on to their base: help, configs, checkpoints."""

import re
from pathlib import Path

import pytest
import torch
import yaml

import graphseq
from graphseq.cli import main
from graphseq.core import make
from graphseq.data import DigitGraphsDataModule
from graphseq.models import GraphClassifier
from graphseq.tasks import Reweighted

CONFIG = {
    "model": {
        "class_path": "graphseq.tasks.Reweighted",
        "init_args": {
            "model": {"class_path": "graphseq.models.GraphClassifier", "init_args": {"hidden_channels": 8}},
            "start_epoch": 0,
            "target": "multiclass",
            "scheduler_interval": "step",
            "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.01}},
            "scheduler": {"class_path": "torch.optim.lr_scheduler.StepLR", "init_args": {"step_size": 5}},
        },
    },
    "data": {
        "class_path": "graphseq.data.MotifDataModule",
        "init_args": {"num_train": 60, "num_val": 20, "num_test": 20, "seed": 3, "eval_batch_size": 10},
    },
    "trainer": {"max_epochs": 1, "accelerator": "cpu"},
}


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(change=None):
        content = yaml.safe_load(yaml.safe_dump(CONFIG))
        if change is not None:
            change(content)
        path = tmp_path / "options.yaml"
        path.write_text(yaml.safe_dump(content))
        return str(path)

    return write


def help_of(capsys, *arguments):
    assert main(["fit", *arguments]) == 0
    return re.sub(r"\s+", " ", capsys.readouterr().out)


def test_the_help_of_a_class_holds_the_options_of_its_base(capsys):
    text = help_of(capsys, "--model.help", "graphseq.tasks.Reweighted")
    assert "--model.scheduler_interval {epoch,step} whether the scheduler steps once per ``epoch``" in text
    assert "--model.target {multiclass,multilabel,regression} kind of target" in text
    assert "--model.options" not in text
    text = help_of(capsys, "--data.help", "graphseq.data.MotifDataModule")
    assert "--data.eval_batch_size EVAL_BATCH_SIZE number of graphs of one validation, test or prediction batch" in text
    assert "--data.pool_validation {true,false} whether validation graphs are also training graphs" in text


def test_a_run_notes_its_options_and_goes_on(config, capsys):
    assert main(["fit", "--config", config()]) == 0
    (path,) = Path("runs").rglob("last.ckpt")
    saved = torch.load(path, weights_only=True)
    noted = saved["hyper_parameters"]
    assert noted["scheduler_interval"] == "step"
    assert noted["scheduler"]["class_path"] == "torch.optim.lr_scheduler.StepLR"
    assert noted["scheduler"]["init_args"]["step_size"] == 5
    assert "options" not in noted
    task = graphseq.load(path)
    assert isinstance(task, Reweighted)
    assert task.scheduler_interval == "step"
    assert task.configure_optimizers()[0]["lr_scheduler"].step_size == 5
    assert graphseq.load(path, stop_on_nonfinite=False).stop_on_nonfinite is False
    with pytest.raises(TypeError, match="scheduler_intervall"):
        graphseq.load(path, scheduler_intervall="step")
    assert main(["fit", "--config", config(), "--ckpt_path", str(path), "--trainer.max_epochs", "2"]) == 0


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("model", "scheduler_intervall", "step"),
        ("model", "scheduler_interval", "batch"),
        ("model", "target", "classes"),
        ("data", "eval_batchsize", 10),
        ("data", "device_resident", "sometimes"),
    ],
)
def test_misspelt_options_and_wrong_values_are_refused(config, capsys, part, name, value):
    wrong = config(lambda content: content[part]["init_args"].update({name: value}))
    assert main(["fit", "--config", wrong]) != 0
    message = capsys.readouterr().err
    assert name in message
    assert "did you mean" in message or str(value) in message


def test_scripts_note_options_flat():
    task = Reweighted(GraphClassifier(3, 2), 2, beta=0.5, scheduler_interval="step")
    assert task._record["init_args"]["scheduler_interval"] == "step"
    assert set(task._record["init_args"]) == {"model", "num_outputs", "beta", "scheduler_interval"}
    with pytest.raises(TypeError, match="scheduler_intervall"):
        Reweighted(GraphClassifier(3, 2), 2, scheduler_intervall="step")
    data = make(DigitGraphsDataModule, batch_size=8, eval_batch_size=3)
    assert data.eval_batch_size == 3
