"""``--ckpt_path last`` and ``best``: by what checkpoints hold, never by times or names of files."""

import csv
import os
import shutil
import warnings
from pathlib import Path

import pytest
import torch
import yaml

from graphseq.cli import main
from graphseq.cli.checkpoints import checkpoint_of_run, newest_checkpoint, run_folder
from graphseq.core.errors import CheckpointError

DIGITS = str(Path(__file__).parents[2] / "configs" / "graph" / "gine_digits.yaml")
SMALL = [
    "--trainer.limit_train_batches=2",
    "--trainer.limit_val_batches=1",
    "--trainer.limit_test_batches=1",
    "--model.init_args.model.init_args.hidden_channels=4",
    "--model.init_args.model.init_args.num_layers=1",
    "--trainer.accelerator=cpu",
]


def state(run, best, monitor="val/loss", kept=(), score=0.5):
    folder = f"{run}/checkpoints"
    return {
        "monitor": monitor,
        "best_model_path": f"{folder}/{best}",
        "best_model_score": torch.tensor(score),
        "best_k_models": {f"{folder}/{name}": torch.tensor(score) for name in kept or (best,)},
        "dirpath": folder,
        "last_model_path": "",
    }


def write(run, name, step, *states, weights_only=False):
    path = run / "checkpoints" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"global_step": step, "epoch": step // 10}
    if not weights_only:
        content |= {"optimizer_states": [{}], "callbacks": {f"callback {i}": one for i, one in enumerate(states)}}
    torch.save(content, path)
    return path


@pytest.fixture
def run(tmp_path):
    """Four epochs with all kept: epoch 9 is the best, epoch 10 the last; the newest file is neither."""
    run = tmp_path / "runs/gin/version_0"
    for epoch, best in ((8, 8), (9, 9), (10, 9)):
        kept = [f"epoch={one}.ckpt" for one in range(8, epoch + 1)]
        write(run, f"epoch={epoch}.ckpt", 10 * epoch, state(run, f"epoch={best}.ckpt", kept=kept))
    os.utime(run / "checkpoints/epoch=10.ckpt", (1, 1))
    return run


def name(run, which, **options):
    return Path(checkpoint_of_run(run, which, **options)).name


def test_steps_and_the_callback_decide_not_times_or_names(run):
    assert name(run, "last") == "epoch=10.ckpt"
    assert name(run, "best") == "epoch=9.ckpt"


def test_a_copied_run_means_its_own_files(run, tmp_path):
    copy = tmp_path / "elsewhere/version_3"
    shutil.copytree(run, copy)
    for which in ("last", "best"):
        assert checkpoint_of_run(copy, which) == str(copy / "checkpoints" / name(run, which))
    shutil.rmtree(run)
    assert name(copy, "best") == "epoch=9.ckpt"


def test_of_equal_steps_the_last_knows_of_the_others(run):
    """The callback that saves second knows what the first one has chosen."""
    both = [state(run, "epoch=11.ckpt"), state(run, "a.ckpt", monitor=None)]
    write(run, "epoch=11.ckpt", 110, both[0])
    write(run, "a.ckpt", 110, *both)
    assert name(run, "last") == "a.ckpt"


def test_first_monitored_callback_is_asked_and_the_others_named(run):
    states = [state(run, "x.ckpt", None), state(run, "epoch=8.ckpt", "val/acc"), state(run, "epoch=9.ckpt", "val/f1")]
    write(run, "x.ckpt", 200, *states)
    with pytest.warns(UserWarning, match=r"val/acc.*val/f1"):
        assert name(run, "best") == "epoch=8.ckpt"


def test_names_with_a_slash_are_files_in_folders(run):
    write(run, "epoch=20-val/acc=0.5.ckpt", 200, state(run, "epoch=20-val/acc=0.5.ckpt"))
    expected = str(run / "checkpoints/epoch=20-val/acc=0.5.ckpt")
    assert checkpoint_of_run(run, "best") == checkpoint_of_run(run, "last") == expected
    assert run_folder(Path(expected)) == run


