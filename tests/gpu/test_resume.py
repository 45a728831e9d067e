"""A run that was stopped on the device goes on as the run that was not."""

import pytest
import torch

from tests.gpu.families import FAMILIES, build, lightning, trainer

# sums over edges are added up in another order each time on a GPU; Adam carries the last bits on
_TOLERANCE = {"cpu": {"rtol": 0.0, "atol": 0.0}, "cuda": {"rtol": 1e-3, "atol": 1e-4}}


@pytest.mark.parametrize("family", FAMILIES)
def test_resumed_is_uninterrupted(family, device, tmp_path):
    task, data = build(family)
    trainer(device, max_epochs=2).fit(task, data)
    expected = {name: value.cpu() for name, value in task.state_dict().items()}
    stopped, data = build(family)
    first = trainer(device, max_epochs=1)
    first.fit(stopped, data)
    first.save_checkpoint(tmp_path / "last.ckpt")
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True, map_location="cpu")
    assert saved["epoch"] == 1
    resumed, data = build(family, seed=1)
    trainer(device, max_epochs=2).fit(resumed, data, ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    found = resumed.state_dict()
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name].cpu(), value, **_TOLERANCE[device.type], msg=lambda text, n=name: f"{n}: {text}"
        )


@pytest.mark.parametrize("family", ["graphs", "TGN"])
def test_a_checkpoint_of_the_device_opens_on_the_host(family, device, tmp_path):
    import graphseq

    task, data = build(family)
    fit = trainer(device, limit_train_batches=2, limit_val_batches=0)
    fit.fit(task, data)
    fit.save_checkpoint(tmp_path / "last.ckpt")
    loaded = graphseq.load(tmp_path / "last.ckpt", map_location="cpu")
    assert {value.device.type for value in loaded.state_dict().values()} == {"cpu"}
    scores = trainer(torch.device("cpu"), limit_test_batches=2).test(loaded, data, verbose=False)
    assert all(torch.isfinite(torch.tensor(value)) for value in scores[0].values())


def test_generators_of_the_device_are_in_the_checkpoint(device, tmp_path):
    if device.type != "cuda":
        pytest.skip("the generator of the GPU is there on a GPU only")
    task, data = build("images")
    fit = trainer(device, limit_train_batches=2, limit_val_batches=0)
    fit.fit(task, data)
    fit.save_checkpoint(tmp_path / "last.ckpt")
    expected = torch.rand(3, device="cuda")
    lightning.seed_everything(9, verbose=False)
    resumed, data = build("images", seed=9)

    class Draw(lightning.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            self.drawn = torch.rand(3, device="cuda")

    draw = Draw()
    trainer(device, max_epochs=2, limit_train_batches=2, limit_val_batches=0, callbacks=[draw]).fit(
        resumed, data, ckpt_path=tmp_path / "last.ckpt", weights_only=True
    )
    assert torch.equal(draw.drawn, expected)
