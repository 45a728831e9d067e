"""A resumed run chooses the checkpoints, and stops in the epoch, that the uninterrupted run would."""

import shutil
import warnings
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from graphseq.tasks import Classification
from tests.reliability.runs import build, trainer

# best of 0..2 is epoch 1, best of all as well; epoch 3 is the second best
RISES = (3.0, 1.0, 2.5, 2.0, 4.0, 5.0)


class Scripted(Classification):
    """Logs a value that a table gives, so that the test knows which epoch is best."""

    def on_validation_epoch_end(self):
        self.log("val/score", RISES[self.current_epoch])
        self.log("val/gain", -RISES[self.current_epoch])


def fit(folder, epochs, callbacks, ckpt_path=None):
    _, data = build()
    task = Scripted(build()[0].model, 3)
    logger = CSVLogger(folder, name="run")
    run = trainer(max_epochs=epochs, enable_checkpointing=None, logger=logger, callbacks=callbacks)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run.fit(task, data, ckpt_path=ckpt_path, weights_only=True)
    return run


def choice(callback):
    """File names, scores and the weights of the best, without the folder."""
    best = torch.load(callback.best_model_path, weights_only=True)
    names = {Path(path).name: float(score) for path, score in callback.best_k_models.items()}
    return Path(callback.best_model_path).name, float(callback.best_model_score), names, best["epoch"]


CALLBACKS = {
    "one": lambda: [ModelCheckpoint(monitor="val/score")],
    "two": lambda: [ModelCheckpoint(monitor="val/score", save_top_k=2, filename="{epoch}")],
    "all": lambda: [ModelCheckpoint(monitor="val/score", save_top_k=-1)],
    "highest": lambda: [ModelCheckpoint(monitor="val/gain", mode="max", save_top_k=2)],
    "several": lambda: [
        ModelCheckpoint(monitor="val/score", filename="low-{epoch}"),
        ModelCheckpoint(monitor="val/score", mode="max", filename="high-{epoch}"),
        ModelCheckpoint(monitor="val/gain", mode="max", save_top_k=3, filename="gain-{epoch}", save_last=True),
    ],
    "nested": lambda: [ModelCheckpoint(monitor="val/score", filename="{epoch}/{val/score:.2f}")],
}


@pytest.mark.parametrize("kind", CALLBACKS)
def test_best_checkpoints_are_those_of_the_uninterrupted_run(kind, tmp_path):
    whole, part, resumed = CALLBACKS[kind](), CALLBACKS[kind](), CALLBACKS[kind]()
    fit(tmp_path / "whole", 5, whole)
    stopped = fit(tmp_path / "part", 3, part)
    stopped.save_checkpoint(tmp_path / "part/run/version_0/checkpoints/stop.ckpt")
    fit(tmp_path / "part", 5, resumed, tmp_path / "part/run/version_0/checkpoints/stop.ckpt")
    assert Path(resumed[0].dirpath).parent.name == "version_1"
    for expected, found in zip(whole, resumed, strict=True):
        assert choice(found) == choice(expected)
        assert Path(found.kth_best_model_path).name == Path(expected.kth_best_model_path).name
        assert found.kth_value == expected.kth_value
    for earlier in part:  # nothing of the earlier run was deleted
        assert all(Path(path).is_file() for path in earlier.best_k_models)


def test_files_are_found_where_the_run_has_been_moved(tmp_path):
    fit(tmp_path / "part", 3, [ModelCheckpoint(monitor="val/score"), ModelCheckpoint(filename="stop")])
    shutil.move(tmp_path / "part/run/version_0", tmp_path / "moved")
    callbacks = [ModelCheckpoint(monitor="val/score"), ModelCheckpoint(filename="stop")]
    fit(tmp_path / "again", 4, callbacks, tmp_path / "moved/checkpoints/stop.ckpt")
    assert Path(callbacks[0].best_model_path).parent == tmp_path / "moved/checkpoints"
    assert choice(callbacks[0])[-1] == 1


def test_a_deleted_best_is_named_and_its_score_counts(tmp_path):
    first = [ModelCheckpoint(monitor="val/score"), ModelCheckpoint(filename="stop")]
    fit(tmp_path, 3, first)
    Path(first[0].best_model_path).unlink()
    callbacks = [ModelCheckpoint(monitor="val/score"), ModelCheckpoint(filename="stop")]
    task, data = Scripted(build()[0].model, 3), build()[1]
    run = trainer(max_epochs=4, enable_checkpointing=None, logger=CSVLogger(tmp_path, name="run"), callbacks=callbacks)
    with pytest.warns(UserWarning, match=r"epoch=1.*val/score of 1\.0000"):
        run.fit(task, data, ckpt_path=first[1].best_model_path, weights_only=True)
    assert float(callbacks[0].best_model_score) == 1.0
    assert not list((tmp_path / "run/version_1/checkpoints").glob("epoch=*"))


@pytest.mark.parametrize("stop", [2, 3, 4])
def test_early_stopping_ends_the_resumed_run_in_the_same_epoch(stop, tmp_path):
    """Stopped before, or just after, the epoch in which patience runs out: that is epoch 3."""

    def callbacks():
        return [EarlyStopping("val/score", patience=2), ModelCheckpoint(filename="stop")]

    whole = callbacks()
    ended = fit(tmp_path / "whole", 6, whole)
    part = callbacks()
    fit(tmp_path / "part", stop, part)
    resumed = callbacks()
    run = fit(tmp_path / "part", 6, resumed, part[1].best_model_path)
    assert run.global_step == ended.global_step == 4 * 6  # batches an epoch
    for name in ("wait_count", "stopped_epoch", "best_score"):
        assert getattr(resumed[0], name) == getattr(whole[0], name)