def test_best_of_an_earlier_run_is_used_and_named(run):
    later = run.parent / "version_1"
    write(later, "last.ckpt", 110, state(run, "epoch=9.ckpt"))
    with pytest.warns(UserWarning, match=r"version_1.*version_0"):
        assert checkpoint_of_run(later, "best") == str(run / "checkpoints/epoch=9.ckpt")
    moved = run.parents[1] / "moved"
    shutil.move(run.parent, moved)
    with pytest.warns(UserWarning, match="version_0"):
        assert checkpoint_of_run(moved / "version_1", "best") == str(moved / "version_0/checkpoints/epoch=9.ckpt")


def test_deleted_best_says_what_happened(run):
    (run / "checkpoints/epoch=9.ckpt").unlink()
    with pytest.raises(CheckpointError, match=r"epoch=9\.ckpt \(val/loss 0\.5000\)"):
        checkpoint_of_run(run, "best")
    assert name(run, "last") == "epoch=10.ckpt"


def test_newest_run_is_the_highest_version_that_has_checkpoints(run):
    root = run.parents[1]
    for version in (2, 10):
        write(run.parent / f"version_{version}", "last.ckpt", 5, state(run.parent / f"version_{version}", "last.ckpt"))
    os.utime(run.parent / "version_10/checkpoints/last.ckpt", (1, 1))
    assert "version_10" in newest_checkpoint(root, "gin", "last")
    (run.parent / "version_11").mkdir()
    with pytest.warns(UserWarning, match=r"version_11.*version_10"):
        assert "version_10" in newest_checkpoint(root, "gin", "best")


def test_weights_only(run):
    write(run, "epoch=11.ckpt", 110, weights_only=True)
    assert name(run, "last") == "epoch=11.ckpt"
    assert name(run, "last", resumable=True) == "epoch=10.ckpt"
    assert name(run, "best") == "epoch=9.ckpt"
    bare = run.parent / "version_1"
    write(bare, "epoch=0.ckpt", 1, weights_only=True)
    for which, options in (("best", {}), ("last", {"resumable": True})):
        with pytest.raises(CheckpointError, match="weights only"):
            checkpoint_of_run(bare, which, **options)


def test_nothing_monitored_and_broken_files(run):
    plain = run.parent / "version_1"
    write(plain, "last.ckpt", 5, state(plain, "last.ckpt", monitor=None))
    with pytest.raises(CheckpointError, match="monitor"):
        checkpoint_of_run(plain, "best")
    for content in (b"", b"half a file", (run / "checkpoints/epoch=9.ckpt").read_bytes()[:200]):
        (plain / "checkpoints/last.ckpt").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"version_1/checkpoints/last\.ckpt"):
            checkpoint_of_run(plain, "last")
    torch.save([1, 2], plain / "checkpoints/last.ckpt")
    with pytest.raises(CheckpointError, match=r"last\.ckpt"):
        checkpoint_of_run(plain, "last")


@pytest.mark.parametrize("path", ["runs/x/version_1/config.yaml", "runs/x/version_1/checkpoints/last.ckpt"])
def test_run_of_a_path(path):
    assert run_folder(Path(path)) == Path("runs/x/version_1")


