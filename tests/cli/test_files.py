"""What commands write, and where: only below ``runs/``, and nothing over a file of the user's."""

import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from graphseq.cli import main
from graphseq.cli.checkpoints import claim_run

CONFIGS = Path(__file__).parents[2] / "configs"
DIGITS = CONFIGS / "graph" / "gine_digits.yaml"
SMALL = [
    "--trainer.max_epochs=1",
    "--trainer.limit_train_batches=1",
    "--trainer.limit_val_batches=1",
    "--trainer.limit_test_batches=1",
    "--trainer.limit_predict_batches=1",
    "--model.init_args.model.init_args.hidden_channels=8",
]
COMMANDS = [
    ["fit"],
    ["fit", "--trainer.fast_dev_run=1"],
    ["fit", "--trainer.logger=false"],
    ["fit", "--trainer.enable_checkpointing=false"],
    ["fit", "--trainer.logger=lightning.pytorch.loggers.MLFlowLogger"],
    ["validate", "--ckpt_path=last"],
    ["test", "--ckpt_path=best"],
    ["predict", "--ckpt_path=best"],
    ["test"],
    ["predict"],
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def contents(root):
    """Digest of each file below a folder, without those of runs."""
    found = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in root.rglob("*") if path.is_file()}
    return {str(path.relative_to(root)): digest for path, digest in found.items() if "runs" not in path.parts}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*untrained weights", "ignore:.*no checkpoint yet")
def test_commands_write_below_runs_only_and_leave_files_of_the_user_alone(folder):
    own = f"# what I have learned about this data, in a comment\n{DIGITS.read_text()}"
    for name in ("config.yaml", "metrics.csv", "hparams.yaml", "predictions.csv", "checkpoints/mine.ckpt"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(own)
    before = contents(folder)
    for command, *more in COMMANDS:
        status = main([command, "--config", "config.yaml", *SMALL, *more])
        assert status == 0 or "MLFlow" in str(more), more  # refused where the package is absent
        assert contents(folder) == before, (command, more)
    assert {path.name for path in Path("runs").iterdir()} == {"config"}


def test_each_run_has_its_config_and_checkpoints_without_a_logger_too(folder):
    for more in ([], ["--trainer.logger=false"]):
        assert main(["fit", "--config", str(DIGITS), *SMALL, *more]) == 0
    for version in (0, 1):
        run = Path("runs/gine_digits") / f"version_{version}"
        assert yaml.safe_load((run / "config.yaml").read_text())["trainer"]["max_epochs"] == 1
        assert (run / "checkpoints" / "last.ckpt").is_file()
    assert main(["test", "--config", str(DIGITS), *SMALL, "--ckpt_path=last"]) == 0


def test_a_run_that_fails_leaves_no_empty_folder(folder, capsys):
    assert main(["fit", "--config", str(DIGITS), *SMALL, "--trainer.accelerator=gpus"]) == 1
    assert "gpus" in capsys.readouterr().err
    assert not list(Path("runs").rglob("version_*"))


def test_a_config_in_a_folder_that_nothing_may_be_written_to(folder):
    place = folder / "read_only"
    place.mkdir()
    (place / "own.yaml").write_text(DIGITS.read_text())
    place.chmod(0o555)
    try:
        for command in (["fit"], ["test", "--ckpt_path=last"], ["predict", "--ckpt_path=last"]):
            assert main([command[0], "--config", "read_only/own.yaml", *SMALL, *command[1:]]) == 0
        assert os.listdir(place) == ["own.yaml"]
    finally:
        place.chmod(0o755)
    assert (folder / "runs/own/version_0/config.yaml").is_file()


def test_a_place_for_runs_that_cannot_be_made_is_refused(folder, capsys):
    Path("runs").write_text("a file of the user's")
    assert main(["fit", "--config", str(DIGITS), *SMALL]) == 1
    message = capsys.readouterr().err
    assert "runs" in message
    assert len(message.splitlines()) <= 6
    assert Path("runs").read_text() == "a file of the user's"


@pytest.mark.slow  # two processes import everything, half a minute
def test_two_runs_at_once_in_one_folder_lose_no_file(folder):
    command = [sys.executable, "-m", "graphseq", "fit", "--config", str(DIGITS), *SMALL]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    runs = [subprocess.Popen([*command, f"--seed_everything={seed}"], env=environment) for seed in (5, 6)]
    assert [run.wait() for run in runs] == [0, 0]
    folders = sorted(Path("runs/gine_digits").iterdir())
    assert [path.name for path in folders] == ["version_0", "version_1"]
    seeds = {yaml.safe_load((path / "config.yaml").read_text())["seed_everything"] for path in folders}
    assert seeds == {5, 6}
    for path in folders:
        assert (path / "checkpoints/last.ckpt").is_file()
        assert len((path / "metrics.csv").read_text().splitlines()) >= 2


def test_claimed_folders_are_distinct(folder):
    with ThreadPoolExecutor(8) as pool:
        claimed = list(pool.map(lambda _: claim_run(folder, "gin"), range(40)))
    assert {path.name for path in claimed} == {f"version_{number}" for number in range(40)}
    (folder / "gin" / "version_50").mkdir()
    (folder / "gin" / "notes").mkdir()
    assert claim_run(folder, "gin").name == "version_51"
