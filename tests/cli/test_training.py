import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

import graphseq
from graphseq.cli import main
from graphseq.cli.training import add_row, check_class

CONFIGS = Path(__file__).parents[2] / "configs"
DIGITS = str(CONFIGS / "graph" / "gine_digits.yaml")
SMALL = [
    "--trainer.max_epochs=2",
    "--trainer.limit_train_batches=3",
    "--trainer.limit_val_batches=1",
    "--trainer.limit_test_batches=2",
    "--model.init_args.model.init_args.hidden_channels=8",
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_fit_test_resume_and_load(folder, capsys):
    assert main(["fit", "--config", DIGITS, *SMALL]) == 0
    printed = capsys.readouterr().out
    run = folder / "runs" / "gine_digits" / "version_0"
    assert "graphseq plot runs/gine_digits/version_0" in printed
    assert sorted(path.name for path in run.iterdir()) == ["checkpoints", "config.yaml", "hparams.yaml", "metrics.csv"]
    assert [row["epoch"] for row in rows(run / "metrics.csv") if row["val/acc"]] == ["0", "1"]

    last = str(run / "checkpoints" / "last.ckpt")
    torch.load(last, weights_only=True)
    task = graphseq.load(last)
    assert task.model.encoder.hidden_channels == 8

    assert main(["test", "--config", DIGITS, *SMALL, "--ckpt_path", last]) == 0
    assert "test/acc" in capsys.readouterr().out
    assert float(rows(run / "metrics.csv")[-1]["test/acc"]) >= 0
    assert main(["validate", "--config", DIGITS, *SMALL, "--ckpt_path", "last"]) == 0
    assert main(["predict", "--config", DIGITS, *SMALL, "--ckpt_path", "best"]) == 0

    assert main(["fit", "--config", DIGITS, *SMALL, "--ckpt_path", "last", "--trainer.max_epochs=3"]) == 0
    again = rows(folder / "runs" / "gine_digits" / "version_1" / "metrics.csv")
    assert [row["epoch"] for row in again if row["val/acc"]] == ["2"]
    assert main(["plot", str(run)]) == 0
    assert (run / "curves.png").stat().st_size > 10_000


def test_the_saved_config_runs_again_and_gives_the_same_numbers(folder, capsys):
    assert main(["fit", "--config", DIGITS, *SMALL]) == 0
    saved = folder / "runs" / "gine_digits" / "version_0" / "config.yaml"
    assert main(["fit", "--config", str(saved), "--trainer.default_root_dir", "again"]) == 0
    first = rows(saved.parent / "metrics.csv")
    assert rows(folder / "again" / "config" / "version_0" / "metrics.csv") == first


def test_checkpoint_of_the_command_line_is_that_of_a_script(folder):
    import functools

    import lightning

    from graphseq.data import DigitGraphsDataModule
    from graphseq.models import GraphClassifier
    from graphseq.tasks import Classification

    assert main(["fit", "--config", DIGITS, *SMALL]) == 0
    from_cli = torch.load(next(folder.rglob("last.ckpt")), weights_only=True)

    lightning.seed_everything(0, verbose=False)
    data = DigitGraphsDataModule(shift="noise", strength=0.1, batch_size=64)
    model = GraphClassifier(1, 10, hidden_channels=8, num_layers=4, conv="gine", edge_channels=2)
    task = Classification(
        model,
        10,
        optimizer=functools.partial(torch.optim.Adam, lr=3e-3),
        scheduler=functools.partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=30),
    )
    trainer = lightning.Trainer(
        max_epochs=2, limit_train_batches=3, limit_val_batches=1, accelerator="cpu", logger=False,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(task, data)
    trainer.save_checkpoint("script.ckpt")
    script = torch.load("script.ckpt", weights_only=True)
    assert from_cli.keys() >= {"hyper_parameters", "graphseq", "state_dict"}
    assert all(torch.equal(value, from_cli["state_dict"][name]) for name, value in script["state_dict"].items())
    for path in ("script.ckpt", next(folder.rglob("last.ckpt"))):
        assert type(graphseq.load(path)) is Classification


def test_last_checkpoint_is_of_the_last_epoch_even_when_it_is_not_the_best(folder, capsys):
    # climbing the loss makes it worse from some epoch on
    assert (
        main(["fit", "--config", DIGITS, *SMALL, "--trainer.max_epochs=6", "--model.init_args.optimizer.maximize=true"])
        == 0
    )
    checkpoints = folder / "runs" / "gine_digits" / "version_0" / "checkpoints"
    assert torch.load(checkpoints / "last.ckpt", weights_only=True)["epoch"] == 5
    (best,) = checkpoints.glob("epoch=*.ckpt")
    losses = [float(row["val/loss"]) for row in rows(checkpoints.parent / "metrics.csv") if row["val/loss"]]
    assert torch.load(best, weights_only=True)["epoch"] == losses.index(min(losses)) < 5


def config(folder, **changes):
    """Write the digits config with entries changed, each given by its dotted key."""
    tree = yaml.safe_load(Path(DIGITS).read_text())
    for key, value in changes.items():
        *path, last = key.split(".")
        node = tree
        for part in path:
            node = node[part]
        node[last] = value
    target = folder / "changed.yaml"
    target.write_text(yaml.safe_dump(tree))
    return str(target)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.init_args.model.init_args.hiden_channels": 3}, "hiden_channels"),
        ({"modle": 3}, "modle"),
        ({"model.class_path": "graphseq.tasks.Clasification"}, "Clasification"),
        ({"model.class_path": "os.system"}, "os.system"),
        ({"model.init_args.model.class_path": "os.system"}, "os.system"),
        ({"model.init_args.model.class_path": "subprocess.Popen"}, "Popen"),
        ({"model.init_args.optimizer": "os.system"}, "os.system"),
        (
            {"model.init_args.optimizer.class_path": "subprocess.Popen", "model.init_args.optimizer.init_args": {}},
            "Popen",
        ),
        ({"model.init_args.scheduler": "os.system"}, "os.system"),
        ({"data.class_path": "shutil.rmtree"}, "rmtree"),
        ({"data.init_args.batch_size": 0}, "batch_size is 0"),
        ({"data.init_args.shift": "blur"}, "blur"),
        ({"data.init_args.fractions": [0.5, 0.1, 0.1]}, "sum to 1"),
        ({"model.init_args.model.init_args.num_layers": "many"}, "many"),
    ],
)
def test_bad_configs(folder, capsys, changes, message):
    status = main(["fit", "--config", config(folder, **changes)])
    captured = capsys.readouterr()
    assert status != 0
    assert message in captured.err
    assert not (folder / "runs").exists()