@pytest.mark.parametrize("path", ["config.yaml", "configs/version_1/gin.yaml", "last.ckpt", "version_1/last.ckpt"])
def test_path_of_no_run(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_folder(Path(path)) is None


# the command line


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fit(root, epochs, *more, config=DIGITS):
    arguments = [
        "fit",
        "--config",
        config,
        *SMALL,
        f"--trainer.default_root_dir={root}",
        f"--trainer.max_epochs={epochs}",
    ]
    assert main([*arguments, *more]) == 0
    return Path(root)


def weights(path):
    return torch.load(path, weights_only=True)["state_dict"]


CLIMBS = "--model.init_args.optimizer.maximize=true"  # the loss grows: the first epochs stay the best


def test_resumed_run_has_the_files_of_the_uninterrupted_one(folder):
    whole = fit("whole", 4, CLIMBS) / "gine_digits/version_0/checkpoints"
    fit("part", 2, CLIMBS)
    part = fit("part", 4, CLIMBS, "--ckpt_path", "last") / "gine_digits/version_1/checkpoints"
    assert sorted(os.listdir(part)) == sorted(os.listdir(whole))
    for path in part.iterdir():
        expected = weights(whole / path.name)
        assert all(torch.equal(value, expected[key]) for key, value in weights(path).items())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        best = newest_checkpoint(Path("part"), "gine_digits", "best")
    assert best == str(Path(part, Path(newest_checkpoint(Path("whole"), "gine_digits", "best")).name))


def test_saved_config_names_no_checkpoint_and_means_its_own_run(folder, capsys):
    fit("runs", 1)
    fit("runs", 2, "--ckpt_path", "last")
    fit("runs", 1)
    saved = folder / "runs/gine_digits/version_1/config.yaml"
    assert yaml.safe_load(saved.read_text())["ckpt_path"] is None
    for which in ("last", "best"):
        assert main(["test", "--config", str(saved), "--ckpt_path", which]) == 0
    tested = [row["step"] for row in csv.DictReader((saved.parent / "metrics.csv").open()) if row["test/acc"]]
    assert tested[0] == "4"  # two epochs of two batches: not the newest run, which has one
    shutil.rmtree(saved.parent / "checkpoints")
    assert main(["test", "--config", str(saved), "--ckpt_path", "last"]) == 1
    assert "version_1 has no last checkpoint" in capsys.readouterr().err


def test_testing_writes_no_config_over_that_of_the_user(folder):
    Path("config.yaml").write_text(Path(DIGITS).read_text())
    assert main(["validate", "--config", "config.yaml", *SMALL]) == 0
    assert main(["fit", "--config", "config.yaml", *SMALL, "--trainer.max_epochs=1", "--trainer.logger=false"]) == 0
    assert Path("config.yaml").read_text() == Path(DIGITS).read_text()


def test_callback_of_the_user_says_what_is_best(folder):
    tree = yaml.safe_load(Path(DIGITS).read_text())
    arguments = {"monitor": "train/loss", "mode": "max", "save_top_k": 2, "filename": "{epoch}"}
    own = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": arguments}
    tree["trainer"]["callbacks"] = [own]
    Path("own.yaml").write_text(yaml.safe_dump(tree))
    fit("runs", 3, config="own.yaml")
    checkpoints = Path("runs/own/version_0/checkpoints")
    losses = [
        float(row["train/loss"])
        for row in csv.DictReader((checkpoints.parent / "metrics.csv").open())
        if row["train/loss"]
    ]
    highest = sorted(range(3), key=losses.__getitem__)[1:]
    assert {path.name for path in checkpoints.iterdir()} == {f"epoch={epoch}.ckpt" for epoch in highest}
    assert newest_checkpoint(Path("runs"), "own", "best") == str(checkpoints / f"epoch={highest[-1]}.ckpt")
    assert newest_checkpoint(Path("runs"), "own", "last") == str(checkpoints / f"epoch={max(highest)}.ckpt")


def test_other_places_of_checkpoints_are_named(folder, capsys):
    tree = yaml.safe_load(Path(DIGITS).read_text())
    own = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": {"dirpath": "kept"}}
    tree["trainer"]["callbacks"] = [own]
    Path("own.yaml").write_text(yaml.safe_dump(tree))
    assert main(["test", "--config", "own.yaml", "--ckpt_path", "last"]) == 1
    assert "dirpath kept" in capsys.readouterr().err
