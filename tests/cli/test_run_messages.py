"""What a run says: which run is resumed, which run ``last`` means, and how baselines without parameters run."""

import csv
from pathlib import Path

import pytest
import torch
import yaml

from graphseq.cli import main

DIGITS = str(Path(__file__).parents[2] / "configs" / "graph" / "gine_digits.yaml")
HIDDEN = "--model.init_args.model.init_args.hidden_channels="
SMALL = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(command, *more, hidden=8):
    return main([command, "--config", DIGITS, *SMALL, f"{HIDDEN}{hidden}", *more])


def test_resuming_says_run_and_epoch(folder, capsys):
    assert run("fit") == 0
    assert "resumes" not in capsys.readouterr().out
    assert run("fit", "--ckpt_path=last", "--trainer.max_epochs=2") == 0
    assert "resumes     runs/gine_digits/version_0 after epoch 0, step 1\n" in capsys.readouterr().out


def test_last_after_a_run_with_other_overrides_asks_for_the_run(folder, capsys):
    assert run("fit") == 0
    assert run("fit", hidden=4) == 0  # a debug run
    capsys.readouterr()
    for command, which in (("test", "last"), ("fit", "best")):
        assert run(command, f"--ckpt_path={which}") == 1
        message = capsys.readouterr().err
        for part in ("version_1", "hidden_channels 4", "--config runs/gine_digits/version_0/config.yaml"):
            assert part in message
        assert len(message.splitlines()) <= 6
    assert run("test", "--ckpt_path=last", hidden=4) == 0  # the newest run is what was asked for
    assert main(["test", "--config", "runs/gine_digits/version_0/config.yaml", "--ckpt_path=last"]) == 0


@pytest.mark.slow
def test_last_of_runs_that_differ_in_length_and_place_only(folder, capsys):
    assert run("fit") == 0
    assert run("fit", "--trainer.max_epochs=2") == 0
    assert run("test", "--ckpt_path=last", "--trainer.limit_test_batches=1") == 0


def test_edgebank_runs_from_a_config_and_has_seen_the_training_split(folder):
    task = {
        "class_path": "graphseq.tasks.TemporalLinkPrediction",
        "init_args": {"model": {"class_path": "graphseq.models.EdgeBank"}},
    }
    negatives = {"class_path": "graphseq.data.RankingNegatives", "init_args": {"num_negatives": 9}}
    data = {
        "class_path": "graphseq.data.SyntheticEventsDataModule",
        "init_args": {"num_events": 400, "repeat": 0.9, "eval_negatives": negatives},
    }
    tree = {"trainer": {"max_epochs": 1, "accelerator": "cpu"}, "model": task, "data": data}
    Path("bank.yaml").write_text(yaml.safe_dump(tree))
    assert main(["fit", "--config", "bank.yaml"]) == 0
    assert main(["test", "--config", "bank.yaml", "--ckpt_path", "last"]) == 0
    saved = torch.load("runs/bank/version_0/checkpoints/last.ckpt", weights_only=True)
    assert int(saved["state_dict"]["model.num_events"]) == 340  # training and validation
    with open("runs/bank/version_0/metrics.csv", newline="") as file:
        tested = list(csv.DictReader(file))[-1]
    assert float(tested["test/auc"]) > 0.5
    assert "test/mrr_of_10" in tested
