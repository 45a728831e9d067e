"""Data live on the device and batches are cut there: the same batches as on the host."""

import pytest
import torch

from tests.gpu.families import FAMILIES, build, lightning, tensors_of, trainer


class Seen(lightning.Callback):
    """Where the batches of each stage are, and where the store is meanwhile."""

    def __init__(self):
        self.devices, self.stores = set(), set()

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.devices |= {value.device.type for value in tensors_of(batch).values()}
        self.stores.add(trainer.datamodule.store.device.type)

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        self.on_train_batch_start(trainer, pl_module, batch, batch_idx)


@pytest.mark.parametrize("resident", [True, False, "auto"])
@pytest.mark.parametrize("family", FAMILIES)
def test_batches_arrive_on_the_device(family, resident, device):
    task, data = build(family, device_resident=resident)
    seen = Seen()
    trainer(device, callbacks=[seen], limit_train_batches=3, limit_val_batches=2).fit(task, data)
    assert seen.devices == {device.type}
    assert seen.stores == {device.type if resident else "cpu"}
    assert data.store.device.type == "cpu"  # given back afterwards


@pytest.mark.parametrize("family", FAMILIES)
def test_a_store_on_the_device_gives_the_batches_of_the_host(family, device):
    _, data = build(family)
    data.load()
    host, there = data.store, data.store.to(device)
    index = data.splits["train"][:20]
    expected, found = tensors_of(host.take(index)), tensors_of(there.take(index))
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        assert found[name].device.type == device.type
        assert torch.equal(found[name].cpu(), value), name
    assert there.nbytes == host.nbytes


def test_little_free_memory_leaves_the_store_on_the_host(device, monkeypatch):
    if device.type != "cuda":
        pytest.skip("free memory is asked for on a GPU only")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (1024, 1 << 30))
    task, data = build("graphs")
    seen = Seen()
    trainer(device, callbacks=[seen], limit_train_batches=2, limit_val_batches=0).fit(task, data)
    assert (seen.devices, seen.stores) == ({"cuda"}, {"cpu"})
