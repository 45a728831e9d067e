"""Every place where we lean on something of Lightning or jsonargparse that is not promised. A failure here names it."""

import inspect

import lightning.pytorch.cli as cli
import lightning.pytorch.core.saving as saving
import pytest
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import data as lightning_data

from tests.reliability.runs import build, trainer


def test_instantiator_is_trusted():
    assert "lightning.pytorch.cli.instantiate_module" in saving._ALLOWED_INSTANTIATORS, (
        "tasks.base.Task.__init__ writes this instantiator into checkpoints; Lightning no longer allows it"
    )
    assert list(inspect.signature(cli.instantiate_module).parameters) == ["class_type", "config"]


def test_checkpoint_path_hook_of_the_command_line():
    source = inspect.getsource(cli.LightningCLI.__init__)
    assert "self._parse_ckpt_path()" in source, (
        "GraphseqCLI._parse_ckpt_path does nothing so that a checkpoint cannot override the config; "
        "LightningCLI no longer calls a method of that name"
    )


def test_steps_of_the_command_line_that_ours_extends():
    assert set(inspect.signature(cli.LightningCLI._prepare_subcommand_parser).parameters) == {
        "self", "klass", "subcommand", "kwargs",
    }, "GraphseqCLI adds --format to predict there"  # fmt: skip
    assert list(inspect.signature(cli.LightningCLI._run_subcommand).parameters) == ["self", "subcommand"], (
        "GraphseqCLI removes the empty folder of a run that fails there"
    )
    assert "self._subcommand_parsers[subcommand] =" in inspect.getsource(cli.LightningCLI._add_subcommands), (
        "GraphseqCLI reads the options of a command from there, to name those near a misspelt one"
    )


def test_hyperparameters_are_taken_from_the_record():
    task, _ = build()
    assert dict(task.hparams)["_class_path"] == "graphseq.tasks.Classification"
    before = dict(task.hparams)
    task.save_hyperparameters()  # a user's habitual call
    assert dict(task.hparams) == before
    assert "save_hyperparameters" in vars(type(task).__mro__[1])
    assert callable(LightningModule.save_hyperparameters)


def test_epoch_reaches_the_loader():
    task, data = build()
    seen = []
    original = data.train_dataloader

    def watched():
        loader = original()
        announce = loader.set_epoch
        loader.set_epoch = lambda epoch: (seen.append(epoch), announce(epoch))[1]
        return loader

    data.train_dataloader = watched
    trainer(max_epochs=3).fit(task, data)
    assert set(seen) == {0, 1, 2}, "Lightning no longer announces epochs through loader.batch_sampler.sampler.set_epoch"


def test_loader_state_is_in_the_checkpoint(tmp_path):
    task, data = build()
    run = trainer(max_epochs=1, max_steps=4)
    run.fit(task, data)
    run.save_checkpoint(tmp_path / "a.ckpt")
    state = torch.load(tmp_path / "a.ckpt", weights_only=True)["loops"]["fit_loop"]["state_dict"]["combined_loader"]
    assert state[0]["position"] == 4, "Lightning no longer saves the state of a stateful loader"


def test_global_instantiator_of_jsonargparse():
    import jsonargparse

    assert {"instantiator", "class_type", "subclasses"} <= set(
        inspect.signature(jsonargparse.add_instantiator).parameters
    ), "core.spec.record_foreign_modules registers make() here"


def test_sized_loaders_are_not_prefetched():
    # the saved position is exact only while Lightning asks for no batch ahead
    task, data = build()
    loader = data.train_dataloader()
    positions = []

    class Watch(type(task)):
        def on_train_batch_end(self, *args):
            positions.append((args[-1], loader.state_dict()["position"]))

    task.__class__ = Watch
    data.train_dataloader = lambda: loader
    trainer(max_epochs=1).fit(task, data)
    assert [position for _, position in positions] == [batch + 1 for batch, _ in positions]
    assert lightning_data is not None


def test_raw_optimizer_step_is_not_counted():
    """The contract of manual optimisation: a raw step counts 0, a step through self.optimizers() counts one each."""

    def run(step):
        task, data = build()
        task.automatic_optimization = False
        task.training_step = lambda batch, batch_idx: step(task, batch)
        fitted = trainer(max_epochs=1)
        fitted.fit(task, data)
        return fitted.global_step

    def proper(task, batch):
        optimizer = task.optimizers()
        optimizer.zero_grad()
        task.manual_backward(task.step(batch).loss)
        optimizer.step()

    raw_optimizers = {}

    def raw(task, batch):
        optimizer = raw_optimizers.setdefault("it", torch.optim.SGD(task.parameters(), lr=0.1))
        optimizer.zero_grad()
        task.step(batch).loss.backward()
        optimizer.step()

    assert run(proper) == 6
    assert run(raw) == 0


def test_checkpoint_appears_under_manual_optimisation(tmp_path):
    from lightning.pytorch.callbacks import ModelCheckpoint

    task, data = build()
    task.automatic_optimization = False

    def step(batch, batch_idx):
        optimizer = task.optimizers()
        optimizer.zero_grad()
        task.manual_backward(task.step(batch).loss)
        optimizer.step()

    task.training_step = step
    keep = ModelCheckpoint(tmp_path, every_n_train_steps=2, save_top_k=-1)
    trainer(max_epochs=1, callbacks=[keep], enable_checkpointing=True).fit(task, data)
    assert len(list(tmp_path.glob("*.ckpt"))) == 3


@pytest.mark.parametrize("name", ["_record"])
def test_record_lives_beside_the_parameters(name):
    task, _ = build()
    assert name in vars(task)
    assert not any(key.startswith(name) for key in task.state_dict())