def test_missing_checkpoint_and_config(folder, capsys):
    assert main(["test", "--config", DIGITS, "--ckpt_path", "nothing.ckpt"]) == 1
    assert "there is no checkpoint nothing.ckpt" in capsys.readouterr().err
    assert main(["test", "--config", DIGITS, "--ckpt_path", "last"]) == 1
    assert "no run of gine_digits" in capsys.readouterr().err
    assert main(["fit", "--config", "nothing.yaml"]) == 2
    assert "nothing.yaml" in capsys.readouterr().err


def test_checkpoint_of_another_network_does_not_override_the_config(folder, capsys):
    assert main(["fit", "--config", DIGITS, *SMALL]) == 0
    other = [*SMALL[:-1], "--model.init_args.model.init_args.hidden_channels=16"]
    assert main(["test", "--config", DIGITS, *other, "--ckpt_path", "last"]) == 1
    assert "hidden_channels = 8 there, 16 here" in capsys.readouterr().err


def test_untrained_test_warns(folder):
    with pytest.warns(UserWarning, match="untrained weights"):
        assert main(["test", "--config", DIGITS, *SMALL]) == 0


def test_later_configs_win(folder):
    assert main(["fit", "--config", DIGITS, "--config", str(CONFIGS / "trainer" / "debug.yaml"), *SMALL[1:]]) == 0
    saved = yaml.safe_load((folder / "runs" / "gine_digits" / "version_0" / "config.yaml").read_text())
    assert saved["trainer"]["max_epochs"] == 1


def test_short_names(folder):
    short = ["--model=Classification", "--model.model=GraphClassifier", "--data=DigitGraphsDataModule"]
    assert main(["fit", *short, "--trainer.fast_dev_run=true", "--trainer.accelerator=cpu"]) == 0


def test_show(folder, capsys):
    assert main(["show", DIGITS]) == 0
    printed = capsys.readouterr().out
    for part in ("in_channels: 1", "out_channels: 10", "GraphClassifier", "train samples", "num_features"):
        assert part in printed
    assert max(map(len, printed.splitlines())) <= 100
    assert main(["show"]) == 2


def test_help_and_unknown_commands(capsys):
    assert main(["--help"]) == 0
    assert main([]) == 0
    assert "graphseq <command>" in capsys.readouterr().out
    assert main(["train"]) == 2
    assert "there is no command 'train'" in capsys.readouterr().err


def test_module_runs():
    done = subprocess.run([sys.executable, "-m", "graphseq", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"graphseq {graphseq.__version__}"


@pytest.mark.slow  # a process that trains
def test_quiet_outside_a_terminal(folder):
    command = [sys.executable, "-m", "graphseq", "fit", "--config", DIGITS, *SMALL]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert len(done.stdout.splitlines()) <= 6, done.stdout
    assert "Warning" not in done.stderr, done.stderr
    assert "\r" not in done.stdout + done.stderr


def test_add_row_keeps_the_log_when_writing_fails(folder, monkeypatch):
    log = folder / "metrics.csv"
    log.write_text("epoch,train/loss\n0,0.5\n")

    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(csv.DictWriter, "writerows", fail)
    with pytest.raises(OSError, match="No space"):
        add_row(log, {"test/acc": 1.0})
    assert log.read_text() == "epoch,train/loss\n0,0.5\n"
    assert os.listdir(folder) == ["metrics.csv"]


def test_check_class():
    check_class(None, torch.optim.Optimizer, "x")
    check_class({"class_path": "torch.optim.Adam"}, torch.optim.Optimizer, "x")
    with pytest.raises(ValueError, match="x names os.system.*Optimizer"):
        check_class("os.system", torch.optim.Optimizer, "x")
